"""Samples of a replay as tables of the lake's schemas. Copies out of the replay's buffers; knows nothing of files."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from tasks.book_rows import LEVELS, packed_schema
from tasks.partitions import Partition
from tasks.reconstruction.row_groups import RowGroup
from tasks.reconstruction.sample_kernels import Rows, Trades
from tasks.reconstruction.sampling import Samples
from tasks.reconstruction.trade_sign_kernels import new_carry, sign_trades
from tasks.schemas import REASONS, SIDE_METHODS, SIDES, STATUSES, TRADES, books_schema, char_index, level_fields

_TS = pa.timestamp("ns", tz="UTC")
_STATUSES, _REASONS = pa.array(STATUSES), pa.array(REASONS)
_SIDES, _METHODS = pa.array(SIDES), pa.array(SIDE_METHODS)
_SIDE_INDEX = char_index(SIDES)


def _ts(values: np.ndarray) -> pa.Array:
    return pa.array(values).view(_TS)


def _states(status: np.ndarray, reason: np.ndarray, since: np.ndarray, time: np.ndarray) -> dict[str, pa.Array]:
    return {
        "status": pa.DictionaryArray.from_arrays(status, _STATUSES),
        "reason": pa.DictionaryArray.from_arrays(reason, _REASONS),
        # A grid row before the first record knows no start.
        "status_since": pa.array(since, mask=(since < 0) | (since > time)).view(_TS),
    }


def _copied_states(rows: Rows | Trades, n: int, time: np.ndarray) -> dict[str, pa.Array]:
    # Copies: the buffers are used again for the next batch.
    return _states(rows.status[:n].copy(), rows.reason[:n].copy(), rows.since[:n].copy(), time)


class LayerTables:
    """Builds the tables of one partition; `symbol` and ids are constant in it. Keeps the tick rule's memory between batches."""

    def __init__(self, partition: Partition, depth: int) -> None:
        self._partition, self._depth = partition, depth
        self._symbol = pa.array([partition.symbol])
        self._packed, self._books, self._bbo = packed_schema(depth), books_schema(depth), books_schema(1)
        self._carry = new_carry()

    def _ids(self, n: int) -> dict[str, pa.Array]:
        return {
            "publisher_id": pa.array(np.full(n, self._partition.publisher_id, np.uint16)),
            "instrument_id": pa.array(np.full(n, self._partition.instrument_id, np.uint32)),
            "symbol": pa.DictionaryArray.from_arrays(np.zeros(n, np.int32), self._symbol),
        }

    def _levels(self, rows: Rows, n: int, depth: int) -> dict[str, pa.Array]:
        buffers = {"px": rows.px, "sz": rows.sz, "ct": rows.ct}
        out = {}
        for name, _ in level_fields(depth):
            side, kind, level = name.split("_")
            # A copy: the buffers are used again for the next batch.
            out[name] = pa.array(buffers[kind][2 * int(level) + (side == "ask"), :n].copy())
        return out

    def event_rows(self, group: RowGroup) -> pa.Table:
        """The mbp rows at event ends, packed. Without a copy: the group must not change while the table is used."""
        n = group.n
        columns = {name: values[:n] for name, values in group.columns.items()}
        arrays = {
            **{name: _ts(columns[name]) for name in ("ts_event", "ts_recv", "as_of")},
            "age_ns": pa.array(np.zeros(n, np.int64)),
            **self._ids(n),
            "sequence": pa.array(columns["sequence"]),
            **_states(columns["status"], columns["reason"], columns["since"], columns["as_of"]),
            LEVELS: pa.Array.from_buffers(self._packed.field(LEVELS).type, n, [None, pa.py_buffer(group.levels[:n])]),
        }
        return pa.table([arrays[name] for name in self._packed.names], schema=self._packed)

    def bbo(self, samples: Samples) -> pa.Table:
        """The rows where the touch or the status changed, and those of the starts of windows."""
        rows, n = samples.bbo, samples.n_bbo
        events, at = samples.events, rows.at[:n]
        arrays = {
            "ts_event": _ts(events["ts_event"][at]),
            "ts_recv": _ts(events["ts_recv"][at]),
            "as_of": _ts(events["clock"][at]),
            "age_ns": pa.array(np.zeros(n, np.int64)),
            **self._ids(n),
            "sequence": pa.array(events["sequence"][at]),
            **_copied_states(rows, n, events["clock"][at]),
            **self._levels(rows, n, 1),
        }
        return pa.table([arrays[name] for name in self._bbo.names], schema=self._bbo)

    def grid(self, samples: Samples) -> pa.Table:
        """The rows of the time grid; as_of is null and age_ns -1 before the first complete event."""
        grid, n = samples.grid, samples.n_grid
        time, as_of = grid.time[:n].copy(), grid.as_of[:n].copy()
        seen = as_of >= 0
        arrays = {
            "ts_event": _ts(time),
            "ts_recv": _ts(time),
            "as_of": pa.array(as_of, mask=~seen).view(_TS),
            "age_ns": pa.array(np.where(seen, time - as_of, -1)),
            **self._ids(n),
            "sequence": pa.array(grid.sequence[:n].copy()),
            **_copied_states(grid.rows, n, time),
            **self._levels(grid.rows, n, self._depth),
        }
        return pa.table([arrays[name] for name in self._books.names], schema=self._books)

    def trades(self, samples: Samples) -> pa.Table:
        """The prints, signed by the feed, else the quote rule, else the tick rule."""
        events, n = samples.events, samples.n_trades
        at, touch = samples.trades.at[:n], samples.trades.touch[:, :n].copy()
        price = events["price"][at]
        side, method = sign_trades(events["side"][at], price, touch[0], touch[1], self._carry)
        arrays = {
            "ts_event": _ts(events["ts_event"][at]),
            "ts_recv": _ts(events["ts_recv"][at]),
            "as_of": _ts(events["clock"][at]),
            **self._ids(n),
            "price": pa.array(price),
            "size": pa.array(events["size"][at]),
            "side": pa.DictionaryArray.from_arrays(_SIDE_INDEX[side], _SIDES),
            "side_method": pa.DictionaryArray.from_arrays(method, _METHODS),
            "order_id": pa.array(events["order_id"][at]),
            "flags": pa.array(events["flags"][at]),
            "sequence": pa.array(events["sequence"][at]),
            "bid_px_00": pa.array(touch[0]),
            "ask_px_00": pa.array(touch[1]),
            "bid_sz_00": pa.array(touch[2]),
            "ask_sz_00": pa.array(touch[3]),
            **_copied_states(samples.trades, n, events["clock"][at]),
        }
        return pa.table([arrays[name] for name in TRADES.names], schema=TRADES)
