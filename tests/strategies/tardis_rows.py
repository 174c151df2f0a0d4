"""Files as Tardis.dev writes them, and such as it does not: odd numbers, broken lines, several symbols, any order of columns."""

from __future__ import annotations

from hypothesis import strategies as st

SYMBOL, OTHER = "BTC-PERPETUAL", "ETH-PERPETUAL"
START_US = 1_585_699_200_000_000
ODD_DECIMALS = """0 0.0 -0 -0.0 5. .5 . - -- +1 1e 1e- 1e+ 1e5 1E5 1e-7 1.5e-7 12e-18 1e-18 1e-19 10e-19 1.0e-18 1e18 1e19 10e17 0e99999999999
    1e99999999999 1e-99999999999 9223372036854775806 9223372036854775807 9223372036854775806.0 922337203685477580.6 92233720368547758060
    9.223372036854775807e18 9.223372036854775806e+18 0.000000000000000001 0.0000000000000000010 0.0000000000000000001
    1.00000000000000000000000 0.1000000000000000000 00012.50 000000000000000000000012.5 123456789012345678 1234567890123456789
    123456789012345678.9 12345678901234567.8 1.23456789012345678 1.234567890123456789 12345678901234567890 0.30000000000000004
    100000000000000000000e-20 1000000000000000000000.0e-3 0.00e5 120e-1 1.20e1 1e0 nan NaN inf 1.2.3 1,2 1e5x 0x10 \u0661"""
EDGE_DECIMALS = tuple(ODD_DECIMALS.split())
DECIMALS = (
    st.decimals(-1000, 100_000, places=3).map(str)
    | st.integers(0, 10**6).map(lambda units: f"{units}e-8")
    | st.builds("{}{}e{}".format, st.integers(0, 10**20), st.sampled_from(["", ".0", ".50", ".123456789"]), st.integers(-25, 20))
    | st.sampled_from(EDGE_DECIMALS)
)
EDGE_TIMES = (
    "",
    "-1",
    "1e3",
    "9223372036854775",
    "9223372036854776",
    "99999999999999999999",
    "2020-04-01T00:00:00Z",
    "0",
    "007",
    "1585699200245000.5",
)
EDGE_FLAGS = ("", "0", "1", "TRUE", "False", "tru", "truex", "10", "2")
EDGE_SIDES = ("", "bid", "ask", "Bid", "bidx", "b", "buy", "sell", "unknown", "unknownx", "asks")
TRADE_IDS = ("", "42377944", "ccc3c1fa-212c-e8b0", "x y", "é", "0" * 40)
EDGES = {
    "timestamp": EDGE_TIMES, "local_timestamp": EDGE_TIMES, "is_snapshot": EDGE_FLAGS, "side": EDGE_SIDES, "price": ("", *EDGE_DECIMALS),
    "amount": ("", *EDGE_DECIMALS), "id": TRADE_IDS, "symbol": ("", OTHER, SYMBOL + "X", SYMBOL[:-1], "é"), "exchange": ("", "x", "é y"),
}  # fmt: skip
PRICES, AMOUNTS = ("100", "100.5", "101.00", "1e2", "99.5"), ("0", "1", "2.50", "0.0", "3e-7")


def edges(name: str) -> tuple[str, ...]:
    """Odd texts of a column; columns of books and quotes by their last word."""
    return EDGES.get(name) or EDGES["price" if name.endswith("price") else "amount"]


@st.composite
def texts(draw: st.DrawFn, names: tuple[str, ...], rows: list[dict[str, str]], odd: int = 4) -> bytes:
    """Rows as a file: columns in any order, some cells odd (one row in `odd`), some lines broken, blank lines, quotes, either line end, a BOM."""
    order = draw(st.permutations(names)) if draw(st.booleans()) else list(names)
    lines = []
    for k, row in enumerate(rows):
        cells = dict(row)
        # The first row stays: a file whose times are in no known unit is refused as a whole.
        if k and draw(st.integers(1, odd)) == 1:
            name = draw(st.sampled_from(order))
            cells[name] = draw(st.sampled_from(edges(name)) | (DECIMALS if name.endswith(("price", "amount")) else st.nothing()))
        quoted = draw(st.sampled_from(["", "", "", *order]))
        line = ",".join(f'"{cells[name]}"' if name == quoted else cells[name] for name in order)
        if k and draw(st.integers(1, 4 * odd)) == 1:
            at, what = draw(st.integers(0, len(line))), draw(st.sampled_from(['"', ",", "x", '""', "é"]))
            line = line[:at] + what + line[at:]
        lines += [line] + [""] * draw(st.sampled_from((0, 0, 0, 1)))
    end = draw(st.sampled_from(["\n", "\n", "\r\n"]))
    return draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf"])) + (end.join([",".join(order), *lines]) + draw(st.sampled_from(["", end]))).encode()


@st.composite
def heads(draw: st.DrawFn, count: int, symbols: tuple[str, ...] = (SYMBOL, SYMBOL, OTHER)) -> list[dict[str, str]]:
    """The first four cells of `count` rows, local times that stand still, go on and rarely go back; the first row is of SYMBOL."""
    local, found = START_US, []
    for k in range(count):
        local += draw(st.sampled_from((0, 0, 0, 1, 25_000, -1)))
        symbol = draw(st.sampled_from(symbols)) if k else SYMBOL
        made = local - draw(st.sampled_from((0, 1, 110_684)))
        found.append({"exchange": "deribit", "symbol": symbol, "timestamp": str(made), "local_timestamp": str(local)})
    return found


@st.composite
def l2_rows(draw: st.DrawFn, most: int = 30) -> list[dict[str, str]]:
    """Rows of incremental_book_L2: snapshots that follow each other, that begin or end within a local time, rows before the first."""
    rows = draw(heads(draw(st.integers(0, most))))
    flag = draw(st.booleans())
    for row in rows:
        flag = flag if draw(st.integers(0, 3)) else not flag
        row |= {"is_snapshot": str(flag).lower(), "side": draw(st.sampled_from(("bid", "ask")))}
        row |= {"price": draw(st.sampled_from(PRICES)), "amount": draw(st.sampled_from(AMOUNTS))}
    return rows


@st.composite
def table_rows(draw: st.DrawFn, names: tuple[str, ...], most: int = 12) -> list[dict[str, str]]:
    """Rows of trades, quotes or book snapshots; prices and amounts of the last two may be missing, together or not."""
    rows = draw(heads(draw(st.integers(0, most))))
    for row in rows:
        for name in names:
            if name == "side":
                row[name] = draw(st.sampled_from(("buy", "sell", "unknown")))
            elif name == "id":
                row[name] = draw(st.sampled_from(TRADE_IDS))
            elif name.endswith(("price", "amount")):
                row[name] = draw(st.sampled_from(PRICES if name.endswith("price") else AMOUNTS))
        for name in draw(st.sets(st.sampled_from(names), max_size=2)) if draw(st.booleans()) else ():
            if name.endswith("price") and name != "price":
                row[name] = ""
                row[name.removesuffix("price") + "amount"] = draw(st.sampled_from(("", "", "", "0", "1")))
    return rows
