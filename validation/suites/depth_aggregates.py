"""Expectations of what is made from depth books: mid bars (suite mid_bars) and features on a grid (suite depth_features): bounds that hold by
definition, no row missing, and no look-ahead. The formulas are in tasks/aggregation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import pyarrow as pa

from tasks.schemas import BANDS_BPS, DEPTH_FEATURES, MID_BARS
from validation.rules import Context, Rule, complete, every
from validation.suites.books import status_began, status_rules, time_rules
from validation.suites.depth_books import EVERY_GRID_TIME, every_grid_time, one_symbol
from validation.suites.features import FEATURE_RULES
from validation.suites.grid_times import through

_BUILDER = "The mid bars in tasks/aggregation, and the touch rows of that span; the gate of depth-bbo says whether they were sound."
_FORMULA = "The depth features in tasks/aggregation and the grid row of the same ts_event."
_PRICES = ("open", "high", "low", "close", "twap")
_MEANS = ("spread_mean", "bid_sz_mean", "ask_sz_mean")
# Null together, where a side is empty.
_OF_BARS = (*_PRICES, *_MEANS)
_OF_BOOK = tuple(name for name in DEPTH_FEATURES.names[DEPTH_FEATURES.get_field_index("spread") : DEPTH_FEATURES.get_field_index("ofi")])
_KEPT = ("imbalance_within_one", "volatility_not_negative")


def mid_bars_schema(context: Context) -> pa.Schema:
    """Columns of a layer of mid bars."""
    return MID_BARS


def mid_bars_rules(context: Context) -> tuple[Rule, ...]:
    """All expectations on mid bars; interval_ns is the length of a bar, windows those of the book."""
    filled = complete((name for name in MID_BARS.names if name not in (*_OF_BARS, "status_since")), look=_BUILDER)
    length = f"= {context.interval_ns}" if context.interval_ns else "> 0"
    closes = Rule(
        "closes_after_start",
        "block",
        why="A bar covers [ts_event, ts_close), which is as long as its name says.",
        look=_BUILDER,
        holds=f"ts_close::HUGEINT - ts_event {length}",
    )
    # The last nanosecond of a bar: what begins at its end is the next bar's.
    began = status_began("(ts_close::HUGEINT - 1)")
    return (
        *_BARS,
        _changes(_BUILDER),
        closes,
        *status_rules(),
        began,
        *_every_bar(context),
        filled,
        one_symbol(),
        _null_together(_OF_BARS),
        _finite(MID_BARS, _BUILDER),
    )


def depth_features_schema(context: Context) -> pa.Schema:
    """Columns of a layer of depth features."""
    return DEPTH_FEATURES


def depth_features_rules(context: Context) -> tuple[Rule, ...]:
    """All expectations on depth features; interval_ns and windows are those of the grid."""
    filled = complete((name for name in DEPTH_FEATURES.names if name not in (*_OF_BOOK, "as_of", "status_since")), look=_FORMULA)
    kept = (replace(rule, look=_FORMULA) for rule in FEATURE_RULES if rule.name in _KEPT)
    times = time_rules(replace(context, grid=True))
    own = (*_DEPTH, _changes(_FORMULA), _null_together(_OF_BOOK), _finite(DEPTH_FEATURES, _FORMULA))
    return (*own, *kept, *status_rules(), *times, *every_grid_time(context), filled, one_symbol())


def _every_bar(context: Context) -> tuple[Rule, ...]:
    """Every bar that a window touches has one row; two windows can touch one bar."""
    if context.windows is None or context.interval_ns is None:
        return every_grid_time(context)
    step = context.interval_ns
    spans: list[tuple[int, int]] = []
    for first, last in sorted((start // step * step, (end - 1) // step * step) for start, end in context.windows):
        joined = bool(spans) and first <= spans[-1][1] + step
        spans[-1 if joined else len(spans) :] = [(spans[-1][0], max(spans[-1][1], last)) if joined else (first, last)]
    return through(*EVERY_GRID_TIME, spans, step)


def _null_together(names: Iterable[str]) -> Rule:
    first, *others = names
    return Rule(
        "null_together",
        "block",
        why="Without both sides none of these is defined, with them all are; a single null hides a number, a single number was made of nothing.",
        look=_BUILDER if first == "open" else _FORMULA,
        holds=every(f"({name} IS NULL) = ({first} IS NULL)" for name in others),
    )


def _finite(schema: pa.Schema, look: str) -> Rule:
    return Rule(
        "finite_numbers",
        "block",
        why="NaN or infinity spreads through every sum made of it; what is undefined is null.",
        look=look,
        holds=every(f"coalesce(isfinite({field.name}), true)" for field in schema if pa.types.is_floating(field.type)),
    )


def _changes(look: str) -> Rule:
    return Rule(
        "changes_not_negative",
        "block",
        why="It counts rows of the touch.",
        look=look,
        holds="changes IS NULL OR changes >= 0",
        bounds={"changes": (0, None)},
    )


def _at_least(low: str, high: str) -> str:
    """SQL: low <= high, where both are numbers; null_together and finite_numbers report what is none."""
    return f"{low} IS NULL OR {high} IS NULL OR isnan({low}) OR isnan({high}) OR {low} <= {high}"


_BARS = (
    Rule(
        "high_is_highest",
        "block",
        why="No mid of a bar lies above its high.",
        look=_BUILDER,
        holds=every(_at_least(name, "high") for name in ("open", "close", "twap")),
    ),
    Rule(
        "low_is_lowest",
        "block",
        why="No mid of a bar lies below its low.",
        look=_BUILDER,
        holds=every(_at_least("low", name) for name in ("open", "close", "twap", "high")),
    ),
    Rule(
        "spread_not_negative",
        "warn",
        why="A bar that was valid all along and has a negative mean spread was crossed for most of its time.",
        look="not_crossed of the gate of depth-bbo at the same times.",
        holds="spread_mean IS NULL OR spread_mean >= 0 OR status <> 'valid'",
    ),
    Rule(
        "sizes_positive",
        "block",
        why="A touch with both sides has sizes above 0, and so have their means.",
        look=_BUILDER,
        holds=every(f"{name} IS NULL OR {name} > 0" for name in ("bid_sz_mean", "ask_sz_mean")),
    ),
    Rule(
        "valid_share_fits_status",
        "block",
        why="It is a share of time, 0 to 1; and a bar is valid exactly when all of it was.",
        look=_BUILDER,
        holds="CASE WHEN status = 'valid' THEN valid_share = 1 ELSE valid_share >= 0 AND valid_share < 1 END",
    ),
)

_BANDS = tuple([f"{side}_depth_{bps}bps" for bps in sorted(BANDS_BPS)] + [f"{side}_depth"] for side in ("bid", "ask"))

_DEPTH = (
    Rule(
        "spread_not_negative",
        "warn",
        why="A valid book with a negative spread is crossed: the replay lost a message, or the venue showed an auction.",
        look="not_crossed of the gate of the grid at the same times.",
        holds="spread IS NULL OR spread >= 0 OR status <> 'valid'",
    ),
    Rule(
        "mid_and_microprice_agree",
        "block",
        why="The microprice lies between bid and ask: at most half a spread from the mid.",
        look=_FORMULA,
        # Two roundings of three numbers; a fault is larger by far.
        holds="spread IS NULL OR mid IS NULL OR microprice IS NULL OR isnan(microprice - mid) OR isnan(spread) "
        "OR abs(microprice - mid) <= abs(spread) / 2 + 1e-12 * abs(mid)",
    ),
    Rule(
        "bands_nested",
        "block",
        why="A wider band holds all that a narrower one holds, and all levels hold the widest; none holds less than nothing.",
        look=_FORMULA,
        holds=every([_at_least("0.0", side[0]) for side in _BANDS] + [_at_least(a, b) for side in _BANDS for a, b in pairwise(side)]),
    ),
)
