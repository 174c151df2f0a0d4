"""Resting size by column and price bin from the naive book, event by event. Twin of tasks/reconstruction/heat_kernels.py."""

from __future__ import annotations

import numpy as np

from tests.oracles.naive_book import NaiveBook


def naive_heatmap(records: np.ndarray, edges: np.ndarray, low: int, step: int, rows: int) -> np.ndarray:
    """float64[2, rows, len(edges) - 1]: time-weighted mean size per pixel; the book is as of the last complete event. edges int64 ns."""
    plane = np.zeros((2, rows, len(edges) - 1))
    book, held, since = NaiveBook(), np.zeros((2, rows)), edges[0]
    time = None
    for record in records:
        book.apply(record)
        time = max(time or 0, int(record["ts_recv"]))
        if not book.event_end:
            continue
        _hold(plane, held, edges, since, time)
        since = max(since, time)
        held = np.zeros((2, rows))
        for side, name in enumerate("BA"):
            for price, size, _ in book.levels(name):
                row = (price - low) // step
                if 0 <= row < rows:
                    held[side, row] += size
    _hold(plane, held, edges, since, edges[-1])
    return plane


def _hold(plane, held, edges, start, end):
    for column in range(len(edges) - 1):
        left, right = edges[column], edges[column + 1]
        share = max(0.0, min(end, right) - max(start, left)) / (right - left)
        plane[:, :, column] += held * share
