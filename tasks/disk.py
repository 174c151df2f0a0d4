"""What a disk does to files: how a complete one gets its name so that it outlives a loss of power, and what to do about the disk's faults.

The content is synced before a file gets its name, and the folder afterwards. Small files cost hardly anything else: seven of 20 KB in seven
folders take 37 ms one after the other and 7 ms together, because what waits at the same time is written by one commit of the file system's
journal (medians, a disk with other work; 28 and 5 of 54 ms that the rebuild of a book of 1,000 events took).
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from tasks.errors import StorageError

MOST_SYNCS = 8  # at the same time, which is as many open files
_REMEDY = {
    errno.ENOSPC: "The disk is full: free space or choose another --lake; finished partitions are kept, start again to resume",
    errno.EDQUOT: "The disk quota is used up: free space or choose another --lake; start again to resume",
    errno.EROFS: "The file system is read-only: choose another --lake or remount it",
    errno.EACCES: "No permission to write there: choose another --lake or change the permissions",
    errno.EPERM: "Writing there is not permitted: choose another --lake or change the permissions",
    errno.ENOTDIR: "A part of that path is a file: choose another --lake",
    errno.EMFILE: "Too many open files: raise `ulimit -n`",
}
_TRANSIENT = {errno.EIO, errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ETIMEDOUT, errno.ESTALE}


def storage_error(path: Path, fault: OSError) -> StorageError:
    """`fault` as a StorageError that names the path and the remedy."""
    remedy = _REMEDY.get(fault.errno or 0, "Check the disk and start again; finished partitions are kept")
    return StorageError(f"Cannot write {path}: {fault.strerror or fault}. {remedy}.", transient=fault.errno in _TRANSIENT)


class _Waiting(threading.local):
    """Files that wait for the end of this thread's block of `together`: (temporary, path); None outside of one."""

    files: list[tuple[Path, Path]] | None = None


_waiting = _Waiting()


def publish(temporary: Path, path: Path) -> None:
    """Give a complete file its name; in a block of `together` at its end. Raises StorageError."""
    if _waiting.files is not None:
        _waiting.files.append((temporary, path))
    else:
        _name([(temporary, path)])


@contextmanager
def together() -> Iterator[None]:
    """What this thread publishes in the block gets its names at the end of it, in order, when the content of all of it is synced.

    Nobody may read these files inside of the block. When it fails, none of them appears; a block inside of a block is a part of it. Raises
    StorageError: what had its name by then is complete, the rest is removed.
    """
    if _waiting.files is not None:
        yield
        return
    files: list[tuple[Path, Path]] = []
    _waiting.files = files
    try:
        yield
        _name(files)
    except BaseException:
        for temporary, _ in files:
            drop(temporary)
        raise
    finally:
        _waiting.files = None


def drop(path: Path) -> None:
    """Remove a temporary file, if it is there. What cannot be removed now must not hide the fault that led here; a later run removes it."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _name(files: Sequence[tuple[Path, Path]]) -> None:
    """Sync all, name all, sync their folders. Raises StorageError."""
    _sync_all(files)
    for temporary, path in files:
        with _told(path):
            os.replace(temporary, path)
    _sync_all([(folder, folder) for folder in dict.fromkeys(path.parent for _, path in files)])


def _sync_all(paths: Sequence[tuple[Path, Path]]) -> None:
    """Sync each of (what, as which it is told), side by side."""
    if len(paths) < 2:
        for what, shown in paths:
            _sync(what, shown)
        return
    for done in [_pool(os.getpid()).submit(_sync, *pair) for pair in paths]:
        done.result()


@lru_cache(1)
def _pool(process: int) -> ThreadPoolExecutor:
    """Threads that do nothing but wait for the disk; a forked process needs its own. New ones each time cost 0.3 ms each."""
    return ThreadPoolExecutor(MOST_SYNCS, "sync")


def _sync(what: Path, shown: Path) -> None:
    with _told(shown):
        handle = os.open(what, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as fault:
        raise storage_error(path, fault) from fault
