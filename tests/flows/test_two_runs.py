"""Several runs on the same partitions at once, some killed: the lake is that of one run alone."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tasks.publishing.views import query
from tasks.scanning.synthetic import SessionSpec
from tasks.scanning.synthetic_depth import DepthSpec, write_archive
from tasks.scanning.synthetic_writers import write_session
from tasks.storage import remove_partials
from tests.flows.servers import bookmill, data_files, start_bookmill

ROUNDS = int(os.environ.get("TEST_ROUNDS", "2"))
LIMIT_S = 200

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    """Two sessions; one has rows that are set aside, so that events files are written, judged and written again."""
    folder = tmp_path_factory.mktemp("sources")
    write_session(SessionSpec(records=40_000, seed=5, symbols=("ESZ5",)), folder / "many.dbn.zst", "dbn.zst")
    rows = [f"{1_761_139_800_000_000_000 + k},A,B,{100 + k % 7}.25,{5 if k % 50 else -5},{k + 1},1" for k in range(2_000)]
    head = ["ts_event,action,side,price,size,order_id,is_last", "1761139800000000000,R,N,,0,0,1"]
    (folder / "SICK.csv").write_text("\n".join([*head, *rows]) + "\n")
    return folder


def undisturbed(command: list[str], server, folder: Path) -> dict[str, bytes]:
    """Files of the lake that one run makes alone."""
    code, output = bookmill([*command, "--lake", str(folder / "lake")], *server, folder / "log")
    assert code == 0, output
    return data_files(folder / "lake")


def at_once(command: list[str], server, folder: Path, chance: random.Random) -> dict[str, bytes]:
    """Files of a lake that three runs make at once, of which one is killed while they work."""
    lake = folder / "lake"
    runs = [start_bookmill([*command, "--lake", str(lake)], *server, folder / f"run{k}") for k in range(3)]
    try:
        victim = chance.choice(runs)
        limit = time.monotonic() + LIMIT_S
        while not list(lake.rglob("*.parquet")) and time.monotonic() < limit:
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 4))
        victim.kill()
        victim.wait()
        for path in lake.rglob("*.parquet"):
            if not path.name.startswith("."):
                pq.read_metadata(path)  # nothing with a final name is partial
        others = [run for run in runs if run is not victim]
        codes = [run.wait(max(1.0, limit - time.monotonic())) for run in others]
    finally:
        for run in runs:
            if run.poll() is None:
                run.kill()
                run.wait()
    told = "\n".join((folder / f"run{k}").read_text() for k in range(3))
    assert codes == [0, 0], told
    assert "another run works on" in told, "they did not meet"
    files = data_files(lake)
    # What the killed one was writing, its report perhaps, goes when the next run begins; the others wrote nothing that is left.
    remove_partials(lake)
    assert not list(lake.rglob("*.partial"))
    return files


@pytest.fixture(scope="module")
def whole(server, sources, tmp_path_factory) -> dict[str, bytes]:
    return undisturbed(["run", "mbo", str(sources)], server, tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_runs_at_once_and_a_killed_one_among_them_make_the_lake_of_one_run(server, sources, whole, tmp_path, seed):
    files = at_once(["run", "mbo", str(sources)], server, tmp_path, random.Random(seed))
    assert files.keys() == whole.keys()
    assert [name for name, content in files.items() if content != whole[name]] == []
    lake = tmp_path / "lake"
    counts = query(lake, "select sum(rows_in)::int a, sum(rows_out + rows_filtered + rows_quarantined)::int b from sources").to_pylist()
    assert counts == [{"a": 42_001, "b": 42_001}]
    assert query(lake, "select count(*)::int n from quarantine").to_pylist() == [{"n": 40}]


def test_depth_runs_at_once_and_a_killed_one_among_them_make_the_lake_of_one_run(server, tmp_path):
    for symbol, seed in (("BTCUSDT", 1), ("ETHUSDT", 2)):
        path = tmp_path / "archives" / f"2025-08-09_{symbol}_ob200.data.zip"
        path.parent.mkdir(exist_ok=True)
        write_archive(path, DepthSpec(symbol=symbol, depth=200, interval_ms=2_000, seed=seed))
    command = ["run", "depth", str(tmp_path / "archives")]
    (tmp_path / "alone").mkdir()
    whole = undisturbed(command, server, tmp_path / "alone")
    assert any(name.startswith("depth-200-1m/") for name in whole)
    files = at_once(command, server, tmp_path, random.Random(4))
    assert files.keys() == whole.keys()
    assert [name for name, content in files.items() if content != whole[name]] == []
