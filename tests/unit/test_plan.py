"""A plan says of every layer of a real lake what a run would find: done, missing, made with other options, by other code, or from something else."""

from __future__ import annotations

import glob
import json
import os
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from deployments import cli
from deployments.certify import read_truths
from deployments.options import absolute
from flows import plan_sources
from flows.plan import _failures, plan_orders
from flows.plan_batches import batches_of, units_of
from flows.plan_options import asked_of
from tasks.aggregation.aggregate import aggregate
from tasks.depth_recipe import DepthRecipe
from tasks.errors import UsageError
from tasks.footers import read_facts
from tasks.partitions import EventFilter, MboRecipe
from tasks.publishing import ledger
from tasks.publishing.freshness import STATES
from tasks.reconstruction.certify import certify, day_before
from tasks.reconstruction.rebuild import rebuild
from tasks.scanning.decode import decode
from tasks.scanning.inventory import scan
from tasks.scanning.synthetic import FIRST_INSTRUMENT_ID, SessionSpec
from tasks.scanning.synthetic_writers import write_session
from tasks.schemas import CODE_VERSION
from tests.oracles import naive_published

RECIPE = MboRecipe(depth=3, interval_ns=60_000_000_000, bars=("5m",))
DAYS = ("2025-10-22", "2025-10-23", "2025-10-24")
BOOKS = {"bbo", "mbp-3", "mbp-3-1m", "trades", "opening_book", "closing_book", "checkpoints"}
ABOVE = {"ohlcv-5m", "features-1m", "certificate", "ledger"}


