"""The heatmap to explore: one offline HTML file with zoom, pan and exact hover. Data in compact arrays, unfolded by the page itself.

The grid travels once, signed (bids above zero, asks below), as int16 or float32, and becomes two traces in the browser.
"""

from __future__ import annotations

import math
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from tasks.heatmap_grid import HeatmapGrid
from tasks.publishing import axes, colours
from tasks.publishing.paint_kernels import resample_columns
from tasks.publishing.report_template import FONT, PLOT_CONFIG, page, script_json, typed
from tasks.schemas import PRICE_SCALE, UNDEF_PRICE
from tasks.storage import atomic_file

MOST_TRADES = 20_000
MOST_SPANS = 300
MOST_CELLS = 1_400_000  # at worst 7.5 MB as float32 in base64; with plotly.js (4.8 MB) and the trades (2 MB) below 15 MB
_MS = 1_000_000  # ns in the milliseconds that Plotly's date axes count

_STYLE = """
html,body{height:100%}
body{display:flex;flex-direction:column}
header{padding:12px 20px 0}
h1{font-size:20px}
header p{margin:2px 0;max-width:none;font-size:13.5px}
#heatmap{flex:1;min-height:420px}
"""

# Zero becomes NaN, which Plotly neither paints nor hovers; `text` rows share one array of labels.
_SCRIPT = """
const H = DATA;
const bytes = Uint8Array.from(atob(H.grid.bdata), c => c.charCodeAt(0));
const signed = H.grid.dtype === "i2" ? new Int16Array(bytes.buffer) : new Float32Array(bytes.buffer);
const plane = sign => {
  const rows = [];
  for (let r = 0; r < H.rows; r++) {
    const row = new Float32Array(H.columns);
    for (let c = 0; c < H.columns; c++) {
      const v = sign * signed[r * H.columns + c];
      row[c] = v > 0 ? v * H.unit : NaN;
    }
    rows.push(row);
  }
  return rows;
};
const times = Array(H.rows).fill(H.times);
const labels = H.prices.map(p => Array(H.columns).fill(p));
const books = H.books.map(b => ({...b.trace, z: plane(b.sign), text: times, customdata: labels}));
const node = document.getElementById("heatmap");
Plotly.newPlot(node, [...books, ...H.traces], H.layout, H.config).then(() => { node.dataset.ready = "yes"; });
"""


