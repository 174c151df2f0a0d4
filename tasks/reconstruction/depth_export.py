"""CSV files of a depth partition outside of the lake: written in the same pass, and a record of them in the lake, so that they are known again.

A name proves nothing: a file counts as exported when its bytes are those that were written from this source and recipe.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from tasks.errors import UsageError
from tasks.footers import is_done
from tasks.partitions import Partition, Stamp, digest
from tasks.reconstruction.depth_csv import CsvWriter, csv_path
from tasks.reconstruction.depth_sampling import DepthSamples
from tasks.storage import AtomicFile, write_table

LAYER = "exports"
EXPORTS = pa.schema([("path", pa.string()), ("bytes", pa.int64()), ("fingerprint", pa.string())])


@dataclass(frozen=True)
class CsvTarget:
    """folder: where the files go, absolute; formatted: each line begins with its time as text."""

    folder: str
    formatted: bool = False


def is_exported(lake: Path, partition: Partition, depths: tuple[int, ...], interval_ns: int, target: CsvTarget, stamp: Stamp) -> bool:
    """Whether every file is there with the bytes that were written."""
    record = lake / _record(partition, target)
    if not is_done(record, stamp):
        return False
    known = {row["path"]: row for row in pq.ParquetFile(record).read().to_pylist()}
    for depth in depths:
        path = csv_path(Path(target.folder), depth, partition.symbol, partition.date, interval_ns)
        row = known.get(str(path))
        if row is None or not _holds(path, row):
            return False
    return True


def _owner(lake: Path, partition: Partition, path: Path) -> str | None:
    """The dataset whose export of the same pair and day the file at `path` is, None where it is of no other one."""
    below = partition.path(LAYER, "*").split("/", 2)[2]
    for record in sorted(lake.glob(f"{LAYER}/dataset=*/{below}")):
        owner = Partition.of_path(record.relative_to(lake)).dataset
        if owner != partition.dataset:
            for row in pq.ParquetFile(record).read().to_pylist():
                if row["path"] == str(path) and _holds(path, row):
                    return owner
    return None


class CsvExport:
    """The CSV files of one partition while they are written; leaving without `commit` drops them. Raises UsageError instead of replacing a file that
    the lake knows as the export of another dataset: two markets have the same pairs."""

    def __init__(
        self, lake: Path, partition: Partition, depths: tuple[int, ...], interval_ns: int, target: CsvTarget, scales: tuple[int, int]
    ) -> None:
        self._record, self._scales = lake / _record(partition, target), scales
        self._stack = ExitStack()
        self._files: list[tuple[AtomicFile, _Hashing]] = []
        self._writers: list[CsvWriter] = []
        try:
            for depth in depths:
                path = csv_path(Path(target.folder), depth, partition.symbol, partition.date, interval_ns)
                if owner := _owner(lake, partition, path):
                    raise UsageError(
                        f"{path} holds the snapshots of {owner}, those of {partition.dataset} would replace them. Give each dataset a CSV folder of "
                        "its own, or run both at once: each then has a folder of its name."
                    )
                file = self._stack.enter_context(AtomicFile(path))
                hashing = _Hashing(file)
                self._files.append((file, hashing))
                self._writers.append(CsvWriter(cast(BinaryIO, hashing), depth, formatted=target.formatted))
        except BaseException:
            self._stack.close()
            raise

    def write(self, samples: DepthSamples) -> None:
        """Append the grid rows of `samples`."""
        grid, n = samples.grid, samples.n_grid
        for writer in self._writers:
            writer.write(grid.time[:n], grid.px, grid.sz, grid.price_digits, grid.size_digits, self._scales)

    def commit(self, stamp: Stamp) -> None:
        """Name the files, and record them."""
        rows: list[dict[str, Any]] = []
        for file, hashing in self._files:
            file.commit()
            rows.append({"path": str(file.path), "bytes": hashing.size, "fingerprint": hashing.fingerprint})
        write_table(self._record, pa.Table.from_pylist(rows, EXPORTS), stamp)

    def __enter__(self) -> CsvExport:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class _Hashing:
    """A file that knows the fingerprint of what was written to it."""

    def __init__(self, file: AtomicFile) -> None:
        self._file, self._digest, self.size = file, xxhash.xxh3_128(), 0

    def write(self, data: bytes | memoryview) -> int:
        self._digest.update(data)
        self.size += len(data)
        return self._file.write(data)

    @property
    def fingerprint(self) -> str:
        return self._digest.hexdigest()


def _holds(path: Path, row: dict[str, Any]) -> bool:
    """Whether the file is there with the bytes of its record."""
    return path.is_file() and path.stat().st_size == row["bytes"] and _fingerprint(path) == row["fingerprint"]


def _fingerprint(path: Path) -> str:
    known = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            known.update(block)
    return known.hexdigest()


def _record(partition: Partition, target: CsvTarget) -> str:
    return partition.path(LAYER, digest([target.folder, target.formatted])[:10])
