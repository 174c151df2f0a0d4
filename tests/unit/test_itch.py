"""ITCH 5.0 files against a message-by-message twin, against a book by ITCH's own rules, and broken in every way that a file breaks."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.book_rows import read_table
from tasks.errors import CorruptSource, EmptySource, SchemaMismatch, SourceError, UnknownFormat
from tasks.footers import read_facts
from tasks.partitions import MboRecipe, SourceFile, Stamp
from tasks.reconstruction.book_at import book_at
from tasks.reconstruction.checkpoints import read_resting, write_resting
from tasks.reconstruction.rebuild import rebuild
from tasks.scanning.decode import decode
from tasks.scanning.formats import Identified, identify
from tasks.scanning.inventory import scan
from tasks.scanning.itch import ItchReader
from tasks.scanning.itch_messages import BOOK_TYPES, LENGTHS, looks_like_itch, session_date, venue_of
from tasks.scanning.readers import open_reader
from tasks.schemas import EVENT_DTYPES, UNDEF_PRICE
from tests.oracles import naive_itch as naive
from tests.strategies import itch_messages as itch
from tests.strategies.itch_messages import NINE, directory, encode, encoded, frame, start

U = UNDEF_PRICE

EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "200"))
generated = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
DAY = "2019-01-30"
NAME = "01302019.NASDAQ_ITCH50"
MIDNIGHT = 1_548_824_400 * 10**9  # of 2019-01-30 in New York
PACK = {"plain": bytes, "gzip": gzip.compress, "zstd": zstandard.compress}


def opened(path: Path, day: str = DAY, block_bytes: int | None = None) -> ItchReader:
    return ItchReader(SourceFile(str(path), "itch", "XNAS.ITCH", "xxh3:0", 0, 0, 0, dates=(day,) if day else ()), block_bytes=block_bytes)


def read(reader: ItchReader, batch_rows: int = 1000):
    """Events and bad rows in the twin's words, and the error that ended the read; checks what each batch promises."""
    events, bad, error = [], [], None
    try:
        for batch in reader.batches(batch_rows):
            assert len(batch) + len(batch.bad) <= max(batch_rows, 3)
            assert {name: values.dtype for name, values in batch.columns.items()} == EVENT_DTYPES
            columns = {name: values.tolist() for name, values in batch.columns.items()}
            assert columns["ts_recv"] == columns["ts_event"]
            assert {*columns["channel_id"], *columns["ts_in_delta"]} <= {0}
            bad += [(len(events) + entry.before, entry.source_row, entry.byte_offset, entry.raw, entry.reason) for entry in batch.bad]
            for i in range(len(batch)):
                events.append((
                    int(batch.source_row[i]), reader.symbols[batch.symbol_code[i]], columns["ts_event"][i], columns["instrument_id"][i],
                    columns["sequence"][i], chr(columns["action"][i]), chr(columns["side"][i]), columns["price"][i], columns["size"][i],
                    columns["order_id"][i], columns["flags"][i],
                ))  # fmt: skip
    except CorruptSource as fault:
        error = fault
    finally:
        reader.close()
    assert reader.source_rows + reader.expanded_rows == len(events) + len(bad)
    return events, bad, error


def agrees(path: Path, data: bytes, **options) -> naive.Decoder:
    """The reader's reading of a file that holds `data` is the twin's; returns the twin."""
    twin = naive.Decoder(data, DAY)
    reader = opened(path, block_bytes=options.pop("block_bytes", None))
    events, bad, error = read(reader, **options)
    assert events == twin.events
    assert bad == twin.bad
    assert (error and error.offset) == (twin.error and twin.error[1])
    assert reader.source_rows == twin.rows
    assert reader.message_counts == {kind: twin.counts[kind] for kind in LENGTHS if kind in twin.counts}
    assert reader.unknown_references == twin.unknown
    return twin


