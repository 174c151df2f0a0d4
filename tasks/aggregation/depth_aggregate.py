"""All aggregates of one depth partition: which mid bars and features, from which layers, with which stamps. The sums are in depth_bars.py and
depth_features.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.aggregation.depth_bars import build_mid_bars, mid_layer
from tasks.aggregation.depth_features import build_depth_features
from tasks.aggregation.depth_layers import BBO_LAYER, silences, windows_of
from tasks.errors import BookmillError, UsageError
from tasks.footers import is_done, read_facts, read_footer
from tasks.partitions import Partition, Stamp, digest
from tasks.specs import interval_name, parse_bar


@dataclass(frozen=True)
class DepthAggregates:
    """What to make. depth: levels of the grid that features are made from, the largest there is; interval_ns: step of that grid and span of
    the features; bars: intervals that divide a day, such as "1s", "1m". Raises UsageError.
    """

    depth: int
    interval_ns: int = 60_000_000_000
    bars: tuple[str, ...] = ("1s", "1m")

    def __post_init__(self) -> None:
        if self.depth < 1 or self.interval_ns <= 0:
            raise UsageError(f"depth is {self.depth} and interval {self.interval_ns} ns; both must be positive")
        for name in self.bars:
            mid_layer(name)

    @property
    def grid_layer(self) -> str:
        """depth-500-1m and the like."""
        return f"depth-{self.depth}-{interval_name(self.interval_ns)}"

    @property
    def features_layer(self) -> str:
        """depth-features-1m and the like."""
        return f"depth-features-{interval_name(self.interval_ns)}"


def depth_aggregate_layers(wanted: DepthAggregates) -> list[str]:
    """Layers that `aggregate_depth` makes."""
    return [*dict.fromkeys(mid_layer(name) for name in wanted.bars), wanted.features_layer]


def depth_aggregate_stamp(lake: Path, partition: Partition, wanted: DepthAggregates, layer: str) -> Stamp:
    """What a layer is made from: the stamps of touch and grid, and the options that count. Raises BookmillError when one of them is missing."""
    made_from = []
    for name in (BBO_LAYER, wanted.grid_layer):
        footer = read_footer(lake / partition.path(name))
        if footer is None:
            raise BookmillError(f"{lake / partition.path(name)} is missing or not readable. Start the run again: it is made anew.")
        made_from.append([footer["bookmill.inputs"], footer["bookmill.recipe"]])
    # Silences come from the grid: bars depend on it too.
    return Stamp(digest(made_from), digest([layer, wanted.grid_layer]))


def is_depth_aggregated(lake: Path, partition: Partition, wanted: DepthAggregates) -> bool:
    """Whether all aggregates of the partition are there and made from its present books."""
    layers = depth_aggregate_layers(wanted)
    try:
        return all(is_done(lake / partition.path(layer), depth_aggregate_stamp(lake, partition, wanted, layer)) for layer in layers)
    except BookmillError:
        return False


def aggregate_depth(lake: Path, partition: Partition, wanted: DepthAggregates, *, batch_rows: int = 65_536) -> dict[str, dict[str, Any]]:
    """Write the mid bars and features of one partition; layer -> facts. What is there with the right stamp is left alone.

    The windows are those in the facts of the touch layer (`windows`: pairs of ns; null or absent: the UTC day of the partition).
    """
    bbo, grid = lake / partition.path(BBO_LAYER), lake / partition.path(wanted.grid_layer)
    intervals = {mid_layer(name): parse_bar(name).size for name in wanted.bars}
    facts: dict[str, dict[str, Any]] = {}
    silent = None
    for layer in depth_aggregate_layers(wanted):
        out, stamp = lake / partition.path(layer), depth_aggregate_stamp(lake, partition, wanted, layer)
        if is_done(out, stamp):
            facts[layer] = read_facts(out)
        elif layer == wanted.features_layer:
            facts[layer] = build_depth_features(
                grid, bbo, out, stamp, interval_ns=wanted.interval_ns, depth=wanted.depth, fresh_rows=read_facts(bbo).get("fresh_rows", ()),
                batch_rows=batch_rows,
            )  # fmt: skip
        else:
            silent = silences(grid, wanted.interval_ns, batch_rows) if silent is None else silent
            windows = windows_of(partition, read_facts(bbo).get("windows"))
            facts[layer] = build_mid_bars(
                bbo, out, intervals[layer], stamp, partition=partition, windows=windows, silent=silent, batch_rows=batch_rows
            )  # fmt: skip
    return facts
