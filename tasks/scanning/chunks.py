"""The decompressed bytes of a plain, zstd or gzip file, in pieces of fixed size made ahead in a thread.

Here: opening, decompressing, and telling a clean end from a break. What the bytes mean belongs to the readers of the formats.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from isal import igzip_lib

from tasks.ahead import ahead

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
GZIP_MAGIC = b"\x1f\x8b"
# Decompressed bytes asked for at a time. A failing call loses what it had made, so this is the most that a damaged zstd block takes with it.
STEP_BYTES = 1 << 17
# What decompressors raise for damaged data.
_BROKEN: Any = (zstandard.ZstdError, igzip_lib.error, EOFError)
# Pieces that may wait: one being read, one ready. More only adds memory (2, 3 and 4 were equally fast).
AHEAD = 2


def compression_of(head: bytes) -> str:
    """ "zstd", "gzip" or "" from the first four bytes of a file; zstd may begin with a skippable frame (pzstd writes one)."""
    if head[:4] == ZSTD_MAGIC or (head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F):
        return "zstd"
    return "gzip" if head[:2] == GZIP_MAGIC else ""


class ByteStream:
    """Decompressed bytes of one file, front to back.

    position: decompressed bytes given out so far; fault: why the bytes ended early, "" while they have not or when the end is clean.
    OSError of the file system passes through.
    """

    def __init__(self, path: str | Path) -> None:
        self.path, self.position, self.fault = Path(path), 0, ""
        self._raw = open(self.path, "rb", buffering=0)  # noqa: SIM115
        self.compression = compression_of(self._raw.read(4))
        self._raw.seek(0)
        self._source: Any = self._raw
        if self.compression == "zstd":
            self._source = zstandard.ZstdDecompressor().stream_reader(self._raw, read_across_frames=True, closefd=False)
        elif self.compression == "gzip":
            self._source = _Gunzip(self._raw)

    @property
    def bytes_read(self) -> int:
        """Bytes of the stored file consumed so far."""
        return self._raw.tell() if not self._raw.closed else self._size

    def fill(self, view: memoryview) -> int:
        """Write into `view` until it is full or the bytes end; returns how many. Fewer than asked means the end: then `fault` says how."""
        done = 0
        while done < len(view) and not self.fault:
            try:
                step = self._step(view[done : done + STEP_BYTES])
            except _BROKEN as broken:
                self.fault = f"the {self.compression} data is damaged or cut short ({broken})"
                break
            if step == 0:
                # The zstd reader reports a file that stops inside a frame as a normal end.
                if self.compression == "zstd" and not _ends_on_frame(self._raw.fileno()):
                    self.fault = "the zstd data is cut short"
                break
            done += step
        self.position += done
        return done

    def _step(self, view: memoryview) -> int:
        return self._source.readinto(view) or 0

    def close(self) -> None:
        """Close the file; harmless when closed."""
        self._size = self.bytes_read
        self._raw.close()


class _Gunzip:
    """Members of a gzip file one after another. Not igzip.open: of a file that is cut it gives less than there is."""

    def __init__(self, raw: Any) -> None:
        self._raw, self._data, self._member = raw, b"", igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        self._started = False

    def readinto(self, view: memoryview) -> int:
        """Some bytes into `view`, 0 at the end; zeros after a member are padding. Raises EOFError inside a member."""
        while True:
            if self._member.eof:
                self._data = self._member.unused_data
                self._member, self._started = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP), False
            if self._member.needs_input and not self._data:
                self._data = self._raw.read(STEP_BYTES)
                if not self._data and self._started:
                    raise EOFError("the gzip stream ends before its end mark")
            if not self._started:
                self._data = self._data.lstrip(b"\0")
                if not self._data and self._raw.tell() >= os.fstat(self._raw.fileno()).st_size:
                    return 0
            self._started = self._started or bool(self._data)
            made, self._data = self._member.decompress(self._data, len(view)) if self._started else b"", b""
            if made:
                view[: len(made)] = made
                return len(made)


def _ends_on_frame(handle: int) -> bool:
    """Whether the file's zstd frames are all complete, read from block headers alone (RFC 8878, 3.1); one small read per 128 KiB block."""
    size, at = os.fstat(handle).st_size, 0
    while at < size:
        head = os.pread(handle, 14, at)
        if head[:4] != ZSTD_MAGIC:
            at += 8 + int.from_bytes(head[4:8], "little")  # skippable frame
            if len(head) < 8 or at > size:
                return False
            continue
        if len(head) < 5:
            return False
        descriptor = head[4]
        single, content = descriptor >> 5 & 1, descriptor >> 6
        at += 5 + (not single) + (0, 1, 2, 4)[descriptor & 3] + (single if content == 0 else 1 << content)
        last = 0
        while not last:
            block = os.pread(handle, 3, at)
            if len(block) < 3:
                return False
            header = int.from_bytes(block, "little")
            last = header & 1
            at += 3 + (1 if header >> 1 & 3 == 1 else header >> 3)  # a run-length block stores one byte
        at += 4 * (descriptor >> 2 & 1)  # checksum
    return at == size


def head_of(path: Path, count: int) -> bytes:
    """The first `count` decompressed bytes of a file; fewer where it is shorter or broken."""
    stream, buffer = ByteStream(path), bytearray(count)
    try:
        return bytes(buffer[: stream.fill(memoryview(buffer))])
    finally:
        stream.close()


def read_ahead(stream: ByteStream, piece_bytes: int) -> Generator[np.ndarray, None, None]:
    """Yield the rest of `stream` as fresh uint8 arrays of `piece_bytes` (the last one shorter, never empty), decompressed in a thread.

    The thread ends with the generator. `stream.fault` is final when the generator is exhausted.
    """
    return ahead(_pieces(stream, piece_bytes), AHEAD, f"read {stream.path.name}")


def _pieces(stream: ByteStream, piece_bytes: int) -> Generator[np.ndarray, None, None]:
    count = piece_bytes
    while count == piece_bytes:
        piece = np.empty(piece_bytes, np.uint8)
        count = stream.fill(piece.data)
        if count:
            yield piece[:count]
