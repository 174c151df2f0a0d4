"""The market-by-order benchmark on a session of 20,000 records: the table has what was asked for, and a wrong book is no result of ours."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest

from tasks.schemas import MBO_RECORD
from tests.bench import mbo
from tests.bench.mbo_contenders import Contender, Files
from tests.bench.mbo_peers import PREFIX
from tests.bench.mbo_table import MARKED, Result, entries, growth, table, write_readme
from tests.bench.measure import Measured
from tests.bench.plain_book import plain_book
from tests.bench.stages import FLOOR
from tests.bench.whole_orders import whole_orders
from tests.flows.servers import ROOT

RECORDS = 20_000
CHEAP = [
    "copy of the records in memory",
    "Parquet decode, seven columns",
    "replay + bbo + ten levels + heatmap",
    f"plain-Python book (first {PREFIX:,} records, scaled)",
    "DuckDB, scan + filter + minute bars",
]
README = "# X\n\n<!-- bench: mbo -->\nold\n<!-- /bench -->\n\nrest\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(folder, standard output lines, the JSON, the README) of one run of a few contenders."""
    folder = tmp_path_factory.mktemp("bench")
    readme, out = folder / "README.md", folder / "out.json"
    readme.write_text(README)
    options = ["--records", str(RECORDS), "--folder", str(folder / "work"), "--json", str(out), "--readme", str(readme), "--only", *CHEAP]
    with redirect_stdout(StringIO()) as said:
        assert mbo.main(options) == 0
    return folder / "work", said.getvalue().splitlines(), json.loads(out.read_text()), readme.read_text()


def test_the_table_has_every_contender_and_the_reference_is_one(run):
    _, lines, found, _ = run
    for name in (FLOOR, *CHEAP):
        (line,) = [line for line in lines if line.startswith(f"{name}  ")]
        wall, cpu, rate, ratio, peak = map(float, line.removeprefix(name).split())
        assert min(wall, cpu, rate) >= 0
        assert peak > 10, "megabytes of a Python process"
        assert ratio == 1.0 or name != FLOOR
    (size,) = found["sizes"]
    assert set(size["measured"]) == {FLOOR, *CHEAP}
    assert (size["records"], size["remarks"], found["left_out"]) == (RECORDS, {}, [])


def test_the_readme_gets_the_table_between_its_markers_only(run):
    *_, readme = run
    head, tail, found = README.partition("old\n")[0], "<!-- /bench -->\n\nrest\n", MARKED.search(readme)
    assert readme.startswith(head)
    assert readme.endswith(tail)
    assert "old" not in readme
    assert found is not None
    inside = found[0]
    assert all(f"| {name} | " in inside for name in (FLOOR, *CHEAP))
    cells = [line.count("|") for line in inside.splitlines() if line.startswith("|")]
    assert len(set(cells)) == 1, "every row has as many cells as the head"


def test_the_readme_of_the_project_has_the_markers_and_one_without_is_refused(tmp_path):
    assert len(MARKED.findall((ROOT / "README.md").read_text(encoding="utf-8"))) == 1
    (tmp_path / "README.md").write_text("no markers")
    with pytest.raises(ValueError, match="must have the lines"):
        write_readme(tmp_path / "README.md", "text")


def test_lakes_are_taken_away_and_sessions_stay(run):
    folder = run[0]
    assert not list(folder.glob("lake-*"))
    assert len(list(folder.glob(f"session-{RECORDS}.mbo.*"))) == 6, "three formats, and the truth of each"


def test_a_wrong_result_stops_the_benchmark_when_ours_and_is_a_remark_when_a_peers(run):
    folder = run[0]
    truth = folder / f"session-{RECORDS}.mbo.dbn.zst.facts.json"
    whole = truth.read_text()
    try:
        truth.write_text(whole.replace(f'"records": {RECORDS},', f'"records": {RECORDS + 1},'))
        with pytest.raises(AssertionError, match="the generator wrote"):
            mbo.run_alone("Parquet decode, seven columns", folder, RECORDS, folder)
        measured, remark = mbo.run_alone("databento_dbn, a Python object a record", folder, RECORDS, folder)
    finally:
        truth.write_text(whole)
    assert measured is not None
    assert f"found {{'records': {RECORDS}}}" in remark


