"""What the market-by-order benchmark found, as text, and as the README's section between its markers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.bench.measure import Measured, median
from tests.bench.stages import FLOOR

MARKED = re.compile(r"(<!-- bench: mbo -->\n).*?(<!-- /bench -->)", re.DOTALL)
# By hand: the reason of each miss, which names its target as the table does. No run overwrites it.
EXPLAINED = re.compile(r"<!-- bench: misses -->\n.*?<!-- /misses -->", re.DOTALL)
HEAD = ("wall s", "CPU s", "M records/s", "x floor", "peak MB")


class Entry(NamedTuple):
    """One row of the table; numbers as text, in the order of HEAD."""

    group: str
    name: str
    numbers: tuple[str, ...]


class Result(NamedTuple):
    """One size: name -> measurements, one a run; sizes: bytes of each file; remarks: name -> what differs or failed."""

    records: int
    sizes: dict[str, int]
    measured: dict[str, list[Measured]]
    remarks: dict[str, str]


def entries(result: Result, groups: Mapping[str, str]) -> list[Entry]:
    """Medians over the runs, in the order of `groups` (name -> group)."""
    floor, found = median(result.measured[FLOOR]).wall, []
    for name in [name for name in groups if name in result.measured]:
        m = median(result.measured[name])
        rate = result.records / m.wall / 1e6
        numbers = (f"{m.wall:.3f}", f"{m.cpu:.3f}", f"{rate:.2f}", f"{m.wall / floor:.2f}", f"{m.peak_rss / 2**20:.0f}")
        found.append(Entry(groups[name], name, numbers))
    return found


def heading(result: Result, runs: int) -> str:
    """What was measured."""
    sizes = ", ".join(f"{size / 1e6:.1f} MB as {name}" for name, size in result.sizes.items())
    return f"{result.records:,} records, {sizes}; {runs} run(s), medians"


def table(rows: Sequence[Entry]) -> str:
    """The rows as text, one a line."""
    width = max(len(row.name) for row in rows)
    lines = [f"{'':{width}}" + "".join(f"  {name:>12}" for name in HEAD)]
    group = ""
    for row in rows:
        lines += [f"[{row.group}]"] if row.group != group else []
        group = row.group
        lines.append(f"{row.name:{width}}" + "".join(f"  {number:>12}" for number in row.numbers))
    return "\n".join(lines)


def growth(results: Sequence[Result], groups: Mapping[str, str]) -> str:
    """Wall time a record in ns, and peak memory, at each size."""
    width = max(map(len, groups))
    lines = [f"{'ns a record, peak MB':{width}}" + "".join(f"  {result.records:>18,}" for result in results)]
    for name in groups:
        measured = [median(result.measured[name]) for result in results if name in result.measured]
        if len(measured) == len(results):
            cells = zip(measured, results, strict=True)
            lines.append(f"{name:{width}}" + "".join(f"  {m.wall / r.records * 1e9:10.1f} {m.peak_rss / 2**20:7.0f}" for m, r in cells))
    return "\n".join(lines)


def remarks_of(result: Result) -> list[str]:
    """What else the contenders told: what differs or failed, and the bytes of what they wrote."""
    found = [f"{name} {remark}" for name, remark in result.remarks.items()]
    for name, measured in result.measured.items():
        if size := measured[-1].facts.get("bytes"):
            found.append(f"{name}: {measured[-1].facts['rows']:,} rows in {size / 1e6:.1f} MB")
    return found


def markdown(rows: Sequence[Entry]) -> str:
    """The rows as a table for the README."""
    lines = [f"| | {' | '.join(HEAD)} |", "| --- " + "| ---: " * len(HEAD) + "|"]
    group = ""
    for row in rows:
        lines += [f"| **{row.group}** {'| ' * len(HEAD)}|"] if row.group != group else []
        group = row.group
        lines.append(f"| {row.name} | {' | '.join(row.numbers)} |")
    return "\n".join(lines)


def write_readme(path: Path, text: str) -> None:
    """Put `text` between the markers; what people wrote between those of EXPLAINED stays. Raises ValueError when the markers are not there once."""
    old = path.read_text(encoding="utf-8")
    if len(MARKED.findall(old)) != 1:
        raise ValueError(f"{path} must have the lines <!-- bench: mbo --> and <!-- /bench --> once; put them where the table belongs")
    path.write_text(MARKED.sub(lambda found: f"{found[1]}{text}\n{found[2]}", old), encoding="utf-8")


def unexplained(path: Path, missed: Sequence[str]) -> list[str]:
    """The missed targets that the hand-written part of the README does not name."""
    found = EXPLAINED.search(path.read_text(encoding="utf-8"))
    return [name for name in missed if found is None or name not in found[0]]
