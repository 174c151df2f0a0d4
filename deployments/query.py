"""What the command line prints of a lake and of the settings."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

from config.settings import Settings
from tasks.errors import UsageError


def print_query(lake: Path, query: str, format: str) -> None:
    """Run SQL over the lake's views; only data goes to standard output. Raises UsageError for a bad format or query.

    json: one line, a list of objects; NaN and infinities are null.
    """
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
        print(_json(table.to_pylist()))


def _json(rows: list[dict[str, Any]]) -> str:
    """A list of objects; NaN and infinities, for which JSON has no word, are null."""
    import json

    try:
        return json.dumps(rows, default=str, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(rows), default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    """`value` with null for every float that is no number, in lists and objects too."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