@generated
@given(st.lists(itch.frames(), max_size=80), st.sampled_from(sorted(PACK)), st.integers(1, 90), st.sampled_from((1, 2, 7, 64, 5000)), st.booleans())
def test_every_message_is_read_as_the_twin_reads_it(tmp_path_factory, frames, packing, batch_rows, block_bytes, marked):
    data = frame(encode(*start())) + b"".join(frames) + (b"\0\0" if marked else b"")
    path = tmp_path_factory.getbasetemp() / "any.itch"
    path.write_bytes(PACK[packing](data))
    agrees(path, data, batch_rows=batch_rows, block_bytes=block_bytes)


@generated
@given(itch.days(), st.integers(1, 90), st.sampled_from((1, 100, 5000)))
def test_a_day_without_a_fault_has_no_bad_row_and_no_unknown_order(tmp_path_factory, messages, batch_rows, block_bytes):
    path = tmp_path_factory.getbasetemp() / "day.itch"
    path.write_bytes(encoded(messages))
    twin = agrees(path, encoded(messages), batch_rows=batch_rows, block_bytes=block_bytes)
    assert (twin.bad, twin.unknown) == ([], 0)


@pytest.mark.parametrize("block_bytes", [None, 3])
def test_a_file_cut_at_any_byte_keeps_every_whole_message(tmp_path, block_bytes):
    messages = [
        start(), directory(1), ("A", 1, NINE, 1, b"B", 5, b"AAPL", 10), ("E", 1, NINE, 1, 2, 77), ("U", 1, NINE, 1, 2, 9, 11),
        ("Q", 1, NINE, 5, b"AAPL", 10, 78, b"O"), ("D", 1, NINE, 2),
    ]  # fmt: skip
    data, path = encoded(messages), tmp_path / "cut.itch"
    borders = np.cumsum([0] + [2 + LENGTHS[message[0]] for message in messages]).tolist()
    for cut in range(1, len(data) + 1):
        path.write_bytes(data[:cut])
        twin = agrees(path, data[:cut], block_bytes=block_bytes)
        whole = max(border for border in borders if border <= cut)
        assert [(b[2], b[3], b[4]) for b in twin.bad] == ([(whole, data[whole:cut], "truncated")] if cut > whole else [])
        assert sum(twin.counts.values()) == borders.index(whole)


def one(tmp_path, *messages, block_bytes=None):
    """Events of a file as (action, side, price, size, order id, flags), after the system event and a directory message."""
    path = tmp_path / "one.itch"
    path.write_bytes(encoded([start(), directory(1), *messages]))
    reader = opened(path, block_bytes=block_bytes)
    events, bad, error = read(reader)
    assert error is None
    assert not bad
    return [event[5:] for event in events[1:]], reader


