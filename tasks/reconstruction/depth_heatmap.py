"""The heatmap grid of a depth partition: each row of its grid layer is the book from T until one interval later. Drawing is publishing's.

Bins and touch are chosen as in heatmap.py, from the touch layer; where a book is suspect or not known comes from it too, to the nanosecond.
Silences and the time before the first message are known from the grid only. Columns are equally long, at most as many as there are grid
times, so that a picture of a day by the minute has one column a minute. Between windows nothing is drawn.

Prices of a picture are 1e-9. A layer with more decimals is not rounded: its units are drawn as if they were 1e-9, so the picture shows the
price of `price_multiple` of the instrument's units (13 decimals: of 10,000), as venues do who quote 1000PEPE.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.depth_batches import PRICE_DIGITS
from tasks.errors import SchemaMismatch, StorageError
from tasks.footers import is_done, read_footer
from tasks.heatmap_grid import HeatmapGrid
from tasks.partitions import Partition, Stamp, digest
from tasks.reconstruction.heat_kernels import accumulate_rows, settle_all
from tasks.reconstruction.heat_touch import Touch
from tasks.reconstruction.heatmap import LAYER, price_bins, stale_spans
from tasks.schemas import UNDEF_PRICE
from tasks.specs import interval_name

BBO_LAYER = "depth-bbo"
# Cells of level columns in work: 500 levels have 2,000 columns.
_BATCH_CELLS = 1 << 20


def price_multiple(price_digits: int) -> int:
    """Of how many units of the instrument the picture shows the price; 1 for layers in 1e-9."""
    return 10 ** max(price_digits - PRICE_DIGITS, 0)


def depth_heatmap_stamp(lake: Path, partition: Partition, grid_layer: str, width: int, height: int) -> Stamp:
    """The stamp of the grid: what touch and grid layer were made from, and the options of the picture."""
    footers = [read_footer(lake / partition.path(layer)) or {} for layer in (BBO_LAYER, grid_layer)]
    made_from = [[footer.get("bookmill.inputs"), footer.get("bookmill.recipe")] for footer in footers]
    return Stamp(digest(made_from), digest([grid_layer, width, height]))


def build_depth_heatmap(lake: Path, partition: Partition, *, depth: int, interval_ns: int, width: int = 1600, height: int = 1000) -> str | None:
    """Write the grid of a depth partition to the heatmap layer; returns its path relative to the lake, None when there was never a touch.

    depth, interval_ns: of the grid layer to draw, depth-<depth>-<interval>, the largest there is. width, height: most columns and rows of the
    picture. Sizes are in units of 1.0. Memory: one batch of a layer. Raises SchemaMismatch, StorageError.
    """
    layer = f"depth-{depth}-{interval_name(interval_ns)}"
    path, stamp = partition.path(LAYER), depth_heatmap_stamp(lake, partition, layer, width, height)
    if is_done(lake / path, stamp):
        return path
    try:
        rows, touch = _GridRows(lake / partition.path(layer), depth, interval_ns), Touch(lake / partition.path(BBO_LAYER))
        bins = price_bins(touch, rows.quoted_prices(), height)
        if bins is None or not len(rows.times):
            return None
        made = _grid(rows, touch, bins, width)
    except (OSError, pa.ArrowException) as fault:
        raise StorageError(f"Cannot read the layers of {partition}: {fault}. Start again: what is missing is rebuilt.") from fault
    made.save(lake / path, stamp)
    return path


class _GridRows:
    """The grid layer: times int64[n] ns and digits at once, the levels batch by batch."""

    def __init__(self, path: Path, depth: int, interval_ns: int) -> None:
        self.path, self.depth, self.interval = path, depth, interval_ns
        self._names = [[f"{side}_{kind}_{k:02d}" for k in range(depth) for side in ("bid", "ask")] for kind in ("px", "sz")]
        head = pq.read_table(path, columns=["ts_event", "price_digits", "size_digits"], partitioning=None)
        self.times = head["ts_event"].cast("int64").to_numpy()
        digits = {tuple(row.values()) for row in head.group_by(["price_digits", "size_digits"]).aggregate([]).to_pylist()}
        if len(digits) > 1 or any(price < PRICE_DIGITS for price, _ in digits):
            raise SchemaMismatch(
                path,
                f"(price_digits, size_digits) is {sorted(digits)}; allowed: one pair a file, prices with {PRICE_DIGITS} or more",
                remedy="Delete the file and start again: it is rebuilt.",
            )
        self.size_digits = next((size for _, size in digits), 0)

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """px, sz int64[2 * depth, n]: bid and ask by turns, best first."""
        px, sz = self._names
        rows = max(_BATCH_CELLS // (2 * len(px)), 1)
        for batch in pq.ParquetFile(self.path, pre_buffer=False).iter_batches(rows, columns=[*px, *sz], use_threads=False):
            yield np.stack([batch.column(name).to_numpy() for name in px]), np.stack([batch.column(name).to_numpy() for name in sz])

    def quoted_prices(self) -> np.ndarray:
        """Distinct prices of all levels in the first batch: the touch alone can stand on every second tick only."""
        return np.unique(next((px for px, _ in self.batches()), np.zeros(0, np.int64)))

    def spans(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(times, px, sz) of each batch, with an empty book where the last grid time of a window has stood for its interval."""
        at, before = 0, int(self.times[0]) if len(self.times) else 0
        for px, sz in self.batches():
            times = self.times[at : at + px.shape[1]]
            earlier = np.concatenate([[before], times[:-1]])
            gaps = np.flatnonzero(times - earlier > self.interval)
            at, before = at + len(times), int(times[-1])
            if len(gaps):
                times = np.insert(times, gaps, earlier[gaps] + self.interval)
                px, sz = np.insert(px, gaps, UNDEF_PRICE, axis=1), np.insert(sz, gaps, 0, axis=1)
            yield times, px, sz


