"""The order-by-order replay against its naive twin, on generated sessions, valid and damaged."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.errors import BookError
from tasks.reconstruction.book_kernels import COUNTERS
from tasks.reconstruction.replay import Replay
from tasks.schemas import F_LAST, F_SNAPSHOT, MBO_RECORD, REASONS, STATUSES, UNDEF_PRICE
from tests.lake_building import columns_of
from tests.oracles.naive_book import ANOMALIES, NaiveBook
from tests.sampled import sampled_levels
from tests.strategies.sessions import sessions

EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "200"))
generated = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
DEPTH = 3


def run(records: np.ndarray, *, batch: int = 1 << 16, **options):
    """All samples of a replay as lists of plain tuples, and the replay."""
    replay = Replay(depth=DEPTH, batch_rows=max(batch, 1), **{"audit_every": 1, **options})
    rows, bbo, grid, trades = [], [], [], []
    columns = columns_of(records)

    def level_rows(buffer, n, times):
        px, sz, ct = sampled_levels(buffer, n)
        for r in range(n):
            levels = tuple((int(px[k, r]), int(sz[k, r]), int(ct[k, r])) for k in range(px.shape[0]))
            yield (*times(r), STATUSES[buffer.status[r]], REASONS[buffer.reason[r]], levels)

    def take(samples, offset):
        rows.extend(level_rows(samples.rows, samples.n_rows, lambda r: (offset + int(samples.rows.at[r]),)))
        bbo.extend(level_rows(samples.bbo, samples.n_bbo, lambda r: (offset + int(samples.bbo.at[r]),)))
        grid.extend(level_rows(samples.grid.rows, samples.n_grid, lambda r: (int(samples.grid.time[r]), int(samples.grid.as_of[r]))))
        for r in range(samples.n_trades):
            trades.append((offset + int(samples.trades.at[r]), *samples.trades.touch[:, r].tolist()))

    for at in range(0, len(records), batch):
        for samples in replay.feed({name: values[at : at + batch] for name, values in columns.items()}):
            take(samples, at)
    for samples in replay.finish():
        take(samples, 0)
    return rows, bbo, grid, trades, replay


def naive_levels(book: NaiveBook, depth: int) -> tuple:
    sides = [book.levels(side, depth) + [(UNDEF_PRICE, 0, 0)] * depth for side in ("B", "A")]
    return tuple(sides[side][level] for level in range(depth) for side in range(2))


def at_most_500_rows(records: np.ndarray, interval: int) -> int:
    times = np.concatenate([records["ts_recv"], records["ts_event"]]).astype(np.int64)
    return max(interval, int(times.max() - times.min()) // 500 + 1)


def one_book(records: np.ndarray) -> np.ndarray:
    return records[records["publisher_id"] == records["publisher_id"][0]]


@generated
@given(sessions(), st.booleans())
def test_every_event_end_shows_the_same_levels_status_and_reason_as_the_naive_book(records, starts_empty):
    records = one_book(records)
    rows, _, _, _, replay = run(records, starts_empty=starts_empty)
    book, expected = NaiveBook(DEPTH, starts_empty), []
    for i, record in enumerate(records):
        book.apply(record)
        book.consistent()
        if book.event_end:
            expected.append((i, book.status, book.reason, naive_levels(book, DEPTH)))
    assert rows == expected
    counters = replay.book.counters()
    assert {name: counters[name] for name in ANOMALIES} == book.counters
    assert [replay.book.levels(side) for side in range(2)] == [book.levels("B"), book.levels("A")]
    assert sum(counters[name] for name in COUNTERS[:7]) == len(records), "each record is counted under exactly one action"


@generated
@given(sessions())
def test_orders_rest_in_the_same_priority_order_as_in_the_naive_book(records):
    records = one_book(records)
    replay = run(records)[-1]
    book = NaiveBook(DEPTH)
    for record in records:
        book.apply(record)
    expected = [
        (ord(side), price, order_id, size)
        for side in ("B", "A")
        for price in sorted(book.queues[side], reverse=side == "B")
        for order_id, size in book.queue(price, side)
    ]
    orders = replay.book.resting_orders()
    found = list(zip(*(orders[name].tolist() for name in ("side", "price", "order_id", "size")), strict=True))
    assert found == expected


@generated
@given(sessions(), st.integers(1, 7), st.integers(1, 2_000_000_000))
def test_output_does_not_depend_on_how_the_input_is_cut_into_batches(records, batch, interval):
    records = one_book(records)
    interval = at_most_500_rows(records, interval)
    whole, cut = run(records, interval_ns=interval), run(records, batch=batch, interval_ns=interval)
    assert whole[:4] == cut[:4]


@generated
@given(sessions(), st.integers(1, 100_000_000), st.sampled_from(["ts_recv", "ts_event"]))
def test_a_grid_row_holds_the_last_complete_event_at_or_before_its_time_and_no_time_is_missing(records, interval, clock):
    records = one_book(records)
    snapshot = (records["flags"] & F_SNAPSHOT) != 0
    times = np.maximum.accumulate(np.where(snapshot, records["ts_recv"], records[clock]).astype(np.int64))
    interval = at_most_500_rows(records, interval)
    _, _, grid, _, _ = run(records, interval_ns=interval, clock=clock)
    first, last = -(-int(times[0]) // interval), -(-int(times[-1]) // interval)
    assert [row[0] for row in grid] == [k * interval for k in range(first, last + 1)]
    for at, as_of, status, reason, levels in grid:
        ends = [i for i in range(len(records)) if times[i] <= at and records["flags"][i] & F_LAST]
        book = NaiveBook(DEPTH)
        for record in records[: ends[-1] + 1 if ends else 0]:
            book.apply(record)
        assert (as_of, status, reason, levels) == (int(times[ends[-1]]) if ends else -1, book.status, book.reason, naive_levels(book, DEPTH))


@generated
@given(sessions(), st.integers(0, 60))
def test_cutting_the_input_off_changes_no_row_before_the_cut(records, keep):
    records = one_book(records)
    keep = min(keep, len(records))
    interval = at_most_500_rows(records, 50_000_000)
    whole, cut = run(records, interval_ns=interval), run(records[:keep], interval_ns=interval) if keep else ([], [], [], [])
    for full, part in zip(whole[:2], cut[:2], strict=False):
        assert full[: len(part)] == part
    if keep and keep < len(records):
        limit = int(records["ts_recv"][keep])  # grid rows before the next record are final
        assert [r for r in whole[2] if r[0] < limit][: len(cut[2])] == [r for r in cut[2] if r[0] < limit]


@generated
@given(sessions())
def test_bbo_has_a_row_exactly_where_the_touch_or_the_status_changes(records):
    rows, bbo, _, _, _ = run(one_book(records))
    expected, last = [], None
    for at, status, reason, levels in rows:
        if (status, reason, levels[:2]) != last:
            last = (status, reason, levels[:2])
            expected.append((at, status, reason, levels[:2]))
    assert bbo == expected


@generated
@given(sessions())
def test_trades_carry_the_touch_before_their_own_event(records):
    records = one_book(records)
    trades = run(records)[3]
    book, expected = NaiveBook(DEPTH), []
    touch = naive_levels(book, 1)
    for i, record in enumerate(records):
        if record["action"] == ord("T"):
            (bid, bid_size, _), (ask, ask_size, _) = touch
            expected.append((i, bid, ask, bid_size, ask_size))
        book.apply(record)
        if book.event_end:
            touch = naive_levels(book, 1)
    assert trades == expected


def record(action, side="N", price=UNDEF_PRICE, size=0, order_id=0, flags=F_LAST, ts=0):
    row = np.zeros(1, MBO_RECORD)
    row["action"], row["side"], row["price"], row["size"] = ord(action), ord(side), price, size
    row["order_id"], row["flags"], row["ts_event"], row["ts_recv"] = order_id, flags, ts, ts
    return row


def test_strict_replay_names_the_order_and_the_remedy():
    records = np.concatenate([record("R"), record("A", "B", 100, 3, 7), record("C", "B", 100, 5, 7)])
    with pytest.raises(BookError, match=r"Event 2 \(order 7.*over cancel.*--on-book-error suspect"):
        run(records, strict=True)


def test_a_book_of_many_orders_and_prices_grows_and_keeps_every_order():
    n = 60_000
    rng = np.random.default_rng(5)
    records = np.zeros(n + 1, MBO_RECORD)
    records["flags"] = F_LAST
    records["action"], records["side"] = ord("A"), np.where(np.arange(n + 1) % 2, ord("B"), ord("A"))
    records["order_id"] = rng.permutation(n + 1).astype(np.uint64) * np.uint64(0x1_0000_0001)
    records["size"] = rng.integers(1, 2**31, n + 1)
    records["price"] = rng.integers(-(2**40), 2**40, n + 1)
    records[0] = record("R")[0]
    replay = run(records, batch=4_096)[-1]
    resting = replay.book.resting_orders()
    assert sorted(resting["order_id"].tolist()) == sorted(records["order_id"][1:].tolist())
    by_id = dict(zip(records["order_id"].tolist(), zip(records["price"].tolist(), records["size"].tolist(), strict=True), strict=True))
    assert all(by_id[i] == (p, s) for i, p, s in zip(*(resting[k].tolist() for k in ("order_id", "price", "size")), strict=True))


def test_output_windows_restrict_rows_but_not_the_book():
    records = np.concatenate(
        [record("R", ts=0), record("A", "B", 100, 3, 7, ts=10), record("A", "B", 101, 1, 8, ts=25), record("A", "A", 105, 1, 9, ts=40)]
    )
    rows, bbo, grid, _, _ = run(records, interval_ns=10, windows=[(20, 40)])
    assert [r[0] for r in rows] == [2]
    # At 20, where the window opens, the touch of 10 stands; its row is no record's.
    assert [r[1:] for r in bbo] == [("valid", "", ((100, 3, 1), (UNDEF_PRICE, 0, 0))), ("valid", "", ((101, 1, 1), (UNDEF_PRICE, 0, 0)))]
    assert [(r[0], r[1], r[4][0][0]) for r in grid] == [(20, 10, 100), (30, 25, 101)]


def test_a_quarantined_row_makes_the_book_suspect_from_there_to_the_next_clear():
    records = np.concatenate([record("R"), record("A", "B", 100, 3, 7), record("A", "B", 101, 3, 8), record("R"), record("A", "B", 100, 3, 7)])
    replay = Replay(depth=1)
    (samples,) = replay.feed(columns_of(records), np.array([2]))
    assert [(STATUSES[s], REASONS[r]) for s, r in zip(samples.rows.status[:5], samples.rows.reason[:5], strict=True)] == [
        ("valid", ""), ("valid", ""), ("suspect", "quarantined"), ("valid", ""), ("valid", ""),
    ]  # fmt: skip
