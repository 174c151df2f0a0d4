"""What a file is, told from its content: magic bytes, a header line, the shape of its first rows. Names count only where LOBSTER puts meaning there;
the date that an ITCH file has in its name is looked for once it is known to be one.

Here: the names of the formats, the columns each tabular layout has, and `identify`. Whole files are read by the readers, folders by inventory.py.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import CorruptSource, EmptySource, SchemaMismatch, SourceError, UnknownFormat
from tasks.scanning.chunks import ByteStream
from tasks.scanning.itch_messages import looks_like_itch

DBN = "dbn"
DATABENTO_CSV = "databento-csv"
DATABENTO_PARQUET = "databento-parquet"
SEVEN_COLUMN_CSV = "seven-column-csv"
SEVEN_COLUMN_PARQUET = "seven-column-parquet"
LOBSTER = "lobster"
ITCH = "itch"
FORMATS = (DBN, DATABENTO_CSV, DATABENTO_PARQUET, SEVEN_COLUMN_CSV, SEVEN_COLUMN_PARQUET, LOBSTER, ITCH)

DATABENTO, SEVEN_COLUMN = "databento", "seven-column"
SEVEN_COLUMNS = ("ts_event", "action", "side", "price", "size", "order_id", "is_last")
# Without publisher and instrument several books would be mixed into one, without ts_recv there is no receive clock.
DATABENTO_COLUMNS = ("ts_event", "ts_recv", "publisher_id", "instrument_id", "action", "side", "price", "size", "order_id", "flags")
DATABENTO_OPTIONAL = ("channel_id", "ts_in_delta", "sequence", "symbol", "rtype", "length", "ts_out")
# Row numbers that data frames leave in their exports.
_INDEX = ("", "Unnamed: 0", "__index_level_0__")
_COLUMNS = {DATABENTO: (DATABENTO_COLUMNS, DATABENTO_OPTIONAL), SEVEN_COLUMN: (SEVEN_COLUMNS, ())}
_ONLY_DATABENTO = {"ts_recv", "rtype", "publisher_id", "instrument_id"}

SUPPORTED = (
    "Supported: DBN of schema mbo (plain, zstd, gzip), Databento mbo as CSV or Parquet, seven-column CSV or Parquet "
    f"({','.join(SEVEN_COLUMNS)}), LOBSTER message and orderbook pairs (CSV, or inside a zip), "
    "Nasdaq TotalView-ITCH 5.0 (plain, gzip, zstd)"
)
_GET_AGAIN = "Fetch the file again"

LOBSTER_NAME = re.compile(r"(?P<ticker>.+)_(?P<date>\d{4}-\d{2}-\d{2})_(?P<start>\d+)_(?P<end>\d+)_(?P<kind>message|orderbook)_(?P<levels>\d+)\.csv")
_LOBSTER_RULE = "LOBSTER names its pair TICKER_DATE_START_END_message_N.csv and TICKER_DATE_START_END_orderbook_N.csv"
# time, type 1-7, order id, size, price x 10,000, direction; some years carry a seventh field.
_MESSAGE_LINE = re.compile(r"\d+(\.\d+)?,[1-7],\d+,\d+,-?\d+,-?1(,[^,]*)?")
_ORDERBOOK_LINE = re.compile(r"-?\d+(,-?\d+){3}(,-?\d+(,-?\d+){3})*")

_HEAD_BYTES = 1 << 16
_LINES_LOOKED_AT = 5


@dataclass(frozen=True)
class Identified:
    """One source inside a file: its format, and for LOBSTER the member of a zip ("" for a loose file) and the order book beside it.

    has_symbols: whether the source itself says which symbol a row is of (DBN, a symbol column, ITCH's stock directory).
    """

    format: str
    member: str = ""
    companion: str = ""
    has_symbols: bool = False


def identify(path: Path) -> list[Identified]:
    """The sources in `path`, one but for a zip with several LOBSTER pairs; none for an order book file that belongs to a message file.

    Raises EmptySource, UnknownFormat, SchemaMismatch, CorruptSource; SourceError where the file cannot be read or lacks its companion.
    """
    try:
        with path.open("rb") as file:
            stored = file.read(8)
        if not stored:
            raise EmptySource(path, "the file is empty", remedy="Fetch it again or leave it out")
        if stored[:4] == b"PAR1":
            return [_identify_parquet(path)]
        if stored[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
            return _identify_zip(path)
        stream = ByteStream(path)
        try:
            return _identify_stream(path, stream)
        finally:
            stream.close()
    except OSError as fault:
        raise SourceError(path, f"cannot be read ({fault.strerror or fault})", remedy="Check the path and the permissions") from fault


def _identify_stream(path: Path, stream: ByteStream) -> list[Identified]:
    buffer = bytearray(_HEAD_BYTES)
    head = bytes(buffer[: stream.fill(memoryview(buffer))])
    if stream.fault and not head:
        raise CorruptSource(path, stream.fault, offset=0, remedy=_GET_AGAIN)
    if not head.strip():
        raise EmptySource(path, "there is nothing in it" if not head else "there is only white space in it", remedy="Fetch it again or leave it out")
    if head[:3] == b"DBN":
        from tasks.scanning.dbn import header_of

        header_of(path)
        return [Identified(DBN, has_symbols=True)]
    if looks_like_itch(head):
        return [Identified(ITCH, has_symbols=True)]
    if head[:4] in (b"PAR1", b"PK\x03\x04"):
        raise UnknownFormat(
            path, f"is a {'Parquet' if head[:1] == b'P' and head[1:2] == b'A' else 'zip'} file compressed once more", remedy="Unpack it"
        )
    return _identify_text(path, head, whole=len(head) < _HEAD_BYTES, compressed=bool(stream.compression))


def _identify_text(path: Path, head: bytes, whole: bool, compressed: bool) -> list[Identified]:
    try:
        text = head.decode("utf-8-sig", errors="strict" if whole else "ignore")
    except UnicodeDecodeError:
        text = "\0"
    lines = [line.rstrip("\r") for line in text.split("\n")]
    lines = [line for line in (lines if whole else lines[:-1])[:_LINES_LOOKED_AT] if line.strip()]
    if "\0" in text or not lines:
        raise UnknownFormat(path, f"begins with the bytes {head[:16]!r}, which no supported format does", remedy=SUPPORTED)
    columns = [name.strip().strip('"') for name in lines[0].split(",")]
    if "ts_event" in columns:
        layout = layout_of(path, columns)
        return [Identified(DATABENTO_CSV if layout == DATABENTO else SEVEN_COLUMN_CSV, has_symbols="symbol" in columns)]
    message = all(_MESSAGE_LINE.fullmatch(line) for line in lines)
    if message or all(_ORDERBOOK_LINE.fullmatch(line) for line in lines):
        if compressed:
            raise UnknownFormat(path, "looks like one file of a LOBSTER pair, compressed", remedy="Unpack it, or keep the pair in one zip")
        return _identify_lobster(path, message)
    raise UnknownFormat(path, f"begins with {lines[0][:80]!r}, which no supported format does", remedy=SUPPORTED)


def layout_of(path: Path, columns: Collection[str]) -> str:
    """DATABENTO or SEVEN_COLUMN, whichever the column names are meant for.

    Raises SchemaMismatch that names missing and unexpected columns.
    """
    layout = DATABENTO if _ONLY_DATABENTO.intersection(columns) else SEVEN_COLUMN
    required, optional = _COLUMNS[layout]
    missing = [name for name in required if name not in columns]
    unexpected = [name for name in columns if name not in (*required, *optional, *_INDEX)]
    twice = sorted({name for name in columns if list(columns).count(name) > 1})
    faults = ((missing, "lacks"), (unexpected, "has unexpected"), (twice, "repeats"))
    found = [f"{verb} column{'s' * (len(names) > 1)} {_listed(names)}" for names, verb in faults if names]
    if found:
        kind = "Databento mbo" if layout == DATABENTO else "seven-column"
        allowed = f"It was taken for a {kind} file, which has {', '.join(required)}"
        allowed += f" and may have {', '.join(optional)}" if layout == DATABENTO else ""
        raise SchemaMismatch(path, "; ".join(found), remedy=allowed + ". Export it again with schema mbo" * (layout == DATABENTO))
    return layout


def _listed(names: list[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _identify_parquet(path: Path) -> Identified:
    from tasks.scanning.parquet_source import read_schema

    schema = read_schema(path)
    if "ts_event" not in schema.names:
        raise UnknownFormat(path, f"is a Parquet file with columns {_listed(schema.names)}", remedy=SUPPORTED)
    layout = layout_of(path, schema.names)
    return Identified(DATABENTO_PARQUET if layout == DATABENTO else SEVEN_COLUMN_PARQUET, has_symbols="symbol" in schema.names)


def _identify_lobster(path: Path, message: bool) -> list[Identified]:
    name = LOBSTER_NAME.fullmatch(path.name)
    if name is None or (name["kind"] == "message") != message:
        kind = "message" if message else "order book"
        if not message and name is None:
            raise UnknownFormat(path, "holds rows of numbers without a header", remedy=SUPPORTED)
        raise SourceError(path, f"holds LOBSTER {kind} rows, but its name does not say so", remedy=f"{_LOBSTER_RULE}; rename both files")
    other = companion_name(path.name)
    if not path.with_name(other).is_file():
        raise SourceError(path, f"the other file of the LOBSTER pair, {other}, is not beside it", remedy=f"Put it there; {_LOBSTER_RULE}")
    return [Identified(LOBSTER, companion=str(path.with_name(other)))] if message else []


def companion_name(name: str) -> str:
    """The name of the other file of a LOBSTER pair."""
    message = "_message_" in name
    old, new = ("_message_", "_orderbook_") if message else ("_orderbook_", "_message_")
    return new.join(name.rsplit(old, 1))


def _identify_zip(path: Path) -> list[Identified]:
    """LOBSTER pairs of a zip; other members (a readme) do not matter as long as there is a pair."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [entry for entry in archive.namelist() if not entry.endswith("/")]
            names = {entry: LOBSTER_NAME.fullmatch(Path(entry).name) for entry in members}
            messages = sorted(entry for entry, name in names.items() if name and name["kind"] == "message")
            for entry in messages:
                _check_member(path, archive, entry, members)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, zlib.error) as fault:
        raise CorruptSource(path, f"the zip cannot be read ({fault})", remedy=_GET_AGAIN) from fault
    if not messages:
        if not members:
            raise EmptySource(path, "the zip holds no files", remedy="Fetch it again or leave it out")
        raise UnknownFormat(path, f"is a zip without a LOBSTER pair; it holds {_listed(members, 3)}", remedy=f"Unpack it. {SUPPORTED}")
    return [Identified(LOBSTER, member=entry, companion=companion_name(entry)) for entry in messages]


def _check_member(path: Path, archive: zipfile.ZipFile, entry: str, members: list[str]) -> None:
    if companion_name(entry) not in members:
        raise SourceError(path, f"the zip holds {entry} but not {companion_name(entry)}", remedy=f"Fetch the zip again; {_LOBSTER_RULE}")
    with archive.open(entry) as file:
        line = file.readline(1000).decode("latin-1").strip()
    if not _MESSAGE_LINE.fullmatch(line):
        problem = f"{entry} begins with {line[:80]!r}" if line else f"{entry} is empty"
        raise SchemaMismatch(path, f"{problem}; a LOBSTER message is time, type, order id, size, price, direction", remedy=_GET_AGAIN)