def test_each_message_becomes_its_events(tmp_path):
    unit = 10**5
    got, reader = one(
        tmp_path,
        ("A", 1, NINE, 1, b"B", 100, b"AAPL", 1000), ("F", 1, NINE, 2, b"S", 50, b"AAPL", 1010, b"MPID"), ("E", 1, NINE, 1, 30, 901),
        ("C", 1, NINE, 2, 20, 902, b"Y", 1005), ("C", 1, NINE, 2, 10, 903, b"N", 1005), ("X", 1, NINE, 1, 20), ("U", 1, NINE, 1, 3, 70, 1001),
        ("D", 1, NINE, 3), ("P", 1, NINE, 0, b"B", 40, b"AAPL", 1004, 904), ("Q", 1, NINE, 500, b"AAPL", 1006, 905, b"O"),
        ("Q", 1, NINE, 0, b"AAPL", 0, 906, b"C"), ("B", 1, NINE, 901), itch.action(1, NINE, b"H"), itch.action(1, NINE, b"P"),
        itch.action(1, NINE, b"Q"), itch.action(1, NINE, b"T"), directory(1),
    )  # fmt: skip
    assert got == [
        ("A", "B", 1000 * unit, 100, 1, 128), ("A", "A", 1010 * unit, 50, 2, 128),
        ("T", "A", 1000 * unit, 30, 901, 0), ("F", "B", 1000 * unit, 30, 1, 0), ("C", "B", 1000 * unit, 30, 1, 128),
        ("T", "B", 1005 * unit, 20, 902, 0), ("F", "A", 1010 * unit, 20, 2, 0), ("C", "A", 1010 * unit, 20, 2, 128),
        ("F", "A", 1010 * unit, 10, 2, 0), ("C", "A", 1010 * unit, 10, 2, 128), ("C", "B", 1000 * unit, 20, 1, 128),
        ("C", "B", 1000 * unit, 50, 1, 0), ("A", "B", 1001 * unit, 70, 3, 128), ("C", "B", 1001 * unit, 70, 3, 128),
        ("T", "N", 1004 * unit, 40, 904, 128), ("T", "N", 1006 * unit, 500, 905, 128), ("N", "N", UNDEF_PRICE, 0, 906, 128),
        ("N", "N", UNDEF_PRICE, 0, 901, 128), ("N", "N", -(10**9), 0, 0, 128), ("N", "N", -(10**9), 0, 0, 128), ("N", "N", 0, 0, 0, 128),
        ("N", "N", 10**9, 0, 0, 128), ("N", "N", UNDEF_PRICE, 0, 0, 128),
    ]  # fmt: skip
    assert (reader.source_rows, reader.expanded_rows, reader.unknown_references) == (18, 6, 0)


def test_orders_that_are_not_there_become_cancels_and_are_counted(tmp_path):
    got, reader = one(
        tmp_path, ("E", 1, NINE, 7, 30, 901), ("C", 1, NINE, 7, 20, 902, b"Y", 1005), ("C", 1, NINE, 7, 20, 903, b"N", 1005), ("X", 1, NINE, 7, 5),
        ("D", 1, NINE, 7), ("U", 1, NINE, 7, 8, 70, 1001), ("D", 1, NINE, 8),
    )  # fmt: skip
    assert got == [
        ("C", "N", U, 30, 7, 128), ("T", "N", 1005 * 10**5, 20, 902, 0), ("C", "N", U, 20, 7, 128), ("C", "N", U, 20, 7, 128),
        ("C", "N", U, 5, 7, 128), ("C", "N", U, 0, 7, 128), ("C", "N", U, 0, 7, 128), ("C", "N", U, 0, 8, 128),
    ]  # fmt: skip
    assert reader.unknown_references == 7


def test_a_directory_message_clears_only_where_nothing_can_rest(tmp_path):
    """A file that starts in the middle of a day has orders of the stock before a directory message that is sent again."""
    path = tmp_path / "middle.itch"
    path.write_bytes(encoded([start(), ("D", 1, NINE, 7), directory(1), directory(2), directory(2)]))
    events, _, _ = read(opened(path))
    assert [(event[1], event[5]) for event in events] == [("locate-1", "C"), ("AAPL", "N"), ("BRK.A", "R"), ("BRK.A", "N")]


def test_time_date_and_number_of_the_message(tmp_path):
    path = tmp_path / NAME
    late = 86_399 * 10**9 + 999_999_999
    path.write_bytes(encoded([start(), directory(1, 0), ("N", 1, 5, b"AAPL", b"A"), ("A", 1, late, 1, b"B", 1, b"AAPL", 1)]))
    reader = opened(path, day="")
    (batch,) = reader.batches(100)
    assert batch.columns["ts_event"].tolist() == [MIDNIGHT, MIDNIGHT + late]
    assert batch.columns["sequence"].tolist() == [2, 4]
    assert (batch.source_row.tolist(), batch.columns["publisher_id"].tolist()) == ([0, 1], [2, 2])
    assert batch.raw(1) == (14 + 41 + 22, path.read_bytes()[77:])
    assert reader.message_counts == {"S": 1, "R": 1, "A": 1, "N": 1}


