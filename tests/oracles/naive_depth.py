"""The rules of a price-level book, slow and obvious: two dicts, one message at a time, and a list of all that was ever told.

Twin of tasks/reconstruction/depth_*_kernels.py. A row of the grid is looked up in that list, by time; nothing is written on the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from tasks.depth_batches import NO_ID, NO_TIME, SNAPSHOT
from tasks.schemas import UNDEF_PRICE

COUNTS = (
    "messages", "snapshots", "restarts", "restart_deltas", "stale_ids", "gaps", "skipped", "quarantined", "updates", "absent_deletes", "pruned",
    "event_ends", "crossed", "locked", "suspect_compared", "suspect_matched", "apart_compared", "apart_matched", "apart_levels_compared",
    "apart_levels_matched", "apart_ms_longest",
)  # fmt: skip
EMPTY = (UNDEF_PRICE, 0, 0, 0)


class Update(NamedTuple):
    """side BID or ASK; price and size in units of 10^-price_digits and 10^-size_digits, as written."""

    side: int
    price: int
    size: int
    price_digits: int
    size_digits: int


class Message(NamedTuple):
    """One message of a feed, times in ns, as in DepthBatch."""

    kind: int
    ts: int
    cts: int
    update_id: int
    sequence: int
    updates: tuple[Update, ...]


# An item of a feed: a message, or None for a line that could not be read.
Item = Message | None
Level = tuple[int, int, int, int]  # price and size at the scale, digits of both as written


class Told(NamedTuple):
    """What is known from clock time `at` on. levels: bids and asks, best first."""

    at: int
    as_of: int
    update_id: int
    sequence: int
    status: str
    reason: str
    since: int
    levels: tuple[list[Level], list[Level]]


class Compared(NamedTuple):
    """A snapshot held against the book before it: whether all levels are equal, how many either has, how many are equal."""

    at: int
    good: bool
    levels: int
    matched: int


class NaiveDepth:
    """One book. told: everything that rows can tell, oldest first; touches: rows of the touch; compared: snapshots that follow a valid book without
    a break; wrong: spans in which it was not what the snapshot says; good: time of the last snapshot, -1 for none."""

    def __init__(self, *, keep: int, price_digits: int, size_digits: int, clock: str = "cts", windows: Sequence[tuple[int, int]] = ()) -> None:
        self.keep, self.digits, self.clock, self.windows = keep, (price_digits, size_digits), clock, windows
        self.sides: tuple[dict[int, Level], dict[int, Level]] = ({}, {})
        self.status, self.reason, self.last_id, self.now, self.since, self.as_of = "no_book", "no_snapshot", NO_ID, 0, -1, -1
        self.of_last = (NO_ID, NO_ID)
        self.counts = dict.fromkeys(COUNTS, 0)
        self.told: list[Told] = []
        self.touches: list[dict[str, Any]] = []
        self.compared: list[Compared] = []
        self.wrong: list[tuple[int, int]] = []
        self.good, self.bad, self._replaces = -1, 0, False
        self._shown: tuple[str, str] = ("no_book", "no_snapshot")
        self._touch: Any = None
        self._latest: Message | None = None

    def feed(self, items: Iterable[Item]) -> NaiveDepth:
        """Take the items, and then the end of the feed."""
        for item in items:
            if item is None:
                self.bad += 1
            else:
                self.take(item)
        if self.bad:
            self._doubt()
            self._tell()
            if self._latest is not None:
                self._touch_row(self._latest)
        return self

    def take(self, message: Message) -> None:
        """Take one message."""
        time = message.cts if self.clock == "cts" and message.cts != NO_TIME else message.ts
        self.now, self._latest = max(self.now, time), message
        if self.since < 0:
            self.since = self.now
        self._doubt()
        self.counts["messages"] += 1
        counts = self._counts(message)
        if counts:
            self._apply(message)
        self._tell()
        self._touch_row(message)

    def _counts(self, message: Message) -> bool:
        """Whether a message counts; its id is judged."""
        u, last = message.update_id, self.last_id
        self._replaces = message.kind == SNAPSHOT or (u == 1 and last not in (0, 1))
        if self._replaces:
            self.counts["snapshots"] += 1
            self.counts["restarts"] += u == 1 and last != NO_ID and last != 0
            self.counts["restart_deltas"] += message.kind != SNAPSHOT
            return True
        if self.status == "no_book":
            self.counts["skipped"] += 1
            return False
        if NO_ID not in (u, last):
            if u <= last:
                self.counts["stale_ids"] += 1
                return False
            if u > last + 1:
                self.counts["gaps"] += 1
                self._suspect("gap")
        return True

    def _apply(self, message: Message) -> None:
        before, status = self.levels(), self.status
        u, last = message.update_id, self.last_id
        if self._replaces:
            self.sides = ({}, {})
            self.status, self.reason = "valid", ""
        for update in message.updates:
            price = update.price * 10 ** (self.digits[0] - update.price_digits)
            size = update.size * 10 ** (self.digits[1] - update.size_digits)
            side = self.sides[update.side]
            if size:
                side[price] = (price, size, update.price_digits, update.size_digits)
            elif price in side:
                del side[price]
            else:
                self.counts["absent_deletes"] += 1
        self.counts["updates"] += len(message.updates)
        for number, levels in enumerate(self.levels()):
            for level in levels[self.keep :]:
                del self.sides[number][level[0]]
                self.counts["pruned"] += 1
        if self._replaces:
            restarts = u == 1 and last not in (NO_ID, 0)
            follows = NO_ID not in (u, last) and u in (last, last + 1) and not restarts
            self._compare(before, status, follows)
        if u != NO_ID:
            self.last_id = u
        self.counts["event_ends"] += 1
        bids, asks = self.levels()
        if bids and asks and bids[0][0] >= asks[0][0]:
            self.counts["locked" if bids[0][0] == asks[0][0] else "crossed"] += 1
        self.as_of, self.of_last = self.now, (u, message.sequence)

    def _compare(self, before: tuple[list[Level], list[Level]], status: str, follows: bool) -> None:
        levels = matched = 0
        for found, expected in zip(before, self.levels(), strict=True):
            levels += max(len(found), len(expected))
            matched += sum(one[:2] == other[:2] for one, other in zip(found, expected, strict=False))
        good = levels == matched
        if status == "suspect":
            self.counts["suspect_compared"] += 1
            self.counts["suspect_matched"] += good
        elif status == "valid" and follows:
            self.compared.append(Compared(self.now, good, levels, matched))
            if not good:
                self.wrong.append((self.good, self.now))
        elif status == "valid":
            self.counts["apart_compared"] += 1
            self.counts["apart_matched"] += good
            self.counts["apart_levels_compared"] += levels
            self.counts["apart_levels_matched"] += matched
            self.counts["apart_ms_longest"] = max(self.counts["apart_ms_longest"], (self.now - self.as_of) // 1_000_000)
        self.good = self.now

    def _doubt(self) -> None:
        """Lines before this that could not be read."""
        self.counts["quarantined"] += self.bad
        if self.bad:
            self._suspect("quarantined")
        self.bad = 0

    def _suspect(self, reason: str) -> None:
        if self.status == "valid":
            self.status, self.reason = "suspect", reason

    def levels(self) -> tuple[list[Level], list[Level]]:
        """Bids and asks, best first."""
        bids, asks = (sorted(side.values(), key=lambda level: level[0]) for side in self.sides)
        return bids[::-1], asks

    def _tell(self) -> None:
        if (self.status, self.reason) != self._shown:
            self._shown, self.since = (self.status, self.reason), self.now
        self.told.append(Told(self.now, self.as_of, *self.of_last, self.status, self.reason, self.since, self.levels()))

    def _touch_row(self, message: Message) -> None:
        if self.status == "no_book" or not self.windows or self.now >= self.windows[-1][1]:
            return
        touch = tuple((levels or [EMPTY])[0][:2] for levels in self.levels())
        if (touch, *self._shown) == self._touch:
            return
        self._touch = (touch, *self._shown)
        self.touches.append({
            "clock": self.now, "ts": message.ts, "cts": message.cts, "update_id": message.update_id, "sequence": message.sequence,
            "px": [px for px, _ in touch], "sz": [sz for _, sz in touch], "status": self.status, "reason": self.reason, "since": self.since,
        })  # fmt: skip

    def grid(self, depth: int, interval_ns: int, stale_after_ns: int | None) -> list[dict[str, Any]]:
        """The rows of all grid times of the windows; the levels as columns bid, ask, bid, ask, ... of (price, size, digits)."""
        return [
            self._row(time, depth, stale_after_ns)
            for start, end in self.windows
            for time in range(-(-start // interval_ns) * interval_ns, end, interval_ns)
        ]

    def _row(self, time: int, depth: int, stale_after_ns: int | None) -> dict[str, Any]:
        known = [told for told in self.told if told.at <= time]
        told = known[-1] if known else Told(-1, -1, NO_ID, NO_ID, "no_book", "no_snapshot", -1, ([], []))
        status, reason, since = told.status, told.reason, told.since
        if status == "valid" and stale_after_ns is not None and time - told.as_of > stale_after_ns:
            status, reason, since = "stale", "silence", told.as_of + stale_after_ns
        columns = [level for pair in zip(*((side + [EMPTY] * depth)[:depth] for side in told.levels), strict=True) for level in pair]
        return {
            "time": time, "as_of": told.as_of, "update_id": told.update_id, "sequence": told.sequence, "levels": columns,
            "status": status, "reason": reason, "since": since,
        }  # fmt: skip
