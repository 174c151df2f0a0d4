"""Counts of a run, for whoever shows them: what is done, how fast, how long still. No output of any kind."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

# The rate is that of the last seconds: partitions differ, and a rate over the whole run answers too slowly.
WINDOW_S = 15.0


@dataclass
class Part:
    """One partition (or source). rows, size: what is expected, -1 unknown; done_*: so far. size in bytes as stored."""

    rows: int = -1
    size: int = -1
    done_rows: int = 0
    done_size: int = 0
    finished: bool = False

    @property
    def share(self) -> float:
        """0 to 1, by bytes where expected, else by rows; 0 until the end where neither is."""
        if self.finished:
            return 1.0
        for done, expected in ((self.done_size, self.size), (self.done_rows, self.rows)):
            if expected > 0:
                return min(1.0, done / expected)
        return 0.0


@dataclass(frozen=True)
class Snapshot:
    """The state of a run at a moment. eta_s: None while nothing can be said. percent: 0 to 100, and 100 only when all parts are finished."""

    parts: int
    finished: int
    rows: int
    size: int
    percent: float
    rows_per_s: float
    eta_s: float | None
    elapsed_s: float

    def line(self) -> str:
        """42.0%, 3/12 partitions, 12,345,678 rows, 2,100,000 rows/s, 1:10 left"""
        left = "" if self.eta_s is None or self.percent >= 100 else f", {clock(self.eta_s)} left"
        return f"{self.percent:.1f}%, {self.finished:,}/{self.parts:,} partitions, {self.rows:,} rows, {self.rows_per_s:,.0f} rows/s{left}"


def clock(seconds: float) -> str:
    """0:42, 12:05, 3:00:07."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


@dataclass
class Tally:
    """Running counts. Not thread-safe: the caller locks. now: a clock in seconds, replaced by tests."""

    now: Callable[[], float] = time.monotonic
    parts: dict[str, Part] = field(default_factory=dict)
    rows: int = 0
    size: int = 0

    def __post_init__(self) -> None:
        self._start = self.now()
        self._window: deque[tuple[float, int, float]] = deque([(self._start, 0, 0.0)])

    def expect(self, key: str, rows: int = -1, size: int = -1) -> None:
        """Announce a part; announcing it again (a retry) starts it anew."""
        old = self.parts.get(key)
        if old is not None:
            self.rows -= old.done_rows
            self.size -= old.done_size
        self.parts[key] = Part(rows, size)

    def advance(self, key: str, rows: int, size: int) -> None:
        """Count work on a part; an unknown one is taken up."""
        part = self.parts.setdefault(key, Part())
        part.done_rows += rows
        part.done_size += size
        self.rows += rows
        self.size += size

    def finish(self, key: str) -> None:
        """The part is done, by work or because it was done before."""
        self.parts.setdefault(key, Part()).finished = True

    def snapshot(self) -> Snapshot:
        """The state now; call it regularly, the rate comes from one call to the next."""
        now, done = self.now(), sum(p.finished for p in self.parts.values())
        share = self._share()
        self._window.append((now, self.rows, share))
        while len(self._window) > 2 and now - self._window[1][0] > WINDOW_S:
            self._window.popleft()
        then, rows, old_share = self._window[0]
        seconds = max(1e-9, now - then)
        pace = (share - old_share) / seconds
        everything = bool(self.parts) and done == len(self.parts)
        eta = 0.0 if everything else (1 - share) / pace if pace > 0 else None
        percent = 100.0 if everything else min(99.9, share * 100)
        return Snapshot(len(self.parts), done, self.rows, self.size, percent, max(0.0, (self.rows - rows) / seconds), eta, now - self._start)

    def _share(self) -> float:
        """Part of the whole that is done: parts weigh by bytes where all have them, else by rows, else alike."""
        parts = self.parts.values()
        for weights in ([p.size for p in parts], [p.rows for p in parts]):
            if weights and min(weights) >= 0 and sum(weights) > 0:
                return sum(p.share * w for p, w in zip(parts, weights, strict=True)) / sum(weights)
        return sum(p.share for p in parts) / len(parts) if parts else 0.0
