"""Features of one partition: one row per row of its grid layer, from the grid, the touch layer and the trades. Loops: feature_kernels.py.

Rules
- Row T knows what happened at or before T on the chosen clock, T included, and nothing later. A touch row's time is its as_of, the running
  clock of the replay that made it: the ts_event of a snapshot's records can be days older than the moment at which they were known.
  A trade's time is its as_of likewise, or a clock of its own. Both are taken in file order, at the running maximum: a late row counts when it
  could first be known.
- spread, mid, microprice and imbalance describe the grid row's own book. They are null (spread: UNDEF_PRICE) where undefined, never NaN:
  mid and microprice need both sides, microprice and imbalance a size above 0. imbalance_n sums all levels of the grid's depth.
- ofi is the sum of e_n over the touch rows in (T - interval, T] (Cont, Kukanov, Stoikov 2014, "The Price Impact of Order Book Events", eq. 2-4):
  e_n = 1{Pb_n >= Pb_n-1} qb_n - 1{Pb_n <= Pb_n-1} qb_n-1 - 1{Pa_n <= Pa_n-1} qa_n + 1{Pa_n >= Pa_n-1} qa_n-1.
  An empty side has size 0 and price -inf (bid) or +inf (ask). The first row has no row before it and adds nothing.
- realised_vol is the square root of the sum of squared log returns of the mid over the touch rows in (T - interval, T]. A return runs from the
  last row with a mid above 0 to the next one, and belongs to the later row; one-sided rows between are passed over.
- A touch row of status no_book says that the touch is not known, which is not the same as empty: it adds neither flow nor return, and
  the next row starts anew as a first one. So does a row that a whole snapshot made, and the row of a window's start: `fresh_rows` in the facts of
  bbo lists them. So neither a snapshot that fills the book nor what happened between two windows is order flow.
- trades, volume and signed_volume count the trades in (T - interval, T]; a side that is not known signs 0. Trades whose price is UNDEF_PRICE
  are left out, as in bars. last_side and last_side_method are those of the last trade at or before T ("N", "none" before the first).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.aggregation.feature_kernels import PRINTS, QUOTES, fold_quotes, fold_trades
from tasks.aggregation.layer_reading import INT64_MIN, KNOWN, Columns, coded_column, codes, column_batches, integers, record_batches, row_count
from tasks.errors import UsageError
from tasks.partitions import CLOCKS, Stamp
from tasks.schemas import FEATURES, NO_BOOK, PRICE_SCALE, REASONS, SIDE_METHODS, SIDES, STATUSES, UNDEF_PRICE
from tasks.storage import ParquetSink, steady

_HEAD = ("ts_event", "as_of", "age_ns", "publisher_id", "instrument_id", "symbol", "status", "reason", "status_since")
_UNKNOWN_SIDE = SIDES.index("N")


def build_features(
    grid_path: Path,
    bbo_paths: Sequence[Path],
    trades_paths: Sequence[Path],
    out: Path,
    stamp: Stamp,
    *,
    interval_ns: int,
    clock: str,
    depth: int,
    fresh_rows: Sequence[int] = (),
    batch_rows: int = 65_536,
) -> dict[str, Any]:
    """Write the features of one partition (schema FEATURES), one row per grid row, and return the facts that are also in its footer.

    grid_path: layer mbp-`depth` on a grid (books_schema(depth), T in ts_event, steps of at least `interval_ns`); bbo_paths, trades_paths:
    layers BBO and TRADES in time order; clock: of the trades, as_of, ts_event or ts_recv; fresh_rows: rows of the touch layers, counted over
    all of them and ascending, that do not follow from the row before. Memory: one batch of each layer. The bytes do not depend on `batch_rows`.
    Facts: rows_in and rows_out (grid rows), quotes_in, quotes_used (at or before the last T), trades_in, trades_used, trades_counted (in a window).
    Raises UsageError, SchemaMismatch, StorageError.
    """
    if clock not in (KNOWN, *CLOCKS):
        raise UsageError(f"clock is {clock!r}; allowed: {', '.join((KNOWN, *CLOCKS))}")
    if interval_ns <= 0 or depth <= 0:
        raise UsageError(f"interval is {interval_ns} ns and depth {depth}; both must be positive")
    touches = column_batches(bbo_paths, {"as_of": None, **dict.fromkeys(_TOUCH), "status": STATUSES}, batch_rows)
    quotes = Quotes(touches, "as_of", interval_ns, fresh_rows)
    prints = _Prints(column_batches(trades_paths, {clock: None, **_TRADE}, batch_rows), clock, interval_ns)
    counted, last_time = 0, None
    with ParquetSink(out, FEATURES, encodings=steady(FEATURES)) as sink:
        for batch in record_batches(grid_path, [*_HEAD, *_level_names(depth)], batch_rows):
            times = integers(grid_path, batch, "ts_event")
            last_time = checked_steps(times, last_time, interval_ns, grid_path, sink.rows)
            table = pa.Table.from_pydict(
                {**_head(grid_path, batch), **_book_features(grid_path, batch, depth), **quotes.fold(times), **prints.fold(times)}, schema=FEATURES
            )
            counted += pc.sum(table["trades"]).as_py() or 0
            sink.write(table)
        facts = {
            "rows_in": sink.rows, "rows_out": sink.rows, "quotes_in": row_count(bbo_paths), "quotes_used": quotes.used,
            "trades_in": row_count(trades_paths), "trades_used": prints.used, "trades_counted": counted,
        }  # fmt: skip
        sink.commit(stamp, facts)
    return facts


_TOUCH = ("bid_px_00", "ask_px_00", "bid_sz_00", "ask_sz_00")
_TRADE = {"price": None, "size": None, "side": SIDES, "side_method": SIDE_METHODS}


class _Stream:
    """A layer that is folded onto the grid: keeps the batch in work and the place in it from one grid batch to the next."""

    def __init__(self, batches: Iterator[Columns], clock: str, interval_ns: int, state: np.dtype) -> None:
        self._batches, self._clock, self.interval = batches, clock, interval_ns
        self._batch: Columns | None = None
        self._at, self._ended = 0, False
        self.state = np.zeros(1, state)
        self.state["clock"] = INT64_MIN

    @property
    def used(self) -> int:
        """Rows at or before the last grid time."""
        return int(self.state["used"][0])

    def _drive(self, grid_rows: int, step: Callable[[Columns, int, bool, int], tuple[int, int]]) -> None:
        """Call `step(batch, place in it, whether it is the last, grid row)` until every grid row is done."""
        g = 0
        while g < grid_rows:
            if self._batch is None or (self._at == len(self._batch["ts"]) and not self._ended):
                self._next()
            assert self._batch is not None
            self._at, g = step(self._batch, self._at, self._ended, g)

    def _next(self) -> None:
        following = next(self._batches, None)
        self._ended = following is None
        if following is not None:
            following["ts"] = following.pop(self._clock)
            self._batch, self._at = self._prepared(following), 0
        elif self._batch is None:
            self._batch = self._prepared({"ts": np.empty(0, np.int64), **self._empty()})

    def _prepared(self, batch: Columns) -> Columns:
        return batch

    def _empty(self) -> Columns:
        raise NotImplementedError


class Quotes(_Stream):
    """The touch layer: order flow and volatility."""

    def __init__(self, batches: Iterator[Columns], clock: str, interval_ns: int, fresh_rows: Sequence[int], state: np.dtype = QUOTES) -> None:
        super().__init__(batches, clock, interval_ns, state)
        self._fresh_rows, self._read = np.array(fresh_rows, np.int64), 0

    def fold(self, grid: np.ndarray) -> dict[str, pa.Array]:
        flow, volatility = np.empty(len(grid), self.state.dtype["flow"]), np.empty(len(grid), np.float64)

        def step(b: Columns, at: int, ended: bool, g: int) -> tuple[int, int]:
            bid, ask, bid_size, ask_size, no_book, fresh = (b[name] for name in (*_TOUCH, "no_book", "fresh"))
            state, interval = self.state, self.interval
            return fold_quotes(b["ts"], bid, ask, bid_size, ask_size, no_book, fresh, at, ended, grid, g, interval, state, flow, volatility)

        self._drive(len(grid), step)
        return {"ofi": pa.array(flow), "realised_vol": pa.array(volatility)}

    def _prepared(self, batch: Columns) -> Columns:
        fresh = np.zeros(len(batch["ts"]), bool)
        low, high = np.searchsorted(self._fresh_rows, [self._read, self._read + len(fresh)])
        fresh[self._fresh_rows[low:high] - self._read] = True
        self._read += len(fresh)
        return {**batch, "no_book": batch["status"] == NO_BOOK, "fresh": fresh}

    def _empty(self) -> Columns:
        return {**{name: np.empty(0, np.int64) for name in _TOUCH}, "status": np.empty(0, np.int8)}


class _Prints(_Stream):
    """The trades layer: counts, volumes and the last aggressor."""

    def __init__(self, batches: Iterator[Columns], clock: str, interval_ns: int) -> None:
        super().__init__(batches, clock, interval_ns, PRINTS)
        self.state["side"] = _UNKNOWN_SIDE

    def fold(self, grid: np.ndarray) -> dict[str, pa.Array]:
        sums, last = np.empty((len(grid), 3), np.int64), np.empty((len(grid), 2), np.int8)

        def step(b: Columns, at: int, ended: bool, g: int) -> tuple[int, int]:
            return fold_trades(b["ts"], b["price"], b["size"], b["side"], b["side_method"], at, ended, grid, g, self.interval, self.state, sums, last)

        self._drive(len(grid), step)
        columns: dict[str, pa.Array] = {name: pa.array(sums[:, k].copy()) for k, name in enumerate(("trades", "volume", "signed_volume"))}
        columns["last_side"] = coded_column(last[:, 0].copy(), SIDES)
        columns["last_side_method"] = coded_column(last[:, 1].copy(), SIDE_METHODS)
        return columns

    def _empty(self) -> Columns:
        return {name: np.empty(0, np.int64 if values is None else np.int8) for name, values in _TRADE.items()}


def _level_names(depth: int) -> list[str]:
    """Names of the columns that the features of the book need: the touch prices and the sizes of every level."""
    return ["bid_px_00", "ask_px_00", *(f"{side}_sz_{level:02d}" for level in range(depth) for side in ("bid", "ask"))]


def checked_steps(times: np.ndarray, last: int | None, interval_ns: int, path: Path, rows_before: int) -> int | None:
    """The last grid time; raises UsageError where two are closer than the interval, since their windows would overlap."""
    if len(times) == 0:
        return last
    steps = np.diff(times, prepend=times[0] - interval_ns if last is None else last)
    if (steps < interval_ns).any():
        k = int(np.argmax(steps < interval_ns))
        raise UsageError(
            f"{path}: grid row {rows_before + k:,} comes {int(steps[k]):,} ns after the row before it; the windows are {interval_ns:,} ns long "
            "and must not overlap. Choose an interval no longer than the grid's, or rebuild the grid."
        )
    return int(times[-1])


def _head(path: Path, batch: pa.RecordBatch) -> dict[str, pa.Array]:
    """The columns that a feature row takes from its grid row."""
    columns = {name: batch.column(name) for name in _HEAD[:5]}
    symbols = batch.column("symbol").unique().to_pylist()
    columns["symbol"] = coded_column(codes(path, batch, "symbol", symbols), symbols, pa.int32())
    columns["status"] = coded_column(codes(path, batch, "status", STATUSES), STATUSES)
    columns["reason"] = coded_column(codes(path, batch, "reason", REASONS), REASONS)
    columns["status_since"] = batch.column("status_since")
    return columns


def _book_features(path: Path, batch: pa.RecordBatch, depth: int) -> dict[str, pa.Array]:
    """spread int64[n] 1e-9; mid, microprice in units of 1.0; imbalance_1, imbalance_n in -1..1; null where undefined."""
    level = {name: integers(path, batch, name) for name in _level_names(depth)}
    bid, ask, bid_size, ask_size = (level[name] for name in _TOUCH)
    sided = (bid != UNDEF_PRICE) & (ask != UNDEF_PRICE)
    spread = np.where(sided, ask - np.where(sided, bid, 0), UNDEF_PRICE)
    touch_size = bid_size + ask_size
    bids = sum((level[f"bid_sz_{k:02d}"] for k in range(1, depth)), bid_size)
    asks = sum((level[f"ask_sz_{k:02d}"] for k in range(1, depth)), ask_size)
    # Weights first: price * size could need 95 bits, and bid + spread * weight would cancel where the book is crossed far.
    micro = (bid * ratio(ask_size, touch_size) + ask * ratio(bid_size, touch_size)) / PRICE_SCALE
    return {
        "spread": pa.array(spread),
        "mid": pa.array((bid / 2 + ask / 2) / PRICE_SCALE, mask=~sided),
        "microprice": pa.array(micro, mask=~sided | (touch_size == 0)),
        "imbalance_1": pa.array(ratio(bid_size - ask_size, touch_size), mask=touch_size == 0),
        "imbalance_n": pa.array(ratio(bids - asks, bids + asks), mask=bids + asks == 0),
    }


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, 0 where whole is 0 (the caller masks it)."""
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole != 0)
