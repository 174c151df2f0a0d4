"""One run of a flow: settings, progress, memory, what each stage gave and what failed. No step of the work itself is here."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextvars import copy_context
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import psutil
from prefect import Task

from config.hardware import detect
from config.logging_format import JsonText
from config.settings import Settings
from flows.options import check_runner
from flows.policies import equip, submit_checked
from flows.progress import Progress
from flows.run_life import Life
from flows.runners import Ear, crew_of
from tasks.errors import BookmillError
from tasks.memory import give_back
from tasks.partitions import digest
from tasks.schemas import CODE_VERSION
from tasks.storage import remove_partials
from tasks.work import Outcome, PartitionsFailed
from validation import judge_process

Item = TypeVar("Item")
MEMORY_EVERY_S = 0.5


class RunFailed(BookmillError):
    """Some partitions or sources failed; what was done is in the lake, and `facts` says all. exit_code: 1 some failed, 2 nothing could run."""

    def __init__(self, message: str, facts: dict[str, Any], exit_code: int) -> None:
        super().__init__(message)
        self.facts, self.exit_code = facts, exit_code

    def __reduce__(self):
        return (RunFailed, (str(self), self.facts, self.exit_code))


class Run:
    """Bookkeeping of one flow run; a context manager around its stages."""

    def __init__(self, title: str, lake: Path, settings: Settings) -> None:
        self.lake, self.settings = lake.absolute(), settings
        self.run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
        self.started, self._start = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
        self.progress = Progress(settings.progress, title, stream=JsonText() if settings.log_format == "json" else None)
        self.stages: list[dict[str, Any]] = []
        self.gates: list[dict[str, Any]] = []
        self.failed: dict[str, str] = {}
        self.memory: list[tuple[float, int]] = []
        self.hardware = {"workers": settings.workers, "memory_budget_bytes": settings.memory_bytes, **asdict(detect(self.lake))}
        self.log = logging.getLogger("bookmill")
        self.life = Life(self.run_id, title, self.lake, settings)
        self._ended = threading.Event()
        # Prefect's settings are in the context, which a new thread does not have by itself.
        self._watch = threading.Thread(target=copy_context().run, args=(self._watch_memory,), name="memory", daemon=True)
        self.on("threads")

    def on(self, runner: str, dask_address: str = "") -> Self:
        """Choose who works on the tasks; before the run is entered. Raises UsageError."""
        ear = Ear(self.run_id, self.progress.advance, self.progress.finish, self.told)
        self.crew = crew_of(check_runner(runner, dask_address), dask_address, self.settings, ear, self.lake)
        self.hardware["runner"] = runner
        return self

    def __enter__(self) -> Self:
        for path in remove_partials(self.lake) if self.lake.exists() else []:
            self.log.info("removed %s, left behind by a run that died", path)
        if self.crew.kind == "threads":
            judge_process.begin()
        self.crew.__enter__()
        self.work = self.crew.work()
        self.progress.__enter__()
        self._watch.start()
        self.life.begin()
        return self

    def __exit__(self, *reason: object) -> None:
        self._ended.set()
        self._watch.join()
        self.crew.__exit__(*reason)
        self.progress.__exit__(reason[0])
        if isinstance(reason[1], BaseException):
            self.ended_badly(reason[1])
        self.life.let_go()

    def ended_badly(self, fault: BaseException) -> None:
        """Note in the run's record why it ended, and raise the alarm."""
        refused = {str(entry["path"]): str(entry["error"]) for entry in getattr(self, "rejected", [])}
        self.life.end(f"{fault}" or type(fault).__name__, refused | self.failed, interrupted=not isinstance(fault, Exception))

    def _watch_memory(self) -> None:
        process = psutil.Process()
        while True:
            used = process.memory_info().rss + self.crew.memory_bytes() + judge_process.memory_bytes()
            self.memory.append((round(time.perf_counter() - self._start, 2), used))
            self.life.alerts.memory(self.memory[-1][1])
            if self._ended.wait(MEMORY_EVERY_S):
                return

    def batches(self, items: Sequence[Item], weight: Callable[[Item], int]) -> list[tuple[Item, ...]]:
        """Items in groups for one task each: one large partition alone, or many small ones together (a task costs 5 ms and more)."""
        groups: list[list[Item]] = []
        load = 0
        most = 1 if len(items) <= 4 * self.settings.workers else self.settings.max_partitions_per_batch
        for item in items:
            if not groups or len(groups[-1]) >= most or load + weight(item) > 2_000_000:
                groups.append([])
                load = 0
            groups[-1].append(item)
            load += weight(item)
        return [tuple(group) for group in groups]

    def stage(
        self, task: Task[..., Any], batches: Sequence[tuple[Any, ...]], done: Callable[[Any], bool], name: str, **arguments: Any
    ) -> list[Outcome]:
        """Submit `task` once per batch (as its argument `name`), wait, and book what came of each job. Returns the outcomes that went well."""
        self.life.claim_items([item for batch in batches for item in batch])
        start = time.perf_counter()
        equipped = equip(task, self.settings)
        extra = arguments.pop("contents", None)
        calls = []
        new: set[str] = set()
        for batch in batches:
            more = {"contents": extra(batch)} if extra else {}
            given = {"lake": str(self.lake), name: batch, **arguments, **more, "label": label_of(batch), "run": self.work}
            new |= {subject_of(item) for item in batch} if not (there := all(done(item) for item in batch)) else set()
            calls.append(partial(submit_checked, equipped, there, **given))
        results = self.crew.gather(calls)
        outcomes = [outcome for result, batch in zip(results, batches, strict=True) for outcome in self._outcomes(result, batch)]
        give_back()
        seconds = time.perf_counter() - start
        rows = sum(o.rows for o in outcomes)
        self.stages.append({"stage": task.name, "partition": "all", "seconds": round(seconds, 3), "rows": rows, "bytes": 0})
        for outcome in outcomes:
            if outcome.error:
                self.fail(outcome.subject, task.name, outcome.error)
            elif outcome.subject in new and not outcome.skipped:
                self.life.alerts.set_aside(outcome.subject, outcome.value, task.name)
        return [o for o in outcomes if not o.error]

    def fail(self, subject: str, stage: str, error: str) -> None:
        """Note that a source or partition failed; it goes no further, the others do."""
        self.failed[subject] = error
        self.log.error("%s %s: %s", stage, subject, error)

    def _outcomes(self, result: Any, batch: Sequence[Any]) -> list[Outcome]:
        if isinstance(result, PartitionsFailed):
            return result.outcomes
        if isinstance(result, BaseException):
            # Retries are used up, time ran out, or it is a fault of the program: this batch has failed, the others go on.
            known = "" if isinstance(result, BookmillError) else " (not a known fault: its traceback is in the log of the task run)"
            return [Outcome(subject_of(item), 0.0, 0, False, None, f"{type(result).__name__}: {result}{known}") for item in batch]
        return result

    def told(self, outcome: Outcome) -> None:
        """A job of a stage has ended; called from the thread that worked on it. Flows that tell each file at once override it."""

    def finished(self) -> str:
        """ISO time now."""
        return datetime.now(UTC).isoformat(timespec="seconds")

    @property
    def code(self) -> str:
        """Version of the output bytes."""
        return CODE_VERSION


def subject_of(item: Any) -> str:
    """The name under which a source, job or partition is booked."""
    return getattr(item, "subject", None) or getattr(item, "name", None) or str(getattr(item, "partition", item))


def label_of(batch: Sequence[Any]) -> str:
    """A name for a batch that a person finds again in the interface."""
    text = subject_of(batch[0])
    return text if len(batch) == 1 else f"{text} and {len(batch) - 1} more ({digest([str(b) for b in batch])[:6]})"
