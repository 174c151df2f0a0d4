"""Consolidated best bid and offer of one symbol and UTC day over all its publishers, from their touch layers (bbo). Loop: consolidated_kernels.py.

Rules
- The time of a touch row is its as_of, the running clock of the replay that made it: the ts_event of a snapshot's records can be days older
  than the moment at which they were known. Rows are taken in the order of that time, ties by publisher id, and those of one publisher as they
  stand in its file. So rows of equal time of several publishers give one row each: the state between them is the state after the first of them.
- A row carries that time in the column of the chosen clock (the fact `late` counts the rows whose own time lay before it), which therefore never
  steps back, and the other time as it stands in the touch row that made the change.
- A touch holds until the next row of its publisher: bbo has rows where touch or status changed, and at a window's start.
- A publisher counts from its first row on while its status is neither no_book nor halted, with each side that is set. Best bid is the highest, best
  ask the lowest of them; sizes and orders are summed over the publishers at that price.
- status is the worst of all publishers seen so far on that day, valid < stale < halted < suspect < no_book, with the reason and status_since of the
  publisher that has it, the lowest id where several do. A publisher not seen yet is no fault.
- There is a row at the first touch row, and at every change of any column but ts_event and ts_recv.
- Publishers lock and cross each other: such rows are counted and stay as they are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.aggregation.consolidated_kernels import (
    ALL_DONE,
    OUT_FULL,
    T_COUNTED,
    T_CROSSED,
    T_IN,
    T_LATE,
    T_LOCKED,
    T_OUT,
    T_ROWS,
    TALLY_SIZE,
    TOO_LARGE,
    Batches,
    Books,
    Out,
    Places,
    merge,
)
from tasks.aggregation.layer_reading import INT64_MIN, coded_column, codes, integers, record_batches
from tasks.errors import BookmillError, LakeConflict, SchemaMismatch, UsageError
from tasks.footers import is_done, read_facts, read_footer
from tasks.partitions import CLOCKS, Partition, Stamp, digest
from tasks.schemas import CBBO, REASONS, STATUSES
from tasks.storage import ParquetSink

LAYER = "cbbo"
DATASET = "consolidated"
OUT_ROWS = 8_192

_KINDS = ("px", "sz", "ct")
_COLUMNS = ["as_of", "ts_event", "ts_recv", *(f"{s}_{kind}_00" for kind in _KINDS for s in ("bid", "ask")), "status", "reason", "status_since"]
# Repeated all day long: a dictionary makes of each list an index of a few bits.
_DICTIONARY = ["symbol", "status", "reason", "bid_venues.list.element", "ask_venues.list.element"]


@dataclass(frozen=True)
class Consolidated:
    """path: relative to the lake; facts: the counts in its footer; skipped: it was there already."""

    partition: Partition
    path: str
    facts: dict[str, Any]
    skipped: bool


@dataclass(frozen=True)
class SymbolDay:
    """One cbbo to make. publishers: the partitions of one symbol and day."""

    publishers: tuple[Partition, ...]

    @property
    def partition(self) -> Partition:
        """What it is filed under."""
        return Partition(DATASET, self.publishers[0].date, self.publishers[0].symbol, 0, 0)


def consolidated_partition(partitions: Sequence[Partition]) -> Partition:
    """The partition that the cbbo of these is filed under.

    Raises UsageError unless all are of one symbol and day, and LakeConflict where a publisher has two books: which of them is its touch?
    """
    days = sorted({(p.symbol, p.date) for p in partitions})
    if len(days) != 1:
        raise UsageError(f"A consolidated best bid and offer is made of one symbol and day; given: {', '.join(map(' '.join, days)) or 'none'}")
    by_id: dict[int, Partition] = {}
    for partition in sorted(set(partitions)):
        other = by_id.setdefault(partition.publisher_id, partition)
        if other is not partition:
            raise LakeConflict(
                f"{other} and {partition} are two books of publisher {partition.publisher_id}; a consolidated best bid and offer takes one book of "
                "each publisher. Name one of them, or give the sources publisher ids or symbols of their own."
            )
    return SymbolDay(tuple(partitions)).partition


def symbol_days(partitions: Iterable[Partition]) -> list[SymbolDay]:
    """The symbols and days that have two publishers or more, in this order."""
    groups: dict[tuple[str, str], list[Partition]] = defaultdict(list)
    for partition in sorted(set(partitions)):
        groups[partition.symbol, partition.date].append(partition)
    return [SymbolDay(tuple(group)) for _, group in sorted(groups.items()) if len({p.publisher_id for p in group}) > 1]


def consolidated_stamp(lake: Path, partitions: Sequence[Partition], clock: str) -> Stamp:
    """What a cbbo is made from: the publishers, their book layers' stamps, and the clock. Raises BookmillError when one is missing."""
    inputs = []
    for partition in sorted(set(partitions)):
        footer = read_footer(lake / partition.path("bbo"))
        if footer is None:
            raise BookmillError(f"{lake / partition.path('bbo')} is missing or not readable. Start the run again: it is made anew.")
        inputs.append([str(partition), footer["bookmill.inputs"], footer["bookmill.recipe"], footer["bookmill.code"]])
    return Stamp(digest(inputs), digest([LAYER, clock]))


