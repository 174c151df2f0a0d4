"""The market-by-order benchmark on a session of 20,000 records: the tables have what was asked for, and a wrong book is no result of ours."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

from deployments import bench
from tasks.errors import UsageError
from tasks.schemas import MBO_RECORD
from tests.bench import mbo, mbo_run, mbo_targets
from tests.bench.mbo_contenders import IN_C, MANY, MANY_BY_TWO, MANY_WRITTEN_BY_TWO, ONE_SYMBOL, PICTURE, REPLAY, STATES, TO_TOUCH
from tests.bench.mbo_flow import PLAIN, SERVED
from tests.bench.mbo_peers import APPLY, AS_COLUMNS, LOAD_AND_APPLY, PREFIX
from tests.bench.mbo_session import Contender, Files, Found
from tests.bench.mbo_table import MARKED, Result, entries, growth, table, unexplained, write_readme
from tests.bench.measure import Measured
from tests.bench.plain_book import plain_book
from tests.bench.stages import FLOOR
from tests.bench.whole_orders import whole_orders
from tests.flows.servers import ROOT

RECORDS = 20_000
# Those that need no more of a lake than events; the rest is in the campaign.
CHEAP = [
    *([IN_C] if shutil.which("cc") else []),
    "replay + bbo + ten levels + heatmap",
    STATES,
    TO_TOUCH,
    PICTURE,
    f"plain-Python book (first {PREFIX:,} records, scaled)",
    "DuckDB, scan + filter + minute bars",
]
MISSES = "<!-- bench: misses -->\nby hand\n<!-- /misses -->\n"
README = f"# X\n\n<!-- bench: mbo -->\nold\n<!-- /bench -->\n\n{MISSES}\nrest\n"


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
    rows = size["measured"][STATES][0]["facts"]["rows"]
    assert rows > RECORDS / 2, "a row an event end"
    assert len([line for line in lines if line.startswith(f"{STATES}: {rows:,} rows in ")]) == 1, "the bytes are told"
    told = [target["name"] for target in found["targets"]]
    assert "states written, time as a multiple of decompression" in told
    assert not [name for name in told if "Nautilus" in name or "flow" in name or "60 columns" in name], "not measured, not told"


def test_the_readme_gets_the_table_between_its_markers_only(run):
    *_, readme = run
    head, tail, found = README.partition("old\n")[0], f"<!-- /bench -->\n\n{MISSES}\nrest\n", MARKED.search(readme)
    assert readme.startswith(head)
    assert readme.endswith(tail)
    assert "old" not in readme
    assert found is not None
    inside = found[0]
    assert all(f"| {name} | " in inside for name in (FLOOR, *CHEAP))
    tables = inside.split("| target |")
    for rows in tables:
        cells = [line.count("|") for line in rows.splitlines() if line.startswith("|") and line.endswith("|")]
        assert len(set(cells)) == 1, "every row has as many cells as the head"
    assert len(tables) == 2
    assert "| states written, time as a multiple of decompression | <= 2.50 | " in inside


def test_the_readme_of_the_project_has_the_markers_and_one_without_is_refused(tmp_path):
    assert len(MARKED.findall((ROOT / "README.md").read_text(encoding="utf-8"))) == 1
    (tmp_path / "README.md").write_text("no markers")
    with pytest.raises(ValueError, match="must have the lines"):
        write_readme(tmp_path / "README.md", "text")


def test_lakes_are_taken_away_and_sessions_stay(run):
    folder = run[0]
    assert not list(folder.glob("lake-*"))
    assert len(list(folder.glob(f"session-{RECORDS}.mbo.*"))) == 6, "three formats, and the truth of each"


def test_the_same_states_are_written_packed_and_as_columns(run, tmp_path):
    files = Files(run[0], 2_000, tmp_path)
    assert files.place.rebuilt.facts["event_ends"] == files.truth["event_ends"]
    packed, columns = (mbo_run.ALL[name].prepare(files)() for name in (STATES, AS_COLUMNS))
    assert packed.truth == columns.truth == {"event_ends": files.truth["event_ends"]}
    assert packed.facts["rows"] == columns.facts["rows"]
    assert columns.seconds is not None
    assert min(columns.seconds) > 0


def test_books_of_many_symbols_are_held_against_the_generator(run, tmp_path):
    files = Files(run[0], 2_000, tmp_path)
    found = mbo_run.ALL[MANY_BY_TWO].prepare(files)()
    assert (found.truth, found.facts) == ({"records": 2_000}, {"books": 2})
    facts = files.many.with_name(f"{files.many.name}.facts.json")
    whole = json.loads(facts.read_text())
    wrong = [{**book, "bid_sz": book["bid_sz"] + (n == 1)} for n, book in enumerate(whole["books"])]
    facts.write_text(json.dumps({**whole, "books": wrong}))
    try:
        with pytest.raises(AssertionError, match="the book of SYM0001 ends with"):
            mbo_run.ALL[MANY_BY_TWO].prepare(files)
    finally:
        facts.write_text(json.dumps(whole))


def test_the_files_of_many_symbols_are_written_once_more_as_they_are(run, tmp_path):
    files = Files(run[0], 2_000, tmp_path)
    found = mbo_run.ALL[MANY_WRITTEN_BY_TWO].prepare(files)()
    assert found.seconds is not None
    assert min(found.seconds) > 0
    (copy,) = files.folder.glob("many-lake-written-*")
    lake = next(files.folder.glob("many-lake-many-2000-*"))
    copies = sorted(path.relative_to(copy) for path in copy.rglob("*.parquet"))
    assert copies == sorted(path.relative_to(lake) for path in lake.rglob("symbol=*/*.parquet"))
    assert found.facts == {"files": len(copies)}
    assert len(copies) >= 16, "events and seven layers of two symbols"
    for path in copies:
        assert (copy / path).read_bytes() == (lake / path).read_bytes(), path


def test_a_wrong_result_stops_the_benchmark_when_ours_and_is_a_remark_when_a_peers(run):
    folder = run[0]
    truth = folder / f"session-{RECORDS}.mbo.dbn.zst.facts.json"
    whole = truth.read_text()
    try:
        truth.write_text(whole.replace(f'"records": {RECORDS},', f'"records": {RECORDS + 1},'))
        with pytest.raises(AssertionError, match="the generator wrote"):
            mbo_run.run_alone("Parquet decode, seven columns", folder, RECORDS, folder)
        measured, remark = mbo_run.run_alone("databento_dbn, a Python object a record", folder, RECORDS, folder)
    finally:
        truth.write_text(whole)
    assert measured is not None
    assert f"found {{'records': {RECORDS}}}" in remark


def test_a_peer_that_fails_is_named_and_one_of_ours_is_an_error(tmp_path):
    (tmp_path / "session-100.mbo.dbn.zst").write_bytes(b"no zstd frame")
    measured, remark = mbo_run.run_alone("databento_dbn, a Python object a record", tmp_path, 100, tmp_path)
    assert measured is None
    assert remark.startswith("failed: ")
    assert "Unknown frame descriptor" in remark
    with pytest.raises(RuntimeError, match="failed: "):
        mbo_run.run_alone(FLOOR, tmp_path, 100, tmp_path)


def test_what_is_not_installed_is_left_out_and_named(monkeypatch):
    monkeypatch.setitem(mbo_run.ALL, "ghost", Contender("peer", lambda files: Found, package="no_such_package"))
    monkeypatch.setattr(shutil, "which", lambda program: None)
    assert mbo_run.installed(["ghost", IN_C, REPLAY, PLAIN]) == ([REPLAY, PLAIN], ["cc", "no_such_package"])


def test_a_prefix_is_scaled_to_all_records(monkeypatch, tmp_path):
    monkeypatch.setitem(mbo_run.ALL, "part", Contender("peer", lambda files: lambda: Found({"records": -1}), prefix=10))
    monkeypatch.setattr(mbo_run, "timed", lambda name, prepare: (Measured(name, 2.0, 1.0, 7, 3.0), prepare()()))
    assert mbo_run.run_here("part", tmp_path, 40, tmp_path) == (Measured("part", 8.0, 4.0, 7, 3.0), "")


def test_ratios_and_growth_are_of_medians():
    def result(records, walls):
        measured = {FLOOR: [Measured(FLOOR, 0.5, 0.5, 1 << 20)], "replay alone": [Measured("replay alone", wall, wall, 2 << 20) for wall in walls]}
        return Result(records, {}, measured, {})

    small, large = result(1_000_000, (1.0, 2.0, 9.0)), result(4_000_000, (8.0,))
    (_, row) = entries(small, mbo_run.GROUPS)
    assert row.numbers == ("2.000", "2.000", "0.50", "4.00", "2")
    assert table([row]).splitlines()[1] == "[ours]"
    (line,) = [line for line in growth([small, large], mbo_run.GROUPS).splitlines() if line.startswith("replay alone")]
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


def test_a_word_names_a_contender_or_all_that_hold_it():
    assert mbo.chosen([]) == list(mbo_run.GROUPS)
    assert mbo.chosen([REPLAY]) == [FLOOR, REPLAY], "a whole name is that one alone"
    assert mbo.chosen(["NAUTILUS"]) == [FLOOR, APPLY, LOAD_AND_APPLY]
    with pytest.raises(ValueError, match=f"(?s)'nothing'.*{REPLAY}"):
        mbo.chosen(["nothing"])


def results(*sizes: tuple[int, dict[str, tuple[float, float, dict[str, float]]]]) -> list[Result]:
    """A result a size from name -> (wall, peak, facts)."""
    return [
        Result(records, {}, {name: [Measured(name, wall, wall, peak, facts=facts)] for name, (wall, peak, facts) in found.items()}, {})
        for records, found in sizes
    ]


def test_targets_are_judged_from_what_was_measured_and_the_rest_is_left_out():
    warm = SERVED[1]
    one = {
        FLOOR: (0.5, 1, {}), REPLAY: (1.0, 1, {}), IN_C: (0.7, 1, {}), APPLY: (10.0, 1, {}), TO_TOUCH: (1.0, 200, {}),
        LOAD_AND_APPLY: (7.9, 1_000, {}), STATES: (1.25, 1, {"rows": 5, "bytes": 90}), AS_COLUMNS: (4.0, 1, {"rows": 5, "bytes": 100}),
        PLAIN: (3.0, 1, {}), warm: (4.0, 100, {"gate_seconds": 0.4}), ONE_SYMBOL: (1.0, 1, {}), MANY: (2.5, 1, {}), MANY_BY_TWO: (1.4, 1, {}),
        "gate events": (0.5, 1, {"rows": 10_000_000}), "gate books": (0.5, 1, {"rows": 10_000_000}), "gate aggregates": (0.5, 1, {"rows": 4_000_000}),
    }  # fmt: skip
    (main,) = results((1_000_000, one))
    found = {verdict.name: verdict for verdict in mbo_targets.judge([main], main)}
    said = {name: (verdict.target, verdict.measured, verdict.met) for name, verdict in found.items()}
    assert said == {
        "replay with queues, times as fast as NautilusTrader's apply_deltas": (">= 10.00", "10.00", True),
        "replay, time as a multiple of the same in C": ("<= 1.25", "1.43", False),
        "states written, time as a multiple of decompression": ("<= 2.50", "2.50", True),
        "states written, times as fast as 60 columns": (">= 4.00", "3.20", False),
        "states written, bytes as a multiple of 60 columns": ("<= 1.00", "0.90", True),
        "file to touch, times as fast as NautilusTrader's load + apply": (">= 8.00", "7.90", False),
        "file to touch, memory as a part of NautilusTrader's load + apply": ("<= 16.7 %", "20.0 %", False),
        "whole flow on a server, time as a multiple of decompression": ("<= 8.00", "8.00", True),
        "Prefect's share of the whole flow on a server": ("<= 15.0 %", "25.0 %", False),
        "the gates' share of the whole flow on a server": ("<= 15.0 %", "10.0 %", True),
        "gates of the default suites": (">= 15 M rows/s", "16 M rows/s", True),
        "many symbols, rate a record as a part of one symbol's": (">= 50.0 %", "40.0 %", False),
        "many symbols, two partitions at a time, times as fast as one": (">= 1.70", "1.79", True),
    }
    assert mbo_targets.markdown(list(found.values())).count("**missed**") == 6
    assert mbo_targets.text(list(found.values())).count("MISSED") == 6


def test_growth_is_of_further_records_and_memory_of_the_largest_size():
    def size(millions: float, wall: float, peak: int) -> tuple[int, dict[str, tuple[float, float, dict[str, float]]]]:
        return round(millions * 1e6), {FLOOR: (1.0, 1, {}), SERVED[1]: (wall, peak, {})}

    def judged() -> list[tuple[str, bool]]:
        by_name = {verdict.name: (verdict.measured, verdict.met) for verdict in mbo_targets.judge(sizes, sizes[1])}
        return [found for name, found in by_name.items() if name.startswith(("growth of the whole", "peak memory of the whole"))]

    sizes = results(size(4, 15.2, 120), size(1, 11.0, 100))
    assert judged() == [("0.35", True), ("1.20", False)], "15.2 s / 4M against 11 s / 1M; 120 against 100"
    sizes += results(size(0.1, 10.1, 100))
    assert judged() == [("1.40", False), ("1.20", False)], "4.2 s for 3M further records, after 0.9 s for 0.9M"
    sizes[:] = [sizes[1], sizes[1]]
    assert judged() == [], "one size alone says nothing of growth"


def test_a_miss_that_nobody_explained_is_named(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(README.replace("by hand", "- replay, time as a multiple of the same in C: the ladder is not known in advance."))
    assert unexplained(path, ["replay, time as a multiple of the same in C", "another"]) == ["another"]
    path.write_text("nothing")
    assert unexplained(path, ["another"]) == ["another"]


def test_the_command_runs_the_checkouts_benchmark_wherever_it_is_started(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "__init__.py").write_text("raise SystemExit('a stranger')")
    command = [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); from deployments.cli import main; main()", "bench"]
    command += ["--records", "2000", "--only", "copy of", "--only", "Parquet decode, s", "--json", "out.json", "--folder", "work"]
    with (tmp_path / "log").open("wb") as log:
        code = subprocess.run(command, cwd=tmp_path, stdout=log, stderr=log, timeout=240, check=False).returncode
    assert code == 0, (tmp_path / "log").read_text()
    found = json.loads((tmp_path / "out.json").read_text())
    assert set(found["sizes"][0]["measured"]) == {FLOOR, "copy of the records in memory", "Parquet decode, seven columns"}
    assert list((tmp_path / "work").glob("session-2000.mbo.dbn.zst"))


def test_without_the_checkout_the_command_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    with pytest.raises(UsageError, match=r"has no tests/bench\. Get the source"):
        bench.run_bench(10, "1", 1, [], None, False, None)


@pytest.mark.parametrize("sizes", ["", "a", "1,-2", "0"])
def test_sizes_must_be_factors(sizes):
    with pytest.raises(UsageError, match="above 0, separated by commas"):
        bench.run_bench(10, sizes, 1, [], None, False, None)


@pytest.mark.campaign
@pytest.mark.timeout(1800)
def test_every_contender_that_is_installed_runs_at_three_sizes(tmp_path):
    options = ["--records", str(RECORDS), "--sizes", "0.5", "1", "2", "--folder", str(tmp_path / "work"), "--json", str(tmp_path / "out.json")]
    with redirect_stdout(StringIO()) as said:
        assert mbo.main(options) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    there, _ = mbo_run.installed(list(mbo_run.GROUPS))
    for size in found["sizes"]:
        failed = {name for name, remark in size["remarks"].items() if remark.startswith("failed")}
        peers = {name for name in there if mbo_run.GROUPS[name] == "peer"}
        assert set(size["measured"]) | failed == set(there) - (peers if size["records"] > RECORDS else set())
        assert failed <= peers
    assert any(target["name"].startswith("growth of the whole flow") for target in found["targets"])
    assert "ns a record, peak MB" in said.getvalue()
    assert not [path for path in Path(tmp_path / "work").iterdir() if path.name.startswith(("lake-", "home-", "write-", "picture-"))]
