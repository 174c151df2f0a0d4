"""What the replay tells beside the levels, one record at a time: status with reason and start, gaps, halts, fills, snapshots compared.

Twin of the rules in tasks/reconstruction/replay_kernels.py and snapshot_truth.py; the levels themselves are those of naive_book.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.schemas import F_LAST, F_MAYBE_BAD_BOOK, F_SNAPSHOT, UNDEF_PRICE
from tests.oracles.naive_book import NaiveBook

Levels = tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]


class NaiveAccount:
    """A NaiveBook with everything that is told about it.

    shown: (status, reason) after the last complete event, since: clock time from which on they have been so; counts: how often each thing was seen;
    fills, snapshots: one bool per comparison; suspects: the same of snapshots that met a suspect book; moved: whether the last record made an
    anomaly of a valid book, its counter's name, else "".
    """

    def __init__(self, depth: int = 10, *, starts_empty: bool = False, contiguous: bool = False, halts: bool = False) -> None:
        self.book = NaiveBook(depth, starts_empty)
        self.contiguous, self.halts = contiguous, halts
        self.shown, self.since = (self.book.status, self.book.reason), -1
        self.counts = dict.fromkeys(("gap", "halts", "maybe_bad_book", "quarantined_before", "snapshots", "crossed", "locked", "crossed_halted"), 0)
        self.fill_counts = dict.fromkeys(("fills_elsewhere", "fills_beyond", "fills_unresting"), 0)
        self.fills: list[bool] = []
        self.snapshots: list[bool] = []
        self.suspects: list[bool] = []
        self.moved = ""
        self._last_sequence: int | None = None
        self._state = 1  # price of the last record of the trading state: -1 halted, 0 quoting only, 1 trading
        self._nothing_yet, self._inside, self._started = True, False, False
        self._before: tuple[str, Levels] | None = None

    def apply(self, record: np.void, now: int, set_aside: int = 0) -> None:
        """Apply one record at clock time `now`, before which `set_aside` rows were quarantined."""
        action, side = chr(int(record["action"])), chr(int(record["side"]))
        flags, price, sequence = int(record["flags"]), int(record["price"]), int(record["sequence"])
        snapshot = bool(flags & F_SNAPSHOT)
        if self.since < 0:
            self.since = now
        self._leave_snapshot(snapshot, action, set_aside > 0)
        self.moved = ""
        if set_aside:
            self.counts["quarantined_before"] += set_aside
            self.book.set_aside()
        if action == "F" and self.book.status == "valid" and int(record["order_id"]):
            self._fill(side, price, int(record["size"]), int(record["order_id"]))
        was, counted = self.book.status, dict(self.book.counters)
        if self.contiguous and not snapshot:
            if self._last_sequence is not None and sequence - self._last_sequence not in (0, 1):
                self.counts["gap"] += 1
                self.book._suspect("gap")
                self.moved = "gap" if was == "valid" else ""
            self._last_sequence = sequence
        if self.halts and action == "N" and price != UNDEF_PRICE:
            self.counts["halts"] += 1
            self._state = (price > 0) - (price < 0)
        if snapshot and not self._inside:
            self.counts["snapshots"] += 1
        was = self.book.status
        self.book.apply(record)
        if flags & F_MAYBE_BAD_BOOK:
            self.counts["maybe_bad_book"] += 1
        if was == "valid" and self.book.status == "suspect" and not self.moved:
            new = [name for name, count in self.book.counters.items() if count > counted[name]]
            self.moved = new[0] if new else "maybe_bad_book"
        if flags & F_LAST:
            self._event_end(now)
        self._end_snapshot(snapshot, flags)
        self._inside, self._nothing_yet = snapshot, self._nothing_yet and action in "RN"

    def _event_end(self, now: int) -> None:
        bids, asks = self.levels()
        if bids and asks and bids[0][0] >= asks[0][0]:
            self.counts["crossed_halted" if self._state != 1 else "crossed" if bids[0][0] > asks[0][0] else "locked"] += 1
        state = (self.book.status, self.book.reason)
        if state[0] == "valid" and self._state != 1:
            state = ("halted", "halt")
        if state != self.shown:
            self.shown, self.since = state, now

    def levels(self) -> Levels:
        """Both sides, all levels."""
        return self.book.levels("B"), self.book.levels("A")

    def _fill(self, side: str, price: int, size: int, order_id: int) -> None:
        resting = self.book.orders.get(order_id)
        if resting is None:
            if side in "AB":
                self.fills.append(False)
            else:
                self.fill_counts["fills_unresting"] += 1
            return
        self.fill_counts["fills_beyond"] += size > resting[2]
        self.fill_counts["fills_elsewhere"] += price != resting[1]
        self.fills.append(side not in "AB" or side == resting[0])

    def _leave_snapshot(self, snapshot: bool, action: str, set_aside: bool) -> None:
        """Before a record: a snapshot without its LAST ends here, one that a clear follows was given up, and a new one may begin."""
        if self._inside and not snapshot:
            if action == "R" or (set_aside and self.book.incomplete):
                self._started = False
            else:
                self._compare()
        if snapshot and (not self._inside or action == "R"):
            known = not self._nothing_yet and self.book.status in ("valid", "suspect")
            self._before, self._started = ("suspect" if set_aside else self.book.status, self.levels()) if known else None, True

    def _end_snapshot(self, snapshot: bool, flags: int) -> None:
        if snapshot and flags & F_LAST:
            self._compare()

    def _compare(self) -> None:
        if self._started and self._before is not None and not self.book.holed:
            status, before = self._before
            (self.suspects if status == "suspect" else self.snapshots).append(before == self.levels())
        self._started = False


def facts_of(account: NaiveAccount) -> dict[str, Any]:
    """All counts in the names of the replay's counters."""
    return {**account.counts, **account.book.counters, **account.fill_counts}
