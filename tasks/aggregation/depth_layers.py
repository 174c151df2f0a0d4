"""The layers of a depth partition as batches of arrays: scale of prices and sizes, what of the touch is known, windows and silences.

No rule of bars or features lives here; where the layers stand in the lake is in depth_aggregate.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from tasks.aggregation.layer_reading import Columns, codes, column_batches, integers, record_batches
from tasks.depth_batches import PRICE_DIGITS
from tasks.errors import SchemaMismatch, UsageError
from tasks.partitions import Partition
from tasks.schemas import NO_BOOK, REASONS, SEVERITY, STATUSES, UNDEF_PRICE
from tasks.specs import DAY_NS

BBO_LAYER = "depth-bbo"
TOUCH = ("bid_px_00", "ask_px_00", "bid_sz_00", "ask_sz_00")
# The sum of two prices, which is twice a mid, fits in int64.
PRICE_LIMIT = 1 << 62
_REMADE = "Delete the file and start again: it is rebuilt."


@dataclass
class Scale:
    """price_digits, size_digits of one layer, -1 before its first row. One scale a file: sums over its rows need no more."""

    path: Path
    price_digits: int = -1
    size_digits: int = -1

    def note(self, price_digits: np.ndarray, size_digits: np.ndarray) -> None:
        """Take the digits of a batch, integers[n]; raises SchemaMismatch where they differ from those before."""
        for name, found in (("price_digits", price_digits), ("size_digits", size_digits)):
            known = getattr(self, name)
            if known < 0 and len(found):
                known = int(found[0])
                setattr(self, name, known)
            if (found != known).any():
                other = int(found[found != known][0])
                raise SchemaMismatch(self.path, f"{name} is {known} and then {other}; one scale a file is allowed", remedy=_REMADE)

    @property
    def price_units(self) -> float:
        """Units of px in a price of 1.0."""
        return 10.0 ** max(self.price_digits, 0)

    @property
    def size_units(self) -> float:
        """Units of sz in a size of 1.0."""
        return 10.0 ** max(self.size_digits, 0)


def check_prices(scale: Scale, prices: np.ndarray) -> None:
    """Raises SchemaMismatch where a price of int64 `prices`, of the layer of `scale`, leaves no room for a sum of two; UNDEF_PRICE is none."""
    wide = (prices != UNDEF_PRICE) & ((prices >= PRICE_LIMIT) | (prices <= -PRICE_LIMIT))
    if wide.any():
        # No layer has larger units than 10^-PRICE_DIGITS; smaller ones come from a price with more decimals.
        finer = f"A line of the source has a price with {scale.price_digits} decimals: set it aside if it is wrong, and run again. "
        whole = "Books and touch are right and stay; bars of the mid and features cannot be made of such prices: leave the pair out (--pairs)."
        raise SchemaMismatch(
            scale.path,
            f"a price is {int(prices[wide][0]):,} units of 10^-{scale.price_digits}; allowed: less than 2^62 "
            f"({PRICE_LIMIT / scale.price_units:,.6g}) on both sides of 0, so that a mid can be taken",
            remedy=finer + whole if scale.price_digits > PRICE_DIGITS else whole,
        )


def touch_batches(path: Path, scale: Scale, batch_rows: int) -> Iterator[Columns]:
    """The touch rows of a layer of schema DEPTH_BBO in file order, batch by batch; `scale` learns their digits.

    Each: as_of, the four columns of TOUCH, status_since int64[n]; status int8[n] positions in STATUSES, severity int8[n] in SEVERITY, reason
    int8[n] in REASONS; changed bool[n]: the touch differs from that of the row before (of the first row: from an empty one).
    A book of status no_book is not known: its touch is given as empty.
    """
    wanted = {"as_of": None, **dict.fromkeys(TOUCH), "status": STATUSES, "reason": REASONS, "status_since": None, "price_digits": None}
    ranks = np.array([SEVERITY.index(name) for name in STATUSES], np.int8)
    last = np.array([UNDEF_PRICE, UNDEF_PRICE, 0, 0], np.int64)
    for batch in column_batches([path], {**wanted, "size_digits": None}, batch_rows):
        scale.note(batch.pop("price_digits"), batch.pop("size_digits"))
        unknown = batch["status"] == NO_BOOK
        for name in TOUCH:
            batch[name][unknown] = UNDEF_PRICE if "_px_" in name else 0
        for name in TOUCH[:2]:
            check_prices(scale, batch[name])
        batch["changed"] = np.zeros(len(unknown), bool)
        for k, name in enumerate(TOUCH):
            batch["changed"] |= np.diff(batch[name], prepend=last[k]) != 0
            last[k] = batch[name][-1]
        batch["severity"] = ranks[batch["status"]]
        yield batch


def silences(path: Path, interval_ns: int, batch_rows: int = 65_536) -> np.ndarray:
    """int64[n, 2] ns (start inclusive, end exclusive), ascending: when the feed was silent for too long, as the stale rows of a grid tell.

    One begins when its age reached the limit (status_since) and ends an interval after its last stale row, or with the last message of the
    row after that, whichever is earlier. Only a grid knows of silence: the touch has no row when nothing comes. A silence that is over
    before the next grid time leaves no trace.
    """
    found = []
    for batch in record_batches(path, ["ts_event", "as_of", "status", "status_since"], batch_rows):
        times = integers(path, batch, "ts_event")
        as_of, since = (batch.column(name).cast("int64").fill_null(-1).to_numpy() for name in ("as_of", "status_since"))
        stale = codes(path, batch, "status", STATUSES) == STATUSES.index("stale")
        found.append(np.stack([times, as_of, np.where(stale, since, -1)]))
    if not found:
        return np.zeros((0, 2), np.int64)
    times, as_of, since = np.concatenate(found, axis=1)
    # Rows of one silence share its start.
    first = np.flatnonzero((since >= 0) & (np.diff(since, prepend=-1) != 0))
    last = np.flatnonzero((since >= 0) & (np.diff(since, append=-1) != 0))
    following = np.append(as_of, np.iinfo(np.int64).max)[last + 1]
    return np.stack([since[first], np.minimum(times[last] + interval_ns, following)], axis=1)


def windows_of(partition: Partition, windows: Sequence[Sequence[int]] | None) -> np.ndarray:
    """int64[n, 2] ns (start inclusive, end exclusive); None is the UTC day of the partition. Raises UsageError unless ascending and disjoint."""
    if windows is None:
        start = int(datetime.fromisoformat(partition.date).replace(tzinfo=UTC).timestamp()) * (DAY_NS // 86_400)
        windows = [(start, start + DAY_NS)]
    spans = np.array(windows, np.int64).reshape(-1, 2)
    if np.any(spans[:, 0] >= spans[:, 1]) or np.any(spans[1:, 0] < spans[:-1, 1]):
        raise UsageError(f"windows are {spans.tolist()}; each must start before its end, and they must be ascending and disjoint")
    return spans