@pytest.mark.parametrize(("day", "hour"), [("2019-01-30", 5), ("2019-07-30", 4), ("2019-03-11", 4), ("2019-03-08", 5)])
def test_midnight_is_that_of_new_york_summer_and_winter(tmp_path, day, hour):
    path = tmp_path / f"{day}.itch"
    path.write_bytes(encoded([start(), directory(1, 1)]))
    (batch,) = opened(path, day="").batches(100)
    assert batch.columns["ts_event"][0] == np.datetime64(f"{day}T0{hour}:00:00.000000001", "ns").astype(np.int64)


def test_a_message_of_another_stock_than_its_order_is_set_aside_and_changes_nothing(tmp_path):
    path = tmp_path / "a.itch"
    path.write_bytes(encoded([start(), ("A", 1, NINE, 1, b"B", 5, b"AAPL", 10), ("D", 2, NINE, 1), ("X", 1, NINE, 1, 2)]))
    events, bad, _ = read(opened(path))
    assert [(event[5], event[8]) for event in events] == [("A", 5), ("C", 2)]
    assert [entry[4] for entry in bad] == ["locate"]


@pytest.mark.parametrize(
    ("message", "reason", "detail"),
    [
        (encode("A", 1, NINE, 1, b"X", 5, b"AAPL", 10), "side", "'X' in a message of type A; allowed: B, S"),
        (encode("P", 1, NINE, 1, b"N", 5, b"AAPL", 10, 1), "side", "'N' in a message of type P; allowed: B, S"),
        (encode("C", 1, NINE, 1, 5, 6, b"?", 10), "printable", "'?' in a message of type C; allowed: Y, N"),
        (encode("H", 1, NINE, b"AAPL", b"X", b" ", b"    "), "trading_state", "'X' in a message of type H; allowed: H, P, Q, T"),
        (encode("Q", 1, NINE, 2**32, b"AAPL", 10, 1, b"O"), "size_range", "4,294,967,296 shares; allowed: up to 4,294,967,295"),
        (encode("D", 1, 86_400 * 10**9, 1), "time_range", "86,400,000,000,000 ns after midnight; a day has 86,400,000,000,000"),
        (encode("A", 1, NINE, 1, b"B", 5, b"A\x7fPL", 10), "stock", "the stock in a message of type A is blank or not printable"),
        (encode("D", 1, NINE, 1) + b"\0", "length", "a message of type D has 19 bytes, this one 20"),
        (b"", "length", "a length of 0, and the file goes on"),
        (b"Z" + bytes(30), "message_type", f"type 'Z' of 31 bytes; known are {', '.join(LENGTHS)}"),
    ],
)
def test_a_message_that_cannot_be_is_set_aside_with_what_is_allowed(tmp_path, message, reason, detail):
    path = tmp_path / "a.itch"
    path.write_bytes(encoded([start(), directory(1)]) + frame(message) + encoded([("B", 1, NINE, 5)]))
    (batch,) = opened(path).batches(100)
    assert [chr(letter) for letter in batch.columns["action"]] == ["R", "N"]
    (bad,) = batch.bad
    assert (bad.before, bad.source_row, bad.byte_offset, bad.raw, bad.reason, bad.detail) == (1, 1, 55, frame(message), reason, detail)
    assert bad.symbol_code == (-1 if reason in ("length", "message_type") else 0)


def test_a_market_order_price_above_the_signed_range_is_kept(tmp_path):
    got, _ = one(tmp_path, ("A", 1, NINE, 1, b"B", 5, b"AAPL", 2**32 - 1))
    assert got == [("A", "B", (2**32 - 1) * 10**5, 5, 1, 128)]


