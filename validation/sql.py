"""The SQL of a gate: a rule's condition becomes a count, a first row, or a list of rows. Text only; `profile.py` runs it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa

from tasks.paths import literal_path
from validation.rules import Rule


def reading(paths: Sequence[Path], schema: pa.Schema, columns: Iterable[str], *, numbered: bool = False, named: bool = False) -> str:
    """SELECT of `columns` in file order: times as int64 ns, so that comparisons are exact; with the 0-based `row` in its file when
    numbered, and the path as `file` when named.

    DuckDB 2.0 has no arithmetic on its nanosecond times with zone, and a literal of them is cut to microseconds by an interval.
    """
    wanted = [_stored(schema.field(name)) for name in columns]
    wanted += ["file_row_number AS row"] if numbered else []
    wanted += ["filename AS file"] if named else []
    # The directories of the lake look like hive partitions; without the option their values would replace the columns of the file.
    options = "hive_partitioning = false" + (", file_row_number = true" if numbered else "") + (", filename = true" if named else "")
    return f"SELECT {', '.join(wanted)} FROM read_parquet([{', '.join(map(literal_path, paths))}], {options})"


def _stored(field: pa.Field) -> str:
    """How a column is read: a time as a number, a level that is packed by the SQL beside its field (see tasks/book_rows.py)."""
    if pa.types.is_timestamp(field.type):
        return f"epoch_ns({field.name}) AS {field.name}"
    packed = (field.metadata or {}).get(b"sql", b"").decode()
    return f"{packed} AS {field.name}" if packed else field.name


def columns_of(rules: Sequence[Rule], schema: pa.Schema) -> list[str]:
    """Columns that the conditions of `rules` name, in the order of the schema."""
    words = set(re.findall(r"\w+", " ".join(f"{rule.holds} {rule.screen}" for rule in rules)))
    words |= {name for rule in rules for name in rule.previous}
    return [name for name in schema.names if name in words]


def rows_of(path: Path, schema: pa.Schema, rules: Sequence[Rule], *, numbered: bool = False) -> str:
    """SELECT of every row with all that `rules` name: the columns and those of the rows before it."""
    inner = reading([path], schema, columns_of(rules, schema), numbered=numbered)
    # An empty OVER streams in file order at 60 to 90 M rows/s; ORDER BY row would sort the file first.
    lags = [f"lag({column}, {back}) OVER () AS {word}" for word, column, back in _earlier(rules)]
    return f"SELECT *, {', '.join(lags)} FROM ({inner})" if lags else inner


def _earlier(rules: Sequence[Rule]) -> list[tuple[str, str, int]]:
    """The words of `rules` for values of earlier rows: (word, column, rows back)."""
    words = set(re.findall(r"\bprev2?_\w+", " ".join(f"{rule.holds} {rule.screen}" for rule in rules)))
    return [(word, word.partition("_")[2], 2 if word.startswith("prev2_") else 1) for word in sorted(words)]


def counts_by_file(paths: Sequence[Path], schema: pa.Schema, rules: Sequence[Rule]) -> str:
    """One row a file that has rows: its path, and the unexpected rows of each rule in order. For many small files: one plan for all."""
    inner = reading(paths, schema, columns_of(rules, schema), numbered=True, named=True)
    # The files follow each other in one stream; the row number keeps a file's first rows from looking into the file before it.
    lags = [f"CASE WHEN row >= {back} THEN lag({column}, {back}) OVER () END AS {word}" for word, column, back in _earlier(rules)]
    counts = [
        f"CASE WHEN arg_max(coalesce({rule.holds}, false), row) THEN 0 ELSE 1 END" if rule.last_row_only else _unexpected(rule) for rule in rules
    ]
    return f"SELECT file, {', '.join(counts)} FROM (SELECT {', '.join(['*', *lags])} FROM ({inner})) GROUP BY file"


def unexpected_counts(path: Path, schema: pa.Schema, rules: Sequence[Rule], *, screened: bool) -> str:
    """One row with the unexpected rows of each rule, in order; with `screened`, rows that the screen of a rule lets through instead."""
    counts = [_count(rule.screen) if screened and rule.screen else _unexpected(rule) for rule in rules]
    return f"SELECT {', '.join(counts)} FROM ({rows_of(path, schema, rules)})"


def _count(condition: str) -> str:
    """SQL: the rows of which a condition is true. count_if leaves out false and NULL alike, and is NULL itself where all are NULL (a neighbour in
    a file of one row); FILTER (WHERE ... IS NOT TRUE) took 1.5 times as long."""
    return f"coalesce(count_if({condition}), 0)"


def _unexpected(rule: Rule) -> str:
    return f"count(*) - {_count(rule.holds)}"


def last_row_counts(path: Path, schema: pa.Schema, rules: Sequence[Rule], rows: int) -> str:
    """One row with 0 or 1 for each rule, from the last of `rows` rows; the other row groups are not read."""
    counts = ", ".join(map(_unexpected, rules))
    return f"SELECT {counts} FROM ({rows_of(path, schema, rules, numbered=True)}) WHERE row = {rows - 1}"


def statistics(path: Path, schema: pa.Schema, columns: Sequence[str]) -> str:
    """One row with minimum, maximum and non-null count of each column. Nothing else may stand beside them: so they come from the footer."""
    parts = []
    for name in columns:
        low, high = f"min({name})", f"max({name})"
        if pa.types.is_timestamp(schema.field(name).type):
            low, high = f"epoch_ns({low})", f"epoch_ns({high})"
        parts += [low, high, f"count({name})"]
    return f"SELECT {', '.join(parts)} FROM read_parquet({literal_path(path)}, hive_partitioning = false)"


def first_rows(path: Path, schema: pa.Schema, rules: Sequence[Rule], rows: int) -> str:
    """One row with the number of the first unexpected row of each rule."""
    parts = ", ".join(f"min(CASE WHEN {fails(rule, rows)} THEN row END)" for rule in rules)
    return f"SELECT {parts} FROM ({rows_of(path, schema, rules, numbered=True)})"


def bad_rows(path: Path, schema: pa.Schema, rules: Sequence[Rule], rows: int) -> str:
    """SELECT of row and reasons (names joined by "+") of every row that is unexpected to one of `rules`, ascending."""
    reasons = ", ".join(f"CASE WHEN {fails(rule, rows)} THEN '{rule.name}' END" for rule in rules)
    named = f"SELECT row, concat_ws('+', {reasons}) AS reasons FROM ({rows_of(path, schema, rules, numbered=True)})"
    return f"SELECT row, reasons FROM ({named}) WHERE reasons <> '' ORDER BY row"


def fails(rule: Rule, rows: int) -> str:
    """SQL that is true where a row is unexpected, and never NULL."""
    condition = f"NOT coalesce({rule.holds}, false)"
    return f"(row = {rows - 1} AND {condition})" if rule.last_row_only else condition
