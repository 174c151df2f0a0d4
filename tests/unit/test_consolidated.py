"""The consolidated best bid and offer against its naive twin, its order of time, its stamps, and books rebuilt from events of two publishers."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.aggregation.consolidated import SymbolDay, consolidate, consolidated_partition, is_consolidated, symbol_days
from tasks.aggregation.task import consolidate_symbols
from tasks.errors import BookmillError, LakeConflict, SchemaMismatch, UsageError
from tasks.footers import read_facts
from tasks.partitions import MboRecipe, Partition, Stamp
from tasks.reconstruction.rebuild import rebuild
from tasks.schemas import BBO, CBBO, REASONS, STATUSES, UNDEF_PRICE
from tasks.storage import write_table
from tasks.work import PartitionsFailed, Work
from tests.lake_building import write_events
from tests.oracles import naive_consolidated
from tests.oracles.naive_consolidated import Touch
from tests.strategies.sessions import sessions
from tests.unit.test_replay import record
from validation.gate import run_gate

EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "150"))
DATE, SYMBOL = "2025-10-22", "ES/Z5"
EMPTY = (UNDEF_PRICE, 0, 0)
STAMP = Stamp("in", "recipe")
RECIPE = MboRecipe(interval_ns=60_000_000_000)
TIMES = ("ts_event", "ts_recv", "status_since")


def partition(publisher: int, dataset: str = "TEST") -> Partition:
    return Partition(dataset, DATE, SYMBOL, publisher, 10 + publisher)


def write_bbo(lake: Path, publisher: int, rows: list[Touch], stamp: Stamp = STAMP, dataset: str = "TEST") -> Partition:
    """The bbo layer of one publisher."""
    columns: dict[str, list] = {f.name: [0] * len(rows) for f in BBO}
    for name, of in (("ts_event", "ts_event"), ("ts_recv", "ts_recv"), ("as_of", "as_of"), ("status", "status"), ("reason", "reason")):
        columns[name] = [getattr(row, of) for row in rows]
    columns["status_since"] = [row.since for row in rows]
    for side in ("bid", "ask"):
        for place, kind in enumerate(("px", "sz", "ct")):
            columns[f"{side}_{kind}_00"] = [getattr(row, side)[place] for row in rows]
    columns["publisher_id"], columns["symbol"] = [publisher] * len(rows), [SYMBOL] * len(rows)
    where = partition(publisher, dataset)
    write_table(lake / where.path("bbo"), pa.table(columns, schema=BBO), stamp)
    return where


def rows_of(path: Path) -> list[dict]:
    """Rows of a cbbo without their symbol, times as integers."""
    table = pq.read_table(path, partitioning=None)
    assert table.schema.equals(CBBO)
    assert set(table["symbol"].to_pylist()) <= {SYMBOL}
    for name in TIMES:
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(pa.int64()))
    return table.drop(["symbol"]).to_pylist()


price = st.one_of(st.integers(-2, 2), st.just(UNDEF_PRICE))


@st.composite
def touches(draw, clock: str) -> list[Touch]:
    """Touch rows of one publisher: times that tie often, some late, some (on the venue clock) older than when they were known."""
    rows, now = [], 0
    for _ in range(draw(st.integers(0, 12))):
        own = draw(st.integers(0, 25))
        known = own + draw(st.sampled_from((0, 0, 0, 9))) if clock == "ts_event" else own
        now = max(now, known)
        sides = []
        for _ in range(2):
            px, sz, ct = draw(price), draw(st.integers(0, 3)), draw(st.integers(0, 2))
            sides.append(EMPTY if px == UNDEF_PRICE else (px, sz, ct))
        times = (own, draw(st.integers(0, 30))) if clock == "ts_event" else (draw(st.integers(0, 30)), own)
        since = draw(st.one_of(st.none(), st.integers(0, 3)))
        as_of = draw(st.sampled_from((now, known)))  # no replay steps back; should one, the running maximum counts
        rows.append(Touch(*times, as_of, *sides, draw(st.sampled_from(STATUSES)), draw(st.sampled_from(REASONS[:3])), since))
    return rows


@st.composite
def markets(draw) -> tuple[dict[int, list[Touch]], str]:
    clock = draw(st.sampled_from(("ts_event", "ts_recv")))
    ids = draw(st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=4, unique=True))
    return {publisher: draw(touches(clock)) for publisher in ids}, clock


@settings(max_examples=EXAMPLES, deadline=None)
@given(market=markets(), batch_rows=st.integers(1, 28))
def test_the_consolidated_touch_equals_the_naive_one_whatever_the_batches(tmp_path_factory, market, batch_rows):
    """1 to 28 rows in all publishers' batches together are 1 to 7 in each of four."""
    publishers, clock = market
    lake = tmp_path_factory.mktemp("lake")
    partitions = [write_bbo(lake, publisher, rows, dataset=f"D{publisher % 2}") for publisher, rows in publishers.items()]
    done = consolidate(lake, partitions, clock=clock, batch_rows=batch_rows)
    rows, facts = naive_consolidated.consolidated(publishers, clock)
    assert rows_of(lake / done.path) == rows
    assert done.facts == facts == read_facts(lake / done.path)


