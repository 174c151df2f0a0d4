"""The account of a depth source: its bad lines in the quarantine, and one row in the layer `sources` that says what became of all lines."""

from __future__ import annotations

from pathlib import Path

from tasks.depth_batches import BadLine
from tasks.depth_recipe import DepthSource
from tasks.partitions import Stamp
from tasks.scanning.batches import BadRow
from tasks.scanning.quarantine_file import QuarantineLog
from tasks.scanning.sources_file import sources_lock, write_sources

BBO = "depth-bbo"


class DepthJournal:
    """What tasks.reconstruction.depth_build.Journal asks for. layer: which file the lines that were kept are in, or went into."""

    def __init__(self, source: DepthSource, lake: Path, layer: str = BBO) -> None:
        self._source, self._lake, self._layer = source, lake, layer
        self._log = QuarantineLog(source.file, lake)

    def add(self, line: BadLine) -> None:
        """Note a line that could not be read."""
        assert isinstance(line, BadRow)
        self._log.add(line, -1, self._source.partition.symbol)

    def commit(self, stamp: Stamp, lines: int, kept: int, left_out: dict[str, int], span: tuple[int, int]) -> None:
        """Name the quarantine and write the account. span: first and last time of sending, -1 for none. Raises BookmillError when the lines do
        not add up."""
        file, partition = self._source.file, self._source.partition
        row = {
            "source": file.name, "fingerprint": file.fingerprint, "format": file.format, "dataset": partition.dataset, "date": partition.date,
            "symbol": partition.symbol, "publisher_id": 0, "instrument_id": 0, "path": partition.path(self._layer), "rows_in": lines,
            "rows_out": kept,
            "rows_filtered": sum(left_out.values()), "rows_quarantined": self._log.rows, "first_ts": span[0] if span[0] >= 0 else None,
            "last_ts": span[1] if span[1] >= 0 else None,
        }  # fmt: skip
        facts = {
            "format": file.format, "source_rows": lines, "expanded_rows": 0, "filtered": left_out,
            "quarantine": self._log.name if self._log.rows else "", "quarantine_rows": self._log.rows,
        }  # fmt: skip
        with sources_lock(self._lake, partition.dataset):
            self._log.commit(stamp)
            write_sources(self._lake, [row], stamp, facts)

    def close(self, *, undo: bool) -> None:
        """Drop what was not named."""
        self._log.close(undo=undo)
