"""A member of a zip archive as a stream of bytes, inflated by isal, its checksum and size verified; also of a zip whose end is missing.

Belongs here: where a member stands in the file. Its lines are read in `bybit.py`. zipfile inflates half as fast, and gives nothing at all of a zip
without its directory, which stands at the end.
"""

from __future__ import annotations

import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isal import igzip_lib, isal_zlib

from tasks.errors import CorruptSource, EmptySource, SourceError
from tasks.scanning.chunks import STEP_BYTES

ZIP_MAGIC = b"PK\x03\x04"
_EMPTY_MAGIC = b"PK\x05\x06"
_HEADER = struct.Struct("<4s5H3I2H")  # signature, version, flags, method, time, date, CRC-32, stored size, size, length of name and of the rest
_ENCRYPTED, _SIZES_FOLLOW, _UTF8 = 1, 8, 0x800
_STORED, _DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
_BROKEN: Any = igzip_lib.error  # typed as an object in isal's stubs
_GET_AGAIN = "Fetch the file again"


@dataclass(frozen=True)
class Member:
    """A member: header_at: offset of its local header; stored_bytes, size, crc: -1 where the zip does not tell; whole: the directory was read."""

    name: str
    header_at: int
    method: int
    encrypted: bool
    stored_bytes: int
    size: int
    crc: int
    whole: bool = True


def is_zip(head: bytes) -> bool:
    """Whether a file that begins so is a zip."""
    return head[:4] in (ZIP_MAGIC, _EMPTY_MAGIC)


def find_members(path: Path) -> list[Member]:
    """Data members in the order of the archive: those named *.data, or where there are none all that are neither folders nor a system's own files.

    Of a zip that is cut short: those whose beginning is there. Raises EmptySource when there is none, CorruptSource when the file
    ends in its first header; OSError passes through.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = [
                Member(i.filename, i.header_offset, i.compress_type, bool(i.flag_bits & _ENCRYPTED), i.compress_size, i.file_size, i.CRC)
                for i in archive.infolist()
            ]
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError):
        found = _walk(path)
    files = [m for m in found if not m.name.endswith("/") and not m.name.startswith("__MACOSX/") and not m.name.rsplit("/", 1)[-1].startswith(".")]
    files = [m for m in files if m.name.lower().endswith(".data")] or files
    if not files:
        raise EmptySource(path, "the zip has no data member", remedy=f"{_GET_AGAIN} or leave it out")
    return files


def _walk(path: Path) -> list[Member]:
    """The members of a zip without a directory, by their local headers, up to the first whose end is not known."""
    found: list[Member] = []
    at, end = 0, path.stat().st_size
    with path.open("rb") as file:
        while at < end:
            file.seek(at)
            head = file.read(_HEADER.size)
            if len(head) < _HEADER.size or head[:4] != ZIP_MAGIC:
                break
            _, _, flags, method, _, _, crc, stored, size, name_bytes, rest_bytes = _HEADER.unpack(head)
            name = file.read(name_bytes).decode("utf-8" if flags & _UTF8 else "cp437", "backslashreplace")
            told = not flags & _SIZES_FOLLOW and stored != 0xFFFFFFFF
            if not told:
                stored = size = crc = -1
            found.append(Member(name, at, method, bool(flags & _ENCRYPTED), stored, size, crc, whole=False))
            if not told:
                break
            at += _HEADER.size + name_bytes + rest_bytes + stored
    if not found:
        raise CorruptSource(path, "the zip is cut short: it has neither a directory nor a whole first header", offset=0, remedy=_GET_AGAIN)
    return found


class MemberStream:
    """Bytes of one member, front to back, as `chunks.ByteStream` gives those of a file.

    position: bytes given out; bytes_read: stored bytes of the member taken so far; fault: why the bytes ended early, "" while they have not or when
    length and checksum are right. Raises CorruptSource when the member does not begin where it should, SourceError when it is packed in a way that
    is not read.
    """

    def __init__(self, path: Path, member: Member) -> None:
        self.path, self.member, self.position, self.bytes_read, self.fault = path, member, 0, 0, ""
        if member.encrypted or member.method not in (_STORED, _DEFLATED):
            packed = "encrypted" if member.encrypted else f"compressed by method {member.method}"
            raise SourceError(path, f"{member.name} is {packed}; read are stored and deflated members", remedy="Pack it again, or unpack it")
        self._inflater: Any = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_DEFLATE) if member.method == _DEFLATED else None
        self._raw = open(path, "rb", buffering=0)  # noqa: SIM115
        self._crc, self._ended = 0, False
        self._raw.seek(member.header_at)
        head = self._raw.read(_HEADER.size)
        if len(head) < _HEADER.size or head[:4] != ZIP_MAGIC:
            self._raw.close()
            raise CorruptSource(path, f"{member.name} does not begin where the zip's directory says", offset=member.header_at, remedy=_GET_AGAIN)
        self._raw.seek(sum(_HEADER.unpack(head)[-2:]), 1)

    def fill(self, view: memoryview) -> int:
        """Write into `view` until it is full or the bytes end; returns how many. Fewer than asked means the end: then `fault` says how."""
        done = 0
        try:
            while done < len(view) and not self._ended:
                made = self._step(min(STEP_BYTES, len(view) - done))
                view[done : done + len(made)] = made
                done += len(made)
                self._crc = isal_zlib.crc32(made, self._crc)
        except _BROKEN as broken:
            self._end(f"is damaged ({broken})")
        self.position += done
        if self._ended and not self.fault:
            self._verify()
        return done

    def _step(self, most: int) -> bytes:
        """The next bytes, at most `most`; none may be there while more are to come."""
        wants = self._inflater is None or self._inflater.needs_input
        data = self._read(most if self._inflater is None else STEP_BYTES) if wants else b""
        if self._inflater is not None and (data or not wants):
            data = self._inflater.decompress(data, most)
            self._ended = self._inflater.eof
        elif not data:
            # Of a stored member the length is the only end mark.
            self._ended = True
            if self._inflater is not None:
                self._end("is cut short")
        return data

    def _read(self, most: int) -> bytes:
        told = self.member.stored_bytes
        data = self._raw.read(most if told < 0 else min(most, told - self.bytes_read))
        self.bytes_read += len(data)
        return data

    def _verify(self) -> None:
        member = self.member
        if member.size not in (-1, self.position):
            self._end(f"has {self.position:,} bytes, the zip says {member.size:,}")
        elif member.crc not in (-1, self._crc):
            self._end(f"has the checksum {self._crc:08x}, the zip says {member.crc:08x}")
        elif not member.whole:
            self.fault = "the zip is cut short: it has no directory"

    def _end(self, how: str) -> None:
        self._ended, self.fault = True, f"the member {self.member.name} of the zip {how}"

    def close(self) -> None:
        """Close the file; harmless when closed."""
        self._raw.close()
