"""Rows of a book after every event: all their levels in one packed column, and how to read them as columns.

A state differs from the one before it in two of its sixty numbers. As sixty columns each of them is encoded, compressed and read for every row;
as one value of fixed length the row is a copy of the last one with two numbers patched in, and the compressor finds the rest (measured on 5.9M
states of ten levels: files of 124 MB written in 4.0 s as columns, 85 MB packed, of which `levels` are 25 MB and 1.0 s of one core).

Layout of `levels`, for `depth` levels, all big-endian, so that SQL can read them too (`cell_sql`): prices int64[2 * depth] by level and side
(bid, ask), sizes int64[2 * depth] likewise, order counts uint32[2 * depth] likewise. An empty level has UNDEF_PRICE, 0, 0.

Readers ask for columns by name and need not know which way a file is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.schemas import BOOK_HEAD, UNDEF_PRICE, level_fields

LEVELS = "levels"
PACKED_WORDS = 5  # of 8 bytes, a level of both sides
_BYTES = 8 * PACKED_WORDS
_CELL = re.compile(r"(bid|ask)_(px|sz|ct)_([0-9]{2}|[1-9][0-9]{2,})")


def packed_schema(depth: int) -> pa.Schema:
    """Schema of an mbp-`depth` layer at event ends as it is stored."""
    return pa.schema([*BOOK_HEAD, pa.field(LEVELS, pa.binary(_BYTES * depth), nullable=False)])


def depth_of(schema: pa.Schema) -> int:
    """Levels a side of a packed schema, 0 for one with columns."""
    at = schema.get_field_index(LEVELS)
    kind = schema.field(at).type if at >= 0 else None
    return kind.byte_width // _BYTES if kind is not None and pa.types.is_fixed_size_binary(kind) and kind.byte_width % _BYTES == 0 else 0


def as_read(schema: pa.Schema) -> pa.Schema:
    """The columns that a reader sees of a file of this schema."""
    depth = depth_of(schema)
    return pa.schema([*(field for field in schema if field.name != LEVELS), *level_fields(depth)]) if depth else schema


def cell(name: str, depth: int) -> tuple[int, int] | None:
    """(offset, bytes) of a level column in a packed row, None for any other name."""
    found = _CELL.fullmatch(name)
    if found is None or int(found[3]) >= depth:
        return None
    place = 2 * int(found[3]) + (found[1] == "ask")
    return {"px": (8 * place, 8), "sz": (16 * depth + 8 * place, 8), "ct": (32 * depth + 4 * place, 4)}[found[2]]


def cell_sql(name: str, depth: int) -> str:
    """DuckDB's expression for a level column of a packed row."""
    place = cell(name, depth)
    if place is None:
        raise ValueError(f"{name} is no level column of {depth} levels")
    first, size = place[0] + 1, place[1]
    return f"{LEVELS}[{first}:{first + size - 1}]::BIT::{'BIGINT' if size == 8 else 'UINTEGER'}"


def star_sql(schema: pa.Schema) -> str:
    """DuckDB's select list of all columns that a reader sees of a file of this schema."""
    depth = depth_of(schema)
    cells = [f"{cell_sql(name, depth)} AS {name}" for name, _ in level_fields(depth)] if depth else []
    return ", ".join([f"* EXCLUDE ({LEVELS})" if depth else "*", *cells])


def with_cells(schema: pa.Schema, depth: int) -> pa.Schema:
    """`schema` with the SQL of its level columns beside them (metadata "sql" of the field), for readers of files that pack `depth` levels."""
    return pa.schema([field.with_metadata({"sql": cell_sql(field.name, depth)}) if cell(field.name, depth) else field for field in schema])


def unpacked(levels: pa.Array, names: Sequence[str]) -> list[pa.Array]:
    """The level columns `names` of an array of packed rows."""
    width = levels.type.byte_width
    raw = np.frombuffer(levels.buffers()[1], np.uint8)[levels.offset * width : (levels.offset + len(levels)) * width].reshape(len(levels), width)
    found = []
    for name in names:
        place = cell(name, width // _BYTES)
        assert place is not None, name
        view = raw[:, place[0] : place[0] + place[1]].view(">i8" if place[1] == 8 else ">u4")[:, 0]
        found.append(pa.array(view.astype(view.dtype.newbyteorder("="))))
    return found


def unpack(batch: pa.RecordBatch, names: Sequence[str]) -> pa.RecordBatch:
    """A batch of a book layer as the columns `names`, in their order."""
    depth = depth_of(batch.schema)
    cells = [name for name in names if depth and cell(name, depth)]
    made = dict(zip(cells, unpacked(batch.column(LEVELS), cells), strict=True)) if cells else {}
    return pa.RecordBatch.from_arrays([made[name] if name in made else batch.column(name) for name in names], names=list(names))


def read_rows(path: Path, columns: Sequence[str] | None = None, batch_rows: int = 32_768) -> Iterator[pa.RecordBatch]:
    """Rows of a book layer in order; columns: those wanted, all for None. Packed or not is the file's matter."""
    with pq.ParquetFile(path, pre_buffer=False) as file:
        schema = file.schema_arrow
        depth = depth_of(schema)
        names = as_read(schema).names if columns is None else list(columns)
        stored = [name for name in names if not (depth and cell(name, depth))]
        stored += [LEVELS] if len(stored) < len(names) else []
        for batch in file.iter_batches(batch_rows, columns=stored):
            yield unpack(batch, names)


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of a book layer as one table, see `read_rows`."""
    batches = list(read_rows(path, columns))
    if batches:
        return pa.Table.from_batches(batches)
    schema = as_read(pq.read_schema(path))
    return pa.schema([schema.field(name) for name in (schema.names if columns is None else columns)]).empty_table()


def empty_levels(depth: int) -> np.ndarray:
    """int64[PACKED_WORDS * depth]: a packed row without a level."""
    words = np.zeros(PACKED_WORDS * depth, np.int64)
    words[: 2 * depth] = np.int64(UNDEF_PRICE).byteswap()
    return words


def levels_of(words: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """px, sz, ct int64[n, 2, depth] of packed rows int64[n, PACKED_WORDS * depth] (bid first)."""
    n, depth = len(words), words.shape[1] // PACKED_WORDS
    px, sz = (words[:, at : at + 2 * depth].byteswap().reshape(n, depth, 2).transpose(0, 2, 1) for at in (0, 2 * depth))
    counts = np.ascontiguousarray(words[:, 4 * depth :]).view(">u4").astype(np.int64).reshape(n, depth, 2).transpose(0, 2, 1)
    return np.ascontiguousarray(px), np.ascontiguousarray(sz), np.ascontiguousarray(counts)
