"""DBN files against a record-by-record twin, against databento's own decoder, and broken in every way that a file breaks."""

from __future__ import annotations

import gzip
import struct
import zlib
from contextlib import suppress

import databento_dbn
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import CorruptSource, EmptySource, SchemaMismatch, UnknownFormat
from tasks.partitions import SourceFile
from tasks.scanning.chunks import ByteStream, read_ahead
from tasks.scanning.dbn import DbnReader, header_of
from tasks.scanning.dbn_kernels import DAY_NS
from tasks.schemas import EVENT_DTYPES, MBO_RECORD
from tests.oracles import naive_dbn as naive

PACK = {
    "plain": bytes,
    "zstd": lambda data: zstandard.ZstdCompressor(write_checksum=True).compress(data),
    "frames": lambda data: b"".join(zstandard.compress(data[i : i + 100]) for i in range(0, len(data), 100)),
    "skippable": lambda data: b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + zstandard.compress(data),
    "gzip": gzip.compress,
    "members": lambda data: b"".join(gzip.compress(data[i : i + 100]) for i in range(0, len(data), 100)) + bytes(9),
}


def opened(path) -> DbnReader:
    return DbnReader(SourceFile(str(path), "dbn", "", "xxh3:0", 0, 0, 0))


def read(path, batch_rows=1000):
    """Rows as dicts, bad rows with the number of good rows before them, the reader, and the error that ended it."""
    reader, rows, bad, error = opened(path), [], [], None
    try:
        for batch in reader.batches(batch_rows):
            assert len(batch) + len(batch.bad) <= batch_rows
            assert {name: values.dtype for name, values in batch.columns.items()} == EVENT_DTYPES
            bad += [(len(rows) + entry.before, entry) for entry in batch.bad]
            for i in range(len(batch)):
                values = {name: int(column[i]) for name, column in batch.columns.items()}
                rows.append((values, reader.symbols[batch.symbol_code[i]], int(batch.source_row[i]), batch.raw(i)))
    except CorruptSource as fault:
        error = fault
    finally:
        reader.close()
    return rows, bad, reader, error


