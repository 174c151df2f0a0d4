"""Generated sessions are exact in size, the same for the same spec, valid by the rules of the book, and end where their facts say."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numba
import numpy as np
import pytest

from tasks.errors import StorageError, UsageError
from tasks.scanning.synthetic import Session, SessionFacts, SessionSpec, generate
from tasks.scanning.synthetic_writers import generate_files, write_session
from tasks.schemas import F_BAD_TS_RECV, F_LAST, F_MAYBE_BAD_BOOK, F_SNAPSHOT, UNDEF_PRICE
from tests.oracles.naive_book import NaiveBook

SMALL = SessionSpec(records=12_000, live_orders=600)
MANY = SessionSpec(records=9_000, seed=5, symbols=("ESZ5", "NQZ5", "CLZ5", "ZNZ5"), publishers=(1, 2), live_orders=200)
SPECS = {
    "plain": SMALL,
    "snapshot": replace(SMALL, seed=2, snapshot_start=True),
    "no clear": replace(SMALL, seed=3, mid_clear=False),
    "fine ticks": replace(SMALL, seed=4, tick=1, open_price=10),
    "many": MANY,
    "many from a snapshot": replace(MANY, snapshot_start=True, zipf=0.3),
}


def collect(spec: SessionSpec, batch_records: int = 262_144) -> tuple[np.ndarray, SessionFacts]:
    session = Session(spec)
    return np.concatenate(list(session.batches(batch_records))), session.facts()


@pytest.fixture(scope="module", params=SPECS, ids=lambda name: name.replace(" ", "_"))
def session(request):
    spec = SPECS[request.param]
    return spec, *collect(spec)


def books_of(spec: SessionSpec) -> dict[tuple[int, int], NaiveBook]:
    return {(i, p): NaiveBook() for i in spec.instrument_ids for p in spec.publishers}


def assert_facts_match(facts: SessionFacts, books: dict[tuple[int, int], NaiveBook]) -> None:
    assert len(facts.books) == len(books)
    for fact in facts.books:
        book = books[fact.instrument_id, fact.publisher_id]
        bids, asks = book.levels("B"), book.levels("A")
        empty = (UNDEF_PRICE, 0, 0)
        assert (len(bids), len(asks), len(book.orders)) == (fact.bid_levels, fact.ask_levels, fact.live_orders)
        assert (bids[:1] or [empty])[0][:2] == (fact.bid_px, fact.bid_sz)
        assert (asks[:1] or [empty])[0][:2] == (fact.ask_px, fact.ask_sz)


@pytest.mark.parametrize("batch_records", [1_000, 97])
def test_records_do_not_depend_on_the_batch_size(batch_records):
    spec = replace(SMALL, records=5_000, gap=True)
    batches = list(generate(spec, batch_records))
    assert {len(b) for b in batches[:-1]} == {batch_records}
    assert np.concatenate(batches).tobytes() == collect(spec)[0].tobytes()


def test_the_seed_chooses_the_session():
    one, again, other = (collect(replace(SMALL, records=3_000, seed=seed))[0].tobytes() for seed in (7, 7, 8))
    assert one == again != other


@pytest.mark.parametrize("records", [1, 2, 11, 500, 3_001])
@pytest.mark.parametrize("options", [{}, {"snapshot_start": True}, {"gap": True, "symbols": ("A", "B", "C")}])
def test_a_session_has_exactly_the_records_asked_for_and_ends_with_its_event(records, options):
    rows, facts = collect(SessionSpec(records=records, **options))
    assert len(rows) == facts.records == records
    assert rows["flags"][-1] & F_LAST


def test_the_naive_book_finds_no_anomaly_no_crossing_and_the_same_end(session):
    spec, rows, facts = session
    books = books_of(spec)
    for row in rows:
        book = books[int(row["instrument_id"]), int(row["publisher_id"])]
        book.apply(row)
        assert book.status == "valid" or row["flags"] & F_SNAPSHOT
        assert not (book.event_end and book.crossed())
    for book in books.values():
        book.consistent()
        assert not any(book.counters.values())
    assert_facts_match(facts, books)


def test_fills_take_the_first_order_of_the_touch_and_add_up_to_the_trade(session):
    spec, rows, _ = session
    books, trades = books_of(spec), 0
    ends = np.flatnonzero(rows["flags"] & F_LAST) + 1
    for event in np.split(rows, ends[:-1]):
        book = books[int(event["instrument_id"][0]), int(event["publisher_id"][0])]
        filled = event[event["action"] == ord("F")]
        assert filled["size"].sum() == event["size"][event["action"] == ord("T")].sum()
        trades += len(filled) > 0
        taken = []
        for row in event:
            if len(filled) and row["action"] in b"CM":
                side, price = chr(row["side"]), int(row["price"])
                assert price == book.levels(side, 1)[0][0]
                first, size = book.queue(price, side)[0]
                taken.append((first, int(row["size"]) if row["action"] == ord("C") else size - int(row["size"])))
                assert first == row["order_id"]
            book.apply(row)
        assert taken == [(int(f["order_id"]), int(f["size"])) for f in filled]
    assert trades > 0.01 * len(rows)


def test_records_of_an_event_share_times_and_sequence_and_time_never_runs_back(session):
    spec, rows, facts = session
    plain = rows[rows["flags"] & F_SNAPSHOT == 0]
    inside = np.flatnonzero(plain["flags"][:-1] & F_LAST == 0)
    inside = inside[plain["action"][inside] != ord("R")]
    for name in ("ts_event", "ts_recv", "ts_in_delta", "sequence", "instrument_id", "publisher_id"):
        assert (plain[name][inside] == plain[name][inside + 1]).all()
    assert (np.diff(rows["ts_recv"].astype(np.int64)) >= 0).all()
    assert (np.diff(rows["sequence"].astype(np.int64)) >= 0).all()
    assert (np.diff(plain["ts_event"].astype(np.int64)) >= 0).all()
    assert (plain["ts_recv"] > plain["ts_event"]).all()
    assert plain["ts_event"].min() >= spec.start_ns
    assert spec.end_ns - 600_000_000_000 < int(plain["ts_event"].max()) < spec.end_ns
    assert (facts.first_ts, facts.last_ts) == (rows["ts_recv"][0], rows["ts_recv"][-1])


def test_facts_count_what_was_written(session):
    _, rows, facts = session
    letters, counts = np.unique(rows["action"], return_counts=True)
    assert {a: n for a, n in facts.actions.items() if n} == {chr(a): n for a, n in zip(letters, counts, strict=True)}
    assert facts.event_ends == np.count_nonzero(rows["flags"] & F_LAST)
    assert facts.volume == rows["size"][rows["action"] == ord("T")].sum()


def test_order_ids_rise_with_gaps_and_no_id_is_given_twice(session):
    _, rows, _ = session
    added = rows["order_id"][(rows["action"] == ord("A"))].astype(np.int64)
    assert len(np.unique(added)) == len(added)
    assert (np.diff(added) > 0).all()
    assert (np.diff(added) > 10).any()
    assert added[0] > 6_412_777_000_000


def test_the_mix_of_records_is_that_of_a_futures_session():
    _, facts = collect(SessionSpec(records=40_000, live_orders=3_000))
    share = {action: n / facts.records for action, n in facts.actions.items()}
    for action, low, high in (("A", 0.30, 0.46), ("C", 0.22, 0.36), ("M", 0.12, 0.24), ("T", 0.03, 0.07), ("F", 0.06, 0.14)):
        assert low < share[action] < high, action
    assert 0.72 < facts.event_ends / facts.records < 0.88
    assert facts.actions["N"] > 0
    assert facts.books[0].bid_levels + facts.books[0].ask_levels > 250


def test_an_opening_has_an_auction_print_without_a_side_and_a_clear_comes_half_way():
    rows, _ = collect(SMALL)
    clears = np.flatnonzero(rows["action"] == ord("R"))
    assert clears[0] == 0
    assert len(clears) == 2
    assert abs(clears[1] - len(rows) // 2) < 400
    auction = rows[(rows["action"] == ord("T")) & (rows["side"] == ord("N"))]
    assert len(auction) == 1
    assert auction["order_id"][0] == 0


def test_a_snapshot_start_is_a_clear_and_old_adds_of_which_the_last_ends_it():
    rows, _ = collect(SPECS["snapshot"])
    head = rows[rows["flags"] & F_SNAPSHOT > 0]
    assert bytes(head["action"]) == b"R" + b"A" * (len(head) - 1)
    assert (head["flags"] & F_BAD_TS_RECV > 0).all()
    assert np.flatnonzero(head["flags"] & F_LAST).tolist() == [len(head) - 1]
    assert (head["ts_event"] < SPECS["snapshot"].start_ns).all()
    assert np.array_equal(rows[: len(head)], head)


@pytest.mark.parametrize("spec", [replace(SMALL, gap=True), replace(MANY, gap=True)], ids=["one", "many"])
def test_lost_messages_make_books_suspect_until_the_snapshot_that_repairs_them(spec):
    rows, facts = collect(spec)
    books, reasons, unknown = books_of(spec), set(), 0
    for row in rows:
        book = books[int(row["instrument_id"]), int(row["publisher_id"])]
        book.apply(row)
        reasons.add(book.reason)
    unknown = sum(sum(book.counters.values()) for book in books.values())
    assert np.count_nonzero(rows["flags"] & F_MAYBE_BAD_BOOK) > 0
    assert reasons & {"unknown_id", "maybe_bad_book"}
    assert unknown > 0
    assert {book.status for book in books.values()} == {"valid"}
    assert_facts_match(facts, books)


def test_two_thousand_symbols_are_as_active_as_zipf_says_and_each_has_its_book():
    spec = SessionSpec(records=40_000, symbols=tuple(f"S{i:04d}" for i in range(2_000)), mid_clear=False)
    rows, facts = collect(spec)
    books = books_of(spec)
    for row in rows:
        books[int(row["instrument_id"]), 1].apply(row)
    assert not any(any(book.counters.values()) for book in books.values())
    assert_facts_match(facts, books)
    ids, counts = np.unique(rows["instrument_id"], return_counts=True)
    assert len(ids) == 2_000
    assert counts[0] > 1.5 * counts[1] > 1.5 * counts[9]


@pytest.mark.parametrize(
    "wrong",
    [
        {"records": 0}, {"tick": -1}, {"hours": 0}, {"publishers": ()}, {"symbols": ()}, {"symbols": ("A", "A")}, {"symbols": ("A,B",)},
        {"date": "22.10.2025"}, {"records": 3_500_000_001}, {"seed": -1}, {"date": "1969-12-31"}, {"date": "2262-01-01"}, {"date": "0001-01-01"},
        {"symbols": tuple(f"S{i}" for i in range(100_001))},
    ],
    ids=lambda wrong: " ".join(wrong),
)  # fmt: skip
def test_a_spec_that_cannot_be_generated_is_refused(wrong):
    (name,) = wrong
    with pytest.raises(UsageError, match=name.removesuffix("s")):
        SessionSpec(**wrong)


@pytest.mark.parametrize("date", ["1970-01-01", "2261-12-31"])
def test_the_first_and_the_last_day_and_any_seed_can_be_generated(date):
    rows, _ = collect(SessionSpec(records=100, date=date, seed=2**80))
    assert len(rows) == 100
    assert str(rows["ts_event"][0].astype("datetime64[ns]"))[:10] == date


def test_files_come_with_their_facts_beside_them(tmp_path):
    spec = replace(SMALL, records=2_000)
    path, facts = generate_files(spec, tmp_path, "dbn.zst")
    assert path == tmp_path / "glbx-mdp3-20251022.mbo.dbn.zst"
    beside = json.loads((tmp_path / f"{path.name}.facts.json").read_text())
    assert (beside["records"], beside["volume"], beside["books"][0]["bid_px"]) == (2_000, facts.volume, facts.books[0].bid_px)
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, f"{path.name}.facts.json"]


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "taken").mkdir()
    for format in ("dbn.zst", "parquet", "csv"):
        with pytest.raises(StorageError, match="taken"):
            write_session(replace(SMALL, records=800), tmp_path / "taken", format)
    with pytest.raises(UsageError, match=r"dbn\.zst"):
        write_session(SMALL, tmp_path / "x", "xlsx")
    with pytest.raises(UsageError, match="version"):
        write_session(SMALL, tmp_path / "x", "dbn", version=4)
    with pytest.raises(UsageError, match="room for 21"):
        write_session(replace(SMALL, symbols=("S" * 22,)), tmp_path / "x", "dbn", version=1)
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="a rate of the compiled code")
def test_rate(tmp_path):
    for format in ("dbn", "dbn.zst", "csv"):
        write_session(SMALL, tmp_path / "warm", format)
        start = time.perf_counter()
        facts = write_session(SessionSpec(records=300_000), tmp_path / "session", format)
        print(f"{format}: {facts.records / (time.perf_counter() - start) / 1e6:.1f}M records/s written")
        assert facts.records == 300_000
