"""The account of every order of a day, against one kept with dicts: damaged sessions, any batches, and the sums that must hold on real files."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.partitions import MboRecipe
from tasks.reconstruction import history, lifetimes
from tasks.reconstruction.lifetimes import LIFETIMES, order_lifetimes
from tasks.reconstruction.queue_position import queue_position
from tasks.reconstruction.rebuild import rebuild
from tasks.scanning.decode import decode
from tasks.scanning.inventory import scan
from tasks.scanning.synthetic import SessionSpec, generate
from tests.lake_building import PARTITION
from tests.oracles.naive_tracking import lifetime_rows
from tests.unit.test_book_at import build, days
from tests.unit.test_queue_position import rows_of
from tests.unit.test_replay import generated, record


def table_of(lake: Path, partition=PARTITION) -> pa.Table:
    return pa.Table.from_batches(order_lifetimes(lake, partition), LIFETIMES)


@generated
@given(days(), st.integers(1, 20), st.booleans(), st.integers(1, 5), st.integers(1, 9))
def test_every_order_has_the_row_of_the_naive_account_in_the_order_of_their_ends(day, group_rows, starts_empty, room, batch_rows):
    files, opening = day
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(lifetimes, "ENDED_ROOM", room)
        patch.setattr(history, "BATCH_ROWS", batch_rows)
        build(Path(folder), files, every=0, group_rows=group_rows, starts_empty=starts_empty, opening=opening)
        assert rows_of(table_of(Path(folder))) == lifetime_rows(files, starts_empty, opening)


def account(rows: list[dict]) -> None:
    """What must hold whatever the source: nothing of an order is lost."""
    for row in rows:
        assert row["size"] + row["grown"] == row["filled"] + row["cancelled"] + row["left"], row
        assert (row["end_ts_event"] is None) == (row["end_reason"] == "resting")
        assert row["left"] == 0 or row["end_reason"] not in ("filled", "cancelled")


def test_a_session_is_accounted_for_to_the_last_lot(tmp_path):
    records = np.concatenate(list(generate(SessionSpec(records=40_000, seed=5))))
    build(tmp_path, [(records, [])], every=0, group_rows=131_072)
    rows = rows_of(table_of(tmp_path))
    assert rows == lifetime_rows([(records, [])])
    account(rows)
    fills = records[records["action"] == ord("F")]
    assert sum(row["filled"] for row in rows) == int(fills["size"].astype(np.int64).sum()) > 0
    assert len(rows) == int((records["action"] == ord("A")).sum())
    assert {row["end_reason"] for row in rows} >= {"filled", "cancelled", "resting"}


def test_a_life_as_one_would_tell_it(tmp_path):
    records = [
        record("R", ts=1), record("A", "B", 100, 5, 1, ts=2), record("A", "B", 100, 8, 2, ts=3),
        record("F", "B", 100, 3, 2, flags=0, ts=4), record("C", "B", 100, 3, 2, ts=4),
        record("C", "B", 100, 1, 2, ts=5), record("M", "B", 101, 6, 2, ts=6),
        record("F", "B", 101, 2, 2, flags=0, ts=7), record("C", "B", 101, 6, 2, ts=7),  # filled by 2, the rest taken back
        record("R", ts=9),
    ]  # fmt: skip
    build(tmp_path, [(np.concatenate(records), [])])
    two, one = rows_of(table_of(tmp_path))
    assert (one["order_id"], one["end_reason"], one["left"], one["duration_ns"]) == (1, "cleared", 5, 7)
    assert two == {
        "order_id": 2, "side": "B", "ts_event": 3, "ts_recv": 3, "price": 100, "size": 8, "last_price": 101, "ahead_size": 5, "filled": 5,
        "cancelled": 5, "grown": 2, "modified": 1, "left": 0, "end_ts_event": 7, "end_ts_recv": 7, "end_reason": "cancelled", "duration_ns": 4,
        "from_snapshot": False,
    }  # fmt: skip


def test_a_fill_and_the_cancel_of_one_message_belong_together_where_each_ends_an_event(tmp_path):
    """Databento writes an execution of Nasdaq as T, F and C of one sequence number and time, each with LAST."""

    def numbered(sequence: int, *arguments: object, **options: object) -> np.ndarray:
        row = record(*arguments, **options)
        row["sequence"] = sequence
        return row

    records = [
        numbered(1, "R", ts=1), numbered(2, "A", "B", 100, 24, 1, ts=2), numbered(3, "T", "A", 100, 1, 0, ts=3),
        numbered(3, "F", "B", 100, 1, 1, ts=3),
        numbered(3, "C", "B", 100, 1, 1, ts=3), numbered(4, "F", "B", 100, 2, 1, ts=4),  # its C was lost
        numbered(5, "C", "B", 100, 23, 1, ts=5),
    ]  # fmt: skip
    build(tmp_path, [(np.concatenate(records), [])])
    (row,) = rows_of(table_of(tmp_path))
    assert (row["filled"], row["cancelled"], row["end_reason"]) == (1, 23, "cancelled")
    (last,) = [row for row in rows_of(queue_position(tmp_path, PARTITION, 1)) if row["ts_event"] == 3]
    assert (last["cause"], last["size"]) == ("fill", 23)


@generated
@given(days(), st.integers(1, 20), st.integers(1, 9))
def test_records_of_one_message_are_taken_together_as_the_naive_account_does(day, group_rows, batch_rows):
    files, opening = day
    for records, _ in files:
        records["sequence"] //= 3
        records["ts_event"] -= records["ts_event"] % 3_000_000
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "BATCH_ROWS", batch_rows)
        build(Path(folder), files, every=0, group_rows=group_rows, opening=opening)
        assert rows_of(table_of(Path(folder))) == lifetime_rows(files, False, opening)


@pytest.mark.real_data
def test_the_fills_of_a_nasdaq_session_are_fills(real_data, tmp_path):
    (source,) = scan([real_data("databento/arl_20250717_morning.mbo.csv")]).files
    (part,) = decode(source, tmp_path, MboRecipe()).parts
    rebuild(tmp_path, part.partition, [part.path], MboRecipe())
    rows = rows_of(table_of(tmp_path, part.partition))
    account(rows)
    assert sum(row["filled"] for row in rows) == 1, "the one F record of the session is of one share"


@pytest.mark.real_data
def test_esh4_is_accounted_for(real_data, tmp_path):
    (source,) = scan([real_data("databento/esh4-glbx-mdp3-20231225.mbo.dbn.zst")]).files
    (part,) = decode(source, tmp_path, MboRecipe()).parts
    facts = rebuild(tmp_path, part.partition, [part.path], MboRecipe()).facts
    rows = rows_of(table_of(tmp_path, part.partition))
    account(rows)
    assert len(rows) == facts["actions"]["add"]
    ends = Counter(row["end_reason"] for row in rows)
    assert ends["resting"] == facts["orders"] == 11_217
    assert sum(row["from_snapshot"] for row in rows) == 8_725
    assert ends["filled"] > 1_000
