"""Which files are Tardis.dev's, and what they hold: told from the header, the first rows and the file name.

Belongs here: the layouts by their columns, the shapes of file names, `identify_tardis`. Files are read by tardis_l2.py, tardis_books.py,
tardis_trades.py and tardis_quotes.py.

Layouts: docs.tardis.dev, "Downloadable CSV files", data types. Columns are found by name, in any order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tasks.errors import SourceError
from tasks.scanning.chunks import ByteStream

L2, BOOKS, TRADES, QUOTES = "incremental_book_L2", "book_snapshot", "trades", "quotes"
# Told apart from trades and quotes by their names only: the columns are the same. A book ticker is read as quotes, liquidations are not read.
LIQUIDATIONS, BOOK_TICKER = "liquidations", "book_ticker"
HEAD = ("exchange", "symbol", "timestamp", "local_timestamp")
REQUIRED = {
    L2: (*HEAD, "is_snapshot", "side", "price", "amount"),
    TRADES: (*HEAD, "id", "side", "price", "amount"),
    QUOTES: (*HEAD, "bid_price", "bid_amount", "ask_price", "ask_amount"),
}
HEADER_CELL = "symbol"  # what a header has where rows have their symbol
HEAD_BYTES = 1 << 18  # the header of a snapshot of 1,000 levels has 80,000
# Microseconds of 2001-09-09 and of 2100: times in another unit do not fall between.
EARLIEST_US, LATEST_US = 10**15, 4_102_444_800_000_000
_UNIT_NS = {"ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3_600 * 10**9}
_LEVEL = re.compile(r"(asks|bids)\[(\d+)\]\.(price|amount)")
_TYPE = r"(?P<type>incremental_book_L2|trades|quotes|book_ticker|liquidations|book_snapshot_\d+(?:_(?P<every>\d+)(?P<unit>ms|[smh]))?)"
_NAME = re.compile(r"(?:(?P<exchange>[A-Za-z0-9-]+)_)?" + _TYPE + r"(?:_(?P<date>\d{4}-\d\d-\d\d))?(?:_(?P<symbol>.+))?")
_FOLDERS = re.compile(r"(?:.*/)?(?P<exchange>[^/]+)/" + _TYPE + r"/(?P<date>\d{4}/\d\d/\d\d)/(?P<symbol>[^/]+)")


@dataclass(frozen=True)
class TardisFound:
    """What a Tardis file holds.

    kind: L2, BOOKS, TRADES, QUOTES, LIQUIDATIONS or BOOK_TICKER; depth: levels a side of BOOKS, else 0; interval_ns: of BOOKS by the file name, 0 for
    a row per change; exchange, symbol: of the first row, by the file name where there is none; date: YYYY-MM-DD of the file name, else the UTC day
    of the first row's local time, "" without; columns: as in the header; symbols: in the first rows, more than one in a file of a grouped symbol.
    """

    kind: str
    depth: int
    interval_ns: int
    exchange: str
    symbol: str
    date: str
    columns: tuple[str, ...]
    symbols: tuple[str, ...]


@dataclass(frozen=True)
class TardisHead:
    """The beginning of a CSV: names in the header (none in an empty file), whole rows as cells, why its bytes end early ("" when they do not)."""

    names: tuple[str, ...]
    rows: list[list[str]]
    fault: str

    def column(self, name: str) -> list[str]:
        """Cells of one column in the first rows."""
        return [row[self.names.index(name)] for row in self.rows]


def read_head(path: Path) -> TardisHead:
    """Header and first rows (those with a cell per column; files joined end to end have the header among them, which is none) in the first HEAD_BYTES
    decompressed. Raises SourceError when it cannot be opened."""
    try:
        stream = ByteStream(path)
    except OSError as fault:
        raise SourceError(path, f"cannot be opened: {fault}", remedy="Check the path and the permissions") from fault
    buffer = bytearray(HEAD_BYTES)
    try:
        text = bytes(buffer[: stream.fill(memoryview(buffer))])
    finally:
        stream.close()
    whole = text if len(text) < HEAD_BYTES else text[: text.rfind(b"\n") + 1] or text
    lines = [line for line in whole.decode("utf-8-sig", "backslashreplace").split("\n") if line.strip()]
    names, *rows = [[cell.strip().strip('"').strip() for cell in line.split(",")] for line in lines] or [[]]
    at = names.index(HEADER_CELL) if HEADER_CELL in names else -1
    whole_rows = [row for row in rows if len(row) == len(names) and (at < 0 or row[at] != HEADER_CELL)]
    return TardisHead(tuple(names), whole_rows, stream.fault)


def kind_of(names: tuple[str, ...]) -> tuple[str, int]:
    """(kind, depth) of a header, ("", 0) where it is none of the layouts."""
    levels = {match.groups() for name in names if (match := _LEVEL.fullmatch(name))}
    if levels and set(HEAD) <= set(names):
        depth = 1 + max(int(level) for _, level, _ in levels)
        return (BOOKS, depth) if len(levels) == 4 * depth else ("", 0)
    return next(((kind, 0) for kind, required in REQUIRED.items() if set(required) <= set(names)), ("", 0))


def identify_tardis(path: Path) -> TardisFound | None:
    """What the Tardis file at `path` holds, None where it is none. Reads the first HEAD_BYTES. Raises SourceError when it cannot be opened."""
    head = read_head(path)
    kind, depth = kind_of(head.names)
    if not kind:
        return None
    named = name_parts(path)
    if (kind, named.get("type")) in ((TRADES, LIQUIDATIONS), (QUOTES, BOOK_TICKER)):
        kind = named["type"]
    symbols = tuple(dict.fromkeys(head.column("symbol")))
    exchange = next(iter(head.column("exchange")), named.get("exchange", ""))
    symbol = symbols[0] if symbols else named.get("symbol", "")
    date = named.get("date", "").replace("/", "-") or next((day for text in head.column("local_timestamp") if (day := _day(text))), "")
    return TardisFound(kind, depth, interval_of(named) if kind == BOOKS else 0, exchange, symbol, date, head.names, symbols)


def name_parts(path: Path) -> dict[str, str]:
    """Exchange, type, every, unit, date and symbol, as far as the file name or its folders say them.

    Shapes: <exchange>_<type>_<date>_<symbol>.csv.gz (Tardis's own downloader), the same without exchange, date or symbol, and
    <exchange>/<type>/<yyyy>/<mm>/<dd>/<symbol>.csv.gz (its server); .csv and .csv.zst too.
    """
    stem = re.sub(r"\.csv(\.gz|\.zst|\.zstd)?$", "", path.absolute().as_posix())
    found = _NAME.fullmatch(stem.rsplit("/", 1)[-1]) or _FOLDERS.fullmatch(stem)
    return {name: text for name, text in found.groupdict().items() if text} if found else {}


def interval_of(named: dict[str, str]) -> int:
    """Interval in ns of a file name's parts, 0 where it has none."""
    return int(named["every"]) * _UNIT_NS[named["unit"]] if "every" in named else 0


def _day(text: str) -> str:
    """UTC day of microseconds since the epoch, "" where they are none."""
    if not (text.isascii() and text.isdecimal() and EARLIEST_US <= int(text[:20]) < LATEST_US):
        return ""
    return datetime.fromtimestamp(int(text) // 1_000_000, UTC).date().isoformat()
