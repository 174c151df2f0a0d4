"""Status travels: from the event that makes a book doubtful into every layer, with its reason and its start, until it ends and no further.

A naive account of the records is compared with bbo, mbp (events and grid), trades, bars and features; then each kind of doubt by itself, what
on_book_error="fail" says of it, and where it is counted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.aggregation.aggregate import aggregate
from tasks.errors import BookError
from tasks.events_file import events_sink, to_table
from tasks.partitions import CLOCKS, MboRecipe, Stamp, digest
from tasks.publishing.ledger import check, collect
from tasks.reconstruction.book_at import book_at
from tasks.reconstruction.layer_writer import ANOMALY_NAMES
from tasks.reconstruction.quick_heat import QuickHeat
from tasks.reconstruction.rebuild import rebuild
from tasks.scanning.decode import decode
from tasks.scanning.inventory import scan
from tasks.schemas import F_LAST, F_MAYBE_BAD_BOOK, F_SNAPSHOT, MBO_RECORD, UNDEF_PRICE
from tests.lake_building import PARTITION, columns_of, write_events
from tests.oracles.naive_bars import WORSE
from tests.oracles.naive_status import NaiveAccount, facts_of
from tests.strategies import itch_messages as itch
from tests.strategies import windowed
from tests.strategies.sessions import START_NS, sessions
from tests.strategies.source_files import NEW_YORK_MIDNIGHT, Feed
from tests.unit.test_look_ahead import names, rows_of
from tests.unit.test_replay import one_book
from tests.unit.test_twin_campaign import disturb

EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "200"))
MILLISECOND = 1_000_000
State = tuple[str, str, int | None]


def made(lake: Path, records: np.ndarray, recipe: MboRecipe, marks: Sequence[int] = (), trading_states: bool = False):
    """Layers by name, and the facts of the rebuild, of an events file with these facts."""
    columns = columns_of(records)
    name = PARTITION.path("events", "0123456789")
    with events_sink(lake / name) as sink:
        sink.write(to_table(columns, PARTITION.symbol))
        facts = {
            "rows_in": len(records) + len(marks), "rows_out": len(records), "filtered": {}, "quarantined": len(marks), "suspect_rows": list(marks),
            "first_ts_recv": int(columns["ts_recv"][0]), "last_ts_recv": int(columns["ts_recv"][-1]), "trading_states": trading_states,
        }  # fmt: skip
        sink.commit(Stamp(digest([records.tobytes().hex(), list(marks), trading_states]), "test"), facts)
    rebuilt = rebuild(lake, PARTITION, [name], recipe)
    aggregates = aggregate(lake, PARTITION, recipe)
    paths = {**{layer: path for layer, (path, _) in rebuilt.outputs.items()}, **{layer: PARTITION.path(layer) for layer in aggregates}}
    return {layer: rows_of(lake / path) for layer, path in paths.items()}, rebuilt.facts


def state_of(row: dict[str, Any]) -> State:
    return row["status"], row["reason"], row["status_since"]


def account_of(records: np.ndarray, marks: list[int], clock: str, **rules: bool) -> tuple[list[tuple[int, State]], list[State], dict[str, int]]:
    """(time, state) after each complete event, the state before each trade's event, and how often each anomaly was seen."""
    account, ends, trades, now = NaiveAccount(1, **rules), [], [], 0
    for i, record in enumerate(records):
        now = max(now, int(record["ts_recv" if record["flags"] & F_SNAPSHOT else clock]))
        if record["action"] == ord("T"):
            trades.append((*account.shown, account.since if i else now))
        account.apply(record, now, marks.count(i))
        if record["flags"] & F_LAST:
            ends.append((now, (*account.shown, account.since)))
    return ends, trades, {name: count for name, count in facts_of(account).items() if name in ANOMALY_NAMES}


