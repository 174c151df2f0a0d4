"""The compiled pass over events. `proven` and SQL share the work; a row that neither of them sees is what these tests look for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.schemas import EVENTS, F_BAD_TS_RECV, F_LAST, F_SNAPSHOT, F_TOB, UNDEF_PRICE
from tests.unit.test_suites import T0, N, Rows, good_events, table_of, write
from validation import event_rows, profile
from validation.gate import run_gate
from validation.rules import Context
from validation.suites import suite_of
from validation.suites.events import CLOCK_TOLERANCE_NS, EARLIEST_NS, LATEST_NS, UNDEF_SIZE

EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "150"))
SUITE = suite_of("events", Context())
RULES = {rule.check: rule.name for rule in SUITE.rules if rule.check}
CHECKED = ("ts_event", "ts_recv", "sequence", "order_id", "action", "side", "price", "size", "flags")


def plain_faults(rows: Rows) -> dict[str, int]:
    """check -> rows that break it, from the words of the rules."""
    counts = dict.fromkeys(event_rows.CHECKS, 0)
    records = [dict(zip(CHECKED, values, strict=True)) for values in zip(*(rows[name] for name in CHECKED), strict=True)]
    for k, row in enumerate(records):
        action, size, top = row["action"], row["size"], bool(row["flags"] & F_TOB)
        silent = bool(row["flags"] & (F_SNAPSHOT | F_BAD_TS_RECV))
        counts["action"] += action not in tuple("ACMFTNR")
        counts["side"] += row["side"] not in tuple("ABN")
        counts["price"] += row["price"] == UNDEF_PRICE and not top and action not in tuple("CNR")
        counts["size"] += (size == UNDEF_SIZE or (size == 0 and action == "A")) and not top and action not in tuple("NR")
        counts["times"] += not all(EARLIEST_NS <= row[name] <= LATEST_NS for name in ("ts_event", "ts_recv"))
        counts["size_not_zero"] += size == 0 and action not in tuple("NRA") and not top
        counts["received_after"] += row["ts_event"] - row["ts_recv"] > CLOCK_TOLERANCE_NS and not silent
        counts["flags"] += row["flags"] & 1
        counts["in_order"] += k > 0 and row["ts_recv"] < records[k - 1]["ts_recv"]
        counts["not_repeated"] += k > 0 and row == records[k - 1]
    return counts


@st.composite
def odd_events(draw: Any, letters: str = "") -> Rows:
    """Up to N events: good ones, of which some are repeated and some cells are anything; `letters`: what actions and sides may be besides."""
    n = draw(st.integers(1, N))
    rows = {name: list(values[:n]) for name, values in good_events().items()}
    times = st.sampled_from(
        [T0, T0 + 1, T0 - CLOCK_TOLERANCE_NS, EARLIEST_NS, EARLIEST_NS - 1, LATEST_NS, LATEST_NS + 1, 0, -1, -(2**63) + 2, 2**63 - 2]
    )
    near = st.sampled_from([0, 500, CLOCK_TOLERANCE_NS, CLOCK_TOLERANCE_NS + 1])
    odd = {
        "ts_event": times, "ts_recv": times, "price": st.sampled_from([UNDEF_PRICE, UNDEF_PRICE - 1, 0, -(2**63)]),
        "size": st.sampled_from([0, 1, UNDEF_SIZE - 1, UNDEF_SIZE]), "order_id": st.sampled_from([0, 2**63, 2**64 - 1]),
        "action": st.sampled_from("ACMFTNR" + letters), "side": st.sampled_from("ABN" + letters), "sequence": st.sampled_from([0, 2**32 - 1]),
        "flags": st.sampled_from([0, 1, F_LAST, F_TOB, F_SNAPSHOT, F_BAD_TS_RECV, 255]),
    }  # fmt: skip
    row = st.integers(0, n - 1)
    for name in draw(st.lists(st.sampled_from(list(odd)), max_size=4)):
        rows[name][draw(row)] = draw(odd[name])
    for at in draw(st.sets(row, max_size=2)):  # received so much before it happened
        rows["ts_event"][at] = min(rows["ts_recv"][at] + draw(near), 2**63 - 2)
    for at in draw(st.sets(row, max_size=2)):
        if at:
            for name in draw(st.sampled_from([CHECKED, CHECKED[1:], CHECKED[:-1], ("ts_recv", "order_id", "sequence", "size")])):
                rows[name][at] = rows[name][at - 1]
    return rows


@pytest.fixture(scope="module")
def connection():
    with profile.scanner(1, 1 << 28) as connection:
        yield connection


mild = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


@mild
@given(rows=odd_events(), group=st.integers(1, N), threads=st.integers(1, 4))
def test_what_is_proven_of_events_is_what_no_row_breaks(tmp_path, rows, group, threads):
    """Never more, or a broken row would pass; and no less, or it would be read once more for nothing. Rows stand in row groups of any size."""
    path = write(tmp_path / "rows.parquet", rows, EVENTS, group)
    faults = {check for check, count in plain_faults(rows).items() if count}
    # The difference to a time before 1970 may not fit an integer: those rows are left to SQL, and are out of range in any case.
    silent = F_SNAPSHOT | F_BAD_TS_RECV
    early = zip(rows["ts_event"], rows["ts_recv"], rows["flags"], strict=True)
    faults |= {"received_after" for event, received, flags in early if received < event < 0 and not flags & silent}
    assert event_rows.proven(path, threads) == set(event_rows.CHECKS) - faults


@mild
@given(rows=odd_events(letters="XQ"), threads=st.integers(1, 3))
def test_rules_on_events_count_the_rows_that_break_them_with_the_pass_and_without(tmp_path, connection, rows, threads):
    path = write(tmp_path / "rows.parquet", rows, EVENTS)
    expected = {RULES[check]: count for check, count in plain_faults(rows).items()}
    found = []
    for least in (1, 50_000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(profile, "SMALL_ROWS", least)
            (counted,) = profile.profile_files(connection, SUITE, [path], threads)
        found.append({name: counted.counts[name] for name in expected})
    assert found == [expected, expected]


@pytest.mark.parametrize("name", ["ts_event", "ts_recv"])
@pytest.mark.parametrize("value", [2**63 - 1, -(2**63) + 1])
@pytest.mark.parametrize("row", [0, 5, N - 1])
def test_times_that_are_infinity_to_sql_are_counted_alike_in_files_of_any_size(tmp_path, connection, monkeypatch, name, value, row):
    rows = good_events()
    rows[name][row] = value
    path = write(tmp_path / "rows.parquet", rows, EVENTS)
    found = []
    for least in (50_000, 1):
        monkeypatch.setattr(profile, "SMALL_ROWS", least)
        found.append(profile.profile_files(connection, SUITE, [path], 2)[0].counts)
    assert found[0] == found[1]
    assert found[0]["times_in_range"] == 1


@pytest.mark.parametrize("group", [9_999, 65_536, 70_000])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_broken_row_is_seen_wherever_batches_row_groups_and_runs_end(tmp_path, group, threads):
    n = 200_000
    fine = {name: np.resize(np.array(values[3:4] * 2), n) for name, values in good_events().items() if name not in ("ts_event", "ts_recv")}
    fine |= {
        "ts_event": T0 + np.arange(n),
        "ts_recv": T0 + 500 + np.arange(n),
        "sequence": np.arange(n),
        "order_id": np.arange(n, dtype=np.uint64) + np.uint64(2**63),
    }
    path = tmp_path / "rows.parquet"
    runs = -(-n // group)
    ends = {group * (runs * k // threads) for k in range(1, threads)} if threads > 1 else set()
    for row in sorted({0, 1, group, 65_536, 131_072, n - 1, *ends} - {n}):
        for check in ("in_order", "not_repeated", "flags"):
            rows = {name: values.copy() for name, values in fine.items()}
            if check == "flags":
                rows["flags"][row] = 1
            elif row:
                for name in CHECKED if check == "not_repeated" else ("ts_recv",):
                    rows[name][row] = rows[name][row - 1]
                rows["ts_recv"][row] -= check == "in_order"
            table = pa.table({field.name: pa.array(rows[field.name]).cast(field.type) for field in EVENTS if field.name in CHECKED})
            pq.write_table(table, path, row_group_size=group)
            broken = {check} if row or check == "flags" else set()
            assert set(event_rows.CHECKS) - event_rows.proven(path, threads) == broken, (row, check)


@pytest.mark.parametrize("name", CHECKED)
def test_a_null_is_left_to_sql_and_blocks(tmp_path, monkeypatch, name):
    monkeypatch.setattr(profile, "SMALL_ROWS", 1)
    rows = good_events()
    table = table_of({**rows, name: [None if k == 7 else value for k, value in enumerate(rows[name])]}, EVENTS)
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=5)
    assert event_rows.proven(tmp_path / "rows.parquet", 2) is None
    report = run_gate("events", [tmp_path / "rows.parquet"])
    assert report.status == "blocked"
    assert "no_nulls" in {outcome.name for outcome in report.failed}


@pytest.mark.parametrize("place", ["action", "price"])
def test_damage_that_only_the_pages_show_is_a_file_that_cannot_be_read(tmp_path, monkeypatch, place):
    """The footer is whole: what is found out is found out by the pass, or by SQL after it."""
    monkeypatch.setattr(profile, "SMALL_ROWS", 1)
    good, bad = tmp_path / "good.parquet", tmp_path / "bad.parquet"
    pq.write_table(table_of(good_events(), EVENTS), good, compression="zstd")
    metadata = pq.read_metadata(good)
    column = metadata.row_group(0).column(metadata.schema.names.index(place))
    raw = bytearray(good.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    raw[start : start + column.total_compressed_size] = bytes([255]) * column.total_compressed_size
    bad.write_bytes(raw)
    report = run_gate("events", [bad, good])
    assert {outcome.name: outcome.by_file for outcome in report.failed} == {"readable": {str(bad): 1}}


def test_text_that_is_no_dictionary_is_looked_at_too(tmp_path):
    rows = good_events()
    plain = pa.schema([pa.field(f.name, pa.string() if pa.types.is_dictionary(f.type) else f.type) for f in EVENTS])
    path = write(Path(tmp_path / "rows.parquet"), rows, plain)
    assert event_rows.proven(path, 2) == set(event_rows.CHECKS)
    rows["action"][4] = "a"
    assert "action" not in event_rows.proven(write(path, rows, plain), 2)


@pytest.mark.parametrize("small_rows", [1, 50_000], ids=["with the pass", "in SQL"])
def test_a_file_of_one_row_and_one_whose_prices_are_all_null_get_a_verdict(tmp_path, monkeypatch, small_rows):
    """What is NULL in every row of a file is counted too: each row of it is unexpected."""
    monkeypatch.setattr(profile, "SMALL_ROWS", small_rows)
    rows = {name: values[1:2] for name, values in good_events().items()}
    report = run_gate("events", [write(tmp_path / "one.parquet", rows, EVENTS)])
    assert (report.status, report.rows) == ("ok", 1)
    table = table_of({**good_events(), "price": [None] * N}, EVENTS)
    pq.write_table(table, tmp_path / "null.parquet")
    report = run_gate("events", [tmp_path / "null.parquet"])
    assert {outcome.name: outcome.unexpected for outcome in report.failed}["no_nulls"] == N