def test_the_table_of_orders_grows_and_loses_none(tmp_path):
    rng = np.random.default_rng(5)
    adds = [("A", 1, NINE, int(ref), b"B", 3, b"AAPL", 10) for ref in rng.permutation(30_000) * 7]
    gone = [("D", 1, NINE, int(ref)) for ref in rng.permutation(30_000)[:29_000] * 7]
    path = tmp_path / "many.itch"
    path.write_bytes(encoded([start(), *adds, *gone, *adds[:10]]))
    twin = agrees(path, path.read_bytes(), batch_rows=500)
    assert twin.unknown == 0
    assert len(twin.events) == 59_010


def test_memory_follows_the_orders_that_rest(tmp_path):
    path = tmp_path / "short.itch"
    path.write_bytes(encoded([start(), *(m for k in range(20_000) for m in (("A", 1, NINE, k, b"B", 3, b"AAPL", 10), ("D", 1, NINE, k)))]))
    reader = opened(path)
    events, _, _ = read(reader, batch_rows=100)
    assert len(events) == 40_000
    assert len(reader._orders) == 256  # twice what 100 messages could add


def test_an_order_that_was_taken_whole_is_gone(tmp_path):
    for kind, fields in (("E", (1, 5, 77)), ("C", (1, 5, 77, b"N", 10)), ("X", (1, 5)), ("D", (1,)), ("U", (1, 2, 5, 10))):
        got, reader = one(tmp_path, ("A", 1, NINE, 1, b"B", 5, b"AAPL", 10), (kind, 1, NINE, *fields), ("X", 1, NINE, 1, 1))
        assert (got[-1], reader.unknown_references) == (("C", "N", U, 1, 1, 128), 1)


def test_a_reference_that_is_used_again_means_the_later_order(tmp_path):
    add = ("A", 1, NINE, 1, b"B", 5, b"AAPL", 10)
    got, _ = one(tmp_path, add, ("A", 1, NINE, 1, b"S", 6, b"AAPL", 11), ("D", 1, NINE, 1), add, ("U", 1, NINE, 1, 1, 3, 9), ("D", 1, NINE, 1))
    px = 10**5
    assert [event[:4] for event in got] == [
        ("A", "B", 10 * px, 5), ("A", "A", 11 * px, 6), ("C", "A", 11 * px, 6), ("A", "B", 10 * px, 5), ("C", "B", 10 * px, 5),
        ("A", "B", 9 * px, 3), ("C", "B", 9 * px, 3),
    ]  # fmt: skip


def test_single_bad_frames_between_good_ones_never_end_the_file(tmp_path):
    path = tmp_path / "pairs.itch"
    path.write_bytes(encoded([start(), directory(1), directory(2)]) + (b"\0\5ABCDE" + encoded([("B", 1, NINE, 1)])) * 30)
    twin = agrees(path, path.read_bytes())
    assert (twin.error, len(twin.bad), len(twin.events)) == (None, 30, 32)


def test_lengths_that_lead_nowhere_end_the_file_at_the_first_of_them(tmp_path):
    good = encoded([start(), directory(1)] + [("B", 1, NINE, k) for k in range(20)])
    path = tmp_path / "lost.itch"
    for garbage, bad_rows in ((bytes(40), 7), (b"\0\5ABCDE" * 9, 7), (b"\xff\xff" + bytes(10), 0)):
        path.write_bytes(good + garbage + encoded([("B", 1, NINE, 1)]))
        for block_bytes in (1, 100, None):
            twin = agrees(path, path.read_bytes(), block_bytes=block_bytes)
            assert twin.error is not None
            assert twin.error[1] == len(good)
            assert (len(twin.events), len(twin.bad)) == (21, bad_rows)


