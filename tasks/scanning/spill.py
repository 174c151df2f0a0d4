"""Rows of many partitions on disk until the source has been read: sorted runs in one file without a name, read back partition by partition.

The file lies in the lake's hidden `.spill` folder, because the lake's disk is the one with room, and is unlinked as soon as it is open, so
that a killed run leaves nothing behind.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from tasks.disk import storage_error
from tasks.schemas import EVENT_DTYPES
from tasks.storage import ROW_GROUP_ROWS

RECORD = np.dtype(list(EVENT_DTYPES.items()))
_COPY_ROWS = 65_536


class Spill:
    """Runs of event rows, each sorted by partition; within a partition the order of the runs is the order of the source."""

    def __init__(self, folder: Path) -> None:
        self._path, self._rows = folder, 0
        self._runs: list[np.ndarray] = []  # int64[k, 3] per run: partition, first row in the file, rows
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115, closed by close()
        except OSError as fault:
            raise storage_error(folder, fault) from fault

    def add_run(self, columns: Mapping[str, np.ndarray], order: np.ndarray, parts: np.ndarray, counts: np.ndarray) -> None:
        """Append the rows `order` of `columns`, which hold counts[i] rows of partition parts[i], one partition after the other."""
        starts = self._rows + np.cumsum(counts) - counts
        self._runs.append(np.stack([parts, starts, counts], axis=1).astype(np.int64))
        for low in range(0, len(order), _COPY_ROWS):
            chosen = order[low : low + _COPY_ROWS]
            block = np.empty(len(chosen), RECORD)
            for name in EVENT_DTYPES:
                block[name] = columns[name][chosen]
            self._write(block.view(np.uint8).data)
        self._rows += len(order)

    def _write(self, data: memoryview) -> None:
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as fault:
            raise storage_error(self._path, fault) from fault

    def seal(self) -> None:
        """Index the runs by partition; no run can be added afterwards."""
        runs = np.concatenate(self._runs) if self._runs else np.empty((0, 3), np.int64)
        self._index = runs[np.argsort(runs[:, 0], kind="stable")]

    def rows(self, part: int) -> Iterator[np.ndarray]:
        """The rows of one partition in source order, as RECORD arrays of at most one row group and a run's piece."""
        low, high = np.searchsorted(self._index[:, 0], [part, part + 1])
        pieces: list[bytes] = []
        waiting = 0
        for _, start, count in self._index[low:high].tolist():
            for at in range(start, start + count, ROW_GROUP_ROWS):
                size = min(ROW_GROUP_ROWS, start + count - at)
                pieces.append(self._read(at, size))
                waiting += size
                if waiting >= ROW_GROUP_ROWS:
                    yield np.frombuffer(b"".join(pieces), RECORD)
                    pieces, waiting = [], 0
        if pieces:
            yield np.frombuffer(b"".join(pieces), RECORD)

    def _read(self, first: int, count: int) -> bytes:
        offset, size = first * RECORD.itemsize, count * RECORD.itemsize
        pieces = []
        try:
            while size and (piece := os.pread(self._file.fileno(), size, offset)):
                pieces.append(piece)
                offset, size = offset + len(piece), size - len(piece)
        except OSError as fault:
            raise storage_error(self._path, fault) from fault
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Free the disk."""
        self._file.close()
