"""Records of runs: what is read off them about runs that ended, were killed, or work elsewhere."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import pytest

from flows.run_record import GRACE_S, RunRecord, beat, is_alive, partial_runs, read_records
from tasks.owners import Owner

LONG_AGO = "00000000-5-00000000-1"  # of another machine


def record(run_id: str = "20250101T000000-0000", **changes: object) -> RunRecord:
    made = RunRecord(
        run_id, "market-by-order", {"sources": ["a"], "lake": "lake", "depth": 10}, "2025-01-01T00:00:00+00:00", Owner.me().text, "here", 30.0
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_a_record_is_read_as_it_was_written_and_what_is_none_is_left_out(tmp_path):
    made = [record("b", failed={"x": "broken"}), record("a", state="completed", ended="2025-01-01T00:01:00+00:00")]
    for one in made:
        one.write(tmp_path)
    (tmp_path / "runs/records/c.json").write_text("{")
    (tmp_path / "runs/records/d.json").write_text('{"run_id": "d"}')
    assert read_records(tmp_path) == made[::-1]
    assert read_records(tmp_path / "nowhere") == []


def test_a_run_without_an_end_is_alive_with_its_process_and_killed_without(tmp_path):
    me = Owner.me()
    for one in (record("1"), record("2", owner=replace(me, start=me.start - 500).text, parameters={"sources": ["b"]})):
        one.write(tmp_path)
    alive, killed = partial_runs(tmp_path)
    assert (alive.alive, alive.why) == (True, f"process {me.pid} on here works on it")
    assert (killed.alive, killed.why) == (False, f"killed: process {me.pid} on here is gone")


def test_a_run_of_another_machine_is_judged_by_its_heartbeat(tmp_path):
    one = record(owner=LONG_AGO)
    one.write(tmp_path)
    assert is_alive(tmp_path, one)[0]
    old = time.time() - 3 * one.heartbeat_s - GRACE_S - 1
    os.utime(one.path(tmp_path), (old, old))
    assert not is_alive(tmp_path, one)[0]
    assert partial_runs(tmp_path)[0].why.startswith("killed: no heartbeat from here since 20")
    beat(tmp_path, one)
    assert is_alive(tmp_path, one)[0]


def test_a_failed_run_tells_why_and_a_completed_one_settles_all_before_it_of_the_same_work(tmp_path):
    failed = record("1", state="failed", error="1 of 3 failed", failed={"x": "broken"})
    failed.write(tmp_path)
    other = record("2", state="interrupted", error="KeyboardInterrupt", parameters={"sources": ["b"], "lake": "lake"})
    other.write(tmp_path)
    assert [(p.record.run_id, p.why) for p in partial_runs(tmp_path)] == [("1", "failed: 1 of 3 failed"), ("2", "interrupted: KeyboardInterrupt")]
    how = {**failed.parameters, "profile": "server", "settings": {"workers": "1"}, "runner": "dask"}
    record("3", state="completed", parameters=how).write(tmp_path)
    assert [p.record.run_id for p in partial_runs(tmp_path)] == ["2"]
    record("4", state="completed", parameters={**failed.parameters, "depth": 5}).write(tmp_path)
    record("5", state="failed", error="again").write(tmp_path)
    assert [p.record.run_id for p in partial_runs(tmp_path)] == ["2", "5"]


def test_a_kill_while_the_record_is_written_leaves_the_one_before(tmp_path, monkeypatch):
    record("1").write(tmp_path)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tasks.disk.os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        record("1", state="completed").write(tmp_path)
    assert [r.state for r in read_records(tmp_path)] == ["running"]
