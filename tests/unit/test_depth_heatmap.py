"""The heatmap grid of depth partitions against a slow twin, and what it says of windows, silences, scales and unknown books."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import SchemaMismatch, StorageError
from tasks.footers import read_footer
from tasks.heatmap_grid import HeatmapGrid
from tasks.partitions import Stamp
from tasks.reconstruction.depth_heatmap import build_depth_heatmap, price_multiple
from tasks.schemas import UNDEF_PRICE, depth_books_schema
from tasks.storage import write_table
from tests.oracles.naive_mid_bars import Level, Touch
from tests.unit.test_depth_aggregates import DEPTH, DIGITS, PARTITION, SECOND, books, quote, table_of, write_bbo, write_grid

EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "200"))
INTERVAL = 10 * SECOND
LAYER = f"depth-{DEPTH}-10s"


BOOK = [(10**13 - 100 * (k + 1), 10**13 + 100 * k, 2 * 10**4, 5 * 10**4) for k in range(DEPTH)]


def touch(as_of: int, best: Level = BOOK[0], **state: str) -> Touch:
    """A touch row with the best level of a book."""
    bid, ask, bid_size, ask_size = best
    return Touch(as_of, bid, ask, bid_size, ask_size, state.get("status", "valid"), state.get("reason", ""), as_of)


def drawn(lake: Path, times: list[int], levels: list, rows: list[Touch], group: int = 1000, **options: Any) -> Any:
    """The grid made of these layers, None where none is made."""
    more = {name: options.pop(name) for name in ("status", "reason", "status_since", "price_digits") if name in options}
    write_grid(lake / PARTITION.path(LAYER), times, levels, group, **more)
    write_bbo(lake / PARTITION.path("depth-bbo"), rows)
    path = build_depth_heatmap(lake, PARTITION, depth=DEPTH, interval_ns=INTERVAL, **options)
    return HeatmapGrid.load(lake / path) if path else None


def naive_planes(times: list[int], levels: list, grid: HeatmapGrid) -> np.ndarray:
    """float64[2, height, width]: each grid row's sizes for the part of each column that lies in its interval."""
    low, step = int(grid.price_edges[0]), int(grid.price_edges[1] - grid.price_edges[0])
    planes = np.zeros((2, len(grid.price_edges) - 1, len(grid.time_edges) - 1))
    for t, book in zip(times, levels, strict=True):
        for column, (left, right) in enumerate(pairwise(grid.time_edges.tolist())):
            share = max(0, min(right, t + INTERVAL) - max(left, t)) / (right - left)
            for side, px, size in [(side, level[side], level[side + 2]) for level in book for side in (0, 1)]:
                row = (px - low) // step
                if share and px != UNDEF_PRICE and 0 <= row < planes.shape[1]:
                    planes[side, row, column] += share * size / 10 ** DIGITS[1]
    return planes


