"""Time bars over the mid of a depth partition, from its touch layer: the rules, the streaming and the table. The loop is depth_bar_kernels.py.

- The touch is a function of time: a row of the touch layer stands from its as_of (running maximum) until the next one; of rows with the same
  time the last one stands, as in a grid. Before the first row the status is no_book, reason no_snapshot.
- Bar [start, end), start a multiple of the interval since the UTC epoch. Every bar that a window touches has a row, also where nothing
  changed; only its part inside the windows counts. Between windows nothing is known to change: a window begins with the last touch before it.
- open is the mid at the start, changes at exactly the start included (the mid of the grid row at T = start); close the mid after the last
  change before the end; high and low are of the mids that stood for any time. A mid needs both sides and a book that is known: where
  one is missing at the start or end, open is the first mid of the bar and close the last. Without any mid all prices, means and sizes are null.
- twap, spread_mean, bid_sz_mean and ask_sz_mean are weighted by the time in which both sides stood. The book counts whether it is valid or not,
  as the trades of bars do; the status says so.
- changes counts the rows with another touch, also those that stood for no time. Of a book without a touch (no_book) to one it is a change.
- status is the worst of the bar in the order of SEVERITY, reason and status_since those of the first stretch with it; valid_share is the share
  of the time that counts. A silence of the feed (`silences`) makes a valid book stale until the next row.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.aggregation.depth_bar_kernels import MID_BAR, MID_STATE, end_touch, fold_touch
from tasks.aggregation.depth_layers import TOUCH, Scale, touch_batches, windows_of
from tasks.aggregation.layer_reading import INT64_MIN, coded_column
from tasks.errors import UsageError
from tasks.partitions import Partition, Stamp
from tasks.schemas import MID_BARS, REASONS, SEVERITY, UNDEF_PRICE
from tasks.specs import interval_name, parse_bar
from tasks.storage import ParquetSink

# A bar in the making takes 176 bytes.
_ROOM = 8_192
_NO_TIME = -1


def mid_layer(bar: str) -> str:
    """mid-1m of "1m"; raises UsageError for what is no interval that divides a day."""
    spec = parse_bar(bar)
    if spec.kind != "time":
        raise UsageError(f"mid bar is {bar!r}; a depth feed has no trades, only bars of time are possible, e.g. 1s, 1m, 1h")
    return f"mid-{interval_name(spec.size)}"


def build_mid_bars(
    bbo: Path,
    out: Path,
    interval_ns: int,
    stamp: Stamp,
    *,
    partition: Partition,
    windows: np.ndarray | None = None,
    silent: np.ndarray | None = None,
    batch_rows: int = 65_536,
    room: int = _ROOM,
) -> dict[str, Any]:
    """Write the mid bars of one partition (schema MID_BARS) and return the facts that are also in its footer.

    bbo: layer of schema DEPTH_BBO; interval_ns divides a day; windows: int64[n, 2] ns half-open, None for the UTC day of the partition;
    silent: int64[s, 2] of `silences`, None for none. The bytes do not depend on batch_rows and room (bars made before they are written).
    Facts: rows_in (touch rows) = rows_used + rows_filtered (outside the windows); rows_out (bars); changes.
    Raises UsageError, SchemaMismatch, StorageError.
    """
    spans = windows_of(partition, None if windows is None else windows.tolist())
    quiet = np.zeros((0, 2), np.int64) if silent is None else np.ascontiguousarray(silent, np.int64)
    touch = _Touch(bbo, spans, batch_rows)
    changes = 0
    with ParquetSink(out, MID_BARS) as sink:
        for bars in touch.bars(quiet, interval_ns, room):
            sink.write(_table(bars, touch.scale, partition))
            changes += int(bars["changes"].sum())
        facts = {
            "rows_in": touch.rows_in,
            "rows_used": touch.used,
            "rows_filtered": touch.rows_in - touch.used,
            "rows_out": sink.rows,
            "changes": changes,
        }
        sink.commit(stamp, facts)
    return facts


class _Touch:
    """The touch layer as it is folded into bars, with the number of rows that count."""

    def __init__(self, path: Path, windows: np.ndarray, batch_rows: int) -> None:
        self.scale, self._windows = Scale(path), windows
        self._batches = touch_batches(path, self.scale, batch_rows)
        self.rows_in = self.used = 0
        self._clock = INT64_MIN

    def bars(self, silent: np.ndarray, interval_ns: int, room: int) -> Iterator[np.ndarray]:
        """Finished bars in order of time, a copy of the buffer each time that it is full."""
        states, bars = np.zeros(1, MID_STATE), np.zeros(room, MID_BAR)
        state = states[0]
        state["now"], state["bid"], state["ask"] = INT64_MIN, UNDEF_PRICE, UNDEF_PRICE
        state["severity"], state["reason"], state["since"] = SEVERITY.index("no_book"), REASONS.index("no_snapshot"), _NO_TIME
        for batch in self._batches:
            self._count(batch["as_of"])
            columns = tuple(batch[name] for name in ("as_of", *TOUCH, "severity", "reason", "status_since", "changed"))
            at = 0
            while at < len(batch["as_of"]):
                at = fold_touch(*columns, at, self._windows, silent, interval_ns, states, bars)
                yield _taken(state, bars)
        while not end_touch(self._windows, silent, interval_ns, states, bars):
            yield _taken(state, bars)
        yield _taken(state, bars)

    def _count(self, as_of: np.ndarray) -> None:
        """Count the rows of a batch that lie in a window."""
        clock = np.maximum(np.maximum.accumulate(as_of), self._clock)
        self._clock = int(clock[-1])
        self.rows_in += len(clock)
        self.used += int(np.count_nonzero(np.searchsorted(self._windows.reshape(-1), clock, side="right") % 2))


def _taken(state: np.void, bars: np.ndarray) -> np.ndarray:
    """The finished bars; the one in the making becomes the first of the buffer."""
    made = int(state["made"])
    taken = bars[:made].copy()
    if state["open"]:
        bars[0] = bars[made]
    state["made"] = 0
    return taken


def _table(bars: np.ndarray, scale: Scale, partition: Partition) -> pa.Table:
    """The bars in units of 1.0."""
    never = bars["sided"] == 0
    weight = np.where(never, 1, bars["sided"]).astype(np.float64)
    mid, size = 2 * scale.price_units, scale.size_units
    # Rounding may carry a mean out of its bar by the last digit.
    twap = np.clip(bars["open"] + bars["mid_sum"] / weight, bars["low"].astype(np.float64), bars["high"].astype(np.float64))
    means = {
        **{name: bars[name] / mid for name in ("open", "high", "low", "close")},
        "twap": twap / mid,
        "spread_mean": (bars["spread"] + bars["spread_sum"] / weight) / scale.price_units,
        "bid_sz_mean": (bars["bid_size"] + bars["bid_sum"] / weight) / size,
        "ask_sz_mean": (bars["ask_size"] + bars["ask_sum"] / weight) / size,
    }
    columns = {
        "ts_event": pa.array(bars["start"].copy()).cast(MID_BARS.field("ts_event").type),
        "ts_close": pa.array(bars["end"].copy()).cast(MID_BARS.field("ts_close").type),
        "symbol": coded_column(np.zeros(len(bars), np.int32), [partition.symbol], pa.int32()),
        **{name: pa.array(values, mask=never) for name, values in means.items()},
        "changes": pa.array(bars["changes"].copy()),
        "valid_share": pa.array(bars["valid"] / bars["total"]),
        "status": coded_column(bars["worst"].astype(np.int8), SEVERITY),
        "reason": coded_column(bars["reason"].astype(np.int8), REASONS),
        "status_since": pa.array(bars["since"].copy(), mask=bars["since"] == _NO_TIME).cast(MID_BARS.field("status_since").type),
    }
    return pa.Table.from_pydict(columns, schema=MID_BARS)
