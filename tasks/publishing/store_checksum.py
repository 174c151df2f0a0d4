"""The checksum by which a file and an object are compared without a transfer: MD5, as S3 makes it of whole objects and of those sent in parts."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any, BinaryIO

# Objects of less than two parts are sent in one request (s3fs). 10,000 parts are allowed, which makes 156 GiB.
PART_BYTES = 16 << 20
_READ_BYTES = 1 << 20


class Checksum:
    """The checksum of `size` bytes that are given in order: hex MD5; of those sent in parts the MD5 of the parts' MD5s, "-" and their number."""

    def __init__(self, size: int) -> None:
        self._in_parts = Checksum.parts(size) > 0
        self._parts: list[bytes] = []
        self._current, self._filled = hashlib.md5(usedforsecurity=False), 0

    @staticmethod
    def parts(size: int) -> int:
        """How many parts a file of `size` bytes is sent in; 0: in one request."""
        return -(-size // PART_BYTES) if size >= 2 * PART_BYTES else 0

    @classmethod
    def of(cls, file: BinaryIO, size: int) -> str:
        """The checksum of an open file of `size` bytes, read from its start."""
        checksum = cls(size)
        file.seek(0)
        while chunk := file.read(_READ_BYTES):
            checksum.update(chunk)
        return checksum.value

    def update(self, data: bytes) -> None:
        """Take the next bytes."""
        view = memoryview(data)
        while self._in_parts and self._filled + len(view) >= PART_BYTES:
            room = PART_BYTES - self._filled
            self._current.update(view[:room])
            self._parts.append(self._current.digest())
            self._current, self._filled, view = hashlib.md5(usedforsecurity=False), 0, view[room:]
        self._current.update(view)
        self._filled += len(view)

    @property
    def value(self) -> str:
        """The checksum of all bytes given."""
        if not self._in_parts:
            return self._current.hexdigest()
        parts = [*self._parts, *([self._current.digest()] if self._filled else [])]
        return f"{hashlib.md5(b''.join(parts), usedforsecurity=False).hexdigest()}-{len(parts)}"


def checksum_told(entry: dict[str, Any]) -> str:
    """The checksum that a listing tells of an object, in the form of Checksum.value; "" where it tells none.

    S3: ETag; Google: md5Hash, base64; Azure: content_settings.content_md5, bytes.
    """
    told = entry.get("md5Hash") or (entry.get("content_settings") or {}).get("content_md5")
    if told:
        return (base64.b64decode(told) if isinstance(told, str) else bytes(told)).hex()
    etag = str(entry.get("ETag") or "").strip('"').lower()
    return etag if re.fullmatch(r"[0-9a-f]{32}(-\d+)?", etag) else ""


def parts_of(checksum: str) -> int:
    """Number of parts of a checksum, 0 for one request; -1 for none, which equals nothing."""
    return -1 if not checksum else int(checksum.partition("-")[2] or 0)