records = st.lists(
    st.one_of(
        st.builds(
            lambda ts_event, ts_recv, **rest: ("mbo", {"ts_event": ts_event, "ts_recv": ts_recv, **rest}),
            ts_event=st.sampled_from([naive.START, naive.START + DAY_NS, 2**63 - 1, 2**63, 2**64 - 1]),
            ts_recv=st.sampled_from([naive.START + 1, naive.START + DAY_NS, naive.END, 2**63 + 5, 2**64 - 1]),
            instrument_id=st.integers(0, 3),
            order_id=st.integers(0, 2**64 - 1),
            price=st.integers(-(2**63), 2**63 - 1),
            size=st.integers(0, 2**32 - 1),
            flags=st.integers(0, 255),
            action=st.integers(0, 255),
            side=st.integers(0, 255),
            ts_in_delta=st.integers(-(2**31), 2**31 - 1),
            sequence=st.integers(0, 2**32 - 1),
            publisher_id=st.integers(0, 2**16 - 1),
            channel_id=st.integers(0, 255),
        ),
        st.tuples(st.just("other"), st.sampled_from([(23, 80), (21, 6), (1, 4), (24, 255)])),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(records, st.sampled_from(sorted(PACK)), st.sampled_from([1, 2, 3]), st.booleans(), st.integers(1, 50))
def test_every_record_is_read_as_the_naive_decoder_reads_it(tmp_path_factory, records, packing, version, ts_out, batch_rows):
    body = b"".join(naive.mbo(ts_out, **what) if kind == "mbo" else naive.other(*what) for kind, what in records)
    head = naive.header(version, ts_out=ts_out)
    path = tmp_path_factory.mktemp("dbn") / "a.dbn"
    path.write_bytes(PACK[packing](head + body))
    rows, bad, reader, error = read(path, batch_rows)
    good, wrong = [], []
    for number, (at, record, fields) in enumerate(naive.decode(body)):
        times = (fields["ts_event"], fields["ts_recv"]) if fields else (0, 0)
        if fields and max(times) < 2**63:
            good.append((fields, number, (len(head) + at, record)))
        else:
            reason = "not_mbo" if not fields else "no_time" if 2**64 - 1 in times else "time_range"
            wrong.append((len(good), number, len(head) + at, record, reason))
    assert error is None
    assert [(fields, number, raw) for fields, _, number, raw in rows] == good
    assert [(before, b.source_row, b.byte_offset, b.raw, b.reason) for before, b in bad] == wrong
    assert reader.source_rows + reader.expanded_rows == len(good) + len(wrong)
    assert reader.bytes_read == path.stat().st_size


def test_versions_one_to_three_give_one_table_and_the_same_as_databentos_decoder(real_data):
    names = ("mbo.dbn", "mbo.v1.dbn.zst", "mbo.v2.dbn.zst", "mbo.v3.dbn", "mbo.v3.dbn.zst")
    paths = [real_data(f"databento/dbn_versions/test_data.{name}") for name in names]
    tables = [[(values, symbol) for values, symbol, _, _ in read(path)[0]] for path in paths]
    decoder = databento_dbn.DBNDecoder()
    decoder.write(paths[3].read_bytes())
    theirs = [record for record in decoder.decode() if isinstance(record, databento_dbn.MBOMsg)]
    assert len(theirs) == 2
    for values, message in zip([values for values, _ in tables[0]], theirs, strict=True):
        for name in ("ts_event", "ts_recv", "price", "size", "order_id", "sequence", "ts_in_delta", "publisher_id", "instrument_id", "channel_id"):
            assert values[name] == getattr(message, name), name
        assert (chr(values["action"]), chr(values["side"])) == (str(message.action), str(message.side))
    assert all(table == tables[0] for table in tables)
    assert {symbol for _, symbol in tables[0]} == {"ESH1"}


@pytest.mark.parametrize(("name", "count"), [("20231224", 8_725), ("20231225", 68_792)])
def test_real_futures_files_are_read_whole(real_data, name, count):
    path = real_data(f"databento/esh4-glbx-mdp3-{name}.mbo.dbn.zst")
    data = zstandard.ZstdDecompressor().stream_reader(path.read_bytes(), read_across_frames=True).read()
    expected = np.frombuffer(data, MBO_RECORD, offset=header_of(path).length)
    reader = opened(path)
    batches = list(reader.batches(5_000))
    assert (reader.source_rows, len(expected), reader.symbols) == (count, count, ["ESH4"])
    assert not any(batch.bad for batch in batches)
    for column in EVENT_DTYPES:
        joined = np.concatenate([batch.columns[column] for batch in batches])
        assert np.array_equal(joined, expected[column].astype(joined.dtype)), column


@pytest.mark.parametrize("packing", ["plain", "zstd", "gzip"])
def test_a_cut_file_gives_its_whole_records_and_then_says_where_it_breaks(tmp_path, packing):
    rng = np.random.default_rng(7)
    head = naive.header()
    body = np.zeros(9_000, MBO_RECORD)
    body["length"], body["rtype"], body["order_id"], body["sequence"] = 14, 160, rng.integers(0, 2**60, 9_000), np.arange(9_000)
    body["ts_recv"] = body["ts_event"] = naive.START
    whole, path = PACK[packing](head + body.tobytes()), tmp_path / "cut.dbn"
    for cut in [len(whole) - 1, len(whole) - 5, len(whole) * 2 // 3, len(whole) // 2, len(whole) // 2 - 100]:
        path.write_bytes(whole[:cut])
        available = _decompressed_length(packing, whole[:cut])
        rows, _, _, error = read(path, 512)
        assert [values["sequence"] for values, *_ in rows] == list(range((available - len(head)) // 56))
        assert error is not None
        assert (error.offset, bool(error.remedy)) == (available, True)
        assert f"{len(rows):,} whole records before it" in str(error)


def _decompressed_length(packing: str, data: bytes) -> int:
    """What an independent decompressor makes of the bytes that are left."""
    if packing == "plain":
        return len(data)
    whole = zstandard.ZstdDecompressor().decompressobj() if packing == "zstd" else zlib.decompressobj(31)
    return len(whole.decompress(data))


def test_a_file_cut_between_two_records_is_still_cut_when_compressed(tmp_path):
    """zstd frames end where they end: a missing last frame cannot be seen, a missing end of a frame must be."""
    frames = [
        zstandard.compress(naive.header() + naive.mbo(sequence=1)),
        zstandard.ZstdCompressor(write_checksum=True).compress(naive.mbo(sequence=2)),
    ]
    path = tmp_path / "a.dbn.zst"
    path.write_bytes(frames[0] + frames[1][:-4])
    rows, _, _, error = read(path)
    assert [values["sequence"] for values, *_ in rows] == [1, 2]
    assert error is not None
    assert "cut short" in str(error)


@pytest.mark.parametrize(("words", "rtype"), [(0, 160), (13, 160), (16, 160), (0, 23), (3, 23)])
def test_an_impossible_record_length_ends_the_file_at_its_offset(tmp_path, words, rtype):
    head = naive.header()
    wrong = bytes([words, rtype]) + bytes(54)
    path = tmp_path / "a.dbn"
    path.write_bytes(head + naive.mbo(sequence=1) * 3 + wrong + naive.mbo() * 3)
    for batch_rows in (1, 2, 100):
        rows, _, _, error = read(path, batch_rows)
        assert len(rows) == 3
        assert error is not None
        assert error.offset == len(head) + 3 * 56


@pytest.mark.parametrize(("first", "second"), [("plain", "plain"), ("zstd", "zstd"), ("gzip", "gzip"), ("plain", "zstd")])
def test_files_joined_together_are_told_as_such_where_the_second_begins(tmp_path, first, second):
    head, path = naive.header(mappings=[naive.mapping("ESH4", (1, 2, "17"))] * 40), tmp_path / "joined.dbn"
    one, two = head + naive.mbo(sequence=1) * 3 + naive.other(23, 80), naive.header(2) + naive.mbo(sequence=2) * 5
    path.write_bytes(PACK[first](one) + PACK[second](two))
    for batch_rows in (1, 4, 100):
        rows, bad, _, error = read(path, batch_rows)
        assert ([values["sequence"] for values, *_ in rows], len(bad)) == ([1, 1, 1], 1)
        assert error is not None
        assert error.offset == len(one)
        assert "several files joined together; 4 whole records before it" in str(error)
        assert "Give the files one by one" in error.remedy


@pytest.mark.parametrize("rest", [b"", b"N", b"N\4" + bytes(300), b"M\3" + bytes(300)])
def test_what_only_resembles_the_beginning_of_a_file_is_no_joined_file(tmp_path, rest):
    path = tmp_path / "a.dbn"
    path.write_bytes(naive.header() + naive.mbo(sequence=1) + b"DB" + rest)
    rows, _, _, error = read(path)
    assert [values["sequence"] for values, *_ in rows] == [1]
    assert error is not None
    assert "joined" not in str(error)


def test_damaged_zstd_data_is_an_error_at_an_offset(tmp_path):
    rng = np.random.default_rng(3)
    body = b"".join(naive.mbo(order_id=int(x), ts_event=1, ts_recv=1) for x in rng.integers(0, 2**62, 3_000))
    packed = bytearray(PACK["zstd"](naive.header() + body))
    packed[-2] ^= 255  # the checksum
    path = tmp_path / "a.dbn.zst"
    path.write_bytes(packed)
    rows, _, _, error = read(path)
    assert error is not None
    assert "damaged" in str(error)
    assert len(rows) <= 3_000


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (b"", EmptySource, "empty"),
        (b"DB", CorruptSource, "cut short"),
        (b"DBN\3", CorruptSource, "cut short"),
        (naive.header()[:60], CorruptSource, "inside the DBN header"),
        (b"DBN\4" + naive.header()[4:], UnknownFormat, "version 4"),
        (b"DBN\3\xff\xff\xff\xff", CorruptSource, "claims"),
        (b"PAR1" + bytes(50), UnknownFormat, "not with DBN"),
        (naive.header(schema="mbp-10"), SchemaMismatch, "mbp-10; allowed: mbo"),
        (zstandard.compress(naive.header())[:40], CorruptSource, "cut short"),
    ],
)
def test_a_bad_header_is_a_named_error(tmp_path, content, kind, words):
    path = tmp_path / "a.dbn"
    path.write_bytes(content)
    with pytest.raises(kind, match=words):
        opened(path)


def test_no_damaged_header_byte_raises_anything_but_a_source_error(tmp_path):
    good = naive.header(2, [naive.mapping("ESH4", (1, 2, "17"))])
    rng = np.random.default_rng(11)
    path = tmp_path / "a.dbn"
    for _ in range(300):
        bad = bytearray(good)
        bad[int(rng.integers(4, len(good)))] = int(rng.integers(0, 256))
        path.write_bytes(bad)
        with suppress(CorruptSource, SchemaMismatch):
            header_of(path).promise()


def test_leaving_a_read_half_way_ends_its_thread(tmp_path):
    import threading

    path = tmp_path / "a"
    path.write_bytes(bytes(1_000_000))
    stream = ByteStream(path)
    pieces = read_ahead(stream, 1_000)
    assert len(next(pieces)) == 1_000
    pieces.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name == "read a"]
    stream.close()


def test_the_mbo_record_is_the_documented_layout():
    packed = naive.mbo(**{name: i + 1 for i, name in enumerate(naive.FIELDS)})
    record = np.frombuffer(packed, MBO_RECORD)[0]
    assert [int(record[name]) for name in naive.FIELDS] == list(range(1, len(naive.FIELDS) + 1))
    assert struct.calcsize("<BBHIQQqIBBBBQiI") == MBO_RECORD.itemsize == 56
