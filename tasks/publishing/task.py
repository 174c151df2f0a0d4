"""The draw, ledger and report tasks: what a person looks at. Boundary only."""

from __future__ import annotations

import json
from pathlib import Path

from prefect import task

from tasks.partitions import Partition
from tasks.publishing import ledger
from tasks.publishing.draw import are_drawn, draw
from tasks.publishing.report import RunFacts, write_report
from tasks.storage import atomic_file
from tasks.work import AT_ONCE, Outcome, Work, run_each

DRAW_BYTES = 192 << 20


@task(name="draw", task_run_name="draw {label}")
def draw_heatmaps(lake: str, partitions: tuple[Partition, ...], contents: str, clock: str, label: str, run: Work) -> list[Outcome]:
    """PNG and HTML heatmap of each partition; values are suffix -> path. contents: digest of the grids, for the cache key."""

    def body(partition: Partition):
        skipped = are_drawn(Path(lake), partition)
        with run.slots(1, DRAW_BYTES):
            return draw(Path(lake), partition, clock), 0, skipped

    return run_each(partitions, str, body)


@task(name="ledger", task_run_name="ledger {label}")
def write_ledgers(lake: str, partitions: tuple[Partition, ...], contents: str, label: str, run: Work) -> list[Outcome]:
    """The ledger of each partition, checked: values are rows of schema LEDGER as dicts. contents: digest of the layers, for the cache key."""

    def body(partition: Partition):
        rows = ledger.write(Path(lake), partition).to_pylist()
        return rows, len(rows), False

    return run_each(partitions, str, body, at_once=AT_ONCE)


@task(name="report", task_run_name="report {facts.run_id}")
def publish_report(lake: str, facts: RunFacts) -> str:
    """Write the run's facts and its HTML report; returns the report's path."""
    folder = Path(lake)
    with atomic_file(folder / "runs" / f"{facts.run_id}.json") as file:
        file.write(json.dumps(facts.to_json(), indent=1, default=str).encode())
    path = folder / "reports" / f"{facts.run_id}.html"
    write_report(facts, folder, path)
    return str(path)
