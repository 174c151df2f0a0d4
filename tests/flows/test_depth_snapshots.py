"""The depth flow as a user runs it: real processes, a real Prefect server, generated archives, a broken one, and SIGKILL."""

from __future__ import annotations

import csv
import os
import random
import re
import shlex
import shutil
import signal
import time
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tasks.publishing.views import query
from tasks.scanning.synthetic_depth import DepthSpec, write_archive
from tasks.schemas import UNDEF_PRICE
from tests.flows.servers import bookmill, data_files, start_bookmill

KILLS = int(os.environ.get("TEST_KILLS", "5"))
README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
DAY = "2025-08-09"
BTC = DepthSpec(symbol="BTCUSDT", interval_ms=4_000, outage_minutes=20.0, restarts=0)
ETH = DepthSpec(
    symbol="ETHUSDT", depth=200, interval_ms=4_000, layout="spot", open_price=300_000, price_digits=2, gaps=2, restarts=1, next_day="none", seed=2
)
SOL = DepthSpec(symbol="SOLUSDT", depth=200, interval_ms=4_000, next_day="wrong", cts=False, restarts=0, seed=3)


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """A folder with three good archives in two name styles and three kinds of files, a cut one, and a file that is none."""
    folder = tmp_path_factory.mktemp("archives")
    facts = {}
    for spec, name in (
        (BTC, f"linear/0500/BTCUSDT/{DAY}_BTCUSDT_ob500.data.zip"), (ETH, f"linear/0200/ETHUSDT/{DAY}_ETHUSDT_ob200.data.gz"),
        (SOL, "linear/solusdt-ob200.data"),
    ):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        facts[spec.symbol] = write_archive(folder / name, spec)
    cut = folder / f"linear/0500/{DAY}_CUTUSDT_ob500.data.zip"
    write_archive(cut, DepthSpec(symbol="CUTUSDT", interval_ms=60_000))
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    shutil.copyfile(folder / f"linear/0500/BTCUSDT/{DAY}_BTCUSDT_ob500.data.zip", folder / f"linear/0500/{DAY}_AAA_ob500.data.zip")
    (folder / "linear/README.md").write_text("of no pair")
    return folder, facts


@pytest.fixture(scope="module")
def finished(server, archives, tmp_path_factory):
    """(lake, CSV folder, output) of a run that nothing interrupted."""
    lake = tmp_path_factory.mktemp("whole") / "lake"
    arguments = [
        "run",
        "depth",
        str(archives[0]),
        "--lake",
        str(lake),
        "--csv",
        str(lake.parent / "csv"),
        "--workers",
        "1",
        "--updates",
        "--profile",
        "laptop",
    ]
    code, output = bookmill(arguments, *server, lake.parent / "log")
    assert code == 1, output  # one archive is cut
    return lake, lake.parent / "csv", output


def rows_of(lake: Path, layer: str, symbol: str) -> list[dict]:
    return query(lake, f'select * from "{layer}" where symbol = $1 order by ts_event', parameters=[symbol]).to_pylist()


def test_every_file_is_told_and_one_that_is_cut_costs_the_others_nothing(finished):
    lake, _, output = finished
    told = re.findall(r"\[(\d)/4\] (DONE|SKIPPED|ERROR) .*", output)
    assert sorted(told) == [("1", told[0][1]), ("2", told[1][1]), ("3", told[2][1]), ("4", told[3][1])]
    assert sorted(kind for _, kind in told) == ["DONE", "DONE", "DONE", "ERROR"]
    assert any(f"DONE BTCUSDT {DAY}_BTCUSDT_ob500.data.zip [200,500] -> 1,440 snapshots" in line for line in output.splitlines())
    assert f"{DAY}_CUTUSDT_ob500.data.zip" in output
    assert f"LEFT OUT {DAY}_AAA_ob500.data.zip" in output
    assert "4 files: 3 done, 0 skipped, 1 failed; 5,760 snapshots" in output
    assert "expectations hold" in output
    assert not [path for path in lake.rglob("*") if path.is_file() and "CUTUSDT" in str(path)]


@pytest.mark.parametrize(("symbol", "layers"), [("BTCUSDT", ("depth-500-1m", "depth-200-1m")), ("ETHUSDT", ("depth-200-1m",))])
def test_a_day_has_1440_rows_and_they_say_where_the_book_is_not_to_be_trusted(finished, archives, symbol, layers):
    lake, _, _ = finished
    facts = archives[1][symbol]
    for layer in layers:
        rows = rows_of(lake, layer, symbol)
        assert len(rows) == 1_440
        assert all(row["as_of"] is None or row["as_of"] <= row["ts_event"] for row in rows)
        if symbol == "BTCUSDT":
            first, end = facts.outage_ns
            out = [row for row in rows if first <= row["ts_event"].value < end]
            assert len(out) == 20
            assert {(row["status"], row["reason"]) for row in out[1:]} == {("stale", "silence")}
            assert {row["status"] for row in rows if row not in out} <= {"valid", "no_book"}
        else:
            assert {row["reason"] for row in rows if row["status"] == "suspect"} == {"gap"}


