"""Inventory and plan, shown before any work starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tasks.depth_recipe import TRADES, DepthRecipe
from tasks.partitions import MboRecipe
from tasks.reconstruction.depth_build import is_built
from tasks.scanning.decode import is_decoded
from tasks.scanning.depth_sources import scan_depth
from tasks.scanning.depth_trades import are_trades_done
from tasks.scanning.inventory import scan


def show_plan(sources: Sequence[str], lake: Path, recipe: MboRecipe, dataset: str | None, symbol: str | None) -> int:
    """Print what was found, what is decoded already and what would be made. Returns 0, 1 when a source cannot be used, 2 when none can."""
    inventory = scan(sources, dataset=dataset, symbol=symbol)
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("source", "format", "dataset", "MB", "records", "dates", "symbols", "plan"):
        table.add_column(name, justify="right" if name in ("MB", "records") else "left", overflow="fold")
    todo = 0
    for file in inventory.files:
        done = is_decoded(file, lake, recipe)
        todo += done is None
        shown = ", ".join(file.symbols[:3]) + (f" and {len(file.symbols) - 3} more" if len(file.symbols) > 3 else "")
        dates = file.dates[0] + (f" to {file.dates[-1]}" if len(file.dates) > 1 else "") if file.dates else "in the rows"
        plan = f"done: {len(done.parts)} partitions, {done.rows_out:,} events" if done else "decode, gate, rebuild, aggregate, publish"
        records = f"{file.rows:,}" if file.rows >= 0 else "unknown"
        table.add_row(file.name, file.format, file.dataset, f"{file.size / 1e6:,.1f}", records, dates, shown or "in the rows", plan)
    console.print(table)
    for other in inventory.rejected:
        console.print(f"NOT READ {other.path}: {other.error}", markup=False, soft_wrap=True)
    console.print(f"\n{len(inventory.files)} sources, {todo} to do, {len(inventory.rejected)} cannot be used. Nothing was written.")
    return 2 if not inventory.files else 1 if inventory.rejected else 0


def show_depth_plan(
    sources: Sequence[str], lake: Path, recipe: DepthRecipe, dataset: str, pairs: Sequence[str], dates: Sequence[str], limit: int
) -> int:
    """As `show_plan`, for depth feeds."""
    inventory = scan_depth(sources, dataset=dataset, pairs=pairs, dates=dates, limit=limit)
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("source", "dataset", "pair", "date", "MB", "levels", "plan"):
        table.add_column(name, justify="right" if name in ("MB", "levels") else "left", overflow="fold")
    todo = 0
    for source in inventory.files:
        trades = source.kind == TRADES
        done = are_trades_done(lake, source) if trades else is_built(lake, source, recipe, None)
        todo += done is None
        depths = ",".join(map(str, sorted(recipe.depths_of(source.depth))))
        rows = f"done: {max((n for _, n in done.grids.values()), default=0):,} snapshots" if done else f"snapshots of {depths} levels"
        if trades:
            rows = f"done: {done.facts['rows_out']:,} trades" if done else "trades"
        file = source.file
        levels = f"{source.depth:,}" if source.depth else "unknown"
        table.add_row(Path(file.path).name, file.dataset, file.symbols[0], file.dates[0], f"{file.size / 1e6:,.1f}", levels, rows)
    console.print(table)
    for covered in inventory.covered:
        console.print(f"LEFT OUT {covered.name}: {covered.by} has the same pair and day", markup=False, soft_wrap=True)
    for other in inventory.rejected:
        console.print(f"NOT READ {other.path}: {other.error}", markup=False, soft_wrap=True)
    console.print(f"\n{len(inventory.files)} sources, {todo} to do, {len(inventory.rejected)} cannot be used. Nothing was written.")
    return 2 if not inventory.files else 1 if inventory.rejected else 0
