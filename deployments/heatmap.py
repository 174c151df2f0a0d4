"""What `bookmill heatmap` does with its options, and what it says: one file in, one picture out, no lake."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from flows.quick_heatmap import QuickPicture, draw_picture, quick_heatmap
from tasks.errors import UsageError

_ENDINGS = (".zst", ".gz", ".dbn", ".parquet", ".csv")
_MOST_SYMBOLS = 8
# numba loads the first with its first kernel, for matrix products; pyarrow the second with its first array, for frames. There are neither here, and
# loading them took a quarter of a cold start and 70 MB (measured).
_NO_USE_FOR = ("scipy.linalg", "pandas")


def write_heatmap(source: Path, png: Path | None, html: bool, symbol: str, width: int, height: int, clock: str, starts_empty: bool) -> int:
    """Draw the heatmap of a file and tell what is on it; returns the exit code. Raises UsageError, SourceError, StorageError."""
    png = png or Path(_stem(source.name) + ".png")
    if png.suffix != ".png":
        raise UsageError(f"output is {png}; allowed: a name that ends in .png (--html writes the page beside it)")
    pa.set_memory_pool(pa.system_memory_pool())  # its own keeps what it was given back: 65 MB of a Parquet file (measured)
    with _without(_NO_USE_FOR):
        picture = quick_heatmap(source, symbol=symbol, width=width, height=height, clock=clock, starts_empty=starts_empty)
    print(f"{source.name}: {picture.painted:,} records of {picture.symbol} in {picture.seconds:.2f} s, {_rate(picture)}")
    for line in _account(picture):
        print(line)
    if picture.grid is None:
        print("No picture: there was never a bid or an ask that rested at the end of an event.")
        return 2
    for line in _geometry(picture):
        print(line)
    page = png.with_suffix(".html") if html else None
    began = time.perf_counter()
    draw_picture(picture, png, page)
    print(f"Heatmap   {png} (drawn in {time.perf_counter() - began:.2f} s)")
    if page:
        print(f"Page      {page}")
    return 1 if picture.fault else 0


class _Absent:
    """A finder that says of some modules that they are not installed."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name in self._names:
            raise ModuleNotFoundError(f"{name} is left out here", name=name)


@contextmanager
def _without(names: Sequence[str]) -> Iterator[None]:
    """While it lasts, modules that were not loaded yet count as not installed: libraries go on without those that they only prefer to have."""
    finder: Any = _Absent(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def _stem(name: str) -> str:
    while ending := next((e for e in _ENDINGS if name.lower().endswith(e) and len(name) > len(e)), ""):
        name = name[: -len(ending)]
    return name


def _rate(picture: QuickPicture) -> str:
    return f"{picture.rows / max(picture.seconds, 1e-9) / 1e6:.1f} million rows a second"


def _account(picture: QuickPicture) -> list[str]:
    """What is not on the picture, and why."""
    lines = []
    if picture.left_out:
        named = ", ".join(f"{symbol} {count:,}" for symbol, count in picture.left_out.most_common(_MOST_SYMBOLS))
        more = len(picture.left_out) - _MOST_SYMBOLS
        lines.append(f"Left out  {picture.left_out.total():,} rows of other books: {named}{f' and {more:,} more' if more > 0 else ''}; see --symbol")
    if picture.bad:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in picture.bad.most_common())
        lines.append(f"Bad rows  {picture.bad.total():,} rows could not be used ({reasons}); `bookmill run mbo` keeps them in quarantine")
    if picture.fault:
        lines.append(f"Broken    {picture.fault} The picture ends there.")
    status, reason = picture.status
    if status != "valid":
        lines.append(f"Book      {status.replace('_', ' ')} at the end: {reason.replace('_', ' ')}")
        if reason == "no_snapshot":
            lines.append("          The file has no clear and no snapshot. If its book is empty at its start, say --starts-empty.")
    return lines


def _geometry(picture: QuickPicture) -> list[str]:
    grid = picture.grid
    assert grid is not None
    assert picture.trades is not None
    from tasks.publishing.axes import decimals_of, price_text, time_text

    start, end = int(grid.time_edges[0]), int(grid.time_edges[-1])
    low, high, step = int(grid.price_edges[0]), int(grid.price_edges[-1]), int(grid.price_edges[1] - grid.price_edges[0])
    places = decimals_of(step)
    day, last_day = (str(np.datetime64(ns, "ns").astype("datetime64[D]")) for ns in (start, end))
    until = time_text(end, 1_000_000) if day == last_day else f"{last_day} {time_text(end, 1_000_000)}"
    lowest, highest = (price_text(price, decimals_of(step, low + step // 2)) for price in (low + step // 2, high - step + step // 2))
    rows, columns = grid.bids.shape
    each = f"{columns:,} columns of {(end - start) / columns / 1e9:.3g} s"
    return [
        f"Time      {day} {time_text(start, 1_000_000)} to {until} UTC by {picture.clock}, {each}",
        f"Prices    {lowest} to {highest}, {rows:,} rows of {price_text(step, places)}",
        f"Trades    {sum(len(chunk[0]) for chunk in picture.trades):,}",
    ]
