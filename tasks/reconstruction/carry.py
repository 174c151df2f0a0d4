"""Whether a book may go on from the closing book of an earlier day: not where the lake knows of rows between the two that neither of them has.

Such a book would call itself valid and be wrong; it begins without a book (no_book) instead. tasks/publishing/freshness.py asks the same of footers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.footers import read_facts
from tasks.partitions import Partition

# (date, instrument id, rows quarantined) of partitions of which a source has rows and kept none, by symbol and publisher.
LeftOut = Mapping[tuple[str, int], Sequence[tuple[str, int, int]]]


def gap_before(
    lake: Path, partition: Partition, events: Sequence[str], before: Partition, planned: Mapping[Partition, Sequence[str]], left_out: LeftOut
) -> str:
    """Why the book of `events` must not go on from the closing book of `before`; "" where it may.

    planned: events of the partitions whose books are about to be made; left_out: that of the dataset.
    """
    if told := closes_early(lake, before, planned.get(before)) or begins_late(lake, partition, events):
        return told
    numbers = {partition.instrument_id, before.instrument_id}
    day = before.date
    while day < partition.date:
        for other in events_named_alike(lake, partition, day):
            unbuilt = other not in planned and not (lake / other.path("closing_book")).exists()
            if other != before and other.instrument_id in numbers and unbuilt:
                return f"the events of {other}, which lies between, have no book"
        day = (date.fromisoformat(day) + timedelta(1)).isoformat()
    for day, number, quarantined in left_out.get((partition.symbol, partition.publisher_id), ()):
        # What the end of the range left out of its own day comes after it; where a quarantined row stood is not known.
        if number in numbers and (before.date <= day < partition.date or (day == partition.date and quarantined)):
            return f"of {day} a source has rows of it that were all left out ({quarantined:,} quarantined, the others after --end)"
    return ""


def closes_early(lake: Path, before: Partition, events: Sequence[str] | None = None) -> str:
    """Why the closing book of a day is not that of its last row in the lake; "" where it is. events: of a book that is about to be made."""
    if events is None:
        facts = read_facts(lake / before.path("closing_book"))
        events, cut = facts.get("events", []), facts.get("cut_rows", 0)
    else:
        cut = cut_rows(lake, events)
    if cut:
        return f"{cut:,} rows at the end of {before} were left out (--end)"
    spans, others = _spans(lake, before, events)
    last = max((span[1] for span in spans), default=None)
    found = [name for first, until, name in others if last is not None and first >= last and until > last]
    return f"the book of {before} was made without {found[0]}, which comes after it" if found else ""


def begins_late(lake: Path, partition: Partition, events: Sequence[str]) -> str:
    """Which earlier events of the same day the lake has that a book of `events` would not; "" for none."""
    spans, others = _spans(lake, partition, events)
    first = min((span[0] for span in spans), default=None)
    found = [name for since, until, name in others if first is not None and until <= first and since < first]
    return f"{found[0]}, earlier events of the same day, is not of the sources given; give all sources of a day together" if found else ""


def cut_rows(lake: Path, events: Sequence[str]) -> int:
    """How many rows of the partition the end of the range left out, from these events files."""
    return sum(read_facts(lake / name).get("filtered", {}).get("time", 0) for name in events)


def read_left_out(lake: Path, dataset: str) -> dict[tuple[str, int], list[tuple[str, int, int]]]:
    """Partitions of which a source of the dataset has rows and no events file, as their accounts tell; an unreadable one tells nothing."""
    found: dict[tuple[str, int], list[tuple[str, int, int]]] = {}
    folder = (lake / Partition(dataset, "", "", 0, 0).path("sources")).parents[2]
    for path in sorted(folder.glob("[!.]*.parquet")) if folder.is_dir() else []:
        with suppress(OSError, pa.ArrowException):
            columns = ["date", "symbol", "publisher_id", "instrument_id", "path", "rows_in", "rows_quarantined"]
            for row in pq.read_table(path, partitioning=None, columns=columns, filters=[("path", "==", ""), ("rows_in", ">", 0)]).to_pylist():
                if row["date"]:
                    entry = (row["date"], row["instrument_id"], row["rows_quarantined"])
                    found.setdefault((row["symbol"], row["publisher_id"]), []).append(entry)
    return found


def events_named_alike(lake: Path, partition: Partition, day: str) -> list[Partition]:
    """Partitions of `day` with events under the dataset, symbol and publisher of `partition`, sorted."""
    return sorted({Partition.of_path(name) for name in _events(lake, partition, day)})


def _events(lake: Path, partition: Partition, day: str) -> list[str]:
    """Events files of `day` under the dataset, symbol and publisher of `partition`, relative to the lake."""
    at = Path(Partition(partition.dataset, day, partition.symbol, 0, 0).path("events")).parent
    try:
        names = os.listdir(lake / at)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [f"{at.as_posix()}/{n}" for n in sorted(names) if n.startswith(f"part-{partition.publisher_id}-") and n.endswith(".parquet")]


def _spans(lake: Path, partition: Partition, events: Sequence[str]) -> tuple[list[tuple[int, int, str]], list[tuple[int, int, str]]]:
    """(first, last ts_recv, path) of `events`, and of the other events files of the partition; nothing is read where there are no others."""
    there = [name for name in _events(lake, partition, partition.date) if Partition.of_path(name) == partition]
    if not set(there) - set(events):
        return [], []
    told = [(facts["first_ts_recv"], facts["last_ts_recv"], name) for name in there for facts in [read_facts(lake / name)]]
    return [span for span in told if span[2] in events], [span for span in told if span[2] not in events]
