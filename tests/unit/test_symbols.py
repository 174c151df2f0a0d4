"""Which symbol an id means on which day: from the header, from mapping records in the stream, and for whole columns of ids."""

from __future__ import annotations

from datetime import date

import databento_dbn
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.scanning.dbn import header_of
from tasks.scanning.dbn_kernels import DAY_NS
from tasks.scanning.symbols import DatedSymbols, SymbolCodes, metadata_intervals
from tests.oracles import naive_dbn as naive
from tests.unit.test_dbn import read

DAY = naive.START // DAY_NS


def test_an_id_means_what_it_means_on_its_day(tmp_path):
    head = naive.header(3, [naive.mapping("ESH4", (1, 2, "7"), (2, 3, "8")), naive.mapping("NQH4", (2, 3, "7")), naive.mapping("GONE", (1, 3, ""))])
    times = [(7, naive.START), (8, naive.START), (7, naive.START + DAY_NS - 1), (7, naive.START + DAY_NS), (8, naive.START + DAY_NS), (7, naive.END)]
    path = tmp_path / "a.dbn"
    path.write_bytes(head + b"".join(naive.mbo(instrument_id=number, ts_event=1, ts_recv=ts) for number, ts in times))
    assert [symbol for _, symbol, _, _ in read(path, 4)[0]] == ["ESH4", "8", "ESH4", "NQH4", "ESH4", "7"]
    assert header_of(path).promise() == (("2024-01-01", "2024-01-02"), ("ESH4", "NQH4"))


def test_mappings_from_ids_to_symbols_are_read_too(tmp_path):
    stypes = {"stype_in": databento_dbn.SType.INSTRUMENT_ID, "stype_out": databento_dbn.SType.RAW_SYMBOL}
    path = tmp_path / "a.dbn"
    path.write_bytes(naive.header(3, [naive.mapping("42", (1, 3, "AAPL"))], **stypes) + naive.mbo(instrument_id=42, ts_recv=naive.START))
    assert [symbol for _, symbol, _, _ in read(path)[0]] == ["AAPL"]


@pytest.mark.parametrize(("words", "body"), [(20, bytes(22) + b"ESH4".ljust(22, b"\0")), (44, b"\1" + bytes(71) + b"\0" + b"ESH4".ljust(71, b"\0"))])
def test_a_live_capture_takes_its_symbols_from_the_mapping_records(tmp_path, words, body):
    mapping = naive.other(22, words, 7, naive.START, body)
    before, after = (naive.mbo(instrument_id=7, ts_recv=naive.START) for _ in range(2))
    path = tmp_path / "a.dbn"
    path.write_bytes(naive.header(schema=None, end=None) + before + mapping + after)
    rows, bad, _, _ = read(path, 1)
    assert [symbol for _, symbol, _, _ in rows] == ["7", "ESH4"]
    assert [(place, entry.reason, entry.detail) for place, entry in bad] == [(1, "not_mbo", f"record type 22, {4 * words} bytes")]
    assert header_of(path).promise() == ((), ())


def mapped(name_in: str, name_out: str, start: int = 0, end: int = 0, ts_event: int = naive.START, ts_out: bool = False, version: int = 3) -> bytes:
    """A symbol mapping record of instrument 7, of `version`; of a live gateway that sends times with the time behind it."""
    if version == 1:
        words, body = 20, name_in.encode().ljust(22, b"\0") + name_out.encode().ljust(22, b"\0") + bytes(4)
    else:
        words, body = 44, b"\1" + name_in.encode().ljust(71, b"\0") + b"\0" + name_out.encode().ljust(71, b"\0")
    record = naive.other(22, words, 7, ts_event, body + start.to_bytes(8, "little") + end.to_bytes(8, "little"))
    return bytes([words + 2]) + record[1:] + b"\1" * 8 if ts_out else record


@pytest.mark.parametrize("batch_rows", [1, 2, 3, 100])
def test_a_mapping_record_names_what_follows_it_and_nothing_before_it(tmp_path, batch_rows):
    orders = [naive.mbo(instrument_id=7, ts_recv=naive.START + k) for k in range(5)]
    es, nq, ym = (mapped("", name) for name in ("ESH4", "NQH4", "YMH4"))
    stream = [es, orders[0], naive.other(23, 20), orders[1], nq, ym, orders[2], orders[3], es, orders[4]]
    path = tmp_path / "a.dbn"
    path.write_bytes(naive.header(schema=None, end=None) + b"".join(stream))
    rows, bad, _, _ = read(path, batch_rows)
    assert [(symbol, number) for _, symbol, number, _ in rows] == [("ESH4", 1), ("ESH4", 3), ("YMH4", 6), ("YMH4", 7), ("ESH4", 9)]
    assert [(before, entry.source_row) for before, entry in bad] == [(0, 0), (1, 2), (2, 4), (2, 5), (4, 8)]


