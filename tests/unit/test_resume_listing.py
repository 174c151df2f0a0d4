"""`bookmill resume` without a server: the list as people and programs read it, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from config.settings import load
from flows.run_record import RunRecord
from tasks.owners import Owner

ROOT = Path(__file__).resolve().parents[2]


def resume(folder: Path, *arguments: str) -> tuple[int, str, str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("BOOKMILL_", "PREFECT_"))}
    environ |= {"PREFECT_HOME": str(folder / "prefect"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "deployments.cli", "resume", *arguments], cwd=folder, env=environ, capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def lake(tmp_path) -> Path:
    """A killed, a failed, a living and a completed run."""
    me = Owner.me()
    made = RunRecord("20250101T000000-aaaa", "market-by-order", {"sources": ["a"]}, "2025-01-01T00:00:00+00:00", me.text, "desk", 30.0)
    for record in (
        replace(made, owner=replace(me, start=me.start - 500).text),
        replace(made, run_id="20250101T000001-bbbb", flow="depth-snapshots", state="failed", error="1 of 2 failed [5]"),
        replace(made, run_id="20250101T000002-cccc", parameters={"sources": ["c"]}),
        replace(made, run_id="20250101T000003-dddd", parameters={"sources": ["d"]}, state="completed", ended="2025-01-01T01:00:00+00:00"),
    ):
        record.write(tmp_path / "lake")
    return tmp_path / "lake"


def test_unfinished_runs_are_listed_with_why_and_what_to_do(lake, tmp_path):
    code, out, err = resume(tmp_path)
    assert (code, err) == (0, "")
    killed, failed, alive, _, hint = out.splitlines()
    assert killed.startswith("20250101T000000-aaaa market-by-order, started 2025-01-01T00:00:00+00:00: killed: process ")
    assert failed.endswith("failed: 1 of 2 failed [5]")
    assert alive.endswith("works on it")
    assert hint == "`bookmill resume 20250101T000001-bbbb` starts one again; what is done is skipped."
    code, out, _ = resume(tmp_path, "--json")
    assert [(run["run"][-4:], run["alive"], run["flow"]) for run in json.loads(out)] == [
        ("aaaa", False, "market-by-order"), ("bbbb", False, "depth-snapshots"), ("cccc", True, "market-by-order")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("20250101T000002", "is still at work: process"), ("20250101T000003-dddd", "completed at 2025-01-01T01:00:00+00:00"),
        ("2025", "is the beginning of 4 runs"), ("1999", "No run 1999 has a record in lake"),
    ],
)  # fmt: skip
def test_what_cannot_be_resumed_is_refused_with_the_reason(lake, tmp_path, name, told):
    code, _, err = resume(tmp_path, name)
    assert code == 2
    assert told in err
    assert "Traceback" not in err


def test_a_run_that_only_the_server_knows_is_listed_by_its_id_since_its_name_has_spaces_and_others_may_have_it(tmp_path, monkeypatch, capsys):
    from deployments import resume, server_runs
    from deployments.server_runs import ServerRun

    ids = ("0f6c2b62-7a41-4e0e-9d3c-111111111111", "0f6c2b62-7a41-4e0e-9d3c-222222222222")
    name, given = f"backfill mbo into {tmp_path / 'my lake'}", {"lake": str(tmp_path / "my lake")}
    runs = [ServerRun(i, name, "backfill", f"2025-01-0{n + 1}T00:00:00", "Crashed", "its worker died", False, "", given) for n, i in enumerate(ids)]
    monkeypatch.setattr(server_runs, "unfinished_runs", lambda: {run.id: run for run in runs})
    monkeypatch.setattr(resume, "prepare", lambda settings, api_url: "http://127.0.0.1:1/api")
    assert [run.run for run in resume.unfinished(tmp_path / "lake", "url")] == list(ids)
    resume.print_unfinished(tmp_path / "my lake", load(), None, False)
    *lines, _, hint = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(ids)
    assert all(f"backfill '{name}', started" in line for line in lines)
    assert hint == f"`bookmill resume {ids[1]}` starts one again; what is done is skipped."


def test_without_a_lake_it_says_so(tmp_path):
    code, _, err = resume(tmp_path, "--lake", "nowhere")
    assert (code, err) == (2, "Error: There is no lake at nowhere. Give the folder that a run wrote to with --lake.\n")
