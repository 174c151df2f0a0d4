"""The heatmap's accumulation against its naive twin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from tasks.reconstruction.heat_kernels import accumulate, price_rows, settle_all
from tasks.reconstruction.replay import Replay
from tasks.reconstruction.replay_kernels import Batch
from tasks.schemas import EVENT_DTYPES, F_LAST
from tests.oracles.naive_heatmap import naive_heatmap
from tests.strategies.sessions import sessions
from tests.unit.test_replay import generated, one_book

WIDTH = 7


def fast_heatmap(records: np.ndarray, edges: np.ndarray, low: int, step: int, rows: int) -> np.ndarray:
    columns = {name: records[name].astype(dtype) for name, dtype in EVENT_DTYPES.items()}
    replay = Replay(depth=1, windows=[])
    n = len(records)
    rank = np.zeros(n, np.int32)
    replay.book.ranks(columns["price"], rank)
    clock = np.maximum.accumulate(columns["ts_recv"])
    ends = np.flatnonzero(columns["flags"] & F_LAST)
    x = (clock - edges[0]) * (WIDTH / (edges[-1] - edges[0]))
    following = np.searchsorted(ends, np.arange(n))
    x[following < len(ends)] = x[ends[following[following < len(ends)]]]
    x[following >= len(ends)] = WIDTH + 1.0  # what no event end completes is not seen
    names = ("action", "side", "flags", "size", "order_id", "sequence")
    batch = Batch(**{k: columns[k] for k in names}, rank=rank, clock=clock, marks=np.zeros(0, np.int64))
    plane, held, since = np.zeros((2, rows, WIDTH)), np.zeros((2, rows)), np.zeros((2, rows))
    row_of = np.zeros(len(replay.book.arrays.prices), np.int32)
    price_rows(replay.book.arrays.prices, low, step, rows, row_of)
    assert accumulate(batch, 0, n, x, replay.book.arrays, plane, held, since, row_of) == n
    settle_all(plane, held, since, float(WIDTH))
    return plane


@generated
@given(sessions())
def test_each_pixel_is_the_time_weighted_mean_of_the_size_that_rested_in_it(records):
    records = one_book(records)
    prices = records["price"][records["price"] != 2**63 - 1]
    if len(prices) == 0:
        return
    times = np.maximum.accumulate(records["ts_recv"].astype(np.int64))
    column = (int(times[-1]) - int(times[0])) // WIDTH + 1
    edges = int(times[0]) + column * np.arange(WIDTH + 1)  # integers: a float holds an epoch time to 256 ns only
    low, step, rows = int(prices.min()), max((int(prices.max()) - int(prices.min())) // 3, 1), 4
    assert fast_heatmap(records, edges, low, step, rows) == pytest.approx(naive_heatmap(records, edges, low, step, rows), rel=1e-6, abs=1e-4)
