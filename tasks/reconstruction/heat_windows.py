"""The windows in which outputs are wanted, as a heatmap looks at them: what lies inside, how much of them has passed, where none is open."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from tasks.reconstruction.sample_kernels import NEVER

Span = tuple[int, int, str, str]  # start ns, end ns, status, reason


class HeatWindows:
    """Half-open windows (start ns, end ns), ascending and disjoint; None is all of time. Times are int64[n] ns, not negative.

    gaps: (end of a window, start of the next one) of each pair of neighbours.
    """

    def __init__(self, windows: Sequence[Sequence[int]] | None = None) -> None:
        self._spans = np.array([(0, NEVER)] if windows is None else windows, np.int64).reshape(-1, 2)
        self._borders = self._spans.reshape(-1)
        self._passed = np.concatenate([[0], np.cumsum(self._spans[:, 1] - self._spans[:, 0])])
        self.gaps = tuple(zip(self._spans[:-1, 1].tolist(), self._spans[1:, 0].tolist(), strict=True))

    def holds(self, times: np.ndarray) -> np.ndarray:
        """bool[n] whether each time lies in a window."""
        return np.searchsorted(self._borders, times, side="right") % 2 == 1

    def opened(self, times: np.ndarray) -> np.ndarray:
        """int64[n] start of the window that holds the moment before each time, NEVER where none does."""
        place = np.searchsorted(self._borders, times, side="left")
        return np.where(place % 2 == 1, np.concatenate([[NEVER], self._borders])[place], NEVER)

    def passed(self, times: np.ndarray) -> np.ndarray:
        """int64[n] ns of the windows that lie before each time."""
        place = np.searchsorted(self._borders, times, side="right")
        return self._passed[(place + 1) // 2] - np.where(place % 2 == 1, np.concatenate([self._borders, [0]])[place] - times, 0)

    def cut(self, spans: Iterable[Span]) -> list[Span]:
        """The parts of `spans` that lie in a window; of those without a length, those that do."""
        found = []
        for start, end, status, reason in spans:
            for a, b in self._spans.tolist():
                low, high = max(start, a), min(end, b)
                if low < high or start == end == low == high:
                    found.append((low, high, status, reason))
        return found
