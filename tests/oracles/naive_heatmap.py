"""Resting size by column and price bin from the naive book, event by event. Twin of tasks/reconstruction/heat_kernels.py."""

from __future__ import annotations

import numpy as np

from tests.oracles.naive_book import NaiveBook


def naive_heatmap(records: np.ndarray, edges: np.ndarray, low: int, step: int, rows: int, windows=None) -> np.ndarray:
    """float64[2, rows, len(edges) - 1]: time-weighted mean size per pixel; the book is as of the last complete event. edges int64 ns.

    windows: half-open spans of time outside of which nothing is drawn, None for all.
    """
    plane = np.zeros((2, rows, len(edges) - 1))
    windows = [(int(edges[0]), int(edges[-1]))] if windows is None else windows
    book, held, since = NaiveBook(), np.zeros((2, rows)), edges[0]
    time = None
    for record in records:
        book.apply(record)
        time = max(time or 0, int(record["ts_recv"]))
        if not book.event_end:
            continue
        for start, end in windows:
            _hold(plane, held, edges, max(since, start), min(time, end))
        since = max(since, time)
        held = _resting(book, low, step, rows)
    for start, end in windows:
        _hold(plane, held, edges, max(since, start), min(edges[-1], end))
    return plane


def naive_event_heatmap(records: np.ndarray, width: int, low: int, step: int, rows: int, windows) -> np.ndarray:
    """float64[2, rows, width]: the same by event: each event that ends in a window has an equal share of the picture, with the book before it."""
    books, book, held, time = [], NaiveBook(), np.zeros((2, rows)), 0
    for record in records:
        book.apply(record)
        time = max(time, int(record["ts_recv"]))
        if book.event_end:
            if any(start <= time < end for start, end in windows):
                books.append(held)
            held = _resting(book, low, step, rows)
    plane, edges = np.zeros((2, rows, width)), len(books) * np.arange(width + 1)
    for k, held in enumerate(books):
        _hold(plane, held, edges, k * width, (k + 1) * width)
    return plane


def naive_touch(records: np.ndarray, time: int) -> list[int | None]:
    """[best bid, best ask] after the last complete event before a time."""
    book, best, now = NaiveBook(), [None, None], 0
    for record in records:
        book.apply(record)
        now = max(now, int(record["ts_recv"]))
        if now >= time:
            break
        if book.event_end:
            best = [next((price for price, _, _ in book.levels(side)), None) for side in "BA"]
    return best


def _resting(book: NaiveBook, low: int, step: int, rows: int) -> np.ndarray:
    held = np.zeros((2, rows))
    for side, name in enumerate("BA"):
        for price, size, _ in book.levels(name):
            row = (price - low) // step
            if 0 <= row < rows:
                held[side, row] += size
    return held


def _hold(plane, held, edges, start, end):
    for column in range(len(edges) - 1):
        left, right = edges[column], edges[column + 1]
        share = max(0.0, min(end, right) - max(start, left)) / (right - left)
        plane[:, :, column] += held * share
