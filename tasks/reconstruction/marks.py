"""Where rows of the source are missing from an events file, or one of published books, as its footer tells.

The footer lists so many rows and no more (`suspect_rows_capped`). Behind the last one listed any row may be missing, so each counts as a mark there:
a snapshot makes no book valid again, since a row of it, or one after it, may be among those that are not listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


class Marks:
    """Rows of a file before which one was set aside. facts: of its footer; rows: how many it has."""

    def __init__(self, facts: Mapping[str, Any], rows: int) -> None:
        self._listed = np.array(facts.get("suspect_rows", []), np.int64)
        self._open = int(self._listed[-1]) + 1 if facts.get("suspect_rows_capped") else np.iinfo(np.int64).max
        # Marks at or behind the end of the file: rows were set aside after its last.
        self.at_end = len(self._listed) > 0 and (int(self._listed[-1]) >= rows or self._open <= rows)

    def within(self, start: int, end: int) -> np.ndarray:
        """int64[m] ascending: those in rows [start, end), counted from start."""
        low, high = np.searchsorted(self._listed, [start, end])
        unlisted = np.arange(max(start, self._open), end) if self._open < end else self._listed[:0]
        return np.concatenate([self._listed[low:high], unlisted]) - start
