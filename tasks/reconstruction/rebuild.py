"""One partition: events files in, book layers out. Reads, feeds the replay, writes; the rules of the book are in the kernels.

Outputs: bbo, mbp-N (event ends), mbp-N-<interval> (grid), trades, checkpoints (the resting orders every so many records), opening_book (those
of a snapshot with which the events begin, the truth of the day before) and closing_book (those at the end, from which the next day goes on
when its own events do not begin with a clear or a whole snapshot). All carry one stamp; the bbo file is named last and holds the counts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from tasks.ahead import ahead
from tasks.errors import BookmillError, LakeConflict
from tasks.events_file import read_events
from tasks.footers import contents, is_done, read_facts, read_footer
from tasks.partitions import MboRecipe, Partition, Stamp, digest
from tasks.reconstruction.carry import cut_rows
from tasks.reconstruction.checkpoints import CHECKPOINT_EVERY, read_resting
from tasks.reconstruction.layer_writer import LayerWriter, Rebuilt, layer_names
from tasks.reconstruction.marks import Marks
from tasks.reconstruction.replay import Replay
from tasks.reconstruction.window import WindowReplay
from tasks.schemas import F_LAST, F_SNAPSHOT

# Records of one pass of the kernel.
REPLAY_ROWS = 32_768
COLUMNS = ("ts_event", "ts_recv", "action", "side", "price", "size", "order_id", "flags", "sequence")


def rebuild_stamp(lake: Path, events: Sequence[str], recipe: MboRecipe, windows: Sequence[tuple[int, int]] | None, carry: str | None = None) -> Stamp:
    """What the book layers of a partition are made from. Raises BookmillError when an events file is not there."""
    inputs = []
    for name in [*events, *([carry] if carry else [])]:
        footer = read_footer(lake / name)
        if footer is None:
            raise BookmillError(f"{lake / name} is missing or not readable. Start the run again: it is made anew from its source.")
        inputs.append([footer["bookmill.inputs"], footer["bookmill.recipe"], footer["bookmill.code"]])
    options = recipe.digest_of("depth", "interval_ns", "clock", "on_book_error", "starts_empty", "stale_after_ns", "sequence")
    return Stamp(digest(inputs), digest([options, windows]))


def is_rebuilt(lake: Path, partition: Partition, stamp: Stamp, recipe: MboRecipe) -> Rebuilt | None:
    """The outputs when all are there with this stamp, else None."""
    paths = {layer: partition.path(layer) for layer in layer_names(recipe).values()}
    if not all(is_done(lake / path, stamp) for path in paths.values()):
        return None
    facts = read_facts(lake / paths["bbo"])
    return Rebuilt(partition, {layer: (path, facts["outputs"][layer]) for layer, path in paths.items()}, facts, True)


def begins_with(lake: Path, events: Sequence[str]) -> str:
    """What the first event is: "clear"; "snapshot", a record of one and no clear: of one without, or of the rest of one that began on the day
    before; "" for neither."""
    first = next(read_events(lake / events[0], ["action", "flags"], 1), None)
    if first is None:
        return ""
    return "clear" if chr(first["action"][0]) == "R" else "snapshot" if first["flags"][0] & F_SNAPSHOT else ""


def starts_clean(lake: Path, events: Sequence[str]) -> bool:
    """Whether the first event clears the book or is of a snapshot, so that nothing of the day before is needed, but for the rest of a snapshot."""
    return begins_with(lake, events) != ""


def stops_inside(lake: Path, events: Sequence[str]) -> bool:
    """Whether the last event is a record of a snapshot and not its end."""
    file = pq.ParquetFile(lake / events[-1], pre_buffer=False)
    flags = file.read_row_group(file.num_row_groups - 1, ["flags"])["flags"]
    return flags[-1].as_py() & (F_SNAPSHOT | F_LAST) == F_SNAPSHOT


def closed_inside(lake: Path, closing: str) -> bool:
    """Whether a closing book is that of a snapshot which is not complete, and goes on when the next day begins inside of one."""
    facts = read_facts(lake / closing)
    return facts.get("incomplete", 0) != 0 and facts.get("in_snapshot", 0) == 1


def goes_on(lake: Path, events: Sequence[str], carry: str) -> bool:
    """Whether the book of these events goes on from this closing book: they begin with neither a clear nor a snapshot, or inside of one."""
    first = begins_with(lake, events)
    return not first or (first == "snapshot" and closed_inside(lake, carry))


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

    events: paths relative to the lake; windows: half-open ns spans in which rows are wanted (None: all), of which the grid has those of the UTC
    day; carry: closing_book of the day before.
    Raises BookError (on_book_error="fail"), LakeConflict (two events files cover the same time), StorageError.
    """
    events = in_time_order(lake, partition, events)
    carry = carry if carry and goes_on(lake, events, carry) else None
    rows_in = sum(read_facts(lake / name)["rows_out"] for name in events)
    batch_rows = min(batch_rows, REPLAY_ROWS, max(rows_in, 1))  # the buffers of a small book need not be those of a large one
    beside = rows_in > batch_rows  # a partition of one batch is done before threads that read and encode beside the replay would be of use
    stamp = rebuild_stamp(lake, events, recipe, windows, carry)
    done = is_rebuilt(lake, partition, stamp, recipe)
    if done:
        return done
    with ExitStack() as stack:
        writer = LayerWriter(lake, partition, recipe, stack, beside=beside)
        replay = _run(lake, partition, events, recipe, windows, carry, batch_rows, beside, writer, progress)
        for samples in replay.finish():
            writer.write(samples)
        if isinstance(replay, Replay):
            replay.audit()
        made_from = {
            "events": events, "carry": carry, "carry_made": contents(lake, [carry]) if carry else None, "clock": recipe.clock,
            "starts_empty": recipe.starts_empty, "windowed": isinstance(replay, WindowReplay), "trading_states": _tells_halts(lake, events),
            "stale_after_ns": recipe.stale_after_ns, "contiguous": recipe.sequence == "contiguous", "windows": windows,
            "cut_rows": cut_rows(lake, events),
        }  # fmt: skip
        return writer.commit(replay, stamp, rows_in, made_from)


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
    batch_rows: int, beside: bool, writer: LayerWriter, progress: Callable[[int], None] | None,
) -> Replay | WindowReplay:  # fmt: skip
    truths = [lake / partition.path("truth", name.rsplit("-", 1)[-1].removesuffix(".parquet")) for name in events]
    windowed = truths[0].exists()
    strict = recipe.on_book_error == "fail"
    grid_windows = None if windows is None else partition.of_day(windows)
    if windowed:
        levels = [_levels_of(truth) for truth in truths]
        window_replay = WindowReplay(
            levels=max(levels),
            depth=recipe.depth,
            interval_ns=recipe.interval_ns,
            clock=recipe.clock,
            windows=windows,
            grid_windows=grid_windows,
            strict=strict,
            batch_rows=batch_rows,
            stale_after_ns=recipe.stale_after_ns,
        )
    else:
        replay = Replay(
            depth=recipe.depth, interval_ns=recipe.interval_ns, clock=recipe.clock, windows=windows, grid_windows=grid_windows,
            starts_empty=recipe.starts_empty, strict=strict, batch_rows=batch_rows, contiguous=recipe.sequence == "contiguous",
            halts=_tells_halts(lake, events), stale_after_ns=recipe.stale_after_ns, checkpoint_every=CHECKPOINT_EVERY,
            on_checkpoint=lambda row: writer.checkpoints.add(name, at + row, replay.closing(), replay.moment),
        )  # fmt: skip
        if carry:
            restore_closing(replay, lake / carry)
    name, at = "", 0
    for number, (name, truth) in enumerate(zip(events, truths, strict=True)):
        if windowed:
            window_replay.next_file(levels[number])
        else:
            replay.next_file()
        facts, at = read_facts(lake / name), 0
        marks = Marks(facts, facts["rows_out"])
        rows = _TruthRows(truth) if windowed else None
        batches = read_events(lake / name, COLUMNS, batch_rows)
        for columns in ahead(batches, 2, "read") if beside else batches:
            n = len(columns["price"])
            here = marks.within(at, at + n)
            if rows is not None:
                steps = window_replay.feed(columns, rows.take(int(np.count_nonzero(columns["flags"] & F_LAST))), here)
            else:
                steps = replay.feed(columns, here)
            for samples in steps:
                writer.write(samples)
            at += n
            if progress:
                progress(n)
        if marks.at_end:
            for samples in (window_replay if windowed else replay).doubt():
                writer.write(samples)
    return window_replay if windowed else replay


def _levels_of(truth: Path) -> int:
    return (len(pq.read_schema(truth)) - 1) // 4


class _TruthRows:
    """Published books of one events file, handed out in order as int64[m, levels, 4]."""

    def __init__(self, path: Path) -> None:
        self._batches = pq.ParquetFile(path, pre_buffer=False).iter_batches(65_536)
        self._levels = _levels_of(path)
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
    """Put a closing book into an empty one."""
    replay.restore(read_resting(path), read_facts(path))


def _tells_halts(lake: Path, events: Sequence[str]) -> bool:
    """Whether the N records of the source with a price tell the trading state."""
    return any(read_facts(lake / name).get("trading_states", False) for name in events)
