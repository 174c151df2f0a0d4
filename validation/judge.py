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
from validation.rules import Rule
from validation.verdict import validate

LOCK = threading.Lock()
_log = logging.getLogger(__name__)


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
