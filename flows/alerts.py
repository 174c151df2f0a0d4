"""What a run tells Prefect as events, so that automations can act on it: failures, gates, set-aside rows, stale data, memory and disk.

Events go to the API that the run reports to and nowhere else; who is told of them is decided by automations (`deployments/automations.py`). An
event that cannot be sent harms nothing.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from prefect.context import FlowRunContext
from prefect.events import emit_event

from config.settings import Settings
from tasks.partitions import Partition

RUN_FAILED, RUN_INTERRUPTED = "bookmill.run.failed", "bookmill.run.interrupted"
PARTITION_FAILED, GATE_BLOCKED, QUARANTINED = "bookmill.partition.failed", "bookmill.gate.blocked", "bookmill.rows.quarantined"
DATA_STALE, MEMORY_HIGH, DISK_LOW = "bookmill.data.stale", "bookmill.memory.high", "bookmill.disk.low"
# Event -> what it says, for the descriptions of automations.
EVENTS = {
    RUN_FAILED: "a run ended with failed sources or partitions, or could not run at all",
    RUN_INTERRUPTED: "a run was cancelled or stopped",
    PARTITION_FAILED: "a source or partition failed",
    GATE_BLOCKED: "a gate kept a partition from going on",
    QUARANTINED: "rows were set aside",
    DATA_STALE: "the newest day of a symbol is older than expected",
    MEMORY_HIGH: "a run holds more of its memory budget than it should",
    DISK_LOW: "the disk of the lake is nearly full",
}
# One event a partition, but no flood: the event of the run has the number of all.
MOST = 100
_GB = 10**9
_MESSAGE_CHARS = 1_000

_log = logging.getLogger(__name__)


class Alerts:
    """Events of one run; each sort of resource alert is sent once. Safe to call from any thread that has the run's context."""

    def __init__(self, run_id: str, lake: Path, settings: Settings) -> None:
        self._run_id, self._lake, self._settings = run_id, lake, settings
        self._sent: set[str] = set()

    def failed(self, error: str, failed: Mapping[str, str], interrupted: bool = False) -> None:
        """The run ended badly: an event of the run, and one of each source or partition."""
        for subject, why in list(failed.items())[:MOST]:
            self.send(GATE_BLOCKED if why.startswith("GateBlocked") else PARTITION_FAILED, subject, f"{subject}: {why}")
        details = {"failed": len(failed), "first": list(failed)[:20]}
        self.send(RUN_INTERRUPTED if interrupted else RUN_FAILED, "", f"Run {self._run_id} into {self._lake}: {error}", details)

    def quarantined(self, subject: str, rows: int, stage: str) -> None:
        """Rows of a source or partition were set aside."""
        self.send(QUARANTINED, subject, f"{subject}: {rows:,} rows were set aside by {stage}. `bookmill quarantine list` shows them.", {"rows": rows})

    def set_aside(self, subject: str, made: Any, stage: str) -> None:
        """What a stage made of a source or partition: an event where rows of it were set aside."""
        facts = getattr(made, "facts", None)
        rows = getattr(made, "rows_quarantined", None) or (facts.get("rows_quarantined", 0) if isinstance(facts, dict) else 0)
        if rows:
            self.quarantined(subject, rows, stage)

    def stale(self, partitions: Iterable[Partition], today: date | None = None) -> None:
        """Symbols whose newest day of the run is older than the setting allows."""
        days = self._settings.alert_stale_days
        newest: dict[tuple[str, str, int], Partition] = {}
        for partition in sorted(partitions, key=lambda p: p.date) if days else ():
            newest[partition.dataset, partition.symbol, partition.publisher_id] = partition
        oldest = (today or datetime.now(UTC).date()) - timedelta(days=days)
        for partition in [p for p in newest.values() if date.fromisoformat(p.date) < oldest][:MOST]:
            told = f"{partition.dataset} {partition.symbol}: the newest day is {partition.date}, expected is {oldest} or later."
            self.send(DATA_STALE, str(partition), told, {"newest": partition.date, "expected": str(oldest)})

    def memory(self, held: int) -> None:
        """Memory that the process holds, in bytes."""
        share, budget = self._settings.alert_memory_percent, self._settings.memory_bytes
        if share and held * 100 > share * budget and self._first(MEMORY_HIGH):
            told = f"The run holds {held / 2**20:,.0f} MiB, more than {share}% of its budget of {budget / 2**20:,.0f} MiB."
            _log.warning("%s", told)
            self.send(MEMORY_HIGH, "", told, {"held_bytes": held, "budget_bytes": budget})

    def disk(self) -> None:
        """Room on the disk of the lake."""
        least = self._settings.alert_disk_free_gb * _GB
        if not least or DISK_LOW in self._sent:
            return
        try:
            free = shutil.disk_usage(self._lake if self._lake.exists() else self._lake.parent).free
        except OSError:
            return
        if free < least and self._first(DISK_LOW):
            told = f"The disk of {self._lake} has {free / _GB:,.1f} GB left, less than {least / _GB:,.0f}."
            _log.warning("%s", told)
            self.send(DISK_LOW, "", told, {"free_bytes": free})

    def send(self, event: str, subject: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        """One event about `subject` (a source or partition), "" for the run."""
        resource = {"prefect.resource.id": resource_id(subject) if subject else f"bookmill.run.{self._run_id}"}
        resource["prefect.resource.name"] = subject or self._run_id
        payload = {"message": message[:_MESSAGE_CHARS], "run": self._run_id, "lake": str(self._lake), "partition": subject, **(details or {})}
        try:
            emit_event(event, resource, related=_related(), payload=payload)
        except Exception as fault:  # told, and the run goes on: its files are what counts
            _log.warning("The event %s cannot be sent: %s", event, fault)

    def _first(self, event: str) -> bool:
        new = event not in self._sent
        self._sent.add(event)
        return new


def resource_id(subject: str) -> str:
    """Id under which automations find a partition or source."""
    return "bookmill.partition." + "".join(c if c.isalnum() or c in "-_." else "." for c in subject)


def _related() -> list[dict[str, str]]:
    run = FlowRunContext.get()
    if run is None or run.flow_run is None:
        return []
    return [{"prefect.resource.id": f"prefect.flow-run.{run.flow_run.id}", "prefect.resource.role": "flow-run",
             "prefect.resource.name": run.flow_run.name}]  # fmt: skip
