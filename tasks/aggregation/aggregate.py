"""All aggregates of one partition: which bars and features, from which layers, with which stamps. The sums are in bars.py and features.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.aggregation.bars import build_bars
from tasks.aggregation.features import build_features
from tasks.aggregation.layer_reading import KNOWN
from tasks.disk import together
from tasks.errors import BookmillError
from tasks.footers import is_done, read_facts, read_footer
from tasks.partitions import MboRecipe, Partition, Stamp, digest
from tasks.specs import interval_name, parse_bar


def features_layer(recipe: MboRecipe) -> str:
    """features-1s and the like."""
    return f"features-{interval_name(recipe.interval_ns)}"


def aggregate_layers(recipe: MboRecipe) -> list[str]:
    """Layers that `aggregate` makes."""
    return [*(parse_bar(name).layer for name in recipe.bars), features_layer(recipe)]


def aggregate_stamp(lake: Path, partition: Partition, recipe: MboRecipe, layer: str) -> Stamp:
    """What a layer is made from: the book layers' stamp and the options that count for it. Raises BookmillError when they are missing."""
    footer = read_footer(lake / partition.path("bbo"))
    if footer is None:
        raise BookmillError(f"{lake / partition.path('bbo')} is missing or not readable. Start the run again: it is made anew.")
    return Stamp(digest([footer["bookmill.inputs"], footer["bookmill.recipe"]]), digest([layer, recipe.clock]))


def is_aggregated(lake: Path, partition: Partition, recipe: MboRecipe) -> bool:
    """Whether all aggregates of the partition are there and made from its present books."""
    try:
        return all(is_done(lake / partition.path(layer), aggregate_stamp(lake, partition, recipe, layer)) for layer in aggregate_layers(recipe))
    except BookmillError:
        return False


def aggregate(lake: Path, partition: Partition, recipe: MboRecipe, *, batch_rows: int = 65_536) -> dict[str, dict[str, Any]]:
    """Write the bars and features of one partition; layer -> facts. What is there with the right stamp is left alone."""
    trades, bbo = lake / partition.path("trades"), lake / partition.path("bbo")
    grid = lake / partition.path(f"mbp-{recipe.depth}-{interval_name(recipe.interval_ns)}")
    facts: dict[str, dict[str, Any]] = {}
    with together():
        for name in recipe.bars:
            spec = parse_bar(name)
            out, stamp = lake / partition.path(spec.layer), aggregate_stamp(lake, partition, recipe, spec.layer)
            if is_done(out, stamp):
                facts[spec.layer] = read_facts(out)
            else:
                facts[spec.layer] = build_bars([trades], out, spec, stamp, clock=KNOWN, partition=partition, batch_rows=batch_rows)
        layer = features_layer(recipe)
        out, stamp = lake / partition.path(layer), aggregate_stamp(lake, partition, recipe, layer)
        if is_done(out, stamp):
            facts[layer] = read_facts(out)
        else:
            facts[layer] = build_features(
                grid, [bbo], [trades], out, stamp, interval_ns=recipe.interval_ns, clock=KNOWN, depth=recipe.depth,
                fresh_rows=read_facts(bbo).get("fresh_rows", ()), batch_rows=batch_rows,
            )  # fmt: skip
    return facts
