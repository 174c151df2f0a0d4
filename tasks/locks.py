"""Who works on what: claims of sources and partitions of one lake, held against other runs, threads, processes and machines.

A claim is a lock on one byte of `<lake>/runs/lock`, at a place that follows from its name. The kernel (on a network file system: its lock
service) frees it when the holder dies in any way, so nothing is left behind and nothing has to be aged. Names are claimed in one order, and
a holder waits only for names behind all of its own: two runs never wait for each other.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from tasks.partitions import digest

SOURCE, PARTITION = 0, 1
_PLACES = 1 << 56  # of one kind; two names in one place would only wait for each other
_POLL_S = 0.2


def source_claim(dataset: str, fingerprint: str) -> str:
    """The name under which a source is claimed: its content, whatever its path."""
    return f"{dataset} {fingerprint}"


class _File:
    """The lock file of one lake, open once in this process: POSIX locks belong to the process, and closing any handle would free all of them."""

    def __init__(self, path: Path) -> None:
        self.handle, self.users = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), 0
        self.held: set[int] = set()


_files: dict[Path, _File] = {}
_guard = threading.Lock()


class Claims:
    """Claims of one run. tell(text) is called once with each wait that is not over at once, and when locks are not to be had.

    Where the file system has no locks, or the lake cannot be written, `claim` tells so and goes on: every file is still written whole, and
    runs of one recipe still write the same bytes. Use as a context manager, or call `release`.
    """

    def __init__(self, lake: Path, tell: Callable[[str], None] = lambda text: None) -> None:
        self.path, self._tell = lake.absolute() / "runs" / "lock", tell
        self._held: list[int] = []
        self._file: _File | None = None
        self._off = False

    def claim(self, kind: int, names: Iterable[str], shown: Mapping[str, str] | None = None) -> None:
        """Hold these names, too; waits until no other run holds one of them. kind: SOURCE or PARTITION; shown: what to call a name before people.

        Claim all of a kind in one call, sources first. Names that come out of order are had by giving back what is held and taking all anew in
        order: what another run did meanwhile is then found in the lake, so look there again after the call.
        """
        wanted = {_place(kind, name): (shown or {}).get(name, name) for name in names}
        new = sorted(place for place in wanted if place not in self._held)
        if not new or self._off or not self._open():
            return
        if self._held and new[0] < self._held[-1]:
            new = sorted([*new, *self._held])
            self._give_back()
        for count, place in enumerate(new):
            if not self._take(place, wanted.get(place, ""), len(new) - count):
                return

    def release(self) -> None:
        """Give everything back; harmless when repeated."""
        self._give_back()
        with _guard:
            if self._file is not None:
                self._file.users -= 1
                if self._file.users == 0:
                    os.close(self._file.handle)
                    del _files[self.path]
                self._file = None

    def __enter__(self) -> Claims:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _open(self) -> bool:
        with _guard:
            if self._file is None:
                try:
                    self.path.parent.mkdir(parents=True, exist_ok=True)
                    if self.path not in _files:
                        _files[self.path] = _File(self.path)
                    self._file = _files[self.path]
                except OSError as fault:
                    self._without(fault)
                    return False
                self._file.users += 1
        return True

    def _take(self, place: int, name: str, left: int) -> bool:
        told = False
        while True:
            try:
                if self._try(place):
                    self._held.append(place)
                    if told:
                        self._tell("the other run has let go; going on")
                    return True
            except OSError as fault:
                self._without(fault)
                return False
            if not told:
                told = True
                more = f" and {left - 1:,} more" if left > 1 else ""
                self._tell(f"another run works on {name or 'the same partitions'}{more}: waiting until it ends")
            time.sleep(_POLL_S)

    def _try(self, place: int) -> bool:
        assert self._file is not None
        with _guard:
            if place in self._file.held:  # by another run of this process, which the kernel would not tell from this one
                return False
            try:
                fcntl.lockf(self._file.handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
            except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: held elsewhere
                return False
            self._file.held.add(place)
            return True

    def _give_back(self) -> None:
        if self._file is None:
            return
        with _guard:
            for place in self._held:
                fcntl.lockf(self._file.handle, fcntl.LOCK_UN, 1, place)
                self._file.held.discard(place)
        self._held = []

    def _without(self, fault: OSError) -> None:
        self._off = True
        self._tell(f"no locks at {self.path} ({fault.strerror}): start no second run on the same partitions")


def _place(kind: int, name: str) -> int:
    return kind * _PLACES + int(digest(name)[:14], 16)
