"""Tardis book snapshots, trades and quotes against line-by-line twins, and the facts of the real samples."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.depth_batches import ASK, BID, NO_ID, SNAPSHOT
from tasks.errors import CorruptSource, SchemaMismatch
from tasks.scanning.tardis_books import TardisBooks, open_tardis_books
from tasks.scanning.tardis_quotes import ASK_PRICE, BID_PRICE, TardisQuotes, open_tardis_quotes
from tasks.scanning.tardis_rows import symbols
from tasks.scanning.tardis_trades import TardisTrades, open_tardis_trades
from tasks.schemas import UNDEF_PRICE
from tests.oracles import naive_tardis as naive
from tests.strategies import tardis_rows as made

EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "200"))
HEAD = ("exchange", "symbol", "timestamp", "local_timestamp")
TRADES = (*HEAD, "id", "side", "price", "amount")
QUOTES = (*HEAD, "ask_amount", "ask_price", "bid_price", "bid_amount")
WHOLE = 1 << 20
TRADE_TYPES = ["i8", "i8", "u1", "i8", "i8", "u1", "u1", "i8", "i8", "u1", "i8"]


def book_names(depth: int) -> tuple[str, ...]:
    return (*HEAD, *(f"{side}[{level}].{what}" for level in range(depth) for side in ("asks", "bids") for what in ("price", "amount")))


def bad_of(batches: list) -> list[tuple]:
    """Bad rows of all batches in the twin's words."""
    met, found = 0, []
    for batch in batches:
        assert len(batch) or batch.bad
        assert all(0 <= entry.before <= len(batch) for entry in batch.bad)
        found += [(met + entry.before, entry.source_row, entry.byte_offset, entry.raw, entry.reason) for entry in batch.bad]
        met += len(batch)
    return found


def books(reader: TardisBooks, batch_bytes: int = WHOLE) -> tuple[list[tuple], list[tuple]]:
    batches, found = list(reader.batches(batch_bytes)), []
    for batch in batches:
        assert (batch.kind == SNAPSHOT).all()
        assert (batch.update_id == NO_ID).all()
        assert (batch.sequence == NO_ID).all()
        updates = (batch.side, batch.price, batch.price_digits, batch.size, batch.size_digits)
        assert [column.dtype for column in updates] == [np.dtype(code) for code in ("u1", "i8", "u1", "i8", "u1")]
        assert {len(column) for column in updates} == {batch.first[-1]}
        for k in range(len(batch)):
            levels = [tuple(int(column[j]) for column in updates) for j in range(batch.first[k], batch.first[k + 1])]
            found.append((*(int(column[k]) for column in (batch.ts, batch.cts, batch.line, batch.offset)), levels))
    return found, bad_of(batches)


def trades(reader: TardisTrades, batch_bytes: int = WHOLE) -> tuple[list[tuple], list[tuple]]:
    batches, found = list(reader.batches(batch_bytes)), []
    for batch in batches:
        columns = (batch.ts, batch.cts, batch.side, batch.price, batch.amount, batch.price_digits, batch.amount_digits, batch.line, batch.offset)
        assert [column.dtype for column in (*columns, batch.id_text, batch.id_first)] == [np.dtype(code) for code in TRADE_TYPES]
        assert {len(column) for column in columns} == {len(batch)} == {len(batch.id_first) - 1}
        for k in range(len(batch)):
            ts, cts, side, price, amount, price_digits, amount_digits, line, offset = (int(column[k]) for column in columns)
            identity = batch.id_text[batch.id_first[k] : batch.id_first[k + 1]].tobytes().decode("latin-1")
            found.append((line, offset, ts, cts, identity, chr(side), (price, price_digits), (amount, amount_digits)))
    return found, bad_of(batches)


