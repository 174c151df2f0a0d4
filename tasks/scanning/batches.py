"""What every reader of a source format yields: batches of event columns, and the rows that could not be read.

Readers know bytes and nothing of partitions, filters or the lake; `decode.py` takes their batches further.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class BadRow:
    """A row that could not be read, with its bytes.

    before: position in the batch before which it stood (0..n); source_row: 0-based data row; byte_offset: in the decompressed stream or -1;
    symbol_code: its symbol where it could be read, else -1.
    """

    before: int
    source_row: int
    byte_offset: int
    raw: bytes
    reason: str
    detail: str = ""
    symbol_code: int = -1


@dataclass
class RawBatch:
    """Consecutive rows of one source, decoded.

    columns: the arrays of `tasks.schemas.EVENT_DTYPES`, all of length n, in file order; symbol_code: int32[n] into `Reader.symbols`;
    source_row: int64[n] 0-based data row each event came from; raw: row position -> (byte offset or -1, its bytes as they stood);
    bad: rows that could not be read; truth: int64[m, depth, 4] published book (ask px, ask sz, bid px, bid sz; px 1e-9, UNDEF_PRICE and
    size 0 where empty) after each of the m records with F_LAST in this batch, for sources that bring one, else None.
    """

    columns: dict[str, np.ndarray]
    symbol_code: np.ndarray
    source_row: np.ndarray
    raw: Callable[[int], tuple[int, bytes]]
    bad: list[BadRow] = field(default_factory=list)
    truth: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.symbol_code)


class Reader(Protocol):
    """An open source. `symbols` grows while reading. `source_rows` (data rows met, bad ones included) and `expanded_rows` (events made beyond
    one per row) are final at the end: source_rows + expanded_rows = events yielded + bad rows. `bytes_read`: of the file as stored, for progress.

    Raises CorruptSource from `batches` where the file breaks, after all whole rows before the break were yielded.
    """

    symbols: list[str]
    source_rows: int
    expanded_rows: int
    bytes_read: int

    def batches(self, batch_rows: int) -> Iterator[RawBatch]: ...

    def close(self) -> None: ...
