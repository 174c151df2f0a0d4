"""CSV sources against a line-by-line twin: every field, every way of breaking a line, every block border, every compression."""

from __future__ import annotations

import gzip
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.errors import CorruptSource, EmptySource, SchemaMismatch, SourceError
from tasks.partitions import SourceFile
from tasks.scanning.arrow_values import times
from tasks.scanning.csv_field_kernels import MAX_LINE
from tasks.scanning.csv_source import CsvReader
from tasks.schemas import EVENT_DTYPES, UNDEF_PRICE
from tests.oracles import naive_csv as naive

SEVEN = "ts_event,action,side,price,size,order_id,is_last"
DATABENTO = "ts_recv,ts_event,rtype,publisher_id,instrument_id,action,side,price,size,channel_id,order_id,flags,ts_in_delta,sequence,symbol"
ROW = "1752735909035793433,2025-07-17T07:05:09.035627674Z,160,2,1108,A,B,5.510000000,100,0,817593,130,165200,851012,ARL"


def opened(path: Path, file_format: str = "databento-csv", block_bytes: int | None = None, symbols: tuple[str, ...] = ()) -> CsvReader:
    return CsvReader(SourceFile(str(path), file_format, "d", "xxh3:0", 0, 0, 0, symbols=symbols), block_bytes=block_bytes)


def collect(reader: CsvReader, batch_rows: int = 1000) -> tuple[list[dict], list[tuple]]:
    """Events and bad rows in the twin's words; checks what each batch promises, and the reader's row count."""
    events: list[dict] = []
    bad: list[tuple] = []
    for batch in reader.batches(batch_rows):
        assert len(batch) <= batch_rows
        assert {name: values.dtype for name, values in batch.columns.items()} == EVENT_DTYPES
        assert {len(values) for values in (*batch.columns.values(), batch.source_row)} == {len(batch)}
        for entry in batch.bad:
            symbol = reader.symbols[entry.symbol_code] if entry.symbol_code >= 0 else None
            bad.append((len(events) + entry.before, entry.source_row, entry.byte_offset, entry.raw, entry.reason, symbol))
        for k in range(len(batch)):
            event = {name: int(values[k]) for name, values in batch.columns.items()}
            offset, raw = batch.raw(k)
            events.append({**event, "symbol": reader.symbols[batch.symbol_code[k]], "row": int(batch.source_row[k]), "offset": offset, "raw": raw})
    assert reader.source_rows + reader.expanded_rows == len(events) + len(bad)
    return events, bad


def one(path: Path, header: str, *rows: str, file_format: str = "databento-csv"):
    path.write_text("\n".join((header, *rows)) + "\n")
    return collect(opened(path, file_format))


def test_every_row_of_a_real_databento_file_equals_the_twin(real_data):
    path = real_data("databento/arl_20250717_morning.mbo.csv")
    events, bad = collect(opened(path))
    assert (events, bad) == naive.read(path.read_bytes(), "x")
    assert len(events) == 2944
    assert {event["symbol"] for event in events} == {"ARL"}


