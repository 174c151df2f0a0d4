"""Quarantined rows back into the events of their partitions, in their place, where they are good now.

Where a row stood is known by its source alone (events do not carry their source row, and of a row that could not be read not even the partition is
known). So the source is decoded again, with the mended rows in the place of those that stand there, into a folder beside; what differs from the lake
then takes the place of what is there. Its inputs are a digest of the source and the mends, by which all that is made from it is made again.

A mend is an input like the source: it is kept in the layer `mends` (what stood there, what it is to be), before anything is changed, and applied
again at each later replay. The SOURCES file is written last: killed at any moment before, the source counts as not decoded; a run then decodes it
as it stands, with the rows in quarantine again, and a replay ends as if it had not been killed.
"""

from __future__ import annotations

import bisect
import fcntl
import filecmp
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.disk import storage_error
from tasks.errors import UsageError
from tasks.events_file import events_sink, read_events, to_table
from tasks.filtering.predicate import FILTER_REASONS, RowFilter
from tasks.footers import read_facts
from tasks.locks import PARTITION, SOURCE, Claims, source_claim
from tasks.partitions import MboRecipe, Partition, SourceFile, Stamp, digest
from tasks.scanning.batches import RawBatch, Reader
from tasks.scanning.decode import decode, decode_stamp, events_stamp
from tasks.scanning.earlier_account import whole_filter
from tasks.scanning.readers import open_reader
from tasks.scanning.replay_patch import Mend, check_mends, patched_copy
from tasks.scanning.sources_file import (
    covered,
    mends_path,
    partition_of,
    quarantine_path,
    read_sources,
    sources_lock,
    sources_path,
    wanted_of,
    write_sources,
)
from tasks.schemas import EVENT_DTYPES, QUARANTINE
from tasks.storage import atomic_path, write_table

MENDS = pa.schema(
    [("source_row", pa.int64()), ("byte_offset", pa.int64()), ("reason", pa.string()), ("raw", pa.binary()), ("mended", pa.binary())]
)  # fmt: skip
_DAY_NS = 86_400_000_000_000


@dataclass(frozen=True)
class Replayed:
    """replayed: mended rows that are events now; filtered: why others are none (as FILTER_REASONS) -> how many; quarantined: rows that are in
    quarantine still; judged_again: rows that a gate had set aside and that the next run's gate judges again; changed: events files that were written,
    relative to the lake."""

    source: SourceFile
    replayed: int
    filtered: dict[str, int]
    quarantined: int
    judged_again: int
    changed: tuple[str, ...]


def read_mends(lake: Path, source: SourceFile) -> list[Mend]:
    """The mends that were given for a source so far, by row."""
    path = lake / mends_path(source.dataset, source.short)
    return [Mend(**row) for row in pq.read_table(path, partitioning=None).to_pylist()] if path.exists() else []


def quarantined_rows(lake: Path, source: SourceFile) -> list[dict[str, Any]]:
    """Rows that the decode of a source set aside, in its order, as dicts of schema QUARANTINE."""
    path = lake / quarantine_path(source.dataset, source.short)
    rows = pq.read_table(path, partitioning=None).cast(QUARANTINE).to_pylist() if path.exists() else []
    return [row for row in rows if row["stage"] == "decode"]


def replay(
    source: SourceFile, lake: Path, recipe: MboRecipe, mends: Sequence[Mend] = (), *, batch_rows: int = 65_536, memory_bytes: int = 512 * 2**20,
    tell: Callable[[str], None] = lambda text: None,
) -> Replayed:  # fmt: skip
    """Decode a source again with mended rows in their places, those of earlier replays too; of two for one row the later counts.

    Rows that are bad still stay in quarantine. The source, and the partitions that change, are claimed: it waits for runs that work on them, and
    tells so. Raises UsageError when the lake has no decode of the source under the recipe or a row cannot be
    mended, SourceError and its kinds, StorageError; nothing of the events is changed then.
    """
    account = lake / sources_path(source.dataset, source.short)
    if not account.exists():  # before a claim makes a lake of a folder that is none
        raise UsageError(f"{source.name} was not decoded into {lake}: start `bookmill run mbo` with it first")
    with Claims(lake, tell) as claims:
        name = source_claim(source.dataset, source.fingerprint)
        claims.claim(SOURCE, [name], {name: source.name})
        return _replay(source, lake, recipe, mends, batch_rows, memory_bytes, claims)


