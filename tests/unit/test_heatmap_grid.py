"""The heatmap's grid against its naive twin: how it accumulates, and what it shows of windows and of the gaps between them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.heatmap_grid import HeatmapGrid
from tasks.partitions import MboRecipe
from tasks.reconstruction.heat_kernels import accumulate, price_rows, settle_all
from tasks.reconstruction.heat_windows import HeatWindows
from tasks.reconstruction.heatmap import build_heatmap
from tasks.reconstruction.rebuild import rebuild
from tasks.reconstruction.replay import Replay
from tasks.reconstruction.replay_kernels import Batch
from tasks.schemas import EVENT_DTYPES, F_LAST, MBO_RECORD, UNDEF_PRICE
from tests.lake_building import PARTITION, write_events
from tests.oracles.naive_heatmap import naive_event_heatmap, naive_heatmap, naive_touch
from tests.strategies.sessions import START_NS, TICK, sessions
from tests.unit.test_replay import EXAMPLES, generated, one_book

WIDTH = 7
in_lakes = settings(max_examples=max(EXAMPLES // 5, 10), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def fast_heatmap(records: np.ndarray, edges: np.ndarray, low: int, step: int, rows: int) -> np.ndarray:
    columns = {name: records[name].astype(dtype) for name, dtype in EVENT_DTYPES.items()}
    replay = Replay(depth=1, windows=[])
    n = len(records)
    rank = np.zeros(n, np.int32)
    replay.book.ranks(columns["price"], rank)
    clock = np.maximum.accumulate(columns["ts_recv"])
    ends = np.flatnonzero(columns["flags"] & F_LAST)
    x = (clock - edges[0]) * (WIDTH / (edges[-1] - edges[0]))
    following = np.searchsorted(ends, np.arange(n))
    x[following < len(ends)] = x[ends[following[following < len(ends)]]]
    x[following >= len(ends)] = WIDTH + 1.0  # what no event end completes is not seen
    names = ("action", "side", "flags", "size", "order_id", "sequence")
    batch = Batch(**{k: columns[k] for k in names}, rank=rank, clock=clock, marks=np.zeros(0, np.int64))
    plane, held, since = np.zeros((2, rows, WIDTH)), np.zeros((2, rows)), np.zeros((2, rows))
    row_of = np.zeros(len(replay.book.arrays.prices), np.int32)
    price_rows(replay.book.arrays.prices, low, step, rows, row_of)
    assert accumulate(batch, 0, n, x, replay.book.arrays, plane, held, since, row_of) == n
    settle_all(plane, held, since, float(WIDTH))
    return plane


@generated
@given(sessions())
def test_each_pixel_is_the_time_weighted_mean_of_the_size_that_rested_in_it(records):
    records = one_book(records)
    prices = records["price"][records["price"] != 2**63 - 1]
    if len(prices) == 0:
        return
    times = np.maximum.accumulate(records["ts_recv"].astype(np.int64))
    column = (int(times[-1]) - int(times[0])) // WIDTH + 1
    edges = int(times[0]) + column * np.arange(WIDTH + 1)  # integers: a float holds an epoch time to 256 ns only
    low, step, rows = int(prices.min()), max((int(prices.max()) - int(prices.min())) // 3, 1), 4
    assert fast_heatmap(records, edges, low, step, rows) == pytest.approx(naive_heatmap(records, edges, low, step, rows), rel=1e-6, abs=1e-4)


MS, SECOND = 10**6, 10**9
Spans = list[tuple[int, int]]


@st.composite
def windows_of(draw: st.DrawFn, last: int = 32) -> Spans:
    """Up to three windows of whole milliseconds, which is the interval of the lakes here, round a session that ends in the `last` one."""
    borders = sorted(draw(st.sets(st.integers(-1, last + 1), min_size=min(4, last + 2), max_size=6)))
    borders = borders[: len(borders) // 2 * 2]
    return [(START_NS + a * MS, START_NS + b * MS) for a, b in zip(borders[::2], borders[1::2], strict=True)]


@st.composite
def windowed_sessions(draw: st.DrawFn) -> tuple[np.ndarray, Spans]:
    """A valid session of one book and windows round it."""
    records = one_book(draw(sessions(corrupt=False)))
    return records, draw(windows_of(int(records["ts_recv"].max() - START_NS) // MS))


def drawn(lake, records: np.ndarray, windows: Spans, **options) -> HeatmapGrid | None:
    """The grid of a lake with these events, None where there was never a touch."""
    options.setdefault("interval_ns", MS)
    batch_rows = options.pop("batch_rows", 65_536)
    recipe = MboRecipe(depth=2, heatmap_width=WIDTH, heatmap_height=100, **options)
    events = [write_events(lake, records)]
    rebuilt = rebuild(lake, PARTITION, events, recipe, windows=windows)
    path = build_heatmap(lake, PARTITION, events, rebuilt, recipe, batch_rows=batch_rows)
    return HeatmapGrid.load(lake / path) if path else None


def geometry(grid: HeatmapGrid) -> tuple[int, int, int]:
    return int(grid.price_edges[0]), int(grid.price_edges[1] - grid.price_edges[0]), len(grid.price_edges) - 1


def planes(grid: HeatmapGrid) -> np.ndarray:
    return np.stack([grid.bids, grid.asks]).astype(np.float64)


@in_lakes
@given(windowed_sessions())
def test_a_picture_by_time_shows_book_and_touch_of_the_windows_and_nothing_between_them(tmp_path_factory, session):
    records, windows = session
    grid = drawn(tmp_path_factory.mktemp("lake"), records, windows)
    if grid is None:
        return
    expected = naive_heatmap(records, grid.time_edges, *geometry(grid), windows)
    assert planes(grid) == pytest.approx(expected, rel=1e-5, abs=1e-4)
    for column, end in enumerate(grid.time_edges[1:].tolist()):
        best = naive_touch(records, end) if any(a < end <= b for a, b in windows) else [None, None]
        assert [None if px == UNDEF_PRICE else px for px in (grid.bid_px[column], grid.ask_px[column])] == best
    for start, end, *_ in grid.spans:
        assert any(a <= start <= end <= b for a, b in windows)


@in_lakes
@given(windowed_sessions())
def test_a_picture_by_event_counts_the_events_of_the_windows_only(tmp_path_factory, session):
    records, windows = session
    grid = drawn(tmp_path_factory.mktemp("lake"), records, windows, heatmap_axis="event")
    if grid is None:
        return
    assert planes(grid) == pytest.approx(naive_event_heatmap(records, WIDTH, *geometry(grid), windows), rel=1e-5, abs=1e-4)


def book_of(rows: list[tuple[int, str, str, int, int]]) -> np.ndarray:
    """MBO_RECORDs of a book that is cleared first. rows: (ns since START_NS, action, side, price in ticks, order id), each an event of five lots."""
    records = np.zeros(len(rows) + 1, MBO_RECORD)
    cleared = (0, "R", "N", None, 0)
    for record, (ns, action, side, price, order) in zip(records, [cleared, *rows], strict=True):
        record["ts_recv"] = record["ts_event"] = START_NS + ns
        record["action"], record["side"], record["flags"], record["order_id"] = ord(action), ord(side), F_LAST, order
        record["price"], record["size"] = (UNDEF_PRICE, 0) if price is None else (price * TICK, 5)
    return records


BEFORE = [(1, "A", "B", 100, 1), (2, "A", "A", 101, 2)]
BETWEEN = [(20 * SECOND, "M", "A", 111, 2), (21 * SECOND, "M", "B", 110, 1)]
WINDOWS = [(START_NS, START_NS + 10 * SECOND), (START_NS + 60 * SECOND, START_NS + 80 * SECOND)]


@pytest.mark.parametrize("batch_rows", [1, 2, 65_536])
def test_a_gap_is_empty_however_the_events_are_cut_into_batches(tmp_path, batch_rows):
    records = book_of([*BEFORE, *BETWEEN, (66 * SECOND, "A", "B", 109, 3), (70 * SECOND, "A", "B", 108, 4)])
    grid = drawn(tmp_path, records, WINDOWS, interval_ns=SECOND, batch_rows=batch_rows)
    assert (grid.time_edges - START_NS).tolist() == [10 * SECOND * k for k in range(8)]
    low, step, _ = geometry(grid)
    bids = [planes(grid)[0][(px * TICK - low) // step].tolist() for px in (100, 110, 109, 108)]
    assert bids == [pytest.approx(sizes) for sizes in ([5, 0, 0, 0, 0, 0, 0], [0] * 6 + [5], [0] * 6 + [2], [0] * 7)]
    none = [UNDEF_PRICE] * 5
    assert (grid.bid_px.tolist(), grid.ask_px.tolist()) == ([100 * TICK, *none, 110 * TICK], [101 * TICK, *none, 111 * TICK])


def test_until_the_first_event_of_a_window_the_touch_is_what_it_became_in_the_gap_and_then_what_that_event_made_it(tmp_path):
    records = book_of([*BEFORE, *BETWEEN, (75 * SECOND, "M", "B", 100, 1), (75 * SECOND, "M", "A", 101, 2), (95 * SECOND, "A", "B", 90, 4)])
    records["flags"][-3] = 0  # back to the touch before the gap in one event, of which bbo has no row
    grid = drawn(tmp_path, records, [WINDOWS[0], (START_NS + 60 * SECOND, START_NS + 100 * SECOND)], interval_ns=30 * SECOND)
    assert ((grid.time_edges[5:] - START_NS) // SECOND).tolist() == [67, 81, 95]
    none = [UNDEF_PRICE] * 4
    assert grid.bid_px.tolist() == [*none, 110 * TICK, 100 * TICK, 100 * TICK]
    assert grid.ask_px.tolist() == [*none, 111 * TICK, 101 * TICK, 101 * TICK]


def test_the_time_between_windows_does_not_weigh_in_the_range_of_prices(tmp_path):
    hour = 3_600 * SECOND
    moves = [(hour + 10, "M", "A", 901, 2), (hour + 11, "M", "B", 900, 1), (2 * hour - 1, "M", "A", 902, 2)]
    grid = drawn(tmp_path, book_of([*BEFORE, *moves]), [(START_NS, START_NS + 5), (START_NS + hour, START_NS + 2 * hour)], interval_ns=60 * SECOND)
    assert grid.price_edges[0] > 101 * TICK  # where the touch stood for some nanoseconds of the windows


@pytest.mark.parametrize(("high", "ticks"), [(110, 1), (400, 5)])
def test_the_grid_says_how_many_ticks_a_row_holds(tmp_path, high, ticks):
    moves = [(SECOND, "M", "A", high + 1, 2), (SECOND + 1, "M", "B", high, 1), (2 * SECOND, "M", "A", high + 2, 2)]
    grid = drawn(tmp_path, book_of([*BEFORE, *moves]), [(START_NS, START_NS + 9 * SECOND)], interval_ns=SECOND)
    assert grid.ticks == ticks == geometry(grid)[1] // TICK  # at most 100 rows; a fifth of the range is added on each side


@given(windows_of(), st.lists(st.integers(-3, 35), min_size=1, max_size=9))
def test_windows_say_what_they_hold_and_how_much_of_them_has_passed(windows, times):
    found = HeatWindows(windows)
    at = START_NS + np.array(times) * MS
    nanoseconds = [[min(max(t - a, 0), b - a) for a, b in windows] for t in at.tolist()]
    assert found.passed(at).tolist() == [sum(row) for row in nanoseconds]
    assert found.holds(at).tolist() == [any(a <= t < b for a, b in windows) for t in at.tolist()]
    never = 2**63 - 1
    assert found.opened(at).tolist() == [next((a for a, b in windows if a < t <= b), never) for t in at.tolist()]
    assert HeatWindows().passed(at).tolist() == at.tolist()
