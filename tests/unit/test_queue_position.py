"""The place of an order in its queue over its life, against a replay with dicts and lists: any id, reused ids, damaged sessions, checkpoints."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import UsageError
from tasks.reconstruction import history, queue_position
from tasks.schemas import F_LAST, F_SNAPSHOT
from tests.lake_building import PARTITION
from tests.oracles.naive_tracking import queue_rows
from tests.unit.test_book_at import build, days
from tests.unit.test_replay import generated, record


def rows_of(table: pa.Table) -> list[dict]:
    """Plain rows, times as ns."""
    names = [field.name for field in table.schema]
    return pa.table([c.cast("int64") if pa.types.is_timestamp(c.type) else c for c in table.columns], names=names).to_pylist()


@generated
@given(days(), st.data(), st.integers(0, 6), st.integers(1, 20), st.booleans(), st.integers(2, 5), st.integers(1, 9))
def test_every_place_is_the_naive_one_whatever_the_checkpoints_and_buffers(day, data, every, group_rows, starts_empty, room, batch_rows):
    files, opening = day
    ids = sorted({int(i) for records, _ in files for i in records["order_id"]} | {order[2] for order in opening or ()})
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(queue_position, "ROWS_ROOM", room)
        patch.setattr(history, "BATCH_ROWS", batch_rows)
        build(Path(folder), files, every=every, group_rows=group_rows, starts_empty=starts_empty, opening=opening)
        for order_id in data.draw(st.lists(st.sampled_from(ids), min_size=1, max_size=3, unique=True)):
            found = rows_of(queue_position.queue_position(Path(folder), PARTITION, order_id))
            assert found == queue_rows(files, order_id, starts_empty, opening)


def life(lake: Path, records: list[np.ndarray], order_id: int) -> list[tuple]:
    build(lake, [(np.concatenate(records), [])])
    table = queue_position.queue_position(lake, PARTITION, order_id)
    names = ("episode", "price", "size", "ahead_size", "ahead_orders", "behind_size", "behind_orders", "cause", "end_reason")
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))


def test_a_life_in_the_queue_as_one_would_tell_it(tmp_path):
    records = [
        record("R"), record("A", "B", 100, 5, 1), record("A", "B", 100, 3, 2), record("A", "B", 100, 4, 3), record("A", "B", 99, 9, 4),
        record("C", "B", 100, 2, 1),  # ahead of it
        record("F", "B", 100, 3, 1, flags=0), record("C", "B", 100, 3, 1),  # it comes to the front
        record("C", "B", 100, 4, 3),  # behind it
        record("F", "B", 100, 1, 2, flags=0), record("C", "B", 100, 1, 2),
        record("M", "B", 99, 2, 2),  # to the tail of another level
        record("R"),
        record("A", "A", 105, 7, 2, flags=0), record("C", "A", 105, 7, 2),  # comes and goes within one event
        record("A", "A", 105, 7, 2),
    ]  # fmt: skip
    assert life(tmp_path, records, 2) == [
        (1, 100, 3, 5, 1, 0, 0, "add", "resting"),
        (1, 100, 3, 5, 1, 4, 1, "behind", "resting"),
        (1, 100, 3, 3, 1, 4, 1, "ahead", "resting"),
        (1, 100, 3, 0, 0, 4, 1, "ahead", "resting"),
        (1, 100, 3, 0, 0, 0, 0, "behind", "resting"),
        (1, 100, 2, 0, 0, 0, 0, "fill", "resting"),
        (1, 99, 2, 9, 1, 0, 0, "modify", "resting"),
        (1, 99, 0, 0, 0, 0, 0, "end", "cleared"),
        (2, 105, 0, 0, 0, 0, 0, "end", "cancelled"),
        (3, 105, 7, 0, 0, 0, 0, "add", "resting"),
    ]


def test_a_fill_of_the_whole_order_ends_it_as_filled_and_a_refresh_is_a_fill(tmp_path):
    records = [
        record("R"), record("A", "B", 100, 2, 1), record("A", "B", 100, 3, 2),
        record("F", "B", 100, 2, 1, flags=0), record("M", "B", 100, 4, 1),  # an iceberg shows its next part, at the tail
        record("F", "B", 100, 4, 1, flags=0), record("C", "B", 100, 4, 1),
    ]  # fmt: skip
    assert [(row[2], row[3], *row[7:]) for row in life(tmp_path, records, 1)] == [
        (2, 0, "add", "resting"), (2, 0, "behind", "resting"), (4, 3, "fill", "resting"), (0, 0, "end", "filled"),
    ]  # fmt: skip


def test_an_event_without_its_last_record_shows_nothing(tmp_path):
    records = [record("R"), record("A", "B", 100, 2, 1), record("A", "B", 100, 2, 2), record("C", "B", 100, 2, 1, flags=0)]
    assert [row[7] for row in life(tmp_path, records, 2)] == ["add"]
    assert records[-1]["flags"][0] != F_LAST


def test_what_cannot_be_followed_is_said(tmp_path):
    build(tmp_path, [(np.concatenate([record("R"), record("A", "B", 100, 2, 1)]), [])])
    with pytest.raises(UsageError, match=r"No record of TEST ESZ5 .* names order 77"):
        queue_position.queue_position(tmp_path, PARTITION, 77)
    with pytest.raises(UsageError, match="order id is -1"):
        queue_position.queue_position(tmp_path, PARTITION, -1)


@pytest.mark.parametrize("batch_rows", [1, 9])
def test_a_snapshot_after_a_row_that_was_set_aside_ends_what_was_followed(batch_rows, tmp_path, monkeypatch):
    monkeypatch.setattr(history, "BATCH_ROWS", batch_rows)
    records = [
        record("A", "B", 100, 1, 1, ts=1), record("A", "B", 100, 1, 2, ts=2), record("A", "B", 100, 1, 3, ts=3), record("N", ts=4),
        record("A", "B", 100, 1, 1, flags=F_SNAPSHOT | 8, ts=5), record("A", "B", 100, 1, 2, flags=F_SNAPSHOT | 8, ts=6),
        record("A", "B", 100, 1, 4, flags=F_SNAPSHOT | 8 | F_LAST, ts=7), record("A", "B", 100, 1, 8, ts=8),
    ]  # fmt: skip
    opening = [("B", 100, 900, 4), ("A", 110, 901, 7)]
    for mark in range(3, 7):
        files = [(np.concatenate(records), [mark])]
        build(tmp_path / str(mark), files, every=0, group_rows=1, opening=opening)
        for order_id in (1, 2, 900):
            assert rows_of(queue_position.queue_position(tmp_path / str(mark), PARTITION, order_id)) == queue_rows(files, order_id, False, opening), (
                mark,
                order_id,
            )
