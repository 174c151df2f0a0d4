"""Tables of a price-level replay against the rows that went into them, and level updates against the messages they came in."""

from __future__ import annotations

import os
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, given, settings

from tasks.depth_batches import ASK, BID, NO_TIME, SNAPSHOT
from tasks.reconstruction.depth_layers import DepthTables
from tasks.reconstruction.depth_replay import DepthReplay
from tasks.schemas import DEPTH_BBO, DEPTH_UPDATES, UNDEF_PRICE, depth_books_schema
from tests.oracles.naive_depth import NaiveDepth
from tests.strategies.depth_feeds import KEEP, PRICE_DIGITS, SECOND, SIZE_DIGITS, START_NS, batch_of, cut, feeds

EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "200"))
generated = settings(max_examples=max(5, EXAMPLES // 4), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
WINDOW = (START_NS - SECOND, START_NS + 20 * SECOND)
TABLES = DepthTables("XUSDT", PRICE_DIGITS, SIZE_DIGITS)


def plain(tables: list[pa.Table]) -> list[dict[str, Any]]:
    """Rows, times as integers; tables are read when all are made, so that a view of a buffer would show."""
    table = pa.concat_tables(tables)
    columns = [column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column for column in table.columns]
    return pa.table(columns, names=table.column_names).to_pylist()


def levels_of(row: dict[str, Any], depth: int) -> list[tuple[int, int]]:
    return [(row[f"{side}_px_{level:02d}"], row[f"{side}_sz_{level:02d}"]) for level in range(depth) for side in ("bid", "ask")]


@generated
@given(feeds())
def test_tables_hold_the_rows_of_every_depth_with_the_clocks_and_the_scale(items):
    replay = DepthReplay(
        depths=(2, KEEP), keep=KEEP, interval_ns=SECOND, windows=[WINDOW], clock="cts", price_digits=PRICE_DIGITS, size_digits=SIZE_DIGITS,
        stale_after_ns=SECOND,
    )  # fmt: skip
    grids: dict[int, list[pa.Table]] = {2: [], KEEP: []}
    touches = []
    for samples in _steps(replay, items):
        for depth, tables in grids.items():
            tables.append(TABLES.grid(samples, depth))
        touches.append(TABLES.touch(samples))
    twin = NaiveDepth(keep=KEEP, price_digits=PRICE_DIGITS, size_digits=SIZE_DIGITS, windows=[WINDOW]).feed(items)
    for depth, tables in grids.items():
        assert all(table.schema.equals(depth_books_schema(depth)) for table in tables)
        rows, expected = plain(tables), twin.grid(depth, SECOND, SECOND)
        assert [levels_of(row, depth) for row in rows] == [[level[:2] for level in row["levels"]] for row in expected]
        for row, told in zip(rows, expected, strict=True):
            assert (row["ts_event"], row["ts_recv"]) == (told["time"], told["time"])
            assert (row["as_of"], row["age_ns"]) == ((None, -1) if told["as_of"] < 0 else (told["as_of"], told["time"] - told["as_of"]))
            assert row["status_since"] == (None if told["since"] < 0 else told["since"])
            assert_same(row, told)
    assert all(table.schema.equals(DEPTH_BBO) for table in touches)
    for row, told in zip(plain(touches), twin.touches, strict=True):
        assert levels_of(row, 1) == list(zip(told["px"], told["sz"], strict=True))
        assert (row["ts_event"], row["ts_recv"]) == (told["ts"] if told["cts"] == NO_TIME else told["cts"], told["ts"])
        assert (row["as_of"], row["age_ns"], row["status_since"]) == (told["clock"], 0, told["since"])
        assert_same(row, told)


def _steps(replay: DepthReplay, items: list[Any]) -> Any:
    for batch in cut(items, [3] * 13):
        yield from replay.feed(batch)
    yield from replay.finish()


def assert_same(row: dict[str, Any], told: dict[str, Any]) -> None:
    assert {name: row[name] for name in ("update_id", "sequence", "status", "reason")} == {
        name: told[name] for name in ("update_id", "sequence", "status", "reason")
    }
    assert (row["symbol"], row["price_digits"], row["size_digits"]) == ("XUSDT", PRICE_DIGITS, SIZE_DIGITS)


@generated
@given(feeds())
def test_updates_are_as_written_and_a_message_without_any_has_a_row(items):
    batch = batch_of(items)
    table = TABLES.updates(batch)
    assert table.schema.equals(DEPTH_UPDATES)
    expected = []
    for message in (item for item in items if item is not None):
        head = {
            "ts_event": message.ts if message.cts == NO_TIME else message.cts, "ts_recv": message.ts, "symbol": "XUSDT",
            "is_snapshot": message.kind == SNAPSHOT,
        }  # fmt: skip
        tail = {"update_id": message.update_id, "sequence": message.sequence}
        none = {"last": True, "side": "N", "price": UNDEF_PRICE, "size": 0, "price_digits": 0, "size_digits": 0}
        levels = [
            {
                "last": False,
                "side": {BID: "B", ASK: "A"}[u.side],
                "price": u.price,
                "size": u.size,
                "price_digits": u.price_digits,
                "size_digits": u.size_digits,
            }
            for u in message.updates
        ] or [none]
        expected += [head | level | tail for level in [*levels[:-1], levels[-1] | {"last": True}]]
    assert plain([table]) == expected
