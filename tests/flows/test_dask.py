"""Runs on a real Dask cluster of a scheduler and two workers: the bytes are those of threads, also when each of the three is killed in work."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tasks.scanning.synthetic import SessionSpec
from tasks.scanning.synthetic_writers import write_session
from tasks.storage import PARTIAL, partial_owner
from tests.flows.servers import bookmill, data_files, start_bookmill

pytest.importorskip("prefect_dask", reason="the extra dask is not installed")

from tests.flows.dask_cluster import DaskCluster

SYMBOLS = ("ESZ5", "NQZ5", "CLZ5", "GCZ5", "YMZ5", "ZNZ5")


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    """A folder with a session of its own for each of six symbols."""
    folder = tmp_path_factory.mktemp("sources")
    for number, symbol in enumerate(SYMBOLS):
        write_session(SessionSpec(records=40_000, seed=number, symbols=(symbol,)), folder / f"{symbol}.dbn.zst", "dbn.zst")
    return folder


@pytest.fixture(scope="module")
def on_threads(server, sources, tmp_path_factory) -> dict[str, bytes]:
    """The files of a run on threads."""
    lake = tmp_path_factory.mktemp("threads") / "lake"
    code, output = bookmill(["run", "mbo", str(sources), "--lake", str(lake)], *server, lake.parent / "log")
    assert code == 0, output
    return data_files(lake)


@pytest.fixture
def cluster(tmp_path):
    """A scheduler and two workers that have found each other."""
    with DaskCluster(tmp_path) as started:
        for number in range(2):
            started.wait_for("Registered to", f"worker-{number}")
        yield started


def differing(lake: Path, expected: dict[str, bytes]) -> list[str]:
    found = data_files(lake)
    return sorted({*(found.keys() ^ expected.keys()), *(name for name, content in expected.items() if found.get(name) != content)})


def writing(lake: Path) -> list[tuple[str, int]]:
    """(layer, process) of each file that is being written."""
    found = [(path.relative_to(lake).parts[0], partial_owner(path.name)[0]) for path in lake.rglob(f".*{PARTIAL}")]
    return [(layer, pid) for layer, pid in found if pid is not None]


def test_each_worker_and_the_scheduler_killed_in_work_the_run_ends_well_and_no_byte_differs(server, sources, on_threads, cluster, tmp_path):
    lake, log = tmp_path / "lake", tmp_path / "log"
    arguments = ["run", "mbo", str(sources), "--lake", str(lake), "--runner", "dask", "--dask-address", cluster.address]
    process = start_bookmill(arguments, *server, log)
    blows: dict[str, str] = {}
    end = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < end:
        for layer, pid in writing(lake) if lake.exists() else []:
            name = cluster.name_of(pid)
            if name is not None and name not in blows:
                cluster.kill(name)  # in the middle of this file
                blows[name] = layer
            elif name is not None and len(blows) == 2 and layer not in ("events", "sources", blows["worker-0"], blows["worker-1"]):
                cluster.kill("scheduler")
                blows["scheduler"] = layer
        cluster.start_those_that_ended()
        time.sleep(0.005)
    code, output = process.wait(60), log.read_text()
    assert blows.keys() == {"worker-0", "worker-1", "scheduler"}, (blows, output)
    assert code == 0, (blows, output)
    assert "dask lost" in output
    assert differing(lake, on_threads) == []
    again, output = bookmill(arguments, *server, tmp_path / "again")
    assert again == 0, output
    assert differing(lake, on_threads) == []
    assert not list(lake.rglob(f".*{PARTIAL}")), "what the killed left behind is swept up"


def test_a_cluster_that_does_not_fit_is_told_before_anything_is_written(server, sources, cluster, tmp_path):
    lake = tmp_path / "lake"
    arguments = ["run", "mbo", str(sources), "--lake", str(lake), "--runner", "dask", "--dask-address", "127.0.0.1:1"]
    code, output = bookmill(arguments, *server, tmp_path / "log")
    assert code == 2, output
    assert "No Dask scheduler with workers answers at tcp://127.0.0.1:1" in " ".join(output.split())
    assert "Traceback" not in output
    assert not data_files(lake)


def test_a_cluster_of_its_own_listens_on_loopback_only_and_gives_the_same_bytes(server, sources, on_threads, tmp_path):
    lake, log = tmp_path / "lake", tmp_path / "log"
    process = start_bookmill(["run", "mbo", str(sources), "--lake", str(lake), "--runner", "dask", "--memory", "4GB"], *server, log)
    seen: set[str] = set()
    while process.poll() is None:
        with suppress(psutil.Error):  # one of them has just ended
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            seen |= {c.laddr.ip for member in family for c in member.net_connections("inet") if c.status == psutil.CONN_LISTEN}
        time.sleep(0.2)
    assert process.returncode == 0, log.read_text()
    assert seen == {"127.0.0.1"}
    assert differing(lake, on_threads) == []
