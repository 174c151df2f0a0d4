"""What the stages say to each other: sources, partitions, recipes and stamps. Descriptions only, never tables.

A partition (dataset, date, symbol, publisher, instrument) is the unit of work, of retry and of resume. A recipe is the set of options
that change bytes. A stamp says what a file was made from; it sits in the file's own footer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from datetime import date as Date
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from tasks.errors import UsageError
from tasks.schemas import CODE_VERSION
from tasks.specs import DAY_NS

CLOCKS = ("ts_event", "ts_recv")
ON_BOOK_ERROR = ("suspect", "fail")
HEATMAP_AXES = ("time", "event")
SEQUENCES = ("sparse", "contiguous")
CARRY_DAYS = 5  # how far back a book goes on from an earlier day's: a weekend and a holiday


def digest(value: Any) -> str:
    """16 hex digits of a JSON-able value, the same on every machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class SourceFile:
    """One input as the scan found it.

    path: the file (for LOBSTER the message file, or the zip that holds the pair); member: name inside a zip or "";
    companion: the LOBSTER order book file or member, or ""; fingerprint: hash of the whole content ("xxh3:<32 hex>"), of both files of a
    pair; size in bytes, mtime_ns and inode are what the end of the read is compared with.
    rows: records where known without decoding, else -1. dates and symbols: what the header promises, empty when it does not say.
    """

    path: str
    format: str
    dataset: str
    fingerprint: str
    size: int
    mtime_ns: int
    inode: int
    member: str = ""
    companion: str = ""
    rows: int = -1
    dates: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()

    @property
    def short(self) -> str:
        """First 10 hex digits of the fingerprint, used in file names."""
        return self.fingerprint.split(":")[-1][:10]

    @property
    def name(self) -> str:
        """File name, with the member of a zip."""
        return Path(self.path).name + (f":{self.member}" if self.member else "")


@dataclass(frozen=True, order=True)
class Partition:
    """One book on one UTC day (of ts_recv)."""

    dataset: str
    date: str
    symbol: str
    publisher_id: int
    instrument_id: int

    def __str__(self) -> str:
        # All of it: sources without a symbol column have several instruments under one name.
        return f"{self.dataset} {self.symbol} {self.date} p{self.publisher_id}-{self.instrument_id}"

    @property
    def day(self) -> tuple[int, int]:
        """The UTC day, half-open ns."""
        start = (Date.fromisoformat(self.date) - Date(1970, 1, 1)).days * DAY_NS
        return start, start + DAY_NS

    def of_day(self, windows: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
        """What of half-open ns windows lies in the UTC day."""
        start, end = self.day
        return tuple((max(a, start), min(b, end)) for a, b in windows if max(a, start) < min(b, end))

    def path(self, layer: str, source: str = "", suffix: str = ".parquet") -> str:
        """Path of this partition's file in `layer`, relative to the lake; `source` tells apart events of several files."""
        part = f"part-{self.publisher_id}-{self.instrument_id}" + (f"-{source}" if source else "")
        return f"{layer}/dataset={quote(self.dataset, safe='.')}/date={self.date}/symbol={quote(self.symbol, safe='.')}/{part}{suffix}"

    @staticmethod
    def of_path(path: str | Path) -> Partition:
        """The partition that `path` (made by `path()`) belongs to."""
        parts = Path(path).parts
        named = {key: unquote(value) for key, _, value in (p.partition("=") for p in parts[:-1]) if value}
        numbers = Path(parts[-1]).name.split(".")[0].split("-")
        return Partition(named["dataset"], named["date"], named["symbol"], int(numbers[1]), int(numbers[2]))


def continued(partition: Partition, before: Iterable[Partition], today: Iterable[Partition]) -> Partition | None:
    """Which of the partitions of an earlier day `partition` goes on from, None for none of them.

    before: all of that day under the dataset, symbol and publisher of `partition`; today: all of its own day under them. An instrument's id may
    change over night; where several instruments share a name (sources without a symbol column), only the same id is the same instrument.
    """
    by_id = {p.instrument_id: p for p in before}
    several = len({partition.instrument_id, *(p.instrument_id for p in today)}) > 1 or len(by_id) > 1
    return by_id.get(partition.instrument_id) or (None if several else next(iter(by_id.values()), None))


@dataclass(frozen=True)
class EventFilter:
    """Which rows of a source are wanted. Empty means all.

    symbols and publishers: kept when named; start_ns (inclusive) and end_ns (exclusive): ns UTC on ts_recv;
    hours: ("HH:MM", "HH:MM") in time zone `zone`, start inclusive, end exclusive, may cross midnight.
    """

    symbols: tuple[str, ...] = ()
    publishers: tuple[int, ...] = ()
    start_ns: int | None = None
    end_ns: int | None = None
    hours: tuple[str, str] | None = None
    zone: str = "UTC"


@dataclass(frozen=True)
class MboRecipe:
    """Options of the market-by-order flow that change bytes.

    depth: levels of mbp; interval_ns: grid of mbp and features; bars: names such as "1s", "1m", "tick:1000", "volume:5000",
    "dollar:1000000"; clock: the time that grid and bars run on; on_book_error: "suspect" marks, "fail" raises;
    starts_empty: the caller asserts that the book is empty at the start of each source (valid without a clear or snapshot);
    stale_after_ns: age from which on a grid row is stale, None for never; sequence: "sparse" where numbers may be missing (a source of some
    symbols of a feed), "contiguous" where a missing one is a gap.
    """

    filter: EventFilter = field(default_factory=EventFilter)
    depth: int = 10
    interval_ns: int = 1_000_000_000
    bars: tuple[str, ...] = ("1s", "1m")
    clock: str = "ts_recv"
    on_book_error: str = "suspect"
    starts_empty: bool = False
    stale_after_ns: int | None = 300_000_000_000
    sequence: str = "sparse"
    heatmap_axis: str = "time"
    heatmap_width: int = 1600
    heatmap_height: int = 1000

    def __post_init__(self) -> None:
        for name, allowed in (("clock", CLOCKS), ("on_book_error", ON_BOOK_ERROR), ("heatmap_axis", HEATMAP_AXES), ("sequence", SEQUENCES)):
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} is {getattr(self, name)!r}; allowed: {', '.join(allowed)}")
        if not 1 <= self.depth <= 100:
            raise UsageError(f"depth is {self.depth}; allowed: 1 to 100 levels")
        if self.interval_ns <= 0:
            raise UsageError(f"interval is {self.interval_ns} ns; it must be positive, e.g. 1s or 100ms")
        if self.stale_after_ns is not None and self.stale_after_ns <= 0:
            raise UsageError(f"stale_after is {self.stale_after_ns} ns; it must be positive, e.g. 5m, or off")

    def digest_of(self, *names: str) -> str:
        """Digest over the named options only, so that a stage is redone only for what it depends on."""
        values = asdict(self)
        unknown = set(names) - {f.name for f in fields(self)}
        if unknown:
            raise KeyError(unknown)
        return digest({name: values[name] for name in names})


@dataclass(frozen=True)
class Stamp:
    """What a file was made from: digest of inputs, of the recipe, and the code version. Equal stamps mean equal bytes."""

    inputs: str
    recipe: str
    code: str = CODE_VERSION

    def footer(self) -> dict[str, str]:
        """Parquet key-value metadata of this stamp."""
        return {"bookmill.inputs": self.inputs, "bookmill.recipe": self.recipe, "bookmill.code": self.code}
