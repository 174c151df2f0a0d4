"""The gate as a whole: which file and row a verdict names, damaged files, threads, quarantine, and Data Docs that load nothing."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.errors import GateBlocked, UsageError
from tasks.schemas import ACTIONS, EVENTS, F_LAST, MBO_RECORD, SIDES, UNDEF_PRICE, books_schema
from tests.unit.test_suites import SECOND, T0, N, Rows, good_books, good_events, table_of, write
from validation import profile
from validation.docs import outside_references, write_data_docs
from validation.gate import GateReport, require, run_gate
from validation.rules import Context
from validation.suites import suite_of
from validation.suites.events import UNDEF_SIZE


def events(path: Path, **cells: tuple[int, object]) -> Path:
    """Good events, with `column=(row, value)` replaced."""
    rows = good_events()
    for column, (row, value) in cells.items():
        rows[column][row] = value
    return write(path, rows, EVENTS)


def failed(report: GateReport) -> dict[str, dict[str, int]]:
    """Failed expectation -> file name -> unexpected rows."""
    return {o.name: {Path(path).name: count for path, count in o.by_file.items()} for o in report.failed}


def test_a_failure_is_attributed_to_its_file_among_many(tmp_path):
    paths = [events(tmp_path / f"{k:03d}.parquet") for k in range(30)]
    events(paths[7], action=(3, "X"))
    events(paths[23], flags=(5, F_LAST | 1), side=(5, "X"))
    report = run_gate("events", paths)
    assert failed(report) == {"action_known": {"007.parquet": 1}, "side_known": {"023.parquet": 1}, "flags_known": {"023.parquet": 1}}
    assert (report.rows, report.files, report.status, report.blocked_files) == (30 * N, 30, "warn", ())


def test_more_failing_files_than_great_expectations_lists_are_all_named(tmp_path):
    """And more than are counted in one query."""
    paths = [events(tmp_path / f"{k:03d}.parquet", flags=(5, 1)) for k in range(profile.GROUP_FILES + 4)]
    (outcome,) = run_gate("events", paths).failed
    assert outcome.unexpected == len(outcome.by_file) == len(paths)


def test_quarantine_names_each_row_once_with_all_its_reasons(tmp_path):
    rows = good_events()
    rows["action"][2], rows["price"][2] = "?", UNDEF_PRICE
    rows["size"][8] = UNDEF_SIZE
    rows["ts_recv"][N - 1] = None
    path, good = write(tmp_path / "bad.parquet", rows, EVENTS), events(tmp_path / "good.parquet")
    report = run_gate("events", [good, path])
    assert list(report.quarantine) == [str(path)]
    bad = report.quarantine[str(path)]
    assert bad.rows.dtype == np.int64
    assert bad.rows.tolist() == [2, 8, N - 1]
    assert bad.reasons == ["action_known+price_defined", "size_usable", "times_in_range"]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bad=st.sets(st.integers(0, 2_999), max_size=40), group=st.sampled_from([7, 100, 2_048, 3_000]), threads=st.sampled_from([1, 4]))
def test_quarantined_rows_are_those_that_were_broken_whatever_the_row_groups_and_threads(tmp_path, bad, group, threads):
    rows: Rows = {name: (values * 250)[:3_000] for name, values in good_events().items()}
    rows["ts_recv"] = [T0 + k * SECOND for k in range(3_000)]
    rows["sequence"] = list(range(3_000))
    for k in bad:
        rows["side"][k] = "Z"
    path = write(tmp_path / "events.parquet", rows, EVENTS, row_group_size=group)
    report = run_gate("events", [path], threads=threads)
    assert set(report.quarantine[str(path)].rows.tolist() if bad else []) == bad
    assert failed(report).get("received_in_order") is None


def test_neighbours_are_compared_in_file_order_with_several_threads(tmp_path):
    """Row group borders and vectors of 2,048 rows are where an unordered scan would compare the wrong rows."""
    n, steps_back = 300_000, [1, 2_048, 4_095, 131_072, 262_144, 299_999]
    base = table_of({name: values[4:5] for name, values in good_events().items()}, EVENTS)
    times = T0 + np.arange(n) * 1_000
    times[steps_back] -= 1_001
    columns = {name: base[name].combine_chunks().take(pa.array(np.zeros(n, np.int32))) for name in EVENTS.names}
    columns["ts_recv"] = pa.array(times).cast(EVENTS.field("ts_recv").type)
    columns["ts_event"] = columns["ts_recv"]
    path = tmp_path / "events.parquet"
    pq.write_table(pa.table(columns, schema=EVENTS), path, row_group_size=131_072)
    report = run_gate("events", [path], threads=4)
    assert failed(report) == {"received_in_order": {"events.parquet": len(steps_back)}}
    assert "row 1 (" in report.failed[0].example


def test_eight_threads_at_once_get_the_verdicts_of_their_own_files(tmp_path):
    good = events(tmp_path / "good.parquet")
    bad = [events(tmp_path / f"bad{k}.parquet", flags=(k % N, 1)) for k in range(4)]
    book = write(tmp_path / "book.parquet", good_books(2, grid=False), books_schema(2))

    def ask(k: int) -> tuple[int, GateReport]:
        if k % 3 == 0:
            return k, run_gate("events", [good], threads=1)
        if k % 3 == 1:
            return k, run_gate("events", [good, bad[k % 4]], threads=1)
        return k, run_gate("books", [book], threads=1, context={"depth": 2})

    with ThreadPoolExecutor(8) as pool:
        for k, report in pool.map(ask, range(18)):
            expected = {"flags_known": {bad[k % 4].name: 1}} if k % 3 == 1 else {}
            assert {name: files for name, files in failed(report).items() if name == "flags_known"} == expected
            assert report.suite == ("books" if k % 3 == 2 else "events")


def test_require_names_expectation_count_row_and_place(tmp_path):
    rows = good_books(2, grid=False)
    rows["bid_sz_01"][8] = -3
    rows["age_ns"][9] = 5
    report = run_gate("books", [write(tmp_path / "book.parquet", rows, books_schema(2))], context={"depth": 2})
    with pytest.raises(GateBlocked) as caught:
        require(report)
    message = str(caught.value)
    assert "1 of 1 files" in message
    assert "sizes_fit_prices: 1 unexpected" in message
    assert "book.parquet row 8 (" in message
    assert "bid_sz_01=-3" in message
    assert "age_fits_as_of" in message
    assert "tasks/reconstruction" in message


def test_require_returns_a_report_that_only_warns(tmp_path):
    report = run_gate("events", [events(tmp_path / "events.parquet", flags=(5, 1))])
    assert (report.status, require(report)) == ("warn", report)


def damaged_middle(path: Path) -> None:
    """Zeroes over the data of the first row group; the footer stays whole."""
    data = bytearray(path.read_bytes())
    data[4 : len(data) // 3] = bytes(len(data) // 3 - 4)
    path.write_bytes(data)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "absent": (lambda path: path.unlink(), "readable"),
    "empty": (lambda path: path.write_bytes(b""), "readable"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-100]), "readable"),
    "not Parquet": (lambda path: path.write_text("ts_event,price\n1,2\n"), "readable"),
    "damaged middle": (damaged_middle, "readable"),
    "no rows": (lambda path: pq.write_table(EVENTS.empty_table(), path), "not_empty"),
    "column missing": (lambda path: pq.write_table(pq.read_table(path).drop_columns(["flags"]), path), "columns_as_declared"),
    "type cut": (lambda path: pq.write_table(_cut(pq.read_table(path)), path), "columns_as_declared"),
}


def _cut(table: pa.Table) -> pa.Table:
    return table.set_column(table.schema.get_field_index("order_id"), "order_id", table["order_id"].cast(pa.int8()))


@pytest.mark.parametrize("small_rows", [1, profile.SMALL_ROWS], ids=["alone", "together"])
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_blocks_itself_and_no_other(tmp_path, monkeypatch, kind, small_rows):
    monkeypatch.setattr(profile, "SMALL_ROWS", small_rows)
    paths = [events(tmp_path / f"{k}.parquet") for k in range(3)]
    damage, expectation = DAMAGE[kind]
    damage(paths[1])
    report = run_gate("events", paths)
    assert failed(report) == {expectation: {"1.parquet": 1}}
    assert report.blocked_files == (str(paths[1]),)
    assert report.unjudged_files == (() if kind == "no rows" else (str(paths[1]),))
    assert "1.parquet" in report.failed[0].example


def test_values_come_from_the_file_and_not_from_the_folders_it_stands_in(tmp_path):
    """DuckDB would read `symbol=NQH4` in the path as the column."""
    path = events(tmp_path / "dataset=X" / "date=2023-11-14" / "symbol=NQH4" / "part-1-2.parquet", symbol=(0, "ESH5"))
    report = run_gate("events", [path])
    assert failed(report) == {"one_partition": {"part-1-2.parquet": 1}}
    assert "symbol='ESH4'" in report.failed[0].example


def test_wildcards_and_quotes_in_a_name_are_no_patterns(tmp_path):
    odd = [tmp_path / name for name in ("a*.parquet", "a?.parquet", "a[b].parquet", "it's.parquet")]
    for path in odd:
        events(path)
    events(tmp_path / "ab.parquet", flags=(5, 1))
    assert run_gate("events", odd).status == "ok"
    events(odd[2], flags=(5, 1))
    assert failed(run_gate("events", odd)) == {"flags_known": {"a[b].parquet": 1}}


def test_unknown_suites_and_contexts_are_refused_with_what_is_allowed():
    with pytest.raises(UsageError, match="events, books, trades, bars, features"):
        run_gate("event", [])
    with pytest.raises(UsageError, match=r"deep.*depth"):
        run_gate("books", [], context={"deep": 3})
    with pytest.raises(UsageError, match="ts_event, ts_recv"):
        run_gate("books", [], context={"clock": "now"})


def test_importing_gates_does_not_import_great_expectations():
    code = "import sys, validation.gate, validation.docs, validation.suites; sys.exit('great_expectations' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_process_that_ran_a_gate_ends_without_a_word():
    code = "import logging; logging.basicConfig(level=logging.INFO); from validation.gate import run_gate; run_gate('events', [])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_report_survives_pickle_and_json(tmp_path):
    report = run_gate("events", [events(tmp_path / "events.parquet", action=(3, "X"))])
    again = pickle.loads(pickle.dumps(report))
    assert json.loads(json.dumps(again.to_json())) == report.to_json()
    assert report.to_json()["quarantine"] == {str(tmp_path / "events.parquet"): 1}


def test_great_expectations_is_the_judge(tmp_path):
    """The report carries its validation result, one entry an expectation, with its own success and count of failing files."""
    report = run_gate("events", [events(tmp_path / "a.parquet", flags=(5, 1)), events(tmp_path / "b.parquet")])
    judged = {item["expectation_config"]["meta"]["name"]: item for item in report.validation["results"]}
    assert list(judged) == [rule.name for rule in suite_of("events", Context()).rules]
    assert {name: item["success"] for name, item in judged.items()} == {o.name: o.success for o in report.results}
    assert judged["flags_known"]["result"]["observed_value"] == 1
    assert judged["flags_known"]["expectation_config"]["severity"] == "info"


def test_data_docs_show_every_report_and_load_nothing(tmp_path):
    hostile = events(tmp_path / 'x$y<img src="https:example.com">&.parquet', flags=(5, 1))
    book = write(tmp_path / "book.parquet", good_books(2, grid=False), books_schema(2))
    reports = [run_gate("events", [hostile, tmp_path / "absent.parquet"]), run_gate("books", [book], context={"depth": 2})]
    page = write_data_docs(reports, tmp_path / "docs").read_text()
    assert outside_references(page) == []
    assert "default-src 'none'" in page
    assert "<img" not in page
    for report in reports:
        for outcome in report.results:
            assert page.count(outcome.name) >= 2, "once in our table and once in Great Expectations' own"
    assert "Successful Expectations" in page
    assert "flags_known: 1 unexpected" not in page
    assert "1 of them could not be judged" in page


def test_the_check_of_data_docs_finds_what_the_library_itself_would_load(tmp_path):
    from great_expectations.core.expectation_validation_result import expectationSuiteValidationResultSchema
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    report = run_gate("events", [events(tmp_path / "events.parquet")])
    result = expectationSuiteValidationResultSchema.load(report.validation)
    found = outside_references(DefaultJinjaPageView().render(ValidationResultsPageRenderer().render(result)))
    assert sum("https://" in reference for reference in found) > 5
    assert any(reference == "<script>" for reference in found)
    assert outside_references("<style>@import url(//x)</style><p style='background: url(x)'>") == [
        "style sheet with an address",
        "p style=background: url(x)",
    ]


def test_real_cme_records_pass_the_events_gate(real_data, tmp_path):
    import zstandard

    paths = []
    for day in ("20231224", "20231225"):
        with open(real_data(f"databento/esh4-glbx-mdp3-{day}.mbo.dbn.zst"), "rb") as file:
            raw = zstandard.ZstdDecompressor().stream_reader(file).read()
        records = np.frombuffer(raw, MBO_RECORD, offset=8 + int.from_bytes(raw[4:8], "little"))
        columns = {name: records[name] for name in EVENTS.names if name in (MBO_RECORD.names or ())}
        columns |= {"action": records["action"].view("S1").astype("U1"), "side": records["side"].view("S1").astype("U1")}
        columns |= {"symbol": np.full(len(records), "ESH4"), "ts_event": records["ts_event"].astype("i8"), "ts_recv": records["ts_recv"].astype("i8")}
        assert set(columns["action"]) <= set(ACTIONS)
        assert set(columns["side"]) <= set(SIDES)
        paths.append(tmp_path / f"{day}.parquet")
        pq.write_table(table_of({name: values.tolist() for name, values in columns.items()}, EVENTS), paths[-1])
    report = run_gate("events", paths)
    assert (report.rows, report.status, report.failed) == (8_725 + 68_792, "ok", ())


def test_each_of_several_gates_in_one_process_tells_of_its_own_files(tmp_path):
    """Great Expectations' context, data source and connection are kept from one verdict to the next."""
    good, bad = events(tmp_path / "good.parquet"), events(tmp_path / "bad.parquet", flags=(5, 1))
    found = [run_gate("events", paths) for paths in ([good], [bad], [good, bad], [good], [bad])]
    assert [[outcome.by_file for outcome in report.failed] for report in found] == [[], [{str(bad): 1}], [{str(bad): 1}], [], [{str(bad): 1}]]
    assert [report.rows for report in found] == [found[0].rows, found[1].rows, found[0].rows + found[1].rows, found[0].rows, found[1].rows]
