"""Resting orders as files: the closing and the opening book of a day, and the checkpoints within it. Writing and reading; no replay here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import StorageError
from tasks.footers import read_facts
from tasks.partitions import Stamp
from tasks.schemas import CHECKPOINTS, SIDES, char_codes
from tasks.storage import ParquetSink, write_table

RESTING_ORDERS = pa.schema(list(CHECKPOINTS)[1:])
# Records between two checkpoints. Reading and replaying 131,072 records takes about 40 ms, a checkpoint of 10,000 orders 100 KB.
CHECKPOINT_EVERY = 131_072
_SIDES = pa.array(SIDES)


def write_resting(path: Path, orders: dict[str, np.ndarray], stamp: Stamp, facts: dict[str, Any]) -> None:
    """Orders as of OrderBook.resting_orders as one file."""
    write_table(path, pa.table(_columns(orders), schema=RESTING_ORDERS), stamp, facts)


def read_resting(path: Path, row_group: int | None = None) -> dict[str, np.ndarray]:
    """Orders as OrderBook.restore takes them, of the whole file or of one row group (-1: an empty book). Raises StorageError."""
    try:
        if row_group == -1:
            table = RESTING_ORDERS.empty_table()
        elif row_group is None:
            table = pq.ParquetFile(path, pre_buffer=False).read(columns=RESTING_ORDERS.names)
        else:
            table = pq.ParquetFile(path, pre_buffer=False).read_row_group(row_group, columns=RESTING_ORDERS.names)
    except (OSError, pa.ArrowException) as fault:
        raise StorageError(
            f"Cannot read {path}: {fault}. A book goes on from it: run its day again, or in a copy of a lake pull the day before as well."
        ) from fault
    side = table["side"].combine_chunks()
    if isinstance(side, pa.ChunkedArray):
        side = side.chunk(0)
    codes = char_codes(tuple(side.dictionary.to_pylist())) if table.num_rows else np.zeros(0, np.uint8)
    return {
        "side": codes[side.indices.to_numpy()] if table.num_rows else codes,
        **{name: np.array(table[name]) for name in RESTING_ORDERS.names[1:]},
    }


class CheckpointWriter:
    """The checkpoints of one partition: a row group each, and where each one stands in the footer."""

    def __init__(self, path: Path) -> None:
        self.sink = ParquetSink(path, CHECKPOINTS, dictionary=["checkpoint", "side"], row_group_rows=1 << 40)
        self._places: list[dict[str, Any]] = []
        self._groups = 0

    def add(self, events: str, row: int, orders: dict[str, np.ndarray], moment: dict[str, Any]) -> None:
        """The book after `row` records of the events file; moment: Replay.moment."""
        n = len(orders["price"])
        self._places.append({"events": events, "row": row, **moment, "row_group": self._groups if n else -1})
        if n:
            number = pa.array(np.full(n, len(self._places) - 1, np.int32))
            self.sink.write(pa.table([number, *_columns(orders)], schema=CHECKPOINTS))
            self.sink.end_group()
            self._groups += 1

    def commit(self, stamp: Stamp) -> None:
        """Name the file."""
        self.sink.commit(stamp, {"checkpoints": self._places})


def checkpoints_of(path: Path) -> list[dict[str, Any]]:
    """Where the checkpoints of a file stand, ascending in time; none when the file is absent."""
    return read_facts(path).get("checkpoints", []) if path.exists() else []


def _columns(orders: dict[str, np.ndarray]) -> list[pa.Array]:
    side = pa.DictionaryArray.from_arrays(np.searchsorted(char_codes(SIDES), orders["side"]).astype(np.int8), _SIDES)
    return [side, *(pa.array(orders[name]) for name in RESTING_ORDERS.names[1:])]
