"""The benchmark of Bybit archives on a small day: every installed contender is measured, and one that finds something else is no result."""

from __future__ import annotations

import json

import pytest

from tests.bench import bybit_parse


def test_the_table_has_every_contender_and_the_floor_is_one(tmp_path, capsys):
    names = ["zipfile", "reader", "json"]
    options = ["--interval-ms", "60000", "--folder", str(tmp_path), "--json", str(tmp_path / "out.json")]
    assert bybit_parse.main([*options, "--only", *names]) == 0
    lines = {line[: line.find("  ")]: line for line in capsys.readouterr().out.splitlines() if "  " in line}
    for name in (bybit_parse.FLOOR, *names):
        wall, cpu, rate, ratio, peak = map(float, lines[name].removeprefix(name).split())
        assert min(wall, cpu, rate) >= 0
        assert peak > 5, "megabytes of a Python process"
        assert ratio == 1.0 or name != bybit_parse.FLOOR
    found = json.loads((tmp_path / "out.json").read_text())
    assert set(found["measured"]) == {bybit_parse.FLOOR, *names}
    assert found["truth"][0] > 1_000


def test_a_contender_that_finds_something_else_is_no_result(tmp_path):
    path, (lines, levels, size) = bybit_parse.archive(tmp_path, 600_000)
    with pytest.raises(AssertionError, match="the generator wrote"):
        bybit_parse.run_alone("json", path, path, (lines, levels + 1, size))


@pytest.mark.parametrize("name", bybit_parse.CONTENDERS)
def test_every_contender_finds_what_was_written(tmp_path, name):
    contender, module = bybit_parse.CONTENDERS[name]
    pytest.importorskip(module)
    path, truth = bybit_parse.archive(tmp_path, 600_000)
    assert all(found in (-1, wanted) for found, wanted in zip(contender(path), truth, strict=True))
    assert max(contender(path)) > 0
