"""Certificates of published books against naive ones."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.certify import recipe_of_lake
from tasks.errors import UsageError
from tasks.partitions import MboRecipe
from tasks.reconstruction.rebuild import rebuild
from tasks.schemas import F_LAST, F_SNAPSHOT, UNDEF_PRICE
from tests.certificates import (
    CLEAR,
    DEPTH,
    RECIPE,
    Rows,
    assert_says,
    certified,
    damaged,
    feeds,
    generated,
    only,
    records_of,
    row_of,
    top,
    vendor,
    write_published,
)
from tests.lake_building import PARTITION, write_events
from tests.oracles import naive_certificate as naive
from tests.oracles.naive_book import NaiveBook
from tests.strategies.sessions import TICK


class Expected:
    """What the naive comparison says of the event ends and of the rows: (time, good) of each compared, the first difference, sequences."""

    def __init__(self, records: np.ndarray, rows: Rows, doubtful: tuple[int, ...] = ()) -> None:
        book, low = NaiveBook(DEPTH), -1
        self.claims, self.records = [], records
        each: list[tuple[int, int, dict]] = []
        ends: list[int] = []
        end_keys: list[int] = []
        by_number = self._by_number(rows)
        for i, rec in enumerate(records):
            book.apply(rec)
            self.claims.append(book.status == "valid")
            if not (by_number and rec["flags"] & F_SNAPSHOT):
                low = max(low, int(rec["sequence"] if by_number else rec["ts_recv"]))
            time = int(records["ts_recv"][: i + 1].max())
            each.append((time, low, top(book)))
            if book.event_end:
                ends.append(i)
                end_keys.append(max([*end_keys, int(rec["sequence"] if by_number else rec["ts_recv"])]))
        told = [(key, rec["flags"]) for (_, key, _), rec in zip(each, records, strict=True) if not (by_number and rec["flags"] & F_SNAPSHOT)]
        middles = {key for k, (key, flags) in enumerate(told) if not flags & F_LAST and key not in [later for later, _ in told[k + 1 :]]}
        keyed = [{**row, "sequence": key} for row, key in zip(rows, self._keys(rows, by_number), strict=True)]
        states = [(each[i][0], key, each[i][2]) for i, key in zip(ends, end_keys, strict=True)]
        pairs = naive.without_middles(naive.pairs_by_row(states, keyed), states, middles)
        pairs = [(s, r) for s, r in pairs if self.claims[ends[s]] and r + 1 not in doubtful]
        pairs = [(s, r) for s, r in pairs if states[s][1] <= keyed[-1]["sequence"]]
        self.ends = self._told([(ends[s], states[s], rows[r], states[s][0], int(records["sequence"][ends[s]])) for s, r in pairs])
        found = naive.rows_among_states(each, keyed, DEPTH)
        among = []
        for (s, _), row, key in zip(found, rows, keyed, strict=True):
            if s >= 0 and self.claims[s] and key["sequence"] <= each[-1][1]:
                among.append((s, each[s], row, row["ts_recv"], row["sequence"]))
        good = [good for (s, good), key in zip(found, keyed, strict=True) if s >= 0 and self.claims[s] and key["sequence"] <= each[-1][1]]
        self.rows = self._told(among, good)

    def _by_number(self, rows: Rows) -> bool:
        ours = [int(rec["sequence"]) for rec in self.records if rec["flags"] & F_LAST]
        theirs = [row["sequence"] for row in rows if not row["flags"] & F_SNAPSHOT]
        late = [k for k, row in enumerate(rows) if row["flags"] & F_SNAPSHOT and any(not r["flags"] & F_SNAPSHOT for r in rows[:k])]
        return bool(ours) and bool(theirs) and sorted(ours) == ours and sorted(theirs) == theirs and not late

    def _keys(self, rows: Rows, by_number: bool) -> list[int]:
        keys, low = [], -1
        for row in rows:
            if not (by_number and row["flags"] & F_SNAPSHOT):
                low = max(low, row["sequence"] if by_number else row["ts_recv"])
            keys.append(low)
        return keys

    def _told(self, compared: list[tuple], good: list[bool] | None = None) -> tuple:
        differences = [naive.first_difference(state, row, DEPTH) for _, state, row, _, _ in compared]
        verdicts = [(c[3], d is None) for c, d in zip(compared, differences, strict=True)]
        assert good is None or [g for _, g in verdicts] == good
        first = next((naive.Difference(0, 0, *d) for d in differences if d is not None), None)
        return verdicts, first, [c[4] for c in compared]


@generated
@given(st.data(), st.sampled_from(["record", "event"]), st.integers(1, 5), st.integers(1, 5))
def test_published_rows_and_event_ends_are_compared_as_the_naive_certificate_compares_them(data, style, batch_rows, replay_rows):
    clean = data.draw(feeds())
    rows = vendor(clean, style)
    records = data.draw(damaged(clean))
    cells = [(row, name) for row in rows for name in row if name[:3] in ("bid", "ask") and row[f"{name[:3]}_px_{name[-2:]}"] != UNDEF_PRICE]
    if cells and data.draw(st.booleans()):
        row, name = data.draw(st.sampled_from(cells))
        row[name] += 1
    doubtful = tuple(sorted(data.draw(st.sets(st.integers(0, len(rows)), max_size=2))))
    with tempfile.TemporaryDirectory() as folder:
        lake = Path(folder)
        rebuild(lake, PARTITION, [write_events(lake, records)], RECIPE)
        write_published(lake, rows, f"mbp-{DEPTH}", DEPTH, doubtful)
        certificate = certified(lake, BATCH_ROWS=batch_rows, REPLAY_ROWS=replay_rows)
    expected = Expected(records, rows, doubtful)
    assert_says(only(certificate, "published", "event ends"), *expected.ends)
    assert_says(only(certificate, "published", "rows"), *expected.rows)


@generated
@given(feeds(), st.sampled_from(["record", "event"]), st.integers(1, 40))
def test_a_rebuilt_book_and_the_published_one_of_the_same_feed_match_in_every_state(records, style, batch_rows):
    rows = vendor(records, style)
    with tempfile.TemporaryDirectory() as folder:
        lake = Path(folder)
        rebuild(lake, PARTITION, [write_events(lake, records)], RECIPE)
        write_published(lake, rows, f"mbp-{DEPTH}", DEPTH)
        certificate = certified(lake, BATCH_ROWS=batch_rows)
    assert certificate.verdict in ("matched", "no_truth")
    for kind in ("event ends", "rows"):
        row = only(certificate, "published", kind)
        assert row["states_matched"] == row["states_compared"]
        assert row["levels_matched"] == row["levels_compared"]
        assert row["detail"]["rows_published"] == len(rows)
    among = only(certificate, "published", "rows")
    assert among["states_compared"] + among["detail"]["rows_not_claimed"] == len(rows)


def test_an_event_that_ends_in_the_packet_in_which_the_next_begins_is_not_held_to_the_middle_of_that_one(tmp_path):
    records = records_of((*CLEAR, 1), ("A", "B", TICK, 1, 1, F_LAST, 5), ("A", "B", 2 * TICK, 1, 2, 0, 5), ("A", "B", 3 * TICK, 1, 3, F_LAST, 6))
    rebuild(tmp_path, PARTITION, [write_events(tmp_path, records)], RECIPE)
    write_published(tmp_path, vendor(records, "record"), f"mbp-{DEPTH}", DEPTH)
    row = only(certified(tmp_path), "published", "event ends")
    assert (row["states_compared"], row["verdict"]) == (1, "matched")


def test_published_rows_are_not_held_against_a_book_that_is_suspect_for_a_quarantined_row(tmp_path):
    clean = records_of((*CLEAR, 1), *(("A", "B", k * TICK, 1, k, F_LAST, k) for k in range(2, 6)))
    rebuild(tmp_path, PARTITION, [write_events(tmp_path, np.delete(clean, 2), suspect_rows=[2])], RECIPE)
    write_published(tmp_path, vendor(clean, "record"), f"mbp-{DEPTH}", DEPTH)
    # The row of the record that was set aside is held to the book that stood then, which claimed to be right.
    row = only(certified(tmp_path), "published", "rows")
    assert (row["states_compared"], row["states_matched"], row["detail"]["rows_not_claimed"]) == (2, 1, 2)


@pytest.mark.parametrize("of", ["the run", "the lake"])
def test_published_rows_are_not_held_against_a_book_that_is_suspect_for_a_gap(of, tmp_path):
    clean = records_of((*CLEAR, 1), *(("A", "B", k * TICK, 1, k, F_LAST, k) for k in range(2, 6)))
    recipe = MboRecipe(depth=DEPTH, interval_ns=RECIPE.interval_ns, sequence="contiguous")
    rebuild(tmp_path, PARTITION, [write_events(tmp_path, np.delete(clean, 2))], recipe)
    write_published(tmp_path, vendor(clean, "record"), f"mbp-{DEPTH}", DEPTH)
    # The row of the missing number itself is held to the book that stood then, which claimed to be right.
    row = only(certified(tmp_path, recipe if of == "the run" else recipe_of_lake(tmp_path, PARTITION)), "published", "rows")
    assert (row["states_compared"], row["states_matched"], row["detail"]["rows_not_claimed"]) == (2, 1, 2)


def test_the_options_of_a_book_are_those_it_was_made_with_and_not_those_of_a_deeper_layer_of_an_earlier_run(tmp_path):
    records = records_of((*CLEAR, 1), *(("A", "B", k * TICK, 1, k, F_LAST, k) for k in range(2, 6)))
    events = [write_events(tmp_path, records)]
    rebuild(tmp_path, PARTITION, events, replace(RECIPE, depth=20))
    rebuild(tmp_path, PARTITION, events, replace(RECIPE, clock="ts_event"))
    found = recipe_of_lake(tmp_path, PARTITION)
    assert (found.depth, found.clock) == (DEPTH, "ts_event")
    (tmp_path / PARTITION.path(f"mbp-{DEPTH}")).unlink()
    with pytest.raises(UsageError, match=f"no mbp-{DEPTH} layer"):
        recipe_of_lake(tmp_path, PARTITION)


@pytest.mark.parametrize("clock", ["ts_event", "ts_recv"])
def test_times_of_a_certificate_are_those_of_the_clock_of_the_rows(clock, tmp_path):
    clean = records_of((*CLEAR, 1), *(("A", "B", k * TICK, k, k, F_LAST, k) for k in range(2, 6)))
    clean["ts_recv"] += 500
    clean["action"][3], clean["size"][3], clean["order_id"][3] = ord("T"), 1, 0
    rows = vendor(clean, "record")
    rows[1]["bid_sz_00"] += 1
    recipe = MboRecipe(depth=DEPTH, interval_ns=RECIPE.interval_ns, clock=clock)
    rebuild(tmp_path, PARTITION, [write_events(tmp_path, clean)], recipe)
    write_published(tmp_path, rows, f"mbp-{DEPTH}", DEPTH)
    times = clean[clock].astype(int).tolist()
    for kind in ("event ends", "rows"):
        assert only(certified(tmp_path, recipe), "published", kind)["wrong"] == [(times[1], times[3])]


def test_published_rows_and_samples_beyond_the_events_prove_nothing(tmp_path):
    clean = records_of((*CLEAR, 1), *(("A", "B", k * TICK, 1, k, F_LAST, k) for k in range(2, 7)))
    rebuild(tmp_path, PARTITION, [write_events(tmp_path, clean[:4])], RECIPE)
    write_published(tmp_path, vendor(clean, "record"), f"mbp-{DEPTH}", DEPTH)
    row = only(certified(tmp_path), "published", "rows")
    assert (row["verdict"], row["states_compared"], row["detail"]["rows_not_claimed"]) == ("matched", 3, 2)
    samples = [row_at(clean, int(t), 1) for t in clean["ts_recv"]]
    write_published(tmp_path, samples, "bbo-1s", 1, interval_ns=10**9)
    row = only(certified(tmp_path), "published", "samples")
    assert (row["verdict"], row["states_compared"], row["detail"]["rows_not_claimed"]) == ("matched", 4, 2)


def test_samples_are_compared_outside_of_the_windows_of_the_output_too(tmp_path):
    clean = records_of((*CLEAR, 1), *(("A", "B", k * TICK, 1, k, F_LAST, k) for k in range(2, 10)))
    times = clean["ts_recv"].astype(int).tolist()
    rebuild(tmp_path, PARTITION, [write_events(tmp_path, clean)], RECIPE, windows=[(times[1], times[3]), (times[5] - 1, times[7])])
    write_published(tmp_path, [row_at(clean, t, 1) for t in times], "bbo-1s", 1, interval_ns=10**9)
    row = only(certified(tmp_path), "published", "samples")
    assert (row["verdict"], row["states_compared"], row["detail"]["rows_not_claimed"]) == ("matched", 9, 0)


# ---- Samples and trades.


def row_at(records: np.ndarray, time: int, depth: int) -> dict[str, Any]:
    """What a sample at `time` shows: the book after the last complete event at or before it."""
    book, shown, rec = NaiveBook(depth), {"B": [], "A": []}, records[0]
    for one in records:
        if one["ts_recv"] > time:
            break
        book.apply(one)
        rec = one
        if book.event_end:
            shown = {side: book.levels(side, depth) for side in "BA"}
    return {**row_of(rec, "A", shown, depth), "ts_recv": time}


@generated
@given(st.data(), st.integers(1, 5))
def test_samples_are_compared_with_the_last_complete_event_at_or_before_their_time(data, batch_rows):
    clean = data.draw(feeds())
    first, last = int(clean["ts_recv"][0]), int(clean["ts_recv"][-1])
    times = sorted(data.draw(st.sets(st.integers(first - 10**6, last), min_size=1, max_size=12)))
    rows = [row_at(clean, time, 1) for time in times]
    records = data.draw(damaged(clean))
    with tempfile.TemporaryDirectory() as folder:
        lake = Path(folder)
        rebuild(lake, PARTITION, [write_events(lake, records)], RECIPE)
        write_published(lake, rows, "bbo-1s", 1, interval_ns=10**9)
        certificate = certified(lake, BATCH_ROWS=batch_rows)
    book, states, valid = NaiveBook(1), [], []
    for i, rec in enumerate(records):
        book.apply(rec)
        if book.event_end:
            states.append((int(records["ts_recv"][: i + 1].max()), int(rec["sequence"]), {side: book.levels(side, 1) for side in "BA"}))
            valid.append(book.status == "valid")
    pairs = [(s, r) for s, r in naive.pairs_by_interval(states, rows) if valid[s] and rows[r]["ts_recv"] <= int(records["ts_recv"].max())]
    differences = [naive.first_difference(states[s], rows[r], 1) for s, r in pairs]
    compared = [(rows[r]["ts_recv"], d is None) for (_, r), d in zip(pairs, differences, strict=True)]
    first_one = next((naive.Difference(0, 0, *d) for d in differences if d), None)
    assert_says(only(certificate, "published", "samples"), compared, first_one, [rows[r]["sequence"] for _, r in pairs])


@generated
@given(st.data(), st.booleans())
def test_the_touch_before_a_trade_is_compared_where_a_complete_event_stands_right_before_it(data, alters):
    records = data.draw(feeds())
    book, rows = NaiveBook(1), []
    for rec in records:
        if rec["action"] == ord("T"):
            rows.append(row_of(rec, "T", {side: book.levels(side, 1) for side in "BA"}, 1))
        book.apply(rec)
    cells = [(row, f"{name}_sz_00") for row in rows for name in ("bid", "ask") if row[f"{name}_px_00"] != UNDEF_PRICE]
    if alters and cells:
        row, name = data.draw(st.sampled_from(cells))
        row[name] += 1
    book, expected, shown, valid, fresh = NaiveBook(1), [], None, False, True
    numbers = [int(rec["sequence"]) for rec in records if rec["action"] == ord("T")]
    for rec in records:
        if rec["action"] == ord("T"):
            if fresh and numbers.count(int(rec["sequence"])) == 1 and valid:
                (row,) = [r for r in rows if r["sequence"] == rec["sequence"]]
                sides = [(shown[side] or [naive.EMPTY])[0][:2] for side in "BA"]
                expected.append((int(rec["ts_recv"]), sides == [(row[f"{n}_px_00"], row[f"{n}_sz_00"]) for n in ("bid", "ask")]))
            fresh = False
        book.apply(rec)
        if book.event_end:
            shown, valid, fresh = {side: book.levels(side, 1) for side in "BA"}, book.status == "valid", True
    with tempfile.TemporaryDirectory() as folder:
        lake = Path(folder)
        rebuild(lake, PARTITION, [write_events(lake, records)], RECIPE)
        write_published(lake, rows, "tbbo", 1)
        row = only(certified(lake), "published", "trades")
    assert row["states_compared"] == len(expected)
    assert row["states_matched"] == sum(good for _, good in expected)
    assert row["wrong"] == naive.wrong_spans(expected)


def test_a_second_trade_of_an_event_is_not_held_to_the_touch_before_the_event(tmp_path):
    records = records_of(
        (*CLEAR, 1), ("A", "A", TICK, 1, 1, F_LAST, 2), ("A", "A", 2 * TICK, 1, 2, F_LAST, 3), ("T", "B", TICK, 1, 0, 0, 4),
        ("C", "A", TICK, 1, 1, 0, 4), ("T", "B", 2 * TICK, 1, 0, 0, 5), ("C", "A", 2 * TICK, 1, 2, F_LAST, 5),
    )  # fmt: skip
    rebuild(tmp_path, PARTITION, [write_events(tmp_path, records)], RECIPE)
    levels = {"B": [], "A": [(TICK, 1, 1)]}, {"B": [], "A": [(2 * TICK, 1, 1)]}
    write_published(tmp_path, [row_of(records[3], "T", levels[0], 1), row_of(records[5], "T", levels[1], 1)], "tbbo", 1)
    row = only(certified(tmp_path), "published", "trades")
    assert (row["states_compared"], row["verdict"]) == (1, "matched")
