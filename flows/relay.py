"""What a task in another process has in place of the functions of its run: calls that travel back as messages, and the slots of that process.

Loaded in worker processes before anything else of ours, so that Prefect's variables are set before Prefect reads them: it must not import
Prefect, nor anything that does, at its top.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from config.settings import Settings
from flows.runtime import prepare

# Counts of a process are told this often: a scheduler with ten thousand workers must not drown in them.
TELL_EVERY_S = 1.0

Message = tuple[str, str, bytes]
_send: Callable[[Message], None] | None = None
_counts: dict[tuple[str, str], list[int]] = {}
_told = 0.0
_lock = threading.Lock()


def send_by(send: Callable[[Message], None]) -> None:
    """From now on messages of this process go to `send`: (run id, function of the run, pickled arguments)."""
    global _send
    _send = send


def start_pool_process(settings: Settings, queue: Any) -> None:
    """First thing in a process of a pool: its environment, its way back, and its end when the run is gone."""
    prepare(settings)
    send_by(queue.put)
    parent = multiprocessing.parent_process()
    if parent is not None:
        # A pool process whose parent was killed waits for work for ever: it holds the other end of its own queue open.
        threading.Thread(target=_end_with, args=(parent,), name="parent", daemon=True).start()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


@dataclass(frozen=True)
class Relay:
    """A function of the run `run_id`, called from another process: finish(key), tell(outcome)."""

    run_id: str
    name: str

    def __call__(self, *args: Any) -> None:
        flush()
        _post(self.run_id, self.name, args)


@dataclass(frozen=True)
class Counter:
    """`advance(key, rows, bytes)` of the run `run_id`; added up here and told once a second."""

    run_id: str

    def __call__(self, key: str, rows: int = 0, bytes: int = 0) -> None:
        with _lock:
            count = _counts.setdefault((self.run_id, key), [0, 0])
            count[0] += rows
            count[1] += bytes
            due = time.monotonic() - _told >= TELL_EVERY_S
        if due:
            flush()


@dataclass(frozen=True)
class Slots:
    """CPU and memory slots of a worker process. share: what of the settings one such process may use; see `runners`."""

    share: Settings

    @contextmanager
    def __call__(self, cpu: int, memory_bytes: int) -> Iterator[None]:
        from flows.policies import slots  # not at the top: it imports Prefect

        with slots(self.share, cpu, memory_bytes):
            try:
                yield
            finally:
                flush()


def flush() -> None:
    """Tell the counts that wait."""
    global _told
    with _lock:
        waiting = dict(_counts)
        _counts.clear()
        _told = time.monotonic()
    for (run_id, key), (rows, size) in waiting.items():
        _post(run_id, "advance", (key, rows, size))


def _post(run_id: str, name: str, args: tuple[Any, ...]) -> None:
    if _send is not None:
        _send((run_id, name, pickle.dumps(args)))
