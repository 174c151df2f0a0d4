"""Great Expectations' verdict on one profile table, in the process that calls it. Nothing here reads data; what calls it is in judge.py.

A module of its own with hardly an import: the process of judge_process.py loads it and the library, and not what counts the rows (60 MB).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from validation.quiet import great_expectations
from validation.rules import READABLE, Consequence, Rule

if TYPE_CHECKING:
    import pyarrow as pa

PROFILE = "profile"
_SEVERITY: dict[Consequence, str] = {"block": "critical", "quarantine": "warning", "warn": "info"}


def validate(suite: str, rules: Sequence[Rule], table: pa.Table) -> dict[str, Any]:
    """Great Expectations' result on a profile table, in this process. For one thread at a time."""
    gx = great_expectations()
    from great_expectations.expectations import UnexpectedRowsExpectation
    from great_expectations.expectations.metadata_types import FailureSeverity

    _source().load(PROFILE, table)
    expectations = [
        UnexpectedRowsExpectation(
            unexpected_rows_query=f"SELECT path, rows, {rule.name} AS unexpected FROM {{batch}} WHERE {rule.name} > 0",
            description=f"{rule.name}: {rule.why}",
            severity=FailureSeverity(_SEVERITY[rule.consequence]),
            meta={"name": rule.name, "consequence": rule.consequence, "look": rule.look, "holds": rule.holds},
        )
        for rule in rules
    ]
    found = _files(suite).get_batch().validate(gx.ExpectationSuite(name=suite, expectations=expectations), result_format="COMPLETE")
    # Names of tables are texts of SQLAlchemy's own class, which a process that reads the result would import for them (0.3 s).
    return json.loads(json.dumps(found.to_json_dict()))


def prepare() -> None:
    """Load the library and what it loads at a first verdict, the driver of its database with it: 0.6 s that the first gate need not wait for."""
    import pyarrow as pa

    validate("prepare", [READABLE], pa.table({"path": ["none"], "rows": [1], READABLE.name: [0]}))


@cache
def _source() -> Any:
    """The data source of all verdicts, which look at one table after the other: making a new one took a third of a verdict's time."""
    from great_expectations.data_context.types.base import ProgressBarsConfig

    import validation.duckdb_source  # noqa: F401  (makes add_duckdb exist)

    context = great_expectations().get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return context.data_sources.add_duckdb(name=PROFILE)


@cache
def _files(suite: str) -> Any:
    """The profile table under the name of a suite. Made when the first table is there: the library looks for it."""
    return _source().add_table_asset(name=suite, table_name=PROFILE).add_batch_definition_whole_table("files")
