"""The book behind a generated depth archive: which price levels change in a message, so that the window of the best levels stays full.

Real archives never hold more than their depth on a side: a level that enters pushes the deepest one out (a change to size 0), and one that goes
lets the next one in. So it is here. How messages become text is in synthetic_depth_text_kernels.py.

A side is kept from its best level to its worst as ascending keys: ticks of an ask, negative ticks of a bid. One code serves both sides.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from tasks.kernels import kernel
from tasks.scanning.synthetic_clock_kernels import draw, exponential

MOST_CHANGES = 160  # of one side in a message
LARGEST = 11.5  # sizes are spread evenly over their logarithm, from 1 to e^11.5 units
WIDE = 40  # ticks of a spread
PULL = 4_000.0  # ticks from its centre at which the price is drawn back as strongly as it gets

STATE = np.dtype(
    [
        ("slot", "i8"), ("slots", "i8"), ("start_ms", "i8"), ("interval_ms", "i8"), ("quiet", "f8"), ("mean", "f8"),  # when messages come
        ("outage_from", "i8"), ("outage_to", "i8"), ("event", "i8"),  # slots without a message; next of the planned events
        ("update_id", "i8"), ("sequence", "i8"), ("lines", "i8"), ("updates", "i8"), ("first_ms", "i8"), ("last_ms", "i8"),  # so far
        ("centre", "i8"), ("step", "f8"),  # ticks; mean distance of two levels beyond one
        ("tick", "i8"), ("price_digits", "i8"), ("size_digits", "i8"), ("spot", "i8"), ("cts", "i8"),  # how it is written
        ("random", "u8"),
    ]
)  # fmt: skip


class Book(NamedTuple):
    """keys, sizes int64[2, depth]: bids and asks, best first."""

    keys: np.ndarray
    sizes: np.ndarray


class Changes(NamedTuple):
    """Levels of the message at hand, each once: keys, sizes int64[2, MOST_CHANGES] by ascending key; filled int64[2]: how many."""

    keys: np.ndarray
    sizes: np.ndarray
    filled: np.ndarray


@kernel
def size_of(state):
    """A size of at least 1."""
    return np.int64(math.exp(LARGEST * draw(state)))


@kernel
def _place(changes, side, key):
    """Where a key stands in the changes of a side, or belongs."""
    i = changes.filled[side]
    while i > 0 and changes.keys[side, i - 1] >= key:
        i -= 1
    return i


@kernel
def _is_free(changes, side, key):
    i = _place(changes, side, key)
    return i == changes.filled[side] or changes.keys[side, i] != key


@kernel
def _note(changes, side, key, size):
    at, n = _place(changes, side, key), changes.filled[side]
    for i in range(n, at, -1):
        changes.keys[side, i] = changes.keys[side, i - 1]
        changes.sizes[side, i] = changes.sizes[side, i - 1]
    changes.keys[side, at], changes.sizes[side, at] = key, size
    changes.filled[side] = n + 1


@kernel
def _modify(state, book, changes, side, i):
    """Another size for level i."""
    key, size = book.keys[side, i], size_of(state)
    if _is_free(changes, side, key):
        book.sizes[side, i] = size + 1 if size == book.sizes[side, i] else size
        _note(changes, side, key, book.sizes[side, i])


@kernel
def _remove(state, book, changes, side, i):
    """Level i goes, and a level below the deepest one comes into the window."""
    keys, sizes, deepest = book.keys[side], book.sizes[side], book.keys.shape[1] - 1
    key, entering = keys[i], keys[deepest] + 1 + np.int64(state["step"] * exponential(state))
    if not _is_free(changes, side, key):
        return
    while not _is_free(changes, side, entering):
        entering += 1
    for k in range(i, deepest):
        keys[k], sizes[k] = keys[k + 1], sizes[k + 1]
    keys[deepest], sizes[deepest] = entering, size_of(state)
    _note(changes, side, key, 0)
    _note(changes, side, entering, sizes[deepest])


@kernel
def _insert(state, book, changes, side, i, key):
    """A level comes in before level i, and the deepest one leaves the window."""
    keys, sizes, deepest = book.keys[side], book.sizes[side], book.keys.shape[1] - 1
    if not _is_free(changes, side, key) or not _is_free(changes, side, keys[deepest]):
        return
    _note(changes, side, keys[deepest], 0)
    for k in range(deepest, i, -1):
        keys[k], sizes[k] = keys[k - 1], sizes[k - 1]
    keys[i], sizes[i] = key, size_of(state)
    _note(changes, side, key, sizes[i])


@kernel
def _change(state, book, changes):
    """One thing happens to the book: a size changes, a level goes, or one comes. Bids stay below asks."""
    u, side, depth = draw(state), 0 if draw(state) < 0.5 else 1, book.keys.shape[1]
    i = min(depth - 1, np.int64(exponential(state) * (1.0 + depth / 12.0)))
    if u < 0.62:
        _modify(state, book, changes, side, i)
        return
    # The touch goes and comes more often than others; which side's goes decides where the price moves.
    middle = 0.5 * (book.keys[1, 0] - book.keys[0, 0])
    pull = min(1.0, max(-1.0, (middle - state["centre"]) / PULL))
    room = book.keys[0, 0] + book.keys[1, 0] - 1  # ticks inside the spread
    if u < 0.68:
        side, i = 0 if draw(state) < 0.5 + 0.4 * pull else 1, 0
    # Fewer levels go where they lie far apart already: twice the usual width stops it.
    width = (book.keys[side, depth - 1] - book.keys[side, 0]) / (depth * (1.0 + state["step"]))
    if u < 0.68 + 0.13 * min(1.0, max(0.0, 2.0 - width)):
        # A spread that is wide does not get wider.
        if i > 0 or room + book.keys[side, 1] - book.keys[side, 0] < WIDE:
            _remove(state, book, changes, side, i)
    elif room > 0 and (room >= WIDE or draw(state) < 0.6):
        _insert(state, book, changes, side, 0, book.keys[side, 0] - 1 - min(room - 1, np.int64(2.0 * exponential(state))))
    elif i + 1 < depth and book.keys[side, i + 1] - book.keys[side, i] > 1:
        gap = book.keys[side, i + 1] - book.keys[side, i] - 1
        _insert(state, book, changes, side, i + 1, book.keys[side, i] + 1 + np.int64(draw(state) * gap))


@kernel
def next_message(state, book, changes):
    """Change the book by about state["mean"] levels, at least one, and fill `changes` with them."""
    changes.filled[:] = 0
    wanted = 1 + np.int64(exponential(state) * max(0.0, state["mean"] - 1.0))
    for _ in range(4 * wanted + 8):
        if changes.filled[0] + changes.filled[1] >= wanted or max(changes.filled[0], changes.filled[1]) > MOST_CHANGES - 4:
            break
        _change(state, book, changes)
    if changes.filled[0] + changes.filled[1] == 0:
        _modify(state, book, changes, 0, 0)
    state["update_id"] += 1
    state["sequence"] += 1 + np.int64(exponential(state) * 20.0)


@kernel
def fill_book(state, book):
    """A book round the centre, full on both sides."""
    for side in range(2):
        key = (state["centre"] if side == 1 else -state["centre"]) + side
        for i in range(book.keys.shape[1]):
            book.keys[side, i], book.sizes[side, i] = key, size_of(state)
            key += 1 + np.int64(state["step"] * exponential(state))
