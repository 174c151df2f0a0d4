"""Bars against their naive twin, against DuckDB on a real session, and the borders that the rules name."""

from __future__ import annotations

import io
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.aggregation.bar_kernels import add_product, nearest_mean
from tasks.aggregation.bars import build_bars
from tasks.errors import SchemaMismatch, StorageError, UsageError
from tasks.footers import is_done, read_facts
from tasks.partitions import Partition, Stamp
from tasks.schemas import BARS, MBO_RECORD, TRADES, UNDEF_PRICE
from tasks.specs import BarSpec, interval_name, parse_bar, parse_interval
from tests.oracles import naive_bars
from tests.oracles.naive_bars import Trade

PARTITION = Partition("XNAS.ITCH", "1970-01-01", "ARL", 2, 4_000_000_000)
STAMP = Stamp("in", "recipe")
STATUSES = ["valid", "suspect", "stale", "no_book", "halted"]

price = st.one_of(st.integers(-5, 5), st.integers(-(10**15), 10**15), st.sampled_from([-(2**63), 2**63 - 2, -(2**62), 2**31, 2**31 - 1]))
size = st.one_of(st.integers(0, 9), st.integers(0, 2**32 - 1))
trade = st.builds(
    Trade, st.integers(-40, 200), st.integers(0, 200), price, size, st.sampled_from("ABN"), st.sampled_from(STATUSES),
    st.sampled_from(["", "unknown_id", "gap"]), st.integers(0, 200),
)  # fmt: skip


def write_trades(path: Path, trades: list[Trade], *, group: int = 1 << 20, statistics: bool = True) -> Path:
    n = len(trades)
    known = {name: [getattr(t, name) for t in trades] for name in Trade._fields}
    zero = dict.fromkeys(("publisher_id", "instrument_id", "order_id", "flags", "sequence", "bid_px_00", "ask_px_00", "bid_sz_00", "ask_sz_00"), 0)
    text = {"symbol": "ARL", "side_method": "feed"}
    columns = {f.name: known.get(f.name, [{**zero, **text}.get(f.name)] * n) for f in TRADES}
    pq.write_table(pa.table(columns, schema=TRADES), path, row_group_size=group, write_statistics=statistics)
    return path


def read_bars(path: Path) -> list[dict]:
    table = pq.read_table(path)
    assert table.schema.equals(BARS)
    for name in ("ts_event", "ts_close", "status_since"):
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(pa.int64()))
    rows = table.drop_columns(["publisher_id", "instrument_id", "symbol"]).to_pylist()
    assert set(table["instrument_id"].to_pylist()) <= {PARTITION.instrument_id}
    assert set(table["symbol"].to_pylist()) <= {PARTITION.symbol}
    return rows


@settings(max_examples=40, deadline=None)
@given(
    trades=st.lists(trade, max_size=40),
    interval=st.sampled_from([1, 7, 20, 1000]),
    clock=st.sampled_from(["ts_event", "ts_recv"]),
    batch_rows=st.integers(1, 45),
    group=st.integers(1, 45),
    statistics=st.booleans(),
)
def test_time_bars_equal_the_naive_ones_whatever_the_order_batches_and_row_groups(
    tmp_path_factory, trades, interval, clock, batch_rows, group, statistics
):
    folder = tmp_path_factory.mktemp("time")
    path = write_trades(folder / "trades.parquet", trades, group=group, statistics=statistics)
    facts = build_bars([path], folder / "bars.parquet", BarSpec("time", interval, ""), STAMP, clock=clock, partition=PARTITION, batch_rows=batch_rows)
    expected = naive_bars.time_bars(trades, interval, clock)
    assert read_bars(folder / "bars.parquet") == expected
    assert (facts["rows_in"], facts["rows_out"], facts["open_bar"]) == (len(trades), len(expected), False)


@settings(max_examples=40, deadline=None)
@given(
    trades=st.lists(trade, max_size=40),
    kind=st.sampled_from(["tick", "volume", "dollar"]),
    threshold=st.one_of(st.integers(1, 12), st.integers(1, 10**18)),
    clock=st.sampled_from(["ts_event", "ts_recv"]),
    batch_rows=st.integers(1, 45),
    cut=st.integers(0, 40),
)
def test_activity_bars_equal_the_naive_ones_across_batches_and_files(tmp_path_factory, trades, kind, threshold, clock, batch_rows, cut):
    folder = tmp_path_factory.mktemp("activity")
    paths = [write_trades(folder / f"{k}.parquet", part) for k, part in enumerate((trades[:cut], trades[cut:]))]
    facts = build_bars(paths, folder / "bars.parquet", BarSpec(kind, threshold, ""), STAMP, clock=clock, partition=PARTITION, batch_rows=batch_rows)
    expected, is_open = naive_bars.activity_bars(trades, kind, threshold, clock)
    assert read_bars(folder / "bars.parquet") == expected
    assert facts["open_bar"] is is_open


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(0, 10**6)), st.integers(0, 2**32 - 1)), min_size=1, max_size=20))
def test_notional_and_its_mean_are_exact_for_every_price_and_size(products):
    limbs = np.zeros(3, np.int64)
    for p, s in products:
        add_product(limbs, np.int64(p), np.int64(s))
    total, volume = sum(p * s for p, s in products), sum(s for _, s in products)
    assert int(limbs[0]) * 2**62 + int(limbs[1]) * 2**31 + int(limbs[2]) == total
    assert 0 <= limbs[1] < 2**31
    assert 0 <= limbs[2] < 2**31
    if volume:
        assert nearest_mean(limbs, np.int64(volume)) == (2 * total + volume) // (2 * volume)


