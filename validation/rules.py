"""What an expectation is: a condition on the rows of one table, what follows when it fails, why it is there and where to look.

A rule is declared here and counted in `profile.py`; Great Expectations judges the counts in `judge.py`. No rule reads data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from tasks.depth_recipe import MAX_DEPTH
from tasks.errors import UsageError
from tasks.partitions import CLOCKS

Consequence = Literal["block", "quarantine", "warn"]
CONSEQUENCES: tuple[Consequence, ...] = ("block", "quarantine", "warn")


@dataclass(frozen=True)
class Rule:
    """One expectation over the rows of a file.

    holds: SQL that is true for every good row; false and NULL are both unexpected. Columns are those of `tasks.schemas`, except that times
    are int64 ns, and `row` is the 0-based row number. previous: columns whose value one and two rows earlier, in file order, stands in
    `holds` as `prev_<column>` and `prev2_<column>` (NULL before the first row).
    last_row_only: the rule looks at the last row of the file and at no other.

    Shortcuts, each of which proves from minimum, maximum and null count of columns (which Parquet keeps, so they cost no scan) that no row
    can break the rule; without that proof the rows are counted:
    bounds: column -> (lowest, highest) allowed; constant: columns that must hold one value; required: columns without a null.
    screen: SQL that is true for every unexpected row and cheap; when it is true for no row the rule holds.
    check: what proves the rule in one compiled pass, passed by every row: one of packed_levels.CHECKS for levels, of book_times.CHECKS for
    times and statuses of book rows, of event_rows.CHECKS for events.
    """

    name: str
    consequence: Consequence
    why: str
    look: str
    holds: str
    previous: tuple[str, ...] = ()
    last_row_only: bool = False
    bounds: Mapping[str, tuple[int | None, int | None]] = field(default_factory=dict)
    constant: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    screen: str = ""
    check: str = ""

    @property
    def provable(self) -> bool:
        """Whether column statistics alone can settle the rule."""
        return bool(self.bounds or self.constant or self.required)


# Rules on the file itself, not on its rows; `profile.py` fills in their counts. Every suite starts with them.
READABLE = Rule(
    "readable",
    "block",
    why="A file that is no whole Parquet file was cut short or overwritten; nothing in it can be trusted.",
    look="The disk and the run that wrote the file; delete the file and run again, only its partition is redone.",
    holds="",
)
SCHEMA = Rule(
    "columns_as_declared",
    "block",
    why="A missing column or another type (an id cut to 8 bits, a price as float) makes every later number wrong in silence.",
    look="The `unexpected` count is the number of columns that differ from tasks/schemas.py; an older code version may have written the file.",
    holds="",
)
NOT_EMPTY = Rule(
    "not_empty",
    "block",
    why="A partition with no rows is not written at all; an empty file means that a writer or a filter lost everything.",
    look="The row counts of the partition in the ledger, and the filter of the recipe.",
    holds="",
)
FILE_RULES = (READABLE, SCHEMA, NOT_EMPTY)


@dataclass(frozen=True)
class Context:
    """What a suite must know about the files besides their rows.

    depth: levels of a book; grid: rows stand on a time grid instead of event ends; clock: time that samples run on; has_counts: whether
    order counts are known (None: known unless all of a file's counts are zero, as in LOBSTER books); interval_ns: step of the grid
    (None: any constant step); windows: half-open (start_ns, end_ns) spans that the grid covers, None for one unbroken span;
    time_bars: bars of equal time, against tick, volume and dollar bars.
    """

    depth: int = 10
    grid: bool = False
    clock: str = "ts_recv"
    has_counts: bool | None = None
    interval_ns: int | None = None
    windows: tuple[tuple[int, int], ...] | None = None
    time_bars: bool = True

    def __post_init__(self) -> None:
        if self.clock not in CLOCKS:
            raise UsageError(f"clock is {self.clock!r}; allowed: {', '.join(CLOCKS)}")
        if not 1 <= self.depth <= MAX_DEPTH:
            raise UsageError(f"depth is {self.depth}; allowed: 1 to {MAX_DEPTH} levels")
        if self.windows is not None and not self.interval_ns:
            raise UsageError("windows are given without interval_ns; give the step of the grid too")

    @staticmethod
    def of(values: Mapping[str, Any] | None) -> Context:
        """A Context from loose values; UsageError names what is not known."""
        allowed = [f.name for f in fields(Context)]
        unknown = sorted(set(values or {}) - set(allowed))
        if unknown:
            raise UsageError(f"Gate context does not know {', '.join(unknown)}; allowed: {', '.join(allowed)}")
        values = dict(values or {})
        if values.get("windows") is not None:
            values["windows"] = tuple((int(start), int(end)) for start, end in values["windows"])
        return Context(**values)


def one_letter(column: str, letters: Iterable[str]) -> str:
    """SQL: `column` is one of the letters. Half the time of IN, which compares strings row by row; this runs once per dictionary entry."""
    return f"strpos('{''.join(letters)}', {column}) > 0 AND length({column}) = 1"


def one_of(column: str, words: Iterable[str]) -> str:
    """SQL: `column` is one of the words."""
    return f"{column} IN ({', '.join(repr(word) for word in words)})"


def every(conditions: Iterable[str]) -> str:
    """SQL: all conditions hold."""
    return " AND ".join(f"({condition})" for condition in conditions)


def complete(columns: Iterable[str], look: str) -> Rule:
    """The rule that none of `columns` has a null."""
    names = tuple(columns)
    return Rule(
        "no_nulls",
        "block",
        why="These columns have a sentinel for absent values; a null means that a writer skipped them, and comparisons with it are never true.",
        look=look,
        holds=every(f"{name} IS NOT NULL" for name in names),
        required=names,
    )


def complete_but(rule: Rule, never_null: Iterable[str]) -> Rule:
    """A rule made by `complete` without the columns that cannot hold a null; any other rule as it is."""
    names = tuple(name for name in rule.required if name not in set(never_null))
    return rule if len(names) == len(rule.required) else replace(rule, holds=every(f"{name} IS NOT NULL" for name in names), required=names)


def one_partition() -> Rule:
    """The rule that a file holds one publisher, instrument and symbol."""
    names = ("publisher_id", "instrument_id", "symbol")
    return Rule(
        "one_partition",
        "block",
        why="A book is kept per publisher and instrument; two of them in one file would be replayed into one book.",
        look="How the decoder splits partitions; the row named is the first of the second publisher, instrument or symbol.",
        holds=every(f"prev_{name} IS NULL OR {name} = prev_{name}" for name in names),
        previous=names,
        constant=names,
    )
