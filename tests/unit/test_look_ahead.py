"""No look-ahead, over every format: a file that is cut off at any moment T gives, for every row at or before T, what the whole file gives.

What "at or before T" is: of book rows (mbp, bbo) as_of, the time at which their event was complete; of grid and feature rows their own time; of
bars their close; trades carry no such time, and those of the messages up to T come first in their layer. A message is known at T when the
greatest clock of its book so far is at or before T: a late one has an older time of its own, which nobody could act on then.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.aggregation.aggregate import aggregate
from tasks.book_rows import read_table
from tasks.filtering.predicate import output_windows
from tasks.partitions import EventFilter, MboRecipe, Partition
from tasks.reconstruction.rebuild import rebuild
from tasks.scanning.decode import decode
from tasks.scanning.inventory import scan
from tasks.schemas import F_LAST, F_SNAPSHOT, UNDEF_PRICE
from tests.lake_building import PARTITION, write_events
from tests.strategies.source_files import FORMATS, START_NS, Feed, feeds
from tests.unit.test_replay import record

EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "200"))
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
# Each example runs the pipeline twice or three times.
generated = settings(max_examples=max(3, EXAMPLES // 16), deadline=None, suppress_health_check=SLOW)
TIME_BARS, ACTIVITY_BARS = ("1ms", "20ms"), ("tick:2", "volume:9")
MILLISECOND = 1_000_000
OF_TRADES = ("trades", "volume", "signed_volume", "last_side", "last_side_method")

Rows = list[dict[str, Any]]
Made = dict[Partition, dict[str, Rows]]


class Wish(NamedTuple):
    recipe: MboRecipe
    windows: tuple[tuple[int, int], ...] | None


@st.composite
def wishes(draw: st.DrawFn, feed: Feed) -> Wish:
    """Clock, grid and windows. The grid has at most some 150 points, and ages at which rows become stale are within the session."""
    times = [time for clock in ("ts_event", "ts_recv") for time in feed.times[clock]]
    first, span = min(times), max(times) - min(times) + 1
    interval = max(draw(st.sampled_from((MILLISECOND, 700_000, 4 * MILLISECOND))), span // 150)
    recipe = MboRecipe(
        depth=draw(st.sampled_from((1, 2, 5))), interval_ns=interval, clock=draw(st.sampled_from(("ts_recv", "ts_event"))),
        stale_after_ns=draw(st.sampled_from((1, 900_000, 5 * MILLISECOND, None))), starts_empty=draw(st.booleans()),
        sequence=draw(st.sampled_from(("sparse", "contiguous"))), bars=(*TIME_BARS, *ACTIVITY_BARS),
    )  # fmt: skip
    edges = sorted({first - 2 * interval + at * span // 100 for at in draw(st.lists(st.integers(-3, 110), min_size=2, max_size=6, unique=True))})
    windows = tuple(zip(edges[::2], edges[1::2], strict=False))
    return Wish(recipe, windows if windows and draw(st.booleans()) else None)


def moment(draw: Any, feed: Feed, clock: str) -> int:
    """A T within the session or beside it: at a message's time, one ns off it, or anywhere."""
    time = draw(st.sampled_from(feed.times[clock]))
    return time + draw(st.sampled_from((-1, 0, 0, 1, 123_456)))


def make(feed: Feed, kept: list[bool], folder: Path, wish: Wish) -> Made:
    """File, decode, rebuild and aggregate as plain functions: every layer of every partition."""
    shutil.rmtree(folder, ignore_errors=True)
    path = feed.write(folder / "source", kept)
    (source,) = scan([path], dataset="TEST").files
    made: Made = {}
    for part in decode(source, folder / "lake", wish.recipe).parts:
        windows = None if wish.windows is None else list(wish.windows)
        rebuilt = rebuild(folder / "lake", part.partition, [part.path], wish.recipe, windows=windows, batch_rows=16)
        facts = aggregate(folder / "lake", part.partition, wish.recipe, batch_rows=16)
        paths = {**{layer: path for layer, (path, _) in rebuilt.outputs.items()}, **{layer: part.partition.path(layer) for layer in facts}}
        layers = {layer: rows_of(folder / "lake" / path) for layer, path in paths.items()}
        for layer, told in facts.items():
            if told.get("open_bar"):
                layers[layer].pop()
        made[part.partition] = layers
    return made


