"""Depth snapshots as CSV files, a line per grid time, prices and sizes as the feed wrote them.

The layout is that of the converter which this flow replaces: `[timestamp_formatted,]timestamp,bid_price_1,bid_qty_1,...,ask_price_1,...`, time in
ms, best level first, empty cells where a side has fewer levels. It has no column for the status: that is in the lake.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import numpy as np

from tasks.reconstruction.depth_text_kernels import CELL_BYTES, put_rows
from tasks.specs import interval_name

_HEAD_BYTES = 48
_POWER = 10 ** np.arange(19, dtype=np.int64)


def csv_path(folder: Path, depth: int, symbol: str, date: str, interval_ns: int) -> Path:
    """0200/BTCUSDT/2025-01-01_BTCUSDT_ob200_1m.csv; below `folder` whatever the symbol is"""
    name = path_name(symbol)
    return folder / f"{depth:04d}" / name / f"{date}_{name}_ob{depth}_{interval_name(interval_ns)}.csv"


def path_name(text: str) -> str:
    """One part of a path: quoted as in the lake (XBT/USD is XBT%2FUSD), dots too where there is nothing else."""
    return quote(text, safe="") if text.strip(".") else text.replace(".", "%2E")


def header(depth: int, *, formatted: bool) -> bytes:
    """The first line."""
    names = ["timestamp_formatted"] * formatted + ["timestamp"]
    names += [f"{side}_{what}_{level}" for side in ("bid", "ask") for level in range(1, depth + 1) for what in ("price", "qty")]
    return (",".join(names) + "\n").encode("ascii")


class CsvWriter:
    """Lines of one file. file: open for writing, and closed by its owner; the header is written at once."""

    def __init__(self, file: BinaryIO, depth: int, *, formatted: bool) -> None:
        self._file, self._depth, self._formatted = file, depth, formatted
        self._buffer = np.zeros(0, np.uint8)
        file.write(header(depth, formatted=formatted))

    def write(
        self, time: np.ndarray, px: np.ndarray, sz: np.ndarray, price_digits: np.ndarray, size_digits: np.ndarray, scales: tuple[int, int]
    ) -> None:
        """Append n lines. time int64[n] ns; px, sz int64[2 * D, room], digits uint8[2 * D, room] with D >= depth and room >= n, rows
        2 * level + side; scales: decimals of px and sz."""
        n = len(time)
        room = n * (_HEAD_BYTES + 2 * self._depth * CELL_BYTES)
        if len(self._buffer) < room:
            self._buffer = np.zeros(room, np.uint8)
        civil = _civil(time) if self._formatted else np.zeros((6, 0), np.int64)
        size = put_rows(self._buffer, time // 1_000_000, civil, px, sz, price_digits, size_digits, np.array(scales, np.int64), _POWER, n, self._depth)
        self._file.write(self._buffer[:size].data)


def _civil(time: np.ndarray) -> np.ndarray:
    """int64[6, n]: year, month, day, hour, minute, second of ns since the epoch, UTC."""
    day = time.astype("datetime64[ns]").astype("datetime64[D]")
    month, year = day.astype("datetime64[M]"), day.astype("datetime64[Y]")
    second = time // 1_000_000_000 % 86_400
    parts = (year.astype(np.int64) + 1970, (month - year).astype(np.int64) + 1, (day - month).astype(np.int64) + 1)
    return np.stack([*parts, second // 3_600, second // 60 % 60, second % 60])
