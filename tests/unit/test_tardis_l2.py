"""Tardis incremental_book_L2: rows against a line-by-line twin, snapshot rules against a book that goes row by row, breaks, several symbols."""

from __future__ import annotations

import gzip
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.depth_batches import DELTA, NO_ID, SNAPSHOT, DepthBatch
from tasks.errors import CorruptSource, EmptySource, SchemaMismatch
from tasks.scanning.tardis_l2 import TardisL2, open_tardis_l2, symbols
from tests.oracles import naive_tardis as naive
from tests.strategies import tardis_rows as made

EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "200"))
NAMES = ("exchange", "symbol", "timestamp", "local_timestamp", "is_snapshot", "side", "price", "amount")
HEADER = ",".join(NAMES)
T = made.START_US
DTYPES = ["u1", "i8", "i8", "i8", "i8", "i8", "i8", "i8", "u1", "i8", "i8", "u1", "u1"]


def collect(reader: TardisL2, batch_bytes: int = 1 << 20) -> tuple[list[tuple], list[tuple], int, int]:
    """What the twin gives; checks what each batch promises."""
    messages: list[tuple] = []
    bad: list[tuple] = []
    batch: Any
    for batch in reader.batches(batch_bytes):
        assert len(batch) or batch.bad
        columns = (batch.kind, batch.ts, batch.cts, batch.update_id, batch.sequence, batch.line, batch.offset, batch.first)
        updates = (batch.side, batch.price, batch.size, batch.price_digits, batch.size_digits)
        assert [column.dtype for column in (*columns, *updates)] == [np.dtype(code) for code in DTYPES]
        assert {len(column) for column in updates} == {batch.first[-1]}
        assert batch.first[0] == 0
        assert (batch.update_id == NO_ID).all()
        assert (batch.sequence == NO_ID).all()
        assert [entry.before for entry in batch.bad] == sorted(entry.before for entry in batch.bad)
        assert all(0 <= entry.before <= len(batch) for entry in batch.bad)
        bad += [(len(messages) + entry.before, entry.source_row, entry.byte_offset, entry.raw, entry.reason) for entry in batch.bad]
        for k in range(len(batch)):
            levels = [tuple(int(column[j]) for column in updates) for j in range(batch.first[k], batch.first[k + 1])]
            head = (int(column[k]) for column in (batch.kind, batch.ts, batch.cts, batch.line, batch.offset))
            messages.append((*head, [(side, price, pd, size, sd) for side, price, size, pd, sd in levels]))
    return messages, bad, reader.skipped_rows, reader.discarded_rows


def written(path: Path, *rows: str, header: str = HEADER) -> Path:
    path.write_text("\n".join((header, *rows)) + "\n")
    return path


def row(local: int, flag: str, side: str, price: str, amount: str, symbol: str = made.SYMBOL) -> str:
    return f"deribit,{symbol},{T + local - 5},{T + local},{flag},{side},{price},{amount}"


