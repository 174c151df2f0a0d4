"""The decode stage: every row of a source is in the lake, filtered or in quarantine, once; the bytes depend on the source and the recipe only."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import BookmillError, CorruptSource, SourceChanged, StorageError
from tasks.events_file import read_events, to_table
from tasks.footers import read_facts, read_footer
from tasks.partitions import EventFilter, MboRecipe, Partition, SourceFile
from tasks.scanning import routing
from tasks.scanning.batches import BadRow, RawBatch
from tasks.scanning.check_kernels import REASONS, check_rows
from tasks.scanning.decode import decode, decode_stamp, events_stamp, is_decoded
from tasks.scanning.gate_quarantine import quarantine_rows
from tasks.scanning.inventory import scan
from tasks.scanning.sources_file import check_conservation, read_sources, sources_path
from tasks.schemas import ACTIONS, EVENT_DTYPES, EVENTS, F_LAST, F_TOB, MBO_RECORD, SIDES, UNDEF_PRICE
from tests.oracles.naive_filter import naive_check, naive_decode

DAY = 86_400 * 10**9
MIDNIGHT = 19_700 * DAY
Feed = list[dict[str, Any]]


class MemoryReader:
    """A Reader over a list of rows; a row with the key "lost" cannot be read. Its buffers are read-only and reused, as a reader's may be."""

    def __init__(self, feed: Feed, *, truth: np.ndarray | None = None, breaks: CorruptSource | None = None, miscount: int = 0) -> None:
        self._feed, self._truth, self._breaks = feed, truth, breaks
        self.symbols: list[str] = []
        self.source_rows = self.expanded_rows = self.bytes_read = 0
        self.closed, self._miscount = False, miscount

    def _code(self, symbol: str) -> int:
        if symbol and symbol not in self.symbols:
            self.symbols.append(symbol)
        return self.symbols.index(symbol) if symbol else -1

    def batches(self, batch_rows: int) -> Iterator[RawBatch]:
        passed = 0
        for low in range(0, len(self._feed), batch_rows):
            piece = [(low + k, row) for k, row in enumerate(self._feed[low : low + batch_rows])]
            good = [(k, row) for k, row in piece if "lost" not in row]
            bad, before = [], 0
            for k, row in piece:
                if "lost" in row:
                    bad.append(BadRow(before, k, 56 * k, b"?" * k, row["lost"], "cannot be read", self._code(row["symbol"])))
                else:
                    before += 1
            columns = {}
            for name, dtype in EVENT_DTYPES.items():
                values = [ord(row[name]) if name in ("action", "side") else row[name] for _, row in good]
                columns[name] = np.repeat(np.array(values, dtype), 2)[::2]  # strided, as fields of records are
                columns[name].flags.writeable = False
            codes = np.array([self._code(row["symbol"]) for _, row in good], np.int32)
            ends = int(np.count_nonzero(columns["flags"] & F_LAST))
            truth = None if self._truth is None else self._truth[passed : passed + ends]
            passed += ends
            self.source_rows += len(piece)
            self.bytes_read += 56 * len(piece)
            rows = np.array([k for k, _ in good], np.int64)
            yield RawBatch(columns, codes, rows, partial(record_of, rows), bad, truth)
            for column in columns.values():
                column.flags.writeable = True
                column[:] = 0
        self.source_rows += self._miscount
        if self._breaks:
            raise self._breaks

    def close(self) -> None:
        self.closed = True


def record_of(rows: np.ndarray, i: int) -> tuple[int, bytes]:
    return 56 * int(rows[i]), raw_bytes(int(rows[i]))


def raw_bytes(k: int) -> bytes:
    return f"row {k}".encode()


def source_at(folder: Path, content: bytes = b"x") -> SourceFile:
    path = folder / "feed.dbn"
    path.write_bytes(content)
    stat = path.stat()
    return SourceFile(str(path), "dbn", "XTST.A", f"xxh3:{xxhash.xxh3_128_hexdigest(content)}", stat.st_size, stat.st_mtime_ns, stat.st_ino)


def a_row(k: int = 0, **other: Any) -> dict[str, Any]:
    ts = MIDNIGHT + k * 1000
    row = {
        "ts_event": ts, "ts_recv": ts, "publisher_id": 1, "instrument_id": 7, "action": "A", "side": "B", "price": 10**9 * (k + 1), "size": 1,
        "order_id": k, "flags": F_LAST, "channel_id": 0, "ts_in_delta": -5, "sequence": k, "symbol": "ES",
    }  # fmt: skip
    return {**row, **other}


