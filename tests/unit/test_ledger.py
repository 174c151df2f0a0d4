"""The ledger says what the footers say, and every row that is lost, counted twice or handed over wrongly is found."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.partitions import Partition, Stamp
from tasks.publishing import ledger
from tasks.schemas import LEDGER, SOURCES
from tasks.storage import write_table

STAMP = Stamp("inputs", "recipe")
DAY = Partition("GLBX.MDP3", "2023-12-25", "ES H4/x", 1, 17)
OTHER = Partition("GLBX.MDP3", "2023-12-25", "ES H4/x", 1, 170)  # its file names begin like those of DAY


def rows(n: int) -> pa.Table:
    return pa.table({"ts_event": np.arange(n)})


def put(lake, partition, layer, n, facts, source=""):
    write_table(lake / partition.path(layer, source), rows(n), STAMP, facts)


def make_lake(lake, **changes):
    """Two sources of 60 and 45 rows: 100 events, 3 filtered, 2 quarantined; 100 events rebuilt; 30 trades, 28 of them in bars."""
    facts = {
        "first": {"rows_in": 60, "rows_out": 58, "filtered": {"hours": 1}, "quarantined": 1, "fingerprint": "xxh3:a"},
        "second": {"rows_in": 45, "rows_out": 42, "filtered": {"hours": 1, "symbol": 1}, "quarantined": 1, "fingerprint": "xxh3:b"},
        "bbo": {
            "rows_in": 100,
            "applied": 97,
            "ignored": 3,
            "anomalies": {"unknown_id": 2},
            "crossed": 1,
            "locked": 0,
            "outputs": {"bbo": 40, "trades": 30},
        },
        "ohlcv-1s": {"rows_in": 30, "rows_used": 28, "rows_filtered": 1, "rows_unpriced": 1, "rows_out": 12},
        "features": {"rows_in": 50, "rows_out": 50, "trades_in": 30},
    }
    for name, change in changes.items():
        facts[name.replace("_", "-")] |= change
    put(lake, DAY, "events", 58, facts["first"], source="aaaaaaaaaa")
    put(lake, DAY, "events", 42, facts["second"], source="bbbbbbbbbb")
    put(lake, DAY, "bbo", 40, facts["bbo"])
    put(lake, DAY, "ohlcv-1s", 12, facts["ohlcv-1s"])
    put(lake, DAY, "features", 50, facts["features"])
    put(lake, OTHER, "events", 9, {"rows_in": 9, "rows_out": 9, "filtered": {}, "quarantined": 0}, source="aaaaaaaaaa")


def test_rows_that_came_back_mended_are_counted_beside_and_not_twice(tmp_path):
    make_lake(tmp_path, first={"replayed": 5}, second={"replayed": 2})
    table = ledger.collect(tmp_path, [DAY, OTHER])
    counts = {(r["instrument_id"], r["stage"]): json.loads(r["counts"]) for r in table.to_pylist()}
    assert counts[DAY.instrument_id, "decode"]["replayed"] == 7
    assert "replayed" not in counts[OTHER.instrument_id, "decode"]
    assert ledger.check(table) == []


def test_the_ledger_adds_up_the_footers_of_a_partitions_own_files_only(tmp_path):
    make_lake(tmp_path)
    table = ledger.collect(tmp_path, [DAY])
    assert table.schema == LEDGER
    lines = {row["stage"]: row for row in table.to_pylist()}
    assert list(lines) == ["decode", "reconstruct", "aggregate:features", "aggregate:ohlcv-1s"]
    decode = lines["decode"]
    assert (decode["rows_in"], decode["rows_out"], decode["rows_filtered"], decode["rows_quarantined"]) == (105, 100, 3, 2)
    assert (decode["symbol"], decode["instrument_id"], decode["status"]) == ("ES H4/x", 17, "warn")
    assert json.loads(decode["counts"])["filtered"] == {"hours": 2, "symbol": 1}
    assert json.loads(lines["reconstruct"]["counts"])["anomalies"] == {"unknown_id": 2}
    assert (lines["aggregate:ohlcv-1s"]["rows_out"], lines["aggregate:ohlcv-1s"]["rows_filtered"]) == (28, 2)
    assert ledger.check(table) == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"first": {"rows_in": 61}}, r"decode: 106 rows in.* 1 rows are not accounted for"),
        ({"second": {"quarantined": 3}}, r"decode: 105 rows in.* 2 rows are counted twice"),
        ({"first": {"rows_out": 57, "quarantined": 2}}, r"decode: the footer counts 99 rows, the file holds 100"),
        ({"bbo": {"ignored": 2}}, r"reconstruct: 100 rows in, but 99 out"),
        ({"bbo": {"rows_in": 99, "applied": 96}}, r"decode put out 100 events, reconstruct took 99"),
        ({"bbo": {"outputs": {"bbo": 41, "trades": 30}}}, r"reconstruct: the footer counts 41 rows, the file holds 40"),
        ({"ohlcv_1s": {"rows_unpriced": 0}}, r"aggregate:ohlcv-1s: 30 rows in, but 28 out"),
        ({"ohlcv_1s": {"rows_in": 29, "rows_used": 27}}, r"put out 30 trades, aggregate:ohlcv-1s took 29"),
        ({"features": {"trades_in": 31}}, r"put out 30 trades, aggregate:features took 31"),
    ],
)
def test_each_violation_is_found_and_named(tmp_path, changes, problem):
    make_lake(tmp_path, **changes)
    problems = "\n".join(ledger.check(ledger.collect(tmp_path, [DAY, OTHER])))
    assert str(DAY) in problems
    assert pa.compute.match_substring_regex(pa.array([problems]), problem)[0].as_py(), problems


def test_rows_of_no_partition_are_in_the_ledger_of_the_sources_they_came_with(tmp_path):
    make_lake(tmp_path)
    for short, fingerprint in (("a", "xxh3:a"), ("z", "xxh3:z")):
        entry = dict.fromkeys(SOURCES.names) | {
            "source": f"{short}.csv", "fingerprint": fingerprint, "dataset": "GLBX.MDP3", "date": "", "symbol": "", "publisher_id": 0,
            "instrument_id": 0, "path": "", "rows_in": 8, "rows_out": 0, "rows_filtered": 5, "rows_quarantined": 3,
        }  # fmt: skip
        kept = entry | {"date": DAY.date, "symbol": DAY.symbol, "path": DAY.path("events", "aaaaaaaaaa"), "rows_in": 60}
        table = pa.Table.from_pylist([kept, entry], schema=SOURCES)
        write_table(tmp_path / f"sources/dataset=GLBX.MDP3/{short}.parquet", table, STAMP)
    table = ledger.collect(tmp_path, [DAY])
    last = table.to_pylist()[-1]
    assert table.num_rows == 5  # of the run's source a, and not of z
    assert (last["date"], last["rows_in"], last["rows_filtered"], last["rows_quarantined"]) == ("", 8, 5, 3)
    assert ledger.check(table) == []


def test_the_written_ledger_is_the_same_bytes_each_time(tmp_path):
    make_lake(tmp_path)
    path = tmp_path / DAY.path("ledger")
    ledger.write(tmp_path, DAY)
    first, file = path.read_bytes(), path.stat().st_ino
    assert ledger.write(tmp_path, DAY).num_rows == 4
    assert path.stat().st_ino == file  # left as it is
    path.unlink()
    ledger.write(tmp_path, DAY)
    assert path.read_bytes() == first
    for gone in tmp_path.glob("ohlcv-*/*/*/*/part-1-17.parquet"):
        gone.unlink()
    assert ledger.write(tmp_path, DAY).num_rows == 3
    assert pq.read_table(path, partitioning=None).num_rows == 3
    assert pq.read_table(path, partitioning=None).schema.equals(LEDGER)


def test_a_partition_without_files_has_no_lines(tmp_path):
    assert ledger.collect(tmp_path / "absent", [DAY]).num_rows == 0
    assert dict(ledger.files_of(tmp_path / "absent", [DAY])) == {DAY: {}}


def test_the_files_of_a_partition_are_those_of_its_ids_in_every_layer_and_no_partial_ones(tmp_path):
    mine, other, elsewhere = (Partition("D", "2025-10-22", symbol, 1, number) for symbol, number in (("A/B", 5), ("A/B", 55), ("Z", 5)))
    made = [tmp_path / p.path(layer, source) for p in (mine, other) for layer, source in (("events", "aa"), ("events", "bb"), ("bbo", ""))]
    made += [tmp_path / mine.path("bars-tick-9"), tmp_path / elsewhere.path("bbo")]
    noise = [made[0].with_name(f".{made[0].name}.x.partial"), made[2].with_suffix(".png"), tmp_path / ".plan" / "x.parquet", tmp_path / "note.txt"]
    for path in [*made, *noise]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = dict(ledger.files_of(tmp_path, [mine, other, elsewhere]))
    assert {p: list(layers) for p, layers in found.items()} == {mine: ["bars-tick-9", "bbo", "events"], other: ["bbo", "events"], elsewhere: ["bbo"]}
    assert sorted(path for layers in found.values() for files in layers.values() for path in files) == sorted(made)
    assert found[mine]["events"] == sorted(found[mine]["events"]) == ledger.layer_files(tmp_path, mine, "events")
    assert dict(ledger.files_of(tmp_path, [mine], ("bars-",))) == {mine: {"bars-tick-9": [tmp_path / mine.path("bars-tick-9")]}}
    assert dict(ledger.files_of(tmp_path / "none", [mine])) == {mine: {}}