def test_the_bytes_depend_neither_on_the_batches_nor_on_the_order_of_the_publishers(tmp_path):
    rng, made = np.random.default_rng(3), set()
    at = np.sort(rng.integers(0, 50_000, (3, 20_000)))
    for batch_rows, order in ((50, (1, 2, 3)), (7_001, (3, 1, 2)), (65_536, (2, 3, 1))):
        lake = tmp_path / str(batch_rows)
        for publisher in (1, 2, 3):
            px = np.random.default_rng(publisher).integers(0, 3, (20_000, 2)).tolist()
            rows = [Touch(t - 5, t, t, (b, 1, 1), (a + 3, 2, 1), "valid", "", 0) for t, (b, a) in zip(at[publisher - 1].tolist(), px, strict=True)]
            write_bbo(lake, publisher, rows)
        done = consolidate(lake, [partition(p) for p in order], clock="ts_recv", batch_rows=batch_rows)
        made.add((lake / done.path).read_bytes())
    # More rows than one buffer of the kernel and than its smallest batches hold.
    assert (len(made), done.facts["rows_in"], done.facts["rows_out"] > 20_000) == (1, 60_000, True)


def test_a_touch_holds_until_the_next_row_of_its_publisher_and_ties_add_up(tmp_path):
    one = [Touch(1, 1, 1, (10, 5, 1), (12, 5, 1), "valid", "", 1), Touch(9, 9, 9, (11, 1, 1), (12, 5, 1), "valid", "", 1)]
    two = [Touch(2, 2, 2, (10, 7, 2), (12, 1, 1), "valid", "", 2), Touch(3, 3, 3, (10, 7, 2), (13, 1, 1), "valid", "", 2)]
    done = consolidate(tmp_path, [write_bbo(tmp_path, 2, two), write_bbo(tmp_path, 1, one)], clock="ts_recv")
    names = ("ts_recv", "bid_px", "bid_sz", "bid_ct", "bid_venues", "ask_sz", "ask_venues")
    shown = [tuple(row[name] for name in names) for row in rows_of(tmp_path / done.path)]
    assert shown == [(1, 10, 5, 1, [1], 5, [1]), (2, 10, 12, 3, [1, 2], 6, [1, 2]), (3, 10, 12, 3, [1, 2], 5, [1]), (9, 11, 1, 1, [1], 5, [1])]


def test_a_venue_that_joins_without_a_size_is_a_change(tmp_path):
    one = [Touch(1, 1, 1, (10, 5, 1), EMPTY, "valid", "", 1)]
    two = [Touch(2, 2, 2, EMPTY, EMPTY, "valid", "", 2), Touch(3, 3, 3, (10, 0, 0), EMPTY, "valid", "", 2)]
    done = consolidate(tmp_path, [write_bbo(tmp_path, 1, one), write_bbo(tmp_path, 2, two)], clock="ts_recv")
    assert [(r["ts_recv"], r["bid_sz"], r["bid_venues"]) for r in rows_of(tmp_path / done.path)] == [(1, 5, [1]), (2, 5, [1]), (3, 5, [1, 2])]


def test_a_publisher_without_a_usable_book_is_not_quoted_but_its_status_is_told(tmp_path):
    one = [
        Touch(1, 1, 1, (10, 5, 1), (12, 5, 1), "valid", "", 1),
        Touch(5, 5, 5, (10, 5, 1), (12, 5, 1), "suspect", "gap", 5),
        Touch(8, 8, 8, (10, 5, 1), (12, 5, 1), "valid", "", 8),
    ]
    two = [
        Touch(2, 2, 2, EMPTY, EMPTY, "no_book", "no_snapshot", 2),
        Touch(4, 4, 4, (11, 1, 1), (13, 1, 1), "halted", "halt", 4),
        Touch(6, 6, 6, (11, 1, 1), (11, 1, 1), "valid", "", 6),
    ]
    done = consolidate(tmp_path, [write_bbo(tmp_path, 1, one), write_bbo(tmp_path, 2, two)], clock="ts_recv")
    rows = rows_of(tmp_path / done.path)
    assert [(r["bid_px"], r["bid_venues"], r["venues"], r["status"], r["reason"], r["status_since"]) for r in rows] == [
        (10, [1], 1, "valid", "", 1),
        (10, [1], 1, "no_book", "no_snapshot", 2),
        (10, [1], 1, "halted", "halt", 4),
        (10, [1], 1, "suspect", "gap", 5),
        (11, [2], 2, "suspect", "gap", 5),
        (11, [2], 2, "valid", "", 8),
    ]
    assert (done.facts["locked"], done.facts["crossed"]) == (2, 0)


