"""Features and trade signs against their naive twins, and the promise that no row knows the future."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.aggregation.features import build_features
from tasks.errors import UsageError
from tasks.footers import is_done, read_facts
from tasks.partitions import Stamp
from tasks.reconstruction.trade_sign_kernels import new_carry, sign_trades
from tasks.schemas import BBO, FEATURES, SIDE_METHODS, TRADES, UNDEF_PRICE, books_schema
from tests.oracles import naive_features
from tests.oracles.naive_features import Grid, Print, Quote

STAMP = Stamp("in", "recipe")
DEPTH = 3
EMPTY = UNDEF_PRICE

times = st.integers(0, 120)
price = st.one_of(st.integers(-3, 6), st.integers(10**11, 10**11 + 3), st.just(EMPTY))
size = st.one_of(st.integers(0, 4), st.integers(0, 2**40))
states = st.sampled_from(["valid"] * 4 + ["suspect", "no_book"])
quote = st.builds(Quote, times, times, price, price, size, size, states, st.sampled_from([False] * 4 + [True]))
trade = st.builds(Print, times, times, price, st.integers(0, 2**32 - 1), st.sampled_from("ABN"), st.sampled_from(SIDE_METHODS))
level = st.tuples(price, price, size, size)


@st.composite
def sessions(draw):
    """(grid, quotes, trades, interval): times often tie with grid times, mostly ascending, sometimes late."""
    interval = draw(st.integers(1, 30))
    steps = draw(st.lists(st.integers(0, 20), max_size=8))
    grid_times = np.cumsum([draw(st.integers(0, 30)), *(interval + s for s in steps)]).tolist()
    grid = [Grid(t, draw(st.lists(level, min_size=DEPTH, max_size=DEPTH))) for t in grid_times]
    orderly = draw(st.booleans())
    quotes, trades = draw(st.lists(quote, max_size=30)), draw(st.lists(trade, max_size=30))
    if orderly:
        quotes, trades = sorted(quotes, key=lambda q: q.as_of), sorted(trades, key=lambda t: t.ts_recv)
    return grid, quotes, trades, interval


def write_layer(path: Path, schema: pa.Schema, known: dict[str, list], n: int, group: int) -> Path:
    text = {"symbol": "ARL", "status": "valid", "reason": "", "side_method": "none", "side": "N"}
    columns = {f.name: known.get(f.name, [text.get(f.name, 0)] * n) for f in schema}
    pq.write_table(pa.table(columns, schema=schema), path, row_group_size=group)
    return path


def as_of(point: Grid) -> int | None:
    """Null where the grid has not met an event yet."""
    return None if point.ts % 5 == 0 else point.ts


def write_grid(path: Path, grid: list[Grid], group: int = 1000) -> Path:
    known: dict[str, list] = {name: [g.ts for g in grid] for name in ("ts_event", "ts_recv")}
    known["as_of"] = [as_of(g) for g in grid]
    known["status"] = [("valid", "stale")[g.ts % 2] for g in grid]
    known["reason"] = [("", "halt")[g.ts % 2] for g in grid]
    for k in range(DEPTH):
        for at, name in enumerate(("bid_px", "ask_px", "bid_sz", "ask_sz")):
            known[f"{name}_{k:02d}"] = [g.levels[k][at] for g in grid]
    return write_layer(path, books_schema(DEPTH), known, len(grid), group)


def write_quotes(path: Path, quotes: list[Quote], group: int = 1000) -> Path:
    names = ("ts_event", "as_of", "bid_px_00", "ask_px_00", "bid_sz_00", "ask_sz_00", "status")
    return write_layer(path, BBO, {n: [q[k] for q in quotes] for k, n in enumerate(names)}, len(quotes), group)


def write_trades(path: Path, trades: list[Print], group: int = 1000) -> Path:
    names = ("ts_event", "ts_recv", "price", "size", "side", "side_method")
    return write_layer(path, TRADES, {n: [t[k] for t in trades] for k, n in enumerate(names)}, len(trades), group)


def run(folder: Path, grid, quotes, trades, interval, clock, batch_rows=1000, group=1000) -> list[dict]:
    """Rows of the features layer made from these inputs; the touch comes as two files."""
    cut = len(quotes) // 2
    build_features(
        write_grid(folder / "grid.parquet", grid, group),
        [write_quotes(folder / "bbo-0.parquet", quotes[:cut], group), write_quotes(folder / "bbo-1.parquet", quotes[cut:], group)],
        [write_trades(folder / "trades.parquet", trades, group)],
        folder / "features.parquet", STAMP, interval_ns=interval, clock=clock, depth=DEPTH, batch_rows=batch_rows,
        fresh_rows=[k for k, quote in enumerate(quotes) if quote.fresh],
    )  # fmt: skip
    table = pq.read_table(folder / "features.parquet")
    assert table.schema.equals(FEATURES)
    for name in ("ts_event", "as_of"):
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(pa.int64()))
    return table.to_pylist()


def assert_equal(found: list[dict], expected: list[dict]) -> None:
    """Integers and text exactly; floats, which are statistics, to 1e-12."""
    assert len(found) == len(expected)
    for row, want in zip(found, expected, strict=True):
        for name, value in want.items():
            if isinstance(value, float):
                assert row[name] is not None, name
                assert math.isclose(row[name], value, rel_tol=1e-12, abs_tol=1e-15), (name, row[name], value)
            else:
                assert row[name] == value, (name, row, want)


@settings(max_examples=50, deadline=None)
@given(session=sessions(), clock=st.sampled_from(["ts_event", "ts_recv"]), batch_rows=st.integers(1, 35), group=st.integers(1, 35))
def test_features_equal_the_naive_ones_whatever_the_batches(tmp_path_factory, session, clock, batch_rows, group):
    grid, quotes, trades, interval = session
    rows = run(tmp_path_factory.mktemp("features"), grid, quotes, trades, interval, clock, batch_rows, group)
    assert_equal(rows, naive_features.features(grid, quotes, trades, interval, clock))
    assert not any(isinstance(v, float) and math.isnan(v) for row in rows for v in row.values())
    for row, point in zip(rows, grid, strict=True):
        assert (row["as_of"], row["symbol"], row["status"]) == (as_of(point), "ARL", ("valid", "stale")[point.ts % 2])


@settings(max_examples=25, deadline=None)
@given(session=sessions(), clock=st.sampled_from(["ts_event", "ts_recv"]), where=st.integers(0, 7))
def test_what_comes_after_a_row_does_not_change_it(tmp_path_factory, session, clock, where):
    grid, quotes, trades, interval = session
    now = grid[min(where, len(grid) - 1)].ts
    whole = run(tmp_path_factory.mktemp("whole"), grid, quotes, trades, interval, clock)
    # What a program running at `now` would have read: everything before the first row stamped later.
    times = ((quotes, naive_features.seen(quotes, "as_of")), (trades, naive_features.seen(trades, clock)))
    past = [[row for row, t in zip(rows, seen, strict=True) if t <= now] for rows, seen in times]
    cut = run(tmp_path_factory.mktemp("cut"), [g for g in grid if g.ts <= now], *past, interval, clock)
    assert cut == whole[: len(cut)]


def test_a_row_at_exactly_the_grid_time_counts_and_one_at_the_start_of_the_window_does_not(tmp_path):
    grid = [Grid(100, [(10, 20, 5, 5)] * DEPTH), Grid(200, [(10, 20, 5, 5)] * DEPTH)]
    quotes = [Quote(0, t, 10, 20, s, 5, "valid") for t, s in ((0, 1), (100, 3), (101, 7), (200, 15), (201, 31))]
    trades = [Print(0, t, 10, 10**k, "B", "feed") for k, t in enumerate((0, 1, 100, 101, 200, 201))]
    rows = run(tmp_path, grid, quotes, trades, 100, "ts_recv")
    assert [(r["ofi"], r["trades"], r["volume"]) for r in rows] == [(2, 2, 110), (12, 2, 11_000)]


def test_a_snapshot_is_not_known_before_it_was_received_however_old_its_orders_are(tmp_path):
    grid = [Grid(t, [(10, 20, 5, 5)] * DEPTH) for t in (100, 200)]
    quotes = [Quote(1, 50, 10, 20, 5, 5, "valid"), Quote(2, 150, 11, 20, 8, 5, "valid")]
    assert [r["ofi"] for r in run(tmp_path, grid, quotes, [], 100, "ts_event")] == [0, 8]


def test_a_vanished_side_flows_by_its_whole_size_and_an_unknown_book_by_nothing(tmp_path):
    grid = [Grid(t, [(10, 20, 5, 5)] * DEPTH) for t in range(1, 8)]
    rows = run(
        tmp_path,
        grid,
        [
            Quote(0, 1, 10, 20, 5, 7, "valid"),  # first: nothing
            Quote(0, 2, EMPTY, 20, 0, 7, "valid"),  # the bid of 5 goes
            Quote(0, 3, 9, 20, 4, 7, "valid"),  # a bid of 4 comes
            Quote(0, 4, 9, EMPTY, 4, 0, "valid"),  # the ask of 7 goes: supply taken away
            Quote(0, 5, EMPTY, EMPTY, 0, 0, "no_book"),  # lost
            Quote(0, 6, 30, 40, 50, 60, "valid"),  # known again: a first row
            Quote(0, 7, 31, 40, 2, 60, "valid"),
        ],
        [],
        1,
        "ts_recv",
    )
    assert [r["ofi"] for r in rows] == [0, -5, 4, 7, 0, 0, 2]
    returns = [0, 0, math.log(29 / 30), 0, 0, 0, math.log(71 / 70)]
    assert [r["realised_vol"] for r in rows] == pytest.approx([abs(r) for r in returns], rel=1e-12)


def test_bytes_do_not_depend_on_the_batch_size_and_facts_count_every_row(tmp_path):
    rng = np.random.default_rng(5)
    grid = [Grid(1000 * (k + 1), [(100 - j, 101 + j, k % 7, 3) for j in range(DEPTH)]) for k in range(400)]
    at = np.sort(rng.integers(0, 420_000, (2, 3000)))
    quotes = [Quote(0, int(t), int(p), int(p) + 1, int(p) % 9, 4, "valid") for t, p in zip(at[0], rng.integers(90, 110, 3000), strict=True)]
    trades = [Print(0, int(t), 5, int(t) % 11, "ABN"[int(t) % 3], "feed") for t in at[1]]
    layers = (
        write_grid(tmp_path / "grid.parquet", grid),
        [write_quotes(tmp_path / "bbo.parquet", quotes, 700)],
        [write_trades(tmp_path / "trades.parquet", trades, 700)],
    )
    made, facts = set(), {}
    out = tmp_path / "features.parquet"
    for batch_rows in (13, 500, 65_536):
        facts = build_features(*layers, out, STAMP, interval_ns=1000, clock="ts_recv", depth=DEPTH, batch_rows=batch_rows)
        made.add(out.read_bytes())
    assert len(made) == 1
    assert (read_facts(out), is_done(out, STAMP)) == (facts, True)
    used = [int((t <= 400_000).sum()) for t in at]
    assert facts == {
        "rows_in": 400, "rows_out": 400, "quotes_in": 3000, "quotes_used": used[0],
        "trades_in": 3000, "trades_used": used[1], "trades_counted": int(((at[1] > 0) & (at[1] <= 400_000)).sum()),
    }  # fmt: skip


def test_a_grid_finer_than_the_interval_is_refused(tmp_path):
    grid = [Grid(t, [(10, 20, 5, 5)] * DEPTH) for t in (0, 10, 19)]
    for batch_rows in (1, 100):
        with pytest.raises(UsageError, match=r"grid\.parquet: grid row 2 comes 9 ns after"):
            run(tmp_path, grid, [], [], 10, "ts_recv", batch_rows)
    assert not (tmp_path / "features.parquet").exists()


wide = st.one_of(st.integers(0, 4), st.integers(-(2**63), 2**63 - 1), st.just(EMPTY))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("NNNAB"), wide, wide, wide), max_size=30), st.integers(0, 30))
def test_trade_signs_equal_the_naive_ones_wherever_the_stream_is_cut(trades, cut):
    carry, found = new_carry(), []
    for part in (trades[:cut], trades[cut:]):
        side = np.array([ord(t[0]) for t in part], np.uint8)
        prices = [np.array([t[k] for t in part], np.int64) for k in (1, 2, 3)]
        sides, methods = sign_trades(side, *prices, carry)
        found += [(chr(s), SIDE_METHODS[m]) for s, m in zip(sides, methods, strict=True)]
    assert found == naive_features.signs(trades)
