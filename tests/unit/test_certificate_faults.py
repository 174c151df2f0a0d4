"""Delete, duplicate, swap or alter any one message of a session: what is wrong is named by a status or by the certificate, and nothing else changes.

The book at a time T is that of the last row with as_of <= T; it is wrong where its levels are not those of the undamaged session. It is named
where its row is not `valid`, or where T lies in a wrong span of the certificate. What holds, and what is asserted here:

With the published book beside the events (all levels, a row for each change):
- each wrong T to the last published row is named, whatever the fault; where sequence numbers still rise, the spans of the event ends are exactly
  those between the last and the next state that is equal.
With snapshots only (one every 500 records), for each T at which there is a row (a message that is missing is not known before the next one):
- each wrong T is named, if at the next snapshot the book is wrong, or if an anomaly was seen before it (unknown id, cancel of too much, ...);
- a fault that undoes itself before the next snapshot without an anomaly (a price altered, and the order cancelled) leaves no trace in any truth:
  these T are not named. With contiguous sequence numbers a missing or misplaced message is one: there only altered messages, and one sent twice,
  can be such;
- after the last snapshot nothing is proven: `last_compared` says up to where it is.
In all settings: after the first snapshot that stands wholly behind the fault every row of every layer is that of the undamaged session, status and
reason included; before the fault too; and no fault makes anything but the altered row of `trades` itself differ without a name. A trade or a fill
that is altered changes no book, and no truth beside it tells its price and size.
"""

from __future__ import annotations

import os
import tempfile
from bisect import bisect_right
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.book_rows import read_table
from tasks.partitions import MboRecipe
from tasks.reconstruction.certify import certify
from tasks.reconstruction.layer_writer import layer_names
from tasks.reconstruction.rebuild import rebuild
from tasks.scanning.synthetic import SessionSpec, generate
from tasks.schemas import F_LAST, F_SNAPSHOT, MBO_RECORD, UNDEF_PRICE
from tests.certificates import only, row_of, write_published
from tests.lake_building import PARTITION, write_events
from tests.oracles import naive_certificate as naive
from tests.oracles.naive_book import NaiveBook

EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "60"))
DEPTH = 24  # more than any book of the sessions has
EVERY = 500
KINDS = ("delete", "twice", "swap", "size", "price", "side", "order_id", "action")
SETTINGS = ("snapshots", "published", "contiguous")
Levels = tuple[tuple[int, int, int], ...]


class Clean(NamedTuple):
    """A session with snapshots, every record with a number of its own; published: mbp rows of it; ends: time at which each snapshot is whole."""

    records: np.ndarray
    published: list[dict[str, Any]]
    numbers: list[int]
    states: list[dict[str, list[tuple[int, int, int]]]]
    ends: list[int]


@lru_cache
def session(seed: int) -> Clean:
    plain = np.concatenate(list(generate(SessionSpec(records=2_300, seed=seed, live_orders=20, mid_clear=seed % 2 == 0))))
    plain["sequence"] = 700 + np.arange(len(plain))
    book, rows, parts, numbers, states, ends = NaiveBook(), [], [], [], [], []
    last, since = None, 0
    for i, rec in enumerate(plain):
        book.apply(rec)
        levels = {side: book.levels(side) for side in "BA"}
        assert max(map(len, levels.values())) < DEPTH
        parts.append(plain[i : i + 1])
        numbers.append(int(rec["sequence"]))
        states.append(levels)
        if levels != last:
            rows.append(row_of(rec, chr(rec["action"]), levels, DEPTH))
            last = levels
        since += 1
        gap = i + 1 < len(plain) and int(plain["ts_recv"][i + 1]) - int(rec["ts_recv"])
        if since >= EVERY and book.event_end and gap > 1:
            parts.append(snapshot_of(book, rec))
            ends.append(int(rec["ts_recv"]) + 1)
            since = 0
    return Clean(np.concatenate(parts), rows, numbers, states, ends)


