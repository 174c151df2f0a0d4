"""Time, tick, volume and dollar bars of one partition: the rules, the streaming and the table. Loops over trades are in bar_kernels.py.

- Time bars: bucket [start, start + interval) on the chosen clock, start a multiple of the interval since the UTC epoch; ts_event is the start.
  A bucket without a trade has no row (Databento's convention for ohlcv). The flow's clock is as_of: a trade that comes late counts when it was
  known, so that no bar changes after its end. On ts_event or ts_recv a late trade belongs to the bucket of its own time, in whatever order it
  comes; open and close go by file order within the bucket.
- tick:N closes with its N-th trade; volume:V with the trade at which the cumulated size reaches V; dollar:D with the trade at which the
  cumulated |price| * size reaches D currency units. No trade is split, so a bar can exceed its size. The last, unfinished bar is kept, and
  the facts say `open_bar`. ts_event and ts_close are the times of the first and last trade in file order.
- vwap is rounded to nearest, halves up, and UNDEF_PRICE for a bar whose trades all have size 0. All sums are exact.
- status is the worst of the bar's trades in the order of SEVERITY; reason and status_since are those of the first trade that had it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.aggregation.bar_kernels import BAR, DOLLAR, TICK, VOLUME, activity_bars, merge_equal, time_runs, vwaps
from tasks.aggregation.layer_reading import INT64_MAX, INT64_MIN, KNOWN, ClockFloors, Columns, coded_column, column_batches
from tasks.errors import UsageError
from tasks.partitions import CLOCKS, Partition, Stamp
from tasks.schemas import BARS, PRICE_SCALE, REASONS, SEVERITY, SIDES, UNDEF_PRICE
from tasks.specs import BarSpec
from tasks.storage import ParquetSink

_KINDS = {"tick": TICK, "volume": VOLUME, "dollar": DOLLAR}
_LIMB = 1 << 31


def build_bars(
    trades_paths: Sequence[Path],
    out: Path,
    spec: BarSpec,
    stamp: Stamp,
    *,
    clock: str,
    partition: Partition,
    windows: Sequence[tuple[int, int]] | None = None,
    batch_rows: int = 65_536,
) -> dict[str, Any]:
    """Write the bars of one partition (schema BARS) and return the facts that are also in its footer.

    trades_paths: layers of schema TRADES in time order; clock: as_of, ts_event or ts_recv; windows: ascending, disjoint (start_ns inclusive, end_ns
    exclusive) on the clock, only trades within one of them count, None for all. The bytes do not depend on `batch_rows`.
    Facts: rows_in (trades read) = rows_used + rows_filtered (outside the windows) + rows_unpriced (price UNDEF_PRICE); rows_out (bars);
    open_bar (the last one did not reach its size).
    Memory: one batch, and for time bars those that trades of row groups not yet read could still change.
    Raises UsageError, SchemaMismatch, StorageError.
    """
    if clock not in (KNOWN, *CLOCKS):
        raise UsageError(f"clock is {clock!r}; allowed: {', '.join((KNOWN, *CLOCKS))}")
    trades = _Trades(trades_paths, clock, windows, batch_rows)
    made = _time_bars(trades, spec.size) if spec.kind == "time" else _activity_bars(trades, spec)
    open_bar = False
    with ParquetSink(out, BARS) as sink:
        for bars, is_open in made:
            open_bar = is_open
            sink.write(_table(bars, spec, partition))
        facts = {
            "rows_in": trades.rows_in, "rows_used": trades.rows_in - trades.filtered - trades.unpriced, "rows_filtered": trades.filtered,
            "rows_unpriced": trades.unpriced, "rows_out": sink.rows, "open_bar": open_bar,
        }  # fmt: skip
        sink.commit(stamp, facts)
    return facts


class _Trades:
    """The trades that count, batch by batch, with the number of those that do not."""

    def __init__(self, paths: Sequence[Path], clock: str, windows: Sequence[tuple[int, int]] | None, batch_rows: int) -> None:
        self.paths, self.clock, self.batch_rows = paths, clock, batch_rows
        self.rows_in = self.filtered = self.unpriced = 0
        self._edges = None if windows is None else np.array(windows, dtype=np.int64).reshape(-1)
        if self._edges is not None and (np.any(np.diff(self._edges) < 0) or np.any(self._edges[::2] >= self._edges[1::2])):
            raise UsageError(f"windows are {list(windows or ())}; each must start before its end, and they must be ascending and disjoint")

    def __iter__(self) -> Iterator[Columns]:
        wanted = {
            self.clock: None, "price": None, "size": None, "side": SIDES, "status": SEVERITY, "reason": REASONS, "status_since": None
        }  # fmt: skip
        for batch in column_batches(self.paths, wanted, self.batch_rows):
            batch["ts"] = batch.pop(self.clock)
            self.rows_in += len(batch["ts"])
            keep = np.ones(len(batch["ts"]), bool) if self._edges is None else np.searchsorted(self._edges, batch["ts"], side="right") % 2 == 1
            priced = batch["price"] != UNDEF_PRICE
            self.filtered += int(np.count_nonzero(~keep))
            self.unpriced += int(np.count_nonzero(keep & ~priced))
            keep &= priced
            yield batch if keep.all() else {name: array[keep] for name, array in batch.items()}


def _time_bars(trades: _Trades, interval: int) -> Iterator[tuple[np.ndarray, bool]]:
    """Finished bars in order of time.

    The statistics of the row groups still to come say below which time no trade can follow: what ends at or before it is final. So a late
    trade of any age is counted where it belongs, and an orderly file needs no second pass and holds few bars.
    """
    floors = ClockFloors.of(trades.paths, trades.clock)
    held = np.empty(0, BAR)
    for batch in trades:
        runs = np.empty(len(batch["ts"]), BAR)
        ts, price, size, side, status, reason, since = _of_trades(batch)
        runs = runs[: time_runs(ts, price, size, side, status, reason, since, interval, runs)]
        held = np.concatenate([held, runs])
        if np.any(np.diff(held["start"]) <= 0):
            held = held[np.argsort(held["start"], kind="stable")]
            held = held[: merge_equal(held)]
        floor = floors.after(trades.rows_in)
        final = len(held) if floor == INT64_MAX else int(np.searchsorted(held["start"], max(floor - floor % interval, INT64_MIN), side="left"))
        yield held[:final], False
        held = held[final:].copy()
    yield held, False


def _of_trades(batch: Columns) -> tuple[np.ndarray, ...]:
    """The columns of trades in the order in which the kernels take them."""
    return tuple(batch[name] for name in ("ts", "price", "size", "side", "status", "reason", "status_since"))


def _activity_bars(trades: _Trades, spec: BarSpec) -> Iterator[tuple[np.ndarray, bool]]:
    """Closed bars in file order, then the open one."""
    limit = spec.size * (PRICE_SCALE if spec.kind == "dollar" else 1)
    limbs = np.array([limit // _LIMB**2, limit // _LIMB % _LIMB, limit % _LIMB], dtype=np.int64)
    spent = np.zeros(3, np.int64)
    bars = np.zeros(1, BAR)
    for batch in trades:
        room = np.empty(len(batch["ts"]) + 1, BAR)
        room[0] = bars[0]
        ts, price, size, side, status, reason, since = _of_trades(batch)
        closed = activity_bars(_KINDS[spec.kind], limbs, spent, ts, price, size, side, status, reason, since, room)
        bars[0] = room[closed]
        yield room[:closed], False
    if bars[0]["trades"]:
        yield bars, True


def _table(bars: np.ndarray, spec: BarSpec, partition: Partition) -> pa.Table:
    zeros = np.zeros(len(bars), np.int32)
    columns = {
        "ts_event": bars["start"],
        "ts_close": bars["start"] + spec.size if spec.kind == "time" else bars["last"],
        "publisher_id": zeros + partition.publisher_id,
        "instrument_id": zeros.astype(np.int64) + partition.instrument_id,
        "symbol": coded_column(zeros, [partition.symbol], pa.int32()),
        **{name: bars[name] for name in ("open", "high", "low", "close", "volume")},
        "vwap": vwaps(bars, UNDEF_PRICE),
        "trades": bars["trades"],
        "buy_volume": bars["buys"],
        "sell_volume": bars["sells"],
        "valid_share": bars["valid"] / bars["trades"],
        "status": coded_column(bars["worst"].astype(np.int8), SEVERITY),
        "reason": coded_column(bars["reason"].astype(np.int8), REASONS),
        "status_since": bars["since"],
    }
    return pa.Table.from_arrays([_typed(columns[f.name], f.type) for f in BARS], schema=BARS)


def _typed(values: np.ndarray | pa.Array, dtype: pa.DataType) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    plain = pa.array(np.ascontiguousarray(values))
    if plain.type == dtype:
        return plain
    return plain.view(dtype) if pa.types.is_timestamp(dtype) and pa.types.is_int64(plain.type) else plain.cast(dtype)