def test_the_next_days_snapshot_proves_a_right_book_and_shows_a_wrong_one(finished):
    lake, _, _ = finished
    rows = query(lake, "select symbol, truth, verdict, states_compared n, levels_compared - levels_matched wrong from certificate").to_pylist()
    said = {row["symbol"]: row for row in rows if row["truth"] == "snapshot"}
    assert (said["BTCUSDT"]["verdict"], said["BTCUSDT"]["wrong"]) == ("matched", 0)
    assert said["SOLUSDT"]["verdict"] == "diverged"
    assert said["SOLUSDT"]["wrong"] > 0


def test_the_csv_has_the_levels_of_the_lake_as_the_feed_wrote_them(finished):
    lake, folder, _ = finished
    path = folder / f"0200/ETHUSDT/{DAY}_ETHUSDT_ob200_1m.csv"
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    rows = rows_of(lake, "depth-200-1m", "ETHUSDT")
    assert len(lines) == len(rows) == 1_440
    for line, row in list(zip(lines, rows, strict=True))[::97]:
        assert int(line["timestamp"]) == row["ts_event"].value // 10**6
        for side in ("bid", "ask"):
            for level in range(200):
                px, sz = row[f"{side}_px_{level:02d}"], row[f"{side}_sz_{level:02d}"]
                cells = line[f"{side}_price_{level + 1}"], line[f"{side}_qty_{level + 1}"]
                if px == UNDEF_PRICE:
                    assert cells == ("", "")
                else:
                    assert Decimal(cells[0]) == Decimal(px).scaleb(-row["price_digits"])
                    assert Decimal(cells[1]) == Decimal(sz).scaleb(-row["size_digits"])


def test_updates_are_as_many_as_the_feed_had_and_every_line_is_accounted_for(finished, archives):
    lake, _, _ = finished
    for symbol, facts in archives[1].items():
        (found,) = query(lake, "select count(*) n from \"depth-updates\" where symbol = $1 and side <> 'N'", parameters=[symbol]).to_pylist()
        assert found["n"] == facts.updates
        (row,) = query(
            lake, "select rows_in, rows_out, rows_quarantined q from ledger where symbol = $1 and stage = 'snapshot'", parameters=[symbol]
        ).to_pylist()
        assert (row["rows_in"], row["rows_out"], row["q"]) == (facts.lines, facts.lines, 0)


def test_the_query_of_the_readme_has_an_answer(finished):
    lake, _, _ = finished
    (line,) = [line for line in README.splitlines() if line.startswith("bookmill sql") and "depth_" in line]
    assert query(lake, shlex.split(line)[-1]).num_rows == 5


def test_a_second_run_skips_all_and_changes_no_byte(finished, server, archives):
    lake, folder, _ = finished
    before = data_files(lake)
    arguments = ["run", "depth", str(archives[0]), "--lake", str(lake), "--csv", str(folder), "--updates", "--profile", "laptop"]
    code, output = bookmill(arguments, *server, lake.parent / "again")
    assert code == 1, output
    assert "4 files: 0 done, 3 skipped, 1 failed" in output
    assert data_files(lake) == before
    (folder / f"0200/ETHUSDT/{DAY}_ETHUSDT_ob200_1m.csv").write_bytes(b"cut")
    code, output = bookmill(arguments, *server, lake.parent / "mended")
    assert "4 files: 1 done, 2 skipped, 1 failed" in output, "a name proves nothing"
    assert (folder / f"0200/ETHUSDT/{DAY}_ETHUSDT_ob200_1m.csv").stat().st_size > 1_000_000
    assert data_files(lake) == before


def test_killed_at_random_moments_with_two_workers_the_bytes_are_those_of_one_worker_uninterrupted(finished, server, archives, tmp_path):
    whole, folder, _ = finished
    lake, moments, killed = tmp_path / "lake", random.Random(20250809), 0
    arguments = ["run", "depth", str(archives[0]), "--lake", str(lake), "--csv", str(tmp_path / "csv"), "--workers", "2", "--updates"]
    while killed < KILLS:
        process = start_bookmill(arguments, *server, tmp_path / f"kill-{killed}")
        before = set(lake.rglob("*")) if lake.exists() else set()
        limit = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < limit and (not lake.exists() or set(lake.rglob("*")) == before):
            time.sleep(0.02)  # until it starts to write
        time.sleep(moments.uniform(0, 1.5))
        if process.poll() is not None:  # it was done before the blow fell: take a part of the work away
            shutil.rmtree(lake / moments.choice(["depth-bbo", "depth-200-1m", "mid-1m", "depth-features-1m"]))
            continue
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed += 1
        for path in lake.rglob("*.parquet"):
            if not path.name.startswith("."):
                pq.read_metadata(path)  # nothing with a final name is partial
        for path in (tmp_path / "csv").rglob("*.csv"):
            if not path.name.startswith("."):
                assert path.read_bytes() == (folder / path.relative_to(tmp_path / "csv")).read_bytes()
    code, output = bookmill(arguments, *server, tmp_path / "last")
    assert code == 1, output
    mine, theirs = ({n: c for n, c in data_files(at).items() if not n.startswith("exports")} for at in (lake, whole))  # exports name their folder
    assert mine.keys() == theirs.keys()
    assert [name for name, content in mine.items() if content != theirs[name]] == []
    assert not list(tmp_path.rglob("*.partial"))
