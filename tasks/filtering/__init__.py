"""Which rows are wanted: one predicate model over symbols, publishers, time and trading hours, for NumPy, DuckDB and Arrow alike.

The names in `__all__` are the functions for a script without Prefect. They are looked up when first used, so that importing one module of
this package compiles and loads nothing of the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.lazy import lazy_names

if TYPE_CHECKING:
    from tasks.filtering.predicate import check_filter, event_mask, output_windows, to_arrow, to_sql

__all__ = ["check_filter", "event_mask", "output_windows", "to_arrow", "to_sql"]

# name -> module.attribute
_HOMES = {
    "check_filter": "predicate.check_filter",
    "event_mask": "predicate.event_mask",
    "output_windows": "predicate.output_windows",
    "to_arrow": "predicate.to_arrow",
    "to_sql": "predicate.to_sql",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
