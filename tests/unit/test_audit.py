"""The audit of a book against its own orders: it finds every broken level, stops the rebuild, and is silent on what any feed can send."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.errors import BookBroken
from tasks.reconstruction.audit_kernels import audit
from tasks.reconstruction.book_kernels import BEST, TOP_LEVEL, TOUCHED, TOUCHED_ROOM, USED
from tasks.reconstruction.replay import Replay
from tasks.schemas import F_LAST, F_TOB, MBO_RECORD, UNDEF_PRICE
from tests.lake_building import columns_of
from tests.oracles.naive_book import NaiveBook
from tests.strategies.sessions import TICK, sessions
from tests.unit.test_replay import one_book, record

EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "60"))
generated = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])

FIVE = [("B", 100, 5), ("B", 100, 6), ("B", 100, 7), ("B", 99, 1), ("A", 101, 9)]


def fed(*records: np.ndarray, **options) -> Replay:
    """A replay after these records."""
    replay = Replay(depth=3, **options)
    for _ in replay.feed(columns_of(np.concatenate(records))):
        pass
    return replay


def five_orders(**options) -> Replay:
    """Orders 1, 2, 3 of sizes 5, 6, 7 at 100 and 4 at 99 on the bid, 5 at 101 on the ask."""
    return fed(record("R"), *(record("A", side, px, size, i) for i, (side, px, size) in enumerate(FIVE, 1)), **options)


def find(replay: Replay, all_levels: bool = True) -> int:
    """The place of a broken level, -1 none; of all levels, or of those touched since the last audit."""
    arrays = replay.book.arrays
    if all_levels:
        arrays.state[TOUCHED] = TOUCHED_ROOM + 1
    return audit(arrays, len(arrays.prices))


def order(replay: Replay, order_id: int) -> np.void:
    orders = replay.book.arrays.orders
    return orders[np.flatnonzero(orders["id"][: replay.book.arrays.state[USED]] == order_id)[0]]


def place_of(replay: Replay, order_id: int) -> int:
    one = order(replay, order_id)
    return int(one["side"]) * len(replay.book.arrays.prices) + int(one["level"])


def damage(replay: Replay, what: str, name: str, value: int) -> None:
    """Change a field of order 2, which stands in the middle of its queue, or of the level it is in."""
    (order(replay, 2) if what == "order" else replay.book.arrays.levels[place_of(replay, 2)])[name] = value


# The five orders stand at 0 to 4 of the pool; the bid's ladder is 99, 100, 101.
DAMAGES = [
    ("level", "size", 17), ("level", "size", 19), ("level", "size", 0), ("level", "size", -18), ("level", "count", 2), ("level", "count", 4),
    ("level", "count", 0), ("level", "count", -1), ("level", "head", 1), ("level", "head", 3), ("level", "head", -1), ("level", "tail", 1),
    ("level", "tail", -1), ("order", "size", 5), ("order", "size", 0), ("order", "size", -6), ("order", "side", 1), ("order", "level", 0),
    ("order", "prev", 2), ("order", "prev", -1), ("order", "next", 0), ("order", "next", 1), ("order", "next", 3), ("order", "next", -1),
]  # fmt: skip


@pytest.mark.parametrize(("what", "name", "value"), DAMAGES)
def test_every_kind_of_broken_level_is_found_and_no_other_is_named(what, name, value):
    replay = five_orders()
    assert find(replay) == -1
    expected = place_of(replay, 2)
    damage(replay, what, name, value)
    assert find(replay) == expected


@pytest.mark.parametrize(("what", "name", "value"), DAMAGES)
def test_the_rebuild_stops_at_the_event_that_touches_a_broken_level(what, name, value):
    replay = five_orders(audit_every=1)
    damage(replay, what, name, value)
    elsewhere, there = record("A", "A", 101, 1, 6), record("C", "B", 100, 2, 1)
    elsewhere["sequence"], there["sequence"] = 41, 42
    stream = replay.feed(columns_of(np.concatenate([elsewhere, there, elsewhere])))
    with pytest.raises(BookBroken, match=r"event 7 \(sequence 42.*not the sum of its orders.*report it"):
        list(stream)


def test_a_broken_level_is_found_at_the_next_audit_and_not_later_than_the_end():
    replay = five_orders(audit_every=4)
    damage(replay, "level", "size", 17)
    for _ in replay.feed(columns_of(record("A", "B", 100, 1, 7))):
        pass  # 7 event ends: the second audit is due after the next one
    with pytest.raises(BookBroken, match="event 7 "):
        list(replay.feed(columns_of(record("A", "A", 101, 1, 6))))
    late = five_orders(audit_every=1_000)
    damage(late, "level", "count", 4)
    with pytest.raises(BookBroken, match="At the end"):
        late.audit()


@pytest.mark.parametrize(("size", "cancel"), [(3, 6), (6, 6), (5, 5)])
def test_a_level_that_turns_negative_or_keeps_a_size_without_orders_stops_at_the_end_of_its_event(size, cancel):
    replay = fed(record("R"), record("A", "B", 100, 6, 1), record("A", "B", 99, 1, 2), audit_every=1_000)
    replay.book.arrays.levels[place_of(replay, 1)]["size"] = size - (size == cancel)
    part = [record("C", "B", 100, cancel - 1, 1, flags=0), record("N")]
    if size == 5:
        replay.book.arrays.levels[place_of(replay, 1)]["size"] = 4
    with pytest.raises(BookBroken, match="event 4 "):
        list(replay.feed(columns_of(np.concatenate(part))))


def test_an_audit_looks_at_the_levels_touched_since_the_last_one_only():
    replay = five_orders(audit_every=1)
    damage(replay, "level", "size", 17)
    assert find(replay, all_levels=False) == -1
    assert find(replay) >= 0


def tob(side: str, price: int, size: int) -> np.ndarray:
    return record("A", side, price, size, flags=F_TOB | F_LAST)


@pytest.mark.parametrize("field", ["size", "count"])
def test_the_level_of_a_top_of_book_record_is_audited_with_it(field):
    replay = fed(record("R"), tob("B", 100, 9), record("A", "B", 100, 2, 1), record("A", "B", 98, 2, 2), audit_every=1)
    assert replay.book.levels(0) == [(100, 11, 2), (98, 2, 1)]
    assert find(replay) == -1
    arrays = replay.book.arrays
    place = int(arrays.state[TOP_LEVEL])
    assert place == arrays.state[BEST]
    arrays.levels[place][field] += 1
    assert find(replay) == place


@generated
@given(sessions(publishers=1), st.integers(1, 7), st.integers(1, 9))
def test_no_session_breaks_the_book_whatever_is_wrong_in_it(records, batch, audit_every):
    """Batches of few records widen the ladder in the middle of events; damaged sessions hold top-of-book records."""
    records = one_book(records)
    replay, columns = Replay(depth=3, audit_every=audit_every), columns_of(records)
    for at in range(0, len(records), batch):
        for _ in replay.feed({name: values[at : at + batch] for name, values in columns.items()}):
            pass
        assert find(replay) == -1
    book = NaiveBook(3)
    for one in records:
        book.apply(one)
    assert [replay.book.levels(side) for side in range(2)] == [book.levels("B"), book.levels("A")]


@generated
@given(st.lists(st.tuples(st.sampled_from("BA"), st.integers(0, 5), st.integers(0, 4), st.sampled_from(("tob", "none", "add", "cancel", "move")))))
def test_top_of_book_records_between_orders_never_break_the_book(steps):
    rows = [record("R")]
    for i, (side, price, size, kind) in enumerate(steps, 1):
        if kind in ("tob", "none"):
            rows.append(tob(side, UNDEF_PRICE if kind == "none" else price * TICK, size))
        else:
            rows.append(record({"add": "A", "cancel": "C", "move": "M"}[kind], side, price * TICK, size, i if kind == "add" else max(i - price, 1)))
    replay, book = Replay(depth=3, audit_every=1), NaiveBook(3)
    for row in rows:  # a batch each: the ladder widens under the top-of-book level
        for _ in replay.feed(columns_of(row)):
            pass
        book.apply(row[0])
        assert find(replay) == -1
    assert [replay.book.levels(side) for side in range(2)] == [book.levels("B"), book.levels("A")]


def test_a_pool_that_grows_in_the_middle_of_an_event_and_a_ladder_that_widens_there_leave_the_book_whole():
    n = 40_000  # more than the pool has room for at first, all in one event
    rows = np.zeros(n, MBO_RECORD)
    rows["action"], rows["order_id"], rows["size"] = ord("A"), np.arange(1, n + 1), 1 + np.arange(n) % 7
    rows["side"] = np.where(np.arange(n) % 2, ord("B"), ord("A"))
    rows["price"] = TICK * np.where(np.arange(n) % 2, 3_000 - np.arange(n) % 2_999, 3_001 + np.arange(n) * 7 % 3_001)
    rows[-1]["flags"] = F_LAST
    replay, columns = Replay(depth=3, batch_rows=4_096, audit_every=1), columns_of(rows)
    for _ in replay.feed(columns_of(record("R"))):
        pass
    for at in range(0, n, 4_096):
        for _ in replay.feed({name: values[at : at + 4_096] for name, values in columns.items()}):
            pass
    assert find(replay) == -1
    assert len(replay.book.resting_orders()["size"]) == n
    replay.book.arrays.levels[int(replay.book.arrays.state[BEST])]["size"] += 1
    assert find(replay) == replay.book.arrays.state[BEST]
