"""LOBSTER pairs against a line-by-line twin and against the real sample files."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import CorruptSource, EmptySource, SchemaMismatch
from tasks.partitions import SourceFile
from tasks.scanning.lobster import LobsterReader
from tasks.schemas import EVENT_DTYPES, F_LAST, UNDEF_PRICE
from tests.oracles import naive_csv as naive

PAIR = "AMZN_2012-06-21_34200000_57600000_{}_{}.csv"
KEPT = ("ts_event", "action", "side", "price", "size", "order_id", "flags")


def source(path: Path, member: str = "", companion: str = "") -> SourceFile:
    return SourceFile(str(path), "lobster", "lobster", "xxh3:0", 0, 0, 0, member=member, companion=companion)


def loose(folder: Path, messages: bytes, book: bytes, depth: int = 1, name: str = PAIR, block_bytes: int | None = None) -> LobsterReader:
    paths = [folder / name.format(kind, depth) for kind in ("message", "orderbook")]
    for path, data in zip(paths, (messages, book), strict=True):
        path.write_bytes(data)
    return LobsterReader(source(paths[0], companion=str(paths[1])), block_bytes=block_bytes)


def collect(reader: LobsterReader, batch_rows: int = 1000) -> tuple[list[tuple], list[tuple], list]:
    """Events, bad rows and truth in the twin's words; checks what each batch promises."""
    events: list[tuple] = []
    bad: list[tuple] = []
    truth: list = []
    for batch in reader.batches(batch_rows):
        assert len(batch) <= max(batch_rows, 2)
        assert {name: values.dtype for name, values in batch.columns.items()} == EVENT_DTYPES
        assert batch.truth is not None
        assert batch.truth.shape == (int((batch.columns["flags"] & F_LAST > 0).sum()), reader.depth, 4)
        np.testing.assert_array_equal(batch.columns["sequence"], batch.source_row)
        np.testing.assert_array_equal(batch.columns["ts_recv"], batch.columns["ts_event"])
        bad += [(len(events) + entry.before, entry.source_row, entry.byte_offset, entry.raw, entry.reason) for entry in batch.bad]
        events += zip(batch.source_row.tolist(), *(batch.columns[name].tolist() for name in KEPT), strict=True)
        truth += batch.truth.tolist()
    assert reader.source_rows + reader.expanded_rows == len(events) + len(bad)
    return events, bad, truth


def test_a_real_zip_equals_the_twin_message_by_message(real_data):
    path = real_data("lobster/LOBSTER_SampleFile_AMZN_1.zip")
    with zipfile.ZipFile(path) as archive:
        messages, book = (archive.read(PAIR.format(kind, 1)) for kind in ("message", "orderbook"))
    reader = LobsterReader(source(path, PAIR.format("message", 1), PAIR.format("orderbook", 1)))
    assert (reader.depth, reader.symbols) == (1, ["AMZN"])
    assert collect(reader, 10_000) == naive.lobster(messages, book, "2012-06-21", 1)
    assert reader.source_rows == 57_515
    assert 0 < reader.bytes_read <= path.stat().st_size


def test_a_real_five_level_day_is_read_whole_with_its_truth(real_data):
    path = real_data("lobster/LOBSTER_SampleFile_AMZN_5.zip")
    reader = LobsterReader(source(path, PAIR.format("message", 5), PAIR.format("orderbook", 5)))
    rows, last, earliest = 0, 0, 0
    for batch in reader.batches(50_000):
        assert not batch.bad
        times = batch.columns["ts_event"]
        assert earliest <= times[0]
        assert (np.diff(times) >= 0).all()
        earliest = times[-1]
        rows, last = rows + len(batch.truth), last + int((batch.columns["flags"] == F_LAST).sum())
        asks, bids = batch.truth[:, :, 0], batch.truth[:, :, 2]
        assert (asks[:, 0] > bids[:, 0]).all()  # continuous trading: never crossed
        assert (np.diff(asks, axis=1) > 0).all()
    assert rows == last == reader.source_rows == 155_935
    assert reader.expanded_rows == 8_974


