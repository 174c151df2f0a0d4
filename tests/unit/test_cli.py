"""The command line in this process: what it prints and where, what it exits with, what it imports, and that looking writes nothing.

Commands that run a flow are in tests/flows/.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
import typer

from config.settings import NAMES
from deployments import cli
from deployments.backfill import options_of
from deployments.options import path_of
from tasks.partitions import MboRecipe
from tasks.reconstruction.rebuild import rebuild
from tasks.scanning.decode import decode
from tasks.scanning.inventory import scan
from tasks.scanning.readers import open_reader
from tasks.scanning.synthetic import SessionSpec, generate
from tasks.scanning.synthetic_writers import FORMATS

ROOT = Path(__file__).resolve().parents[2]
BAD = {
    100: "1761139800000000100,A,B,101.25,-5,9001,1",
    200: "1761139800000000200,X,B,101.25,5,9002,1",
    300: "1761139800000000300,A,B,nan,5,9003,1",
}


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    """No settings of the caller's, a wide terminal without colours, and a folder of its own."""
    for name in [n for n in os.environ if n.startswith("BOOKMILL_")]:
        monkeypatch.delenv(name)
    for name, value in (("COLUMNS", "240"), ("TERMINAL_WIDTH", "240"), ("NO_COLOR", "1"), ("TERM", "dumb")):
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def bookmill(monkeypatch, capfd):
    """A function from arguments to (exit code, standard output, standard error)."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bookmill", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capfd.readouterr()
        return end.value.code or 0, out, err

    return call


@pytest.fixture(scope="module")
def lake(tmp_path_factory) -> Path:
    """Layers of one small seven-column file, three rows of which are in quarantine."""
    folder = tmp_path_factory.mktemp("lake")
    rows = ["ts_event,action,side,price,size,order_id,is_last", "1761139800000000000,R,N,,0,0,1"]
    rows += [f"{1_761_139_800_000_000_000 + k},A,B,{100 + k % 7}.25,5,{k + 1},1" for k in range(500)]
    for at, row in BAD.items():
        rows[at] = row
    (folder / "SICK.csv").write_text("\n".join(rows) + "\n")
    (source,) = scan([folder / "SICK.csv"]).files
    (part,) = decode(source, folder / "lake", MboRecipe()).parts
    rebuild(folder / "lake", part.partition, [part.path], MboRecipe())
    return folder / "lake"


def tree(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}


IMPORTS = """
import contextlib, io, json, sys
from deployments.cli import main
loaded = {}
for line in json.loads(sys.argv[1]):
    sys.argv = ["bookmill", *line]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
        main()
    loaded[" ".join(line)] = sorted({"prefect", "numba", "great_expectations", "pandas", "pyarrow", "duckdb"} & set(sys.modules))
