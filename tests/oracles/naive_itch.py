"""ITCH 5.0 one message at a time with struct, dicts and lists: the slow twin of tasks/scanning/itch_*kernels.py, and a book by ITCH's own rules.

`decode` makes the events that the reader should make. `Book` never sees an event: it applies the messages themselves, a second way to the same book.
"""

from __future__ import annotations

import struct
from datetime import datetime
from zoneinfo import ZoneInfo

UNDEF = 2**63 - 1
LAST = 128
LENGTHS = {
    "S": 12, "R": 39, "H": 25, "Y": 20, "L": 26, "V": 35, "W": 12, "K": 28, "J": 35, "h": 21, "A": 36, "F": 40, "E": 31, "C": 36, "X": 23, "D": 19,
    "U": 35, "P": 44, "Q": 40, "B": 19, "I": 50, "N": 20, "O": 48,
}  # fmt: skip
BOOK = set("RHAFECXDUPQB")
LOST = 8
OPPOSITE = {"B": "A", "A": "B"}
SIDES = {b"B": "B", b"S": "A"}


class Decoder:
    """events: (row, symbol, ts, locate, sequence, action, side, price, size, order id, flags); bad: (events before, row, offset, bytes, reason);
    counts: whole messages by type; error: ("lost", offset) or ("cut", offset) where the file breaks, else None.
    """

    def __init__(self, data: bytes, day: str) -> None:
        midnight = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo("America/New_York"))
        self.midnight = int(midnight.timestamp()) * 10**9
        self.events: list[tuple] = []
        self.bad: list[tuple] = []
        self.counts: dict[str, int] = {}
        self.error: tuple[str, int] | None = None
        self.rows = self.unknown = 0
        self.orders: dict[int, tuple[int, str, int, int]] = {}  # reference -> locate, side, price 1e-9, shares
        self.names: dict[int, str] = {}
        self.met: set[int] = set()
        self._walk(data)

    def _walk(self, data: bytes) -> None:
        at, run, self.number = 0, [], 0
        while at < len(data):
            frame = data[at : at + 2]
            if len(frame) == 2:
                length = struct.unpack(">H", frame)[0]
                frame = data[at : at + 2 + length]
            if frame == b"\0\0" and at + 2 == len(data):
                return
            if len(frame) < 2 or len(frame) < 2 + length:
                self._cut(frame, at)
                return
            kind = chr(frame[2]) if length else ""
            self.number += 1
            if LENGTHS.get(kind) == length:
                run = []
                self.counts[kind] = self.counts.get(kind, 0) + 1
                if kind in BOOK:
                    before = len(self.events)
                    reason = self._message(kind, frame[2:])
                    if reason:
                        assert len(self.events) == before
                        self.bad.append((before, self.rows, at, frame, reason))
                    self.rows += 1
            else:
                known = kind in LENGTHS or not length
                if known or not (kind.isascii() and kind.isalpha()) or not 11 <= length <= 255:
                    run.append(at)
                    if len(run) == LOST:
                        self.error = ("lost", run[0])
                        return
                self.bad.append((len(self.events), self.rows, at, frame, "length" if known else "message_type"))
                self.rows += 1
            at += 2 + length

    def _cut(self, frame: bytes, at: int) -> None:
        length = int.from_bytes(frame[:2], "big")
        kind = chr(frame[2]) if len(frame) > 2 else ""
        fits = length == LENGTHS[kind] if kind in LENGTHS else 11 <= length <= 255 and (not kind or (kind.isascii() and kind.isalpha()))
        if len(frame) == 1 or fits:
            self.bad.append((len(self.events), self.rows, at, frame, "truncated"))
            self.rows += 1
        else:
            self.error = ("cut", at)

    def _message(self, kind: str, m: bytes) -> str:
        """Apply one whole message; the reason when it is bad, else ""."""
        _, locate, _, high, low = struct.unpack(">cHHHI", m[:11])
        time, body = high << 32 | low, m[11:]
        if kind in "AFECXDU":
            self.met.add(locate)
        if time >= 86_400 * 10**9:
            return "time_range"
        at = {"A": 13, "F": 13, "P": 13, "R": 0, "H": 0, "Q": 8}.get(kind)
        if at is not None:
            stock = body[at : at + 8]
            if stock[:1] == b" " or any(c < 32 or c > 126 for c in stock):
                return "stock"
            self.names[locate] = stock.decode().rstrip(" ")
        made = self._events(kind, locate, body)
        if isinstance(made, str):
            return made
        symbol = self.names.setdefault(locate, f"locate-{locate}")
        for k, (action, side, price, size, order_id) in enumerate(made):
            flags = LAST if k == len(made) - 1 else 0
            number = self.number % 2**32
            self.events.append((self.rows, symbol, self.midnight + time, locate, number, action, side, price, size, order_id, flags))
        return ""

    def _events(self, kind: str, locate: int, body: bytes) -> list[tuple] | str:
        if kind == "R":
            first = locate not in self.met
            self.met.add(locate)
            return [("R" if first else "N", "N", UNDEF, 0, 0)]
        if kind == "H":
            price = {b"H": -(10**9), b"P": -(10**9), b"Q": 0, b"T": 10**9}.get(body[8:9])
            return "trading_state" if price is None else [("N", "N", price, 0, 0)]
        if kind in "AF":
            reference, letter, shares, _, price = struct.unpack(">QcI8sI", body[:25])
            if letter not in SIDES:
                return "side"
            self.orders[reference] = (locate, SIDES[letter], price * 10**5, shares)
            return [("A", SIDES[letter], price * 10**5, shares, reference)]
        if kind == "P":
            _, letter, shares, _, price, match = struct.unpack(">QcI8sIQ", body)
            return "side" if letter not in SIDES else [("T", "N", price * 10**5, shares, match)]
        if kind == "Q":
            shares, _, price, match, _ = struct.unpack(">Q8sIQc", body)
            if shares >= 2**32:
                return "size_range"
            return [("T", "N", price * 10**5, shares, match) if shares else ("N", "N", UNDEF, 0, match)]
        if kind == "B":
            return [("N", "N", UNDEF, 0, struct.unpack(">Q", body)[0])]
        return self._resting(kind, locate, body)

    def _resting(self, kind: str, locate: int, body: bytes) -> list[tuple] | str:
        reference = struct.unpack(">Q", body[:8])[0]
        shares, match, printable, own = 0, 0, b"Y", 0
        if kind == "E":
            shares, match = struct.unpack(">IQ", body[8:])
        elif kind == "C":
            shares, match, printable, own = struct.unpack(">IQcI", body[8:])
            if printable not in (b"Y", b"N"):
                return "printable"
        elif kind == "X":
            shares = struct.unpack(">I", body[8:])[0]
        if reference not in self.orders:
            self.unknown += 1
            prints = [("T", "N", own * 10**5, shares, match)] if kind == "C" and printable == b"Y" else []
            return [*prints, ("C", "N", UNDEF, shares, reference)]
        at, side, price, left = self.orders[reference]
        if at != locate:
            return "locate"
        if kind in "DU":
            shares = left
        del self.orders[reference]
        if shares < left:
            self.orders[reference] = (locate, side, price, left - shares)
        events: list[tuple] = []
        if kind == "E" or (kind == "C" and printable == b"Y"):
            events.append(("T", OPPOSITE[side], own * 10**5 if kind == "C" else price, shares, match))
        if kind in "EC":
            events.append(("F", side, price, shares, reference))
        events.append(("C", side, price, shares, reference))
        if kind == "U":
            _, new, shares, price = struct.unpack(">QQII", body)
            self.orders[new] = (locate, side, price * 10**5, shares)
            events.append(("A", side, price * 10**5, shares, new))
        return events