def is_consolidated(lake: Path, partitions: Sequence[Partition], *, clock: str) -> bool:
    """Whether the cbbo is there and made from the present books of these partitions and no others."""
    try:
        return is_done(lake / consolidated_partition(partitions).path(LAYER), consolidated_stamp(lake, partitions, clock))
    except BookmillError:
        return False


def consolidate(lake: Path, partitions: Sequence[Partition], *, clock: str, batch_rows: int = 65_536) -> Consolidated:
    """Write the consolidated best bid and offer (schema CBBO) of one symbol and day; what is there with the right stamp is left alone.

    partitions: one per publisher, of any datasets; clock: ts_event or ts_recv, the one that the books were made on. Memory: batch_rows rows, shared
    among the publishers. The bytes do not depend on `batch_rows`.
    Facts: rows_in (touch rows) = rows_out + unchanged; crossed and locked (rows out), late (rows in), publishers (ids, ascending).
    Raises UsageError, LakeConflict, SchemaMismatch, StorageError; BookmillError where a bbo is missing or a sum of sizes does not fit.
    """
    if clock not in CLOCKS:
        raise UsageError(f"clock is {clock!r}; allowed: {', '.join(CLOCKS)}")
    partition = consolidated_partition(partitions)
    path, stamp = partition.path(LAYER), consolidated_stamp(lake, partitions, clock)
    if is_done(lake / path, stamp):
        return Consolidated(partition, path, read_facts(lake / path), True)
    publishers = sorted(set(partitions), key=lambda p: p.publisher_id)
    merging = _Merge([lake / p.path("bbo") for p in publishers], [p.publisher_id for p in publishers], clock, batch_rows)
    with ParquetSink(lake / path, CBBO, dictionary=_DICTIONARY) as sink:
        while merging.goes_on():
            sink.write(merging.rows(partition.symbol))
        facts = merging.facts()
        sink.commit(stamp, facts)
    return Consolidated(partition, path, facts, False)


