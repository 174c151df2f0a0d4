"""The heatmap as a picture: 1600 x 1000 pixels with axes, legend and trades. Pixels come from paint_kernels.py, positions from axes.py, words from
picture_text.py.

The grid is resampled to the plot area inside the axes (PLOT): means over time, which keeps them time-weighted, and the maximum over
prices, so that no level vanishes between two pixels.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from tasks.heatmap_grid import HeatmapGrid
from tasks.publishing import axes, colours, paint_kernels
from tasks.publishing.picture_text import HEIGHT, PLOT, STRIP, WIDTH, time_marks, write_axes, write_head, write_legend
from tasks.schemas import UNDEF_PRICE
from tasks.storage import atomic_file

RIBBON = 6  # height of the status ribbon along the top of the plot: even a span of one pixel shows there
MARK_CELL = 4  # trades closer than this many pixels are drawn as one mark
MOST_MARKS = 2500
SMALLEST_MARK, LARGEST_MARK = 1.3, 9.0


def draw_png(grid: HeatmapGrid, trades: axes.Trades, path: Path, *, title: str, scale: str = "linear", touch: bool = True) -> None:
    """Draw `grid` with `trades` over it into the PNG `path`; the same arguments give the same bytes.

    trades: chunks of ts int64[n] ns on the grid's clock, price int64[n] 1e-9, size int[n], side uint8[n] ASCII codes B, A, N of the aggressor.
    scale: how colour follows size, one of colours.SCALES. touch: draw best bid and ask as lines. Raises UsageError for an unknown scale,
    StorageError when `path` cannot be written.
    """
    code = colours.scale_code(scale)
    traded = axes.trade_facts(trades)
    shown = axes.levels_of(grid, traded.prices)
    image = Image.new("RGB", (WIDTH, HEIGHT), colours.WHITE)
    canvas = np.array(image)
    plot = canvas[PLOT[1] : PLOT[3], PLOT[0] : PLOT[2]]
    marks_of_time = time_marks(grid)
    price_marks = axes.price_ticks(*shown.bounds, tick=shown.step if shown.exact else 1)
    y_of = _price_position(shown, plot.shape[0])

    plot[y_of(np.array(price_marks, np.int64)).clip(0, plot.shape[0] - 1)] = colours.GRID_LINE
    plot[:, [x for x, _ in marks_of_time]] = colours.GRID_LINE
    top = _paint_book(plot, shown, code)
    _paint_spans(plot, grid)
    if touch:
        _paint_touch(plot, grid, y_of)
    marks = _paint_trades(plot, grid, trades, y_of)
    peak = _paint_volume(canvas, grid, trades)

    image = Image.fromarray(canvas)
    pen = ImageDraw.Draw(image)
    write_head(pen, grid, shown, traded, marks, title, scale)
    write_axes(pen, grid, shown, marks_of_time, price_marks, y_of, peak)
    write_legend(image, pen, grid, traded, top, code)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    with atomic_file(path) as file:
        file.write(buffer.getbuffer())


def _price_position(shown: axes.Levels, height: int) -> Callable[[np.ndarray], np.ndarray]:
    low, high = shown.bounds

    def position(prices: np.ndarray) -> np.ndarray:
        share = (np.asarray(prices, np.int64) - low) / (high - low)
        return np.floor(height * (1.0 - np.clip(share, -1.0, 2.0))).astype(np.int32)

    return position


def _paint_book(plot: np.ndarray, shown: axes.Levels, code: int) -> float:
    """Paint the resting sizes; returns the size at which the ramps end."""
    height, width = plot.shape[:2]
    bids, asks = (paint_kernels.resample_columns(plane, width) for plane in (shown.bids, shown.asks))
    top = colours.top_size(bids, asks)
    from_bottom = np.arange(height - 1, -1, -1)
    count, band = len(shown.prices), height / len(shown.prices)
    first = (from_bottom * count // height).astype(np.int32)
    last = np.maximum(-(-(from_bottom + 1) * count // height), first + 1).astype(np.int32) if band < 1 else first + 1
    if band >= 6:  # a hairline between levels keeps neighbours of one colour countable
        last[:-1][first[:-1] != first[1:]] = 0
    paint_kernels.paint_cells(
        plot, bids, asks, first, last.astype(np.int32), colours.ramp(colours.BID_STOPS), colours.ramp(colours.ASK_STOPS), top, code, colours.LOG_RANGE
    )
    return top


def _paint_spans(plot: np.ndarray, grid: HeatmapGrid) -> None:
    height, width = plot.shape[:2]
    for start, end, status, _ in grid.spans:
        start, end = max(start, int(grid.time_edges[0])), min(end, int(grid.time_edges[-1]))
        if end < start:
            continue
        left, right = axes.column_position(grid, np.array([start, end]), width)
        x0 = min(int(left), width - 1)
        x1 = max(int(np.ceil(right)), x0 + 1)
        colour = np.array(colours.STATUS_COLOURS.get(status, colours.MUTED), np.uint8)
        rising, falling, tint = colours.HATCHES.get(status, (True, True, 0.1))
        paint_kernels.paint_hatch(plot, x0, x1, RIBBON, height, colour, rising, falling, 12, tint)
        plot[:RIBBON, x0:x1] = colour


def _paint_touch(plot: np.ndarray, grid: HeatmapGrid, y_of: Callable[[np.ndarray], np.ndarray]) -> None:
    height, width = plot.shape[:2]
    columns = ((np.arange(width) + 0.5) * len(grid.bid_px) / width).astype(int)
    for prices, colour in ((grid.bid_px[columns], colours.BID_LINE), (grid.ask_px[columns], colours.ASK_LINE)):
        y = y_of(np.where(prices == UNDEF_PRICE, 0, prices))
        y = np.where((prices == UNDEF_PRICE) | (y < 0) | (y >= height), -1, y).astype(np.int32)
        paint_kernels.paint_steps(plot, y, np.array(colour, np.uint8), 0.75)


def _paint_trades(plot: np.ndarray, grid: HeatmapGrid, trades: axes.Trades, y_of: Callable[[np.ndarray], np.ndarray]) -> tuple[int, int, int]:
    """Paint marks sized by volume; returns (marks painted, marks there would be, trades outside the picture)."""
    height, width = plot.shape[:2]
    cells, outside = np.zeros((3, height // MARK_CELL + 1, width // MARK_CELL + 1, 3), np.int64), 0
    for ts, price, size, side in trades:
        x = np.floor(axes.column_position(grid, ts, width)).astype(np.int32)
        x = np.where(x == width, width - 1, x).astype(np.int32)  # a trade at the very end
        y = np.where(price == UNDEF_PRICE, -1, y_of(np.where(price == UNDEF_PRICE, 0, price))).astype(np.int32)
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        outside += len(inside) - int(np.count_nonzero(inside))
        volumes, codes = np.asarray(size)[inside].astype(np.int64), axes.side_index(side[inside])
        paint_kernels.gather_trades(x[inside], y[inside], volumes, codes, MARK_CELL, cells)
    sides, rows, columns = np.nonzero(cells[..., 0])
    if len(sides) == 0:
        return 0, 0, outside
    volume, sum_x, sum_y = cells[sides, rows, columns].T
    largest = np.lexsort((columns, rows, sides, -volume))[:MOST_MARKS][::-1]  # drawn last, the largest stays whole
    reference = max(float(np.partition(volume, int(len(volume) * 0.99))[int(len(volume) * 0.99)]), 1.0)
    radius = SMALLEST_MARK + (LARGEST_MARK - SMALLEST_MARK) * np.sqrt(np.minimum(volume / reference, 1.0))
    if len(volume) > 400:  # many marks: smaller ones, or the touch drowns in them
        radius *= max(0.55, (400 / len(volume)) ** 0.3)
    fills = np.array([colours.BUY, colours.SELL, colours.UNKNOWN_SIDE], np.uint8)
    shapes = np.array([paint_kernels.SHAPE_UP, paint_kernels.SHAPE_DOWN, paint_kernels.SHAPE_DISC], np.int8)
    paint_kernels.paint_markers(
        plot, (sum_x / volume)[largest], (sum_y / volume)[largest], radius[largest], fills[sides[largest]], shapes[sides[largest]]
    )
    return len(largest), len(sides), outside


def _paint_volume(canvas: np.ndarray, grid: HeatmapGrid, trades: axes.Trades) -> int:
    """Bars of bought volume up and sold volume down, in bins of MARK_CELL pixels; returns the volume that fills half the strip.

    That volume is a high percentile: one block trade would flatten all other bars. Bars beyond it end at the strip's edge.
    """
    left, top, right, bottom = STRIP
    middle, half, width = (top + bottom) // 2, (bottom - top) // 2 - 1, right - left
    volume = np.zeros((3, width // MARK_CELL), np.int64)
    for ts, _, size, side in trades:
        x = axes.column_position(grid, ts, width)
        inside = (x >= 0) & (x <= width)
        bins = np.minimum((x[inside] / MARK_CELL).astype(int), width // MARK_CELL - 1)
        np.add.at(volume, (axes.side_index(side)[inside], bins), np.asarray(size)[inside].astype(np.int64))
    filled = np.sort(volume[volume > 0])
    peak = int(filled[min(int(len(filled) * 0.98), len(filled) - 1)]) if len(filled) else 0
    canvas[middle, left:right] = colours.FRAME
    if peak:
        tall = np.minimum(np.ceil(volume / peak * half), half).astype(int)
        for at in range(width // MARK_CELL):
            x0, x1 = left + at * MARK_CELL, left + (at + 1) * MARK_CELL - 1
            bought, sold, unknown = tall[:, at].tolist()
            canvas[middle - bought : middle, x0:x1] = colours.BUY
            canvas[middle + 1 : middle + 1 + sold, x0:x1] = colours.SELL
            canvas[max(middle - bought - unknown, top) : middle - bought, x0:x1] = colours.UNKNOWN_SIDE
    return peak
