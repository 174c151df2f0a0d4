"""Published books into the lake: read, check, route, and account for every row. The rebuilt book is compared with them later.

A vendor often ships, beside a file of orders, the book that it rebuilt itself from the same feed. Which files those are is told in
published_formats.py, how their bytes become columns by the readers, how columns become files in published_routing.py. As in decode.py, nothing
gets its final name until the whole source was read, found unchanged, and every row of it accounted for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from tasks.errors import BookmillError, SchemaMismatch
from tasks.footers import is_done, read_facts, read_footer
from tasks.partitions import Partition, SourceFile, Stamp, digest
from tasks.scanning import route_kernels as rk
from tasks.scanning.batches import BadRow
from tasks.scanning.inventory import verify_unchanged
from tasks.scanning.partition_table import Lost
from tasks.scanning.published_batches import ACTION, DETAILS, REASONS, PublishedBatch, PublishedReader, faults
from tasks.scanning.published_formats import (
    MBP_1,
    PUBLISHED_CSV,
    PUBLISHED_DBN,
    PUBLISHED_FORMATS,
    TBBO,
    Published,
    identify_published,
    published_source,
)
from tasks.scanning.published_routing import PublishedFiles
from tasks.scanning.quarantine_file import QuarantineLog
from tasks.scanning.sources_file import sources_lock

__all__ = [
    "PUBLISHED_FORMATS", "Published", "PublishedPart", "decode_published", "identify_published", "is_published", "published_source",
    "published_stamp",
]  # fmt: skip


@dataclass(frozen=True)
class PublishedPart:
    """One file of published books; path relative to the lake."""

    partition: Partition
    path: str
    rows: int


def published_stamp(source: SourceFile) -> Stamp:
    """Stamp of the files of the layer "published", and of the quarantine of their source."""
    return Stamp(inputs=source.fingerprint, recipe=digest({"layer": "published", "symbols": source.symbols}))


def decode_published(source: SourceFile, lake: Path, *, batch_rows: int = 16_384) -> list[PublishedPart]:
    """Bring a source of published books into the lake, one file per partition, or find that it is there already. Sorted by partition.

    batch_rows changes memory and speed, never bytes. Footers hold these facts: schema, depth, interval_ns (0 for a row per update), before
    (tbbo: the touch is that before the trade of the row), source, fingerprint, parts (files of the source), of_source {rows_in, rows_out,
    rows_quarantined}, quarantine (path or ""); and of the partition alone rows_in, rows_out, rows_quarantined (rows in = out + quarantined in
    both; a row too broken to tell its partition counts in of_source only), suspect_rows (ascending rows of the file before which a row was
    set aside, or may have been), suspect_rows_capped, out_of_order, first_ts_recv and last_ts_recv.

    Raises SourceError and its kinds for the file, StorageError for the lake, BookmillError when the rows do not add up; in all these cases
    nothing of the source gets a final name.
    """
    stamp = published_stamp(source)
    if (done := _done(source, lake, stamp)) is not None:
        return done
    found = identify_published(Path(source.path))
    if found is None:
        raise SchemaMismatch(source.path, "holds no published books any more", remedy="Start again: it changed since the scan")
    reader = _open(source, found)
    run = _Decoding(source, lake, found)
    finished = False
    try:
        for batch in reader.batches(batch_rows):
            run.take(batch, reader.symbols)
        parts = run.publish(reader, stamp)
        finished = True
    finally:
        reader.close()
        run.files.close(undo=not finished)
        run.quarantine.close(undo=not finished)
    return parts


def is_published(source: SourceFile, lake: Path, paths: Iterable[Path] | None = None) -> list[PublishedPart] | None:
    """The files of a source that is in the lake already, whole and as it is now; else None. paths: its files where they are known from a listing."""
    return _done(source, lake, published_stamp(source), paths)


def _open(source: SourceFile, found: Published) -> PublishedReader:
    if found.format == PUBLISHED_DBN:
        from tasks.scanning.published_dbn import PublishedDbn

        return PublishedDbn(source, found)
    if found.format == PUBLISHED_CSV:
        from tasks.scanning.published_csv import PublishedCsv

        return PublishedCsv(source, found)
    from tasks.scanning.published_parquet import PublishedParquet

    return PublishedParquet(source, found)


def _done(source: SourceFile, lake: Path, stamp: Stamp, paths: Iterable[Path] | None = None) -> list[PublishedPart] | None:
    """The files of a source when all of them, and its quarantine where there is one, are there with the right stamp. The count tells all."""
    parts = []
    expected, quarantine = -1, ""
    if paths is None:
        paths = lake.glob(f"published/dataset={quote(source.dataset, safe='.')}/date=*/symbol=*/part-*-{source.short}.parquet")
    for path in paths:
        if is_done(path, stamp):
            facts = read_facts(path)
            expected, quarantine = facts["parts"], facts["quarantine"]
            rows = int((read_footer(path) or {})["bookmill.rows"])
            parts.append(PublishedPart(Partition.of_path(path), str(path.relative_to(lake)), rows))
    whole = len(parts) == expected and (not quarantine or is_done(lake / quarantine, stamp))
    return sorted(parts, key=lambda part: part.partition) if whole else None


class _Decoding:
    """One source on its way: state between batches."""

    def __init__(self, source: SourceFile, lake: Path, found: Published) -> None:
        self.source, self.lake, self.found = source, lake, found
        self.files, self.quarantine = PublishedFiles(source, lake, found.depth), QuarantineLog(source, lake)
        self.homeless = 0  # quarantined rows of no known partition
        self.rows_in, self.only_trades = 0, True
        self._names: dict[str, int] = {}
        self._canonical = np.empty(0, np.int32)

    def take(self, batch: PublishedBatch, symbols: list[str]) -> None:
        """Check and route one batch."""
        # Two codes of one name would be two partitions with one path.
        fresh = [self._names.setdefault(symbols[code], code) for code in range(len(self._canonical), len(symbols))]
        self._canonical = np.concatenate([self._canonical, np.array(fresh, np.int32)])
        fault = faults(batch.values, self.found.by_row)
        missing = [row for row in batch.bad if row.reason != "not_published"]  # a record of another type says nothing of the book
        lost_codes = [self._canonical[row.symbol_code] if row.symbol_code >= 0 else -1 for row in missing]
        lost = Lost(np.array([row.before for row in missing], np.int64), np.array(lost_codes, np.int32))
        file_row = self.files.add(batch, symbols, self._canonical[batch.symbol_code], fault, lost)
        self.rows_in += len(batch) + len(batch.bad)
        self.only_trades = self.only_trades and bool((batch.values[ACTION][fault == 0] == ord("T")).all())
        if batch.bad or fault.any():
            self._set_aside(batch, symbols, fault, file_row)

    def _set_aside(self, batch: PublishedBatch, symbols: list[str], fault: np.ndarray, file_row: np.ndarray) -> None:
        rows = [(row.source_row, row, -1) for row in batch.bad]
        for i in np.flatnonzero(fault).tolist():
            reason = REASONS[fault[i]]
            bad = BadRow(i, int(batch.source_row[i]), *batch.raw(i), reason, DETAILS[reason], int(batch.symbol_code[i]))
            rows.append((bad.source_row, bad, int(file_row[i])))
        for _, row, at in sorted(rows, key=lambda entry: entry[0]):  # in the order of the source
            self.homeless += at < 0
            self.quarantine.add(row, at, symbols[row.symbol_code] if row.symbol_code >= 0 else "")

    def publish(self, reader: PublishedReader, stamp: Stamp) -> list[PublishedPart]:
        """Check the accounts and give everything its final name."""
        table = self.files.table
        table.close()
        parts = [PublishedPart(partition, self.files.path(p), rows) for p, partition, rows in self.files.parts()]
        of_source = {"rows_in": self.rows_in, "rows_out": sum(part.rows for part in parts), "rows_quarantined": self.quarantine.rows}
        counted = table.total(rk.ROWS_IN) + self.homeless
        if not self.rows_in == reader.source_rows == counted == of_source["rows_out"] + of_source["rows_quarantined"]:
            raise BookmillError(
                f"{self.source.name}: {reader.source_rows:,} rows were read, {counted:,} were routed, {of_source['rows_out']:,} kept and "
                f"{of_source['rows_quarantined']:,} quarantined. Nothing was published; please report this with the file."
            )
        verify_unchanged(self.source)
        facts = self._facts(len(parts), of_source)
        with sources_lock(self.lake, self.source.dataset):
            # Before the parts: where all of them stand, it stands too.
            self.quarantine.commit(stamp)
            self.files.commit(stamp, facts)
        return parts

    def _facts(self, parts: int, of_source: dict[str, int]) -> dict[str, Any]:
        schema = self.found.schema
        if not self.found.settled:
            schema = TBBO if self.only_trades else MBP_1
        return {
            "schema": schema, "depth": self.found.depth, "interval_ns": self.found.interval_ns, "before": schema == TBBO,
            "source": self.source.name, "fingerprint": self.source.fingerprint, "parts": parts, "of_source": of_source,
            "quarantine": self.quarantine.name if self.quarantine.rows else "",
        }  # fmt: skip
