"""The benchmark itself on a session of 2,000 records: it measures every stage, and it refuses to time a wrong result."""

from __future__ import annotations

import json

import pytest

from tests.bench import mbo_flow
from tests.bench.measure import Measured, decompress, median, run_watched
from tests.bench.stages import FLOOR, STAGES

RECORDS = 2_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bench")


def test_the_table_has_every_stage_with_its_numbers(folder, capsys):
    assert mbo_flow.main(["--records", str(RECORDS), "--plain", "--one-process", "--folder", str(folder), "--json", str(folder / "out.json")]) == 0
    out = capsys.readouterr().out
    lines = {line[: line.rfind("  ")].rstrip(): line for line in out.splitlines()}
    for name in STAGES:
        (line,) = [line for line in lines.values() if line.startswith(f"{name}  ")]
        wall, cpu, rate, ratio, peak, _ = map(float, line.removeprefix(name).split())
        assert min(wall, cpu, rate, ratio) >= 0
        assert peak > 10, "megabytes of a Python process"
    assert "x floor" in out
    found = json.loads((folder / "out.json").read_text())
    assert list(found["measured"]) == list(STAGES)
    assert (found["records"], found["flow_stages"]) == (RECORDS, {})
    assert found["machine"]["cores"] >= 1
    assert not list(folder.glob("lake-*")), "lakes are taken away"


def test_a_book_that_does_not_end_as_the_generators_is_no_result(folder, monkeypatch):
    source = mbo_flow.session(folder, RECORDS)
    facts = source.with_name(source.name + ".facts.json")
    whole = facts.read_text()
    try:
        facts.write_text(whole.replace(f'"records": {RECORDS},', f'"records": {RECORDS + 1},'))
        monkeypatch.setattr(mbo_flow, "STAGES", {name: STAGES[name] for name in ("decode", "rebuild")})
        with pytest.raises(AssertionError, match="the generator's with"):
            mbo_flow.run_stages(folder, source, together=True)
    finally:
        facts.write_text(whole)


def test_the_floor_reads_the_whole_session(folder):
    source = mbo_flow.session(folder, RECORDS)
    assert RECORDS * 56 < decompress(source) < RECORDS * 56 + 10_000


def test_a_watched_command_is_measured_with_its_children(tmp_path):
    child = "import sys, time; a = bytearray(64 << 20); time.sleep(0.6)"
    code = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {child!r}]).returncode + 3)"
    found, returned = run_watched([mbo_flow.sys.executable, "-c", code], {}, tmp_path / "log")
    assert returned == 3
    assert found.peak_rss > 64 << 20
    assert found.wall > 0.6


def test_medians_are_taken_of_each_number_and_ratios_to_the_floor():
    runs = [Measured("x", wall, cpu, rss) for wall, cpu, rss in ((1.0, 5.0, 10 << 20), (2.0, 4.0, 30 << 20), (9.0, 3.0, 20 << 20))]
    assert median(runs) == Measured("x", 2.0, 4.0, 20 << 20)
    text = mbo_flow.table(4_000_000, {FLOOR: [Measured(FLOOR, 0.5, 0.5, 1 << 20)], "x": runs})
    assert text.splitlines()[-1].split() == ["x", "2.000", "4.000", "2.00", "4.0", "20", "0.00"]


def test_the_flows_own_stages_are_added_up_by_name():
    stages = [{"stage": "decode", "seconds": 1.0}, {"stage": "gate bbo", "seconds": 0.25}, {"stage": "gate bbo", "seconds": 0.5}]
    lines = mbo_flow.stage_table({"bookmill run mbo, server, cold": [stages]}).splitlines()
    assert [line.split()[-1] for line in lines[1:]] == ["1.000", "0.750", "1.750"]