def kinds(path: Path) -> list[tuple[int, int, list[tuple]]]:
    """(kind, microseconds after T, updates as (side, price, amount)) of the messages."""
    messages, bad, *_ = collect(open_tardis_l2(path))
    assert not bad
    return [
        (kind, ts // 1000 - T, [(s, naive.number(p, pd), naive.number(a, ad)) for s, p, pd, a, ad in updates]) for kind, ts, *_, updates in messages
    ]


@pytest.mark.real_data
def test_a_real_snapshot_is_one_message_with_all_its_rows(real_data):
    path = real_data("tardis/deribit_incremental_book_L2_BTC-PERPETUAL.csv")
    reader = open_tardis_l2(path)
    found = collect(reader)
    assert found == naive.l2(path.read_bytes(), "BTC-PERPETUAL")
    ((kind, ts, cts, line, offset, updates),) = found[0]
    assert (kind, ts, cts, line) == (SNAPSHOT, 1_585_699_200_355_684_000, 1_585_699_200_245_000_000, 0)
    assert offset == len(HEADER) + 1
    assert updates[0] == (1, 64_215, 1, 18_640, 0)
    assert (len(updates), reader.lines, reader.symbol, reader.exchange, reader.depth) == (15, 15, "BTC-PERPETUAL", "deribit", 0)
    assert reader.bytes_read == path.stat().st_size


@settings(max_examples=EXAMPLES, deadline=None)
@given(made.l2_rows().flatmap(lambda rows: made.texts(NAMES, rows)), st.integers(25, 600), st.sampled_from((made.SYMBOL, made.OTHER)))
def test_any_file_cut_at_any_block_border_reads_as_in_the_twin(tmp_path_factory, data, batch_bytes, symbol):
    path = tmp_path_factory.getbasetemp() / "any_l2.csv"
    path.write_bytes(data)
    reader = open_tardis_l2(path, symbol)
    assert collect(reader, batch_bytes) == naive.l2(data, symbol)


@settings(max_examples=EXAMPLES, deadline=None)
@given(made.l2_rows().flatmap(lambda rows: made.texts(NAMES, rows, odd=50)))
def test_the_book_after_each_message_is_the_one_that_the_rows_give_one_by_one(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "books_l2.csv"
    path.write_bytes(data)
    book: dict = {}
    after = {}
    for kind, ts, *_, updates in collect(open_tardis_l2(path, made.SYMBOL))[0]:
        book = {} if kind == SNAPSHOT else book
        for side, price, price_digits, size, size_digits in updates:
            book.pop((side, naive.number(price, price_digits)), None)
            if size:
                book[side, naive.number(price, price_digits)] = naive.number(size, size_digits)
        after[ts] = dict(book)
    assert after == naive.books_by_time(data, made.SYMBOL)


@pytest.mark.parametrize("name", NAMES)
def test_every_edge_of_a_field_reads_as_in_the_twin(tmp_path, name):
    good = dict(zip(NAMES, row(0, "true", "bid", "100.5", "2").split(","), strict=True))
    lines = [",".join({**good, name: text}.values()) for text in made.EDGES[name]]
    path = written(tmp_path / "edge.csv", ",".join(good.values()), *lines)
    messages, bad, *rest = naive.l2(path.read_bytes(), made.SYMBOL)
    assert collect(open_tardis_l2(path, made.SYMBOL)) == (messages, bad, *rest)
    assert messages
    assert bad or name in ("exchange", "symbol")


@settings(max_examples=2 * EXAMPLES, deadline=None)
@given(st.lists(made.DECIMALS, min_size=1, max_size=20))
def test_any_decimal_is_exact_or_refused(tmp_path_factory, texts):
    path = written(tmp_path_factory.getbasetemp() / "decimals.csv", *(row(0, "true", "bid", text, "1") for text in texts))
    messages, bad, *rest = collect(open_tardis_l2(path, made.SYMBOL))
    assert (messages, bad, *rest) == naive.l2(path.read_bytes(), made.SYMBOL)
    refused = {entry[1] for entry in bad}
    updates = [update for message in messages for update in message[5]]
    assert [naive.number(*update[1:3]) for update in updates] == [Decimal(text) for k, text in enumerate(texts) if k not in refused]


@pytest.mark.parametrize(("text", "expected"), [("1e-7", (1, 7)), ("5.0", (50, 1)), ("1.5e-7", (15, 8)), ("1e+3", (1000, 0)), ("2.50", (250, 2))])
def test_amounts_are_kept_as_written_and_exponents_are_applied(tmp_path, text, expected):
    messages, *_ = collect(open_tardis_l2(written(tmp_path / "f.csv", row(0, "true", "bid", "1", text))))
    assert messages[0][5][0][3:] == expected


def test_rows_of_one_local_time_are_one_message_and_the_times_are_those_of_the_feed(tmp_path):
    path = written(tmp_path / "f.csv", row(0, "true", "bid", "1", "1"), row(7, "false", "ask", "2", "1"), row(7, "false", "bid", "1", "0"))
    messages, *_ = collect(open_tardis_l2(path))
    assert [(kind, ts, cts, line) for kind, ts, cts, line, *_ in messages] == [
        (SNAPSHOT, T * 1000, (T - 5) * 1000, 0),
        (DELTA, (T + 7) * 1000, (T + 2) * 1000, 1),
    ]
    assert [len(message[5]) for message in messages] == [1, 2]


def test_rows_before_the_first_snapshot_are_skipped_and_counted(tmp_path):
    path = written(tmp_path / "f.csv", row(0, "false", "bid", "1", "1"), row(1, "false", "ask", "2", "1"), row(2, "true", "bid", "3", "1"))
    reader = open_tardis_l2(path)
    messages, *_ = collect(reader)
    assert [(message[0], message[3]) for message in messages] == [(SNAPSHOT, 2)]
    assert (reader.skipped_rows, reader.lines) == (2, 3)


def test_a_snapshot_after_updates_and_one_after_another_both_discard_the_book(tmp_path):
    path = written(
        tmp_path / "f.csv", row(0, "true", "bid", "1", "1"), row(5, "true", "bid", "2", "1"), row(5, "true", "ask", "9", "1"),
        row(6, "false", "bid", "3", "1"), row(8, "true", "bid", "4", "1"),
    )  # fmt: skip
    assert [(kind, at) for kind, at, _ in kinds(path)] == [(SNAPSHOT, 0), (SNAPSHOT, 5), (DELTA, 6), (SNAPSHOT, 8)]


def test_updates_behind_a_snapshot_of_the_same_local_time_are_in_its_message(tmp_path):
    path = written(tmp_path / "f.csv", row(0, "true", "bid", "1", "1"), row(0, "true", "bid", "2", "1"), row(0, "false", "bid", "1", "0"))
    assert kinds(path) == [(SNAPSHOT, 0, [(0, 1, 1), (0, 2, 1), (0, 1, 0)])]


def test_updates_before_a_snapshot_of_the_same_local_time_are_left_out_and_counted(tmp_path):
    path = written(
        tmp_path / "f.csv", row(0, "true", "bid", "1", "1"), row(3, "false", "bid", "8", "1"), row(3, "true", "bid", "2", "1"),
        row(3, "false", "ask", "5", "1"), row(3, "true", "ask", "6", "1"),
    )  # fmt: skip
    assert kinds(path) == [(SNAPSHOT, 0, [(0, 1, 1)]), (SNAPSHOT, 3, [(1, 6, 1)])]
    reader = open_tardis_l2(path)
    collect(reader)
    assert reader.discarded_rows == 3


@pytest.mark.parametrize(
    ("broken", "after"),
    [
        (row(0, "true", "ask", "x", "1"), 1),  # of the snapshot: it does not heal what it lacks
        (row(3, "false", "ask", "x", "1"), 1),  # between two messages
        (row(5, "false", "ask", "x", "1"), 1),  # of the delta: suspect from it on
        (row(9, "true", "ask", "x", "1"), 3),  # of the second snapshot, after it
        ("deribit,BTC", 3),  # no time, right before that snapshot
    ],
)
def test_a_bad_row_stands_where_the_book_is_suspect_and_not_healed_by_its_own_snapshot(tmp_path, broken, after):
    rows = [row(0, "true", "bid", "1", "1"), row(5, "false", "bid", "2", "1"), row(9, "true", "bid", "3", "1"), row(12, "false", "bid", "4", "1")]
    at = {"deribit,BTC": 2}.get(broken) or {"0": 1, "3": 1, "5": 2, "9": 2}[str(int(broken.split(",")[3]) - T)]
    path = written(tmp_path / "f.csv", *rows[:at], broken, *rows[at:])
    messages, bad, *_ = collect(open_tardis_l2(path, made.SYMBOL))
    assert len(messages) == 4
    assert [(entry[0], entry[1], entry[3]) for entry in bad] == [(after, at, broken.encode())]


def test_a_message_longer_than_many_blocks_is_whole(tmp_path):
    rows = [row(0, "true", "bid", str(k), "1") for k in range(1, 3_000)]
    messages, bad, *_ = collect(open_tardis_l2(written(tmp_path / "f.csv", *rows, row(1, "false", "bid", "1", "0"))), 1_000)
    assert [len(message[5]) for message in messages] == [2_999, 1]
    assert [update[1] for update in messages[0][5]] == list(range(1, 3_000))
    assert not bad


def test_more_bad_rows_than_fit_at_once_are_all_told(tmp_path):
    rows = [row(0, "true", "bid", "1", "1"), *("nothing" for _ in range(10_000)), row(0, "true", "bid", "2", "1"), row(1, "false", "bid", "1", "0")]
    messages, bad, *_ = collect(open_tardis_l2(written(tmp_path / "f.csv", *rows)))
    assert [len(message[5]) for message in messages] == [2, 1]
    assert [entry[:2] for entry in bad] == [(1, k) for k in range(1, 10_001)]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_every_compression_reads_the_same(tmp_path, suffix):
    rows = [row(k // 3, "true" if k < 9 else "false", "bid", str(k % 50), "1.5") for k in range(2_000)]
    plain = written(tmp_path / "f.csv", *rows)
    data, path = plain.read_bytes(), tmp_path / f"g.csv{suffix}"
    path.write_bytes({"": data, ".gz": gzip.compress(data), ".zst": zstandard.compress(data)}[suffix])
    assert collect(open_tardis_l2(path), 4_096) == naive.l2(plain.read_bytes(), made.SYMBOL)


def test_a_cut_gzip_gives_every_whole_message_and_then_says_where_it_broke(tmp_path):
    rows = [row(k // 3, "true" if k < 3 else "false", "bid", str(k * 7919 % 99_991), "1") for k in range(30_000)]
    plain = written(tmp_path / "f.csv", *rows)
    path = tmp_path / "cut.csv.gz"
    path.write_bytes(gzip.compress(plain.read_bytes())[:-40_000])
    reader = open_tardis_l2(path)
    whole: list[DepthBatch] = []
    with pytest.raises(CorruptSource, match="cut short") as fault:
        whole.extend(reader.batches(1 << 16))
    assert all((np.diff(batch.first) == 3).all() for batch in whole)
    assert sum(len(batch) for batch in whole) == (reader.lines - 1) // 3  # the message that the break cuts is not given, whole lines of it or not
    lines = plain.read_bytes()[: fault.value.offset].count(b"\n") - 1
    assert reader.lines == lines > 3_000


def test_a_file_of_several_symbols_is_refused_unless_one_is_named(tmp_path):
    path = written(
        tmp_path / "f.csv", row(0, "true", "bid", "1", "1"), row(0, "true", "bid", "7", "1", "ETH"), row(0, "true", "bid", "2", "1"),
        row(1, "false", "bid", "8", "1", "ETH"),
    )  # fmt: skip
    assert symbols(path) == [made.SYMBOL, "ETH"]
    with pytest.raises(SchemaMismatch, match=r"row 1: holds several symbols: a row of 'ETH' after rows of 'BTC-PERPETUAL'.*Name the one to read"):
        list(open_tardis_l2(path).batches(1 << 20))
    for symbol, expected in ((made.SYMBOL, [[1, 2]]), ("ETH", [[7], [8]])):
        reader = open_tardis_l2(path, symbol)
        messages, bad, *_ = collect(reader)
        assert [[update[1] for update in message[5]] for message in messages] == expected
        assert not bad
        assert (reader.symbol, reader.lines, reader.other_rows) == (symbol, 4, 2)


@pytest.mark.parametrize("header", [HEADER, ",".join(f'"{name}"' for name in NAMES) + "\r"])
def test_the_header_of_a_file_joined_to_the_end_of_another_is_no_row_of_a_symbol(tmp_path, header):
    rows = [row(0, "true", "bid", "1", "1"), header, row(1, "false", "bid", "2", "1"), header]
    path = written(tmp_path / "f.csv", *rows)
    assert symbols(path) == [made.SYMBOL]
    reader = open_tardis_l2(path)
    messages, bad, *_ = collect(reader)
    assert [[update[1] for update in message[5]] for message in messages] == [[1], [2]]
    assert not bad
    assert (reader.symbol, reader.lines, reader.other_rows, reader.left_out["header"]) == (made.SYMBOL, 4, 0, 2)
    # No row of its own stands before it, either.
    assert open_tardis_l2(written(tmp_path / "g.csv", *rows[1:])).symbol == made.SYMBOL


def test_many_symbols_are_all_listed(tmp_path):
    names = [f"BTC-{k}" for k in range(500)]
    assert symbols(written(tmp_path / "f.csv", *(row(0, "true", "bid", "1", "1", name) for name in names * 3))) == names


def test_a_reader_can_be_read_twice_and_closed_early(tmp_path):
    path = written(tmp_path / "f.csv", *(row(k, "true" if k < 3 else "false", "bid", str(k), "1") for k in range(500)))
    reader = open_tardis_l2(path)
    next(iter(reader.batches(1_000)))
    reader.close()
    assert collect(reader) == collect(reader) == naive.l2(path.read_bytes(), made.SYMBOL)


def test_a_file_with_a_header_only_has_no_messages(tmp_path):
    reader = open_tardis_l2(written(tmp_path / "f.csv"))
    assert list(reader.batches(1 << 20)) == []
    assert (reader.symbol, reader.lines) == ("", 0)


def test_what_is_not_this_layout_is_refused_with_what_it_is(tmp_path):
    (tmp_path / "empty.csv").write_bytes(b"")
    with pytest.raises(EmptySource):
        open_tardis_l2(tmp_path / "empty.csv")
    with pytest.raises(SchemaMismatch, match="more than once in the header: price"):
        open_tardis_l2(written(tmp_path / "twice.csv", header=HEADER + ",price"))
    with pytest.raises(SchemaMismatch, match=r"lacks column\(s\) is_snapshot"):
        open_tardis_l2(written(tmp_path / "few.csv", header=HEADER.replace("is_snapshot,", "")))
    with pytest.raises(SchemaMismatch, match="not in microseconds"):
        open_tardis_l2(written(tmp_path / "ms.csv", row(0, "true", "bid", "1", "1").replace(str(T), str(T // 1000))))
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(HEADER.encode())[:8])
    with pytest.raises(CorruptSource):
        open_tardis_l2(tmp_path / "cut.csv.gz")
    with pytest.raises(SchemaMismatch, match=r"Tardis\.dev of type incremental_book_L2"):
        open_tardis_l2(written(tmp_path / "x.csv", header="a,b,c"))
