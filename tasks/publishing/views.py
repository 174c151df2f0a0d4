"""The lake as SQL: one DuckDB view per layer, read-only, with prices as decimals on demand. Opens and asks; never writes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.book_rows import LEVELS, cell_sql, depth_of
from tasks.errors import StorageError, UsageError
from tasks.paths import exact, files_below, literal_path
from tasks.schemas import UNDEF_PRICE, level_fields

_MACROS = (
    # int64 1e-9 to an exact decimal; NULL where the price is not set. A DECIMAL cast alone keeps the scale wrong, the product is exact.
    f"CREATE MACRO price(x) AS CASE WHEN x = {UNDEF_PRICE} THEN NULL ELSE (x::DECIMAL(28, 0) * 0.000000001::DECIMAL(10, 9))::DECIMAL(28, 9) END",
    f"CREATE MACRO price_f(x) AS CASE WHEN x = {UNDEF_PRICE} THEN NULL ELSE x::DOUBLE / 1e9 END",
)


def layers(lake: Path) -> dict[str, list[Path]]:
    """Layer name -> its Parquet files, sorted. Files still being written (dot names) do not count."""
    if not lake.is_dir():
        raise StorageError(f"There is no lake at {lake}. Give the folder that a run wrote to with --lake.")
    found = {}
    for folder in sorted(lake.iterdir()):
        if folder.is_dir() and not folder.name.startswith("."):
            files = sorted(f for f in files_below(folder) if f.suffix == ".parquet" and not f.name.startswith("."))
            if files:
                found[folder.name] = files
    return found


def open_lake(lake: Path, *, threads: int | None = None, memory_bytes: int | None = None) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB connection with a view per layer of `lake`; close it when done. One connection per thread: do not share it.

    Each view has the layer's name ("mbp-10-1s", to be quoted) and one with underscores (mbp_10_1s). To the columns of the files come
    `dataset` and `date` from their paths; `symbol` is the one in the data (in paths it is URL-quoted). price(x) gives DECIMAL(28, 9),
    price_f(x) DOUBLE, both NULL where the price is not set. After opening, the connection may read files of the lake only and its settings
    are locked. Raises StorageError without a lake.
    """
    found = layers(lake)
    connection = duckdb.connect()
    try:
        connection.execute("SET TimeZone = 'UTC'")
        if threads is not None:
            connection.execute("SET threads = ?", [threads])
        if memory_bytes is not None:
            connection.execute("SET memory_limit = ?", [f"{memory_bytes}B"])
        for macro in _MACROS:
            connection.execute(macro)
        for layer, files in found.items():
            _create_views(connection, lake, layer, files, taken=set(found))
        # Views are bound again at each use: their files must stay allowed, everything else on the machine or the network not.
        connection.execute("SET allowed_directories = ?", [sorted(_folders(lake, found))])
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
    except BaseException:
        connection.close()
        raise
    return connection


def _folders(lake: Path, found: Mapping[str, Sequence[Path]]) -> set[str]:
    """What may be read: the lake, as its name and as a pattern, and the folders to which links in it lead."""
    root = lake.resolve()
    real = {os.path.realpath(folder) for folder in {file.parent for files in found.values() for file in files}}
    return {f"{folder}/" for folder in (str(root), exact(root), *(f for f in real if not f.startswith(f"{root}/")))}


def query(lake: Path, sql: str, *, parameters: Sequence[object] = (), threads: int | None = None, memory_bytes: int | None = None) -> pa.Table:
    """The result of one SELECT over the views of `open_lake`; user values go into `parameters` ($1 or ?), never into `sql`.

    Raises UsageError for SQL that DuckDB refuses and for any statement that is not a query.
    """
    with open_lake(lake, threads=threads, memory_bytes=memory_bytes) as connection:
        try:
            statements = connection.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise UsageError("Only one SELECT can be asked of the lake: it is read-only")
            return connection.sql(sql, params=list(parameters) or None).to_arrow_table()
        except duckdb.Error as fault:
            names = ", ".join(row[0] for row in connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal ORDER BY 1").fetchall())
            raise UsageError(f"The query failed: {fault}. Views: {names or 'none, the lake is empty'}") from fault


def alias(layer: str) -> str:
    """The name of `layer` that needs no quotes in SQL: "mbp-10-1s" is mbp_10_1s."""
    return "".join(c if c.isalnum() and c.isascii() else "_" for c in layer)


def _create_views(connection: duckdb.DuckDBPyConnection, lake: Path, layer: str, files: list[Path], taken: set[str]) -> None:
    """Views of one layer.

    DuckDB's own reading of hive paths would shadow the file's `symbol` with the URL-quoted one and make numbers of symbols such as 0005, so
    dataset and date come from the file name; a filter on them still skips files unread. A view cannot hold parameters: names are quoted.
    """
    reading = "DESCRIBE FROM read_parquet($1, hive_partitioning = false, union_by_name = true)"
    described = connection.execute(reading, [list(map(exact, files))]).fetchall()
    own = {row[0] for row in described}  # sources and ledger have dataset and date in the file
    parts = {part.partition("=")[0] for part in files[0].relative_to(lake).parts[:-1] if "=" in part}
    columns = [f"{_from_path(name)} AS {name}" for name in ("dataset", "date") if name in parts - own]
    # Not where links lead to: dataset and date stand in the names that the lake has.
    root = lake.resolve()
    listed = ", ".join(literal_path(root / f.relative_to(lake)) for f in files)
    rest = _levels(files, own) if LEVELS in own else "* EXCLUDE (filename)"
    for name in dict.fromkeys((layer, alias(layer))):
        if name == layer or name not in taken:
            connection.execute(
                f"CREATE VIEW {_identifier(name)} AS SELECT {', '.join([*columns, rest])} "
                f"FROM read_parquet([{listed}], union_by_name = true, hive_partitioning = false, filename = true)"
            )


def _levels(files: list[Path], own: set[str]) -> str:
    """The columns of a layer with packed levels (tasks/book_rows.py), each level a column; files of earlier versions have them as columns."""
    depth = next(depth for depth in map(depth_of, map(pq.read_schema, files)) if depth)
    cells = {name: cell_sql(name, depth) for name, _ in level_fields(depth)}
    both = [name for name in cells if name in own]
    return ", ".join([
        f"* EXCLUDE ({', '.join(['filename', LEVELS, *both])})",
        *(f"coalesce({name}, {sql}) AS {name}" if name in own else f"{sql} AS {name}" for name, sql in cells.items()),
    ])  # fmt: skip


def _from_path(name: str) -> str:
    value = f"url_decode(regexp_extract(filename, '^.*/{name}=([^/]*)/', 1))"
    return f"{value}::DATE" if name == "date" else value


def _identifier(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
