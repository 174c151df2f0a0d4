"""Integrity of a book against its own orders: no empty or negative level, each level's size and count those of its orders, queues whole.

A difference is a fault of the program (or of the machine's memory), never of the data: the rebuild stops. What data can do to a book
(unknown ids, crossed prices) is counted in book_kernels.py and replay_kernels.py. Twin: NaiveBook.consistent in tests/oracles/naive_book.py
"""

from __future__ import annotations

import numpy as np

from tasks.kernels import inner, kernel
from tasks.reconstruction.book_kernels import TOP_LEVEL, TOP_SIZE, TOUCHED, UNAUDITED


@inner
def is_whole(book, width, place):
    """Whether the level at `place` (side * width + index) says what its orders say."""
    level = book.levels[place]
    count = level["count"]
    if count <= 0:
        return count == 0 and level["size"] == 0
    side = place // width
    size = 0
    seen = 0
    if book.state[TOP_LEVEL + side] == place - side * width:  # a top-of-book record is a part of the level and no order
        size = book.state[TOP_SIZE + side]
        seen = 1
    before = -1
    reference = level["head"] if count > seen else -1
    while reference >= 0 and seen < count:
        order = book.orders[reference]
        if order["size"] <= 0 or order["side"] != side or order["level"] != place - side * width or order["prev"] != before:
            return False
        size += order["size"]
        seen += 1
        before = reference
        reference = order["next"]
    return reference < 0 and seen == count and size == level["size"] and (before < 0 or before == level["tail"])


@kernel
def audit(book, width):
    """Check the levels touched since the last audit, or all when they were too many to note. Returns the place of a broken one, -1 for none.

    A queue is walked whole, in no order of memory. After every event that trebles the time of a replay, every 256 events it doubles it, every 4,096
    it takes 40 ns a record, as much as the replay itself, every 65,536 less than 3 (measured). When it is found does not matter to what is
    published: a broken level stops the partition.
    """
    touched = book.state[TOUCHED]
    book.state[TOUCHED] = 0
    book.state[UNAUDITED] = 0
    few = touched <= book.touched.shape[0]
    for k in range(touched if few else 2 * width):
        place = np.int64(book.touched[k]) if few else k
        book.levels[place]["noted"] = 0
        if not is_whole(book, width, place):
            return place
    return -1
