"""How a task runs, as opposed to what it makes: sizes, slots and progress; and what it says when it is done. Imports no orchestration.

Every task takes a batch of jobs. A job that fails for a reason of its own does not stop the others: all are tried, then `PartitionsFailed`
tells which failed. Faults that can pass are raised as they are, so that the task is retried; what was finished is found done then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

from config.logging_format import place
from tasks.disk import together
from tasks.errors import BookmillError

Job = TypeVar("Job")
AT_ONCE = 32  # jobs of one small file each: naming one took 3.9 ms by itself and takes 1.8 among others (2,000 certificates, two workers)


def _no_slots(cpu: int, memory_bytes: int) -> AbstractContextManager[None]:
    return nullcontext()


def _no_progress(key: str, rows: int = 0, bytes: int = 0) -> None:
    return None


def _no_telling(outcome: Outcome) -> None:
    return None


@dataclass(frozen=True)
class Work:
    """batch_rows: rows of a batch; memory_bytes: what one task may hold; duckdb_*: of one connection; advance(key, rows, bytes) and finish(key)
    report progress, tell(outcome) a job that has ended; slots(cpu, memory_bytes) is a context that waits for room. The defaults suit a plain
    call in a script.
    """

    batch_rows: int = 65_536
    memory_bytes: int = 512 << 20
    duckdb_threads: int = 2
    duckdb_memory_bytes: int = 1 << 30
    advance: Callable[..., None] = field(default=_no_progress, repr=False)
    finish: Callable[[str], None] = field(default=_no_progress, repr=False)
    tell: Callable[[Outcome], None] = field(default=_no_telling, repr=False)
    slots: Callable[[int, int], AbstractContextManager[None]] = field(default=_no_slots, repr=False)


@dataclass(frozen=True)
class Outcome:
    """What became of one job. subject: the source's name or the partition; rows: events or rows worked on; error: "" when it went well."""

    subject: str
    seconds: float
    rows: int
    skipped: bool
    value: Any = None
    error: str = ""


class PartitionsFailed(BookmillError):
    """Some jobs of a batch failed for reasons of their own; `outcomes` has all of the batch."""

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        self.outcomes = list(outcomes)
        failed = [o for o in self.outcomes if o.error]
        super().__init__(f"{len(failed)} of {len(self.outcomes)} failed. " + " | ".join(f"{o.subject}: {o.error}" for o in failed[:5]))

    def __reduce__(self):
        return (PartitionsFailed, (self.outcomes,))


def run_each(
    jobs: Sequence[Job], subject: Callable[[Job], str], body: Callable[[Job], tuple[Any, int, bool]],
    tell: Callable[[Outcome], None] = _no_telling, at_once: int = 1,
) -> list[Outcome]:  # fmt: skip
    """Run body(job) -> (value, rows, skipped) for each job. Raises PartitionsFailed at the end when any failed; a passing fault at once.

    tell: called with each outcome as soon as it is known. What body logs carries the subject as partition. at_once: so many jobs in a row have
    their files named together (`tasks.disk.together`), for small ones whose syncs would cost as much as their work; they may not read each
    other's files, and when the disk refuses one file they all fail.
    """
    outcomes: list[Outcome] = []
    for at in range(0, len(jobs), at_once):
        some = jobs[at : at + at_once]
        try:
            with together() if at_once > 1 else nullcontext():
                found = [_run(job, subject, body) for job in some]
        except BookmillError as fault:  # of the naming; those of the jobs are outcomes
            if fault.transient:
                raise
            found = [_failed(job, subject, 0.0, fault) for job in some]
        outcomes += found
        for outcome in found:
            tell(outcome)
    if any(o.error for o in outcomes):
        raise PartitionsFailed(outcomes)
    return outcomes


def _run(job: Job, subject: Callable[[Job], str], body: Callable[[Job], tuple[Any, int, bool]]) -> Outcome:
    start = time.perf_counter()
    try:
        with place(partition=subject(job)):
            value, rows, skipped = body(job)
        return Outcome(subject(job), time.perf_counter() - start, rows, skipped, value)
    except BookmillError as fault:
        if fault.transient:
            raise
        return _failed(job, subject, time.perf_counter() - start, fault)


def _failed(job: Job, subject: Callable[[Job], str], seconds: float, fault: BookmillError) -> Outcome:
    return Outcome(subject(job), seconds, 0, False, None, f"{type(fault).__name__}: {fault}")
