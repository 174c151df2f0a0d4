"""Books as streams of states: a layer of ours, a published file, or the events replayed once more. Nothing is compared here.

Feeds are joined on a key: the sequence number, or ts_recv where numbers fall.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.book_rows import levels_of, read_rows
from tasks.events_file import read_events
from tasks.footers import read_facts
from tasks.reconstruction.marks import Marks
from tasks.reconstruction.rebuild import COLUMNS, REPLAY_ROWS, restore_closing
from tasks.reconstruction.replay import Replay
from tasks.reconstruction.sample_kernels import NEVER
from tasks.schemas import F_LAST, F_SNAPSHOT, HALTED, VALID

BATCH_ROWS = 32_768
CLAIMS = pa.array(["valid", "stale", "halted"])  # statuses in which the book claims to be right


Levels = tuple[np.ndarray, np.ndarray, np.ndarray]  # px, sz, ct, each int64[m, 2, depth]


@dataclass
class States:
    """m states in feed order: key int64[m] ascending; time int64[m]; sequence uint32[m]; levels (px, sz, ct) each int64[m, 2, depth]; claims
    bool[m]."""

    key: np.ndarray
    time: np.ndarray
    sequence: np.ndarray
    levels: Levels
    claims: np.ndarray

    def __len__(self) -> int:
        return len(self.key)

    def from_row(self, k: int) -> States:
        """The states from position k on."""
        px, sz, ct = (values[k:] for values in self.levels)
        return States(self.key[k:], self.time[k:], self.sequence[k:], (px, sz, ct), self.claims[k:])

    def then(self, other: States) -> States:
        """Both, one after the other."""
        px, sz, ct = (np.concatenate(pair) for pair in zip(self.levels, other.levels, strict=True))
        return States(
            np.concatenate([self.key, other.key]), np.concatenate([self.time, other.time]), np.concatenate([self.sequence, other.sequence]),
            (px, sz, ct), np.concatenate([self.claims, other.claims]),
        )  # fmt: skip


class Layer:
    """A book layer or a published file as a stream of states. key: the column they are joined on, as its running maximum; clock: the time of a
    published row."""

    def __init__(self, path: Path, depth: int, key: str, clock: str = "ts_recv") -> None:
        self.path, self.depth, self._key, self._clock = path, depth, key, clock
        self.is_ours = "status" in pq.read_schema(path).names

    def __iter__(self) -> Iterator[States]:
        wanted = [*{"ts_recv", self._clock}, "sequence", *(["as_of", "status"] if self.is_ours else ["flags"])]
        wanted += [f"{side}_{kind}_{level:02d}" for level in range(self.depth) for side in ("bid", "ask") for kind in ("px", "sz", "ct")]
        low = now = np.iinfo(np.int64).min
        for batch in read_rows(self.path, wanted, BATCH_ROWS):
            columns = {name: batch.column(name) for name in wanted}
            key = ints(columns[self._key])
            if not self.is_ours and self._key == "sequence":
                key = _without_snapshots(key, ints(columns["flags"]), self._key)
            key = np.maximum(np.maximum.accumulate(key), low)
            low = int(key[-1]) if len(key) else low
            levels = []
            for kind in ("px", "sz", "ct"):
                both = [[ints(columns[f"{side}_{kind}_{level:02d}"]) for level in range(self.depth)] for side in ("bid", "ask")]
                levels.append(np.ascontiguousarray(np.array(both).transpose(2, 0, 1)))
            claims = np.ones(len(key), bool)
            if self.is_ours:
                claims = pc.is_in(columns["status"].cast("string"), value_set=CLAIMS).to_numpy(zero_copy_only=False)
            if self.is_ours:
                time = ints(columns["as_of"])
            else:  # as in Sampling.start
                inside = (ints(columns["flags"]) & F_SNAPSHOT) != 0
                time = np.maximum(np.maximum.accumulate(np.where(inside, ints(columns["ts_recv"]), ints(columns[self._clock]))), now)
                now = int(time[-1]) if len(time) else now
            yield States(key, time, np.array(columns["sequence"]), (levels[0], levels[1], levels[2]), claims)


def _without_snapshots(key: np.ndarray, flags: np.ndarray, name: str) -> np.ndarray:
    """The key with the sequence numbers of snapshot records, which are those of long ago, set below all others."""
    return np.where((flags & F_SNAPSHOT) != 0, np.iinfo(np.int64).min, key) if name == "sequence" else key


def last_of_each_key(book: Layer) -> Iterator[States]:
    """The last state of each key; one that may go on in the next batch waits for it."""
    waiting: States | None = None
    for states in book:
        joined = states if waiting is None else waiting.then(states)
        ends = np.flatnonzero(joined.key[1:] != joined.key[:-1])
        if len(ends):
            px, sz, ct = take(joined.levels, ends)
            yield States(joined.key[ends], joined.time[ends], joined.sequence[ends], (px, sz, ct), joined.claims[ends])
        waiting = joined.from_row(len(joined) - 1)
    if waiting is not None:
        yield waiting


def middles_of(lake: Path, events: list[str], key: str) -> np.ndarray:
    """Keys whose last record ends no event: what is published of such a key is the middle of the next event, and no truth of the one that
    ended in it."""
    found: list[np.ndarray] = []
    low, ends = np.iinfo(np.int64).min, np.ones(1, bool)
    for name in events:
        for columns in read_events(lake / name, [key, "flags"]):
            taken = slice(None) if key == "ts_recv" else (columns["flags"] & F_SNAPSHOT) == 0
            joined = np.maximum.accumulate(np.concatenate([[low], columns[key][taken].astype(np.int64)]))
            ends = np.concatenate([ends[-1:], (columns["flags"][taken] & F_LAST) != 0])
            found.append(joined[:-1][(joined[1:] != joined[:-1]) & ~ends[:-1]])
            low = int(joined[-1])
    return np.concatenate([*found, np.array([low] if not ends[-1] else [], np.int64)])


def replayed_states(lake: Path, facts: dict[str, Any], depth: int, key: str, *, every_record: bool = True) -> Iterator[States]:
    """The book after every record of the events, or after every event end. facts: of the rebuilt partition."""
    replay = Replay(
        depth=depth, clock=facts["clock"], every_record=every_record, starts_empty=facts["starts_empty"], halts=facts["trading_states"],
        contiguous=facts.get("contiguous", False), windows=[(0, NEVER)], interval_ns=NEVER // 2, batch_rows=REPLAY_ROWS,
    )  # fmt: skip
    if facts["carry"]:
        restore_closing(replay, lake / facts["carry"])
    low = np.iinfo(np.int64).min
    for name in facts["events"]:
        replay.next_file()
        told, start = read_facts(lake / name), 0
        marks = Marks(told, told["rows_out"])
        for columns in read_events(lake / name, COLUMNS, REPLAY_ROWS):
            end = start + len(columns["price"])
            here = marks.within(start, end)
            start = end
            joined = np.maximum(np.maximum.accumulate(_without_snapshots(columns[key].astype(np.int64), columns["flags"], key)), low)
            low = int(joined[-1])
            for samples in replay.feed(columns, here):
                n = samples.n_rows
                if not n:
                    continue
                at = samples.rows.at[:n]
                claims = np.isin(samples.rows.status[:n], (VALID, HALTED))
                yield States(joined[at], samples.events["clock"][at], columns["sequence"][at], levels_of(samples.rows.levels[:n]), claims)
        if marks.at_end:
            for _ in replay.doubt():  # its rows are not asked for
                pass


def take(levels: Levels, rows: np.ndarray) -> Levels:
    """The levels of some states; rows: positions or a mask."""
    px, sz, ct = (values[rows] for values in levels)
    return px, sz, ct


def ascends(path: Path) -> bool:
    """Whether sequence numbers never fall, snapshots left out: then they join the two feeds exactly."""
    last, began = -1, False
    names = pq.read_schema(path).names
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(1 << 18, columns=["sequence", *(["flags"] if "flags" in names else [])]):
            sequence = ints(batch.column("sequence"))
            if "flags" in names:
                inside = (ints(batch.column("flags")) & F_SNAPSHOT) != 0
                if (inside[0] and began) or (inside[1:] & ~inside[:-1]).any():  # nothing tells where between the others a later snapshot stands
                    return False
                sequence = sequence[~inside]
            if len(sequence) and (sequence[0] < last or (np.diff(sequence) < 0).any()):
                return False
            last = int(sequence[-1]) if len(sequence) else last
            began = began or len(sequence) > 0
    return last > 0


def ints(column: Any) -> np.ndarray:
    """An integer or timestamp column as int64[n]."""
    if str(column.type).startswith("timestamp"):
        column = column.cast("int64")
    return np.array(column, np.int64)
