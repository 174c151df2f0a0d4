"""Slow, obvious twins of tasks/scanning/csv_kernels.py, csv_field_kernels.py and lobster_kernels.py: csv, Decimal and datetime, a line at a time."""

from __future__ import annotations

import csv
import re
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, localcontext
from zoneinfo import ZoneInfo

from tasks.schemas import EVENT_DTYPES, UNDEF_PRICE

I64 = 2**63 - 1
MOST = {"publisher_id": 2**16 - 1, "instrument_id": 2**32 - 1, "size": 2**32 - 1, "order_id": 2**64 - 1, "flags": 255, "channel_id": 255}
MOST["sequence"] = 2**32 - 1
FIELD = r'(?:[^",]*|"[^",]*")'
EPOCH = datetime(1970, 1, 1)


class Bad(Exception):
    """A field or line that cannot be read; its argument is the reason."""


def scaled(text: str) -> int:
    """Decimal text in units of 1e-9."""
    if not re.fullmatch(r"-?(\d+\.?\d*|\.\d+)", text, re.ASCII):
        raise Bad("price")
    with localcontext(prec=200):
        value = Decimal(text) * 10**9
        if value != value.to_integral_value():
            raise Bad("price")
    if abs(value) > I64:
        raise Bad("overflow")
    return int(value)


def price(text: str, integers: bool) -> int | None:
    """Price in 1e-9; None for a NaN."""
    if not text:
        return UNDEF_PRICE
    if text.lower() == "nan":
        return None
    if not integers:
        return scaled(text)
    if not re.fullmatch(r"-?\d+", text, re.ASCII):
        raise Bad("price")
    if abs(int(text)) > I64:
        raise Bad("overflow")
    return int(text)


def time_ns(text: str) -> int:
    """ns since the epoch."""
    if re.fullmatch(r"\d+", text, re.ASCII):
        if int(text) > I64:
            raise Bad("overflow")
        return int(text)
    parts = re.fullmatch(r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})0*)?(?:Z|([+-])(\d\d)(?::?(\d\d))?)?", text, re.ASCII)
    if not parts or not 1678 <= int(parts[1]) <= 2261 or int(parts[9] or 0) > 23 or int(parts[10] or 0) > 59:
        raise Bad("time")
    try:
        whole = datetime(*(int(part) for part in parts.groups()[:6]))
    except ValueError:
        raise Bad("time") from None
    east = timedelta(hours=int(parts[9] or 0), minutes=int(parts[10] or 0)) * (-1 if parts[8] == "-" else 1)
    return (whole - EPOCH - east) // timedelta(seconds=1) * 10**9 + int((parts[7] or "").ljust(9, "0"))


def field(name: str, text: str, integers: bool) -> int | str | None:
    """Value of one field of an event row."""
    if name == "symbol":
        if len(text) > 256:
            raise Bad("symbol")
        return text
    if name in ("action", "side"):
        if len(text) != 1:
            raise Bad(name)
        return ord(text)
    if name in ("ts_event", "ts_recv"):
        return time_ns(text)
    if name == "price":
        return price(text, integers)
    if name == "is_last":
        if text.lower() not in ("0", "1", "true", "false"):
            raise Bad("is_last")
        return int(text.lower() in ("1", "true"))
    if name == "size" and re.fullmatch(r"-\d+", text, re.ASCII):
        raise Bad("size_negative")
    if not re.fullmatch(r"-?\d+" if name == "ts_in_delta" else r"\d+", text, re.ASCII):
        raise Bad("integer")
    value = int(text)
    if not (-(2**31) <= value < 2**31 if name == "ts_in_delta" else value <= MOST[name]):
        raise Bad("overflow")
    return value


def lines(data: bytes) -> list[tuple[int, bytes]]:
    """(offset, bytes without the end) of the lines that are not blank."""
    found, offset = [], 0
    for line in data.split(b"\n"):
        if line.removesuffix(b"\r"):
            found.append((offset, line.removesuffix(b"\r")))
        offset += len(line) + 1
    return found


