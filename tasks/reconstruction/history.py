"""A partition's past: which events its book was made from, from where a replay can start, and the records from any row on.

Reads only. The questions asked of it are in book_at.py, queue_position.py and lifetimes.py; what stands in the files is decided by rebuild.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.disk import storage_error
from tasks.errors import BookmillError, StorageError, UsageError
from tasks.footers import contents, read_facts, read_footer
from tasks.partitions import Partition
from tasks.reconstruction.book import OrderBook, from_day_before
from tasks.reconstruction.book_kernels import IN_SNAPSHOT, LAST_SEQUENCE
from tasks.reconstruction.checkpoints import read_resting
from tasks.reconstruction.marks import Marks
from tasks.reconstruction.rebuild import goes_on
from tasks.schemas import EVENT_DTYPES, F_SNAPSHOT, char_codes

BATCH_ROWS = 65_536
_DAY_NS = 86_400_000_000_000
_STAMP = ("bookmill.inputs", "bookmill.recipe", "bookmill.code")


class Place(NamedTuple):
    """A record: position of its file in `History.events`, and its row there."""

    file: int
    row: int


class Piece(NamedTuple):
    """Consecutive records of one file, none where only the doubt at its end is left.

    marks int64[m]: those before which a row was quarantined; doubt: one was after the file's last record.
    """

    place: Place
    columns: dict[str, np.ndarray]
    marks: np.ndarray
    doubt: bool

    def enter(self, book: OrderBook) -> None:
        """To be called before its records are applied to `book`."""
        if self.place.row == 0:
            book.next_file()


@dataclass(frozen=True)
class History:
    """How the book of a partition came to be, as the footer of its bbo layer tells.

    events: paths relative to the lake; carried: that of the closing book with which the book began, None for none, and carry_made:
    footers.contents of it then, None of an older version; clock: "ts_recv" or "ts_event"; starts_empty, windowed, halts, contiguous: see
    rebuild.py; stale_after_ns: age from which on a book is stale, None for never;
    checkpoints: facts of that layer, ascending in time.
    """

    lake: Path
    partition: Partition
    events: tuple[str, ...]
    carried: str | None
    clock: str
    starts_empty: bool
    windowed: bool
    halts: bool
    contiguous: bool
    stale_after_ns: int | None
    checkpoints: tuple[dict[str, Any], ...]
    carry_made: str | None = None

    def place_of(self, checkpoint: dict[str, Any] | None) -> Place:
        """The first record after a checkpoint; the first of all without one."""
        return Place(self.events.index(checkpoint["events"]), checkpoint["row"]) if checkpoint else Place(0, 0)

    def restore(self, book: OrderBook, checkpoint: dict[str, Any] | None) -> None:
        """Fill an empty book as it was at a checkpoint, or as it was before the first record: empty or the closing book of the day before.

        Raises BookmillError where that one is not the one with which the book was made.
        """
        if checkpoint is None:
            if self.carried:
                if self.carry_made not in (None, contents(self.lake, [self.carried])):
                    raise BookmillError(
                        f"The book of {self.partition} went on from {self.carried}, which is another one or none now. Run both days again; in a copy "
                        "of a lake pull the day before as well."
                    )
                facts = read_facts(self.lake / self.carried)
                standing = from_day_before(facts, self.halts)
                book.restore(**read_resting(self.lake / self.carried), status=facts["status"], reason=facts["reason"], standing=standing)
            return
        orders = read_resting(self.lake / self.partition.path("checkpoints"), checkpoint["row_group"])
        book.restore(**orders, status=checkpoint["status"], reason=checkpoint["reason"], standing=checkpoint)
        state = book.arrays.state
        file, row = self.place_of(checkpoint)
        if "numbered" not in checkpoint:  # an older version wrote it
            # Records after the checkpoint that go on with a snapshot must not be taken for the start of a new one.
            _, last = next(rows_from(self.lake / self.events[file], row - 1, ["flags", "sequence"], 1))
            state[IN_SNAPSHOT] = 1 if last["flags"][0] & F_SNAPSHOT else 0
            state[LAST_SEQUENCE] = -1 if state[IN_SNAPSHOT] else int(last["sequence"][0])

    def records(self, start: Place, names: Sequence[str]) -> Iterator[Piece]:
        """The named event columns from `start` to the end, over all files, in pieces of at most BATCH_ROWS. Memory: one row group."""
        for file in range(start.file, len(self.events)):
            path = self.lake / self.events[file]
            footer = read_footer(path) or {}
            rows = int(footer.get("bookmill.rows", -1))
            marks = Marks(_facts(footer), rows)
            first = start.row if file == start.file else 0
            if first == rows and marks.at_end:
                nothing = {name: np.zeros(0, EVENT_DTYPES[name]) for name in names}
                yield Piece(Place(file, rows), nothing, np.zeros(0, np.int64), True)
            for row, columns in rows_from(path, first, names, BATCH_ROWS):
                end = row + len(columns["flags"])
                yield Piece(Place(file, row), columns, marks.within(row, end), end == rows and marks.at_end)


def open_history(lake: Path, partition: Partition) -> History:
    """The history of a rebuilt partition. Raises UsageError when there is no book of it, BookmillError when an older version made it."""
    path = lake / partition.path("bbo")
    footer = read_footer(path)
    if footer is None:
        raise UsageError(f"There is no book of {partition} in {lake}. Make it with `bookmill run mbo SOURCE --lake {lake}`.")
    facts = _facts(footer)
    if "events" not in facts:
        raise BookmillError(f"{path} does not say which events it was made from: an older version wrote it. Start its run again.")
    kept = read_footer(lake / partition.path("checkpoints")) or {}
    of_it = all(kept.get(name) == footer.get(name) for name in _STAMP)
    checkpoints = [c for c in _facts(kept).get("checkpoints", []) if c["events"] in facts["events"]] if of_it else []
    carried = facts["carry"] if facts["carry"] and goes_on(lake, facts["events"], facts["carry"]) else None
    return History(
        lake, partition, tuple(facts["events"]), carried, facts["clock"], facts["starts_empty"], facts["windowed"],
        facts.get("trading_states", False), facts.get("contiguous", False), facts.get("stale_after_ns"), tuple(checkpoints), facts.get("carry_made"),
    )  # fmt: skip


def _facts(footer: dict[str, str]) -> dict[str, Any]:
    return json.loads(footer.get("bookmill.facts", "{}"))


def require_orders(history: History) -> None:
    """Raises UsageError for a partition that holds levels only."""
    if history.windowed:
        raise UsageError(f"{history.partition} was made from a level file, which has no orders that could be followed; its levels are known.")


def rows_from(path: Path, row: int, names: Sequence[str], batch_rows: int) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """(row, event columns) from a row of an events file on, in order, of at most `batch_rows` rows; row groups before it are not read.

    Raises StorageError when the file is absent or broken.
    """
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            first = 0
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if first + rows > row:
                    # Read with threads: 5.5 ms against 14 ms for a group of 131,072 rows and eight columns (two cores).
                    table = file.read_row_group(group, list(names), use_threads=True)
                    for at in range(max(row - first, 0), rows, batch_rows):
                        piece = table.slice(at, batch_rows)
                        yield first + at, {name: _column(piece.column(name), name) for name in names}
                first += rows
    except pa.ArrowException as fault:
        raise StorageError(f"Cannot read {path}: {fault}. Delete it and start again: it is made anew from its source.") from fault
    except OSError as fault:
        raise storage_error(path, fault) from fault


def _column(column: pa.ChunkedArray, name: str) -> np.ndarray:
    """An event column as the replay takes it: contiguous, of the dtype in EVENT_DTYPES, letters as ASCII codes."""
    array = column.combine_chunks()
    if pa.types.is_dictionary(array.type):
        return np.take(char_codes(tuple(array.dictionary.to_pylist())), array.indices.to_numpy())
    return np.array(array.view(pa.int64()) if pa.types.is_timestamp(array.type) else array, EVENT_DTYPES[name])


def find_partition(
    lake: Path, symbol: str, when: int | str, publisher: int | None = None, dataset: str | None = None, instrument: int | None = None
) -> Partition:
    """The rebuilt partition of a symbol at a time (ns, UTC) or on a date (YYYY-MM-DD); partitions are cut at midnight UTC of ts_recv.

    Raises UsageError naming the candidates when several fit, and what there is when none does.
    """
    if not lake.is_dir():
        raise UsageError(f"There is no lake at {lake}. Give the folder that a run wrote to with --lake.")
    date = when if isinstance(when, str) else str(np.datetime64(when // _DAY_NS, "D"))
    of_symbol = _books(lake, f"dataset=*/date=*/symbol={quote(symbol, safe='.')}")
    fits = [
        p for p in of_symbol
        if p.date == date and publisher in (None, p.publisher_id) and dataset in (None, p.dataset) and instrument in (None, p.instrument_id)
    ]  # fmt: skip
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise UsageError(f"Several books fit: {_listed(fits)}. Say which with --dataset, --publisher or --instrument.")
    if of_symbol:
        raise UsageError(f"No book of {symbol} on {date} fits. There are: {_listed(of_symbol)}.")
    symbols = sorted({p.symbol for p in _books(lake, "dataset=*/date=*/symbol=*")})
    known = ", ".join(symbols[:10]) + (f" and {len(symbols) - 10} more" if len(symbols) > 10 else "")
    raise UsageError(f"{lake} has no book of {symbol}. There are books of: {known or 'no symbol; make one with `bookmill run mbo`'}.")


def _books(lake: Path, folder: str) -> list[Partition]:
    return sorted({Partition.of_path(path.relative_to(lake)) for path in lake.glob(f"bbo/{folder}/part-*.parquet")})


def _listed(partitions: Sequence[Partition]) -> str:
    return ", ".join(map(str, partitions[:10])) + (f" and {len(partitions) - 10} more" if len(partitions) > 10 else "")
