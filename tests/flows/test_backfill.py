"""The backfill flow on real files: only what is left is done, in the order of the days; what fails holds up only what goes on from it."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flows.plan import plan_orders
from flows.plan_options import asked_of
from tasks.partitions import MboRecipe
from tasks.scanning.synthetic import FIRST_INSTRUMENT_ID, SessionSpec
from tasks.scanning.synthetic_depth import DepthSpec, write_archive
from tasks.scanning.synthetic_writers import write_session
from tests.flows.servers import ask, data_files
from tests.oracles import naive_published

DAYS = ("2025-10-22", "2025-10-23", "2025-10-24")
# Few layers and no pictures: what is tested here is which work is done, not the work.
OPTIONS = {"depth": 3, "interval": "1m", "bars": ["5m"], "heatmaps": 0}
RECIPE = MboRecipe(depth=3, interval_ns=60_000_000_000, bars=("5m",))
QUIET = {"progress": "off"}


def session(folder: Path, day: str, symbols: tuple[str, ...] = ("ESZ5",), name: str = "ES") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{day}.dbn"
    write_session(SessionSpec(records=2_000, seed=7, date=day, symbols=symbols, live_orders=60), path, "dbn")
    return path


@pytest.fixture
def backfill(prefect_api, tmp_path):
    """A function from parameters to (summary, whether the flow failed)."""
    from flows.backfill import backfill as flow
    from flows.run import RunFailed

    def call(sources: Path, lake: Path, **parameters: Any) -> tuple[dict[str, Any], bool]:
        given = {"settle": "off", "options": OPTIONS, "settings": QUIET, "profile": "ci"} | parameters
        result = flow(sources=[str(sources)], lake=str(lake), **given, return_state=True).result(raise_on_failure=False)
        if isinstance(result, RunFailed):
            return result.facts, True
        assert not isinstance(result, BaseException), result
        return result, False

    return call


def only_data(lake: Path) -> dict[str, bytes]:
    return {name: content for name, content in data_files(lake).items() if not name.startswith(".")}


def test_batches_give_the_lake_of_one_run_and_a_new_file_is_all_that_a_second_run_does(backfill, tmp_path):
    from flows.market_by_order import market_by_order

    folder = tmp_path / "in"
    for day in DAYS[:2]:
        session(folder, day)
    lake = tmp_path / "lake"
    summary, failed = backfill(folder, lake, batch=1, dry_run=True)
    assert (failed, summary["batches"], summary["left"], lake.exists()) == (False, [], 2, False)
    summary, failed = backfill(folder, lake, batch=1)
    assert (failed, [b["first_date"] for b in summary["batches"]], summary["left"]) == (False, list(DAYS[:2]), 0)
    # A new file appears: the next run of the schedule does it alone.
    session(folder, DAYS[2])
    summary, failed = backfill(folder, lake, batch=1)
    assert (failed, [b["first_date"] for b in summary["batches"]], summary["states"].keys()) == (False, [DAYS[2]], {"done"})
    before = {path: path.stat().st_mtime_ns for path in lake.rglob("*.parquet") if ".plan" not in path.parts}
    summary, failed = backfill(folder, lake, batch=1)
    assert (failed, summary["batches"]) == (False, [])
    assert before == {path: path.stat().st_mtime_ns for path in lake.rglob("*.parquet") if ".plan" not in path.parts}
    market_by_order(sources=[str(folder)], lake=str(tmp_path / "whole"), **OPTIONS, settings=QUIET, profile="ci")
    assert only_data(lake) == only_data(tmp_path / "whole")


def test_what_was_deleted_or_asked_for_otherwise_is_made_again_and_nothing_else(backfill, tmp_path):
    folder, lake = tmp_path / "in", tmp_path / "lake"
    for day in DAYS[:2]:
        session(folder, day)
    backfill(folder, lake)
    whole = only_data(lake)
    (gone,) = lake.glob(f"ohlcv-5m/*/date={DAYS[1]}/*/*.parquet")
    gone.unlink()
    planned = plan_orders([str(folder)], lake, RECIPE)
    assert [(r["date"], r["layer"], r["state"]) for r in planned.plan.rows() if r["state"] != "done"] == [(DAYS[1], "ohlcv-5m", "missing")]
    summary, failed = backfill(folder, lake)
    assert (failed, [(b["sources"], b["first_date"]) for b in summary["batches"]]) == (False, [(1, DAYS[1])])
    assert only_data(lake) == whole
    summary, failed = backfill(folder, lake, options=OPTIONS | {"bars": ["5m", "15m"]}, max_batches=1, batch=1)
    assert (failed, summary["left"], summary["states"]["missing"]) == (False, 1, 1)


def test_a_failed_day_holds_up_the_days_that_go_on_from_it_and_no_other_symbol(backfill, tmp_path):
    folder, lake = tmp_path / "in", tmp_path / "lake"
    for day in DAYS[:2]:
        session(folder, day)
        session(folder, day, ("CLZ5",), "CL")
    broken = folder / f"ES-{DAYS[0]}.dbn"
    good = broken.read_bytes()
    broken.write_bytes(good[: len(good) - 30])  # the header is whole, the last record is not
    summary, failed = backfill(folder, lake, batch=1)
    assert failed
    done = {path.parts[-2].split("=")[1] + path.parts[-3].split("=")[1] for path in lake.glob("bbo/*/*/*/*.parquet")}
    assert done == {f"CLZ5{day}" for day in DAYS[:2]}
    assert list(summary["held"]) == [f"ES-{DAYS[1]}.dbn"]
    states = plan_orders([str(folder)], lake, RECIPE).plan.counts()
    assert states["failed"] == 1
    # Left alone by a schedule that takes new work only: told, and no failure of that run; the day after it is taken now.
    summary, failed = backfill(folder, lake, batch=1, retry_failed=False)
    assert (failed, [b["first_date"] for b in summary["batches"]], summary["held"]) == (False, [DAYS[1]], {})
    summary, failed = backfill(folder, lake, batch=1, retry_failed=False)
    assert (failed, summary["batches"]) == (False, [])
    # Mended, it is done, and the day after it once more where its book went on from nothing.
    broken.write_bytes(good)
    summary, failed = backfill(folder, lake, batch=1, retry_failed=False)
    assert (failed, summary["left"], summary["batches"][0]["first_date"]) == (False, 0, DAYS[0])
    assert plan_orders([str(folder)], lake, RECIPE).plan.counts().keys() == {"done"}


def test_published_books_are_read_with_the_first_events_of_their_days_and_told_where_those_are_done(backfill, tmp_path):
    folder, lake = tmp_path / "in", tmp_path / "lake"
    session(folder, DAYS[0])
    backfill(folder, lake)
    session(folder, DAYS[1])
    books = {day: folder / f"ES-{day}.bbo-1s.dbn" for day in DAYS}
    for day, path in books.items():
        path.write_bytes(naive_published.bbo_day(day, "ESZ5", FIRST_INSTRUMENT_ID))
    summary, failed = backfill(folder, lake, dry_run=True)
    assert (failed, summary["unread"]) == (False, [str(path) for path in books.values()])
    summary, failed = backfill(folder, lake)
    # Of the first day all is done, of the last one there are no events.
    assert (failed, [b["first_date"] for b in summary["batches"]]) == (False, [DAYS[1]])
    assert summary["unread"] == [str(books[DAYS[0]]), str(books[DAYS[2]])]
    truths = {day: set(pq.read_table(next(lake.glob(f"certificate/*/date={day}/*/*.parquet")))["truth"].to_pylist()) for day in DAYS[:2]}
    assert ["published" in truths[day] for day in DAYS[:2]] == [False, True]


def test_a_file_that_is_still_being_written_waits(backfill, tmp_path):
    folder, lake = tmp_path / "in", tmp_path / "lake"
    first, second = session(folder, DAYS[0]), session(folder, DAYS[1])
    old = time.time() - 3_600
    os.utime(first, (old, old))
    summary, failed = backfill(folder, lake, settle="10m")
    assert (failed, [b["first_date"] for b in summary["batches"]], summary["waiting"]) == (False, [DAYS[0]], [str(second)])
    os.utime(second, (old, old))
    summary, failed = backfill(folder, lake, settle="10m")
    assert (failed, [b["first_date"] for b in summary["batches"]], summary["waiting"]) == (False, [DAYS[1]], [])


def test_depth_feeds_are_backfilled_pair_by_pair_and_day_by_day(backfill, tmp_path):
    folder, lake = tmp_path / "in", tmp_path / "lake"
    folder.mkdir()
    for day in ("2025-08-09", "2025-08-10"):
        spec = DepthSpec(depth=20, interval_ms=60_000, date=day)
        write_archive(folder / f"{spec.file_name}.zip", spec)
    options = {"depths": "20,5", "interval": "10m", "bars": "30m", "heatmaps": "0"}  # as typed
    summary, failed = backfill(folder, lake, kind="depth", options=options, batch=1)
    assert (failed, len(summary["batches"]), summary["states"].keys()) == (False, 2, {"done"})
    for layer in ("depth-5-10m", "mid-30m"):
        (lost,) = lake.glob(f"{layer}/*/date=2025-08-10/*/*.parquet")
        lost.unlink()
    planned = asked_of("depth", [str(folder)], str(lake), options=options).plan()
    assert sorted((r["date"], r["layer"], r["state"]) for r in planned.plan.rows(states=["missing"])) == [
        ("2025-08-10", "depth-5-10m", "missing"), ("2025-08-10", "mid-30m", "missing"),
    ]  # fmt: skip
    summary, failed = backfill(folder, lake, kind="depth", options=options)
    assert (failed, [b["first_date"] for b in summary["batches"]], summary["states"].keys()) == (False, ["2025-08-10"], {"done"})
    shutil.rmtree(lake / ".plan")  # a cache only
    summary, failed = backfill(folder, lake, kind="depth", options=options)
    assert (failed, summary["batches"]) == (False, [])


def test_the_freshness_table_is_an_artifact_of_the_run(backfill, tmp_path, prefect_api):
    session(tmp_path / "in", DAYS[0])
    backfill(tmp_path / "in", tmp_path / "lake", dry_run=True)
    artifacts = ask(prefect_api, "/artifacts/latest/filter", {"limit": 200})
    found = {artifact["key"]: artifact["data"] for artifact in artifacts}
    assert "1 missing" in found["bookmill-freshness"]
    assert "ESZ5" in found["bookmill-freshness-table"]


def test_options_of_a_plan_are_those_of_the_flows():
    import inspect

    from flows import plan_options
    from flows.depth_snapshots import depth_snapshots
    from flows.market_by_order import market_by_order

    shared = {"sources", "lake", "symbols", "pairs", "dates", "limit", "dataset", "profile", "settings"}
    for kind, flow in (("mbo", market_by_order), ("depth", depth_snapshots)):
        defaults = {name: p.default for name, p in inspect.signature(flow.fn).parameters.items() if name not in shared}
        assert plan_options._RECIPE[kind] | plan_options._RUN[kind] == defaults
