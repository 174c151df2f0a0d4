"""Features of one depth partition: one row per row of its grid layer, from the grid and the touch layer. Loops: depth_feature_kernels.py.

- Row T knows what happened at or before T, T included, and nothing later. A touch row's time is its as_of, at the running maximum.
- What describes the grid row's own book (spread to ask_depth) is null where a side is empty, never NaN. imbalance_n, bid_depth and ask_depth sum
  all levels of the grid. A band holds the levels at a distance of at most that many bps of the mid, the border included; where the book
  ends before the band does (500 levels of BTCUSDT are some 5 bps), the band holds all levels and equals bid_depth or ask_depth.
- ofi and realised_vol over (T - interval, T] are those of features.py; changes counts the rows of that span with another touch (as in
  depth_bars.py). They come from the stream, not from the grid row, and are never null: 0 where nothing came. A snapshot whose id does not go on
  from that of the message before it is no order flow and no return; in feeds of nothing but snapshots each goes on from the one before.
- Sizes, ofi among them, are sums of integers in float64: exact below 2^53 units, to 16 digits above.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.aggregation.depth_feature_kernels import sum_levels
from tasks.aggregation.depth_layers import TOUCH, Scale, check_prices, touch_batches
from tasks.aggregation.feature_kernels import WIDE_QUOTES
from tasks.aggregation.features import Quotes, checked_steps, ratio
from tasks.aggregation.layer_reading import INT64_MIN, Columns, coded_column, codes, integers, record_batches, row_count
from tasks.errors import UsageError
from tasks.partitions import Stamp
from tasks.schemas import BANDS_BPS, DEPTH_FEATURES, REASONS, STATUSES, UNDEF_PRICE, depth_fields
from tasks.storage import ParquetSink, steady

_HEAD = ("ts_event", "as_of", "age_ns", "symbol", "status", "reason", "status_since")
_DIGITS = ("price_digits", "size_digits")
# Cells of level columns in work: 500 levels have 2,000 columns, and a batch of 65,536 such rows would take 1 GB.
_BATCH_CELLS = 1 << 20


def build_depth_features(
    grid_path: Path,
    bbo_path: Path,
    out: Path,
    stamp: Stamp,
    *,
    interval_ns: int,
    depth: int,
    fresh_rows: Sequence[int] = (),
    batch_rows: int = 65_536,
) -> dict[str, Any]:
    """Write the features of one partition (schema DEPTH_FEATURES), one row per grid row, and return the facts that are also in its footer.

    grid_path: layer depth-`depth`-<interval> (depth_books_schema(depth), T in ts_event, steps of at least `interval_ns`); bbo_path: layer of
    schema DEPTH_BBO; fresh_rows: its rows that do not follow from the row before, ascending. Memory: one batch of each, cut so that a wide grid
    stays small. The bytes do not depend on `batch_rows`.
    Facts: rows_in and rows_out (grid rows), quotes_in, quotes_used (touch rows at or before the last T), changes.
    Raises UsageError, SchemaMismatch, StorageError.
    """
    if interval_ns <= 0 or depth <= 0:
        raise UsageError(f"interval is {interval_ns} ns and depth {depth}; both must be positive")
    wide = min(batch_rows, max(_BATCH_CELLS // (4 * depth), 1))
    touch, scale = _Touches(bbo_path, interval_ns, fresh_rows, batch_rows), Scale(grid_path)
    names = [name for name, _ in depth_fields(depth)]
    last_time, changes = None, 0
    with ParquetSink(out, DEPTH_FEATURES, encodings=steady(DEPTH_FEATURES)) as sink:
        for batch in record_batches(grid_path, [*_HEAD, *_DIGITS, *names], wide):
            times = integers(grid_path, batch, "ts_event")
            last_time = checked_steps(times, last_time, interval_ns, grid_path, sink.rows)
            scale.note(integers(grid_path, batch, _DIGITS[0]), integers(grid_path, batch, _DIGITS[1]))
            columns = {**_head(grid_path, batch), **_book(grid_path, batch, depth, scale), **touch.fold(times)}
            changes += int(columns["changes"].sum())
            sink.write(pa.Table.from_pydict(columns, schema=DEPTH_FEATURES))
        facts = {"rows_in": sink.rows, "rows_out": sink.rows, "quotes_in": row_count([bbo_path]), "quotes_used": touch.used, "changes": changes}
        sink.commit(stamp, facts)
    return facts


class _Touches(Quotes):
    """The touch layer of a depth partition: order flow and volatility as in features.py, in units of the layer's scale, and the changes."""

    def __init__(self, path: Path, interval_ns: int, fresh_rows: Sequence[int], batch_rows: int) -> None:
        self._scale = Scale(path)
        self._moved, self._latest = np.empty(0, np.int64), INT64_MIN
        super().__init__(touch_batches(path, self._scale, batch_rows), "as_of", interval_ns, fresh_rows, WIDE_QUOTES)

    def fold(self, grid: np.ndarray) -> dict[str, Any]:
        columns: dict[str, Any] = super().fold(grid)
        columns["ofi"] = np.asarray(columns["ofi"]) / self._scale.size_units
        # The batch in work may reach beyond the last T: what does waits.
        row = np.searchsorted(grid, self._moved)
        known, self._moved = self._moved[row < len(grid)], self._moved[row == len(grid)]
        row = row[row < len(grid)]
        columns["changes"] = np.bincount(row[known > grid[row] - self.interval], minlength=len(grid))
        return columns

    def _prepared(self, batch: Columns) -> Columns:
        if len(batch["ts"]):
            clock = np.maximum(np.maximum.accumulate(batch["ts"]), self._latest)
            self._latest = int(clock[-1])
            self._moved = np.concatenate([self._moved, clock[batch["changed"]]])
        return {**super()._prepared(batch), **{name: batch[name].astype(np.float64) for name in TOUCH if "_sz_" in name}}


