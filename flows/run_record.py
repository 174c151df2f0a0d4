"""The record that every run leaves in its lake: what it was asked to do, who does it, and how it ended; and what one reads off it later.

`<lake>/runs/records/<run id>.json` is written when a run begins and again when it ends; in between its time of change is the heartbeat. A run
that was killed leaves a record without an end, whose process is gone or whose heart has stopped. Records say what to start again; what is done
is said by the data alone. Imports no Prefect.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.owners import Owner
from tasks.partitions import digest
from tasks.storage import atomic_file

FOLDER = Path("runs", "records")
# Heartbeats missed before a run of another machine counts as dead. File systems tell times of change late, by some seconds.
MISSED_BEATS, GRACE_S = 3, 15.0
# Parameters that say how a run works and not what it makes.
_HOW = ("profile", "settings", "runner", "dask_address")


@dataclass(frozen=True)
class RunRecord:
    """One run. flow: its name; parameters: of the flow, by name; owner: `Owner.text`; machine: name, for people; flow_run, deployment: ids on the
    Prefect API, "" where there is none; api: URL of the user's server without login, "" for a private one; state: running, completed, failed,
    interrupted; error: why it ended so; failed: source or partition -> error; heartbeat_s: time between heartbeats."""

    run_id: str
    flow: str
    parameters: dict[str, Any]
    started: str
    owner: str
    machine: str
    heartbeat_s: float
    flow_run: str = ""
    deployment: str = ""
    api: str = ""
    state: str = "running"
    ended: str = ""
    error: str = ""
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def work(self) -> str:
        """Digest of what was to be made: equal for runs of which each finishes what the other began."""
        # Records lie in their lake, which may have been moved since.
        return work_of(self.flow, {name: value for name, value in self.parameters.items() if name != "lake"})

    def path(self, lake: Path) -> Path:
        """Where it lies."""
        return lake / FOLDER / f"{self.run_id}.json"

    def write(self, lake: Path) -> None:
        """Write it whole or not at all. Raises StorageError."""
        with atomic_file(self.path(lake)) as file:
            file.write(json.dumps(asdict(self), indent=1, default=str).encode())


def work_of(flow: str, parameters: Mapping[str, Any]) -> str:
    """Digest of what a run with these parameters makes."""
    return digest([flow, {name: value for name, value in parameters.items() if name not in _HOW}])


@dataclass(frozen=True)
class Partial:
    """A run that did not finish its work, and no later one has. why: for a person; alive: it may still be at it."""

    record: RunRecord
    why: str
    alive: bool


def read_records(lake: Path) -> list[RunRecord]:
    """All records of a lake, oldest first; what cannot be read as one is left out."""
    found = []
    for path in (lake / FOLDER).glob("*.json"):
        try:
            found.append(RunRecord(**json.loads(path.read_bytes())))
        except (OSError, ValueError, TypeError):
            continue
    return sorted(found, key=lambda record: record.run_id)


def beat(lake: Path, record: RunRecord) -> None:
    """Say that the run lives."""
    os.utime(record.path(lake))


def is_alive(lake: Path, record: RunRecord) -> tuple[bool, str]:
    """(whether a run without an end may still work, how one knows)."""
    owner = Owner.parse(record.owner)
    known = owner.alive if owner else None
    if owner is not None and known is not None:
        return known, f"process {owner.pid} on {record.machine} {'works on it' if known else 'is gone'}"
    try:
        silent = time.time() - record.path(lake).stat().st_mtime
    except OSError:
        return False, "its record is gone"
    if silent > MISSED_BEATS * record.heartbeat_s + GRACE_S:
        return False, f"no heartbeat from {record.machine} since {datetime.fromtimestamp(time.time() - silent, UTC):%Y-%m-%d %H:%M:%S} UTC"
    return True, f"heartbeat from {record.machine} {silent:.0f} s ago"


def partial_runs(lake: Path, records: Sequence[RunRecord] | None = None) -> list[Partial]:
    """Runs that did not finish, oldest first: of equal work only the last, and none that a later run completed."""
    last: dict[str, RunRecord] = {}
    for record in read_records(lake) if records is None else records:
        last[record.work] = record
    found = []
    for record in sorted(last.values(), key=lambda r: r.run_id):
        if record.state == "completed":
            continue
        if record.state != "running":
            found.append(Partial(record, f"{record.state}: {record.error}" if record.error else record.state, False))
            continue
        alive, how = is_alive(lake, record)
        found.append(Partial(record, how if alive else f"killed: {how}", alive))
    return found