def read(data: bytes, stem: str, integers: bool = False) -> tuple[list[dict], list[tuple]]:
    """Events as dicts (EVENT_DTYPES, symbol, row, offset, raw), and bad rows as (events before, row, offset, raw, reason, symbol or None)."""
    start = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    (_, header), *rows = [(offset + start, line) for offset, line in lines(data[start:])]
    names = next(csv.reader([header.decode()]))
    events: list[dict] = []
    bad: list[tuple] = []
    for row, (offset, line) in enumerate(rows):
        text, symbol = line.decode("latin-1"), None
        try:
            if not re.fullmatch(f"{FIELD}(,{FIELD})*", text, re.DOTALL):
                raise Bad("quote")
            cells = next(csv.reader([text], strict=True))
            if len(cells) != len(names):
                raise Bad("columns")
            by_name = dict(zip(names, cells, strict=True))
            symbol = by_name["symbol"] if "symbol" in names else stem
            symbol = symbol if 0 < len(symbol) <= 256 else None  # of a bad row without one it may be any
            known = (*EVENT_DTYPES, "is_last", "symbol")
            values = {name: field(name, by_name[name], integers) for name in names if name in known}
            if values["price"] is None and chr(values["action"]) in "AMTF":
                raise Bad("price_nan")
        except Bad as fault:
            bad.append((len(events), row, offset, line, fault.args[0], symbol))
            continue
        event = {name: values.get(name, 0) for name in EVENT_DTYPES}
        event["price"] = UNDEF_PRICE if event["price"] is None else event["price"]
        event["ts_recv"] = values.get("ts_recv", event["ts_event"])
        event["flags"] |= 128 * values.get("is_last", 0)
        events.append({**event, "symbol": symbol or stem, "row": row, "offset": offset, "raw": line})
    return events, bad


def message(line: bytes) -> list[int]:
    """ns after midnight, type, order id, size, price, direction of a LOBSTER line."""
    cells = line.decode("latin-1").split(",")
    if len(cells) not in (6, 7):
        raise Bad("columns")
    if not re.fullmatch(r"(\d+\.?\d*|\.\d+)", cells[0], re.ASCII):
        raise Bad("time")
    with localcontext(prec=200):
        ns = int((Decimal(cells[0]) * 10**9).to_integral_value(ROUND_HALF_UP))
    if ns >= 86_400 * 10**9:
        raise Bad("time")
    values = [ns]
    for cell in cells[1:6]:
        if not re.fullmatch(r"-?\d+", cell, re.ASCII):
            raise Bad("integer")
        if abs(int(cell)) > I64:
            raise Bad("overflow")
        values.append(int(cell))
    _, kind, order, size, level, direction = values
    for wrong, reason in (
        (kind not in range(1, 8), "message_type"), (kind <= 4 and order < 0, "integer"), (size < 0, "size_negative"), (size >= 2**32, "overflow"),
        (kind == 7 and level not in (-1, 0, 1), "price"), (abs(level) >= I64 // 100_000, "overflow"),
        (kind <= 5 and direction not in (-1, 1), "direction"),
    ):  # fmt: skip
        if wrong:
            raise Bad(reason)
    return values


def levels(line: bytes, depth: int) -> list[list[int]]:
    """Published book of one LOBSTER order book line: depth times [ask px, ask size, bid px, bid size]."""
    cells = line.decode("latin-1").split(",")
    if len(cells) != 4 * depth or not all(re.fullmatch(r"-?\d+", cell, re.ASCII) and abs(int(cell)) <= I64 for cell in cells):
        raise Bad("orderbook")
    found = []
    for px, size in zip(map(int, cells[::2]), map(int, cells[1::2]), strict=True):
        if abs(px) != 9_999_999_999 and abs(px) >= I64 // 100_000:
            raise Bad("orderbook")
        found += [UNDEF_PRICE, 0] if abs(px) == 9_999_999_999 else [px * 100_000, size]
    return [found[k : k + 4] for k in range(0, len(found), 4)]


def lobster(messages: bytes, book: bytes, day: str, depth: int) -> tuple[list[tuple], list[tuple], list]:
    """Events (message, ts, action, side, price, size, order id, flags), bad rows (events before, row, offset, raw, reason), truth, of a pair."""
    midnight = datetime.combine(date.fromisoformat(day), datetime.min.time(), ZoneInfo("America/New_York")).astimezone(UTC)
    base = (midnight - EPOCH.replace(tzinfo=UTC)) // timedelta(seconds=1) * 10**9
    events: list[tuple] = []
    bad: list[tuple] = []
    truth = []
    for row, ((offset, line), (_, row_of_book)) in enumerate(zip(lines(messages), lines(book), strict=False)):
        try:
            ns, kind, order, size, level, direction = message(line)
            published = levels(row_of_book, depth)
        except Bad as fault:
            bad.append((len(events), row, offset, line, fault.args[0]))
            continue
        truth.append(published)
        resting, aggressor = ("B", "A") if direction == 1 else ("A", "B")
        made = {
            1: [("A", resting)], 2: [("C", resting)], 3: [("C", resting)], 4: [("T", aggressor), ("C", resting)], 5: [("T", aggressor)],
            6: [("T" if size else "N", "N")], 7: [("N", "N")],
        }[kind]  # fmt: skip
        px = level * (10**9 if kind == 7 else 100_000)
        for k, (action, side) in enumerate(made):
            flags = 128 if k == len(made) - 1 else 0
            events.append((row, base + ns, ord(action), ord(side), px, size, order if kind <= 4 else 0, flags))
    return events, bad, truth
