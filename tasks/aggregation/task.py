"""The aggregate task: book layers to bars and features. Boundary only; see aggregate.py."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from tasks.aggregation.aggregate import aggregate, is_aggregated
from tasks.partitions import MboRecipe, Partition
from tasks.work import Outcome, Work, run_each

# Row groups read and bars in the making, measured: 120 MB.
AGGREGATE_BYTES = 160 << 20


@task(name="aggregate", task_run_name="aggregate {label}")
def aggregate_partitions(lake: str, partitions: tuple[Partition, ...], contents: str, recipe: MboRecipe, label: str, run: Work) -> list[Outcome]:
    """Bars and features of each partition; values are layer -> facts. contents: digest of the layers read, for the cache key."""

    def body(partition: Partition):
        skipped = is_aggregated(Path(lake), partition, recipe)
        with run.slots(1, AGGREGATE_BYTES):
            facts = aggregate(Path(lake), partition, recipe, batch_rows=run.batch_rows)
        return facts, sum(f.get("rows_out", 0) for f in facts.values()), skipped

    return run_each(partitions, str, body)
