"""The heatmap grid of one partition: where its pixels lie, and how they are filled. Drawing is publishing's business.

Order-by-order partitions are replayed a second time over all their depth (the replay costs far less than a wide read of the book rows);
windowed ones take the mbp rows. The touch per column and the spans in which the book is not valid come from the bbo layer. The picture is of
the windows in which rows were wanted: a gap between two of them is empty on an axis of time, and has no column on one of events.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.ahead import ahead
from tasks.book_rows import as_read, read_rows
from tasks.events_file import read_events
from tasks.footers import is_done, read_footer
from tasks.heatmap_grid import HeatmapGrid
from tasks.partitions import MboRecipe, Partition, Stamp, digest
from tasks.reconstruction.heat_kernels import accumulate, accumulate_rows, price_rows, refill, settle_all, time_positions
from tasks.reconstruction.heat_touch import TOUCH_ROWS, Touch, touch_within
from tasks.reconstruction.heat_windows import HeatWindows, Span
from tasks.reconstruction.layer_writer import Rebuilt, layer_names
from tasks.reconstruction.rebuild import goes_on, in_time_order, restore_closing
from tasks.reconstruction.replay import Replay
from tasks.reconstruction.replay_kernels import Batch
from tasks.schemas import F_LAST, F_SNAPSHOT, UNDEF_PRICE

LAYER = "heatmap"
MARGIN_TICKS = 20
QUOTED_ROWS = 65_536
_COLUMNS = ("ts_event", "ts_recv", "action", "side", "price", "size", "order_id", "flags", "sequence")
_NO_MARKS = np.zeros(0, np.int64)


def heatmap_stamp(lake: Path, rebuilt: Rebuilt, recipe: MboRecipe) -> Stamp:
    """The stamp of the grid: what the books were made from, and the options of the picture."""
    footer = read_footer(lake / rebuilt.outputs["bbo"][0]) or {}
    options = recipe.digest_of("heatmap_axis", "heatmap_width", "heatmap_height")
    return Stamp(digest([footer.get("bookmill.inputs"), footer.get("bookmill.recipe")]), options)


def build_heatmap(
    lake: Path,
    partition: Partition,
    events: Sequence[str],
    rebuilt: Rebuilt,
    recipe: MboRecipe,
    *,
    carry: str | None = None,
    batch_rows: int = 65_536,
) -> str | None:
    """Write the grid of a rebuilt partition to the heatmap layer; returns its path relative to the lake, None when there was never a touch."""
    path, stamp = partition.path(LAYER), heatmap_stamp(lake, rebuilt, recipe)
    if is_done(lake / path, stamp):
        return path
    windows = HeatWindows(rebuilt.facts["windows"])
    layers = layer_names(recipe)
    book_rows, grid = (lake / rebuilt.outputs[layers[kind]][0] for kind in ("rows", "grid"))
    bbo = Touch(lake / rebuilt.outputs["bbo"][0], windows)
    prices = price_bins(bbo, _quoted_prices(book_rows), recipe.heatmap_height)
    if prices is None:
        return None
    low, step, rows, ticks = prices
    axis = _Axis(recipe.heatmap_axis, recipe.heatmap_width, bbo, book_rows, windows)
    plane = np.zeros((2, rows, recipe.heatmap_width), np.float64)
    held, since = np.zeros((2, rows)), np.zeros((2, rows))
    events = in_time_order(lake, partition, events)
    truth = partition.path("truth", events[0].rsplit("-", 1)[-1].removesuffix(".parquet"))
    if (lake / truth).exists():
        _from_rows(book_rows, axis, recipe, plane, held, since, low, step)
    else:
        _from_events(lake, events, carry, axis, recipe, batch_rows, plane, held, since, low, step)
    settle_all(plane, held, since, float(recipe.heatmap_width))
    bid_px, ask_px = touch_within(windows, bbo, book_rows, grid, axis.edges[1:])
    stale = stale_spans(grid, recipe.interval_ns)
    HeatmapGrid(
        bids=plane[0].astype(np.float32), asks=plane[1].astype(np.float32), time_edges=axis.edges,
        price_edges=low + step * np.arange(rows + 1, dtype=np.int64), bid_px=bid_px, ask_px=ask_px,
        spans=tuple(sorted(windows.cut(bbo.spans(int(axis.edges[-1])) + stale))),
        axis=recipe.heatmap_axis, ticks=ticks,
    ).save(lake / path, stamp)  # fmt: skip
    return path


def stale_spans(path: Path, interval_ns: int) -> tuple[Span, ...]:
    """(start, end, status, reason) of each stretch without an event that is longer than stale_after; only grid rows can be stale."""
    found: list[Span] = []
    for batch in pq.ParquetFile(path, pre_buffer=False).iter_batches(columns=["ts_event", "status", "status_since"]):
        rows = batch.filter(pc.equal(batch.column("status").cast("string"), "stale"))
        if not rows.num_rows:
            continue
        since, times = (rows.column(name).cast("int64").to_numpy() for name in ("status_since", "ts_event"))
        starts, first = np.unique(since, return_index=True)
        for start, last in zip(starts.tolist(), [*first[1:].tolist(), len(since)], strict=True):
            end = int(times[last - 1]) + interval_ns
            if found and found[-1][0] == start:
                found[-1] = (start, end, "stale", "silence")
            else:
                found.append((start, end, "stale", "silence"))
    return tuple(found)


def _quoted_prices(path: Path) -> np.ndarray:
    """Distinct prices of all levels in the first rows of a book layer: the touch alone can stand on every second tick only."""
    names = [name for name in as_read(pq.read_schema(path)).names if "_px_" in name]
    batch = next(read_rows(path, names, QUOTED_ROWS), None)
    if batch is None:
        return np.zeros(0, np.int64)
    return np.unique(np.concatenate([pc.unique(column).to_numpy() for column in batch.columns]))


def price_bins(bbo: Touch, quoted: np.ndarray, height: int) -> tuple[int, int, int, int] | None:
    """(lowest edge, bin height, bins, ticks a bin): the touch's range, weighted by time, with a margin; bins are whole ticks, at most `height`.

    The tick is the greatest common divisor of the differences of the touch's prices and those of `quoted` inside of the range.
    """
    px, weight = bbo.weights
    if not len(px):
        return None
    share = np.cumsum(weight) / weight.sum()
    low, high = px[np.minimum(np.searchsorted(share, (0.005, 0.995)), len(px) - 1)].tolist()
    near = max((high - low) // 5, abs(high) // 1_000)
    distinct = np.unique(np.concatenate([px, quoted[(quoted >= low - near) & (quoted <= high + near)]]))
    tick = int(np.gcd.reduce(distinct - distinct[0])) or max(abs(int(distinct[0])) // 10_000, 1)
    margin = max(MARGIN_TICKS * tick, (high - low) // 5)
    ticks = (high - low + 2 * margin) // tick + 1
    per_bin = -(-ticks // height)
    first = (low - margin - int(distinct[0])) // tick * tick + int(distinct[0])
    return first - tick // 2, per_bin * tick, -(-ticks // per_bin), per_bin


class _Axis:
    """Columns of the picture: equally long (time) or holding equally many event ends of the windows (event). edges int64[width + 1] ns."""

    def __init__(self, kind: str, width: int, bbo: Touch, rows_path: Path, windows: HeatWindows) -> None:
        self._kind, self._width, self._windows, self._events = kind, width, windows, 0
        self._gaps, self._passed = list[tuple[float, float]](), 0  # positions of all, and how many of them the records have passed
        if kind == "time":
            file = pq.ParquetFile(rows_path, pre_buffer=False)
            first, last = _span(rows_path) if file.metadata.num_rows else (bbo.first, bbo.last)
            self.edges = np.linspace(0, max(last - first, width), width + 1).astype(np.int64) + first
            self._scale = width / float(self.edges[-1] - self.edges[0])
            self._gaps = [((end - first) * self._scale, (start - first) * self._scale) for end, start in windows.gaps]
        else:
            file = pq.ParquetFile(rows_path, pre_buffer=False)
            self._total = file.metadata.num_rows
            at = np.minimum(np.arange(width + 1) * self._total // width, self._total - 1)
            self.edges, start = np.empty(width + 1, np.int64), 0
            for batch in file.iter_batches(TOUCH_ROWS, columns=["as_of"]):
                here = (at >= start) & (at < start + len(batch))
                self.edges[here] = batch.column(0).cast("int64").to_numpy()[at[here] - start]
                start += len(batch)

    def positions(self, clock: np.ndarray, flags: np.ndarray) -> np.ndarray:
        """float64[n] position of each record: that of the event end that completes it; in a gap that of the window after it."""
        if self._kind == "time":
            places = np.empty(len(clock), np.float64)
            time_positions(clock, flags, self.edges[0], self._scale, places)
            for end, start in self._gaps:
                places[(places >= end) & (places < start)] = start
            return places
        ends = np.flatnonzero(flags & F_LAST)
        inside = self._windows.holds(clock)
        ended = np.zeros(len(clock), np.int64)
        ended[ends] = 1
        x = (self._events + np.cumsum(ended * inside)) * (self._width / self._total)
        self._events += int((ended * inside).sum())
        following = np.searchsorted(ends, np.arange(len(clock)))
        known = following < len(ends)
        x[known] = x[ends[following[known]]]
        return np.maximum.accumulate(x.astype(np.float64))

    def parts(self, x: np.ndarray) -> list[tuple[int, tuple[float, float] | None]]:
        """(end of the part, the gap after it) of the parts into which gaps that nothing passed before divide records at x; none after the last."""
        passed = [gap for gap in self._gaps[self._passed :] if x[-1] >= gap[0]]
        self._passed += len(passed)
        return [*((int(np.searchsorted(x, gap[0])), gap) for gap in passed), (len(x), None)]


def _span(path: Path) -> tuple[int, int]:
    """First and last as_of of a layer, from its first and last row group."""
    file = pq.ParquetFile(path, pre_buffer=False)
    head = file.read_row_group(0, ["as_of"])["as_of"].cast("int64")
    tail = file.read_row_group(file.num_row_groups - 1, ["as_of"])["as_of"].cast("int64")
    return head[0].as_py(), tail[-1].as_py()


def _from_events(
    lake: Path, events: Sequence[str], carry: str | None, axis: _Axis, recipe: MboRecipe, batch_rows: int,
    plane: np.ndarray, held: np.ndarray, since: np.ndarray, low: int, step: int,
) -> None:  # fmt: skip
    replay = Replay(depth=1, interval_ns=recipe.interval_ns, clock=recipe.clock, windows=[], starts_empty=recipe.starts_empty, batch_rows=batch_rows)
    row_of = np.zeros(0, np.int32)
    if carry and goes_on(lake, events, carry):
        restore_closing(replay, lake / carry)
        row_of = _rows_of(replay.book.arrays.prices, low, step, plane)
        refill(replay.book.arrays, len(row_of), plane, held, since, 0.0, row_of)
    rank = np.zeros(batch_rows, np.int32)
    now = 0
    for name in events:
        replay.next_file()
        for columns in ahead(read_events(lake / name, _COLUMNS, batch_rows), 2, "read"):
            n = len(columns["price"])
            clock = columns[recipe.clock]
            if recipe.clock == "ts_event":
                clock = np.where(columns["flags"] & F_SNAPSHOT, columns["ts_recv"], clock)
            clock = np.maximum(np.maximum.accumulate(clock), now)
            now = int(clock[-1])
            x = axis.positions(clock, columns["flags"])
            replay.book.ranks(columns["price"], rank[:n])
            if len(row_of) != len(replay.book.arrays.prices):
                row_of = _rows_of(replay.book.arrays.prices, low, step, plane)
            batch = Batch(
                action=columns["action"], side=columns["side"], flags=columns["flags"], rank=rank[:n], size=columns["size"],
                order_id=columns["order_id"], clock=clock, sequence=columns["sequence"], marks=_NO_MARKS,
            )  # fmt: skip
            at = 0
            for stop, gap in axis.parts(x):
                while at < stop:
                    at = accumulate(batch, at, stop, x, replay.book.arrays, plane, held, since, row_of)
                    if at < stop:
                        replay.book.grow_pool()
                if gap:
                    _leave_out(gap, plane, held, since)


def _leave_out(gap: tuple[float, float], plane: np.ndarray, held: np.ndarray, since: np.ndarray) -> None:
    """Nothing is drawn between the two positions."""
    settle_all(plane, held, since, gap[0])
    since[:] = gap[1]


def _rows_of(prices: np.ndarray, low: int, step: int, plane: np.ndarray) -> np.ndarray:
    found = np.empty(len(prices), np.int32)
    price_rows(prices, low, step, plane.shape[1], found)
    return found


def _from_rows(path: Path, axis: _Axis, recipe: MboRecipe, plane: np.ndarray, held: np.ndarray, since: np.ndarray, low: int, step: int) -> None:
    names = [(f"{side}_px_{level:02d}", f"{side}_sz_{level:02d}") for level in range(recipe.depth) for side in ("bid", "ask")]
    before_px, before_sz = np.full(len(names), UNDEF_PRICE), np.zeros(len(names), np.int64)
    for batch in read_rows(path, ["as_of", *(n for pair in names for n in pair)]):
        clock = batch.column("as_of").cast("int64").to_numpy()
        x = axis.positions(clock, np.full(len(clock), F_LAST, np.uint8))
        px = np.stack([batch.column(p).to_numpy() for p, _ in names])
        sz = np.stack([batch.column(s).to_numpy() for _, s in names])
        at = 0
        for stop, gap in axis.parts(x):
            part = np.ascontiguousarray(px[:, at:stop]), np.ascontiguousarray(sz[:, at:stop])
            accumulate_rows(*part, x[at:stop], before_px, before_sz, plane, held, since, low, step)
            if gap:  # what the book became in it is known from the next row on
                _leave_out((gap[0], float(x[stop])), plane, held, since)
            at = stop
