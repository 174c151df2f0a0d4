"""Rows that were set aside: shown, and written out so that they can be mended and run again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import UsageError
from tasks.paths import files_below
from tasks.storage import atomic_file

_SUFFIX = {"decode": ".rows", "gate:events": ".mbo"}


def _files(lake: Path) -> list[Path]:
    if not lake.is_dir():
        raise UsageError(f"There is no lake at {lake}. Give the folder that a run wrote to with --lake.")
    return sorted(f for f in files_below(lake / "quarantine") if f.suffix == ".parquet" and not f.name.startswith("."))


def print_quarantine(lake: Path) -> None:
    """Rows by source, stage and reason, with the place of the first one."""
    from rich.table import Table

    from deployments import screen

    table = Table(box=None, pad_edge=False)
    for name in ("source", "stage", "reason", "rows", "first row", "byte", "detail"):
        table.add_column(name, overflow="fold")
    total = 0
    for file in _files(lake):
        rows = pq.read_table(file, partitioning=None)
        total += rows.num_rows
        grouped = rows.group_by(["source", "stage", "reason"], use_threads=False).aggregate(
            [("source_row", "count"), ("source_row", "first"), ("byte_offset", "first"), ("detail", "first")]
        )
        for r in grouped.to_pylist():
            table.add_row(
                r["source"],
                r["stage"],
                r["reason"],
                f"{r['source_row_count']:,}",
                str(r["source_row_first"]),
                str(r["byte_offset_first"]),
                r["detail_first"],
            )
    console = screen.console()
    if total:
        console.print(table)
    console.print(f"{total:,} rows in quarantine.")


def export_quarantine(lake: Path, folder: Path) -> list[str]:
    """Write the raw bytes of each source's quarantined rows, in order, text rows one a line. Returns a line per file written."""
    files = _files(lake)
    if not files:
        raise UsageError(f"{lake} has no quarantined rows.")
    lines = []
    for name, chosen in _named(files):
        raw = chosen["raw"].to_pylist()
        text = all(b"\x00" not in row for row in raw)
        with atomic_file(folder / name) as out:
            out.write(b"".join(row.rstrip(b"\r\n") + b"\n" if text else row for row in raw))
        lines.append(f"{folder / name}: {len(raw):,} rows, {'one a line' if text else 'records as they stood, back to back'}")
    return lines


def export_name(source: str, short: str, stage: str = "decode") -> str:
    """The file to which `export_quarantine` writes the rows of a source that a stage set aside. short: first digits of its fingerprint.

    They tell apart sources of one name, as day folders have them, also those that are not there yet: rows mended for one must not go into another.
    """
    return f"{short}-{source.replace(':', '_').replace('/', '_')}{_SUFFIX[stage]}"


def _named(files: list[Path]) -> Iterator[tuple[str, pa.Table]]:
    """(name to export to, rows) of each stage that set rows of a source aside."""
    for file in files:
        table = pq.read_table(file, partitioning=None)
        for stage in _SUFFIX:
            chosen = table.filter(pa.compute.equal(table["stage"], stage))
            if chosen.num_rows:
                short = chosen["fingerprint"][0].as_py().split(":")[-1][:10]
                yield export_name(chosen["source"][0].as_py(), short, stage), chosen
