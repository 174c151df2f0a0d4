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


@pytest.fixture(scope="module")
def whole(server, sources, tmp_path_factory) -> dict[str, bytes]:
    lake = tmp_path_factory.mktemp("whole") / "lake"
    code, output = bookmill(["run", "mbo", str(sources), "--lake", str(lake)], *server, lake.parent / "log")
    assert code == 0, output
    return data_files(lake)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_runs_at_once_and_a_killed_one_among_them_make_the_lake_of_one_run(server, sources, whole, tmp_path, seed):
    lake, chance = tmp_path / "lake", random.Random(seed)
    command = ["run", "mbo", str(sources), "--lake", str(lake)]
    runs = [start_bookmill(command, *server, tmp_path / f"run{k}") for k in range(3)]
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
    told = "\n".join((tmp_path / f"run{k}").read_text() for k in range(3))
    assert codes == [0, 0], told
    assert "another run works on" in told, "they did not meet"
    files = data_files(lake)
    assert files.keys() == whole.keys()
    assert [name for name, content in files.items() if content != whole[name]] == []
    # What the killed one was writing, its report perhaps, goes when the next run begins; the others wrote nothing that is left.
    remove_partials(lake)
    assert not list(lake.rglob("*.partial"))
    counts = query(lake, "select sum(rows_in)::int a, sum(rows_out + rows_filtered + rows_quarantined)::int b from sources").to_pylist()
    assert counts == [{"a": 42_001, "b": 42_001}]
    assert query(lake, "select count(*)::int n from quarantine").to_pylist() == [{"n": 40}]
