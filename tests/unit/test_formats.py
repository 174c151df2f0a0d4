"""What a file is, from its content, whatever its name; and what is said of a file that is nothing we read."""

from __future__ import annotations

import gzip
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tasks.errors import CorruptSource, EmptySource, SchemaMismatch, SourceError, UnknownFormat
from tasks.partitions import SourceFile
from tasks.scanning import formats
from tasks.scanning.formats import Identified, identify, layout_of
from tasks.scanning.readers import open_reader
from tests.oracles import naive_dbn as naive

DATABENTO_HEADER = "ts_recv,ts_event,rtype,publisher_id,instrument_id,action,side,price,size,channel_id,order_id,flags,ts_in_delta,sequence"
SEVEN_HEADER = "ts_event,action,side,price,size,order_id,is_last"
MESSAGES = "34200.017459617,5,0,1,2238200,-1\n34200.18960767,1,11885113,21,2238100,1\n34201.1,7,0,0,-1,-1\n"
ORDERBOOK = "2239500,100,2231800,100\n2239500,100,2238100,21\n9999999999,0,-9999999999,0\n"
PAIR = ("AMZN_2012-06-21_34200000_57600000_message_1.csv", "AMZN_2012-06-21_34200000_57600000_orderbook_1.csv")


def seven_parquet(path, **changes):
    columns = {name: [0] for name in formats.SEVEN_COLUMNS} | {"action": ["A"], "side": ["B"]} | changes
    pq.write_table(pa.table({name: values for name, values in columns.items() if values is not None}), path)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gzip", "zstd"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (naive.header(1), Identified("dbn", has_symbols=True)),
        (naive.header(2), Identified("dbn", has_symbols=True)),
        (naive.header(3) + naive.mbo(), Identified("dbn", has_symbols=True)),
        (DATABENTO_HEADER.encode() + b"\n1,2\n", Identified("databento-csv")),
        (b'\xef\xbb\xbf"' + DATABENTO_HEADER.replace(",", '","').encode() + b'","symbol"\r\n', Identified("databento-csv", has_symbols=True)),
        ((DATABENTO_HEADER + ",symbol\n" + "x" * 200_000).encode(), Identified("databento-csv", has_symbols=True)),
        (SEVEN_HEADER.encode() + b"\n1,A,B,1.5,1,1,1\n", Identified("seven-column-csv")),
    ],
    ids=["v1", "v2", "v3", "databento", "databento-quoted-symbol", "databento-long", "seven"],
)
def test_content_decides_and_neither_name_nor_compression_matters(tmp_path, pack, content, expected):
    path = tmp_path / "odd.name.json"
    path.write_bytes(pack(content))
    assert identify(path) == [expected]


