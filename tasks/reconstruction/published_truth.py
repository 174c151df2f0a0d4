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
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.events_file import read_events
from tasks.footers import read_facts
from tasks.partitions import MboRecipe, Partition
from tasks.reconstruction.layer_writer import layer_names
from tasks.reconstruction.marks import Marks
from tasks.reconstruction.proof import to_json
from tasks.reconstruction.proof_kernels import DIFFERENCE_SIZE, Proof, compare_states, find_rows, new_proof, note_states
from tasks.reconstruction.published_states import CLAIMS, Layer, Levels, States, ascends, ints, last_of_each_key, middles_of, replayed_states, take
from tasks.schemas import F_LAST, UNDEF_PRICE


@dataclass
class Compared:
    """proof: states compared; published: rows of the file; not_claimed: rows that fall where our book claims nothing."""

    proof: Proof = field(default_factory=new_proof)
    published: int = 0
    not_claimed: int = 0

    def told(self, schema: str, what: str) -> dict[str, Any]:
        """As proof.to_json."""
        return to_json(self.proof, {"schema": schema, "compared": what, "rows_published": self.published, "rows_not_claimed": self.not_claimed})


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
        book = Layer(lake / partition.path("bbo"), 1, "ts_recv") if whole else replayed_states(lake, ours, 1, "ts_recv", every_record=False)
        last = max(read_facts(lake / name)["last_ts_recv"] for name in ours["events"])
        _compare_samples(book, Layer(lake / published, 1, "ts_recv"), last, compared)
        return [compared.told(schema, "samples")]
    depth = min(recipe.depth, facts["depth"])
    key = "sequence" if ascends(rows) and ascends(lake / published) else "ts_recv"
    truth = Layer(lake / published, depth, key, clock)
    middles = middles_of(lake, ours["events"], key)
    _compare_events(last_of_each_key(Layer(rows, depth, key)), truth, Marks(facts, facts["rows_out"]), middles, compared)
    each = Compared()
    _compare_rows(replayed_states(lake, ours, depth, key), truth, each)
    return [compared.told(schema, "event ends"), each.told(schema, "rows")]


def _compare_events(book: Iterator[States], truth: Layer, doubtful: Marks, middles: np.ndarray, compared: Compared) -> None:
    """Every event end, to the last published row, against the last published row at or before it. doubtful: rows before which one may be
    missing; middles: keys that prove nothing."""
    rows, ended = iter(truth), False
    held: States | None = None
    first = 0  # position in the file of the first held row
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
        before_doubt = np.isin(at, doubtful.within(first + 1, first + 1 + len(held)))
        known = (at >= 0) & states.claims & ~before_doubt & ~np.isin(states.key, middles) & (states.key <= held.key[-1])
        _note(compared.proof, held, at[known], states, np.flatnonzero(known))
        last = int(at[-1])
        if last > 0:
            held, first = held.from_row(last), first + last
    compared.published += sum(len(more) for more in rows)


def _compare_rows(book: Iterator[States], truth: Layer, compared: Compared) -> None:
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
            compare_states(take(rows.levels, differ), take(held.levels, at[differ]), some, difference)
            tally[differ], differences[differ] = some, difference
        note_states(
            compared.proof, good[known], rows.time[known], rows.sequence[known], tally[known, 0].copy(), tally[known, 1].copy(), differences[known]
        )  # fmt: skip


def _compare_samples(book: Iterable[States], truth: Layer, last: int, compared: Compared) -> None:
    """Every published sample, to the last event (ts_recv), against the last of our states at or before its time."""
    ours, ended = iter(book), False
    held: States | None = None
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
        found = States(samples.key, samples.time, samples.sequence, take(held.levels, np.maximum(at, 0)), known)
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
    one, other = _once(ints(ours["sequence"])), _once(ints(theirs["sequence"]))
    one = one[~np.isin(ints(ours["sequence"])[one], later)]
    sequence, i, j = np.intersect1d(ints(ours["sequence"])[one], ints(theirs["sequence"])[other], return_indices=True)
    order = np.argsort(one[i], kind="stable")
    mine, yours = one[i][order], other[j][order]
    claims = pc.is_in(ours["status"].cast("string"), value_set=CLAIMS).to_numpy()[mine]
    compared.not_claimed += int(np.count_nonzero(~claims))
    time = np.maximum.accumulate(ints(ours[clock]))[mine]
    pair = [_touches(table, names, rows) for table, rows in ((theirs, yours), (ours, mine))]
    expected, found = (States(time, time, sequence[order].astype(np.uint32), levels, claims) for levels in pair)
    _note(compared.proof, expected, np.flatnonzero(claims), found, np.flatnonzero(claims))


def _touches(table: Any, names: list[str], rows: np.ndarray) -> Levels:
    px, sz = (np.stack([ints(table[f"{side}_{kind}_00"])[rows] for side in ("bid", "ask")], axis=1)[:, :, None] for kind in ("px", "sz"))
    return px, sz, np.full(px.shape, -1, np.int64)


def _note(proof: Proof, truth: States, expected: np.ndarray, book: States, found: np.ndarray) -> None:
    """Compare truth[expected] with book[found] and book it."""
    m = len(found)
    tally, differences = np.zeros((m, 2), np.int64), np.zeros((m, DIFFERENCE_SIZE), np.int64)
    compare_states(take(truth.levels, expected), take(book.levels, found), tally, differences)
    good = tally[:, 0] == tally[:, 1]
    note_states(proof, good.astype(np.uint8), book.time[found], book.sequence[found], tally[:, 0].copy(), tally[:, 1].copy(), differences)


def _once(values: np.ndarray) -> np.ndarray:
    """Positions of the values that occur once."""
    _, first, counts = np.unique(values, return_index=True, return_counts=True)
    return np.sort(first[counts == 1])