def quotes(reader: TardisQuotes, batch_bytes: int = WHOLE) -> tuple[list[tuple], list[tuple]]:
    batches, found = list(reader.batches(batch_bytes)), []
    for batch in batches:
        assert (batch.numbers.dtype, batch.digits.dtype) == (np.dtype("i8"), np.dtype("u1"))
        assert batch.numbers.shape == batch.digits.shape == (4, len(batch))
        for k in range(len(batch)):
            sides = list(zip(batch.numbers[:, k].tolist(), batch.digits[:, k].tolist(), strict=True))
            found.append((*(int(column[k]) for column in (batch.line, batch.offset, batch.ts, batch.cts)), sides))
    return found, bad_of(batches)


def expected_trades(data: bytes, symbol: str) -> tuple[list[tuple], list[tuple]]:
    good, bad = naive.tables(data, symbol, naive.TRADES)
    return [(*at, v["local_timestamp"], v["timestamp"], v["id"], v["side"], v["price"], v["amount"]) for *at, v in good], bad


def expected_quotes(data: bytes, symbol: str) -> tuple[list[tuple], list[tuple]]:
    good, bad = naive.tables(data, symbol, naive.QUOTES)
    return [(*at, v["local_timestamp"], v["timestamp"], naive.quote(v)) for *at, v in good], bad


def odd_files(names: tuple[str, ...]) -> st.SearchStrategy[bytes]:
    return made.table_rows(names).flatmap(lambda rows: made.texts(names, rows))


SYMBOLS, BLOCKS = st.sampled_from((made.SYMBOL, made.OTHER)), st.integers(25, 600)


@settings(max_examples=EXAMPLES, deadline=None)
@given(odd_files(book_names(2)), BLOCKS, SYMBOLS)
def test_any_book_snapshots_read_as_in_the_twin(tmp_path_factory, data, batch_bytes, symbol):
    path = tmp_path_factory.getbasetemp() / "x_book_snapshot_2_10s_X.csv"
    path.write_bytes(data)
    reader = open_tardis_books(path, symbol)
    assert books(reader, batch_bytes) == naive.snapshots(data, symbol, 2)
    assert (reader.depth, reader.interval_ns) == (2, 10 * 10**9)


@settings(max_examples=EXAMPLES, deadline=None)
@given(odd_files(TRADES), BLOCKS, SYMBOLS)
def test_any_trades_read_as_in_the_twin(tmp_path_factory, data, batch_bytes, symbol):
    path = tmp_path_factory.getbasetemp() / "any_trades.csv"
    path.write_bytes(data)
    assert trades(open_tardis_trades(path, symbol), batch_bytes) == expected_trades(data, symbol)


@settings(max_examples=EXAMPLES, deadline=None)
@given(odd_files(QUOTES), BLOCKS, SYMBOLS)
def test_any_quotes_read_as_in_the_twin(tmp_path_factory, data, batch_bytes, symbol):
    path = tmp_path_factory.getbasetemp() / "any_quotes.csv"
    path.write_bytes(data)
    assert quotes(open_tardis_quotes(path, symbol), batch_bytes) == expected_quotes(data, symbol)


@pytest.mark.real_data
@pytest.mark.parametrize("depth", [5, 25])
def test_real_book_snapshots_equal_the_twin_and_are_sorted_from_the_best_on(real_data, depth):
    path = real_data(f"tardis/binance-futures_book_snapshot_{depth}_BTCUSDT.csv")
    reader = open_tardis_books(path)
    found, bad = books(reader, 2_000)
    assert (found, bad) == naive.snapshots(path.read_bytes(), "BTCUSDT", depth)
    assert (len(found), bad, reader.depth, reader.interval_ns) == (10, [], depth, 0)
    for *_, levels in found:
        bids, asks = ([naive.number(*level[1:3]) for level in levels if level[0] == side] for side in (BID, ASK))
        assert (len(bids), len(asks)) == (depth, depth)
        assert bids == sorted(bids, reverse=True)
        assert [bids[0], *asks] == sorted([bids[0], *asks])


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["trades.csv", "bitmex_trades_XBTUSD.csv", "quotes.csv", "huobi-dm-swap_quotes_BTC-USD.csv"])
def test_real_trades_and_quotes_equal_the_twin(real_data, name):
    path = real_data(f"tardis/{name}")
    is_trades = "trades" in name
    found, bad = trades(open_tardis_trades(path), 100_000) if is_trades else quotes(open_tardis_quotes(path), 100_000)
    assert (found, bad) == (expected_trades if is_trades else expected_quotes)(path.read_bytes(), symbols(path)[0])
    assert not bad