def test_a_real_loose_fifty_level_pair_equals_the_twin(real_data):
    paths = [real_data(f"lobster/MSFT_2012-06-21_34200000_37800000_{kind}_50.csv") for kind in ("message", "orderbook")]
    reader = LobsterReader(source(paths[0], companion=str(paths[1])))
    assert collect(reader, 64) == naive.lobster(paths[0].read_bytes(), paths[1].read_bytes(), "2012-06-21", 50)
    assert (reader.depth, reader.source_rows) == (50, 1000)


def test_each_type_becomes_its_events(tmp_path):
    rows = (
        "34200.5,1,11,100,2238200,1", "34200.5,2,11,10,2238200,1", "34200.5,3,12,20,2238200,-1", "34200.5,4,11,30,2238200,1",
        "34200.5,5,0,5,2238250,-1", "34200.5,6,-1,500,2238000,-1", "34200.5,6,-1,0,2238000,-1", "34200.5,7,0,0,-1,-1",
        "34200.5,7,0,0,0,-1", "34200.5,7,0,0,1,-1",
    )  # fmt: skip
    book = "2239500,100,2231800,100\n" * len(rows)
    reader = loose(tmp_path, "\n".join(rows).encode(), book.encode())
    events, bad, _ = collect(reader)
    got = [(row, chr(action), chr(side), price, size, order, flags) for row, _, action, side, price, size, order, flags in events]
    px = 223_820_000_000
    assert got == [
        (0, "A", "B", px, 100, 11, 128), (1, "C", "B", px, 10, 11, 128), (2, "C", "A", px, 20, 12, 128),
        (3, "T", "A", px, 30, 11, 0), (3, "C", "B", px, 30, 11, 128), (4, "T", "B", 223_825_000_000, 5, 0, 128),
        (5, "T", "N", 223_800_000_000, 500, 0, 128), (6, "N", "N", 223_800_000_000, 0, 0, 128),
        (7, "N", "N", -(10**9), 0, 0, 128), (8, "N", "N", 0, 0, 0, 128), (9, "N", "N", 10**9, 0, 0, 128),
    ]  # fmt: skip
    assert not bad
    assert reader.expanded_rows == 1


@pytest.mark.parametrize(("day", "hour"), [("2012-06-21", 13), ("2012-01-05", 14), ("2024-03-11", 13), ("2024-03-08", 14)])
def test_times_count_from_midnight_in_new_york_summer_and_winter(tmp_path, day, hour):
    reader = loose(tmp_path, b"34200.000000001,1,1,1,1,1\n", b"2,1,1,1\n", name=PAIR.replace("2012-06-21", day))
    (batch,) = reader.batches(10)
    assert batch.columns["ts_event"][0] == np.datetime64(f"{day}T{hour}:30:00.000000001", "ns").astype(np.int64)


def test_a_time_that_went_through_a_float_rounds_to_the_nearest_nanosecond(tmp_path):
    texts = ("43002.632812672004", "43002.6328126719996", "43002.9999999999", "43003")
    reader = loose(tmp_path, "".join(f"{text},1,1,1,1,1\n" for text in texts).encode(), b"2,1,1,1\n" * 4)
    events, bad, _ = collect(reader)
    start = int(np.datetime64("2012-06-21T04:00", "ns").astype(np.int64))
    assert [event[1] - start for event in events] == [43_002_632_812_672, 43_002_632_812_672, 43_003_000_000_000, 43_003_000_000_000]
    assert not bad


CELLS = st.sampled_from(
    ["0", "1", "-1", "4", "8", "34200", "34200.1234567891", "86400", "9999999999", "-9999999999", "92233720368547", "92233720368548"]
)
WRONG = st.sampled_from(["", "x", "1.5", "-", "99999999999999999999", "4294967296", "-2", ".5", "5.", '"1"'])
GOOD_MESSAGE, GOOD_LEVELS = ["34200.5", "4", "11", "30", "2238200", "1"], ["2239500", "100", "2231800", "100", "9999999999", "0", "-9999999999", "0"]


