"""Certificates against naive ones: snapshots in mid-day, opening books, fills; what is no truth is not called one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tasks.footers import read_facts
from tasks.partitions import Partition
from tasks.reconstruction.certify import certify, is_certified
from tasks.reconstruction.rebuild import rebuild
from tasks.reconstruction.replay import Replay
from tasks.schemas import CERTIFICATE, F_LAST, F_SNAPSHOT, F_TOB, UNDEF_PRICE
from tests.certificates import (
    CLEAR,
    RECIPE,
    certified,
    damaged,
    feeds,
    generated,
    only,
    records_of,
    row_of,
    write_published,
)
from tests.lake_building import PARTITION, columns_of, write_events
from tests.oracles import naive_certificate as naive
from tests.oracles.naive_book import NaiveBook
from tests.strategies.sessions import TICK

Order = tuple[str, int, int, int]  # side, price, order id, size


def orders_in(book: NaiveBook) -> list[Order]:
    """The resting orders by side, level from the touch, and place in the queue."""
    prices = [(side, price) for side in "BA" for price in sorted(book.queues[side], reverse=side == "B")]
    return [(side, price, i, size) for side, price in prices for i, size in book.queue(price, side)]


class Snapshots:
    """What a naive book says of the snapshots of a session: (time, good) of those that met a valid book, counts, and wrong spans."""

    def __init__(self, records: np.ndarray) -> None:
        self.compared: list[naive.Verdict] = []
        self.spans: list[tuple[int | None, int | None]] = []
        self.counts = dict.fromkeys(("levels", "levels_matched", "orders_compared", "orders_matched", "queues_equal"), 0)
        self.suspect = [0, 0]
        book, before, inside, right, nothing_yet, began = NaiveBook(), None, False, None, True, False
        for i, rec in enumerate([*records, None]):
            snapshot = rec is not None and bool(rec["flags"] & F_SNAPSHOT)
            if began and rec is not None and not snapshot and rec["action"] != ord("R"):  # no LAST at its end
                right, began = self._end(before, book, int(records["ts_recv"][:i].max()), right), False
            if began and rec is not None and not snapshot:
                began = False
            if snapshot and (not inside or rec["action"] == ord("R")):
                known = book.status in ("valid", "suspect") and not nothing_yet
                before, began = (orders_in(book), book.status, book.reason) if known else None, True
            if rec is None:
                break
            book.apply(rec)
            if began and snapshot and book.event_end:
                right, began = self._end(before, book, int(records["ts_recv"][: i + 1].max()), right), False
            inside = snapshot
            nothing_yet = nothing_yet and chr(rec["action"]) in "RN"

    def _end(self, before: Any, book: NaiveBook, now: int, right: int | None) -> int:
        if before is not None:
            orders, status, reason = before
            counts = naive.compare_whole(orders, orders_in(book))
            good = counts["levels"] == counts["levels_matched"]
            if status == "suspect":
                self.suspect[0] += 1
                self.suspect[1] += good
            else:
                self.compared.append((now, good))
                for name in self.counts:
                    self.counts[name] += counts[name]
            if (not good and status == "valid") or (status == "suspect" and reason in ("unknown_id", "over_cancel", "duplicate_id", "side_change")):
                self.spans.append((right, now))
        return now


@generated
@given(st.data(), st.integers(1, 7))
def test_snapshots_are_compared_with_the_whole_book_before_them(data, batch_rows):
    records = data.draw(feeds())
    for _ in range(data.draw(st.integers(0, 2))):
        records = data.draw(damaged(records))
    if data.draw(st.booleans()):  # the last LAST of a snapshot is missing
        at = data.draw(st.integers(0, len(records) - 1))
        records = records.copy()
        records["flags"][at] &= ~np.uint8(F_LAST)
    with tempfile.TemporaryDirectory() as folder:
        lake = Path(folder)
        rebuild(lake, PARTITION, [write_events(lake, records)], RECIPE, batch_rows=batch_rows)
        rows = [row for row in certified(lake).rows if row["truth"] == "snapshot"]
        row = only(certified(lake), "snapshot") if rows else None
    expected = Snapshots(records)
    if not expected.compared and not expected.suspect[0]:
        assert row is None
        return
    assert row is not None
    assert (row["states_compared"], row["states_matched"]) == (len(expected.compared), sum(good for _, good in expected.compared))
    assert (row["levels_compared"], row["levels_matched"]) == (expected.counts["levels"], expected.counts["levels_matched"])
    assert [row["detail"][k] for k in ("orders_compared", "orders_matched", "queues_equal")] == list(expected.counts.values())[2:]
    assert [row["detail"][k] for k in ("suspect_compared", "suspect_matched")] == expected.suspect
    assert row["wrong"] == expected.spans
    assert row["verdict"] == ("diverged" if expected.spans else "matched" if expected.compared else "no_truth")
    if expected.compared:
        assert (row["first_compared"], row["last_compared"]) == (expected.compared[0][0], expected.compared[-1][0])


SNAP = F_SNAPSHOT


def test_a_snapshot_broken_off_by_a_clear_proves_nothing(tmp_path):
    records = records_of(
        (*CLEAR, 1), ("A", "B", TICK, 1, 1, F_LAST, 2), ("R", "N", UNDEF_PRICE, 0, 0, SNAP, 2), ("A", "B", TICK, 9, 1, SNAP, 2), (*CLEAR, 3),
        ("A", "B", TICK, 5, 5, F_LAST, 4),
    )  # fmt: skip
    rebuild(tmp_path, PARTITION, [write_events(tmp_path, records)], RECIPE)
    certificate = certified(tmp_path)
    assert (certificate.verdict, [row["truth"] for row in certificate.rows if row["truth"] != "integrity"]) == ("no_truth", ["none"])


def test_a_snapshot_of_which_a_row_was_set_aside_proves_nothing_and_a_row_set_aside_before_one_makes_the_book_before_it_suspect(tmp_path):
    snapshot = [("R", "N", UNDEF_PRICE, 0, 0, SNAP, 1), ("A", "B", TICK, 1, 1, SNAP, 1), ("A", "B", 2 * TICK, 1, 2, SNAP | F_LAST, 1)]
    day = records_of((*CLEAR, 1), *(("A", "B", k * TICK, 1, k, F_LAST, k) for k in (1, 2)), *snapshot, ("N", "N", UNDEF_PRICE, 0, 0, F_LAST, 7))
    # Of the snapshot in rows 3 to 5: an order, its LAST; and without its R, its first order.
    unsaid = day.copy()
    unsaid["action"][3], unsaid["flags"][3] = ord("N"), F_LAST
    for name, records, gone in (("order", day, 4), ("last", day, 5), ("first", unsaid, 4)):
        lake = tmp_path / name
        rebuild(lake, PARTITION, [write_events(lake, np.delete(records, gone), suspect_rows=[gone])], RECIPE)
        assert "snapshot" not in {row["truth"] for row in certified(lake).rows}, name
        lake = tmp_path / f"{name}-opening"
        rebuild(lake, PARTITION, [write_events(lake, np.delete(records, gone)[3:], suspect_rows=[gone - 3])], RECIPE)
        assert read_facts(lake / PARTITION.path("opening_book"))["ns"] == -1, name
    rebuild(tmp_path, PARTITION, [write_events(tmp_path, np.delete(day, 2), suspect_rows=[2])], RECIPE)
    row = only(certified(tmp_path), "snapshot")  # what was set aside is the order that it has and the book has not
    assert (row["states_compared"], row["detail"]["suspect_compared"], row["verdict"]) == (0, 1, "no_truth")


def test_a_snapshot_right_after_the_clear_with_which_a_day_begins_is_an_opening_book_and_not_held_against_nothing(tmp_path):
    records = records_of(("R", "N", UNDEF_PRICE, 0, 0, 8, 1), ("A", "B", TICK, 1, 1, SNAP, 2), ("A", "B", 2 * TICK, 1, 2, SNAP | F_LAST, 2))
    rebuild(tmp_path, PARTITION, [write_events(tmp_path, records)], RECIPE)
    assert {row["truth"] for row in certified(tmp_path).rows} <= {"none", "integrity"}
    replay = Replay(depth=1)
    for _ in replay.feed(columns_of(records)):
        pass
    assert replay.opening()[1]["ns"] == int(records["ts_recv"][2])


def test_a_wrong_span_between_snapshots_ends_at_the_snapshot_that_shows_it(tmp_path):
    def snapshot(*orders: tuple[int, int]) -> list[tuple]:
        return [
            ("R", "N", UNDEF_PRICE, 0, 0, SNAP, 1),
            *(("A", "B", price * TICK, 1, i, SNAP | (F_LAST * (k + 1 == len(orders))), 1) for k, (i, price) in enumerate(orders)),
        ]

    first = [("A", "B", k * TICK, 1, k, F_LAST, k) for k in (1, 2)]
    records = records_of(
        (*CLEAR, 1), *first, *snapshot((2, 2), (1, 1)), ("A", "B", 3 * TICK, 1, 3, F_LAST, 5), *snapshot((3, 3), (2, 2)),
        ("N", "N", UNDEF_PRICE, 0, 0, F_LAST, 7),
        *snapshot((3, 3), (2, 2)),
    )  # fmt: skip
    times = records["ts_recv"].astype(int).tolist()
    rebuild(tmp_path, PARTITION, [write_events(tmp_path, records)], RECIPE)
    row = only(certified(tmp_path), "snapshot")
    assert (row["states_compared"], row["states_matched"], row["verdict"]) == (3, 2, "diverged")
    assert row["wrong"] == [(times[5], times[9])]


def test_a_book_found_suspect_late_was_wrong_since_the_last_truth(tmp_path):
    snapshot = [("R", "N", UNDEF_PRICE, 0, 0, SNAP, 1), ("A", "B", TICK, 1, 1, SNAP | F_LAST, 1)]
    records = records_of(
        (*CLEAR, 1), ("A", "B", TICK, 1, 1, F_LAST, 2), *snapshot, ("N", "N", UNDEF_PRICE, 0, 0, F_LAST, 3),
        ("C", "B", 5 * TICK, 1, 7, F_LAST, 4), *snapshot,
    )  # fmt: skip
    times = records["ts_recv"].astype(int).tolist()
    rebuild(tmp_path, PARTITION, [write_events(tmp_path, records)], RECIPE)
    row = only(certified(tmp_path), "snapshot")
    assert (row["states_compared"], row["detail"]["suspect_compared"], row["detail"]["suspect_matched"]) == (1, 1, 1)
    assert (row["verdict"], row["wrong"]) == ("diverged", [(times[3], times[7])])


NEXT_DAY = Partition(PARTITION.dataset, "2025-10-23", PARTITION.symbol, 1, 1)


@generated
@given(feeds(), st.data())
def test_the_opening_snapshot_is_compared_with_the_closing_book_of_the_day_before(day, data):
    book = NaiveBook()
    for rec in day:
        book.apply(rec)
    closing = orders_in(book)
    if not closing:
        return
    opening = [list(order) for order in closing]
    change = data.draw(st.sampled_from(["none", "size", "id", "less", "order"]))
    at = data.draw(st.integers(0, len(opening) - 1))
    if change in ("size", "id"):
        opening[at][{"id": 2, "size": 3}[change]] += 1_000
    elif change == "less":
        del opening[at]
    elif change == "order":
        opening.reverse()
    if not opening:
        return
    rows = [("A", side, price, size, i, SNAP | (F_LAST * (k + 1 == len(opening))), 1) for k, (side, price, i, size) in enumerate(opening)]
    records = records_of(*rows, ("N", "N", UNDEF_PRICE, 0, 0, F_LAST, 2))
    for name in ("ts_recv", "ts_event"):
        records[name] += 86_400 * 10**9
    after = NaiveBook()
    for rec in records[: len(rows)]:
        after.apply(rec)
    with tempfile.TemporaryDirectory() as folder:
        lake = Path(folder)
        rebuild(lake, PARTITION, [write_events(lake, day)], RECIPE)
        rebuild(lake, NEXT_DAY, [write_events(lake, records, NEXT_DAY)], RECIPE)
        certificate = certify(lake, NEXT_DAY, RECIPE, day_before=PARTITION.path("closing_book"))
        row = only(certificate, "opening")
        there = is_certified(lake, NEXT_DAY, RECIPE, PARTITION.path("closing_book"))
        again = certify(lake, NEXT_DAY, RECIPE, day_before=PARTITION.path("closing_book"))
    counts = naive.compare_whole(closing, orders_in(after))
    assert there
    assert again.skipped
    assert again.rows == certificate.rows
    good = counts["levels"] == counts["levels_matched"]
    if book.status == "no_book":
        return
    assert (row["levels_compared"], row["levels_matched"]) == (counts["levels"], counts["levels_matched"])
    assert {k: row["detail"][k] for k in ("orders_compared", "orders_matched", "queues_equal")} == {
        k: v for k, v in counts.items() if "levels" not in k
    }
    assert (row["verdict"], certificate.verdict) == (("matched", "matched") if good else ("diverged", "diverged"))


def test_levels_of_top_of_book_records_are_a_part_of_the_closing_and_of_the_opening_book(tmp_path):
    top = F_TOB | F_LAST
    day = records_of((*CLEAR, 1), ("A", "B", TICK, 5, 0, top, 2), ("A", "A", 2 * TICK, 6, 0, top, 3))
    rebuild(tmp_path, PARTITION, [write_events(tmp_path, day)], RECIPE)
    for size, verdict in ((6, "matched"), (7, "diverged")):
        opening = records_of(("A", "B", TICK, 5, 0, SNAP | F_TOB, 1), ("A", "A", 2 * TICK, size, 0, SNAP | top, 1))
        for name in ("ts_recv", "ts_event"):
            opening[name] += 86_400 * 10**9
        rebuild(tmp_path, NEXT_DAY, [write_events(tmp_path, opening, NEXT_DAY)], RECIPE)
        row = only(certify(tmp_path, NEXT_DAY, RECIPE, day_before=PARTITION.path("closing_book")), "opening")
        assert (row["verdict"], row["levels_compared"], row["levels_matched"]) == (verdict, 2, 1 + (verdict == "matched"))


@generated
@given(st.data())
def test_fills_are_held_against_the_orders_that_rest(data):
    records = data.draw(feeds())
    for _ in range(data.draw(st.integers(0, 2))):
        records = data.draw(damaged(records))
    book, compared = NaiveBook(), []
    for i, rec in enumerate(records):
        if rec["action"] == ord("F") and book.status == "valid" and rec["order_id"]:
            resting = book.orders.get(int(rec["order_id"]))
            compared.append((int(records["ts_recv"][: i + 1].max()), resting is not None and resting[0] == chr(rec["side"])))
        book.apply(rec)
    with tempfile.TemporaryDirectory() as folder:
        lake = Path(folder)
        rebuild(lake, PARTITION, [write_events(lake, records)], RECIPE)
        certificate = certified(lake)
    rows = [row for row in certificate.rows if row["truth"] == "fills"]
    assert bool(rows) == bool(compared)
    if rows:
        row = only(certificate, "fills")
        assert (row["states_compared"], row["states_matched"]) == (len(compared), sum(good for _, good in compared))
        assert row["wrong"] == naive.wrong_spans(compared)


def test_without_a_truth_nothing_is_called_matched_and_integrity_alone_is_no_pass(tmp_path):
    records = records_of((*CLEAR, 1), ("A", "B", TICK, 1, 1, F_LAST, 2), ("A", "A", 2 * TICK, 1, 2, F_LAST, 3))
    rebuild(tmp_path, PARTITION, [write_events(tmp_path, records)], RECIPE)
    certificate = certified(tmp_path)
    assert certificate.verdict == "no_truth"
    assert [(row["truth"], row["verdict"]) for row in certificate.rows] == [("integrity", "matched"), ("none", "no_truth")]
    assert only(certificate, "none")["states_compared"] == 0
    assert pa.Table.from_pylist(certificate.rows, schema=CERTIFICATE).num_rows == 2
    write_published(tmp_path, [row_of(records[1], "A", {"B": [], "A": []}, 1)], "mbp-1", 1)
    assert certified(tmp_path).verdict == "diverged", "a new truth makes a new certificate"
