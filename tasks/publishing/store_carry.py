"""The closing books that the first days of a pulled part go on from: of the days before its start, as far as a book may go on from one.

A book that goes on past rows which the store has, and the closing book has not, would call itself valid and be wrong. Of a lake
tasks/reconstruction/carry.py asks that at each rebuild; a pulled part does not have the files that tell it. So it is asked of the store, and
more strictly: where there is any doubt nothing is brought, and the books of the first day begin without one.
"""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import date, timedelta

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.partitions import CARRY_DAYS, Partition
from tasks.publishing.store import Blob, Missing, Moved, Store
from tasks.publishing.store_files import Selection

LAYER = "closing_book"
_READERS = 4

# Dataset, symbol and publisher: what stays the same from one day to the next.
Key = tuple[str, str, int]


def closings_before(
    store: Store, wanted: Selection, closings: Mapping[str, Blob], events: Iterable[str], left_out: Iterable[tuple[Key, str]]
) -> tuple[dict[str, Blob], list[str]]:  # fmt: skip
    """(closing books to fetch besides what is wanted, why others are not: one sentence each).

    closings, events: names in these layers of the store; left_out: (dataset, symbol, publisher) and date of which a source has rows and kept none.
    Of each instrument the newest book of the days from which a book may go on is taken.
    """
    start = date.fromisoformat(wanted.start)
    books, rows = _before(closings, wanted, start), _before(events, wanted, start)
    lost: dict[Key, list[str]] = defaultdict(list)
    for key, day in left_out:
        lost[key].append(day)
    until = (start + timedelta(CARRY_DAYS)).isoformat()  # a symbol may be there on none of the first days
    newest = {key: {p.instrument_id: p for p in sorted(books[key])} for key in books}
    names = {p: p.path(LAYER) for chosen in newest.values() for p in chosen.values()}
    with ThreadPoolExecutor(_READERS, "closing") as pool:
        used = dict(zip(names, pool.map(lambda name: _events_of(store, name, closings[name]), names.values()), strict=True))
    found, told = dict[str, Blob](), list[str]()
    for key, chosen in sorted(newest.items()):
        first = min(p.date for p in chosen.values())
        unbuilt = [p for p in sorted(rows.get(key, {})) if p.date >= first and p not in books[key]]
        apart = [p for p in sorted(chosen.values()) if not set(rows.get(key, {}).get(p, [])) <= used[p]]
        if unbuilt or apart:
            why = f"{unbuilt[0]} has events and no closing book" if unbuilt else f"that of {apart[0]} was not made from all events of its day"
            told.append(_not_taken(key, wanted.start, why))
        elif gone := [day for day in sorted(lost[key]) if first <= day < until]:
            told.append(_not_taken(key, wanted.start, f"a source has rows of {gone[0]} that were all left out"))
        else:
            found |= {names[p]: closings[names[p]] for p in chosen.values()}
    return found, told


def _before(names: Iterable[str], wanted: Selection, start: date) -> dict[Key, dict[Partition, list[str]]]:
    """Partitions, and their files, of the days before the start from which a book may go on."""
    oldest, found = (start - timedelta(CARRY_DAYS)).isoformat(), dict[Key, dict[Partition, list[str]]]()
    for name in names:
        with suppress(KeyError, ValueError, IndexError):  # of others
            p = Partition.of_path(name)
            if oldest <= p.date < wanted.start and (not wanted.symbols or p.symbol in wanted.symbols):
                found.setdefault((p.dataset, p.symbol, p.publisher_id), {}).setdefault(p, []).append(name)
    return found


def _events_of(store: Store, name: str, blob: Blob) -> set[str]:
    """The events files that a closing book was made from; none where it cannot be read."""
    try:
        metadata = pq.read_metadata(io.BytesIO(store.content(name, blob))).metadata or {}
        return set(json.loads(metadata[b"bookmill.facts"]).get("events", []))
    except (Missing, Moved, pa.ArrowException, OSError, KeyError, ValueError):
        return set()


def _not_taken(key: Key, start: str, why: str) -> str:
    dataset, symbol, _ = key
    return f"no closing book of the days before {start} is taken of {dataset} {symbol}: {why}. Pull these days, too, and run them"
