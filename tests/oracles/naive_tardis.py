"""Slow, obvious twins of tasks/scanning/tardis_*.py: csv and Decimal, a line at a time; and the book that Tardis's rules give, a row at a time."""

from __future__ import annotations

import csv
import re
from decimal import Decimal, localcontext

from tasks.schemas import UNDEF_PRICE
from tests.oracles.naive_csv import FIELD, Bad, lines

LARGEST = 2**63 - 2
HEAD = ("timestamp", "local_timestamp")
L2 = (*HEAD, "is_snapshot", "side", "price", "amount")
TRADES = (*HEAD, "id", "side", "price", "amount")
QUOTES = (*HEAD, "bid_price", "bid_amount", "ask_price", "ask_amount")


def decimal(text: str, reason: str) -> tuple[int, int]:
    """(value, digits) with value * 10^-digits the number; as many decimals as are written, fewer where trailing zeros do not fit."""
    parts = re.fullmatch(r"-?(?:\d+\.?(\d*)|\.(\d+))(?:[eE]([+-]?\d+))?", text, re.ASCII)
    if not parts:
        raise Bad(reason)
    power = min(max(int(parts[3] or 0), -1_000_000), 1_000_000)
    written = min(max(len(parts[1] or parts[2] or "") - power, 0), 18)
    with localcontext(prec=5_000):
        mantissa = Decimal(re.split("[eE]", text)[0])
        if mantissa == 0:
            return 0, written
        _, figures, lowest = mantissa.normalize().as_tuple()
    kept, lowest = int("".join(map(str, figures))), int(lowest) + power
    if kept > LARGEST:
        raise Bad("overflow")
    if lowest < -18:
        raise Bad("digits")
    for digits in range(written, max(-lowest, 0) - 1, -1):
        if lowest + digits < 20 and kept * 10 ** (lowest + digits) <= LARGEST:
            return kept * 10 ** (lowest + digits) * (-1 if mantissa < 0 else 1), digits
    raise Bad("overflow")


def time_ns(text: str) -> int:
    """Microseconds to ns."""
    if not re.fullmatch(r"\d+", text, re.ASCII):
        raise Bad("time")
    if int(text) * 1_000 > 2**63 - 1:
        raise Bad("overflow")
    return int(text) * 1_000


def value(name: str, text: str, trades: bool):
    """Value of a cell: a number, (value, digits), or None for an empty price or amount of a book or quote."""
    if name in HEAD:
        return time_ns(text)
    if name == "is_snapshot":
        if text.lower() not in ("0", "1", "true", "false"):
            raise Bad(name)
        return text.lower() in ("1", "true")
    if name == "side":
        known = {"buy": "B", "sell": "A", "unknown": "N", "": "N"} if trades else {"bid": 0, "ask": 1}
        if text not in known:
            raise Bad(name)
        return known[text]
    if name == "id":
        return text
    if text == "" and name not in ("price", "amount"):
        return None
    number = decimal(text, "price" if name.endswith("price") else "integer")
    if name.endswith("amount") and number[0] < 0:
        raise Bad("size_negative")
    return number


def rows(data: bytes, symbol: str, wanted: tuple[str, ...]) -> list[tuple]:
    """Lines of one symbol: (row, offset, values by name) or (row, offset, None, raw, reason, local time or None); bad ones of no known symbol too."""
    start = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    (_, header), *rest = [(offset + start, line) for offset, line in lines(data[start:])]
    names = next(csv.reader([header.decode()]))
    found: list[tuple] = []
    for row, (offset, line) in enumerate(rest):
        text, time = line.decode("latin-1"), None
        try:
            by_name = cells(text, names)
            if by_name["symbol"] != symbol:
                continue
            local = by_name["local_timestamp"]
            time = int(local) * 1_000 if re.fullmatch(r"\d+", local, re.ASCII) and int(local) * 1_000 < 2**63 else None
            values = {name: value(name, by_name[name], "id" in names) for name in names if name in wanted}
            check_halves(values)
        except Bad as fault:
            found.append((row, offset, None, line, fault.args[0], time))
            continue
        found.append((row, offset, values))
    return found


def cells(text: str, names: list[str]) -> dict[str, str]:
    """Cells of a line by column."""
    if re.fullmatch(f"{FIELD}(,{FIELD})*", text, re.DOTALL) is None:
        raise Bad("quote")
    found = next(csv.reader([text], strict=True))
    if len(found) != len(names):
        raise Bad("columns")
    return dict(zip(names, found, strict=True))


def check_halves(values: dict) -> None:
    """A price needs an amount; an amount other than 0 needs a price."""
    for name in values:
        if name.endswith("price") and name != "price":
            price, amount = values[name], values[name.removesuffix("price") + "amount"]
            if (price is None) != (amount is None) and (amount is None or amount[0] > 0):
                raise Bad("orderbook")


