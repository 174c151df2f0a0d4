"""Which files are Tardis.dev's: by header, first rows and every shape of a file name; and what is none."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import SchemaMismatch, SourceError
from tasks.scanning.tardis_books import open_tardis_books
from tasks.scanning.tardis_formats import BOOK_TICKER, BOOKS, HEAD, L2, LIQUIDATIONS, QUOTES, REQUIRED, TRADES, TardisFound, identify_tardis
from tasks.scanning.tardis_l2 import open_tardis_l2
from tasks.scanning.tardis_quotes import open_tardis_quotes
from tasks.scanning.tardis_trades import open_tardis_trades

OPENERS: dict[str, Callable[[Path], Any]] = {L2: open_tardis_l2, BOOKS: open_tardis_books, TRADES: open_tardis_trades, QUOTES: open_tardis_quotes}
LEVELS = tuple(f"{side}[{level}].{what}" for level in range(2) for side in ("asks", "bids") for what in ("price", "amount"))
ROWS = {
    L2: "deribit,BTC/USD,1585699200245000,1585699200355684,true,ask,6421.5,18640",
    TRADES: "deribit,BTC/USD,1585699200245000,1585699200355684,id,buy,6421.5,18640",
    QUOTES: "deribit,BTC/USD,1585699200245000,1585699200355684,6421,1,6421.5,18640",
    BOOKS: "deribit,BTC/USD,1585699200245000,1585699200355684,6421.5,1,6421,1,6422,1,6420,1",
}
COLUMNS = {**REQUIRED, BOOKS: (*HEAD, *LEVELS)}


def text(kind: str, rows: bool = True) -> str:
    return ",".join(COLUMNS[kind]) + "\n" + (ROWS[kind] + "\n") * rows


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("deribit_incremental_book_L2_BTC-PERPETUAL.csv", (L2, 0, 0, "deribit", "BTC-PERPETUAL", "2020-04-01")),
        ("binance-futures_book_snapshot_5_BTCUSDT.csv", (BOOKS, 5, 0, "binance-futures", "BTCUSDT", "2020-09-01")),
        ("binance-futures_book_snapshot_25_BTCUSDT.csv", (BOOKS, 25, 0, "binance-futures", "BTCUSDT", "2020-09-01")),
        ("bitmex_trades_XBTUSD.csv", (TRADES, 0, 0, "bitmex", "XBTUSD", "2020-03-01")),
        ("huobi-dm-swap_quotes_BTC-USD.csv", (QUOTES, 0, 0, "huobi-dm-swap", "BTC-USD", "2020-05-01")),
        ("trades.csv", (TRADES, 0, 0, "binance-futures", "BTCUSDT", "2020-02-22")),
        ("quotes.csv", (QUOTES, 0, 0, "binance-futures", "BTCUSDT", "2020-02-22")),
    ],
)
def test_every_real_sample_is_what_its_name_says(real_data, name, expected):
    found = identify_tardis(real_data(f"tardis/{name}"))
    assert found is not None
    assert (found.kind, found.depth, found.interval_ns, found.exchange, found.symbol, found.date) == expected
    assert found.symbols == (found.symbol,)


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["btcusdt-depth-snap.csv", "btcusdt-depth-update.csv"])
@pytest.mark.parametrize("open_file", OPENERS.values())
def test_binances_own_depth_files_are_refused_by_name(real_data, name, open_file):
    path = real_data(f"tardis/{name}")
    assert identify_tardis(path) is None
    with pytest.raises(SchemaMismatch, match=r"lacks column\(s\) exchange, local_timestamp.*Binance's own depth files"):
        open_file(path)


@pytest.mark.parametrize(
    ("name", "kind", "depth", "interval_ns", "date"),
    [
        ("deribit_incremental_book_L2_2020-04-02_BTC-USD.csv.gz", L2, 0, 0, "2020-04-02"),
        ("deribit_incremental_book_L2_BTC-USD.csv", L2, 0, 0, "2020-04-01"),
        ("deribit_book_snapshot_2_2020-04-02_BTC-USD.csv.gz", BOOKS, 2, 0, "2020-04-02"),
        ("deribit_book_snapshot_2_100ms_2020-04-02_BTC-USD.csv", BOOKS, 2, 100 * 10**6, "2020-04-02"),
        ("deribit_book_snapshot_2_10s_BTC-USD.csv.zst", BOOKS, 2, 10**10, "2020-04-01"),
        ("book_snapshot_2_1m.csv", BOOKS, 2, 60 * 10**9, "2020-04-01"),
        ("deribit_book_snapshot_2_1h_2020-04-02_A_B.csv", BOOKS, 2, 3_600 * 10**9, "2020-04-02"),
        ("deribit/book_snapshot_2_5s/2020/04/03/BTC-USD.csv.gz", BOOKS, 2, 5 * 10**9, "2020-04-03"),
        ("deribit/trades/2020/04/03/BTC-USD.csv.gz", TRADES, 0, 0, "2020-04-03"),
        ("okex-futures_trades_2020-04-02_FUTURES.csv.gz", TRADES, 0, 0, "2020-04-02"),
        ("deribit_liquidations_2020-04-02_BTC-USD.csv.gz", LIQUIDATIONS, 0, 0, "2020-04-02"),
        ("deribit_quotes_2020-04-02_BTC-USD.csv.gz", QUOTES, 0, 0, "2020-04-02"),
        ("deribit_book_ticker_2020-04-02_BTC-USD.csv.gz", BOOK_TICKER, 0, 0, "2020-04-02"),
        ("anything at all.txt", QUOTES, 0, 0, "2020-04-01"),
    ],
)
def test_the_shapes_of_a_file_name_give_kind_interval_and_date(tmp_path, name, kind, depth, interval_ns, date):
    columns = {LIQUIDATIONS: TRADES, BOOK_TICKER: QUOTES}.get(kind, kind)
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text(columns).encode()
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert identify_tardis(path) == TardisFound(kind, depth, interval_ns, "deribit", "BTC/USD", date, COLUMNS[columns], ("BTC/USD",))


def test_a_file_without_rows_is_told_by_its_name(tmp_path):
    path = tmp_path / "deribit_trades_2020-04-02_BTC-USD.csv"
    path.write_text(text(TRADES, rows=False))
    assert identify_tardis(path) == TardisFound(TRADES, 0, 0, "deribit", "BTC-USD", "2020-04-02", REQUIRED[TRADES], ())


def test_a_grouped_file_shows_its_symbols(tmp_path):
    path = tmp_path / "deribit_trades_2020-04-02_OPTIONS.csv"
    path.write_text(text(TRADES) + ROWS[TRADES].replace("BTC/USD", "ETH/USD") + "\n")
    found = identify_tardis(path)
    assert found is not None
    assert (found.symbol, found.symbols) == ("BTC/USD", ("BTC/USD", "ETH/USD"))


def test_a_header_among_the_rows_is_no_symbol(tmp_path):
    path = tmp_path / "deribit_trades_2020-04-02_BTC-USD.csv"
    path.write_text(text(TRADES) * 2)
    found = identify_tardis(path)
    assert found is not None
    assert found.symbols == ("BTC/USD",)


def test_columns_are_found_by_name_in_any_order(tmp_path):
    path = tmp_path / "x.csv"
    names, cells = [*reversed(COLUMNS[BOOKS]), "more"], [*reversed(ROWS[BOOKS].split(",")), "5"]
    path.write_text(",".join(names) + "\r\n" + ",".join(cells) + "\r\n")
    found = identify_tardis(path)
    assert found is not None
    assert (found.kind, found.depth, found.date, found.columns) == (BOOKS, 2, "2020-04-01", tuple(names))


@pytest.mark.parametrize("kind", OPENERS)
@pytest.mark.parametrize("wanted", OPENERS)
def test_a_reader_takes_its_own_layout_and_names_any_other(tmp_path, kind, wanted):
    path = tmp_path / "x.csv"
    path.write_text(text(kind))
    if kind == wanted:
        (batch,) = OPENERS[wanted](path).batches(1 << 20)
        assert len(batch) == 1
    else:
        with pytest.raises(SchemaMismatch, match=f"is a Tardis.dev file of {kind}. Give a file of Tardis.dev of type {wanted}"):
            OPENERS[wanted](path)


def test_liquidations_are_not_read_as_trades_and_a_book_ticker_is_read_as_quotes(tmp_path):
    for kind, name in ((TRADES, "x_liquidations_Y.csv"), (QUOTES, "x_book_ticker_Y.csv")):
        (tmp_path / name).write_text(text(kind))
    with pytest.raises(SchemaMismatch, match="file of liquidations"):
        open_tardis_trades(tmp_path / "x_liquidations_Y.csv")
    assert [len(batch) for batch in open_tardis_quotes(tmp_path / "x_book_ticker_Y.csv").batches(1 << 20)] == [1]


@pytest.mark.parametrize(
    "data",
    [b"", b"\n\n", b"a,b\n1,2\n", b"PAR1" + bytes(300_000), bytes(range(256)), ",".join(COLUMNS[BOOKS][:-1]).encode() + b"\n", b"exchange,symbol\n"],
)
def test_what_is_none_is_told_to_be_none(tmp_path, data):
    (tmp_path / "x.csv").write_bytes(data)
    assert identify_tardis(tmp_path / "x.csv") is None


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"none\.csv: cannot be opened"):
        identify_tardis(tmp_path / "none.csv")
