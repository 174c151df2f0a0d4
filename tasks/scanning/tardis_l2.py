"""Tardis.dev incremental_book_L2: level updates as messages.

Belongs here: the reader and its rules. Rows become messages in `tardis_l2_kernels.py`.

- One message: consecutive rows of one local_timestamp. Only after all of them the book may be read, so it comes when a row of another local time
  follows, or the file ends.
- Times: ts = local_timestamp, when Tardis received it; cts = timestamp of the message's last row, the exchange's (a copy of the local one where the
  exchange tells none). Microseconds in the file, ns here; update_id and sequence are NO_ID.
- Rows before the first is_snapshot=true are skipped: `skipped_rows`.
- SNAPSHOT: a row with is_snapshot=true discards both sides when it follows one with false, or one with true and another local_timestamp.
- A message in which that happens is one SNAPSHOT with all rows from there on, updates behind the snapshot included, in file order: nothing can be
  read between them. A SNAPSHOT may so hold a price twice, and size 0. Its rows before are left out: `discarded_rows`.
- Amounts are absolute, 0 removes the level.
- A bad row stands before the delta whose local time it has, and behind the snapshot: one that lacks a row must not make the book valid again.

Source: docs.tardis.dev, data types and "how to reconstruct the order book".
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from tasks.depth_batches import DepthBatch
from tasks.scanning import tardis_l2_kernels as kernels
from tasks.scanning import tardis_row_kernels as rows
from tasks.scanning.batches import BadRow
from tasks.scanning.csv_lines import Lines
from tasks.scanning.tardis_formats import L2
from tasks.scanning.tardis_rows import BAD_ROWS_AT_ONCE, TardisRows, depth_batch, plan_columns, symbols

__all__ = ["TardisL2", "open_tardis_l2", "symbols"]

_PLACES = {
    "local_timestamp": rows.CAPTURED, "timestamp": kernels.MADE, "is_snapshot": kernels.IS_SNAPSHOT_AT, "side": kernels.SIDE_AT,
    "price": kernels.PRICE_AT, "amount": kernels.AMOUNT_AT,
}  # fmt: skip
_MIN_ROW = 16  # bytes of a good row without exchange and symbol
_I, _B = np.dtype(np.int64), np.dtype(np.uint8)
MESSAGE_TYPES = (_B, _I, _I, _I, _I)  # kind, ts, cts, line, offset
UPDATE_TYPES = (_B, _I, _I, _B, _B)  # side, price, size, price_digits, size_digits


def open_tardis_l2(path: str | Path, symbol: str = "") -> TardisL2:
    """A DepthReader of an incremental_book_L2 file, plain, gzip or zstd. symbol: of a file that holds several, see `symbols`.

    Raises SchemaMismatch (other columns), EmptySource, CorruptSource, SourceError.
    """
    return TardisL2(path, symbol)


class TardisL2(TardisRows):
    """DepthReader (tasks/depth_batches.py) of incremental_book_L2; depth is 0: the feed's whole book.

    `line` counts data rows from 0, without the header. skipped_rows, discarded_rows: see the rules above. A file that breaks raises CorruptSource
    after its last whole message: the rows of the one that it breaks in are not given, since more of them may be lost.
    Memory: about four blocks, one batch, and the longest message.
    """

    def __init__(self, path: str | Path, symbol: str = "") -> None:
        super().__init__(path, symbol, (L2,))
        self._plan = (plan_columns(self.names, _PLACES, rows.BOOK_SIDE), self.wanted)
        self._row = self.scratch(kernels.TARGETS)
        self._state = self.new_state(kernels.L2_STATE_SIZE)
        self._messages: tuple[np.ndarray, ...] = ()
        self._updates: tuple[np.ndarray, ...] = ()

    @property
    def skipped_rows(self) -> int:
        return int(self._state[kernels.SKIPPED])

    @property
    def discarded_rows(self) -> int:
        return int(self._state[kernels.DISCARDED])

    @property
    def left_out(self) -> dict[str, int]:
        """As TardisRows; before_snapshot: skipped_rows, replaced: discarded_rows."""
        return {**super().left_out, "before_snapshot": self.skipped_rows, "replaced": self.discarded_rows}

    @property
    def lines_are_updates(self) -> bool:
        """A row is one level."""
        return True

    def batches(self, batch_bytes: int) -> Generator[DepthBatch, None, None]:
        """The messages of about `batch_bytes` of text at a time, in file order; bad rows (batches.BadRow) with the message that they spoil."""
        self._state = self.new_state(kernels.L2_STATE_SIZE)
        self._bad = np.empty((0, rows.BAD_SIZE), np.int64)
        self._waiting: list[BadRow] = []
        self._make_room(0)
        for lines in self.regions(batch_bytes):
            yield from self._take(lines)
        self._make_room(0)
        kernels.close_message(self._state, self._messages[0], self._messages[1], self._bad, -2, False)
        if len(batch := self._batch()) or batch.bad:
            yield batch

    def _take(self, lines: Lines) -> Iterator[DepthBatch]:
        self._make_room((lines.end - lines.pos) // _MIN_ROW + 1)
        known = int(self._state[rows.BADS])
        code, lines.pos = kernels.parse_l2(
            lines.data, lines.pos, lines.end, lines.base, self._plan, self._row, self._state, self._messages, self._updates, self._bad
        )  # fmt: skip
        self._waiting += self.bad_rows(self._bad[known : self._state[rows.BADS]], lines)
        self.check_mixed(code, lines)
        if len(batch := self._batch()) or batch.bad:
            yield batch

    def _make_room(self, count: int) -> None:
        """Fresh arrays for `count` more rows, with the open message and the bad rows without a place at their start."""
        state = self._state
        n, m, open_bad = int(state[kernels.MESSAGES]), int(state[kernels.UPDATES]), int(state[kernels.OPEN_BAD])
        opened = int(state[kernels.OPEN])
        begin = int(self._messages[-1][n]) if opened else m
        bad = np.empty((int(state[rows.BADS]) - open_bad + BAD_ROWS_AT_ONCE, rows.BAD_SIZE), np.int64)
        bad[: state[rows.BADS] - open_bad] = self._bad[open_bad : state[rows.BADS]]
        messages = [np.empty(count + 3, dtype) for dtype in (*MESSAGE_TYPES, _I)]
        updates = [np.empty(m - begin + count, dtype) for dtype in UPDATE_TYPES]
        messages[-1][0] = 0
        if opened:
            for old, new in zip(self._messages, messages, strict=True):
                new[0] = old[n]
            for old, new in zip(self._updates, updates, strict=True):
                new[: m - begin] = old[begin:m]
            messages[-1][:2] = 0, m - begin
        state[kernels.MESSAGES], state[kernels.UPDATES] = 0, m - begin
        state[rows.BADS] -= open_bad
        state[kernels.SURE_BAD] = max(0, state[kernels.SURE_BAD] - open_bad)
        state[kernels.OPEN_BAD] = 0
        self._messages, self._updates, self._bad = tuple(messages), tuple(updates), bad

    def _batch(self) -> DepthBatch:
        """The whole messages, and the bad rows that have their places."""
        n, open_bad = int(self._state[kernels.MESSAGES]), int(self._state[kernels.OPEN_BAD])
        told = [replace(entry, before=int(before)) for entry, before in zip(self._waiting, self._bad[:open_bad, rows.BAD_BEFORE], strict=False)]
        del self._waiting[:open_bad]
        return depth_batch(self._messages, self._updates, n, told)