def l2(data: bytes, symbol: str) -> tuple[list[tuple], list[tuple], int, int]:
    """Messages (kind, ts, cts, row, offset, updates), bad rows (messages before, row, offset, raw, reason), rows skipped, rows discarded."""
    messages: list[list] = []  # kind, ts, cts, row, offset, updates, whether its first row resets the book
    waiting: list[tuple] = []  # bad rows since the last good one that counts
    placed: list[tuple] = []  # (owner or None, messages before, bad row)
    skipped = discarded = 0
    last: tuple | None = None
    for entry in rows(data, symbol, L2):
        if entry[2] is None:
            waiting.append(entry)
            continue
        row, offset, v = entry
        flag, ts = v["is_snapshot"], v["local_timestamp"]
        if last is None and not flag:
            skipped += 1
            continue
        resets = flag and (last is None or not last[0] or last[1] != ts)
        last = (flag, ts)
        if messages and messages[-1][1] == ts:
            placed += [(len(messages) - 1, None, bad) for bad in waiting]
            if resets:
                discarded += len(messages[-1][5])
                messages[-1][0], messages[-1][5] = 0, []
        else:
            place(waiting, messages, ts, resets, placed)
            messages.append([0 if resets else 1, ts, None, row, offset, [], resets])
        waiting = []
        messages[-1][2] = v["timestamp"]
        messages[-1][5].append((v["side"], *v["price"], *v["amount"]))
    place(waiting, messages, None, False, placed)
    bad = []
    for owner, before, (row, offset, _, raw, reason, _) in placed:
        spoiled = before if owner is None else owner + (owner == len(messages) or messages[owner][0] == 0)
        bad.append((spoiled, row, offset, raw, reason))
    return [tuple(message[:6]) for message in messages], bad, skipped, discarded


def place(waiting: list[tuple], messages: list[list], ts: int | None, resets: bool, placed: list[tuple]) -> None:
    """Say whose the bad rows between two messages are: the earlier one's first, then nobody's, then the later one's."""
    n, phase = len(messages), 0
    for bad in waiting:
        time = bad[5]
        earlier = bool(messages) and (time == messages[-1][1] or (time is None and not resets))
        later = ts is not None and (time == ts or (time is None and resets))
        phase = max(phase, 0 if earlier else 2 if later else 1)
        placed.append(((n - 1, None, bad), (None, n, bad), (n, None, bad))[phase])


def books_by_time(data: bytes, symbol: str) -> dict[int, dict]:
    """The book {(side, price as Decimal): amount} after all rows of each local time (the last run of it), by the rules as Tardis tells them."""
    book: dict = {}
    after: dict[int, dict] = {}
    was: tuple | None = None
    for _, _, v, *_ in rows(data, symbol, L2):
        if v is None or (was is None and not v["is_snapshot"]):
            continue
        if v["is_snapshot"] and (was is None or not was[0] or was[1] != v["local_timestamp"]):
            book = {}
        was = (v["is_snapshot"], v["local_timestamp"])
        key = (v["side"], number(*v["price"]))
        book.pop(key, None)
        if v["amount"][0]:
            book[key] = number(*v["amount"])
        after[v["local_timestamp"]] = dict(book)
    return after


def number(scaled: int, digits: int) -> Decimal:
    """Exact value."""
    return Decimal(scaled).scaleb(-digits)


def snapshots(data: bytes, symbol: str, depth: int) -> tuple[list[tuple], list[tuple]]:
    """Books (ts, cts, row, offset, levels as (side, price, digits, amount, digits)), and bad rows."""
    names = [[f"{side}[{level}].{what}" for what in ("price", "amount")] for side in ("bids", "asks") for level in range(depth)]
    found, bad = tables(data, symbol, (*HEAD, *(name for pair in names for name in pair)))
    books = []
    for row, offset, v in found:
        levels = []
        for price, amount in names:
            if v[price] is not None and v[amount][0]:
                levels.append((int(price.startswith("asks")), *v[price], *v[amount]))
        books.append((v["local_timestamp"], v["timestamp"], row, offset, levels))
    return books, bad


def tables(data: bytes, symbol: str, wanted: tuple[str, ...]) -> tuple[list[tuple], list[tuple]]:
    """Good rows (row, offset, values), bad rows (good rows before, row, offset, raw, reason)."""
    good: list[tuple] = []
    bad: list[tuple] = []
    for entry in rows(data, symbol, wanted):
        if entry[2] is None:
            bad.append((len(good), *entry[:2], *entry[3:5]))
        else:
            good.append(entry)
    return good, bad


def quote(v: dict) -> list[tuple[int, int]]:
    """(value, digits) of bid price, bid amount, ask price and ask amount; UNDEF_PRICE and 0 where a side is empty."""
    sides = []
    for side in ("bid", "ask"):
        price, amount = v[f"{side}_price"], v[f"{side}_amount"]
        sides += [(UNDEF_PRICE, 0), (0, 0)] if price is None else [price, amount]
    return sides
