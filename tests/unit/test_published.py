"""Published books: every row of every format as an independent reader sees it, once, in the lake or in quarantine; and the naive certificate."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import io
import os
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import databento_dbn
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.errors import CorruptSource, SchemaMismatch, SourceChanged, UnknownFormat
from tasks.footers import read_facts
from tasks.partitions import Partition, SourceFile
from tasks.scanning import published_routing
from tasks.scanning.inventory import scan
from tasks.scanning.published import PublishedPart, decode_published, identify_published, published_source
from tasks.scanning.published_csv import PublishedCsv
from tasks.scanning.published_formats import Published
from tasks.scanning.published_kernels import FIRST_LEVEL, LEVEL_BYTES
from tasks.scanning.readers import open_reader
from tasks.schemas import UNDEF_PRICE, published_schema
from tests.oracles import naive_certificate as certificate
from tests.oracles import naive_dbn
from tests.oracles import naive_published as naive
from tests.oracles.naive_book import NaiveBook

EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "200"))
SECOND = 10**9
DAY = 86_400 * SECOND
START = naive_dbn.START  # 2024-01-01
SCHEMAS = ("mbp-1", "mbp-10", "tbbo", "bbo-1s", "bbo-1m")
SYMBOLS = {7: "ESZ4", 8: "NQZ4"}
MAPPINGS = [naive_dbn.mapping(symbol, (1, 9, str(number))) for number, symbol in SYMBOLS.items()]


def depth_of(schema: str) -> int:
    return 10 if schema == "mbp-10" else 1


def rows_of(schema: str, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of two days, two instruments and two publishers, with levels that are empty and times that are not set."""
    draw, rows = random.Random(seed), []
    for k in range(count):
        bbo, ts = schema.startswith("bbo"), START + k * (2 * DAY // count) + draw.randrange(1000)
        row: dict[str, Any] = {"ts_event": None if bbo and draw.random() < 0.3 else ts - draw.randrange(9999), "ts_recv": ts, "sequence": k}
        number = draw.choice([7, 8])
        row |= {"publisher_id": draw.choice([1, 1, 2]), "instrument_id": number, "flags": draw.choice([0, 128, 130, 255]), "symbol": SYMBOLS[number]}
        row["action"] = "" if bbo else "T" if schema == "tbbo" else draw.choice("ACMRTFN")
        for name in naive.level_names(depth_of(schema)):
            empty = draw.random() < 0.2
            row[name] = UNDEF_PRICE if empty and "_px_" in name else draw.randrange(0 if "_px_" not in name else -(10**13), 2**32 - 1)
        rows.append(row)
    return rows


def dbn_bytes(rows: list[dict[str, Any]], schema: str, ts_out: bool = False, version: int = 3) -> bytes:
    head = naive_dbn.header(version, MAPPINGS, ts_out, schema)
    return head + b"".join(naive.record(schema, row, ts_out) for row in rows)


def parquet_bytes(rows: list[dict[str, Any]], schema: str, pretty: bool) -> bytes:
    names = [
        "ts_recv",
        "ts_event",
        "rtype",
        *(n for n in ("publisher_id", "instrument_id", "action", "flags", "sequence") if n != "action" or rows[0][n]),
    ]
    columns: dict[str, pa.Array] = {}
    for name in (*names, *naive.level_names(depth_of(schema)), "symbol"):
        values = [naive.RTYPE[schema] if name == "rtype" else row[name] for row in rows]
        if name.startswith("ts_"):
            columns[name] = (
                pa.array(values, pa.timestamp("ns", "UTC"))
                if pretty
                else pa.array([naive.UNDEF_TIME if v is None else v for v in values], pa.uint64())
            )
        elif "_px_" in name and pretty:
            columns[name] = pa.array([float("nan") if v == UNDEF_PRICE else v / 1e9 for v in values])
        else:
            columns[name] = pa.array(values)
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, row_group_size=100)
    return buffer.getvalue()


def source_of(path: Path, **options: Any) -> SourceFile:
    found = identify_published(path)
    assert found is not None
    return published_source(path, found, **options)


def written(folder: Path, data: bytes | str, name: str = "feed.x") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def lake_rows(lake: Path, part: PublishedPart) -> list[dict[str, Any]]:
    """A file of the layer as rows of the naive kind."""
    table = pq.read_table(lake / part.path, partitioning=None)
    depth = read_facts(lake / part.path)["depth"]
    assert table.schema.equals(published_schema(depth))
    for name in ("ts_event", "ts_recv"):
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(pa.int64()))
    rows = table.to_pylist()
    own = {"symbol": part.partition.symbol, "publisher_id": part.partition.publisher_id, "instrument_id": part.partition.instrument_id}
    return [{**row, **own, "action": row["action"] or ""} for row in rows]


def key(partition: Partition) -> tuple[str, str, int, int]:
    return partition.date, partition.symbol, partition.publisher_id, partition.instrument_id


def files_under(lake: Path) -> dict[str, bytes]:
    return {str(path.relative_to(lake)): path.read_bytes() for path in sorted(lake.rglob("*")) if path.is_file()}


def quarantine_of(lake: Path) -> list[dict[str, Any]]:
    return [row for path in sorted((lake / "quarantine").rglob("*.parquet")) for row in pq.read_table(path, partitioning=None).to_pylist()]