@pytest.mark.real_data
def test_497_real_trades_fall_within_the_time_of_the_quotes_by_local_time(real_data):
    (trade,) = open_tardis_trades(real_data("tardis/trades.csv")).batches(WHOLE)
    (quote,) = open_tardis_quotes(real_data("tardis/quotes.csv")).batches(WHOLE)
    assert (len(trade), len(quote)) == (9_999, 9_999)
    inside = (trade.ts >= quote.ts[0]) & (trade.ts <= quote.ts[-1])
    assert inside.sum() == 497
    # By the exchange's time it would be 502: only the clock of the capture joins the two files.
    assert ((trade.cts >= quote.cts[0]) & (trade.cts <= quote.cts[-1])).sum() == 502

    def in_units(value, digits):
        return value * 10 ** (2 - digits.astype(np.int64))

    standing = np.searchsorted(quote.ts, trade.ts[inside], "right") - 1
    bid, ask = (in_units(quote.numbers[side], quote.digits[side])[standing] for side in (BID_PRICE, ASK_PRICE))
    price, bought = in_units(trade.price, trade.price_digits)[inside], trade.side[inside] == ord("B")
    # The side is the aggressor's: nearly all of the trades at the touch lift the ask or hit the bid.
    assert (int((price == np.where(bought, ask, bid)).sum()), int((price == np.where(bought, bid, ask)).sum())) == (333, 0)


def written(path: Path, names: tuple[str, ...], *rows: str) -> Path:
    path.write_text("\n".join((",".join(names), *rows)) + "\n")
    return path


def test_an_empty_side_of_a_quote_has_no_price_and_half_a_side_is_a_bad_row(tmp_path):
    head = f"deribit,X,{made.START_US},{made.START_US}"
    path = written(tmp_path / "f.csv", QUOTES, f"{head},,,9.5,2", f"{head},5,,9.5,2", f"{head},0,,9.5,2", f"{head},5,10,,", f"{head},,10,,")
    (batch,) = open_tardis_quotes(path).batches(WHOLE)
    assert batch.numbers.T.tolist() == [[95, 2, UNDEF_PRICE, 0], [95, 2, UNDEF_PRICE, 0], [UNDEF_PRICE, 0, 10, 5]]
    assert batch.digits.T.tolist() == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert [(entry.source_row, entry.before, entry.reason, entry.detail) for entry in batch.bad] == [
        (1, 1, "orderbook", "ask_price is ''"), (4, 3, "orderbook", "ask_price is '10'"),
    ]  # fmt: skip


def test_levels_that_are_empty_are_left_out_and_a_book_may_be_empty(tmp_path):
    names, head = book_names(2), f"deribit,X,{made.START_US},{made.START_US + 1}"
    path = written(tmp_path / "f.csv", names, f"{head},10,1,9,2,,,8,3", f"{head},,,,,,,,", f"{head},10,0,9,2,11,1,,")
    found, bad = books(open_tardis_books(path))
    assert [levels for *_, levels in found] == [
        [(BID, 9, 0, 2, 0), (BID, 8, 0, 3, 0), (ASK, 10, 0, 1, 0)], [], [(BID, 9, 0, 2, 0), (ASK, 11, 0, 1, 0)],
    ]  # fmt: skip
    assert not bad


