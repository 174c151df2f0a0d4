"""Expectations of depth books: the layers depth-<D>-<interval> (grid) and depth-bbo (depth 1, a row per change). How rows come to be is in
tasks/reconstruction.

As in books.py the rebuilt book is ours, so what is malformed blocks; what the venue can do (crossed, out of order) is a warning. The rules on
levels are those of books.py, without order counts. Each names every level. Measured on 1,440 rows of 500 levels, 2,000 columns: reading 0.18 s; all
rules in one scan 0.75 s for a file alone, 0.35 s a file among ten. The rules on levels as lists and lambdas took 0.40 s instead of 0.44, which
is not worth a second wording of them, and a sample of pairs would be no proof.
"""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from tasks.schemas import depth_books_schema
from validation.rules import Context, Rule, complete, every
from validation.suites.books import level_rules, status_rules, time_rules
from validation.suites.grid_times import grid_rules

_REPLAY = "The certificate of the partition and the price-level replay in tasks/reconstruction; the update_id of the row tells the message."
_SAMPLER = "The sampler of the price-level replay in tasks/reconstruction, and the windows of the run."
_CROSSED = "The update_id of the row: a message lost without a gap in the ids, or a book pruned on one side; compare with the next snapshot."
EVERY_GRID_TIME = (
    "every_grid_time",
    "Each time of the grid has one row, whatever the feed did; a missing, doubled or late one shifts all that is joined by row.",
    _SAMPLER,
)
_STATE = ("bid_px_00", "ask_px_00", "bid_sz_00", "ask_sz_00", "status", "reason")


def schema(context: Context) -> pa.Schema:
    """Columns of a depth layer of `context.depth` levels."""
    return depth_books_schema(context.depth)


def rules(context: Context) -> tuple[Rule, ...]:
    """All expectations on depth rows of this depth, on a grid or at changes of the touch."""
    unknown = {"as_of", "status_since"} if context.grid else set()  # before the first message
    levels = (replace(r, look=_CROSSED if r.name == "not_crossed" else _REPLAY) for r in level_rules(context) if r.name != "counts_fit_prices")
    filled = complete((name for name in depth_books_schema(context.depth).names if name not in unknown), look=_REPLAY)
    if context.depth > 1:
        # The footer's statistics of 2,000 columns take 0.46 s, counting them in the scan 0.1 s.
        filled = replace(filled, required=())
    own = every_grid_time(context) if context.grid else (_CHANGES,)
    return (*levels, *status_rules(), *time_rules(context), *own, filled, one_symbol(), _SCALE)


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
    return grid_rules(*EVERY_GRID_TIME, context)


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