def test_a_dollar_bar_closes_at_exactly_its_size_and_not_one_unit_before(tmp_path):
    # 10^15 * 2^31 per trade is 2.1 * 10^24 units of 1e-9: two trades and one unit of 1e-9 decide.
    big = Trade(0, 0, 10**15, 2**31, "B", "valid")
    limit = 2 * 10**6 * 2**31
    for last, closed in ((10**15, True), (10**15 - 1, False)):
        path = write_trades(tmp_path / "trades.parquet", [big, big._replace(price=last, ts_recv=1)])
        facts = build_bars([path], tmp_path / "bars.parquet", BarSpec("dollar", limit, ""), STAMP, clock="ts_recv", partition=PARTITION)
        assert (facts["rows_out"], facts["open_bar"]) == (1, not closed)


def test_a_bucket_holds_its_start_and_not_its_end_and_empty_buckets_have_no_row(tmp_path):
    path = write_trades(tmp_path / "trades.parquet", [Trade(0, ts, 5, 1, "N", "valid") for ts in (0, 999, 1000, 3000)])
    build_bars([path], tmp_path / "bars.parquet", BarSpec("time", 1000, ""), STAMP, clock="ts_recv", partition=PARTITION)
    assert [(b["ts_event"], b["ts_close"], b["trades"]) for b in read_bars(tmp_path / "bars.parquet")] == [
        (0, 1000, 2), (1000, 2000, 1), (3000, 4000, 1),
    ]  # fmt: skip


@pytest.mark.parametrize("spec", ["250us", "1s", "tick:7", "volume:500", "dollar:100000"])
def test_bytes_do_not_depend_on_the_batch_size(tmp_path, spec):
    rng = np.random.default_rng(3)
    times = np.cumsum(rng.integers(0, 10**6, 3000)) + rng.integers(-(10**7), 10**7, 3000)
    trades = [
        Trade(int(t), int(t), int(p), int(s), "ABN"[int(s) % 3], STATUSES[int(p) % 5])
        for t, p, s in zip(times, rng.integers(10**11, 10**11 + 1000, 3000), rng.integers(1, 900, 3000), strict=True)
    ]
    path = write_trades(tmp_path / "trades.parquet", trades, group=500)
    made = set()
    for batch_rows in (17, 500, 65_536):
        out = tmp_path / "bars.parquet"
        build_bars([path], out, parse_bar(spec), STAMP, clock="ts_event", partition=PARTITION, batch_rows=batch_rows)
        made.add(out.read_bytes())
    assert len(made) == 1


def test_rows_outside_the_windows_and_without_a_price_are_counted_not_lost(tmp_path):
    trades = [Trade(0, ts, 5, 1, "B", "valid") for ts in range(10)] + [Trade(0, 3, UNDEF_PRICE, 9, "B", "valid")]
    path = write_trades(tmp_path / "trades.parquet", trades)
    out = tmp_path / "bars.parquet"
    facts = build_bars([path], out, BarSpec("time", 100, ""), STAMP, clock="ts_recv", partition=PARTITION, windows=[(1, 4), (4, 5), (8, 9)])
    assert facts == {"rows_in": 11, "rows_used": 5, "rows_filtered": 5, "rows_unpriced": 1, "rows_out": 1, "open_bar": False}
    assert (read_facts(out), is_done(out, STAMP)) == (facts, True)
    assert read_bars(out)[0]["volume"] == 5


def test_no_trades_give_a_file_of_no_bars(tmp_path):
    facts = build_bars([], tmp_path / "bars.parquet", parse_bar("1s"), STAMP, clock="ts_recv", partition=PARTITION)
    assert (facts["rows_out"], read_bars(tmp_path / "bars.parquet")) == (0, [])


