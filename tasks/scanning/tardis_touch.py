"""Tardis.dev quotes as a depth feed of one level: every row replaces the book by its best bid and offer."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import numpy as np

from tasks.depth_batches import ASK, BID, NO_ID, SNAPSHOT, DepthBatch
from tasks.scanning.tardis_quotes import ASK_AMOUNT, ASK_PRICE, BID_AMOUNT, BID_PRICE, QuoteBatch, TardisQuotes
from tasks.schemas import UNDEF_PRICE

_PLACES = ((BID, BID_PRICE, BID_AMOUNT), (ASK, ASK_PRICE, ASK_AMOUNT))


def open_tardis_touch(path: str | Path, symbol: str = "") -> TardisTouch:
    """A DepthReader of a quotes file. Errors: see tardis_rows.TardisRows."""
    return TardisTouch(path, symbol)


class TardisTouch:
    """DepthReader (tasks/depth_batches.py) of quotes."""

    depth, lines_are_updates = 1, False

    def __init__(self, path: str | Path, symbol: str = "") -> None:
        self._quotes = TardisQuotes(path, symbol)

    @property
    def symbol(self) -> str:
        """As in the file, or as asked for."""
        return self._quotes.symbol

    @property
    def lines(self) -> int:
        """Rows met so far."""
        return self._quotes.lines

    @property
    def left_out(self) -> dict[str, int]:
        """Rows of other symbols."""
        return self._quotes.left_out

    @property
    def bytes_read(self) -> int:
        """Of the file as stored."""
        return self._quotes.bytes_read

    def batches(self, batch_bytes: int) -> Generator[DepthBatch, None, None]:
        """The quotes of about `batch_bytes` of text at a time, each as a snapshot; a side that is empty has no update."""
        for batch in self._quotes.batches(batch_bytes):
            yield _as_depth(batch)

    def close(self) -> None:
        """Stop reading; harmless when done."""
        self._quotes.close()


def _as_depth(quotes: QuoteBatch) -> DepthBatch:
    n = len(quotes)
    there = np.stack([quotes.numbers[price] != UNDEF_PRICE for _, price, _ in _PLACES], axis=1)  # row by row, the bid first
    first = np.zeros(n + 1, np.int64)
    np.cumsum(there.sum(axis=1), out=first[1:])

    def interleaved(bid: np.ndarray, ask: np.ndarray) -> np.ndarray:
        return np.stack([bid, ask], axis=1)[there]

    (_, bid_px, bid_sz), (_, ask_px, ask_sz) = _PLACES
    numbers, digits = quotes.numbers, quotes.digits
    ids = np.full(n, NO_ID, np.int64)
    return DepthBatch(
        np.full(n, SNAPSHOT, np.uint8), quotes.ts, quotes.cts, ids, ids, quotes.line, quotes.offset, first,
        side=interleaved(np.full(n, BID, np.uint8), np.full(n, ASK, np.uint8)), price=interleaved(numbers[bid_px], numbers[ask_px]),
        size=interleaved(numbers[bid_sz], numbers[ask_sz]), price_digits=interleaved(digits[bid_px], digits[ask_px]),
        size_digits=interleaved(digits[bid_sz], digits[ask_sz]), bad=quotes.bad,
    )  # fmt: skip
