"""Expectations of the times of rows on a grid: one row for each, from the first to the last. For every suite whose rows stand on one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from tasks.specs import DAY_NS
from validation.rules import Context, Rule

Spans = Sequence[tuple[int, int]]


def grid_rules(name: str, why: str, look: str, context: Context) -> tuple[Rule, ...]:
    """The rule `name` that no time of the grid is missing, doubled or late, and `reaches_end` where the windows are known. Without windows:
    that the step is right; without a step: that it never changes."""
    step = context.interval_ns
    if context.windows is None or step is None:
        return (Rule(name, "block", why=why, look=look, holds=_steady(step), previous=("ts_event",)),)
    spans = [(-(-start // step) * step, (end - 1) // step * step) for start, end in context.windows]
    return through(name, why, look, [(first, last) for first, last in spans if first <= last], step)


def _steady(step: int | None) -> str:
    if step:
        return f"prev_ts_event IS NULL OR ts_event::HUGEINT - prev_ts_event = {step}"
    return (
        "prev_ts_event IS NULL OR (ts_event > prev_ts_event AND (prev2_ts_event IS NULL "
        "OR ts_event::HUGEINT - prev_ts_event = prev_ts_event::HUGEINT - prev2_ts_event))"
    )


def through(name: str, why: str, look: str, spans: Spans, step: int) -> tuple[Rule, ...]:
    """The rule `name` that rows go through the times of `spans` (first and last, inclusive, ascending) by `step`, and `reaches_end`.

    A gate gets the windows of all its files, and a file has those of its own UTC day: its first row is the first time of any day, its last row
    the last one of any.
    """
    firsts: dict[int, int] = {}
    lasts: dict[int, int] = {}
    for first, last in spans:
        firsts.setdefault(first // DAY_NS, first)
        lasts[first // DAY_NS] = last
    jumps = "".join(f" WHEN {last} THEN ts_event = {first}" for (_, last), (first, _) in pairwise(spans))
    next_one = f"ts_event::HUGEINT - prev_ts_event = {step}"
    inside = f"CASE prev_ts_event{jumps} ELSE {next_one} END" if jumps else next_one
    return (
        Rule(
            name,
            "block",
            why=why,
            look=look,
            holds=f"CASE WHEN prev_ts_event IS NULL THEN ts_event IN ({_listed(firsts)}) ELSE {inside} END",
            previous=("ts_event",),
        ),
        Rule(
            "reaches_end",
            "block",
            why="The last row is the last time of the windows; rows that stop before it mean that the sampler was not told of the end.",
            look=look,
            holds=f"ts_event IN ({_listed(lasts)})",
            last_row_only=True,
        ),
    )


def _listed(times: dict[int, int]) -> str:
    return ", ".join(map(str, times.values())) or "NULL"