# Texts that are mostly right, at the edges of what is right, or wrong.
EDGE_INTEGERS = "0 -1 -0 007 255 256 65536 2147483648 -2147483648 4294967295 4294967296 18446744073709551615 18446744073709551616 1e3 +1 1.0 -"
EDGE_PRICES = "nan NaN - . .5 5. --1 1e5 00012.5 1.0000000000000 0.0000000001 9223372036.854775807 9223372036.854775808 -9223372036.854775808 1,2"
EDGE_TIMES = """2024-02-29T00:00:00Z 2023-02-29T00:00:00Z 1900-02-29T00:00:00 2000-02-29T23:59:59.999999999 2025-01-01T00:00:60Z 2025-01-01T24:00:00Z
    2025-01-01T00:00:00.Z 2025-01-01T00:00:00.1234567890Z 2025-01-01T00:00:00.1234567891Z 2025-01-01T00:00:00+01:00 2025-01-01 2025-1-1T00:00:00
    2025-01-01T00:00:000Z 0000-00-00T00:00:00 1752735909035627674 9223372036854775807 9223372036854775808 -5 2025-01-01T00:00:0 2025-13-01T00:00:00
    2025-01-32T00:00:00 2261-12-31T23:59:59.999999999Z 2262-01-01T00:00:00Z 1677-12-31T00:00:00Z 1678-01-01T00:00:00Z 2025-01-01T00:00:00.5+00:00x
    2025-01-01T00:00:00.5+00 2025-01-01T00:00:00+0000 2025-01-01T00:00:00-00:00 2025-01-01T00:00:00-05 2025-01-01T00:00:00-0530
    2025-01-01T00:00:00+23:59 2025-01-01T00:00:00+24 2025-01-01T00:00:00+00:60 2025-01-01T00:00:00+0 2025-01-01T00:00:00+000 2025-01-01T00:00:00+00:
    2025-01-01T00:00:00+00:0 2025-01-01T00:00:00+00000 2025-01-01T00:00:00+ 2025-01-01T00:00:00- 2025-01-01T00:00:00Z+00 2025-01-01T00:00:00+00Z
    2261-12-31T23:59:59-23:59 1678-01-01T00:00:00+23:59"""
INTEGERS = st.integers(0, 2**65).map(str) | st.sampled_from(["", *EDGE_INTEGERS.split()])
PRICES = (
    st.decimals(-(2 * 10**10), 2 * 10**10, places=10).map(str) | st.decimals(0, 5000, places=4).map(str) | st.sampled_from(["", *EDGE_PRICES.split()])
)
TIMES = (
    st.datetimes().map(lambda t: t.isoformat() + "Z")
    | st.tuples(st.datetimes(), st.sampled_from(["+00:00", "+00", "+0000", "-05", "+05:30"])).map(lambda t: f"{t[0]}{t[1]}")
    | st.sampled_from(["", *EDGE_TIMES.split()])
)
TEXTS = {
    "ts_event": TIMES, "ts_recv": TIMES, "price": PRICES, "size": INTEGERS, "order_id": INTEGERS, "publisher_id": INTEGERS, "instrument_id": INTEGERS,
    "flags": INTEGERS, "channel_id": INTEGERS, "sequence": INTEGERS, "ts_in_delta": INTEGERS | st.integers(-(2**32), 2**32).map(str),
    "action": st.sampled_from([*"ACMTFRNx", "", "AA", " "]), "side": st.sampled_from([*"ABN?", "", "BB"]),
    "symbol": st.sampled_from(["ARL", "ES.c.0", "", "Zé", "S" * 256, "S" * 257]), "rtype": st.sampled_from(["160", "", "x y"]),
    "is_last": st.sampled_from([*"01", "true", "FALSE", "True", "2", "", "truee", "10"]),
}  # fmt: skip
GOOD = dict(zip(DATABENTO.split(","), ROW.split(","), strict=True)) | {"is_last": "0"}


EDGES = {
    "ts_event": EDGE_TIMES.split(), "ts_in_delta": [*EDGE_INTEGERS.split(), "2147483647", "-2147483649"], "price": EDGE_PRICES.split(),
    "size": EDGE_INTEGERS.split(), "order_id": EDGE_INTEGERS.split(), "publisher_id": [*EDGE_INTEGERS.split(), "65535"],
    "flags": EDGE_INTEGERS.split(),
    "symbol": ["S" * 256, "S" * 257], "is_last": ["0", "1", "TRUE", "fAlse", "2", "tru", "falsee", "00"], "side": ["", "N", "NN", " "],
}  # fmt: skip


