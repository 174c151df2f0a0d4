"""A book goes on from an earlier day's only where no row is known to lie between the two; else it begins without a book, and a plan finds it so."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect import flow

from config.settings import load
from flows.plan import plan_orders
from tasks.footers import read_facts
from tasks.partitions import EventFilter, MboRecipe, Partition
from tasks.publishing.views import query
from tasks.reconstruction.certify import day_before

HEAD = "ts_recv,ts_event,rtype,publisher_id,instrument_id,action,side,price,size,channel_id,order_id,flags,ts_in_delta,sequence,symbol"
DAY_NS, START = 86_400_000_000_000, 1_761_091_200_000_000_000  # 2025-10-22
NOON = START + DAY_NS // 2
HOUR_NS = 3_600_000_000_000


def row(hour: float, action: str, side: str, price: str, size: int, order: int, flags: int = 128, symbol: str = "X") -> str:
    ts = START + int(hour * HOUR_NS)
    return f"{ts},{ts},160,2,{7 if symbol == 'X' else 8},{action},{side},{price},{size},0,{order},{flags},0,0,{symbol}"


# The first day ends with a bid of 99: that of 100 goes in the afternoon.
MORNING = [row(8, "R", "N", "", 0, 0, 8 | 128), row(9, "A", "B", "100", 5, 1), row(9, "A", "B", "99", 5, 2), row(9, "A", "A", "105", 5, 3)]
AFTERNOON = [row(15, "C", "B", "100", 5, 1)]
ONE = [*MORNING, *AFTERNOON]
BAD = row(34, "A", "N", "101", 5, 9)  # of the second day: an order on no side
SECOND_MORNING = [row(32, "A", "B", "98", 5, 4), row(33, "C", "B", "99", 5, 2)]
SECOND_EVENING = [row(40, "A", "A", "104", 6, 5)]
THIRD = [row(56, "A", "A", "103", 6, 6)]


@pytest.fixture
def run(prefect_api, tmp_path):
    """A function that takes files of rows through one run, up to the books."""
    from flows.mbo_stages import MboRun

    @flow(name="stages")
    def stages(files: list[list[str]], recipe: MboRecipe, names: list[str]):
        paths = []
        for name, rows in zip(names, files, strict=True):
            path = tmp_path / f"{name}.csv"
            path.write_text("\n".join([HEAD, *rows]) + "\n")
            paths.append(str(path))
        run = MboRun(str(tmp_path / "lake"), recipe, load("ci", {"progress": "off"}))
        with run:
            run.reconstruct(run.gate_events(run.decode(run.scan(paths, "", ""), False)))
        run.life.end()
        assert not run.failed
        return paths

    return stages


def books(lake: Path, day: str) -> list[tuple[float | None, str]]:
    """(best bid, status) at the event ends of a day."""
    found = query(lake, f"select price(bid_px_00)::double bid, status from \"mbp-3\" where date = '{day}' and symbol = 'X' order by ts_event")
    return [(r["bid"], r["status"]) for r in found.to_pylist()]


RECIPE = MboRecipe(depth=3, interval_ns=60_000_000_000)
UNTIL_NOON = MboRecipe(depth=3, interval_ns=60_000_000_000, filter=EventFilter(end_ns=NOON))
LONE_BAD = [BAD, row(34.5, "A", "B", "50", 1, 1, symbol="Y")]


@pytest.mark.parametrize(
    ("runs", "day", "expected", "told"),
    [
        ([([ONE], RECIPE), ([SECOND_EVENING], RECIPE)], "2025-10-23", [(99.0, "valid")], ""),
        ([([ONE, SECOND_MORNING, SECOND_EVENING], RECIPE)], "2025-10-23", [(99.0, "valid"), (98.0, "valid"), (98.0, "valid")], ""),
        # A book of noon is not that of the end of the day, in a run of its own or where the afternoon is a source of its own.
        ([([ONE], UNTIL_NOON), ([SECOND_EVENING], RECIPE)], "2025-10-23", [(None, "no_book")], "were left out (--end)"),
        ([([MORNING, AFTERNOON], UNTIL_NOON), ([SECOND_EVENING], RECIPE)], "2025-10-23", [(None, "no_book")], "all left out"),
        # The morning is in the lake and not in the book.
        ([([ONE], RECIPE), ([SECOND_MORNING], RECIPE), ([SECOND_EVENING], RECIPE)], "2025-10-23", [(None, "no_book")], "give all sources of a day"),
        # Nor is the evening, when the morning is given alone again.
        (
            [([ONE, SECOND_EVENING], RECIPE), ([ONE, SECOND_MORNING], RECIPE), ([THIRD], RECIPE)],
            "2025-10-24", [(None, "no_book")], "which comes after it",
        ),
        # Every row of the day between was set aside.
        ([([ONE, LONE_BAD, THIRD], RECIPE)], "2025-10-24", [(None, "no_book")], "all left out"),
        ([([[*ONE, BAD], THIRD], RECIPE)], "2025-10-24", [(None, "no_book")], "all left out"),
    ],
)  # fmt: skip
def test_a_book_never_goes_on_over_rows_that_are_known_to_lie_between(run, tmp_path, caplog, runs, day, expected, told):
    names = {text: f"f{i}" for i, text in enumerate(dict.fromkeys(str(rows) for files, _ in runs for rows in files))}
    for files, recipe in runs:
        caplog.clear()
        paths = run(files, recipe, [names[str(rows)] for rows in files])
    lake = tmp_path / "lake"
    assert books(lake, day) == expected
    warned = [r.getMessage() for r in caplog.records if "begins without a book" in r.getMessage()]
    assert len(warned) == bool(told)
    assert all(told in text and day in text for text in warned)
    # The plan would make the same books of these sources, and finds them done.
    states = plan_orders(paths, lake, recipe).plan.rows(layers=["bbo", "closing_book"], start=day)
    assert {r["state"] for r in states} == {"done"}, states
    (book,) = lake.glob(f"bbo/*/date={day}/symbol=X/*.parquet")
    assert bool(read_facts(book)["carry"]) == (not told)


def test_a_book_of_noon_is_no_truth_of_the_next_days_opening_snapshot(run, tmp_path):
    opening = [row(32, "R", "N", "", 0, 0, 32), row(32, "A", "B", "99", 5, 2, 32), row(32, "A", "A", "105", 5, 3, 32 | 128)]
    lake = tmp_path / "lake"
    for recipe, truth in ((UNTIL_NOON, False), (RECIPE, True)):
        run([ONE], recipe, ["one"])
        run([opening], RECIPE, ["two"])
        (book,) = lake.glob("bbo/*/date=2025-10-23/*/*.parquet")
        assert (day_before(lake, Partition.of_path(book.relative_to(lake))) is not None) == truth


@pytest.mark.parametrize("other", ["a row set aside", "a good row"])
def test_a_book_made_without_a_source_of_its_day_of_which_no_row_was_kept_is_told_at_each_run(run, tmp_path, caplog, other):
    middle = LONE_BAD if other == "a row set aside" else [row(34, "A", "B", "97", 5, 9)]
    for _ in range(2):
        caplog.clear()
        run([ONE, SECOND_MORNING, middle, SECOND_EVENING], RECIPE, ["one", "morning", "middle", "evening"])
        told = [r.getMessage() for r in caplog.records if "is made without" in r.getMessage()]
        assert len(told) == (other == "a row set aside")
        assert all("without the rows of middle.csv (1)" in text and "2025-10-23" in text for text in told)
