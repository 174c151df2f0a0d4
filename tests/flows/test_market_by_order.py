"""The market-by-order flow as a user runs it: real processes, a real Prefect server, real files, and SIGKILL."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tasks.footers import read_facts
from tasks.publishing.views import query
from tasks.scanning.synthetic import SessionSpec
from tasks.scanning.synthetic_writers import write_session
from tests.flows.servers import ask, bookmill, data_files, start_bookmill

KILLS = int(os.environ.get("TEST_KILLS", "10"))


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    """A folder with two sessions: four symbols in DBN, one in seven-column Parquet."""
    folder = tmp_path_factory.mktemp("sources")
    write_session(SessionSpec(records=60_000, seed=5, symbols=("ESZ5", "NQZ5", "CLZ5", "GCZ5")), folder / "many.dbn.zst", "dbn.zst")
    write_session(SessionSpec(records=20_000, seed=6, symbols=("YMZ5",)), folder / "YMZ5.parquet", "seven-parquet")
    return folder


@pytest.fixture(scope="module")
def finished(server, sources, tmp_path_factory):
    """(lake, output) of a run that nothing interrupted."""
    lake = tmp_path_factory.mktemp("whole") / "lake"
    code, output = bookmill(["run", "mbo", str(sources), "--lake", str(lake)], *server, lake.parent / "log")
    assert code == 0, output
    return lake, output


def test_a_run_fills_every_layer_and_the_server_shows_its_tasks_and_artifacts(finished, server):
    lake, output = finished
    layers = {path.name for path in lake.iterdir() if path.is_dir()}
    assert {
        "sources", "events", "bbo", "mbp-10", "mbp-10-1s", "trades", "closing_book", "ohlcv-1s", "ohlcv-1m", "features-1s", "heatmap", "ledger",
    } <= layers  # fmt: skip
    assert "expectations hold" in output
    assert re.search(r"^local YMZ5 2025-\d\d-\d\d +20,000 .+ valid *$", output, re.M), output  # in one line, though this is no terminal
    assert query(lake, "select count(*) n from events")["n"][0].as_py() == 80_000
    facts = query(lake, "select sum(rows_in) a, sum(rows_out + rows_filtered + rows_quarantined) b from ledger").to_pylist()[0]
    assert facts["a"] == facts["b"] > 0
    (report,) = (lake / "reports").glob("*.html")
    assert report.stat().st_size > 1_000_000
    keys = {artifact["key"] for artifact in ask(server[0], "/artifacts/filter", {"limit": 200})}
    assert {"bookmill-run", "bookmill-partitions", "bookmill-report"} <= keys
    tasks = {run["name"].split()[0] for run in ask(server[0], "/task_runs/filter", {"limit": 200})}
    assert {"decode", "gate", "reconstruct", "aggregate", "heatmap", "draw", "ledger", "report"} <= tasks


def test_a_second_run_finds_everything_done_and_changes_no_byte(finished, server, sources):
    lake, _ = finished
    before = {name: (content, (lake / name).stat().st_mtime_ns) for name, content in data_files(lake).items()}
    code, output = bookmill(["run", "mbo", str(sources), "--lake", str(lake)], *server, lake.parent / "again")
    assert code == 0, output
    after = {name: (content, (lake / name).stat().st_mtime_ns) for name, content in data_files(lake).items()}
    assert after == before
    states = {run["state_name"] for run in ask(server[0], "/task_runs/filter", {"sort": "EXPECTED_START_TIME_DESC", "limit": 15})}
    assert "Cached" in states


def test_a_run_with_other_options_tells_of_its_own_layers_and_pictures_only(server, tmp_path):
    lake, source = tmp_path / "lake", tmp_path / "YMZ5.parquet"
    write_session(SessionSpec(records=5_000, seed=6, symbols=("YMZ5",)), source, "seven-parquet")
    told = []
    first, other = (["--depth", "5", "--bars", "1s,1m", "--heatmaps", "1"], ["--depth", "3", "--bars", "1m", "--heatmaps", "0"])
    for number, options in enumerate((first, first, other)):
        code, output = bookmill(["run", "mbo", str(source), "--lake", str(lake), *options], *server, tmp_path / f"run-{number}")
        assert code == 0, output
        facts = json.loads(max((lake / "runs").glob("*.json"), key=lambda path: path.stat().st_mtime_ns).read_text())
        report = (lake / "reports" / f"{facts['run_id']}.html").read_text()
        (entry,) = facts["partitions"]
        told.append((set(entry["outputs"]), {row["stage"] for row in facts["ledger"]}, '<img class="heatmap"' in report, "Heatmap " in output))
        assert f"size over {options[1]} levels" in report
    always = {"events", "bbo", "trades", "checkpoints", "opening_book", "closing_book", "certificate", "ledger", "ohlcv-1m", "features-1s"}
    stages = {"decode", "reconstruct", "aggregate:ohlcv-1m", "aggregate:features-1s"}
    assert told[0] == (always | {"mbp-5", "mbp-5-1s", "ohlcv-1s", "heatmap"}, stages | {"aggregate:ohlcv-1s"}, True, True)
    assert told[1] == told[0]  # found done
    assert told[2] == (always | {"mbp-3", "mbp-3-1s"}, stages, False, False)
    assert {"mbp-5", "mbp-5-1s", "ohlcv-1s", "heatmap"} <= {path.name for path in lake.iterdir()}


def test_killed_at_random_moments_and_started_again_the_lake_is_byte_identical(finished, server, sources, tmp_path):
    whole, _ = finished
    lake, moments = tmp_path / "lake", random.Random(20251022)
    killed = 0
    while killed < KILLS:
        process = start_bookmill(["run", "mbo", str(sources), "--lake", str(lake)], *server, tmp_path / f"kill-{killed}")
        before = set(lake.rglob("*")) if lake.exists() else set()
        limit = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < limit and (not lake.exists() or set(lake.rglob("*")) == before):
            time.sleep(0.02)  # until it starts to write
        time.sleep(moments.uniform(0, 1.2))
        if process.poll() is not None:  # it was done before the blow fell: take a part of the work away
            assert process.returncode == 0, (tmp_path / f"kill-{killed}").read_text()
            shutil.rmtree(lake / moments.choice(["bbo", "events", "trades", "features-1s"]))
            continue
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed += 1
        for path in lake.rglob("*.parquet"):
            if not path.name.startswith("."):
                pq.read_metadata(path)  # nothing with a final name is partial
    code, output = bookmill(["run", "mbo", str(sources), "--lake", str(lake)], *server, tmp_path / "last")
    assert code == 0, output
    assert data_files(lake).keys() == data_files(whole).keys()
    assert [name for name, content in data_files(lake).items() if content != data_files(whole)[name]] == []
    assert not list(lake.rglob("*.partial"))


def test_bad_files_are_told_and_cost_nothing_else(server, sources, tmp_path):
    folder, lake = tmp_path / "in", tmp_path / "lake"
    shutil.copytree(sources, folder)
    whole = (folder / "many.dbn.zst").read_bytes()
    (folder / "cut.dbn.zst").write_bytes(whole[: len(whole) // 2])
    (folder / "strange.dbn").write_bytes(b"DBZ\x09" + bytes(200))
    (folder / "empty.csv").write_bytes(b"")
    shutil.copy(folder / "YMZ5.parquet", os.fsencode(folder) + b"/caf\xe9.parquet")
    rows = ["ts_event,action,side,price,size,order_id,is_last"]
    good = [f"{1_761_139_800_000_000_000 + k},A,B,{100 + k % 7}.25,5,{k + 1},1" for k in range(500)]
    rows += ["1761139800000000000,R,N,,0,0,1", *good]
    rows[100] = "1761139800000000100,A,B,101.25,-5,9001,1"
    rows[200] = "1761139800000000200,X,B,101.25,5,9002,1"
    rows[300] = "1761139800000000300,A,B,nan,5,9003,1"
    (folder / "SICK.csv").write_text("\n".join(rows) + "\n")
    code, output = bookmill(["run", "mbo", str(folder), "--lake", str(lake)], *server, tmp_path / "log")
    assert code == 1, output
    flat = " ".join(output.split())
    for name in ("cut.dbn.zst", "strange.dbn", "empty.csv", "caf\\xe9.parquet: the name"):
        assert name in flat
    assert "byte" in flat
    assert query(lake, "select count(*) n from events where symbol <> 'SICK'")["n"][0].as_py() == 80_000
    reasons = query(lake, "select reason, count(*) n from quarantine group by 1 order by 1").to_pylist()
    assert sum(r["n"] for r in reasons) == 3
    counts = "sum(rows_in)::int rows_in, sum(rows_out)::int rows_out, sum(rows_quarantined)::int rows_quarantined"
    sick = query(lake, f"select {counts} from sources where source = 'SICK.csv'").to_pylist()
    assert sick == [{"rows_in": 501, "rows_out": 498, "rows_quarantined": 3}]
    assert {r["status"] for r in query(lake, "select distinct status from bbo where symbol = 'SICK'").to_pylist()} == {"valid", "suspect"}
    code, output = bookmill(["quarantine", "export", str(tmp_path / "bad"), "--lake", str(lake)], *server, tmp_path / "log2")
    assert code == 0, output
    (exported,) = (tmp_path / "bad").glob("*-SICK.csv.rows")
    assert exported.read_text().splitlines() == [rows[100], rows[200], rows[300]]


def test_a_run_that_finds_no_source_says_so_and_exits_with_2(server, tmp_path):
    # What the command line itself refuses is in tests/unit/test_cli.py.
    code, output = bookmill(["run", "mbo", "nowhere/*.dbn"], *server, tmp_path / "log")
    assert (code, "nowhere" in output, "Traceback" in output) == (2, True, False), output


def test_a_source_of_which_nothing_comes_is_told(server, tmp_path):
    folder, lake = tmp_path / "in", tmp_path / "lake"
    folder.mkdir()
    head = "ts_event,action,side,price,size,order_id,is_last"
    # Days first, as spreadsheets write them in Europe.
    (folder / "NONE.csv").write_text("\n".join([head, *(f"22.10.2025 11:01:0{k}.123456,A,B,100.25,1,{k + 1},1" for k in range(9))]) + "\n")
    (folder / "SOME.csv").write_text(f"{head}\n1761139800000000000,R,N,,0,0,1\n1761139800000000001,A,B,nan,5,1,1\n")
    code, output = bookmill(["run", "mbo", str(folder), "--lake", str(lake)], *server, tmp_path / "log")
    flat = " ".join(output.split())
    assert code == 1, output
    assert "decode NONE.csv: BadRows: 9 of 9 rows are in quarantine" in flat
    assert "SOME.csv: 1 of 2 rows are in quarantine" in flat
    code, output = bookmill(["run", "mbo", str(folder / "SOME.csv"), "--symbols", "SMOE", "--lake", str(lake / "2")], *server, tmp_path / "2")
    assert (code, "SOME.csv: none of its 2 rows is an event that the filter wants" in " ".join(output.split())) == (0, True), output


def test_a_run_that_finds_only_books_of_others_says_what_it_needs(server, tmp_path):
    head = "ts_recv,ts_event,rtype,publisher_id,instrument_id,action,side,depth,price,size,flags,ts_in_delta,sequence"
    level = ",".join(f"{kind}_00" for kind in ("bid_px", "ask_px", "bid_sz", "ask_sz", "bid_ct", "ask_ct"))
    row = "1761139800000000000,1761139800000000000,1,2,7,A,B,0,100.0,5,128,0,1,100.0,,5,0,1,0,X"
    (tmp_path / "x.mbp-1.csv").write_text(f"{head},{level},symbol\n{row}\n")
    code, output = bookmill(["run", "mbo", str(tmp_path / "x.mbp-1.csv"), "--lake", str(tmp_path / "lake")], *server, tmp_path / "log")
    assert (code, "Nothing could run: x.mbp-1.csv: books that a vendor rebuilt" in " ".join(output.split())) == (2, True), output
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "readme.md").write_text("hello")
    code, output = bookmill(["run", "mbo", str(tmp_path / "in"), "--lake", str(tmp_path / "lake")], *server, tmp_path / "log2")
    assert (code, "Nothing could run: there is no file of a format that holds orders." in " ".join(output.split())) == (2, True), output


@pytest.mark.parametrize(("options", "told"), [("size=1500k", "disk is full"), ("size=8m,ro", "read-only")])
def test_a_full_or_read_only_disk_is_told_and_leaves_nothing_partial(server, sources, tmp_path, options, told):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        code, output = bookmill(["run", "mbo", str(sources), "--lake", str(disk / "lake")], *server, tmp_path / "log")
        assert code in (1, 2), output
        assert told in " ".join(output.split())
        assert "Traceback" not in output
        for path in disk.rglob("*.parquet"):
            pq.read_metadata(path)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_instruments_that_share_a_name_each_go_on_from_their_own_book_of_the_day_before(server, tmp_path):
    """As sources without a symbol column give them. The second and the third day begin with neither clear nor snapshot."""
    days = ("2025-10-22", "2025-10-23", "2025-10-24")
    for day in days:
        rows: list[str] = []
        for number in ("42140878", "42140999"):
            write_session(SessionSpec(records=2_000, seed=int(number) + int(day[-2:]), date=day), tmp_path / "one.csv", "csv")
            header, *lines = (tmp_path / "one.csv").read_text().splitlines()
            cells = [line.split(",") for line in lines]
            first = next(i for i, c in enumerate(cells) if c[5] != "R" and not int(c[11]) & 32) if day != days[0] else 0
            rows += [",".join([*c[:4], number, *c[5:]]) for c in cells[first:]]
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{day}.csv").write_text("\n".join([header, *sorted(rows)]) + "\n")
    lake = tmp_path / "lake"
    code, output = bookmill(["run", "mbo", str(tmp_path / "in"), "--lake", str(lake), "--dataset", "X"], *server, tmp_path / "log")
    assert code == 0, output
    for before, day in itertools.pairwise(days):
        books = {path.name: read_facts(path)["carry"] for path in lake.glob(f"bbo/*/date={day}/*/*.parquet")}
        assert len(books) == 2
        for name, carry in books.items():
            assert carry is not None
            assert Path(carry).name == name
            assert f"/date={before}/" in carry
    code, output = bookmill(["plan", "mbo", str(tmp_path / "in"), "--lake", str(lake), "--dataset", "X"], *server, tmp_path / "plan")
    assert code == 0, output
    assert "stale" not in output, output
