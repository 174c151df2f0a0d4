"""The oracle itself: each rule of the book by example, its own consistency on any stream, and a real end state that somebody else published."""

from __future__ import annotations

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings

from tasks.schemas import F_BAD_TS_RECV, F_LAST, F_MAYBE_BAD_BOOK, F_SNAPSHOT, F_TOB, MBO_RECORD, REASONS, STATUSES, UNDEF_PRICE
from tests.oracles.naive_book import NaiveBook, replay
from tests.strategies.sessions import sessions

SNAPSHOT = F_SNAPSHOT | F_BAD_TS_RECV


def send(book: NaiveBook, action: str, side: str = "N", price: int = UNDEF_PRICE, size: int = 0, order_id: int = 0, flags: int = F_LAST) -> None:
    book.apply({"action": ord(action), "side": ord(side), "price": price, "size": size, "order_id": order_id, "flags": flags})
    book.consistent()


@pytest.fixture
def book():
    """Three orders at 100 (ids 1, 2, 3 of sizes 5, 6, 7) and one at 99 on the bid, one at 101 on the ask."""
    book = NaiveBook()
    send(book, "R")
    for order_id, (side, price, size) in enumerate([("B", 100, 5), ("B", 100, 6), ("B", 100, 7), ("B", 99, 1), ("A", 101, 9)], start=1):
        send(book, "A", side, price, size, order_id)
    return book


def test_levels_run_from_the_touch_outwards(book):
    assert book.levels("B") == [(100, 18, 3), (99, 1, 1)]
    assert book.levels("A", 10) == [(101, 9, 1)]
    assert book.levels("B", 1) == [(100, 18, 3)]


def test_a_cancel_takes_the_size_and_keeps_the_place(book):
    send(book, "C", "B", 100, 2, 1)
    assert book.queue(100, "B") == [(1, 3), (2, 6), (3, 7)]
    send(book, "C", "B", 100, 3, 1)
    assert book.queue(100, "B") == [(2, 6), (3, 7)]
    send(book, "C", "B", 99, 1, 4)
    assert book.levels("B") == [(100, 13, 2)]
    assert (book.status, sum(book.counters.values())) == ("valid", 0)


@pytest.mark.parametrize(
    ("price", "size", "queue"), [(100, 4, [1, 2, 3]), (100, 5, [1, 2, 3]), (100, 6, [2, 3, 1]), (99, 5, [4, 1]), (100, 0, [2, 3])]
)
def test_a_modify_keeps_the_place_only_at_its_price_and_not_larger(book, price, size, queue):
    send(book, "M", "B", price, size, 1)
    assert [order_id for order_id, _ in book.queue(price, "B")] == queue
    assert book.status == "valid"


@pytest.mark.parametrize(
    ("record", "anomaly", "reason"),
    [
        (("C", "B", 100, 1, 77), "unknown_cancel", "unknown_id"),
        (("M", "B", 100, 1, 77), "unknown_modify", "unknown_id"),
        (("C", "B", 100, 6, 1), "over_cancel", "over_cancel"),
        (("A", "B", 98, 1, 1), "duplicate_add", "duplicate_id"),
        (("M", "A", 102, 5, 1), "side_change", "side_change"),
    ],
)
def test_an_anomaly_is_counted_and_the_first_reason_stays_until_a_clear(book, record, anomaly, reason):
    send(book, *record)
    assert book.counters == {**dict.fromkeys(book.counters, 0), anomaly: 1}
    assert (book.status, book.reason) == ("suspect", reason)
    send(book, "N", flags=F_LAST | F_MAYBE_BAD_BOOK)
    assert (book.status, book.reason) == ("suspect", reason)
    send(book, "R")
    assert (book.status, book.reason) == ("valid", "")


def test_what_the_book_does_on_anomalies(book):
    send(book, "C", "B", 100, 99, 1)  # more than is there: gone
    assert book.queue(100, "B") == [(2, 6), (3, 7)]
    send(book, "A", "B", 100, 8, 2)  # a duplicate replaces the old one, at the tail
    assert book.queue(100, "B") == [(3, 7), (2, 8)]
    send(book, "M", "B", 100, 2, 50)  # unknown: an add
    assert book.queue(100, "B") == [(3, 7), (2, 8), (50, 2)]
    send(book, "M", "A", 101, 4, 3)  # other side: its tail
    assert book.queue(101, "A") == [(5, 9), (3, 4)]
    before = dict(book.orders)
    send(book, "C", "B", 100, 1, 999)
    assert book.orders == before


