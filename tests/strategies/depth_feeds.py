"""Feeds of price levels as Hypothesis strategies, with all that goes wrong in them, and their way into batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from tasks.depth_batches import BID, DELTA, NO_ID, NO_TIME, SNAPSHOT, DepthBatch
from tests.oracles.naive_depth import Item, Message, NaiveDepth, Update

SECOND = 1_000_000_000
START_NS = 1_700_000_000 * SECOND
PRICE_DIGITS, SIZE_DIGITS = 4, 3  # of the feeds, at most
KEEP = 5
MIDDLE = 100


@dataclass(frozen=True)
class Bad:
    """A line that could not be read, as in DepthBatch.bad."""

    before: int
    source_row: int = -1
    byte_offset: int = -1
    reason: str = "malformed"


# Id relative to the one before: next, repeated, older, jump; or the words below.
_IDS: tuple[int | str, ...] = (1,) * 24 + (0, -1, -3, 2, 40, "restart", "none")
_STEPS = (0, 1, 10_000_000, 100_000_000, 100_000_000, SECOND, 7 * SECOND, -50_000_000)
_SIZES = (0, 0, 1, 2, 3, 500)
_AWAY = 11
# One number an update and three a message: drawing each field by itself takes most of a test's time.
_UPDATE = st.integers(0, 2 * _AWAY * len(_SIZES) * PRICE_DIGITS * (SIZE_DIGITS + 1) - 1)
_MESSAGE = st.tuples(
    st.integers(0, 8 * 6 * 6 * 2 - 1), st.integers(0, len(_STEPS) * 16 - 1), st.sampled_from(_IDS), st.lists(_UPDATE, max_size=8),
)  # fmt: skip


def _update(code: int) -> Update:
    """The same price is written with more or fewer decimals; some are on the wrong side of the middle."""
    code, side = divmod(code, 2)
    code, away = divmod(code, _AWAY)
    code, size = divmod(code, len(_SIZES))
    size_digits, price_digits = divmod(code, PRICE_DIGITS)
    units = MIDDLE + 1 - away if side == BID else MIDDLE + away
    return Update(side, units * 10**price_digits, _SIZES[size], price_digits + 1, size_digits)


def levels_of(book: NaiveDepth) -> tuple[Update, ...]:
    """The whole book as the updates of a snapshot."""
    return tuple(Update(side, px, sz, *book.digits) for side, levels in enumerate(book.levels()) for px, sz, _, _ in levels)


@st.composite
def feeds(draw: st.DrawFn, most: int = 40, ids: bool = True) -> list[Item]:
    """Messages and bad lines (None): gaps, restarts, stale ids, missing ids and cts, late times, silence, snapshots right and wrong."""
    book = NaiveDepth(keep=KEEP, price_digits=PRICE_DIGITS, size_digits=SIZE_DIGITS)
    items: list[Item] = []
    ts, update_id, has_cts = START_NS, draw(st.sampled_from((-1, 0, 5))), draw(st.booleans())
    size = draw(st.integers(0, most))
    for number, (code, time, step, updates) in enumerate(draw(st.lists(_MESSAGE, min_size=size, max_size=size))):
        code, what = divmod(code, 8)
        code, untold = divmod(code, 6)
        honest, late = divmod(code, 6)
        bad, wait = divmod(time, len(_STEPS))
        ts += _STEPS[wait]
        if bad == 1:
            items.append(None)
            book.bad += 1
        step = step if ids else 1
        update_id = max(0, update_id + step) if isinstance(step, int) else 1 if step == "restart" else update_id
        snapshot = what == 7 or (number == 0 and what < 6)
        message = Message(
            SNAPSHOT if snapshot else DELTA, ts, ts - late * 1_000_000 if has_cts and untold else NO_TIME, NO_ID if step == "none" else update_id,
            number * 3, levels_of(book) if snapshot and number > 0 and honest else tuple(map(_update, updates)),
        )  # fmt: skip
        items.append(message)
        book.take(message)
    return items


def batch_of(items: Sequence[Item], line: int = 0) -> DepthBatch:
    """Consecutive items as one batch; line: number of the first."""
    messages = [item for item in items if item is not None]
    updates = [update for message in messages for update in message.updates]
    lines = [line + at for at, item in enumerate(items) if item is not None]
    counts = [len(message.updates) for message in messages]

    def column(rows: Sequence[tuple[object, ...]], name: str, dtype: type) -> np.ndarray:
        return np.array([getattr(row, name) for row in rows], dtype)

    return DepthBatch(
        kind=column(messages, "kind", np.uint8),
        **{name: column(messages, name, np.int64) for name in ("ts", "cts", "update_id", "sequence")},
        line=np.array(lines, np.int64),
        offset=np.array(lines, np.int64) * 100,
        first=np.cumsum([0, *counts], dtype=np.int64),
        **{name: column(updates, name, np.uint8) for name in ("side", "price_digits", "size_digits")},
        **{name: column(updates, name, np.int64) for name in ("price", "size")},
        bad=[Bad(sum(other is not None for other in items[:at]), line + at, (line + at) * 100) for at, item in enumerate(items) if item is None],
    )


def cut(items: Sequence[Item], lengths: Sequence[int]) -> Iterator[DepthBatch]:
    """The items as batches of these lengths, the last one taking the rest."""
    at = 0
    for length in lengths:
        yield batch_of(items[at : at + length], at)
        at += length
    yield batch_of(items[at:], at)
