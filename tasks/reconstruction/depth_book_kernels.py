"""The rules of a book of price levels: absolute sizes, 0 deletes, and no more than so many levels a side. Arrays and integers only.

A side is an array with a place for every known price, best first: the place of a bid is mirrored (width - 1 - rank), so that both sides look
for their best from the left. Messages, ids and samples are in depth_replay_kernels.py. Twin: tests/oracles/naive_depth.py

Measured on 9.3M updates of 400,000 messages, 500 levels a side, 23% of them delete (ns an update, without samples): this 14, 7 of them for scale
and ranks; arrays sorted by price, best of four searches from the last update's place, that shift the shorter way, 40 to 43: half of all updates
insert or delete, and each moves about 100 levels.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from tasks.kernels import inner, kernel
from tasks.schemas import UNDEF_PRICE

# prices int64[width] ascending; size int64[2, width] by place, 0 for no level; price_digits, size_digits uint8[2, width] as last written;
# state int64[BOOK_STATE]
Book = namedtuple("Book", "prices size price_digits size_digits state")

# Index of the bid side; the ask side is the next one.
BEST = 0  # place of the best level, width when there is none
WORST = 2  # place of the last level, -1 when there is none
COUNT = 4  # levels
STATUS, REASON = 6, 7  # positions in tasks.schemas.STATUSES and REASONS
LAST_ID = 8  # last update id applied, NO_ID before the first
BOOK_STATE = 9

# Levels of both sides, best first: px, sz, ct int64[2, room], ct all -1 (not told); count int64[2]
Image = namedtuple("Image", "px sz ct count")


@inner
def price_at(book, side, place):
    """Price of a place."""
    return book.prices[book.prices.shape[0] - 1 - place if side == 0 else place]


@inner
def apply_updates(book, batch, i):
    """Set the levels of message i. Returns how many deleted a level that was not there; `settle` both sides afterwards."""
    state = book.state
    width = book.prices.shape[0]
    u = batch.first[i]
    end = batch.first[i + 1]
    absent = np.int64(0)
    while u < end:
        side = np.int64(batch.side[u])
        sizes = book.size[side]
        price_digits = book.price_digits[side]
        size_digits = book.size_digits[side]
        start, step = (width - 1, -1) if side == 0 else (0, 1)
        best = state[BEST + side]
        worst = state[WORST + side]
        count = state[COUNT + side]
        # A run of one side. The count has no branch: whether a level is new or deleted is a coin's toss.
        while u < end and batch.side[u] == side:
            place = start + step * np.int64(batch.rank[u])
            size = batch.size[u]
            was = sizes[place]
            count += np.int64(size != 0) - np.int64(was != 0)
            absent += np.int64((size | was) == 0)
            sizes[place] = size
            price_digits[place] = batch.price_digits[u]
            size_digits[place] = batch.size_digits[u]
            if size != 0:
                best = min(best, place)
                worst = max(worst, place)
            u += 1
        state[BEST + side] = best
        state[WORST + side] = worst
        state[COUNT + side] = count
    return absent


@inner
def settle(book, side, keep):
    """Find the ends of a side after a message and cut it to `keep` levels. Returns how many were cut off."""
    state = book.state
    sizes = book.size[side]
    count = state[COUNT + side]
    if count == 0:
        state[BEST + side] = book.prices.shape[0]
        state[WORST + side] = -1
        return 0
    best = state[BEST + side]
    while sizes[best] == 0:
        best += 1
    state[BEST + side] = best
    worst = state[WORST + side]
    cut = 0
    while sizes[worst] == 0 or count > keep:
        if sizes[worst] != 0:
            sizes[worst] = 0
            count -= 1
            cut += 1
        worst -= 1
    state[WORST + side] = worst
    state[COUNT + side] = count
    return cut


@inner
def clear(book):
    """Delete all levels."""
    for side in range(2):
        for place in range(book.state[BEST + side], book.state[WORST + side] + 1):
            book.size[side, place] = 0
        book.state[BEST + side] = book.prices.shape[0]
        book.state[WORST + side] = -1
        book.state[COUNT + side] = 0


@inner
def take_image(book, image):
    """Copy the levels of both sides."""
    for side in range(2):
        level = 0
        for place in range(book.state[BEST + side], book.state[WORST + side] + 1):
            if book.size[side, place] != 0:
                image.px[side, level] = price_at(book, side, place)
                image.sz[side, level] = book.size[side, place]
                level += 1
        image.count[side] = level


@inner
def copy_top(book, px, sz, price_digits, size_digits, r, depth):
    """Write the best `depth` levels as row r of px, sz int64[2 * depth, room] and the digits uint8 of the same shape; level * 2 + side."""
    for side in range(2):
        level = 0
        place = book.state[BEST + side]
        levels = min(depth, book.state[COUNT + side])
        while level < levels:
            if book.size[side, place] != 0:
                k = 2 * level + side
                px[k, r] = price_at(book, side, place)
                sz[k, r] = book.size[side, place]
                price_digits[k, r] = book.price_digits[side, place]
                size_digits[k, r] = book.size_digits[side, place]
                level += 1
            place += 1
        for k in range(2 * level + side, 2 * depth, 2):
            px[k, r] = UNDEF_PRICE
            sz[k, r] = 0
            price_digits[k, r] = 0
            size_digits[k, r] = 0


@kernel
def move_levels(old, new, moved):
    """Put all levels of `old` into the empty book `new` of another list of prices; moved int32[old width]: new rank of each old one."""
    old_width = old.prices.shape[0]
    width = new.prices.shape[0]
    for k in range(BOOK_STATE):
        new.state[k] = old.state[k]
    for side in range(2):
        new.state[BEST + side] = width
        new.state[WORST + side] = -1
        for place in range(old.state[BEST + side], old.state[WORST + side] + 1):
            if old.size[side, place] != 0:
                at = width - 1 - np.int64(moved[old_width - 1 - place]) if side == 0 else np.int64(moved[place])
                new.size[side, at] = old.size[side, place]
                new.price_digits[side, at] = old.price_digits[side, place]
                new.size_digits[side, at] = old.size_digits[side, place]
                new.state[BEST + side] = min(new.state[BEST + side], at)
                new.state[WORST + side] = at


@kernel
def read_image(book, image):
    """`take_image` for callers outside of a kernel; the image has room for all levels."""
    take_image(book, image)
