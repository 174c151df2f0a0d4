"""What is there, what is missing and what a run would do, as people and programs read it: `bookmill plan`, and `--dry-run` of the runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from deployments import screen
from flows.plan import Planned, plan_depth, plan_orders
from flows.plan_options import Asked
from tasks.depth_recipe import TRADES, DepthRecipe
from tasks.errors import UsageError
from tasks.partitions import MboRecipe
from tasks.publishing.freshness import STATES
from tasks.publishing.freshness_table import counts_sentence, unread_sentence

SHOWN = 40  # rows of the table of states; --json has all


def states_of(text: Sequence[str]) -> list[str]:
    """States as typed: `stale` stands for all kinds of it. Raises UsageError."""
    chosen = []
    for word in text:
        fitting = [state for state in STATES if state == word or state.startswith(f"{word}:")]
        if not fitting:
            raise UsageError(f"state is {word!r}; allowed: {', '.join(STATES)}, and stale for all of these")
        chosen += fitting
    return chosen


def print_plan(asked: Asked, layers: Sequence[str], states: Sequence[str], as_json: bool) -> int:
    """Print the plan. Returns 0 when all is done, 1 when something is left or cannot be used, 2 when there is no source."""
    planned, chosen = asked.plan(), states_of(states)
    filters: dict[str, Any] = {"states": chosen, "layers": list(layers), "symbols": asked.symbols, "start": asked.start, "end": asked.end}
    counts = planned.plan.counts()
    left = any(state != "done" for state in counts)
    code = 2 if not planned.files and not planned.waiting else int(left or bool(planned.rejected))
    if as_json:
        print(json.dumps(_as_json(planned, filters), indent=1, default=str))
        return code
    console = screen.console(soft_wrap=True)
    rows = planned.plan.table(**filters)
    if rows:
        console.print(_states_table(rows[:SHOWN]))
    if len(rows) > SHOWN:
        console.print(f"... and {len(rows) - SHOWN:,} more rows; --json has all, --symbols, --layer and --state choose")
    for row in planned.plan.rows(**(filters | {"states": ["failed"]}), most=5) if not chosen or "failed" in chosen else []:
        console.print(f"FAILED {row['symbol']} {row['date']} {row['layer']}: {row['why']}", markup=False)
    _print_left_out(console, planned)
    todo = len(planned.plan.todo())
    quarantined = planned.plan.quarantined()
    console.print(f"\n{counts_sentence(counts)} (partitions times layers)." + (f" {quarantined:,} rows in quarantine." if quarantined else ""))
    console.print(
        f"{len(planned.files):,} sources, {todo:,} to do, {len(planned.waiting):,} still being written, {len(planned.rejected):,} cannot be used."
    )
    return code


def _states_table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    used = [state for state in STATES if any(row[state] for row in rows)]
    for name in ("dataset", "symbol", "layer", "first", "last", "fresh to", *used):
        table.add_column(name, justify="right" if name in used else "left", overflow="fold")
    for row in rows:
        days = (row["first"] or "in the rows", row["last"] or "in the rows", row["fresh_to"] or "never")
        table.add_row(
            row["dataset"], row["symbol"] or "in the rows", row["layer"], *days, *(f"{row[state]:,}" if row[state] else "" for state in used)
        )
    return table


def _as_json(planned: Planned, filters: dict[str, Any]) -> dict[str, Any]:
    sources = {entry["id"]: entry for entry in planned.plan.sources()}
    todo = {entry["id"]: entry["states"] for entry in planned.plan.todo()}
    files = [
        {
            "path": found.file.path, "member": found.file.member, "dataset": found.file.dataset, "fingerprint": found.file.fingerprint,
            "dates": found.file.dates, "symbols": found.file.symbols, "todo": todo.get(number, []),
            **{name: sources[number][name] for name in ("state", "why", "parts", "rows")},
        }
        for number, found in enumerate(planned.files)
    ]  # fmt: skip
    return {
        "states": planned.plan.counts(), "summary": planned.plan.table(**filters), "partitions": planned.plan.rows(**filters), "sources": files,
        "waiting": planned.waiting, "rejected": [{"path": path, "error": why} for path, why in planned.rejected],
        "covered": [{"name": name, "by": by} for name, by in planned.covered],
        "unread": [{"path": file.path, "fingerprint": file.fingerprint, "dates": file.dates, "symbols": file.symbols} for file in planned.unread],
    }  # fmt: skip


def _print_left_out(console: Console, planned: Planned) -> None:
    for path in planned.waiting:
        console.print(f"WAITS {path}: it changed a moment ago", markup=False, soft_wrap=True)
    for name, by in planned.covered:
        console.print(f"LEFT OUT {name}: {by} has the same pair and day", markup=False, soft_wrap=True)
    for path, why in planned.rejected:
        console.print(screen.not_read(path, why), markup=False, soft_wrap=True)
    if planned.unread:
        console.print(unread_sentence([file.path for file in planned.unread]), markup=False, soft_wrap=True)


def show_plan(sources: Sequence[str], lake: Path, recipe: MboRecipe, dataset: str | None, symbol: str | None) -> int:
    """Print what was found, what is decoded already and what would be made. Returns 0, 1 when a source cannot be used, 2 when none can."""
    planned = plan_orders(sources, lake, recipe, dataset=dataset or "", symbol=symbol or "", keep=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("source", "format", "dataset", "MB", "records", "dates", "symbols", "plan"):
        table.add_column(name, justify="right" if name in ("MB", "records") else "left", overflow="fold")
    todo = {entry["id"]: entry["states"] for entry in planned.plan.todo()}
    for found, known in zip(planned.files, planned.plan.sources(), strict=True):
        file = found.file
        shown = ", ".join(file.symbols[:3]) + (f" and {len(file.symbols) - 3} more" if len(file.symbols) > 3 else "")
        dates = file.dates[0] + (f" to {file.dates[-1]}" if len(file.dates) > 1 else "") if file.dates else "in the rows"
        plan = f"done: {known['parts']} partitions, {known['rows']:,} events"
        if known["state"] != "done":
            plan = "decode, gate, rebuild, aggregate, publish"
        elif known["id"] in todo:
            plan = f"decode {plan}; left: rebuild, aggregate, publish ({', '.join(todo[known['id']])})"
        records = f"{file.rows:,}" if file.rows >= 0 else "unknown"
        table.add_row(file.name, file.format, file.dataset, f"{file.size / 1e6:,.1f}", records, dates, shown or "in the rows", plan)
    undecoded = sum(known["state"] != "done" for known in planned.plan.sources())
    return _end(planned, table, undecoded, len(todo) - undecoded)


def show_depth_plan(
    sources: Sequence[str], lake: Path, recipe: DepthRecipe, dataset: str, pairs: Sequence[str], dates: Sequence[str], limit: int
) -> int:
    """As `show_plan`, for depth feeds."""
    planned = plan_depth(sources, lake, recipe, dataset=dataset, pairs=pairs, dates=dates, limit=limit, keep=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("source", "dataset", "pair", "date", "MB", "levels", "plan"):
        table.add_column(name, justify="right" if name in ("MB", "levels") else "left", overflow="fold")
    todo = {entry["id"]: entry["states"] for entry in planned.plan.todo()}
    for number, found in enumerate(planned.files):
        file = found.file
        what = "trades" if found.kind == TRADES else f"snapshots of {','.join(map(str, sorted(recipe.depths_of(found.depth))))} levels"
        plan = f"{what} ({', '.join(todo[number])})" if number in todo else f"done: {what}"
        levels = f"{found.depth:,}" if found.depth else "unknown"
        table.add_row(Path(file.path).name, file.dataset, file.symbols[0], file.dates[0], f"{file.size / 1e6:,.1f}", levels, plan)
    return _end(planned, table, len(todo))


def _end(planned: Planned, table: Table, todo: int, begun: int = 0) -> int:
    console = screen.console()
    console.print(table)
    _print_left_out(console, planned)
    if begun > 0:
        console.print(f"\nOf {begun} sources that are decoded, layers are left to make; `bookmill plan` shows which.")
    told = f"{len(planned.files)} sources, {todo} to do, {len(planned.rejected)} cannot be used. Nothing was written."
    console.print(f"\n{told}")
    return 2 if not planned.files else 1 if planned.rejected else 0
