"""Expectations of the consolidated best bid and offer: cbbo. How it is merged is in tasks/aggregation.

Crossed and locked rows are no fault here: publishers lock and cross each other. The layer's facts count them.
"""

from __future__ import annotations

import pyarrow as pa

from tasks.schemas import CBBO, UNDEF_PRICE
from validation.rules import Context, Rule, complete, every
from validation.suites.books import status_rules

_MERGE = "The merge in tasks/aggregation and the bbo rows of each publisher around that time; delete the file and run again."
_SIDES = ("bid", "ask")
_LISTS = tuple(f.name for f in CBBO if pa.types.is_list(f.type))
_STATE = tuple(name for name in CBBO.names if name not in ("ts_event", "ts_recv", "symbol"))


def schema(context: Context) -> pa.Schema:
    """Columns of the cbbo layer."""
    return CBBO


def rules(context: Context) -> tuple[Rule, ...]:
    """All expectations on cbbo rows; those on time depend on `context.clock`."""
    filled = complete((name for name in CBBO.names if name not in _LISTS), look=_MERGE)
    return (*_SIDE_RULES, *status_rules(), *_times(context.clock), _CHANGES, filled, _ONE_SYMBOL)


_SIDE_RULES = (
    Rule(
        "sizes_fit_prices",
        "block",
        why="A price has a size above 0 behind it, no price has none; otherwise imbalances made of them are wrong.",
        look=_MERGE,
        holds=every(f"{s}_sz >= 0 AND ({s}_sz = 0) = ({s}_px = {UNDEF_PRICE})" for s in _SIDES),
    ),
    Rule(
        "counts_fit_prices",
        "block",
        why="Without a price there are no orders. With one there may be 0: some sources do not count orders.",
        look=_MERGE,
        holds=every(f"{s}_ct = 0 OR {s}_px <> {UNDEF_PRICE}" for s in _SIDES),
    ),
    Rule(
        "venues_fit_prices",
        "block",
        why="A price is some publisher's, and only publishers that count are named; a price of nobody was invented or outlived its publisher.",
        look=_MERGE,
        holds=every(f"(len({s}_venues) = 0) = ({s}_px = {UNDEF_PRICE}) AND len({s}_venues) <= venues" for s in _SIDES),
    ),
    Rule(
        "venues_ascending",
        "block",
        why="Each publisher stands once, in the order of the ids; one that is there twice had its size added twice.",
        look=_MERGE,
        # Most lists have one publisher, which needs no sorting.
        holds=every(f"{s}_venues IS NULL OR len({s}_venues) < 2 OR list_sort(list_distinct({s}_venues)) = {s}_venues" for s in _SIDES),
    ),
)

_CHANGES = Rule(
    "rows_differ",
    "warn",
    why="There is a row at each change; a row like the one before it is harmless to readers, but no merge writes it.",
    look=_MERGE,
    holds=f"prev_status IS NULL OR {' OR '.join(f'{name} IS DISTINCT FROM prev_{name}' for name in _STATE)}",
    previous=_STATE,
)

_ONE_SYMBOL = Rule(
    "one_symbol",
    "block",
    why="Prices of two instruments have no common best one.",
    look="Which partitions were given to the merge in tasks/aggregation.",
    holds="prev_symbol IS NULL OR symbol = prev_symbol",
    previous=("symbol",),
    constant=("symbol",),
)


def _times(clock: str) -> tuple[Rule, ...]:
    return (
        Rule(
            "time_ordered",
            "block",
            why=f"Rows are merged in the order of {clock}, which carries the running clock of the publishers; a step back means look-ahead.",
            look=_MERGE,
            holds=f"prev_{clock} IS NULL OR {clock} >= prev_{clock}",
            previous=(clock,),
        ),
        Rule(
            "no_look_ahead",
            "block",
            why="A status is told from the moment on at which it began; a later beginning was not known at the time of the row.",
            look=_MERGE,
            holds=f"status_since IS NULL OR status_since <= {clock}",
        ),
    )
