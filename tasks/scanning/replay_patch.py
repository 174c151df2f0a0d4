"""A copy of a source in which some rows are replaced by mended ones: what its readers read when quarantined rows are replayed.

The copy is read by the reader of the format, so that a mended row counts in all that follows from it, as if the source had held it. Which rows are
mended, and what becomes of the events, is in replay_quarantine.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from tasks.errors import CorruptSource, SourceError, UsageError
from tasks.partitions import SourceFile
from tasks.scanning import formats
from tasks.scanning.chunks import ByteStream

TEXT = (formats.DATABENTO_CSV, formats.SEVEN_COLUMN_CSV)
FRAMES = (formats.DBN, formats.ITCH)
COLUMNS = (formats.DATABENTO_PARQUET, formats.SEVEN_COLUMN_PARQUET)
_BLOCK = 1 << 22


@dataclass(frozen=True)
class Mend:
    """A row of a source as it stands (raw) and as it is to be (mended). byte_offset: in the decompressed stream, -1 for Parquet; source_row: 0-based
    data row."""

    source_row: int
    byte_offset: int
    reason: str
    raw: bytes
    mended: bytes


def check_mends(source: SourceFile, mends: Sequence[Mend]) -> None:
    """Raises UsageError for a row that cannot be put in the place of what stands there."""
    if mends and (source.member or source.format not in (*TEXT, *FRAMES, *COLUMNS)):
        what = "a file in a zip" if source.member else source.format
        raise UsageError(f"{source.name}: rows of {what} cannot be mended in place. Mend a copy of the source, and run it into a new lake.")
    for mend in mends:
        where = f"{source.name}, row {mend.source_row:,}"
        if source.format in FRAMES and len(mend.mended) != len(mend.raw):
            raise UsageError(f"{where}: the mended record has {len(mend.mended)} bytes, that of the source {len(mend.raw)}; they must be as many")
        if source.format in TEXT and not mend.mended:
            raise UsageError(f"{where}: the mended row is empty, and a blank line is no row; leave a row that you cannot mend as it was")
        if source.format in TEXT and (b"\n" in mend.mended or b"\r" in mend.mended):
            raise UsageError(f"{where}: the mended row holds a line break; one row is one line")
        if source.format in COLUMNS:
            _values(source, mend)


def patched_copy(source: SourceFile, mends: Sequence[Mend], folder: Path) -> SourceFile:
    """`source` with its path led to a copy in `folder` that has the mended rows. Disk: about the size of the source.

    Raises SourceError where a row is not where the quarantine says, UsageError where a value does not fit its column.
    """
    target = folder / Path(source.path).name  # its name may be the symbol
    ordered = sorted(mends, key=lambda mend: (mend.byte_offset, mend.source_row))
    if source.format in COLUMNS:
        _patch_rows(source, ordered, target)
    else:
        _patch_bytes(source, ordered, target)
    return replace(source, path=str(target))


def _patch_bytes(source: SourceFile, mends: Sequence[Mend], target: Path) -> None:
    with open(target, "wb") as plain:
        stream = ByteStream(source.path)
        try:
            # Compressed again where the source is: about as large as it.
            out: Any = zstandard.ZstdCompressor(level=1).stream_writer(plain, closefd=False) if stream.compression else plain
            for piece in _pieces(source, stream, mends):
                out.write(piece)
            if out is not plain:
                out.close()
        finally:
            stream.close()
        if stream.fault:
            raise CorruptSource(source.path, stream.fault, remedy="A source that breaks off cannot be replayed; fetch it again")


def _pieces(source: SourceFile, stream: ByteStream, mends: Sequence[Mend]) -> Iterator[bytes]:
    """The decompressed bytes with the replacements in them."""
    at, waiting, held = 0, list(mends), b""
    buffer = bytearray(_BLOCK)
    while True:
        count = stream.fill(memoryview(buffer))
        held += bytes(buffer[:count])
        ended = count < len(buffer)
        # A row is replaced once the byte after it is there, which tells whether the row ends.
        while waiting and (ended or waiting[0].byte_offset + len(waiting[0].raw) < at + len(held)):
            mend, low = waiting.pop(0), 0
            low = mend.byte_offset - at
            high = low + len(mend.raw)
            cut = source.format in TEXT and held[high : high + 1] not in (b"\n", b"\r", b"")
            if low < 0 or held[low:high] != mend.raw or cut:
                remedy = "It is too long to be kept whole: mend a copy of the source" if cut else "Decode the source again, and export anew"
                raise SourceError(source.path, "does not hold the quarantined row here", offset=mend.byte_offset, row=mend.source_row, remedy=remedy)
            yield held[:low]
            yield mend.mended
            held, at = held[high:], at + high
        keep = 0 if ended or not waiting else max(0, min(len(held), waiting[0].byte_offset - at))
        if ended or not waiting or keep:
            yield held[: keep or len(held)]
            held, at = held[keep or len(held) :], at + (keep or len(held))
        if ended:
            return


def _patch_rows(source: SourceFile, mends: Sequence[Mend], target: Path) -> None:
    """The file again, row group by row group, with the values of mended rows replaced."""
    with pq.ParquetFile(source.path) as file, pq.ParquetWriter(target, file.schema_arrow, compression="zstd") as out:
        at = 0
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            for mend in mends:
                row = mend.source_row - at
                if 0 <= row < table.num_rows:
                    table = pa.concat_tables([table.slice(0, row), _row(source, mend, table.slice(row, 1)), table.slice(row + 1)])
            at += file.metadata.row_group(group).num_rows
            out.write_table(table)


def _row(source: SourceFile, mend: Mend, before: pa.Table) -> pa.Table:
    values = _values(source, mend)
    columns = []
    for field, column in zip(before.schema, before.columns, strict=True):
        if field.name not in values:
            columns.append(column)
            continue
        try:
            value = values[field.name]
            large = pa.uint64() if isinstance(value, int) and value > 2**63 - 1 else None  # else Arrow takes an integer for int64
            columns.append(pa.chunked_array([pa.array([float("nan") if value == "NaN" else value], large).cast(field.type)]))
        except (pa.ArrowException, ValueError, OverflowError) as fault:
            where = f"{source.name}, row {mend.source_row:,}: {field.name} is {value!r}"
            raise UsageError(f"{where}, which is no {field.type}. {fault}") from fault
    return pa.table(columns, schema=before.schema)


def _values(source: SourceFile, mend: Mend) -> dict[str, Any]:
    try:
        values = json.loads(mend.mended)
        if not isinstance(values, dict):
            raise ValueError("no object")
    except ValueError as fault:
        raise UsageError(f"{source.name}, row {mend.source_row:,}: the mended row is no JSON object ({fault}); it is exported as one") from fault
    return values
