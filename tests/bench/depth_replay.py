"""How fast the price-level replay is, on a feed made in memory: `python -m tests.bench.depth_replay [--messages N] [--drift P] [--trend P]`.

The feed is in the manner of a Bybit day of depth 500: a message each 100 ms with some 20 updates, sorted best first, most of them near the touch,
each second one inserts or deletes; prices with two decimals and a tick of 0.10, and a middle that wanders. Prints the nanoseconds an update of the
best run, of them for scale and ranks, and what a day of 14.6M updates would take.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import numpy as np

from tasks.depth_batches import DepthBatch
from tasks.kernels import inner, kernel
from tasks.reconstruction.depth_replay import DepthReplay
from tests.bench.measure import machine

MINUTE = 60_000_000_000
START_NS = 1_700_006_400_000_000_000
KEEP, DEPTHS = 500, (200, 500)
BATCH_MESSAGES = 2_000  # some 1 MB of text
TICKS = 1 << 20
DAY_UPDATES = 14_600_000


@inner
def uniform(state):
    """The next number in [0, 1) of a xorshift generator uint64[1]."""
    s = state[0]
    s ^= s << np.uint64(13)
    s ^= s >> np.uint64(7)
    s ^= s << np.uint64(17)
    state[0] = s
    return np.float64(s >> np.uint64(11)) / 9007199254740992.0


@kernel
def make_messages(state, live, middle, drift, trend, is_first, first, side, price, size):
    """Updates of first.shape[0] - 1 messages. live uint8[2, TICKS]: levels; returns the middle. Prices in ticks of 10 units of 0.01."""
    m = 0
    for i in range(first.shape[0] - 1):
        first[i] = m
        r = uniform(state)
        middle += np.int64(r < drift + trend) - np.int64(r > 1 - drift)
        for s in range(2):
            away = np.int64(-3)
            while away <= 650:
                tick = middle - away if s == 0 else middle + away
                r = uniform(state)
                # Levels that the middle has passed go; a snapshot has three of four levels.
                if (away <= 0 and live[s, tick] != 0) or (away > 0 and (not is_first or i > 0 or r < 0.75)):
                    deleted = away <= 0 or (live[s, tick] != 0 and r < 0.3)
                    live[s, tick] = 0 if deleted else 1
                    side[m], price[m], size[m] = s, 10 * tick, 0 if deleted else 1 + np.int64(r * 65_536)
                    m += 1
                if (is_first and i == 0) or away < 0:
                    away += 1
                else:
                    rate = max(0.3 * np.exp(-away / 12.0), 0.007)
                    away += 1 + np.int64(np.log(uniform(state) + 1e-300) / np.log1p(-rate))
    first[first.shape[0] - 1] = m
    return middle


def batches(messages: int, drift: float, trend: float) -> Iterator[DepthBatch]:
    """The feed in batches; drift: chance of a step of the middle up, and down, in each message; trend: how much likelier up is."""
    state, live, middle = np.full(1, 88_172_645_463_325_252, np.uint64), np.zeros((2, TICKS), np.uint8), TICKS // 2
    room = BATCH_MESSAGES * 60
    for at in range(0, messages, BATCH_MESSAGES):
        n = min(BATCH_MESSAGES, messages - at)
        first, side = np.zeros(n + 1, np.int64), np.zeros(room, np.uint8)
        price, size = np.zeros(room, np.int64), np.zeros(room, np.int64)
        middle = int(make_messages(state, live, middle, drift, trend, at == 0, first, side, price, size))
        m, number = int(first[-1]), np.arange(at, at + n)
        ts = START_NS + number * 100_000_000
        yield DepthBatch(
            kind=(number > 0).astype(np.uint8), ts=ts, cts=ts - 2_000_000, update_id=number + 5, sequence=number * 7, line=number,
            offset=number * 500, first=first, side=side[:m], price=price[:m], size=size[:m],
            price_digits=np.full(m, 2, np.uint8), size_digits=np.full(m, 3, np.uint8),
        )  # fmt: skip


def replayed(feed: list[DepthBatch], interval_ns: int = MINUTE) -> tuple[float, float, DepthReplay, int]:
    """(seconds in all, of them for scale and ranks, the replay, grid rows)."""
    end = int(feed[-1].ts[-1]) + 1
    replay = DepthReplay(
        depths=DEPTHS, keep=KEEP, interval_ns=interval_ns, windows=[(START_NS, end)], clock="cts", size_digits=3, stale_after_ns=10**10
    )
    take, ranks, rows = replay.book.take, 0.0, 0

    def timed(batch: DepthBatch) -> tuple[np.ndarray, np.ndarray]:
        nonlocal ranks
        start = time.perf_counter()
        found = take(batch)
        ranks += time.perf_counter() - start
        return found

    replay.book.take = timed  # type: ignore[method-assign]
    start = time.perf_counter()
    for batch in feed:
        for samples in replay.feed(batch):
            rows += samples.n_grid
    for samples in replay.finish():
        rows += samples.n_grid
    return time.perf_counter() - start, ranks, replay, rows


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--drift", type=float, default=0.1, help="chance of a step of the middle up, and down, in each message")
    parser.add_argument("--trend", type=float, default=0.02, help="how much likelier a step up is: 0.02 goes 16,000 ticks in a day")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    feed = list(batches(options.messages, options.drift, options.trend))
    updates = sum(len(batch.side) for batch in feed)
    deletes = sum(int((batch.size == 0).sum()) for batch in feed)
    replayed(feed[:2])
    best, ranks, replay, rows = min((replayed(feed) for _ in range(options.repeat)), key=lambda run: run[0])
    facts = replay.facts()
    told = machine()
    print(f"{told['cpu']}, load {told['load']:.1f}; {options.messages:,} messages, {updates:,} updates, {deletes / updates:.0%} of them delete")
    print(f"replay      {best / updates * 1e9:6.1f} ns an update ({ranks / updates * 1e9:.1f} of it scale and ranks), {best:.3f} s")
    print(f"a day       {best / updates * DAY_UPDATES:6.3f} s for {DAY_UPDATES:,} updates")
    print(f"{rows:,} grid rows of {KEEP} levels, {facts['bid_levels']} bids, {facts['ask_levels']} asks, {facts['pruned']:,} pruned,", end=" ")
    print(f"{facts['crossed']} crossed, {len(replay.book.arrays.prices):,} prices known")


if __name__ == "__main__":
    main()