def test_trade_sides_are_the_aggressors_and_ids_are_text(tmp_path):
    head = f"deribit,X,{made.START_US},{made.START_US}"
    sides = ("buy", "sell", "unknown", "")
    path = written(tmp_path / "f.csv", TRADES, *(f"{head},id-{k},{side},-1.50,1e-7" for k, side in enumerate(sides)), f"{head},,buy,1,1")
    (batch,) = open_tardis_trades(path).batches(WHOLE)
    assert batch.side.tobytes() == b"BANNB"
    assert [batch.id(k) for k in range(5)] == ["id-0", "id-1", "id-2", "id-3", ""]
    assert (batch.price[0], batch.price_digits[0], batch.amount[0], batch.amount_digits[0]) == (-150, 2, 1, 7)


def test_more_bad_rows_than_fit_at_once_are_all_told(tmp_path):
    head = f"deribit,X,{made.START_US},{made.START_US}"
    path = written(tmp_path / "f.csv", QUOTES, f"{head},1,10,9,1", *(f"{head},1,,9,1" for _ in range(9_000)), f"{head},1,10,9,1")
    reader = open_tardis_quotes(path)
    found, bad = quotes(reader)
    assert [line for line, *_ in found] == [0, 9_001]
    assert [entry[:2] for entry in bad] == [(1, k) for k in range(1, 9_001)]
    assert reader.lines == 9_002


def test_a_cut_gzip_gives_every_whole_line_and_then_says_so(tmp_path):
    head = f"deribit,X,{made.START_US},{made.START_US}"
    plain = written(tmp_path / "f.csv", TRADES, *(f"{head},{k * 7919 % 99_991},buy,{k},1" for k in range(30_000)))
    path = tmp_path / "cut.csv.gz"
    path.write_bytes(gzip.compress(plain.read_bytes())[:-20_000])
    reader = open_tardis_trades(path)
    batches: list = []
    with pytest.raises(CorruptSource, match="cut short") as fault:
        batches.extend(reader.batches(1 << 16))
    prices = np.concatenate([batch.price for batch in batches]).tolist()
    assert prices == list(range(plain.read_bytes()[: fault.value.offset].count(b"\n") - 1))
    assert len(prices) == reader.lines > 3_000


@pytest.mark.parametrize("open_file", [open_tardis_books, open_tardis_trades, open_tardis_quotes])
def test_a_file_of_several_symbols_is_refused_unless_one_is_named(tmp_path, open_file):
    names = {open_tardis_books: book_names(1), open_tardis_trades: TRADES, open_tardis_quotes: QUOTES}[open_file]
    tail = ",id,buy,9,1" if names == TRADES else ",1,10,9,1" if names == QUOTES else ",10,1,9,1"
    path = written(tmp_path / "f.csv", names, *(f"e,{symbol},{made.START_US},{made.START_US}{tail}" for symbol in "XYX"))
    with pytest.raises(SchemaMismatch, match="row 1: holds several symbols: a row of 'Y' after rows of 'X'"):
        list(open_file(path).batches(WHOLE))
    reader = open_file(path, "X")
    assert [batch.line.tolist() for batch in reader.batches(WHOLE)] == [[0, 2]]
    assert reader.other_rows == 1


@pytest.mark.parametrize("open_file", [open_tardis_books, open_tardis_trades, open_tardis_quotes])
def test_a_header_among_the_rows_is_passed_over_and_counted(tmp_path, open_file):
    names = {open_tardis_books: book_names(1), open_tardis_trades: TRADES, open_tardis_quotes: QUOTES}[open_file]
    tail = ",id,buy,9,1" if names == TRADES else ",1,10,9,1" if names == QUOTES else ",10,1,9,1"
    row = f"e,X,{made.START_US},{made.START_US}{tail}"
    reader = open_file(written(tmp_path / "f.csv", names, row, ",".join(names), row))
    assert [(batch.line.tolist(), batch.bad) for batch in reader.batches(WHOLE)] == [([0, 2], [])]
    assert (reader.lines, reader.left_out) == (3, {"symbol": 0, "header": 1})
