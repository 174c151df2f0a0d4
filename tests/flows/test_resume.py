"""Runs that died: told, detected by the server, started again from the server and from the command line, and nothing done twice or lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tasks.scanning.synthetic import SessionSpec
from tasks.scanning.synthetic_writers import write_session
from tests.flows.servers import ROOT, ask, bookmill, data_files, prefect_server, start_bookmill

# The shortest that Prefect takes for crash detection is 10 s of silence.
pytestmark = pytest.mark.timeout(600)
BEAT = "heartbeat_s = 2\n"
LIMITS = ("bookmill-cpu", "bookmill-memory")


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """(url, home) of a server with limits, work pool and crash detection."""
    home = tmp_path_factory.mktemp("prefect")
    with prefect_server(home) as url:
        (home / "bookmill.toml").write_text(BEAT)
        code, output = bookmill(["bootstrap"], url, home, home / "bootstrap")
        assert code == 0, output
        assert "created the automation bookmill: silent runs are crashed" in output
        for name in LIMITS:
            # Slots of a killed run come back after 75 s: switched off, no test waits for those of the one before it.
            ask(url, f"/v2/concurrency_limits/{name}", {"active": False}, "PATCH")
        yield url, home


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    write_session(SessionSpec(records=60_000, seed=5, symbols=("ESZ5", "NQZ5")), folder / "many.dbn.zst", "dbn.zst")
    return folder


@pytest.fixture(scope="module")
def whole(server, sources, tmp_path_factory) -> dict[str, bytes]:
    """Files of a lake that nothing interrupted."""
    lake = tmp_path_factory.mktemp("whole") / "lake"
    code, output = bookmill(["run", "mbo", str(sources), "--lake", str(lake)], *server, lake.parent / "log")
    assert code == 0, output
    return data_files(lake)


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "bookmill.toml").write_text(BEAT)
    return tmp_path


def wait_for(what: Callable[[], Any], seconds: float, told: str) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, told
        time.sleep(0.05)
    return found


def kill_when(process: subprocess.Popen[bytes], reached: Callable[[], bool], log: Path) -> None:
    """SIGKILL as soon as the run has reached a point."""
    wait_for(lambda: reached() or process.poll() is not None, 90, "the run did not get there")
    assert process.poll() is None, log.read_text()
    process.send_signal(signal.SIGKILL)
    process.wait()


def kill_family(pid: int) -> None:
    """SIGKILL a process and all below it, as when a machine goes away."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for process in family:
        process.suspend()  # so that the parent cannot tell anybody of its child's death
    for process in family:
        process.kill()


def listed(lake: Path, server: tuple[str, Path], folder: Path) -> list[dict[str, Any]]:
    """Unfinished runs of this lake; the server knows those of other tests, too."""
    code, output = bookmill(["resume", "--lake", str(lake), "--json"], *server, folder / "list")
    assert code == 0, output
    return [run for run in json.loads(output) if run["lake"] == str(lake)]


def same(lake: Path, whole: dict[str, bytes]) -> None:
    files = data_files(lake)
    assert files.keys() == whole.keys()
    assert [name for name, content in files.items() if content != whole[name]] == []
    assert not list(lake.rglob("*.partial"))