def test_parquet_layouts_are_told_apart_by_their_columns(tmp_path):
    path = tmp_path / "a.csv"
    seven_parquet(path)
    assert identify(path) == [Identified("seven-column-parquet")]
    names = [name for name in DATABENTO_HEADER.split(",") if name != "rtype"] + ["symbol"]
    pq.write_table(pa.table({name: pa.array([], pa.string() if name in ("action", "side", "symbol") else pa.int64()) for name in names}), path)
    assert identify(path) == [Identified("databento-parquet", has_symbols=True)]


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (b"", EmptySource, "empty"),
        (b" \r\n\n", EmptySource, "white space"),
        (zstandard.compress(b""), EmptySource, "nothing in it"),
        (b"hello there\n", UnknownFormat, "'hello there'"),
        (b"\x7fELF\0\0\0", UnknownFormat, r"b'\\x7fELF"),
        (zstandard.compress(b"PAR1...."), UnknownFormat, "compressed once more"),
        (b"1,2,3,4\n5,6,7,8\n", UnknownFormat, "without a header"),
        (zstandard.compress(bytes(range(256)) * 99)[:9], CorruptSource, "cut short"),
        (b"PAR1" + bytes(20), CorruptSource, "footer"),
        (b"PK\x03\x04" + bytes(20), CorruptSource, "zip"),
        (naive.header(schema="trades"), SchemaMismatch, "schema trades; allowed: mbo"),
        (b"ts_event,rtype,publisher_id,instrument_id,open,high\n", SchemaMismatch, "lacks columns ts_recv, action.*unexpected columns open, high"),
        (b"ts_event,action,side,price,size,order_id\n", SchemaMismatch, "lacks column is_last.*seven-column"),
        (SEVEN_HEADER.encode() + b",price\n", SchemaMismatch, "repeats column price"),
        (gzip.compress(MESSAGES.encode()), UnknownFormat, "Unpack"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_what_was_seen_and_what_to_do(tmp_path, content, kind, words):
    path = tmp_path / "a"
    path.write_bytes(content)
    with pytest.raises(kind, match=words) as caught:
        identify(path)
    assert type(caught.value) is kind
    assert caught.value.path == path
    assert caught.value.remedy


def test_a_cut_header_says_at_which_byte(tmp_path):
    path = tmp_path / "a.dbn"
    path.write_bytes(naive.header()[:77])
    with pytest.raises(CorruptSource) as caught:
        identify(path)
    assert caught.value.offset == 77


def test_a_column_of_a_type_that_holds_no_exact_values_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    seven_parquet(path, price=pa.array([1.5], pa.float32()), ts_event=pa.array([1.5]))
    with pytest.raises(SchemaMismatch, match=r"ts_event is double .*; price is float \(allowed: int64 in 1e-9, a decimal"):
        identify(path)


def test_a_loose_message_file_finds_its_order_book(tmp_path):
    message, book = (tmp_path / name for name in PAIR)
    message.write_text(MESSAGES)
    with pytest.raises(SourceError, match=r"orderbook_1\.csv, is not beside it"):
        identify(message)
    book.write_text(ORDERBOOK)
    assert identify(message) == [Identified("lobster", companion=str(book))]
    assert identify(book) == []
    message.unlink()
    with pytest.raises(SourceError, match=r"message_1\.csv, is not beside it"):
        identify(book)
    other = message.with_name("messages.csv")
    other.write_text(MESSAGES)
    with pytest.raises(SourceError, match="its name does not say so"):
        identify(other)


def test_a_zip_gives_one_source_for_each_pair(tmp_path):
    path, second = tmp_path / "a.zip", [name.replace("AMZN", "day/MSFT") for name in PAIR]
    with zipfile.ZipFile(path, "w") as archive:
        for message, book in (PAIR, second):
            archive.writestr(book, ORDERBOOK)
            archive.writestr(message, MESSAGES)
        archive.writestr("ReadMe.txt", "hello")
    assert identify(path) == [Identified("lobster", member=message, companion=book) for message, book in (PAIR, second)]


@pytest.mark.parametrize(
    ("members", "kind", "words"),
    [
        ({PAIR[0]: MESSAGES}, SourceError, "but not AMZN.*orderbook"),
        ({PAIR[0]: "", PAIR[1]: ""}, SchemaMismatch, "is empty"),
        ({PAIR[0]: "a,b\n", PAIR[1]: ""}, SchemaMismatch, "begins with 'a,b'"),
        ({"x.data": "{}"}, UnknownFormat, "it holds x.data"),
        ({}, EmptySource, "holds no files"),
    ],
)
def test_a_zip_without_a_whole_pair_is_an_error_that_names_it(tmp_path, members, kind, words):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    with pytest.raises(kind, match=words):
        identify(path)


def test_real_files_are_what_their_vendors_say(real_data):
    expected = {
        "databento/arl_20250717_morning.mbo.csv": "databento-csv",
        "databento/esh4-glbx-mdp3-20231224.mbo.dbn.zst": "dbn",
        "lobster/LOBSTER_SampleFile_AMZN_5.zip": "lobster",
        "lobster/MSFT_2012-06-21_34200000_37800000_message_50.csv": "lobster",
    }
    assert {name: [found.format for found in identify(real_data(name))] for name in expected} == {name: [kind] for name, kind in expected.items()}
    assert identify(real_data("lobster/MSFT_2012-06-21_34200000_37800000_orderbook_50.csv")) == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("databento/arl_20250717_morning.mbp-10.csv", SchemaMismatch),
        ("databento/dbn_versions/test_data.ohlcv-1m.v3.dbn.zst", SchemaMismatch),
        ("bybit/xrpusdt-ob500.data.zip", UnknownFormat),
        ("tardis/trades.csv", UnknownFormat),
        ("asx/centrepoint_orders_raw.parquet", UnknownFormat),
        ("tick_history/CL_30min_ETH.csv", UnknownFormat),
    ],
)
def test_real_files_of_other_kinds_are_refused(real_data, name, kind):
    with pytest.raises(kind):
        identify(real_data(name))


def test_a_path_that_cannot_be_opened_is_a_source_error(tmp_path):
    with pytest.raises(SourceError, match="No such file"):
        identify(tmp_path / "missing")


def test_index_columns_of_data_frames_do_not_matter(tmp_path):
    assert layout_of(tmp_path, ["", *SEVEN_HEADER.split(",")]) == "seven-column"
    assert layout_of(tmp_path, [*DATABENTO_HEADER.split(","), "__index_level_0__"]) == "databento"


def test_a_format_without_a_reader_is_refused(tmp_path):
    with pytest.raises(UnknownFormat, match="no reader for format 'pcap'"):
        open_reader(SourceFile(str(tmp_path), "pcap", "", "xxh3:0", 0, 0, 0))


def test_each_format_opens_with_its_own_reader(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(naive.header() + naive.mbo(ts_recv=1, sequence=5))
    reader = open_reader(SourceFile(str(path), formats.DBN, "", "xxh3:0", 0, 0, 0))
    assert [batch.columns["sequence"].tolist() for batch in reader.batches(10)] == [[5]]
    reader.close()
    seven_parquet(path, price=[1_500_000_000])
    reader = open_reader(SourceFile(str(path), formats.SEVEN_COLUMN_PARQUET, "", "xxh3:0", 0, 0, 0, symbols=("X",)))
    assert [(batch.columns["price"].tolist(), reader.symbols) for batch in reader.batches(10)] == [([1_500_000_000], ["X"])]
    reader.close()
