"""Great Expectations' verdict on one profile table, in the process that calls it. Nothing here reads data; what calls it is in judge.py.

A module of its own with hardly an import: the process of judge_process.py loads it and the library, and not what counts the rows (60 MB).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from validation.quiet import great_expectations
from validation.rules import Consequence, Rule

if TYPE_CHECKING:
    import pyarrow as pa

_SEVERITY: dict[Consequence, str] = {"block": "critical", "quarantine": "warning", "warn": "info"}


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
