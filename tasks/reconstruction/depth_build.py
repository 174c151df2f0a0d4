"""A depth feed to its layers in one pass: snapshots of every depth asked for, changes of the touch, level updates and CSV where wanted.

The reader and the journal of bad lines are handed in; the rules of the book are in depth_replay.py, tables in depth_layers.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from tasks.ahead import ahead
from tasks.depth_batches import BadLine, DepthBatch, DepthReader
from tasks.depth_recipe import DepthRecipe, DepthSource
from tasks.depth_span import DaySpan
from tasks.errors import BookmillError
from tasks.footers import is_done, read_facts
from tasks.partitions import Partition, Stamp
from tasks.reconstruction.depth_export import CsvExport, CsvTarget, is_exported
from tasks.reconstruction.depth_grid_buffer import GridBuffer
from tasks.reconstruction.depth_layers import DepthTables
from tasks.reconstruction.depth_replay import DepthReplay, DepthSamples, ScaleTooSmall
from tasks.reconstruction.proof import to_json
from tasks.schemas import DEPTH_BBO, DEPTH_UPDATES, STATUSES, depth_books_schema, depth_fields
from tasks.storage import ParquetSink

BBO, UPDATES = "depth-bbo", "depth-updates"
BATCH_BYTES = 1 << 20
AHEAD = 2  # batches
WAITING = 4  # tables
# A day of minutes, 26 MB in the making at 500 levels: a row group of 2,000 columns takes 0.1 s to write, however few rows it has.
GRID_GROUP_ROWS = 1_440
# Levels kept of a feed that does not say how deep it is: more than any venue shows.
UNBOUNDED = 1 << 20
HEAD = [name for name in DEPTH_BBO.names if not name.startswith(("bid_", "ask_"))]  # columns that a reader may want to skip row groups by
ANOMALIES = ("gaps", "restarts", "restart_deltas", "stale_ids", "skipped", "quarantined")


class Journal(Protocol):
    """The account of a source: the lines that could not be read, and at the end how many there were of each kind."""

    def add(self, line: BadLine) -> None: ...

    def commit(self, stamp: Stamp, lines: int, kept: int, left_out: dict[str, int], span: tuple[int, int]) -> None: ...

    def close(self, *, undo: bool) -> None: ...


@dataclass(frozen=True)
class DepthBuilt:
    """grids: depth -> (path relative to the lake, rows); facts: the counts in the footer of depth-bbo; skipped: it was there already."""

    partition: Partition
    grids: dict[int, tuple[str, int]]
    facts: dict[str, Any]
    skipped: bool


def build_stamp(source: DepthSource, recipe: DepthRecipe) -> Stamp:
    """What the layers of a source are made from."""
    return Stamp(source.file.fingerprint, recipe.digest_of("depths", "interval_ns", "clock", "stale_after_ns", "on_book_error", "updates"))


def is_built(lake: Path, source: DepthSource, recipe: DepthRecipe, csv: CsvTarget | None) -> DepthBuilt | None:
    """What the lake holds of a source, None unless every output of it is there and made from exactly this source and recipe."""
    stamp, partition = build_stamp(source, recipe), source.partition
    if not is_done(lake / partition.path(BBO), stamp):
        return None
    facts = read_facts(lake / partition.path(BBO))
    if not all(is_done(lake / partition.path(layer), stamp) for layer in facts["outputs"]):
        return None
    depths = recipe.depths_of(source.depth)
    if csv is not None and not is_exported(lake, partition, depths, recipe.interval_ns, csv, stamp):
        return None
    return DepthBuilt(partition, _grids(partition, recipe, depths, facts["outputs"]), facts, True)


def build_depth(
    lake: Path, source: DepthSource, recipe: DepthRecipe, reader: Callable[[], DepthReader], *, journal: Callable[[], Journal],
    csv: CsvTarget | None = None, verify: Callable[[], None] = lambda: None, progress: Callable[[int, int], None] = lambda lines, size: None,
) -> DepthBuilt:  # fmt: skip
    """Make the layers of one source, or find that they are there.

    reader, journal: opened anew when an update with more decimals than the scale turns up, which happens once at most for each kind of number.
    verify: raises when the source changed while it was read; progress: told (lines, stored bytes) after each batch. Raises SourceError and its
    kinds, BookError (on_book_error "fail"), StorageError; nothing gets a final name then.
    """
    done = is_built(lake, source, recipe, csv)
    if done is not None:
        return done
    digits: tuple[int, int] | None = None
    while True:
        with _Pass(lake, source, recipe, csv, reader(), journal(), progress) as run:
            try:
                run.read(digits)
            except ScaleTooSmall as more:
                digits = more.price_digits, more.size_digits
                continue
            verify()
            return run.commit()


class _Pass:
    """One reading of a source; leaving it without `commit` drops all that was written."""

    def __init__(
        self, lake: Path, source: DepthSource, recipe: DepthRecipe, csv: CsvTarget | None, reader: DepthReader, journal: Journal,
        progress: Callable[[int, int], None],
    ) -> None:  # fmt: skip
        self._lake, self._source, self._recipe, self._reader, self._journal = lake, source, recipe, reader, journal
        self._depths, self._csv, self._progress = recipe.depths_of(source.depth), csv, progress
        self._stack, self._committed = ExitStack(), False
        self._bad = self._messages = self._updates_in = 0
        self._day = DaySpan(source)
        self._touch_rows, self._fresh_rows = 0, list[int]()  # written so far; those whose touch does not follow from the one before
        self._statuses = np.zeros(len(STATUSES), np.int64)

    def __enter__(self) -> _Pass:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._journal.close(undo=not self._committed)
        self._reader.close()

    def read(self, digits: tuple[int, int] | None) -> None:
        """Read to the end. digits: scale of prices and sizes, None to take it from the first batch. Raises ScaleTooSmall."""
        replay: DepthReplay | None = None
        told = 0
        # Parsing and the book, on two cores, beside each other.
        batches = self._stack.enter_context(closing(ahead(self._reader.batches(BATCH_BYTES), AHEAD, f"parse {self._source.name}")))
        for batch in batches:
            replay = replay or self._start(digits or _digits(batch))
            self._note(batch)
            if self._updates is not None:
                self._later(self._updates, self._tables.updates(batch))
            for samples in replay.feed(batch):
                self._write(samples)
            self._progress(len(batch), self._reader.bytes_read - told)
            told = self._reader.bytes_read
        self._replay = replay = replay or self._start(digits or (9, 0))
        for samples in replay.finish():
            self._write(samples)
        self._write_grid(replay.empty())
        self._wait()

    def _start(self, digits: tuple[int, int]) -> DepthReplay:
        recipe, partition = self._recipe, self._source.partition
        self._tables = DepthTables(partition.symbol, *digits)
        sink = self._stack.enter_context
        self._grids = {
            depth: sink(
                ParquetSink(
                    self._lake / partition.path(recipe.grid_layer(depth)),
                    depth_books_schema(depth),
                    row_group_rows=GRID_GROUP_ROWS,
                    statistics=HEAD,
                    # Two thirds of the time of plain values at the same size, half of that of dictionaries (measured).
                    encodings={name: "BYTE_STREAM_SPLIT" for name, _ in depth_fields(depth)},
                )
            )
            for depth in self._depths
        }
        self._waiting = GridBuffer(max(self._depths), GRID_GROUP_ROWS)
        # Half the size of plain values, in five sixths of their time (measured on 585,586 rows).
        packed = {field.name: "DELTA_BINARY_PACKED" for field in DEPTH_BBO if field.type.bit_width == 64}
        self._bbo = sink(ParquetSink(self._lake / partition.path(BBO), DEPTH_BBO, encodings=packed))
        self._updates = sink(ParquetSink(self._lake / partition.path(UPDATES), DEPTH_UPDATES)) if recipe.updates else None
        self._encoding: deque[Future[None]] = deque()
        # Entered after the sinks it writes to, so that it has ended before they are dropped.
        self._encoder = sink(ThreadPoolExecutor(1, "encode"))
        self._export = None
        if self._csv is not None:
            self._export = sink(CsvExport(self._lake, partition, self._depths, recipe.interval_ns, self._csv, digits))
        return DepthReplay(
            depths=self._depths, keep=self._source.depth or UNBOUNDED, interval_ns=recipe.interval_ns, windows=[self._source.window],
            clock=recipe.clock, price_digits=digits[0], size_digits=digits[1], stale_after_ns=recipe.stale_after_ns,
            strict=recipe.on_book_error == "fail",
        )  # fmt: skip

    def _note(self, batch: DepthBatch) -> None:
        self._bad += len(batch.bad)
        self._messages += len(batch)
        self._updates_in += len(batch.side)
        for line in batch.bad:
            self._journal.add(line)
        self._day.add(batch.ts)

    def _write(self, samples: DepthSamples) -> None:
        taken = 0
        while taken < samples.n_grid:
            taken += self._waiting.take(samples, taken)
            if self._waiting.count == self._waiting.room:
                self._write_grid(samples)
        if samples.n_touch:
            self._fresh_rows += (self._touch_rows + np.flatnonzero(samples.touch.fresh[: samples.n_touch])).tolist()
            self._touch_rows += samples.n_touch
            self._later(self._bbo, self._tables.touch(samples))

    def _later(self, sink: ParquetSink, table: pa.Table) -> None:
        """Encode beside the book; a table in the making waits for no more than WAITING others."""
        self._wait(WAITING)
        self._encoding.append(self._encoder.submit(sink.write, table))

    def _wait(self, left: int = 0) -> None:
        while len(self._encoding) > left:
            self._encoding.popleft().result()

    def _write_grid(self, last: DepthSamples) -> None:
        samples = self._waiting.samples(last)
        if samples.n_grid:
            self._statuses += np.bincount(samples.grid.status[: samples.n_grid], minlength=len(STATUSES))
            # Encoding releases the interpreter: the files of all depths, and the text, beside each other.
            with ThreadPoolExecutor(2, "encode") as pool:
                work = [pool.submit(self._encode, sink, samples, depth) for depth, sink in self._grids.items()]
                if self._export is not None:
                    self._export.write(samples)
                for future in work:
                    future.result()

    def _encode(self, sink: ParquetSink, samples: DepthSamples, depth: int) -> None:
        sink.write(self._tables.grid(samples, depth))

    def commit(self) -> DepthBuilt:
        """Check the account, and give everything its final name, the touch last."""
        stamp, partition, recipe = build_stamp(self._source, self._recipe), self._source.partition, self._recipe
        kept, left_out = self._updates_in if self._reader.lines_are_updates else self._messages, self._reader.left_out
        if self._reader.lines != kept + sum(left_out.values()) + self._bad:
            raise BookmillError(
                f"{self._source.name}: {self._reader.lines:,} lines were read, but {kept:,} kept, {sum(left_out.values()):,} left out and "
                f"{self._bad:,} bad ones came of them. Nothing was published; please report this with the file."
            )
        self._day.check()
        start, end = self._source.window
        due = -(-end // recipe.interval_ns) - -(-start // recipe.interval_ns)
        outputs = {recipe.grid_layer(depth): sink.rows for depth, sink in self._grids.items()}
        for layer, rows in outputs.items():
            if rows != due:
                raise BookmillError(f"{self._source.name}: {layer} has {rows:,} rows, but its day has {due:,} grid times. Nothing was published.")
        if self._updates is not None:
            outputs[UPDATES] = self._updates.rows
        facts = self._facts(outputs | {BBO: self._bbo.rows}, kept, left_out)
        self._journal.commit(stamp, self._reader.lines, kept, left_out, self._day.span)
        self._committed = True
        if self._export is not None:
            self._export.commit(stamp)
        for sink in (*self._grids.values(), *([self._updates] if self._updates is not None else [])):
            sink.commit(stamp, {name: facts[name] for name in ("price_digits", "size_digits", "clock", "windows")})
        self._bbo.commit(stamp, facts)
        return DepthBuilt(partition, _grids(partition, recipe, self._depths, outputs), facts, False)

    def _facts(self, outputs: dict[str, int], kept: int, left_out: dict[str, int]) -> dict[str, Any]:
        counted = self._replay.facts()
        file = self._source.file
        return {
            **{name: value for name, value in counted.items() if name not in ANOMALIES},
            "anomalies": {name: counted[name] for name in ANOMALIES},
            "rows_in": self._reader.lines, "rows_out": kept, "rows_quarantined": self._bad, "outputs": outputs,
            "rows_filtered": sum(left_out.values()), "filtered": {name: count for name, count in left_out.items() if count},
            "messages_of_other_days": self._day.outside,
            "statuses": {name: int(n) for name, n in zip(STATUSES, self._statuses, strict=True) if n},
            "proofs": {name: to_json(proof, detail) for name, (proof, detail) in self._replay.comparisons().items()},
            "clock": self._recipe.clock, "windows": [list(self._source.window)], "depth": self._source.depth, "source": self._source.name,
            "fingerprint": file.fingerprint, "fresh_rows": self._fresh_rows,
        }  # fmt: skip


def _digits(batch: DepthBatch) -> tuple[int, int]:
    """The scale that a first batch asks for: 9 decimals of prices at least."""
    if not len(batch.side):
        return 9, 0
    return max(9, int(batch.price_digits.max())), int(batch.size_digits.max())


def _grids(partition: Partition, recipe: DepthRecipe, depths: tuple[int, ...], outputs: dict[str, int]) -> dict[int, tuple[str, int]]:
    return {depth: (partition.path(recipe.grid_layer(depth)), outputs[recipe.grid_layer(depth)]) for depth in depths}
