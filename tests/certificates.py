"""What the tests of certificates share: a lake with a rebuilt partition, published books of it, feeds that are right or damaged, and one row
of a certificate as plain values.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tasks.partitions import MboRecipe, Stamp, digest
from tasks.reconstruction import published_states
from tasks.reconstruction.certify import Certificate, certify
from tasks.scanning.published_routing import published_sink
from tasks.schemas import F_LAST, F_SNAPSHOT, UNDEF_PRICE, published_schema
from tests.lake_building import PARTITION
from tests.oracles import naive_certificate as naive
from tests.oracles.naive_book import NaiveBook
from tests.strategies.sessions import START_NS, sessions
from tests.unit.test_replay import record

EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "60"))
generated = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
DEPTH = 3
RECIPE = MboRecipe(depth=DEPTH, interval_ns=60_000_000_000)
Rows = list[dict[str, Any]]


def write_published(lake: Path, rows: Rows, schema: str, depth: int, suspect_rows: tuple[int, ...] = (), interval_ns: int = 0) -> None:
    """Rows (ts_recv, sequence, action, flags, levels) as a file of layer "published"."""
    names = published_schema(depth)
    arrays = [pa.array([row[f.name] for row in rows], f.type) for f in names]
    facts = {
        "schema": schema, "depth": depth, "interval_ns": interval_ns, "before": schema == "tbbo", "suspect_rows": list(suspect_rows),
        "rows_out": len(rows), "source": "vendor.csv",
    }  # fmt: skip
    with published_sink(lake / PARTITION.path("published", "abcdef0123"), depth) as sink:
        sink.write(pa.table(arrays, schema=names))
        sink.commit(Stamp(digest([rows, facts]), "test"), facts)


def certified(lake: Path, recipe: MboRecipe = RECIPE, **batches: int) -> Certificate:
    """The certificate, its files read in batches of so many rows."""
    with pytest.MonkeyPatch.context() as patch:
        for name, rows in batches.items():
            patch.setattr(published_states, name, rows)
        return certify(lake, PARTITION, recipe)


def only(certificate: Certificate, truth: str, kind: str = "") -> dict[str, Any]:
    """The one row of a truth, times in ns."""
    (row,) = [row for row in certificate.rows if row["truth"] == truth and (not kind or row["source"].endswith(f" {kind})"))]
    plain = {name: getattr(value, "value", value) for name, value in row.items()}
    plain["wrong"] = [(getattr(span["start"], "value", None), getattr(span["end"], "value", None)) for span in row["wrong"]]
    return {**plain, "detail": json.loads(row["detail"] or "{}")}


def assert_says(row: dict[str, Any], compared: list[naive.Verdict], first: naive.Difference | None, sequences: list[int]) -> None:
    """The row of a certificate says exactly this of the states compared. first: the first difference; sequences: of the states compared."""
    matched = sum(good for _, good in compared)
    assert (row["states_compared"], row["states_matched"]) == (len(compared), matched)
    assert row["verdict"] == ("no_truth" if not compared else "matched" if matched == len(compared) else "diverged")
    assert (row["first_compared"], row["last_compared"]) == ((compared[0][0], compared[-1][0]) if compared else (None, None))
    spans = naive.wrong_spans(compared)
    assert row["wrong"] == spans
    assert row["wrong_spans"] == len(spans)
    wrong = [k for k, (_, good) in enumerate(compared) if not good]
    good_before = [time for time, good in compared[: wrong[0]] if good] if wrong else [time for time, _ in compared]
    assert row["last_good"] == (good_before[-1] if good_before else None)
    if not wrong:
        assert row["diverged_at"] is row["sequence"] is row["side"] is row["level"] is row["expected_px"] is row["found_sz"] is None
        return
    assert (row["diverged_at"], row["sequence"]) == (compared[wrong[0]][0], sequences[wrong[0]])
    assert first is not None
    level = [tuple(row[f"{kind}_{what}"] for what in ("px", "sz", "ct")) for kind in ("expected", "found")]
    plain = [(None if px == UNDEF_PRICE else px, sz, ct) for px, sz, ct in (first.expected, first.found)]
    assert (row["side"], row["level"], level) == (first.side, first.level, plain)


def top(book: NaiveBook) -> dict[str, list[tuple[int, int, int]]]:
    return {side: book.levels(side, DEPTH) for side in ("B", "A")}


def row_of(rec: np.void, action: str, levels: dict[str, list[tuple[int, int, int]]], depth: int) -> dict[str, Any]:
    """A published row after a record."""
    row: dict[str, Any] = {name: int(rec[name]) for name in ("ts_event", "ts_recv", "sequence", "flags")} | {"action": action}
    for side, name in (("B", "bid"), ("A", "ask")):
        for k in range(depth):
            level = levels[side][k] if k < len(levels[side]) else naive.EMPTY
            row |= {f"{name}_{kind}_{k:02d}": value for kind, value in zip(("px", "sz", "ct"), level, strict=True)}
    return row


def vendor(records: np.ndarray, style: str, depth: int = DEPTH) -> Rows:
    """mbp rows as a vendor writes them. "record": one for each record that changes the levels, but the trade, fills and cancels of one number
    are one row T with the book after the last of them; "event": one for each event that changes the levels."""
    book, rows = NaiveBook(DEPTH), []
    last, pending = row_of(records[0], "A", top(book), depth), False
    for i, rec in enumerate(records):
        action, following = chr(rec["action"]), records[i + 1] if i + 1 < len(records) else None
        book.apply(rec)
        pending = pending or action == "T"
        goes_on = following is not None and following["sequence"] == rec["sequence"] and chr(following["action"]) in "FC" and not book.event_end
        row = row_of(rec, "T" if pending else action, top(book), depth)
        levels_differ = any(row[name] != last[name] for name in row if name[:3] in ("bid", "ask"))
        if (book.event_end and levels_differ) if style == "event" else (not (pending and goes_on) and (levels_differ or pending)):
            rows.append(row)
            last = row
        pending = pending and goes_on
    return rows


@st.composite
def feeds(draw: st.DrawFn) -> np.ndarray:
    """A session of one book that is right by every rule, its numbers counted by record or by packet, rising or beginning again."""
    records = draw(sessions(corrupt=False, publishers=1))
    n = len(records)
    numbers = draw(st.sampled_from(["record", "packet", "again"]))
    if numbers != "record":
        steps = np.array(draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)))
        records["sequence"] = 7 + np.cumsum(steps)
    if numbers == "again" and n > 1:
        at = draw(st.integers(1, n - 1))
        records["sequence"][at:] -= records["sequence"][at] - 1
    if draw(st.booleans()):  # orders in a snapshot carry the number of the day on which they came
        records["sequence"][(records["flags"] & F_SNAPSHOT) != 0] = 3
    return records


@st.composite
def damaged(draw: st.DrawFn, records: np.ndarray) -> np.ndarray:
    """The same with one record missing, twice, or with another size or order id; or as it was."""
    at, kind = draw(st.integers(0, len(records) - 1)), draw(st.sampled_from(["none", "delete", "twice", "size", "order_id"]))
    if kind == "delete" and len(records) > 1:
        return np.delete(records, at)
    if kind == "twice":
        return np.insert(records, at, records[at])
    records = records.copy()
    if kind in ("size", "order_id"):
        records[kind][at] += 1
    return records


def records_of(*rows: tuple) -> np.ndarray:
    """Records from (action, side, price, size, order id, flags, sequence), a millisecond apart."""
    out = np.concatenate([record(*row[:6], ts=START_NS + 1_000_000 * k) for k, row in enumerate(rows)])
    out["sequence"] = [row[6] for row in rows]
    return out


CLEAR = ("R", "N", UNDEF_PRICE, 0, 0, F_LAST)
