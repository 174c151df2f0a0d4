"""Parquet exports in every usual encoding give one table; values that are not exact, and rows that lack one, are set aside with a reason."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import CorruptSource
from tasks.partitions import SourceFile
from tasks.scanning.parquet_source import ParquetReader
from tasks.schemas import EVENT_DTYPES, F_LAST, F_TOB, UNDEF_PRICE

START = 1_704_067_200_000_000_000
NAMES = list(EVENT_DTYPES)


def opened(path, seven=False, symbols=("X",)) -> ParquetReader:
    kind = "seven-column-parquet" if seven else "databento-parquet"
    return ParquetReader(SourceFile(str(path), kind, "", "xxh3:0", 0, 0, 0, symbols=symbols))


def read(path, seven=False, batch_rows=1000, symbols=("X",)):
    """Rows as tuples in the order of EVENT_DTYPES, their symbols, bad rows, the reader."""
    reader, rows, named, bad = opened(path, seven, symbols), [], [], []
    for batch in reader.batches(batch_rows):
        assert {name: values.dtype for name, values in batch.columns.items()} == EVENT_DTYPES
        assert all(values.flags.writeable for values in batch.columns.values())
        bad += [(len(rows) + entry.before, entry) for entry in batch.bad]
        rows += list(zip(*(values.tolist() for values in batch.columns.values()), strict=True))
        named += [reader.symbols[code] for code in batch.symbol_code]
    assert reader.source_rows + reader.expanded_rows == len(rows) + len(bad)
    reader.close()
    return rows, named, bad, reader


def iso(ns, zone="Z", middle="T"):
    return datetime.fromtimestamp(ns // 10**9, UTC).strftime(f"%Y-%m-%d{middle}%H:%M:%S") + f".{ns % 10**9:09d}{zone}"


TIMES = {
    "int64": lambda v: pa.array(v, pa.int64()),
    "uint64": lambda v: pa.array(v, pa.uint64()),
    "ns": lambda v: pa.array(v, pa.timestamp("ns", "UTC")),
    "ns-zone": lambda v: pa.array(v, pa.timestamp("ns", "America/New_York")),
    "ns-naive": lambda v: pa.array(v, pa.timestamp("ns")),
    "text": lambda v: pa.array([iso(x) for x in v]),
    "text-mixed": lambda v: pa.array([iso(x, "" if i % 2 else "+00:00", " ") for i, x in enumerate(v)], pa.large_string()),
}
PRICES = {
    "int64": lambda v: pa.array(v, pa.int64()),
    "decimal": lambda v: pa.array([Decimal(x).scaleb(-9) for x in v], pa.decimal128(28, 9)),
    "decimal-18": lambda v: pa.array([Decimal(x).scaleb(-9) for x in v], pa.decimal128(38, 18)),
    "decimal256": lambda v: pa.array([Decimal(x).scaleb(-9) for x in v], pa.decimal256(60, 12)),
    "text": lambda v: pa.array([f"{Decimal(x).scaleb(-9):f}" for x in v]),
}
LETTERS = {
    "text": lambda v: pa.array(list(v)),
    "dictionary": lambda v: pa.array(list(v)).dictionary_encode(),
    "binary": lambda v: pa.array([x.encode() for x in v], pa.binary()),
    "fixed": lambda v: pa.array([x.encode() for x in v], pa.binary(1)),
    "codes": lambda v: pa.array([ord(x) for x in v], pa.int8()),
}
INTEGERS = {
    "same": lambda v, dtype: pa.array(v, pa.from_numpy_dtype(dtype)),
    "wide": lambda v, dtype: pa.array(v, pa.uint64() if dtype == np.uint64 else pa.int64()),
    "text": lambda v, dtype: pa.array([str(x) for x in v]),
    "decimal": lambda v, dtype: pa.array([Decimal(x) for x in v], pa.decimal128(20, 0)),
}


def full_range(dtype):
    return st.integers(int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))


row_of_events = st.tuples(
    *(
        st.integers(0, 2**63 - 1) if name.startswith("ts_") and name != "ts_in_delta"
        else st.sampled_from("ACFMNRTX?") if name == "action"
        else st.sampled_from("ABNz") if name == "side"
        else st.integers(-(2**63), 2**63 - 1) if name == "price"
        else full_range(dtype)
        for name, dtype in EVENT_DTYPES.items()
    )
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.lists(row_of_events, max_size=20), st.sampled_from(sorted(TIMES)), st.sampled_from(sorted(PRICES)), st.sampled_from(sorted(LETTERS)),
    st.sampled_from(sorted(INTEGERS)), st.integers(1, 9), st.integers(1, 9),
)  # fmt: skip
def test_every_encoding_gives_the_same_events(tmp_path_factory, rows, time, price, letter, integer, group, batch_rows):
    path = tmp_path_factory.mktemp("parquet") / "a"
    columns = {}
    for place, (name, dtype) in enumerate(EVENT_DTYPES.items()):
        values = [row[place] for row in rows]
        if name in ("ts_event", "ts_recv"):
            columns[name] = TIMES[time](values)
        elif name in ("action", "side"):
            columns[name] = LETTERS[letter](values)
        else:
            columns[name] = PRICES[price](values) if name == "price" else INTEGERS[integer](values, dtype)
    pq.write_table(pa.table(columns), path, row_group_size=group)
    found, named, bad, reader = read(path, batch_rows=batch_rows)
    assert found == [tuple(ord(value) if isinstance(value, str) else value for value in row) for row in rows]
    assert named == ["X"] * len(rows)
    assert not bad
    assert reader.bytes_read == (path.stat().st_size if rows else 0)


def base(count=1, **changes):
    columns = {name: [0] * count for name in NAMES} | {"ts_event": [START] * count, "ts_recv": [START + 1] * count, "action": ["A"] * count}
    return {**columns, "side": ["B"] * count, "price": [5] * count, "size": [1] * count, **changes}


@pytest.mark.parametrize(
    ("column", "good", "wrong", "dtype", "reason"),
    [
        ("ts_recv", 1, None, pa.int64(), "no_time"),
        ("ts_recv", 1, 2**64 - 1, pa.uint64(), "no_time"),
        ("ts_event", 1, 2**63, pa.uint64(), "time_range"),
        ("ts_event", 1, -1, pa.timestamp("ns"), "time_range"),
        ("ts_event", 1, 2**62, pa.timestamp("us"), "time_range"),
        ("ts_event", "2024-12-01T00:00:00Z", "2024-13-01T00:00:00Z", pa.string(), "ts_event"),
        ("ts_event", "2024-12-01 00:00:00.5", "yesterday", pa.large_string(), "ts_event"),
        ("action", "A", "Add", pa.string(), "action"),
        ("action", "A", "", pa.string(), "action"),
        ("action", "A", "é", pa.string(), "action"),
        ("action", "A", None, pa.string(), "null"),
        ("side", "B", "BA", pa.string(), "side"),
        ("side", 66, 7, pa.uint8(), "side"),
        ("price", 5.0, float("nan"), pa.float64(), "price_nan"),
        ("price", 5, None, pa.int64(), "price_nan"),
        ("price", 5.0, float("inf"), pa.float64(), "price"),
        ("price", 5.0, 1.23456789012, pa.float64(), "price"),
        ("price", Decimal(5), Decimal("1.2345678901"), pa.decimal128(30, 10), "price"),
        ("price", Decimal(5), Decimal("99999999999"), pa.decimal128(30, 2), "price"),
        ("price", "5.25", "12,5", pa.string(), "price"),
        ("size", 1, -1, pa.int64(), "size"),
        ("size", 1.0, 1.5, pa.float64(), "size"),
        ("size", 1.0, float("inf"), pa.float64(), "size"),
        ("size", 1, 2**32, pa.uint64(), "size"),
        ("size", 1, None, pa.uint32(), "null"),
        ("order_id", 2.0**53, 2.0**60, pa.float64(), "order_id"),
        ("order_id", 5, -5, pa.int64(), "order_id"),
        ("flags", 255, 256, pa.int16(), "flags"),
        ("publisher_id", "1", "x", pa.string(), "publisher_id"),
    ],
)
def test_a_row_that_lacks_a_value_is_set_aside_with_its_reason_and_the_others_are_kept(tmp_path, column, good, wrong, dtype, reason):
    pq.write_table(pa.table(base(3) | {column: pa.array([good, wrong, good], dtype)}), tmp_path / "a")
    rows, _, bad, _ = read(tmp_path / "a")
    assert len(rows) == 2
    ((before, entry),) = bad
    assert (before, entry.source_row, entry.byte_offset, entry.reason, entry.symbol_code) == (1, 1, -1, reason, 0)
    assert set(json.loads(entry.raw)) == set(NAMES)


def test_a_missing_price_is_allowed_where_the_action_has_none(tmp_path):
    flags = [0, 0, F_TOB, 0, 0, 0]
    table = base(6, action=["R", "N", "A", "A", "T", "C"], price=[None, float("nan"), None, 1.5, None, None], flags=flags)
    pq.write_table(pa.table(table), tmp_path / "a")
    rows, _, bad, _ = read(tmp_path / "a")
    assert [row[NAMES.index("price")] for row in rows] == [UNDEF_PRICE, UNDEF_PRICE, UNDEF_PRICE, 1_500_000_000, UNDEF_PRICE]
    assert [(before, entry.reason, entry.source_row) for before, entry in bad] == [(4, "price_nan", 4)]


@pytest.mark.parametrize("last", [[0, 1, 1], [False, True, True], [0.0, 1.0, 1.0], ["0", "1", "1"]])
@pytest.mark.parametrize("price", [[1.25, 2.5, None], [1_250_000_000, 2_500_000_000, None], [Decimal("1.25"), Decimal("2.50"), None]])
def test_the_seven_columns_become_events_of_one_instrument(tmp_path, last, price):
    table = {"is_last": last, "order_id": [7, 8, 0], "size": [1, 2, 0], "price": price, "side": ["B", "A", "N"], "action": ["A", "A", "R"]}
    pq.write_table(pa.table({**table, "ts_event": [iso(START + i) for i in range(3)]}), tmp_path / "a")
    rows, named, bad, _ = read(tmp_path / "a", seven=True, batch_rows=2)
    events = [dict(zip(NAMES, row, strict=True)) for row in rows]
    assert not bad
    assert named == ["X"] * 3
    assert [event["flags"] for event in events] == [0, F_LAST, F_LAST]
    assert [event["price"] for event in events] == [1_250_000_000, 2_500_000_000, UNDEF_PRICE]
    assert [(event["ts_event"], event["ts_recv"]) for event in events] == [(START + i, START + i) for i in range(3)]
    assert {(event["publisher_id"], event["instrument_id"], event["sequence"]) for event in events} == {(0, 0, 0)}


def test_is_last_is_nought_or_one(tmp_path):
    columns = {name: values for name, values in base(3).items() if name in ("ts_event", "action", "side", "price", "size", "order_id")}
    pq.write_table(pa.table({**columns, "is_last": [0, 2, 1]}), tmp_path / "a")
    rows, _, bad, _ = read(tmp_path / "a", seven=True)
    assert len(rows) == 2
    assert [(entry.source_row, entry.reason, entry.detail) for _, entry in bad] == [(1, "is_last", "is_last 2")]


def test_rows_without_a_symbol_are_called_by_their_instrument(tmp_path):
    symbols = pa.array(["ES", None, "", "NQ", "ES", None])
    for encoded in (symbols, symbols.dictionary_encode()):
        pq.write_table(pa.table(base(6, instrument_id=[1, 2, 3, 4, 1, 2], symbol=encoded)), tmp_path / "a", row_group_size=3)
        _, named, _, reader = read(tmp_path / "a", batch_rows=2)
        assert named == ["ES", "2", "3", "NQ", "ES", "2"]
        assert sorted(reader.symbols) == ["2", "3", "ES", "NQ"]
    for dtype in (pa.string(), pa.null(), pa.large_string()):
        pq.write_table(pa.table(base(2, symbol=pa.nulls(2, dtype))), tmp_path / "a")
        assert read(tmp_path / "a")[1] == ["0", "0"]
    pq.write_table(pa.table(base()), tmp_path / "ESH4.mbo.parquet")
    assert read(tmp_path / "ESH4.mbo.parquet", symbols=())[1] == ["ESH4"]


@pytest.mark.parametrize("symbols", [["ES", None, "ES"], ["ES", "", "ES"]])
def test_a_bad_row_without_a_symbol_may_be_of_any(tmp_path, symbols):
    for encoded in (pa.array(symbols), pa.array(symbols).dictionary_encode()):
        pq.write_table(pa.table(base(3, size=[1, -1, -1], instrument_id=[7] * 3, symbol=encoded)), tmp_path / "a")
        _, named, bad, reader = read(tmp_path / "a")
        assert named == reader.symbols == ["ES"]
        assert [entry.symbol_code for _, entry in bad] == [-1, 0]


@pytest.mark.parametrize(("dtype", "count"), [(pa.int8(), 127), (pa.int8(), 128), (pa.uint8(), 256)])
def test_as_many_symbols_are_read_as_the_indices_of_a_dictionary_can_tell(tmp_path, dtype, count):
    names = [f"S{k}" for k in range(count)]
    coded = pa.DictionaryArray.from_arrays(pa.array([*range(count), None], dtype), pa.array(names))
    pq.write_table(pa.table(base(count + 1, instrument_id=[9] * (count + 1), symbol=coded)), tmp_path / "a")
    assert read(tmp_path / "a")[1] == [*names, "9"]


def test_the_raw_bytes_of_bad_rows_are_those_rows(tmp_path):
    times = pa.array([START + k for k in range(4)], pa.timestamp("ns", "UTC"))
    pq.write_table(pa.table(base(4, size=[-1, 2, -3, -4], price=[1.5, 2.5, float("nan"), None], ts_event=times)), tmp_path / "a")
    seen = [json.loads(entry.raw) for _, entry in read(tmp_path / "a")[2]]
    assert [(row["size"], row["price"]) for row in seen] == [(-1, 1.5), (-3, "NaN"), (-4, None)]
    assert [row["ts_event"] for row in seen] == [f"2024-01-01 00:00:00.00000000{k}Z" for k in (0, 2, 3)]


def test_the_raw_bytes_of_a_kept_row_are_that_row(tmp_path):
    size = [1, -1, 3, 4]
    pq.write_table(pa.table(base(4, size=size, ts_event=pa.array([START + 7] * 4, pa.timestamp("ns", "UTC")), action=[b"A"] * 4)), tmp_path / "a")
    (batch,) = opened(tmp_path / "a").batches(10)
    seen = [batch.raw(i) for i in range(len(batch))]
    assert [(at, json.loads(raw)["size"]) for at, raw in seen] == [(-1, 1), (-1, 3), (-1, 4)]
    assert json.loads(seen[0][1])["ts_event"] == "2024-01-01 00:00:00.000000007Z"
    assert batch.source_row.tolist() == [0, 2, 3]


def test_a_damaged_page_ends_the_file_after_the_rows_before_it(tmp_path):
    count, path = 40_000, tmp_path / "a"
    order_id = np.random.default_rng(1).integers(0, 2**62, count)
    pq.write_table(pa.table(base(count, order_id=order_id)), path, row_group_size=10_000, compression="zstd", use_dictionary=False)
    column = pq.read_metadata(path).row_group(2).column(NAMES.index("order_id"))
    damaged = bytearray(path.read_bytes())
    at = column.data_page_offset
    damaged[at : at + column.total_compressed_size] = bytes(column.total_compressed_size)
    path.write_bytes(damaged)
    rows = 0
    reader = opened(path)
    with pytest.raises(CorruptSource, match="cannot be read") as caught:
        rows += sum(len(batch) for batch in _counting(reader, 10_000))
    assert caught.value.row == reader.source_rows == 20_000
    path.write_bytes(damaged[:-9])
    with pytest.raises(CorruptSource, match="footer") as caught:
        opened(path)
    assert caught.value.offset == len(damaged) - 9


def _counting(reader, batch_rows):
    yield from reader.batches(batch_rows)


def test_a_real_export_written_as_parquet_gives_the_events_of_its_csv(tmp_path, real_data):
    with open(real_data("databento/arl_20250717_morning.mbo.csv")) as file:
        lines = list(csv.DictReader(file))

    def column(name, kind):
        return pa.array([kind(line[name]) if line[name] else None for line in lines])

    pretty = {name: column(name, str) for name in ("ts_event", "ts_recv", "action", "side", "symbol")} | {"price": column("price", float)}
    table = {name: pretty[name] if name in pretty else column(name, int) for name in (*NAMES, "rtype", "symbol")}
    pq.write_table(pa.table(table), tmp_path / "a")
    rows, named, bad, _ = read(tmp_path / "a", batch_rows=700)

    def expected(line, name):
        if name in ("ts_event", "ts_recv"):
            whole, fraction = line[name].rstrip("Z").split(".")
            return int(datetime.fromisoformat(f"{whole}+00:00").timestamp()) * 10**9 + int(fraction)
        if name == "price":
            return int(Decimal(line[name]).scaleb(9)) if line[name] else UNDEF_PRICE
        return ord(line[name]) if name in ("action", "side") else int(line[name])

    assert len(rows) == 2_944
    assert not bad
    assert rows == [tuple(expected(line, name) for name in NAMES) for line in lines]
    assert named == [line["symbol"] for line in lines]
