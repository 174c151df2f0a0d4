"""The rebuilt book of a partition against a book that its vendor published beside it (layer "published"): which states are equal.

Row-by-row schemas (mbp-1, mbp-10) both ways. The truth of an event end is the last published row at or before it in the feed; so nothing is
missing from the published rows. And each published row, also those inside of an event, is a state that our book went through, in that order;
for this the events are replayed once more, record by record.
Sampled schemas (bbo-1s, bbo-1m): the row at T against the book after the last complete event at or before T.
tbbo: the touch before a trade against that of our trades layer, for trades whose sequence number occurs once.
Feeds are joined on the sequence number, or on ts_recv where numbers fall. Of event ends of one number (an execution whose trade, fill and cancel
each end an event) or of one packet, only the last one can be compared: the vendor publishes one row.
Only states in which the book claims to be right are held to the truth. Twin: tests/oracles/naive_certificate.py
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.events_file import read_events
from tasks.partitions import MboRecipe, Partition
from tasks.reconstruction.layer_writer import layer_names
from tasks.reconstruction.proof import to_json
from tasks.reconstruction.proof_kernels import DIFFERENCE_SIZE, Proof, compare_states, find_rows, new_proof, note_states
from tasks.reconstruction.rebuild import COLUMNS, REPLAY_ROWS, restore_closing
from tasks.reconstruction.replay import Replay
from tasks.reconstruction.sample_kernels import NEVER
from tasks.schemas import F_LAST, F_SNAPSHOT, HALTED, UNDEF_PRICE, VALID
from tasks.storage import read_facts

BATCH_ROWS = 32_768
_CLAIMS = pa.array(["valid", "stale", "halted"])  # statuses in which the book claims to be right


@dataclass
class Compared:
    """proof: states compared; published: rows of the file; not_claimed: rows that fall where our book claims nothing."""

    proof: Proof = field(default_factory=new_proof)
    published: int = 0
    not_claimed: int = 0

    def told(self, schema: str, what: str) -> dict[str, Any]:
        """As proof.to_json."""
        return to_json(self.proof, {"schema": schema, "compared": what, "rows_published": self.published, "rows_not_claimed": self.not_claimed})


@dataclass
class _States:
    """m states in feed order: key int64[m] ascending; time int64[m]; sequence uint32[m]; levels (px, sz, ct) each int64[m, 2, depth]; claims
    bool[m]."""

    key: np.ndarray
    time: np.ndarray
    sequence: np.ndarray
    levels: tuple[np.ndarray, np.ndarray, np.ndarray]
    claims: np.ndarray

    def __len__(self) -> int:
        return len(self.key)

    def from_row(self, k: int) -> _States:
        """The states from position k on."""
        px, sz, ct = (values[k:] for values in self.levels)
        return _States(self.key[k:], self.time[k:], self.sequence[k:], (px, sz, ct), self.claims[k:])

    def then(self, other: _States) -> _States:
        """Both, one after the other."""
        px, sz, ct = (np.concatenate(pair) for pair in zip(self.levels, other.levels, strict=True))
        return _States(
            np.concatenate([self.key, other.key]), np.concatenate([self.time, other.time]), np.concatenate([self.sequence, other.sequence]),
            (px, sz, ct), np.concatenate([self.claims, other.claims]),
        )  # fmt: skip


def compare_published(lake: Path, partition: Partition, published: str, recipe: MboRecipe) -> list[dict[str, Any]]:
    """Compare a rebuilt partition with one file of layer "published" (relative to the lake). Returns comparisons as proof.to_json gives them."""
    facts, ours = read_facts(lake / published), read_facts(lake / partition.path("bbo"))
    names = layer_names(recipe)
    compared, schema, clock = Compared(), facts["schema"], ours["clock"]
    rows = lake / partition.path(names["rows"])
    if facts.get("before"):
        _compare_trades(lake / partition.path("trades"), lake / published, clock, _later_trades(lake, ours["events"]), compared)
        return [compared.told(schema, "trades")]
    if facts.get("interval_ns"):
        # Where rows are left out, the touch before the first of a window stands in none of them.
        whole = ours["event_ends"] == ours["outputs"][names["rows"]]
        book = _Layer(lake / partition.path("bbo"), 1, "ts_recv") if whole else _states(lake, ours, recipe, 1, "ts_recv", every_record=False)
        last = max(read_facts(lake / name)["last_ts_recv"] for name in ours["events"])
        _compare_samples(book, _Layer(lake / published, 1, "ts_recv"), last, compared)
        return [compared.told(schema, "samples")]
    depth = min(recipe.depth, facts["depth"])
    key = "sequence" if _ascends(rows) and _ascends(lake / published) else "ts_recv"
    truth = _Layer(lake / published, depth, key, clock)
    middles = _middles(lake, ours["events"], key)
    _compare_events(_last_of_each_key(_Layer(rows, depth, key)), truth, facts["suspect_rows"], middles, compared)
    each = Compared()
    _compare_rows(_states(lake, ours, recipe, depth, key), truth, each)
    return [compared.told(schema, "event ends"), each.told(schema, "rows")]


class _Layer:
    """A book layer or a published file as a stream of states. key: the column they are joined on, as its running maximum; clock: the time of a
    published row."""

    def __init__(self, path: Path, depth: int, key: str, clock: str = "ts_recv") -> None:
        self.path, self.depth, self._key, self._clock = path, depth, key, clock
        self.is_ours = "status" in pq.read_schema(path).names

    def __iter__(self) -> Iterator[_States]:
        wanted = [*{"ts_recv", self._clock}, "sequence", *(["as_of", "status"] if self.is_ours else ["flags"])]
        wanted += [f"{side}_{kind}_{level:02d}" for level in range(self.depth) for side in ("bid", "ask") for kind in ("px", "sz", "ct")]
        low = now = np.iinfo(np.int64).min
        with pq.ParquetFile(self.path, pre_buffer=False) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=wanted):
                columns = {name: batch.column(name) for name in wanted}
                key = _ints(columns[self._key])
                if not self.is_ours and self._key == "sequence":
                    key = _without_snapshots(key, _ints(columns["flags"]), self._key)
                key = np.maximum(np.maximum.accumulate(key), low)
                low = int(key[-1]) if len(key) else low
                levels = []
                for kind in ("px", "sz", "ct"):
                    both = [[_ints(columns[f"{side}_{kind}_{level:02d}"]) for level in range(self.depth)] for side in ("bid", "ask")]
                    levels.append(np.ascontiguousarray(np.array(both).transpose(2, 0, 1)))
                claims = np.ones(len(key), bool)
                if self.is_ours:
                    claims = pc.is_in(columns["status"].cast("string"), value_set=_CLAIMS).to_numpy(zero_copy_only=False)
                if self.is_ours:
                    time = _ints(columns["as_of"])
                else:  # as in Sampling.start
                    inside = (_ints(columns["flags"]) & F_SNAPSHOT) != 0
                    time = np.maximum(np.maximum.accumulate(np.where(inside, _ints(columns["ts_recv"]), _ints(columns[self._clock]))), now)
                    now = int(time[-1]) if len(time) else now
                yield _States(key, time, np.array(columns["sequence"]), (levels[0], levels[1], levels[2]), claims)


def _without_snapshots(key: np.ndarray, flags: np.ndarray, name: str) -> np.ndarray:
    """The key with the sequence numbers of snapshot records, which are those of long ago, set below all others."""
    return np.where((flags & F_SNAPSHOT) != 0, np.iinfo(np.int64).min, key) if name == "sequence" else key


def _last_of_each_key(book: _Layer) -> Iterator[_States]:
    """The last state of each key; one that may go on in the next batch waits for it."""
    waiting: _States | None = None
    for states in book:
        joined = states if waiting is None else waiting.then(states)
        ends = np.flatnonzero(joined.key[1:] != joined.key[:-1])
        if len(ends):
            px, sz, ct = _take(joined.levels, ends)
            yield _States(joined.key[ends], joined.time[ends], joined.sequence[ends], (px, sz, ct), joined.claims[ends])
        waiting = joined.from_row(len(joined) - 1)
    if waiting is not None:
        yield waiting


def _middles(lake: Path, events: list[str], key: str) -> np.ndarray:
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


def _compare_events(book: Iterator[_States], truth: _Layer, doubtful: list[int], middles: np.ndarray, compared: Compared) -> None:
    """Every event end, to the last published row, against the last published row at or before it. doubtful: rows before which one may be
    missing; middles: keys that prove nothing."""
    rows, ended = iter(truth), False
    held: _States | None = None
    first = 0  # position in the file of the first held row
    before_doubt = np.array(doubtful, np.int64) - 1
    for states in book:
        while not ended and (held is None or not len(held) or held.key[-1] <= states.key[-1]):
            more = next(rows, None)
            if more is None:
                ended = True
            else:
                held = more if held is None else held.then(more)
                compared.published += len(more)
        if held is None:
            break
        at = np.searchsorted(held.key, states.key, side="right") - 1
        # What follows the row before a missing one has no known truth.
        known = (at >= 0) & states.claims & ~np.isin(at + first, before_doubt) & ~np.isin(states.key, middles) & (states.key <= held.key[-1])
        _note(compared.proof, held, at[known], states, np.flatnonzero(known))
        last = int(at[-1])
        if last > 0:
            held, first = held.from_row(last), first + last
    compared.published += sum(len(more) for more in rows)


def _states(lake: Path, facts: dict[str, Any], recipe: MboRecipe, depth: int, key: str, *, every_record: bool = True) -> Iterator[_States]:
    """The book after every record of the events, or after every event end. facts: of the rebuilt partition."""
    replay = Replay(
        depth=depth, clock=facts["clock"], every_record=every_record, starts_empty=facts["starts_empty"], halts=facts["trading_states"],
        contiguous=recipe.sequence == "contiguous", windows=[(0, NEVER)], interval_ns=NEVER // 2, batch_rows=REPLAY_ROWS,
    )  # fmt: skip
    if facts["carry"]:
        restore_closing(replay, lake / facts["carry"])
    low = np.iinfo(np.int64).min
    for name in facts["events"]:
        marks, start = np.array(read_facts(lake / name).get("suspect_rows", []), np.int64), 0
        for columns in read_events(lake / name, COLUMNS, REPLAY_ROWS):
            end = start + len(columns["price"])
            here = marks[(marks >= start) & (marks < end)] - start
            start = end
            joined = np.maximum(np.maximum.accumulate(_without_snapshots(columns[key].astype(np.int64), columns["flags"], key)), low)
            low = int(joined[-1])
            for samples in replay.feed(columns, here):
                n = samples.n_rows
                if not n:
                    continue
                px, sz, ct = (
                    np.ascontiguousarray(np.swapaxes(buffer[:, :n].astype(np.int64).reshape(depth, 2, n), 0, 2))
                    for buffer in (samples.rows.px, samples.rows.sz, samples.rows.ct)
                )
                at = samples.rows.at[:n]
                claims = np.isin(samples.rows.status[:n], (VALID, HALTED))
                yield _States(joined[at], samples.events["clock"][at], columns["sequence"][at], (px, sz, ct), claims)
        if len(marks) and marks[-1] >= start:
            replay.doubt()


def _compare_rows(book: Iterator[_States], truth: _Layer, compared: Compared) -> None:
    """Every published row, to the last record of ours, among the states of its own key."""
    held, ended, start = next(book, None), False, 0
    for rows in truth:
        compared.published += len(rows)
        if held is None:
            return
        while not ended and held.key[-1] <= rows.key[-1]:
            more = next(book, None)
            if more is None:
                ended = True
            else:
                held, start = held.from_row(max(start - 1, 0)).then(more), min(start, 1)
        at, good = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.uint8)
        start = find_rows(rows.key, rows.levels, held.key, held.levels, start, at, good)
        known = (at >= 0) & (rows.key <= held.key[-1])
        known[known] = held.claims[at[known]]
        compared.not_claimed += int(np.count_nonzero(~known))
        differ = known & (good == 0)
        levels = np.count_nonzero(rows.levels[0] != UNDEF_PRICE, axis=(1, 2))
        tally, differences = np.stack([levels, levels], axis=1), np.zeros((len(rows), DIFFERENCE_SIZE), np.int64)
        if differ.any():
            some, difference = np.zeros((int(differ.sum()), 2), np.int64), np.zeros((int(differ.sum()), DIFFERENCE_SIZE), np.int64)
            compare_states(_take(rows.levels, differ), _take(held.levels, at[differ]), some, difference)
            tally[differ], differences[differ] = some, difference
        note_states(
            compared.proof, good[known], rows.time[known], rows.sequence[known], tally[known, 0].copy(), tally[known, 1].copy(), differences[known]
        )  # fmt: skip


def _compare_samples(book: Iterable[_States], truth: _Layer, last: int, compared: Compared) -> None:
    """Every published sample, to the last event (ts_recv), against the last of our states at or before its time."""
    ours, ended = iter(book), False
    held: _States | None = None
    for samples in truth:
        compared.published += len(samples)
        while not ended and (held is None or held.key[-1] <= samples.key[-1]):
            more = next(ours, None)
            if more is None:
                ended = True
            else:
                held = more if held is None else held.then(more)
        if held is None:
            return
        at = np.searchsorted(held.key, samples.key, side="right") - 1
        known = (at >= 0) & (samples.key <= last)
        known[known] = held.claims[at[known]]
        compared.not_claimed += int(np.count_nonzero(~known))
        found = _States(samples.key, samples.time, samples.sequence, _take(held.levels, np.maximum(at, 0)), known)
        _note(compared.proof, samples, np.flatnonzero(known), found, np.flatnonzero(known))
        held = held.from_row(max(int(at[-1]), 0))


def _later_trades(lake: Path, events: list[str]) -> np.ndarray:
    """Sequence numbers of the trades that are not the first of their event: what was published before them is its middle."""
    found, event, last = [], 0, -1
    for name in events:
        for columns in read_events(lake / name, ["action", "flags", "sequence"]):
            ends = (columns["flags"] & F_LAST) != 0
            number = event + np.cumsum(ends) - ends
            trades = columns["action"] == ord("T")
            of = number[trades]
            found.append(columns["sequence"][trades][of == np.concatenate([[last], of[:-1]])])
            event, last = event + int(ends.sum()), int(of[-1]) if len(of) else last
    return np.concatenate(found).astype(np.int64)


def _compare_trades(trades: Path, published: Path, clock: str, later: np.ndarray, compared: Compared) -> None:
    """The touch before each trade, where its sequence number tells it from all others. later: numbers of trades that are left out."""
    names = [f"{side}_{kind}_00" for side in ("bid", "ask") for kind in ("px", "sz")]
    ours = pq.ParquetFile(trades, pre_buffer=False).read([clock, "sequence", "status", *names])
    theirs = pq.ParquetFile(published, pre_buffer=False).read(["sequence", *names])
    compared.published += theirs.num_rows
    one, other = _once(_ints(ours["sequence"])), _once(_ints(theirs["sequence"]))
    one = one[~np.isin(_ints(ours["sequence"])[one], later)]
    sequence, i, j = np.intersect1d(_ints(ours["sequence"])[one], _ints(theirs["sequence"])[other], return_indices=True)
    order = np.argsort(one[i], kind="stable")
    mine, yours = one[i][order], other[j][order]
    claims = pc.is_in(ours["status"].cast("string"), value_set=_CLAIMS).to_numpy()[mine]
    compared.not_claimed += int(np.count_nonzero(~claims))
    time = np.maximum.accumulate(_ints(ours[clock]))[mine]
    pair = [_touches(table, names, rows) for table, rows in ((theirs, yours), (ours, mine))]
    expected, found = (_States(time, time, sequence[order].astype(np.uint32), levels, claims) for levels in pair)
    _note(compared.proof, expected, np.flatnonzero(claims), found, np.flatnonzero(claims))


def _touches(table: Any, names: list[str], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    px, sz = (np.stack([_ints(table[f"{side}_{kind}_00"])[rows] for side in ("bid", "ask")], axis=1)[:, :, None] for kind in ("px", "sz"))
    return px, sz, np.full(px.shape, -1, np.int64)


def _note(proof: Proof, truth: _States, expected: np.ndarray, book: _States, found: np.ndarray) -> None:
    """Compare truth[expected] with book[found] and book it."""
    m = len(found)
    tally, differences = np.zeros((m, 2), np.int64), np.zeros((m, DIFFERENCE_SIZE), np.int64)
    compare_states(_take(truth.levels, expected), _take(book.levels, found), tally, differences)
    good = tally[:, 0] == tally[:, 1]
    note_states(proof, good.astype(np.uint8), book.time[found], book.sequence[found], tally[:, 0].copy(), tally[:, 1].copy(), differences)


def _take(levels: tuple[np.ndarray, np.ndarray, np.ndarray], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    px, sz, ct = (values[rows] for values in levels)
    return px, sz, ct


def _ascends(path: Path) -> bool:
    """Whether sequence numbers never fall, snapshots left out: then they join the two feeds exactly."""
    last, began = -1, False
    names = pq.read_schema(path).names
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(1 << 18, columns=["sequence", *(["flags"] if "flags" in names else [])]):
            sequence = _ints(batch.column("sequence"))
            if "flags" in names:
                inside = (_ints(batch.column("flags")) & F_SNAPSHOT) != 0
                if (inside[0] and began) or (inside[1:] & ~inside[:-1]).any():  # nothing tells where between the others a later snapshot stands
                    return False
                sequence = sequence[~inside]
            if len(sequence) and (sequence[0] < last or (np.diff(sequence) < 0).any()):
                return False
            last = int(sequence[-1]) if len(sequence) else last
            began = began or len(sequence) > 0
    return last > 0


def _once(values: np.ndarray) -> np.ndarray:
    """Positions of the values that occur once."""
    _, first, counts = np.unique(values, return_index=True, return_counts=True)
    return np.sort(first[counts == 1])


def _ints(column: Any) -> np.ndarray:
    if str(column.type).startswith("timestamp"):
        column = column.cast("int64")
    return np.array(column, np.int64)
