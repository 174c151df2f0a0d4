"""One partition from events files to book layers: bytes, days that follow each other, conflicts, marks, failures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from tasks.book_rows import read_table
from tasks.errors import BookError, LakeConflict
from tasks.partitions import MboRecipe
from tasks.reconstruction.layer_writer import layer_names
from tasks.reconstruction.rebuild import rebuild, starts_clean
from tasks.scanning.synthetic import SessionSpec, generate
from tasks.schemas import F_LAST
from tests.lake_building import PARTITION, columns_of, write_events
from tests.oracles.naive_book import NaiveBook
from tests.unit.test_replay import record

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
