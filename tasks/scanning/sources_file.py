"""The record of a decoded source: one SOURCES file per source, written last, whose presence with the right stamp says that the decode stands.

Stamps of the decode stage, the paths of what it writes beside the partitions, the conservation of rows, and the check that everything listed
is there. How rows get into the files is decided in decode.py; how a gate takes some out, in events_file.py.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.disk import storage_error
from tasks.errors import BookmillError, StorageError
from tasks.footers import read_footer
from tasks.partitions import MboRecipe, Partition, SourceFile, Stamp, digest
from tasks.scanning.formats import DBN
from tasks.schemas import SOURCES
from tasks.storage import write_table


@dataclass(frozen=True)
class EventPart:
    """One events file. path is relative to the lake; first_ts and last_ts: ts_recv in ns of its first and last row."""

    partition: Partition
    path: str
    rows: int
    first_ts: int
    last_ts: int


@dataclass(frozen=True)
class Decoded:
    """What the lake holds of a source: rows_in = rows_out + rows_filtered + rows_quarantined; quarantine: path relative to the lake or "";
    skipped: it was there already.
    """

    source: SourceFile
    parts: tuple[EventPart, ...]
    rows_in: int
    rows_out: int
    rows_filtered: int
    rows_quarantined: int
    quarantine: str
    skipped: bool = False


def events_stamp(source: SourceFile, recipe: MboRecipe) -> Stamp:
    """Stamp of the events and truth files: of the filter only the end of the range changes the bytes of a partition."""
    return Stamp(inputs=source.fingerprint, recipe=digest({"end_ns": recipe.filter.end_ns}))


def decode_stamp(source: SourceFile, recipe: MboRecipe) -> Stamp:
    """Stamp of the SOURCES and quarantine files: symbols, publishers and names, too, since they say which partitions there are."""
    wanted = recipe.filter
    options = {"end_ns": wanted.end_ns, "symbols": sorted(set(wanted.symbols)), "publishers": sorted(set(wanted.publishers))}
    return Stamp(inputs=source.fingerprint, recipe=digest({**options, "names": names_of(source)}))


def names_of(source: SourceFile) -> list[list[str]]:
    """Symbols and dates that a source has from its name or an option; those of a DBN header are content."""
    return [] if source.format == DBN else [list(source.symbols), list(source.dates)]


def remove_renamed(lake: Path, source: SourceFile, rows: list[dict[str, Any]]) -> None:
    """Remove the events and truth that `source` had under another name and that `rows`, its new ones, do not list. Before the SOURCES file is
    written: killed in between, the source is decoded again."""
    path = lake / sources_path(source.dataset, source.short)
    if read_footer(path) is None:
        return
    before, _, facts = read_sources(path)
    if facts.get("names", names_of(source)) != names_of(source):
        listed = {row["path"] for row in rows}
        for row in before:
            if row["path"] and row["path"] not in listed:
                (lake / _partition(row).path("truth", source.short)).unlink(missing_ok=True)
                (lake / row["path"]).unlink(missing_ok=True)


def sources_path(dataset: str, short: str) -> str:
    """Path of the SOURCES file of a source relative to the lake."""
    return f"sources/dataset={quote(dataset, safe='.')}/{short}.parquet"


def quarantine_path(dataset: str, short: str) -> str:
    """Path of the quarantine of a source relative to the lake: that of its last decode, and of the gates after it."""
    return f"quarantine/dataset={quote(dataset, safe='.')}/source-{short}.parquet"


def check_conservation(rows: list[dict[str, Any]], expected: int) -> None:
    """Raise BookmillError with the numbers unless rows_in = rows_out + rows_filtered + rows_quarantined in each SOURCES row and the rows
    sum up to `expected` (source rows plus expanded ones).
    """
    for row in rows:
        parts = row["rows_out"] + row["rows_filtered"] + row["rows_quarantined"]
        if row["rows_in"] != parts:
            where = f"{row['symbol']} {row['date']}".strip() or "rows of no partition"
            raise BookmillError(
                f"{row['source']}, {where}: {row['rows_in']:,} rows in, but {row['rows_out']:,} out + {row['rows_filtered']:,} filtered + "
                f"{row['rows_quarantined']:,} quarantined = {parts:,}. Nothing was published; please report this with the file."
            )
    total = sum(row["rows_in"] for row in rows)
    if total != expected:
        raise BookmillError(
            f"{rows[0]['source']}: {expected:,} rows were read, but {total:,} were routed. Nothing was published; please report this with the file."
        )


def write_sources(lake: Path, rows: list[dict[str, Any]], stamp: Stamp, facts: dict[str, Any]) -> None:
    """Check the conservation of rows and write the SOURCES file, replacing an older one in one step."""
    check_conservation(rows, facts["source_rows"] + facts["expanded_rows"])
    short = SourceFile("", "", "", rows[0]["fingerprint"], 0, 0, 0).short
    write_table(lake / sources_path(rows[0]["dataset"], short), pa.Table.from_pylist(rows, SOURCES), stamp, facts)


def read_sources(path: Path) -> tuple[list[dict[str, Any]], Stamp, dict[str, Any]]:
    """Rows, stamp and facts of a SOURCES file. first_ts and last_ts are int ns. StorageError when it is absent or broken."""
    footer = read_footer(path)
    if footer is None:
        raise StorageError(f"Cannot read {path}: it is absent or broken. Decode its source again.")
    table = pq.read_table(path, partitioning=None)
    for name in ("first_ts", "last_ts"):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, table[name].cast(pa.int64()))
    stamp = Stamp(footer["bookmill.inputs"], footer["bookmill.recipe"], footer["bookmill.code"])
    return table.to_pylist(), stamp, json.loads(footer["bookmill.facts"])


def describe(source: SourceFile, rows: list[dict[str, Any]], facts: dict[str, Any], *, skipped: bool) -> Decoded:
    """The rows of a SOURCES file as a Decoded."""
    parts = tuple(
        EventPart(_partition(row), row["path"], row["rows_out"], row["first_ts"], row["last_ts"]) for row in rows if row["path"]
    )  # fmt: skip
    totals = {name: sum(row[name] for row in rows) for name in ("rows_in", "rows_out", "rows_filtered", "rows_quarantined")}
    return Decoded(source, parts, quarantine=facts["quarantine"], skipped=skipped, **totals)


def is_decoded(source: SourceFile, lake: Path, recipe: MboRecipe, *, salvage: bool = False) -> Decoded | None:
    """What the lake holds of `source` under `recipe`, or None unless the decode is complete.

    Complete: the SOURCES file has the stamp, and every file it lists is there with its stamp and its number of rows. A gate that was
    killed while it took rows out leaves a mismatch, so the source is decoded again. A salvaged decode counts only with `salvage`.
    """
    path, stamp = lake / sources_path(source.dataset, source.short), decode_stamp(source, recipe)
    if not _stands(path, stamp):
        return None
    rows, _, facts = read_sources(path)
    if "truncated" in facts and not salvage:
        return None
    made = events_stamp(source, recipe)
    for row in rows:
        if row["path"]:
            now = Stamp(facts["rewritten"].get(row["path"], made.inputs), made.recipe)
            truth = lake / _partition(row).path("truth", source.short)
            if not _stands(lake / row["path"], now, row["rows_out"]) or (row["path"] in facts["truth"] and not _stands(truth, now)):
                return None
    if facts["quarantine"] and not _stands(lake / facts["quarantine"], stamp, facts["quarantine_rows"]):
        return None
    return describe(source, rows, facts, skipped=True)


def _stands(path: Path, stamp: Stamp, rows: int | None = None) -> bool:
    footer = read_footer(path)
    if footer is None or any(footer.get(key) != value for key, value in stamp.footer().items()):
        return False
    return rows is None or footer.get("bookmill.rows") == str(rows)


def _partition(row: dict[str, Any]) -> Partition:
    return Partition(row["dataset"], row["date"], row["symbol"], row["publisher_id"], row["instrument_id"])


@contextmanager
def sources_lock(lake: Path, dataset: str) -> Iterator[None]:
    """One at a time, across threads and processes: changes to the SOURCES and quarantine files of a data set.

    An flock on the folder itself, which the kernel frees when its holder dies; there is no lock file to leave behind.
    """
    folder = (lake / sources_path(dataset, "x")).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as fault:
        raise storage_error(folder, fault) from fault
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