@pytest.mark.parametrize("column", EDGES)
def test_every_edge_of_a_field_reads_as_in_the_twin(tmp_path, column):
    texts = ["", *EDGES[column]]
    rows = [",".join({**GOOD, column: text}.values()) for text in texts]
    path = tmp_path / "edge.csv"
    path.write_text("\n".join([",".join(GOOD), *rows, ""]))
    expected = naive.read(path.read_bytes(), "edge")
    assert collect(opened(path)) == expected
    assert all(expected)  # some are right, some are wrong


@pytest.mark.parametrize("zone", ["+00", "+0000", "+00:00", "Z", "", "-05", "+0530"])
def test_times_with_an_offset_are_the_same_as_in_text_of_a_parquet_file(tmp_path, zone):
    text = f"2025-01-02 14:30:00.123456789{zone}"
    path = tmp_path / "a.csv"
    path.write_text("\n".join([",".join(GOOD), ",".join({**GOOD, "ts_event": text}.values()), ""]))
    ((event,), bad) = collect(opened(path))
    assert (event["ts_event"], bad) == (int(times(pa.array([text]))[0][0]), [])


@st.composite
def files(draw):
    names = draw(st.permutations([*DATABENTO.split(","), "is_last"]))
    rows = []
    for _ in range(draw(st.integers(1, 6))):
        wild = draw(st.sets(st.sampled_from(names), max_size=2))
        cells = [draw(TEXTS[name]) if name in wild else GOOD[name] for name in names]
        quoted = draw(st.sets(st.integers(0, len(cells) - 1), max_size=2))
        cells = [f'"{cell}"' if k in quoted else cell for k, cell in enumerate(cells)]
        line = ",".join(cells)
        if draw(st.integers(0, 5)) == 0:
            at, what = draw(st.integers(0, len(line))), draw(st.sampled_from(['"', ",", "x", '""', "é"]))
            line = line[:at] + what + line[at:]
        rows.append(line)
        rows += [""] * draw(st.integers(0, 1))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    text = end.join([",".join(names), *rows]) + draw(st.sampled_from(["", end]))
    return draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + text.encode()


@settings(max_examples=200, deadline=None)
@given(files(), st.integers(1, 400), st.integers(1, 5))
def test_any_line_cut_at_any_block_border_reads_as_in_the_twin(tmp_path_factory, data, block_bytes, batch_rows):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(data)
    events, bad = naive.read(data, "any")

    # The twin reads text as latin-1, a byte a letter; the reader's symbols are UTF-8.
    def as_text(symbol):
        return symbol and symbol.encode("latin-1").decode("utf-8", "backslashreplace")

    expected = [{**event, "symbol": as_text(event["symbol"])} for event in events], [(*entry[:5], as_text(entry[5])) for entry in bad]
    assert collect(opened(path, block_bytes=block_bytes), batch_rows) == expected


@settings(max_examples=200, deadline=None)
@given(st.integers(-(2**63) + 1, 2**63 - 1), st.integers(0, 12), st.datetimes())
@example(0, 9, naive.EPOCH)
def test_numbers_and_times_survive_the_way_through_text(tmp_path_factory, price, cut, moment):
    whole, fraction = divmod(abs(price), 10**9)
    text = f"{whole}.{fraction:09d}" + "0" * cut
    path = tmp_path_factory.getbasetemp() / "one.csv"
    year = 1678 + moment.year % 584
    day = min(moment.day, 28)
    moment = moment.replace(year=year, day=day)
    events, bad = one(path, SEVEN, f"{moment.isoformat()},A,B,{'-' if price < 0 else ''}{text},1,1,1", file_format="seven-column-csv")
    assert not bad
    assert events[0]["price"] == price
    assert events[0]["ts_event"] == int(np.datetime64(moment, "us").astype("datetime64[ns]").astype(np.int64))


