"""What Bookmill's Parquet files say of themselves, kept by file: the stages of a run ask for most footers five times and more.

Reading one takes 0.3 to 0.5 ms, since Parquet's own metadata of sixty columns come with it; 2,000 symbols of a day are 28,000 files.
"""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.partitions import Stamp, digest

KEPT_BYTES = 48 << 20  # 50,000 files, of which a book's own footer is the longest with 2 KB
_OVERHEAD = 600  # of a key and a dictionary of five texts

_Key = tuple[str, int, int, int]


class _Footers:
    """Footers by (path, inode, time of change in ns, bytes), so that a file that was replaced is another one; those used last stay."""

    def __init__(self, most: int) -> None:
        self._most, self._size = most, 0
        self._kept: OrderedDict[_Key, dict[str, str]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: _Key) -> dict[str, str] | None:
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def put(self, key: _Key, entries: dict[str, str]) -> None:
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = entries
            self._size += _weight(entries)
            while self._size > self._most:
                self._size -= _weight(self._kept.popitem(last=False)[1])


def _weight(entries: Mapping[str, str]) -> int:
    return _OVERHEAD + sum(map(len, entries.values()))


_footers = _Footers(KEPT_BYTES)


def read_footer(path: Path) -> dict[str, str] | None:
    """The bookmill entries of a Parquet footer, or None when the file is absent or not readable as Parquet."""
    try:
        key = _key(path, path)
        found = _footers.get(key)
        if found is None:
            metadata = pq.read_metadata(path).metadata or {}
            found = {k.decode(): v.decode() for k, v in metadata.items() if k.startswith(b"bookmill.")}
            _footers.put(key, found)
        return dict(found)
    except (OSError, pa.ArrowException):
        return None


def read_facts(path: Path) -> dict[str, Any]:
    """The facts that `commit` was given; empty when there are none."""
    footer = read_footer(path) or {}
    return json.loads(footer.get("bookmill.facts", "{}"))


def is_done(path: Path, stamp: Stamp) -> bool:
    """Whether `path` exists and was made from exactly `stamp`."""
    footer = read_footer(path)
    return footer is not None and all(footer.get(k) == v for k, v in stamp.footer().items())


def contents(lake: Path, paths: Iterable[str]) -> str:
    """Digest of what the files (relative to the lake) were made from; it changes whenever one of them does, and when one is missing."""
    return digest([[name, {k: v for k, v in (read_footer(lake / name) or {}).items() if k != "bookmill.facts"}] for name in sorted(paths)])


def remember(temporary: Path, path: Path, entries: Mapping[str, str]) -> None:
    """Keep the footer of a file that is complete as `temporary` and gets the name `path`: a new name changes neither inode nor time nor size."""
    _footers.put(_key(temporary, path), dict(entries))


def _key(what: Path, path: Path) -> _Key:
    now = os.stat(what)
    return str(path), now.st_ino, now.st_mtime_ns, now.st_size
