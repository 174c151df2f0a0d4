"""What a run of the depth flow is asked for, and where it puts what it makes. Descriptions only."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from datetime import UTC, date, datetime

from tasks.errors import UsageError
from tasks.partitions import ON_BOOK_ERROR, Partition, SourceFile, digest
from tasks.specs import DAY_NS, interval_name

DEPTH_CLOCKS = ("cts", "ts")  # engine time where the feed tells it, else as ts; time of sending (Tardis: of capture)
MAX_DEPTH = 1_000  # levels a side; what venues sell
TRADES = "tardis-trades"  # of the kinds the one that makes no book
KINDS = ("bybit", "tardis-l2", "tardis-book", "tardis-quotes", TRADES)


@dataclass(frozen=True)
class DepthRecipe:
    """Options that change bytes. depths: levels of the snapshot layers, descending; a source gives those that it is deep enough for, and its own
    depth where it is shallower than all of them.

    interval_ns: step of the grid; stale_after_ns: age from which on a grid row is stale, None for never; updates: keep every level update, too.
    """

    depths: tuple[int, ...] = (500, 200)
    interval_ns: int = 60_000_000_000
    clock: str = "cts"
    stale_after_ns: int | None = 10_000_000_000
    on_book_error: str = "suspect"
    updates: bool = False
    bars: tuple[str, ...] = ("1m",)
    heatmap_width: int = 1600
    heatmap_height: int = 1000

    def __post_init__(self) -> None:
        for name, allowed in (("clock", DEPTH_CLOCKS), ("on_book_error", ON_BOOK_ERROR)):
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} is {getattr(self, name)!r}; allowed: {', '.join(allowed)}")
        if not self.depths or any(not 1 <= depth <= MAX_DEPTH for depth in self.depths):
            raise UsageError(f"depths is {', '.join(map(str, self.depths)) or 'empty'}; allowed: levels from 1 to {MAX_DEPTH}, such as 200,500")
        if list(self.depths) != sorted(set(self.depths), reverse=True):
            object.__setattr__(self, "depths", tuple(sorted(set(self.depths), reverse=True)))
        if not 0 < self.interval_ns <= DAY_NS or DAY_NS % self.interval_ns:
            raise UsageError(f"interval is {self.interval_ns} ns; it must divide the day, as 1s, 1m, 5m and 1h do")
        if self.stale_after_ns is not None and self.stale_after_ns <= 0:
            raise UsageError(f"stale_after is {self.stale_after_ns} ns; it must be positive, e.g. 10s, or off")

    def digest_of(self, *names: str) -> str:
        """Digest over the named options only, so that a stage is redone only for what it depends on."""
        values = asdict(self)
        unknown = set(names) - {f.name for f in fields(self)}
        if unknown:
            raise KeyError(unknown)
        return digest({name: values[name] for name in names})

    def depths_of(self, source_depth: int) -> tuple[int, ...]:
        """The depths that a source of `source_depth` levels gives (0: not known, all of them)."""
        fitting = tuple(depth for depth in self.depths if not source_depth or depth <= source_depth)
        return fitting or (source_depth,)

    def grid_layer(self, depth: int) -> str:
        """Layer of the snapshots of `depth` levels."""
        return f"depth-{depth}-{interval_name(self.interval_ns)}"


@dataclass(frozen=True)
class DepthSource:
    """A depth feed of one pair on one day, as the scan found it. kind: one of KINDS; depth: levels a side, 0 where the file does not say."""

    file: SourceFile
    kind: str
    depth: int

    @property
    def name(self) -> str:
        """As SourceFile.name."""
        return self.file.name

    @property
    def partition(self) -> Partition:
        """Where its books go: depth feeds know neither publishers nor instrument ids."""
        return Partition(self.file.dataset, self.file.dates[0], self.file.symbols[0], 0, 0)

    @property
    def subject(self) -> str:
        """The name under which it is booked: files of two markets have the same name."""
        return f"{self.partition} trades" if self.kind == TRADES else str(self.partition)

    @property
    def window(self) -> tuple[int, int]:
        """The UTC day of the source in ns, half open."""
        return day_window(self.file.dates[0])


def day_window(day: str) -> tuple[int, int]:
    """A UTC day (YYYY-MM-DD) in ns, half open."""
    start = int(datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC).timestamp()) * 1_000_000_000
    return start, start + DAY_NS


@dataclass(frozen=True)
class DepthDay:
    """One depth partition whose snapshots are there. depth: levels of its deepest snapshots."""

    partition: Partition
    depth: int
