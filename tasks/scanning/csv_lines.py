"""Whole lines of a text file, whatever stream its bytes come from, and what is told of a bad one.

Belongs here: what the readers of market-by-order CSV files (`csv_source.py`) and of LOBSTER pairs (`lobster.py`) have in common. Decompression
is in `chunks.py`; how the bytes of a line become numbers in `csv_kernels.py` and `lobster_kernels.py`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tasks.errors import CorruptSource, SourceError
from tasks.scanning.chunks import read_ahead
from tasks.scanning.csv_field_kernels import COLUMNS, LF, LINE_TOO_LONG, MAX_LINE, QUOTE

# Rows of both event layouts are 60 to 140 bytes: one block gives about one batch.
ROW_BYTES, MIN_BLOCK, MAX_BLOCK = 128, 1 << 16, 1 << 23


class Stream(Protocol):
    """What `Lines` reads: a `chunks.ByteStream`, or a member of a zip."""

    path: Path
    fault: str

    @property
    def bytes_read(self) -> int: ...

    def fill(self, view: memoryview) -> int: ...

    def close(self) -> None: ...


class Lines:
    """Whole lines of a file, decompressed ahead in a thread, a region at a time.

    data uint8[n], of which data[pos:end] is to be taken, data[end - 1] a newline (one is added to a last line without); text: the same bytes;
    base: offset of data[0] in the decompressed stream. The caller moves `pos`. A line longer than MAX_LINE comes in a region of its own, cut
    but still too long, and the next region starts behind its end: memory is a few blocks and one such line, whatever the file.
    Raises SourceError when the file cannot be opened.
    """

    def __init__(self, path: Path, open_stream: Callable[[], Stream], block_bytes: int) -> None:
        try:
            self.stream = open_stream()
        except (OSError, KeyError, RuntimeError, zipfile.BadZipFile) as fault:
            raise SourceError(path, f"cannot be opened: {fault}", remedy="Check the path and the permissions") from fault
        self.path, self.block_bytes = path, block_bytes
        self.text, self.data, self.pos, self.end, self.base = bytearray(), np.empty(0, np.uint8), 0, 0, 0
        self._blocks: Any = read_ahead(self.stream, block_bytes)  # type: ignore[arg-type]
        self._carry, self._carry_at, self._in_long_line = bytearray(), 0, False
        self._ended = False
        self._fault: OSError | None = None

    def fill(self, at_least: int = 1) -> bool:
        """Make sure that a line is there to take, False at the end of the file. A new region has `at_least` bytes less one line, where the file has.

        Raises CorruptSource where the stream breaks, after all whole lines before the break; SourceError (transient) where the disk fails.
        """
        while self.pos == self.end:
            if len(self._carry) >= at_least or self._ended:
                if cut := self._carry.rfind(b"\n") + 1:
                    self._show(self._carry[:cut], cut)
                elif len(self._carry) > MAX_LINE + 1:  # + 1: a carriage return may be its last byte
                    self._show(self._carry[:MAX_LINE] + b"..\n", len(self._carry))
                    self._in_long_line = True
                elif self._ended:
                    self._raise_fault()
                    if self._carry:
                        self._show(self._carry + b"\n", len(self._carry))
                if self._ended or self.pos < self.end:
                    break
            self._take_block()
        return self.pos < self.end

    def _take_block(self) -> None:
        """Append the next block to the carry, without what belongs to a long line; take note of the end."""
        try:
            block = next(self._blocks, None)
        except OSError as fault:
            block, self._fault = None, fault
        if block is None:
            self._ended = True
        elif self._in_long_line:
            found = np.flatnonzero(block == LF)
            cut = int(found[0]) + 1 if len(found) else len(block)
            self._carry_at, self._in_long_line = self._carry_at + cut, not len(found)
            self._carry += block[cut:].data
        else:
            self._carry += block.data

    def _show(self, text: bytearray, taken: int) -> None:
        self.text, self.data, self.pos, self.end = text, np.frombuffer(text, np.uint8), 0, len(text)
        self.base = self._carry_at
        self._carry_at += taken
        del self._carry[:taken]

    def _raise_fault(self) -> None:
        at = self._carry_at + len(self._carry)
        if self._fault is not None:
            error = SourceError(self.path, f"cannot be read: {self._fault}", offset=at)
            error.transient = True
            raise error from self._fault
        if self.stream.fault:
            raise CorruptSource(self.path, self.stream.fault, offset=at, remedy="Fetch the file again; every whole row before was read")

    def close(self) -> None:
        """Stop the thread and close the file."""
        self._blocks.close()
        self.stream.close()


def line_of(text: bytearray, start: int, length: int = -1) -> bytes:
    """The bytes of the line at text[start], without its end; at most MAX_LINE of them. length: where known."""
    stop = start + length if length >= 0 else text.find(b"\n", start)
    line = bytes(text[start : min(stop, start + MAX_LINE + 1)])
    return line.removesuffix(b"\r")[:MAX_LINE]


def describe(status: int, column: int, names: tuple[str, ...], raw: bytes) -> str:
    """What is wrong with a bad line, for a person: the column and its text, or the number of fields."""
    if status == LINE_TOO_LONG:
        return f"no line end within {MAX_LINE:,} bytes; the first {len(raw):,} are kept"
    if status == COLUMNS:
        return f"{column} fields, expected {len(names)}"
    if status == QUOTE or not 0 <= column < len(names):
        return "a quote that does not enclose one whole field"
    text = raw.split(b",")[column][:80].decode("utf-8", "backslashreplace")
    return f"{names[column]} is {text!r}"
