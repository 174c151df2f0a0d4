"""One partition from events files to book layers: bytes, days that follow each other, conflicts, marks, failures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tasks.book_rows import read_table
from tasks.errors import BookError, LakeConflict
from tasks.partitions import MboRecipe, Partition
from tasks.reconstruction.book_at import book_at
from tasks.reconstruction.certify import certify
from tasks.reconstruction.layer_writer import layer_names
from tasks.reconstruction.lifetimes import order_lifetimes
from tasks.reconstruction.rebuild import begins_with, goes_on, rebuild, starts_clean, stops_inside
from tasks.scanning.synthetic import SessionSpec, generate
from tasks.schemas import F_LAST, F_SNAPSHOT, F_TOB, UNDEF_PRICE
from tests.lake_building import PARTITION, columns_of, write_events
from tests.oracles.naive_book import NaiveBook
from tests.strategies.sessions import sessions
from tests.unit.test_replay import EXAMPLES, one_book, record
from tests.unit.test_twin_campaign import disturb

RECIPE = MboRecipe(interval_ns=60_000_000_000)


@pytest.fixture(scope="module")
def session() -> np.ndarray:
    return np.concatenate(list(generate(SessionSpec(records=30_000, seed=3))))


def files_of(lake) -> dict[str, bytes]:
    return {p.relative_to(lake).as_posix(): p.read_bytes() for p in sorted(lake.rglob("*.parquet"))}


def test_bytes_do_not_depend_on_the_batch_size(session, tmp_path):
    made = []
    for batch_rows in (1_000, 65_536):
        lake = tmp_path / str(batch_rows)
        rebuild(lake, PARTITION, [write_events(lake, session)], RECIPE, batch_rows=batch_rows)
        made.append(files_of(lake))
    assert made[0] == made[1]


def test_a_second_rebuild_finds_its_work_done_and_a_changed_recipe_does_not(session, tmp_path):
    events = [write_events(tmp_path, session[:5_000])]
    first = rebuild(tmp_path, PARTITION, events, RECIPE)
    before = files_of(tmp_path)
    again = rebuild(tmp_path, PARTITION, events, RECIPE)
    assert (first.skipped, again.skipped, again.outputs) == (False, True, first.outputs)
    assert files_of(tmp_path) == before
    assert not rebuild(tmp_path, PARTITION, events, replace(RECIPE, depth=5)).skipped


def test_a_missing_or_foreign_layer_is_made_again(session, tmp_path):
    events = [write_events(tmp_path, session[:5_000])]
    rebuild(tmp_path, PARTITION, events, RECIPE)
    before = files_of(tmp_path)
    (tmp_path / PARTITION.path("trades")).unlink()
    assert not rebuild(tmp_path, PARTITION, events, RECIPE).skipped
    assert files_of(tmp_path) == before


def test_layers_hold_what_the_naive_book_says(session, tmp_path):
    records = session[:4_000]
    rebuilt = rebuild(tmp_path, PARTITION, [write_events(tmp_path, records)], RECIPE)
    rows = read_table(tmp_path / rebuilt.outputs[layer_names(RECIPE)["rows"]][0]).to_pylist()
    book, at = NaiveBook(10), 0
    for i, rec in enumerate(records):
        book.apply(rec)
        if not book.event_end:
            continue
        row = rows[at]
        assert (row["sequence"], row["status"], row["symbol"], row["age_ns"]) == (int(rec["sequence"]), book.status, "ESZ5", 0), i
        for side, name in (("B", "bid"), ("A", "ask")):
            found = [(row[f"{name}_px_{k:02d}"], row[f"{name}_sz_{k:02d}"], row[f"{name}_ct_{k:02d}"]) for k in range(10)]
            levels = book.levels(side, 10)
            assert found[: len(levels)] == levels
            assert all(sz == 0 for _, sz, _ in found[len(levels) :])
        at += 1
    assert at == len(rows) == rebuilt.facts["event_ends"]


def test_two_days_in_a_row_equal_one_replay_over_both(session, tmp_path):
    cut = 12_000
    while not session["flags"][cut - 1] & F_LAST or session["action"][cut] == ord("R"):
        cut += 1
    one, two = session[:cut], session[cut : cut + 2_000]  # the session's own clear comes later
    second = replace(PARTITION, date="2025-10-23")
    whole = rebuild(tmp_path / "whole", PARTITION, [write_events(tmp_path / "whole", np.concatenate([one, two]))], RECIPE).facts
    lake = tmp_path / "days"
    rebuild(lake, PARTITION, [write_events(lake, one)], RECIPE)
    events = [write_events(lake, two, second)]
    assert not starts_clean(lake, events)
    follows = rebuild(lake, second, events, RECIPE, carry=PARTITION.path("closing_book")).facts
    alone = rebuild(tmp_path / "alone", second, [write_events(tmp_path / "alone", two, second)], RECIPE).facts
    names = ("bid_levels", "ask_levels", "orders", "best_bid", "best_ask", "status")
    assert [follows[n] for n in names] == [whole[n] for n in names]
    assert (alone["status"], follows["status"]) == ("no_book", "valid")
    assert alone["anomalies"]["unknown_cancel"] > 0
    assert sum(follows["anomalies"].values()) == 0


TOMORROW = replace(PARTITION, date="2025-10-23")


def timed(*rows: tuple) -> np.ndarray:
    """Records of test_replay.record, a microsecond apart and numbered from 1."""
    records = np.concatenate([record(*row) for row in rows])
    records["ts_event"] = records["ts_recv"] = 1_761_139_800_000_000_000 + 1_000 * np.arange(len(records))
    records["sequence"] = np.arange(1, len(records) + 1)
    return records


def levels_and_status(rows: list[dict]) -> list[tuple]:
    return [tuple(row[name] for name in row if name[:3] in ("bid", "ask") or name in ("sequence", "status", "reason")) for row in rows]


def rows_of(lake: Path, partition: Partition) -> list[dict]:
    return read_table(lake / partition.path("mbp-10")).to_pylist()


def test_the_level_of_a_top_of_book_record_stands_on_the_next_day_until_another_one(tmp_path):
    top = F_TOB | F_LAST
    today = timed(("R",), ("A", "B", 100, 5, 0, top), ("A", "A", 101, 6, 0, top), ("A", "B", 100, 2, 9), ("A", "A", 103, 4, 8))
    tomorrow = timed(*[("N",)] * len(today), ("A", "B", 99, 1, 7), ("A", "B", 98, 7, 0, top), ("A", "A", 104, 3, 0, top))[len(today) :]
    rebuild(tmp_path, PARTITION, [write_events(tmp_path, today)], RECIPE)
    rebuild(tmp_path, TOMORROW, [write_events(tmp_path, tomorrow, TOMORROW)], RECIPE, carry=PARTITION.path("closing_book"))
    rows = rows_of(tmp_path, TOMORROW)
    found = [[[(row[f"{side}_px_{k:02d}"], row[f"{side}_sz_{k:02d}"], row[f"{side}_ct_{k:02d}"]) for k in range(3)] for side in ("bid", "ask")]
             for row in rows]  # fmt: skip
    none = (UNDEF_PRICE, 0, 0)
    assert found == [
        [[(100, 7, 2), (99, 1, 1), none], [(101, 6, 1), (103, 4, 1), none]],
        [[(98, 7, 1), none, none], [(101, 6, 1), (103, 4, 1), none]],
        [[(98, 7, 1), none, none], [(104, 3, 1), none, none]],
    ]
    assert {row["status"] for row in rows} == {"valid"}
    book = book_at(tmp_path, TOMORROW, int(tomorrow["ts_recv"][0]))
    assert (book.bids, book.asks) == (((100, 7, 2), (99, 1, 1)), ((101, 6, 1), (103, 4, 1)))


def test_several_sources_of_one_partition_follow_each_other_in_time_and_must_not_overlap(session, tmp_path):
    cut = int(np.flatnonzero(session["flags"] & F_LAST)[5_000]) + 1
    one = write_events(tmp_path, session[:cut], short="aaaaaaaaaa")
    two = write_events(tmp_path, session[cut:10_000], short="0000000000")
    split = rebuild(tmp_path, PARTITION, [two, one], RECIPE).facts
    whole = rebuild(tmp_path / "whole", PARTITION, [write_events(tmp_path / "whole", session[:10_000])], RECIPE).facts
    assert {k: v for k, v in split.items() if k not in ("outputs", "events")} == {k: v for k, v in whole.items() if k not in ("outputs", "events")}
    other = write_events(tmp_path, session[cut - 2_000 : cut + 2_000], short="ffffffffff")
    with pytest.raises(LakeConflict, match="cover the same time"):
        rebuild(tmp_path, PARTITION, [one, two, other], RECIPE)


def test_a_failing_book_leaves_nothing_behind(tmp_path):
    records = np.concatenate([record("R"), record("A", "B", 100, 3, 7), record("C", "B", 100, 5, 7)])
    events = [write_events(tmp_path, records)]
    with pytest.raises(BookError, match="over cancel"):
        rebuild(tmp_path, PARTITION, events, replace(RECIPE, on_book_error="fail"))
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [events[0].rsplit("/", 1)[-1]]
    facts = rebuild(tmp_path, PARTITION, events, RECIPE).facts
    assert (facts["status"], facts["reason"], facts["anomalies"]["over_cancel"]) == ("suspect", "over_cancel", 1)


def test_a_row_quarantined_after_the_last_one_leaves_the_closing_book_suspect(session, tmp_path):
    records = session[:3_000]
    facts = rebuild(tmp_path, PARTITION, [write_events(tmp_path, records, suspect_rows=[3_000])], RECIPE).facts
    assert (facts["status"], facts["reason"], facts["anomalies"]["quarantined_before"]) == ("suspect", "quarantined", 1)
    grid = pq.read_table(tmp_path / PARTITION.path("mbp-10-1m"), partitioning=None)
    assert grid["status"].to_pylist()[-1] == "suspect"


def test_rows_after_a_quarantined_one_are_suspect_in_every_layer(session, tmp_path):
    records = session[:3_000]
    events = [write_events(tmp_path, records, suspect_rows=[1_500])]
    rebuilt = rebuild(tmp_path, PARTITION, events, RECIPE)
    rows = read_table(tmp_path / rebuilt.outputs["mbp-10"][0])
    ends = np.flatnonzero(columns_of(records)["flags"] & F_LAST)
    expected = ["suspect" if i >= 1_500 else "valid" for i in ends]
    assert rows["status"].to_pylist() == expected
    assert set(rows["reason"].to_pylist()) == {"", "quarantined"}
    assert rebuilt.facts["anomalies"]["quarantined_before"] == 1


@settings(max_examples=max(10, EXAMPLES // 4), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    sessions(), st.integers(1, 59), st.lists(st.tuples(st.integers(0, 59), st.integers(1, 9)), max_size=1),
    st.lists(st.integers(0, 59), max_size=2, unique=True), st.booleans(),
)  # fmt: skip
def test_a_session_cut_anywhere_by_midnight_gives_the_rows_of_the_whole_one(tmp_path_factory, records, cut, gaps, marks, contiguous):
    """Orders, levels of top-of-book records, status, gaps and snapshots that are not complete go over midnight, and into what is asked later."""
    records = disturb(one_book(records), gaps, [])
    records["ts_recv"] = np.maximum.accumulate(records["ts_recv"])
    cut = cut % len(records)
    inside = records["flags"][max(cut - 1, 0) : cut + 1] & (F_SNAPSHOT | F_LAST)
    # A day that begins with a snapshot of its own has nothing of the day before: neither its snapshot nor its last number.
    anew = inside[-1] & F_SNAPSHOT and inside[0] != F_SNAPSHOT
    assume(cut and not (anew and (contiguous or inside[0] & F_SNAPSHOT)))
    marks = [m for m in marks if m < len(records)]
    recipe = replace(RECIPE, sequence="contiguous" if contiguous else "sparse")
    lake = tmp_path_factory.mktemp("midnight")
    whole = rebuild(lake / "whole", PARTITION, [write_events(lake / "whole", records, suspect_rows=sorted(marks))], recipe)
    rebuild(lake, PARTITION, [write_events(lake, records[:cut], suspect_rows=sorted(m for m in marks if m < cut))], recipe)
    events = [write_events(lake, records[cut:], TOMORROW, suspect_rows=sorted(m - cut for m in marks if m >= cut))]
    follows = rebuild(lake, TOMORROW, events, recipe, carry=PARTITION.path("closing_book"))
    rows = rows_of(lake, TOMORROW)
    expected = rows_of(lake / "whole", PARTITION)
    assert levels_and_status(rows) == levels_and_status(expected[len(expected) - len(rows) :])
    assert len(rows) == np.count_nonzero(records["flags"][cut:] & F_LAST)
    assert [follows.facts[name] for name in ("status", "reason", "orders")] == [whole.facts[name] for name in ("status", "reason", "orders")]
    if rows:
        book = book_at(lake, TOMORROW, rows[-1]["as_of"].value)
        assert (book.status, book.reason) == (rows[-1]["status"], rows[-1]["reason"])
        assert book.bids[:1] == (((rows[-1]["bid_px_00"], rows[-1]["bid_sz_00"], rows[-1]["bid_ct_00"]),) if book.bids else ())


@pytest.mark.parametrize("batch_rows", [500, 65_536])
def test_behind_the_last_mark_that_is_listed_no_book_is_valid_again_where_not_all_are_listed(session, tmp_path, batch_rows):
    records = session
    last = int(np.flatnonzero(session["action"] == ord("R"))[-1]) - 500
    every = [2_000, *range(last, len(records) + 1)]
    made = {}
    for name, marks, capped in (("few", [2_000, last], False), ("capped", [2_000, last], True), ("every", every, False)):
        lake = tmp_path / name
        facts = rebuild(lake, PARTITION, [write_events(lake, records, suspect_rows=marks, capped=capped)], RECIPE, batch_rows=batch_rows).facts
        rows, ended = rows_of(lake, PARTITION), int(np.count_nonzero(records["flags"][:last] & F_LAST))
        # At the clear itself nothing is missing.
        assert (sum(row["status"] == "valid" for row in rows[ended:]) > 1) == (name == "few") == (facts["status"] == "valid")
        closing = book_at(lake, PARTITION, rows[-1]["as_of"].value)
        assert (closing.status == "valid") == (name == "few")
        made[name] = [levels_and_status(rows), [row["status_since"] for row in rows], facts["status"], closing.status]
    assert made["capped"] == made["every"]
    assert certify(tmp_path / "capped", PARTITION, RECIPE).verdict == certify(tmp_path / "every", PARTITION, RECIPE).verdict


SNAP = F_SNAPSHOT
SNAPSHOT = (("R", "N", UNDEF_PRICE, 0, 0, SNAP), ("A", "B", 100, 5, 1, SNAP), ("A", "A", 102, 5, 2, SNAP | F_LAST))


def test_a_snapshot_that_goes_over_midnight_is_whole_on_the_next_day_and_one_without_a_clear_begins_anew_where_the_day_before_is_complete(tmp_path):
    records = timed(("R",), ("A", "B", 90, 1, 9), *SNAPSHOT, ("A", "B", 99, 1, 3))
    carry = PARTITION.path("closing_book")
    for name, cut, went_on in (("over midnight", 4, True), ("complete", 2, False)):
        lake = tmp_path / name
        today, tomorrow = [write_events(lake, records[:cut])], [write_events(lake, records[4:], TOMORROW)]
        rebuild(lake, PARTITION, today, RECIPE)
        assert (begins_with(lake, tomorrow), stops_inside(lake, today), goes_on(lake, tomorrow, carry)) == ("snapshot", went_on, went_on)
        made = rebuild(lake, TOMORROW, tomorrow, RECIPE, carry=carry)
        assert made.facts["carry"] == (carry if went_on else None)
        rows = rows_of(lake, TOMORROW)
        assert [(row["bid_px_00"], row["ask_px_00"], row["status"]) for row in rows] == [
            (100 if went_on else UNDEF_PRICE, 102, "valid"), (100 if went_on else 99, 102, "valid"),
        ]  # fmt: skip
        assert {row["truth"] for row in certify(lake, TOMORROW, RECIPE, day_before=carry).rows if row["truth"] != "integrity"} <= (
            {"none"} if went_on else {"opening"}
        )
        assert rebuild(lake, TOMORROW, tomorrow, RECIPE, carry=carry if went_on else None).skipped


def test_each_file_of_a_day_begins_a_snapshot_of_its_own(tmp_path):
    """Without a clear (files from before 2024-02) nothing else tells that it is another one."""

    def snapshot(*orders: tuple) -> list[tuple]:
        return [(*order, SNAP | (F_LAST if k + 1 == len(orders) else 0)) for k, order in enumerate(orders)]

    bid, low, ask = ("A", "B", 100, 5, 1), ("A", "B", 99, 5, 2), ("A", "A", 102, 5, 3)
    records = timed(*snapshot(bid, low, ask), *snapshot(low, ask), ("A", "B", 98, 1, 7))
    files = [write_events(tmp_path, records[:3], short="aaaaaaaaaa"), write_events(tmp_path, records[3:], short="bbbbbbbbbb")]
    facts = rebuild(tmp_path, PARTITION, files, RECIPE).facts
    assert [(row["bid_px_00"], row["status"]) for row in rows_of(tmp_path, PARTITION)] == [(100, "valid"), (99, "valid"), (99, "valid")]
    assert (facts["orders"], facts["counts"]["snapshots"], sum(facts["anomalies"].values())) == (3, 2, 0)
    row = next(row for row in certify(tmp_path, PARTITION, RECIPE).rows if row["truth"] == "snapshot")
    assert (row["states_compared"], row["verdict"]) == (1, "diverged")  # that the order at 100 had gone was told by nobody
    book = book_at(tmp_path, PARTITION, int(records["ts_recv"][-1]))
    assert (book.bids, book.asks) == (((99, 5, 1), (98, 1, 1)), ((102, 5, 1),))
    lives = [row for batch in order_lifetimes(tmp_path, PARTITION) for row in batch.to_pylist()]
    assert [(row["order_id"], row["end_reason"]) for row in lives] == [
        (1, "snapshot"),
        (2, "snapshot"),
        (3, "snapshot"),
        *((k, "resting") for k in (2, 3, 7)),
    ]
