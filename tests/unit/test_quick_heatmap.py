"""The heatmap made in one pass: against the naive twin, across formats, with several books and bad rows in the file, and from the command line."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from deployments import cli
from flows.quick_heatmap import quick_heatmap
from tasks.heatmap_grid import HeatmapGrid
from tasks.publishing.axes import trade_facts
from tasks.reconstruction import quick_heat
from tasks.reconstruction.quick_heat import QuickHeat
from tasks.scanning.check_kernels import check_rows
from tasks.scanning.dbn import DbnReader
from tasks.scanning.quick_check_kernels import is_clean
from tasks.scanning.quick_dbn import DbnViews
from tasks.scanning.synthetic import SessionSpec, generate
from tasks.scanning.synthetic_writers import write_session
from tasks.schemas import EVENT_DTYPES, F_LAST, MBO_RECORD, UNDEF_PRICE
from tests.oracles.naive_heatmap import naive_heatmap
from tests.strategies.sessions import START_NS, TICK, sessions
from tests.unit.test_cli import bookmill, clean  # noqa: F401 - fixtures
from tests.unit.test_replay import generated, one_book

ROOT = Path(__file__).resolve().parents[2]
WIDTH, HEIGHT = 7, 400


def painted(records: np.ndarray, batch: int, first: int = 0, **options) -> tuple[QuickHeat, HeatmapGrid | None]:
    """The painter at its end, and its grid, None without one; first: records of the first batch, by which bins are laid."""
    heat = QuickHeat(options.pop("width", WIDTH), HEIGHT, batch_rows=max(batch, first), **options)
    columns = {name: np.ascontiguousarray(records[name]).astype(dtype) for name, dtype in EVENT_DTYPES.items()}
    for at, end in itertools.pairwise([0, *range(first or batch, len(records), batch), len(records)]):
        heat.feed({name: values[at:end] for name, values in columns.items()}, np.zeros(0, np.int64))
    grid = heat.finish()
    return heat, grid


def rows_of(grid) -> tuple[int, int, int]:
    return int(grid.price_edges[0]), int(grid.price_edges[1] - grid.price_edges[0]), grid.bids.shape[0]


def planes(grid) -> np.ndarray:
    return np.stack([grid.bids, grid.asks]).astype(np.float64)


@generated
@given(sessions(), st.integers(10, 60))
def test_each_pixel_is_exact_where_the_span_is_known(records, batch):
    records = one_book(records)
    times = np.maximum.accumulate(records["ts_recv"].astype(np.int64))
    heat, grid = painted(records, batch, span=(int(times[0]), int(times[-1])))
    if grid is None or heat.moves:  # bins are laid by the first batch, here of very few prices
        return
    expected = naive_heatmap(records, grid.time_edges, *rows_of(grid))
    assert planes(grid) == pytest.approx(expected, rel=1e-6, abs=1e-4)


@generated
@given(sessions(), st.integers(10, 60), st.one_of(st.none(), st.integers(0, 10**9)))
def test_where_the_span_is_not_known_pixels_are_the_exact_columns_averaged(records, batch, promised):
    records = one_book(records)
    heat, grid = painted(records, batch, expected_end=None if promised is None else START_NS + promised)
    if grid is None or heat.moves:
        return
    # The columns painted, joined ones included, are exact. They are averaged here in the plainest way.
    edges = heat.edges
    assert len(edges) - 1 <= 2 * WIDTH
    fine = naive_heatmap(records, edges, *rows_of(grid))
    expected = np.zeros((2, rows_of(grid)[2], WIDTH))
    for j in range(WIDTH):
        for c in range(len(edges) - 1):
            share = min(edges[c + 1], grid.time_edges[j + 1]) - max(edges[c], grid.time_edges[j])
            expected[:, :, j] += fine[:, :, c] * max(share, 0) / (grid.time_edges[j + 1] - grid.time_edges[j])
    assert planes(grid) == pytest.approx(expected, rel=1e-5, abs=1e-3)
    # And over all time nothing is lost or doubled.
    length = np.diff(grid.time_edges)
    exact = naive_heatmap(records, grid.time_edges, *rows_of(grid))
    assert (planes(grid) * length).sum(axis=2) == pytest.approx((exact * length).sum(axis=2), rel=1e-5, abs=1e-3 * length.sum())


def test_a_long_session_has_between_one_and_two_painted_columns_a_pixel():
    records = np.concatenate(list(generate(SessionSpec(records=20_000, mid_clear=False))))
    heat, grid = painted(records, 512, width=40)
    assert 40 <= len(heat.edges) - 1 <= 80
    exact = naive_means(records, grid)
    close = np.abs(planes(grid) - exact) <= 0.05 * exact.max()
    assert close.mean() > 0.99


def naive_means(records: np.ndarray, grid) -> np.ndarray:
    """The means where the columns are known: proven above against the naive twin, which would take minutes here."""
    _, exact = painted(records, 1_000, width=grid.bids.shape[1], span=(int(grid.time_edges[0]), int(grid.time_edges[-1])))
    assert rows_of(exact) == rows_of(grid)
    return planes(exact)


def walk(steps: int, ticks: int) -> np.ndarray:
    """A book of one bid and one ask that climbs by `ticks` each second."""
    rows = []
    for i in range(steps):
        for side, order, away in (("B", 1, 0), ("A", 2, 1)):
            rows.append(("M" if i else "A", side, (1_000 + i * ticks + away) * TICK, 5, order, F_LAST if side == "A" else 0, i))
    records = np.zeros(len(rows) + 1, MBO_RECORD)
    records[0]["action"], records[0]["side"], records[0]["price"], records[0]["flags"] = ord("R"), ord("N"), UNDEF_PRICE, F_LAST
    records["ts_recv"][0] = records["ts_event"][0] = START_NS
    for record, (action, side, price, size, order, flags, second) in zip(records[1:], rows, strict=True):
        record["action"], record["side"] = ord(action), ord(side)
        record["price"], record["size"], record["order_id"], record["flags"] = price, size, order, flags
        record["ts_recv"] = record["ts_event"] = START_NS + 1 + second * 10**9
    return records


@pytest.mark.parametrize("ticks", [1, 3, 7])
@pytest.mark.parametrize("known", [False, True])
def test_bins_follow_prices_that_run_away_and_lose_nothing_near_the_touch(monkeypatch, ticks, known):
    monkeypatch.setattr(quick_heat, "BINS", 64)
    monkeypatch.setattr(quick_heat, "EDGE", 8)
    monkeypatch.setattr(quick_heat, "REACH", 10**6)
    records = walk(200, ticks)
    span = (START_NS, int(records["ts_recv"].max())) if known else None
    heat, grid = painted(records, 2, 5, width=20, span=span)
    assert heat.moves
    assert len(grid.price_edges) <= 65 * 2
    assert grid.price_edges[-1] - grid.price_edges[0] >= 0.5 * 200 * ticks * TICK or ticks == 1
    expected = naive_heatmap(records, grid.time_edges, *rows_of(grid))
    if known:
        assert planes(grid) == pytest.approx(expected, rel=1e-5, abs=1e-4)
    # Each second five lots rest on each side, and they are on the picture where the twin has them.
    assert planes(grid).sum() == pytest.approx(expected.sum(), rel=1e-5)


@pytest.mark.parametrize(("ticks", "single"), [(1, True), (4, False)])
def test_the_grid_says_how_many_ticks_a_row_holds(ticks, single):
    _, grid = painted(walk(200, ticks), 16, width=20, span=(START_NS, START_NS + 199 * 10**9))
    assert grid.ticks == rows_of(grid)[1] // TICK
    assert (grid.ticks == 1) is single  # 240 and some 1,100 ticks in at most 400 rows


@pytest.mark.parametrize("ticks", [1, 10])
def test_the_touch_and_what_is_not_valid_are_told(ticks):
    _, grid = painted(walk(200, ticks), 16, width=20, span=(START_NS, START_NS + 199 * 10**9))
    seconds = (grid.time_edges[1:] - START_NS - 2) // 10**9
    assert grid.bid_px.tolist() == ((1_000 + seconds * ticks) * TICK).tolist()
    assert (grid.ask_px - grid.bid_px == TICK).all()
    assert grid.spans == ()
    late, grid = painted(walk(200, ticks)[1:], 16, width=20)
    assert grid.spans == ((START_NS + 1, int(grid.time_edges[-1]), "no_book", "no_snapshot"),)
    assert late.status == ("no_book", "no_snapshot")
    _, grid = painted(walk(200, ticks)[1:], 16, width=20, starts_empty=True)
    assert grid.spans == ()


def test_a_bad_row_makes_the_book_suspect_from_there_on():
    records = walk(50, 1)
    heat = QuickHeat(10, 100, batch_rows=200)
    heat.feed({name: records[name].astype(dtype) for name, dtype in EVENT_DTYPES.items()}, np.array([41]))
    grid = heat.finish()
    assert grid.spans == ((int(records["ts_recv"][42]), int(grid.time_edges[-1]), "suspect", "quarantined"),)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """One session in each format."""
    folder = tmp_path_factory.mktemp("formats")
    names = {"dbn": "dbn", "dbn.zst": "dbn.zst", "parquet": "parquet", "csv": "csv", "seven-parquet": "parquet", "seven-csv": "csv"}
    found = {}
    for format, ending in names.items():
        found[format] = folder / f"{format}.{ending}"
        write_session(SessionSpec(records=20_000), found[format], format)
    return found


def test_every_format_gives_the_same_picture(files):
    pictures = {format: quick_heatmap(path, width=50, symbol="ESZ5") for format, path in files.items()}
    first = pictures["dbn"]
    assert first.grid is not None
    for format, picture in pictures.items():
        assert (picture.symbol, picture.painted, picture.rows, picture.status) == ("ESZ5", 20_000, 20_000, ("valid", "")), format
        assert trade_facts(picture.trades).count == trade_facts(first.trades).count > 0
        assert rows_of(picture.grid) == rows_of(first.grid), format
        assert planes(picture.grid).sum() == pytest.approx(planes(first.grid).sum(), rel=1e-3), format
    assert np.array_equal(planes(pictures["parquet"].grid), planes(first.grid))  # both know their span
    assert np.array_equal(pictures["parquet"].grid.bid_px, first.grid.bid_px)


def test_views_are_what_the_reader_splits_into_columns(files):
    from tasks.partitions import SourceFile

    source = SourceFile(str(files["dbn.zst"]), "dbn", "", "", 0, 0, 0)
    views, split = DbnViews(source), DbnReader(source)
    for one, other in zip(views.batches(3_000), split.batches(3_000), strict=True):
        assert all(one.columns[name].dtype == other.columns[name].dtype for name in EVENT_DTYPES)
        assert all(np.array_equal(one.columns[name], other.columns[name]) for name in EVENT_DTYPES)
        assert np.array_equal(one.symbol_code, other.symbol_code)
        assert np.array_equal(one.source_row, other.source_row)
        assert one.columns["price"].base is not None
    assert views.symbols == split.symbols
    assert views.source_rows == split.source_rows == 20_000


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_rows_that_may_be_bad_are_never_called_clean(data):
    n = data.draw(st.integers(1, 6))

    def column(values, dtype):
        return data.draw(arrays.arrays(np.dtype(dtype), n, elements=st.sampled_from(values)))

    time = column([0, 5, START_NS, -1], "i8"), column([0, START_NS, -7], "i8")
    action, side = column(list(b"ACFMNRTX\0"), "u1"), column(list(b"ABNX"), "u1")
    price, size = column([UNDEF_PRICE, 0, -5, 10**9], "i8"), column([0, 1, 2**31 - 1, 2**31], "u4")
    bad = check_rows(*time, action, side, price, size, column([0, 64, 128], "u1"), np.zeros(n, np.uint8))
    assert not (is_clean(*time, action, side, price, size) and bad)
    plain = np.flatnonzero((action == ord("C")) & (side != ord("X")) & (size < 2**31) & (time[0] >= 0) & (time[1] >= 0))
    assert all(is_clean(*(values[i : i + 1] for values in (*time, action, side, price, size))) for i in plain)


def test_of_several_books_one_is_painted_and_the_others_are_counted(tmp_path, bookmill):  # noqa: F811
    spec = SessionSpec(records=30_000, symbols=("AAA", "BBB", "CCC"))
    write_session(spec, tmp_path / "many.dbn.zst", "dbn.zst")
    records = np.concatenate(list(generate(spec)))
    counts = {
        name: int((records["instrument_id"] == number).sum()) for name, number in zip(spec.symbols, np.unique(records["instrument_id"]), strict=True)
    }
    most = quick_heatmap(tmp_path / "many.dbn.zst", width=30)
    assert (most.symbol, most.painted, most.rows) == ("AAA", counts["AAA"], 30_000)
    other = quick_heatmap(tmp_path / "many.dbn.zst", width=30, symbol="BBB")
    assert (other.symbol, other.painted, dict(other.left_out)) == ("BBB", counts["BBB"], {n: c for n, c in counts.items() if n != "BBB"})
    own = records[records["instrument_id"] == np.unique(records["instrument_id"])[1]]
    _, alone = painted(own, 1_000, width=30, span=(int(other.grid.time_edges[0]), int(other.grid.time_edges[-1])))
    assert planes(other.grid).sum() == pytest.approx(planes(alone).sum(), rel=0.02)
    code, out, _ = bookmill("heatmap", tmp_path / "many.dbn.zst", "-o", "many.png")
    assert code == 0
    assert f"Left out  {counts['BBB'] + counts['CCC']:,} rows of other books: BBB {counts['BBB']:,}, CCC {counts['CCC']:,}; see --symbol" in out
    code, _, err = bookmill("heatmap", tmp_path / "many.dbn.zst", "--symbol", "DDD")
    assert code == 2
    assert "symbol 'DDD' is not in" in err
    assert "it has AAA, BBB, CCC" in err


def test_the_command_writes_picture_and_page_and_says_what_is_on_them(files, tmp_path, bookmill):  # noqa: F811
    code, out, err = bookmill("heatmap", files["seven-csv"], "--html", "--width", "200", "--height", "100")
    assert (code, err) == (0, "")
    assert "20,000 records of seven-csv in" in out
    assert "UTC by ts_recv, 200 columns of 117 s" in out
    assert (tmp_path / "seven-csv.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert "Plotly.newPlot" in (tmp_path / "seven-csv.html").read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["seven-csv.html", "seven-csv.png"]


def test_rows_that_cannot_be_used_are_counted_and_told(tmp_path, bookmill):  # noqa: F811
    write_session(SessionSpec(records=5_000), tmp_path / "s.csv", "seven-csv")
    lines = (tmp_path / "s.csv").read_text().splitlines()
    lines[3_000] = lines[3_000].replace(",A,", ",X,", 1).replace(",C,", ",X,", 1).replace(",M,", ",X,", 1).replace(",T,", ",X,", 1)
    lines[3_500] = "nonsense"
    (tmp_path / "s.csv").write_text("\n".join(lines) + "\n")
    picture = quick_heatmap(tmp_path / "s.csv", width=40)
    assert (picture.painted, picture.bad.total(), picture.rows) == (4_998, 2, 5_000)
    assert [span[2:] for span in picture.grid.spans][:1] == [("suspect", "quarantined")]
    code, out, _ = bookmill("heatmap", tmp_path / "s.csv")
    assert code == 0
    assert "2 rows could not be used (" in out
    assert "`bookmill run mbo` keeps them in quarantine" in out


@pytest.mark.parametrize(("name", "status"), [("AAA", ("suspect", "quarantined")), ("BBB", ("valid", "")), ("?", ("suspect", "quarantined"))])
def test_only_a_bad_row_that_may_be_of_the_book_painted_makes_it_suspect(tmp_path, name, status):
    def row(second, symbol, action, side, price, order):
        time, instrument = START_NS + second * 10**9, {"AAA": 1, "BBB": 2}[symbol]
        return f"{time},{time},160,1,{instrument},{action},{side},{price},{5 if order else 0},0,{order},128,0,{second},{symbol}"

    head = "ts_recv,ts_event,rtype,publisher_id,instrument_id,action,side,price,size,channel_id,order_id,flags,ts_in_delta,sequence,symbol"
    cleared = [row(0, "AAA", "R", "N", "", 0), row(0, "BBB", "R", "N", "", 0)]
    bad = "nonsense" if name == "?" else row(3, name, "A", "B", "fifty", 3)
    rows = [row(1, "AAA", "A", "B", "100", 1), row(2, "AAA", "A", "A", "101", 2), bad, row(4, "AAA", "A", "B", "99", 4)]
    (tmp_path / "x.csv").write_text("\n".join([head, *cleared, *rows]) + "\n")
    picture = quick_heatmap(tmp_path / "x.csv", width=10)
    assert (picture.symbol, picture.painted, picture.bad.total(), picture.left_out.total()) == ("AAA", 4, 1, 1)
    assert picture.status == status
    assert [span[2:] for span in picture.grid.spans] == [status] * (status[0] != "valid")


def test_a_file_that_breaks_is_painted_to_there_and_the_exit_code_says_so(files, tmp_path, bookmill):  # noqa: F811
    whole = files["dbn"].read_bytes()
    (tmp_path / "cut.dbn").write_bytes(whole[: len(whole) // 2 + 5])
    code, out, _ = bookmill("heatmap", tmp_path / "cut.dbn")
    assert code == 1
    assert "Broken" in out
    assert "The picture ends there." in out
    assert (tmp_path / "cut.png").exists()


def test_what_cannot_be_drawn_is_refused(files, tmp_path, bookmill):  # noqa: F811
    for arguments, told in (
        ((tmp_path / "absent.dbn",), "is not a file"),
        ((tmp_path,), "is not a file"),
        ((files["dbn"], "-o", "x.jpg"), "a name that ends in .png"),
        ((files["dbn"], "--width", "0"), "allowed: 1 to"),
        ((files["dbn"], "--clock", "mine"), "ts_recv, ts_event"),
    ):
        code, _, err = bookmill("heatmap", *arguments)
        assert code == 2, arguments
        assert told in err
    (tmp_path / "empty.dbn").write_bytes(b"")
    assert bookmill("heatmap", tmp_path / "empty.dbn")[0] == 2
    records = np.concatenate(list(generate(SessionSpec(records=1_000))))
    records["action"] = ord("N")
    head = files["dbn"].read_bytes()
    (tmp_path / "nothing.dbn").write_bytes(head[: len(head) - 20_000 * MBO_RECORD.itemsize] + records.tobytes())
    code, out, _ = bookmill("heatmap", tmp_path / "nothing.dbn")
    assert code == 2
    assert "never a bid or an ask" in out
    assert not list(tmp_path.glob("*.png"))


def test_the_command_loads_nothing_of_flows_gates_and_queries(files, tmp_path):
    script = (
        "import sys; sys.argv = ['bookmill', 'heatmap', *sys.argv[1:]]\n"
        "from deployments import cli\n"
        "try:\n    cli.main()\n"
        "finally:\n    print(sorted({'prefect', 'great_expectations', 'duckdb', 'pandas', 'scipy.linalg', 'sqlalchemy'} & set(sys.modules)))\n"
    )
    for source in (files["dbn.zst"], files["seven-parquet"]):
        command = [sys.executable, "-c", script, str(source), "-o", str(tmp_path / "x.png")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=True)
        assert done.stdout.splitlines()[-1] == "[]"
    assert cli is not None