def test_trades_fills_and_none_leave_the_book_but_their_last_counts(book):
    before = dict(book.orders)
    for action in "TFN":
        send(book, action, "A", 100, 5, 1, 0)
        assert not book.event_end
        send(book, action, "A", 100, 5, 1, F_LAST)
        assert book.event_end
    assert book.orders == before


def test_a_top_of_book_row_replaces_the_side_and_is_no_order(book):
    send(book, "A", "B", 98, 40, 5, F_TOB | F_LAST)
    assert (book.levels("B"), book.queue(98, "B"), len(book.orders)) == ([(98, 40, 1)], [], 1)
    assert book.levels("A") == [(101, 9, 1)]
    send(book, "A", "B", 98, 2, 60)
    assert book.levels("B") == [(98, 42, 2)]
    send(book, "A", "B", UNDEF_PRICE, 0, 0, F_TOB | F_LAST)
    assert book.levels("B") == []


def test_without_a_clear_there_is_no_book_and_anomalies_are_only_counted():
    book = NaiveBook()
    send(book, "C", "B", 100, 1, 7)
    send(book, "A", "B", 100, 1, 8, F_LAST | F_MAYBE_BAD_BOOK)
    assert (book.status, book.reason, book.counters["unknown_cancel"]) == ("no_book", "no_snapshot", 1)
    assert book.levels("B") == [(100, 1, 1)]
    assert NaiveBook(starts_empty=True).status == "valid"


@pytest.mark.parametrize("leading_clear", [True, False])
def test_a_snapshot_clears_at_its_start_and_is_valid_at_its_last(book, leading_clear):
    if leading_clear:
        send(book, "R", flags=SNAPSHOT)
    send(book, "A", "B", 90, 1, 1, SNAPSHOT)
    assert (book.status, book.reason, len(book.orders)) == ("no_book", "no_snapshot", 1)
    send(book, "A", "A", 91, 1, 2, SNAPSHOT | F_LAST)
    assert (book.status, book.reason, len(book.orders), book.counters["duplicate_add"]) == ("valid", "", 2, 0)


def test_a_snapshot_without_its_last_is_complete_at_the_first_last_after_it(book):
    send(book, "A", "B", 90, 1, 1, SNAPSHOT)
    send(book, "A", "B", 90, 1, 2, 0)
    assert book.status == "no_book"
    send(book, "A", "B", 90, 1, 3)
    assert (book.status, len(book.orders)) == ("valid", 3)


@settings(max_examples=60, deadline=None)
@given(sessions(corrupt=False))
def test_sessions_of_the_strategy_are_valid(rows):
    for book in replay(rows).values():
        book.consistent()
        assert not any(book.counters.values())
        assert book.status in ("valid", "no_book")  # no_book: the session ends within a snapshot
        assert not (book.event_end and book.crossed())


@settings(max_examples=80, deadline=None)
@given(sessions())
def test_any_stream_leaves_a_consistent_book_with_a_known_status(rows):
    books: dict[int, NaiveBook] = {}
    for row in rows:
        book = books.setdefault(int(row["publisher_id"]), NaiveBook())
        book.apply(row)
        book.consistent()
        assert book.status in STATUSES
        assert book.reason in REASONS
        assert (book.status == "valid") == (book.reason == "")


def test_the_real_day_ends_as_published(real_data):
    name = "databento/esh4-glbx-mdp3-20231225.mbo.dbn.zst"
    data = zstandard.ZstdDecompressor().stream_reader(real_data(name).read_bytes()).read()
    rows = np.frombuffer(data[8 + int.from_bytes(data[4:8], "little") :], MBO_RECORD)
    (book,) = replay(rows).values()
    book.consistent()
    bids, asks = book.levels("B"), book.levels("A")
    assert (len(bids), len(asks), len(book.orders)) == (922, 565, 11_217)
    assert (bids[0][:2], asks[0][:2]) == ((4_810_000_000_000, 22), (4_810_250_000_000, 28))
    assert (book.status, any(book.counters.values())) == ("valid", False)
