"""What the readers of published books yield: batches as one matrix of integers, and the check that every row passes before it enters the lake.

A published book is a file of schema mbp-N, tbbo, bbo-1s or bbo-1m: the book as its vendor rebuilt it. Bytes become batches in published_csv.py,
published_dbn.py and published_parquet.py, batches become files in published_routing.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from tasks.scanning.batches import BadRow
from tasks.schemas import ACTIONS, char_index, level_fields

# Rows of the matrix of a batch; those of the levels follow, in the order of `level_fields`.
HEAD = ("ts_event", "ts_recv", "publisher_id", "instrument_id", "sequence", "action", "flags")
TS_EVENT, TS_RECV, PUBLISHER, INSTRUMENT, SEQUENCE, ACTION, FLAGS = range(len(HEAD))
LEVELS = len(HEAD)
LEVEL_ROWS = 6  # bid px, ask px, bid sz, ask sz, bid ct, ask ct
NO_TIME = -1  # a time that is not set; as in DBN, where it is 2^64-1

# Why a row that can be read is set aside: position = code.
REASONS = ("", "no_time", "time_range", "action")
DETAILS = {"no_time": "a time is not set", "time_range": "a time is past 2^63-1 ns", "action": f"the action is none of {', '.join(ACTIONS)}"}
_UNSET, _RANGE, _ACTION = 1, 2, 3
_KNOWN = char_index(ACTIONS) >= 0


@dataclass
class PublishedBatch:
    """Consecutive rows of one source.

    values: int64[LEVELS + LEVEL_ROWS * depth, n], a row per column: times in ns, NO_TIME where not set, other negatives for times past 2^63-1;
    action as ASCII code, 0 where the schema has none; prices in 1e-9, UNDEF_PRICE where a level is empty. symbol_code int32[n] into
    `PublishedReader.symbols`; source_row int64[n]; raw: row position -> (byte offset or -1, its bytes); bad: rows that could not be read.
    """

    values: np.ndarray
    symbol_code: np.ndarray
    source_row: np.ndarray
    raw: Callable[[int], tuple[int, bytes]]
    bad: list[BadRow] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.symbol_code)


class PublishedReader(Protocol):
    """An open published book; `symbols` grows while reading, `source_rows` (bad ones included) is final at the end.

    Raises CorruptSource from `batches` where the file breaks.
    """

    symbols: list[str]
    source_rows: int

    def batches(self, batch_rows: int) -> Iterator[PublishedBatch]: ...

    def close(self) -> None: ...


def columns_of(depth: int) -> tuple[str, ...]:
    """Names of the rows of `PublishedBatch.values`."""
    return (*HEAD, *(name for name, _ in level_fields(depth)))


def faults(values: np.ndarray, by_row: bool) -> np.ndarray:
    """uint8[n] positions in REASONS of the rows of a batch, 0 for good ones.

    by_row: of a schema with a row per update, which has an action and a venue time in each. In bbo-1s and bbo-1m the venue time is that of
    the last trade, and not set where there was none.
    """
    event, recv = values[TS_EVENT], values[TS_RECV]
    fault = np.zeros(values.shape[1], np.uint8)
    if by_row:
        fault[~_KNOWN[values[ACTION] & 255]] = _ACTION
    fault[(event < NO_TIME) | (recv < NO_TIME)] = _RANGE
    fault[(recv == NO_TIME) | ((event == NO_TIME) & by_row)] = _UNSET
    return fault
