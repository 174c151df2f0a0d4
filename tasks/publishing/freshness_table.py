"""A plan as people read it: rows for a table, and Markdown. What the states mean is in freshness.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks.publishing.freshness import STATES, Plan

MOST_ROWS = 300  # in an artifact; all are in `bookmill plan --json`
_TOLD = 20
_NAMED = 5  # of published books


def freshness_rows(plan: Plan, most: int = MOST_ROWS) -> list[dict[str, Any]]:
    """A row for each dataset, symbol and layer, those with work left first."""
    rows = sorted(plan.table(), key=lambda row: sum(row[s] for s in STATES[1:]) == 0)
    shown = [
        {
            "dataset": row["dataset"], "symbol": row["symbol"] or "(in the rows)", "layer": row["layer"], "days": _span(row["first"], row["last"]),
            "fresh to": row["fresh_to"] or "", **{state: row[state] for state in STATES}, "quarantined rows": row["quarantined"],
        }
        for row in rows[:most]
    ]  # fmt: skip
    if len(rows) > most:
        shown.append({**dict.fromkeys(shown[0], ""), "dataset": f"and {len(rows) - most:,} more"})
    return shown


def counts_sentence(counts: dict[str, int]) -> str:
    """12 done, 3 missing, 1 failed."""
    return ", ".join(f"{n:,} {state}" for state, n in counts.items()) or "nothing is known of these sources"


def unread_sentence(names: Sequence[str]) -> str:
    """What is said of published books that are not in the lake, of which no state tells; what to do. "" where there are none."""
    if not names:
        return ""
    shown = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else "")
    return (
        f"LEFT OUT {len(names):,} published books that are not in the lake: {shown}. They prove books and make none, so no state tells of them. "
        "`bookmill run mbo` reads them when it is given them with the events of their days, `bookmill backfill` with those that it runs; for books "
        "that are done, `bookmill certify FILE --lake LAKE` reads them."
    )


def freshness_markdown(
    plan: Plan, waiting: Sequence[str], rejected: Sequence[tuple[str, str]], notes: Sequence[str], unread: Sequence[str] = ()
) -> str:  # fmt: skip
    """The plan in Markdown, for an artifact: how many partitions and layers are in each state, what failed, what is waited for. unread: names of
    published books that are not in the lake."""
    lines = ["# Freshness", "", counts_sentence(plan.counts()) + " (partitions times layers)."]
    if rows := plan.quarantined():
        lines += ["", f"{rows:,} rows are in quarantine."]
    if unread:
        lines += ["", _plain(unread_sentence(unread))]
    if notes:
        lines += ["", *(f"- {_plain(note)}" for note in notes)]
    failed = plan.rows(states=["failed"], most=_TOLD)
    for heading, told in (
        ("Failed", [f"{r['symbol']} {r['date']} {r['layer']}: {r['why']}" for r in failed]),
        ("Cannot be used", [f"{path}: {why}" for path, why in rejected]),
        ("Still being written", list(waiting)),
    ):
        if told:
            lines += ["", f"## {heading}", "", *(f"- {_plain(text)}" for text in told[:_TOLD])]
            lines += [f"- and {len(told) - _TOLD:,} more"] if len(told) > _TOLD else []
    return "\n".join(lines) + "\n"


def _span(first: str, last: str) -> str:
    return first if first == last else f"{first} to {last}"


def _plain(text: str) -> str:
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>|#" else c for c in text.replace("\n", " "))