def test_a_lake_that_was_moved_is_resumed_where_it_is_and_a_completed_run_is_not_started_again(server, sources, whole, folder):
    lake, moved = folder / "lake", folder / "moved"
    process = start_bookmill(["run", "mbo", str(sources), "--lake", str(lake)], *server, folder / "killed")
    kill_when(process, (lake / "bbo").exists, folder / "killed")
    lake.rename(moved)
    (run,) = listed(moved, server, folder)
    code, output = bookmill(["resume", run["run"], "--lake", str(moved)], *server, folder / "resumed")
    assert (code, lake.exists()) == (0, False), output
    same(moved, whole)
    assert listed(moved, server, folder) == []
    latest = ask(server[0], "/flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1})[0]
    code, output = bookmill(["resume", latest["id"], "--lake", str(folder / "other")], *server, folder / "again")
    assert (code, "completed: there is nothing to resume" in output) == (2, True), output


def test_a_killed_run_is_listed_with_its_reason_and_resume_finishes_it(server, sources, whole, folder):
    lake = folder / "lake"
    process = start_bookmill(["run", "mbo", str(sources), "--lake", str(lake)], *server, folder / "killed")
    kill_when(process, (lake / "bbo").exists, folder / "killed")
    (run,) = listed(lake, server, folder)
    assert run["why"] == f"killed: process {process.pid} on {os.uname().nodename} is gone"
    assert (run["alive"], run["server"], run["flow"]) == (False, "Running", "market-by-order")
    code, output = bookmill(["resume", run["run"][:15], "--lake", str(lake)], *server, folder / "resumed")
    assert code == 0, output
    same(lake, whole)
    assert listed(lake, server, folder) == []
    # Nobody is told any more that the dead one works.
    assert ask(server[0], f"/flow_runs/{run['flow_run']}")["state_name"] == "Crashed"
    latest = ask(server[0], "/flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1})[0]
    tasks = ask(server[0], "/task_runs/filter", {"flow_runs": {"id": {"any_": [latest["id"]]}}, "limit": 200})
    assert {task["name"].split()[0] for task in tasks if task["state_name"] == "Cached"} >= {"decode", "gate"}
    code, output = bookmill(["resume", run["run"], "--lake", str(lake)], *server, folder / "again")
    assert code in (0, 2), output  # of a run that died only its end can be missing: started again, all is done


def test_a_run_that_failed_is_listed_and_resumed_when_its_source_is_mended(server, sources, whole, folder):
    (folder / "in").mkdir()
    good = (sources / "many.dbn.zst").read_bytes()
    (folder / "in/many.dbn.zst").write_bytes(good[: len(good) // 2])
    lake = folder / "lake"
    code, output = bookmill(["run", "mbo", str(folder / "in"), "--lake", str(lake)], *server, folder / "log")
    assert code in (1, 2), output
    (run,) = listed(lake, server, folder)
    assert run["why"].startswith("failed: ")
    record = json.loads((lake / "runs/records" / f"{run['run']}.json").read_text())
    assert "many.dbn.zst" in str(record["failed"])
    (folder / "in/many.dbn.zst").write_bytes(good)
    code, output = bookmill(["resume", run["run"], "--lake", str(lake)], *server, folder / "resumed")
    assert code == 0, output
    same(lake, whole)
    assert listed(lake, server, folder) == []


def test_a_backfill_that_failed_is_resumed_by_the_word_with_which_its_line_begins(server, sources, folder):
    (folder / "in").mkdir()
    good = (sources / "many.dbn.zst").read_bytes()
    (folder / "in/many.dbn.zst").write_bytes(good[: len(good) // 2])
    lake = folder / "my lake"
    for batch in ("1", "2"):  # other work by its parameters, and of the same name
        command = ["backfill", "mbo", str(folder / "in"), "--lake", str(lake), "--settle", "off", "--batch", batch]
        code, output = bookmill(command, *server, folder / f"log-{batch}")
        assert code in (1, 2), output
    backfills = [run for run in listed(lake, server, folder) if run["flow"] == "backfill"]
    assert [run["name"] for run in backfills] == [f"backfill mbo into {lake}"] * 2
    code, output = bookmill(["resume", "--lake", str(lake)], *server, folder / "list")
    (line,) = [line for line in output.splitlines() if backfills[1]["run"] in line and " backfill " in line and "started" in line]
    (folder / "in/many.dbn.zst").write_bytes(good)
    code, output = bookmill(["resume", line.split()[0], "--lake", str(lake)], *server, folder / "resumed")
    assert (code, "0 sources left" in output) == (0, True), output


def test_what_cannot_be_resumed_is_told(server, sources, folder):
    lake = folder / "lake"
    code, output = bookmill(["resume", "nonsense", "--lake", str(lake)], *server, folder / "log")
    assert (code, "Traceback" in output) == (2, False), output
    assert "Neither the lake nor the Prefect server knows a run nonsense" in output
    process = start_bookmill(["run", "mbo", str(sources), "--lake", str(lake)], *server, folder / "run")
    try:
        (record,) = wait_for(lambda: list((lake / "runs/records").glob("*.json")), 60, "no record")
        (run,) = listed(lake, server, folder)
        if process.poll() is None:
            assert run["alive"]
            code, output = bookmill(["resume", record.stem, "--lake", str(lake)], *server, folder / "log")
            assert (code, "is still at work" in output or "completed" in output) == (2, True), output
    finally:
        process.kill()
        process.wait()


@contextmanager
def worker(url: str, home: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    environ = {**os.environ, "PREFECT_API_URL": url, "PREFECT_HOME": str(home), "BOOKMILL_PROFILE": "ci", "BOOKMILL_HEARTBEAT_S": "2"}
    environ |= {"PYTHONPATH": str(ROOT), "DO_NOT_TRACK": "1", "PREFECT_WORKER_QUERY_SECONDS": "1"}
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "bookmill"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=ROOT)
    try:
        yield process
    finally:
        if process.poll() is None:
            kill_family(process.pid)
        process.wait()


def test_a_run_whose_worker_died_becomes_crashed_and_a_retry_of_it_does_only_the_rest(server, sources, whole, folder):
    url, home = server
    lake = folder / "lake"
    environ = {**os.environ, "PREFECT_API_URL": url, "PREFECT_HOME": str(home), "DO_NOT_TRACK": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--prefect-file", "deployments/prefect.yaml", "-n", "market-by-order"]
    deployed = subprocess.run(command, env=environ, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    deployment = ask(url, "/deployments/name/market-by-order/market-by-order")
    parameters = {"sources": [str(sources)], "lake": str(lake)}
    run = ask(url, f"/deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})["id"]

    with worker(url, home, folder / "worker1") as process:
        wait_for((lake / "bbo").exists, 120, "the worker did not start the run: see its log")
        kill_family(process.pid)
    killed = time.monotonic()
    assert ask(url, f"/flow_runs/{run}")["state_name"] == "Running"
    state = wait_for(lambda: (s := ask(url, f"/flow_runs/{run}")["state"]) and s["type"] == "CRASHED" and s, 60, "crash was not detected")
    print(f"detected after {time.monotonic() - killed:.0f} s")
    assert state["message"].startswith("No heartbeat for 10 s")

    # What the button Retry of the interface sends.
    again = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry from the UI"}, "force": True}
    assert ask(url, f"/flow_runs/{run}/set_state", again)["status"] == "ACCEPT"
    with worker(url, home, folder / "worker2"):
        over = ("COMPLETED", "FAILED", "CRASHED")
        ended = wait_for(lambda: (r := ask(url, f"/flow_runs/{run}"))["state_type"] in over and r, 150, "the retry did not end")
    assert (ended["state_type"], ended["run_count"]) == ("COMPLETED", 2), ended["state"]
    same(lake, whole)
    tasks = ask(url, "/task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}, "limit": 200})
    assert {task["name"].split()[0] for task in tasks if task["state_name"] == "Cached"} >= {"decode", "gate"}
    assert {task["state_type"] for task in tasks if task["name"].startswith(("aggregate", "ledger", "report"))} == {"COMPLETED"}
    assert listed(lake, server, folder) == []
    # A run that ended is not taken for a silent one.
    time.sleep(12)
    assert ask(url, f"/flow_runs/{run}")["state_type"] == "COMPLETED"


HOLD = """
import sys, time
from config.settings import load
from flows.runtime import prepare

prepare(load("ci"))
from flows.policies import slots

with slots(load("ci"), cpu=1, memory_bytes=1):
    print("held", flush=True)
    time.sleep(600)
"""


def switch_on_limits(url: str) -> None:
    for name in LIMITS:
        ask(url, f"/v2/concurrency_limits/{name}", {"active": True, "active_slots": 0}, "PATCH")


def held(url: str) -> list[int]:
    return [ask(url, f"/v2/concurrency_limits/{name}")["active_slots"] for name in LIMITS]


def kill_a_holder_of_slots(url: str, home: Path) -> None:
    environ = {**os.environ, "PREFECT_API_URL": url, "PREFECT_HOME": str(home), "PYTHONPATH": str(ROOT)}
    holder = subprocess.Popen([sys.executable, "-c", HOLD], env=environ, stdout=subprocess.PIPE, text=True, cwd=home)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert held(url) == [1, 1]
    holder.kill()
    holder.wait()
    assert held(url) == [1, 1]


def test_slots_of_a_killed_run_are_released_by_hand(server, folder):
    url, home = server
    switch_on_limits(url)
    kill_a_holder_of_slots(url, home)
    code, output = bookmill(["bootstrap", "--release-slots"], url, home, folder / "log")
    assert code == 0, output
    assert "released 1 slots of the global concurrency limit bookmill-cpu" in output
    assert held(url) == [0, 0]


@pytest.mark.campaign
def test_slots_of_a_killed_run_come_back_by_themselves_when_their_lease_ends(server):
    url, home = server
    switch_on_limits(url)
    kill_a_holder_of_slots(url, home)
    start = time.monotonic()
    wait_for(lambda: held(url) == [0, 0], 100, "the slots did not come back")
    print(f"the slots came back after {time.monotonic() - start:.0f} s")
