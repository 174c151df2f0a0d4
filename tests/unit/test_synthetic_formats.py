"""Every format holds the same records, read back by readers that are not ours."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import zstandard
from databento_dbn import Compression, DBNDecoder, Metadata
from isal import igzip

from tasks.scanning.synthetic import SessionSpec, generate
from tasks.scanning.synthetic_text_kernels import LINE_BYTES, mbo_lines, seven_lines
from tasks.scanning.synthetic_writers import write_session
from tasks.schemas import F_LAST, MBO_RECORD, UNDEF_PRICE

SPEC = SessionSpec(records=2_500, symbols=("ESZ5", "NQZ5 C100"), publishers=(1, 7), live_orders=60, snapshot_start=True)
FIELDS = [name for name in MBO_RECORD.names or () if name != "length"]
SEVEN = ["ts_event", "action", "side", "price", "size", "order_id", "is_last"]


@pytest.fixture(scope="module")
def rows():
    return np.concatenate(list(generate(SPEC)))


def columns(rows: np.ndarray) -> dict[str, list]:
    """The records as Python values: letters as text, the rest as integers."""
    values = {name: rows[name].tolist() for name in FIELDS}
    for name in ("action", "side"):
        values[name] = [chr(code) for code in values[name]]
    values["symbol"] = [SPEC.symbols[SPEC.instrument_ids.index(i)] for i in values["instrument_id"]]
    values["is_last"] = [int(flags & F_LAST > 0) for flags in values["flags"]]
    return values


def ns(column: pa.ChunkedArray) -> list[int]:
    return column.cast(pa.int64()).to_pylist()


def csv_columns(text: bytes) -> dict[str, list]:
    head = text[: text.index(b"\n")].decode().split(",")
    types = {"price": pa.decimal128(28, 9), "action": pa.string(), "side": pa.string(), "symbol": pa.string(), "order_id": pa.uint64()}
    types |= {name: pa.timestamp("ns", tz="UTC") for name in head if name in ("ts_event", "ts_recv")}
    table = pyarrow.csv.read_csv(pa.BufferReader(text), convert_options=pyarrow.csv.ConvertOptions(column_types=types))
    values = {name: ns(table[name]) if name in ("ts_event", "ts_recv") else table[name].to_pylist() for name in head}
    values["price"] = [UNDEF_PRICE if p is None else int(p.scaleb(9)) for p in values["price"]]
    return values


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("format", ["dbn", "dbn.zst"])
def test_dbn_is_read_back_equal_by_its_vendors_decoder(tmp_path, rows, format, version):
    write_session(SPEC, tmp_path / "x", format, version=version)
    decoder = DBNDecoder(compression=Compression.ZSTD if format == "dbn.zst" else Compression.NONE)
    decoder.write((tmp_path / "x").read_bytes())
    metadata, *records = decoder.decode()
    assert isinstance(metadata, Metadata)
    expected = columns(rows)
    for name in FIELDS:
        got = [getattr(record, name) for record in records]
        got = [str(v.value) if name in ("action", "side") else int(v) for v in got]
        assert got == expected[name], name
    assert (metadata.dataset, metadata.start, str(metadata.schema)) == (SPEC.dataset, SPEC.start_ns, "mbo")
    assert list(metadata.symbols) == list(SPEC.symbols)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_dbn_maps_each_symbol_to_its_instrument_on_the_day(tmp_path, version):
    write_session(SPEC, tmp_path / "x", "dbn", version=version)
    head = (tmp_path / "x").read_bytes()
    assert head[:4] == b"DBN" + bytes([version])
    mappings = Metadata.decode(head[: 8 + int.from_bytes(head[4:8], "little")]).mappings
    day = date(2025, 10, 22)
    for symbol, instrument in zip(SPEC.symbols, SPEC.instrument_ids, strict=True):
        assert mappings[symbol] == [{"start_date": day, "end_date": day + timedelta(days=1), "symbol": str(instrument)}]


def test_dbn_is_read_by_the_vendors_client(tmp_path, rows):
    databento = pytest.importorskip("databento")
    write_session(SPEC, tmp_path / "x.dbn.zst", "dbn.zst")
    store = databento.DBNStore.from_file(tmp_path / "x.dbn.zst")
    read = store.to_ndarray()
    for name in ("ts_event", "ts_recv", "order_id", "price", "size", "flags", "sequence", "instrument_id"):
        assert np.array_equal(read[name], rows[name]), name
    assert store.to_df()["symbol"].tolist() == columns(rows)["symbol"]


def test_parquet_holds_the_vendors_columns(tmp_path, rows):
    write_session(SPEC, tmp_path / "x", "parquet")
    table, expected = pq.read_table(tmp_path / "x"), columns(rows)
    for name in [*FIELDS, "symbol"]:
        assert (ns(table[name]) if name in ("ts_event", "ts_recv") else table[name].to_pylist()) == expected[name], name


@pytest.mark.parametrize("format", ["csv", "csv.gz", "csv.zst"])
def test_csv_holds_the_vendors_columns(tmp_path, rows, format):
    write_session(SPEC, tmp_path / "x", format)
    text = (tmp_path / "x").read_bytes()
    if format == "csv.gz":
        text = igzip.decompress(text)
    elif format == "csv.zst":
        text = zstandard.ZstdDecompressor().decompressobj().decompress(text)
    got, expected = csv_columns(text), columns(rows)
    assert set(got) == {*FIELDS, "symbol"}
    for name in got:
        assert got[name] == expected[name], name


def test_the_seven_columns_hold_the_same(tmp_path, rows):
    write_session(SPEC, tmp_path / "csv", "seven-csv")
    write_session(SPEC, tmp_path / "parquet", "seven-parquet")
    got, table, expected = csv_columns((tmp_path / "csv").read_bytes()), pq.read_table(tmp_path / "parquet"), columns(rows)
    assert list(got) == table.column_names == SEVEN
    for name in SEVEN:
        assert got[name] == expected[name], name
    assert ns(table["ts_event"]) == expected["ts_event"]
    for name in ("action", "side", "size", "order_id", "is_last"):
        assert table[name].to_pylist() == expected[name], name
    prices = [UNDEF_PRICE if p is None else round(Decimal(repr(p)) * 10**9) for p in table["price"].to_pylist()]
    assert prices == expected["price"]


@pytest.mark.parametrize("format", ["dbn.zst", "csv.gz", "csv.zst", "parquet"])
def test_a_file_has_the_same_bytes_every_time(tmp_path, format):
    for name in "ab":
        write_session(SPEC, tmp_path / name, format)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    write_session(replace(SPEC, seed=9), tmp_path / "c", format)
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def naive_time(value: int) -> str:
    return f"{datetime.fromtimestamp(value // 10**9, UTC):%Y-%m-%dT%H:%M:%S}.{value % 10**9:09d}Z"


def naive_price(value: int) -> str:
    return "" if value == UNDEF_PRICE else f"{'-' if value < 0 else ''}{abs(value) // 10**9}.{abs(value) % 10**9:09d}"


def test_lines_equal_pythons_own_formatting_at_the_ends_of_every_range():
    draw = np.random.default_rng(3)
    rows = np.zeros(400, MBO_RECORD)
    for name in FIELDS:
        info = np.iinfo(MBO_RECORD[name])
        low, high = max(info.min, -(10**18)), min(info.max, 2**63 - 1)
        values = draw.integers(low, high, len(rows), dtype=rows[name].dtype, endpoint=True)
        rows[name] = values // 10 ** draw.integers(0, 3, len(rows)).astype(values.dtype)
    rows["action"], rows["side"] = ord("A"), ord("B")
    rows["ts_event"] = rows["ts_event"] % (7_900_000_000 * 10**9)  # to the year 2220
    rows["ts_recv"] = rows["ts_event"] + draw.integers(0, 2 * 10**9, len(rows), dtype=np.uint64)
    rows["ts_event"][1::2] = rows["ts_event"][::2] + 5  # the same second and another
    days = ("1970-01-01", "2000-02-29", "2023-12-31", "2024-02-29", "2024-12-31", "2100-03-01")
    rows["ts_event"][: len(days)] = np.array(days, "datetime64[ns]").astype(np.uint64)
    rows["price"][:7] = [0, -1, 1, UNDEF_PRICE, UNDEF_PRICE - 1, -(10**18), 999_999_999]
    rows["order_id"][:3] = [0, 2**63 - 1, 10**18]
    codes = np.arange(len(rows)) % 3
    out = np.zeros(len(rows) * (LINE_BYTES + 8), np.uint8)
    names = np.frombuffer(b"ESZ5" + b"" + b"NQ Z5", np.uint8).copy()
    text = out[: mbo_lines(rows, codes, names, np.array([4, 4, 9]), out)].tobytes().decode()
    seven = out[: seven_lines(rows, out)].tobytes().decode()
    for row, code, line, short in zip(rows, codes, text.splitlines(), seven.splitlines(), strict=True):
        value = {name: int(row[name]) for name in FIELDS}
        event, price = naive_time(value["ts_event"]), naive_price(value["price"])
        numbers = ("size", "channel_id", "order_id", "flags", "ts_in_delta", "sequence")
        wanted = [naive_time(value["ts_recv"]), event, value["rtype"], value["publisher_id"], value["instrument_id"], "A", "B", price]
        wanted += [value[name] for name in numbers] + [("ESZ5", "", "NQ Z5")[code]]
        assert line == ",".join(map(str, wanted))
        last = int(value["flags"] & F_LAST > 0)
        assert short == ",".join(map(str, [event, "A", "B", price, value["size"], value["order_id"], last]))