def test_messages_of_a_type_that_is_not_known_yet_do_not_end_the_file(tmp_path):
    path = tmp_path / "new.itch"
    path.write_bytes(encoded([start(), directory(1)]) + frame(b"z" + bytes(20)) * 30 + encoded([("B", 1, NINE, 5)]))
    twin = agrees(path, path.read_bytes())
    assert twin.error is None
    assert (len(twin.events), len(twin.bad)) == (2, 30)


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_damaged_compressed_data_gives_its_whole_messages_and_then_the_place(tmp_path, packing):
    rng = np.random.default_rng(2)
    adds = [("A", 1, NINE, int(ref), b"B", 3, b"AAPL", 10) for ref in rng.integers(0, 2**62, 20_000)]
    whole, path = PACK[packing](encoded([start(), *adds])), tmp_path / "cut.itch"
    path.write_bytes(whole[: len(whole) // 2])
    events, bad, error = read(opened(path))
    assert error is not None
    assert not bad
    assert 5_000 < len(events) < 15_000
    assert (error.offset - 14) // 38 == len(events)
    assert f"{len(events) + 1:,} messages before it" in str(error)
    assert error.remedy


def test_an_empty_file_is_an_error_and_one_with_only_its_end_mark_is_not(tmp_path):
    path = tmp_path / "empty"
    path.write_bytes(b"")
    with pytest.raises(EmptySource):
        list(opened(path).batches(10))
    path.write_bytes(b"\0\0")
    assert read(opened(path)) == ([], [], None)


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("01302019.NASDAQ_ITCH50.gz", "2019-01-30"), ("S081321-v50.txt.gz", "2021-08-13"), ("20190130.itch", "2019-01-30"),
        ("2019-01-30", "2019-01-30"), ("nasdaq_2019-12-01_part.bin", "2019-12-01"), ("10112012.NASDAQ_ITCH50", "2012-10-11"),
        ("20190530.PSX_ITCH_50.gz", "2019-05-30"), ("S020316-v50-bx.txt.gz", "2016-02-03"),
    ],
)  # fmt: skip
def test_the_date_is_found_in_the_name(name, day):
    assert str(session_date(f"/folder-20200101/{name}")) == day


@pytest.mark.parametrize(
    ("name", "words"),
    [("feed.itch", "no date"), ("13302019.itch", "no date"), ("120190130.itch", "no date"), ("20190130-20190131.itch", "more than one date")],
)
def test_a_name_without_one_date_says_how_to_name_the_file(tmp_path, name, words):
    path = tmp_path / name
    path.write_bytes(encoded([start()]))
    for attempt in (lambda: session_date(path), lambda: opened(path, day="")):
        with pytest.raises(SchemaMismatch, match=words) as caught:
            attempt()
        assert "01302019.NASDAQ_ITCH50.gz" in caught.value.remedy
    (entry,) = scan([path]).rejected
    assert isinstance(entry.error, SchemaMismatch)


def test_the_venue_is_nasdaq_unless_the_name_says_bx_or_psx():
    names = ("01302019.NASDAQ_ITCH50.gz", "20190530.BX_ITCH_50.gz", "S020316-v50-psx.txt.gz", "box-20190530.itch")
    assert [venue_of(name) for name in names] == [("XNAS.ITCH", 2), ("XBOS.ITCH", 3), ("XPSX.ITCH", 4), ("XNAS.ITCH", 2)]


@pytest.mark.parametrize("packing", sorted(PACK))
def test_a_file_is_recognised_by_its_messages_whatever_its_name(tmp_path, packing):
    path = tmp_path / "odd.name.json"
    for messages in ([start()], [start(), directory(1)], [directory(1), directory(2), directory(3)], [start(), *[directory(1)] * 3000]):
        path.write_bytes(PACK[packing](encoded(messages)))
        assert identify(path) == [Identified("itch", has_symbols=True)]


def test_what_only_resembles_messages_is_not_recognised(tmp_path):
    good = encoded([start(), directory(1), directory(2)])
    for head in (b"", b"\0", good[:13], good[14:70], b"\0\0" + good, good[:14] + b"\0\5hello" + good, frame(b"T" + bytes(4)) * 9, bytes(100)):
        assert not looks_like_itch(head)
    path = tmp_path / "20190130.itch"
    path.write_bytes(good[:13])
    with pytest.raises(UnknownFormat, match="ITCH"):
        identify(path)