def test_a_peer_that_fails_is_named_and_one_of_ours_is_an_error(tmp_path):
    (tmp_path / "session-100.mbo.dbn.zst").write_bytes(b"no zstd frame")
    measured, remark = mbo.run_alone("databento_dbn, a Python object a record", tmp_path, 100, tmp_path)
    assert measured is None
    assert remark.startswith("failed: ")
    assert "Unknown frame descriptor" in remark
    with pytest.raises(RuntimeError, match="failed: "):
        mbo.run_alone(FLOOR, tmp_path, 100, tmp_path)


def test_what_is_not_installed_is_left_out_and_named(monkeypatch):
    monkeypatch.setitem(mbo.ALL, "ghost", Contender("peer", lambda files: lambda: None, package="no_such_package"))
    assert mbo.installed(["ghost", "replay alone", mbo.FLOWS[0]]) == (["replay alone", mbo.FLOWS[0]], ["no_such_package"])


def test_a_prefix_is_scaled_to_all_records(monkeypatch, tmp_path):
    monkeypatch.setitem(mbo.ALL, "part", Contender("peer", lambda files: lambda: {"records": -1}, prefix=10))
    monkeypatch.setattr(mbo, "timed", lambda name, prepare: (Measured(name, 2.0, 1.0, 7, 3.0), prepare()()))
    assert mbo.run_here("part", tmp_path, 40, tmp_path) == (Measured("part", 8.0, 4.0, 7, 3.0), "")


def test_ratios_and_growth_are_of_medians():
    def result(records, walls):
        measured = {FLOOR: [Measured(FLOOR, 0.5, 0.5, 1 << 20)], "replay alone": [Measured("replay alone", wall, wall, 2 << 20) for wall in walls]}
        return Result(records, {}, measured, {})

    small, large = result(1_000_000, (1.0, 2.0, 9.0)), result(4_000_000, (8.0,))
    (_, row) = entries(small, mbo.GROUPS)
    assert row.numbers == ("2.000", "2.000", "0.50", "4.00", "2")
    assert table([row]).splitlines()[1] == "[ours]"
    (line,) = [line for line in growth([small, large], mbo.GROUPS).splitlines() if line.startswith("replay alone")]
    assert line.split()[2:] == ["2000.0", "2", "2000.0", "2"]


def test_the_plain_book_subtracts_modifies_and_clears():
    ends = [
        ("A", "B", 10, 5, 1, True),
        ("A", "A", 12, 4, 2, True),
        ("A", "B", 11, 1, 3, True),
        ("C", "B", 10, 2, 1, False),
        ("C", "B", 11, 1, 3, True),
    ]
    assert plain_book(ends) == {"event_ends": 4, "orders": 2, "best_bid": [10, 3], "best_ask": [12, 4]}
    again = [("R", "N", 0, 0, 0, True), ("A", "B", 7, 1, 9, False), ("A", "A", 8, 2, 10, False), ("M", "A", 9, 6, 10, True)]
    assert plain_book([*ends, *again]) == {"event_ends": 6, "orders": 2, "best_bid": [7, 1], "best_ask": [9, 6]}


def test_peers_get_a_partial_cancel_as_a_modify_to_what_is_left():
    records = np.zeros(6, MBO_RECORD)
    for i, (letter, order_id, size) in enumerate([("A", 1, 5), ("N", 0, 0), ("C", 1, 2), ("C", 1, 3), ("A", 2, 4), ("R", 0, 0)]):
        records["action"][i], records["order_id"][i], records["size"][i] = ord(letter), order_id, size
    sizes: dict[int, int] = {}
    out = whole_orders(records, sizes)
    assert list(zip(out["action"].tobytes().decode(), out["size"].tolist(), strict=True)) == [("A", 5), ("M", 3), ("C", 3), ("A", 4), ("R", 0)]
    assert sizes == {}
    assert records["action"][2] == ord("C"), "what came in is not changed"


def test_the_truth_has_the_names_that_a_replay_gives(run):
    truth = Files(run[0], RECORDS, run[0]).truth
    assert set(truth) == {"records", "event_ends", "volume", "orders", "best_bid", "best_ask"}
    assert truth["best_bid"][0] < truth["best_ask"][0]