def snapshot_of(book: NaiveBook, rec: np.void) -> np.ndarray:
    """R and the resting orders, a nanosecond after `rec`; their numbers are that of `rec`."""
    orders = [(side, price, i, size) for side in "BA" for price in book.queues[side] for i, size in book.queue(price, side)]
    out = np.zeros(1 + len(orders), MBO_RECORD)
    for name in ("publisher_id", "instrument_id", "sequence", "ts_event"):
        out[name] = rec[name]
    out["ts_recv"], out["flags"] = rec["ts_recv"] + 1, F_SNAPSHOT
    out["action"], out["side"], out["price"] = ord("A"), ord("N"), UNDEF_PRICE
    out["action"][0] = ord("R")
    for row, (side, price, order_id, size) in zip(out[1:], orders, strict=True):
        row["side"], row["price"], row["order_id"], row["size"] = ord(side), price, order_id, size
    out["flags"][-1] |= F_LAST
    return out


def damage(records: np.ndarray, kind: str, at: int, value: int) -> np.ndarray:
    if kind == "delete":
        return np.delete(records, at)
    if kind == "twice":
        return np.insert(records, at, records[at])
    out = records.copy()
    if kind == "swap":
        out[[at, at + 1]] = out[[at + 1, at]]
    elif kind == "size":
        out["size"][at] = max(0, int(out["size"][at]) + (value if value % 2 else -value))
    elif kind == "price" and out["price"][at] != UNDEF_PRICE:
        out["price"][at] += 250_000_000 * (value - 4)
    elif kind == "side":
        out["side"][at] = {ord("A"): ord("B"), ord("B"): ord("A")}.get(int(out["side"][at]), ord("B"))
    elif kind == "order_id":
        out["order_id"][at] = records["order_id"][value * len(records) // 10]
    elif kind == "action":
        out["action"][at] = ord("ACMFTNR"[value % 7])
    return out


class Made(NamedTuple):
    """rows: (as_of, sequence, levels, status, reason) of mbp; others: bbo and trades as tuples with their time first; certificate; facts."""

    rows: list[tuple]
    others: dict[str, list[tuple]]
    certificate: Any
    anomalies: int


def run(records: np.ndarray, setting: str, published: list[dict[str, Any]]) -> Made:
    recipe = MboRecipe(depth=DEPTH, interval_ns=10**13, sequence="contiguous" if setting == "contiguous" else "sparse")
    with tempfile.TemporaryDirectory() as folder:
        lake = Path(folder)
        facts = rebuild(lake, PARTITION, [write_events(lake, records)], recipe).facts
        if setting == "published":
            write_published(lake, published, f"mbp-{DEPTH}", DEPTH)
        certificate = certify(lake, PARTITION, recipe)
        names = [f"{side}_{kind}_{k:02d}" for k in range(DEPTH) for side in ("bid", "ask") for kind in ("px", "sz", "ct")]
        rows = _read(lake / PARTITION.path(layer_names(recipe)["rows"]), ["as_of", "sequence", "status", "reason", *names])
        bbo = ["as_of", "sequence", "status", "reason", *names[:6]]
        trades = ["ts_recv", "sequence", "status", "reason", "price", "size", "side", "side_method", "order_id"]
        others = {
            "bbo": _read(lake / PARTITION.path("bbo"), bbo),
            "trades": _read(lake / PARTITION.path("trades"), [*trades, *(f"{s}_{k}_00" for s in ("bid", "ask") for k in ("px", "sz"))]),
        }
    return Made(rows, others, certificate, sum(facts["anomalies"].values()))


def _read(path: Path, names: list[str]) -> list[tuple]:
    table = read_table(path, names)
    columns = [(table[n].cast("int64") if n in ("as_of", "ts_recv") else table[n]).to_pylist() for n in names]
    return list(zip(*columns, strict=True))


@lru_cache
def clean_run(seed: int, setting: str) -> Made:
    clean = session(seed)
    made = run(clean.records, setting, clean.published)
    assert made.certificate.verdict == "matched"
    assert made.anomalies == 0
    return made


def as_of(rows: list[tuple], times: list[int], at: int) -> tuple | None:
    k = bisect_right(times, at) - 1
    return rows[k] if k >= 0 else None


def check(seed: int, kind: str, place: int, value: int, setting: str) -> None:
    clean = session(seed)
    at = place % (len(clean.records) - 1)
    records = damage(clean.records, kind, at, value)
    right, made = clean_run(seed, setting), run(records, setting, clean.published)
    hit = clean.records[at : at + 2 if kind == "swap" else at + 1]
    in_snapshot = bool((hit["flags"] & F_SNAPSHOT).any())
    start = int(min(hit["ts_recv"]))
    behind = [end for end in clean.ends if end > int(max(hit["ts_recv"]))]
    healed = behind[0] if behind else None

    # Before the fault, and after the first snapshot behind it, nothing is changed.
    for name, ours, theirs in (("rows", made.rows, right.rows), *((n, made.others[n], right.others[n]) for n in right.others)):
        assert [r for r in ours if r[0] < start] == [r for r in theirs if r[0] < start], name
        if healed is not None:
            assert [r for r in ours if r[0] > healed] == [r for r in theirs if r[0] > healed], name

    # Where the book is wrong, and what names it.
    ours, theirs = [r[0] for r in made.rows], [r[0] for r in right.rows]
    wrong = []
    for time in sorted({*ours, *theirs} if setting == "published" else {*ours}):
        mine, yours = as_of(made.rows, ours, time), as_of(right.rows, theirs, time)
        if mine is None or yours is None or (mine[4:] == yours[4:] or mine[2] != "valid"):
            continue
        wrong.append(time)
    spans = [span for row in made.certificate.rows if row["truth"] in ("snapshot", "published") for span in only_spans(row)]
    unnamed = [time for time in wrong if not any(named(span, time) for span in spans)]
    if setting == "published":
        unnamed = [time for time in unnamed if time <= clean.published[-1]["ts_recv"]]
    else:
        if setting != "contiguous" or kind not in ("delete", "swap") or in_snapshot:
            unnamed = [time for time in unnamed if not is_transient(time, clean, made, right)]
        unnamed = [time for time in unnamed if time < clean.ends[-1]]
    if kind in ("delete", "swap"):  # of the same time as a row before it, which is right: not known before the next message
        unnamed = [time for time in unnamed if time != start]
    assert unnamed == [], f"{kind} of {hit}: wrong at {unnamed}, named {spans}"
    assert bool([t for t in wrong if any(named(s, t) for s in spans)]) <= (made.certificate.verdict == "diverged")

    if setting == "published" and kind != "swap":
        row = only(made.certificate, "published", "event ends")
        states = {made.rows[k][1]: made.rows[k] for k in range(len(made.rows)) if made.rows[k][1] <= clean.published[-1]["sequence"]}
        compared = [(mine[0], mine[4:] == truth_at(clean, number)) for number, mine in states.items() if mine[2] == "valid"]
        assert row["wrong"] == naive.wrong_spans(compared)


def truth_at(clean: Clean, number: int) -> tuple:
    levels = clean.states[bisect_right(clean.numbers, number) - 1]
    out = []
    for k in range(DEPTH):
        for side in "BA":
            out += levels[side][k] if k < len(levels[side]) else naive.EMPTY
    return tuple(out)


def only_spans(row: dict[str, Any]) -> list[tuple[int | None, int | None]]:
    return [(getattr(span["start"], "value", None), getattr(span["end"], "value", None)) for span in row["wrong"]]


def named(span: tuple[int | None, int | None], time: int) -> bool:
    """Whether a time lies in a span, its ends included: a right and a wrong state can be of one time."""
    start, end = span
    return (start is None or start <= time) and (end is None or time <= end)


def is_transient(time: int, clean: Clean, made: Made, right: Made) -> bool:
    """Whether the next snapshot behind `time` finds the book right and unsuspected."""
    later = [end for end in clean.ends if end > time]
    if not later:
        return False
    mine, yours = ([r for r in rows if r[0] < later[0]][-1] for rows in (made.rows, right.rows))
    return mine[2] == "valid" and mine[4:] == yours[4:]


faults = given(
    st.integers(1, 4), st.sampled_from(KINDS), st.integers(0, 10**6), st.integers(0, 9), st.sampled_from(SETTINGS)
)  # fmt: skip


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@faults
def test_any_one_fault_is_named_where_it_is_wrong_and_changes_nothing_outside(seed, kind, place, value, setting):
    check(seed, kind, place, value, setting)


@pytest.mark.campaign
@settings(max_examples=max(EXAMPLES, 3_000), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@faults
def test_any_one_fault_is_named_campaign(seed, kind, place, value, setting):
    check(seed, kind, place, value, setting)
