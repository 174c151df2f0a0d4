"""DBN records as they lie: columns that are views of the decompressed bytes, wherever records are plain. For readers of a few columns in one pass.

Splitting records into columns costs a third of what replaying them does; who reads each column once has no use for it.
"""

from __future__ import annotations

import numpy as np

from tasks.scanning.batches import RawBatch
from tasks.scanning.dbn import DbnReader
from tasks.scanning.dbn_kernels import MBO_RTYPE
from tasks.scanning.quick_dbn_kernels import is_plain
from tasks.schemas import EVENT_DTYPES, MBO_RECORD


class DbnViews(DbnReader):
    """As DbnReader, but a batch of one instrument on one day holds strided views, read-only in effect; times that cannot be told go the long way."""

    def span(self) -> tuple[int, int] | None:
        """ts_recv of the first and the last record, where both can be read without the ones between: a whole file that is not compressed."""
        size, width = self._stream.path.stat().st_size, self.header.record_bytes
        if self._stream.compression or not self.header.schema or size < self.header.length + width or (size - self.header.length) % width:
            return None
        with open(self._stream.path, "rb") as file:
            times = []
            for at in (self.header.length, size - width):
                file.seek(at)
                record = np.frombuffer(file.read(MBO_RECORD.itemsize), MBO_RECORD)[0]
                times.append(int(record["ts_recv"]))
                if record["rtype"] != MBO_RTYPE:
                    return None
        return (times[0], times[1]) if times[0] <= times[1] < 2**63 else None

    def _batch(self, data: np.ndarray, starts: np.ndarray, is_mbo: np.ndarray | None, base: int) -> RawBatch:
        width = MBO_RECORD.itemsize
        if is_mbo is None and self.header.record_bytes == width:
            records = data[starts[0] : starts[-1] + width].view(MBO_RECORD)
            if is_plain(records):
                first = records[0]
                code = self._codes.code_of(int(first["instrument_id"]), int(first["ts_recv"]))
                columns = {name: records[name].view(dtype) for name, dtype in EVENT_DTYPES.items()}
                source_row = np.arange(self.source_rows, self.source_rows + len(records))
                self.source_rows += len(records)
                return RawBatch(columns, np.broadcast_to(np.int32(code), len(records)), source_row, lambda row: (-1, records[row].tobytes()))
        return super()._batch(data, starts, is_mbo, base)
