"""Expectations of book rows: mbp-N and bbo, on event ends or on a time grid. How rows come to be is in tasks/reconstruction.

The rebuilt book is ours, so a malformed level blocks; what the market or the feed can do (crossed, out of order) is a warning.
"""

from __future__ import annotations

from itertools import pairwise

import pyarrow as pa

from tasks.schemas import REASONS, STATUSES, UNDEF_PRICE, books_schema
from validation.rules import Consequence, Context, Rule, complete, every, one_of, one_partition
from validation.suites.grid_times import grid_rules

_REPLAY = "The certificate of the partition and the replay in tasks/reconstruction; rebuild the partition with --on-book-error fail."
_SAMPLER = "The samplers in tasks/reconstruction and the clock of the recipe."


def schema(context: Context) -> pa.Schema:
    """Columns of a book layer of `context.depth` levels."""
    return books_schema(context.depth)


def rules(context: Context) -> tuple[Rule, ...]:
    """All expectations on book rows of this depth, on event ends or a grid."""
    unknown = {"as_of", "status_since"} if context.grid else {"as_of"}  # before the first event of a grid
    filled = (name for name in books_schema(context.depth).names if name not in unknown)
    spaced = equally_spaced(context, _SAMPLER) if context.grid else ()
    return (*level_rules(context), *status_rules(), *time_rules(context), *spaced, complete(filled, look=_REPLAY), one_partition())


def status_rules() -> tuple[Rule, ...]:
    """Status and reason say together whether a row may be used; trades and features carry them too."""
    return (
        Rule(
            "status_known",
            "block",
            why="Readers filter on status; a value they do not know is used as if it were valid, or lost.",
            look="STATUSES in tasks/schemas.py and the stage that wrote the file.",
            check="status",
            holds=one_of("status", STATUSES),
        ),
        Rule(
            "reason_known",
            "block",
            why="The reason is counted in reports; an unknown one is counted nowhere.",
            look="REASONS in tasks/schemas.py and the stage that wrote the file.",
            check="reason",
            holds=one_of("reason", REASONS),
        ),
        Rule(
            "reason_fits_status",
            "block",
            why="A valid row with a reason, or a doubtful one without, means that one of the two was carried over from another row.",
            look="Where the status of the book is set in tasks/reconstruction.",
            check="reason_fits",
            holds="CASE WHEN status = 'valid' THEN reason = '' ELSE reason <> '' END",
        ),
    )


def status_began(own: str) -> Rule:
    """A status began at or before the row's `own` time."""
    return Rule(
        "status_began_before",
        "block",
        why="A status is told from the moment on at which it began; one that begins later was not known at the time of the row.",
        look=_SAMPLER,
        check="since_as_of" if own == "as_of" else "",
        holds=f"status_since IS NULL OR {own} IS NULL OR status_since <= {own}",
    )


def level_rules(context: Context) -> tuple[Rule, ...]:
    """The rules on the levels of a row: in order, without holes, sizes and counts that fit the prices."""
    numbers = [f"{level:02d}" for level in range(context.depth)]
    cells = [f"{side}_@_{number}" for number in numbers for side in ("bid", "ask")]
    pairs = list(pairwise(numbers))
    most = f"greatest({', '.join(cell.replace('@', 'ct') for cell in cells)})"
    found = [
        Rule(
            "sizes_fit_prices",
            "block",
            why="A level with a price holds a size above 0, a level without one holds nothing; otherwise depth and imbalance are wrong.",
            look=_REPLAY,
            check="sizes",
            holds=every(f"{sz} >= 0 AND ({sz} = 0) = ({px} = {UNDEF_PRICE})" for px, sz in (_named(cell, "px", "sz") for cell in cells)),
        ),
        Rule(
            "counts_fit_prices",
            "block",
            why="A level with a price holds one order or more, an empty one none; sources that do not count orders have 0 everywhere.",
            look=_REPLAY,
            check="no_counts" if context.has_counts is False else "counts" if context.has_counts else "counts_or_none",
            holds=_count_rule(context.has_counts, most, cells),
        ),
        Rule(
            "not_crossed",
            "warn",
            why="A valid book with bid at or above ask is real before an opening and in halts, and wrong in continuous trading.",
            look="The times of the rows: outside trading hours it is the market; else compare with the vendor's depth and the certificate.",
            check="not_crossed",
            holds=f"status <> 'valid' OR bid_px_00 < ask_px_00 OR bid_px_00 = {UNDEF_PRICE}",
        ),
    ]
    if pairs:
        found[:0] = [
            Rule(
                "levels_ordered",
                "block",
                why="Bids fall and asks rise strictly from the touch outwards; a repeated or swapped level means a broken index of the book.",
                look=_REPLAY,
                # An empty level is the largest integer: above every bid, so only the deeper one can be excused; below no ask.
                check="ordered",
                holds=every(
                    [f"bid_px_{a} > bid_px_{b} OR bid_px_{b} = {UNDEF_PRICE}" for a, b in pairs]
                    + [f"ask_px_{a} < ask_px_{b} OR ask_px_{a} = {UNDEF_PRICE}" for a, b in pairs]
                ),
            ),
            Rule(
                "no_gap_levels",
                "block",
                why="Levels are counted from the touch without a hole; an empty level above a set one shifts all deeper ones.",
                look=_REPLAY,
                check="no_gap",
                holds=every(f"{s}_px_{a} <> {UNDEF_PRICE} OR {s}_px_{b} = {UNDEF_PRICE}" for a, b in pairs for s in ("bid", "ask")),
            ),
        ]
    return tuple(found)


