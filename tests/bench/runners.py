"""What each runner costs: seconds to start, seconds a task and a partition, memory of a worker. Behind deployments/SCALING.md.

`python -m tests.bench.runners [--tasks 300] [--rounds 3] [--symbols 8,40] [--json FILE]`: empty tasks, equipped as those of the flows are (cache key,
stored result, retries), through the crew that the flows use, and how much of it is CPU time of the run's own process, which is what no further
worker takes off it; then the market-by-order flow on sessions of few and of many small partitions, the
difference of which is the cost of a partition. Each measurement is a process of its own on a private Prefect API; medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from tests.bench.measure import machine, run_watched

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("threads", "processes", "dask")
RECORDS_A_PARTITION = 2_000


def measure_tasks(kind: str, tasks: int, rounds: int, workers: int, folder: Path) -> dict[str, Any]:
    """Start, first round and steady rounds of `tasks` empty tasks, in this process."""
    from config.settings import load
    from flows.runtime import api

    settings = load("server", {"workers": workers, "memory_bytes": "8GiB", "progress": "off", "log_level": "ERROR"})
    with api(settings) as server:
        from prefect import flow, task

        from flows.policies import equip, submit_checked
        from flows.runners import Ear, crew_of

        server.ready()

        @task(name="nothing")
        def nothing(lake: str, number: int, run: Any) -> int:
            return number

        @flow(name="runners")
        def rounds_of() -> dict[str, Any]:
            ear = Ear("bench", lambda *a, **k: None, lambda *a: None, lambda *a: None)
            start = time.perf_counter()
            with crew_of(kind, "", settings, ear, folder) as crew:
                equipped, work = equip(nothing, settings), crew.work()

                def gather(first: int, count: int) -> float:
                    began = time.perf_counter()
                    calls = [partial(submit_checked, equipped, False, lake=str(folder), number=first + n, run=work) for n in range(count)]
                    if crew.gather(calls) != list(range(first, first + count)):
                        raise AssertionError("a task did not give what it was given")
                    return time.perf_counter() - began

                gather(0, 2 * crew.workers)  # every worker has imported everything
                ready = time.perf_counter() - start
                own, others = time.process_time(), _children_cpu()
                found = [gather(1_000_000 * (n + 1), tasks) for n in range(rounds)]
                own, others = time.process_time() - own, _children_cpu() - others
                return {
                    "kind": kind, "workers": crew.workers, "start_s": ready, "task_ms": 1e3 * statistics.median(found) / tasks,
                    "run_cpu_ms": 1e3 * own / tasks / rounds, "worker_cpu_ms": 1e3 * others / tasks / rounds,
                    "workers_mb": crew.memory_bytes() / 2**20,
                }  # fmt: skip

        return rounds_of()


def _children_cpu() -> float:
    """CPU seconds so far of the worker processes of this one; the private API is none of them."""
    total = 0.0
    for child in psutil.Process().children():
        if "--multiprocessing-fork" in child.cmdline():
            times = child.cpu_times()
            total += times.user + times.system
    return total


def measure_partitions(kind: str, symbols: int, workers: int, folder: Path, source: Path) -> float:
    """CPU seconds of the flow on a new lake, as a person runs it: all its processes, the private API included. Less at the mercy of a busy machine
    than wall time."""
    lake = Path(tempfile.mkdtemp(prefix="lake-", dir=folder))
    command = [sys.executable, "-m", "deployments.cli", "run", "mbo", str(source), "--lake", str(lake / "lake"), "--runner", kind, "--workers"]
    command += [str(workers), "--memory", "8GiB", "--quiet", "--heatmaps", "0"]
    log = folder / f"{kind}.log"
    measured, code = run_watched(command, environment(folder), log)
    if code:
        raise RuntimeError(f"the flow failed: {log.read_text()[-4_000:]}")
    found = len(list((lake / "lake" / "bbo").rglob("*.parquet")))
    if found != symbols:
        raise AssertionError(f"{found} partitions instead of {symbols}")
    return measured.cpu


def environment(folder: Path) -> dict[str, str]:
    """Without settings of the caller's; one Prefect home for all, so that its database is made once."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("BOOKMILL_", "PREFECT_"))}
    return environ | {"PREFECT_HOME": str(folder / "prefect"), "PYTHONPATH": str(ROOT)}


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; with --one, measure the tasks of one runner in this process and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--symbols", default="8,40", help="partitions of the small and of the large session; empty: no flow is run")
    parser.add_argument("--runners", default=",".join(KINDS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        if options.one:
            print(json.dumps(measure_tasks(options.one, options.tasks, options.rounds, options.workers, folder)))
            return 0
        found = {kind: _tasks_of(kind, options, folder) for kind in options.runners.split(",")}
        if options.symbols:
            _add_partitions(found, options, folder)
    columns = {"workers": 0, "start_s": 1, "task_ms": 1, "run_cpu_ms": 1, "worker_cpu_ms": 1, "workers_mb": 0, "partition_cpu_s": 3}
    print(f"{'runner':<10}" + "".join(f"{name:>16}" for name in columns))
    for kind, row in found.items():
        print(f"{kind:<10}" + "".join(f"{row[name]:16.{digits}f}" for name, digits in columns.items() if name in row))
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "runners": found}, indent=1))
    return 0


def _tasks_of(kind: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.bench.runners", "--one", kind, "--tasks", str(options.tasks), "--rounds", str(options.rounds)]
    command += ["--workers", str(options.workers)]
    done = subprocess.run(command, env=environment(folder), capture_output=True, text=True, cwd=ROOT, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise RuntimeError(f"{kind} failed: {done.stderr[-4_000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _add_partitions(found: dict[str, dict[str, Any]], options: argparse.Namespace, folder: Path) -> None:
    from tasks.scanning.synthetic import SessionSpec
    from tasks.scanning.synthetic_writers import write_session

    few, many = map(int, options.symbols.split(","))
    sources = {}
    for symbols in (few, many):
        spec = SessionSpec(records=symbols * RECORDS_A_PARTITION, seed=1, symbols=tuple(f"S{n:04}" for n in range(symbols)))
        write_session(spec, folder / f"{symbols}.dbn.zst", "dbn.zst")
        sources[symbols] = folder / f"{symbols}.dbn.zst"
    for kind, row in found.items():
        spent = {}
        for symbols, source in sources.items():
            runs = [measure_partitions(kind, symbols, options.workers, folder, source) for _ in range(options.rounds)]
            spent[symbols] = statistics.median(runs)
        row["flow_cpu_s"], row["partition_cpu_s"] = spent, (spent[many] - spent[few]) / (many - few)


if __name__ == "__main__":
    sys.exit(main())
