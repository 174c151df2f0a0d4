"""The suites: one module a table, each with `schema(context)` and `rules(context)`. Declarations only; nothing here reads data."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pyarrow as pa

from tasks.errors import UsageError
from validation.rules import FILE_RULES, Context, Rule
from validation.suites import bars, books, consolidated, depth_aggregates, depth_books, depth_trades, events, features, trades


class Suite(NamedTuple):
    """schema: the columns and types that a file must have; rules: the expectations, those on the file itself first."""

    schema: pa.Schema
    rules: tuple[Rule, ...]


_MODULES: dict[str, tuple[Callable[[Context], pa.Schema], Callable[[Context], tuple[Rule, ...]]]] = {
    module.__name__.rpartition(".")[2]: (module.schema, module.rules) for module in (events, books, trades, bars, features, consolidated)
}
SUITES = tuple(_MODULES)  # of order-by-order books
_DEPTH: dict[str, tuple[Callable[[Context], pa.Schema], Callable[[Context], tuple[Rule, ...]]]] = {
    "depth_books": (depth_books.schema, depth_books.rules),
    "depth_trades": (depth_trades.schema, depth_trades.rules),
    "mid_bars": (depth_aggregates.mid_bars_schema, depth_aggregates.mid_bars_rules),
    "depth_features": (depth_aggregates.depth_features_schema, depth_aggregates.depth_features_rules),
}
DEPTH_SUITES = tuple(_DEPTH)  # of feeds by price level


def suite_of(name: str, context: Context) -> Suite:
    """The suite of table `name` for files that `context` describes; UsageError when there is none."""
    declared = _MODULES | _DEPTH
    if name not in declared:
        raise UsageError(f"There is no suite {name!r}; allowed: {', '.join(declared)}")
    schema, rules = declared[name]
    return Suite(schema(context), FILE_RULES + rules(context))
