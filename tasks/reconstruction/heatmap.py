"""The heatmap grid of one partition: where its pixels lie, and how they are filled. Drawing is publishing's business.

Order-by-order partitions are replayed a second time over all their depth (the replay costs far less than a wide read of the book rows);
windowed ones take the mbp rows. The touch per column and the spans in which the book is not valid come from the bbo layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.ahead import ahead
from tasks.book_rows import as_read, read_rows
from tasks.events_file import read_events
from tasks.footers import is_done, read_footer
from tasks.heatmap_grid import HeatmapGrid
from tasks.partitions import MboRecipe, Partition, Stamp, digest
from tasks.reconstruction.heat_kernels import accumulate, accumulate_rows, price_rows, refill, settle_all, time_positions
from tasks.reconstruction.layer_writer import Rebuilt, layer_names
from tasks.reconstruction.rebuild import in_time_order, restore_closing, starts_clean
from tasks.reconstruction.replay import Replay
from tasks.reconstruction.replay_kernels import Batch
from tasks.schemas import F_LAST, F_SNAPSHOT, REASONS, STATUSES, UNDEF_PRICE, VALID

LAYER = "heatmap"
MARGIN_TICKS = 20
QUOTED_ROWS = 65_536
TOUCH_ROWS = 131_072
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
    bbo = Touch(lake / rebuilt.outputs["bbo"][0])
    prices = price_bins(bbo, _quoted_prices(lake / rebuilt.outputs[layer_names(recipe)["rows"]][0]), recipe.heatmap_height)
    if prices is None:
        return None
    low, step, rows = prices
    axis = _Axis(recipe.heatmap_axis, recipe.heatmap_width, bbo, lake / rebuilt.outputs[layer_names(recipe)["rows"]][0])
    plane = np.zeros((2, rows, recipe.heatmap_width), np.float64)
    held, since = np.zeros((2, rows)), np.zeros((2, rows))
    events = in_time_order(lake, partition, events)
    truth = partition.path("truth", events[0].rsplit("-", 1)[-1].removesuffix(".parquet"))
    if (lake / truth).exists():
        _from_rows(lake / rebuilt.outputs[layer_names(recipe)["rows"]][0], axis, recipe, plane, held, since, low, step)
    else:
        _from_events(lake, events, carry, axis, recipe, batch_rows, plane, held, since, low, step)
    settle_all(plane, held, since, float(recipe.heatmap_width))
    bid_px, ask_px = bbo.at(axis.edges[1:])
    stale = stale_spans(lake / rebuilt.outputs[layer_names(recipe)["grid"]][0], recipe.interval_ns)
    HeatmapGrid(
        bids=plane[0].astype(np.float32), asks=plane[1].astype(np.float32), time_edges=axis.edges,
        price_edges=low + step * np.arange(rows + 1, dtype=np.int64), bid_px=bid_px, ask_px=ask_px,
        spans=tuple(sorted(bbo.spans(int(axis.edges[-1])) + stale)),
        axis=recipe.heatmap_axis,
    ).save(lake / path, stamp)  # fmt: skip
    return path


class Touch:
    """What a picture needs of a bbo layer. Memory: one batch, the distinct prices and the changes of status, however long the layer is.

    weights: price int64[n] 1e-9, ascending, and int64[n] of each, ns for which it was best bid or best ask and one for every row that says so.
    first, last: as_of of the first and the last row; 0 where there is none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.first = self.last = 0
        self.weights = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._changes: list[tuple[int, str, str]] = []
        kept: list[tuple[np.ndarray, np.ndarray]] = []
        before: tuple[int, int, int] | None = None
        for as_of, bid, ask, batch in self._batches(["status", "reason"]):
            if before is None:
                self.first = int(as_of[0])
            else:
                as_of, bid, ask = (np.concatenate([[one], many]) for one, many in zip(before, (as_of, bid, ask), strict=True))
            kept.append(_added(bid[:-1], ask[:-1], np.diff(as_of)))
            if len(kept) > 64:
                kept = [_summed(kept)]
            self._follow(batch)
            before = int(as_of[-1]), int(bid[-1]), int(ask[-1])
        if before is not None:
            self.last = before[0]
            kept.append(_added(np.array([before[1]]), np.array([before[2]]), np.array([1])))
            self.weights = _summed(kept)

    def _batches(self, more: Sequence[str] = ()) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, pa.RecordBatch]]:
        """(as_of, best bid, best ask, all of the batch)."""
        with pq.ParquetFile(self._path, read_dictionary=["status", "reason"], pre_buffer=False) as file:
            for batch in file.iter_batches(TOUCH_ROWS, columns=["as_of", "bid_px_00", "ask_px_00", *more]):
                yield batch["as_of"].cast("int64").to_numpy(), batch["bid_px_00"].to_numpy(), batch["ask_px_00"].to_numpy(), batch

    def _follow(self, batch: pa.RecordBatch) -> None:
        """Note where status or reason become others."""
        status, reason = _codes(batch["status"], STATUSES), _codes(batch["reason"], REASONS)
        changed = np.flatnonzero((status[1:] != status[:-1]) | (reason[1:] != reason[:-1])) + 1
        for row in [0, *changed.tolist()]:
            state = STATUSES[status[row]], REASONS[reason[row]]
            if not self._changes or self._changes[-1][1:] != state:
                self._changes.append((batch["as_of"][row].value, *state))

    def at(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Touch after the last change before each time. Reads the layer again."""
        bid, ask = np.full(len(times), UNDEF_PRICE), np.full(len(times), UNDEF_PRICE)
        for as_of, bids, asks, _ in self._batches():
            k = np.searchsorted(as_of, times, side="left") - 1
            bid[k >= 0], ask[k >= 0] = bids[k[k >= 0]], asks[k[k >= 0]]
        return bid, ask

    def spans(self, end: int) -> tuple[tuple[int, int, str, str], ...]:
        """(start, end, status, reason) of each stretch that is not valid."""
        ends = [*(start for start, _, _ in self._changes[1:]), end][: len(self._changes)]
        return tuple((start, e, status, reason) for (start, status, reason), e in zip(self._changes, ends, strict=True) if status != STATUSES[VALID])


def _added(bid: np.ndarray, ask: np.ndarray, held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of rows that stood for `held` ns each, see Touch."""
    return _summed([(px, held + 1) for px in (bid, ask)])


def _summed(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Weights by price, ascending, of parts that may name a price more than once."""
    px, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
    known = px != UNDEF_PRICE
    distinct, place = np.unique(px[known], return_inverse=True)
    total = np.zeros(len(distinct), np.int64)
    np.add.at(total, place, weight[known])
    return distinct, total


def stale_spans(path: Path, interval_ns: int) -> tuple[tuple[int, int, str, str], ...]:
    """(start, end, status, reason) of each stretch without an event that is longer than stale_after; only grid rows can be stale."""
    found: list[tuple[int, int, str, str]] = []
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


def _codes(array: pa.DictionaryArray, values: tuple[str, ...]) -> np.ndarray:
    """Positions in `values` of a dictionary column."""
    return np.array([values.index(v) for v in array.dictionary.to_pylist()])[array.indices.to_numpy()]


def _quoted_prices(path: Path) -> np.ndarray:
    """Distinct prices of all levels in the first rows of a book layer: the touch alone can stand on every second tick only."""
    names = [name for name in as_read(pq.read_schema(path)).names if "_px_" in name]
    batch = next(read_rows(path, names, QUOTED_ROWS), None)
    if batch is None:
        return np.zeros(0, np.int64)
    return np.unique(np.concatenate([pc.unique(column).to_numpy() for column in batch.columns]))


def price_bins(bbo: Touch, quoted: np.ndarray, height: int) -> tuple[int, int, int] | None:
    """(lowest edge, bin height, bins): the touch's range, weighted by time, with a margin; bins are whole ticks, at most `height`.

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
    return first - tick // 2, per_bin * tick, -(-ticks // per_bin)


class _Axis:
    """Columns of the picture: equally long (time) or holding equally many event ends (event). edges int64[width + 1] ns."""

    def __init__(self, kind: str, width: int, bbo: Touch, rows_path: Path) -> None:
        self._kind, self._width, self._events = kind, width, 0
        if kind == "time":
            file = pq.ParquetFile(rows_path, pre_buffer=False)
            first, last = _span(rows_path) if file.metadata.num_rows else (bbo.first, bbo.last)
            self.edges = np.linspace(0, max(last - first, width), width + 1).astype(np.int64) + first
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
        """float64[n] position of each record: that of the event end that completes it."""
        if self._kind == "time":
            places = np.empty(len(clock), np.float64)
            time_positions(clock, flags, self.edges[0], self._width / float(self.edges[-1] - self.edges[0]), places)
            return places
        ends = np.flatnonzero(flags & F_LAST)
        inside = (clock >= self.edges[0]) & (clock <= self.edges[-1])
        ended = np.zeros(len(clock), np.int64)
        ended[ends] = 1
        x = (self._events + np.cumsum(ended * inside)) * (self._width / self._total)
        self._events += int((ended * inside).sum())
        following = np.searchsorted(ends, np.arange(len(clock)))
        known = following < len(ends)
        x[known] = x[ends[following[known]]]
        return np.maximum.accumulate(x.astype(np.float64))


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
    if carry and not starts_clean(lake, events):
        restore_closing(replay, lake / carry)
        row_of = _rows_of(replay.book.arrays.prices, low, step, plane)
        refill(replay.book.arrays, len(row_of), plane, held, since, 0.0, row_of)
    rank = np.zeros(batch_rows, np.int32)
    now = 0
    for name in events:
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
            while at < n:
                at = accumulate(batch, at, n, x, replay.book.arrays, plane, held, since, row_of)
                if at < n:
                    replay.book.grow_pool()


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
        accumulate_rows(px, sz, x, before_px, before_sz, plane, held, since, low, step)