class _Merge:
    """The touch layers of k publishers, in the order of their ids, on their way through the kernel."""

    def __init__(self, paths: Sequence[Path], ids: Sequence[int], clock: str, batch_rows: int) -> None:
        k, room = len(ids), max(1, batch_rows // len(ids))
        self._paths, self._clock, self._ids = paths, clock, np.array(ids, np.uint16)
        self._readers = [record_batches(path, _COLUMNS, room) for path in paths]
        self._read = [0] * k
        self._places = Places(at=_numbers(k), filled=_numbers(k), ended=np.zeros(k, np.bool_))
        self._batches = Batches(
            clock=_numbers(k, room), ts_event=_numbers(k, room), ts_recv=_numbers(k, room), since=_numbers(k, room),
            px=_numbers(2, k, room), sz=_numbers(2, k, room), ct=_numbers(2, k, room),
            status=np.zeros((k, room), np.int8), reason=np.zeros((k, room), np.int8),
        )  # fmt: skip
        self._books = Books(
            clock=np.full(k, INT64_MIN), since=_numbers(k), status=_numbers(k), reason=_numbers(k), seen=np.zeros(k, np.bool_),
            px=_numbers(2, k), sz=_numbers(2, k), ct=_numbers(2, k), best=np.zeros((2, k), np.bool_),
        )  # fmt: skip
        n = OUT_ROWS
        self._out = Out(
            ts_event=_numbers(n), ts_recv=_numbers(n), since=_numbers(n), px=_numbers(2, n), sz=_numbers(2, n), ct=_numbers(2, n),
            status=np.zeros(n, np.int8), reason=np.zeros(n, np.int8), counted=np.zeros(n, np.uint16),
            venues=np.zeros((2, n * k), np.uint16), ends=np.zeros((2, n + 1), np.int32),
        )  # fmt: skip
        self._tally = _numbers(TALLY_SIZE)
        self._tally[T_COUNTED] = -1
        self._ended = False

    def goes_on(self) -> bool:
        """Merge until the buffer of rows is full or all is read; False when nothing is left to write."""
        while not self._ended:
            code = merge(self._batches, self._places, self._books, self._ids, self._out, self._tally, self._clock == "ts_event")
            if code == TOO_LARGE:
                raise BookmillError(
                    f"The sizes or order counts at one price do not fit into int64 and uint32, after {self._tally[T_IN]:,} rows of "
                    f"{', '.join(map(str, self._paths))}. Look at the sizes in these files; the books gate says which cannot be."
                )
            if code == OUT_FULL:
                break
            self._ended = code == ALL_DONE
            if not self._ended:
                self._feed(code)
        return bool(self._tally[T_ROWS])

    def _feed(self, p: int) -> None:
        """The next batch of publisher p into its place."""
        path = self._paths[p]
        batch = next(self._readers[p], None)
        if batch is None:
            self._places.ended[p] = True
            return
        n, into = batch.num_rows, self._batches
        for name, target in (("as_of", into.clock), ("ts_event", into.ts_event), ("ts_recv", into.ts_recv)):
            target[p, :n] = integers(path, batch, name)
        for target, kind in zip((into.px, into.sz, into.ct), _KINDS, strict=True):
            for side, name in enumerate(("bid", "ask")):
                target[side, p, :n] = integers(path, batch, f"{name}_{kind}_00")
        into.status[p, :n] = codes(path, batch, "status", STATUSES)
        into.reason[p, :n] = codes(path, batch, "reason", REASONS)
        into.since[p, :n] = batch.column("status_since").cast(pa.timestamp("ns", "UTC")).view(pa.int64()).fill_null(INT64_MIN).to_numpy()
        ahead = into.ts_recv[p, :n] > np.maximum(np.maximum.accumulate(into.clock[p, :n]), self._books.clock[p])
        # On ts_event nothing tells: there as_of is the ts_recv of a snapshot.
        if self._clock == "ts_recv" and ahead.any():
            raise SchemaMismatch(
                path, "ts_recv lies after as_of, so the books run on another clock than ts_recv", row=self._read[p] + int(np.argmax(ahead)),
                remedy="Rebuild the books on the clock wanted.",
            )  # fmt: skip
        self._places.at[p], self._places.filled[p] = 0, n
        self._read[p] += n

    def rows(self, symbol: str) -> pa.Table:
        """The rows of the buffer, which counts as empty afterwards."""
        n, k = int(self._tally[T_ROWS]), len(self._ids)
        self._tally[T_ROWS] = 0
        # A copy: Arrow would share the buffer, and the next rows come while these wait for their row group.
        out = Out(*(a[..., : n * k if name == "venues" else n + (name == "ends")].copy() for name, a in self._out._asdict().items()))
        columns: dict[str, Any] = {
            "ts_event": out.ts_event, "ts_recv": out.ts_recv, "symbol": coded_column(np.zeros(n, np.int32), [symbol], pa.int32()),
            "venues": out.counted, "status": coded_column(out.status, STATUSES), "reason": coded_column(out.reason, REASONS),
            "status_since": pa.array(out.since, mask=out.since == INT64_MIN),
        }  # fmt: skip
        for side, name in enumerate(("bid", "ask")):
            columns |= {f"{name}_{kind}": a[side] for kind, a in zip(_KINDS, (out.px, out.sz, out.ct), strict=True)}
            columns[f"{name}_venues"] = pa.ListArray.from_arrays(pa.array(out.ends[side]), pa.array(out.venues[side, : out.ends[side, n]]))
        return pa.table({name: pa.array(columns[name]).cast(CBBO.field(name).type) for name in CBBO.names}, schema=CBBO)

    def facts(self) -> dict[str, Any]:
        """See `consolidate`."""
        counts = {"rows_in": T_IN, "rows_out": T_OUT, "crossed": T_CROSSED, "locked": T_LOCKED, "late": T_LATE}
        facts: dict[str, Any] = {name: int(self._tally[at]) for name, at in counts.items()}
        return {**facts, "unchanged": facts["rows_in"] - facts["rows_out"], "publishers": self._ids.tolist()}


def _numbers(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.int64)
