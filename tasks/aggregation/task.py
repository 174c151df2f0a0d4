"""The aggregate tasks: book layers to bars and features, and to the touch over all publishers. Boundary only; see aggregate.py, consolidated.py."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from tasks.aggregation.aggregate import aggregate, is_aggregated
from tasks.aggregation.consolidated import SymbolDay, consolidate
from tasks.aggregation.depth_aggregate import DepthAggregates, aggregate_depth, is_depth_aggregated
from tasks.depth_recipe import DepthDay, DepthRecipe
from tasks.partitions import MboRecipe, Partition
from tasks.work import Outcome, Work, run_each

# Row groups read and bars in the making, measured: 120 MB.
AGGREGATE_BYTES = 160 << 20
# Batches, row groups read and the one in the making, measured: 80 MB for two publishers, 108 MB for sixteen.
CONSOLIDATE_BYTES = 128 << 20


@task(name="aggregate", task_run_name="aggregate {label}")
def aggregate_partitions(lake: str, partitions: tuple[Partition, ...], contents: str, recipe: MboRecipe, label: str, run: Work) -> list[Outcome]:
    """Bars and features of each partition; values are layer -> facts. contents: digest of the layers read, for the cache key."""

    def body(partition: Partition):
        skipped = is_aggregated(Path(lake), partition, recipe)
        with run.slots(1, AGGREGATE_BYTES):
            facts = aggregate(Path(lake), partition, recipe, batch_rows=run.batch_rows)
        return facts, sum(f.get("rows_out", 0) for f in facts.values()), skipped

    return run_each(partitions, str, body)


@task(name="consolidate", task_run_name="consolidate {label}")
def consolidate_symbols(lake: str, jobs: tuple[SymbolDay, ...], contents: str, recipe: MboRecipe, label: str, run: Work) -> list[Outcome]:
    """The best bid and offer over all publishers of each job; values are `Consolidated`. contents: digest of the bbo layers, for the cache key."""

    def body(job: SymbolDay):
        with run.slots(1, CONSOLIDATE_BYTES):
            done = consolidate(Path(lake), job.publishers, clock=recipe.clock, batch_rows=run.batch_rows)
        return done, done.facts["rows_in"], done.skipped

    return run_each(jobs, lambda job: str(job.partition), body)


@task(name="aggregate depth", task_run_name="aggregate {label}")
def aggregate_depth_days(lake: str, jobs: tuple[DepthDay, ...], contents: str, recipe: DepthRecipe, label: str, run: Work) -> list[Outcome]:
    """Bars of the mid and features of each partition; values are layer -> facts. contents: digest of the layers read, for the cache key."""

    def body(job: DepthDay):
        wanted = wanted_of(job, recipe)
        skipped = is_depth_aggregated(Path(lake), job.partition, wanted)
        with run.slots(1, AGGREGATE_BYTES):
            facts = aggregate_depth(Path(lake), job.partition, wanted, batch_rows=run.batch_rows)
        return facts, sum(f.get("rows_out", 0) for f in facts.values()), skipped

    return run_each(jobs, lambda job: str(job.partition), body)


def wanted_of(job: DepthDay, recipe: DepthRecipe) -> DepthAggregates:
    """What is made of a partition under a recipe."""
    return DepthAggregates(job.depth, recipe.interval_ns, recipe.bars)