def test_a_faulty_layer_or_option_is_named_and_leaves_no_file(tmp_path):
    good = write_trades(tmp_path / "trades.parquet", [Trade(0, 0, 5, 1, "B", "valid")])
    strange = tmp_path / "strange.parquet"
    table = pq.read_table(good)
    pq.write_table(table.set_column(table.schema.get_field_index("side"), "side", pa.array(["X"])), strange)
    narrow = tmp_path / "narrow.parquet"
    pq.write_table(table.drop_columns(["size"]), narrow)
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(good.read_bytes()[:200])

    def run(path: Path, **options):
        build_bars([path], tmp_path / "bars.parquet", parse_bar("1s"), STAMP, **{"clock": "ts_recv", "partition": PARTITION, **options})

    for path, fault, words in (
        (strange, SchemaMismatch, r"strange\.parquet: column side holds X; allowed: A, B, N"),
        (narrow, SchemaMismatch, r"narrow\.parquet: columns size are missing"),
        (cut, StorageError, r"cut\.parquet"),
        (tmp_path / "absent.parquet", StorageError, r"absent\.parquet"),
    ):
        with pytest.raises(fault, match=words):
            run(path)
    with pytest.raises(UsageError, match="ts_event, ts_recv"):
        run(good, clock="ts_in")
    for windows in ([(5, 5)], [(0, 5), (4, 6)]):
        with pytest.raises(UsageError, match="ascending and disjoint"):
            run(good, windows=windows)
    assert not [p for p in tmp_path.iterdir() if "bars" in p.name]


@given(st.integers(1, 2**62 - 1))
def test_an_interval_is_read_back_from_its_name(nanoseconds):
    assert parse_interval(interval_name(nanoseconds)) == nanoseconds


def test_bars_are_named_as_in_the_lake():
    names = {"1s": "ohlcv-1s", "60s": "ohlcv-1m", "5m": "ohlcv-5m", "24h": "ohlcv-1d", "250us": "ohlcv-250us", "100ms": "ohlcv-100ms"}
    names |= {"tick:1000": "bars-tick-1000", "volume:5000": "bars-volume-5000", "dollar:1000000": "bars-dollar-1000000"}
    assert {text: parse_bar(text).layer for text in names} == names
    assert parse_bar("5m") == BarSpec("time", 300 * 10**9, "ohlcv-5m")
    assert parse_bar("dollar:1000000") == BarSpec("dollar", 1_000_000, "bars-dollar-1000000")


@pytest.mark.parametrize(
    "text",
    ["", "s", "0s", "-1s", "1.5s", "1w", "7s", "2d", "99999999999d", "tick:", "tick:0", "tick:1.5", "range:4", "volume:-3", "dollar:2" + "0" * 18],
)
def test_a_bar_that_cannot_be_is_refused_with_what_is_allowed(text):
    with pytest.raises(UsageError, match=r"e\.g\.|allowed|at most"):
        parse_bar(text)


def test_bars_of_a_real_session_equal_duckdb_group_by(real_data, tmp_path):
    raw = real_data("databento/esh4-glbx-mdp3-20231225.mbo.dbn.zst").read_bytes()
    data = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(raw)).read()
    records = np.frombuffer(data, MBO_RECORD, offset=8 + int.from_bytes(data[4:8], "little"))
    records = records[records["action"] == ord("T")]
    trades = [
        Trade(int(r["ts_event"]), int(r["ts_recv"]), int(r["price"]), int(r["size"]), chr(r["side"]), STATUSES[k % 5]) for k, r in enumerate(records)
    ]
    assert len(trades) > 1000
    path = write_trades(tmp_path / "trades.parquet", trades, group=700)
    build_bars([path], tmp_path / "bars.parquet", parse_bar("1m"), STAMP, clock="ts_event", partition=PARTITION, batch_rows=1000)
    connection = duckdb.connect()
    connection.execute("SET threads = 1")
    rows = connection.execute(
        """
        WITH t AS (SELECT *, epoch_ns(ts_event) AS ns, epoch_ns(ts_event) // 60000000000 * 60000000000 AS start,
                          file_row_number AS k FROM read_parquet(?, file_row_number = true))
        SELECT start, arg_min(price, k), max(price), min(price), arg_max(price, k), sum(size)::BIGINT, count(*),
               (2 * sum(price::HUGEINT * size) + sum(size)) // (2 * sum(size)), coalesce(sum(size) FILTER (side = 'B'), 0)::BIGINT,
               coalesce(sum(size) FILTER (side = 'A'), 0)::BIGINT, avg((status = 'valid')::INT)
        FROM t GROUP BY start ORDER BY start
        """,
        [str(path)],
    ).fetchall()
    names = ("ts_event", "open", "high", "low", "close", "volume", "trades", "vwap", "buy_volume", "sell_volume", "valid_share")
    assert [tuple(b[n] for n in names) for b in read_bars(tmp_path / "bars.parquet")] == rows
