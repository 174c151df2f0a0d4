"""What every reader of a depth feed yields and every book of price levels takes: batches of messages with their level updates.

The contract between scanning and reconstruction; no code of either. Readers know bytes and nothing of books or the lake.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

SNAPSHOT, DELTA = 0, 1  # kinds of a message
BID, ASK = 0, 1
NO_TIME = -1
PRICE_DIGITS = 9  # of prices in the lake, 1e-9; some tokens are quoted with more
NO_ID = -1
MAX_DIGITS = 18


class BadLine(Protocol):
    """A line that could not be read, after `before` messages of its batch: where it stands (as `line` and `offset` of DepthBatch) and why."""

    @property
    def before(self) -> int: ...

    @property
    def source_row(self) -> int: ...

    @property
    def byte_offset(self) -> int: ...

    @property
    def reason(self) -> str: ...


@dataclass
class DepthBatch:
    """Consecutive messages of one source, n messages with m level updates in file order.

    kind uint8[n] (SNAPSHOT replaces the book, DELTA changes it); ts, cts int64[n] ns since the epoch UTC, when the message was sent (ts_recv of
    the lake) and when the engine made it (ts_event; NO_TIME: not told); update_id, sequence int64[n] (NO_ID: not told); line int64[n] 0-based
    line; offset int64[n] byte in the decompressed stream; first int64[n + 1]: message k has the updates first[k] to first[k + 1] - 1.
    side uint8[m] (BID, ASK); price, size int64[m] in units of 10^-price_digits and 10^-size_digits of the same update, size 0 removes the level;
    price_digits, size_digits uint8[m], at most MAX_DIGITS: decimals as written, so that the original text can be made again.
    bad: lines that could not be read; `before` counts messages.
    """

    kind: np.ndarray
    ts: np.ndarray
    cts: np.ndarray
    update_id: np.ndarray
    sequence: np.ndarray
    line: np.ndarray
    offset: np.ndarray
    first: np.ndarray
    side: np.ndarray
    price: np.ndarray
    size: np.ndarray
    price_digits: np.ndarray
    size_digits: np.ndarray
    bad: Sequence[BadLine] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.kind)


class DepthReader(Protocol):
    """An open source of one symbol.

    symbol, depth: as the first message says (depth 0: not told); lines: lines met so far, bad ones included; left_out: lines so far that belong to
    no message, by reason; lines_are_updates: whether each line is an update instead of a message; bytes_read: of the file as stored. At the end
    lines = messages (or updates) yielded + left out + bad. Arrays of a batch are its own. Raises CorruptSource from `batches` where the file
    breaks, after all whole lines before it.
    """

    @property
    def symbol(self) -> str: ...

    @property
    def depth(self) -> int: ...

    @property
    def lines(self) -> int: ...

    @property
    def left_out(self) -> dict[str, int]: ...

    @property
    def lines_are_updates(self) -> bool: ...

    @property
    def bytes_read(self) -> int: ...

    def batches(self, batch_bytes: int) -> Generator[DepthBatch, None, None]: ...

    def close(self) -> None: ...