def _grid(rows: _GridRows, touch: Touch, bins: tuple[int, int, int, int], width: int) -> HeatmapGrid:
    low, step, height, ticks = bins
    first, span = int(rows.times[0]), int(rows.times[-1]) + rows.interval - int(rows.times[0])
    width = min(width, max(span // rows.interval, 1))
    edges = first + span * np.arange(width + 1, dtype=np.int64) // width
    plane = np.zeros((2, height, width))
    held, since = np.zeros((2, height)), np.zeros((2, height))
    before_px, before_sz = np.full(2 * rows.depth, UNDEF_PRICE), np.zeros(2 * rows.depth, np.int64)
    for times, px, sz in rows.spans():
        # One division of integers: where columns are grid times, positions are whole, and no column bleeds into its neighbour.
        accumulate_rows(px, sz, (times - first) * width / span, before_px, before_sz, plane, held, since, low, step)
    settle_all(plane, held, since, float(width))
    plane /= 10.0**rows.size_digits
    bid_px, ask_px = touch.at(edges[1:])
    last = rows.times[np.searchsorted(rows.times, edges[1:]) - 1]
    away = edges[1:] > last + rows.interval
    bid_px[away], ask_px[away] = UNDEF_PRICE, UNDEF_PRICE
    return HeatmapGrid(
        bids=plane[0].astype(np.float32), asks=plane[1].astype(np.float32), time_edges=edges,
        price_edges=low + step * np.arange(height + 1, dtype=np.int64), bid_px=bid_px, ask_px=ask_px, spans=_spans(rows, touch, edges), axis="time",
        ticks=ticks,
    )  # fmt: skip


def _spans(rows: _GridRows, touch: Touch, edges: np.ndarray) -> tuple[tuple[int, int, str, str], ...]:
    """(start, end, status, reason) of each stretch of the picture in which the book is not valid, ascending."""
    first, end = int(edges[0]), int(edges[-1])
    found = [*touch.spans(end), *stale_spans(rows.path, rows.interval)]
    if touch.first > first:
        found.append((first, touch.first, "no_book", "no_snapshot"))
    inside = [(max(a, first), min(b, end), status, reason) for a, b, status, reason in found]
    return tuple(sorted(span for span in inside if span[0] < span[1]))
