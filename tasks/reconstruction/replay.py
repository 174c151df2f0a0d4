"""`Replay`: feeds batches of event columns to the kernels and hands out the samples; knows nothing of files. Plain Python, no Prefect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from tasks.errors import BookBroken, BookError
from tasks.reconstruction.audit_kernels import audit
from tasks.reconstruction.book import OrderBook, from_day_before
from tasks.reconstruction.book_kernels import (
    ANOMALY,
    C_QUARANTINED,
    COUNTERS,
    HOLED,
    IN_SNAPSHOT,
    INCOMPLETE,
    LEVELS,
    LIVE,
    R_QUARANTINED,
    REASON,
    STATUS,
)
from tasks.reconstruction.proof_kernels import DIFFERENCE_SIZE, Proof, new_proof
from tasks.reconstruction.replay_kernels import BOOK_BROKEN, BOOK_ERROR, BOOK_FULL, GRID_FULL, Batch, Proofs, Rules, replay
from tasks.reconstruction.sample_kernels import T_AS_OF, T_NOW, T_REASON, T_SEQUENCE, T_SINCE, T_STATUS
from tasks.reconstruction.sampling import Samples, Sampling
from tasks.reconstruction.snapshot_truth import SnapshotTruth
from tasks.schemas import F_LAST, F_SNAPSHOT, REASONS, STATUSES, SUSPECT, VALID

AUDIT_EVERY = 65_536
_BROKEN = "a level of the book is not the sum of its orders. This is a fault of Bookmill or of the machine's memory: please report it with the file."
_NO_MARKS = np.zeros(0, np.int64)
# A record before which the kernel pauses, and what is done there with its place.
Stop = tuple[int, Callable[[int], Iterator[Samples] | None] | None]


class Replay(Sampling):
    """Order-by-order replay of one book, batch by batch.

    depth: levels of each row; interval_ns: grid; clock: "ts_recv" or "ts_event"; strict: raise BookError at the first anomaly of a valid
    book; every_record: treat each record as an event end; contiguous: the source has every sequence number, a missing one is a gap;
    halts: N records with price -1, 0, 1 tell the trading state; stale_after_ns, grid_windows: see Sampling; audit_every: event ends after which every
    level touched is held against its orders (a negative or orphaned level is seen at once); checkpoint_every: after so many records
    `on_checkpoint` is called with the number of records of the batch applied by then, always after a complete event. `book` is the OrderBook
    and stays readable between batches.
    """

    def __init__(
        self,
        *,
        depth: int = 10,
        interval_ns: int = 1_000_000_000,
        clock: str = "ts_recv",
        windows: Sequence[tuple[int, int]] | None = None,
        starts_empty: bool = False,
        strict: bool = False,
        every_record: bool = False,
        contiguous: bool = False,
        halts: bool = False,
        stale_after_ns: int | None = None,
        grid_windows: Sequence[tuple[int, int]] | None = None,
        batch_rows: int = 65_536,
        audit_every: int = AUDIT_EVERY,
        checkpoint_every: int = 0,
        on_checkpoint: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__(depth, interval_ns, windows, batch_rows, starts_empty, stale_after_ns, grid_windows)
        self.book = OrderBook(starts_empty=starts_empty)
        self._clock_name, self._rules = clock, Rules(strict, every_record, contiguous, halts, audit_every)
        self.proofs = Proofs(new_proof(), new_proof(), np.zeros(DIFFERENCE_SIZE, np.int64))
        self.snapshots = SnapshotTruth()
        self._in_snapshot, self._marks = False, _NO_MARKS
        self._checkpoint_every, self._on_checkpoint, self._unsaved = checkpoint_every, on_checkpoint, 0
        self._rank = np.zeros(batch_rows, np.int32)
        self.events_seen = 0

    def feed(self, columns: dict[str, np.ndarray], marks: np.ndarray = _NO_MARKS) -> Iterator[Samples]:
        """Apply one batch of event columns (n <= batch_rows). marks int64[m]: rows of the batch before which a row was quarantined.

        Raises BookError (strict only), naming order, sequence and what to do.
        """
        n = len(columns["price"])
        if n == 0:
            return
        self._marks = marks
        running = self.start(columns, self._clock_name)
        assert self.windows is not None
        rank = self._rank[:n]
        self.book.ranks(columns["price"], rank)
        batch = Batch(
            action=columns["action"], side=columns["side"], flags=columns["flags"], rank=rank, size=columns["size"],
            order_id=columns["order_id"], clock=running, sequence=columns["sequence"], marks=marks,
        )  # fmt: skip
        events = {**columns, "clock": running, "fresh": self.fresh(columns["flags"])}
        at = 0
        opening: list[Stop] = [(stop, partial(self._opens, start, events)) for stop, start in self.windows_opening(running)]
        for stop, reach in self._stops(columns, n, opening):
            while at < stop:
                code, at = replay(
                    batch, at, stop, self.book.arrays, self.clock, self.top, self.rows, self.bbo, self.grid, self.trades,
                    self.windows, self.depth, self._rules, self.proofs,
                )  # fmt: skip
                if code == BOOK_FULL:
                    self.book.grow_pool()
                elif code == GRID_FULL:
                    yield self.take(events)
                elif code == BOOK_ERROR:
                    raise BookError(self._explain(columns, at))
                elif code == BOOK_BROKEN:
                    raise BookBroken(self._explain_broken(columns, at))
            if reach is not None:
                yield from reach(stop) or ()
        self.events_seen += n
        yield self.take(events, grid=False)

    def _stops(self, columns: dict[str, np.ndarray], n: int, opening: list[Stop]) -> list[Stop]:
        """Where the kernel pauses in a batch, ascending, and what is done there: where windows open, around snapshots, at a checkpoint, and at the
        end."""
        stops: list[Stop] = [*opening, (n, None)]
        flags = columns["flags"]
        inside = (flags & F_SNAPSHOT) != 0
        if self._in_snapshot or inside.any():
            before = np.concatenate([[self._in_snapshot], inside[:-1]])
            clears = columns["action"] == ord("R")
            starts = np.flatnonzero(inside & (~before | clears))
            broken = np.flatnonzero(before & ~inside & clears)  # a clear right after it: it was given up
            ends = np.union1d(np.flatnonzero(before & ~inside & ~clears), np.flatnonzero(inside & ((flags & F_LAST) != 0)) + 1)
            # A clear right after the last record of a whole snapshot breaks nothing off: its end is listed, and so told, first.
            stops += [(p, self._snapshot_ends) for p in ends.tolist()] + [(p, self._snapshot_broken) for p in broken.tolist()]
            stops += [(p, self._snapshot_starts) for p in starts.tolist()]
            self._in_snapshot = bool(inside[-1])
        self._unsaved += n
        if self._checkpoint_every and self._unsaved >= max(self._checkpoint_every, 4 * int(self.book.arrays.state[LIVE])):
            last = np.flatnonzero(flags & F_LAST)
            if len(last):
                stops.append((int(last[0]) + 1, self._checkpoint))
        # A stop where a snapshot ends comes before one where the next starts: the order in which they were listed.
        return sorted(stops, key=lambda stop: stop[0])

    def _opens(self, start: int, events: dict[str, np.ndarray], _at: int) -> Iterator[Samples]:
        return self.window_opens(start, events)

    def _snapshot_starts(self, at: int) -> None:
        self.snapshots.begin(self.book, self.events_seen + at == 0, at in self._marks)

    def _snapshot_ends(self, at: int) -> None:
        state = self.book.arrays.state
        # Without its LAST it lasts until record `at`, and so may a row that stood before that one have been of it.
        holed = at in self._marks or state[INCOMPLETE] == HOLED if state[INCOMPLETE] else (state[STATUS], state[REASON]) == (SUSPECT, R_QUARANTINED)
        if holed:
            self.snapshots.abandon()
        else:
            self.snapshots.end(self.book, int(self.clock[T_NOW]), int(self.clock[T_SEQUENCE]))

    def _snapshot_broken(self, _at: int) -> None:
        self.snapshots.abandon()

    def _checkpoint(self, at: int) -> None:
        self.audit()
        state = self.book.arrays.state
        if self._on_checkpoint and not state[INCOMPLETE]:  # in a snapshot the book is not whole
            self._unsaved = 0
            self._on_checkpoint(at)

    def audit(self) -> None:
        """Hold every level touched since the last audit against its orders. Raises BookBroken."""
        if audit(self.book.arrays, len(self.book.arrays.prices)) >= 0:
            raise BookBroken("At the end " + _BROKEN)

    def _explain_broken(self, columns: dict[str, np.ndarray], i: int) -> str:
        where = f"{self.events_seen + i:,} (sequence {int(columns['sequence'][i])}, ts_event {int(columns['ts_event'][i])})"
        return f"By event {where}, at most {self._rules.audit_every} event ends before, " + _BROKEN

    def _explain(self, columns: dict[str, np.ndarray], i: int) -> str:
        anomaly = COUNTERS[int(self.book.arrays.state[ANOMALY])].replace("_", " ")
        return (
            f"Event {self.events_seen + i:,} (order {int(columns['order_id'][i])}, sequence {int(columns['sequence'][i])}, "
            f"ts_event {int(columns['ts_event'][i])}): {anomaly}, action {chr(columns['action'][i])} of {int(columns['size'][i])}. "
            "The feed lost a message before it; rerun with --on-book-error suspect to mark the interval instead."
        )

    def doubt(self) -> Iterator[Samples]:
        """A row was quarantined after the last one: what follows is suspect, the book as it stands at the end too; not what was before."""
        yield from self.grid_to(int(self.clock[T_NOW]))
        state = self.book.arrays.state
        self.book.arrays.counters[C_QUARANTINED] += 1
        was_valid = state[STATUS] == VALID
        self.book.doubt()
        if was_valid:
            self.clock[T_STATUS], self.clock[T_REASON], self.clock[T_SINCE] = SUSPECT, R_QUARANTINED, self.clock[T_NOW]

    @property
    def moment(self) -> dict[str, Any]:
        """Where the replay stands: running clock, time and sequence of the last complete event, status with reason and start, and what else
        of the book is not in its orders."""
        clock, (status, reason) = self.clock, self.status()
        return {
            "now": int(clock[T_NOW]), "as_of": int(clock[T_AS_OF]), "sequence": int(clock[T_SEQUENCE]), "status": status, "reason": reason,
            "since": int(clock[T_SINCE]), "orders": int(self.book.arrays.state[LIVE]), **self.book.standing(),
        }  # fmt: skip

    def counters(self) -> dict[str, int]:
        """Counts by name, see book_kernels.COUNTERS."""
        return self.book.counters()

    def status(self) -> tuple[str, str]:
        """(status, reason) after the last record."""
        state = self.book.arrays.state
        return STATUSES[state[STATUS]], REASONS[state[REASON]]

    def next_file(self) -> None:
        """The next batch is the first of an events file."""
        self.book.next_file()
        self._in_snapshot = bool(self.book.arrays.state[IN_SNAPSHOT] == 1)

    def closing(self) -> dict[str, np.ndarray]:
        """The resting orders, see OrderBook.resting_orders."""
        return self.book.resting_orders()

    def closing_facts(self) -> dict[str, Any]:
        """What the next day goes on with beside the orders, for `restore`: status, reason and OrderBook.standing."""
        status, reason = self.status()
        return {"status": status, "reason": reason, **self.book.standing()}

    def restore(self, orders: dict[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        """Before the first record: the orders of `closing` and its facts, of the day before."""
        self.book.restore(**orders, status=facts["status"], reason=facts["reason"], standing=from_day_before(facts, self._rules.halts))

    def opening(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The book of the snapshot with which the events begin, and its time (ns -1 and no orders when they do not)."""
        image = self.snapshots.opening
        if image is None:
            return OrderBook().resting_orders(), {"ns": -1}
        return image.orders, {**image.standing, "ns": self.snapshots.opening_ns}

    def comparisons(self) -> dict[str, tuple[Proof, dict[str, Any]]]:
        """What was compared on the way, by kind of truth (see schemas.TRUTHS), with further counts."""
        counted = self.counters()
        crossed = {name: counted[name] for name in ("crossed", "locked", "crossed_halted")}
        return {
            "snapshot": (self.snapshots.proof, self.snapshots.facts()),
            "fills": (self.proofs.fills, {name: counted[name] for name in ("fills_elsewhere", "fills_beyond", "fills_unresting")}),
            "integrity": (self.proofs.integrity, {**crossed, "event_ends": counted["event_ends"]}),
        }

    def end_facts(self) -> dict[str, Any]:
        """Levels and orders at the end and the touch after the last complete event (price 1e-9 and size; None when the side is empty)."""
        state = self.book.arrays.state
        return {
            "bid_levels": int(state[LEVELS]),
            "ask_levels": int(state[LEVELS + 1]),
            "orders": int(state[LIVE]),
            **self.touch_facts(),
        }
