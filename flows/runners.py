"""Who works on the tasks of a run: threads of this process, a pool of processes, or the workers of a Dask cluster.

The runner is chosen when the run begins, since it is a parameter: the flow's own runner would be fixed when the module is imported. While a
crew is open, `task.submit` goes to it. What the tasks get and give are descriptions, so the bytes of the lake are the same on all of them.

Slots: threads share the budget of the process (`budget.py`). A process of a pool or of a Dask cluster has a share of its own, cut so that all
shares together keep the budget; on a server with the limits of `deployments.bootstrap` they take slots there as well, over all machines.
"""

from __future__ import annotations

import logging
import pickle
import threading
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any, Self

import psutil
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture
from prefect.states import Crashed
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from config.settings import Settings
from config.values import MIB, show_bytes
from flows import relay
from flows.policies import slots
from tasks.errors import BookmillError
from tasks.work import Outcome, Work

# Resident beside the data, measured over whole runs of 6,000 records: a process of a pool 515 to 534 MiB (386 MB imported, Great Expectations among
# it, then kernels and buffers of the libraries), the run's own process, which works on no task, 341 (with Dask 360) MiB.
PROCESS_BYTES, RUN_BYTES = 540 * MIB, 380 * MIB
# The largest estimate of a task, a rebuild (`tasks.reconstruction.task`).
TASK_BYTES = 256 * MIB
# A task whose worker died is started again: twice with all others, then alone, so that one that kills its worker takes no other with it.
TOGETHER = 2

Call = Callable[[], PrefectFuture[Any]]

_log = logging.getLogger(__name__)


class WorkersLost(BookmillError):
    """The workers of a run are gone: a process was killed, or the Dask scheduler or all its workers went away. What is finished is kept."""


@dataclass(frozen=True)
class Ear:
    """What the run that a crew works for wants to hear; called from any thread. advance(key, rows, bytes), finish(key), tell(outcome)."""

    run_id: str
    advance: Callable[..., None]
    finish: Callable[[str], None]
    tell: Callable[[Outcome], None]


class Crew:
    """Threads of this process, and what the other crews have in common. A context manager, opened in the flow's own thread."""

    kind = "threads"
    # How a future ends when not the task failed but who worked on it.
    lost: tuple[type[BaseException], ...] = ()

    def __init__(self, settings: Settings, ear: Ear) -> None:
        self.settings, self.ear = settings, ear
        self.workers = settings.workers
        self._open = ExitStack()
        self._told: set[str] = set()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *reason: object) -> None:
        self._open.close()

    def work(self) -> Work:
        """What every task is given."""
        return Work(
            batch_rows=self.settings.batch_rows,
            memory_bytes=_per_task(self.settings.memory_bytes, self.workers),
            duckdb_threads=self.settings.duckdb_threads,
            duckdb_memory_bytes=self.settings.duckdb_memory_bytes,
            advance=self.ear.advance,
            finish=self.ear.finish,
            tell=self.ear.tell,
            slots=lambda cpu, memory: slots(self.settings, cpu, memory),
        )

    def memory_bytes(self) -> int:
        """Resident memory of the worker processes on this machine that belong to the run."""
        return 0

    def gather(self, calls: Sequence[Call]) -> list[Any]:
        """Submit all, wait for all; what each gave, or the exception that it ended with. A task whose worker is lost is started again."""
        results: list[Any] = [None] * len(calls)
        todo = list(range(len(calls)))
        for _ in range(TOGETHER):
            todo = self._round(calls, todo, results)
            if not todo:
                return results
            self._begin_again(len(todo), results[todo[0]])
        for one in todo:
            if self._round(calls, [one], results):
                self._begin_again(1, results[one])
                told = _in_a_line(results[one])
                results[one] = WorkersLost(
                    f"Its worker was lost {TOGETHER + 1} times, the last time when it worked on nothing else ({told}). If the machine ran out of "
                    "memory, use fewer --workers; otherwise look why it was killed. Start the run again: what is finished is kept."
                )
        return results

    def _round(self, calls: Sequence[Call], todo: Sequence[int], results: list[Any]) -> list[int]:
        """Run some of the calls; which of them lost their worker."""
        futures: dict[int, PrefectFuture[Any]] = {}
        for one in todo:
            try:
                futures[one] = calls[one]()
            except self.lost as fault:
                results[one] = fault
        for one, future in futures.items():
            try:
                results[one] = self._result(future)
            except self.lost as fault:
                results[one] = fault
        gone = [one for one in todo if isinstance(results[one], self.lost)] if self.lost else []
        for one in gone:
            if one in futures:
                _tell_crashed(futures[one], results[one])
        return gone

    def _result(self, future: PrefectFuture[Any]) -> Any:
        return future.result(raise_on_failure=False)

    def _begin_again(self, lost: int, fault: BaseException) -> None:
        told = _in_a_line(fault)
        _log.warning("%s lost %s in work (%s); starting again", self.kind, "a task" if lost == 1 else f"{lost:,} tasks", told)
        with suppress(*self.lost, OSError):
            self._open.close()
        self._open = ExitStack()
        self._start()

    def _start(self) -> None:
        self._submit_to(ThreadPoolTaskRunner(max_workers=self.workers))

    def _submit_to(self, runner: TaskRunner[Any]) -> None:
        """Open `runner` and let `task.submit` go to it until the crew is closed."""
        self._open.enter_context(runner)
        context = FlowRunContext.get()
        if context is not None:
            self._open.enter_context(context.model_copy(update={"task_runner": runner}))

    def _remote_work(self, share: Settings, threads: int) -> Work:
        """For processes with `threads` tasks at a time, each process keeping to `share`."""
        run_id = self.ear.run_id
        return Work(
            batch_rows=share.batch_rows,
            memory_bytes=_per_task(share.memory_bytes, threads),
            duckdb_threads=share.duckdb_threads,
            duckdb_memory_bytes=share.duckdb_memory_bytes,
            advance=relay.Counter(run_id),
            finish=relay.Relay(run_id, "finish"),
            tell=relay.Relay(run_id, "tell"),
            slots=relay.Slots(share),
        )

    def _hear(self, message: relay.Message) -> None:
        """A message from a worker process."""
        run_id, name, arguments = message
        if run_id != self.ear.run_id:
            return
        values = pickle.loads(arguments)
        if name == "tell":
            # A task that was started again tells once more of what it had finished.
            if values[0].subject in self._told:
                return
            self._told.add(values[0].subject)
        getattr(self.ear, name)(*values)


