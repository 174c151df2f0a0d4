"""Market-by-order Parquet files: Databento's export and the seven-column layout, as batches of event columns.

Here: which column is read how, which rows are bad and why. How values are converted is in arrow_values.py; which file is of which layout in
formats.py; what becomes of the rows in decode.py. Integer prices are 1e-9 in both layouts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import CorruptSource, SchemaMismatch
from tasks.partitions import SourceFile
from tasks.scanning import arrow_values as convert
from tasks.scanning.batches import BadRow, RawBatch
from tasks.scanning.formats import SEVEN_COLUMN_PARQUET
from tasks.scanning.parquet_rows import SymbolNames, row_batches
from tasks.schemas import EVENT_DTYPES, F_LAST, F_TOB, UNDEF_PRICE

# column -> how it is read (arrow_values.READS)
_KINDS = {"ts_event": "time", "ts_recv": "time", "action": "letter", "side": "letter", "price": "price", "symbol": "text", "is_last": "integer"}
_READ = (*EVENT_DTYPES, "symbol", "is_last")
_NEED_PRICE = np.isin(np.arange(256), list(b"AMTF"))  # actions that mean nothing without a price
_GET_AGAIN = "Fetch or export the file again"
# Column chunks are read through buffers of this size instead of whole, so that memory does not follow the size of row groups.
_BUFFER_BYTES = 1 << 20


def open_file(path: Path, dictionary: list[str] | None = None) -> pq.ParquetFile:
    """The file, read through small buffers; dictionary: text columns read as codes. Raises CorruptSource."""
    try:
        return pq.ParquetFile(path, read_dictionary=dictionary, pre_buffer=False, buffer_size=_BUFFER_BYTES)
    except (pa.ArrowException, OSError) as fault:
        if isinstance(fault, OSError) and fault.errno:
            raise
        raise CorruptSource(path, f"the Parquet footer cannot be read ({fault})", offset=path.stat().st_size, remedy=_GET_AGAIN) from fault


def read_schema(path: Path) -> pa.Schema:
    """The Arrow schema of a Parquet file, once it is known that each event column in it has a type that can be read.

    Raises CorruptSource where the footer is missing or damaged, SchemaMismatch where a type cannot be read exactly.
    """
    with open_file(path) as file:
        schema = file.schema_arrow
    if "ts_event" in schema.names:
        wrong = []
        for name in _READ:
            accepts, allowed = convert.READS[_KINDS.get(name, "integer")]
            for index in schema.get_all_field_indices(name):
                if not accepts(schema.field(index).type):
                    wrong.append(f"{name} is {schema.field(index).type} (allowed: {allowed})")
        if wrong:
            raise SchemaMismatch(path, "; ".join(wrong), remedy="Export the file again with these types")
    return schema


def row_count(path: Path) -> int:
    """Rows as the footer says."""
    with open_file(path) as file:
        return file.metadata.num_rows


def first_publisher(path: Path) -> int | None:
    """The first publisher_id of the first rows, None where there is none."""
    with open_file(path) as file:
        if "publisher_id" in file.schema_arrow.names:
            for batch in file.iter_batches(batch_size=64, columns=["publisher_id"]):
                values, ok = convert.integers(batch.column(0), EVENT_DTYPES["publisher_id"])
                return int(values[ok][0]) if ok.any() else None
    return None


class ParquetReader:
    """Reader (see batches.py) of one Parquet file; only the columns that events need are read.

    Rows without a symbol are called by their instrument_id (bad ones may be of any); files without a symbol column by `source.symbols`, else by the
    file's stem. bytes_read is the share of the rows read, applied to the size of the file.
    """

    def __init__(self, source: SourceFile) -> None:
        self._path = Path(source.path)
        schema = read_schema(self._path)
        names = schema.names
        # Dictionary codes instead of a string per row: letters and symbols are then looked up once per distinct value.
        self._file = open_file(
            self._path, [name for name in ("action", "side", "symbol") if name in names and schema.field(name).type == pa.string()]
        )
        self._seven = source.format == SEVEN_COLUMN_PARQUET
        self._columns = [name for name in _READ if name in names]
        self._size, self._total = self._path.stat().st_size, self._file.metadata.num_rows
        self._names = SymbolNames([] if "symbol" in names else [*source.symbols[:1]] or [self._path.name.split(".")[0]])
        self.symbols = self._names.symbols
        self.source_rows = 0
        self.expanded_rows = 0
        self.bytes_read = 0

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def batches(self, batch_rows: int) -> Iterator[RawBatch]:
        """Yield the rows in file order, at most `batch_rows` in a batch. Raises CorruptSource where a page cannot be read."""
        for batch in row_batches(self._file, self._path, self._columns, batch_rows, _GET_AGAIN):
            converted = self._convert(batch)
            self.source_rows += batch.num_rows
            self.bytes_read = self._size * self.source_rows // self._total
            yield converted

    def _convert(self, batch: pa.RecordBatch) -> RawBatch:
        base, rows = self.source_rows, _Rows(batch)
        columns = {name: rows.read(name, dtype) for name, dtype in EVENT_DTYPES.items() if name in self._columns}
        if self._seven:
            columns["ts_recv"] = columns["ts_event"].copy()
            columns["flags"] = rows.read("is_last", np.dtype("u1"), most=1) * np.uint8(F_LAST)
        columns["price"] = rows.price(columns["action"], columns.get("flags"))
        columns = {name: columns.get(name, np.zeros(batch.num_rows, dtype)) for name, dtype in EVENT_DTYPES.items()}
        kept, wrong = np.flatnonzero(rows.reason == 0), np.flatnonzero(rows.reason)
        codes = self._names.codes(batch, columns["instrument_id"], wrong)
        bad = [
            BadRow(before, base + row, -1, raw, rows.reasons[rows.reason[row]], rows.detail(row), int(codes[row]))
            for row, before, raw in zip(wrong.tolist(), np.searchsorted(kept, wrong).tolist(), as_json(batch, wrong), strict=True)
        ]
        if bad:
            columns, codes = {name: values[kept] for name, values in columns.items()}, codes[kept]
        # Arrow lends read-only memory; kernels compiled for writeable arrays would compile again for it.
        columns = {name: values if values.flags.writeable else values.copy() for name, values in columns.items()}
        return RawBatch(columns, codes, base + kept, lambda row: (-1, as_json(batch, kept[row : row + 1])[0]), bad)


class _Rows:
    """The columns of one batch and, for each row, the first reason why it cannot be read (index into `reasons`, 0 none)."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.batch, self.reason, self.reasons = batch, np.zeros(batch.num_rows, np.int8), [""]

    def _fail(self, failed: np.ndarray, reason: str) -> None:
        if failed.any():
            self.reasons.append(reason)
            self.reason[failed & (self.reason == 0)] = len(self.reasons) - 1

    def read(self, name: str, dtype: np.dtype, most: int | None = None) -> np.ndarray:
        """The values of a column; rows that have none, or one above `most`, are failed with the column's name, "null" or a time's reason."""
        kind, array = _KINDS.get(name, "integer"), self.batch.column(name)
        if kind == "price":
            return np.zeros(len(array), dtype)  # needs action and flags: `price`
        if kind == "time":
            values, ok = convert.times(array)
        elif kind == "letter":
            values, ok = convert.letters(array)
        else:
            values, ok = convert.integers(array, dtype)
        if most is not None:
            ok = ok & (values <= most)
        if not ok.all():
            null = convert.absent(array)
            self._fail(null, "no_time" if kind == "time" else "null")
            if kind == "time" and array.type == pa.uint64():
                self._fail(array.to_numpy(zero_copy_only=False) == np.uint64(2**64 - 1), "no_time")
            self._fail(~ok & ~null, "time_range" if kind == "time" and not convert.is_text(array.type) else name)
        return values

    def price(self, action: np.ndarray, flags: np.ndarray | None) -> np.ndarray:
        """int64[n]; a missing price is UNDEF_PRICE where the action has none, or where a top-of-book record empties a side."""
        array = self.batch.column("price")
        values, ok = convert.prices(array)
        if not ok.all():
            missing = convert.absent(array)
            needed = _NEED_PRICE[action]
            if flags is not None:
                needed = needed & (flags & F_TOB == 0)
            self._fail(missing & needed, "price_nan")
            self._fail(~ok & ~missing, "price")
            values = np.where(missing, UNDEF_PRICE, values)
        return values

    def detail(self, row: int) -> str:
        """The values that a reader of the quarantine wants to see first."""
        name = self.reasons[self.reason[row]].replace("price_nan", "price")
        return f"{name} {self.batch.column(name)[row].as_py()!r}" if name in self.batch.schema.names else ""


def as_json(batch: pa.RecordBatch, rows: np.ndarray) -> list[bytes]:
    """The columns read of each of these rows as a JSON object; times of timestamp type as ISO text with all their digits.

    All rows at once: asked one by one, Arrow takes 0.5 ms for each.
    """
    columns = batch.take(pa.array(rows)).columns
    cells = [(column.cast(pa.string()) if pa.types.is_timestamp(column.type) else column).to_pylist() for column in columns]
    return [json.dumps(dict(zip(batch.schema.names, map(_plain, row), strict=True)), default=str).encode() for row in zip(*cells, strict=True)]


def _plain(value: Any) -> Any:
    return value.decode("latin-1") if isinstance(value, bytes) else "NaN" if value != value else value
