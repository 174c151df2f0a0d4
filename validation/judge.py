"""Great Expectations as the judge of the profile: one row a file, one column a rule, the count of unexpected rows in it.

Why a profile and not the rows: each expectation on the rows is a scan of its own, and between bounds become floats, which let a time 1 ns
below the minimum pass. Counts of the profile are exact, and one validation covers any number of files. Why `UnexpectedRowsExpectation`:
16 of them take 0.05 s, as column-between expectations 0.25 s, and their result names the files.

Great Expectations is not thread-safe (a shared context gave 37-40 wrong verdicts of 80, silently): one lock around all of it. It imports
in 2 to 9 s: only inside the functions, and where it was begun in a process of its own (judge_process.py), while the caller does other things.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from validation import judge_process
from validation.profile import FileProfile
from validation.quiet import great_expectations
from validation.rules import Consequence, Rule

LOCK = threading.Lock()
_log = logging.getLogger(__name__)
_SEVERITY: dict[Consequence, str] = {"block": "critical", "quarantine": "warning", "warn": "info"}


def judge(suite: str, rules: Sequence[Rule], profiles: Sequence[FileProfile]) -> dict[str, Any]:
    """Validate the profiles and return Great Expectations' result as plain JSON values; `results` are in the order of `rules`.

    Raises RuntimeError when an expectation could not be evaluated, which is a fault of the gate and not of the data.
    """
    table = _profile_table(rules, profiles)
    with LOCK:
        result = _elsewhere(suite, rules, table) or validate(suite, rules, table)
    by_name = {item["expectation_config"]["meta"]["name"]: item for item in result["results"]}
    broken = [name for name, item in by_name.items() if item["exception_info"].get("raised_exception")]
    if broken or set(by_name) != {rule.name for rule in rules}:
        raise RuntimeError(f"Great Expectations did not evaluate {', '.join(broken) or 'every expectation'} of suite {suite}: {result}")
    result["results"] = [by_name[rule.name] for rule in rules]
    return result


def _profile_table(rules: Sequence[Rule], profiles: Sequence[FileProfile]) -> pa.Table:
    """One row a file: path, rows and a count a rule, null where it could not be counted."""
    columns: dict[str, pa.Array] = {
        "path": pa.array([str(p.path) for p in profiles], pa.string()),
        "rows": pa.array([p.rows for p in profiles], pa.int64()),
    }
    columns |= {rule.name: pa.array([p.counts.get(rule.name) for p in profiles], pa.int64()) for rule in rules}
    return pa.table(columns)


def _elsewhere(suite: str, rules: Sequence[Rule], table: pa.Table) -> dict[str, Any] | None:
    """The result of the process that `judge_process.begin` started; None where there is none, or where it was lost: then it is judged here."""
    process = judge_process.current()
    if process is None:
        return None
    try:
        return process.validate(suite, rules, table)
    except judge_process.JudgeLost as fault:
        _log.warning("The process that runs Great Expectations is gone (%s); going on without it", fault)
        judge_process.end()
        return None


def validate(suite: str, rules: Sequence[Rule], table: pa.Table) -> dict[str, Any]:
    """Great Expectations' result on a profile table, in this process."""
    gx = great_expectations()
    from great_expectations.data_context.types.base import ProgressBarsConfig
    from great_expectations.expectations import UnexpectedRowsExpectation
    from great_expectations.expectations.metadata_types import FailureSeverity

    import validation.duckdb_source  # noqa: F401  (makes add_duckdb exist)

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    source = context.data_sources.add_duckdb(name="profile")
    try:
        source.load("profile", table)
        batch = source.add_table_asset(name=suite, table_name="profile").add_batch_definition_whole_table("files").get_batch()
        expectations = [
            UnexpectedRowsExpectation(
                unexpected_rows_query=f"SELECT path, rows, {rule.name} AS unexpected FROM {{batch}} WHERE {rule.name} > 0",
                description=f"{rule.name}: {rule.why}",
                severity=FailureSeverity(_SEVERITY[rule.consequence]),
                meta={"name": rule.name, "consequence": rule.consequence, "look": rule.look, "holds": rule.holds},
            )
            for rule in rules
        ]
        found = batch.validate(gx.ExpectationSuite(name=suite, expectations=expectations), result_format="COMPLETE")
        return found.to_json_dict()
    finally:
        source.close()