def test_seven_columns_become_events_without_publisher_and_with_last(tmp_path):
    rows = ("1000,A,B,10.5,3,18446744073709551615,0", "2000,T,A,10.25,1,7,1")
    events, bad = one(tmp_path / "ACME.csv", SEVEN, *rows, file_format="seven-column-csv")
    assert not bad
    assert [(e["ts_event"], e["ts_recv"], e["flags"], e["publisher_id"], e["instrument_id"]) for e in events] == [
        (1000, 1000, 0, 0, 0),
        (2000, 2000, 128, 0, 0),
    ]
    assert [(chr(e["action"]), chr(e["side"]), e["price"], e["size"], e["order_id"]) for e in events] == [
        ("A", "B", 10_500_000_000, 3, 2**64 - 1), ("T", "A", 10_250_000_000, 1, 7),
    ]  # fmt: skip
    assert {e["symbol"] for e in events} == {"ACME"}


def test_a_seven_column_price_is_decimal_even_without_a_point(tmp_path):
    events, _ = one(tmp_path / "a.csv", SEVEN, "1,A,B,2000000,1,1,1", file_format="seven-column-csv")
    assert events[0]["price"] == 2_000_000 * 10**9


@pytest.mark.parametrize(
    ("prices", "expected"),
    [
        (("5510000000", "", "0", "21330000000"), (5510000000, UNDEF_PRICE, 0, 21330000000)),
        (("5510000000", "21.33"), (5510000000 * 10**9, 21330000000)),
        (("5", "21"), (5 * 10**9, 21 * 10**9)),
        (("-1500000", str(UNDEF_PRICE)), (-1500000, UNDEF_PRICE)),
        (("1170000000", "500000", "-250000", "1170050000"), (1170000000, 500000, -250000, 1170050000)),  # an outright, its spread of 0.0005
        (("500000", str(UNDEF_PRICE)), (500000, UNDEF_PRICE)),
    ],
)
def test_the_unit_of_databento_prices_is_decided_once_for_the_file(tmp_path, prices, expected):
    rows = [ROW.replace("5.510000000", price) for price in prices]
    events, bad = one(tmp_path / "a.csv", DATABENTO, *rows)
    assert [e["price"] for e in events] == [*expected]
    assert not bad


def test_a_point_in_a_file_of_integer_prices_is_a_bad_row_and_never_rescaled(tmp_path):
    many = [ROW.replace("5.510000000", "5510000000")] * 3000
    events, bad = one(tmp_path / "a.csv", DATABENTO, *many, ROW)
    assert len(events) == 3000
    assert {e["price"] for e in events} == {5510000000}
    assert [(entry[1], entry[4]) for entry in bad] == [(3000, "price")]


def test_a_price_with_a_point_among_the_first_integers_does_not_turn_the_unit_of_the_others(tmp_path):
    rows = [ROW.replace("5.510000000", price) for price in ("1170000000", "1.17", "1170050000")]
    events, bad = one(tmp_path / "a.csv", DATABENTO, *rows)
    assert [event["price"] for event in events] == [1170000000, 1170050000]
    assert [(entry[1], entry[4]) for entry in bad] == [(1, "price")]


@pytest.mark.parametrize("text", ["5510000000", "5.51"])
def test_without_a_price_in_the_first_rows_the_first_price_decides_the_unit(tmp_path, text):
    empty = [ROW.replace("5.510000000", "")] * 3000
    for block_bytes in (1 << 10, 1 << 20):
        path = tmp_path / "a.csv"
        path.write_text("\n".join([DATABENTO, *empty, ROW.replace("5.510000000", text)]))
        events, _ = collect(opened(path, block_bytes=block_bytes))
        assert events[-1]["price"] == 5510000000


@pytest.mark.parametrize("action", "ACMTFRN")
def test_nan_is_a_bad_price_where_an_action_needs_one(tmp_path, action):
    row = ROW.replace(",A,B,5.510000000", f",{action},B,NaN")
    events, bad = one(tmp_path / "a.csv", DATABENTO, row)
    if action in "CRN":  # an order is cancelled by its id
        assert events[0]["price"] == UNDEF_PRICE
        assert not bad
    else:
        assert [(entry[4], entry[5]) for entry in bad] == [("price_nan", "ARL")]


