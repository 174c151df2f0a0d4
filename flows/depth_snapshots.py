"""Depth feeds in; snapshots on a grid, touch, bars of the mid, features, heatmaps and the CSV of old out."""

from __future__ import annotations

from typing import Any, Literal

from prefect import flow

from config.settings import load
from flows.confinement import confine
from flows.depth_stages import DepthRun
from flows.options import check_count, depth_recipe_of


@flow(
    name="depth-snapshots",
    flow_run_name="depth into {lake}",
    description=__doc__,
)
def depth_snapshots(
    sources: list[str],
    lake: str = "lake",
    pairs: list[str] = [],  # noqa: B006 - a form field: Prefect shows the default, nothing changes it
    dates: list[str] = [],  # noqa: B006
    depths: list[int] = [200, 500],  # noqa: B006
    interval: str = "1m",
    clock: Literal["cts", "ts"] = "cts",
    stale_after: str = "10s",
    on_book_error: Literal["suspect", "fail"] = "suspect",
    bars: list[str] = ["1m"],  # noqa: B006
    updates: bool = False,
    csv: str = "",
    formatted_timestamp: bool = False,
    heatmaps: int = 20,
    limit: int = 0,
    dataset: str = "",
    temp_dir: str = "",
    runner: Literal["threads", "processes", "dask"] = "threads",
    dask_address: str = "",
    profile: str = "",
    settings: dict[str, str] = {},  # noqa: B006
) -> dict[str, Any]:
    """Turn depth feeds into a verified lake of snapshots. What has its outputs is skipped; a run that died is started again.

    Args:
        sources: files, folders or globs: Bybit order-book archives (*_ob200.data.zip, *_ob500.data.zip, .gz, plain), Tardis incremental_book_L2
            and book_snapshot_N files.
        lake: folder of the lake.
        pairs: pairs wanted; empty for all.
        dates: days wanted, YYYY-MM-DD; empty for all.
        depths: levels a side of the snapshots; all that a source is deep enough for are made in one pass.
        interval: step of the snapshots: 100ms, 1s, 1m.
        clock: cts, the matching engine's time where the feed tells it; ts, when the line was sent (Tardis: captured).
        stale_after: age of the book from which on a snapshot is stale, such as 10s or 1m; off for never.
        on_book_error: mark what follows a gap or a bad line as suspect, or fail the file.
        bars: bars of the mid such as 1s, 1m.
        updates: keep every level update, too (layer depth-updates).
        csv: folder for snapshots as CSV, 0200/BTCUSDT/2025-01-01_BTCUSDT_ob200_1m.csv and so on, below the name of its dataset where the run has
            several; empty for none.
        formatted_timestamp: begin each CSV line with the time as YYYY-MM-DD HH:MM:SS.
        heatmaps: for how many files (the largest) heatmaps are drawn.
        limit: so many files at most; 0 for all.
        dataset: dataset to file all sources under; empty: bybit-linear, bybit-spot, or the exchange.
        temp_dir: folder into which each file is copied before it is read, for slow or remote disks; empty: read where it is.
        runner: who works on the tasks: threads of the run's process, processes on its machine, or the workers of a Dask cluster.
        dask_address: scheduler of the cluster, such as tcp://10.0.0.5:8786; empty: a cluster of the run's own on its machine.
        profile: laptop, server or ci; empty for the default.
        settings: settings by name, such as workers or memory_bytes, over all others (`bookmill config show` lists them).
    """
    check_count("heatmaps", heatmaps)
    check_count("limit", limit)
    confine(settings, sources=sources, lake=lake, csv=csv, temp_dir=temp_dir, dask_address=dask_address)
    recipe = depth_recipe_of(
        depths=depths, interval=interval, clock=clock, stale_after=stale_after, on_book_error=on_book_error, bars=bars, updates=updates
    )
    with DepthRun(lake, recipe, load(profile or None, settings)).on(runner, dask_address) as run:
        files = run.scan(sources, dataset, pairs, dates, limit)
        books = run.snapshot(files, csv, formatted_timestamp, temp_dir)
        books = run.gate_books(books)
        books = run.certify(books)
        books = run.aggregate(books)
        books = run.gate_aggregates(books)
        run.draw(books, heatmaps)
        run.write_ledger(books)
    return run.report(sources)
