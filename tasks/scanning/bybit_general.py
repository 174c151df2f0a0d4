"""One line of a Bybit order-book archive, read as JSON: the last word on every line that the compiled parser leaves.

Belongs here: what a line may look like at all, and why one cannot be read. Decimals stay text until they are integers; nothing here is a float.
A text such as 007, +5 or 1e3 is read too, though what can be made of its numbers again is 7, 5 and 1000.
Twin: tests/oracles/naive_bybit.py
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, NoReturn

from tasks.depth_batches import ASK, BID, DELTA, MAX_DIGITS, NO_ID, NO_TIME, SNAPSHOT
from tasks.scanning.bybit_line_kernels import MAX_LINE, MAX_MS, NS_PER_MS

I64_MAX = 2**63 - 1
MAX_DEPTH = 100_000
MAX_DECIMAL = 64  # characters
SIDES = {"b": BID, "a": ASK}
KINDS = {"snapshot": SNAPSHOT, "delta": DELTA}
# The feed of retail price improvement tells no depth; its levels have a third field.
_TOPIC = re.compile(r"orderbook\.(?:(0|[1-9][0-9]{0,5})|rpi)\.(.+)", re.DOTALL)
_DECIMAL = re.compile(r"([+-]?)(?=\.?[0-9])([0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?[0-9]{1,4}))?")


class Unreadable(Exception):
    """Why a line cannot be read: one word for the count, and what was found."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass
class Message:
    """One readable line. topic: as written; depth 0: not told; ts, cts: ns since the epoch; levels: (side, price, size, price digits, size digits)
    as in `depth_batches.DepthBatch`; thirds: levels with a third field."""

    topic: str
    symbol: str
    depth: int
    kind: int
    ts: int
    cts: int
    update_id: int
    sequence: int
    levels: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    thirds: int = 0


@dataclass(frozen=True)
class _Number:
    """A JSON number that is no integer of at most 19 characters, as written."""

    text: str


def parse(raw: bytes) -> Message:
    """The message in a line without its newline. A byte order mark before it is left out.

    Raises Unreadable, in this order: line_too_long, json, missing, type, topic, symbol, time, number, levels, price, size.
    """
    if len(raw) > MAX_LINE:
        raise Unreadable("line_too_long", f"no line end within {MAX_LINE:,} bytes")
    line = _members(_decoded(raw), "the line", ("topic", "type", "ts", "data"))
    data = _members(line["data"], "data", ("b", "a"))
    kind = line["type"]
    if not isinstance(kind, str) or kind not in KINDS:
        raise Unreadable("type", f"type is {_shown(kind)}; allowed: {', '.join(KINDS)}")
    symbol, depth = _topic(line["topic"])
    if data.get("s") not in (None, symbol):
        raise Unreadable("symbol", f"s is {_shown(data['s'])}, the topic says {symbol}")
    ts, cts = _number(line, "ts", MAX_MS, "time"), _number(line, "cts", MAX_MS, "time")
    message = Message(
        line["topic"], symbol, depth, KINDS[kind], ts * NS_PER_MS, cts * NS_PER_MS if cts != NO_TIME else NO_TIME,
        _number(data, "u", I64_MAX, "number"), _number(data, "seq", I64_MAX, "number"),
    )  # fmt: skip
    for name in data:  # in the order of the line
        if name in SIDES:
            _add_levels(message, name, SIDES[name], data[name])
    return message


def _decoded(raw: bytes) -> Any:
    try:
        return json.loads(raw.decode("utf-8-sig"), parse_int=_integer, parse_float=_Number, parse_constant=_constant, object_pairs_hook=_once)
    except (ValueError, RecursionError) as fault:
        raise Unreadable("json", str(fault)[:200]) from None


def _integer(text: str) -> int | _Number:
    return int(text) if len(text) < 20 else _Number(text)


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found


def _shown(value: Any) -> str:
    return repr(value)[:80]


def _members(value: Any, what: str, required: tuple[str, ...]) -> dict[str, Any]:
    """The object, which has all of `required`; others may be there."""
    if not isinstance(value, dict):
        raise Unreadable("missing", f"{what} is {_shown(value)}, not an object")
    if missing := [name for name in required if name not in value]:
        raise Unreadable("missing", f"{what} has no {', '.join(missing)}; needed: {', '.join(required)}")
    return value


def _topic(topic: Any) -> tuple[str, int]:
    """Symbol and depth. A symbol is any printable text without quote and backslash: the compiled parser compares its bytes."""
    parts = _TOPIC.fullmatch(topic) if isinstance(topic, str) else None
    if parts is None or not parts[2].isprintable() or re.search(r'[\s"\\/]', parts[2]) or int(parts[1] or 0) > MAX_DEPTH:
        raise Unreadable("topic", f"topic is {_shown(topic)}; expected orderbook.<depth>.<symbol>")
    return parts[2], int(parts[1] or 0)


def _number(members: dict[str, Any], name: str, most: int, reason: str) -> int:
    """A JSON integer of 0 or more; -1 (NO_TIME, NO_ID) where it is not told, which `ts` must be."""
    value = members.get(name)
    if value is None and name != "ts":
        return NO_ID
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise Unreadable(reason, f"{name} is {_shown(value)}; expected an integer from 0 to {most:,}")
    return value


def _add_levels(message: Message, name: str, side: int, levels: Any) -> None:
    if not isinstance(levels, list):
        raise Unreadable("levels", f"{name} is {_shown(levels)}, not a list")
    for level in levels:
        if not isinstance(level, list) or len(level) not in (2, 3) or not all(isinstance(part, str) for part in level):
            raise Unreadable("levels", f"a level of {name} is {_shown(level)}; expected two or three decimal strings")
        price, price_digits = _decimal(level[0], "price")
        size, size_digits = _decimal(level[1], "size")
        if size < 0:
            raise Unreadable("size", f"size is {_shown(level[1])}; it cannot be negative")
        for third in level[2:]:
            _decimal(third, "size")
            message.thirds += 1
        message.levels.append((side, price, size, price_digits, size_digits))


def _decimal(text: str, reason: str) -> tuple[int, int]:
    """(value in units of 10^-digits, digits): digits as written, fewer where trailing zeros would not fit."""
    parts = _DECIMAL.fullmatch(text) if len(text) <= MAX_DECIMAL else None
    if parts is None:
        raise Unreadable(reason, f"{reason} is {_shown(text)}, no decimal number")
    sign, whole, fraction, exponent = parts.groups(default="")
    value, digits = int(whole + fraction), len(fraction) - int(exponent or 0)
    if value == 0:
        return 0, min(max(digits, 0), MAX_DIGITS)
    if digits < 0:
        value, digits = value * 10**-digits, 0
    while digits > 0 and (digits > MAX_DIGITS or value > I64_MAX) and value % 10 == 0:
        value, digits = value // 10, digits - 1
    if digits > MAX_DIGITS or value > I64_MAX:
        raise Unreadable(reason, f"{reason} is {_shown(text)}; at most {MAX_DIGITS} decimals and {I64_MAX:,} in units of the last one can be held")
    return (-value if sign == "-" else value), digits
