"""Mended rows come back in their place: events are those of a source that never had the fault, rows are counted once, and a kill loses nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deployments import cli
from deployments.quarantine import export_quarantine
from deployments.replay_quarantine import replay_all
from tasks.errors import SourceError, UsageError
from tasks.footers import read_facts
from tasks.locks import PARTITION, SOURCE, Claims, source_claim
from tasks.partitions import EventFilter, MboRecipe, SourceFile
from tasks.publishing import ledger
from tasks.publishing.doctor import examine
from tasks.reconstruction.rebuild import is_rebuilt, rebuild, rebuild_stamp
from tasks.scanning.decode import decode, is_decoded
from tasks.scanning.gate_quarantine import quarantine_rows
from tasks.scanning.inventory import scan
from tasks.scanning.replay_patch import Mend
from tasks.scanning.replay_quarantine import mends_path, quarantined_rows, read_mends, replay
from tasks.scanning.synthetic import SessionSpec
from tasks.scanning.synthetic_writers import write_session
from tasks.schemas import MBO_RECORD

ROOT = Path(__file__).resolve().parents[2]
RECIPE = MboRecipe(depth=3, interval_ns=60_000_000_000, bars=("5m",))
COUNTS = ("rows_in", "rows_out", "rows_filtered", "rows_quarantined")


def source_of(path: Path) -> SourceFile:
    (source,) = scan([path]).files
    return source


def events_of(lake: Path) -> list[dict]:
    return [row for path in sorted(lake.glob("events/*/*/*/*.parquet")) for row in pq.read_table(path, partitioning=None).to_pylist()]


def marks_of(lake: Path) -> list[list[int]]:
    return [read_facts(path)["suspect_rows"] for path in sorted(lake.glob("events/*/*/*/*.parquet"))]


def data_of(lake: Path) -> dict[str, bytes]:
    files = [p for p in sorted(lake.rglob("*")) if p.is_file() and ".replay" not in p.parts and p.relative_to(lake).parts[0] != "runs"]
    return {p.relative_to(lake).as_posix(): p.read_bytes() for p in files}


@pytest.fixture(scope="module")
def good_csv(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("good") / "two.csv"
    write_session(SessionSpec(records=1_500, seed=3, symbols=("AAA", "BBB"), live_orders=60), path, "csv")
    return path


@pytest.fixture
def spoilt(good_csv, tmp_path) -> tuple[Path, list[bytes]]:
    """A CSV file with an unreadable time, a line with too many fields, an unknown action and a line that says nothing; and the good rows."""
    lines = good_csv.read_bytes().splitlines()
    good = [lines[at] for at in (200, 400, 600, 800)]
    lines[200] = lines[200].replace(lines[200].split(b",")[0], b"no time", 1)
    lines[400] = lines[400].replace(b",160,", b",160,,,", 1)
    fields = lines[600].split(b",")
    lines[600] = b",".join([*fields[:5], b"X", *fields[6:]])
    lines[800] = b"?"
    path = tmp_path / "in" / "two.csv"
    path.parent.mkdir()
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path, good


def time_of(line: bytes) -> int:
    """ts_recv of a line in ns."""
    return int(np.datetime64(line.split(b",")[0].decode().rstrip("Z"), "ns").astype(np.int64))


def mends_for(lake: Path, source: SourceFile, good: list[bytes]) -> list[Mend]:
    rows = quarantined_rows(lake, source)
    return [Mend(r["source_row"], r["byte_offset"], r["reason"], r["raw"], line) for r, line in zip(rows, good, strict=True)]


def test_mended_rows_stand_where_they_stood_and_all_rows_are_counted_once(spoilt, good_csv, tmp_path):
    path, good = spoilt
    lake, source = tmp_path / "lake", source_of(path)
    first = decode(source, lake, RECIPE)
    assert first.rows_quarantined == 4
    mends = mends_for(lake, source, good)
    # One by one, in no order: rows that are left keep their places in the source, though mended ones are longer.
    for chosen in (mends[2], mends[0]):
        replay(source, lake, RECIPE, [chosen])
    left = [row for row in mends if row not in (mends[2], mends[0])]
    assert [(r["source_row"], r["byte_offset"], r["raw"]) for r in quarantined_rows(lake, source)] == [
        (m.source_row, m.byte_offset, m.raw) for m in left
    ]
    done = replay(source, lake, RECIPE, left)
    assert (done.replayed, done.quarantined, read_mends(lake, source)) == (4, 0, mends)
    decode(source_of(good_csv), tmp_path / "good", RECIPE)
    assert events_of(lake) == events_of(tmp_path / "good")
    assert marks_of(lake) == [[], []]
    now = is_decoded(source, lake, RECIPE)
    assert now is not None
    assert (now.rows_in, now.rows_out, now.rows_quarantined) == (first.rows_in, first.rows_out + 4, 0)
    assert ledger.check(ledger.collect(lake, [part.partition for part in now.parts])) == []
    assert [f.kind for f in examine(lake).findings if f.wrong] == []


def test_mends_of_one_symbol_leave_what_another_run_has_of_the_source_and_a_decode_of_more_says_that_they_are_gone(spoilt, tmp_path):
    path, good = spoilt
    lake, source = tmp_path / "lake", source_of(path)
    whole = tmp_path / "whole"
    decode(source, whole, RECIPE)
    one, other = (replace(RECIPE, filter=EventFilter(symbols=(name,))) for name in ("AAA", "BBB"))
    decode(source, lake, one)
    with pytest.raises(UsageError, match="other options"):
        replay(source, lake, RECIPE)
    decode(source, lake, other)
    assert sorted(row["source_row"] for row in quarantined_rows(lake, source)) == [row["source_row"] for row in quarantined_rows(whole, source)]
    mends = mends_for(whole, source, good)
    for recipe, chosen in ((one, mends[:2]), (other, mends[2:])):
        replay(source, lake, recipe, chosen)
    replay(source, whole, RECIPE, mends)
    assert (events_of(lake), marks_of(lake)) == (events_of(whole), marks_of(whole))
    for recipe in (one, other):
        there, alone = is_decoded(source, lake, recipe), is_decoded(source, whole, recipe)
        assert (there.rows_in, there.rows_out, there.rows_filtered, there.rows_quarantined) == (
            alone.rows_in, alone.rows_out, alone.rows_filtered, alone.rows_quarantined,
        )  # fmt: skip
    assert [f.kind for f in examine(lake).findings if f.wrong] == []
    # More than both wanted: the source is decoded as it stands, and nothing of it is left without an account.
    third = replace(RECIPE, filter=EventFilter(symbols=("CCC",)))
    assert not decode(source, lake, third).skipped
    assert is_decoded(source, lake, replace(RECIPE, filter=EventFilter(symbols=("AAA", "BBB", "CCC")))).rows_quarantined == 4
    assert [f.kind for f in examine(lake).findings if f.wrong] == []
    replay(source, lake, one)
    assert (events_of(lake), marks_of(lake)) == (events_of(whole), marks_of(whole))


@pytest.mark.parametrize("publishers", [(), (1,)])
def test_a_mended_row_that_the_filter_drops_is_no_event_and_counted_as_a_decode_counts_it(publishers, spoilt, good_csv, tmp_path):
    path, good = spoilt
    lake, source = tmp_path / "lake", source_of(path)
    fields = good_csv.read_bytes().splitlines()
    recipe = replace(RECIPE, filter=EventFilter(end_ns=time_of(fields[1_200]), publishers=publishers))
    decode(source, lake, recipe)
    late = good[0].split(b",")
    late[0] = fields[1_300].split(b",")[0]  # ts_recv after the end
    other = good[1].split(b",")
    other[fields[0].split(b",").index(b"publisher_id")] = b"7"
    mended = [b",".join(late), b",".join(other), *good[2:]]
    done = replay(source, lake, recipe, mends_for(lake, source, mended))
    expected = {"time": 1} | ({"publisher": 1} if publishers else {})
    assert (done.filtered, done.replayed, done.quarantined) == (expected, 4 - len(expected), 0)
    # As a source that had held these rows.
    whole = path.read_bytes().splitlines()
    for at, line in zip((200, 400, 600, 800), mended, strict=True):
        whole[at] = line
    path.write_bytes(b"\n".join(whole) + b"\n")
    decode(source_of(path), tmp_path / "good", recipe)
    assert events_of(lake) == events_of(tmp_path / "good")
    facts = [[read_facts(p) for p in sorted(folder.glob("events/*/*/*/*.parquet"))] for folder in (lake, tmp_path / "good")]
    assert [f["filtered"] for f in facts[0]] == [f["filtered"] for f in facts[1]]
    assert sum(f.get("replayed", 0) for f in facts[0]) == done.replayed


def test_the_command_tells_of_mended_rows_that_are_not_wanted(spoilt, good_csv, tmp_path, capsys):
    path, good = spoilt
    lake, folder = tmp_path / "lake", tmp_path / "mend"
    lines = good_csv.read_bytes().splitlines()
    recipe = replace(RECIPE, filter=EventFilter(end_ns=time_of(lines[1_200])))
    decode(source_of(path), lake, recipe)
    (line,) = export_quarantine(lake, folder)
    late = b",".join([lines[1_300].split(b",")[0], *good[0].split(b",")[1:]])
    Path(line.split(": ")[0]).write_bytes(b"\n".join([late, *good[1:]]) + b"\n")
    assert replay_all([str(path)], lake, recipe, folder, [], "", "") == 0
    told = capsys.readouterr().out
    assert "3 mended rows are events, 0 rows in quarantine, 1 mended rows are good and not wanted by the filter of the run (1 by time)" in told


def test_books_of_replayed_events_are_stale_and_those_of_others_are_not(spoilt, tmp_path):
    path, good = spoilt
    lake, source = tmp_path / "lake", source_of(path)
    parts = {part.partition: part.path for part in decode(source, lake, RECIPE).parts}
    for partition, events in parts.items():
        rebuild(lake, partition, [events], RECIPE)
    (chosen,) = [mend for mend in mends_for(lake, source, good) if mend.reason == "action"]
    symbol = chosen.mended.split(b",")[-1].decode()
    replay(source, lake, RECIPE, [chosen])
    stale = [p.symbol for p, e in parts.items() if is_rebuilt(lake, p, rebuild_stamp(lake, [e], RECIPE, None), RECIPE) is None]
    # The place of the row is no longer suspect, and no other partition of the source had lost it.
    assert stale == [symbol]


def test_a_row_that_is_bad_still_stays_in_quarantine_and_can_be_mended_again(spoilt, tmp_path):
    path, good = spoilt
    lake, source = tmp_path / "lake", source_of(path)
    decode(source, lake, RECIPE)
    mends = mends_for(lake, source, good)
    worse = replace(mends[0], mended=mends[0].raw.replace(b"no time", b"still no time"))
    done = replay(source, lake, RECIPE, [worse])
    assert (done.replayed, done.quarantined, done.changed) == (0, 4, ())
    done = replay(source, lake, RECIPE, mends)
    assert (done.replayed, done.quarantined) == (4, 0)


def test_a_second_replay_changes_no_byte(spoilt, tmp_path):
    path, good = spoilt
    lake, source = tmp_path / "lake", source_of(path)
    decode(source, lake, RECIPE)
    replay(source, lake, RECIPE, mends_for(lake, source, good)[:2])
    before = data_of(lake)
    replay(source, lake, RECIPE)
    assert data_of(lake) == before


@pytest.mark.parametrize("format", ["dbn.zst", "parquet", "csv.gz"])
def test_rows_of_each_format_are_mended(format, tmp_path):
    path = tmp_path / "in" / f"session.{format}"
    path.parent.mkdir()
    write_session(SessionSpec(records=1_000, seed=4, symbols=("AAA",), live_orders=60), path, format)
    good = tmp_path / "good"
    decode(source_of(path), good, RECIPE)
    at = 500
    if format == "parquet":
        table = pq.read_table(path)
        action = table["action"].to_pylist()
        action[at] = "X"
        pq.write_table(table.set_column(table.schema.get_field_index("action"), "action", pa.array(action)), path, row_group_size=300)
    elif format == "csv.gz":
        import gzip

        lines = gzip.decompress(path.read_bytes()).splitlines()
        fields = lines[at + 1].split(b",")
        lines[at + 1] = b",".join([*fields[:5], b"X", *fields[6:]])
        path.write_bytes(gzip.compress(b"\n".join(lines) + b"\n"))
    else:
        import zstandard

        data = bytearray(zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read())
        start = len(data) - 1_000 * MBO_RECORD.itemsize + at * MBO_RECORD.itemsize
        np.frombuffer(data, MBO_RECORD, 1, start)["action"][0] = ord("X")
        path.write_bytes(zstandard.ZstdCompressor().compress(bytes(data)))
    lake, source = tmp_path / "lake", source_of(path)
    decode(source, lake, RECIPE)
    (row,) = quarantined_rows(lake, source)
    truth = events_of(good)[at]["action"]
    if format == "parquet":
        mended = json.dumps(json.loads(row["raw"]) | {"action": truth}).encode()
    elif format == "csv.gz":
        mended = row["raw"].replace(b",X,", f",{truth},".encode())
    else:
        record = np.frombuffer(row["raw"], MBO_RECORD).copy()
        record["action"] = ord(truth)
        mended = record.tobytes()
    done = replay(source, lake, RECIPE, [Mend(row["source_row"], row["byte_offset"], row["reason"], row["raw"], mended)])
    assert (done.replayed, done.quarantined) == (1, 0)
    assert events_of(lake) == events_of(good)


@pytest.mark.parametrize(("order_id", "replayed"), [(2**63 + 7, 1), (2**64 - 1, 1), (2**64, 0)])
def test_a_parquet_row_is_mended_with_any_order_id_of_64_bits(order_id, replayed, tmp_path):
    path = tmp_path / "in" / "session.parquet"
    path.parent.mkdir()
    write_session(SessionSpec(records=100, seed=4, symbols=("AAA",), live_orders=20), path, "parquet")
    table = pq.read_table(path)
    columns = {"size": [-1, *table["size"].to_pylist()[1:]], "order_id": [2**63 + 7, *table["order_id"].to_pylist()[1:]]}
    for name, dtype in (("size", pa.int64()), ("order_id", pa.uint64())):
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(columns[name], dtype))
    pq.write_table(table, path)
    lake, source = tmp_path / "lake", source_of(path)
    decode(source, lake, RECIPE)
    (row,) = quarantined_rows(lake, source)
    mend = Mend(0, -1, row["reason"], row["raw"], json.dumps(json.loads(row["raw"]) | {"size": 1, "order_id": order_id}).encode())
    if replayed:
        assert replay(source, lake, RECIPE, [mend]).replayed == 1
        assert events_of(lake)[0]["order_id"] == order_id
    else:
        with pytest.raises(UsageError, match="which is no uint64"):
            replay(source, lake, RECIPE, [mend])


def test_rows_that_a_gate_set_aside_are_events_again_for_the_next_gate(good_csv, tmp_path):
    lake, source = tmp_path / "lake", source_of(good_csv)
    decode(source, lake, RECIPE)
    before = data_of(lake)
    (name, _) = [part.path for part in is_decoded(source, lake, RECIPE).parts]
    quarantine_rows(lake, name, np.array([5, 9]), ["size_usable"] * 2, "gate:events")
    done = replay(source, lake, RECIPE)
    assert (done.judged_again, done.changed) == (2, (name,))
    after = data_of(lake)
    assert after.keys() == before.keys()
    assert all(after[key] == before[key] for key in before if not key.startswith("sources/"))
    assert is_decoded(source, lake, RECIPE).rows_quarantined == 0


def test_what_cannot_be_mended_is_refused_and_nothing_is_changed(spoilt, tmp_path):
    path, good = spoilt
    lake, source = tmp_path / "lake", source_of(path)
    with pytest.raises(UsageError, match="was not decoded"):
        replay(source, lake, RECIPE)
    decode(source, lake, RECIPE)
    mend = mends_for(lake, source, good)[0]
    before = data_of(lake)
    row, offset, reason, raw, line = mend.source_row, mend.byte_offset, mend.reason, mend.raw, mend.mended
    with pytest.raises(UsageError, match="line break"):
        replay(source, lake, RECIPE, [Mend(row, offset, reason, raw, line + b"\n" + line)])
    with pytest.raises(UsageError, match="a blank line is no row"):
        replay(source, lake, RECIPE, [Mend(row, offset, reason, raw, b"")])
    with pytest.raises(UsageError, match="other options"):
        replay(source, lake, MboRecipe(filter=EventFilter(end_ns=2**62)), [mend])
    assert data_of(lake) == before
    with pytest.raises(SourceError, match="does not hold the quarantined row"):
        replay(source, lake, RECIPE, [Mend(row, offset + 1, reason, raw, line)])
    assert {k: v for k, v in data_of(lake).items() if not k.startswith("mends/")} == before


KILLED = """
import sys
from pathlib import Path
from tasks.partitions import MboRecipe
from tasks.scanning.inventory import scan
from tasks.scanning.replay_quarantine import replay
recipe = MboRecipe(depth=3, interval_ns=60_000_000_000, bars=("5m",))
(source,) = scan([sys.argv[1]]).files
print("ready", flush=True)
replay(source, Path(sys.argv[2]), recipe)
"""


def test_killed_at_any_moment_a_replay_or_a_decode_ends_as_if_it_had_not_been(spoilt, tmp_path):
    path, good = spoilt
    start, source = tmp_path / "start", source_of(path)
    decode(source, start, RECIPE)
    plain = data_of(start)
    mends = mends_for(start, source, good)
    whole = Path(shutil.copytree(start, tmp_path / "whole"))
    replay(source, whole, RECIPE, mends)
    after = data_of(whole)
    kills = int(os.environ.get("TEST_KILLS", "4"))
    rng = np.random.default_rng(5)
    for number in range(kills):
        lake = Path(shutil.copytree(start, tmp_path / f"killed-{number}"))
        (lake / mends_path(source.dataset, source.short)).parent.mkdir(parents=True)
        shutil.copy(whole / mends_path(source.dataset, source.short), lake / mends_path(source.dataset, source.short))
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path), str(lake)], stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(float(rng.uniform(0, 0.5)))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        run = Path(shutil.copytree(lake, tmp_path / f"run-{number}"))
        if is_decoded(source, run, RECIPE) is None:
            decode(source, run, RECIPE)
        events = {k: v for k, v in data_of(run).items() if k.startswith(("events/", "quarantine/")) and not k.endswith(".partial")}
        assert events in [{k: v for k, v in state.items() if k.startswith(("events/", "quarantine/"))} for state in (plain, after)]
        replay(source, lake, RECIPE)
        assert {k: v for k, v in data_of(lake).items() if not k.endswith(".partial")} == after
        assert list((lake / ".replay").iterdir()) == []


@pytest.mark.parametrize("kind", [SOURCE, PARTITION])
def test_a_replay_waits_for_a_run_on_its_source_or_on_a_partition_of_it(kind, spoilt, tmp_path):
    path, good = spoilt
    lake, source = tmp_path / "lake", source_of(path)
    parts = decode(source, lake, RECIPE).parts
    before, told, done = data_of(lake), [], []
    mends = mends_for(lake, source, good)
    name = source_claim(source.dataset, source.fingerprint) if kind == SOURCE else str(parts[1].partition)
    with Claims(lake) as run:
        run.claim(kind, [name])
        thread = threading.Thread(target=lambda: done.append(replay(source, lake, RECIPE, mends, tell=told.append)), daemon=True)
        thread.start()
        limit = time.monotonic() + 30
        while not told and time.monotonic() < limit:
            time.sleep(0.05)
        assert f"another run works on {path.name if kind == SOURCE else name}" in " ".join(told)
        assert {k: v for k, v in data_of(lake).items() if not k.startswith("mends/")} == before
    thread.join(30)
    assert [d.replayed for d in done] == [4]


def test_rows_mended_for_a_source_do_not_go_into_another_of_its_name_that_came_later(spoilt, tmp_path, capsys):
    path, good = spoilt
    other = tmp_path / "of another day" / path.name
    other.parent.mkdir()
    other.write_bytes(path.read_bytes().replace(b"no time", b"no  time"))
    (lake, folder), sources = (tmp_path / "lake", tmp_path / "mend"), [source_of(path), source_of(other)]
    for first, later in (sources, sources[::-1]):  # whichever of the two stands first in the lake
        decode(first, lake, RECIPE)
        (line,) = export_quarantine(lake, folder)
        Path(line.split(": ")[0]).write_bytes(b"\n".join(good) + b"\n")
        decode(later, lake, RECIPE)
        assert replay_all([str(path), str(other)], lake, RECIPE, folder, [], "", "") == 0
        assert (len(read_mends(lake, first)), read_mends(lake, later)) == (4, []), capsys.readouterr().out
        shutil.rmtree(lake)
        shutil.rmtree(folder)


def test_the_command_takes_the_exported_file_with_mended_rows(spoilt, tmp_path, monkeypatch, capsys):
    path, good = spoilt
    lake, folder, source = tmp_path / "lake", tmp_path / "mend", source_of(path)
    decode(source, lake, RECIPE)

    def bookmill(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["bookmill", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        told = capsys.readouterr()
        return end.value.code or 0, told.out + told.err

    command = ["replay-quarantine", str(path), "--lake", str(lake), "--mended", str(folder)]
    assert bookmill(*command)[0] == 2  # there is no such folder
    assert bookmill("quarantine", "export", str(folder), "--lake", str(lake))[0] == 0
    (exported,) = folder.iterdir()
    exported.write_bytes(b"\n".join(good) + b"\n")
    code, told = bookmill(*command, "--reason", "action")
    assert (code, "1 mended rows are events, 3 rows in quarantine" in told) == (0, True)
    code, told = bookmill(*command)
    assert (code, "4 mended rows are events, 0 rows in quarantine" in told) == (0, True)
    assert bookmill(*command)[0] == 0
    assert is_decoded(source, lake, RECIPE).rows_quarantined == 0
    exported.write_bytes(b"\n".join(good[:2]) + b"\n")
    code, told = bookmill(*command)
    assert (code, "does not hold a row for each" in told) == (2, True)
    assert replay_all([str(tmp_path / "nowhere")], lake, RECIPE, None, [], "", "") == 2