@settings(max_examples=max(5, EXAMPLES // 8), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    sessions(), st.lists(st.tuples(st.integers(0, 59), st.integers(1, 9)), max_size=2),
    st.lists(st.tuples(st.integers(0, 59), st.integers(0, 2)), max_size=3), st.lists(st.integers(0, 59), max_size=2, unique=True),
    st.sampled_from(CLOCKS), st.sampled_from((1, 700_000, 2 * MILLISECOND, None)), st.booleans(),
)  # fmt: skip
def test_every_layer_tells_the_status_of_a_naive_account(tmp_path_factory, records, gaps, states, marks, clock, stale, contiguous):
    records = disturb(one_book(records), gaps, states)
    records = records[~((records["action"] == ord("T")) & (records["price"] == UNDEF_PRICE))]
    marks = sorted(m for m in marks if m < len(records))
    if not len(records):
        return
    recipe = MboRecipe(
        depth=2, interval_ns=MILLISECOND, clock=clock, stale_after_ns=stale, sequence="contiguous" if contiguous else "sparse",
        bars=("4ms", "tick:2"),
    )  # fmt: skip
    layers, facts = made(tmp_path_factory.mktemp("status"), records, recipe, marks, trading_states=True)
    ends, trades, counts = account_of(records, marks, clock, contiguous=contiguous, halts=True)
    layer = names(layers)
    assert [(row["as_of"], state_of(row)) for row in layers[layer["rows"]]] == ends
    assert [state_of(row) for row in layers["trades"]] == trades
    for row in layers["bbo"]:
        assert (row["as_of"], state_of(row)) in ends
    changes = [state for before, (_, state) in zip([None, *(state for _, state in ends)], ends, strict=False) if before != state]
    assert [s for b, s in zip([None, *map(state_of, layers["bbo"])], map(state_of, layers["bbo"]), strict=False) if b != s] == changes
    for kind in ("grid", "features"):
        for row in layers[layer[kind]]:
            before = [end for end in ends if end[0] <= row["ts_event"]]
            if not before:
                assert state_of(row)[:2] == ("no_book", "no_snapshot")
                continue
            time, state = before[-1]
            silent = stale is not None and state[0] == "valid" and row["ts_event"] - time > stale
            assert state_of(row) == (("stale", "silence", time + stale) if silent else state)
    for bar, members in bars_of(layers):
        worst = max((state[0] for state in members), key=WORSE.index)
        assert state_of(bar) == next(state for state in members if state[0] == worst)
        assert bar["valid_share"] == sum(state[0] == "valid" for state in members) / len(members)
    assert {name: facts["anomalies"][name] for name in counts} == counts


def bars_of(layers: dict[str, list[dict[str, Any]]]) -> list[tuple[dict[str, Any], list[State]]]:
    """Each tick bar with the states of its trades, two by two in file order."""
    states = [state_of(row) for row in layers["trades"]]
    return [(bar, states[2 * k : 2 * k + 2]) for k, bar in enumerate(layers["bars-tick-2"])]


def session(*rows: tuple[str, str, int, int, int, int]) -> np.ndarray:
    """MBO_RECORD[n] of (action, side, price, size, order id, flags), one millisecond apart; a snapshot takes no sequence numbers."""
    records, sequence = np.zeros(len(rows), MBO_RECORD), 500
    for i, (action, side, price, size, order_id, flags) in enumerate(rows):
        row = records[i]
        row["action"], row["side"], row["price"], row["size"] = ord(action), ord(side), price, size
        row["order_id"], row["flags"], row["sequence"] = order_id, flags, sequence
        sequence += not flags & F_SNAPSHOT
        row["ts_event"] = row["ts_recv"] = START_NS + i * MILLISECOND
    records["publisher_id"] = records["instrument_id"] = 1
    return records


CLEAR = ("R", "N", UNDEF_PRICE, 0, 0, F_LAST)
NOTHING = ("N", "N", UNDEF_PRICE, 0, 0, F_LAST)
BOOK = (CLEAR, ("A", "B", 100, 5, 1, F_LAST), ("A", "A", 105, 5, 2, F_LAST))
PRINT = ("T", "B", 105, 1, 0, F_LAST)
# What makes the fourth record doubtful: the record, the reason, and the counter.
DOUBTS = {
    "unknown cancel": (("C", "B", 100, 5, 77, F_LAST), "unknown_id", "unknown_cancel"),
    "unknown modify": (("M", "B", 100, 5, 77, F_LAST), "unknown_id", "unknown_modify"),
    "over-cancel": (("C", "B", 100, 6, 1, F_LAST), "over_cancel", "over_cancel"),
    "duplicate id": (("A", "B", 100, 5, 1, F_LAST), "duplicate_id", "duplicate_add"),
    "side change": (("M", "A", 106, 5, 1, F_LAST), "side_change", "side_change"),
    "bad book": (("N", "N", UNDEF_PRICE, 0, 0, F_LAST | F_MAYBE_BAD_BOOK), "maybe_bad_book", "maybe_bad_book"),
    "gap": (NOTHING, "gap", "gap"),
    "quarantined": (NOTHING, "quarantined", "quarantined_before"),
}
SNAPSHOT = (("R", "N", UNDEF_PRICE, 0, 0, F_SNAPSHOT), ("A", "B", 100, 5, 11, F_SNAPSHOT), ("A", "A", 105, 5, 12, F_SNAPSHOT | F_LAST))
RECIPE = MboRecipe(depth=2, interval_ns=MILLISECOND, stale_after_ns=None, sequence="contiguous", bars=("1ms", "tick:1"))


def doubtful(kind: str, *after: tuple) -> tuple[np.ndarray, list[int]]:
    """A valid book, the doubt at record 3, a print, and what comes after; with the rows before which one was set aside."""
    records = session(*BOOK, DOUBTS[kind][0], PRINT, *after)
    if kind == "gap":
        records["sequence"][3:] += 1
    return records, [3] if kind == "quarantined" else []


@pytest.mark.parametrize("end", ["clear", "snapshot", "neither"])
@pytest.mark.parametrize("kind", DOUBTS)
def test_a_doubt_is_in_every_layer_until_the_next_clear_or_whole_snapshot_and_counted(kind, end, tmp_path):
    after = {"clear": (CLEAR, PRINT), "snapshot": (*SNAPSHOT, PRINT), "neither": (NOTHING, NOTHING, PRINT)}[end]
    records, marks = doubtful(kind, *after)
    layers, facts = made(tmp_path, records, RECIPE, marks)
    _, reason, counter = DOUBTS[kind]
    suspect: State = ("suspect", reason, START_NS + 3 * MILLISECOND)
    valid: State = ("valid", "", START_NS)
    last = START_NS + (5 if end == "clear" else 7) * MILLISECOND  # when it is over
    over: State = suspect if end == "neither" else ("valid", "", last)
    layer = names(layers)
    for name in (layer["rows"], layer["grid"], layer["features"]):
        for row in layers[name]:
            at = row["as_of"]
            state = valid if at < suspect[2] else suspect if at < last else over
            assert state_of(row) == state, (name, at - START_NS)
    assert {state_of(row) for row in layers["bbo"]} == {valid, suspect, over}
    prints = [suspect, over]
    for name in ("trades", "ohlcv-1ms", "bars-tick-1"):
        assert [state_of(row) for row in layers[name]] == prints, name
    assert [row["valid_share"] for row in layers["ohlcv-1ms"]] == [0.0, float(end != "neither")]
    assert {name: count for name, count in facts["anomalies"].items() if count} == {counter: 1}
    assert (facts["status"], facts["reason"]) == over[:2]
    ledger = collect(tmp_path, [PARTITION])
    assert check(ledger) == []
    (counts,) = (json.loads(row["counts"]) for row in ledger.to_pylist() if row["stage"] == "reconstruct")
    assert counts["anomalies"] == facts["anomalies"]


@pytest.mark.parametrize("kind", DOUBTS)
def test_on_book_error_fail_names_the_order_the_sequence_and_the_anomaly(kind, tmp_path):
    records, marks = doubtful(kind)
    recipe = MboRecipe(**{**vars(RECIPE), "on_book_error": "fail"})
    if kind == "quarantined":  # not an error of the book: the row is in quarantine, and the rest of the partition is marked
        assert made(tmp_path, records, recipe, marks)[1]["status"] == "suspect"
        return
    order, sequence, counter = int(records[3]["order_id"]), int(records[3]["sequence"]), DOUBTS[kind][2].replace("_", " ")
    with pytest.raises(BookError, match=rf"^Event 3 \(order {order}, sequence {sequence}, ts_event \d+\): {counter}, .*--on-book-error suspect"):
        made(tmp_path, records, recipe, marks)
    assert not (tmp_path / PARTITION.path("bbo")).exists()


def test_a_snapshot_that_is_not_whole_yet_leaves_no_book_and_the_first_complete_event_after_silence_ends_stale(tmp_path):
    records = session(*BOOK, *SNAPSHOT[:2], NOTHING, NOTHING)
    records["ts_event"][6] += 10 * MILLISECOND
    records["ts_recv"] = records["ts_event"]
    recipe = MboRecipe(**{**vars(RECIPE), "stale_after_ns": 3 * MILLISECOND, "sequence": "sparse"})
    layers, _ = made(tmp_path, records, recipe)
    found = [((row["ts_event"] - START_NS) // MILLISECOND, *state_of(row)[:2], (row["status_since"] - START_NS) / MILLISECOND)
             for row in layers[names(layers)["grid"]]]  # fmt: skip
    # The snapshot of records 3 and 4 has no LAST: nothing of it is shown before record 5, the first LAST after it.
    assert found[:6] == [(t, "valid", "", 0.0) for t in range(6)]
    assert found[6:] == [*((t, "valid", "", 0.0) for t in (6, 7, 8)), *((t, "stale", "silence", 8.0) for t in range(9, 16)), (16, "valid", "", 0.0)]


@pytest.mark.parametrize("format", ["events", "itch", "lobster"])
def test_a_halt_lasts_until_trading_resumes_and_not_only_until_quoting_does(format, tmp_path):
    recipe = MboRecipe(**{**vars(RECIPE), "sequence": "sparse"})
    if format == "events":
        states = [("N", "N", price * 10**9, 0, 0, F_LAST) for price in (-1, 0, 1)]
        records = session(*BOOK, states[0], NOTHING, states[1], NOTHING, states[2], NOTHING)
        layers, _ = made(tmp_path, records, recipe, trading_states=True)
        plain, _ = made(tmp_path / "plain", records, recipe)
        assert {state_of(row)[0] for row in plain[names(plain)["rows"]]} == {"valid"}, "N records tell a state only where the source says so"
    else:
        layers = from_file(tmp_path, *(halted_itch() if format == "itch" else halted_lobster()), recipe)
    rows = [(row["status"], row["reason"]) for row in layers[names(layers)["rows"]]]
    start = rows.index(("halted", "halt"))
    assert rows == [("valid", "")] * start + [("halted", "halt")] * 4 + [("valid", "")] * (len(rows) - start - 4)
    assert start >= 1
    assert len(rows) - start - 4 == 2
    since = layers[names(layers)["rows"]][start]["as_of"]
    for name in (names(layers)["rows"], names(layers)["grid"], names(layers)["features"], "bbo"):
        assert {row["status_since"] for row in layers[name] if row["status"] == "halted"} == {since}, name


def halted_itch() -> tuple[str, list, list[int]]:
    def at(k: int) -> int:
        return itch.NINE + k * MILLISECOND

    def order(k: int) -> itch.Message:
        return ("A", 1, at(k), k, b"B", 5, b"AAPL", 1_000_000 + k)

    halt, quote, trade = (itch.action(1, at(k), state) for k, state in ((3, b"H"), (5, b"Q"), (7, b"T")))
    messages = [itch.start(), itch.directory(1), order(1), halt, order(4), quote, order(6), trade, order(8)]
    return "itch", messages, [NEW_YORK_MIDNIGHT["itch"] + m[2] for m in messages]


def halted_lobster() -> tuple[str, list, list[int]]:
    market, messages = windowed.Market(3), []
    for kind, state in ((1, 0), (7, 0), (1, 0), (7, 1), (1, 0), (7, 2), (1, 0)):
        messages.append(market.step((kind, 1, state if kind == 7 else len(messages) % 3, 3)))
    return "lobster", messages, [windowed.START_NS + k * MILLISECOND for k in range(len(messages))]


def from_file(folder: Path, format: str, messages: list, times: list[int], recipe: MboRecipe) -> dict[str, list[dict[str, Any]]]:
    feed = Feed(format, messages, {"ts_event": times}, [0] * len(messages), [False] * len(messages))
    (source,) = scan([feed.write(folder / "source", [True] * len(messages))], dataset="TEST").files
    (part,) = decode(source, folder / "lake", recipe).parts
    rebuilt = rebuild(folder / "lake", part.partition, [part.path], recipe)
    aggregates = aggregate(folder / "lake", part.partition, recipe)
    paths = {**{layer: path for layer, (path, _) in rebuilt.outputs.items()}, **{layer: part.partition.path(layer) for layer in aggregates}}
    return {layer: rows_of(folder / "lake" / path) for layer, path in paths.items()}


def test_a_row_set_aside_after_the_last_one_makes_the_last_grid_row_suspect_and_no_row_before_it(tmp_path):
    records = session(*BOOK, ("A", "B", 99, 1, 3, 0))  # an event that is not complete
    records["ts_event"][3] += 5 * MILLISECOND
    records["ts_recv"] = records["ts_event"]
    layers, facts = made(tmp_path, records, RECIPE, [4])
    grid = [((row["ts_event"] - START_NS) // MILLISECOND, *state_of(row)[:2]) for row in layers[names(layers)["grid"]]]
    assert grid == [*((t, "valid", "") for t in range(8)), (8, "suspect", "quarantined")]
    assert (facts["status"], facts["reason"]) == ("suspect", "quarantined")


@pytest.mark.parametrize(
    ("gone", "keeps"),
    [
        pytest.param([4], (*SNAPSHOT, NOTHING), id="an order"),
        pytest.param([5], (*SNAPSHOT, NOTHING), id="the record with LAST"),
        pytest.param([4], (NOTHING, *SNAPSHOT[1:], NOTHING), id="the first order, without an R"),
        pytest.param([4, 5], (*SNAPSHOT, NOTHING), id="all orders"),
    ],
)
def test_a_snapshot_of_which_a_row_was_set_aside_leaves_the_book_suspect_until_the_next_whole_one(gone, keeps, tmp_path):
    records = session(*BOOK, *keeps, NOTHING, *SNAPSHOT, NOTHING)
    left = np.delete(records, gone)
    marks = sorted(k - sum(g < k for g in gone) for k in gone)
    layers, facts = made(tmp_path, left, MboRecipe(**{**vars(RECIPE), "sequence": "sparse"}), marks)
    rows = layers[names(layers)["rows"]]
    last = next(int(record["ts_recv"]) for record in left[marks[0] :] if record["flags"] & F_LAST)  # with it the snapshot is complete
    whole = int(records["ts_recv"][-2])
    assert last < whole
    doubted = [state_of(row) for row in rows if last <= row["as_of"] < whole]
    assert set(doubted) == {("suspect", "quarantined", last)}
    assert {state_of(row)[:2] for row in rows if row["as_of"] < last or row["as_of"] >= whole} == {("valid", "")}
    for row in rows:
        book = book_at(tmp_path, PARTITION, row["as_of"])
        assert (book.status, book.reason, book.status_since) == state_of(row)
    heat = QuickHeat(7, 400, batch_rows=len(left))
    heat.feed(columns_of(left), np.array(marks))
    grid = heat.finish()
    assert grid is not None
    assert [span for span in grid.spans if span[2] != "no_book"] == [(last, whole, "suspect", "quarantined")]
    assert facts["counts"]["snapshots"] == 2


def test_a_row_set_aside_at_the_end_of_a_file_within_a_snapshot_is_of_it(tmp_path):
    records = session(*BOOK, *SNAPSHOT[:2])
    _, facts = made(tmp_path, records, MboRecipe(**{**vars(RECIPE), "sequence": "sparse"}), [5])
    assert (facts["status"], facts["reason"]) == ("no_book", "no_snapshot")
    rest = session(*[NOTHING] * len(records), SNAPSHOT[2], NOTHING)[len(records) :]
    both = [PARTITION.path("events", "0123456789"), write_events(tmp_path, rest, short="aaaaaaaaaa")]
    facts = rebuild(tmp_path, PARTITION, both, RECIPE).facts
    assert (facts["status"], facts["reason"]) == ("suspect", "quarantined")
    book = book_at(tmp_path, PARTITION, int(rest["ts_recv"][-1]))
    assert (book.status, book.reason) == ("suspect", "quarantined")


@pytest.mark.parametrize("lost", [0, 1])
def test_a_number_missing_at_midnight_is_a_gap_in_a_source_that_has_every_message(lost, tmp_path):
    records = session(*BOOK, PRINT, NOTHING)
    records["sequence"][3:] += lost
    tomorrow = replace(PARTITION, date="2025-10-23")
    rebuild(tmp_path, PARTITION, [write_events(tmp_path, records[:3])], RECIPE)
    made = rebuild(tmp_path, tomorrow, [write_events(tmp_path, records[3:], tomorrow)], RECIPE, carry=PARTITION.path("closing_book"))
    first = START_NS + 3 * MILLISECOND
    expected = ("suspect", "gap") if lost else ("valid", "")
    rows = rows_of(tmp_path / made.outputs["mbp-2"][0])
    assert [state_of(row) for row in rows] == [(*expected, first)] * 2
    assert made.facts["anomalies"]["gap"] == lost
    book = book_at(tmp_path, tomorrow, first)
    assert (book.status, book.reason, book.status_since) == (*expected, first)
