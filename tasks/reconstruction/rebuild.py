"""One partition: events files in, book layers out. Reads, feeds the replay, writes; the rules of the book are in the kernels.

Outputs: bbo, mbp-N (event ends), mbp-N-<interval> (grid), trades, and closing_book (the orders resting at the end, from which the next day
goes on when its own events do not begin with a clear or a snapshot). All carry one stamp; the bbo file is named last and holds the counts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import BookmillError, LakeConflict
from tasks.events_file import read_events
from tasks.partitions import MboRecipe, Partition, Stamp, digest
from tasks.reconstruction.layers import LayerTables
from tasks.reconstruction.replay import Replay, Samples
from tasks.reconstruction.window import WindowReplay
from tasks.schemas import F_LAST, F_SNAPSHOT, SIDES, STATUSES, TRADES, books_schema, char_codes
from tasks.specs import interval_name
from tasks.storage import ParquetSink, is_done, read_facts, read_footer, write_table

# Wide rows: half the row group of narrow tables, so that a group in the making stays near 30 MB at ten levels.
WIDE_GROUP_ROWS = 65_536
# Records of one pass of the kernel. At ten levels its rows take 400 bytes each: 8,192 of them stay in the cache until they are copied out;
# 65,536 take twice the time (240 against 500 ns a record, measured on two cores of a shared machine).
REPLAY_ROWS = 8_192
COLUMNS = ("ts_event", "ts_recv", "action", "side", "price", "size", "order_id", "flags", "sequence")

CLOSING_BOOK = pa.schema([("side", pa.dictionary(pa.int8(), pa.string())), ("price", pa.int64()), ("order_id", pa.uint64()), ("size", pa.int64())])


@dataclass(frozen=True)
class Rebuilt:
    """outputs: layer -> (path relative to the lake, rows); facts: the counts in the bbo footer; skipped: it was there already."""

    partition: Partition
    outputs: dict[str, tuple[str, int]]
    facts: dict[str, Any]
    skipped: bool


def layer_names(recipe: MboRecipe) -> dict[str, str]:
    """Layer of each kind of output: rows, grid, trades, closing, bbo (in the order in which they get their names)."""
    depth = f"mbp-{recipe.depth}"
    return {"rows": depth, "grid": f"{depth}-{interval_name(recipe.interval_ns)}", "trades": "trades", "closing": "closing_book", "bbo": "bbo"}


def rebuild_stamp(lake: Path, events: Sequence[str], recipe: MboRecipe, windows: Sequence[tuple[int, int]] | None, carry: str | None = None) -> Stamp:
    """What the book layers of a partition are made from. Raises BookmillError when an events file is not there."""
    inputs = []
    for name in [*events, *([carry] if carry else [])]:
        footer = read_footer(lake / name)
        if footer is None:
            raise BookmillError(f"{lake / name} is missing or not readable. Start the run again: it is made anew from its source.")
        inputs.append([footer["bookmill.inputs"], footer["bookmill.recipe"], footer["bookmill.code"]])
    options = recipe.digest_of("depth", "interval_ns", "clock", "on_book_error", "starts_empty")
    return Stamp(digest(inputs), digest([options, windows]))


def is_rebuilt(lake: Path, partition: Partition, stamp: Stamp, recipe: MboRecipe) -> Rebuilt | None:
    """The outputs when all are there with this stamp, else None."""
    paths = {layer: partition.path(layer) for layer in layer_names(recipe).values()}
    if not all(is_done(lake / path, stamp) for path in paths.values()):
        return None
    facts = read_facts(lake / paths["bbo"])
    return Rebuilt(partition, {layer: (path, facts["outputs"][layer]) for layer, path in paths.items()}, facts, True)


def starts_clean(lake: Path, events: Sequence[str]) -> bool:
    """Whether the first event clears the book or starts a snapshot, so that nothing of the day before is needed."""
    first = next(read_events(lake / events[0], ["action", "flags"], 1), None)
    return first is not None and (chr(first["action"][0]) == "R" or bool(first["flags"][0] & F_SNAPSHOT))


def rebuild(
    lake: Path,
    partition: Partition,
    events: Sequence[str],
    recipe: MboRecipe,
    *,
    windows: Sequence[tuple[int, int]] | None = None,
    carry: str | None = None,
    batch_rows: int = 65_536,
    progress: Callable[[int], None] | None = None,
) -> Rebuilt:
    """Rebuild the book of one partition and write its layers; does nothing when they are there with the same stamp.

    events: paths relative to the lake; windows: half-open ns spans in which rows are wanted (None: all); carry: closing_book of the day before.
    Raises BookError (on_book_error="fail"), LakeConflict (two events files cover the same time), StorageError.
    """
    events, batch_rows = in_time_order(lake, partition, events), min(batch_rows, REPLAY_ROWS)
    stamp = rebuild_stamp(lake, events, recipe, windows, carry)
    done = is_rebuilt(lake, partition, stamp, recipe)
    if done:
        return done
    with ExitStack() as stack:
        writer = _Writer(lake, partition, recipe, stack)
        replay = _run(lake, partition, events, recipe, windows, carry, batch_rows, writer, progress)
        for samples in replay.finish():
            writer.write(samples)
        return writer.commit(replay, stamp, sum(read_facts(lake / name)["rows_out"] for name in events))


def in_time_order(lake: Path, partition: Partition, events: Sequence[str]) -> list[str]:
    """The events files by their first time. Raises LakeConflict when two overlap."""
    spans = sorted((read_facts(lake / name)["first_ts_recv"], read_facts(lake / name)["last_ts_recv"], name) for name in events)
    for (_, last, one), (first, _, other) in itertools.pairwise(spans):
        if first < last:
            raise LakeConflict(
                f"{partition}: {one} and {other} cover the same time (the second starts {last - first:,} ns before the first ends). "
                "Give only one of the two sources, or use a lake of its own for each."
            )
    return [name for _, _, name in spans]


def _run(
    lake: Path, partition: Partition, events: Sequence[str], recipe: MboRecipe, windows: Sequence[tuple[int, int]] | None, carry: str | None,
    batch_rows: int, writer: _Writer, progress: Callable[[int], None] | None,
) -> Replay | WindowReplay:  # fmt: skip
    truths = [lake / partition.path("truth", name.rsplit("-", 1)[-1].removesuffix(".parquet")) for name in events]
    windowed = truths[0].exists()
    strict = recipe.on_book_error == "fail"
    if windowed:
        levels = (len(pq.read_schema(truths[0])) - 1) // 4
        window_replay = WindowReplay(
            levels=levels,
            depth=recipe.depth,
            interval_ns=recipe.interval_ns,
            clock=recipe.clock,
            windows=windows,
            strict=strict,
            batch_rows=batch_rows,
        )
    else:
        replay = Replay(
            depth=recipe.depth, interval_ns=recipe.interval_ns, clock=recipe.clock, windows=windows, starts_empty=recipe.starts_empty,
            strict=strict, batch_rows=batch_rows,
        )  # fmt: skip
        if carry and not starts_clean(lake, events):
            restore_closing(replay, lake / carry)
    for name, truth in zip(events, truths, strict=True):
        marks = np.array(read_facts(lake / name).get("suspect_rows", []), np.int64)
        at = 0
        rows = _TruthRows(truth) if windowed else None
        for columns in read_events(lake / name, COLUMNS, batch_rows):
            n = len(columns["price"])
            low, high = np.searchsorted(marks, [at, at + n])
            here = marks[low:high] - at
            if rows is not None:
                steps = window_replay.feed(columns, rows.take(int(np.count_nonzero(columns["flags"] & F_LAST))), here)
            else:
                steps = replay.feed(columns, here)
            for samples in steps:
                writer.write(samples)
            at += n
            if progress:
                progress(n)
        if len(marks) and marks[-1] >= at:
            (window_replay if windowed else replay).doubt()
    return window_replay if windowed else replay


class _TruthRows:
    """Published books of one events file, handed out in order as int64[m, levels, 4]."""

    def __init__(self, path: Path) -> None:
        self._batches = pq.ParquetFile(path).iter_batches(65_536)
        self._levels = (len(pq.read_schema(path)) - 1) // 4
        self._rest = np.zeros((0, self._levels, 4), np.int64)

    def take(self, count: int) -> np.ndarray:
        while len(self._rest) < count:
            batch = next(self._batches)
            rows = np.empty((len(batch), self._levels, 4), np.int64)
            for place, kind in enumerate(("ask_px", "ask_sz", "bid_px", "bid_sz")):
                for level in range(self._levels):
                    rows[:, level, place] = batch.column(f"{kind}_{level:02d}").to_numpy()
            self._rest = np.concatenate([self._rest, rows])
        taken, self._rest = self._rest[:count].copy(), self._rest[count:]
        return taken


def restore_closing(replay: Replay, path: Path) -> None:
    """Put the orders of a closing book into an empty one, with its status."""
    table, facts = pq.read_table(path), read_facts(path)
    codes = char_codes(SIDES)
    replay.book.restore(
        side=codes[table["side"].combine_chunks().indices.to_numpy()] if table.num_rows else np.zeros(0, np.uint8),
        price=np.array(table["price"]),
        order_id=np.array(table["order_id"]),
        size=np.array(table["size"]),
        status=facts["status"],
        reason=facts["reason"],
    )


class _Writer:
    """The sinks of one partition."""

    def __init__(self, lake: Path, partition: Partition, recipe: MboRecipe, stack: ExitStack) -> None:
        self._lake, self._partition, self._recipe = lake, partition, recipe
        self._names = layer_names(recipe)
        self._tables = LayerTables(partition, recipe.depth)
        self._statuses = np.zeros(len(STATUSES), np.int64)
        self._encoding: Future[None] | None = None
        schemas = {"rows": books_schema(recipe.depth), "grid": books_schema(recipe.depth), "trades": TRADES, "bbo": books_schema(1)}
        self._sinks = {
            kind: stack.enter_context(
                ParquetSink(
                    lake / partition.path(self._names[kind]),
                    schema,
                    dictionary=["symbol", "status", "reason", "side", "side_method"],
                    row_group_rows=WIDE_GROUP_ROWS,
                )
            )
            for kind, schema in schemas.items()
        }

        # Encoding the wide rows costs as much as all the rest of a rebuild; it goes on beside the replay. Entered after the sinks, so that
        # it has ended before they are dropped.
        self._encoder = stack.enter_context(ThreadPoolExecutor(1, "encode"))

    def write(self, samples: Samples) -> None:
        if samples.n_rows:
            self._statuses += np.bincount(samples.rows.status[: samples.n_rows], minlength=len(STATUSES))
            self._wait()
            self._encoding = self._encoder.submit(self._sinks["rows"].write, self._tables.event_rows(samples))
        if samples.n_bbo:
            self._sinks["bbo"].write(self._tables.bbo(samples))
        if samples.n_grid:
            self._sinks["grid"].write(self._tables.grid(samples))
        if samples.n_trades:
            self._sinks["trades"].write(self._tables.trades(samples))

    def _wait(self) -> None:
        """Until the rows handed to the encoder are taken; raises what went wrong there."""
        if self._encoding is not None:
            self._encoding.result()

    def commit(self, replay: Replay | WindowReplay, stamp: Stamp, rows_in: int) -> Rebuilt:
        self._wait()
        closing = replay.closing()
        rows = {kind: sink.rows for kind, sink in self._sinks.items()} | {"closing": len(closing["price"])}
        paths = {kind: self._partition.path(name) for kind, name in self._names.items()}
        facts = _facts(replay, rows_in, {self._names[kind]: n for kind, n in rows.items()})
        facts["statuses"] = {name: int(n) for name, n in zip(STATUSES, self._statuses, strict=True) if n}
        for kind in ("rows", "grid", "trades"):
            self._sinks[kind].commit(stamp)
        side = pa.DictionaryArray.from_arrays(np.searchsorted(char_codes(SIDES), closing["side"]).astype(np.int8), pa.array(SIDES))
        table = pa.table([side, *(pa.array(closing[name]) for name in CLOSING_BOOK.names[1:])], schema=CLOSING_BOOK)
        write_table(self._lake / paths["closing"], table, stamp, {"status": facts["status"], "reason": facts["reason"]})
        self._sinks["bbo"].commit(stamp, facts)
        return Rebuilt(self._partition, {self._names[k]: (paths[k], rows[k]) for k in self._names}, facts, False)


def _facts(replay: Replay | WindowReplay, rows_in: int, outputs: dict[str, int]) -> dict[str, Any]:
    """The counts of a rebuild. Every event is counted under exactly one action; a difference is an error of the program, not of the data."""
    counters = replay.counters()
    by_action = {name: counters.pop(name) for name in ("add", "cancel", "fill", "modify", "none", "clear", "trade")}
    if sum(by_action.values()) != rows_in:
        raise BookmillError(f"{rows_in:,} events went in but {sum(by_action.values()):,} were accounted for; nothing was published.")
    applied = by_action["add"] + by_action["cancel"] + by_action["modify"] + by_action["clear"]
    ignored = by_action["trade"] + by_action["fill"] + by_action["none"]
    status, reason = replay.status()
    return {
        "rows_in": rows_in, "rows_out": rows_in, "applied": applied, "ignored": ignored, "actions": by_action,
        "event_ends": counters.pop("event_ends"), "crossed": counters.pop("crossed"), "locked": counters.pop("locked"),
        "anomalies": {name: counters[name] for name in sorted(counters) if name in ANOMALY_NAMES},
        "counts": {name: counters[name] for name in sorted(counters) if name not in ANOMALY_NAMES},
        "outputs": outputs, "status": status, "reason": reason, **replay.end_facts(),
    }  # fmt: skip


ANOMALY_NAMES = (
    "unknown_cancel", "unknown_modify", "over_cancel", "duplicate_add", "side_change", "maybe_bad_book", "quarantined_before", "unknown_level",
)  # fmt: skip