def lake_bytes(lake: Path) -> dict[str, str]:
    """Digest of every file of the lake by its relative path."""
    return {str(p.relative_to(lake)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(lake.rglob("*")) if p.is_file()}


def rows_of(path: Path) -> Feed:
    """An events file as rows of a feed, read by way of the public reader."""
    symbol = Partition.of_path(path).symbol
    found: Feed = []
    for columns in read_events(path, None, 1000):
        for i in range(len(columns["price"])):
            row = {name: int(column[i]) for name, column in columns.items()}
            found.append({**row, "action": chr(row["action"]), "side": chr(row["side"]), "symbol": symbol})
    return found


@st.composite
def feeds(draw: st.DrawFn) -> Feed:
    feed: Feed = []
    ts = MIDNIGHT + draw(st.integers(-3, 3)) * 3600 * 10**9
    for k in range(draw(st.integers(1, 60))):
        ts += draw(st.sampled_from([0, 1, 10**9, 6 * 3600 * 10**9, -(10**9)]))
        symbol = draw(st.sampled_from(["ES", "NQ", "A/B.C", "Ü"]))
        if draw(st.integers(0, 9)) == 0:
            feed.append({"lost": "unreadable", "symbol": draw(st.sampled_from(["", symbol]))})
            continue
        row = a_row(k, ts_recv=ts, ts_event=ts - 10, symbol=symbol, publisher_id=draw(st.sampled_from([1, 2])),
                    instrument_id=draw(st.sampled_from([7, 2**32 - 1])), order_id=draw(st.sampled_from([k, 2**64 - 1])))  # fmt: skip
        if draw(st.integers(0, 3)) == 0:
            row |= draw(
                st.sampled_from([
                    {"action": "Z"}, {"side": "x"}, {"ts_recv": -1}, {"ts_event": -(2**63)}, {"price": UNDEF_PRICE}, {"side": "N"}, {"size": 0},
                    {"size": 2**31}, {"price": UNDEF_PRICE, "flags": F_TOB}, {"action": "R", "side": "N", "price": UNDEF_PRICE},
                    {"action": "T", "size": 0, "flags": F_TOB}, {"price": -5}, {"action": "N", "side": "N", "price": UNDEF_PRICE, "size": 0},
                    {"side": "N", "size": 0, "flags": F_TOB}, {"action": "C", "side": "N", "size": 0},
                ])
            )  # fmt: skip
        feed.append(row)
    return feed


FILTERS = st.builds(
    EventFilter,
    symbols=st.sampled_from([(), ("ES",), ("A/B.C", "ES")]),
    publishers=st.sampled_from([(), (1,)]),
    end_ns=st.sampled_from([None, MIDNIGHT, MIDNIGHT + 3 * 10**9]),
    start_ns=st.sampled_from([None, MIDNIGHT - 1]),
)


@settings(max_examples=25, deadline=None)
@given(feed=feeds(), wanted=FILTERS)
def test_partitions_quarantine_and_counts_are_those_of_the_naive_twin(tmp_path_factory, feed, wanted):
    folder = tmp_path_factory.mktemp("twin")
    lake, source = folder / "lake", source_at(folder)
    decoded = decode(source, lake, MboRecipe(filter=wanted), batch_rows=7, reader=MemoryReader(feed))
    parts, quarantine, dropped = naive_decode(wanted, feed)

    assert {(p.partition.date, p.partition.symbol, p.partition.publisher_id, p.partition.instrument_id) for p in decoded.parts} == {
        key for key, part in parts.items() if part.rows
    }
    for part in decoded.parts:
        key = (part.partition.date, part.partition.symbol, part.partition.publisher_id, part.partition.instrument_id)
        want, facts = parts[key], read_facts(lake / part.path)
        assert rows_of(lake / part.path) == want.rows
        assert (facts["rows_in"], facts["rows_out"], facts["quarantined"]) == (want.rows_in, len(want.rows), want.quarantined)
        assert facts["filtered"] == ({"time": want.filtered} if want.filtered else {})
        assert facts["suspect_rows"] == sorted(want.suspect_rows)
        times = [row["ts_recv"] for row in want.rows]
        prices = [row["price"] for row in want.rows if row["price"] != UNDEF_PRICE]
        assert facts["out_of_order"] == sum(b < a for a, b in pairwise(times))
        assert (facts["min_price"], facts["max_price"]) == ((min(prices), max(prices)) if prices else (None, None))
        assert (part.first_ts, part.last_ts) == (times[0], times[-1]) == (facts["first_ts_recv"], facts["last_ts_recv"])
    aside = pq.read_table(lake / decoded.quarantine, partitioning=None).to_pylist() if decoded.quarantine else []
    assert [(row["reason"], row["source_row"]) for row in aside] == quarantine
    assert all(row["raw"] == (raw_bytes(k) if "lost" not in feed[k] else b"?" * k) for row in aside for k in [row["source_row"]])
    assert decoded.rows_filtered == sum(dropped.values()) + sum(part.filtered for part in parts.values())
    assert decoded.rows_in == len(feed) == decoded.rows_out + decoded.rows_filtered + decoded.rows_quarantined


@settings(max_examples=15, deadline=None)
@given(feed=feeds(), wanted=FILTERS, batch_rows=st.sampled_from([1, 3, 1000]), direct=st.sampled_from([1, 2]), run=st.sampled_from([1, 5]))
def test_bytes_do_not_depend_on_batches_memory_or_spilling(tmp_path_factory, feed, wanted, batch_rows, direct, run):
    folder = tmp_path_factory.mktemp("bytes")
    source, recipe = source_at(folder), MboRecipe(filter=wanted)
    decode(source, folder / "a", recipe, reader=MemoryReader(feed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routing, "MAX_OPEN", direct)
        patch.setattr(routing, "MIN_RUN_ROWS", run)
        decode(source, folder / "b", recipe, batch_rows=batch_rows, memory_bytes=0, reader=MemoryReader(feed))
    assert lake_bytes(folder / "a") == lake_bytes(folder / "b")


@settings(max_examples=12, deadline=None)
@given(feed=feeds(), symbol=st.sampled_from(["ES", "NQ"]), publisher=st.sampled_from([1, 2]))
def test_what_else_is_decoded_does_not_change_the_bytes_of_a_partition(tmp_path_factory, feed, symbol, publisher):
    folder = tmp_path_factory.mktemp("narrow")
    source = source_at(folder)
    decode(source, folder / "all", MboRecipe(), reader=MemoryReader(feed))
    wanted = EventFilter(symbols=(symbol,), publishers=(publisher,))
    narrow = decode(source, folder / "narrow", MboRecipe(filter=wanted), reader=MemoryReader(feed))
    for part in narrow.parts:
        assert (folder / "narrow" / part.path).read_bytes() == (folder / "all" / part.path).read_bytes()


SOME = st.builds(EventFilter, symbols=st.sampled_from([(), ("ES",), ("NQ",), ("ES", "Ü"), ("absent",)]), publishers=st.sampled_from([(), (1,), (2,)]))


def account_of(lake: Path, source: SourceFile) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    rows, _, facts = read_sources(lake / sources_path(source.dataset, source.short))
    return rows, facts


def quarantined(lake: Path, name: str) -> Counter:
    rows = pq.read_table(lake / name, partitioning=None).to_pylist() if name else []
    return Counter(tuple(row.items()) for row in rows)


@settings(max_examples=40, deadline=None)
@given(feed=feeds(), filters=st.lists(SOME, min_size=2, max_size=4), lose=st.booleans())
def test_runs_that_want_different_symbols_of_one_source_do_not_take_from_each_other(tmp_path_factory, feed, filters, lose):
    folder = tmp_path_factory.mktemp("several")
    lake, source = folder / "lake", source_at(folder)
    alone = [decode(source, folder / str(k), MboRecipe(filter=wanted), reader=MemoryReader(feed)) for k, wanted in enumerate(filters)]
    every = decode(source, folder / "all", MboRecipe(), reader=MemoryReader(feed))
    for k, wanted in enumerate(filters):
        if lose and k == len(filters) - 1:  # a file that somebody removed
            next(iter(lake.rglob("part-*.parquet")), folder / "none").unlink(missing_ok=True)
        done = decode(source, lake, MboRecipe(filter=wanted), reader=MemoryReader(feed))
        there = is_decoded(source, lake, MboRecipe(filter=wanted))
        assert dataclasses.replace(done, skipped=True) == there == dataclasses.replace(alone[k], skipped=True)
        # The events in the lake are those that the account lists, which adds up.
        rows, facts = account_of(lake, source)
        check_conservation(rows, len(feed))
        assert min(row["rows_filtered"] for row in rows) >= 0
        assert rows[-1]["rows_quarantined"] == sum(count for _, _, count in facts["homeless"])
        assert sum(row["rows_filtered"] for row in rows) == sum(facts["filtered"].values())
        if not lose:
            listed = {row["path"] for row in rows if row["path"]}
            assert {path.relative_to(lake).as_posix() for path in lake.rglob("part-*.parquet")} == listed
            # What an earlier run had is had still.
            for earlier in range(k):
                assert is_decoded(source, lake, MboRecipe(filter=filters[earlier])) == dataclasses.replace(alone[earlier], skipped=True)
        # Quarantined is what those who wanted it would have set aside, once.
        now = quarantined(lake, facts["quarantine"])
        assert now.total() == facts["quarantine_rows"] == sum(row["rows_quarantined"] for row in rows)
        assert not quarantined(folder / str(k), alone[k].quarantine) - now
        assert not now - quarantined(folder / "all", every.quarantine)


def test_a_quarantine_that_a_killed_decode_left_ahead_of_its_account_is_not_taken_over(tmp_path):
    source, lake = source_at(tmp_path), tmp_path / "lake"
    feed = [a_row(k, symbol=symbol, size=int(k != 4)) for k in range(6) for symbol in ("ES", "NQ", "YM")]
    es, nq, ym = (MboRecipe(filter=EventFilter(symbols=(name,))) for name in ("ES", "NQ", "YM"))
    decode(source, lake, es, reader=MemoryReader(feed))
    account = lake / sources_path(source.dataset, source.short)
    before = account.read_bytes()
    decode(source, lake, nq, reader=MemoryReader(feed))
    account.write_bytes(before)  # killed after the quarantine had its name, and before the account had
    for recipe, rows in ((ym, 1), (es, 2), (nq, 3)):
        decode(source, lake, recipe, reader=MemoryReader(feed))
        listed, facts = account_of(lake, source)
        assert quarantined(lake, facts["quarantine"]).total() == facts["quarantine_rows"] == sum(row["rows_quarantined"] for row in listed) == rows
    assert all(is_decoded(source, lake, recipe) for recipe in (es, nq, ym))


def test_what_a_gate_took_out_stays_out_when_other_symbols_are_decoded_and_a_part_of_what_is_there_is_not_decoded_again(tmp_path):
    source, lake = source_at(tmp_path), tmp_path / "lake"
    feed = [a_row(k, symbol=symbol, size=int(k != 4)) for k in range(6) for symbol in ("ES", "NQ", "YM")]
    es, nq, both = (MboRecipe(filter=EventFilter(symbols=names)) for names in (("ES",), ("NQ",), ("NQ", "ES")))
    (part,) = decode(source, lake, es, reader=MemoryReader(feed)).parts
    quarantine_rows(lake, part.path, np.array([1, 3]), ["gate", "gate"], "gate:events")
    before, gated = (lake / part.path).read_bytes(), is_decoded(source, lake, es)
    decode(source, lake, nq, reader=MemoryReader(feed))
    assert (lake / part.path).read_bytes() == before
    assert is_decoded(source, lake, es) == gated
    assert (gated.rows_out, gated.rows_quarantined, gated.rows_filtered) == (3, 3, 12)
    aside = pq.read_table(lake / gated.quarantine, partitioning=None).to_pylist()
    assert sorted((row["symbol"], row["stage"]) for row in aside) == [
        ("ES", "decode"),
        ("ES", "gate:events"),
        ("ES", "gate:events"),
        ("NQ", "decode"),
    ]
    assert is_decoded(source, lake, both).rows_out == 8
    whole = decode(source, lake, MboRecipe(), reader=MemoryReader(feed))
    assert (whole.rows_out, whole.rows_quarantined) == (15, 3), "the gate judges what is decoded again"
    for recipe in (es, nq, both):
        assert decode(source, lake, recipe, reader=MemoryReader([])).skipped


@settings(max_examples=40, deadline=None)
@given(feed=feeds())
def test_row_checks_are_those_of_the_naive_twin(feed):
    rows = [row for row in feed if "lost" not in row]
    columns = {name: np.array([ord(r[name]) if name in ("action", "side") else r[name] for r in rows], EVENT_DTYPES[name]) for name in EVENT_DTYPES}
    reason, c = np.empty(len(rows), np.uint8), columns
    bad = check_rows(c["ts_event"], c["ts_recv"], c["action"], c["side"], c["price"], c["size"], c["flags"], reason)
    assert [REASONS[code] for code in reason] == [naive_check(row) for row in rows]
    assert bad == np.count_nonzero(reason)


def test_events_files_have_the_schema_of_the_contract_and_fixed_dictionaries(tmp_path):
    decoded = decode(source_at(tmp_path), tmp_path / "lake", MboRecipe(), reader=MemoryReader([a_row(k) for k in range(3)]))
    path = tmp_path / "lake" / decoded.parts[0].path
    assert pq.read_schema(path).remove_metadata() == EVENTS
    columns = {name: np.ones(2, dtype) for name, dtype in EVENT_DTYPES.items()}
    columns["action"][:], columns["side"][:] = ord("T"), ord("A")
    table = to_table(columns, "ES")
    assert table["action"].chunk(0).dictionary.to_pylist() == list(ACTIONS)
    assert table["side"].chunk(0).dictionary.to_pylist() == list(SIDES)
    assert table["symbol"].chunk(0).dictionary.to_pylist() == ["ES"]
    assert table["action"].to_pylist() == ["T", "T"]


def test_event_columns_come_back_contiguous_writeable_and_in_small_batches(tmp_path):
    feed = [a_row(k) for k in range(25)]
    decoded = decode(source_at(tmp_path), tmp_path / "lake", MboRecipe(), reader=MemoryReader(feed))
    batches = list(read_events(tmp_path / "lake" / decoded.parts[0].path, ["price", "action", "ts_recv"], 10))
    assert [len(b["price"]) for b in batches] == [10, 10, 5]
    for batch in batches:
        assert list(batch) == ["price", "action", "ts_recv"]
        for name, column in batch.items():
            assert column.dtype == EVENT_DTYPES[name]
            assert column.flags.c_contiguous
            column[:] = 0  # writeable, and nobody else's
    with pytest.raises(StorageError, match="absent"):
        next(read_events(tmp_path / "absent.parquet"))


def test_a_second_decode_finds_the_first_and_changes_nothing(tmp_path):
    source, lake, recipe = source_at(tmp_path), tmp_path / "lake", MboRecipe()
    feed = [a_row(0), a_row(1, size=0), a_row(2)]
    first = decode(source, lake, recipe, reader=MemoryReader(feed))
    before = lake_bytes(lake)
    reader = MemoryReader([])
    again = decode(source, lake, recipe, reader=reader)
    assert again == dataclasses.replace(first, skipped=True)
    assert lake_bytes(lake) == before
    assert reader.closed
    assert is_decoded(source, lake, MboRecipe(depth=3, starts_empty=True)) is not None, "options of later stages do not matter here"
    assert is_decoded(source, lake, MboRecipe(filter=EventFilter(end_ns=5))) is None
    for other in (EventFilter(symbols=("NQ",)), EventFilter(publishers=(2,))):
        none = is_decoded(source, lake, MboRecipe(filter=other))
        assert (none.parts, none.rows_in, none.rows_out, none.rows_filtered) == ((), 3, 0, 3), "of all that is there nothing is wanted"


@pytest.mark.parametrize("lost", ["events", "quarantine", "sources"])
def test_a_decode_with_a_file_missing_is_not_done_and_is_made_again_alike(tmp_path, lost):
    source, lake, recipe = source_at(tmp_path), tmp_path / "lake", MboRecipe()
    feed = [a_row(0), a_row(1, size=0), a_row(2)]
    decode(source, lake, recipe, reader=MemoryReader(feed))
    before = lake_bytes(lake)
    next(p for p in (lake / lost).rglob("*.parquet")).unlink()
    assert is_decoded(source, lake, recipe) is None
    decode(source, lake, recipe, reader=MemoryReader(feed))
    assert lake_bytes(lake) == before


def test_stamps_follow_what_changes_bytes():
    source = SourceFile("f", "dbn", "D", "xxh3:00", 1, 1, 1)
    plain, narrow = MboRecipe(), MboRecipe(filter=EventFilter(symbols=("B", "A"), publishers=(1,), start_ns=5))
    assert events_stamp(source, plain) == events_stamp(source, narrow)
    assert events_stamp(source, plain) != events_stamp(source, MboRecipe(filter=EventFilter(end_ns=5)))
    assert decode_stamp(source, plain) == decode_stamp(source, narrow) != decode_stamp(source, MboRecipe(filter=EventFilter(end_ns=5)))


@pytest.mark.parametrize("kind", ["symbol", "file name", "date"])
def test_a_source_of_another_name_is_decoded_again_and_leaves_nothing_of_the_old_one(tmp_path, kind):
    lake, old = tmp_path / "lake", tmp_path / ("01302018.NASDAQ_ITCH50" if kind == "date" else "ESZ4.csv")
    if kind == "date":
        system = b"S" + bytes(4) + (10**12).to_bytes(6, "big") + b"O"
        add = b"A" + bytes([0, 1, 0, 0]) + (36 * 10**12).to_bytes(6, "big") + (1).to_bytes(8, "big") + b"B" + (100).to_bytes(4, "big") + b"AAPL    "
        old.write_bytes(b"".join(len(part).to_bytes(2, "big") + part for part in (system, add + (1_500_000).to_bytes(4, "big"))))
    else:
        old.write_text(f"ts_event,action,side,price,size,order_id,is_last\n{MIDNIGHT},A,B,1.5,1,1,1\n")
    named = {"symbol": "ESZ4"} if kind == "symbol" else {}
    (first,) = decode(scan([old], **named).files[0], lake, MboRecipe()).parts
    assert decode(scan([old], **named).files[0], lake, MboRecipe()).skipped
    new = old if kind == "symbol" else old.rename(tmp_path / ("01302019.NASDAQ_ITCH50" if kind == "date" else "ESZ5.csv"))
    source = scan([new], **({"symbol": "ESZ5"} if named else {})).files[0]
    done = decode(source, lake, MboRecipe())
    (second,) = done.parts
    assert not done.skipped
    assert (second.partition.symbol, second.partition.date) == (("AAPL", "2019-01-30") if kind == "date" else ("ESZ5", first.partition.date))
    assert [path.relative_to(lake).as_posix() for path in lake.glob("events/*/*/*/*.parquet")] == [second.path]
    assert decode(source, lake, MboRecipe()).skipped


def test_records_of_other_types_are_set_aside_and_make_no_book_suspect(tmp_path):
    lost = [{**a_row(k), "lost": reason, "symbol": ""} for k, reason in ((2, "not_mbo"), (4, "no_time"))]
    rows = [a_row(0), a_row(1), lost[0], a_row(3), lost[1], a_row(5)]
    done = decode(source_at(tmp_path), tmp_path / "lake", MboRecipe(), reader=MemoryReader(rows))
    assert (done.rows_out, done.rows_quarantined) == (4, 2)
    assert read_facts(tmp_path / "lake" / done.parts[0].path)["suspect_rows"] == [3]


def failing_decodes() -> list[tuple[type[Exception], str, dict[str, Any]]]:
    broken = CorruptSource("feed.dbn", "the zstd frame ends early", offset=112, row=2)
    return [
        (CorruptSource, "ends early", {"reader": {"breaks": broken}}),
        (BookmillError, "4 rows were read, but 3 were routed", {"reader": {"miscount": 1}}),
        (SourceChanged, "changed since the scan", {"touch": True}),
    ]


@pytest.mark.parametrize(("fault", "says", "how"), failing_decodes())
@pytest.mark.parametrize("spilling", [False, True])
def test_a_decode_that_fails_leaves_nothing(tmp_path, monkeypatch, fault, says, how, spilling):
    source, lake = source_at(tmp_path), tmp_path / "lake"
    if spilling:
        monkeypatch.setattr(routing, "MAX_OPEN", 1)
        monkeypatch.setattr(routing, "MIN_RUN_ROWS", 1)
    reader = MemoryReader([a_row(0), a_row(1, symbol="NQ"), a_row(2, size=0)], **how.get("reader", {}))
    if how.get("touch"):
        Path(source.path).write_bytes(b"other content")
    with pytest.raises(fault, match=says):
        decode(source, lake, MboRecipe(), memory_bytes=0, reader=reader)
    assert lake_bytes(lake) == {}
    assert reader.closed


def test_a_disk_fault_while_files_are_named_takes_back_those_named_before(tmp_path):
    source, lake = source_at(tmp_path), tmp_path / "lake"
    (lake / "sources").mkdir(parents=True)
    (lake / "sources" / "dataset=XTST.A").write_bytes(b"a file where a folder has to be")
    with pytest.raises(StorageError):
        decode(source, lake, MboRecipe(), reader=MemoryReader([a_row(0), a_row(1, size=0)]))
    assert list(lake_bytes(lake)) == ["sources/dataset=XTST.A"]


def test_salvage_keeps_what_stands_before_the_break_and_marks_every_partition(tmp_path):
    source, lake, recipe = source_at(tmp_path), tmp_path / "lake", MboRecipe()
    broken = CorruptSource(source.path, "the zstd frame ends early", offset=112, row=3)
    feed = [a_row(0), a_row(1, symbol="NQ"), a_row(2)]
    decoded = decode(source, lake, recipe, salvage=True, reader=MemoryReader(feed, breaks=broken))
    assert [(p.partition.symbol, p.rows) for p in decoded.parts] == [("ES", 2), ("NQ", 1)]
    assert [read_facts(lake / p.path)["suspect_rows"] for p in decoded.parts] == [[2], [1]]
    assert (decoded.rows_in, decoded.rows_quarantined) == (4, 1)
    (row,) = pq.read_table(lake / decoded.quarantine, partitioning=None).to_pylist()
    assert (row["reason"], row["byte_offset"], row["source_row"], row["detail"]) == ("truncated", 112, 3, "the zstd frame ends early")
    assert is_decoded(source, lake, recipe) is None, "without salvage a broken source is an error, not an old result"
    assert is_decoded(source, lake, recipe, salvage=True) == dataclasses.replace(decoded, skipped=True)


def test_thousands_of_partitions_need_few_open_files(tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(routing, "MAX_OPEN", 4)
    feed = [a_row(k, symbol=f"S{k % 150}", instrument_id=k % 150) for k in range(600)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 12, hard))
    try:
        decoded = decode(source_at(tmp_path), tmp_path / "lake", MboRecipe(), memory_bytes=2**22, batch_rows=64, reader=MemoryReader(feed))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [part.rows for part in decoded.parts] == [4] * 150
    for part in decoded.parts[::37]:
        assert rows_of(tmp_path / "lake" / part.path) == [row for row in feed if row["symbol"] == part.partition.symbol]
    assert not any(Path(tmp_path, "lake", ".spill").iterdir())


def test_truth_of_a_source_stays_beside_the_event_ends_that_are_kept(tmp_path):
    feed = [a_row(k, flags=F_LAST if k % 3 else 0, size=0 if k == 4 else 1) for k in range(10)]
    ends = [k for k, row in enumerate(feed) if row["flags"] & F_LAST]
    truth = np.arange(len(ends) * 2 * 4, dtype=np.int64).reshape(len(ends), 2, 4)
    lake, source = tmp_path / "lake", source_at(tmp_path)
    decoded = decode(source, lake, MboRecipe(), batch_rows=4, reader=MemoryReader(feed, truth=truth))
    path = lake / decoded.parts[0].partition.path("truth", source.short)

    def expected(kept: list[int]) -> Feed:
        names = ("ask_px", "ask_sz", "bid_px", "bid_sz")
        return [
            {"message": k, **{f"{name}_{level:02d}": int(truth[ends.index(k), level, c]) for c, name in enumerate(names) for level in (0, 1)}}
            for k in kept
        ]

    kept = [k for k in ends if k != 4]
    assert pq.read_table(path, partitioning=None).to_pylist() == expected(kept)
    quarantine_rows(lake, decoded.parts[0].path, np.array([0, 2]), ["gate", "gate"], "gate:events")  # row 0 ends no event, row 2 does
    assert pq.read_table(path, partitioning=None).to_pylist() == expected([k for k in kept if k != 2])
    assert is_decoded(source, lake, MboRecipe()) is not None
    path.unlink()
    assert is_decoded(source, lake, MboRecipe()) is None


@settings(max_examples=15, deadline=None)
@given(feed=feeds(), data=st.data())
def test_rows_that_a_gate_takes_out_are_in_quarantine_and_all_counts_follow(tmp_path_factory, feed, data):
    folder = tmp_path_factory.mktemp("gate")
    lake, source, recipe = folder / "lake", source_at(folder), MboRecipe()
    decoded = decode(source, lake, recipe, reader=MemoryReader(feed))
    if not decoded.parts:
        return
    part = data.draw(st.sampled_from(decoded.parts))
    chosen = data.draw(st.lists(st.integers(0, part.rows - 1), min_size=1))
    rows, old = rows_of(lake / part.path), read_facts(lake / part.path)
    count = quarantine_rows(lake, lake / part.path, np.array(chosen), [f"r{k}" for k in range(len(chosen))], "gate:events")
    gone = sorted(set(chosen))
    assert count == len(gone)
    aside = pq.read_table(lake / f"quarantine/dataset=XTST.A/source-{source.short}.parquet", partitioning=None).to_pylist()[-len(gone) :]
    for row, k in zip(aside, gone, strict=True):
        record = np.frombuffer(row["raw"], MBO_RECORD)[0]
        assert (row["event_row"], row["reason"], row["stage"], row["symbol"]) == (k, f"r{chosen.index(k)}", "gate:events", part.partition.symbol)
        assert {name: chr(record[name]) if name in ("action", "side") else int(record[name]) for name in EVENT_DTYPES} == {
            name: value for name, value in rows[k].items() if name != "symbol"
        }
        assert (record["length"] * 4, record["rtype"]) == (len(row["raw"]), 160)

    now = is_decoded(source, lake, recipe)
    assert now is not None
    assert (now.rows_in, now.rows_quarantined) == (decoded.rows_in, decoded.rows_quarantined + len(gone))
    left = [row for k, row in enumerate(rows) if k not in gone]
    if not left:
        assert part.path not in [p.path for p in now.parts]
        assert not (lake / part.path).exists()
        return
    facts = read_facts(lake / part.path)
    assert rows_of(lake / part.path) == left
    moved = {k - sum(g < k for g in gone) for k in [*old["suspect_rows"], *gone]}
    assert facts["suspect_rows"] == sorted(moved)
    assert facts["rows_in"] == facts["rows_out"] + facts["quarantined"] + sum(facts["filtered"].values())
    times = [row["ts_recv"] for row in left]
    assert facts["out_of_order"] == sum(b < a for a, b in pairwise(times))
    assert (facts["first_ts_recv"], facts["last_ts_recv"]) == (times[0], times[-1])


@pytest.mark.parametrize("step", ["write_sources", "append_rows"])
def test_a_gate_killed_half_way_is_seen_and_the_source_is_decoded_again(tmp_path, monkeypatch, step):
    source, lake, recipe = source_at(tmp_path), tmp_path / "lake", MboRecipe()
    feed = [a_row(k) for k in range(5)]
    decoded = decode(source, lake, recipe, reader=MemoryReader(feed))
    before = lake_bytes(lake)
    with monkeypatch.context() as patch:
        patch.setattr(f"tasks.scanning.gate_quarantine.{step}", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            quarantine_rows(lake, decoded.parts[0].path, np.array([3]), ["bad"], "gate:events")
    assert is_decoded(source, lake, recipe) is None
    decode(source, lake, recipe, reader=MemoryReader(feed))
    assert lake_bytes(lake) == before
    quarantine_rows(lake, decoded.parts[0].path, np.array([3]), ["bad"], "gate:events")
    stamped = read_footer(lake / decoded.parts[0].path)
    assert stamped is not None
    assert stamped["bookmill.inputs"] != source.fingerprint, "what was made from the file before is out of date"


def test_suspect_rows_are_capped_and_say_so(tmp_path, monkeypatch):
    feed = [row for k in range(10_002) for row in (a_row(2 * k, size=0), a_row(2 * k + 1))]
    decoded = decode(source_at(tmp_path), tmp_path / "lake", MboRecipe(), reader=MemoryReader(feed))
    facts = read_facts(tmp_path / "lake" / decoded.parts[0].path)
    assert facts["suspect_rows"] == list(range(10_000))
    assert facts["suspect_rows_capped"] is True
    # A gate's rows behind the last one listed say nothing of those between.
    quarantine_rows(tmp_path / "lake", decoded.parts[0].path, np.array([9_998, 10_001]), ["gate", "gate"], "gate:events")
    facts = read_facts(tmp_path / "lake" / decoded.parts[0].path)
    assert (facts["suspect_rows"], facts["suspect_rows_capped"]) == (list(range(9_999)), True)


def test_sources_file_sums_up_to_the_rows_of_the_source(tmp_path):
    source, lake = source_at(tmp_path), tmp_path / "lake"
    feed = [a_row(0), {"lost": "short line", "symbol": ""}, a_row(1, symbol="NQ"), a_row(2, size=0), a_row(3, ts_recv=MIDNIGHT + DAY)]
    decode(source, lake, MboRecipe(filter=EventFilter(symbols=("ES",), end_ns=MIDNIGHT + DAY)), reader=MemoryReader(feed))
    rows = pq.read_table(lake / f"sources/dataset=XTST.A/{source.short}.parquet", partitioning=None).to_pylist()
    counted = [(r["date"], r["symbol"], bool(r["path"]), r["rows_in"], r["rows_out"], r["rows_filtered"], r["rows_quarantined"]) for r in rows]
    assert counted == [
        ("2023-12-09", "ES", True, 2, 1, 0, 1),
        ("2023-12-10", "ES", False, 1, 0, 1, 0),
        ("", "", False, 2, 0, 1, 1),
    ]
    facts = read_facts(lake / f"sources/dataset=XTST.A/{source.short}.parquet")
    assert (facts["source_rows"], facts["expanded_rows"]) == (5, 0)
    assert facts["filtered"] == {"symbol": 1, "time": 1}
    json.dumps(facts)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "rows"),
    [("databento/esh4-glbx-mdp3-20231225.mbo.dbn.zst", 68_792), ("databento/arl_20250717_morning.mbo.csv", 2_944)],
)
def test_real_files_pass_every_check_and_keep_every_row(tmp_path, real_data, name, rows):
    (source,) = scan([real_data(name)]).files
    decoded = decode(source, tmp_path, MboRecipe(), memory_bytes=2**24)
    assert (decoded.rows_in, decoded.rows_out, decoded.rows_quarantined) == (rows, rows, 0)
    assert all(read_facts(tmp_path / part.path)["suspect_rows"] == [] for part in decoded.parts)
