"""Others' programs on the same session: readers, books and query engines, as their documentation uses them. Their imports stay in
the functions: the benchmark runs without them."""

from __future__ import annotations

from functools import partial
from typing import Any

from tests.bench.mbo_floors import states_as_columns
from tests.bench.mbo_session import Call, Contender, Files, Found, batches
from tests.bench.plain_book import plain_book

APPLY, LOAD_AND_APPLY = "NautilusTrader apply_deltas", "NautilusTrader load + apply_deltas"
HFTBACKTEST = "hftbacktest L3, local side"
AS_COLUMNS = "ten-level states as 60 columns, plain + zstd-1, writing only"
PANDAS_GATE = "Great Expectations on pandas, events"
PREFIX = 200_000  # records of the plain-Python book
PIECE = 1 << 20


def _dbn_objects(files: Files) -> Call:
    """databento_dbn's decoder: one Python object a record."""
    from databento_dbn import DBNDecoder, MBOMsg

    from tests.bench.whole_orders import opened

    def call() -> Found:
        decoder, count = DBNDecoder(), 0
        with opened(files.source) as reader:
            while piece := reader.read(PIECE):
                decoder.write(piece)
                count += sum(isinstance(record, MBOMsg) for record in decoder.decode())
        return Found({"records": count})

    return call


def _databento(files: Files, form: str) -> Call:
    import databento

    return lambda: Found({"records": len(getattr(databento.DBNStore.from_file(files.source), form)())})


def _plain(files: Files) -> Call:
    """The public examples' way, on the first records; they come as Python values before the clock starts."""
    rows: list[Any] = []
    for columns in batches(files):
        letters = [map(chr, columns[name].tolist()) for name in ("action", "side")]
        rest = [columns[name].tolist() for name in ("price", "size", "order_id")]
        rows += zip(*letters, *rest, (columns["flags"] >= 128).tolist(), strict=True)
        if len(rows) >= PREFIX:
            break
    del rows[PREFIX:]

    def call() -> Found:
        return Found(plain_book(rows))

    return call


QUERY = """SELECT count(*), sum(volume) FROM (SELECT epoch_ns(ts_recv) // 60000000000 AS minute, sum(size) AS volume, min(price), max(price),
count(*) FROM read_parquet(?) WHERE action = 'T' GROUP BY minute)"""


def _duckdb(files: Files) -> Call:
    import duckdb

    path, con = str(files.events), duckdb.connect()

    def call() -> Found:
        row = con.execute(QUERY, [path]).fetchone()
        assert row is not None
        return Found({"volume": int(row[1])})

    return call


def _polars(files: Files) -> Call:
    import polars as pl

    path = files.events

    def call() -> Found:
        trades = pl.scan_parquet(path, hive_partitioning=False).filter(pl.col("action").cast(pl.String) == "T")
        volume, price = pl.col("size").cast(pl.Int64).sum().alias("volume"), pl.col("price")
        bars = trades.group_by(pl.col("ts_recv").dt.truncate("1m")).agg(volume, price.min().alias("low"), price.max().alias("high"), pl.len())
        return Found({"volume": int(bars.collect(engine="streaming")["volume"].sum())})

    return call


def _pandas_gate(files: Files) -> Call:
    """Those rules of the suite of events that say something of each row, as Great Expectations' own expectations on a table of pandas."""
    import pyarrow.parquet as pq

    from tasks.schemas import ACTIONS, SIDES, UNDEF_PRICE
    from validation.quiet import great_expectations
    from validation.suites.events import EARLIEST_NS, LATEST_NS, UNDEF_SIZE

    gx = great_expectations()
    e, columns = gx.expectations, ["ts_event", "ts_recv", "action", "side", "price", "size", "order_id", "flags", "sequence"]
    rules = [
        e.ExpectColumnValuesToBeInSet(column="action", value_set=list(ACTIONS)),
        e.ExpectColumnValuesToBeInSet(column="side", value_set=list(SIDES)),
        e.ExpectColumnValuesToBeBetween(column="price", max_value=UNDEF_PRICE),
        e.ExpectColumnValuesToBeBetween(column="size", min_value=0, max_value=UNDEF_SIZE - 1),
        *(e.ExpectColumnValuesToBeBetween(column=name, min_value=EARLIEST_NS, max_value=LATEST_NS) for name in ("ts_event", "ts_recv")),
        *(e.ExpectColumnValuesToNotBeNull(column=name) for name in ("order_id", "sequence")),
    ]
    context = gx.get_context(mode="ephemeral")
    asset = context.data_sources.add_pandas("pandas").add_dataframe_asset("events").add_batch_definition_whole_dataframe("whole")
    suite = gx.ExpectationSuite("events", expectations=rules)

    def call() -> Found:
        frame = pq.read_table(files.events, columns=columns, partitioning=None).to_pandas()
        for name in ("ts_event", "ts_recv"):
            frame[name] = frame[name].astype("int64")
        result = asset.get_batch({"dataframe": frame}).validate(suite)
        assert result.success, result
        return Found({"records": len(frame)}, {"rows": len(frame)})

    return call


