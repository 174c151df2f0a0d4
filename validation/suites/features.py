"""Expectations of features on a time grid: bounds that hold by definition, and no look-ahead. The formulas are in tasks/aggregation."""

from __future__ import annotations

import pyarrow as pa

from tasks.schemas import FEATURES, SIDE_METHODS, SIDES, UNDEF_PRICE
from validation.rules import Context, Rule, complete, every, one_letter, one_of, one_partition
from validation.suites.books import equally_spaced, status_began, status_rules

_FLOATS = tuple(f.name for f in FEATURES if pa.types.is_floating(f.type))
_BOOK_FLOATS = ("mid", "microprice", "imbalance_1", "imbalance_n")  # undefined, hence null, where a side is empty
_NULLABLE = {"as_of", "status_since", *_BOOK_FLOATS}
_FORMULA = "The features module in tasks/aggregation and the grid row of the same ts_event."


def schema(context: Context) -> pa.Schema:
    """Columns of the features layer."""
    return FEATURES


def rules(context: Context) -> tuple[Rule, ...]:
    """All expectations on features; interval_ns and windows are those of the grid. Without a step: that times rise."""
    filled = complete((n for n in FEATURES.names if n not in _NULLABLE), look=_FORMULA)
    spaced = equally_spaced(context, _FORMULA) if context.interval_ns else (_RISING,)
    return (*FEATURE_RULES, *spaced, *status_rules(), status_began("ts_event"), filled, one_partition())


_RISING = Rule(
    "time_ordered",
    "block",
    why="Rows stand on a rising grid; a repeated T would be joined twice.",
    look=_FORMULA,
    holds="prev_ts_event IS NULL OR ts_event > prev_ts_event",
    previous=("ts_event",),
)


FEATURE_RULES = (
    Rule(
        "spread_not_negative",
        "warn",
        why="A valid book with a negative spread is crossed: real before an opening and in halts, wrong in continuous trading.",
        look="not_crossed of the books gate at the same times.",
        holds="spread >= 0 OR status <> 'valid'",
    ),
    Rule(
        "imbalance_within_one",
        "block",
        why="(bid - ask) / (bid + ask) of sizes lies in -1..1; outside means a negative size or an overflow.",
        look=_FORMULA,
        # NaN compares as the largest number; it is finite_numbers that reports it.
        holds=every(f"{name} IS NULL OR isnan({name}) OR {name} BETWEEN -1 AND 1" for name in ("imbalance_1", "imbalance_n")),
    ),
    Rule(
        "volatility_not_negative",
        "block",
        why="It is the root of a sum of squares.",
        look=_FORMULA,
        holds="realised_vol IS NULL OR realised_vol >= 0",
    ),
    Rule(
        "signed_within_volume",
        "block",
        why="Bought less sold cannot exceed what was traded; and a span with volume has trades.",
        look=_FORMULA,
        holds="trades >= 0 AND volume >= abs(signed_volume::HUGEINT) AND (volume = 0 OR trades > 0)",
    ),
    Rule(
        "no_look_ahead",
        "block",
        why="A feature at T may know only what was complete at T; one later nanosecond is look-ahead.",
        look=_FORMULA,
        holds="as_of IS NULL OR as_of <= ts_event",
    ),
    Rule(
        "null_only_without_side",
        "block",
        why="Mid, microprice and imbalance are undefined only when a side is empty, and the spread says so; any other null hides a number.",
        look=_FORMULA,
        holds=f"CASE WHEN spread = {UNDEF_PRICE} THEN mid IS NULL ELSE {every(f'{name} IS NOT NULL' for name in _BOOK_FLOATS)} END",
    ),
    Rule(
        "finite_numbers",
        "block",
        why="NaN or infinity spreads through every sum made of it; what is undefined is null.",
        look=_FORMULA,
        # Parquet leaves NaN out of minimum and maximum: statistics cannot prove this one.
        holds=every(f"coalesce(isfinite({name}), true)" for name in _FLOATS),
    ),
    Rule(
        "last_side_known",
        "block",
        why="The last aggressor is A, B or N, and its method one of the four; N and none go together.",
        look=_FORMULA,
        holds=every([one_letter("last_side", SIDES), one_of("last_side_method", SIDE_METHODS), "(last_side = 'N') = (last_side_method = 'none')"]),
    ),
)