def accounts_hold(lake: Path, parts: list[PublishedPart], rows_in: int) -> None:
    quarantined = len(quarantine_of(lake))
    for part in parts:
        facts = read_facts(lake / part.path)
        assert facts["rows_in"] == facts["rows_out"] + facts["rows_quarantined"]
        assert (facts["rows_out"], facts["parts"]) == (part.rows, len(parts))
        assert facts["of_source"] == {"rows_in": rows_in, "rows_out": rows_in - quarantined, "rows_quarantined": quarantined}
    assert sum(part.rows for part in parts) + quarantined == rows_in


def price_of(text: str) -> int:
    return int(Decimal(text) * 10**9) if text else UNDEF_PRICE


@pytest.mark.real_data
def test_a_real_mbp_10_csv_enters_row_by_row(real_data, tmp_path):
    path = real_data("databento/arl_20250717_morning.mbp-10.csv")
    source = source_of(path)
    assert (source.format, source.dataset, source.symbols) == ("published-csv", "XNAS.ITCH", ())
    (part,) = decode_published(source, tmp_path)
    (mbo,) = scan([real_data("databento/arl_20250717_morning.mbo.csv")]).files
    reader = open_reader(mbo)
    next(reader.batches(10_000))
    assert (part.partition.dataset, [part.partition.symbol]) == (mbo.dataset, reader.symbols)
    found = lake_rows(tmp_path, part)
    with path.open() as file:
        expected = list(csv.DictReader(file))
    assert len(found) == len(expected) == part.rows == 1_917
    for row, text in zip(found, expected, strict=True):
        assert row["ts_recv"] == row["ts_event"] == naive.time_ns(text["ts_event"])
        assert (row["action"], row["flags"], row["sequence"]) == (text["action"], int(text["flags"]), int(text["sequence"]))
        for name in naive.level_names(10):
            assert row[name] == (price_of(text[name]) if "_px_" in name else int(text[name])), (text["ts_event"], name)
    accounts_hold(tmp_path, [part], 1_917)


def decoded_by_vendor(data: bytes) -> list[dict[str, Any]]:
    """Records of a plain DBN stream by the vendor's own decoder, as naive rows without symbols."""
    decoder = databento_dbn.DBNDecoder()
    decoder.write(data)
    rows = []
    for record in decoder.decode():
        if hasattr(record, "levels"):
            row = {name: getattr(record, name) for name in ("ts_recv", "publisher_id", "instrument_id", "sequence", "flags")}
            row["flags"] = int(row["flags"])
            row["ts_event"] = None if record.ts_event == naive.UNDEF_TIME else record.ts_event
            row["action"] = str(getattr(record, "action", ""))
            for level, pair in enumerate(record.levels):
                row |= {f"{side}_{kind}_{level:02d}": getattr(pair, f"{side}_{kind}") for side in ("bid", "ask") for kind in ("px", "sz", "ct")}
            rows.append(row)
    return rows


VENDOR_FILES = [f"{s}{v}" for s in ("mbp-1", "mbp-10", "bbo-1s") for v in (".dbn", ".v1.dbn.zst", ".v2.dbn.zst", ".v3.dbn.zst")]
VENDOR_FILES.remove("bbo-1s.v1.dbn.zst")  # version 1 had none


@pytest.mark.real_data
@pytest.mark.parametrize("name", VENDOR_FILES)
def test_real_dbn_files_read_as_the_vendors_decoder_reads_them(real_data, tmp_path, name):
    path = real_data(f"databento/dbn_versions/test_data.{name}")
    data = path.read_bytes()
    data = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read() if path.suffix == ".zst" else data
    source = source_of(path)
    (part,) = decode_published(source, tmp_path)
    found = lake_rows(tmp_path, part)
    assert (part.partition.dataset, part.partition.symbol, part.partition.date) == ("GLBX.MDP3", "ESH1", "2020-12-28")
    assert [{k: v for k, v in row.items() if k != "symbol"} for row in found] == decoded_by_vendor(data)
    assert len(found) > 0
    assert source.rows in (-1, len(found))


@pytest.mark.parametrize("schema", SCHEMAS)
def test_records_are_laid_out_as_the_vendors_decoder_expects(schema):
    rows = rows_of(schema, 20)
    data = dbn_bytes(rows, schema)
    assert decoded_by_vendor(data) == [{k: v for k, v in row.items() if k != "symbol"} for row in rows]
    assert len(naive.record(schema, rows[0])) == FIRST_LEVEL + LEVEL_BYTES * depth_of(schema)


FORMS = ("csv", "csv-integers", "csv-gz", "csv-zst", "parquet", "parquet-integers", "dbn", "dbn-zst", "dbn-v1", "dbn-ts-out")


def form(name: str, rows: list[dict[str, Any]], schema: str) -> bytes:
    if name.startswith("csv"):
        data = naive.csv_text(rows, schema, pretty=name != "csv-integers").encode()
        return gzip.compress(data) if name == "csv-gz" else zstandard.compress(data) if name == "csv-zst" else data
    if name.startswith("parquet"):
        return parquet_bytes(rows, schema, pretty=name == "parquet")
    data = dbn_bytes(rows, schema, ts_out=name == "dbn-ts-out", version=1 if name == "dbn-v1" else 3)
    return zstandard.compress(data) if name == "dbn-zst" else data


