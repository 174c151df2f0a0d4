"""From a source to events files: read, filter, check, route, and account for every row.

The order counts: a row is first filtered (symbol, publisher, end of the range), and only what is wanted is checked and, when bad, set aside.
Nothing gets its final name until the whole source was read, found unchanged, and every row of it accounted for; the SOURCES file comes last.
How bytes become columns is the readers' business, how columns become files is in routing.py and events_file.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tasks.errors import CorruptSource
from tasks.filtering.predicate import FILTER_REASONS, RowFilter, check_filter
from tasks.partitions import MboRecipe, SourceFile
from tasks.scanning import route_kernels as rk
from tasks.scanning.batches import BadRow, RawBatch, Reader
from tasks.scanning.check_kernels import GOOD, REASON_TEXT, REASONS, check_rows
from tasks.scanning.earlier_account import Kept, kept_of, widened
from tasks.scanning.partition_table import Lost
from tasks.scanning.quarantine_file import QuarantineLog
from tasks.scanning.routing import Router
from tasks.scanning.sources_file import (
    Decoded,
    EventPart,
    Wanted,
    check_conservation,
    decode_stamp,
    describe,
    events_stamp,
    is_decoded,
    names_of,
    remove_renamed,
    sources_lock,
    wanted_of,
    write_sources,
)
from tasks.schemas import EVENT_DTYPES

__all__ = ["Decoded", "EventPart", "decode", "decode_stamp", "events_stamp", "is_decoded"]

_BY_TIME = FILTER_REASONS.index("time")


class _Decoding:
    """One source on its way: state between batches."""

    def __init__(self, source: SourceFile, lake: Path, recipe: MboRecipe, wanted: Wanted, memory_bytes: int) -> None:
        self.source, self.lake, self.recipe, self.wanted = source, lake, recipe, wanted
        self.filter = RowFilter(recipe.filter, decoding=True)
        self.router = Router(source, lake, memory_bytes=memory_bytes)
        self.quarantine = QuarantineLog(source, lake)
        self.filtered = np.zeros(len(FILTER_REASONS), np.int64)
        self.homeless: Counter[tuple[str, int]] = Counter()  # quarantined rows of no known partition by symbol and publisher, as far as known
        self.rows_in = 0
        self._names: dict[str, int] = {}
        self._canonical = np.empty(0, np.int32)

    def take(self, batch: RawBatch, symbols: list[str]) -> None:
        """Filter, check and route one batch."""
        # Copies of our own: readers may reuse their buffers, and a read-only or strided array would compile every kernel again.
        columns = {name: np.array(batch.columns[name], dtype) for name, dtype in EVENT_DTYPES.items()}
        code = self._codes(symbols)[batch.symbol_code]
        dropped = self.filter.reasons(symbols, code, columns["publisher_id"], columns["ts_recv"])
        bad = np.empty(len(code), np.uint8)
        any_bad = check_rows(
            columns["ts_event"], columns["ts_recv"], columns["action"], columns["side"], columns["price"], columns["size"], columns["flags"], bad
        )  # fmt: skip
        wanted = [row for row in batch.bad if row.symbol_code < 0 or self.filter.wants(symbols[row.symbol_code])]
        missing = [row for row in wanted if row.reason != "not_mbo"]  # a record of another type says nothing of the book
        lost = Lost(np.array([row.before for row in missing], np.int64), np.array([self._code(row) for row in missing], np.int32))
        part, event_row = self.router.table.assign(symbols, code, columns, dropped, bad, lost)
        self.router.add(columns, part)
        if batch.truth is not None:
            self.router.add_truth(part, columns["flags"], batch.source_row, batch.truth)
        self.filtered += np.bincount(dropped, minlength=len(FILTER_REASONS))
        self.filtered[FILTER_REASONS.index("symbol")] += len(batch.bad) - len(wanted)
        self.rows_in += len(batch) + len(batch.bad)
        if any_bad or wanted:
            self._set_aside(batch, symbols, wanted, np.flatnonzero((dropped == 0) & (bad != GOOD)), bad, event_row)

    def _codes(self, symbols: list[str]) -> np.ndarray:
        # Two codes of one name would be two partitions with one path.
        if len(self._canonical) < len(symbols):
            fresh = [self._names.setdefault(symbols[code], code) for code in range(len(self._canonical), len(symbols))]
            self._canonical = np.concatenate([self._canonical, np.array(fresh, np.int32)])
        return self._canonical

    def _code(self, row: BadRow) -> int:
        return int(self._canonical[row.symbol_code]) if row.symbol_code >= 0 else -1

    def _set_aside(
        self, batch: RawBatch, symbols: list[str], unreadable: list[BadRow], rows: np.ndarray, bad: np.ndarray, event_row: np.ndarray
    ) -> None:
        publisher = batch.columns["publisher_id"]
        self.homeless.update((symbols[row.symbol_code] if row.symbol_code >= 0 else "", -1) for row in unreadable)
        self.homeless.update((symbols[batch.symbol_code[i]], int(publisher[i])) for i in rows[event_row[rows] < 0].tolist())
        waiting = iter(unreadable)
        lost = next(waiting, None)
        for i in [*rows.tolist(), len(batch)]:  # in the order of the source
            while lost is not None and lost.before <= i:
                self.quarantine.add(lost, -1, symbols[lost.symbol_code] if lost.symbol_code >= 0 else "")
                lost = next(waiting, None)
            if i < len(batch):
                offset, raw = batch.raw(i)
                reason = REASONS[bad[i]]
                row = BadRow(i, int(batch.source_row[i]), offset, raw, reason, REASON_TEXT[reason])
                self.quarantine.add(row, int(event_row[i]), symbols[batch.symbol_code[i]])

    def break_off(self, reader: Reader, fault: CorruptSource) -> None:
        """Account for the end of a source that breaks: one more row, which is bad and of which nothing is known."""
        row = reader.source_rows if fault.row is None else fault.row
        offset = -1 if fault.offset is None else fault.offset
        self.quarantine.add(BadRow(0, row, offset, b"", "truncated", fault.problem), -1, "")
        self.homeless["", -1] += 1
        self.rows_in += 1
        self.router.table.lose_rest()

    def publish(self, reader: Reader, fault: CorruptSource | None) -> Decoded:
        """Check the accounts and give everything its final name, the SOURCES file last."""
        from tasks.scanning.inventory import verify_unchanged

        self.router.finish()
        facts: dict[str, Any] = {
            "format": self.source.format,
            "names": names_of(self.source),
            "source_rows": reader.source_rows + (fault is not None),
            "expanded_rows": reader.expanded_rows,
        }
        for name in ("message_counts", "unknown_references"):  # of readers that count them
            if hasattr(reader, name):
                facts[name] = getattr(reader, name)
        if fault is not None:
            facts["truncated"] = {"byte_offset": fault.offset, "row": fault.row, "problem": fault.problem}
        mine = self._source_rows()
        verify_unchanged(self.source)
        check_conservation([*mine, self._rest(Kept())], facts["source_rows"] + facts["expanded_rows"])
        self.router.commit(events_stamp(self.source, self.recipe))
        with sources_lock(self.lake, self.source.dataset):
            kept = kept_of(self.source, self.lake, self.recipe, truncated=fault is not None)
            rows = sorted([*kept.rows, *mine], key=lambda row: (row["date"], row["symbol"], row["publisher_id"], row["instrument_id"]))
            rows.append(self._rest(kept))
            remove_renamed(self.lake, self.source, rows)
            self.quarantine.commit(decode_stamp(self.source, self.recipe), kept.quarantine)
            facts |= {
                "wanted": sorted([*kept.wanted, wanted_of(self.recipe.filter)]),
                "homeless": sorted([*kept.homeless, *([*key, count] for key, count in self.homeless.items())]),
                "filtered": self._left_out(kept),
                "quarantine": self.quarantine.name if self.quarantine.rows else "",
                "quarantine_rows": self.quarantine.rows,
                "truth": sorted([*kept.truth, *self.router.truths()]),
                "rewritten": kept.rewritten,
            }
            write_sources(self.lake, rows, decode_stamp(self.source, self.recipe), facts)
        return describe(self.source, rows, facts, self.wanted, skipped=False)

    def _left_out(self, kept: Kept) -> dict[str, int]:
        """Rows by the reason for which the account leaves them out: of symbols that stay it does not."""
        counts = {name: int(count) for name, count in zip(FILTER_REASONS, self.filtered, strict=True) if name}
        counts["symbol"] -= sum(row["rows_in"] for row in kept.rows) + sum(count for _, _, count in kept.homeless)
        counts["time"] += sum(row["rows_filtered"] for row in kept.rows)
        return {name: count for name, count in counts.items() if count}

    def _source_rows(self) -> list[dict[str, Any]]:
        table, head = self.router.table, {"source": self.source.name, "fingerprint": self.source.fingerprint, "format": self.source.format}
        rows = []
        for p in range(len(table)):
            partition, kept = table.partition(p), table.stat(p, rk.ROWS_OUT)
            rows.append({
                **head, "dataset": partition.dataset, "date": partition.date, "symbol": partition.symbol,
                "publisher_id": partition.publisher_id, "instrument_id": partition.instrument_id,
                "path": partition.path("events", self.source.short) if kept else "",
                "rows_in": table.stat(p, rk.ROWS_IN), "rows_out": kept,
                "rows_filtered": table.stat(p, rk.FILTERED), "rows_quarantined": table.stat(p, rk.QUARANTINED),
                "first_ts": table.stat(p, rk.FIRST_RECV) if kept else None, "last_ts": table.stat(p, rk.LAST_RECV) if kept else None,
            })  # fmt: skip
        return rows

    def _rest(self, kept: Kept) -> dict[str, Any]:
        """The row of SOURCES for rows of no partition, neither of this decode nor kept: a decode counts those that are kept as filtered by symbol."""
        apart, homeless = sum(row["rows_in"] for row in kept.rows), sum(count for _, _, count in kept.homeless)
        dropped = int(self.filtered[1:].sum() - self.filtered[_BY_TIME])
        return {
            "source": self.source.name, "fingerprint": self.source.fingerprint, "format": self.source.format, "dataset": self.source.dataset,
            "date": "", "symbol": "", "publisher_id": 0, "instrument_id": 0, "path": "",
            "rows_in": self.rows_in - self.router.table.total(rk.ROWS_IN) - apart, "rows_out": 0,
            "rows_filtered": dropped - apart - homeless, "rows_quarantined": self.homeless.total() + homeless, "first_ts": None, "last_ts": None,
        }  # fmt: skip


def decode(
    source: SourceFile,
    lake: Path,
    recipe: MboRecipe,
    *,
    batch_rows: int = 65_536,
    memory_bytes: int = 512 * 2**20,
    salvage: bool = False,
    progress: Callable[[int, int], None] | None = None,
    reader: Reader | None = None,
) -> Decoded:
    """Bring `source` into the lake as events files, or find that it is there already.

    What earlier decodes with other symbols brought stays, and stays accounted for (earlier_account.py).

    batch_rows and memory_bytes change memory and speed, never bytes. salvage: of a source that breaks off, keep what stands before the
    break. progress is told (bytes read of the file, rows met) after each batch. reader: one that is open already, which is closed here.

    Footers of events files hold these facts: source, fingerprint, rows_in, rows_out, filtered {reason: rows}, quarantined, suspect_rows
    (ascending event rows before which a row was set aside; a row of unknown partition counts for every partition it may have belonged to),
    suspect_rows_capped when there are more than 10,000, out_of_order (rows with a ts_recv before that of the row above; kept, and never
    sorted), min_price, max_price, first_ and last_ ts_recv and ts_event.

    Raises UsageError for a filter that is not allowed, SourceError and its kinds for the file, StorageError for the lake, BookmillError when
    the rows do not add up; in all these cases nothing of the source gets a final name.
    """
    check_filter(recipe.filter)
    if done := is_decoded(source, lake, recipe, salvage=salvage):
        if reader is not None:
            reader.close()
        return done
    if reader is None:
        from tasks.scanning.readers import open_reader

        reader = open_reader(source)
    run = _Decoding(source, lake, widened(source, lake, recipe), wanted_of(recipe.filter), memory_bytes)
    finished, fault = False, None
    try:
        try:
            for batch in reader.batches(batch_rows):
                run.take(batch, reader.symbols)
                if progress is not None:
                    progress(reader.bytes_read, run.rows_in)
        except CorruptSource as broken:
            if not salvage:
                raise
            fault = broken
            run.break_off(reader, fault)
        decoded = run.publish(reader, fault)
        finished = True
    finally:
        reader.close()
        run.router.close(undo=not finished)
        run.quarantine.close(undo=not finished)
    return decoded