def test_a_snapshot_stands_where_it_was_known_however_old_its_orders_are(tmp_path):
    old = [Touch(5, 300, 300, (10, 1, 1), EMPTY, "valid", "", 300)]
    other = [Touch(100, 110, 100, (9, 1, 1), EMPTY, "valid", "", 100), Touch(200, 210, 200, (8, 1, 1), EMPTY, "valid", "", 100)]
    done = consolidate(tmp_path, [write_bbo(tmp_path, 1, old), write_bbo(tmp_path, 2, other)], clock="ts_event")
    assert [(r["ts_event"], r["bid_px"]) for r in rows_of(tmp_path / done.path)] == [(100, 9), (200, 8), (300, 10)]
    assert done.facts["late"] == 1


def test_done_work_is_found_done_and_changed_books_are_not(tmp_path):
    row = Touch(1, 1, 1, (10, 5, 1), EMPTY, "valid", "", 1)
    both = [write_bbo(tmp_path, 1, [row]), write_bbo(tmp_path, 2, [row])]
    assert not is_consolidated(tmp_path, both, clock="ts_recv")
    first = consolidate(tmp_path, both, clock="ts_recv")
    written = (tmp_path / first.path).stat()
    again = consolidate(tmp_path, [*both[::-1], replace(both[0])], clock="ts_recv")
    assert (first.skipped, again.skipped, again.facts) == (False, True, first.facts)
    assert (tmp_path / first.path).stat().st_mtime_ns == written.st_mtime_ns
    assert first.path == f"cbbo/dataset=consolidated/date={DATE}/symbol=ES%2FZ5/part-0-0.parquet"
    assert is_consolidated(tmp_path, both, clock="ts_recv")
    assert not is_consolidated(tmp_path, both, clock="ts_event")
    assert not is_consolidated(tmp_path, both[:1], clock="ts_recv")
    assert not is_consolidated(tmp_path, [both[0], write_bbo(tmp_path, 3, [row])], clock="ts_recv")  # the same stamps, another publisher
    write_bbo(tmp_path, 2, [row, row], Stamp("other", "recipe"))
    assert not is_consolidated(tmp_path, both, clock="ts_recv")
    assert consolidate(tmp_path, both, clock="ts_recv").facts["rows_in"] == 3


def test_what_cannot_be_consolidated_is_refused_and_nothing_is_written(tmp_path):
    row = Touch(1, 9, 9, (10, 5, 1), EMPTY, "valid", "", 1)
    one, two = write_bbo(tmp_path, 1, [row]), write_bbo(tmp_path, 2, [row])
    same = write_bbo(tmp_path, 1, [row], dataset="OTHER")
    with pytest.raises(LakeConflict, match=r"OTHER .* and TEST .* are two books of publisher 1"):
        consolidate(tmp_path, [one, two, same], clock="ts_recv")
    with pytest.raises(UsageError, match="one symbol and day; given: ES/Z5 2025-10-22, ES/Z5 2025-10-23"):
        consolidate(tmp_path, [one, replace(two, date="2025-10-23")], clock="ts_recv")
    with pytest.raises(UsageError, match="given: none"):
        consolidate(tmp_path, [], clock="ts_recv")
    with pytest.raises(UsageError, match="clock is 'ts'; allowed: ts_event, ts_recv"):
        consolidate(tmp_path, [one, two], clock="ts")
    with pytest.raises(BookmillError, match=r"part-3-13\.parquet is missing"):
        consolidate(tmp_path, [one, partition(3)], clock="ts_recv")
    assert not is_consolidated(tmp_path, [one, partition(3)], clock="ts_recv")
    write_bbo(tmp_path, 2, [row, row._replace(ts_recv=10)])
    with pytest.raises(SchemaMismatch, match="row 1: ts_recv lies after as_of"):
        consolidate(tmp_path, [one, two], clock="ts_recv", batch_rows=2)
    assert not list(tmp_path.rglob("cbbo/**/*.parquet"))


@pytest.mark.parametrize("touch", [(10, 2**62, 1), (10, 1, 2**31)])
def test_a_sum_that_does_not_fit_is_told_and_not_wrapped(tmp_path, touch):
    row = Touch(1, 1, 1, touch, touch, "valid", "", 1)
    with pytest.raises(BookmillError, match="do not fit into int64 and uint32, after 2 rows"):
        consolidate(tmp_path, [write_bbo(tmp_path, 1, [row]), write_bbo(tmp_path, 2, [row])], clock="ts_recv")


