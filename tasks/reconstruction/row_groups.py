"""The rows at event ends on their way to the encoder: buffers of one row group each, filled in turn and encoded in place beside the replay.

A row of ten levels has 400 bytes, and a session 6M of them: each copy of them all costs as much as their compression. They are copied once, out
of the replay's buffer into the row group that is encoded; joining batches of rows instead took two more copies, and new memory for each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future

import numpy as np
import pyarrow as pa

from tasks.book_rows import PACKED_WORDS
from tasks.reconstruction.sampling import Samples

# One that is filled, one that is encoded, and one that waits for its turn.
BUFFERS = 3
EVENT_COLUMNS = {"ts_event": "ts_event", "ts_recv": "ts_recv", "as_of": "clock", "sequence": "sequence"}


class RowGroup:
    """Arrays of `room` rows, `n` of them filled: levels as the kernel packs them, and the columns beside them under their names."""

    def __init__(self, depth: int, room: int) -> None:
        self.levels = np.empty((room, PACKED_WORDS * depth), np.int64)
        self.columns = {
            **{name: np.empty(room, np.uint32 if name == "sequence" else np.int64) for name in EVENT_COLUMNS},
            "status": np.empty(room, np.int8), "reason": np.empty(room, np.int8), "since": np.empty(room, np.int64),
        }  # fmt: skip
        self.n = 0

    def take(self, samples: Samples, start: int, stop: int) -> None:
        """Append rows start..stop-1 of a batch."""
        rows, here = samples.rows, slice(self.n, self.n + stop - start)
        at = rows.at[start:stop]
        self.levels[here] = rows.levels[start:stop]
        for name, source in EVENT_COLUMNS.items():
            np.take(samples.events[source], at, out=self.columns[name][here])
        for name in ("status", "reason", "since"):
            self.columns[name][here] = getattr(rows, name)[start:stop]
        self.n = here.stop


class RowGroups:
    """Cuts the rows of a partition into row groups of exactly `rows` (the last may be shorter), whatever the batches were.

    write: called with the table that `to_table` makes of a full group, on `encoder` if there is one; what it raises comes out of `add` or `finish`.
    """

    def __init__(
        self, depth: int, rows: int, to_table: Callable[[RowGroup], pa.Table], write: Callable[[pa.Table], None], encoder: Executor | None
    ) -> None:
        self._depth, self._rows, self._to_table, self._write, self._encoder = depth, rows, to_table, write, encoder
        self._filling: RowGroup | None = None
        self._made = 0
        self._encoding: deque[tuple[RowGroup, Future[None]]] = deque()

    def add(self, samples: Samples) -> None:
        """Take the rows of a batch."""
        start = 0
        while start < samples.n_rows:
            group = self._filling = self._filling or self._next()
            stop = min(samples.n_rows, start + self._rows - group.n)
            group.take(samples, start, stop)
            start = stop
            if group.n == self._rows:
                self._hand_over(group)

    def finish(self) -> None:
        """Encode what is left and wait for all."""
        if self._filling is not None:
            self._hand_over(self._filling)
        while self._encoding:
            self._encoding.popleft()[1].result()

    def _hand_over(self, group: RowGroup) -> None:
        self._filling = None
        if self._encoder is not None:
            done = self._encoder.submit(lambda: self._write(self._to_table(group)))
        else:
            done = Future()
            done.set_result(self._write(self._to_table(group)))
        self._encoding.append((group, done))

    def _next(self) -> RowGroup:
        if self._made < BUFFERS:
            self._made += 1
            return RowGroup(self._depth, self._rows)
        group, done = self._encoding.popleft()
        done.result()
        group.n = 0
        return group
