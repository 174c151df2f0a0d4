"""Rows of a Parquet file in file order, with the error of a page that cannot be read, and their symbols. Other columns belong to the readers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import CorruptSource
from tasks.scanning import arrow_values as convert


def row_batches(file: pq.ParquetFile, path: Path, columns: list[str], batch_rows: int, remedy: str) -> Iterator[pa.RecordBatch]:
    """Yield record batches of at most `batch_rows` rows. Raises CorruptSource, naming the rows before, where a page cannot be read."""
    rows, seen = file.iter_batches(batch_size=batch_rows, columns=columns), 0
    while True:
        try:
            batch = next(rows, None)
        except (pa.ArrowException, OSError) as fault:
            if isinstance(fault, OSError) and fault.errno:
                raise
            problem = f"a page after row {seen:,} of {file.metadata.num_rows:,} cannot be read ({fault})"
            raise CorruptSource(path, problem, row=seen, remedy=remedy) from fault
        if batch is None:
            return
        seen += batch.num_rows
        yield batch


class SymbolNames:
    """Codes of symbols into `symbols`, which grows in order of first appearance behind those that are given."""

    def __init__(self, symbols: list[str]) -> None:
        self.symbols = symbols
        self._code_of = {symbol: code for code, symbol in enumerate(symbols)}

    def codes(self, batch: pa.RecordBatch, instrument_id: np.ndarray, bad: np.ndarray) -> np.ndarray:
        """int32[n] codes of the rows of a batch, 0 in one without symbols; Python runs once per distinct symbol.

        A row without a symbol is called by its instrument_id (int[n]), but of a bad row that says nothing: those of `bad` (int[b]) are -1.
        """
        if "symbol" not in batch.schema.names:
            return np.zeros(batch.num_rows, np.int32)
        coded = convert.as_dictionary(batch.column("symbol"))
        table = np.array([self._code(symbol) if symbol else -1 for symbol in coded.dictionary.to_pylist()] + [-1], np.int32)
        # Null stands behind the last name, a place that the type of the indices may not have.
        codes = table[coded.indices.cast(pa.int64()).fill_null(len(table) - 1).to_numpy(zero_copy_only=False)]
        unnamed = np.setdiff1d(np.flatnonzero(codes < 0), bad)
        if len(unnamed):
            ids, place = np.unique(instrument_id[unnamed], return_inverse=True)
            codes[unnamed] = np.array([self._code(str(number)) for number in ids.tolist()], np.int32)[place]
        return codes

    def _code(self, symbol: str) -> int:
        code = self._code_of.setdefault(symbol, len(self.symbols))
        if code == len(self.symbols):
            self.symbols.append(symbol)
        return code
