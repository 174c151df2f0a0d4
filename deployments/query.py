"""What the command line prints of a lake and of the settings."""

from __future__ import annotations

import sys
from pathlib import Path

from config.settings import Settings
from tasks.errors import UsageError


def print_query(lake: Path, query: str, format: str) -> None:
    """Run SQL over the lake's views; only data goes to standard output. Raises UsageError for a bad format or query."""
    import duckdb
    import pyarrow.csv

    from tasks.publishing.views import query as ask

    if format not in ("table", "csv", "json"):
        raise UsageError(f"format is {format!r}; allowed: table, csv, json")
    table = ask(lake, query)
    if format == "table":
        duckdb.from_arrow(table).show(max_width=250, max_rows=60)
        return
    if format == "csv":
        pyarrow.csv.write_csv(table, sys.stdout.buffer)
    else:
        import json

        print(json.dumps(table.to_pylist(), default=str))


def print_layers(lake: Path) -> None:
    """Layer, files, rows, bytes."""
    import pyarrow.parquet as pq
    from rich.table import Table

    from deployments import screen
    from tasks.publishing.views import layers

    found = layers(lake)
    if not found:
        raise UsageError(f"{lake} holds no layers. Make them with `bookmill run mbo SOURCE --lake {lake}`.")
    table = Table(box=None, pad_edge=False)
    for name in ("layer", "files", "rows", "MB"):
        table.add_column(name, justify="left" if name == "layer" else "right")
    for layer, paths in found.items():
        rows = sum(pq.read_metadata(path).num_rows for path in paths)
        table.add_row(layer, f"{len(paths):,}", f"{rows:,}", f"{sum(p.stat().st_size for p in paths) / 1e6:,.1f}")
    screen.console().print(table)


def print_settings(settings: Settings) -> None:
    """Name, value, origin and meaning of each setting."""
    from rich.table import Table

    from deployments import screen

    table = Table(box=None, pad_edge=False)
    for name in ("setting", "value", "from", "meaning"):
        table.add_column(name, overflow="fold")
    for item in settings.explain():
        table.add_row(item.name, str(item.value), item.origin, item.meaning)
    screen.console().print(table)
