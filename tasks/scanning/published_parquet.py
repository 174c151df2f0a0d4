"""Published books as Parquet: which column is read how, which rows are bad and why. How values are converted is in arrow_values.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from tasks.errors import SchemaMismatch
from tasks.partitions import SourceFile
from tasks.scanning import arrow_values as convert
from tasks.scanning.batches import BadRow
from tasks.scanning.parquet_rows import SymbolNames, row_batches
from tasks.scanning.parquet_source import as_json, open_file, row_count
from tasks.scanning.published_batches import INSTRUMENT, NO_TIME, PublishedBatch, columns_of
from tasks.scanning.published_formats import Published
from tasks.schemas import UNDEF_PRICE

__all__ = ["PublishedParquet", "columns_and_first_row", "row_count"]

_DTYPES = {"publisher_id": "u2", "instrument_id": "u4", "sequence": "u4", "flags": "u1", "ct": "u4"}
_FIRST = ("rtype", "publisher_id", "action")
_GET_AGAIN = "Fetch or export the file again"


def _kind(name: str) -> str:
    """How a column is read (arrow_values.READS)."""
    if name in ("action", "symbol"):
        return "letter" if name == "action" else "text"
    return "time" if name.startswith("ts_") else "price" if "_px_" in name else "integer"


def columns_and_first_row(path: Path) -> tuple[list[str], dict[str, str]]:
    """Names of the columns, and of the first row what tells a schema and a publisher, as text; raises CorruptSource where there is no footer."""
    with open_file(path) as file:
        names = file.schema_arrow.names
        first: dict[str, str] = {}
        wanted = [name for name in _FIRST if name in names]
        for batch in file.iter_batches(batch_size=1, columns=wanted) if "bid_px_00" in names and wanted else ():
            first = {name: _text(batch.column(name)[0].as_py()) for name in wanted}
            break
    return names, first


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else "" if value is None else str(value)


class PublishedParquet:
    """Reader (published_batches.py) of one Parquet file; only the columns that the layer has are read.

    Rows without a symbol are called by their instrument_id (bad ones may be of any), files without a symbol column by the source's symbol.
    """

    def __init__(self, source: SourceFile, found: Published) -> None:
        self._path, self._found = Path(source.path), found
        with open_file(self._path) as file:
            schema = file.schema_arrow
        self._columns = [name for name in (*columns_of(found.depth), "symbol") if name in schema.names]
        wrong = []
        for name in self._columns:
            accepts, allowed = convert.READS[_kind(name)]
            for index in schema.get_all_field_indices(name):
                if not accepts(schema.field(index).type):
                    wrong.append(f"{name} is {schema.field(index).type} (allowed: {allowed})")
        if wrong:
            raise SchemaMismatch(self._path, "; ".join(wrong), remedy="Export the file again with these types")
        # Dictionary codes instead of a string per row.
        self._file = open_file(self._path, [name for name in ("action", "symbol") if name in schema.names and pt.is_string(schema.field(name).type)])
        self._total = self._file.metadata.num_rows
        self._names = SymbolNames([] if "symbol" in schema.names else [*source.symbols[:1]] or [self._path.name.split(".")[0]])
        self.symbols = self._names.symbols
        self.source_rows = 0

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def batches(self, batch_rows: int) -> Iterator[PublishedBatch]:
        """The rows in file order, at most `batch_rows` in a batch. Raises CorruptSource where a page cannot be read."""
        for batch in row_batches(self._file, self._path, self._columns, batch_rows, _GET_AGAIN):
            if batch.num_rows:
                yield self._convert(batch)

    def _convert(self, batch: pa.RecordBatch) -> PublishedBatch:
        base, n = self.source_rows, batch.num_rows
        self.source_rows += n
        names = columns_of(self._found.depth)
        values, wrong = np.zeros((len(names), n), np.int64), np.full(n, -1, np.int16)  # wrong: the first column that cannot be read
        for place, name in enumerate(names):
            if name in self._columns:
                values[place], ok = self._read(batch.column(name), name)
                wrong[~ok & (wrong < 0)] = place
        kept, lost = np.flatnonzero(wrong < 0), np.flatnonzero(wrong >= 0)
        codes = self._names.codes(batch, values[INSTRUMENT], lost)
        bad = [
            BadRow(before, base + row, -1, raw, *self._reason(batch, row, names[wrong[row]]), int(codes[row]))
            for row, before, raw in zip(lost.tolist(), np.searchsorted(kept, lost).tolist(), as_json(batch, lost), strict=True)
        ]
        if bad:
            values, codes = values[:, kept], codes[kept]
        return PublishedBatch(values, codes, base + kept, lambda row: (-1, as_json(batch, kept[row : row + 1])[0]), bad)

    def _read(self, array: pa.Array, name: str) -> convert.Values:
        """int64[n] values of a column, and which rows have one. A price that is null or NaN is that of an empty level."""
        kind = _kind(name)
        if kind == "letter":
            return convert.letters(array)
        if kind == "integer":
            return convert.integers(array, np.dtype(_DTYPES.get(name, _DTYPES.get(name[4:6], "i8"))))
        values, ok = convert.times(array) if kind == "time" else convert.prices(array)
        unset = convert.absent(array) if not ok.all() else ~ok
        if kind == "time" and array.type == pa.uint64():
            unset = unset | (array.fill_null(0).to_numpy(zero_copy_only=False) == np.uint64(2**64 - 1))
        return np.where(unset, NO_TIME if kind == "time" else UNDEF_PRICE, values), ok | unset

    def _reason(self, batch: pa.RecordBatch, row: int, name: str) -> tuple[str, str]:
        """Why a row cannot be read, in the words of the CSV reader, and what a reader of the quarantine wants to see first."""
        value, kind = batch.column(name)[row], _kind(name)
        if value.as_py() is None:
            return "null", f"{name} is null"
        reason = "action" if kind == "letter" else "time_range" if kind == "time" and not convert.is_text(value.type) else kind
        return reason, f"{name} is {str(value)[:80]!r}"