def rows_of(path: Path) -> Rows:
    """Rows of a layer, times as integers."""
    table = read_table(path)
    columns = [column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column for column in table.columns]
    return pa.table(columns, names=table.column_names).to_pylist()


def names(layers: dict[str, Rows]) -> dict[str, str]:
    """Layer of each kind; the grid's is the one of two mbp layers that has an interval in its name."""
    mbp = sorted((name for name in layers if name.startswith("mbp-")), key=len)
    (features,) = (name for name in layers if name.startswith("features-"))
    return {"rows": mbp[0], "grid": mbp[1], "features": features}


def compare(whole: dict[str, Rows], cut: dict[str, Rows], wish: Wish, at: int, late: bool) -> None:
    """Assert that no row at or before `at` differs. late: whether messages are older than one before them."""
    clock, layer = wish.recipe.clock, names(cut)
    for name in (layer["rows"], "bbo"):
        # A window that opens after the cut shows the touch at its start, as its grid does.
        opened = [row for row in cut[name] if row["as_of"] > at]
        assert {row["as_of"] for row in opened} <= {start for start, _ in wish.windows or () if name == "bbo"}
        assert [row for row in whole[name] if row["as_of"] <= at] == [row for row in cut[name] if row["as_of"] <= at], name
    trades = len(cut["trades"])
    assert whole["trades"][:trades] == cut["trades"]
    assert not [row for row in whole["trades"][trades:] if row["as_of"] <= at], "a trade that was known at T is missing"
    assert late or not [row for row in whole["trades"][trades:] if row[clock] <= at]
    for name in (layer["grid"], layer["features"]):
        full, part = ([row for row in rows if row["ts_event"] <= at] for rows in (whole[name], cut[name]))
        if wish.windows is None:
            # Without windows a grid ends with its file; what the whole one has beyond that, it has only because it goes on.
            assert len(full) >= len(part)
            full = full[: len(part)]
        assert full == part, name
    for name in cut:
        if name.startswith("ohlcv-"):
            # A bar whose end is after T is open then.
            full, part = ([row for row in rows if row["ts_close"] <= at] for rows in (whole[name], cut[name]))
            assert full == part, name
        elif name.startswith("bars-"):
            # Closed by a trade; the open one is not in the lists.
            assert whole[name][: len(cut[name])] == cut[name], name
            assert sum(row["ts_close"] <= at for row in whole[name]) == len(cut[name]), name


@pytest.mark.parametrize("format", FORMATS)
def test_no_row_at_or_before_t_changes_when_the_file_is_cut_off_at_t(format, tmp_path):
    @generated
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        feed = data.draw(feeds(format))
        wish = data.draw(wishes(feed))
        clock = wish.recipe.clock
        whole = make(feed, [True] * len(feed), tmp_path / "whole", wish)
        for _ in range(2):
            at = moment(data.draw, feed, clock)
            kept = feed.until(clock, at)
            cut = make(feed, kept, tmp_path / "cut", wish) if any(kept) else {}
            for partition, layers in whole.items():
                if partition in cut:
                    compare(layers, cut[partition], wish, at, feed.late(clock))
                else:
                    assert not [row for row in layers["bbo"] if row["as_of"] <= at]

    holds()


def stands(row: dict[str, Any]) -> dict[str, Any]:
    """What a grid row takes from the event row before it."""
    return {name: value for name, value in row.items() if name.endswith(tuple("0123456789")) or name == "sequence"}