def _named(cell: str, *kinds: str) -> tuple[str, ...]:
    return tuple(cell.replace("@", kind) for kind in kinds)


def _count_rule(has_counts: bool | None, most: str, cells: list[str]) -> str:
    """Counts known: one or more exactly where a price is set. Not known: 0. None: a row may also have none at all."""
    if has_counts is False:
        return f"{most} = 0"
    exact = every(f"({ct} = 0) = ({px} = {UNDEF_PRICE})" for px, ct in (_named(cell, "px", "ct") for cell in cells))
    return exact if has_counts else f"CASE WHEN {most} = 0 THEN true ELSE {exact} END"


def time_rules(context: Context) -> tuple[Rule, ...]:
    """The rules on the times of a row: no look-ahead, ages that fit, an order."""
    if context.grid:
        return (
            status_began("ts_event"),
            _look_ahead("block", "ts_event", "A sample at T may hold only events that were complete at T; one later nanosecond is look-ahead."),
            _age("CASE WHEN as_of IS NULL THEN age_ns = -1 WHEN as_of > ts_event THEN true ELSE age_ns = ts_event::HUGEINT - as_of END"),
        )
    # On event rows as_of is the running clock of the replay. In a snapshot, ts_event is the age of an order, and the replay runs on ts_recv.
    own, until = ("ts_recv", "ts_recv") if context.clock == "ts_recv" else ("greatest(ts_event, ts_recv)", "both")
    return (
        status_began("as_of"),
        _look_ahead("warn", own, "The book of an event row ends with that event; a later as_of means that the source's clock stepped back.", until),
        _age("age_ns = CASE WHEN as_of IS NULL THEN -1 ELSE 0 END", "age_none"),
        Rule(
            "time_ordered",
            "block",
            why="Rows are written in file order on a clock that never steps back; a step back means that batches were joined in wrong order.",
            look=_SAMPLER,
            check="as_of_in_order",
            holds="prev_as_of IS NULL OR as_of >= prev_as_of",
            previous=("as_of",),
        ),
        Rule(
            "clock_ordered",
            "warn",
            why=f"Readers join on {context.clock}; where the source's own times step back, an as-of join there picks either row.",
            look="received_in_order of the events gate, and snapshots in mid-file (their ts_event is the age of each order).",
            check=f"{context.clock}_in_order",
            holds=f"prev_{context.clock} IS NULL OR {context.clock} >= prev_{context.clock}",
            previous=(context.clock,),
        ),
    )


def _look_ahead(consequence: Consequence, own: str, why: str, until: str = "") -> Rule:
    check = f"as_of_until_{until}" if until else ""
    return Rule("no_look_ahead", consequence, why=why, look=_SAMPLER, holds=f"as_of IS NULL OR as_of <= {own}", check=check)


def _age(holds: str, check: str = "") -> Rule:
    return Rule(
        "age_fits_as_of",
        "block",
        why="The age is the time since the last complete event, 0 on event rows and -1 before the first; readers drop old rows by it.",
        look=_SAMPLER,
        check=check,
        holds=holds,
    )


def equally_spaced(context: Context, look: str) -> tuple[Rule, ...]:
    """The rules that each time of the grid has one row; features stand on the same grid."""
    why = "Returns and volatilities divide by the step; a missing or doubled grid row changes them silently."
    return grid_rules("grid_equally_spaced", why, look, context)
