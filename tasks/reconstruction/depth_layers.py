"""Samples of a price-level replay, and level updates as they came, as tables of the lake's schemas. Copies out of the buffers; no files."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from tasks.depth_batches import NO_TIME, SNAPSHOT, DepthBatch
from tasks.reconstruction.depth_sample_kernels import GridRows, TouchRows
from tasks.reconstruction.depth_sampling import DepthSamples
from tasks.schemas import DEPTH_BBO, DEPTH_UPDATES, REASONS, SIDES, STATUSES, UNDEF_PRICE, depth_books_schema

_TS = pa.timestamp("ns", tz="UTC")
_STATUSES, _REASONS, _SIDES = pa.array(STATUSES), pa.array(REASONS), pa.array(SIDES)
# Place in SIDES of BID, ASK, and of a message without updates.
_SIDE_CODES = np.array([SIDES.index("B"), SIDES.index("A"), SIDES.index("N")], np.int8)
_NONE = 2


def _ts(values: np.ndarray) -> pa.Array:
    return pa.array(values).view(_TS)


class DepthTables:
    """Builds the tables of one partition; symbol and scale are constant in it."""

    def __init__(self, symbol: str, price_digits: int, size_digits: int) -> None:
        self._symbol, self._digits = pa.array([symbol]), (price_digits, size_digits)

    def _symbols(self, n: int) -> pa.Array:
        return pa.DictionaryArray.from_arrays(np.zeros(n, np.int32), self._symbol)

    def _columns(self, rows: GridRows | TouchRows, n: int, time: np.ndarray, depth: int) -> dict[str, pa.Array]:
        """What both kinds of rows have. A copy of all: the buffers are used again for the next step."""
        since = rows.since[:n].copy()
        levels = {
            f"{side}_{kind}_{level:02d}": pa.array(values[2 * level + at, :n].copy())
            for level in range(depth)
            for kind, values in (("px", rows.px), ("sz", rows.sz))
            for at, side in enumerate(("bid", "ask"))
        }
        scale = {name: pa.array(np.full(n, digits, np.uint8)) for name, digits in zip(("price_digits", "size_digits"), self._digits, strict=True)}
        return {
            "symbol": self._symbols(n),
            "update_id": pa.array(rows.update_id[:n].copy()),
            "sequence": pa.array(rows.sequence[:n].copy()),
            "status": pa.DictionaryArray.from_arrays(rows.status[:n].copy(), _STATUSES),
            "reason": pa.DictionaryArray.from_arrays(rows.reason[:n].copy(), _REASONS),
            # A grid row before the first message knows no start.
            "status_since": pa.array(since, mask=(since < 0) | (since > time)).view(_TS),
            **scale,
            **levels,
        }

    def grid(self, samples: DepthSamples, depth: int) -> pa.Table:
        """The rows of the time grid with so many levels; as_of is null and age_ns -1 before the first message in the book."""
        rows, n = samples.grid, samples.n_grid
        time, as_of = rows.time[:n].copy(), rows.as_of[:n].copy()
        seen = as_of >= 0
        arrays = {
            "ts_event": _ts(time),
            "ts_recv": _ts(time),
            "as_of": pa.array(as_of, mask=~seen).view(_TS),
            "age_ns": pa.array(np.where(seen, time - as_of, -1)),
            **self._columns(rows, n, time, depth),
        }
        schema = depth_books_schema(depth)
        return pa.table([arrays[name] for name in schema.names], schema=schema)

    def touch(self, samples: DepthSamples) -> pa.Table:
        """The rows of messages that changed the touch or the status."""
        rows, n = samples.touch, samples.n_touch
        clock, ts = rows.clock[:n].copy(), rows.ts[:n].copy()
        arrays = {
            "ts_event": _ts(np.where(rows.cts[:n] == NO_TIME, ts, rows.cts[:n])),
            "ts_recv": _ts(ts),
            "as_of": _ts(clock),
            "age_ns": pa.array(np.zeros(n, np.int64)),
            **self._columns(rows, n, clock, 1),
        }
        return pa.table([arrays[name] for name in DEPTH_BBO.names], schema=DEPTH_BBO)

    def updates(self, batch: DepthBatch) -> pa.Table:
        """All level updates of a batch as written, whether they count or not; a message without any has one row with side N."""
        counts = np.diff(batch.first)
        of = np.repeat(np.arange(len(batch)), np.maximum(counts, 1))  # message of each row
        ends = np.cumsum(np.maximum(counts, 1))
        last = np.zeros(len(of), bool)
        last[ends - 1] = True
        full = (counts > 0)[of]

        def spread(values: np.ndarray, empty: int) -> np.ndarray:
            out = np.full(len(of), empty, values.dtype)
            out[full] = values[batch.first[0] : batch.first[-1]] if len(batch) else values[:0]
            return out

        event = np.where(batch.cts == NO_TIME, batch.ts, batch.cts)
        arrays = {
            "ts_event": _ts(event[of]),
            "ts_recv": _ts(batch.ts[of]),
            "symbol": self._symbols(len(of)),
            "is_snapshot": pa.array((batch.kind == SNAPSHOT)[of]),
            "last": pa.array(last),
            "side": pa.DictionaryArray.from_arrays(_SIDE_CODES[spread(batch.side, _NONE)], _SIDES),
            "price": pa.array(spread(batch.price, UNDEF_PRICE)),
            "size": pa.array(spread(batch.size, 0)),
            "price_digits": pa.array(spread(batch.price_digits, 0)),
            "size_digits": pa.array(spread(batch.size_digits, 0)),
            "update_id": pa.array(batch.update_id[of]),
            "sequence": pa.array(batch.sequence[of]),
        }
        return pa.table([arrays[name] for name in DEPTH_UPDATES.names], schema=DEPTH_UPDATES)
