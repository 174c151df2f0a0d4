"""`DepthReplay`: feeds batches of depth messages to the kernels and hands out the samples; knows nothing of files. Plain Python, no Prefect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tasks.depth_batches import NO_TIME, PRICE_DIGITS, SNAPSHOT, BadLine, DepthBatch
from tasks.errors import BookError, UsageError
from tasks.reconstruction.depth_book import DepthBook, ScaleTooSmall, new_image
from tasks.reconstruction.depth_book_kernels import COUNT, LAST_ID, REASON, STATUS
from tasks.reconstruction.depth_replay_kernels import (
    BAD_LINE_FOUND,
    C_CROSSED,
    C_EVENT_ENDS,
    C_LOCKED,
    C_QUARANTINED,
    COUNTERS,
    FULL,
    GAP_FOUND,
    R_QUARANTINED,
    Batch,
    Proofs,
    depth_replay,
)
from tasks.reconstruction.depth_sample_kernels import depth_grid_until, show_status, touch_row
from tasks.reconstruction.depth_sampling import DepthSamples, DepthSampling
from tasks.reconstruction.proof_kernels import DIFFERENCE_SIZE, Proof, new_proof
from tasks.reconstruction.sample_kernels import NEVER, T_AS_OF, T_NOW, T_SINCE
from tasks.schemas import REASONS, STATUSES, SUSPECT, VALID

__all__ = ["DepthReplay", "DepthSamples", "ScaleTooSmall"]

CLOCKS = ("ts", "cts")


class DepthReplay(DepthSampling):
    """Replay of one price-level book, batch by batch: a time grid, the changes of the touch, and what the feed's own snapshots prove.

    depths: levels of the grid's rows wanted, the deepest is what `DepthSamples` hold; keep: levels a side to which the book is cut after each
    message, the feed's depth; interval_ns, windows: a row at each multiple of the interval in each [start_ns, end_ns); clock: "ts", or "cts" where
    a message has it, else ts; price_digits, size_digits: the scale; stale_after_ns: age beyond which a valid grid row is stale, None for never;
    strict: raise BookError at the first gap or unreadable line of a valid book. `book` is the DepthBook and stays readable between batches.

    A message is one complete event. Before the first snapshot there is no book. A jump of the update id, or a line that could not be read, makes
    the book suspect until the next snapshot. Messages before and between the windows give rows of the touch, for the last of them is what stands
    when a window begins; those after the last window feed the book and give no rows.
    """

    def __init__(
        self,
        *,
        depths: Sequence[int],
        keep: int,
        interval_ns: int,
        windows: Sequence[tuple[int, int]],
        clock: str = "cts",
        price_digits: int = PRICE_DIGITS,
        size_digits: int,
        stale_after_ns: int | None = None,
        strict: bool = False,
    ) -> None:
        if clock not in CLOCKS:
            raise UsageError(f"clock {clock!r}; allowed are {', '.join(CLOCKS)}")
        if not depths or min(depths) < 1 or max(depths) > keep:
            raise UsageError(f"depths {list(depths)} of a book of {keep} levels; allowed are 1 to {keep}")
        super().__init__(max(depths), interval_ns, windows, stale_after_ns)
        self.depths, self._keep, self._clock_name, self._strict = tuple(depths), keep, clock, strict
        self.book = DepthBook(price_digits, size_digits)
        self.counters = np.zeros(len(COUNTERS), np.int64)
        difference, tally = np.zeros(DIFFERENCE_SIZE, np.int64), np.zeros(2, np.int64)
        self._proofs = Proofs(new_proof(), new_proof(), difference, tally, new_image(0), new_image(0))
        self._pending = 0  # bad lines after all messages so far
        self._unplaced: BadLine | None = None  # the first of them
        self._latest: Batch | None = None

    def feed(self, batch: DepthBatch) -> Iterator[DepthSamples]:
        """Apply one batch of any length. Rows are handed out when a buffer is full, and the rest by `finish`.

        Raises ScaleTooSmall or BookError for an update that the scale cannot hold, before anything of the batch is applied; BookError at a gap
        or a bad line (strict only), naming line, byte, ids or reason, and what to do.
        """
        bad = sorted(line.before for line in batch.bad)
        n = len(batch)
        marks = np.array([0] * self._pending + [before for before in bad if before < n], np.int64)
        if n:
            rank, size = self.book.take(batch)
            self._make_room(batch)
            yield from self._run(batch, rank, size, marks)
            self._pending = 0
        late = [line for line in batch.bad if line.before >= n]
        if late and not self._pending:
            self._unplaced = late[0]
        self._pending += len(late)

    def _run(self, batch: DepthBatch, rank: np.ndarray, size: np.ndarray, marks: np.ndarray) -> Iterator[DepthSamples]:
        columns = Batch(
            batch.kind, self._clock_of(batch), batch.ts, batch.cts, batch.update_id, batch.sequence, batch.first, batch.side, rank, size,
            batch.price_digits, batch.size_digits, marks,
        )  # fmt: skip
        self._latest, code, at = columns, FULL, 0
        while code == FULL:
            code, at = depth_replay(
                columns, at, self.book.arrays, self.clock, self.grid, self.touch, self.last, self.windows, max(self.depths), self._keep, self._strict,
                self.counters, self._proofs,
            )  # fmt: skip
            if code == GAP_FOUND:
                raise BookError(self._explain(batch, at))
            if code == BAD_LINE_FOUND:
                raise BookError(self._explain_bad(at, batch.bad))
            if code == FULL:
                yield self.empty()

    def _clock_of(self, batch: DepthBatch) -> np.ndarray:
        """Times int64[n] in the order of the feed; the kernel makes a running maximum of them."""
        return batch.ts if self._clock_name == "ts" else np.where(batch.cts == NO_TIME, batch.ts, batch.cts)

    def _make_room(self, batch: DepthBatch) -> None:
        """Room for the images of the book around the snapshots of a batch."""
        levels = min(self._keep, int(self.book.arrays.state[COUNT : COUNT + 2].max()) + len(batch.side))
        replaces = (batch.kind == SNAPSHOT) | (batch.update_id == 1)
        if replaces.any() and self._proofs.before.px.shape[1] < levels:
            self._proofs = self._proofs._replace(before=new_image(levels), after=new_image(levels))

    def _explain(self, batch: DepthBatch, i: int) -> str:
        return (
            f"Line {int(batch.line[i]):,} (from 0; byte {int(batch.offset[i]):,}): update id {int(batch.update_id[i])} after "
            f"{int(self.book.arrays.state[LAST_ID])}: messages are missing between them. Rerun with --on-book-error suspect to mark the interval "
            "until the next snapshot instead."
        )

    def _explain_bad(self, i: int, bad: Sequence[BadLine]) -> str:
        line = self._unplaced if i == 0 and self._pending else next(line for line in bad if line.before == i)
        assert line is not None  # the kernel found one
        return (
            f"Line {line.source_row:,} (from 0; byte {line.byte_offset:,}) could not be read ({line.reason}): what it changed is not known. Rerun "
            "with --on-book-error suspect to set it aside and mark the interval until the next snapshot instead."
        )

    def finish(self) -> Iterator[DepthSamples]:
        """The grid rows that are still due, to the end of the windows. A bad line after the last message makes the book suspect from that on.

        Raises BookError at such a line of a valid book (strict only).
        """
        if self._pending:
            yield from self._grid_to(int(self.clock[T_NOW]))
            state = self.book.arrays.state
            self.counters[C_QUARANTINED] += self._pending
            if self._strict and state[STATUS] == VALID:
                raise BookError(self._explain_bad(0, ()))
            self._pending = 0
            if state[STATUS] == VALID:
                state[STATUS], state[REASON] = SUSPECT, R_QUARANTINED
                show_status(self.clock, state)
                self._last_touch()
        yield from self._grid_to(NEVER)

    def _last_touch(self) -> None:
        """A row of the touch with the last message, for a status that no message came to tell. The buffer was emptied before."""
        assert self._latest is not None  # a valid book had a message
        if len(self.windows.end) and self.clock[T_NOW] < self.windows.end[-1]:
            touch_row(self.clock, self.book.arrays, self._latest, len(self._latest.kind) - 1, False, self.last, self.touch)

    def _grid_to(self, end: int) -> Iterator[DepthSamples]:
        done = False
        while not done:
            done = depth_grid_until(self.clock, self.book.arrays, self.grid, self.windows, max(self.depths), end)
            yield self.empty()

    def status(self) -> tuple[str, str]:
        """(status, reason) after the last message."""
        state = self.book.arrays.state
        return STATUSES[state[STATUS]], REASONS[state[REASON]]

    def facts(self) -> dict[str, Any]:
        """Counts by name (see depth_replay_kernels.COUNTERS), and where the replay stands: levels a side, the touch (price and size at the scale,
        None for an empty side), last update id (-1: none), clock time of the last message in the book (-1: none), status, reason and since when."""
        status, reason = self.status()
        touch = [[int(px[0]), int(sz[0])] if len(px) else None for px, sz in map(self.book.levels, range(2))]
        state = self.book.arrays.state
        return {
            **dict(zip(COUNTERS, self.counters.tolist(), strict=True)), "price_digits": self.book.price_digits, "size_digits": self.book.size_digits,
            "bid_levels": int(state[COUNT]), "ask_levels": int(state[COUNT + 1]), "best_bid": touch[0], "best_ask": touch[1],
            "last_update_id": int(state[LAST_ID]), "as_of": int(self.clock[T_AS_OF]), "status": status, "reason": reason,
            "since": int(self.clock[T_SINCE]),
        }  # fmt: skip

    def comparisons(self) -> dict[str, tuple[Proof, dict[str, Any]]]:
        """What was compared on the way, by kind of truth (see schemas.TRUTHS), with further counts.

        "snapshot": snapshots that follow a valid book without a break, against what stood before them; in the counts those that met a suspect
        book, and apart those after a restart or a jump of the id, with the longest time between. "integrity": bid below ask after each message.
        """
        counted = dict(zip(COUNTERS, self.counters.tolist(), strict=True))
        told = [name for name in COUNTERS if name.startswith(("suspect_", "apart_"))]
        integrity = {COUNTERS[k]: int(self.counters[k]) for k in (C_CROSSED, C_LOCKED, C_EVENT_ENDS)}
        return {
            "snapshot": (self._proofs.snapshot, {name: counted[name] for name in told}),
            "integrity": (self._proofs.integrity, integrity),
        }
