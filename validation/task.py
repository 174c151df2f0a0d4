"""The gate task: layer files to a verdict. Boundary only; see gate.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import task

from tasks.work import Work
from validation.gate import GateReport, run_gate


@task(name="gate", task_run_name="gate {suite} ({label})")
def gate(suite: str, lake: str, paths: tuple[str, ...], contents: str, context: dict[str, Any], label: str, run: Work) -> GateReport:
    """Judge the files of one layer. contents: digest of their footers, for the cache key: an unchanged file is not judged again."""
    with run.slots(run.duckdb_threads, run.duckdb_memory_bytes):
        return run_gate(
            suite, [Path(lake) / path for path in paths], threads=run.duckdb_threads, memory_bytes=run.duckdb_memory_bytes, context=context
        )
