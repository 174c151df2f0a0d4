"""The record of a decoded source: one SOURCES file per source, written last, whose presence with the right stamp says that the decode stands.

Stamps of the decode stage, the paths of what it writes beside the partitions, the conservation of rows, and the check that everything listed
is there. How rows get into the files is decided in decode.py; how a gate takes some out, in events_file.py.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
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
from tasks.partitions import EventFilter, MboRecipe, Partition, SourceFile, Stamp, digest
from tasks.scanning.formats import DBN
from tasks.schemas import SOURCES
from tasks.storage import write_table

# Symbols and publishers of a filter, sorted; empty: all. Of one source different runs may want different ones: its account is for all of them, and
# its fact `wanted` lists them. Lists, as they come back from JSON.
Wanted = list[list[Any]]


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
    skipped: it was there already; lost: partitions of which rows were set aside and none kept, with how many.
    """

    source: SourceFile
    parts: tuple[EventPart, ...]
    rows_in: int
    rows_out: int
    rows_filtered: int
    rows_quarantined: int
    quarantine: str
    skipped: bool = False
    lost: tuple[tuple[Partition, int], ...] = ()


def events_stamp(source: SourceFile, recipe: MboRecipe) -> Stamp:
    """Stamp of the events and truth files: of the filter only the end of the range changes the bytes of a partition."""
    return Stamp(inputs=source.fingerprint, recipe=digest({"end_ns": recipe.filter.end_ns}))


def decode_stamp(source: SourceFile, recipe: MboRecipe) -> Stamp:
    """Stamp of the SOURCES and quarantine files: the names, too. Which symbols and publishers they are for is a fact of them, see `Wanted`."""
    return Stamp(inputs=source.fingerprint, recipe=digest({"end_ns": recipe.filter.end_ns, "names": names_of(source)}))


def wanted_of(wanted: EventFilter) -> Wanted:
    """The symbols and publishers of a filter."""
    return [sorted(set(wanted.symbols)), sorted(set(wanted.publishers))]


def covers(whole: Wanted, part: Wanted) -> bool:
    """Whether a decode of `whole` has all that one of `part` would have."""
    return all(not of or (asked and set(asked) <= set(of)) for of, asked in zip(whole, part, strict=True))


def covered(facts: Mapping[str, Any], wanted: Wanted) -> bool:
    """Whether the account with these facts has all that is wanted; of several symbols each may be of another run."""
    symbols, publishers = wanted
    answered = [(of, by) for of, by in facts.get("wanted", []) if covers([[], by], [[], publishers])]
    return any(not of for of, _ in answered) or (bool(symbols) and set(symbols) <= {symbol for of, _ in answered for symbol in of})


def wants(wanted: Wanted, symbol: str, publisher_id: int) -> bool:
    """Whether rows of a symbol ("" not known) and a publisher (-1 not known) are wanted."""
    symbols, publishers = wanted
    return (not symbols or not symbol or symbol in symbols) and (not publishers or publisher_id < 0 or publisher_id in publishers)


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
                (lake / partition_of(row).path("truth", source.short)).unlink(missing_ok=True)
                (lake / row["path"]).unlink(missing_ok=True)


def sources_path(dataset: str, short: str) -> str:
    """Path of the SOURCES file of a source relative to the lake."""
    return f"sources/dataset={quote(dataset, safe='.')}/{short}.parquet"


def quarantine_path(dataset: str, short: str) -> str:
    """Path of the quarantine of a source relative to the lake: that of its last decode, and of the gates after it."""
    return f"quarantine/dataset={quote(dataset, safe='.')}/source-{short}.parquet"


def mends_path(dataset: str, short: str) -> str:
    """Path of the mends of a source relative to the lake."""
    return f"mends/dataset={quote(dataset, safe='.')}/source-{short}.parquet"


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


def describe(source: SourceFile, rows: list[dict[str, Any]], facts: dict[str, Any], wanted: Wanted, *, skipped: bool) -> Decoded:
    """The rows of a SOURCES file as a Decoded of what is wanted; all else counts as filtered."""
    mine = [row for row in rows if row["date"] and wants(wanted, row["symbol"], row["publisher_id"])]
    parts = tuple(EventPart(partition_of(row), row["path"], row["rows_out"], row["first_ts"], row["last_ts"]) for row in mine if row["path"])
    rows_in, rows_out = sum(row["rows_in"] for row in rows), sum(row["rows_out"] for row in mine)
    bad = sum(row["rows_quarantined"] for row in mine) + sum(n for symbol, publisher, n in facts["homeless"] if wants(wanted, symbol, publisher))
    lost = tuple((partition_of(row), row["rows_quarantined"]) for row in mine if row["rows_quarantined"] and not row["path"])
    return Decoded(source, parts, rows_in, rows_out, rows_in - rows_out - bad, bad, facts["quarantine"] if bad else "", skipped, lost)


def is_decoded(source: SourceFile, lake: Path, recipe: MboRecipe, *, salvage: bool = False) -> Decoded | None:
    """What the lake holds of `source` under `recipe`, or None unless the decode is complete.

    Complete: the SOURCES file has the stamp and is for all that the filter wants, and every file of that which it lists is there with its stamp and
    its number of rows. A gate that was killed while it took rows out leaves a mismatch, so the source is decoded again. A salvaged decode counts only
    with `salvage`.
    """
    account, wanted = read_account(source, lake, recipe), wanted_of(recipe.filter)
    if account is None:
        return None
    rows, facts = account
    if not covered(facts, wanted) or ("truncated" in facts and not salvage):
        return None
    if any(wants(wanted, row["symbol"], row["publisher_id"]) and not row_stands(source, lake, recipe, row, facts) for row in rows):
        return None
    if not quarantine_stands(source, lake, recipe, facts):
        return None
    return describe(source, rows, facts, wanted, skipped=True)


def read_account(source: SourceFile, lake: Path, recipe: MboRecipe) -> tuple[list[dict[str, Any]], dict[str, Any]] | None:
    """Rows and facts of the SOURCES file of `source`, None where there is none with the stamp."""
    path = lake / sources_path(source.dataset, source.short)
    if not _stands(path, decode_stamp(source, recipe)):
        return None
    rows, _, facts = read_sources(path)
    return (rows, facts) if "wanted" in facts else None


def quarantine_stands(source: SourceFile, lake: Path, recipe: MboRecipe, facts: dict[str, Any]) -> bool:
    """Whether the quarantine is there with as many rows as the account with these facts counts; of one without, it is."""
    return not facts["quarantine"] or _stands(lake / facts["quarantine"], decode_stamp(source, recipe), facts["quarantine_rows"])


def row_stands(source: SourceFile, lake: Path, recipe: MboRecipe, row: dict[str, Any], facts: dict[str, Any]) -> bool:
    """Whether the files that a SOURCES row lists are there as it says; of one without, they are."""
    if not row["path"]:
        return True
    made = events_stamp(source, recipe)
    now = Stamp(facts["rewritten"].get(row["path"], made.inputs), made.recipe)
    truth = lake / partition_of(row).path("truth", source.short)
    return _stands(lake / row["path"], now, row["rows_out"]) and (row["path"] not in facts["truth"] or _stands(truth, now))


def _stands(path: Path, stamp: Stamp, rows: int | None = None) -> bool:
    footer = read_footer(path)
    if footer is None or any(footer.get(key) != value for key, value in stamp.footer().items()):
        return False
    return rows is None or footer.get("bookmill.rows") == str(rows)


def partition_of(row: dict[str, Any]) -> Partition:
    """The partition of a SOURCES row."""
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
