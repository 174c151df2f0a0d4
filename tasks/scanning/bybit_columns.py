"""The arrays of one batch of depth messages while a reader fills it.

Belongs here: how large they must be, and how a message that was not parsed by the kernel gets into them. The kernel itself is in
`bybit_line_kernels.py`; what a finished batch is, in `tasks.depth_batches`.
"""

from __future__ import annotations

import numpy as np

from tasks.depth_batches import DepthBatch
from tasks.scanning.batches import BadRow
from tasks.scanning.bybit_general import Message
from tasks.scanning.bybit_line_kernels import COUNTS, LEVEL_BYTES, LINES, MESSAGE_BYTES, MESSAGES, UPDATES

_MESSAGE_DTYPES = (np.uint8, *(np.int64,) * 6)
_UPDATE_DTYPES = (np.uint8, np.int64, np.int64, np.uint8, np.uint8)


class Columns:
    """The arrays of one batch while it is filled: room for every message that so many bytes of text can hold."""

    def __init__(self, text_bytes: int, lines: int) -> None:
        rows, room = text_bytes // MESSAGE_BYTES + 1, text_bytes // LEVEL_BYTES + 1
        self.messages = (*(np.empty(rows, dtype) for dtype in _MESSAGE_DTYPES), np.empty(rows + 1, np.int64))
        self.messages[-1][0] = 0
        self.updates = tuple(np.empty(room, dtype) for dtype in _UPDATE_DTYPES)
        self.counts = np.zeros(COUNTS, np.int64)
        self.counts[LINES] = lines
        self.bad: list[BadRow] = []

    def add(self, message: Message, offset: int) -> None:
        """Append a message that the general parser read."""
        n, m = int(self.counts[MESSAGES]), int(self.counts[UPDATES])
        end = m + len(message.levels)
        row = (message.kind, message.ts, message.cts, message.update_id, message.sequence, int(self.counts[LINES]), offset, m)
        for column, value in zip(self.messages, row, strict=True):
            column[n] = value
        self.messages[-1][n + 1] = end
        for column, values in zip(self.updates, zip(*message.levels, strict=True), strict=bool(message.levels)):
            column[m:end] = values
        self.counts += (1, len(message.levels), 1, message.thirds)

    def batch(self) -> DepthBatch:
        """What was filled."""
        n, m = int(self.counts[MESSAGES]), int(self.counts[UPDATES])
        kind, ts, cts, update_id, sequence, line, offset = (column[:n] for column in self.messages[:-1])
        side, price, size, price_digits, size_digits = (column[:m] for column in self.updates)
        first = self.messages[-1][: n + 1]
        return DepthBatch(
            kind, ts, cts, update_id, sequence, line, offset, first, side, price, size, price_digits, size_digits, self.bad  # type: ignore[arg-type]
        )  # fmt: skip
