"""Whether the messages of a depth source are of the day that it is filed under: what lies on other days is in no row of its own day's layers."""

from __future__ import annotations

import numpy as np

from tasks.depth_recipe import DepthSource
from tasks.errors import SourceError

# Archives begin a moment before midnight and end with the next day's first snapshot, which comes when the feed is back.
AROUND_NS = 3_600_000_000_000


class DaySpan:
    """span: times of sending of the first and the last message in file order, -1 for none; inside: messages of the day; outside: those more than
    AROUND_NS before or after it."""

    def __init__(self, source: DepthSource) -> None:
        self._source, self.span, self.inside, self.outside = source, (-1, -1), 0, 0

    def add(self, ts: np.ndarray) -> None:
        """Count messages. ts int64[n]: times of sending in ns."""
        if len(ts):
            start, end = self._source.window
            self.span = self.span[0] if self.span[0] >= 0 else int(ts[0]), int(ts[-1])
            self.inside += int(np.count_nonzero((ts >= start) & (ts < end)))
            self.outside += int(np.count_nonzero((ts < start - AROUND_NS) | (ts >= end + AROUND_NS)))

    def check(self) -> None:
        """Raise SourceError when the file is not of its day: no message lies in it, or more outside of it than inside. A day that was taken from the
        first row, as the name has none, is refused with one message outside: which day was meant cannot be told."""
        file, day, (start, end) = self._source.file, self._source.file.dates[0], self._source.window
        first, last = (str(np.datetime64(ns, "ns").astype("datetime64[s]")) for ns in self.span)
        times = f"its messages are of {first} to {last} UTC"
        if self.span[0] >= 0 and (self.span[1] < start or self.span[0] >= end):
            raise SourceError(file.path, f"{times}, none of {day}, the day in its name", remedy="Give it the name of its day")
        is_named = day in f"{file.path}:{file.member}".replace("/", "-")
        if self.outside > (self.inside if is_named else 0):
            told = "the day in its name" if is_named else "the day of its first row, as its name has none"
            raise SourceError(
                file.path, f"{times}, {self.inside:,} of them of {day}, {told}, and {self.outside:,} of other days",
                remedy="Split it into a file a day, and put each one's day into its name",
            )  # fmt: skip
