"""One partition from events files to book layers: bytes, days that follow each other, conflicts, marks, failures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tasks.book_rows import read_table
from tasks.errors import BookError, LakeConflict
from tasks.partitions import MboRecipe, Partition
from tasks.reconstruction.book_at import book_at
from tasks.reconstruction.layer_writer import layer_names
from tasks.reconstruction.rebuild import rebuild, starts_clean
from tasks.scanning.synthetic import SessionSpec, generate
from tasks.schemas import F_LAST, F_TOB, UNDEF_PRICE
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