print(json.dumps(loaded))
"""


def test_help_and_settings_import_nothing_heavy_and_a_plan_no_orchestration(lake, tmp_path):
    # In one process, lightest first: what an earlier command loaded would be seen in the later ones.
    lines = [
        ["--help"], ["run", "mbo", "--help"], ["sql", "--help"], ["config", "show"], ["run", "mbo", ".", "--interval", "1parsec"],
        ["run", "mbo", str(lake.parent / "SICK.csv"), "--dry-run"], ["sql", "select 1", "--lake", str(lake)],
    ]  # fmt: skip
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", IMPORTS, json.dumps(lines)], env=environ, capture_output=True, text=True, timeout=120, check=True)
    loaded = list(json.loads(done.stdout).values())
    assert loaded[:4] == [[]] * 4
    assert all(not {"prefect", "great_expectations"} & set(names) for names in loaded)
    assert "duckdb" in loaded[-1], "the probe sees what is loaded"


def test_help_names_every_command_and_option(bookmill):
    code, out, _ = bookmill("--help")
    assert code == 0
    assert {"run", "demo", "generate", "sql", "layers", "book", "queue", "orders", "certify", "bootstrap", "config", "quarantine"} <= set(
        re.findall(r"[a-z]+", out)
    )
    code, out, _ = bookmill("run", "mbo", "--help")
    assert (code, "--dry-run" in out, "--on-book-error" in out) == (0, True, True)


def test_a_dry_run_shows_the_plan_and_writes_nothing(bookmill, lake, tmp_path):
    folder = tmp_path / "in"
    assert bookmill("generate", folder / "a.dbn.zst", "--records", "1000", "--symbols", "ESZ5,NQZ5")[0] == 0
    before = tree(tmp_path)
    code, out, err = bookmill("run", "mbo", folder, "--dry-run")
    assert (code, err) == (0, "")
    row = next(line for line in out.splitlines() if line.startswith("a.dbn.zst"))
    assert {"dbn", "GLBX.MDP3", "2025-10-22", "ESZ5,", "NQZ5", "decode,"} <= set(row.split())
    assert "1 sources, 1 to do, 0 cannot be used. Nothing was written." in out
    assert tree(tmp_path) == before
    before = tree(lake.parent)
    code, out, _ = bookmill("run", "mbo", lake.parent / "SICK.csv", "--lake", lake, "--dry-run")
    assert (code, "done: 1 partitions, 498 events" in out, "1 sources, 0 to do" in out) == (0, True, True)
    assert tree(lake.parent) == before


def test_a_dry_run_exits_with_1_when_a_source_cannot_be_used_and_with_2_when_none_can(bookmill, tmp_path):
    assert bookmill("generate", tmp_path / "in" / "a.dbn", "--records", "100", "--format", "dbn")[0] == 0
    (tmp_path / "in" / "strange.dbn").write_bytes(b"DBZ\x09" + bytes(200))
    code, out, _ = bookmill("run", "mbo", tmp_path / "in", "--dry-run")
    assert code == 1
    assert "1 sources, 1 to do, 1 cannot be used" in out
    assert re.search(r"^NOT READ \S+strange\.dbn: (?!/)", out, re.M)  # the path is said once
    code, out, _ = bookmill("run", "mbo", "nowhere/*.dbn", "--dry-run")
    assert code == 2
    assert "NOT READ nowhere/*.dbn" in out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "mbo", ".", "--interval", "1parsec"], "1parsec"),
        (["run", "mbo", ".", "--clock", "sundial"], "ts_event, ts_recv"),
        (["run", "mbo", ".", "--hours", "9-17", "--zone", "Mars/Olympus"], "zone"),
        (["run", "mbo", ".", "--hours", "noon"], "HH:MM-HH:MM"),
        (["run", "mbo", ".", "--depth", "0"], "1 to 100"),
        (["run", "mbo", ".", "--bars", "1s,brick:7"], "brick:7"),
        (["run", "mbo", ".", "--start", "tomorrow"], "ISO 8601"),
        (["run", "mbo", ".", "--on-book-error", "cry"], "suspect, fail"),
        (["run", "mbo", ".", "--heatmap-axis", "price"], "time, event"),
        (["run", "mbo", ".", "--publishers", "1,two"], "two"),
        (["config", "show", "--profile", "cray"], "laptop, server, ci"),
        (["config", "show", "--workers", "-3"], "workers"),
        (["config", "show", "--memory", "plenty"], "plenty"),
        (["generate", "x.bin", "--format", "xlsx"], "dbn.zst"),
        (["generate", "x.dbn", "--records", "0"], "records is 0"),
        (["generate", "x.dbn", "--date", "someday"], "someday"),
        (["generate", "x.dbn", "--date", "9999-01-01"], "date is '9999-01-01'; allowed: 1970-01-01 to 2261-12-31"),
        (["generate", "x.dbn", "--seed", "-1"], "seed is -1; allowed: 0 or more"),
        (["generate", "x.dbn", "--records", "99999999999999999999"], "records is 99999999999999999999; allowed: 1 to 3,500,000,000"),
        (["generate", "x.dbn", "--symbols", "99999999999"], "symbols is 99999999999; allowed: names separated by commas, or a number of them"),
        (["generate", "x.dbn", "--symbols", "9" * 5_000], "or a number of them from 1 to 100,000"),
        (["generate-depth", "d", "--seed", "-1"], "seed is -1; allowed: 0 or more"),
        (["generate-depth", "d", "--depth", "0"], "depth is 0; allowed: 2 to 10,000"),
        (["generate-depth", "d", "--outage", "0s"], "outage is '0s'"),
        (["generate-depth", "d", "--interval", "1500us"], "interval is '1500us'; allowed: whole milliseconds"),
        (["demo", "--seed", "-1"], "seed is -1; allowed: 0 or more"),
        (["run", "mbo", ".", "--stale-after", "soon"], "stale_after is 'soon'"),
        (["layers", "--lake", "nowhere"], "nowhere"),
        (["sql", "select 1", "--lake", "nowhere"], "nowhere"),
        (["quarantine", "list", "--lake", "nowhere"], "nowhere"),
        (["quarantine", "export", "out", "--lake", "nowhere"], "nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_run_says_what_is_allowed_in_one_line_and_exits_with_2(bookmill, tmp_path, arguments, told):
    code, out, err = bookmill(*arguments)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"Error: [^\n]+\n", err), err
    assert told in err
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "mbo"], "sources"),
        (["run", "mbo", ".", "--depth", "deep"], "--depth"),
        (["run", "mbo", ".", "--depht", "3"], "--depht"),
        (["fly"], "fly"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_the_command_line_itself_does_not_understand_exits_with_2(bookmill, arguments, told):
    code, out, err = bookmill(*arguments)
    assert (code, out, told in err, "Traceback" in err) == (2, "", True, False)


def test_a_home_folder_is_meant_by_a_tilde_in_every_path_of_every_command(bookmill, lake, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert bookmill("generate", "~/a.dbn", "--records", "100", "--format", "dbn")[0] == 0
    assert (tmp_path / "home" / "a.dbn").exists()
    (tmp_path / "home" / "lake").symlink_to(lake)
    code, out, err = bookmill("sql", "select 1 one", "--lake=~/lake", "--format", "csv")
    assert (code, out.split()[-1], err) == (0, "1", "")
    # The shell's way to say a folder of that name.
    assert bookmill("generate", "./~x/a.dbn", "--records", "100", "--format", "dbn")[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "~x"]
    assert options_of(["csv=~/x", "temp-dir=~/y", "symbol=~z"]) == {
        "csv": str(tmp_path / "home" / "x"), "temp_dir": str(tmp_path / "home" / "y"), "symbol": "~z",
    }  # fmt: skip


def test_no_path_of_a_command_is_taken_as_it_was_typed():
    def functions(app: typer.Typer) -> Iterator[Any]:
        yield from (command.callback for command in app.registered_commands)
        for group in app.registered_groups:
            yield from functions(group.typer_instance)

    hints = [hint for function in functions(cli.app) for hint in get_type_hints(function, include_extras=True).values()]
    paths = [hint.__metadata__[0].parser for hint in hints if hasattr(hint, "__metadata__") and hint.__origin__ in (Path, Path | None)]
    assert len(paths) > 20
    assert set(paths) == {path_of}


def test_config_show_explains_each_setting_with_its_origin(bookmill, monkeypatch, tmp_path):
    monkeypatch.setenv("BOOKMILL_BATCH_ROWS", "32768")
    (tmp_path / "bookmill.toml").write_text("retries = 5\n")
    code, out, err = bookmill("config", "show", "--profile", "ci", "--workers", "1")
    assert (code, err) == (0, "")
    shown = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert set(NAMES) <= set(shown)
    for name, value, origin in (
        ("profile", "ci", "command line"), ("workers", "1", "command line"), ("batch_rows", "32768", "environment BOOKMILL_BATCH_ROWS"),
        ("retries", "5", "bookmill.toml"), ("duckdb_threads", "1", "derived: workers"), ("memory_bytes", "", "profile ci"),
    ):  # fmt: skip
        assert re.match(rf"{name} +{value}.* {origin}", shown[name]), shown[name]
    assert all(len(re.split(r"\s{2,}", line.strip())) >= 3 for name, line in shown.items() if name in NAMES)


def test_a_file_whose_name_is_not_utf_8_is_told_by_a_plan_and_refused_where_it_is_named(bookmill, tmp_path):
    odd = os.path.join(os.fsencode(tmp_path), b"in", b"caf\xe9.csv")
    (tmp_path / "in").mkdir()
    for path in (odd, os.fsencode(tmp_path / "in" / "good.csv")):
        with open(path, "w") as file:
            file.write("ts_event,action,side,price,size,order_id,is_last\n1761139800000000000,A,B,1.5,1,1,1\n")
    told = f"{tmp_path}/in/caf\\xe9.csv"
    for arguments in (["run", "mbo", tmp_path / "in", "--dry-run"], ["plan", "mbo", tmp_path / "in"]):
        code, out, err = bookmill(*arguments, "--lake", tmp_path / "lake")
        assert (code, f"NOT READ {told}: the name" in out, "good.csv" in out or "1 sources" in out, err) == (1, True, True, ""), out
    code, out, err = bookmill("run", "mbo", os.fsdecode(odd), "--lake", tmp_path / "lake")
    assert (code, out) == (2, "")
    assert err.startswith(f"Error: sources has {told}, which is not valid UTF-8; rename it")


@pytest.mark.parametrize("format", FORMATS)
def test_generate_writes_files_of_every_format_that_are_read_whole(bookmill, tmp_path, format):
    path = tmp_path / "new" / f"ESZ5.{format.removeprefix('seven-')}"
    code, out, err = bookmill("generate", path, "--records", "2000", "--format", format, "--seed", "3")
    assert (code, err) == (0, "")
    assert re.match(rf"{re.escape(str(path))}: 2,000 records of 1 symbol in ", out)
    (source,) = scan([path]).files
    batches = list(open_reader(source).batches(65_536))
    records = np.concatenate(list(generate(SessionSpec(records=2_000, seed=3))))
    assert not any(batch.bad for batch in batches)
    assert source.symbols in ((), ("ESZ5",))
    for name in ("action", "side", "price", "size", "order_id"):
        found = np.concatenate([batch.columns[name].copy() for batch in batches])
        np.testing.assert_array_equal(found, records[name], err_msg=name)


def test_generate_makes_as_many_symbols_as_asked_for(bookmill, tmp_path):
    code, out, _ = bookmill("generate", tmp_path / "a.dbn", "--records", "500", "--format", "dbn", "--symbols", "7", "--date", "2024-02-29")
    assert (code, "500 records of 7 symbols" in out) == (0, True)
    (source,) = scan([tmp_path / "a.dbn"]).files
    assert source.symbols == tuple(f"SYM{i:04d}" for i in range(7))
    assert source.dates == ("2024-02-29",)


QUERY = "select sequence, price(bid_px_00) bid, bid_sz_00, status, reason, ts_event from bbo order by as_of, ts_event limit 3"


def test_sql_prints_nothing_but_data(bookmill, lake):
    code, out, err = bookmill("sql", QUERY, "--lake", lake, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert (code, err, len(rows)) == (0, "", 3)
    code, out, err = bookmill("sql", QUERY, "--lake", lake, "--format", "json")
    objects = json.loads(out)
    assert (code, err, out.count("\n")) == (0, "", 1)
    assert [list(o) for o in objects] == [list(r) for r in rows] == [["sequence", "bid", "bid_sz_00", "status", "reason", "ts_event"]] * 3
    assert [[str(o[name]) for name in ("bid_sz_00", "status", "reason")] for o in objects] == [
        [r[name] for name in ("bid_sz_00", "status", "reason")] for r in rows
    ]
    assert [o["bid"] for o in objects][1:] == [r["bid"] for r in rows][1:] == ["100.250000000", "101.250000000"]  # exact, not floats
    assert objects[1]["ts_event"] == "2025-10-22 13:30:00+00:00"
    code, out, err = bookmill("sql", "select 1 one where false", "--lake", lake, "--format", "json")
    assert (code, json.loads(out), err) == (0, [], "")
    code, out, _ = bookmill("sql", QUERY, "--lake", lake)
    assert (code, "101.250000000" in out) == (0, True)


def test_sql_writes_null_where_json_has_no_word_for_a_number(bookmill, lake):
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    query = "select 'nan'::double a, [1.5, 'inf'::float] b, {'c': '-inf'::double, 'd': 'NaN'} e, null f, 0.0::double g"
    code, out, err = bookmill("sql", query, "--lake", lake, "--format", "json")
    assert (code, err) == (0, "")
    assert json.loads(out, parse_constant=refuse) == [{"a": None, "b": [1.5, None], "e": {"c": None, "d": "NaN"}, "f": None, "g": 0.0}]


@pytest.mark.parametrize(
    "query",
    ["selec 1", "select * from nothing", "select 1; select 2", "create table t as select 1", ""],
)
def test_sql_that_cannot_be_answered_is_an_error_on_standard_error(bookmill, lake, query):
    code, out, err = bookmill("sql", query, "--lake", lake, "--format", "csv")
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")
    assert "Traceback" not in err


def test_sql_cannot_write_into_the_lake_or_anywhere_else(bookmill, lake, tmp_path):
    before = tree(lake)
    for target in (lake / "x.parquet", tmp_path / "x.parquet"):
        code, out, err = bookmill("sql", f"copy (select 1) to '{target}'", "--lake", lake)
        assert (code, out, err.startswith("Error: ")) == (2, "", True)
    assert tree(lake) == before
    assert tree(tmp_path) == {}


def test_sql_formats_are_named_when_another_is_asked_for(bookmill, lake):
    code, out, err = bookmill("sql", "select 1", "--lake", lake, "--format", "xml")
    assert (code, out, err) == (2, "", "Error: format is 'xml'; allowed: table, csv, json\n")


def test_layers_lists_files_and_rows_of_the_lake_given_or_set(bookmill, lake, monkeypatch):
    code, out, err = bookmill("layers", "--lake", lake)
    assert (code, err) == (0, "")
    monkeypatch.setenv("BOOKMILL_LAKE", str(lake))
    assert bookmill("layers") == (0, out, "")
    rows = {words[0]: words[1:3] for words in map(str.split, out.splitlines())}
    assert rows["events"] == ["1", "498"]
    assert rows["quarantine"] == ["1", "3"]
    assert {"bbo", "mbp-10", "mbp-10-1s", "trades", "closing_book", "sources"} <= set(rows)


def test_quarantined_rows_are_listed_with_reasons_and_exported_as_they_stood(bookmill, lake, tmp_path):
    code, out, err = bookmill("quarantine", "list", "--lake", lake)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "3 rows in quarantine."
    listed = [line.split()[:6] for line in out.splitlines()[1:4]]
    assert [words[:2] + words[3:4] for words in listed] == [["SICK.csv", "decode", "1"]] * 3
    assert sorted(int(words[4]) for words in listed) == [at - 1 for at in BAD]  # 0-based data rows
    code, out, err = bookmill("quarantine", "export", tmp_path / "bad", "--lake", lake)
    assert (code, err) == (0, "")
    (exported,) = (tmp_path / "bad").iterdir()
    assert re.fullmatch(r"[0-9a-f]{10}-SICK\.csv\.rows", exported.name)
    assert out == f"{exported}: 3 rows, one a line\n"
    assert exported.read_text().splitlines() == list(BAD.values())


def test_brackets_in_names_and_values_are_shown_as_they_stand(bookmill, tmp_path):
    path, lake = tmp_path / "ES[b].csv", tmp_path / "lake"
    path.write_text("ts_event,action,side,price,size,order_id,is_last\n1761139800000000000,R,N,,0,0,1\n1761139800000000001,[/b],B,1,1,1,1\n")
    (source,) = scan([path], symbol="ES[front]").files
    decode(source, lake, MboRecipe())
    code, out, err = bookmill("quarantine", "list", "--lake", lake)
    assert (code, err, "ES[b].csv" in out, "[/b]" in out) == (0, "", True, True), out
    code, out, err = bookmill("run", "mbo", path, "--symbol", "ES[front]", "--lake", lake, "--dry-run")
    assert (code, "ES[front]" in out) == (0, True), out + err


def test_sources_of_one_name_are_exported_to_files_of_their_own(bookmill, tmp_path):
    head, good = "ts_event,action,side,price,size,order_id,is_last", "1761139800000000000,R,N,,0,0,1"
    for folder, bad in (("a", BAD[100]), ("b", BAD[200])):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "X.csv").write_text("\n".join([head, good, bad]) + "\n")
        (source,) = scan([tmp_path / folder / "X.csv"], symbol=folder).files
        decode(source, tmp_path / "lake", MboRecipe())
    code, out, _ = bookmill("quarantine", "export", tmp_path / "bad", "--lake", tmp_path / "lake")
    assert (code, len(out.splitlines())) == (0, 2)
    assert sorted(path.read_text().strip() for path in (tmp_path / "bad").iterdir()) == [BAD[100], BAD[200]]
