"""Slow, obvious twin of tasks/scanning/bybit*.py: json and Decimal, a line at a time."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from typing import Any

I64 = 2**63 - 1
MAX_LINE = 1 << 20


@dataclass
class Reading:
    """What a file says. messages: (line, offset, kind, ts, cts, u, seq, levels), a level (side, price, size, price digits, size digits);
    bad: (messages before, line, offset, raw); end: "", "empty" or "cut", and where it is cut."""

    topic: str = ""
    messages: list[tuple] = field(default_factory=list)
    bad: list[tuple[int, int, int, bytes]] = field(default_factory=list)
    lines: int = 0
    end: str = ""
    cut_at: int = -1

    @property
    def head(self) -> tuple[str, int]:
        """Symbol and depth; depth 0 where the topic tells none."""
        _, depth, symbol = self.topic.split(".", 2)
        return symbol, 0 if depth == "rpi" else int(depth)


class Bad(Exception):
    """The line cannot be read."""


def check(condition: Any) -> None:
    if not condition:
        raise Bad


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    check(len(dict(pairs)) == len(pairs))
    return dict(pairs)


def integer(text: str) -> int | Decimal:
    return int(text) if len(text) < 20 else Decimal(text)


def not_json(text: str) -> None:
    raise ValueError(text)


def whole_json(raw: bytes) -> Any:
    """The JSON of a line; ValueError when it is none."""
    try:
        text = raw.removeprefix(b"\xef\xbb\xbf").decode()
        return json.loads(text, parse_float=Decimal, parse_int=integer, parse_constant=not_json, object_pairs_hook=unique)
    except (RecursionError, Bad) as fault:
        raise ValueError(fault) from None


def number(value: Any, most: int) -> int:
    if value is None:
        return -1
    check(type(value) is int and 0 <= value <= most)
    return value


def decimal(text: Any) -> tuple[int, int]:
    """(value, digits): the most digits, up to those written, in which it is a whole number that fits."""
    check(isinstance(text, str) and len(text) <= 64 and re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,4})?", text))
    with localcontext(prec=30_000):
        number = Decimal(text)
        for digits in range(min(18, max(0, -number.as_tuple().exponent)), -1, -1):
            value = number * 10**digits
            if value == value.to_integral_value() and abs(value) <= I64:
                return int(value), digits
    raise Bad


def message(raw: bytes, topic: str) -> tuple[str, tuple]:
    """Topic and (kind, ts, cts, u, seq, levels) of a line; topic: that of the lines before, or "". Raises Bad."""
    check(len(raw) <= MAX_LINE)
    try:
        line = whole_json(raw)
        symbol = re.fullmatch(r"orderbook\.(?:0|[1-9]\d{0,4}|100000|rpi)\.(.+)", line["topic"], re.ASCII)[1]
        data = line["data"]
        bids, asks, kind = data["b"], data["a"], line["type"]
        check(type(line["ts"]) is int)
        check(data.get("s") in (symbol, None))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise Bad from None
    check(symbol.isprintable() and not set(symbol) & set(' "\\/'))
    check(topic in ("", line["topic"]))
    check(kind in ("snapshot", "delta"))
    check(isinstance(bids, list) and isinstance(asks, list))
    levels = []
    for name in sorted("ba", key=list(data).index):
        side, given = (0, bids) if name == "b" else (1, asks)
        for level in given:
            check(isinstance(level, list) and 2 <= len(level) <= 3)
            (price, price_digits), (size, size_digits), *_ = map(decimal, level)
            check(size >= 0)
            levels.append((side, price, size, price_digits, size_digits))
    times = [number(line.get(name), I64 // 10**6) for name in ("ts", "cts")]
    ids = [number(data.get(name), I64) for name in ("u", "seq")]
    return line["topic"], (["snapshot", "delta"].index(kind), *(-1 if t < 0 else t * 10**6 for t in times), *ids, levels)


def read(data: bytes) -> Reading:
    """The whole of a file's decompressed bytes."""
    found, offset = Reading(), 0
    lines = data.split(b"\n")
    for k, raw in enumerate(lines):
        if raw.strip(b" \t\r") or len(raw) > MAX_LINE:
            try:
                topic, told = message(raw, found.topic)
                kind, ts, cts, u, seq, levels = told
                found.messages.append((found.lines, offset, kind, ts, cts, u, seq, levels))
                found.topic = topic
            except Bad:
                if k == len(lines) - 1 and len(raw) <= MAX_LINE and not _is_json(raw):
                    found.end, found.cut_at = "cut", offset
                    break
                found.bad.append((len(found.messages), found.lines, offset, raw[:MAX_LINE]))
            found.lines += 1
        offset += len(raw) + 1
    if not found.lines and not found.end:
        found.end = "empty"
    return found


def _is_json(raw: bytes) -> bool:
    try:
        whole_json(raw)
    except ValueError:
        return False
    return True
