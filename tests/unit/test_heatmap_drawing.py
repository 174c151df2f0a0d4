"""The heatmap as picture and as page: pixels where the grid says, exact labels, no request to outside, the same bytes each time."""

from __future__ import annotations

import base64
import json
import re
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tasks.errors import UsageError
from tasks.heatmap_grid import HeatmapGrid
from tasks.partitions import Stamp
from tasks.publishing import axes, colours, heatmap_html, paint_kernels
from tasks.publishing.heatmap_html import draw_html
from tasks.publishing.heatmap_png import draw_png
from tasks.publishing.picture_text import PLOT
from tasks.schemas import UNDEF_PRICE

TICK = 250_000_000
LOW = 4_000 * 10**9
T0 = 1_703_514_600 * 10**9
SECOND = 10**9
WIDTH, ROWS = 120, 200  # columns of 1 s; rows of a fifth of a tick: 40 ticks
PLOT_WIDTH, PLOT_HEIGHT = PLOT[2] - PLOT[0], PLOT[3] - PLOT[1]


def make_grid(axis: str = "time", spans: tuple[tuple[int, int, str, str], ...] = ()) -> HeatmapGrid:
    """Bids of 10 at ticks 0 to 18 over columns 20 to 59, asks of 10 at ticks 20 to 39 over columns 60 to 119; nothing before column 20."""
    bids, asks = np.zeros((ROWS, WIDTH), np.float32), np.zeros((ROWS, WIDTH), np.float32)
    bids[0:95:5, 20:60] = 10
    asks[100:200:5, 60:] = 10
    bid_px, ask_px = np.full(WIDTH, LOW + 18 * TICK), np.full(WIDTH, LOW + 20 * TICK)
    bid_px[60:] = ask_px[:60] = UNDEF_PRICE
    bid_px[50:55] = LOW + 17 * TICK
    edges = LOW + TICK // 5 * np.arange(ROWS + 1, dtype=np.int64)
    return HeatmapGrid(bids, asks, T0 + SECOND * np.arange(WIDTH + 1), edges, bid_px, ask_px, spans, axis)


def make_trades() -> axes.Trades:
    sides = np.frombuffer(b"BAN", np.uint8).copy()
    return [(T0 + SECOND * np.array([30, 90, 110]), LOW + TICK * np.array([19, 19, 19]), np.array([5, 500, 7]), sides)]


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).copy()


def plot_of(path) -> np.ndarray:
    return pixels(path)[PLOT[1] : PLOT[3], PLOT[0] : PLOT[2]]


def is_in(picture: np.ndarray, ramp: np.ndarray) -> np.ndarray:
    """bool[h, w]: which pixels have exactly a colour of `ramp`."""
    code = picture.astype(np.int64) @ [65536, 256, 1]
    return np.isin(code, ramp.astype(np.int64) @ [65536, 256, 1])


BLUES, REDS = colours.ramp(colours.BID_STOPS), colours.ramp(colours.ASK_STOPS)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "heatmap.png"
    draw_png(make_grid(), axes.NO_TRADES, path, title="TEST 2023-12-25", touch=False)
    return path


def test_picture_is_1600_by_1000_with_bids_blue_and_asks_red_where_they_rested(plain):
    assert pixels(plain).shape == (1000, 1600, 3)
    plot = plot_of(plain)
    shown = axes.levels_of(make_grid())
    low, high = shown.bounds
    split = PLOT_HEIGHT - round((LOW + 19 * TICK - low) / (high - low) * PLOT_HEIGHT)  # tick 19 is empty: between the blocks
    blue, red = is_in(plot, BLUES), is_in(plot, REDS)
    x20, x60 = 20 * PLOT_WIDTH // WIDTH, 60 * PLOT_WIDTH // WIDTH
    assert blue[split + 15 :, x20 + 15 : x60 - 15].mean() > 0.9  # all but the hairlines between levels
    assert red[: split - 15, x60 + 15 :].mean() > 0.85  # the row above the highest level is empty
    assert not blue[: split - 15].any()
    assert not blue[:, : x20 - 1].any()
    assert not blue[:, x60 + 1 :].any()
    assert not red[split + 15 :].any()
    assert not red[:, : x60 - 1].any()