class ProcessCrew(Crew):
    """A pool of processes on this machine. A process that is killed takes the pool with it; a new one is started and goes on."""

    kind = "processes"
    lost = (BrokenProcessPool,)

    def __init__(self, settings: Settings, ear: Ear) -> None:
        super().__init__(settings, ear)
        self.workers = processes_in(settings)
        if self.workers < settings.workers:
            _log.warning(
                "%d of %d processes are started: each takes %s beside and %s for its work, and the memory budget is %s. Raise --memory for more.",
                self.workers, settings.workers, show_bytes(PROCESS_BYTES), show_bytes(TASK_BYTES), show_bytes(settings.memory_bytes),
            )  # fmt: skip

    def work(self) -> Work:
        """Of one process of the pool."""
        return self._remote_work(share_of(self.settings, self.workers), 1)

    def memory_bytes(self) -> int:
        """Of all processes of the pool."""
        return memory_of_children()

    def _start(self) -> None:
        queue: Any = get_context("spawn").Queue()
        listener = threading.Thread(target=self._listen, args=(queue,), name="relay", daemon=True)
        listener.start()
        self._open.callback(_stop_listening, queue, listener)
        runner = ProcessPoolTaskRunner(max_workers=self.workers, initializer=relay.start_pool_process, initargs=(self.settings, queue))
        self._submit_to(runner)

    def _listen(self, queue: Any) -> None:
        while (message := queue.get()) is not None:
            try:
                self._hear(message)
            except Exception as fault:  # progress is lost, the work is not
                _log.debug("A message of a worker was not understood: %s", fault)


def crew_of(runner: str, dask_address: str, settings: Settings, ear: Ear, lake: Any) -> Crew:
    """The crew for what the user chose; `flows.options.check_runner` has said what may be chosen."""
    if runner == "dask":
        from flows.dask_crew import DaskCrew  # only where it is installed

        return DaskCrew(settings, ear, dask_address, lake)
    return ProcessCrew(settings, ear) if runner == "processes" else Crew(settings, ear)


def processes_in(settings: Settings, weight: int = PROCESS_BYTES) -> int:
    """Processes of `weight` bytes that keep within the budget together with this one, at least 1 and at most `workers`."""
    return max(1, min(settings.workers, (settings.memory_bytes - RUN_BYTES) // (weight + TASK_BYTES)))


def share_of(settings: Settings, processes: int, weight: int = PROCESS_BYTES) -> Settings:
    """What one of so many equal worker processes on this machine may use; their own weight, and that of this process, is taken off first."""
    data = max(TASK_BYTES, (settings.memory_bytes - RUN_BYTES - processes * weight) // processes)
    return cut(settings, data, max(1, settings.cpu_slots // processes))


def cut(settings: Settings, memory_bytes: int, cpu: int) -> Settings:
    """`settings` for a process with so much memory for data and so many cores."""
    return replace(
        settings,
        memory_bytes=memory_bytes,
        cpu_slots=cpu,
        memory_slots=max(1, memory_bytes // settings.memory_slot_bytes),
        duckdb_threads=max(1, min(settings.duckdb_threads, cpu)),
        duckdb_memory_bytes=max(64 * MIB, min(settings.duckdb_memory_bytes, memory_bytes * 2 // 5)),
    )


def memory_of_children() -> int:
    """Resident bytes of the processes that `multiprocessing` started for this one; the private API and other children are not among them."""
    total = 0
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if "--multiprocessing-fork" in child.cmdline():
                total += child.memory_info().rss
    return total


def _per_task(memory_bytes: int, tasks: int) -> int:
    return max(memory_bytes // max(tasks, 1) // 2, 64 * MIB)


def _in_a_line(fault: BaseException) -> str:
    return f"{type(fault).__name__}: {str(fault).partition(chr(10))[0]}".removesuffix(": ")


def _stop_listening(queue: Any, listener: threading.Thread) -> None:
    queue.put(None)
    listener.join(10)
    queue.close()


def _tell_crashed(future: PrefectFuture[Any], fault: BaseException) -> None:
    """Without this the task run would be shown as running for ever; where the server does not know it yet, nothing is lost."""
    if FlowRunContext.get() is None:
        return
    with suppress(Exception), get_client(sync_client=True) as client:
        client.set_task_run_state(future.task_run_id, Crashed(message=f"Its worker was lost: {type(fault).__name__}"), force=True)
