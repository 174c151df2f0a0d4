"""A lake in order has no finding; each thing that is broken in it has exactly its own; cleaning takes what belongs to nothing, and no more."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deployments.doctor import print_checkup, print_clean
from tasks.aggregation.aggregate import aggregate
from tasks.aggregation.consolidated import consolidate
from tasks.aggregation.depth_aggregate import DepthAggregates, aggregate_depth
from tasks.depth_recipe import DepthRecipe
from tasks.errors import StorageError
from tasks.footers import read_facts, read_footer
from tasks.locks import PARTITION, Claims
from tasks.partitions import MboRecipe, Partition, Stamp, digest
from tasks.publishing import ledger
from tasks.publishing.cleaning import clean
from tasks.publishing.doctor import examine
from tasks.publishing.draw import draw
from tasks.reconstruction.certify import certify, day_before
from tasks.reconstruction.depth_build import build_depth
from tasks.reconstruction.depth_certificate import certify_depth
from tasks.reconstruction.depth_export import CsvTarget
from tasks.reconstruction.depth_heatmap import build_depth_heatmap
from tasks.reconstruction.heatmap import build_heatmap
from tasks.reconstruction.rebuild import rebuild
from tasks.scanning.decode import decode
from tasks.scanning.depth_journal import DepthJournal
from tasks.scanning.depth_sources import open_depth, scan_depth
from tasks.scanning.inventory import scan
from tasks.scanning.synthetic import SessionSpec
from tasks.scanning.synthetic_depth import DepthSpec, write_archive
from tasks.scanning.synthetic_writers import write_session
from tasks.storage import _beside, write_table

RECIPE = MboRecipe(depth=3, interval_ns=60_000_000_000, bars=("5m",), heatmap_width=40, heatmap_height=30)
DAYS = ("2025-10-22", "2025-10-23")


def work_on(lake: Path, source: Path, recipe: MboRecipe = RECIPE, *, whole: bool = True) -> Partition:
    """A source through all stages, as the flow takes it; whole: with aggregates, picture and account."""
    (file,) = scan([str(source)]).files
    (part,) = decode(file, lake, recipe).parts
    before = day_before(lake, part.partition)
    built = rebuild(lake, part.partition, [part.path], recipe, carry=before)
    certify(lake, part.partition, recipe, day_before=before)
    if whole:
        aggregate(lake, part.partition, recipe)
        build_heatmap(lake, part.partition, [part.path], built, recipe, carry=before)
        draw(lake, part.partition, recipe.clock)
        ledger.write(lake, part.partition)
    return part.partition


def session(folder: Path, date: str = DAYS[0], seed: int = 1) -> Path:
    path = folder / f"feed-{date}.csv"
    folder.mkdir(parents=True, exist_ok=True)
    write_session(SessionSpec(records=2_000, seed=seed, date=date, live_orders=60), path, "csv")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, list[Partition]]:
    """A lake of two days with one bad row, and its partitions. Tests work on copies."""
    folder = tmp_path_factory.mktemp("doctor")
    sources = [session(folder, date) for date in DAYS]
    lines = sources[1].read_text().splitlines()
    lines[900] = lines[900].replace(lines[900].split(",")[0], "no time", 1)
    sources[1].write_text("\n".join(lines) + "\n")
    return folder / "lake", [work_on(folder / "lake", source) for source in sources]


@pytest.fixture
def lake(made, tmp_path) -> Path:
    return Path(shutil.copytree(made[0], tmp_path / "lake"))


@pytest.fixture
def day(made) -> Partition:
    return made[1][0]


@pytest.fixture(scope="module")
def made_depth(tmp_path_factory) -> tuple[Path, Partition]:
    """A lake of one depth feed with everything there is, the CSV record too."""
    folder = tmp_path_factory.mktemp("depth")
    spec = DepthSpec(depth=20, interval_ms=60_000)
    write_archive(folder / f"{spec.file_name}.zip", spec)
    return folder / "lake", depth_day(folder / "lake", folder, DepthRecipe(depths=(20, 5), interval_ns=600_000_000_000))


def depth_day(lake: Path, folder: Path, recipe: DepthRecipe) -> Partition:
    (source,) = scan_depth([str(folder)]).files
    csv = CsvTarget(str(folder / "csv"))
    build_depth(lake, source, recipe, lambda: open_depth(source), journal=lambda: DepthJournal(source, lake), csv=csv)
    wanted = DepthAggregates(max(recipe.depths), recipe.interval_ns, ("30m",))
    aggregate_depth(lake, source.partition, wanted)
    certify_depth(lake, source.partition)
    build_depth_heatmap(lake, source.partition, depth=wanted.depth, interval_ns=recipe.interval_ns, width=40, height=30)
    draw(lake, source.partition, "ts_event")
    ledger.write(lake, source.partition)
    return source.partition


@pytest.fixture
def depth_lake(made_depth, tmp_path) -> Path:
    return Path(shutil.copytree(made_depth[0], tmp_path / "lake"))


def wrong(lake: Path, *, deep: bool = False) -> list[tuple[str, str]]:
    """(kind, path) of all that is wrong."""
    return [(finding.kind, finding.path) for finding in examine(lake, deep=deep).findings if finding.wrong]


def restamp(path: Path, table: pa.Table | None = None, facts: dict[str, Any] | None = None, **entries: str) -> None:
    """The same file with other rows, facts or entries of its stamp."""
    footer = read_footer(path)
    assert footer is not None
    table = pq.read_table(path, partitioning=None) if table is None else table
    stamp = {name: entries.get(name, footer[f"bookmill.{name}"]) for name in ("inputs", "recipe", "code")}
    write_table(path, table.replace_schema_metadata(None), Stamp(**stamp), read_facts(path) | (facts or {}))


def test_a_lake_in_order_has_no_finding_but_tells_of_the_quarantine(lake):
    checkup = examine(lake, deep=True)
    assert checkup.healthy
    (told,) = checkup.findings
    assert (told.kind, told.wrong) == ("quarantine", False)
    assert "1 rows of feed-2025-10-23.csv were set aside at decode" in told.what
    assert clean(lake, old_events=True) == ([], "")


def test_a_depth_lake_in_order_has_no_finding(depth_lake):
    assert examine(depth_lake, deep=True).findings == []
    assert clean(depth_lake, old_events=True) == ([], "")


def test_layers_of_earlier_options_are_in_order(lake, made):
    more = MboRecipe(depth=2, interval_ns=RECIPE.interval_ns, bars=("1h",))
    work_on(lake, made[0].parent / "feed-2025-10-22.csv", more, whole=False)
    aggregate(lake, made[1][0], MboRecipe(depth=2, interval_ns=RECIPE.interval_ns, bars=("1h",)))
    ledger.write(lake, made[1][0])
    # The next day goes on from a closing book of other options: it alone is to be made again.
    assert {path.split("/")[2] for _, path in wrong(lake)} == {"date=2025-10-23"}
    assert {kind for kind, _ in wrong(lake)} == {"outdated"}
    work_on(lake, made[0].parent / "feed-2025-10-23.csv", more)
    assert wrong(lake) == []


def test_depth_layers_of_earlier_options_are_in_order(depth_lake, made_depth):
    depth_day(depth_lake, made_depth[0].parent, DepthRecipe(depths=(10,), interval_ns=1_200_000_000_000))
    assert examine(depth_lake).findings == []


def test_a_file_that_is_no_parquet_is_unreadable(lake, day):
    path = lake / day.path("trades")
    path.write_bytes(path.read_bytes()[:-10])
    assert wrong(lake) == [("unreadable", day.path("trades"))]


def test_only_a_deep_look_finds_a_broken_page(lake, day):
    path = lake / day.path("trades")
    raw = bytearray(path.read_bytes())
    raw[4:400] = b"\xff" * 396
    path.write_bytes(raw)
    assert wrong(lake) == []
    assert wrong(lake, deep=True) == [("unreadable", day.path("trades"))]


def test_an_account_with_a_broken_page_is_told_and_nothing_follows_from_it(lake):
    path = next((lake / "sources").rglob("*.parquet"))
    raw = bytearray(path.read_bytes())
    raw[4:400] = b"\xff" * 396
    path.write_bytes(raw)
    assert wrong(lake) == [("unreadable", path.relative_to(lake).as_posix())]
    assert clean(lake) == ([], "")


def test_a_file_without_our_footer_is_told(lake, day):
    path = lake / day.path("trades")
    pq.write_table(pq.read_table(path, partitioning=None).replace_schema_metadata(None), path)
    assert wrong(lake) == [("no_footer", day.path("trades"))]


def test_a_file_that_is_none_of_ours_is_told_and_kept(lake, day):
    note = (lake / day.path("trades")).with_name("note.txt")
    note.write_text("mine")
    assert wrong(lake) == [("foreign", note.relative_to(lake).as_posix())]
    assert clean(lake) == ([], "")


def test_rows_that_the_footer_does_not_count_are_told(lake, day):
    path = lake / day.path("trades")
    file = pq.ParquetFile(path)
    metadata = {**file.metadata.metadata, b"bookmill.rows": b"1"}
    pq.write_table(file.read().replace_schema_metadata(metadata), path)
    assert wrong(lake) == [("rows", day.path("trades"))]


def test_a_file_of_an_older_version_is_told(lake, day):
    restamp(lake / day.path("trades"), code="0")
    assert wrong(lake) == [("old_code", day.path("trades"))]


@pytest.mark.parametrize("layer", ["trades", "mbp-3", "ohlcv-5m", "features-1m", "certificate", "heatmap"])
def test_a_layer_that_was_made_from_something_else_is_outdated(lake, day, layer):
    restamp(lake / day.path(layer), inputs="something else")
    assert wrong(lake) == [("outdated", day.path(layer))]


def test_books_of_other_events_are_outdated(lake, day):
    events = read_facts(lake / day.path("bbo"))["events"][0]
    restamp(lake / events, inputs="something else")
    assert wrong(lake) == [("outdated", day.path("bbo"))]


@pytest.mark.parametrize("layer", ["depth-5-10m", "depth-20-10m", "mid-30m", "depth-features-10m", "certificate", "heatmap", "exports"])
def test_a_depth_layer_that_was_made_from_something_else_is_outdated(depth_lake, made_depth, layer):
    (path,) = (depth_lake / made_depth[1].path(layer)).parent.glob("*.parquet")
    restamp(path, inputs="something else")
    assert wrong(depth_lake) == [("outdated", path.relative_to(depth_lake).as_posix())]


def test_an_output_that_is_gone_is_missing(lake, day):
    (lake / day.path("mbp-3")).unlink()
    assert wrong(lake) == [("missing", day.path("bbo"))]


def test_a_rebuild_that_died_before_its_end_is_unfinished(lake, day):
    (lake / day.path("bbo")).unlink()
    assert wrong(lake) == [("unfinished", day.path("features-1m"))]


def test_events_that_no_source_lists_are_told_and_never_removed(lake, day):
    events = read_facts(lake / day.path("bbo"))["events"][0]
    (lake / "sources/dataset=GLBX.MDP3" / f"{events[-18:-8]}.parquet").unlink()
    assert wrong(lake) == [("unlisted", events)]
    assert clean(lake, old_events=True) == ([], "")


def test_an_account_of_events_that_are_gone_is_told_and_their_outputs_are_orphans(lake, made):
    last = made[1][1]
    events = read_facts(lake / last.path("bbo"))["events"][0]
    (lake / events).unlink()
    account = f"sources/dataset=GLBX.MDP3/{events[-18:-8]}.parquet"
    outputs = [path for path in files(lake) if f"date={last.date}" in path]
    pictures = [path for path in outputs if not path.endswith(".parquet")]
    assert {path for kind, path in wrong(lake) if kind == "orphan"} == set(outputs) - set(pictures)
    assert {kind for kind, _ in wrong(lake)} == {"missing", "orphan"}
    before = files(lake)
    assert clean(lake) == ([], ""), "books whose events were deleted to save space stay"
    would = clean(lake, dry_run=True, orphans=True)
    assert files(lake) == before
    assert would == clean(lake, orphans=True)
    assert {path for path, _ in would[0]} == set(outputs)
    assert wrong(lake) == [("missing", account)]
    assert not (lake / last.path("bbo")).parent.parent.exists()


def files(lake: Path) -> list[str]:
    return sorted(path.relative_to(lake).as_posix() for path in lake.rglob("*") if path.is_file())


def test_what_a_depth_feed_left_behind_is_an_orphan(depth_lake, made_depth):
    shutil.rmtree(depth_lake / "depth-bbo")
    shutil.rmtree(depth_lake / "sources")
    assert {kind for kind, _ in wrong(depth_lake)} == {"orphan"}
    clean(depth_lake)
    assert files(depth_lake) != []
    clean(depth_lake, orphans=True)
    assert files(depth_lake) == ["runs/lock"]


def test_a_picture_without_its_grid_is_an_orphan(lake, day):
    (lake / day.path("heatmap")).unlink()
    pictures = [day.path("heatmap", suffix=suffix) for suffix in (".html", ".png")]
    assert wrong(lake) == [("orphan", picture) for picture in pictures]
    sizes = [(lake / picture).stat().st_size for picture in sorted(pictures, reverse=True)]
    others = [lake / "heatmap" / "for-the-meeting.png", (lake / pictures[0]).with_name("part-1-17-annotated.html")]
    for path in others:
        path.write_bytes(b"somebody's own")
    assert sorted(clean(lake)[0], reverse=True) == list(zip(sorted(pictures, reverse=True), sizes, strict=True))
    assert wrong(lake) == []
    assert all(path.exists() for path in others)


def test_the_ledger_of_a_partition_that_is_gone_is_an_orphan(lake, day):
    lost = Partition(day.dataset, "2025-01-01", day.symbol, 1, 1)
    (lake / lost.path("ledger")).parent.mkdir(parents=True)
    shutil.copy(lake / day.path("ledger"), lake / lost.path("ledger"))
    assert wrong(lake) == [("orphan", lost.path("ledger"))]


def test_a_ledger_that_does_not_add_up_is_told(lake, day):
    restamp(lake / day.path("ohlcv-5m"), facts={"rows_filtered": 7})
    assert wrong(lake) == [("ledger", day.path("ledger"))]


def rewritten(path: Path, *, inputs: str = "", **values: object) -> None:
    """A ledger whose first line says something else, under the footer that it had."""
    table = pq.read_table(path, partitioning=None)
    lines = table.to_pylist()
    lines[0] |= values
    restamp(path, pa.Table.from_pylist(lines, table.schema.remove_metadata()), **({"inputs": digest(lines)} if inputs else {}))


@pytest.mark.parametrize("deep", [False, True])
def test_a_ledger_whose_lines_were_changed_by_hand_is_told_and_another_run_after_its_removal_mends_it(lake, day, deep):
    path = lake / day.path("ledger")
    rewritten(path, rows_in=1_999, rows_out=1_999)
    (told,) = [finding for finding in examine(lake, deep=deep).findings if finding.wrong]
    assert (told.kind, told.path) == ("ledger", day.path("ledger"))
    assert "digest" in told.what
    assert "rows_in of decode is 1999 in it, and 2000 by the files" in told.what
    assert told.remedy.startswith("Delete it and start the run again")
    path.unlink()
    ledger.write(lake, day)
    assert wrong(lake) == []


def test_a_ledger_with_a_line_less_is_told_although_its_footer_counts_the_lines_that_are_left(lake, day):
    path = lake / day.path("ledger")
    table = pq.read_table(path, partitioning=None)
    restamp(path, table.slice(0, len(table) - 1))
    (told,) = [finding for finding in examine(lake).findings if finding.wrong]
    assert (told.kind, told.path) == ("ledger", day.path("ledger"))
    assert "it has no line of aggregate:" in told.what


def test_a_ledger_of_lines_that_its_files_do_not_say_is_outdated_and_another_run_mends_it(lake, day):
    rewritten(lake / day.path("ledger"), inputs="anew", rows_in=1_999, rows_out=1_999)
    (told,) = [finding for finding in examine(lake).findings if finding.wrong]
    assert (told.kind, told.path) == ("outdated", day.path("ledger"))
    assert "rows_in of decode is 1999 in it, and 2000 by the files" in told.what
    ledger.write(lake, day)
    assert wrong(lake) == []


def test_a_ledger_that_lists_a_layer_which_was_deleted_is_outdated(lake, day):
    (lake / day.path("ohlcv-5m")).unlink()
    (told,) = [finding for finding in examine(lake).findings if finding.wrong]
    assert (told.kind, told.path) == ("outdated", day.path("ledger"))
    assert "a line of aggregate:ohlcv-5m, of which there are no files" in told.what


def test_the_ledger_of_a_depth_feed_is_held_to_its_digest_too(depth_lake, made_depth):
    rewritten(depth_lake / made_depth[1].path("ledger"), rows_quarantined=3)
    assert wrong(depth_lake) == [("ledger", made_depth[1].path("ledger"))]


def test_a_ledger_with_a_broken_page_is_told_and_the_rest_is_looked_at(lake, day):
    path = lake / day.path("ledger")
    raw = bytearray(path.read_bytes())
    raw[4:100] = b"\xff" * 96
    path.write_bytes(raw)
    assert wrong(lake) == [("unreadable", day.path("ledger"))]


def test_an_account_that_counts_other_rows_than_the_events_hold_is_told(lake, day):
    (path,) = [p for p in (lake / "sources").rglob("*.parquet") if pq.read_table(p, partitioning=None)["date"][0].as_py() == day.date]
    table = pq.read_table(path, partitioning=None)
    rows = table.to_pylist()
    rows[0]["rows_out"] -= 1
    restamp(path, pa.Table.from_pylist(rows, table.schema))
    assert wrong(lake) == [("account", path.relative_to(lake).as_posix())]


def test_partial_files_of_the_dead_go_and_those_of_the_living_stay(lake, day):
    path = _beside(lake / day.path("trades"))
    path.write_bytes(b"12345")
    (told,) = [finding for finding in examine(lake).findings if finding.kind == "partial"]
    assert "alive" in told.what
    assert not told.wrong
    (lake / day.path("heatmap")).unlink()
    assert clean(lake)[0] == []
    assert "run is writing" in clean(lake)[1]
    assert path.exists()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    orphan = path.rename(path.with_name(path.name.replace(f"-{os.getpid()}-", f"-{dead.pid}-")))
    name = orphan.relative_to(lake).as_posix()
    assert ("partial", name) in wrong(lake)
    assert (name, 5) in clean(lake)[0]
    assert not orphan.exists()


def test_partial_files_of_another_machine_are_told_and_kept(lake):
    path = lake / ".x.parquet.00000000-1-12345678.partial"
    path.write_bytes(b"")
    assert wrong(lake) == [("partial", path.name)]
    assert clean(lake) == ([], "")


def test_the_events_of_a_source_that_changed_are_named_and_go_only_when_asked(lake, made, tmp_path):
    last = made[1][1]
    old = read_facts(lake / last.path("bbo"))["events"][0]
    work_on(lake, session(tmp_path / "corrected", DAYS[1], seed=2))
    (new,) = read_facts(lake / last.path("bbo"))["events"]
    (told,) = [finding for finding in examine(lake).findings if finding.wrong]
    assert (told.kind, told.path) == ("old_events", old)
    assert new.rsplit("/", 1)[-1] in told.what
    assert clean(lake) == ([], "")
    removed = [path for path, _ in clean(lake, old_events=True)[0]]
    account = f"dataset=GLBX.MDP3/{old[-18:-8]}.parquet"
    assert removed == [f"sources/{account}", f"quarantine/{account.replace('/', '/source-')}", old]
    assert examine(lake, deep=True).findings == []
    assert (lake / new).exists()


def test_events_of_other_hours_under_the_same_name_are_told_and_kept(lake, made, tmp_path):
    last = made[1][1]
    old = read_facts(lake / last.path("bbo"))["events"][0]
    (tmp_path / "evening").mkdir()
    evening = tmp_path / "evening" / f"feed-{last.date}.csv"
    write_session(SessionSpec(records=2_000, date=last.date, start="21:00", hours=1.0, live_orders=60), evening, "csv")
    work_on(lake, evening)
    assert wrong(lake) == [("old_events", old)]
    assert clean(lake, old_events=True) == ([], "")


def test_a_consolidated_touch_belongs_to_the_books_of_its_publishers(tmp_path):
    lake, source = tmp_path / "lake", tmp_path / "two.csv"
    write_session(SessionSpec(records=2_000, publishers=(1, 2), live_orders=60), source, "csv")
    (file,) = scan([str(source)]).files
    parts = decode(file, lake, RECIPE).parts
    for part in parts:
        rebuild(lake, part.partition, [part.path], RECIPE)
    path = consolidate(lake, [part.partition for part in parts], clock=RECIPE.clock).path
    assert wrong(lake) == []
    restamp(lake / path, inputs="something else")
    assert wrong(lake) == [("outdated", path)]
    shutil.rmtree(lake / "bbo")
    assert ("orphan", path) in wrong(lake)
    assert path in [name for name, _ in clean(lake, orphans=True)[0]]


def test_cleaning_waits_for_a_run_on_what_would_go_and_leaves_what_that_made_anew(lake, day):
    events, told, removed = lake / "events", [], []
    aside = lake.parent / "aside"
    shutil.move(events, aside)
    books = [name for name, _ in clean(lake, dry_run=True, orphans=True)[0]]
    assert day.path("bbo") in books
    with Claims(lake) as run:
        run.claim(PARTITION, [str(day)])
        thread = threading.Thread(target=lambda: removed.extend(clean(lake, orphans=True, tell=told.append)[0]), daemon=True)
        thread.start()
        limit = time.monotonic() + 30
        while not told and time.monotonic() < limit:
            time.sleep(0.05)
        assert told == [f"another run works on {day}: waiting until it ends"] or f"another run works on {day} and" in told[0]
        assert all((lake / name).exists() for name in books)
        shutil.move(aside, events)  # what the run was at
    thread.join(30)
    assert not thread.is_alive()
    assert removed == []
    assert all((lake / name).exists() for name in books)


def test_layers_behind_a_link_are_looked_at_and_never_touched(lake, day, tmp_path):
    for layer in ("events", "heatmap"):
        shutil.move(lake / layer, tmp_path / layer)
        (lake / layer).symlink_to(tmp_path / layer)
    (lake / "bbo" / "round").symlink_to(lake)
    assert wrong(lake) == []
    (lake / day.path("heatmap")).unlink()
    assert {kind for kind, _ in wrong(lake)} == {"orphan"}
    before = files(tmp_path / "heatmap")
    removed, kept = clean(lake)
    assert (removed, "behind a link" in kept) == ([], True)
    assert files(tmp_path / "heatmap") == before


def test_the_exit_code_says_whether_something_is_wrong(lake, day, capsys):
    assert print_checkup(lake, False, False) == 0
    assert "nothing is wrong" in capsys.readouterr().out
    (lake / day.path("heatmap")).unlink()
    assert print_checkup(lake, True, False) == 1
    told = json.loads(capsys.readouterr().out)
    assert not told["healthy"]
    assert [f["path"] for f in told["findings"] if f["wrong"]] == [day.path("heatmap", suffix=suffix) for suffix in (".html", ".png")]


def test_looking_changes_nothing(lake):
    before = [(path, path.stat().st_mtime_ns) for path in sorted(lake.rglob("*"))]
    print_checkup(lake, True, True)
    print_clean(lake, True, True, True)
    assert [(path, path.stat().st_mtime_ns) for path in sorted(lake.rglob("*"))] == before


def test_without_a_lake_the_error_says_what_to_give(tmp_path):
    with pytest.raises(StorageError, match="--lake"):
        examine(tmp_path / "none")