@pytest.mark.parametrize("symbol", ["", '""'])
def test_a_bad_row_without_a_symbol_may_be_of_any(tmp_path, symbol):
    row = ROW.replace("ARL", symbol)
    events, bad = one(tmp_path / "feed.csv", DATABENTO, ROW, row, row.replace(",100,", ",x,"), ROW.replace(",100,", ",x,"))
    assert [event["symbol"] for event in events] == ["ARL", "feed"]
    assert [(entry[4], entry[5]) for entry in bad] == [("integer", None), ("integer", "ARL")]


def test_an_unterminated_quote_costs_its_line_only(tmp_path):
    events, bad = one(tmp_path / "a.csv", DATABENTO, ROW, ROW.replace("ARL", '"ARL'), ROW, '"' + ROW, ROW)
    assert [e["row"] for e in events] == [0, 2, 4]
    assert [(entry[0], entry[1], entry[4], entry[5]) for entry in bad] == [(1, 1, "quote", None), (2, 3, "quote", None)]


def test_a_bad_row_tells_column_and_text(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("\n".join([DATABENTO, ROW.replace(",100,", ",12x,"), ROW + ",9", ""]))
    (batch,) = opened(path).batches(10)
    assert [entry.detail for entry in batch.bad] == ["size is '12x'", "16 fields, expected 15"]


@pytest.mark.parametrize("block_bytes", [1 << 16, 1 << 22])
@pytest.mark.parametrize("beyond", [0, 1, 3_000_000])
def test_a_line_without_end_is_one_bad_row_and_the_next_line_is_read(tmp_path, block_bytes, beyond):
    path, fill = tmp_path / "a.csv", MAX_LINE - len(ROW) + len("160") + beyond
    long = ROW.replace("160", "x" * fill).encode()
    path.write_bytes(b"\r\n".join([DATABENTO.encode(), ROW.encode(), long, ROW.encode(), b""]))
    events, bad = collect(opened(path, block_bytes=block_bytes))
    if beyond:
        assert [e["row"] for e in events] == [0, 2]
        assert bad == [(1, 1, len(DATABENTO) + len(ROW) + 4, long[:MAX_LINE], "line_too_long", None)]
    else:
        assert [e["row"] for e in events] == [0, 1, 2]
    assert events[-1]["offset"] == path.stat().st_size - len(ROW) - 2


@pytest.mark.parametrize("tail", [b"", b"\n" + ROW.encode()])
def test_an_endless_last_line_ends_the_file(tmp_path, tail):
    path = tmp_path / "a.csv"
    path.write_bytes(f"{DATABENTO}\n{ROW}\n".encode() + b"y" * (MAX_LINE + 200_000) + tail)
    events, bad = collect(opened(path, block_bytes=1 << 16))
    assert [entry[4] for entry in bad] == ["line_too_long"]
    assert len(events) == 1 + bool(tail)


PACK = {
    "gzip": gzip.compress,
    "members": lambda data: b"".join(gzip.compress(data[i : i + 5000]) for i in range(0, len(data), 5000)) + bytes(9),
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    "frames": lambda data: b"".join(zstandard.compress(data[i : i + 5000]) for i in range(0, len(data), 5000)),
    "skippable": lambda data: b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + zstandard.compress(data),
}


def numbered(count: int) -> bytes:
    """A file whose rows differ, so that a lost, doubled or torn one shows."""
    rows = [ROW.replace("817593", str(k * 7919)).replace("5.51", f"{k}.51") for k in range(count)]
    return "\n".join([DATABENTO, *rows, ""]).encode()


@pytest.mark.parametrize("pack", PACK)
def test_a_compressed_file_reads_as_the_plain_one(tmp_path, pack):
    data, path = numbered(400), tmp_path / "a.csv"
    path.write_bytes(PACK[pack](data))
    for block_bytes in (100, 1 << 16):
        assert collect(opened(path, block_bytes=block_bytes)) == naive.read(data, "a")


@pytest.mark.parametrize("pack", PACK)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.9999])
def test_a_file_cut_off_gives_whole_rows_then_an_error_with_the_offset(tmp_path, pack, share):
    data, path = numbered(400), tmp_path / "a.csv"
    packed = PACK[pack](data).rstrip(b"\0") if pack == "members" else PACK[pack](data)
    path.write_bytes(packed[: min(int(len(packed) * share), len(packed) - 1)])
    reader, rows = opened(path, block_bytes=1000), 0
    expected, _ = naive.read(data, "a")
    with pytest.raises(CorruptSource) as fault:  # noqa: PT012
        for batch in reader.batches(50):
            assert batch.columns["order_id"].tolist() == [event["order_id"] for event in expected[rows : rows + len(batch)]]
            assert not batch.bad
            rows += len(batch)
    assert fault.value.offset is not None
    assert rows == max(0, data[: fault.value.offset].count(b"\n") - 1)