class Book:
    """All books of a day, from the messages as tuples (type, locate, time, fields). No event is made on the way.

    orders: reference -> [locate, buy, price 1e-4, shares]; queues: (locate, buy, price) -> references, first in first.
    """

    def __init__(self) -> None:
        self.orders: dict[int, list] = {}
        self.queues: dict[tuple, list[int]] = {}

    def apply(self, message: tuple) -> None:
        """One message."""
        kind, locate, _, *fields = message
        if kind in "AF":
            self._rest(fields[0], locate, fields[1] == b"B", fields[4], fields[2])
        elif kind in "ECX":
            self.orders[fields[0]][3] -= fields[1]
            if self.orders[fields[0]][3] <= 0:
                self._leave(fields[0])
        elif kind == "D":
            self._leave(fields[0])
        elif kind == "U":
            _, buy, _, _ = self._leave(fields[0])
            self._rest(fields[1], locate, buy, fields[3], fields[2])

    def _rest(self, reference: int, locate: int, buy: bool, price: int, shares: int) -> None:
        self.orders[reference] = [locate, buy, price, shares]
        self.queues.setdefault((locate, buy, price), []).append(reference)

    def _leave(self, reference: int) -> list:
        order = self.orders.pop(reference)
        self.queues[order[0], order[1], order[2]].remove(reference)
        return order

    def levels(self, locate: int, buy: bool) -> list[tuple[int, int, int]]:
        """(price 1e-9, shares, orders) from the touch outwards."""
        mine = sorted((price, refs) for (at, side, price), refs in self.queues.items() if (at, side) == (locate, buy) and refs)
        return [(price * 10**5, sum(self.orders[r][3] for r in refs), len(refs)) for price, refs in (reversed(mine) if buy else mine)]
