"""CPU and memory slots shared by the threads of one process. Knows nothing of Prefect."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Budget:
    """Slots of two kinds, handed out together and in order of arrival.

    Together, so that no taker holds one kind while it waits for the other; in order, so that a large taker is not overtaken for ever by
    small ones.
    """

    def __init__(self, cpu: int, memory: int) -> None:
        self.cpu, self.memory = cpu, memory
        self.free_cpu, self.free_memory = cpu, memory
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()
        self._mine = threading.local()

    @contextmanager
    def take(self, cpu: int, memory: int) -> Iterator[None]:
        """Hold the slots while the block runs; more than there are in all is cut to all. Raises RuntimeError when the thread holds some."""
        if cpu < 0 or memory < 0:
            raise ValueError(f"slots must not be negative: {cpu} CPU, {memory} memory")
        if getattr(self._mine, "holds", False):
            raise RuntimeError("this thread holds slots already; taking more could wait for ever, so take all of them at once")
        cpu, memory = min(cpu, self.cpu), min(memory, self.memory)
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            try:
                self._changed.wait_for(lambda: self._queue[0] is ticket and cpu <= self.free_cpu and memory <= self.free_memory)
                self.free_cpu -= cpu
                self.free_memory -= memory
            finally:  # also on an interrupt: a ticket left behind would block everybody
                self._queue.remove(ticket)
                self._changed.notify_all()
        self._mine.holds = True
        try:
            yield
        finally:
            self._mine.holds = False
            with self._changed:
                self.free_cpu += cpu
                self.free_memory += memory
                self._changed.notify_all()


_budgets: dict[tuple[int, int], Budget] = {}
_lock = threading.Lock()


def budget_of(cpu: int, memory: int) -> Budget:
    """The one budget of this process with these totals."""
    with _lock:
        return _budgets.setdefault((cpu, memory), Budget(cpu, memory))
