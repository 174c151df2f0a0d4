"""A batch of jobs: each has its outcome, whatever becomes of the others; some have their files named together."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tasks.errors import StorageError, UsageError
from tasks.storage import atomic_file
from tasks.work import PartitionsFailed, run_each


def write(path: Path) -> None:
    with atomic_file(path) as file:
        file.write(path.name.encode())


def named(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("at_once", [1, 3, 50])
def test_every_job_has_its_outcome_and_a_fault_is_of_its_own_job_alone(tmp_path, at_once):
    told = []

    def body(job):
        write(tmp_path / f"{job}.first")
        if job == 4:
            raise UsageError("of its own")
        write(tmp_path / f"{job}.last")
        return job * 10, job, False

    def tell(outcome):
        told.append(outcome.subject)
        if not outcome.error:
            assert (tmp_path / f"{outcome.subject}.last").exists(), "told before its file had its name"

    with pytest.raises(PartitionsFailed) as fault:
        run_each(range(8), str, body, tell, at_once)
    outcomes = fault.value.outcomes
    assert told == [o.subject for o in outcomes] == [str(job) for job in range(8)]
    assert [o.value for o in outcomes] == [0, 10, 20, 30, None, 50, 60, 70]
    assert [o.error for o in outcomes if o.error] == ["UsageError: of its own"]
    whole = {f"{job}.{part}" for job in range(8) if job != 4 for part in ("first", "last")}
    assert set(named(tmp_path)) == whole | {"4.first"}


def test_when_the_disk_refuses_a_name_all_that_were_to_be_named_with_it_failed_and_the_others_are_done(tmp_path, monkeypatch):
    replace = os.replace

    def refusing(source, target):
        if Path(target).name == "4":
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr("tasks.disk.os.replace", refusing)
    with pytest.raises(PartitionsFailed) as fault:
        run_each(range(9), str, lambda job: (write(tmp_path / str(job)), 0, False), at_once=3)
    failed = [o.subject for o in fault.value.outcomes if o.error]
    assert failed == ["3", "4", "5"]
    assert all("disk is full" in o.error for o in fault.value.outcomes if o.error)
    assert {"0", "1", "2", "6", "7", "8"} <= set(named(tmp_path)) <= {"0", "1", "2", "3", "6", "7", "8"}


def test_a_fault_that_can_pass_is_raised_and_nothing_of_its_block_is_left(tmp_path):
    def body(job):
        write(tmp_path / str(job))
        if job == 4:
            raise StorageError("busy", transient=True)
        return None, 0, False

    with pytest.raises(StorageError):
        run_each(range(9), str, body, at_once=3)
    assert named(tmp_path) == ["0", "1", "2"]