def _nautilus(files: Files, load: bool) -> Call:
    """NautilusTrader's book of orders; load: with the reading of the file."""
    from nautilus_trader.adapters.databento.loaders import DatabentoDataLoader
    from nautilus_trader.model.book import OrderBook
    from nautilus_trader.model.data import OrderBookDeltas
    from nautilus_trader.model.enums import BookType
    from nautilus_trader.model.identifiers import InstrumentId

    from tests.bench.whole_orders import session_of_whole_orders

    path = session_of_whole_orders(files.source)
    instrument = InstrumentId.from_str("ESZ5.GLBX")

    def read() -> Any:
        return OrderBookDeltas(instrument, DatabentoDataLoader().from_dbn_file(path, instrument_id=instrument, price_precision=2))

    deltas = None if load else read()

    def call() -> Found:
        book = OrderBook(instrument, BookType.L3_MBO)
        book.apply_deltas(deltas if deltas is not None else read())
        best = {"bid": book.bids()[0], "ask": book.asks()[0]}
        return Found({f"best_{side}": [round(float(level.price) * 1e9), round(float(level.size()))] for side, level in best.items()})

    return call


def _hftbacktest(files: Files) -> Call:
    """hftbacktest's order-by-order depth on the local side, from an array of its own layout that is made before the clock starts."""
    import hftbacktest as hft
    import numpy as np

    from tasks.schemas import MBO_RECORD
    from tests.bench.whole_orders import opened, session_of_whole_orders

    types = hft.types
    kinds = {"A": types.ADD_ORDER_EVENT, "C": types.CANCEL_ORDER_EVENT, "M": types.MODIFY_ORDER_EVENT, "R": types.DEPTH_CLEAR_EVENT,
             "T": types.TRADE_EVENT, "F": types.FILL_EVENT}  # fmt: skip
    of_action, of_side = np.zeros(256, np.uint64), np.zeros(256, np.uint64)
    for letter, kind in kinds.items():
        of_action[ord(letter)] = kind
    of_side[ord("B")], of_side[ord("A")] = hft.BUY_EVENT, hft.SELL_EVENT
    with opened(session_of_whole_orders(files.source)) as reader:
        reader.read(int.from_bytes(reader.read(8)[4:], "little"))
        records = np.frombuffer(reader.read(), MBO_RECORD)
    data = np.zeros(len(records), types.event_dtype)
    data["ev"] = of_action[records["action"]] | of_side[records["side"]] | np.uint64(types.LOCAL_EVENT)
    data["exch_ts"] = data["local_ts"] = records["ts_recv"]
    data["px"], data["qty"], data["order_id"] = records["price"] / 1e9, records["size"], records["order_id"]
    middle = files.truth["best_bid"][0] / 1e9
    asset = hft.BacktestAsset().data([data]).linear_asset(1.0).constant_order_latency(0, 0).l3_fifo_queue_model().no_partial_fill_exchange()
    asset = asset.trading_value_fee_model(0.0, 0.0).tick_size(0.25).lot_size(1.0).roi_lb(middle * 0.5).roi_ub(middle * 1.5)
    backtest = hft.ROIVectorMarketDepthBacktest([asset])

    def touch() -> dict[str, tuple[float, float]]:
        depth = backtest.depth(0)
        return {
            "bid": (depth.best_bid, depth.bid_qty_at_tick(depth.best_bid_tick)),
            "ask": (depth.best_ask, depth.ask_qty_at_tick(depth.best_ask_tick)),
        }

    backtest.elapse(1)  # compiled before the clock starts; the first record alone is taken
    touch()

    def call() -> Found:
        code = backtest.elapse(1 << 62)  # past the last record
        assert code in (0, 1), f"elapse gave code {code} among {len(data)} records"  # it borrows the array, so this call has to keep it
        return Found({f"best_{side}": [round(px * 1e9), round(size)] for side, (px, size) in touch().items()})

    return call


PEERS: dict[str, Contender] = {
    "databento_dbn, a Python object a record": Contender("peer", _dbn_objects, package="databento_dbn"),
    "databento to_ndarray": Contender("peer", partial(_databento, form="to_ndarray"), package="databento"),
    "databento to_df": Contender("peer", partial(_databento, form="to_df"), package="databento"),
    APPLY: Contender("peer", partial(_nautilus, load=False), package="nautilus_trader"),
    LOAD_AND_APPLY: Contender("peer", partial(_nautilus, load=True), package="nautilus_trader"),
    HFTBACKTEST: Contender("peer", _hftbacktest, package="hftbacktest"),
    AS_COLUMNS: Contender("peer", states_as_columns, needs="rebuild"),
    f"plain-Python book (first {PREFIX:,} records, scaled)": Contender("peer", _plain, needs="decode", prefix=PREFIX),
    "DuckDB, scan + filter + minute bars": Contender("peer", _duckdb, needs="decode", package="duckdb"),
    PANDAS_GATE: Contender("peer", _pandas_gate, needs="decode"),
    "polars, scan + filter + minute bars": Contender("peer", _polars, needs="decode", package="polars"),
}
