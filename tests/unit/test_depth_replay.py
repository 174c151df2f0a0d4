"""The price-level replay against its naive twin, and what must hold of any feed: no look-ahead, every grid time a row, nothing hidden."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.depth_batches import ASK, BID, DELTA, NO_ID, NO_TIME, SNAPSHOT
from tasks.errors import BookError, UsageError
from tasks.reconstruction import depth_book, depth_sampling
from tasks.reconstruction import proof_kernels as pk
from tasks.reconstruction.depth_replay import DepthReplay, ScaleTooSmall
from tasks.schemas import REASONS, STATUSES, UNDEF_PRICE
from tests.oracles.naive_depth import Item, Message, NaiveDepth, Update
from tests.strategies.depth_feeds import KEEP, PRICE_DIGITS, SECOND, SIZE_DIGITS, START_NS, batch_of, cut, feeds

EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "200"))
generated = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
MINUTE = 60 * SECOND
WINDOWS = ((START_NS - 2 * SECOND, START_NS + 40 * SECOND), (START_NS + 50 * SECOND + 1, START_NS + 90 * SECOND))
fewer = settings(generated, max_examples=max(5, EXAMPLES // 4))
Rows = list[dict[str, Any]]


def rows_of(samples: Any, depth: int, grid: Rows, touch: Rows) -> None:
    """Append the rows of a step; the buffers are used again afterwards."""
    for r in range(samples.n_grid):
        columns = zip(*(getattr(samples.grid, name)[: 2 * depth, r].tolist() for name in ("px", "sz", "price_digits", "size_digits")), strict=True)
        grid.append(row_of(samples.grid, r, "time as_of update_id sequence since") | {"levels": list(columns)})
    for r in range(samples.n_touch):
        sides = {name: getattr(samples.touch, name)[:, r].tolist() for name in ("px", "sz")}
        touch.append(row_of(samples.touch, r, "clock ts cts update_id sequence since") | sides)


def row_of(rows: Any, r: int, numbers: str) -> dict[str, Any]:
    told = {name: int(getattr(rows, name)[r]) for name in numbers.split()}
    return told | {"status": STATUSES[rows.status[r]], "reason": REASONS[rows.reason[r]]}


def replayed(items: Sequence[Item], lengths: Sequence[int] = (), depth: int = KEEP, **options: Any) -> tuple[Rows, Rows, DepthReplay]:
    """(grid rows, touch rows, the replay) of a feed handed over in batches of these lengths."""
    told: dict[str, Any] = {
        "depths": (depth,), "keep": KEEP, "interval_ns": SECOND, "windows": WINDOWS, "price_digits": PRICE_DIGITS, "size_digits": SIZE_DIGITS,
    }  # fmt: skip
    replay = DepthReplay(**(told | options))
    grid: Rows = []
    touch: Rows = []
    for batch in cut(items, lengths):
        for samples in replay.feed(batch):
            rows_of(samples, depth, grid, touch)
    for samples in replay.finish():
        rows_of(samples, depth, grid, touch)
    return grid, touch, replay


def naive(items: Sequence[Item], clock: str = "cts", windows: Any = WINDOWS) -> NaiveDepth:
    return NaiveDepth(keep=KEEP, price_digits=PRICE_DIGITS, size_digits=SIZE_DIGITS, clock=clock, windows=windows).feed(items)


def message(seconds: float, update_id: int, *updates: tuple[int, int, int], kind: int = DELTA) -> Message:
    """A message so many seconds after the start; updates (side, price, size), without decimals."""
    ts = START_NS + round(seconds * SECOND)
    return Message(kind, ts, NO_TIME, update_id, update_id, tuple(Update(*update, 0, 0) for update in updates))


def snapshot(seconds: float, update_id: int, *updates: tuple[int, int, int]) -> Message:
    return message(seconds, update_id, *updates, kind=SNAPSHOT)


BOOK = ((BID, 99, 5), (BID, 98, 7), (ASK, 101, 4), (ASK, 102, 6))


# ---- Equal to the twin


@generated
@given(feeds(), st.lists(st.integers(0, 9), max_size=8), st.sampled_from(("ts", "cts")), st.sampled_from((None, 1, 2 * SECOND)), st.data())
def test_rows_counts_and_proofs_equal_the_twins_for_any_batching(items, lengths, clock, stale, data):
    room = data.draw(st.sampled_from((1, 3, 64)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(depth_sampling, "GRID_ROOM", room)
        patch.setattr(depth_sampling, "TOUCH_ROOM", room)
        # Prices without a level are forgotten at once; or all ticks around the book are known.
        patch.setattr(depth_book, "LEAST_PRICES", data.draw(st.sampled_from((0, 4_096))))
        patch.setattr(depth_book, "PRICES_PER_LEVEL", 1)
        patch.setattr(depth_book, "LEAST_ROOM", data.draw(st.sampled_from((0, 64))))
        patch.setattr(depth_book, "MOST_TICKS", data.draw(st.sampled_from((0, 8_192))))
        grid, touch, replay = replayed(items, lengths, clock=clock, stale_after_ns=stale)
    twin = naive(items, clock)
    assert grid == twin.grid(KEEP, SECOND, stale)
    assert touch == twin.touches
    facts = replay.facts()
    assert {name: facts[name] for name in twin.counts} == twin.counts
    assert [facts[name] for name in ("status", "reason", "last_update_id", "as_of", "since")] == [
        twin.status, twin.reason, twin.last_id, twin.as_of, twin.since,
    ]  # fmt: skip
    for side, levels in enumerate(twin.levels()):
        px, sz = replay.book.levels(side)
        assert list(zip(px.tolist(), sz.tolist(), strict=True)) == [level[:2] for level in levels]
    assert_proof(replay, twin)


def assert_proof(replay: DepthReplay, twin: NaiveDepth) -> None:
    number, spans = replay.comparisons()["snapshot"][0]
    compared = twin.compared
    bad = [c for c in compared if not c.good]
    good = [c.at for c in compared[: compared.index(bad[0])] if c.good] if bad else [c.at for c in compared]
    assert number[[pk.P_STATES, pk.P_STATES_MATCHED, pk.P_LEVELS, pk.P_LEVELS_MATCHED]].tolist() == [
        len(compared), sum(c.good for c in compared), sum(c.levels for c in compared), sum(c.matched for c in compared),
    ]  # fmt: skip
    assert number[[pk.P_FIRST, pk.P_LAST]].tolist() == ([compared[0].at, compared[-1].at] if compared else [-1, -1])
    assert number[[pk.P_DIVERGED_AT, pk.P_LAST_GOOD]].tolist() == [bad[0].at if bad else -1, max(good, default=-1)]
    assert spans[: number[pk.P_SPANS]].tolist() == [list(span) for span in twin.wrong]
    integrity, counted = replay.comparisons()["integrity"]
    assert integrity.number[pk.P_STATES] - integrity.number[pk.P_STATES_MATCHED] == counted["crossed"] + counted["locked"]


# ---- Properties that need no twin


@generated
@given(feeds(), st.data())
def test_a_feed_that_ends_at_any_moment_gives_the_rows_up_to_it_unchanged(items, data):
    running, known = 0, []
    for at, item in enumerate(items):
        if item is not None:
            running = max(running, item.ts if item.cts == NO_TIME else item.cts)
            known.append((running, at))
    times = [time for time, _ in known] or [START_NS]
    moment = data.draw(st.sampled_from(times)) + data.draw(st.sampled_from((-1, 0, 1, SECOND)))
    # A bad line after the last message belongs to the message after it: nobody knows its time.
    kept = items[: max((at + 1 for time, at in known if time <= moment), default=0)]
    whole, part = replayed(items, stale_after_ns=SECOND), replayed(kept, stale_after_ns=SECOND)
    assert [row for row in whole[0] if row["time"] <= moment] == [row for row in part[0] if row["time"] <= moment]
    assert [row for row in whole[1] if row["clock"] <= moment] == part[1]


@fewer
@given(feeds())
def test_every_grid_time_of_the_windows_has_one_row(items):
    wanted = [time for start, end in WINDOWS for time in range(-(-start // SECOND) * SECOND, end, SECOND)]
    assert [row["time"] for row in replayed(items)[0]] == wanted


@fewer
@given(feeds(), st.integers(1, KEEP))
def test_fewer_levels_are_the_first_of_all_levels(items, depth):
    few, all_levels = replayed(items, depth=depth, depths=(depth,))[0], replayed(items, depth=depth, depths=(depth, KEEP))[0]
    assert few == all_levels


@fewer
@given(feeds(ids=False))
def test_rows_are_ordered_cut_to_the_feeds_depth_and_never_older_than_they_say(items):
    for row in replayed([item for item in items if item is not None])[0]:
        assert row["as_of"] <= row["time"]
        assert row["status"] in ("valid", "no_book")
        for side, sign in ((BID, -1), (ASK, 1)):
            prices = [sign * px for px, *_ in row["levels"][side::2] if px != UNDEF_PRICE]
            assert prices == sorted(set(prices))
            assert all((sz > 0) == (px != UNDEF_PRICE) for px, sz, *_ in row["levels"][side::2])


# ---- The rules, one by one


def test_an_outage_of_twenty_minutes_gives_twenty_rows_that_are_not_valid():
    start = START_NS - START_NS % MINUTE
    shift = (start - START_NS) / SECOND
    before = [snapshot(shift, 5, *BOOK)] + [message(shift + at, 5 + at, (BID, 99, at)) for at in range(1, 301)]
    after = [snapshot(shift + 300 + 20 * 60 + 1e-9 + at, 400 + at, *BOOK) for at in range(300)]
    grid, _, _ = replayed([*before, *after], windows=((start, start + 29 * MINUTE),), interval_ns=MINUTE, stale_after_ns=10 * SECOND)
    assert len(grid) == 29
    stale = [row for row in grid if row["status"] != "valid"]
    assert len(stale) == 20
    assert {(row["status"], row["reason"], row["since"]) for row in stale} == {("stale", "silence", before[-1].ts + 10 * SECOND)}
    assert {row["as_of"] for row in stale} == {before[-1].ts}


def test_a_day_of_minutes_has_1440_rows_from_midnight_whatever_the_feed_did():
    day = START_NS - START_NS % (24 * 60 * MINUTE)
    late = snapshot(0, 1, *BOOK)._replace(ts=day + 24 * 60 * MINUTE)
    for items in ([], [late], [snapshot(0, 1, *BOOK)]):
        grid, _, _ = replayed(items, windows=((day, day + 24 * 60 * MINUTE),), interval_ns=MINUTE)
        assert [row["time"] for row in grid] == list(range(day, day + 24 * 60 * MINUTE, MINUTE))
        assert grid[0]["status"] == "no_book"


def test_a_message_at_the_grid_time_is_in_its_row_and_a_later_one_is_not():
    grid, _, _ = replayed([snapshot(0, 5, *BOOK), message(1, 6, (BID, 99, 8)), message(1 + 1e-9, 7, (BID, 99, 9))])
    sizes = {(row["time"] - START_NS) // SECOND: row["levels"][0][1] // 1_000 for row in grid}
    assert [sizes[at] for at in (-1, 0, 1, 2)] == [0, 5, 8, 9]


def test_what_stands_when_a_window_begins_is_a_row_of_the_touch_and_what_comes_after_the_last_is_none():
    items = [snapshot(-5, 5, *BOOK), message(45, 6, (BID, 99, 8)), message(95, 7, (BID, 99, 9))]
    grid, touch, _ = replayed(items)
    assert [(row["update_id"], (row["clock"] - START_NS) // SECOND, row["sz"][0] // 1_000) for row in touch] == [(5, -5, 5), (6, 45, 8)]
    for start, _ in WINDOWS:
        first = next(row for row in grid if row["time"] >= start)
        stood = [row for row in touch if row["clock"] <= start][-1]
        assert (first["levels"][0][:2], first["levels"][1][:2]) == tuple(zip(stood["px"], stood["sz"], strict=True))
        assert (first["status"], first["as_of"]) == (stood["status"], stood["clock"])


def test_messages_after_the_last_window_are_compared_and_give_no_rows():
    later = (WINDOWS[-1][1] - START_NS) // SECOND + 100
    grid, touch, replay = replayed([snapshot(0, 5, *BOOK), message(60, 6, (BID, 99, 8)), snapshot(later, 6, (BID, 99, 8), *BOOK[1:])])
    assert grid[-1]["as_of"] == START_NS + 60 * SECOND
    assert [row["update_id"] for row in touch] == [5, 6]
    assert replay.comparisons()["snapshot"][0].number[[pk.P_STATES, pk.P_STATES_MATCHED, pk.P_LEVELS]].tolist() == [1, 1, 4]


def test_the_next_days_snapshot_tells_where_the_book_was_wrong():
    items = [snapshot(0, 5, *BOOK), message(1, 6, (ASK, 102, 9)), snapshot(2, 7, *BOOK)]
    number, spans = replayed(items)[2].comparisons()["snapshot"][0]
    scale, size = 10**PRICE_DIGITS, 10**SIZE_DIGITS
    assert number[[pk.P_STATES, pk.P_STATES_MATCHED, pk.P_LEVELS, pk.P_LEVELS_MATCHED, pk.P_SEQUENCE]].tolist() == [1, 0, 4, 3, 7]
    assert number[pk.P_DIFFERENCE : pk.P_DIFFERENCE + 8].tolist() == [ASK, 1, 102 * scale, 6 * size, -1, 102 * scale, 9 * size, -1]
    assert spans[0].tolist() == [START_NS, START_NS + 2 * SECOND]


def test_a_restart_and_a_jump_are_no_verdict_and_are_counted_apart():
    items = [snapshot(0, 5, *BOOK), snapshot(0.25, 1, *BOOK[:3]), message(1, 2, (BID, 99, 5)), snapshot(1.5, 20, *BOOK)]
    _, _, replay = replayed(items)
    proof, told = replay.comparisons()["snapshot"]
    assert proof.number[pk.P_STATES] == 0
    assert told == {
        "apart_compared": 2, "apart_matched": 0, "apart_levels_compared": 8, "apart_levels_matched": 6, "apart_ms_longest": 500,
        "suspect_compared": 0, "suspect_matched": 0,
    }  # fmt: skip
    assert replay.facts()["restarts"] == 1
    assert replay.status() == ("valid", "")


def test_a_restart_that_calls_itself_a_delta_replaces_the_book():
    _, _, replay = replayed([snapshot(0, 5, *BOOK), message(1, 1, (BID, 50, 1)), message(2, 1, (BID, 40, 1)), message(3, 2, (ASK, 60, 1))])
    facts = replay.facts()
    assert [facts[name] for name in ("restarts", "restart_deltas", "stale_ids", "gaps")] == [1, 1, 1, 0]
    assert (facts["bid_levels"], facts["ask_levels"], replay.status()) == (1, 1, ("valid", ""))


def test_ids_that_count_from_0_go_on_at_1_and_a_second_snapshot_1_is_another_restart():
    _, _, replay = replayed([snapshot(0, 0, *BOOK), message(1, 1, (BID, 97, 1))])
    assert [replay.facts()[name] for name in ("restarts", "restart_deltas", "bid_levels")] == [0, 0, 3]
    _, _, replay = replayed([snapshot(0, 1, *BOOK), snapshot(1, 1, *BOOK)])
    assert replay.comparisons()["snapshot"][0].number[pk.P_STATES] == 0
    assert [replay.facts()[name] for name in ("restarts", "apart_compared", "apart_matched")] == [1, 1, 1]


def test_a_gap_is_suspect_until_the_next_snapshot():
    grid, touch, replay = replayed([snapshot(0, 5, *BOOK), message(1, 7, (BID, 99, 6)), message(2, 8), snapshot(3, 8, *BOOK)])
    states = {(row["time"] - START_NS) // SECOND: (row["status"], row["reason"], row["since"]) for row in grid}
    gap = ("suspect", "gap", START_NS + SECOND)
    assert [states[at] for at in (0, 1, 2, 3)] == [("valid", "", START_NS), gap, gap, ("valid", "", START_NS + 3 * SECOND)]
    assert replay.comparisons()["snapshot"][1]["suspect_compared"] == 1
    assert [row["status"] for row in touch] == ["valid", "suspect", "valid"]


def test_a_bad_line_is_known_with_the_message_after_it_or_at_the_end():
    grid, touch, replay = replayed([snapshot(0, 5, *BOOK), None, message(2, 6), snapshot(3, 7, *BOOK), None], [2])
    states = {(row["time"] - START_NS) // SECOND: (row["status"], row["reason"]) for row in grid}
    assert [states[at] for at in (1, 2, 3, 4)] == [("valid", ""), *[("suspect", "quarantined")] * 3]
    assert replay.facts()["quarantined"] == 2
    assert [(row["status"], row["clock"], row["since"], row["update_id"]) for row in touch] == [
        (status, START_NS + at * SECOND, START_NS + at * SECOND, number)
        for status, at, number in (("valid", 0, 5), ("suspect", 2, 6), ("valid", 3, 7), ("suspect", 3, 7))
    ]
    # Only the status is another one.
    assert touch[-1] == touch[-2] | {"status": "suspect", "reason": "quarantined"}


def test_a_bad_line_is_known_with_a_message_that_does_not_count_too():
    grid, touch, _ = replayed([snapshot(0, 5, *BOOK), None, message(2, 5), message(4, 6)])
    states = {(row["time"] - START_NS) // SECOND: (row["status"], row["since"], row["as_of"]) for row in grid}
    assert (states[1], states[3]) == (("valid", START_NS, START_NS), ("suspect", START_NS + 2 * SECOND, START_NS))
    assert [(row["status"], row["clock"], row["since"], row["update_id"]) for row in touch[1:]] == [
        ("suspect", START_NS + 2 * SECOND, START_NS + 2 * SECOND, 5)
    ]


def test_strict_names_the_gap_and_applies_nothing_of_it():
    items = [snapshot(0, 5, *BOOK), message(1, 6), message(2, 9, (BID, 99, 1))]
    with pytest.raises(BookError, match=r"Line 2 \(from 0; byte 200\): update id 9 after 6: .*--on-book-error suspect"):
        replayed(items, strict=True)


@pytest.mark.parametrize("lengths", [[], [1], [2], [1, 1], [3], [1, 2]])
@pytest.mark.parametrize("after", [[], [message(2, 6)], [message(2, 5)], [message(2, 9)], [snapshot(2, 6, *BOOK)], [None]])
def test_strict_names_the_first_bad_line_of_a_valid_book_whatever_follows_it(lengths, after):
    with pytest.raises(BookError, match=r"^Line 1 \(from 0; byte 100\) could not be read \(malformed\): .*--on-book-error suspect"):
        replayed([snapshot(0, 5, *BOOK), None, *after], lengths, strict=True)


def test_strict_lets_bad_lines_pass_while_there_is_no_book():
    for items in ([None, message(0, 5), None, snapshot(1, 6, *BOOK), message(2, 7)], [None], [message(0, 5), None]):
        _, _, replay = replayed(items, [2], strict=True)
        assert replay.facts()["quarantined"] == items.count(None)
    replayed([None, snapshot(1, 6, *BOOK)], strict=True)


def test_deltas_before_the_first_snapshot_are_skipped():
    grid, touch, replay = replayed([message(0, 5, (BID, 99, 1)), message(1, 6, (ASK, 101, 1)), snapshot(2, 90, *BOOK)])
    assert replay.facts()["skipped"] == 2
    first = {(row["time"] - START_NS) // SECOND: row for row in grid}
    assert [first[1][name] for name in ("status", "reason", "as_of", "since")] == ["no_book", "no_snapshot", -1, START_NS]
    assert first[-1]["since"] == -1
    assert [row["update_id"] for row in touch] == [90]


# ---- Scales


def test_more_decimals_than_the_scale_stop_the_batch_before_anything_of_it_is_applied():
    replay = DepthReplay(depths=(2,), keep=KEEP, interval_ns=SECOND, windows=WINDOWS, price_digits=2, size_digits=1)
    list(replay.feed(batch_of([snapshot(0, 5, *BOOK)])))
    finer = message(1, 6)._replace(updates=(Update(BID, 5, 1, 0, 0), Update(BID, 5_000, 1, 3, 0), Update(BID, 5, 1, 0, 4)))
    with pytest.raises(ScaleTooSmall) as caught:
        list(replay.feed(batch_of([message(1, 6, (BID, 99, 1)), finer])))
    assert (caught.value.price_digits, caught.value.size_digits) == (3, 4)
    assert replay.facts()["messages"] == 1
    assert replay.facts()["best_bid"] == [9_900, 50]
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.price_digits, again.size_digits) == (3, 4)


@pytest.mark.parametrize(
    ("update", "words"),
    [
        (Update(BID, 2**62, 1, 0, 0), r"price 4611686018427387904 x 10\^-0 does not fit 64 bits in units of 10\^-2"),
        (Update(ASK, -(2**62), 1, 0, 0), r"price -4611686018427387904 x"),
        (Update(ASK, 1, 2**62, 0, 0), r"size 4611686018427387904 x 10\^-0 does not fit 64 bits in units of 10\^-1"),
        (Update(ASK, 1, -3, 0, 1), r"size -3 x 10\^-1; sizes are 0 or more"),
        (Update(ASK, UNDEF_PRICE, 3, 2, 1), r"largest is 9223372036854775806"),
    ],
)
def test_a_value_beyond_64_bits_names_its_line(update, words):
    replay = DepthReplay(depths=(2,), keep=KEEP, interval_ns=SECOND, windows=WINDOWS, price_digits=2, size_digits=1)
    items = [snapshot(0, 5, *BOOK), None, message(1, 6, (BID, 99, 1)), message(2, 7)._replace(updates=(Update(BID, 1, 1, 0, 0), update))]
    with pytest.raises(BookError, match=r"Line 3 \(from 0; byte 300, update id 7\): .*" + words):
        list(replay.feed(batch_of(items)))
    assert replay.facts()["messages"] == 0


def test_a_price_is_one_level_however_it_is_written_and_keeps_the_digits_of_the_last():
    two = message(1, 6)._replace(updates=(Update(BID, 99_000, 30, 3, 1), Update(ASK, 101_00, 0, 2, 0)))
    grid, _, _ = replayed([snapshot(0, 5, *BOOK), two])
    row = next(row for row in grid if row["time"] == START_NS + SECOND)
    scale, size = 10**PRICE_DIGITS, 10**SIZE_DIGITS
    assert row["levels"][:4] == [(99 * scale, 3 * size, 3, 1), (102 * scale, 6 * size, 0, 0), (98 * scale, 7 * size, 0, 0), (UNDEF_PRICE, 0, 0, 0)]


# ---- Room


def test_a_deep_book_that_moves_far_forgets_prices_and_no_level():
    random = np.random.default_rng(5)
    keep, items, middle = 700, [], 100_000
    for number in range(120):
        middle += int(random.integers(-300, 500))
        away = np.unique(random.integers(1, 3_000, 400))
        updates = [(BID, middle - int(a), int(s)) for a, s in zip(away, random.integers(0, 4, len(away)), strict=True)]
        updates += [(ASK, middle + int(a), int(s)) for a, s in zip(away, random.integers(0, 4, len(away)), strict=True)]
        items.append(message(number / 10, 5 + number, *updates, kind=DELTA if number else SNAPSHOT))
    grid, _, replay = replayed(items, [4] * 29, depth=keep, depths=(3, keep), keep=keep)
    twin = NaiveDepth(keep=keep, price_digits=PRICE_DIGITS, size_digits=SIZE_DIGITS, windows=WINDOWS).feed(items)
    assert grid == twin.grid(keep, SECOND, None)
    assert len(replay.book.arrays.prices) < 4 * depth_book.LEAST_PRICES < len({u.price for item in items for u in item.updates})


@pytest.mark.parametrize("most_ticks", [0, 8_192])
@pytest.mark.parametrize("price", [1, 95, 104, 5_000, 10**6])
def test_new_prices_beside_the_book_leave_its_levels_where_they_are(monkeypatch, most_ticks, price):
    monkeypatch.setattr(depth_book, "LEAST_ROOM", 0)
    monkeypatch.setattr(depth_book, "MOST_TICKS", most_ticks)
    side = BID if price < 100 else ASK
    items = [snapshot(0, 5, *BOOK), message(1, 6, (side, price, 1)), message(2, 7, (side, price, 0), (side, price + 1, 0), (BID, 99, 6))]
    _, _, replay = replayed(items, [1, 1])
    scale, size = 10**PRICE_DIGITS, 10**SIZE_DIGITS
    found = [dict(zip(*(values.tolist() for values in replay.book.levels(side)), strict=True)) for side in (BID, ASK)]
    assert found == [{99 * scale: 6 * size, 98 * scale: 7 * size}, {101 * scale: 4 * size, 102 * scale: 6 * size}]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"clock": "ts_event"}, UsageError), ({"depths": (1, KEEP + 1)}, UsageError), ({"depths": ()}, UsageError), ({"depths": (0,)}, UsageError),
        ({"interval_ns": 0}, ValueError), ({"windows": ((5, 5),)}, ValueError), ({"windows": ((5, 9), (8, 10))}, ValueError),
        ({"size_digits": 19}, ValueError), ({"price_digits": -1}, ValueError),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(options, error):
    with pytest.raises(error):
        replayed([], **options)


def test_messages_without_ids_are_not_checked_and_their_snapshots_prove_nothing():
    _, _, replay = replayed([snapshot(0, NO_ID, *BOOK), message(1, NO_ID), message(2, NO_ID), snapshot(3, NO_ID, *BOOK)])
    assert replay.status() == ("valid", "")
    assert replay.comparisons()["snapshot"][0].number[pk.P_STATES] == 0
    assert [replay.facts()[name] for name in ("apart_compared", "apart_matched", "last_update_id")] == [1, 1, NO_ID]


# ---- Real feeds


def real_feed(path: Path) -> list[Message]:
    """The lines of a Bybit archive, read the slow way."""
    with zipfile.ZipFile(path) as archive:
        lines = archive.read(archive.namelist()[0]).splitlines()
    items = []
    for line in filter(None, lines):
        told = json.loads(line)
        updates = [
            Update(side, *(int(text.replace(".", "")) for text in level), *(len(text.partition(".")[2]) for text in level))
            for side, name in ((BID, "b"), (ASK, "a"))
            for level in told["data"][name]
        ]
        cts = told["cts"] * 1_000_000 if "cts" in told else NO_TIME
        kind = SNAPSHOT if told["type"] == "snapshot" else DELTA
        items.append(Message(kind, told["ts"] * 1_000_000, cts, told["data"]["u"], told["data"]["seq"], tuple(updates)))
    return items


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "keep"),
    [
        ("linear/0200/BTCUSDT/2026-08-09_BTCUSDT_ob200.data.zip", 200), ("linear/0200/DOGEUSDT/2026-08-09_DOGEUSDT_ob200.data.zip", 200),
        ("spot/0200/BTCUSDT/2026-08-09_BTCUSDT_ob200.data.zip", 200), ("xrpusdt-ob500.data.zip", 500),
    ],
)  # fmt: skip
def test_real_books_equal_the_twins_and_are_never_doubtful_crossed_or_cut(real_data, name, keep):
    items = real_feed(real_data(f"bybit/{name}"))
    start = items[0].ts // SECOND * SECOND
    windows = ((start, items[-1].ts + 1),)
    options: dict[str, Any] = {"keep": keep, "price_digits": 9, "size_digits": 8}
    grid, touch, replay = replayed(items, [100] * 5, depth=keep, depths=(keep,), windows=windows, interval_ns=SECOND // 2, **options)
    twin = NaiveDepth(windows=windows, **options).feed(items)
    assert grid == twin.grid(keep, SECOND // 2, None)
    assert touch == twin.touches
    facts = replay.facts()
    assert {name: facts[name] for name in twin.counts} == twin.counts
    doubts = ("gaps", "stale_ids", "skipped", "crossed", "locked", "absent_deletes", "pruned")
    assert [facts[name] for name in doubts] == [0] * len(doubts)
    assert (facts["bid_levels"], facts["ask_levels"], facts["status"]) == (keep, keep, "valid")
