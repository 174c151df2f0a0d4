"""Work ahead in a thread: an iterator whose next items are made while the last one is used. For makers that release the interpreter."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator
from typing import TypeVar

Item = TypeVar("Item")


def ahead(items: Generator[Item, None, None], room: int, name: str) -> Generator[Item, None, None]:
    """Yield what `items` yields, made in a thread of that name, at most `room` items ahead; what it raises is raised here, in its place.

    The thread, and `items` with it, ends with the generator: close it where it may not be exhausted.
    """
    ready: queue.Queue[tuple[Item] | BaseException | None] = queue.Queue(room)
    stop = threading.Event()

    def put(entry: tuple[Item] | BaseException | None) -> None:
        while not stop.is_set():
            try:
                return ready.put(entry, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put((item,))
                if stop.is_set():
                    break
            put(None)
        except BaseException as fault:
            put(fault)
        finally:
            items.close()

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        while (entry := ready.get()) is not None:
            if isinstance(entry, BaseException):
                raise entry
            yield entry[0]
    finally:
        stop.set()
        thread.join()