def session(path: Path, day: str = DAYS[0], seed: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_session(SessionSpec(records=1_000, seed=seed, date=day, live_orders=60), path, path.suffix[1:])
    return path


def without_clear(path: Path) -> Path:
    """The session without the clear and snapshot with which it begins: its book needs that of the day before."""
    lines = path.read_text().splitlines()
    first = next(i for i, line in enumerate(lines[1:], 1) if line.split(",")[5] != "R" and not int(line.split(",")[11]) & 32)
    path.write_text("\n".join([lines[0], *lines[first:]]) + "\n")
    return path


def work_on(lake: Path, source: Path, carry: bool = True) -> None:
    """A source through all stages, as the flow takes it."""
    (file,) = scan([str(source)]).files
    for part in decode(file, lake, RECIPE).parts:
        before = day_before(lake, part.partition) if carry else None
        rebuild(lake, part.partition, [part.path], RECIPE, carry=before)
        certify(lake, part.partition, RECIPE, day_before=before)
        aggregate(lake, part.partition, RECIPE)
        ledger.write(lake, part.partition)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with three days, `in`, and their lake; the second and third go on from the day before them. Tests work on copies."""
    folder = tmp_path_factory.mktemp("plan")
    for day in DAYS:
        path = session(folder / "in" / f"ES-{day}.csv", day)
        if day != DAYS[0]:
            without_clear(path)
        work_on(folder / "lake", path)
    return folder


@pytest.fixture
def place(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def left(place: Path, recipe: MboRecipe = RECIPE) -> dict[str, set[tuple[str, str]]]:
    """State -> (date, layer) of what is not done."""
    found: dict[str, set[tuple[str, str]]] = {}
    for row in plan_orders([str(place / "in")], place / "lake", recipe).plan.rows(states=STATES[1:]):
        found.setdefault(row["state"], set()).add((row["date"], row["layer"]))
    return found


def test_a_lake_that_is_done_is_told_done(place):
    planned = plan_orders([str(place / "in")], place / "lake", RECIPE)
    assert planned.plan.counts() == {"done": 3 * len({"events"} | BOOKS | ABOVE)}
    carries = [read_facts(path)["carry"] for path in sorted((place / "lake").glob("bbo/*/*/*/*.parquet"))]
    assert [bool(carry) for carry in carries] == [False, True, True], "the days must go on from each other"
    assert planned.plan.todo() == []
    assert units_of(planned, STATES[1:]) == []


def test_a_source_of_another_name_is_to_be_decoded_again(tmp_path):
    path = tmp_path / "ESZ4.csv"
    path.write_text("ts_event,action,side,price,size,order_id,is_last\n1761130860000000000,A,B,1.5,1,1,1\n")
    decode(scan([path]).files[0], tmp_path / "lake", RECIPE)

    def states(**named) -> list[str]:
        return [row["state"] for row in plan_orders([str(path)], tmp_path / "lake", RECIPE, **named).plan.sources()]

    assert states() == ["done"]
    assert states(symbol="ESZ5") == ["stale: recipe"]


@pytest.mark.parametrize(
    ("first", "second", "carried"),
    [
        ({1}, {1}, {1: 1}),
        ({1}, {2}, {2: 1}),  # the id of an instrument may change over night
        ({1, 2}, {1, 2}, {1: 1, 2: 2}),
        ({1}, {1, 2}, {1: 1, 2: None}),
        ({1, 2}, {2, 3}, {2: 2, 3: None}),
        ({1, 2}, {3}, {3: None}),
        ({1}, {2, 3}, {2: None, 3: None}),
    ],
)
def test_a_book_goes_on_from_its_own_instrument_and_a_plan_finds_it_so(tmp_path, first, second, carried):
    for day, numbers in zip(DAYS, (first, second), strict=False):
        rows: list[str] = []
        for number in numbers:
            path = session(tmp_path / f"{number}.csv", day, seed=number)
            header, *lines = (path if day == DAYS[0] else without_clear(path)).read_text().splitlines()
            rows += [",".join([*cells[:4], str(number), *cells[5:]]) for cells in (line.split(",") for line in lines)]
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{day}.csv").write_text("\n".join([header, *sorted(rows)]) + "\n")
        work_on(tmp_path / "lake", tmp_path / "in" / f"{day}.csv")
    found = {p.stem: read_facts(p)["carry"] for p in tmp_path.glob(f"lake/bbo/*/date={DAYS[1]}/*/*.parquet")}
    assert {int(name.split("-")[-1]): Path(carry).stem if carry else None for name, carry in found.items()} == {
        number: f"part-1-{before}" if before else None for number, before in carried.items()
    }
    assert left(tmp_path) == {}


def test_what_is_gone_is_missing_and_what_is_made_of_it_stays(place):
    (bars,) = place.glob(f"lake/ohlcv-5m/*/date={DAYS[1]}/*/*.parquet")
    bars.unlink()
    assert left(place) == {"missing": {(DAYS[1], "ohlcv-5m")}}


def test_a_missing_book_makes_all_that_goes_on_from_it_stale(place):
    (book,) = place.glob(f"lake/bbo/*/date={DAYS[0]}/*/*.parquet")
    book.unlink()
    found = left(place)
    assert found["missing"] == {(DAYS[0], "bbo")}
    assert found["stale: source"] == {(DAYS[0], layer) for layer in ABOVE} | {(day, layer) for day in DAYS[1:] for layer in BOOKS | ABOVE}


def test_other_options_make_stale_what_they_count_for_and_nothing_else(place):
    wider = MboRecipe(depth=5, interval_ns=60_000_000_000, bars=("5m",))
    found = left(place, wider)
    shared = BOOKS - {"mbp-3", "mbp-3-1m"}
    assert found["missing"] == {(day, layer) for day in DAYS for layer in ("mbp-5", "mbp-5-1m")}
    assert found["stale: recipe"] == {(day, layer) for day in DAYS for layer in shared | ABOVE}
    more = MboRecipe(depth=3, interval_ns=60_000_000_000, bars=("5m", "15m"))
    assert left(place, more) == {"missing": {(day, "ohlcv-15m") for day in DAYS}}
    ended = MboRecipe(depth=3, interval_ns=60_000_000_000, bars=("5m",), filter=EventFilter(end_ns=2**62))
    assert {(day, "events") for day in DAYS} <= left(place, ended)["stale: recipe"]


def test_a_plan_of_fewer_symbols_finds_what_a_run_of_all_made_and_one_of_more_does_not(tmp_path):
    write_session(SessionSpec(records=600, seed=3, symbols=("AAA", "BBB", "CCC"), live_orders=40), tmp_path / "in" / "three.csv", "csv")
    (source,) = scan([str(tmp_path / "in")]).files

    def states(*symbols: str) -> list[str]:
        recipe = replace(RECIPE, filter=EventFilter(symbols=symbols))
        return [entry["state"] for entry in plan_orders([str(tmp_path / "in")], tmp_path / "lake", recipe).plan.sources()]

    assert states("AAA") == ["missing"]
    for symbol in ("AAA", "BBB"):
        decode(source, tmp_path / "lake", replace(RECIPE, filter=EventFilter(symbols=(symbol,))))
    assert [states(*symbols) for symbols in (["AAA"], ["BBB", "AAA"])] == [["done"]] * 2
    assert [states(*symbols) for symbols in (["CCC"], [])] == [["stale: recipe"]] * 2
    decode(source, tmp_path / "lake", RECIPE)
    assert [states(*symbols) for symbols in (["CCC"], ["AAA"], [])] == [["done"]] * 3


def test_files_of_another_version_of_the_code_are_stale(place, monkeypatch):
    from tasks.publishing import freshness

    monkeypatch.setattr(freshness, "CODE_VERSION", "another")
    assert {layer for _, layer in left(place)["stale: code"]} == {"events"} | BOOKS | ABOVE


def test_a_source_that_changed_is_stale_by_its_name_and_a_new_one_is_missing(place):
    session(place / "in" / f"ES-{DAYS[2]}.csv", DAYS[2], seed=9)
    session(place / "in" / "NQ-2025-10-25.dbn", "2025-10-25")
    planned = plan_orders([str(place / "in")], place / "lake", RECIPE)
    states = {planned.files[entry["id"]].file.name: entry["state"] for entry in planned.plan.sources()}
    assert states == {
        f"ES-{DAYS[0]}.csv": "done", f"ES-{DAYS[1]}.csv": "done", f"ES-{DAYS[2]}.csv": "stale: source", "NQ-2025-10-25.dbn": "missing",
    }  # fmt: skip
    units = units_of(planned, STATES[1:])
    assert [[f.file.name for f in unit.files] for unit in batches_of(units, 1)[0]] == [[f"ES-{DAYS[2]}.csv"]]
    only = plan_orders([str(place / "in")], place / "lake", RECIPE, start="2025-10-25")
    # The CSV files do not tell their days before they are read.
    assert "NQ-2025-10-25.dbn" in {found.file.name for found in only.files}
    assert plan_orders([str(place / "in")], place / "lake", RECIPE, end="2025-10-25").plan.counts().get("missing") is None


def test_events_that_a_killed_gate_left_behind_are_stale(place):
    from tasks.scanning.gate_quarantine import quarantine_rows

    (events,) = place.glob(f"lake/events/*/date={DAYS[1]}/*/*.parquet")
    account = place / "lake" / "sources" / events.parts[-4] / f"{events.stem.rsplit('-', 1)[-1]}.parquet"
    before = account.read_bytes()
    quarantine_rows(place / "lake", events, [3], ["size_usable"], "gate:events")
    assert (DAYS[1], "bbo") in left(place)["stale: source"]
    account.write_bytes(before)  # killed before the account was written
    planned = plan_orders([str(place / "in")], place / "lake", RECIPE)
    assert [planned.files[e["id"]].file.name for e in planned.plan.sources() if e["state"] == "stale: source"] == [f"ES-{DAYS[1]}.csv"]


def test_sources_of_one_partition_stay_together(tmp_path):
    path = session(tmp_path / "in" / "all.csv")
    lines = path.read_text().splitlines()
    for name, part in (("a.csv", lines[1:500]), ("b.csv", lines[500:])):
        (tmp_path / "in" / name).write_text("\n".join([lines[0], *part]) + "\n")
        (file,) = scan([str(tmp_path / "in" / name)]).files
        decode(file, tmp_path / "lake", RECIPE)
    path.unlink()
    units = units_of(plan_orders([str(tmp_path / "in")], tmp_path / "lake", RECIPE), STATES[1:])
    assert [sorted(f.file.name for f in unit.files) for unit in units] == [["a.csv", "b.csv"]]


def test_published_books_that_the_lake_has_not_read_are_told_and_stand_beside_the_states(place, monkeypatch, capsys):
    def bookmill(*arguments: str) -> tuple[int, str]:
        options = ("-o", "depth=3", "-o", "interval=1m", "-o", "bars=5m")
        monkeypatch.setattr(sys, "argv", ["bookmill", "plan", "mbo", str(place / "in"), "--lake", str(place / "lake"), *options, *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0), capsys.readouterr().out

    assert "LEFT OUT" not in bookmill()[1]
    books = [place / "in" / f"ES-{day}.bbo-1s.dbn" for day in DAYS[:2]]
    for path, day in zip(books, DAYS, strict=False):
        path.write_bytes(naive_published.bbo_day(day, "ESZ5", FIRST_INSTRUMENT_ID))
    planned = plan_orders([str(place / "in")], place / "lake", RECIPE)
    assert ([file.path for file in planned.unread], planned.plan.todo()) == ([str(path) for path in books], [])
    assert [file.dates for file in plan_orders([str(place / "in")], place / "lake", RECIPE, start=DAYS[1]).unread] == [(DAYS[1],)]
    other = MboRecipe(depth=3, interval_ns=60_000_000_000, bars=("5m",), filter=EventFilter(symbols=("NQZ5",)))
    assert plan_orders([str(place / "in")], place / "lake", other).unread == []
    code, told = bookmill()
    assert (code, "3 sources, 0 to do" in told, f"LEFT OUT 2 published books that are not in the lake: {books[0]}, {books[1]}." in told) == (
        0,
        True,
        True,
    )
    assert "`bookmill certify FILE --lake LAKE`" in told
    assert [entry["path"] for entry in json.loads(bookmill("--json")[1])["unread"]] == [str(path) for path in books]
    read_truths(place / "lake", [str(books[0])])
    assert [file.path for file in plan_orders([str(place / "in")], place / "lake", RECIPE).unread] == [str(books[1])]


def test_a_file_is_read_again_only_when_it_changed(place, monkeypatch):
    plan_orders([str(place / "in")], place / "lake", RECIPE)
    scanned: list[str] = []
    whole = plan_sources.scan
    monkeypatch.setattr(plan_sources, "scan", lambda given, **options: scanned.extend(given) or whole(given, **options))
    (place / "in" / "README.md").write_text("what these files are")
    (place / "in" / "strange.csv").write_bytes(b"neither this\nnor that\n")
    planned = plan_orders([str(place / "in")], place / "lake", RECIPE)
    assert (len(scanned), [Path(path).name for path, _ in planned.rejected]) == (2, ["strange.csv"])
    again = plan_orders([str(place / "in")], place / "lake", RECIPE)
    assert (len(scanned), again.rejected, [f.file for f in again.files]) == (2, planned.rejected, [f.file for f in planned.files])
    session(place / "in" / f"ES-{DAYS[2]}.csv", DAYS[2], seed=9)
    plan_orders([str(place / "in")], place / "lake", RECIPE)
    assert len(scanned) == 3


def test_a_file_that_somebody_names_is_told_where_it_cannot_be_used_and_side_material_of_a_folder_is_not(place):
    bad, aside = place / "in" / "bad.dbn.zst", place / "in" / "README.md"
    bad.write_bytes(b"garbage")
    aside.write_text("what these files are")
    folder = [str(place / "in")]

    def rejected(sources: list[str]) -> list[str]:
        return [Path(path).name for path, _ in plan_orders(sources, place / "lake", RECIPE).rejected]

    assert rejected(folder) == ["bad.dbn.zst"]
    assert rejected([*folder, str(bad), str(aside)]) == ["README.md", "bad.dbn.zst"]
    assert rejected(folder) == ["bad.dbn.zst"]  # whatever is remembered of the look before


def test_a_rejection_that_can_pass_is_not_kept(tmp_path):
    """The message file of a LOBSTER pair that is seen before its order book file has come."""
    folder, lake = tmp_path / "in", tmp_path / "lake"
    folder.mkdir()
    lake.mkdir()
    name = "AMZN_2012-06-21_34200000_57600000_{}_1.csv"
    (folder / name.format("message")).write_text("34200.1,1,11,10,1000000,1\n34200.2,1,12,10,1000100,-1\n")
    look = plan_sources.look_for_orders([str(folder)], lake)
    assert (len(look.files), len(look.rejected)) == (0, 1)
    (folder / name.format("orderbook")).write_text("9999999999,0,1000000,10\n1000100,10,1000000,10\n")
    look = plan_sources.look_for_orders([str(folder)], lake)
    assert (len(look.files), look.rejected) == (1, [])


def note_run(lake: Path, number: int, recipe: object, partitions: list[dict], rejected: list[dict]) -> None:
    """The facts of a run, as its report leaves them."""
    (lake / "runs").mkdir(parents=True, exist_ok=True)
    facts = {"code": CODE_VERSION, "recipe": asdict(recipe), "partitions": partitions, "rejected": rejected}
    (lake / "runs" / f"2025102{number}T000000.json").write_text(json.dumps(facts, default=str))


def test_a_failure_is_that_of_its_content_and_not_of_its_name(tmp_path):
    paths = [session(tmp_path / "in" / day / "ES.csv", day) for day in DAYS[:2]]
    files = {f.fingerprint: f for f in scan([str(tmp_path / "in")]).files}
    for path in paths:
        os.utime(path, (1_760_000_000, 1_760_000_000))
    bad = next(f for f in files.values() if DAYS[0] in f.path)
    note_run(tmp_path / "lake", 1, RECIPE, [], [{"path": "ES.csv", "error": "cut", "fingerprints": [bad.fingerprint]}])
    planned = plan_orders([str(tmp_path / "in")], tmp_path / "lake", RECIPE)
    states = {Path(planned.files[e["id"]].file.path).parent.name: e["state"] for e in planned.plan.sources()}
    assert states == {DAYS[0]: "failed", DAYS[1]: "missing"}


def test_a_depth_source_that_a_newer_run_did_has_not_failed(tmp_path):
    recipe, subject = DepthRecipe(), "bybit BTCUSDT 2025-08-01 p0-0"
    part = {"dataset": "bybit", "date": "2025-08-01", "symbol": "BTCUSDT", "publisher_id": 0, "instrument_id": 0}
    note_run(tmp_path, 1, recipe, [], [{"path": subject, "error": "no folder"}])
    assert subject in _failures(tmp_path, asdict(recipe))["sources"]
    note_run(tmp_path, 2, recipe, [{"partition": part, "error": ""}], [])
    assert _failures(tmp_path, asdict(recipe))["sources"] == {}
    note_run(tmp_path, 3, recipe, [], [{"path": subject, "error": "again"}])
    assert _failures(tmp_path, asdict(recipe))["sources"][subject][0] == "again"


def test_a_pattern_is_the_same_in_another_folder(tmp_path, monkeypatch):
    folder = tmp_path / "a[1]"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "ES.csv").write_text("")
    monkeypatch.chdir(folder)
    given = absolute(["data/*.csv", "data", "", "~/x"])
    monkeypatch.chdir(tmp_path)
    assert glob.glob(given[0]) == [str(folder / "data" / "ES.csv")]
    assert given[1:] == [str(folder / "data"), "", "~/x"]


def test_the_command_prints_states_filters_them_and_tells_by_its_code_whether_something_is_left(place, monkeypatch, capsys):
    def bookmill(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["bookmill", "plan", "mbo", str(place / "in"), "--lake", str(place / "lake"), *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        told = capsys.readouterr()
        return int(end.value.code or 0), told.out + told.err

    options = ("-o", "depth=3", "-o", "interval=1m", "-o", "bars=5m")
    code, told = bookmill(*options)
    assert (code, f"{3 * 12} done (partitions times layers)." in told, "3 sources, 0 to do" in told) == (0, True, True)
    code, told = bookmill(*options[:4], "-o", "bars=5m,15m", "--state", "missing")
    assert (code, [line.split()[2] for line in told.splitlines() if "ES" in line]) == (1, ["ohlcv-15m"])
    code, told = bookmill(*options[:4], "-o", "bars=5m,15m", "--state", "missing", "--layer", "ohlcv-15m", "--json")
    rows = json.loads(told)["partitions"]
    assert (code, [(row["date"], row["layer"], row["state"]) for row in rows]) == (1, [(day, "ohlcv-15m", "missing") for day in DAYS])
    assert bookmill("--state", "fresh")[0] == 2
    code, told = bookmill("-o", "depht=3")
    assert (code, "'depht' is none of the flow; allowed:" in told) == (2, True)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"kind": "ticks"}, "allowed: mbo, depth"), ({"start": "2025-13-01"}, "allowed: a day"), ({"options": {"bars": "1parsec"}}, "1parsec"),
        ({"options": {"salvage": "perhaps"}}, "true or false"), ({"options": {"depth": "many"}}, "a whole number"), ({"settle": "soon"}, "soon"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_with_what_can(wrong, told):
    with pytest.raises(UsageError, match=told):
        asked_of(**({"kind": "mbo", "sources": ["in"], "lake": "lake"} | wrong))
