"""Expectations of bars: time, tick, volume and dollar bars. How they are built is in tasks/aggregation."""

from __future__ import annotations

import pyarrow as pa

from tasks.schemas import BARS, UNDEF_PRICE
from validation.rules import Context, Rule, complete, one_partition
from validation.suites.books import status_rules

_BUILDER = "The bar builder in tasks/aggregation and the trades of that span; the trades gate says whether they were sound."


def schema(context: Context) -> pa.Schema:
    """Columns of a bar layer."""
    return BARS


def rules(context: Context) -> tuple[Rule, ...]:
    """All expectations on bars; those on time depend on `context.time_bars`."""
    return (*_BARS, *status_rules(), *(_TIME_BARS if context.time_bars else _ACTIVITY_BARS), complete(BARS.names, look=_BUILDER), one_partition())


_BARS = (
    Rule(
        "high_is_highest",
        "block",
        why="No price of a bar lies above its high.",
        look=_BUILDER,
        holds="high >= greatest(open, close, low)",
    ),
    Rule(
        "low_is_lowest",
        "block",
        why="No price of a bar lies below its low.",
        look=_BUILDER,
        holds="low <= least(open, close, high)",
    ),
    Rule(
        "vwap_in_range",
        "block",
        why="An average lies between the lowest and the highest price; outside means an overflow or a wrong scale. Without volume there is none.",
        look=_BUILDER,
        holds=f"CASE WHEN volume = 0 AND vwap = {UNDEF_PRICE} THEN true ELSE vwap BETWEEN least(low, high) AND greatest(low, high) END",
    ),
    Rule(
        "volume_not_negative",
        "block",
        why="Volume is a sum of sizes; below 0 means an overflow.",
        look=_BUILDER,
        holds="volume >= 0",
        bounds={"volume": (0, None)},
    ),
    Rule(
        "sides_within_volume",
        "block",
        why="Bought and sold are parts of the volume; the rest has no known side.",
        look=_BUILDER,
        holds="volume < 0 OR (buy_volume >= 0 AND sell_volume >= 0 AND buy_volume::HUGEINT + sell_volume <= volume)",
    ),
    Rule(
        "has_trades",
        "block",
        why="A span without a trade has no bar; a bar without a trade was invented.",
        look=_BUILDER,
        holds="trades > 0",
        bounds={"trades": (1, None)},
    ),
    Rule(
        "valid_share_is_share",
        "block",
        why="It is a share of the bar's trades, 0 to 1.",
        look=_BUILDER,
        holds="valid_share BETWEEN 0 AND 1",
    ),
)

_TIME_BARS = (
    Rule(
        "closes_after_start",
        "block",
        why="A time bar covers [ts_event, ts_close), which is never empty.",
        look=_BUILDER,
        holds="ts_close > ts_event",
    ),
    Rule(
        "no_duplicate_start",
        "block",
        why="Two bars of one span would both be joined; strictly rising starts prove that there are none, without an index of all of them.",
        look=_BUILDER,
        holds="prev_ts_event IS NULL OR ts_event > prev_ts_event",
        previous=("ts_event",),
    ),
)

_ACTIVITY_BARS = (
    Rule(
        "closes_at_or_after_start",
        "warn",
        why="The last trade of a bar is not before its first, unless the source's clock stepped back within it.",
        look="received_in_order of the trades gate.",
        holds="ts_close >= ts_event",
    ),
    Rule(
        "starts_in_order",
        "warn",
        why="Bars follow each other in file order; a start before that of the bar before it shows the same step back.",
        look="received_in_order of the trades gate.",
        holds="prev_ts_event IS NULL OR ts_event >= prev_ts_event",
        previous=("ts_event",),
    ),
)