def _replay(source: SourceFile, lake: Path, recipe: MboRecipe, mends: Sequence[Mend], batch_rows: int, memory_bytes: int, claims: Claims) -> Replayed:
    """With the source claimed."""
    account = lake / sources_path(source.dataset, source.short)
    if not account.exists():
        raise UsageError(f"{source.name} was not decoded into {lake}: start `bookmill run mbo` with it first")
    before, stamp, old = read_sources(account)
    if stamp != decode_stamp(source, recipe) or not covered(old, wanted_of(recipe.filter)):
        raise UsageError(
            f"{source.name} was decoded into {lake} with other options, or by another version: give the --symbol, --symbols, --publishers and --end "
            "of its run, or run it again first"
        )
    # All that the account is for is decoded again, also what other runs wanted.
    recipe = replace(recipe, filter=whole_filter(before, old, recipe.filter))
    chosen = {mend.source_row: mend for mend in (*read_mends(lake, source), *mends)}
    together = [chosen[row] for row in sorted(chosen)]
    check_mends(source, together)
    with _scratch(lake) as folder:
        where = patched_copy(source, together, folder) if together else source
        if together:
            _keep_mends(lake, source, together)
        watched = _Watched(open_reader(where), set(chosen), RowFilter(recipe.filter, decoding=True))
        decode(
            source, folder / "lake", recipe, batch_rows=batch_rows, memory_bytes=memory_bytes, salvage="truncated" in old,
            reader=watched,
        )  # fmt: skip
        bad = {row["source_row"] for row in quarantined_rows(folder / "lake", source)}
        _tell_places(folder / "lake", source, together, stamp)
        replayed = Counter(partition for row, partition in watched.partitions.items() if row not in bad)
        filtered = Counter(reason for row, reason in watched.filtered.items() if row not in watched.partitions)
        made = source.fingerprint if not together else digest([source.fingerprint, [[m.source_row, m.mended.hex()] for m in together]])
        after, _, _ = read_sources(folder / "lake" / sources_path(source.dataset, source.short))
        claims.claim(PARTITION, sorted({str(partition_of(row)) for row in (*before, *after) if row["path"]}))
        with sources_lock(lake, source.dataset):
            return _install(lake, folder / "lake", source, Stamp(made, events_stamp(source, recipe).recipe), replayed, filtered, before)


def _tell_places(scratch: Path, source: SourceFile, mends: Sequence[Mend], stamp: Stamp) -> None:
    """Lead the places of quarantined rows from the copy, in which mended rows may be longer or shorter, back to the source."""
    path = scratch / quarantine_path(source.dataset, source.short)
    ends, shifts = [0], [0]  # of mended rows in the copy, and by how much what follows has moved
    for mend in sorted(mends, key=lambda mend: mend.byte_offset):
        ends.append(mend.byte_offset + shifts[-1] + len(mend.mended))
        shifts.append(shifts[-1] + len(mend.mended) - len(mend.raw))
    if not path.exists() or not any(shifts):
        return
    rows = pq.read_table(path, partitioning=None).cast(QUARANTINE).to_pylist()
    for row in rows:
        if row["byte_offset"] >= 0:
            row["byte_offset"] -= shifts[bisect.bisect_right(ends, row["byte_offset"]) - 1]
    write_table(path, pa.Table.from_pylist(rows, QUARANTINE), stamp)


def _install(
    lake: Path, scratch: Path, source: SourceFile, stamp: Stamp, replayed: Counter[tuple[Any, ...]], filtered: Counter[str],
    before: list[dict[str, Any]],
) -> Replayed:  # fmt: skip
    rows, account, facts = read_sources(scratch / sources_path(source.dataset, source.short))
    changed, total = [], 0
    for row in rows:
        key = (row["symbol"], row["date"], row["publisher_id"], row["instrument_id"])
        mended = replayed[key] if row["path"] else 0
        total += mended
        if row["path"] and not mended and _same(scratch / row["path"], lake / row["path"]):
            continue
        if row["path"]:
            _put(scratch, lake, partition_of(row), source.short, stamp, mended)
            changed.append(row["path"])
            if stamp.inputs != source.fingerprint:
                facts["rewritten"][row["path"]] = stamp.inputs
    gated = sum(row["stage"] != "decode" for row in _all_quarantined(lake, source))
    if changed or facts["quarantine_rows"] != len(_all_quarantined(lake, source)) or _totals(rows) != _totals(before):
        facts["replayed"] = total
        _replace(scratch, lake, quarantine_path(source.dataset, source.short))
        write_sources(lake, rows, account, facts)
        listed = {row["path"] for row in rows}
        for row in before:  # a partition that a mend had made, and that another mend took away again
            if row["path"] and row["path"] not in listed:
                (lake / row["path"]).unlink(missing_ok=True)
    return Replayed(source, total, dict(sorted(filtered.items())), facts["quarantine_rows"], gated, tuple(changed))


