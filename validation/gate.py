"""The gate between two stages: count, have Great Expectations judge, and say what follows. Rules are in suites/, SQL in sql.py.

A gate never raises on data. `require` raises, for a flow that must stop. The consequence of a failed expectation is its own: "block" (the
file may not go on), "quarantine" (these rows may not), "warn" (said, and nothing follows).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa

from tasks.errors import GateBlocked
from validation.judge import judge
from validation.profile import BadRows, FileProfile, collect_bad_rows, first_unexpected, profile_files, scanner
from validation.rules import CONSEQUENCES, READABLE, SCHEMA, Consequence, Context, Rule
from validation.suites import suite_of

GIB = 1 << 30
Status = Literal["ok", "warn", "blocked"]


@dataclass(frozen=True)
class Outcome:
    """One expectation on all files. unexpected: rows (or columns, or files, as `why` says), by_file: path -> the same for the files that fail;
    example: file, row and values of the first one, or what is wrong with the file; empty when it holds."""

    name: str
    consequence: Consequence
    success: bool
    unexpected: int
    by_file: dict[str, int]
    why: str
    look: str
    example: str = ""


@dataclass(frozen=True)
class GateReport:
    """What a gate found. status: "blocked" when an expectation that blocks failed, "warn" when any other did, else "ok".

    rows: rows of all files that could be read; files: their number, unreadable ones included; quarantine: path -> rows that may not go on;
    validation: Great Expectations' own result as JSON values, for Data Docs.
    """

    suite: str
    rows: int
    files: int
    status: Status
    results: tuple[Outcome, ...]
    quarantine: dict[str, BadRows] = field(default_factory=dict)
    validation: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """The expectations that failed, those that block first."""
        return tuple(sorted((r for r in self.results if not r.success), key=lambda r: CONSEQUENCES.index(r.consequence)))

    @property
    def unjudged_files(self) -> tuple[str, ...]:
        """Paths of the files that could not be read or lack columns: no other expectation was counted in them."""
        return tuple(sorted({path for r in self.results if r.name in (READABLE.name, SCHEMA.name) for path in r.by_file}))

    @property
    def blocked_files(self) -> tuple[str, ...]:
        """Paths of the files that failed an expectation that blocks, sorted."""
        return tuple(sorted({path for r in self.results if r.consequence == "block" for path in r.by_file}))

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values: quarantined rows as counts by file, without Great Expectations' own result."""
        return {
            "suite": self.suite, "rows": self.rows, "files": self.files, "status": self.status,
            "results": [dict(vars(result)) for result in self.results],
            "blocked_files": list(self.blocked_files), "unjudged_files": list(self.unjudged_files),
            "quarantine": {path: len(bad.rows) for path, bad in self.quarantine.items()},
        }  # fmt: skip


def run_gate(
    suite: str,
    paths: Sequence[Path],
    *,
    threads: int = 2,
    memory_bytes: int = GIB,
    context: Mapping[str, Any] | None = None,
) -> GateReport:
    """Judge the files of one table, each by itself, and report all of them together.

    suite: events, books, trades, bars, features or consolidated; context: see `Context` (depth, grid, clock, ...), the same for all
    paths; threads and memory_bytes bound the scan. May be called from several threads: scans run side by side, verdicts one after the other.
    Raises UsageError for an unknown suite or context, never for what is in the files.
    """
    chosen = suite_of(suite, Context.of(context))
    paths = [Path(path) for path in dict.fromkeys(map(str, paths))]
    with scanner(threads, memory_bytes) as connection:
        profiles = profile_files(connection, chosen, paths, threads)
        validation = judge(suite, chosen.rules, profiles)
        outcomes = [_outcome(rule, item["success"], profiles) for rule, item in zip(chosen.rules, validation["results"], strict=True)]
        examples = _examples(connection, chosen.schema, chosen.rules, profiles)
        quarantine = _quarantine(connection, chosen.schema, chosen.rules, profiles)
    results = tuple(outcome if outcome.success else _with_example(outcome, examples.get(outcome.name, "")) for outcome in outcomes)
    return GateReport(
        suite=suite,
        rows=sum(max(profile.rows, 0) for profile in profiles),
        files=len(profiles),
        status=_status(results),
        results=results,
        quarantine=quarantine,
        validation=validation,
    )


def require(report: GateReport) -> GateReport:
    """`report`, or GateBlocked with each expectation that blocks: what, how many, an example, and where to look."""
    if report.status != "blocked":
        return report
    lines = [f"Gate {report.suite}: {len(report.blocked_files)} of {report.files} files may not go on."]
    for outcome in report.failed:
        if outcome.consequence == "block":
            lines.append(
                f"- {outcome.name}: {outcome.unexpected:,} unexpected in {len(outcome.by_file)} file(s). {outcome.why} "
                f"First: {outcome.example}. Look at: {outcome.look}"
            )
    raise GateBlocked("\n".join(lines))


def _outcome(rule: Rule, success: bool, profiles: Sequence[FileProfile]) -> Outcome:
    by_file = {str(p.path): p.counts[rule.name] for p in profiles if p.counts.get(rule.name, 0) > 0}
    if success == bool(by_file):
        # Seen when two threads shared a context; with the lock it would be a fault of the gate, and must not pass for a verdict.
        raise RuntimeError(f"Great Expectations says {rule.name} {'holds' if success else 'fails'}, the counts say otherwise: {by_file}")
    return Outcome(rule.name, rule.consequence, success, sum(by_file.values()), by_file, rule.why, rule.look)


def _with_example(outcome: Outcome, example: str) -> Outcome:
    return Outcome(**{**vars(outcome), "example": example})


def _status(results: Sequence[Outcome]) -> Status:
    failed = {result.consequence for result in results if not result.success}
    return "blocked" if "block" in failed else "warn" if failed else "ok"


def _examples(connection: duckdb.DuckDBPyConnection, schema: pa.Schema, rules: Sequence[Rule], profiles: Sequence[FileProfile]) -> dict[str, str]:
    """Rule name -> its first unexpected row, from the first file that has one; one more scan of each such file."""
    found: dict[str, str] = {}
    for profile in profiles:
        fresh = [rule for rule in rules if profile.counts.get(rule.name) and rule.name not in found]
        found |= {rule.name: f"{profile.path}: {profile.problem or 'no rows'}" for rule in fresh if not rule.holds}
        on_rows = [rule for rule in fresh if rule.holds]
        for name, (row, values) in first_unexpected(connection, schema, profile, on_rows).items():
            shown = ", ".join(f"{column}={value!r}" for column, value in list(values.items())[:12])
            found[name] = f"{profile.path} row {row:,} ({shown})"
    return found


def _quarantine(
    connection: duckdb.DuckDBPyConnection, schema: pa.Schema, rules: Sequence[Rule], profiles: Sequence[FileProfile]
) -> dict[str, BadRows]:
    """Path -> the rows that fail an expectation whose consequence is quarantine."""
    rules = [rule for rule in rules if rule.consequence == "quarantine"]
    return {
        str(profile.path): collect_bad_rows(connection, schema, profile, [rule for rule in rules if profile.counts.get(rule.name)])
        for profile in profiles
        if any(profile.counts.get(rule.name) for rule in rules)
    }
