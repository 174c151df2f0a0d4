"""Expectations of depth books: the layers depth-<D>-<interval> (grid) and depth-bbo (depth 1, a row per change). How rows come to be is in
tasks/reconstruction.

As in books.py the rebuilt book is ours, so what is malformed blocks; what the venue can do (crossed, out of order) is a warning. The rules on
levels are those of books.py, without order counts. Each names every level. Measured on 1,440 rows of 500 levels, 2,000 columns: reading 0.18 s; all
rules in one scan 0.75 s for a file alone, 0.35 s a file among ten. The rules on levels as lists and lambdas took 0.40 s instead of 0.44, which
is not worth a second wording of them, and a sample of pairs would be no proof.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pyarrow as pa

from tasks.schemas import depth_books_schema
from validation.rules import Context, Rule, complete, every
from validation.suites.books import level_rules, spacing, status_rules, time_rules

_REPLAY = "The certificate of the partition and the price-level replay in tasks/reconstruction; the update_id of the row tells the message."
_SAMPLER = "The sampler of the price-level replay in tasks/reconstruction, and the windows of the run."
_CROSSED = "The update_id of the row: a message lost without a gap in the ids, or a book pruned on one side; compare with the next snapshot."
_STATE = ("bid_px_00", "ask_px_00", "bid_sz_00", "ask_sz_00", "status", "reason")

Spans = Sequence[tuple[int, int]]


def schema(context: Context) -> pa.Schema:
    """Columns of a depth layer of `context.depth` levels."""
    return depth_books_schema(context.depth)


def rules(context: Context) -> tuple[Rule, ...]:
    """All expectations on depth rows of this depth, on a grid or at changes of the touch."""
    unknown = {"as_of", "status_since"} if context.grid else set()  # before the first message
    levels = (replace(r, look=_CROSSED if r.name == "not_crossed" else _REPLAY) for r in level_rules(context) if r.name != "counts_fit_prices")
    times = (r for r in time_rules(context) if r.name != "grid_equally_spaced")
    filled = complete((name for name in depth_books_schema(context.depth).names if name not in unknown), look=_REPLAY)
    if context.depth > 1:
        # The footer's statistics of 2,000 columns take 0.46 s, counting them in the scan 0.1 s.
        filled = replace(filled, required=())
    own = every_grid_time(context) if context.grid else (_CHANGES,)
    return (*levels, *status_rules(), *times, *own, filled, one_symbol(), _SCALE)


def one_symbol() -> Rule:
    """The rule that a file holds one symbol; depth layers have no other id."""
    return Rule(
        "one_symbol",
        "block",
        why="A partition is one instrument; rows of two in one file mean that two partitions were written to one name.",
        look="How the flow names its partitions; the row named is the first of the second symbol.",
        holds="prev_symbol IS NULL OR symbol = prev_symbol",
        previous=("symbol",),
        constant=("symbol",),
    )


def every_grid_time(context: Context) -> tuple[Rule, ...]:
    """The rules that each grid time of the windows has exactly one row, ascending. Without windows: that the step is right."""
    if context.windows is None or context.interval_ns is None:
        return steps(spacing(context))
    step = context.interval_ns
    spans = [(-(-start // step) * step, (end - 1) // step * step) for start, end in context.windows]
    return steps(follows("ts_event", [span for span in spans if span[0] <= span[1]], step), [last for first, last in spans if first <= last])


def steps(holds: str, lasts: Sequence[int] | None = None) -> tuple[Rule, ...]:
    """The rule `every_grid_time` of this condition; and where the last times of the windows are known, that the last row is one of them."""
    found = [
        Rule(
            "every_grid_time",
            "block",
            why="Each time of the grid has one row, whatever the feed did; a missing, doubled or late one shifts all that is joined by row.",
            look=_SAMPLER,
            holds=holds,
            previous=("ts_event",),
        )
    ]
    if lasts is not None:
        found.append(
            Rule(
                "reaches_end",
                "block",
                why="The last row is the last time of a window; rows that stop before it mean that the sampler was not told of the end.",
                look=_SAMPLER,
                holds=f"ts_event IN ({', '.join(map(str, lasts)) or 'NULL'})",
                last_row_only=True,
            )
        )
    return tuple(found)


def follows(column: str, spans: Spans, step: int) -> str:
    """SQL: `column` goes through the times of `spans` (first and last, inclusive, ascending) by `step`, beginning with the first of any of them.

    Any, because a gate gets the windows of all its files, and each file has the days of its own.
    """
    firsts = ", ".join(str(first) for first, _ in spans) or "NULL"
    jumps = "".join(f" WHEN {last} THEN {column} = {first}" for (_, last), (first, _) in pairwise(spans))
    next_one = f"{column}::HUGEINT - prev_{column} = {step}"
    inside = f"CASE prev_{column}{jumps} ELSE {next_one} END" if jumps else next_one
    return f"CASE WHEN prev_{column} IS NULL THEN {column} IN ({firsts}) ELSE {inside} END"


_SCALE = Rule(
    "one_scale",
    "block",
    why="Readers take the scale from the file's facts; a row in another one is wrong by a power of ten, and more than 18 digits fit no integer.",
    look="ScaleTooSmall of the price-level replay: the partition must have been started again with the larger scale.",
    holds=every(
        [
            "price_digits BETWEEN 9 AND 18",
            "size_digits <= 18",
            *(f"prev_{name} IS NULL OR {name} = prev_{name}" for name in ("price_digits", "size_digits")),
        ]
    ),
    previous=("price_digits", "size_digits"),
    constant=("price_digits", "size_digits"),
    bounds={"price_digits": (9, 18), "size_digits": (0, 18)},
)

_CHANGES = Rule(
    "rows_differ",
    "warn",
    why="There is a row at each change of touch or status; a row like the one before it is harmless, but no replay writes it.",
    look=_SAMPLER,
    holds=f"prev_status IS NULL OR {' OR '.join(f'{name} IS DISTINCT FROM prev_{name}' for name in _STATE)}",
    previous=_STATE,
)
