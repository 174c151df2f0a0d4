"""Expectations of the trades of a depth feed (layer depth-trades), which come as the venue told them. How they are read is in tasks/scanning."""

from __future__ import annotations

import pyarrow as pa

from tasks.schemas import DEPTH_TRADES, SIDES
from validation.rules import Context, Rule, complete, one_letter
from validation.suites.depth_books import one_symbol

_READER = "The row of the source: trades are written as they came, row by row."


def schema(context: Context) -> pa.Schema:
    """Columns of the layer."""
    return DEPTH_TRADES


def rules(context: Context) -> tuple[Rule, ...]:
    """All expectations; nothing in them depends on the context."""
    return (*_TRADES, complete(DEPTH_TRADES.names, look=_READER), one_symbol())


_TRADES = (
    Rule(
        "size_positive",
        "warn",
        why="A trade of size 0 counts as one and adds no volume.",
        look=_READER,
        holds="size > 0",
        bounds={"size": (1, None)},
    ),
    Rule(
        "price_positive",
        "warn",
        why="A price of 0 or less is real for few instruments, and more often a cell that was filled with nothing.",
        look=_READER,
        holds="price > 0",
        bounds={"price": (1, None)},
    ),
    Rule(
        "side_known",
        "block",
        why="The aggressor is B, A or N; anything else is a fault of the reader.",
        look=_READER,
        holds=one_letter("side", SIDES),
    ),
    Rule(
        "captured_in_order",
        "warn",
        why="Rows stand in the order of capture; one that steps back was sorted otherwise, or files were joined.",
        look=_READER,
        holds="prev_ts_recv IS NULL OR ts_recv >= prev_ts_recv",
        previous=("ts_recv",),
    ),
)