def test_symbols_and_days_of_two_publishers_are_found():
    one, two, next_day = partition(1), partition(2, "OTHER"), replace(partition(1), date="2025-10-23")
    twin = replace(one, instrument_id=99)  # another instrument of the same name and publisher: nothing to consolidate
    assert symbol_days([two, next_day, one, one]) == [SymbolDay((two, one))]
    assert symbol_days([one, twin]) == []
    assert consolidated_partition([two, one]) == Partition("consolidated", DATE, SYMBOL, 0, 0)


def by_publisher(session: np.ndarray) -> dict[int, np.ndarray]:
    return {int(p): session[session["publisher_id"] == p] for p in np.unique(session["publisher_id"])}


def test_after_a_gap_between_windows_every_publisher_is_quoted_as_it_stands(tmp_path):
    start = 1_761_091_200_000_000_000

    def book(publisher: int, *steps: tuple[int, str, int, int, int]) -> Partition:
        records = [record("R", ts=start + 1), *(record(action, "B", px, sz, of, ts=start + at) for at, action, px, sz, of in steps)]
        name = write_events(tmp_path, np.concatenate(records), partition(publisher))
        rebuild(tmp_path, partition(publisher), [name], RECIPE, windows=[(start, start + 10), (start + 20, start + 30)])
        return partition(publisher)

    # The best bid of publisher 2 goes between the windows; it has no event within the second, and publisher 1 but one.
    made = [book(1, (2, "A", 100, 5, 1), (21, "A", 100, 2, 2)), book(2, (3, "A", 101, 5, 1), (15, "C", 101, 5, 1), (16, "A", 90, 5, 2))]
    found = rows_of(tmp_path / consolidate(tmp_path, made, clock="ts_recv").path)
    told = [(row["ts_recv"] - start, row["bid_px"], row["bid_sz"], row["bid_venues"], row["venues"]) for row in found]
    assert told[-3:] == [(3, 101, 5, [2], 2), (20, 100, 5, [1], 2), (21, 100, 7, [1], 2)]


@settings(max_examples=max(1, EXAMPLES // 10), deadline=None)
@given(session=sessions(), clock=st.sampled_from(["ts_event", "ts_recv"]))
def test_books_rebuilt_from_two_publishers_consolidate_to_what_their_touches_say(tmp_path_factory, session, clock):
    lake, recipe, publishers = tmp_path_factory.mktemp("lake"), replace(RECIPE, clock=clock), {}
    for publisher, records in by_publisher(session).items():
        built = rebuild(lake, partition(publisher), [write_events(lake, records, partition(publisher))], recipe)
        table = pq.read_table(lake / built.outputs["bbo"][0], partitioning=None)
        for name in (*TIMES, "as_of"):
            table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(pa.int64()))
        publishers[publisher] = [
            Touch(
                r["ts_event"], r["ts_recv"], r["as_of"], *(tuple(r[f"{side}_{kind}_00"] for kind in ("px", "sz", "ct")) for side in ("bid", "ask")),
                r["status"], r["reason"], r["status_since"],
            )
            for r in table.to_pylist()
        ]  # fmt: skip
    done = consolidate(lake, [partition(p) for p in publishers], clock=clock)
    rows, facts = naive_consolidated.consolidated(publishers, clock)
    assert (rows_of(lake / done.path), done.facts) == (rows, facts)
    if rows:
        assert run_gate("consolidated", [lake / done.path], context={"clock": clock}).status == "ok"


def test_the_task_consolidates_each_symbol_and_tells_which_failed(tmp_path):
    row = Touch(1, 1, 1, (10, 5, 1), EMPTY, "valid", "", 1)
    good = SymbolDay((write_bbo(tmp_path, 1, [row]), write_bbo(tmp_path, 2, [row])))
    (done,) = consolidate_symbols.fn(str(tmp_path), (good,), "contents", RECIPE, "label", Work())
    assert (done.subject, done.rows, done.skipped, done.value.facts["rows_out"]) == ("consolidated ES/Z5 2025-10-22 p0-0", 2, False, 2)
    bad = SymbolDay(tuple(replace(p, symbol="NQZ5") for p in good.publishers))
    with pytest.raises(PartitionsFailed) as failed:
        consolidate_symbols.fn(str(tmp_path), (bad, good), "contents", RECIPE, "label", Work())
    assert [(o.subject.split()[1], bool(o.error), o.skipped) for o in failed.value.outcomes] == [("NQZ5", True, False), ("ES/Z5", False, True)]