@pytest.mark.parametrize("version", [1, 3])
@pytest.mark.parametrize("ts_out", [False, True])
def test_mapping_records_with_the_time_of_sending_are_read_too(tmp_path, version, ts_out):
    path = tmp_path / "a.dbn"
    order = naive.mbo(ts_out, instrument_id=7, ts_recv=naive.START)
    path.write_bytes(naive.header(schema=None, end=None, ts_out=ts_out) + mapped("ES.c.0", "ESH4", ts_out=ts_out, version=version) + order)
    assert [symbol for _, symbol, _, _ in read(path)[0]] == ["ESH4"]


UNSET = 2**64 - 1


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (UNSET, UNSET, ["ESH4"] * 4),  # a session that replays the days before: the record is sent on the third
        (naive.START + DAY_NS, UNSET, ["7", "ESH4", "ESH4", "ESH4"]),
        (UNSET, naive.START + 2 * DAY_NS, ["ESH4", "ESH4", "7", "7"]),
        (naive.START + DAY_NS, naive.START + 2 * DAY_NS + 1, ["7", "ESH4", "ESH4", "7"]),
    ],
)
@pytest.mark.parametrize(("name_in", "name_out"), [("ES.c.0", "ESH4"), ("ESH4", "7")])
def test_a_mapping_record_holds_from_its_start_to_its_end(tmp_path, start, end, expected, name_in, name_out):
    path = tmp_path / "a.dbn"
    orders = b"".join(naive.mbo(instrument_id=7, ts_recv=naive.START + day * DAY_NS + 5) for day in range(4))
    path.write_bytes(naive.header(schema=None, end=None) + mapped(name_in, name_out, start, end, naive.START + 2 * DAY_NS) + orders)
    assert [symbol for _, symbol, _, _ in read(path)[0]] == expected


def test_the_promised_days_are_clipped_to_the_span_of_the_file(tmp_path):
    path = tmp_path / "a.dbn"
    path.write_bytes(
        naive.header(3, [naive.mapping("OLD", (1, 2, "1")), naive.mapping("NEW", (1, 30, "2"))], start=naive.START + DAY_NS, end=naive.END + 1)
    )
    assert header_of(path).promise() == (("2024-01-02", "2024-01-03"), ("NEW",))
    path.write_bytes(naive.header(3))
    assert header_of(path).promise() == (("2024-01-01", "2024-01-02"), ())


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(DAY, DAY + 6), st.integers(1, 4), st.sampled_from("ABC")), max_size=12),
    st.lists(st.tuples(st.integers(0, 5), st.integers(DAY * DAY_NS, (DAY + 8) * DAY_NS)), max_size=60),
)
def test_codes_are_what_asking_for_each_row_gives(intervals, rows):
    dated = DatedSymbols((number, first, first + days, symbol) for number, first, days, symbol in intervals)
    codes = SymbolCodes(dated)
    found = codes.codes(np.array([number for number, _ in rows], np.uint32), np.array([ts for _, ts in rows], np.int64))

    def naive_symbol(number, ts):
        hits = [symbol for n, first, days, symbol in intervals if n == number and first <= ts // DAY_NS < first + days]
        return hits[0] if hits else str(number)

    assert [codes.symbols[code] for code in found] == [naive_symbol(*row) for row in rows]


def test_the_table_of_ids_grows_without_losing_any():
    rng = np.random.default_rng(5)
    ids, ts = rng.integers(0, 2**32, 5_000, dtype=np.uint32), rng.integers(0, 2**62, 5_000)
    codes = SymbolCodes(DatedSymbols())
    for _ in range(2):
        assert [codes.symbols[code] for code in codes.codes(ids, ts)] == [str(number) for number in ids]
    assert len(codes.symbols) == len(set(ids.tolist()))


def test_real_metadata_gives_dated_intervals(real_data):
    header = header_of(real_data("databento/esh4-glbx-mdp3-20231225.mbo.dbn.zst"))
    first = date(2023, 12, 25).toordinal() - date(1970, 1, 1).toordinal()
    assert list(metadata_intervals(header.metadata)) == [(17077, first, first + 1, "ESH4")]
    assert (header.version, header.dataset, header.schema, header.record_bytes) == (1, "GLBX.MDP3", "mbo", 56)