def test_the_larger_of_bid_and_ask_wins_a_shared_pixel_and_equals_its_slow_twin():
    random = np.random.default_rng(5)
    bids, asks = (random.choice([0.0, 1.0, 3.0, 8.0], (7, 11)).astype(np.float32) for _ in range(2))
    first, last = np.array([0, 2, 4, 6, 3], np.int32), np.array([2, 4, 6, 7, 3], np.int32)
    for scale, name in enumerate(colours.SCALES):
        image = np.full((5, 11, 3), 255, np.uint8)
        paint_kernels.paint_cells(image, bids, asks, first, last, BLUES, REDS, 6.0, scale, colours.LOG_RANGE)
        for y in range(5):
            for x in range(11):
                bid = max(bids[first[y] : last[y], x], default=0.0)
                ask = max(asks[first[y] : last[y], x], default=0.0)
                share = float(colours.intensity(np.array(max(bid, ask)), 6.0, name))
                expected = (BLUES if bid >= ask else REDS)[int(share * 255 + 0.5)] if max(bid, ask) > 0 else np.array([255, 255, 255])
                assert image[y, x].tolist() == expected.tolist(), (name, y, x)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31))
def test_resampling_over_time_keeps_the_time_weighted_mean(source, width, seed):
    plane = np.random.default_rng(seed).integers(0, 100, (3, source)).astype(np.float32)
    made = paint_kernels.resample_columns(plane, width)
    fine = np.repeat(plane.astype(np.float64), width, axis=1).reshape(3, width, source).mean(axis=2)  # width * source equal slices
    np.testing.assert_allclose(made, fine, rtol=1e-5, atol=1e-4)


