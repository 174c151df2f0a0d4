"""How a gate takes rows out of an events file: into the quarantine of their source, with all counts following."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import StorageError
from tasks.events_file import events_sink, read_events, to_table, truth_sink
from tasks.footers import read_facts, read_footer
from tasks.partitions import Partition, Stamp, digest
from tasks.scanning.quarantine_file import append_rows
from tasks.scanning.sources_file import quarantine_path, read_sources, sources_lock, sources_path, write_sources
from tasks.schemas import F_LAST, MBO_RECORD, UNDEF_PRICE

MARK_CAP = 10_000  # suspect rows listed in a footer, as in decode


def quarantine_rows(lake: Path, events_path: Path | str, row_indexes: np.ndarray, reasons: Sequence[str], stage: str) -> int:
    """Take rows out of an events file and put them into the quarantine of its source; returns how many.

    events_path: absolute or relative to the lake; row_indexes int64[k]: rows of the file as it stands, any order, of a row named twice the
    first reason counts; reasons: one per index; stage: the gate's name. In the quarantine, raw is the row as a DBN mbo record (56 bytes) and
    event_row its row in the file before this call. Facts of the footer and the SOURCES file follow; the file's `bookmill.inputs` becomes a
    digest of the old one and the rows, so that what was made from it is made again. The SOURCES file is written last: after a crash before
    that, `is_decoded` says None, and a new decode starts from the source.
    """
    name = Path(events_path)
    name = name.relative_to(lake) if name.is_absolute() else name
    rows, first = np.unique(np.asarray(row_indexes, np.int64), return_index=True)
    if len(rows) == 0:
        return 0
    partition, short = Partition.of_path(name), name.stem.rsplit("-", 1)[-1]
    with sources_lock(lake, partition.dataset):
        source_rows, source_stamp, source_facts = read_sources(lake / sources_path(partition.dataset, short))
        mine = next((row for row in source_rows if row["path"] == name.as_posix()), None)
        footer = read_footer(lake / name)
        if mine is None or footer is None:
            raise StorageError(f"{lake / name} is not an events file that its source lists. Decode the source again.")
        if rows[0] < 0 or rows[-1] >= mine["rows_out"]:
            raise IndexError(f"rows {rows[0]} to {rows[-1]} of {name}, which has {mine['rows_out']} rows")
        stamp = Stamp(digest([footer["bookmill.inputs"], rows.tolist()]), footer["bookmill.recipe"], footer["bookmill.code"])
        removed, facts = _rewrite(lake, partition, short, rows, stamp)
        labels = [reasons[i] for i in first]
        aside = [
            {"stage": stage, "reason": label, "detail": "", "source": mine["source"], "fingerprint": mine["fingerprint"], "byte_offset": -1,
             "source_row": -1, "event_row": row, "symbol": partition.symbol, "raw": record.tobytes()}
            for label, row, record in zip(labels, rows.tolist(), removed, strict=True)
        ]  # fmt: skip
        source_facts["quarantine"] = quarantine_path(partition.dataset, short)
        source_facts["quarantine_rows"] = append_rows(lake / source_facts["quarantine"], aside, source_stamp)
        source_facts["rewritten"][name.as_posix()] = stamp.inputs
        mine["rows_out"] -= len(rows)
        mine["rows_quarantined"] += len(rows)
        mine["first_ts"], mine["last_ts"] = facts["first_ts_recv"], facts["last_ts_recv"]
        if mine["rows_out"] == 0:
            mine["path"] = ""
        write_sources(lake, source_rows, source_stamp, source_facts)
        if mine["rows_out"] == 0:
            for layer in ("events", "truth"):
                (lake / partition.path(layer, short)).unlink(missing_ok=True)
    return len(rows)


def _rewrite(lake: Path, partition: Partition, short: str, rows: np.ndarray, stamp: Stamp) -> tuple[np.ndarray, dict[str, Any]]:
    """Write the events file, and the truth beside it, without `rows`; returns the rows as MBO_RECORDs and the new facts."""
    path, truth = lake / partition.path("events", short), lake / partition.path("truth", short)
    facts, tally = read_facts(path), _Tally()
    removed, ends, at, passed = np.zeros(len(rows), MBO_RECORD), [], 0, 0
    with events_sink(path) as sink:
        for columns in read_events(path):
            n = len(columns["ts_recv"])
            low, high = np.searchsorted(rows, [at, at + n])
            keep = np.ones(n, bool)
            keep[rows[low:high] - at] = False
            for column, values in columns.items():
                removed[column][low:high] = values[~keep]
            last = (columns["flags"] & F_LAST) != 0
            ends.append(passed + np.flatnonzero(~keep[last]))
            kept = {column: values[keep] for column, values in columns.items()}
            tally.add(kept)
            sink.write(to_table(kept, partition.symbol))
            at, passed = at + n, passed + int(last.sum())
        if truth.exists():
            _rewrite_truth(truth, np.concatenate(ends), stamp)
        facts |= tally.facts() | {"rows_out": at - len(rows), "quarantined": facts["quarantined"] + len(rows)}
        # Marks move up by the rows taken out before them, and each of those leaves one where it stood.
        old = np.array(facts["suspect_rows"], np.int64)
        moved = old - np.searchsorted(rows, old)
        marks = np.union1d(moved, rows - np.arange(len(rows)))
        if facts.get("suspect_rows_capped"):  # behind the last of the old ones not all were listed
            marks = marks[marks <= moved[-1]]
        facts["suspect_rows"] = marks[:MARK_CAP].tolist()
        if len(marks) > MARK_CAP:
            facts["suspect_rows_capped"] = True
        sink.commit(stamp, facts)
    removed["length"], removed["rtype"] = MBO_RECORD.itemsize // 4, 160
    return removed, facts


def _rewrite_truth(path: Path, rows: np.ndarray, stamp: Stamp) -> None:
    at = 0
    with pq.ParquetFile(path) as file, truth_sink(path, (len(file.schema_arrow) - 1) // 4) as sink:
        for batch in file.iter_batches():
            keep = np.ones(len(batch), bool)
            low, high = np.searchsorted(rows, [at, at + len(batch)])
            keep[rows[low:high] - at] = False
            sink.write(batch.filter(pa.array(keep)))
            at += len(batch)
        sink.commit(stamp)


class _Tally:
    """What the footer says about the kept rows, gathered batch by batch."""

    def __init__(self) -> None:
        self._ends: dict[str, int | None] = {f"{end}_{name}": None for name in ("ts_recv", "ts_event") for end in ("first", "last")}
        self._low: int | None = None
        self._high: int | None = None
        self._disorder = 0

    def add(self, columns: Mapping[str, np.ndarray]) -> None:
        ts = columns["ts_recv"]
        if len(ts) == 0:
            return
        before = self._ends["last_ts_recv"]
        self._disorder += int(np.count_nonzero(ts[1:] < ts[:-1])) + (before is not None and int(ts[0]) < before)
        for name in ("ts_recv", "ts_event"):
            if self._ends[f"first_{name}"] is None:
                self._ends[f"first_{name}"] = int(columns[name][0])
            self._ends[f"last_{name}"] = int(columns[name][-1])
        priced = columns["price"][columns["price"] != UNDEF_PRICE]
        if len(priced):
            low, high = int(priced.min()), int(priced.max())
            self._low = low if self._low is None else min(self._low, low)
            self._high = high if self._high is None else max(self._high, high)

    def facts(self) -> dict[str, Any]:
        return {**self._ends, "out_of_order": self._disorder, "min_price": self._low, "max_price": self._high}
