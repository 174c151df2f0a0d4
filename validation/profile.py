"""Counts the unexpected rows of each rule in each file, in as few scans as that takes; fetches the rows when something failed.

Nothing here decides: Great Expectations judges the counts (judge.py). Three steps a file: what compiled passes prove (packed_levels.py,
level_columns.py, event_rows.py, book_times.py), what the footer's statistics prove, then one scan for all other rules together. Measured on 7.4M
events, two threads: the pass 0.36 s, statistics 0.01 s; without the pass, two scans of 0.6 s. Small files go through one scan together.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.book_rows import as_read, cell, depth_of, with_cells
from tasks.schemas import EVENTS
from validation import book_times, event_rows, level_columns, packed_levels, sql
from validation.rules import FILE_RULES, NOT_EMPTY, READABLE, SCHEMA, Rule, complete_but
from validation.suites import Suite

SMALL_ROWS = 50_000  # below, planning three queries (10 ms) costs more than the rows
GROUP_FILES = 256
# Numbers of levels in columns, a file, from which on opening it for the compiled pass (2 ms) is cheaper than SQL over them (17 ns a number).
PASS_NUMBERS = 120_000

# What is not the file's fault. Damaged bytes come as almost any other error, the bare base class among them (a page header of zeroes).
_OURS = (duckdb.OutOfMemoryException, duckdb.BinderException, duckdb.ParserException, duckdb.CatalogException, duckdb.InterruptException)


@dataclass(frozen=True)
class FileProfile:
    """rows of the file (-1 when it cannot be read); counts: rule name -> unexpected rows, without the rules that could not be counted;
    problem: why the file cannot be read, or which columns differ; packed: depth of a book layer that packs its levels, else 0."""

    path: Path
    rows: int
    counts: dict[str, int]
    problem: str = ""
    packed: int = 0

    def reading(self, schema: pa.Schema) -> pa.Schema:
        """The declared schema with how its columns are read from this file."""
        return with_cells(schema, self.packed) if self.packed else schema


@dataclass(frozen=True)
class BadRows:
    """rows int64[n]: 0-based row numbers, ascending; reasons: for each row the names of the rules it breaks, joined by "+"."""

    rows: np.ndarray
    reasons: list[str] = field(default_factory=list)


@contextmanager
def scanner(threads: int, memory_bytes: int) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB of its own within the given threads and memory; what does not fit goes to a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="bookmill-gate-") as spill:
        settings: dict[str, str | bool | int | float | list[str]] = {
            "threads": threads, "memory_limit": f"{max(memory_bytes, 64 << 20)}B", "temp_directory": spill,
            "preserve_insertion_order": True, "autoinstall_known_extensions": False, "autoload_known_extensions": False,
        }  # fmt: skip
        connection = duckdb.connect(":memory:", config=settings)
        try:
            yield connection
        finally:
            connection.close()


def profile_files(connection: duckdb.DuckDBPyConnection, suite: Suite, paths: Sequence[Path], threads: int) -> list[FileProfile]:
    """The profile of each file, in order; damage and wrong columns are counts too, never an exception.

    Small files are counted many at a time, and groups side by side, each on a cursor (threads on one connection mix up results).
    """
    heads = [_head(path, suite.schema) for path in paths]

    def count(group: list[FileProfile]) -> list[FileProfile]:
        with connection.cursor() as cursor:
            return _counted_together(cursor, suite, group, share)

    groups = _groups(heads, threads)
    share = max(1, threads // max(1, len(groups)))
    if len(groups) < 2 or threads < 2:
        done = [count(group) for group in groups]
    else:
        with ThreadPoolExecutor(threads, thread_name_prefix="gate") as pool:
            done = list(pool.map(count, groups))
    by_path = {profile.path: profile for group in done for profile in group}
    return [by_path[head.path] for head in heads]


def _groups(heads: Sequence[FileProfile], threads: int) -> list[list[FileProfile]]:
    """Each large file alone; small ones, and those with nothing to count, in groups of bounded rows and number, one a thread where it pays."""
    small = [head for head in heads if head.rows < SMALL_ROWS]
    share = -(-len(small) // threads) if sum(head.rows for head in small) >= threads * SMALL_ROWS else len(small)
    most = min(GROUP_FILES, max(share, 1))
    return [*([head] for head in heads if head.rows >= SMALL_ROWS), *(small[at : at + most] for at in range(0, len(small), most))]


def _head(path: Path, schema: pa.Schema) -> FileProfile:
    """What the footer says: whether the file can be read, has the columns, and how many rows."""
    try:
        metadata = pq.read_metadata(path)
        found = metadata.schema.to_arrow_schema()
        differing = _differing(found, schema)
    except (OSError, pa.ArrowException) as fault:
        return FileProfile(path, -1, {READABLE.name: 1}, str(fault))
    counts = {READABLE.name: 0, SCHEMA.name: len(differing), NOT_EMPTY.name: int(metadata.num_rows == 0)}
    return FileProfile(path, metadata.num_rows, counts, "; ".join(differing), depth_of(found))


@lru_cache(64)
def _differing(found: pa.Schema, declared: pa.Schema) -> list[str]:
    """`differing_columns` of a file as it is read: thousands of files have the same few schemas."""
    return differing_columns(as_read(found), declared)


def _counted_together(connection: duckdb.DuckDBPyConnection, suite: Suite, heads: list[FileProfile], threads: int) -> list[FileProfile]:
    """`heads` with the counts of their rules on rows. One damaged file spoils the query of a group: then each is read by itself."""
    rules = [rule for rule in suite.rules if rule not in FILE_RULES]
    settled = [replace(head, counts=head.counts | (dict.fromkeys((r.name for r in rules), 0) if head.rows == 0 else {})) for head in heads]
    todo = [head for head in heads if head.rows > 0 and not head.problem]
    done: list[FileProfile] = []
    if len(todo) > 1 and len({head.packed for head in todo}) == 1:
        try:
            schema, open_rules = _left_open(todo, suite.schema, rules, threads)
            found = connection.execute(sql.counts_by_file([head.path for head in todo], schema, open_rules)).fetchall()
            none = {rule.name: 0 for rule in rules}
            counted = {path: none | {rule.name: int(n) for rule, n in zip(open_rules, counts, strict=True)} for path, *counts in found}
            done = [replace(head, counts=head.counts | counted[str(head.path)]) for head in todo]
        except (duckdb.Error, pa.ArrowException, OSError, KeyError) as fault:
            if isinstance(fault, _OURS):
                raise
    done = done or [_counted_alone(connection, suite.schema, rules, head, threads) for head in todo]
    by_path = {profile.path: profile for profile in (*settled, *done)}
    return [by_path[head.path] for head in heads]


def _left_open(heads: Sequence[FileProfile], declared: pa.Schema, rules: list[Rule], threads: int) -> tuple[pa.Schema, list[Rule]]:
    """How columns are read from these files, and the rules that are still to be counted: one compiled pass proves most of what no statistics do.

    Of events, and of the times of book rows, only a large file is worth it; in SQL many small ones are one query.
    """
    schema, passed, never_null = heads[0].reading(declared), set[str](), list[str]()
    levels = [name for name in declared.names if cell(name, len(declared))]
    found: list[set[str] | None] = []
    if heads[0].packed:
        found = [packed_levels.proven(head.path, head.packed, threads) for head in heads]
    elif any(r.check in packed_levels.CHECKS for r in rules) and sum(h.rows for h in heads) * len(levels) >= PASS_NUMBERS * len(heads):
        found = [level_columns.proven(head.path, levels, threads) for head in heads]
    elif declared == EVENTS and heads[0].rows >= SMALL_ROWS:
        passed = set.intersection(*(event_rows.proven(head.path, threads) or set() for head in heads))
    known = [names for names in found if names is not None]
    if known and len(known) == len(found):  # of every file
        passed, never_null = set.intersection(*known), levels
    if heads[0].rows >= SMALL_ROWS and any(r.check == book_times.MARK for r in rules) and set(book_times.COLUMNS) <= set(declared.names):
        passed |= set.intersection(*(book_times.proven(head.path, threads) or set() for head in heads))
    return schema, [complete_but(rule, never_null) for rule in rules if rule.check not in passed]


def _counted_alone(connection: duckdb.DuckDBPyConnection, schema: pa.Schema, rules: list[Rule], head: FileProfile, threads: int) -> FileProfile:
    try:
        return replace(head, counts=head.counts | _row_counts(connection, schema, head, rules, threads))
    except (duckdb.Error, pa.ArrowException, OSError) as fault:
        if isinstance(fault, _OURS):
            raise
        return FileProfile(head.path, -1, {READABLE.name: 1}, str(fault))


def differing_columns(found: pa.Schema, declared: pa.Schema) -> list[str]:
    """What differs, one text a column. Further columns are allowed; a plain string serves where a dictionary of strings is declared."""
    texts, there = [], set(found.names)  # a list made anew at each look
    for column in declared:
        if column.name not in there:
            texts.append(f"{column.name} is missing")
        elif _plain(found.field(column.name).type) != _plain(column.type):
            texts.append(f"{column.name} is {found.field(column.name).type}, not {column.type}")
    return texts


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _row_counts(connection: duckdb.DuckDBPyConnection, declared: pa.Schema, head: FileProfile, rules: list[Rule], threads: int) -> dict[str, int]:
    counts = {rule.name: 0 for rule in rules}
    path, rows = head.path, head.rows
    schema, open_rules = _left_open([head], declared, rules, threads)
    open_rules = _not_proven(connection, schema, path, open_rules, rows)
    last = [rule for rule in open_rules if rule.last_row_only]
    if last:
        counts |= _run(connection, sql.last_row_counts(path, schema, last, rows), last)
    others = [rule for rule in open_rules if not rule.last_row_only]
    if others:
        counts |= _scanned(connection, schema, path, others)
    return counts


def _scanned(connection: duckdb.DuckDBPyConnection, schema: pa.Schema, path: Path, rules: list[Rule]) -> dict[str, int]:
    """One scan; a second one only for rules whose screen let rows through."""
    counts = _run(connection, sql.unexpected_counts(path, schema, rules, screened=True), rules)
    again = [rule for rule in rules if rule.screen and counts[rule.name]]
    if again:
        counts |= _run(connection, sql.unexpected_counts(path, schema, again, screened=False), again)
    return counts


def _run(connection: duckdb.DuckDBPyConnection, query: str, rules: Sequence[Rule]) -> dict[str, int]:
    (values,) = connection.execute(query).fetchall()
    return {rule.name: int(value) for rule, value in zip(rules, values, strict=True)}


def _not_proven(connection: duckdb.DuckDBPyConnection, schema: pa.Schema, path: Path, rules: list[Rule], rows: int) -> list[Rule]:
    """The rules that minimum, maximum and null count of their columns do not settle."""
    named = {name for rule in rules for name in (*rule.bounds, *rule.constant, *rule.required)}
    columns = [name for name in schema.names if name in named and not schema.field(name).metadata]  # a packed number has no statistics
    if not columns:
        return rules
    (values,) = connection.execute(sql.statistics(path, schema, columns)).fetchall()
    known = {name: values[3 * k : 3 * k + 3] for k, name in enumerate(columns)}
    return [rule for rule in rules if not (rule.provable and _proven(rule, known, rows))]


def _proven(rule: Rule, known: dict[str, tuple[Any, Any, int]], rows: int) -> bool:
    for name in (*rule.bounds, *rule.constant, *rule.required):
        if name not in known:
            return False
        low, high, filled = known[name]
        # A time of 2^63 - 1 is infinity to DuckDB, and as a number nothing.
        if filled != rows or low is None or high is None:
            return False
        lowest, highest = rule.bounds.get(name, (None, None))
        if (lowest is not None and low < lowest) or (highest is not None and high > highest):
            return False
        if name in rule.constant and low != high:
            return False
    return True


def first_unexpected(
    connection: duckdb.DuckDBPyConnection, schema: pa.Schema, profile: FileProfile, rules: Sequence[Rule]
) -> dict[str, tuple[int, dict[str, Any]]]:
    """Rule name -> the first row that breaks it and the values of the columns that the rule looks at (times as int64 ns)."""
    if not rules or profile.rows <= 0:
        return {}
    schema = profile.reading(schema)
    (numbers,) = connection.execute(sql.first_rows(profile.path, schema, rules, profile.rows)).fetchall()
    found = {}
    for rule, number in zip(rules, numbers, strict=True):
        if number is None:
            continue
        columns = sql.columns_of([rule], schema)
        row = connection.execute(f"FROM ({sql.reading([profile.path], schema, columns, numbered=True)}) WHERE row = {number}").fetchall()[0]
        found[rule.name] = (int(number), dict(zip(columns, row, strict=False)))
    return found


def collect_bad_rows(connection: duckdb.DuckDBPyConnection, schema: pa.Schema, profile: FileProfile, rules: Sequence[Rule]) -> BadRows:
    """All rows of a file that break one of `rules`; memory grows with them, not with the file."""
    table = connection.sql(sql.bad_rows(profile.path, profile.reading(schema), rules, profile.rows)).to_arrow_table()
    return BadRows(table["row"].to_numpy().astype(np.int64), table["reasons"].to_pylist())
