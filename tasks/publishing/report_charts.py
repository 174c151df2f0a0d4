"""Charts of the run report: a few hundred to 2,000 points per partition, thinned in DuckDB, as Plotly figures. Queries and figures only."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq

from tasks.book_rows import as_read, star_sql
from tasks.footers import read_facts
from tasks.partitions import Partition
from tasks.publishing import colours
from tasks.publishing.ledger import layer_files
from tasks.publishing.report_template import FONT, typed
from tasks.schemas import PRICE_SCALE, UNDEF_PRICE

BUCKETS = 1_000  # points of a line over time
MOST_BARS = 300
MEMORY_BYTES = 512 * 2**20

Figure = dict[str, Any]
_MS = 1_000_000
_HEIGHTS = {"spread": 260, "depth": 280, "bars": 380, "throughput": 0, "memory": 260}


def connect() -> duckdb.DuckDBPyConnection:
    """A connection for the report's queries, small enough to stand beside the run that it reports on."""
    connection = duckdb.connect()
    connection.execute("SET threads = 2")
    connection.execute("SET memory_limit = ?", [f"{MEMORY_BYTES}B"])
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def book_figures(connection: duckdb.DuckDBPyConnection, lake: Path, partition: Partition, layers: list[str]) -> dict[str, Figure]:
    """Spread and depth over time from the best book layer there is (grid, event mbp, bbo); empty without one or without rows.

    Each point stands for a stretch of time: mean and largest spread, mean size of all levels. Stretches with a row that is not valid are shaded.
    """
    layer = _book_layer(layers)
    if layer is None:
        return {}
    path = layer_files(lake, partition, layer)[0]
    schema = pq.read_schema(path)
    names = as_read(schema).names
    sums = [" + ".join(n for n in names if re.fullmatch(rf"{side}_sz_\d+", n)) for side in ("bid", "ask")]
    two_sided = f"bid_px_00 <> {UNDEF_PRICE} AND ask_px_00 <> {UNDEF_PRICE}"
    result = connection.execute(
        f"""
        WITH file AS (SELECT epoch_ns(ts_event) AS t, {star_sql(schema)} FROM read_parquet($1, hive_partitioning = false)),
             -- A grid starts at midnight; what stands before the first book is empty.
             rows AS (SELECT * FROM file WHERE t >= coalesce((SELECT min(t) FROM file WHERE status <> 'no_book'), 0)),
             ends AS (SELECT min(t) AS first, greatest((max(t) - min(t)) // {BUCKETS} + 1, 1) AS width FROM rows)
        SELECT any_value(first) + (t - first) // width * width AS start,
               avg(ask_px_00 - bid_px_00) FILTER ({two_sided}), max(ask_px_00 - bid_px_00) FILTER ({two_sided}),
               avg({sums[0]}), avg({sums[1]}), bool_or(status <> 'valid'), any_value(width)
        FROM rows, ends GROUP BY (t - first) // width, first, width ORDER BY start
        """,
        [str(path)],
    ).fetchnumpy()
    start, mean, most, bids, asks, invalid, width = (np.ma.filled(column.astype(np.float64), np.nan) for column in result.values())
    if len(start) == 0:
        return {}
    x, shapes = start / _MS, _shaded(start, invalid, width)
    facts = read_facts(path)
    price_scale, size_scale = 10.0 ** facts.get("price_digits", 9), 10.0 ** facts.get("size_digits", 0)
    bids, asks = bids / size_scale, asks / size_scale
    depth = len(sums[0].split(" + "))
    return {
        "spread": _figure(
            "spread",
            [_line("largest", x, most / price_scale, colours.ASK_STOPS[0]), _line("mean", x, mean / price_scale, colours.INK)],
            {"yaxis": {"title": {"text": "spread"}, "rangemode": "tozero"}, "shapes": shapes},
        ),
        "depth": _figure(
            "depth",
            [_line("bid size", x, bids, (0, 60, 220), fill=True), _line("ask size", x, -asks, (214, 60, 0), fill=True, hover=asks)],
            {"yaxis": {"title": {"text": f"size over {depth} level{'s' if depth > 1 else ''}"}}, "shapes": shapes},
        ),
    }  # fmt: skip


