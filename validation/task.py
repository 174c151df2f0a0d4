"""The gate task: layer files to a verdict. Boundary only; see gate.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import task

from tasks.partitions import digest
from tasks.work import Work
from validation.gate import GateReport, run_gate
from validation.rules import Context
from validation.suites import suite_of


@task(name="gate", task_run_name="gate {suite} ({label})")
def gate(suite: str, lake: str, paths: tuple[str, ...], contents: str, rules: str, context: dict[str, Any], label: str, run: Work) -> GateReport:
    """Judge the files of one layer. For the cache key: contents, a digest of their footers, and rules, one of the suite (`rules_digest`), so that
    a file is judged again when it or a rule has changed, and only then."""
    # One core: rules that look at the row before stream in file order, so that a scan keeps one thread busy and another but now and then.
    with run.slots(1, run.duckdb_memory_bytes):
        return run_gate(
            suite, [Path(lake) / path for path in paths], threads=run.duckdb_threads, memory_bytes=run.duckdb_memory_bytes, context=context
        )


def rules_digest(suite: str, context: dict[str, Any]) -> str:
    """Digest of the rules of a suite in this context."""
    return digest([repr(rule) for rule in suite_of(suite, Context.of(context)).rules])
