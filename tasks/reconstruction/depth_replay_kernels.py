"""Replay of one batch of depth messages: which of them count, what they do to the book, and what the snapshots among them prove.

The book itself is in depth_book_kernels.py, the rows in depth_sample_kernels.py. Twin: tests/oracles/naive_depth.py
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from tasks.depth_batches import NO_ID, SNAPSHOT
from tasks.kernels import inner, kernel
from tasks.reconstruction.depth_book_kernels import COUNT, LAST_ID, REASON, STATUS, apply_updates, clear, settle, take_image
from tasks.reconstruction.depth_sample_kernels import T_UPDATE_ID, depth_grid_until, show_status, touch_of, touch_row
from tasks.reconstruction.proof_kernels import P_GOOD, P_OPEN, P_SPANS, compare_levels, note
from tasks.reconstruction.sample_kernels import T_AS_OF, T_BBO, T_NEXT, T_NOW, T_SEQUENCE, T_SINCE
from tasks.schemas import NO_BOOK, REASONS, SUSPECT, VALID

# Columns of n messages and their m updates (see DepthBatch), and: clock int64[n] ns; rank int32[m] and size int64[m] at the replay's scale;
# marks int64[k], ascending: messages before which a line could not be read
Batch = namedtuple("Batch", "kind clock ts cts update_id sequence first side rank size price_digits size_digits marks")

# Comparisons: snapshot, integrity (Proof); difference int64[8], tally int64[2] scratch; before, after: Image of the book around a snapshot
Proofs = namedtuple("Proofs", "snapshot integrity difference tally before after")

COUNTERS = (
    "messages", "snapshots", "restarts", "restart_deltas", "stale_ids", "gaps", "skipped", "quarantined", "updates", "absent_deletes", "pruned",
    "event_ends", "crossed", "locked", "suspect_compared", "suspect_matched", "apart_compared", "apart_matched",
    "apart_levels_compared", "apart_levels_matched", "apart_ms_longest",
)  # fmt: skip
(
    C_MESSAGES, C_SNAPSHOTS, C_RESTARTS, C_RESTART_DELTAS, C_STALE_IDS, C_GAPS, C_SKIPPED, C_QUARANTINED, C_UPDATES, C_ABSENT, C_PRUNED,
    C_EVENT_ENDS, C_CROSSED, C_LOCKED, C_SUSPECT_COMPARED, C_SUSPECT_MATCHED, C_APART_COMPARED, C_APART_MATCHED,
    C_APART_LEVELS, C_APART_LEVELS_MATCHED, C_APART_MS,
) = range(len(COUNTERS))  # fmt: skip

R_GAP, R_QUARANTINED = REASONS.index("gap"), REASONS.index("quarantined")
DONE, FULL, GAP_FOUND, BAD_LINE_FOUND = range(4)
# What a message is to the book.
APPLY, REPLACE, IGNORE, GAP = range(4)


@inner
def judge(state, counters, kind, update_id):
    """What a message is to the book (APPLY, REPLACE, IGNORE, GAP), counted. Ids say nothing of a book that is not there.

    Id 1 says that the service has started again and sends its whole book, whatever the message calls itself; but a delta with id 1 after id 0 goes
    on, and after id 1 it repeats. A snapshot always replaces the book. A message without an id is not checked, and the last id stays.
    """
    last = state[LAST_ID]
    if kind == SNAPSHOT or (update_id == 1 and last != 0 and last != 1):
        counters[C_SNAPSHOTS] += 1
        counters[C_RESTARTS] += np.int64(update_id == 1 and last > 0)
        counters[C_RESTART_DELTAS] += np.int64(kind != SNAPSHOT)
        return REPLACE
    if state[STATUS] == NO_BOOK:
        counters[C_SKIPPED] += 1
        return IGNORE
    if update_id == NO_ID or last == NO_ID or update_id == last + 1:
        return APPLY
    if update_id <= last:
        counters[C_STALE_IDS] += 1
        return IGNORE
    counters[C_GAPS] += 1
    return GAP


@inner
def goes_on(last, update_id):
    """Whether a snapshot with this id says what the book was after the message before it: its id tells that nothing lies between.

    Without ids nothing tells it: such a feed sends a snapshot after it was cut off, or sends nothing else.
    """
    return last != NO_ID and (update_id == last + 1 or (update_id == last and update_id != 1))


@inner
def spread_of(book, proofs, counters, now, sequence):
    """Count a crossed or locked touch; a side without levels is neither."""
    bid_px, bid_sz = touch_of(book, 0)
    ask_px, ask_sz = touch_of(book, 1)
    if book.state[COUNT] == 0 or book.state[COUNT + 1] == 0:
        return
    good = bid_px < ask_px
    if not good:
        counters[C_CROSSED if bid_px > ask_px else C_LOCKED] += 1
        difference = proofs.difference
        difference[0], difference[1] = 0, 0
        difference[2], difference[3], difference[4] = bid_px, bid_sz, -1
        difference[5], difference[6], difference[7] = ask_px, ask_sz, -1
    note(proofs.integrity, good, now, sequence, 1, 1 if good else 0, proofs.difference)


@kernel
def compare_images(proofs):
    """Levels of the book before a snapshot (found) against those after it (expected): proofs.tally and proofs.difference written."""
    found, expected = proofs.before, proofs.after
    proofs.tally[:] = 0
    proofs.difference[1] = -1
    for side in range(2):
        f, e = found.count[side], expected.count[side]
        compare_levels(
            expected.px[side, :e], expected.sz[side, :e], expected.ct[side, :e], found.px[side, :f], found.sz[side, :f], found.ct[side, :f],
            side, proofs.tally, proofs.difference,
        )  # fmt: skip


@kernel
def prove(book, proofs, counters, status, is_next, clock, sequence):
    """Hold the book that stood before a snapshot (proofs.before) against the snapshot, which `book` is now.

    A valid book that the snapshot follows without a break is held to it; one after a restart or a jump is counted apart, for messages lie
    between; a suspect one too. From here on the book is right, whatever it was: a wrong span ends.
    """
    now = clock[T_NOW]
    if status != NO_BOOK:
        take_image(book, proofs.after)
        compare_images(proofs)
        compared, matched = proofs.tally[0], proofs.tally[1]
        good = np.int64(compared == matched)
        if status == SUSPECT:
            counters[C_SUSPECT_COMPARED] += 1
            counters[C_SUSPECT_MATCHED] += good
        elif is_next:
            note(proofs.snapshot, good == 1, now, sequence, compared, matched, proofs.difference)
        else:
            counters[C_APART_COMPARED] += 1
            counters[C_APART_MATCHED] += good
            counters[C_APART_LEVELS] += compared
            counters[C_APART_LEVELS_MATCHED] += matched
            counters[C_APART_MS] = max(counters[C_APART_MS], (now - clock[T_AS_OF]) // 1_000_000)
    number, spans = proofs.snapshot.number, proofs.snapshot.spans
    if number[P_OPEN] != 0 and number[P_SPANS] <= spans.shape[0]:
        spans[number[P_SPANS] - 1, 1] = now
    number[P_OPEN] = 0
    number[P_GOOD] = now


@inner
def note_marks(batch, mark, i, state, counters):
    """Lines before message i that could not be read: the book is suspect. Returns the next mark."""
    while mark < batch.marks.shape[0] and batch.marks[mark] <= i:
        counters[C_QUARANTINED] += 1
        if state[STATUS] == VALID:
            state[STATUS] = SUSPECT
            state[REASON] = R_QUARANTINED
        mark += 1
    return mark


@kernel
def depth_replay(batch, start, book, clock, grid, touch, last, windows, depth, keep, strict, counters, proofs):
    """Apply messages start..n-1 and sample.

    Returns (code, next message): DONE; FULL (empty the buffers and go on at next); GAP_FOUND, BAD_LINE_FOUND (only when strict: message `next`
    shows a gap of a valid book, or follows a line that could not be read, and is not applied). Changes book, clock, proofs, counters and the
    buffers. Twin: tests/oracles/naive_depth.py
    """
    state = book.state
    # Before a window, too: what stands when it begins is told by the last row before it.
    until = windows.end[windows.end.shape[0] - 1] if windows.end.shape[0] > 0 else np.int64(0)
    mark = 0
    while mark < batch.marks.shape[0] and batch.marks[mark] < start:
        mark += 1
    for i in range(start, batch.kind.shape[0]):
        now = max(clock[T_NOW], batch.clock[i])
        # Asked here first: a call hands over all arrays, and few messages pass a grid time.
        if clock[T_NEXT] < now and not depth_grid_until(clock, book, grid, windows, depth, now):
            return FULL, i
        if clock[T_BBO] >= touch.clock.shape[0]:
            return FULL, i
        clock[T_NOW] = now
        if clock[T_SINCE] < 0:
            clock[T_SINCE] = now
        mark = note_marks(batch, mark, i, state, counters)
        if strict and state[STATUS] == SUSPECT:
            return BAD_LINE_FOUND, i
        update_id, sequence = batch.update_id[i], batch.sequence[i]
        counters[C_MESSAGES] += 1
        what = judge(state, counters, batch.kind[i], update_id)
        if what == IGNORE:
            show_status(clock, state)
            if state[STATUS] != NO_BOOK and now < until:
                touch_row(clock, book, batch, i, False, last, touch)  # a bad line before it may have made the book suspect
            continue
        status, last_id = state[STATUS], state[LAST_ID]
        if what == GAP and status == VALID:
            if strict:
                return GAP_FOUND, i
            state[STATUS], state[REASON] = SUSPECT, R_GAP
        if what == REPLACE:
            take_image(book, proofs.before)
            clear(book)
            state[STATUS], state[REASON] = VALID, 0
        counters[C_ABSENT] += apply_updates(book, batch, i)
        counters[C_UPDATES] += batch.first[i + 1] - batch.first[i]
        counters[C_PRUNED] += settle(book, 0, keep) + settle(book, 1, keep)
        fresh = False
        if what == REPLACE:
            is_next = goes_on(last_id, update_id)
            prove(book, proofs, counters, status, is_next, clock, sequence)
            # In a feed of nothing but snapshots each is a change of the one before.
            fresh = not is_next and counters[C_MESSAGES] > counters[C_SNAPSHOTS]
        if update_id != NO_ID:
            state[LAST_ID] = update_id
        counters[C_EVENT_ENDS] += 1
        spread_of(book, proofs, counters, now, sequence)
        clock[T_AS_OF], clock[T_SEQUENCE], clock[T_UPDATE_ID] = now, sequence, update_id
        show_status(clock, state)
        if now < until:
            touch_row(clock, book, batch, i, fresh, last, touch)
    return DONE, batch.kind.shape[0]