@pytest.mark.parametrize("format", FORMATS)
def test_the_grid_has_every_time_of_its_windows_once_and_shows_the_last_complete_event(format, tmp_path):
    @generated
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        feed = data.draw(feeds(format))
        wish = data.draw(wishes(feed))
        clock, interval = wish.recipe.clock, wish.recipe.interval_ns
        known = feed.known(clock)
        kept = [time is not None for time in known]  # what is set aside after the last event has its own test, in test_status.py
        if not any(kept):
            return
        whole = make(feed, kept, tmp_path / "whole", wish)
        events = make(feed, kept, tmp_path / "events", wish._replace(windows=None)) if wish.windows is not None else whole
        for partition, layers in whole.items():
            layer, rows = names(layers), events[partition][names(layers)["rows"]]
            grid = layers[layer["grid"]]
            wanted = wish.windows
            if wanted is None:
                mine = mine_of(feed, clock, partition)
                wanted = ((mine[0], -(-mine[-1] // interval) * interval + 1),)
            assert [row["ts_event"] for row in grid] == [t for a, b in wanted for t in range(-(-a // interval) * interval, b, interval)]
            for row in grid:
                at = row["ts_event"]
                before = [event for event in rows if event["as_of"] <= at]
                assert row["ts_recv"] == at
                if not before:
                    assert (row["as_of"], row["age_ns"]) == (None, -1)
                    assert {row[name] for name in stands(row)} <= {0, UNDEF_PRICE}
                    continue
                last = before[-1]
                age = at - last["as_of"]
                assert (row["as_of"], row["age_ns"], stands(row)) == (last["as_of"], age, stands(last))
                state = (last["status"], last["reason"], last["status_since"])
                stale = wish.recipe.stale_after_ns
                if state[0] == "valid" and stale is not None and age > stale:
                    state = ("stale", "silence", last["as_of"] + stale)
                assert (row["status"], row["reason"], row["status_since"]) == state
            for row, feature in zip(grid, layers[layer["features"]], strict=True):
                shared = ("ts_event", "as_of", "age_ns", "status", "reason", "status_since")
                assert [row[name] for name in shared] == [feature[name] for name in shared]
            inside = [row for row in rows if any(a <= row["as_of"] < b for a, b in wanted)]
            assert layers[layer["rows"]] == (rows if wish.windows is None else inside)

    holds()


def mine_of(feed: Feed, clock: str, partition: Partition) -> list[int]:
    """When the messages of a partition were known."""
    key = {"itch": partition.instrument_id, "lobster": 0}.get(feed.format, partition.publisher_id)
    return [time for time, k, bad in zip(feed.known(clock), feed.keys, feed.bad, strict=True) if k == key and not bad and time is not None]


MIDNIGHT, SECOND = 1_761_091_200_000_000_000, 10**9


def layers_of(lake: Path, records: np.ndarray, recipe: MboRecipe, windows: list[tuple[int, int]] | None) -> dict[str, Rows]:
    """bbo, trades and features of one book, made with these windows."""
    rebuild(lake, PARTITION, [write_events(lake, records)], recipe, windows=windows)
    aggregate(lake, PARTITION, recipe)
    return {layer: rows_of(lake / PARTITION.path(layer)) for layer in ("bbo", "trades", "features-1s")}


def test_a_window_begins_with_the_touch_as_it_stands_and_what_happened_before_it_is_no_order_flow(tmp_path):
    at = [MIDNIGHT + int(s * SECOND) for s in (0.1, 0.2, 0.3, 20, 20.1, 20.2, 20.3, 50.5, 51.5, 52.5, 52.6)]
    records = np.concatenate([
        record("R", ts=at[0]), record("A", "B", 100, 5, 1, ts=at[1]), record("A", "A", 102, 5, 2, ts=at[2]),
        record("C", "B", 100, 5, 1, ts=at[3]), record("C", "A", 102, 5, 2, ts=at[4]),
        record("A", "B", 200, 50, 4, ts=at[5]), record("A", "A", 202, 70, 5, ts=at[6]),
        record("A", "B", 200, 3, 6, ts=at[7]), record("A", "B", 201, 3, 7, ts=at[8]),
        record("T", "B", 202, 4, 0, ts=at[9]), record("C", "B", 201, 3, 7, ts=at[10]),
    ])  # fmt: skip
    recipe = MboRecipe(depth=1, interval_ns=SECOND, bars=())
    windows = [(MIDNIGHT, MIDNIGHT + 10 * SECOND), (MIDNIGHT + 50 * SECOND, MIDNIGHT + 55 * SECOND), (MIDNIGHT + 80 * SECOND, MIDNIGHT + 81 * SECOND)]
    whole, parts = (layers_of(tmp_path / str(w is None), records, recipe, w) for w in (None, windows))
    opening = [row for row in parts["bbo"] if row["as_of"] in {start for start, _ in windows}]
    assert [(row["as_of"], row["bid_px_00"], row["bid_sz_00"], row["ask_px_00"], row["ask_sz_00"]) for row in opening] == [
        (start, 200, size, 202, 70) for (start, _), size in zip(windows[1:], (50, 53), strict=True)
    ]
    features = {row["ts_event"]: row for row in parts["features-1s"]}
    expected = [row for row in whole["features-1s"] if any(start < row["ts_event"] < end for start, end in windows[1:2])]
    # From one interval after its start on a window tells what the whole day tells, its first change included.
    assert [features[row["ts_event"]]["ofi"] for row in expected] == [row["ofi"] for row in expected] == [3, 3, -3]
    assert [features[row["ts_event"]]["realised_vol"] for row in expected] == [row["realised_vol"] for row in expected]
    assert (features[windows[1][0]]["ofi"], features[windows[1][0]]["realised_vol"]) == (0, 0.0)
    assert (features[windows[2][0]]["ofi"], features[windows[2][0]]["realised_vol"]) == (0, 0.0)


@pytest.mark.parametrize("told", [True, False], ids=["LAST on its last record", "LAST on the first record after it"])
def test_a_snapshot_in_mid_file_is_neither_order_flow_nor_a_return(told, tmp_path):
    at, part = START_NS + 5 * SECOND, F_SNAPSHOT
    records = np.concatenate([
        record("R", ts=START_NS), record("A", "B", 100, 5, 1, ts=START_NS + 1), record("A", "A", 102, 5, 2, ts=START_NS + 2),
        record("R", flags=part, ts=at), record("A", "B", 200, 70, 11, flags=part, ts=at),
        record("A", "A", 202, 7, 12, flags=part | (F_LAST if told else 0), ts=at),
        record("A", "B", 150, 1, 13, ts=at), record("A", "B", 200, 2, 14, ts=at + 2 * SECOND),
    ])  # fmt: skip
    layers = layers_of(tmp_path, records, MboRecipe(depth=1, interval_ns=SECOND, bars=()), None)
    assert [row["bid_px_00"] for row in layers["bbo"]] == [UNDEF_PRICE, 100, 100, 200, 200]
    flows = [(row["ts_event"] - START_NS, row["ofi"], row["realised_vol"]) for row in layers["features-1s"] if row["ofi"] or row["realised_vol"]]
    assert flows == [(at - START_NS + 2 * SECOND, 2, 0.0)]


def test_on_ts_event_what_is_of_the_day_before_is_in_the_layers_of_the_day_that_received_it(tmp_path):
    """With --start as without: partitions are days of ts_recv, and nothing else has these records."""
    late = MIDNIGHT - 100
    records = np.concatenate([record("R", ts=late), record("A", "B", 100, 5, 1, ts=late), record("T", "B", 160, 40, 0, ts=late + 1),
                              record("T", "B", 160, 1, 0, ts=MIDNIGHT + SECOND)])  # fmt: skip
    records["ts_recv"] = MIDNIGHT + np.array([100, 100, 101, SECOND + 5])
    recipe = MboRecipe(depth=1, interval_ns=SECOND, bars=(), clock="ts_event", filter=EventFilter(start_ns=MIDNIGHT - 10**14))
    windows = output_windows(recipe.filter, PARTITION.date, recipe.clock)
    layers = layers_of(tmp_path, records, recipe, windows)
    assert [row["size"] for row in layers["trades"]] == [40, 1]
    assert [row["as_of"] for row in layers["bbo"]] == [late, late]
    grid = [row["ts_event"] for row in layers["features-1s"]]
    assert (grid[0], grid[-1]) == (MIDNIGHT, MIDNIGHT + 86_399 * SECOND), "the grid keeps to its day: the day before has rows of its own"
    assert sum(row["volume"] for row in layers["features-1s"]) == 41


def test_a_late_trade_is_in_no_feature_row_before_it_was_known(tmp_path):
    """By the rule of features.py a late row counts when it could first be known; here that is 25 ns after the start, and its own time is 9."""
    records = np.concatenate([record("R", ts=START_NS), record("N", ts=START_NS + 25), record("T", "B", 100, 3, 7, ts=START_NS + 9)])
    recipe = MboRecipe(depth=1, interval_ns=10, bars=())
    rebuild(tmp_path, PARTITION, [write_events(tmp_path, records)], recipe)
    aggregate(tmp_path, PARTITION, recipe)
    rows = rows_of(tmp_path / PARTITION.path("features-10ns"))
    assert [(row["ts_event"] - START_NS, row["trades"]) for row in rows] == [(0, 0), (10, 0), (20, 0), (30, 1)]
