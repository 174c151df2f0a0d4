"""Expectations of the trades layer: prints with aggressor and the touch before them. How the aggressor is found is in tasks/reconstruction."""

from __future__ import annotations

import pyarrow as pa

from tasks.schemas import SIDE_METHODS, SIDES, TRADES, UNDEF_PRICE
from validation.rules import Context, Rule, complete, one_letter, one_of, one_partition
from validation.suites.books import status_rules

_SIGN = "The trade sign in tasks/reconstruction: feed first, then quote rule, then tick rule."


def schema(context: Context) -> pa.Schema:
    """Columns of the trades layer."""
    return TRADES


def rules(context: Context) -> tuple[Rule, ...]:
    """All expectations on trades."""
    return (*_TRADES, _known(context.clock), *status_rules(), complete(TRADES.names, look=_SIGN), one_partition())


def _known(clock: str) -> Rule:
    return Rule(
        "known_not_before",
        "block",
        why="Bars and features take a trade when it was known (as_of); before its own time it was not, and using it there would look ahead.",
        look="The running clock of the replay in tasks/reconstruction.",
        holds=f"as_of >= {clock} AND (prev_as_of IS NULL OR as_of >= prev_as_of)",
        previous=("as_of",),
    )


_TRADES = (
    Rule(
        "size_positive",
        "warn",
        why="A print of size 0 counts as a trade and adds no volume; bars made of such prints have no vwap.",
        look="size_not_zero of the events gate, and the size scale of the source.",
        holds="size > 0",
        bounds={"size": (1, None)},
    ),
    Rule(
        "price_defined",
        "warn",
        why="Bars and features leave out a print without a price, so their volume is short of the venue's.",
        look="price_defined of the events gate: were the rows quarantined there?",
        holds=f"price <> {UNDEF_PRICE}",
        bounds={"price": (None, UNDEF_PRICE - 1)},
    ),
    Rule(
        "side_known",
        "block",
        why="The aggressor is A, B or N; signed volume is a sum over it.",
        look=_SIGN,
        holds=one_letter("side", SIDES),
    ),
    Rule(
        "method_known",
        "block",
        why="Without the method nobody can tell a side the feed gave from one that was inferred.",
        look=_SIGN,
        holds=one_of("side_method", SIDE_METHODS),
    ),
    Rule(
        "method_fits_side",
        "block",
        why="No side and no method go together; a side without a method, or a method that found no side, was written from two rows.",
        look=_SIGN,
        holds="(side = 'N') = (side_method = 'none')",
    ),
    Rule(
        "inside_touch",
        "warn",
        why="A print outside the touch before its event walked the book, was hidden or negotiated, or the book is wrong; many of them mean the last.",
        look="The share of such prints per hour, the certificate, and whether the prints are crosses or late reports.",
        holds=f"status <> 'valid' OR price = {UNDEF_PRICE} "
        f"OR ((bid_px_00 = {UNDEF_PRICE} OR price >= bid_px_00) AND (ask_px_00 = {UNDEF_PRICE} OR price <= ask_px_00))",
    ),
    Rule(
        "received_in_order",
        "warn",
        why="Trades are kept in the order of capture; a step back moves a print into another bar than the one that a live reader saw.",
        look="received_in_order of the events gate.",
        holds="prev_ts_recv IS NULL OR ts_recv >= prev_ts_recv",
        previous=("ts_recv",),
    ),
)