@pytest.mark.parametrize("schema", SCHEMAS)
def test_the_same_rows_give_the_same_bytes_in_every_format(tmp_path, schema):
    rows, lakes = rows_of(schema, 300), {}
    for name in FORMS:
        source = source_of(written(tmp_path / name, form(name, rows, schema)), dataset="D")
        # One name and fingerprint for all: both stand in the footer.
        lake = tmp_path / "lakes" / name
        parts = decode_published(dataclasses.replace(source, fingerprint="xxh3:00", symbols=()), lake)
        accounts_hold(lake, parts, 300)
        lakes[name] = files_under(lake)
        assert {key(part.partition): lake_rows(lake, part) for part in parts} == naive.by_partition(rows), name
        facts = read_facts(lake / parts[0].path)
        interval = {"bbo-1s": SECOND, "bbo-1m": 60 * SECOND}.get(schema, 0)
        assert (facts["schema"], facts["depth"], facts["interval_ns"], facts["before"]) == (schema, depth_of(schema), interval, schema == "tbbo")
    assert len({key for lake in lakes.values() for key in lake}) == 8  # two days, symbols and publishers
    for name in FORMS:
        assert lakes[name] == lakes["csv"], name


@pytest.mark.parametrize("name", ["csv", "parquet", "dbn", "dbn-ts-out"])
def test_neither_batches_nor_the_spill_change_a_byte(tmp_path, name, monkeypatch):
    rows = rows_of("mbp-10", 300)
    source = source_of(written(tmp_path, form(name, rows, "mbp-10")))
    decode_published(source, tmp_path / "whole")
    expected = files_under(tmp_path / "whole")
    for batch_rows, max_open, group in ((1, 16, 16_384), (7, 2, 16_384), (100, 0, 16_384)):
        monkeypatch.setattr(published_routing, "MAX_OPEN", max_open)
        decode_published(source, tmp_path / f"{batch_rows}", batch_rows=batch_rows)
        assert files_under(tmp_path / f"{batch_rows}") == expected, (batch_rows, max_open, group)


def test_row_groups_have_one_size_whatever_the_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(published_routing, "ROW_GROUP_ROWS", 32)
    rows = [{**row, "instrument_id": 7, "publisher_id": 1, "ts_recv": START + k} for k, row in enumerate(rows_of("bbo-1s", 100))]
    source = source_of(written(tmp_path, form("dbn", rows, "bbo-1s")))
    lakes = []
    for batch_rows in (3, 64, 1000):
        (part,) = decode_published(source, tmp_path / f"{batch_rows}", batch_rows=batch_rows)
        metadata = pq.read_metadata(tmp_path / f"{batch_rows}" / part.path)
        assert [metadata.row_group(k).num_rows for k in range(metadata.num_row_groups)] == [32, 32, 32, 4]
        lakes.append(files_under(tmp_path / f"{batch_rows}"))
    assert lakes[0] == lakes[1] == lakes[2]


# Texts that are mostly right, at the edges of what is right, or wrong.
TIMES = st.sampled_from(["2025-07-17T07:05:09.035627674Z", "1752735909035627674", "", "1969-12-31T23:59:59Z", "18446744073709551615", "x", "-1"])
PRICES = st.sampled_from(["5.51", "", "nan", "NaN", "-1.5", "9223372036.854775807", "9223372036.854775808", "1e5", "0.0000000001", "07", '"5.5"'])
COUNTS = st.sampled_from(["0", "100", "4294967295", "4294967296", "9223372036854775807", "9223372036854775808", "-1", "", "1.0"])
TEXTS = {
    "ts_event": TIMES, "ts_recv": TIMES, "publisher_id": st.sampled_from(["1", "65535", "65536", ""]),
    "flags": st.sampled_from(["130", "255", "256"]),
    "instrument_id": st.sampled_from(["7", "4294967296"]), "sequence": COUNTS, "action": st.sampled_from(["A", "T", "x", "", "AB"]),
    "symbol": st.sampled_from(["ES", "", "NQ", "é", "x" * 256, "x" * 257, 'a"b', "ES,NQ"]), "side": st.just("N"), "unknown": st.just("9"),
}  # fmt: skip
GOOD = {"ts_event": "5", "ts_recv": "2025-07-17T07:05:09Z", "publisher_id": "2", "flags": "0", "instrument_id": "7", "sequence": "1", "action": "C"}