@settings(max_examples=EXAMPLES // 4, deadline=None)
@given(data=st.data(), steps=st.lists(st.integers(1, 4), max_size=7), width=st.integers(1, 12), group=st.integers(1, 5))
def test_each_pixel_is_the_time_weighted_mean_of_the_grid_rows_in_it(tmp_path_factory, data, steps, width, group):
    times = [INTERVAL * int(k) for k in np.cumsum([3, *steps])]
    levels = [data.draw(books()) for _ in times]
    rows = [touch(t, book[0]) for t, book in zip(times, levels, strict=True)]
    grid = drawn(tmp_path_factory.mktemp("lake"), times, levels, rows, group, width=width, height=9)
    if grid is None:
        assert all(row.bid == row.ask == UNDEF_PRICE for row in rows)
        return
    columns = len(grid.time_edges) - 1
    assert (int(grid.time_edges[0]), int(grid.time_edges[-1])) == (times[0], times[-1] + INTERVAL)
    assert columns == min(width, (times[-1] + INTERVAL - times[0]) // INTERVAL)
    if columns < width:  # a column a grid time
        assert set(np.diff(grid.time_edges)) == {INTERVAL}
    expected = naive_planes(times, levels, grid)
    np.testing.assert_allclose(np.stack([grid.bids, grid.asks]), expected, rtol=1e-5, atol=1e-4)
    if columns < width:
        assert ((np.stack([grid.bids, grid.asks]) != 0) == (expected != 0)).all()


def test_a_column_a_grid_time_holds_that_book_and_nothing_of_its_neighbours(tmp_path):
    nothing = [(UNDEF_PRICE, UNDEF_PRICE, 0, 0)] * DEPTH
    grid = drawn(tmp_path, [INTERVAL * k for k in range(1440)], [BOOK, nothing] * 720, [touch(0)])
    assert grid.bids.shape[1] == 1440
    assert set(grid.bids.max(axis=0)[::2]) == {np.float32(2.0)}
    assert not grid.bids[:, 1::2].any()
    assert not grid.asks[:, 1::2].any()


def test_nothing_is_drawn_between_windows(tmp_path):
    times = [0, INTERVAL, 5 * INTERVAL]
    grid = drawn(tmp_path, times, [BOOK] * 3, [touch(0)])
    assert grid.bids.max(axis=0).tolist() == [2.0, 2.0, 0.0, 0.0, 0.0, 2.0]
    assert grid.asks.sum(axis=0).tolist() == [15.0, 15.0, 0.0, 0.0, 0.0, 15.0]
    known = [10**13 - 100] * 2 + [UNDEF_PRICE] * 3 + [10**13 - 100]
    assert grid.bid_px.tolist() == known
    assert (grid.ask_px != UNDEF_PRICE).tolist() == [px != UNDEF_PRICE for px in known]


def test_spans_tell_every_stretch_in_which_the_book_is_not_valid(tmp_path):
    times = [INTERVAL * k for k in range(8)]
    status = ["no_book", "valid", "suspect", "valid", "stale", "stale", "valid", "valid"]
    reason = ["no_snapshot", "", "gap", "", "silence", "silence", "", ""]
    since = [None, 7, 17 * SECOND, 25 * SECOND, 38 * SECOND, 38 * SECOND, 60 * SECOND, 60 * SECOND]
    rows = [touch(7), touch(17 * SECOND, status="suspect", reason="gap"), touch(25 * SECOND), touch(78 * SECOND, status="suspect", reason="gap")]
    grid = drawn(tmp_path, times, [BOOK] * 8, rows, status=status, reason=reason, status_since=since)
    assert grid.spans == (
        (0, 7, "no_book", "no_snapshot"),
        (17 * SECOND, 25 * SECOND, "suspect", "gap"),
        (38 * SECOND, 60 * SECOND, "stale", "silence"),
        (78 * SECOND, 80 * SECOND, "suspect", "gap"),
    )


def test_prices_with_more_than_nine_decimals_are_drawn_as_they_are(tmp_path):
    levels = [[(level[0] + k, level[1] + k, *level[2:]) for level in BOOK] for k in range(4)]
    rows = [touch(INTERVAL * k, book[0]) for k, book in enumerate(levels)]
    grid = drawn(tmp_path, [INTERVAL * k for k in range(4)], levels, rows, price_digits=[13] * 4, height=100_000)
    assert grid.bid_px.tolist() == [10**13 - 100 + k for k in range(4)]
    assert int(grid.price_edges[1] - grid.price_edges[0]) == 1
    assert [price_multiple(digits) for digits in (9, 10, 13)] == [1, 10, 10_000]


def test_a_grid_is_made_once_and_again_when_a_layer_changes(tmp_path):
    layer = tmp_path / PARTITION.path(LAYER)
    table = table_of_grid(layer)
    write_bbo(tmp_path / PARTITION.path("depth-bbo"), [quote(0, 20)])

    def make() -> tuple[int, dict]:
        path = build_depth_heatmap(tmp_path, PARTITION, depth=DEPTH, interval_ns=INTERVAL) or ""
        return (tmp_path / path).stat().st_mtime_ns, read_footer(tmp_path / path) or {}

    first = make()
    assert make() == first
    write_table(layer, table, Stamp("other", "test"))
    again = make()
    assert again[1]["bookmill.inputs"] != first[1]["bookmill.inputs"]


def table_of_grid(path: Path):
    """A grid of one row under a stamp."""
    known = {"ts_event": [0], **{f"{side}_{kind}_{k:02d}": [10] for k in range(DEPTH) for side in ("bid", "ask") for kind in ("px", "sz")}}
    table = table_of(depth_books_schema(DEPTH), known, 1)
    write_table(path, table, Stamp("one", "test"))
    return table


def test_without_a_touch_there_is_no_grid_and_a_faulty_layer_is_named(tmp_path):
    empty = [[(UNDEF_PRICE, UNDEF_PRICE, 0, 0)] * DEPTH]
    assert drawn(tmp_path, [0], empty, []) is None
    assert drawn(tmp_path, [0], empty, [Touch(0, UNDEF_PRICE, UNDEF_PRICE, 0, 0, "valid", "", 0)]) is None
    assert not (tmp_path / PARTITION.path("heatmap")).exists()
    for digits in ([8, 8], [9, 10]):
        with pytest.raises(SchemaMismatch, match="price_digits"):
            drawn(tmp_path, [0, INTERVAL], [BOOK] * 2, [touch(0)], price_digits=digits)
    with pytest.raises(StorageError, match="BTCUSDT"):
        build_depth_heatmap(tmp_path / "absent", PARTITION, depth=DEPTH, interval_ns=INTERVAL)
