"""Published books a row at a time: the slow twin of tasks/scanning/published_kernels.py, and writers of small files of each kind.

A row is a dict: ts_event (None where not set), ts_recv, publisher_id, instrument_id, sequence, action ("" in bbo), flags, symbol, and the
levels bid_px_00, ask_px_00, bid_sz_00, ... with prices in 1e-9 and UNDEF_PRICE where a level is empty.
"""

from __future__ import annotations

import csv
import re
import struct
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from tasks.schemas import UNDEF_PRICE
from tests.oracles import naive_dbn
from tests.oracles.naive_csv import FIELD, I64, Bad, lines, price, time_ns

UNDEF_TIME = 2**64 - 1
RTYPE = {"mbp-1": 1, "tbbo": 1, "mbp-10": 10, "bbo-1s": 195, "bbo-1m": 196}
LARGEST = {"publisher_id": 2**16 - 1, "instrument_id": 2**32 - 1, "sequence": 2**32 - 1, "flags": 255, "ct": 2**32 - 1, "sz": I64}
# length, rtype, publisher, instrument, ts_event, price, size, action, side, flags, depth, ts_recv, ts_in_delta, sequence
RECORD = struct.Struct("<BBHIQqIBBBBQiI")
LEVEL = struct.Struct("<qqIIII")


def level_names(depth: int) -> list[str]:
    """Columns of the levels in the order of a DBN record."""
    return [f"{side}_{kind}_{level:02d}" for level in range(depth) for kind in ("px", "sz", "ct") for side in ("bid", "ask")]


def record(schema: str, row: dict[str, Any], ts_out: bool = False) -> bytes:
    """One DBN record of mbp, tbbo or bbo."""
    depth = 10 if schema == "mbp-10" else 1
    words = (48 + 32 * depth + 8 * ts_out) // 4
    event = UNDEF_TIME if row["ts_event"] is None else row["ts_event"]
    head = RECORD.pack(
        words, RTYPE[schema], row["publisher_id"], row["instrument_id"], event, UNDEF_PRICE, 0, ord(row["action"] or "\0"), ord("N"), row["flags"], 0,
        row["ts_recv"], 0, row["sequence"],
    )  # fmt: skip
    names = level_names(depth)
    return head + b"".join(LEVEL.pack(*(row[name] for name in names[k : k + 6])) for k in range(0, len(names), 6)) + b"\1" * (8 * ts_out)


def bbo_day(day: str, symbol: str, instrument_id: int) -> bytes:
    """A DBN file of bbo-1s with some rows of one day, whatever the book is."""
    first = date.fromisoformat(day)
    span = SimpleNamespace(start_date=first, end_date=first + timedelta(days=1), symbol=str(instrument_id))
    start = int(datetime.combine(first, time(), UTC).timestamp()) * 10**9
    mappings = [SimpleNamespace(raw_symbol=symbol, intervals=[span])]
    row: dict[str, Any] = {"ts_event": None, "publisher_id": 1, "instrument_id": instrument_id, "action": "", "flags": 128}
    row |= {name: 10**9 if "_px_" in name else 1 for name in level_names(1)}
    rows = [row | {"ts_recv": start + (13 * 3600 + 1800 + k) * 10**9, "sequence": k} for k in range(30)]
    head = naive_dbn.header(3, mappings, False, "bbo-1s", start=start, end=start + 86_400 * 10**9)
    return head + b"".join(record("bbo-1s", row) for row in rows)


def read_records(body: bytes, schema: str) -> list[tuple[int, bytes, dict[str, Any] | None]]:
    """(offset, bytes, row without a symbol, or None for another type) of each whole record."""
    depth, at, found = 10 if schema == "mbp-10" else 1, 0, []
    while at < len(body) and at + 4 * body[at] <= len(body):
        raw = body[at : at + 4 * body[at]]
        row = None
        if raw[1] == RTYPE[schema]:
            _, _, publisher, instrument, event, _, _, action, _, flags, _, recv, _, sequence = RECORD.unpack_from(raw)
            row = {"ts_event": None if event == UNDEF_TIME else event, "ts_recv": recv, "publisher_id": publisher, "instrument_id": instrument}
            row |= {"sequence": sequence, "action": "" if schema.startswith("bbo") else chr(action), "flags": flags}
            levels = [value for level in range(depth) for value in LEVEL.unpack_from(raw, 48 + 32 * level)]
            row |= dict(zip(level_names(depth), levels, strict=True))
        found.append((at, raw, row))
        at += len(raw)
    return found