def _head(path: Path, batch: pa.RecordBatch) -> dict[str, Any]:
    """The columns that a feature row takes from its grid row; dictionaries are always whole, so that bytes do not depend on batches."""
    columns: dict[str, Any] = {name: batch.column(name) for name in _HEAD}
    for name, values in (("status", STATUSES), ("reason", REASONS)):
        columns[name] = coded_column(codes(path, batch, name, values), values)
    symbols = batch.column("symbol").unique().to_pylist()
    columns["symbol"] = coded_column(codes(path, batch, "symbol", symbols), symbols, pa.int32())
    return columns


def _levels(path: Path, batch: pa.RecordBatch, depth: int) -> Iterator[np.ndarray]:
    """px, then sz: int64[2 * depth, n], bid and ask by turns, best first."""
    for kind in ("px", "sz"):
        cells = np.empty((2 * depth, batch.num_rows), np.int64)
        for k in range(2 * depth):
            cells[k] = integers(path, batch, f"{('bid', 'ask')[k % 2]}_{kind}_{k // 2:02d}")
        yield cells


def _book(path: Path, batch: pa.RecordBatch, depth: int, scale: Scale) -> dict[str, pa.Array]:
    """The features of the grid row's own book, float64[n], null where a side is empty."""
    px, sz = _levels(path, batch, depth)
    check_prices(scale, px)
    sided = (px[0] != UNDEF_PRICE) & (px[1] != UNDEF_PRICE)
    bid, ask, bid_size, ask_size = (np.where(sided, column, 0) for column in (px[0], px[1], sz[0], sz[1]))
    mid2 = bid + ask
    # floor(|mid2| * bps / 10^4) without leaving int64; distances are integers, so the floor loses nothing.
    reach = np.stack([np.abs(mid2) // 10_000 * bps + np.abs(mid2) % 10_000 * bps // 10_000 for bps in BANDS_BPS])
    near, whole = np.zeros((2 * len(BANDS_BPS), len(mid2))), np.zeros((2, len(mid2)))
    sum_levels(px, sz, mid2, sided, reach, near, whole)
    touch_size = bid_size.astype(np.float64) + ask_size  # the sum of two may leave int64
    found = {
        "spread": (ask - bid) / scale.price_units,
        "mid": mid2 / (2 * scale.price_units),
        "microprice": (bid * ratio(ask_size, touch_size) + ask * ratio(bid_size, touch_size)) / scale.price_units,
        "imbalance_1": ratio(bid_size - ask_size, touch_size),
        "imbalance_n": ratio(whole[0] - whole[1], whole[0] + whole[1]),
        "bid_depth": whole[0] / scale.size_units,
        "ask_depth": whole[1] / scale.size_units,
    }
    found |= {f"{('bid', 'ask')[k % 2]}_depth_{BANDS_BPS[k // 2]}bps": near[k] / scale.size_units for k in range(len(near))}
    return {name: pa.array(values, mask=~sided) for name, values in found.items()}
