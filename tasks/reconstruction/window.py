"""`WindowReplay`: windowed replay of a level-N message file with its published book beside it. Plain Python; the rules are in window_kernels.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tasks.errors import BookError
from tasks.reconstruction.book_kernels import R_QUARANTINED
from tasks.reconstruction.proof_kernels import DIFFERENCE_SIZE, P_DIFFERENCE, P_DIVERGED_AT, P_SEQUENCE, Proof, new_proof
from tasks.reconstruction.sample_kernels import T_NOW, T_REASON, T_SINCE, T_STATUS
from tasks.reconstruction.sampling import Samples, Sampling
from tasks.reconstruction.window_kernels import (
    K_QUARANTINED,
    W_COUNTERS,
    W_EMPTIED,
    W_REASON,
    W_SEEDED,
    W_STATE_SIZE,
    W_STATUS,
    WindowBatch,
    WindowBook,
    WindowProofs,
    replay_window,
)
from tasks.schemas import F_LAST, NO_BOOK, REASONS, STATUSES, SUSPECT, VALID

_NO_MARKS = np.zeros(0, np.int64)


class WindowReplay(Sampling):
    """Replay by price level within the top levels of each file, at most `levels`; rows hold the best min(depth, levels).

    Order counts are not known in such a file: ct is 0 throughout. Rows of levels beyond the file's are empty.
    """

    def __init__(
        self, *, levels: int, depth: int, interval_ns: int, clock: str, windows: Sequence[tuple[int, int]] | None, strict: bool, batch_rows: int,
        stale_after_ns: int | None = None, grid_windows: Sequence[tuple[int, int]] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            depth, interval_ns, windows, batch_rows, starts_valid=False, stale_after_ns=stale_after_ns, grid_windows=grid_windows
        )  # fmt: skip
        state = np.zeros(W_STATE_SIZE, np.int64)
        state[W_STATUS], state[W_REASON] = NO_BOOK, REASONS.index("no_snapshot")
        self.book = WindowBook(
            px=np.zeros((2, levels + 1), np.int64),
            sz=np.zeros((2, levels + 1), np.int64),
            held=np.zeros(2, np.int64),
            state=state,
            counters=np.zeros(len(W_COUNTERS), np.int64),
        )
        self.proofs = WindowProofs(new_proof(), new_proof(), np.zeros(DIFFERENCE_SIZE, np.int64))
        self._levels, self._shown, self._clock_name, self._strict = levels, min(depth, levels), clock, strict

    def next_file(self, levels: int) -> None:
        """The next batch is the first of an events file of so many levels: what was lost before it is not known, so its own first book is taken."""
        state = self.book.state
        state[W_STATUS], state[W_REASON], state[W_SEEDED], state[W_EMPTIED] = NO_BOOK, REASONS.index("no_snapshot"), 0, 0
        self._levels = levels

    def feed(self, columns: dict[str, np.ndarray], truth: np.ndarray, marks: np.ndarray = _NO_MARKS) -> Iterator[Samples]:
        """Apply one batch of event columns; truth int64[m, levels, 4] is the published book after each of its m event ends."""
        n = len(columns["price"])
        if n == 0:
            return
        ends = int(np.count_nonzero(columns["flags"] & F_LAST))
        if ends != len(truth):
            raise BookError(f"{ends} event ends but {len(truth)} published books in a batch; delete the partition's events and start again.")
        running = self.start(columns, self._clock_name)
        batch = WindowBatch(
            action=columns["action"], side=columns["side"], flags=columns["flags"], price=columns["price"], size=columns["size"],
            clock=running, sequence=columns["sequence"], marks=marks,
        )  # fmt: skip
        events = {**columns, "clock": running, "fresh": self.fresh(columns["flags"])}
        at, row = 0, 0
        for stop, start in [*self.windows_opening(running), (n, None)]:
            while at < stop:
                _, at, row = replay_window(
                    batch, at, stop, truth, row, self.book, self.clock, self.top, self.rows, self.bbo, self.grid, self.trades,
                    self.windows, self._levels, self._shown, self.proofs,
                )  # fmt: skip
                yield self.take(events)
            if start is not None:
                yield from self.window_opens(start, events)
        if self._strict and self.diverged:
            message, level = self.diverged
            raise BookError(
                f"After message {message:,} the rebuilt book differs from the published one at level {level + 1}. "
                "Rerun with --on-book-error suspect to mark the rows from there on instead."
            )

    @property
    def diverged(self) -> tuple[int, int] | None:
        """(message, level) of the first difference from the published book, both 0-based; None when there is none."""
        number = self.proofs.published.number  # the sequence of a LOBSTER event is the number of its message
        return None if number[P_DIVERGED_AT] < 0 else (int(number[P_SEQUENCE]), int(number[P_DIFFERENCE + 1]))

    def doubt(self) -> Iterator[Samples]:
        """A row was quarantined after the last one: the book is suspect from there on, and not before."""
        yield from self.grid_to(int(self.clock[T_NOW]))
        self.book.counters[K_QUARANTINED] += 1
        if self.book.state[W_STATUS] == VALID:
            self.book.state[W_STATUS], self.book.state[W_REASON] = SUSPECT, R_QUARANTINED
            self.clock[T_STATUS], self.clock[T_REASON], self.clock[T_SINCE] = SUSPECT, R_QUARANTINED, self.clock[T_NOW]

    def counters(self) -> dict[str, int]:
        """Counts by name, see window_kernels.W_COUNTERS."""
        return dict(zip(W_COUNTERS, self.book.counters.tolist(), strict=True))

    def status(self) -> tuple[str, str]:
        """(status, reason) after the last record."""
        return STATUSES[self.book.state[W_STATUS]], REASONS[self.book.state[W_REASON]]

    def closing(self) -> dict[str, np.ndarray]:
        """No orders: only levels are known in a windowed file."""
        return {"side": np.zeros(0, np.uint8), "price": np.zeros(0, np.int64), "order_id": np.zeros(0, np.uint64), "size": np.zeros(0, np.int64)}

    def closing_facts(self) -> dict[str, Any]:
        """Status and reason; nothing goes on from the levels of a file."""
        status, reason = self.status()
        return {"status": status, "reason": reason}

    def opening(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """No orders, as in `closing`."""
        return self.closing(), {"ns": -1}

    def comparisons(self) -> dict[str, tuple[Proof, dict[str, Any]]]:
        """What was compared on the way, by kind of truth."""
        counted = self.counters()
        crossed = {name: counted[name] for name in ("crossed", "locked", "crossed_halted")}
        return {
            "published": (self.proofs.published, {}),
            "integrity": (self.proofs.integrity, {**crossed, "event_ends": counted["event_ends"]}),
        }

    def end_facts(self) -> dict[str, Any]:
        """Levels held and the touch at the end, and the first difference from the published book."""
        diverged = self.diverged
        return {
            "bid_levels": int(self.book.held[0]),
            "ask_levels": int(self.book.held[1]),
            "orders": -1,
            "first_difference": None if diverged is None else {"message": diverged[0], "level": diverged[1]},
            **self.touch_facts(),
        }