def test_a_scan_describes_the_file_and_opens_it(tmp_path):
    (tmp_path / f"{NAME}.gz").write_bytes(gzip.compress(encoded([start(), directory(1)])))
    (file,) = scan([tmp_path]).files
    assert (file.format, file.dataset, file.dates, file.symbols, file.rows) == ("itch", "XNAS.ITCH", (DAY,), (), -1)
    assert scan([tmp_path], dataset="MINE", symbol="S").files[0].dataset == "MINE"
    reader = open_reader(file)
    assert [len(batch) for batch in reader.batches(10)] == [1]
    reader.close()
    assert isinstance(reader, ItchReader)


def test_the_encoder_makes_the_lengths_of_the_specification():
    assert set(itch.LAYOUTS) == set(LENGTHS) == set(naive.LENGTHS)
    assert LENGTHS == naive.LENGTHS
    assert set(BOOK_TYPES) == naive.BOOK
    assert all(len(encode(*message)) == LENGTHS[message[0]] for message in (start(), directory(1), itch.action(1, 0, b"H")))


@settings(max_examples=max(5, EXAMPLES // 20), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(itch.days(most=120))
def test_rebuilt_books_are_those_of_itchs_own_rules_after_every_message(tmp_path_factory, messages):
    """The messages go into the lake as events and come out as books; beside it a book takes the messages themselves."""
    lake = tmp_path_factory.mktemp("lake")
    (lake / NAME).write_bytes(encoded(messages))
    (source,) = scan([lake / NAME]).files
    decoded = decode(source, lake, MboRecipe())
    assert decoded.rows_quarantined == 0
    recipe, found = MboRecipe(interval_ns=3_600_000_000_000), {}
    for part in decoded.parts:
        rebuilt = rebuild(lake, part.partition, [part.path], recipe)
        assert sum(rebuilt.facts["anomalies"].values()) == 0
        found[part.partition.instrument_id] = read_table(lake / rebuilt.outputs["mbp-10"][0]).to_pylist()
    book, at = naive.Book(), dict.fromkeys(found, 0)
    assert {part.partition.symbol for part in decoded.parts} == {stock.decode() for stock in itch.STOCKS.values()}
    for number, message in enumerate(messages, start=1):
        book.apply(message)
        if message[0] not in BOOK_TYPES:
            continue
        row = found[message[1]][at[message[1]]]
        at[message[1]] += 1
        assert row["sequence"] == number
        for side, buy in (("bid", True), ("ask", False)):
            levels = [(row[f"{side}_px_{k:02d}"], row[f"{side}_sz_{k:02d}"], row[f"{side}_ct_{k:02d}"]) for k in range(10)]
            assert [level for level in levels if level[0] != UNDEF_PRICE] == book.levels(message[1], buy)
    assert at == {locate: len(rows) for locate, rows in found.items()}


def test_messages_after_midnight_in_london_go_to_the_next_utc_day_and_the_book_goes_on(tmp_path):
    evening = (19 * 3600 + 60) * 10**9  # 19:01 in New York is 00:01 UTC
    messages = [start(), directory(1), ("A", 1, NINE, 1, b"B", 5, b"AAPL", 10), ("A", 1, NINE, 2, b"B", 6, b"AAPL", 11), ("D", 1, evening, 2)]
    (tmp_path / NAME).write_bytes(encoded(messages))
    (source,) = scan([tmp_path / NAME]).files
    first, second = decode(source, tmp_path, MboRecipe()).parts
    assert [(part.partition.date, part.rows) for part in (first, second)] == [("2019-01-30", 3), ("2019-01-31", 1)]
    rebuild(tmp_path, first.partition, [first.path], MboRecipe())
    facts = rebuild(tmp_path, second.partition, [second.path], MboRecipe(), carry=first.partition.path("closing_book")).facts
    assert (facts["status"], facts["best_bid"], facts["orders"]) == ("valid", [10 * 10**5, 5], 1)


def test_a_stock_halted_in_the_evening_is_halted_on_the_next_utc_day_until_its_trading_resumes(tmp_path):
    def evening(seconds: int) -> int:
        return (19 * 3600 + seconds) * 10**9  # 19:00 in New York is midnight UTC

    orders = [("A", 1, NINE, 1, b"B", 5, b"AAPL", 10), ("A", 1, NINE, 2, b"S", 6, b"AAPL", 12)]
    late = [("A", 1, evening(60 * k), 2 + k, b"B", 5, b"AAPL", 9) for k in (1, 2, 4)]
    trading, halt, resumed = (itch.action(1, evening(s), state) for s, state in ((-20_000, b"T"), (-1_800, b"H"), (180, b"T")))
    messages = [start(), directory(1), *orders, trading, halt, *late[:2], resumed, late[2]]
    (tmp_path / NAME).write_bytes(encoded(messages))
    (source,) = scan([tmp_path / NAME]).files
    first, second = decode(source, tmp_path, MboRecipe()).parts
    closing = first.partition.path("closing_book")
    assert rebuild(tmp_path, first.partition, [first.path], MboRecipe()).facts["status"] == "valid"
    made = rebuild(tmp_path, second.partition, [second.path], MboRecipe(), carry=closing)
    rows = read_table(tmp_path / made.outputs["mbp-10"][0]).to_pylist()
    assert [(row["status"], row["reason"]) for row in rows] == [("halted", "halt")] * 2 + [("valid", "")] * 2
    asked = [book_at(tmp_path, second.partition, row["as_of"].value) for row in rows]
    assert [(book.status, book.reason) for book in asked] == [(row["status"], row["reason"]) for row in rows]
    # Of a closing book that an older version wrote nothing is known but orders and status.
    facts = read_facts(tmp_path / closing)
    write_resting(tmp_path / closing, read_resting(tmp_path / closing), Stamp("older", "older"), {k: facts[k] for k in ("status", "reason", "ns")})
    made = rebuild(tmp_path, second.partition, [second.path], MboRecipe(), carry=closing)
    assert {row["status"] for row in read_table(tmp_path / made.outputs["mbp-10"][0]).to_pylist()} == {"valid"}


def test_a_file_that_starts_in_the_middle_of_a_day_is_decoded_whole_and_its_books_say_so(tmp_path):
    messages = [("E", 1, NINE, 5, 10, 901), ("A", 1, NINE, 6, b"B", 5, b"AAPL", 10), ("D", 1, NINE, 7), ("D", 1, NINE, 6)]
    (tmp_path / NAME).write_bytes(encoded([start(), *messages])[:-3])
    (source,) = scan([tmp_path / NAME]).files
    decoded = decode(source, tmp_path, MboRecipe())
    assert (decoded.rows_in, decoded.rows_out, decoded.rows_quarantined) == (4, 3, 1)
    (aapl,) = [part for part in decoded.parts if part.partition.symbol == "AAPL"]
    facts = rebuild(tmp_path, aapl.partition, [aapl.path], MboRecipe(starts_empty=True)).facts
    assert facts["anomalies"]["unknown_cancel"] == 1
    assert facts["status"] == "suspect"


def test_a_file_that_breaks_is_refused_and_salvaged_on_demand(tmp_path):
    (tmp_path / NAME).write_bytes(encoded([start(), directory(1), directory(2)]) + bytes(40))
    (source,) = scan([tmp_path / NAME]).files
    with pytest.raises(SourceError, match="8 frames in a row"):
        decode(source, tmp_path, MboRecipe())
    decoded = decode(source, tmp_path, MboRecipe(), salvage=True)
    assert (decoded.rows_out, decoded.rows_quarantined) == (2, 8)