@st.composite
def line_of(draw, good):
    cells = list(good)
    for _ in range(draw(st.integers(0, 2))):
        cells[draw(st.integers(0, len(cells) - 1))] = draw(CELLS | WRONG)
    extra = draw(st.integers(0, 12))
    return ",".join(cells[:-1] if extra == 0 else [*cells, "7"] if extra == 1 else cells)


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(1, 6), st.integers(1, 200), st.integers(1, 7), st.sampled_from(["\n", "\r\n"]))
def test_bad_lines_in_either_file_never_break_the_step(tmp_path_factory, data, count, block_bytes, batch_rows, end):
    rows = [data.draw(line_of(GOOD_MESSAGE)) for _ in range(count)]
    book = [data.draw(line_of(GOOD_LEVELS)) for _ in range(count)]
    texts = [(end.join(part) + data.draw(st.sampled_from(["", end, end + end]))).encode() for part in (rows, book)]
    reader = loose(tmp_path_factory.getbasetemp(), *texts, depth=2, block_bytes=block_bytes)
    if reader.depth == 2:  # the first row says it, where it has whole levels
        assert collect(reader, batch_rows) == naive.lobster(*texts, "2012-06-21", 2)


def test_an_empty_level_has_no_price_and_no_size(tmp_path):
    reader = loose(tmp_path, b"34200,1,1,1,1,1\n", ",".join(GOOD_LEVELS).encode(), depth=2)
    _, _, truth = collect(reader)
    assert truth == [[[223_950_000_000, 100, 223_180_000_000, 100], [UNDEF_PRICE, 0, UNDEF_PRICE, 0]]]


def test_an_unreadable_order_book_row_sets_its_message_aside(tmp_path):
    reader = loose(tmp_path, b"34200,1,1,1,1,1\n" * 3, b"2,1,1,1\n2,1,x,1\n2,1,1,1\n")
    (batch,) = reader.batches(10)
    assert batch.source_row.tolist() == [0, 2]
    assert [(entry.before, entry.reason, entry.detail) for entry in batch.bad] == [(1, "orderbook", "row 1 of the order book is not 4 integers")]


@pytest.mark.parametrize("batch_rows", [4, 1000])
@pytest.mark.parametrize(("messages", "levels", "words"), [(7, 5, "order book file ends after 5 rows"), (5, 7, "message file ends after 5 rows")])
def test_files_of_unequal_length_give_what_pairs_then_an_error(tmp_path, messages, levels, words, batch_rows):
    reader, rows = loose(tmp_path, b"34200,1,1,1,1,1\n" * messages, b"2,1,1,1\n" * levels), 0
    with pytest.raises(CorruptSource, match=words) as fault:  # noqa: PT012
        for batch in reader.batches(batch_rows):
            rows += len(batch)
    assert rows == 5
    assert fault.value.row == 5


def test_a_zip_gives_what_the_loose_files_give(tmp_path):
    messages = b"".join(b"%d.25,1,%d,5,%d,1\n" % (34200 + k, k, 100 + k) for k in range(500))
    book = b"".join(b"%d,1,%d,2\n" % (200 + k, 100 + k) for k in range(500))
    path, names = tmp_path / "pair.zip", [f"folder/{PAIR.format(kind, 1)}" for kind in ("message", "orderbook")]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(names[0], messages)
        archive.writestr(names[1], book)
    zipped = collect(LobsterReader(source(path, *names), block_bytes=300))
    assert zipped == collect(loose(tmp_path, messages, book))
    assert len(zipped[0]) == 500


def test_a_damaged_zip_member_is_an_error(tmp_path):
    path, names = tmp_path / "pair.zip", [PAIR.format(kind, 1) for kind in ("message", "orderbook")]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(names[0], b"34200,1,1,1,1,1\n" * 50)
        archive.writestr(names[1], b"2,1,1,1\n" * 50)
    path.write_bytes(path.read_bytes().replace(b"34200,1,1,1,1,1\n" * 50, b"34200,1,1,1,1,1\n" * 49 + b"34200,1,1,9,1,1\n"))
    with pytest.raises(CorruptSource, match="CRC"):
        collect(LobsterReader(source(path, *names)))


def test_names_and_companions_that_cannot_be_used_say_why(tmp_path):
    for name, companion, words in (
        ("x.csv", "y.csv", "not named"),
        (PAIR.format("message", 1), "", "no order book"),
        ("A_2012-13-01_m_1.csv", "b", "not a date"),
    ):
        with pytest.raises(SchemaMismatch, match=words):
            LobsterReader(source(tmp_path / name, companion=companion))
    with pytest.raises(EmptySource):
        collect(loose(tmp_path, b"\n", b"\n"))