def bar_figure(connection: duckdb.DuckDBPyConnection, lake: Path, partition: Partition, layers: list[str]) -> Figure | None:
    """Open, high, low, close with volume, joined to at most MOST_BARS bars; None without a bars layer or without trades."""
    layer = _bar_layer(layers)
    if layer is None:
        return None
    path = str(layer_files(lake, partition, layer)[0])
    # Bars of equally many trades can begin at the same nanosecond: what comes first and last is their order in the file.
    file = "read_parquet($1, hive_partitioning = false, file_row_number = true)"
    traded = f"(SELECT epoch_ns(ts_event) AS t, * FROM {file} WHERE open <> {UNDEF_PRICE} AND trades > 0)"
    first, last = connection.execute(f"SELECT min(t), max(t) FROM {traded}", [path]).fetchall()[0]
    if first is None:
        return None
    width = next((s * 10**9 for s in _BAR_SECONDS if s * 10**9 * MOST_BARS > last - first), last - first + 1)
    result = connection.execute(
        f"""
        SELECT t // $2 * $2 AS start, arg_min(open, file_row_number), max(high), min(low), arg_max(close, file_row_number), sum(buy_volume)::BIGINT,
               sum(sell_volume)::BIGINT, sum(volume)::BIGINT
        FROM {traded} GROUP BY start ORDER BY start
        """,
        [path, width],
    ).fetchnumpy()
    start, open_, high, low, close, bought, sold, volume = (np.ma.filled(c.astype(np.float64), np.nan) for c in result.values())
    x = typed(start / _MS)
    prices = {k: typed(v / PRICE_SCALE) for k, v in (("open", open_), ("high", high), ("low", low), ("close", close))}
    candles = {
        "type": "candlestick", "name": f"bars of {_span(width)}", "x": x, **prices, "showlegend": False,
        "increasing": {"line": {"color": colours.css(colours.BUY), "width": 1}},
        "decreasing": {"line": {"color": colours.css((200, 40, 40)), "width": 1}},
    }  # fmt: skip
    parts = (("bought", bought, colours.BUY), ("sold", sold, colours.SELL), ("side not known", volume - bought - sold, colours.UNKNOWN_SIDE))
    stacks = [
        {"type": "bar", "name": name, "x": x, "y": typed(values), "yaxis": "y2", "marker": {"color": colours.css(colour), "line": {"width": 0}}}
        for name, values, colour in parts
        if values.any()
    ]
    layout = {
        "barmode": "stack", "bargap": 0.1, "xaxis": {"rangeslider": {"visible": False}, "anchor": "y2"},
        "yaxis": {"domain": [0.32, 1], "title": {"text": f"price, {_span(width)} bars"}},
        "yaxis2": {"domain": [0, 0.24], "title": {"text": "volume"}},
    }  # fmt: skip
    return _figure("bars", [candles, *stacks], layout)


def throughput_figure(stages: list[dict[str, Any]]) -> Figure | None:
    """Rows per second of each stage over all its partitions."""
    totals: dict[str, list[float]] = {}
    for entry in stages:
        total = totals.setdefault(str(entry.get("stage", "")), [0.0, 0.0])
        total[0] += float(entry.get("rows") or 0)
        total[1] += float(entry.get("seconds") or 0)
    rates = {name: rows / seconds for name, (rows, seconds) in totals.items() if seconds > 0 and rows > 0}
    if not rates:
        return None
    bar = {
        "type": "bar", "orientation": "h", "x": list(rates.values()), "y": list(rates), "marker": {"color": "#3b6fd4"}, "width": 0.6,
        "text": [f"{rate:,.0f} rows/s" for rate in rates.values()], "textposition": "auto", "hovertemplate": "%{y}: %{x:,.0f} rows/s<extra></extra>",
    }  # fmt: skip
    layout = {
        "xaxis": {"type": "linear", "title": {"text": "rows a second"}},
        "yaxis": {"type": "category", "autorange": "reversed", "automargin": True},
    }
    return {**_figure("throughput", [bar], layout), "height": 110 + 38 * len(rates)}


