"""Bars and features of one partition, made from its trades, touch and grid layers. Reads their schemas, never the code that makes them.

The names in `__all__` are the functions for a script without Prefect. They are looked up when first used, so that importing one module of
this package compiles and loads nothing of the others. aggregate_partition is aggregate.aggregate: the shorter name is the module's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.lazy import lazy_names

if TYPE_CHECKING:
    from tasks.aggregation.aggregate import aggregate as aggregate_partition
    from tasks.aggregation.bars import build_bars
    from tasks.aggregation.consolidated import consolidate
    from tasks.aggregation.features import build_features

__all__ = ["aggregate_partition", "build_bars", "build_features", "consolidate"]

# name -> module.attribute
_HOMES = {
    "aggregate_partition": "aggregate.aggregate",
    "build_bars": "bars.build_bars",
    "build_features": "features.build_features",
    "consolidate": "consolidated.consolidate",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
