"""The flows on a pool of processes: the bytes of threads, progress that comes back, and killed processes."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest

from tasks.scanning.synthetic import SessionSpec
from tasks.scanning.synthetic_depth import DepthSpec, write_archive
from tasks.scanning.synthetic_writers import write_session
from tests.flows.servers import ask, bookmill, data_files, start_bookmill

PROCESSES = ["--runner", "processes", "--workers", "2", "--memory", "3GB"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    """A folder with two sessions of three symbols each, in two formats."""
    folder = tmp_path_factory.mktemp("sources")
    write_session(SessionSpec(records=30_000, seed=5, symbols=("ESZ5", "NQZ5", "CLZ5")), folder / "a.dbn.zst", "dbn.zst")
    write_session(SessionSpec(records=30_000, seed=6, symbols=("GCZ5", "YMZ5", "ZNZ5")), folder / "b.parquet", "parquet")
    return folder


@pytest.fixture(scope="module")
def on_threads(server, sources, tmp_path_factory) -> dict[str, bytes]:
    """The files of a run on threads."""
    lake = tmp_path_factory.mktemp("threads") / "lake"
    code, output = bookmill(["run", "mbo", str(sources), "--lake", str(lake)], *server, lake.parent / "log")
    assert code == 0, output
    return data_files(lake)


def differing(lake: Path, expected: dict[str, bytes]) -> list[str]:
    found = data_files(lake)
    return sorted({*(found.keys() ^ expected.keys()), *(name for name, content in expected.items() if found.get(name) != content)})


def pool_of(pid: int) -> list[psutil.Process]:
    """Processes of the pool of a run."""
    try:
        return [child for child in psutil.Process(pid).children() if "--multiprocessing-fork" in child.cmdline()]
    except psutil.Error:
        return []


def until(condition, seconds: float = 120):
    """The first true value of `condition`."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return value


def task_runs(url: str) -> list[dict]:
    return ask(url, "/task_runs/filter", {"limit": 200, "sort": "EXPECTED_START_TIME_DESC"})


def test_processes_give_the_bytes_of_threads(server, sources, on_threads, tmp_path):
    lake = tmp_path / "lake"
    process = start_bookmill(["run", "mbo", str(sources), "--lake", str(lake), *PROCESSES], *server, tmp_path / "log")
    seen = 0
    while process.poll() is None:
        seen = max(seen, len(pool_of(process.pid)))
        time.sleep(0.2)
    output = (tmp_path / "log").read_text()
    assert process.returncode == 0, output
    assert seen == 2
    assert differing(lake, on_threads) == []


def test_a_killed_process_costs_nothing_and_its_task_is_not_shown_as_running_for_ever(server, sources, on_threads, tmp_path):
    lake = tmp_path / "lake"
    process = start_bookmill(["run", "mbo", str(sources), "--lake", str(lake), *PROCESSES], *server, tmp_path / "log")
    writes = until(lambda: [p for p in pool_of(process.pid) if list(lake.rglob(f".*-{p.pid}-*.partial"))])
    writes[0].kill()
    code, output = process.wait(240), (tmp_path / "log").read_text()
    assert code == 0, output
    assert "processes lost" in output
    assert differing(lake, on_threads) == []
    states = until(lambda: [run["state_type"] for run in task_runs(server[0])])
    assert "RUNNING" not in states
    assert "CRASHED" in states


def test_the_processes_of_a_killed_run_end_with_it_and_a_new_run_completes(server, sources, on_threads, tmp_path):
    lake = tmp_path / "lake"
    arguments = ["run", "mbo", str(sources), "--lake", str(lake), *PROCESSES]
    process = start_bookmill(arguments, *server, tmp_path / "log")
    pool = until(lambda: (found := pool_of(process.pid)) and list(lake.rglob("events/**/*.parquet")) and found)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert psutil.wait_procs(pool, timeout=20)[1] == []
    code, output = bookmill(arguments, *server, tmp_path / "again")
    assert code == 0, output
    assert differing(lake, on_threads) == []


def test_the_depth_flow_tells_each_file_from_its_processes_and_writes_the_same_csv(server, tmp_path):
    archives = tmp_path / "archives"
    for seed, symbol in enumerate(("BTCUSDT", "ETHUSDT")):
        (archives / symbol).mkdir(parents=True)
        spec = DepthSpec(symbol=symbol, depth=200, interval_ms=60_000, seed=seed)
        write_archive(archives / symbol / f"2025-08-09_{symbol}_ob200.data.zip", spec)
    made = {}
    for name, options in (("threads", []), ("processes", PROCESSES)):
        lake, csv = tmp_path / name / "lake", tmp_path / name / "csv"
        lake.parent.mkdir()
        arguments = ["run", "depth", str(archives), "--lake", str(lake), "--csv", str(csv), "--depths", "200", "--profile", "laptop", *options]
        code, output = bookmill(arguments, *server, tmp_path / f"{name}.log")
        assert code == 0, output
        told = [re.sub(r", [0-9.]+ s$", "", line) for line in output.splitlines() if " DONE " in line]
        assert sorted(line.split()[0] for line in told) == ["[1/2]", "[2/2]"]
        assert "2 files: 2 done, 0 skipped, 0 failed; 2,880 snapshots" in output
        # The layer `exports` names the place of the CSV files.
        layers = {path: content for path, content in data_files(lake).items() if not path.startswith("exports")}
        made[name] = sorted(line.split("] ", 1)[1] for line in told), data_files(csv), layers
    assert made["threads"] == made["processes"]
    assert len(made["threads"][1]) == 2