def memory_figure(memory: list[tuple[float, int]]) -> Figure | None:
    """Resident memory over the run."""
    if not memory:
        return None
    seconds, used = np.array(memory, np.float64).T
    keep = np.unique(np.linspace(0, len(seconds) - 1, min(len(seconds), 2 * BUCKETS)).astype(int))
    line = _line("resident memory", seconds[keep], used[keep] / 2**20, (59, 111, 212), fill=True)
    return _figure(
        "memory", [line], {"xaxis": {"type": "linear", "title": {"text": "seconds"}}, "yaxis": {"title": {"text": "MB"}, "rangemode": "tozero"}}
    )


_BAR_SECONDS = (1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 86400)


def _book_layer(layers: list[str]) -> str | None:
    """A grid before event rows before the touch: the shortest layer that answers."""
    for pattern in (r"mbp-\d+-.+", r"mbp-\d+", r"bbo", r"depth-\d+-.+"):
        found = [layer for layer in layers if re.fullmatch(pattern, layer)]
        if found:
            return found[0]
    return None


def _bar_layer(layers: list[str]) -> str | None:
    """Time bars before other bars; of several the coarsest name that is still fine enough is not worth a query: the finest is joined here."""
    seconds = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
    timed = [(float(m[1]) * seconds[m[2]], layer) for layer in layers if (m := re.fullmatch(r"ohlcv-(\d+)(ms|s|m|h|d)", layer))]
    return min(timed)[1] if timed else next((layer for layer in layers if layer.startswith(("ohlcv-", "bars-"))), None)


def _span(nanoseconds: int) -> str:
    seconds = nanoseconds // 10**9
    for size, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if seconds % size == 0 and seconds:
            return f"{seconds // size} {name}"
    return f"{nanoseconds} ns"


def _shaded(start: np.ndarray, invalid: np.ndarray, width: np.ndarray) -> list[dict[str, Any]]:
    """Grey bands over runs of stretches with rows that are not valid."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], (invalid > 0).astype(np.int8), [0]])))
    return [
        {
            "type": "rect", "xref": "x", "yref": "paper", "x0": start[a] / _MS, "x1": (start[b - 1] + width[b - 1]) / _MS, "y0": 0, "y1": 1,
            "fillcolor": colours.css(colours.STATUS_COLOURS["suspect"], 0.16), "line": {"width": 0}, "layer": "below",
        }
        for a, b in edges.reshape(-1, 2)[:500].tolist()
    ]  # fmt: skip


def _line(name: str, x: np.ndarray, y: np.ndarray, colour: colours.RGB, *, fill: bool = False, hover: np.ndarray | None = None) -> dict[str, Any]:
    trace: dict[str, Any] = {"type": "scatter", "mode": "lines", "name": name, "x": typed(x), "y": typed(y), "connectgaps": False}
    trace["line"] = {"color": colours.css(colour), "width": 1.2, "shape": "hv"}
    trace["hovertemplate"] = "%{customdata:,.6~g}" if hover is not None else "%{y:,.6~g}"
    if hover is not None:
        trace["customdata"] = typed(hover)
    if fill:
        trace |= {"fill": "tozeroy", "fillcolor": colours.css(colour, 0.18)}
    return trace


def _figure(kind: str, data: list[dict[str, Any]], layout: dict[str, Any]) -> Figure:
    base: dict[str, Any] = {
        "font": {"family": FONT, "size": 12, "color": colours.css(colours.INK)}, "margin": {"l": 70, "r": 20, "t": 28, "b": 40},
        "paper_bgcolor": "white", "plot_bgcolor": "white", "hovermode": "x unified",
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
    }  # fmt: skip
    line = {"gridcolor": colours.css(colours.GRID_LINE), "zerolinecolor": colours.css(colours.FRAME)}
    for axis, own in (("xaxis", {"type": "date"}), ("yaxis", {"automargin": True}), ("yaxis2", None)):
        if own is not None or axis in layout:
            base[axis] = {**line, **(own or {}), **layout.get(axis, {})}
    return {"data": data, "layout": {**{k: v for k, v in layout.items() if not k.startswith(("xaxis", "yaxis"))}, **base}, "height": _HEIGHTS[kind]}


def moment(text: str) -> str:
    """An ISO time as people read it, in UTC; text that is no ISO time stays as it is."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return text
    return (at.astimezone(UTC) if at.tzinfo else at).strftime("%Y-%m-%d %H:%M:%S") + " UTC"
