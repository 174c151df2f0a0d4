"""From a plan to batches of sources in date order, and which of them wait because the day before failed. No Prefect here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from flows.plan import Planned
from flows.plan_sources import Found
from tasks.depth_recipe import DepthSource
from tasks.partitions import CARRY_DAYS, SourceFile


@dataclass(frozen=True)
class Unit:
    """Sources that must be run together, since they hold rows of the same partition. date: of the first work, "" where only the rows tell."""

    date: str
    files: tuple[Found, ...]
    states: tuple[str, ...]


@dataclass(frozen=True)
class FailedDay:
    """A symbol and day that failed, or whose source did."""

    dataset: str
    symbol: str
    date: str


def units_of(planned: Planned, states: Sequence[str]) -> list[Unit]:
    """What is left to do in these states, by date."""
    todo = {entry["id"]: entry for entry in planned.plan.todo(states)}
    group = list(range(len(planned.files)))

    def root(number: int) -> int:
        while group[number] != number:
            group[number] = group[group[number]]
            number = group[number]
        return number

    for one, other in planned.plan.together():
        group[root(one)] = root(other)
    promised: dict[tuple[str, str, str], int] = {}
    for number, found in enumerate(planned.files):
        for symbol in found.file.symbols:
            for day in found.file.dates:
                group[root(number)] = root(promised.setdefault((found.file.dataset, symbol, day), number))
    units: dict[int, list[int]] = {}
    for number in range(len(planned.files)):
        units.setdefault(root(number), []).append(number)
    made = []
    for numbers in units.values():
        work = [todo[n] for n in numbers if n in todo]
        if work:
            first = min(entry["first_date"] for entry in work)
            made.append(Unit(first, tuple(planned.files[n] for n in numbers), tuple(sorted({s for entry in work for s in entry["states"]}))))
    return sorted(made, key=lambda unit: (unit.date, [found.file.path for found in unit.files]))


def proofs_of(unread: Iterable[SourceFile], batch: Sequence[Unit]) -> list[SourceFile]:
    """The published books that can be of a partition of these sources, as far as the headers of both tell."""
    files = [found.file for unit in batch for found in unit.files]
    return [book for book in unread if any(_may_share(book, file) for file in files)]


def _may_share(one: SourceFile, other: SourceFile) -> bool:
    """Whether two sources can have rows of one partition; what a header does not tell, may be."""
    told = ((one.symbols, other.symbols), (one.dates, other.dates))
    return one.dataset == other.dataset and all(not a or not b or not set(a).isdisjoint(b) for a, b in told)


def batches_of(units: Iterable[Unit], most: int) -> list[list[Unit]]:
    """Units in their order, at most so many sources a batch; a larger unit is a batch of its own."""
    batches: list[list[Unit]] = []
    for unit in units:
        if not batches or sum(len(u.files) for u in batches[-1]) + len(unit.files) > most:
            batches.append([])
        batches[-1].append(unit)
    return batches


def failed_days(batch: Sequence[Unit], facts: Mapping[str, Any] | None) -> list[FailedDay]:
    """What of a batch failed, by the facts of its run; all of it where the run left none."""
    found = [one for unit in batch for one in unit.files]
    if facts is None:
        return [day for one in found for day in _days(one)]
    days = [FailedDay(p["partition"]["dataset"], p["partition"]["symbol"], p["partition"]["date"]) for p in facts.get("partitions", []) if p["error"]]
    names = {name for entry in facts.get("rejected", []) for name in entry.get("fingerprints") or [entry["path"]]}
    for one in found:
        subject = DepthSource(one.file, one.kind, one.depth).subject if one.kind else ""
        if names & {one.file.path, one.file.fingerprint, subject}:
            days += _days(one)
    return days


def waits_for(unit: Unit, failed: Sequence[FailedDay]) -> FailedDay | None:
    """The failed day whose closing book a unit of order-by-order sources would go on from, None where there is none."""
    for found in unit.files:
        for day in sorted(found.file.dates)[:1]:
            oldest = (date.fromisoformat(day) - timedelta(days=CARRY_DAYS)).isoformat()
            for one in failed:
                if one.dataset == found.file.dataset and one.symbol in found.file.symbols and oldest <= one.date < day:
                    return one
    return None


def _days(found: Found) -> list[FailedDay]:
    return [FailedDay(found.file.dataset, symbol, day) for symbol in found.file.symbols for day in found.file.dates]