def test_one_giant_order_does_not_wash_out_the_others(plain, tmp_path):
    grid = make_grid()
    grid.bids[45, 20:60] = 1_000_000  # tick 9
    draw_png(grid, axes.NO_TRADES, tmp_path / "giant.png", title="", touch=False)
    usual, giant = plot_of(plain), plot_of(tmp_path / "giant.png")
    assert (usual[-40, PLOT_WIDTH // 3] == giant[-40, PLOT_WIDTH // 3]).all()


@pytest.mark.parametrize("axis", ["time", "event"])
def test_spans_without_a_valid_book_are_hatched_and_nothing_else_is(tmp_path, plain, axis):
    spans = tuple(
        (T0 + a * SECOND, T0 + (a + 6) * SECOND, status, "") for a, status in ((2, "suspect"), (70, "halted"), (90, "no_book"), (105, "stale"))
    )
    draw_png(make_grid(axis, spans), axes.NO_TRADES, tmp_path / "spans.png", title="", touch=False)
    differs = (plot_of(tmp_path / "spans.png") != plot_of(plain)).any(axis=2)
    inside = np.zeros(PLOT_WIDTH, bool)
    for start, end, status, _ in spans:
        x0, x1 = ((t - T0) * PLOT_WIDTH // (WIDTH * SECOND) for t in (start, end))
        inside[x0 : x1 + 1] = True
        stretch = plot_of(tmp_path / "spans.png")[:, x0 + 2 : x1 - 2]
        assert (stretch[:5] == colours.STATUS_COLOURS[status]).all()
        assert differs[10:, x0 + 2 : x1 - 2].mean() > 0.3
        assert len(np.unique(stretch[300:340].reshape(-1, 3), axis=0)) >= 2  # lines and tint, not a plain area
    if axis == "time":  # the event axis has other grid lines
        assert not differs[:, ~inside].any()


def test_a_span_shorter_than_a_pixel_still_shows(tmp_path):
    grid = make_grid(spans=((T0 + 5 * SECOND, T0 + 5 * SECOND, "suspect", "unknown_id"),))
    draw_png(grid, axes.NO_TRADES, tmp_path / "thin.png", title="")
    assert (plot_of(tmp_path / "thin.png")[2] == colours.STATUS_COLOURS["suspect"]).all(axis=1).sum() == 1


def test_trades_are_marked_at_their_time_and_price_in_the_colour_of_their_side(tmp_path):
    grid, trades = make_grid(), make_trades()
    draw_png(grid, trades, tmp_path / "trades.png", title="", touch=False)
    plot = plot_of(tmp_path / "trades.png")
    low, high = axes.levels_of(grid, axes.trade_facts(trades).prices).bounds
    y = int(PLOT_HEIGHT * (1 - (LOW + 19 * TICK - low) / (high - low)))
    for second, colour in ((30, colours.BUY), (90, colours.SELL), (110, colours.UNKNOWN_SIDE)):
        marked = (np.abs(plot.astype(int) - colour) < 40).all(axis=2)
        rows, columns = np.nonzero(marked)
        assert len(rows), colour
        assert np.abs(columns - second * PLOT_WIDTH // WIDTH).max() <= 14
        assert np.abs(rows - y).max() <= 14


def test_the_same_arguments_give_the_same_bytes(tmp_path):
    for draw, suffix in ((draw_png, "png"), (draw_html, "html")):
        for name in "ab":
            draw(make_grid(), make_trades(), tmp_path / f"{name}.{suffix}", title="T")
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


@pytest.mark.parametrize("draw", [draw_png, draw_html])
def test_a_picture_does_not_depend_on_how_its_trades_come(tmp_path, draw, monkeypatch):
    monkeypatch.setattr(heatmap_html, "MOST_TRADES", 40)  # of many equal sizes: which are shown depends on their order
    rng = np.random.default_rng(5)
    n = 300
    columns = (
        T0 + SECOND * np.sort(rng.integers(-5, 125, n)), LOW + TICK * rng.integers(-3, 40, n), rng.integers(1, 9, n).astype(np.uint32),
        rng.choice(np.frombuffer(b"BAN", np.uint8), n),
    )  # fmt: skip
    for name, cuts in (("one", []), ("many", [1, 1, 7, 50, 51, 52, 290])):
        draw(make_grid(), list(zip(*(np.split(column, cuts) for column in columns), strict=True)), tmp_path / name, title="T")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "many").read_bytes()


def test_an_empty_book_and_no_trades_still_make_a_picture_and_a_page(tmp_path):
    edges = LOW + TICK * np.arange(11, dtype=np.int64)
    none, empty = np.full(8, UNDEF_PRICE), np.zeros((10, 8), np.float32)
    grid = HeatmapGrid(empty, empty, T0 + np.arange(9), edges, none, none, ((T0, T0 + 8, "no_book", "no_snapshot"),), "time")
    draw_png(grid, axes.NO_TRADES, tmp_path / "e.png", title="E")
    draw_html(grid, axes.NO_TRADES, tmp_path / "e.html", title="E")
    assert pixels(tmp_path / "e.png").shape == (1000, 1600, 3)


def test_an_unknown_scale_is_refused_with_what_is_allowed(tmp_path):
    for draw in (draw_png, draw_html):
        with pytest.raises(UsageError, match="linear, sqrt, log"):
            draw(make_grid(), axes.NO_TRADES, tmp_path / "x", title="", scale="cubic")
    assert not list(tmp_path.iterdir())


def test_levels_are_the_ticks_of_a_grid_finer_than_the_tick():
    shown = axes.levels_of(make_grid())
    assert shown.exact
    assert shown.step == TICK
    assert shown.prices[0] == LOW
    assert (shown.prices - LOW) % TICK == pytest.approx(0)
    assert shown.bids.max(axis=1)[:19].tolist() == [10] * 19
    assert shown.asks.max(axis=1)[20:40].tolist() == [10] * 20


def test_a_grid_with_sizes_between_the_touch_prices_ticks_is_drawn_as_it_is():
    grid = make_grid()
    grid.asks[123, 100] = 4
    shown = axes.levels_of(grid)
    assert shown.asks.sum() == grid.asks.sum()
    assert shown.bids.sum() == grid.bids.sum()


@pytest.mark.parametrize(("ticks", "exact"), [(1, True), (2, False)])
def test_no_price_is_called_exact_in_a_grid_whose_rows_hold_several_ticks(ticks, exact, tmp_path):
    edges = LOW - TICK // 2 + 2 * TICK * np.arange(41, dtype=np.int64)
    bids = np.ones((40, WIDTH), np.float32)
    bid_px = LOW + 10 * TICK * (np.arange(WIDTH) % 8)  # the touch is on every tenth tick only, and each of these is in a row
    grid = HeatmapGrid(bids, np.zeros_like(bids), T0 + SECOND * np.arange(WIDTH + 1), edges, bid_px, bid_px + 10 * TICK, (), "time", ticks)
    grid.save(tmp_path / "g.parquet", Stamp("test", "test"))
    shown = axes.levels_of(HeatmapGrid.load(tmp_path / "g.parquet"))
    assert (shown.exact, shown.step, len(shown.prices)) == (exact, 2 * TICK, 40)
    assert heatmap_html._price_labels(shown)[:2] == (["4,000.0", "4,000.5"] if exact else ["3,999.875 to 4,000.375", "4,000.375 to 4,000.875"])


@given(st.integers(-(2**62), 2**62))
@settings(max_examples=200)
def test_price_labels_are_exact(price):
    places = axes.decimals_of(price)
    assert Decimal(axes.price_text(price, places).replace(",", "")) == Decimal(price) / 10**9
    assert places == 0 or price % 10 ** (10 - places) != 0


@given(st.integers(0, 10**15), st.integers(1, 10**14))
@settings(max_examples=200)
def test_ticks_of_price_and_time_are_few_round_and_inside(low, span):
    prices = axes.price_ticks(low, low + span)
    times, step = axes.time_ticks(low, low + span)
    for ticks in (prices, times):
        assert len(ticks) <= 17
        assert all(low <= tick <= low + span for tick in ticks)
    assert all(time % step == 0 for time in times)
    if span > 100:
        assert len(prices) >= 3


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "heatmap.html"
    draw_html(make_grid(spans=((T0, T0 + SECOND, "suspect", "unknown_id"),)), make_trades(), path, title="A & <script>alert(1)</script>")
    return path.read_text()


def outside_plotly(text: str) -> str:
    """The page without the library, which holds addresses that it loads only for maps and uploads."""
    from plotly.offline import get_plotlyjs

    assert get_plotlyjs() in text
    return text.replace(get_plotlyjs(), "")


def test_the_page_loads_nothing_and_forbids_it(html):
    own = outside_plotly(html)
    assert not re.search(r"https?:|//[a-z0-9.-]+\.[a-z]{2,}|\bsrc=|@import|url\(", own)
    assert "Content-Security-Policy" in own
    assert "default-src 'none'" in own
    assert "<script>alert" not in own
    assert len(html) < 15 * 2**20


@pytest.mark.parametrize("factor", [1.0, 0.001, 5000.0])
def test_the_page_holds_every_size_of_the_grid_signed(tmp_path, factor):
    grid = make_grid()
    grid.bids[:] *= np.float32(factor)
    grid.asks[:] *= np.float32(factor * 1.5)
    if factor > 1:
        grid.asks[195, 100] = 40_000_000  # far beyond 16 bits of the others
    draw_html(grid, make_trades(), tmp_path / "h.html", title="T")
    data = json.loads(re.search(r"const H = (\{.*\});\n", outside_plotly((tmp_path / "h.html").read_text()))[1])
    cells = np.frombuffer(base64.b64decode(data["grid"]["bdata"]), {"i2": "<i2", "f4": "<f4"}[data["grid"]["dtype"]]).reshape(
        data["rows"], data["columns"]
    )
    shown = axes.levels_of(grid, make_trades()[0][1])
    np.testing.assert_allclose(cells * data["unit"], np.where(shown.bids >= shown.asks, shown.bids, -shown.asks), rtol=5e-3)
    assert data["prices"][:2] == ["4,000.00", "4,000.25"]
    assert [t["name"] for t in data["traces"]] == ["Best bid", "Best ask", "Bought", "Sold", "Side not known"]
    assert data["traces"][2]["text"] == ["14:30:30.000000000 UTC<br>bought 5 at 4,004.75"]
