"""A gate that sets rows aside, or stops a partition, in a real flow run: the others go on and every row is still counted."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from prefect import flow

from config.settings import load
from tasks.events_file import events_sink, read_events, to_table
from tasks.footers import read_facts, read_footer
from tasks.partitions import MboRecipe, Partition, Stamp
from tasks.scanning.synthetic import SessionSpec
from tasks.scanning.synthetic_writers import write_session
from tasks.schemas import MBO_RECORD

RECIPE = MboRecipe(interval_ns=60_000_000_000)


def rewrite(path, change):
    """Change the columns of an events file behind the decode's back, under the same stamp and facts."""
    facts, footer, partition = read_facts(path), read_footer(path), Partition.of_path(path)
    (columns,) = read_events(path)
    change(columns)
    with events_sink(path) as sink:
        sink.write(to_table(columns, partition.symbol))
        sink.commit(Stamp(footer["bookmill.inputs"], footer["bookmill.recipe"]), facts)


@pytest.fixture
def run_with(prefect_api, tmp_path):
    """A function that runs the stages on two symbols, with a change of the first one's events in between."""
    from flows.mbo_stages import MboRun

    source = tmp_path / "two.dbn.zst"
    write_session(SessionSpec(records=6_000, seed=9, symbols=("AAA", "BBB")), source, "dbn.zst")

    @flow(name="stages")
    def stages(change):
        run = MboRun(str(tmp_path / "lake"), RECIPE, load("ci", {"progress": "off"}))
        with run:
            jobs = run.decode(run.scan([str(source)], "", ""), False)
            rewrite(run.lake / jobs[0].events[0], change)
            jobs = run.gate_events(jobs)
            jobs = run.reconstruct(jobs)
            run.write_ledger(jobs)
        run.life.end()
        return run, jobs

    return stages


def test_a_row_that_only_the_gate_finds_bad_is_set_aside_and_the_book_is_suspect_after_it(run_with):
    bad = {}

    def change(columns):
        row = int(np.flatnonzero(columns["action"] == ord("A"))[40])
        bad["row"], bad["order"] = row, int(columns["order_id"][row])
        columns["size"][row] = 0

    run, jobs = run_with(change)
    assert [j.partition.symbol for j in jobs] == ["AAA", "BBB"]
    assert not run.failed
    (row,) = pq.read_table(next((run.lake / "quarantine").rglob("*.parquet")), partitioning=None).to_pylist()
    assert (row["stage"], row["event_row"], row["symbol"]) == ("gate:events", bad["row"], "AAA")
    assert int(np.frombuffer(row["raw"], MBO_RECORD)["order_id"][0]) == bad["order"]
    decode = {r["symbol"]: r for r in run.ledger if r["stage"] == "decode"}
    assert (decode["AAA"]["rows_quarantined"], decode["BBB"]["rows_quarantined"]) == (1, 0)
    assert decode["AAA"]["rows_in"] == decode["AAA"]["rows_out"] + 1
    statuses = {j.partition.symbol: set(j.rebuilt.facts["statuses"]) for j in jobs}
    assert "suspect" in statuses["AAA"]
    assert statuses["BBB"] == {"valid"}


def test_a_blocked_partition_stops_and_the_others_go_on(run_with):
    def change(columns):
        columns["publisher_id"][100] = 77  # two books in one file

    run, jobs = run_with(change)
    assert [j.partition.symbol for j in jobs] == ["BBB"]
    (error,) = run.failed.values()
    assert error.startswith("GateBlocked: events")


def test_a_fault_of_the_program_in_one_partition_does_not_stop_the_others(run_with, monkeypatch):
    import tasks.reconstruction.task as task

    whole = task.rebuild

    def broken(lake, partition, *arguments, **options):
        if partition.symbol == "AAA":
            raise ZeroDivisionError("a fault of the program")
        return whole(lake, partition, *arguments, **options)

    monkeypatch.setattr(task, "rebuild", broken)
    run, jobs = run_with(lambda columns: None)
    assert [j.partition.symbol for j in jobs] == ["BBB"]
    (error,) = run.failed.values()
    assert error.startswith("ZeroDivisionError: a fault of the program (not a known fault")


def test_instruments_that_share_a_symbol_keep_their_own_books(prefect_api, tmp_path):
    from flows.mbo_stages import MboRun

    head = "ts_recv,ts_event,rtype,publisher_id,instrument_id,action,side,price,size,channel_id,order_id,flags,ts_in_delta,sequence"
    rows = [head]
    for instrument, count in ((11, 3), (12, 5)):
        start = 1_761_139_800_000_000_000 + instrument
        rows.append(f"{start},{start},160,1,{instrument},R,N,,0,0,0,128,0,0")
        rows += [f"{start + 1000 * k},{start},160,1,{instrument},A,B,100.{k}0,7,0,{k + 1},128,0,{k}" for k in range(1, count)]
    source = tmp_path / "unnamed.csv"
    source.write_text("\n".join([head, *sorted(rows[1:])]) + "\n")

    @flow(name="shared-symbol")
    def stages():
        run = MboRun(str(tmp_path / "lake"), RECIPE, load("ci", {"progress": "off"}))
        with run:
            jobs = run.reconstruct(run.decode(run.scan([str(source)], "", ""), False))
        run.life.end()
        return jobs

    jobs = stages()
    assert [(j.partition.symbol, j.partition.instrument_id) for j in jobs] == [("unnamed", 11), ("unnamed", 12)]
    assert [(j.rebuilt.partition.instrument_id, j.rebuilt.facts["rows_in"]) for j in jobs] == [(11, 3), (12, 5)]