def csv_names(schema: str, depth: int) -> list[str]:
    """The columns of a file of `schema`, as the vendor orders them."""
    head = ["ts_recv", "ts_event", "rtype", "publisher_id", "instrument_id", "action", "side", "price", "flags", "sequence"]
    if schema.startswith("bbo"):
        head.remove("action")
    return [*head, *level_names(depth), "symbol"]


def cell(name: str, row: dict[str, Any], schema: str, pretty: bool) -> str:
    """One field of a line: pretty prices are decimals and times ISO 8601, others integers."""
    value = row.get(name, "")
    if name == "rtype":
        return str(RTYPE[schema])
    if name == "side":
        return "N"
    if name.startswith("ts_"):
        if value is None:
            return "" if pretty else str(UNDEF_TIME)
        return iso(value) if pretty else str(value)
    if name == "price" or "_px_" in name:
        value = UNDEF_PRICE if name == "price" else value
        return ("" if value == UNDEF_PRICE else f"{Decimal(value).scaleb(-9):f}") if pretty else str(value)
    return str(value)


def iso(ns: int) -> str:
    """ISO 8601 with nine decimals."""
    return f"{datetime.fromtimestamp(ns // 10**9, UTC):%Y-%m-%dT%H:%M:%S}.{ns % 10**9:09d}Z"


def csv_text(rows: list[dict[str, Any]], schema: str, pretty: bool = True) -> str:
    """A whole CSV file."""
    names = csv_names(schema, 10 if schema == "mbp-10" else 1)
    body = [",".join(cell(name, row, schema, pretty) for name in names) for row in rows]
    return "\n".join([",".join(names), *body]) + "\n"


def value_of(name: str, text: str, integers: bool, by_row: bool) -> Any:
    """One field of a line; raises Bad."""
    if name == "symbol":
        if len(text) > 256:
            raise Bad("symbol")
        return text
    if name == "action":
        if len(text) != 1:
            raise Bad("action")
        return text
    if name.startswith("ts_"):
        if name == "ts_event" and not by_row and (not text or (re.fullmatch(r"\d+", text, re.ASCII) and int(text) == UNDEF_TIME)):
            return None
        ns = time_ns(text)
        if ns < 0:
            raise Bad("time")
        return ns
    if "_px_" in name:
        found = price(text, integers)
        return UNDEF_PRICE if found is None else found
    if not re.fullmatch(r"\d+", text, re.ASCII):
        raise Bad("integer")
    if int(text) > LARGEST[name if name in LARGEST else name[4:6]]:
        raise Bad("overflow")
    return int(text)


def read_csv(data: bytes, named: str, known: list[str], integers: bool = False) -> tuple[list[dict[str, Any]], list[tuple]]:
    """Rows with row, offset and raw beside their values, and bad rows as (rows before, row, offset, raw, reason, symbol or None).

    known: the columns that are read; named: the symbol where the file has none.
    """
    (_, header), *body = lines(data)
    names = next(csv.reader([header.decode()]))
    rows: list[dict[str, Any]] = []
    bad: list[tuple] = []
    for number, (offset, line) in enumerate(body):
        text, symbol = line.decode("latin-1"), None if "symbol" in names else named
        try:
            if not re.fullmatch(f"{FIELD}(,{FIELD})*", text, re.DOTALL):
                raise Bad("quote")
            cells = next(csv.reader([text], strict=True))
            if len(cells) != len(names):
                raise Bad("columns")
            by_name = dict(zip(names, cells, strict=True))
            symbol = by_name.get("symbol", named)
            symbol = symbol if 0 < len(symbol) <= 256 else None  # bytes: one each in Latin-1; of a bad row without one it may be any
            values = {name: value_of(name, by_name[name], integers, "action" in names) for name in names if name in known}
        except Bad as fault:
            bad.append((len(rows), number, offset, line, fault.args[0], symbol))
            continue
        rows.append({"action": "", **values, "symbol": symbol or named, "row": number, "offset": offset, "raw": line})
    return rows, bad


def by_partition(rows: list[dict[str, Any]]) -> dict[tuple[str, str, int, int], list[dict[str, Any]]]:
    """Rows by (UTC date of ts_recv, symbol, publisher, instrument), in their order."""
    found: dict[tuple[str, str, int, int], list[dict[str, Any]]] = {}
    for row in rows:
        date = str(datetime.fromtimestamp(row["ts_recv"] // 10**9, UTC).date())
        found.setdefault((date, row["symbol"], row["publisher_id"], row["instrument_id"]), []).append(row)
    return found
