"""The fault campaign: something is killed at a moment that chance chooses, what was at work is started again, and the lake must be byte for byte that
of a run nobody disturbed.

A few rounds by default. TEST_FAULT_ROUNDS=100 for the campaign, TEST_FAULT_FIRST for the number of the first round (what a round does follows from
its number alone), TEST_FAULT_KINDS=server,database for some kinds only; `-s` shows what happened. With TEST_FAULT_RECORDS sources are larger.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from tasks.publishing.doctor import examine
from tasks.publishing.views import query
from tasks.scanning.synthetic import SessionSpec
from tasks.scanning.synthetic_writers import write_session
from tasks.storage import PARTIAL, remove_partials
from tests.faults.ground import OVER, Ground, family, kill_all, until
from tests.flows.postgres import binary
from tests.flows.servers import data_files

KINDS = ("served", "server", "private", "process", "database", "worker", "pool", "dask-worker", "dask-scheduler", "backfill")
CHOSEN = tuple(filter(None, os.environ.get("TEST_FAULT_KINDS", "").split(","))) or KINDS
FIRST, ROUNDS = int(os.environ.get("TEST_FAULT_FIRST", "0")), int(os.environ.get("TEST_FAULT_ROUNDS", "2"))
RECORDS = int(os.environ.get("TEST_FAULT_RECORDS", "6000"))
BAD_ROWS, SICK_ROWS = 40, 2_001
# Few layers and no pictures: what is tested is that work is not lost, not the work.
OPTIONS = {"depth": "3", "interval": "1m", "bars": "1m", "heatmaps": "0"}
POOL = ["--runner", "processes", "--workers", "2", "--memory", "3GB"]
ATTEMPTS = 3

pytestmark = pytest.mark.timeout(900)


@dataclass
class Known:
    """What a round holds itself against. folders: of the whole lake. work_s: duration of an undisturbed run from its record in the lake to its end,
    before_s: up to there."""

    sources: Path
    files: dict[str, bytes]
    folders: int
    before_s: float
    work_s: float


@pytest.fixture(scope="module")
def ground(tmp_path_factory) -> Iterator[Ground]:
    """Servers and clusters, common to all rounds."""
    with Ground(tmp_path_factory.mktemp("ground")) as made:
        yield made


@pytest.fixture(scope="module")
def known(ground, tmp_path_factory) -> Known:
    """Sources with rows that are set aside by the decode and by a gate, so that events are written, judged and written again; and their lake."""
    folder, home = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("whole")
    write_session(SessionSpec(records=RECORDS, seed=5, symbols=("ESZ5", "NQZ5"), live_orders=200), folder / "many.dbn.zst", "dbn.zst")
    rows = [f"{1_761_139_800_000_000_000 + k},A,B,{100 + k % 7}.25,{5 if k % 50 else -5},{k + 1},1" for k in range(SICK_ROWS - 1)]
    head = ["ts_event,action,side,price,size,order_id,is_last", "1761139800000000000,R,N,,0,0,1"]
    (folder / "SICK.csv").write_text("\n".join([*head, *rows]) + "\n")
    for name in ("first", "second"):  # the first run may have to compile; the second one tells how long it takes
        lake, start = home / name, time.monotonic()
        process = ground.start(command(folder, lake), home / "log")
        until(lambda lake=lake, process=process: began(lake) or process.poll() is not None, 240, "the run did not begin")
        before = time.monotonic() - start
        assert process.wait(240) == 0, (home / "log").read_text()
    conserved(lake)
    assert data_files(home / "first") == data_files(lake)
    return Known(folder, data_files(lake), len(folders_of(lake)), before, time.monotonic() - start - before)


def command(sources: Path, lake: Path) -> list[str]:
    return ["run", "mbo", str(sources), "--lake", str(lake), *(f"--{name}={value}" for name, value in OPTIONS.items())]


def began(lake: Path) -> bool:
    return any((lake / "runs/records").glob("*.json"))


def folders_of(lake: Path) -> list[str]:
    return sorted(path.name for path in lake.iterdir() if path.is_dir()) if lake.exists() else []


def conserved(lake: Path) -> None:
    """Each row is in the account once, and the doctor finds nothing wrong."""
    counts = query(lake, "select sum(rows_in)::int a, sum(rows_out + rows_filtered + rows_quarantined)::int b from sources").to_pylist()
    assert counts == [{"a": RECORDS + SICK_ROWS, "b": RECORDS + SICK_ROWS}]
    assert query(lake, "select count(*)::int n from quarantine").to_pylist() == [{"n": BAD_ROWS}]
    assert [finding for finding in examine(lake, deep=True).findings if finding.wrong] == []


def whole_files_only(lake: Path) -> None:
    """Nothing with a final name is partial."""
    for path in lake.rglob("*.parquet"):
        if not any(part.startswith(".") for part in path.relative_to(lake).parts):
            with suppress(FileNotFoundError):
                pq.ParquetFile(path).read()


class Round:
    """One round: `kind` is killed, and started again until the run ends well. story: what happened, for a person."""

    def __init__(self, kind: str, chance: random.Random, ground: Ground, known: Known, folder: Path) -> None:
        self.kind, self.chance, self.ground, self.known, self.folder = kind, chance, ground, known, folder
        self.lake, self.log, self.story = folder / "lake", folder / "log", list[str]()
        self.left: list[psutil.Process] = []

    def play(self) -> None:
        {"worker": self.worker, "backfill": self.backfill}.get(self.kind, self.run)()
        _, alive = psutil.wait_procs(self.left, timeout=40)
        assert alive == [], f"still there after the run was killed: {[p.cmdline() for p in alive]}"
        files = data_files(self.lake)
        files = {name: content for name, content in files.items() if not name.startswith(".")}
        assert files.keys() == self.known.files.keys()
        assert [name for name, content in files.items() if content != self.known.files[name]] == []
        # Those of processes that died while their run went on go when the next one starts, which begins with this.
        remove_partials(self.lake)
        assert not list(self.lake.rglob(f"*{PARTIAL}"))
        conserved(self.lake)

    def run(self) -> None:
        """A run from a terminal, or what it stands on, is killed; the same command again and again until it ends well."""
        arguments, private = command(self.known.sources, self.lake), self.kind == "private"
        if self.kind in ("process", "pool"):
            arguments += POOL
        elif self.kind.startswith("dask"):
            arguments += ["--runner", "dask", "--dask-address", self.ground.cluster.address]
        blows, attempts = 0, 0
        # The same fault may come again while its traces are cleared away.
        wanted = 2 if self.chance.random() < 0.3 else 1
        while attempts < ATTEMPTS:
            process = self.ground.start(arguments, self.log, private=private)
            try:
                if blows < wanted:
                    blows += self.strike(process)
                code = process.wait(400)
            except subprocess.TimeoutExpired:
                raise AssertionError(f"{self.story}: no end after 400 s: {self.log.read_text(errors='replace')[-6000:]}") from None
            finally:
                kill_all(family(process.pid))
                process.wait()
            if not blows and code == 0:  # it was quicker than chance: once more, and sooner
                self.known.work_s = max(1.0, self.known.work_s * 0.8)
                shutil.rmtree(self.lake)
                continue
            attempts += 1
            self.story.append(f"ended with {code}")
            if code == 0:
                return
        raise AssertionError(f"{self.story}: {self.log.read_text(errors='replace')[-6000:]}")

    def strike(self, process) -> bool:
        """Wait for the moment that chance chooses, then kill; False when the run was over by then."""
        if self.kind == "process":
            until(lambda: self.pool_of(process) or process.poll() is not None, 240, "no pool was started")
            self.await_moment(process, lambda: process.poll() is not None, self.known.work_s)
        elif self.chance.random() < 0.1:
            self.sleep(process, self.known.before_s)
        else:
            until(lambda: began(self.lake) or process.poll() is not None, 240, "the run did not begin")
            self.await_moment(process, lambda: process.poll() is not None, self.known.work_s)
        victims = self.pool_of(process) if self.kind == "process" else []
        if process.poll() is not None or (self.kind == "process" and not victims):
            return False
        self.tell("killed")
        if self.kind == "server":
            self.ground.server.kill()
            time.sleep(self.chance.uniform(0, 3))
            self.ground.server.start()
        elif self.kind == "database":
            database = self.ground.server.database
            database.kill()
            time.sleep(self.chance.uniform(0, 3))
            database.start()
        elif self.kind == "process":
            kill_all([self.chance.choice(victims)])
        elif self.kind == "dask-worker":
            self.ground.cluster.kill(f"worker-{self.chance.randrange(2)}")
            self.ground.cluster.start_those_that_ended()
        elif self.kind == "dask-scheduler":
            self.ground.cluster.kill("scheduler")
            self.keep_the_cluster(process)
        else:  # the run itself: what it started must end by itself
            self.left += family(process.pid)[1:]
            process.kill()
            process.wait()
        whole_files_only(self.lake)
        return True

    def pool_of(self, process) -> list[psutil.Process]:
        return [p for p in family(process.pid)[1:] if forked(p)]

    def keep_the_cluster(self, process) -> None:
        """What a service does: workers end some time after their scheduler."""
        end = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < end:
            self.ground.cluster.start_those_that_ended()
            time.sleep(0.1)

    def await_moment(self, process, over: Callable[[], bool], most: float) -> None:
        """By the clock, or by what the lake holds: where others load the machine a run takes much longer than the one that was timed, and the clock
        alone would hit the beginning of each (of 17 moments under load 4 to 10 one was past the first quarter)."""
        if self.chance.random() < 0.4:
            self.sleep(process, most)
            return
        # The folders of the run itself and of the scan are there before any work.
        wanted = self.chance.randint(3, self.known.folders)
        until(lambda: len(folders_of(self.lake)) >= wanted or over(), 300, f"the lake did not come to {wanted} folders")
        self.sleep(process, 0.3)

    def tell(self, what: str) -> None:
        self.story.append(f"{what} with {len(folders_of(self.lake))} of {self.known.folders} folders in the lake")

    def sleep(self, process, most: float) -> None:
        with suppress(Exception):
            process.wait(self.chance.uniform(0, most))

    def worker(self) -> None:
        """The worker and the flow run in it are killed; crash detection sees it, and a retry on a new worker ends it."""
        server = self.ground.server
        parameters = {"sources": [str(self.known.sources)], "lake": str(self.lake), **{k: v for k, v in OPTIONS.items() if k != "bars"}}
        body = {"parameters": parameters | {"depth": 3, "heatmaps": 0, "bars": ["1m"]}}
        run = server.call(f"/deployments/{self.ground.deployment}/create_flow_run", body)["id"]

        def state() -> str:
            return str(server.call(f"/flow_runs/{run}")["state_type"])

        with self.ground.worker(self.log) as process:
            until(lambda: began(self.lake) or state() in OVER, 240, "the worker did not start the run")
            self.await_moment(process, lambda: state() in OVER, self.known.work_s)
            kill_all(family(process.pid))
        whole_files_only(self.lake)
        self.tell(f"worker killed, the run was {state()},")
        if state() != "COMPLETED":
            until(lambda: state() in OVER, 60, "the crash was not detected")
            self.story.append(state())
        if state() != "COMPLETED":
            again = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}, "force": True}
            server.call(f"/flow_runs/{run}/set_state", again)
            with self.ground.worker(self.log):
                until(lambda: state() in OVER, 300, "the retry did not end")
        assert state() == "COMPLETED", self.log.read_text(errors="replace")[-6000:]

    def backfill(self) -> None:
        """A backfill is killed; the server sees it, and `bookmill resume` starts it again."""
        server, options = self.ground.server, [f"-o{name}={value}" for name, value in OPTIONS.items()]
        arguments = ["backfill", "mbo", str(self.known.sources), "--lake", str(self.lake), "--settle", "off", "--batch", "1", *options]
        process = self.ground.start(arguments, self.log)
        until(lambda: began(self.lake) or process.poll() is not None, 240, "the run did not begin")
        self.await_moment(process, lambda: process.poll() is not None, 2 * self.known.work_s)
        process.kill()
        process.wait()
        whole_files_only(self.lake)
        found = server.call("/flow_runs/filter", {"flows": {"name": {"any_": ["backfill"]}}, "sort": "START_TIME_DESC", "limit": 1})[0]
        assert str(self.lake) in json.dumps(found["parameters"])
        self.tell(f"backfill killed, the run was {found['state_type']},")
        if found["state_type"] != "COMPLETED":
            until(lambda: server.call(f"/flow_runs/{found['id']}")["state_type"] in OVER, 60, "the crash was not detected")
            code, output = self.ground.bookmill(["resume", found["id"], "--lake", str(self.lake)], self.folder / "resume")
            self.story.append(f"resumed: {code}")
            assert code == 0, output
            assert "nanobind" not in output


def forked(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return "--multiprocessing-fork" in process.cmdline()
    return False


@pytest.mark.parametrize("number", range(FIRST, FIRST + ROUNDS))
def test_killed_at_any_moment_and_started_again_the_lake_is_that_of_an_undisturbed_run(number, ground, known, tmp_path):
    kind = CHOSEN[number % len(CHOSEN)]
    if kind == "database" and not (binary("postgres") and binary("initdb")):
        pytest.skip("PostgreSQL is not installed")
    if kind.startswith("dask") and find_spec("prefect_dask") is None:
        pytest.skip("the extra dask is not installed")
    start, played = time.monotonic(), Round(kind, random.Random(number), ground, known, tmp_path)
    try:
        played.play()
    finally:
        print(f"round {number}: {kind}: {'; '.join(played.story)} ({time.monotonic() - start:.0f} s)", flush=True)
