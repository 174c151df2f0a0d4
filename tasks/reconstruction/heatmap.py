"""The heatmap grid of one partition: where its pixels lie, and how they are filled. Drawing is publishing's business.

Order-by-order partitions are replayed a second time over all their depth (the replay costs far less than a wide read of the book rows);
windowed ones take the mbp rows. The touch per column and the spans in which the book is not valid come from the bbo layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.ahead import ahead
from tasks.book_rows import as_read, read_rows
from tasks.events_file import read_events
from tasks.heatmap_grid import HeatmapGrid
from tasks.partitions import MboRecipe, Partition, Stamp, digest
from tasks.reconstruction.heat_kernels import accumulate, accumulate_rows, price_rows, refill, settle_all, time_positions
from tasks.reconstruction.layer_writer import Rebuilt, layer_names
from tasks.reconstruction.rebuild import in_time_order, restore_closing, starts_clean
from tasks.reconstruction.replay import Replay
from tasks.reconstruction.replay_kernels import Batch
from tasks.schemas import F_LAST, F_SNAPSHOT, REASONS, STATUSES, UNDEF_PRICE, VALID
from tasks.storage import is_done, read_footer

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
    """The bbo layer's times, touch and status as arrays."""

    def __init__(self, path: Path) -> None:
        names = ["as_of", "bid_px_00", "ask_px_00", "status", "reason"]
        table = pq.read_table(path, columns=names, partitioning=None, read_dictionary=["status", "reason"]).combine_chunks().unify_dictionaries()
        self.as_of = table["as_of"].cast("int64").to_numpy()
        self.bid, self.ask = table["bid_px_00"].to_numpy(), table["ask_px_00"].to_numpy()
        self._states = {name: _codes(table[name], values) for name, values in (("status", STATUSES), ("reason", REASONS))}

    def at(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Touch after the last change before each time."""
        k = np.searchsorted(self.as_of, times, side="left") - 1
        bid, ask = np.full(len(times), UNDEF_PRICE), np.full(len(times), UNDEF_PRICE)
        bid[k >= 0], ask[k >= 0] = self.bid[k[k >= 0]], self.ask[k[k >= 0]]
        return bid, ask

    def spans(self, end: int) -> tuple[tuple[int, int, str, str], ...]:
        """(start, end, status, reason) of each stretch that is not valid."""
        if not len(self.as_of):
            return ()
        status, reason = self._states["status"], self._states["reason"]
        changed = (status[1:] != status[:-1]) | (reason[1:] != reason[:-1])
        starts = np.concatenate([[0], np.flatnonzero(changed) + 1])
        ends = np.concatenate([self.as_of[starts[1:]], [end]])
        return tuple(
            (int(self.as_of[s]), int(e), STATUSES[status[s]], REASONS[reason[s]]) for s, e in zip(starts, ends, strict=True) if status[s] != VALID
        )


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


def _codes(column: pa.ChunkedArray, values: tuple[str, ...]) -> np.ndarray:
    """Positions in `values` of a dictionary column."""
    if len(column) == 0:
        return np.zeros(0, np.int64)
    array = column.chunk(0)
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
    weight = np.diff(bbo.as_of, append=bbo.as_of[-1:] + 1).astype(np.float64) if len(bbo.as_of) else np.zeros(0)
    px = np.concatenate([bbo.bid, bbo.ask])
    both = np.concatenate([weight, weight])
    known = px != UNDEF_PRICE
    if not known.any():
        return None
    px, both = px[known], both[known] + 1.0
    order = np.argsort(px, kind="stable")
    share = np.cumsum(both[order]) / both.sum()
    low, high = int(px[order][np.searchsorted(share, 0.005)]), int(px[order][min(np.searchsorted(share, 0.995), len(px) - 1)])
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
            first, last = _span(rows_path) if file.metadata.num_rows else (int(bbo.as_of[0]), int(bbo.as_of[-1]))
            self.edges = np.linspace(0, max(last - first, width), width + 1).astype(np.int64) + first
        else:
            batches = pq.ParquetFile(rows_path, pre_buffer=False).iter_batches(columns=["as_of"])
            as_of = np.concatenate([b.column(0).cast("int64").to_numpy() for b in batches])
            self._total = len(as_of)
            at = np.minimum(np.arange(width + 1) * self._total // width, self._total - 1)
            self.edges = as_of[at]

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
