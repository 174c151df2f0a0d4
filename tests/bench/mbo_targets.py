"""What the market-by-order flow is meant to reach, held against what one run of the benchmark measured: ratios and shares, no absolute time.

A target whose contenders were not measured in the run is left out. A new one is a line in TARGETS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tests.bench.mbo_contenders import IN_C, MANY, MANY_BY_TWO, ONE_SYMBOL, PICTURE, PICTURE_OF_SEVEN, REPLAY, STATES, TO_TOUCH
from tests.bench.mbo_flow import NEW_PICTURE, PLAIN, SERVED
from tests.bench.mbo_peers import APPLY, AS_COLUMNS, HFTBACKTEST, LOAD_AND_APPLY, PANDAS_GATE
from tests.bench.mbo_table import Result
from tests.bench.measure import Measured, median
from tests.bench.stages import FLOOR

COLD, WARM = SERVED
OLD_CLAIM = 220_000  # records a second, of the Rust program that this replaces
GATES = ("gate events", "gate books", "gate aggregates")


class Runs:
    """Medians by contender: of the size that the targets are about, and of all sizes. Raises KeyError for what was not measured."""

    def __init__(self, results: Sequence[Result], main: Result) -> None:
        self.main, self.by_size = main, sorted(results, key=lambda result: result.records)

    def of(self, name: str, result: Result | None = None) -> Measured:
        """The median of a contender."""
        return median((result or self.main).measured[name])

    def times(self, name: str, other: str) -> float:
        """How many times the wall time of `name` goes into that of `other`."""
        return self.of(other).wall / self.of(name).wall

    def rate(self, *names: str) -> float:
        """Million rows a second that these judged together, one after the other."""
        found = [self.of(name) for name in names]
        return sum(m.facts["rows"] for m in found) / sum(m.wall for m in found) / 1e6

    def further(self, name: str) -> float:
        """Time of a further record between the two largest sizes, as a multiple of the same between the two smallest; of two sizes, time a record.
        What a run costs before its first record is in neither difference."""
        sizes = [(result.records, self.of(name, result).wall) for result in self.by_size]
        if len({records for records, _ in sizes}) < 2:
            raise KeyError(name)
        if len(sizes) == 2:
            (few, short), (many, long) = sizes
            return (long / many) / (short / few)
        steps = [(later[1] - sooner[1]) / (later[0] - sooner[0]) for sooner, later in ((sizes[0], sizes[1]), (sizes[-2], sizes[-1]))]
        if steps[0] <= 0:  # the smaller sizes are lost in the noise
            raise KeyError(name)
        return steps[1] / steps[0]

    def memory(self, name: str) -> float:
        """Peak memory at the largest size as a multiple of that at the main size."""
        if self.by_size[-1].records == self.main.records:
            raise KeyError(name)
        return self.of(name, self.by_size[-1]).peak_rss / self.of(name).peak_rss


@dataclass(frozen=True)
class Target:
    """name: what is held against what; bound, at_least: which side of it is met; unit: "x", "%" (bound as a fraction), "MB", or "M rows/s"."""

    name: str
    bound: float
    at_least: bool
    measure: Callable[[Runs], float]
    unit: str = "x"


class Verdict(NamedTuple):
    """A target in a run."""

    name: str
    target: str
    measured: str
    met: bool


TARGETS = (
    Target("replay with queues, times as fast as NautilusTrader's apply_deltas", 10, True, lambda r: r.times(REPLAY, APPLY)),
    Target("replay with queues, times as fast as hftbacktest's local L3", 3.5, True, lambda r: r.times(REPLAY, HFTBACKTEST)),
    Target("replay, time as a multiple of the same in C", 1.25, False, lambda r: r.times(IN_C, REPLAY)),
    Target("states written, time as a multiple of decompression", 2.5, False, lambda r: r.times(FLOOR, STATES)),
    Target("states written, times as fast as 60 columns", 4, True, lambda r: r.times(STATES, AS_COLUMNS)),
    Target("states written, bytes as a multiple of 60 columns", 1, False, lambda r: r.of(STATES).facts["bytes"] / r.of(AS_COLUMNS).facts["bytes"]),
    Target("file to touch, times as fast as NautilusTrader's load + apply", 8, True, lambda r: r.times(TO_TOUCH, LOAD_AND_APPLY)),
    Target(
        "file to touch, memory as a part of NautilusTrader's load + apply", 1 / 6, False,
        lambda r: r.of(TO_TOUCH).peak_rss / r.of(LOAD_AND_APPLY).peak_rss, "%",
    ),
    Target(".dbn.zst to heatmap PNG, time as a multiple of decompression", 1.3, False, lambda r: r.times(FLOOR, PICTURE)),
    Target(".dbn.zst to heatmap PNG, peak memory", 256, False, lambda r: r.of(PICTURE).peak_rss / 2**20, "MB"),
    Target("bookmill heatmap as a new process, time as a multiple of the same in a warm one", 2.5, False, lambda r: r.times(PICTURE, NEW_PICTURE)),
    Target(
        f"seven columns to heatmap PNG, times {OLD_CLAIM:,} records a second", 75, True,
        lambda r: r.main.records / r.of(PICTURE_OF_SEVEN).wall / OLD_CLAIM,
    ),
    Target("whole flow on a server, time as a multiple of decompression", 8, False, lambda r: r.times(FLOOR, WARM)),
    Target("Prefect's share of the whole flow on a server", 0.15, False, lambda r: 1 - r.of(PLAIN).wall / r.of(WARM).wall, "%"),
    Target("the gates' share of the whole flow on a server", 0.15, False, lambda r: r.of(WARM).facts["gate_seconds"] / r.of(WARM).wall, "%"),
    Target("gates of the default suites", 15, True, lambda r: r.rate(*GATES), "M rows/s"),
    Target("gate of events, times as fast as Great Expectations on pandas", 10, True, lambda r: r.times("gate events", PANDAS_GATE)),
    Target("growth of the whole flow on a server: a further record at large sizes against small ones", 1.1, False, lambda r: r.further(WARM)),
    Target("growth from file to touch: a further record at large sizes against small ones", 1.1, False, lambda r: r.further(TO_TOUCH)),
    Target("peak memory of the whole flow on a server, largest size as a multiple of x1", 1.1, False, lambda r: r.memory(WARM)),
    Target("many symbols, rate a record as a part of one symbol's", 0.5, True, lambda r: r.times(MANY, ONE_SYMBOL), "%"),
    Target("many symbols, two partitions at a time, times as fast as one", 1.7, True, lambda r: r.times(MANY_BY_TWO, MANY)),
)  # fmt: skip


def judge(results: Sequence[Result], main: Result) -> list[Verdict]:
    """Each target that this run measured."""
    runs, found = Runs(results, main), []
    for target in TARGETS:
        try:
            value = target.measure(runs)
        except KeyError:
            continue
        met = value >= target.bound if target.at_least else value <= target.bound
        sign = ">=" if target.at_least else "<="
        found.append(Verdict(target.name, f"{sign} {_text(target.bound, target.unit)}", _text(value, target.unit), met))
    return found


def _text(value: float, unit: str) -> str:
    if unit == "%":
        return f"{100 * value:.1f} %"
    return f"{value:.2f}" if unit == "x" else f"{value:.0f} {unit}"


def text(verdicts: Sequence[Verdict]) -> str:
    """One a line."""
    width = max(len(verdict.name) for verdict in verdicts)
    lines = [f"{'target':{width}}  {'aim':>14}  {'measured':>14}"]
    lines += [f"{v.name:{width}}  {v.target:>14}  {v.measured:>14}  {'met' if v.met else 'MISSED'}" for v in verdicts]
    return "\n".join(lines)


def markdown(verdicts: Sequence[Verdict]) -> str:
    """A table for the README."""
    lines = ["| target | aim | measured | |", "| --- | ---: | ---: | --- |"]
    return "\n".join([*lines, *(f"| {v.name} | {v.target} | {v.measured} | {'met' if v.met else '**missed**'} |" for v in verdicts)])