def draw_html(grid: HeatmapGrid, trades: axes.Trades, path: Path, *, title: str, scale: str = "linear") -> None:
    """Write `grid` and `trades` (as for draw_png) as one HTML file that needs no network; the same arguments give the same bytes.

    Beyond MOST_TRADES trades only the largest are in it, and the page says so. A grid of more than MOST_CELLS cells is thinned in time.
    Raises UsageError for an unknown scale, StorageError when `path` cannot be written.
    """
    colours.scale_code(scale)
    traded = axes.trade_facts(trades)
    shown = axes.levels_of(grid, traded.prices)
    width = min(shown.bids.shape[1], max(MOST_CELLS // len(shown.prices), 1))
    bids, asks = (plane if width == plane.shape[1] else resample_columns(plane, width) for plane in (shown.bids, shown.asks))
    signed = np.where(bids >= asks, bids, -asks)
    cells, unit = _compact(signed)
    spans, merged = _merged_spans(grid)
    chosen, traces = _trade_traces(grid, trades, width)
    data = {
        "grid": typed(cells),
        "unit": unit,
        "rows": len(shown.prices),
        "columns": width,
        "times": _column_labels(grid, width),
        "prices": _price_labels(shown),
        "books": _book_traces(grid, shown, width, bids, asks, scale),
        "traces": [*_touch_traces(grid), *traces],
        "layout": _layout(grid, shown, spans),
        "config": PLOT_CONFIG,
    }
    start, end = int(grid.time_edges[0]), int(grid.time_edges[-1])
    notes = [
        f"{axes.date_text(start)}, {axes.time_text(start, 10**9)} to {axes.time_text(end, 10**9)} UTC",
        f"{len(shown.prices):,} prices by {width:,} columns",
        f"{traded.count:,} trades" + (f", the largest {chosen:,} shown" if chosen < traded.count else ""),
        f"{len(grid.spans):,} spans without a valid book" + (" (near ones joined)" if merged else ""),
        "scroll to zoom, drag to select, double click to reset, click the legend to hide",
    ]
    body = f'<header><h1>{escape(title)}</h1><p class="muted">{escape("; ".join(notes))}.</p></header>\n<div id="heatmap"></div>'
    text = page(title, body, script=_SCRIPT.replace("DATA", script_json(data), 1), style=_STYLE)
    with atomic_file(path) as file:
        file.write(text.encode())


def _compact(signed: np.ndarray) -> tuple[np.ndarray, float]:
    """int16 cells and their unit, a power of ten, where that keeps the median size within 0.5%; else (giant sizes beside small ones) float32.

    A size above zero never becomes zero.
    """
    sizes = np.abs(signed[signed != 0])
    unit = 10.0 ** math.ceil(math.log10(float(sizes.max()) / 32_767)) if len(sizes) else 1.0
    if len(sizes) and unit > 0.01 * float(np.median(sizes)):
        return signed.astype(np.float32), 1.0
    units = np.maximum(np.rint(np.abs(signed.astype(np.float64)) / unit), signed != 0)
    return (np.sign(signed) * units).astype(np.int16), unit


def _positions(grid: HeatmapGrid, ns: np.ndarray) -> np.ndarray:
    """float64 x of times: ms since the epoch on a time axis, column number on an event axis."""
    if grid.axis == "event":
        return axes.column_position(grid, ns, len(grid.time_edges) - 1)
    start = int(grid.time_edges[0])
    return (np.asarray(ns, np.int64) - start) / _MS + start / _MS


def _column_labels(grid: HeatmapGrid, width: int) -> list[str]:
    edges = np.linspace(0, len(grid.time_edges) - 1, width + 1)
    starts = grid.time_edges[np.floor(edges[:-1]).astype(int)]
    step = _MS if int(grid.time_edges[-1] - grid.time_edges[0]) > 10 * width * _MS else 1
    return [axes.time_text(int(ns) // step * step, step) for ns in starts]


def _price_labels(shown: axes.Levels) -> list[str]:
    places = axes.decimals_of(int(shown.prices[0]), shown.step)
    text = [axes.price_text(int(p), places) for p in shown.prices]
    return text if shown.exact else [f"{low} to {axes.price_text(int(p) + shown.step, places)}" for low, p in zip(text, shown.prices, strict=True)]


def _book_traces(grid: HeatmapGrid, shown: axes.Levels, width: int, bids: np.ndarray, asks: np.ndarray, scale: str) -> list[dict[str, Any]]:
    top = colours.top_size(bids, asks)
    start, end = _positions(grid, grid.time_edges[[0, -1]])
    dx = (end - start) / width
    # Plotly has linear colours only: the other scales become stops.
    shares = np.linspace(0.0, 1.0, 33)
    index = (colours.intensity(shares, 1.0, scale) * 255).round().astype(int)
    traces = []
    for name, sign, stops, bar_x in (("Bids", 1, colours.BID_STOPS, 1.005), ("Asks", -1, colours.ASK_STOPS, 1.055)):
        ramp = colours.ramp(stops)
        trace = {
            "type": "heatmap", "name": name, "showlegend": True, "x0": start + dx / 2, "dx": dx,
            "y0": (int(shown.prices[0]) + (0 if shown.exact else shown.step / 2)) / PRICE_SCALE, "dy": shown.step / PRICE_SCALE,
            "zmin": 0, "zmax": top, "zauto": False, "hoverongaps": False,
            "colorscale": [[round(float(s), 6), colours.css(tuple(ramp[i].tolist()))] for s, i in zip(shares, index, strict=True)],
            "colorbar": {"title": {"text": f"{name}<br>size", "side": "top"}, "thickness": 12, "len": 0.9, "x": bar_x, "tickfont": {"size": 11}},
            "hovertemplate": f"%{{text}} UTC<br>price %{{customdata}}<br>{name.lower()} %{{z:,.6~g}}<extra></extra>",
        }  # fmt: skip
        traces.append({"sign": sign, "trace": trace})
    return traces


def _touch_traces(grid: HeatmapGrid) -> list[dict[str, Any]]:
    ends = _positions(grid, grid.time_edges[1:])
    traces = []
    for name, prices, colour in (("Best bid", grid.bid_px, colours.BID_LINE), ("Best ask", grid.ask_px, colours.ASK_LINE)):
        y = np.where(prices == UNDEF_PRICE, np.nan, prices / PRICE_SCALE)
        line = {"color": colours.css(colour), "width": 1, "shape": "vh"}
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": name,
                "x": typed(ends),
                "y": typed(y),
                "line": line,
                "hoverinfo": "skip",
                "connectgaps": False,
            }
        )
    return traces


def _trade_traces(grid: HeatmapGrid, trades: axes.Trades, width: int) -> tuple[int, list[dict[str, Any]]]:
    """(trades kept, one trace per side that occurs)."""
    ts, price, sizes, side = _largest(grid, trades)
    reference = max(float(np.quantile(sizes, 0.99)), 1.0) if len(sizes) else 1.0
    places = axes.decimals_of(*np.unique(price).tolist()) if len(price) else 0
    styles = (("Bought", colours.BUY, "triangle-up"), ("Sold", colours.SELL, "triangle-down"), ("Side not known", colours.UNKNOWN_SIDE, "circle"))
    traces: list[dict[str, Any]] = []
    for code, (name, colour, symbol) in enumerate(styles):
        chosen = np.flatnonzero(axes.side_index(side) == code)
        chosen = chosen[np.argsort(sizes[chosen], kind="stable")]  # drawn last, the largest stays whole
        if len(chosen) == 0:
            continue
        marker = {
            "symbol": symbol, "color": colours.css(colour), "opacity": 0.85, "line": {"width": 0.6, "color": "white"},
            "size": typed((3.0 + 12.0 * np.sqrt(np.minimum(sizes[chosen] / reference, 1.0))).astype(np.float32)),
        }  # fmt: skip
        text = [
            f"{axes.time_text(int(t))} UTC<br>{name.lower()} {int(s):,} at {axes.price_text(int(p), places)}"
            for t, s, p in zip(ts[chosen], sizes[chosen], price[chosen], strict=True)
        ]
        traces.append(
            {
                "type": "scattergl", "mode": "markers", "name": name, "x": typed(_positions(grid, ts[chosen])),
                "y": typed(price[chosen] / PRICE_SCALE), "marker": marker, "text": text, "hovertemplate": "%{text}<extra></extra>",
            }
        )  # fmt: skip
    return len(sizes), traces


def _largest(grid: HeatmapGrid, trades: axes.Trades) -> tuple[np.ndarray, ...]:
    """(ts, price, size int64, side) of the MOST_TRADES largest trades of the picture, of equal ones the earlier, in their order."""
    kept: tuple[np.ndarray, ...] = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint8)
    for ts, price, size, side in trades:
        known = (price != UNDEF_PRICE) & (ts >= grid.time_edges[0]) & (ts <= grid.time_edges[-1])
        new = ts[known], price[known], np.asarray(size)[known].astype(np.int64), side[known]
        kept = tuple(np.concatenate(pair) for pair in zip(kept, new, strict=True))
        if len(kept[0]) > MOST_TRADES:
            chosen = np.sort(np.argsort(-kept[2], kind="stable")[:MOST_TRADES])
            kept = tuple(values[chosen] for values in kept)
    return kept


def _merged_spans(grid: HeatmapGrid) -> tuple[list[tuple[int, int, str, str]], bool]:
    """Spans by start; beyond MOST_SPANS, those of one status with less than 1/1600 of the picture between them are joined."""
    spans = sorted(grid.spans)
    if len(spans) <= MOST_SPANS:
        return spans, False
    near = int(grid.time_edges[-1] - grid.time_edges[0]) // 1600
    while len(spans) > MOST_SPANS:
        joined: dict[str, list[tuple[int, int, str, str]]] = {}
        for start, end, status, reason in spans:
            row = joined.setdefault(status, [])
            if row and start - row[-1][1] <= near:
                row[-1] = (row[-1][0], max(end, row[-1][1]), status, row[-1][3])
            else:
                row.append((start, end, status, reason))
        spans, near = sorted(span for row in joined.values() for span in row), near * 2 + 1
    return spans, True


def _layout(grid: HeatmapGrid, shown: axes.Levels, spans: list[tuple[int, int, str, str]]) -> dict[str, Any]:
    low, high = shown.bounds
    start, end = _positions(grid, grid.time_edges[[0, -1]]).tolist()
    places = max(axes.decimals_of(shown.step), 2) if shown.exact else axes.decimals_of(shown.step // 10 * 10 or 1)
    shapes = []
    for first, last, status, reason in spans:
        x0, x1 = _positions(grid, np.array([max(first, int(grid.time_edges[0])), min(last, int(grid.time_edges[-1]))])).tolist()
        colour = colours.STATUS_COLOURS.get(status, colours.MUTED)
        label = {
            "text": f"{status.replace('_', ' ')}: {reason.replace('_', ' ')}" if (x1 - x0) > (end - start) / 60 else "",
            "textposition": "middle center",
        }
        shapes.append(
            {
                "type": "rect", "xref": "x", "yref": "paper", "x0": x0, "x1": x1, "y0": 0, "y1": 1, "layer": "above",
                "fillcolor": colours.css(colour, 0.22), "line": {"color": colours.css(colour), "width": 1, "dash": "dot"},
                "label": {**label, "font": {"size": 11, "color": colours.css(colour)}, "textangle": 90 if (x1 - x0) < (end - start) / 8 else 0},
            }
        )  # fmt: skip
    x_axis: dict[str, Any] = {"range": [start, end], "gridcolor": colours.css(colours.GRID_LINE), "title": {"text": "UTC"}, "showspikes": True,
                              "spikethickness": 1, "spikemode": "across", "spikedash": "dot"}  # fmt: skip
    if grid.axis == "event":
        ticks = np.linspace(0, len(grid.time_edges) - 1, 11).round().astype(int)
        labels = [axes.time_text(int(grid.time_edges[t]) // _MS * _MS, _MS) for t in ticks]
        x_axis |= {"type": "linear", "tickvals": ticks.tolist(), "ticktext": labels, "title": {"text": "UTC, spaced by event"}}
    else:
        x_axis |= {"type": "date"}
    return {
        "font": {"family": FONT, "size": 13, "color": colours.css(colours.INK)}, "margin": {"l": 20, "r": 175, "t": 40, "b": 50},
        "paper_bgcolor": "white", "plot_bgcolor": "white", "hovermode": "closest", "dragmode": "zoom", "shapes": shapes, "xaxis": x_axis,
        "yaxis": {"range": [low / PRICE_SCALE, high / PRICE_SCALE], "side": "left", "tickformat": f",.{min(places, 9)}f", "automargin": True,
                  "gridcolor": colours.css(colours.GRID_LINE)},
        "legend": {"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom", "itemsizing": "constant"},
    }  # fmt: skip
