"""Great Expectations in a process of its own says what it says in this one, and a gate does not depend on it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.unit.test_gates import events
from validation import judge_process, run_gate

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def process():
    judge_process.begin()
    yield judge_process.current()
    judge_process.end()


def test_the_verdict_is_that_of_this_process(process, tmp_path):
    path = events(tmp_path / "a.parquet", action=(3, "X"))
    elsewhere = run_gate("events", [path])
    judge_process.end()
    here = run_gate("events", [path])
    assert (here.status, here.results) == (elsewhere.status, elsewhere.results)
    told = [[(r["expectation_config"]["meta"]["name"], r["success"]) for r in report.validation["results"]] for report in (here, elsewhere)]
    assert told[0] == told[1]
    assert ("action_known", False) in told[0]


def test_a_gate_goes_on_when_the_process_is_killed(process, tmp_path, caplog):
    os.kill(process._process.pid, signal.SIGKILL)
    assert run_gate("events", [events(tmp_path / "a.parquet", action=(3, "X"))]).status == "warn"
    assert judge_process.current() is None
    assert "going on without it" in caplog.text


def test_it_is_away_for_a_block_and_another_one_is_there_afterwards(process, tmp_path):
    with judge_process.away():
        assert judge_process.current() is None
        assert not psutil.pid_exists(process._process.pid)
    assert judge_process.current() not in (None, process)
    assert run_gate("events", [events(tmp_path / "a.parquet", action=(3, "X"))]).status == "warn"
    judge_process.end()
    with judge_process.away():
        pass
    assert judge_process.current() is None


def test_what_it_does_not_need_it_loads_when_it_is_used_and_not_before():
    code = """
import io, sys
from validation.judge_process import LATER, serve
serve(io.BytesIO(), io.BytesIO())
assert "great_expectations" in sys.modules and "duckdb_engine" in sys.modules, "a first verdict was not given"
from types import ModuleType
print([m for m in LATER if type(sys.modules[m]) is ModuleType], [m for m in sys.modules if m.startswith(("altair.", "scipy.stats."))][:3])
import altair, scipy.stats
print(altair.Chart.__name__, scipy.stats.entropy([0.5, 0.5]) > 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines() == ["[] []", "Chart True"]


def test_a_result_is_read_without_the_libraries_that_made_it(tmp_path):
    code = f"""
import sys
from pathlib import Path
from validation import judge_process, run_gate
judge_process.begin()
report = run_gate("events", [Path({str(events(tmp_path / "a.parquet"))!r})])
print(report.status, [m for m in ("great_expectations", "sqlalchemy") if m in sys.modules])
judge_process.end()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split(" ", 1)[1] == "[]\n", done.stdout


def test_it_ends_with_a_parent_that_is_killed():
    code = "from validation import judge_process as j; j.begin(); print(j.current()._process.pid, flush=True); import time; time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    end = time.monotonic() + 60
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end, "the process outlives its parent"
        time.sleep(0.1)