@pytest.mark.parametrize("pack", ["gzip", "zstd"])
def test_a_wrong_checksum_is_an_error(tmp_path, pack):
    packed = bytearray(PACK[pack](numbered(50)))
    packed[-6 if pack == "gzip" else -2] ^= 1
    path = tmp_path / "a.csv"
    path.write_bytes(packed)
    with pytest.raises(CorruptSource):
        collect(opened(path))


def test_symbols_are_coded_in_order_of_appearance_whatever_their_number(tmp_path):
    names = [f"S{k * 37 % 3001}" for k in range(4000)]
    path = tmp_path / "a.csv"
    path.write_text("\n".join([DATABENTO, *(ROW.replace("ARL", name) for name in names)]))
    reader = opened(path)
    got = [reader.symbols[code] for batch in reader.batches(500) for code in batch.symbol_code]
    assert got == names
    assert reader.symbols == list(dict.fromkeys(names))


def test_the_symbol_comes_from_the_source_or_its_name_where_no_column_has_it(tmp_path):
    path = tmp_path / "ES.2024.csv.gz"
    path.write_bytes(gzip.compress(f"{SEVEN}\n1,A,B,1,1,1,1\n".encode()))
    for symbols, expected in (((), "ES.2024"), (("ESH4", "x"), "ESH4")):
        reader = opened(path, "seven-column-csv", symbols=symbols)
        assert [batch.symbol_code.tolist() for batch in reader.batches(10)] == [[0]]
        assert reader.symbols == [expected]


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (b"", EmptySource, "empty"),
        (b"\r\n\n", EmptySource, "empty"),
        (b"ts_event,action,price\n", SchemaMismatch, "publisher_id, instrument_id, side, size, order_id, flags"),
        (DATABENTO.replace("rtype", "price").encode() + b"\n", SchemaMismatch, "price"),
        (b"\x1f\x8b\x08\0garbage", CorruptSource, "damaged"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path, data, error, words):
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    with pytest.raises(error, match=words) as fault:
        collect(opened(path))
    assert str(path) in str(fault.value)


def test_a_header_alone_has_no_rows(tmp_path):
    assert one(tmp_path / "a.csv", DATABENTO) == ([], [])


def test_a_missing_file_is_a_source_error(tmp_path):
    with pytest.raises(SourceError, match="cannot be opened"):
        collect(opened(tmp_path / "none.csv"))


def test_closing_in_the_middle_stops_the_thread(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(numbered(20_000))
    reader = opened(path, block_bytes=1 << 16)
    before = threading.active_count()
    stream = reader.batches(10)
    next(stream)
    assert threading.active_count() == before + 1
    reader.close()
    assert threading.active_count() == before
    stream.close()
