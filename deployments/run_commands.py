"""`bookmill run`: the flows from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deployments.options import (
    ApiUrl,
    DaskAddress,
    Lake,
    Memory,
    Profile,
    Quiet,
    Runner,
    Workers,
    absolute,
    lake_of,
    numbers,
    path_of,
    settings_of,
    split,
)

run_app = typer.Typer(no_args_is_help=True, help="Run a flow.")


@run_app.command("mbo")
def mbo(
    sources: Annotated[
        list[str], typer.Argument(help="Files, folders or globs: DBN, Databento CSV or Parquet, seven-column files, LOBSTER pairs, Nasdaq ITCH.")
    ],
    lake: Lake = None,
    symbols: Annotated[str, typer.Option(help="Symbols wanted, separated by commas.")] = "",
    publishers: Annotated[str, typer.Option(help="Publisher ids wanted, separated by commas.")] = "",
    start: Annotated[str, typer.Option(help="First time wanted, inclusive (ISO 8601, in --zone).")] = "",
    end: Annotated[str, typer.Option(help="First time not wanted any more.")] = "",
    hours: Annotated[str, typer.Option(help="Trading hours in --zone, such as 09:30-16:00.")] = "",
    zone: Annotated[str, typer.Option(help="Time zone of --start, --end and --hours.")] = "UTC",
    depth: Annotated[int, typer.Option(help="Book levels of the mbp layers.")] = 10,
    interval: Annotated[str, typer.Option(help="Step of the time grid: 100ms, 1s, 1m.")] = "1s",
    bars: Annotated[str, typer.Option(help="Bars, separated by commas: 1s, 1m, tick:1000, volume:5000, dollar:1000000.")] = "1s,1m",
    clock: Annotated[str, typer.Option(help="ts_recv or ts_event: the time that the grid and the bars run on.")] = "ts_recv",
    on_book_error: Annotated[str, typer.Option(help="suspect: mark what follows a bad event; fail: fail the partition.")] = "suspect",
    starts_empty: Annotated[
        bool, typer.Option("--starts-empty", help="Assert an empty book where a source starts without a clear or snapshot.")
    ] = False,
    sequence: Annotated[str, typer.Option(help="contiguous: sources have every message of a book, a missing number is a gap; or sparse.")] = "sparse",
    stale_after: Annotated[str, typer.Option(help="Age from which on a grid row is stale, such as 30s; off for never.")] = "5m",
    heatmap_axis: Annotated[str, typer.Option(help="time or event.")] = "time",
    heatmaps: Annotated[int, typer.Option(help="Draw heatmaps of this many partitions, the largest.")] = 20,
    dataset: Annotated[str, typer.Option(help="Dataset to file all sources under, whatever they say themselves.")] = "",
    symbol: Annotated[str, typer.Option(help="Symbol of sources without a symbol column.")] = "",
    salvage: Annotated[bool, typer.Option("--salvage", help="Keep what stands before the break of a damaged source.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show inventory and plan; write nothing.")] = False,
    runner: Runner = "threads",
    dask_address: DaskAddress = "",
    profile: Profile = "",
    workers: Workers = 0,
    memory: Memory = "",
    api_url: ApiUrl = "",
    quiet: Quiet = False,
) -> None:
    """Order-by-order files to a verified lake. Start it again to resume: what is done is found done."""
    options = {
        "symbols": split(symbols), "publishers": numbers(publishers, "publishers"), "start": start, "end": end, "hours": hours, "zone": zone,
        "depth": depth, "interval": interval, "bars": split(bars), "clock": clock, "on_book_error": on_book_error,
        "starts_empty": starts_empty, "sequence": sequence, "stale_after": stale_after, "heatmap_axis": heatmap_axis,
    }  # fmt: skip
    from flows.options import check_runner, recipe_of

    lake = lake_of(lake)
    check_runner(runner, dask_address)
    recipe = recipe_of(**options)  # type: ignore[arg-type]  # what cannot be is told before anything is started
    if dry_run:
        from deployments.plan import show_plan

        raise typer.Exit(show_plan(sources, lake, recipe, dataset or None, symbol or None))
    settings, overrides = settings_of(profile, workers, memory, lake, quiet)
    from deployments.launch import run_flow

    parameters = options | {
        "sources": absolute(sources), "lake": str(lake.absolute()), "heatmaps": heatmaps,
        "dataset": dataset, "symbol": symbol, "salvage": salvage, "runner": runner, "dask_address": dask_address, "profile": profile,
        "settings": overrides,
    }  # fmt: skip
    raise typer.Exit(run_flow("mbo", settings, parameters, api_url or None))


@run_app.command("depth")
def depth(
    sources: Annotated[
        list[str], typer.Argument(help="Files, folders or globs: Bybit archives (*_ob200.data.zip, *_ob500.data.zip), Tardis L2 and book files.")
    ],
    lake: Lake = None,
    pairs: Annotated[str, typer.Option(help="Pairs wanted, separated by commas.")] = "",
    dates: Annotated[str, typer.Option(help="Days wanted, YYYY-MM-DD, separated by commas.")] = "",
    depths: Annotated[str, typer.Option(help="Levels a side of the snapshots, separated by commas.")] = "200,500",
    interval: Annotated[str, typer.Option(help="Step of the snapshots: 100ms, 1s, 1m.")] = "1m",
    clock: Annotated[str, typer.Option(help="cts: time of the matching engine, where told; ts: time of sending (Tardis: of capture).")] = "cts",
    stale_after: Annotated[str, typer.Option(help="Age from which on a snapshot is stale, such as 10s; off for never.")] = "10s",
    on_book_error: Annotated[str, typer.Option(help="suspect: mark what follows a gap or a bad line; fail: fail the file.")] = "suspect",
    bars: Annotated[str, typer.Option(help="Bars of the mid, separated by commas.")] = "1m",
    updates: Annotated[bool, typer.Option("--updates", help="Keep every level update, too.")] = False,
    csv: Annotated[Path | None, typer.Option("--csv", parser=path_of, help="Folder for snapshots as CSV.", show_default=False)] = None,
    formatted: Annotated[bool, typer.Option("--include-formatted-timestamp", help="Begin each CSV line with the time as text.")] = False,
    heatmaps: Annotated[int, typer.Option(help="Draw heatmaps of this many files, the largest.")] = 20,
    limit: Annotated[int, typer.Option(help="So many files at most; 0: all.")] = 0,
    dataset: Annotated[str, typer.Option(help="Dataset to file all sources under.")] = "",
    temp_dir: Annotated[
        Path | None, typer.Option(parser=path_of, help="Copy each file there before it is read (slow disks).", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show files and plan; write nothing.")] = False,
    runner: Runner = "threads",
    dask_address: DaskAddress = "",
    profile: Profile = "",
    workers: Workers = 0,
    memory: Memory = "",
    api_url: ApiUrl = "",
    quiet: Quiet = False,
) -> None:
    """Depth feeds to snapshots, touch, bars and features. Start it again to resume: what has its outputs is skipped."""
    options = {
        "depths": numbers(depths, "depths"), "interval": interval, "clock": clock, "stale_after": stale_after, "on_book_error": on_book_error,
        "bars": split(bars), "updates": updates,
    }  # fmt: skip
    from flows.options import check_runner, depth_recipe_of

    lake = lake_of(lake)
    check_runner(runner, dask_address)
    recipe = depth_recipe_of(**options)  # type: ignore[arg-type]  # what cannot be is told before anything is started
    if dry_run:
        from deployments.plan import show_depth_plan

        raise typer.Exit(show_depth_plan(sources, lake, recipe, dataset, split(pairs), split(dates), limit))
    settings, overrides = settings_of(profile, workers, memory, lake, quiet)
    from deployments.launch import run_flow

    parameters = options | {
        "sources": absolute(sources), "lake": str(lake.absolute()), "pairs": split(pairs),
        "dates": split(dates), "csv": str(csv.absolute()) if csv else "", "formatted_timestamp": formatted, "heatmaps": heatmaps, "limit": limit,
        "dataset": dataset, "temp_dir": str(temp_dir.absolute()) if temp_dir else "", "runner": runner, "dask_address": dask_address,
        "profile": profile, "settings": overrides,
    }  # fmt: skip
    raise typer.Exit(run_flow("depth", settings, parameters, api_url or None))