def _put(scratch: Path, lake: Path, partition: Partition, short: str, stamp: Stamp, mended: int) -> None:
    """The events file of a partition, and the truth beside it, with the stamp of the mends."""
    name, truth = partition.path("events", short), partition.path("truth", short)
    if read_facts(scratch / name) and stamp.inputs == read_facts(scratch / name)["fingerprint"]:
        _replace(scratch, lake, truth)
        _replace(scratch, lake, name)
        return
    with events_sink(lake / name) as sink:
        for columns in read_events(scratch / name):
            sink.write(to_table(columns, partition.symbol))
        sink.commit(stamp, read_facts(scratch / name) | {"replayed": mended})


def _replace(scratch: Path, lake: Path, name: str) -> None:
    """Put the file of the scratch folder in the place of that of the lake, or remove that where there is none."""
    if not (scratch / name).exists():
        (lake / name).unlink(missing_ok=True)
        return
    with atomic_path(lake / name) as target:
        shutil.copyfile(scratch / name, target)


def _same(one: Path, other: Path) -> bool:
    return other.exists() and filecmp.cmp(one, other, shallow=False)


def _totals(rows: list[dict[str, Any]]) -> tuple[int, ...]:
    return tuple(sum(row[name] for row in rows) for name in ("rows_in", "rows_out", "rows_filtered", "rows_quarantined"))


def _all_quarantined(lake: Path, source: SourceFile) -> list[dict[str, Any]]:
    path = lake / quarantine_path(source.dataset, source.short)
    return pq.read_table(path, partitioning=None, columns=["stage"]).to_pylist() if path.exists() else []


def _keep_mends(lake: Path, source: SourceFile, mends: Sequence[Mend]) -> None:
    table = pa.Table.from_pylist([vars(mend) for mend in mends], MENDS)
    write_table(lake / mends_path(source.dataset, source.short), table, Stamp(source.fingerprint, digest("mends")), {"source": source.name})


class _Watched:
    """A reader that notes to which partition the events of mended rows belong, and of which the filter makes no event."""

    def __init__(self, reader: Reader, rows: set[int], wanted: RowFilter) -> None:
        self._reader, self._rows, self._wanted = reader, np.array(sorted(rows), np.int64), wanted
        self.partitions: dict[int, tuple[Any, ...]] = {}
        self.filtered: dict[int, str] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def batches(self, batch_rows: int) -> Iterator[RawBatch]:
        """Those of the reader, unchanged."""
        for batch in self._reader.batches(batch_rows):
            for i, reason in self._found(batch):
                if reason:
                    self.filtered[int(batch.source_row[i])] = reason
                    continue
                ts = int(batch.columns["ts_recv"][i])
                symbol, day = self._reader.symbols[batch.symbol_code[i]], str(np.datetime64(ts // _DAY_NS, "D"))
                ids = (int(batch.columns["publisher_id"][i]), int(batch.columns["instrument_id"][i]))
                self.partitions[int(batch.source_row[i])] = (symbol, day, *ids)
            yield batch

    def _found(self, batch: RawBatch) -> list[tuple[int, str]]:
        """Mended rows of the batch, and why the filter drops them, "" where it does not."""
        rows = np.flatnonzero(np.isin(batch.source_row, self._rows))
        if not len(rows):
            return []
        publisher, ts = (np.array(batch.columns[name][rows], EVENT_DTYPES[name]) for name in ("publisher_id", "ts_recv"))
        reasons = self._wanted.reasons(self._reader.symbols, batch.symbol_code[rows], publisher, ts)
        return [(i, FILTER_REASONS[reason]) for i, reason in zip(rows.tolist(), reasons.tolist(), strict=True)]


@contextmanager
def _scratch(lake: Path) -> Iterator[Path]:
    """A folder in the lake for this replay alone; those that dead replays left are removed. A lock on the folder tells who lives."""
    home = lake / ".replay"
    try:
        home.mkdir(parents=True, exist_ok=True)
        with _locked(home, wait=True):  # nobody takes a new folder for a dead one's
            for other in home.iterdir():
                with _locked(other, wait=False) as dead:
                    if dead:
                        shutil.rmtree(other, ignore_errors=True)
            folder = Path(tempfile.mkdtemp(dir=home))
            handle = os.open(folder, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as fault:
        raise storage_error(home, fault) from fault
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


@contextmanager
def _locked(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Whether the folder is locked by us while the block runs; the kernel frees the lock of a holder that dies."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)
