"""The touch of a book as its heatmap needs it: when it stood where, and when the book was not valid. From the layers; no book here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.reconstruction.heat_windows import HeatWindows, Span
from tasks.reconstruction.sample_kernels import NEVER
from tasks.schemas import REASONS, STATUSES, UNDEF_PRICE, VALID

TOUCH_ROWS = 131_072


class Touch:
    """What a picture needs of a bbo layer. Memory: one batch, the distinct prices and the changes of status, however long the layer is.

    weights: price int64[n] 1e-9, ascending, and int64[n] of each, ns in `windows` for which it was best bid or best ask and one for every row that
    says so.
    first, last: as_of of the first and the last row; 0 where there is none.
    """

    def __init__(self, path: Path, windows: HeatWindows | None = None) -> None:
        self._path = path
        windows = windows or HeatWindows()
        self.first = self.last = 0
        self.weights = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._changes: list[tuple[int, str, str]] = []
        kept: list[tuple[np.ndarray, np.ndarray]] = []
        before: tuple[int, int, int] | None = None
        for as_of, bid, ask, batch in _touches(path, "as_of", ["status", "reason"]):
            if before is None:
                self.first = int(as_of[0])
            else:
                as_of, bid, ask = (np.concatenate([[one], many]) for one, many in zip(before, (as_of, bid, ask), strict=True))
            kept.append(_added(bid[:-1], ask[:-1], np.diff(windows.passed(as_of))))
            if len(kept) > 64:
                kept = [_summed(kept)]
            self._follow(batch)
            before = int(as_of[-1]), int(bid[-1]), int(ask[-1])
        if before is not None:
            self.last = before[0]
            kept.append(_added(np.array([before[1]]), np.array([before[2]]), np.array([1])))
            self.weights = _summed(kept)

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
        return _last_before(self._path, "as_of", times)[:2]

    def spans(self, end: int) -> tuple[Span, ...]:
        """(start, end, status, reason) of each stretch that is not valid."""
        ends = [*(start for start, _, _ in self._changes[1:]), end][: len(self._changes)]
        return tuple((start, e, status, reason) for (start, status, reason), e in zip(self._changes, ends, strict=True) if status != STATUSES[VALID])


def _touches(path: Path, clock: str, more: Sequence[str] = ()) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, pa.RecordBatch]]:
    """(clock, best bid, best ask, all of the batch) of a layer that has the touch."""
    with pq.ParquetFile(path, read_dictionary=["status", "reason"], pre_buffer=False) as file:
        for batch in file.iter_batches(TOUCH_ROWS, columns=[clock, "bid_px_00", "ask_px_00", *more]):
            yield batch[clock].cast("int64").to_numpy(), batch["bid_px_00"].to_numpy(), batch["ask_px_00"].to_numpy(), batch


def _last_before(path: Path, clock: str, times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(best bid, best ask, clock) int64[n] of the last row before each time; UNDEF_PRICE and -1 where there is none."""
    bid, ask, since = np.full(len(times), UNDEF_PRICE), np.full(len(times), UNDEF_PRICE), np.full(len(times), -1)
    for now, bids, asks, _ in _touches(path, clock):
        k = np.searchsorted(now, times, side="left") - 1
        found = k >= 0
        bid[found], ask[found], since[found] = bids[k[found]], asks[k[found]], now[k[found]]
    return bid, ask, since


def _first_from(path: Path, starts: np.ndarray) -> np.ndarray:
    """as_of int64[n] of the first row of a layer at or after each start, NEVER where there is none."""
    first = np.full(len(starts), NEVER)
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(TOUCH_ROWS, columns=["as_of"]):
            as_of = batch["as_of"].cast("int64").to_numpy()
            k = np.searchsorted(as_of, starts, side="left")
            found = (k < len(as_of)) & (first == NEVER)
            first[found] = as_of[k[found]]
    return first


def touch_within(windows: HeatWindows, bbo: Touch, rows: Path, grid: Path, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The touch before each time, UNDEF_PRICE in a gap between windows; rows, grid: the layers of event ends and of grid times.

    What the touch became in a gap is in no row of bbo, whose last one stands for the book before it: until the first event of a window the touch
    is that of the grid.
    """
    if not windows.gaps:
        return bbo.at(times)
    starts, place = np.unique(windows.opened(times), return_inverse=True)
    quiet = _first_from(rows, starts)[place] >= times
    bid, ask = bbo.at(times)
    grid_bid, grid_ask, told = _last_before(grid, "ts_event", times)
    for px, grid_px in ((bid, grid_bid), (ask, grid_ask)):
        px[quiet] = np.where(told >= starts[place], grid_px, UNDEF_PRICE)[quiet]
    return bid, ask


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


def _codes(array: pa.DictionaryArray, values: tuple[str, ...]) -> np.ndarray:
    """Positions in `values` of a dictionary column."""
    return np.array([values.index(v) for v in array.dictionary.to_pylist()])[array.indices.to_numpy()]