@st.composite
def files(draw):
    """(lines of a file, whether with an action) of one level; most fields are good, columns stand in any order."""
    by_row = draw(st.booleans())
    names = [*naive.level_names(1), *(name for name in TEXTS if name != "action" or by_row)]
    names = draw(st.permutations([name for name in names if name != "symbol" or draw(st.booleans())]))
    lines = [",".join(names)]
    for _ in range(draw(st.integers(0, 8))):
        cells = []
        for name in names:
            texts = TEXTS.get(name, PRICES if "_px_" in name else COUNTS)
            good = GOOD.get(name, "5.25" if "_px_" in name else "3")
            cells.append(draw(texts) if draw(st.integers(0, 9)) == 0 else good)
        line = ",".join(cells)
        lines.append(draw(st.sampled_from([line, line, line, line, line + ",", line[: len(line) // 2], "", line + "\r"])))
    return lines, by_row


@settings(max_examples=EXAMPLES, deadline=None)
@given(files(), st.integers(1, 5), st.sampled_from([64, 1 << 16]))
@example((["ts_event", "x"], True), 1, 64)
def test_every_line_is_read_as_the_twin_reads_it(tmp_path_factory, drawn, batch_rows, block_bytes):
    lines, by_row = drawn
    data = "\n".join(lines).encode()
    path = written(tmp_path_factory.mktemp("csv"), data, "F.x.csv")
    source = SourceFile(str(path), "published-csv", "D", "", 0, 0, 0)
    reader = PublishedCsv(source, Published("published-csv", "mbp-1" if by_row else "bbo-1s", 1, True), block_bytes=block_bytes)
    known = [*naive.level_names(1), "symbol", *(name for name in TEXTS if name not in ("side", "unknown"))]
    names = ["ts_event", "ts_recv", "publisher_id", "instrument_id", "sequence", "action", "flags", *naive.level_names(1)]
    present = {name.strip() for name in lines[0].split(",")}
    rows: list[dict[str, Any]] = []
    bad: list[tuple] = []
    for batch in reader.batches(batch_rows):
        assert len(batch) <= batch_rows
        for entry in batch.bad:
            symbol = reader.symbols[entry.symbol_code] if entry.symbol_code >= 0 else None
            bad.append((len(rows) + entry.before, entry.source_row, entry.byte_offset, entry.raw, entry.reason, symbol))
        for k in range(len(batch)):
            row: dict[str, Any] = {name: int(batch.values[place, k]) for place, name in enumerate(names) if name in present}
            if row.get("ts_event") == -1:
                row["ts_event"] = None
            offset, raw = batch.raw(k)
            row["action"] = chr(row["action"]) if row.get("action") else ""
            rows.append({**row, "symbol": reader.symbols[batch.symbol_code[k]], "row": int(batch.source_row[k]), "offset": offset, "raw": raw})
    assert (rows, bad) == read_naively(data, known)
    assert reader.source_rows == len(rows) + len(bad)


def read_naively(data: bytes, known: list[str]) -> tuple[list, list]:
    rows, bad = naive.read_csv(data, "F", known)
    # Names are bytes to the reader and Latin-1 to the twin.
    return [{**row, "symbol": utf8(row["symbol"])} for row in rows], [(*entry[:5], utf8(entry[5])) for entry in bad]


def utf8(name: str | None) -> str | None:
    return None if name is None else name.encode("latin-1").decode("utf-8")


def test_a_price_stays_exact_to_its_last_digit(tmp_path):
    rows = [{**row, "bid_px_00": 9_223_372_036_854_775_806, "ask_px_00": -1_000_001} for row in rows_of("mbp-1", 3)]
    for name in ("csv", "csv-integers", "parquet-integers", "dbn"):
        lake = tmp_path / "lake" / name
        parts = decode_published(source_of(written(tmp_path / name, form(name, rows, "mbp-1"))), lake)
        assert {(r["bid_px_00"], r["ask_px_00"]) for part in parts for r in lake_rows(lake, part)} == {(9_223_372_036_854_775_806, -1_000_001)}


def test_bad_lines_are_set_aside_with_their_bytes_and_cost_no_other_line(tmp_path):
    rows = [{**row, "instrument_id": 7, "publisher_id": 1, "symbol": "ES", "action": "A"} for row in rows_of("mbp-1", 10)]
    rows = [{**row, "ts_recv": START + k, "ts_event": START + k} for k, row in enumerate(rows)]
    header, *lines = naive.csv_text(rows, "mbp-1").splitlines()
    lines[0] = lines[0].replace(",A,", ",Z,")  # no such action
    lines[3] = lines[3] + ",surplus"
    lines[6] = "nonsense"
    lines[9] = lines[9].replace("T00:", "T99:", 1)
    text = "\n".join([header, *lines]) + "\n"
    for batch_rows in (1, 3, 100):
        lake = tmp_path / f"{batch_rows}"
        (part,) = decode_published(source_of(written(tmp_path, text)), lake, batch_rows=batch_rows)
        assert lake_rows(lake, part) == [row for k, row in enumerate(rows) if k not in (0, 3, 6, 9)]
        found = quarantine_of(lake)
        assert [(row["source_row"], row["reason"]) for row in found] == [(0, "action"), (3, "columns"), (6, "columns"), (9, "time")]
        for row in found:
            assert row["raw"] == lines[row["source_row"]].encode()
            assert text.encode()[row["byte_offset"] :].startswith(row["raw"])
            assert row["detail"]
        facts = read_facts(lake / part.path)
        assert facts["suspect_rows"] == [0, 2, 4, 6]
        # Of the four, only the first tells its partition.
        assert (facts["rows_in"], facts["rows_quarantined"]) == (7, 1)
        accounts_hold(lake, [part], 10)


def test_bad_parquet_rows_are_set_aside(tmp_path):
    rows = [{**row, "instrument_id": 7, "publisher_id": 1, "symbol": "ES"} for row in rows_of("mbp-1", 4)]
    table = pq.read_table(io.BytesIO(parquet_bytes(rows, "mbp-1", pretty=False)))
    prices = pa.array([1, 2, 3, None], pa.int64())  # null is the price of an empty level
    sizes = pa.array([5, None, 5, 5], pa.int64())
    actions = pa.array(["A", "A", "?", "A"])
    for name, column in (("bid_px_00", prices), ("bid_sz_00", sizes), ("action", actions)):
        table = table.set_column(table.schema.get_field_index(name), name, column)
    path = tmp_path / "f.parquet"
    pq.write_table(table, path)
    parts = decode_published(source_of(path), tmp_path / "lake")
    assert sorted(row["bid_px_00"] for part in parts for row in lake_rows(tmp_path / "lake", part)) == [1, UNDEF_PRICE]
    found = quarantine_of(tmp_path / "lake")
    assert [(row["source_row"], row["reason"]) for row in found] == [(1, "null"), (2, "action")]
    assert b'"bid_sz_00": null' in found[0]["raw"]
    accounts_hold(tmp_path / "lake", parts, 4)


def test_records_of_other_types_are_set_aside_and_a_mapping_among_them_names_what_follows(tmp_path):
    rows = [{**row, "instrument_id": 99, "ts_recv": START + 5, "ts_event": START + 4, "publisher_id": 1} for row in rows_of("mbp-1", 4)]
    mapping = naive_dbn.other(22, 44, 99, START, b"\0" * 73 + b"NEW")
    system = naive_dbn.other(23, 21, body=b"x")  # 84 bytes: what follows is out of step with words of eight
    unset = naive.record("mbp-1", {**rows[0], "ts_event": None})
    records = [naive.record("mbp-1", row) for row in rows]
    stream = [mapping, records[0], system, records[1], unset, records[2], system, records[3]]
    head = naive_dbn.header(3, [], schema="mbp-1")
    for batch_rows in (1, 2, 100):
        lake = tmp_path / f"{batch_rows}"
        (part,) = decode_published(source_of(written(tmp_path, head + b"".join(stream))), lake, batch_rows=batch_rows)
        assert lake_rows(lake, part) == [{**row, "symbol": "NEW"} for row in rows]
        found = quarantine_of(lake)
        assert [(row["source_row"], row["reason"]) for row in found] == [
            (0, "not_published"), (2, "not_published"), (4, "no_time"), (6, "not_published"),
        ]  # fmt: skip
        assert [row["raw"] for row in found] == [mapping, system, unset, system]
        assert [row["byte_offset"] for row in found] == [len(head) + sum(map(len, stream[:k])) for k in (0, 2, 4, 6)]
        accounts_hold(lake, [part], 8)


def test_a_mapping_names_what_follows_it_only_and_no_other_record_makes_a_row_suspect(tmp_path):
    rows = [{**row, "instrument_id": 99, "ts_recv": START + k, "ts_event": START + k, "publisher_id": 1} for k, row in enumerate(rows_of("mbp-1", 4))]
    old, new = (naive_dbn.other(22, 44, 99, START, b"\0" * 73 + name) for name in (b"OLD", b"NEW"))
    first, second, third, last = (naive.record("mbp-1", row) for row in rows)
    stream = [old, first, naive_dbn.other(23, 20), second, new, third, last]
    for batch_rows in (1, 2, 100):
        lake = tmp_path / f"{batch_rows}"
        data = naive_dbn.header(3, [], schema="mbp-1") + b"".join(stream)
        parts = decode_published(source_of(written(tmp_path, data)), lake, batch_rows=batch_rows)
        assert {part.partition.symbol: lake_rows(lake, part) for part in parts} == {
            name: [{**row, "symbol": name} for row in of] for name, of in (("NEW", rows[2:]), ("OLD", rows[:2]))
        }
        assert [read_facts(lake / part.path)["suspect_rows"] for part in parts] == [[], []]


def test_a_small_price_beside_large_ones_does_not_make_integer_prices_decimal(tmp_path):
    rows = [{**row, "bid_px_00": 500_000, "ask_px_00": 1_170_000_000} for row in rows_of("mbp-1", 3)]  # a spread's touch may be that wide
    path = written(tmp_path, naive.csv_text(rows, "mbp-1", pretty=False).encode(), "F.mbp-1.csv")
    found = [row for part in decode_published(source_of(path), tmp_path / "lake") for row in lake_rows(tmp_path / "lake", part)]
    assert [(row["bid_px_00"], row["ask_px_00"]) for row in found] == [(500_000, 1_170_000_000)] * 3


@pytest.mark.parametrize("symbol", ["", None])
def test_a_bad_parquet_row_without_a_symbol_may_be_of_any(tmp_path, symbol):
    rows = [{**row, "instrument_id": 7, "publisher_id": 1, "symbol": "ES"} for row in rows_of("mbp-1", 3)]
    table = pq.read_table(io.BytesIO(parquet_bytes(rows, "mbp-1", pretty=False)))
    for name, column in (("bid_sz_00", pa.array([5, None, 5])), ("symbol", pa.array(["ES", symbol, "ES"]))):
        table = table.set_column(table.schema.get_field_index(name), name, column)
    path = tmp_path / "f.parquet"
    pq.write_table(table, path)
    parts = decode_published(source_of(path), tmp_path / "lake")
    assert {part.partition.symbol for part in parts} == {"ES"}
    assert [row["symbol"] for row in quarantine_of(tmp_path / "lake")] == [""]
    assert {tuple(read_facts(tmp_path / "lake" / part.path)["suspect_rows"]) for part in parts} <= {(0,), (1,)}


@given(st.lists(st.sampled_from(["row", "system", "mapping"]), max_size=30), st.integers(1, 8), st.sampled_from(SCHEMAS))
@settings(max_examples=EXAMPLES // 4, deadline=None)
def test_records_are_followed_as_the_twin_follows_them(tmp_path_factory, kinds, batch_rows, schema):
    folder, rows = tmp_path_factory.mktemp("dbn"), iter(rows_of(schema, 30))
    others = {"system": naive_dbn.other(23, 21), "mapping": naive_dbn.other(22, 20)}
    body = b"".join(naive.record(schema, next(rows)) if kind == "row" else others[kind] for kind in kinds)
    parts = decode_published(source_of(written(folder, naive_dbn.header(3, MAPPINGS, schema=schema) + body)), folder, batch_rows=batch_rows)
    read = naive.read_records(body, schema)
    expected = naive.by_partition([{**row, "symbol": SYMBOLS[row["instrument_id"]]} for _, _, row in read if row is not None])
    assert {key(part.partition): lake_rows(folder, part) for part in parts} == expected
    assert [row["raw"] for row in quarantine_of(folder)] == [raw for _, raw, row in read if row is None]


@pytest.mark.parametrize(("name", "cut"), [("dbn", 1), ("dbn-zst", 30), ("csv-zst", 30), ("csv-gz", 30)])
def test_a_source_that_breaks_off_leaves_nothing(tmp_path, name, cut):
    data = form(name, rows_of("mbp-10", 1000), "mbp-10")  # several blocks of compressed data
    source = source_of(written(tmp_path, data[:-cut]))
    with pytest.raises(CorruptSource) as fault:
        decode_published(source, tmp_path / "lake", batch_rows=10)
    assert fault.value.offset
    assert files_under(tmp_path / "lake") == {}


def test_an_impossible_record_length_is_found_after_what_stands_before_it(tmp_path):
    rows = rows_of("mbp-1", 5)
    data = dbn_bytes(rows, "mbp-1")
    broken = data[:-80] + b"\x03" + data[-79:]
    with pytest.raises(CorruptSource, match="length 12, which no record") as fault:
        decode_published(source_of(written(tmp_path, broken)), tmp_path / "lake", batch_rows=2)
    assert fault.value.offset == len(data) - 80


def test_a_file_joined_to_another_is_told_as_such(tmp_path):
    data = dbn_bytes(rows_of("mbp-1", 5), "mbp-1")
    with pytest.raises(CorruptSource, match="another DBN file begins there: it looks like several files joined together") as fault:
        decode_published(source_of(written(tmp_path, data + data)), tmp_path / "lake", batch_rows=2)
    assert fault.value.offset == len(data)


def test_a_source_that_changed_is_not_published(tmp_path):
    path = written(tmp_path, form("csv", rows_of("mbp-1", 20), "mbp-1"))
    source = source_of(path)
    path.write_bytes(form("csv", rows_of("mbp-1", 30), "mbp-1"))
    with pytest.raises(SourceChanged):
        decode_published(source, tmp_path / "lake")
    assert files_under(tmp_path / "lake") == {}


def test_what_is_done_is_found_done_and_what_is_missing_is_made_again(tmp_path):
    path, lake = written(tmp_path, form("csv", rows_of("mbp-1", 50), "mbp-1") + b"nonsense\n"), tmp_path / "lake"
    source = source_of(path)
    parts = decode_published(source, lake)
    before = files_under(lake)
    assert len(parts) == 8
    assert len(before) == 9
    data = path.read_bytes()
    path.unlink()
    assert decode_published(source, lake) == parts  # without the file
    written(tmp_path, data)
    source = source_of(path)
    for name in before:
        (lake / name).unlink()
        assert decode_published(source, lake) == parts
        assert files_under(lake) == before


def test_a_file_that_cannot_be_named_takes_the_others_with_it(tmp_path):
    source, lake = source_of(written(tmp_path, form("csv", rows_of("mbp-1", 50), "mbp-1"))), tmp_path / "lake"
    parts = decode_published(source, tmp_path / "other")
    (lake / parts[-1].path).mkdir(parents=True)  # a folder stands where the last file should
    with pytest.raises(Exception, match="Cannot write"):
        decode_published(source, lake)
    assert files_under(lake) == {}


def test_files_of_other_kinds_are_not_taken_for_published_books(tmp_path):
    orders = "ts_recv,ts_event,publisher_id,instrument_id,action,side,price,size,order_id,flags,sequence\n1,1,1,1,A,B,5.5,1,1,128,1\n"
    own = "ts_event,ts_recv,as_of,publisher_id,instrument_id,symbol,sequence,status," + ",".join(naive.level_names(1)) + "\n"
    others = {"orders.csv": orders, "own.csv": own, "text": "nothing of the kind", "empty": "", "blank": "\n\n", "zip": "PK\x03\x04"}
    for name, text in others.items():
        assert identify_published(written(tmp_path, text, name)) is None, name
    pq.write_table(pa.table({"ts_event": [1], "price": [2]}), tmp_path / "f.parquet")
    assert identify_published(tmp_path / "f.parquet") is None
    assert identify_published(written(tmp_path, naive_dbn.header(3) + naive_dbn.mbo(), "m.dbn")) is None


@pytest.mark.real_data
def test_real_files_of_other_schemas_are_not_taken_for_published_books(real_data):
    for name in ("arl_20250717_morning.mbo.csv", "esh4-glbx-mdp3-20231224.mbo.dbn.zst", "dbn_versions/test_data.trades.v3.dbn.zst"):
        assert identify_published(real_data(f"databento/{name}")) is None


def test_a_header_that_is_damaged_or_of_another_version_is_told(tmp_path):
    data = dbn_bytes(rows_of("mbp-1", 1), "mbp-1")
    with pytest.raises(CorruptSource, match="ends inside the DBN header"):
        identify_published(written(tmp_path, data[:100]))
    with pytest.raises(UnknownFormat, match="version 9"):
        identify_published(written(tmp_path, data[:3] + b"\x09" + data[4:]))


def test_tbbo_and_mbp_1_have_the_same_columns_and_are_told_apart_by_all_rows(tmp_path):
    trades, mixed = rows_of("tbbo", 20), rows_of("tbbo", 20)
    mixed[-1] = {**mixed[-1], "action": "C"}
    for name, rows, schema in (("a.csv", trades, "tbbo"), ("b.csv", mixed, "mbp-1"), ("c.mbp-1.csv", trades, "mbp-1")):
        path, lake = written(tmp_path, naive.csv_text(rows, "tbbo"), name), tmp_path / f"lake-{name}"
        parts = decode_published(source_of(path), lake)
        for part in parts:
            facts = read_facts(lake / part.path)
            assert (facts["schema"], facts["before"]) == (schema, schema == "tbbo"), name
    assert identify_published(tmp_path / "b.csv") == Published("published-csv", "tbbo", 1, True, settled=False)


def test_the_interval_of_a_bbo_comes_from_rtype_or_the_name(tmp_path):
    text = naive.csv_text(rows_of("bbo-1m", 3), "bbo-1m")
    assert identify_published(written(tmp_path, text, "x.csv")).schema == "bbo-1m"
    lines = [line.split(",") for line in text.splitlines()]
    bare = "\n".join(",".join([*line[:2], *line[3:]]) for line in lines)
    assert identify_published(written(tmp_path, bare, "x.bbo-1s.csv")).schema == "bbo-1s"
    with pytest.raises(SchemaMismatch, match="no known interval"):
        identify_published(written(tmp_path, bare, "y.csv"))
    with pytest.raises(SchemaMismatch, match="no known interval"):
        identify_published(written(tmp_path, text.replace(",196,", ",193,"), "x.bbo-1s.csv"))


def test_missing_columns_are_named(tmp_path):
    text = naive.csv_text(rows_of("mbp-10", 1), "mbp-10")
    for name in ("sequence", "ts_recv", "ask_ct_05"):
        with pytest.raises(SchemaMismatch, match=f"lacks column {name}"):
            identify_published(written(tmp_path, text.replace(name, "other", 1)))
    with pytest.raises(SchemaMismatch, match="more than once in the header: flags"):
        decode_published(source_of(written(tmp_path, text.replace("side", "flags", 1))), tmp_path / "lake")
    table = pq.read_table(io.BytesIO(parquet_bytes(rows_of("mbp-1", 1), "mbp-1", True)))
    at = table.schema.get_field_index("bid_px_00")
    pq.write_table(table.set_column(at, "bid_px_00", table["bid_px_00"].cast(pa.float32())), tmp_path / "f.parquet")
    with pytest.raises(SchemaMismatch, match="bid_px_00 is float"):
        decode_published(source_of(tmp_path / "f.parquet"), tmp_path / "lake")


def test_a_source_is_described_as_the_orders_beside_it_are(tmp_path):
    text = naive.csv_text([{**row, "publisher_id": 2} for row in rows_of("mbp-1", 3)], "mbp-1")
    lines = [line.rpartition(",")[0] for line in text.splitlines()]  # without the symbol
    path = written(tmp_path, "\n".join(lines), "ARL.2024.mbp-1.csv")
    orders = "ts_recv,ts_event,publisher_id,instrument_id,action,side,price,size,order_id,flags,sequence\n1,1,2,1,A,B,5.5,1,1,128,1\n"
    for options in ({}, {"symbol": "XYZ"}, {"dataset": "MINE"}):
        source = source_of(path, **options)
        (mbo,) = scan([written(tmp_path, orders, "ARL.2024.mbo.csv")], **options).files
        assert (source.dataset, source.symbols) == (mbo.dataset, mbo.symbols)
        assert source.fingerprint == f"xxh3:{xxhash.xxh3_128_hexdigest(path.read_bytes())}"
        assert (source.path, source.size, source.rows) == (str(path), path.stat().st_size, -1)
        parts = decode_published(source, tmp_path / "lake")
        assert {part.partition.symbol for part in parts} == set(mbo.symbols)
    parquet = written(tmp_path, parquet_bytes(rows_of("mbp-1", 3), "mbp-1", True), "p.parquet")
    assert source_of(parquet).rows == 3
    dbn = source_of(written(tmp_path, dbn_bytes(rows_of("mbp-1", 3), "mbp-1"), "d.dbn"))
    assert (dbn.dataset, dbn.rows, dbn.symbols, dbn.dates) == ("GLBX.MDP3", 3, ("ESZ4", "NQZ4"), ("2024-01-01", "2024-01-02"))


def test_rows_without_a_symbol_have_the_name_of_the_file_or_of_the_instrument(tmp_path):
    rows = [{**row, "symbol": ""} for row in rows_of("mbp-1", 30)]
    found = {}
    for name in ("csv", "parquet"):
        path = written(tmp_path, form(name, rows, "mbp-1"), f"FEED.{name}")
        found[name] = {part.partition.symbol for part in decode_published(source_of(path), tmp_path / name)}
    assert found == {"csv": {"FEED"}, "parquet": {"7", "8"}}


# The naive certificate.


def arl_states(events: dict[str, np.ndarray]) -> list[certificate.State]:
    book, states = NaiveBook(), []
    for k in range(len(events["price"])):
        book.apply({name: values[k] for name, values in events.items()})
        if book.event_end:
            levels = {side: book.levels(side, 10) for side in "BA"}
            states.append((int(events["ts_recv"][k]), int(events["sequence"][k]), levels))
    return states


@pytest.mark.real_data
def test_the_naive_certificate_of_a_real_day_matches_and_finds_one_changed_level(real_data, tmp_path):
    (mbo,) = scan([real_data("databento/arl_20250717_morning.mbo.csv")]).files
    (batch,) = open_reader(mbo).batches(65_536)
    states = arl_states(batch.columns)
    (part,) = decode_published(source_of(real_data("databento/arl_20250717_morning.mbp-10.csv")), tmp_path)
    rows = lake_rows(tmp_path, part)
    pairs, wrong = certificate.compare(states, rows, "mbp-10", 10)
    assert len(states) - 20 < len(pairs) < len(states)
    assert wrong == []
    s, r = pairs[700]
    rows[r] = {**rows[r], "ask_sz_01": rows[r]["ask_sz_01"] + 1}
    _, wrong = certificate.compare(states, rows, "mbp-10", 10)
    assert [(d.state, d.side, d.level) for d in wrong] == [(state, "A", 1) for state, row in pairs if row == r]
    assert s in [d.state for d in wrong]
    # The same states sampled each minute, as a vendor samples them.
    sampled, touch = [], None
    grid = 60 * SECOND
    for time, sequence, levels in [*states, (states[-1][0] + grid, 0, states[-1][2])]:
        while sampled and touch is not None and sampled[-1]["ts_recv"] + grid < time:
            sampled.append(bbo_row(sampled[-1]["ts_recv"] + grid, touch[0], touch[1]))
        if not sampled:
            sampled.append(bbo_row(-(-time // grid) * grid - grid, 0, {"B": [], "A": []}))
        touch = sequence, levels
    pairs, wrong = certificate.compare(states, sampled, "bbo-1m", 1)
    assert len(pairs) == len(sampled) - 1 > 300
    assert wrong == []


def bbo_row(time: int, sequence: int, levels: dict[str, list[tuple[int, int, int]]]) -> dict[str, Any]:
    row: dict[str, Any] = {"ts_recv": time, "sequence": sequence}
    for side, name in (("B", "bid"), ("A", "ask")):
        row |= dict(zip((f"{name}_px_00", f"{name}_sz_00", f"{name}_ct_00"), (levels[side] or [certificate.EMPTY])[0], strict=True))
    return row


def touch(bid: int) -> dict[str, list[tuple[int, int, int]]]:
    return {"B": [(bid, 1, 1)], "A": []}


def test_each_schema_is_compared_by_its_own_rule():
    states = [(10, 1, touch(1)), (20, 4, touch(2)), (30, 6, touch(3))]
    by_row = [bbo_row(0, 0, touch(9)), bbo_row(0, 1, touch(1)), bbo_row(0, 3, touch(8)), bbo_row(0, 4, touch(2)), bbo_row(0, 7, touch(7))]
    # Mid-event rows (3) are superseded; an end without a row of its own (6) is still what the last row says, which here is wrong.
    assert certificate.compare(states, by_row, "mbp-1", 1) == (
        [(0, 1), (1, 3), (2, 3)], [certificate.Difference(2, 3, "B", 0, (2, 1, 1), (3, 1, 1))],
    )  # fmt: skip
    by_time = [bbo_row(9, 0, touch(9)), bbo_row(10, 0, touch(1)), bbo_row(29, 0, touch(2)), bbo_row(30, 0, touch(2))]
    assert certificate.compare(states, by_time, "bbo-1s", 1) == (
        [(0, 1), (1, 2), (2, 3)], [certificate.Difference(2, 3, "B", 0, (2, 1, 1), (3, 1, 1))],
    )  # fmt: skip
    # Trades 5 and 6 belong to the event that ends with 6: only the first saw a complete state.
    before = [bbo_row(0, 1, touch(9)), bbo_row(0, 4, touch(1)), bbo_row(0, 5, touch(2)), bbo_row(0, 6, touch(9)), bbo_row(0, 9, touch(3))]
    assert certificate.compare(states, before, "tbbo", 1) == ([(0, 1), (1, 2), (2, 4)], [])


def test_a_feed_that_counts_again_and_a_late_event_do_not_confuse_the_pairs():
    states = [(10, 100, touch(1)), (20, 200, touch(2)), (30, 5, touch(3)), (25, 6, touch(4))]
    rows = [bbo_row(0, 100, touch(1)), bbo_row(0, 200, touch(2)), bbo_row(0, 5, touch(3)), bbo_row(0, 6, touch(4))]
    assert certificate.pairs_by_row(states, rows) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert certificate.pairs_by_interval(states, [bbo_row(26, 0, touch(2)), bbo_row(40, 0, touch(4))]) == [(1, 0), (3, 1)]
