"""Order-by-order files in; events, verified books, trades, bars, features and heatmaps out."""

from __future__ import annotations

from typing import Any, Literal

from prefect import flow

from config.settings import load
from flows.confinement import confine
from flows.mbo_stages import MboRun
from flows.options import check_count, recipe_of


@flow(
    name="market-by-order",
    flow_run_name="mbo into {lake}",
    description=__doc__,
)
def market_by_order(
    sources: list[str],
    lake: str = "lake",
    symbols: list[str] = [],  # noqa: B006 - a form field: Prefect shows the default, nothing changes it
    publishers: list[int] = [],  # noqa: B006
    start: str = "",
    end: str = "",
    hours: str = "",
    zone: str = "UTC",
    depth: int = 10,
    interval: str = "1s",
    bars: list[str] = ["1s", "1m"],  # noqa: B006
    clock: Literal["ts_recv", "ts_event"] = "ts_recv",
    on_book_error: Literal["suspect", "fail"] = "suspect",
    starts_empty: bool = False,
    sequence: Literal["sparse", "contiguous"] = "sparse",
    stale_after: str = "5m",
    heatmap_axis: Literal["time", "event"] = "time",
    heatmaps: int = 20,
    dataset: str = "",
    symbol: str = "",
    salvage: bool = False,
    runner: Literal["threads", "processes", "dask"] = "threads",
    dask_address: str = "",
    profile: str = "",
    settings: dict[str, str] = {},  # noqa: B006
) -> dict[str, Any]:
    """Turn order-by-order sources into a verified lake. Done work is found done; a run that died is started again with the same parameters.

    Args:
        sources: files, folders or globs (DBN, Databento CSV and Parquet, seven-column files, LOBSTER pairs, Nasdaq ITCH 5.0); books that a vendor
            published beside them (mbp-10, mbp-1, tbbo, bbo) are taken as truth.
        lake: folder of the lake.
        symbols: symbols wanted; empty for all.
        publishers: publisher ids wanted; empty for all.
        start: first time wanted, inclusive, ISO 8601, in `zone` unless it says its own; empty for all. The book is built from the source's start.
        end: first time not wanted any more; empty for all.
        hours: trading hours such as 09:30-16:00 in `zone`; empty for all.
        zone: time zone of start, end and hours, such as America/New_York.
        depth: book levels of the mbp layers.
        interval: step of the time grid: 100ms, 1s, 1m.
        bars: bars such as 1s, 1m, tick:1000, volume:5000, dollar:1000000.
        clock: the time that the grid and the bars run on.
        on_book_error: mark what follows a bad event as suspect, or fail the partition.
        starts_empty: assert that the book is empty where a source starts without a clear or snapshot.
        sequence: contiguous where the numbers of each book's messages are consecutive, so that a missing one is a gap.
        stale_after: age of the book from which on a grid row is stale, such as 30s or 5m; off for never.
        heatmap_axis: columns of equal time or of equally many events.
        heatmaps: for how many partitions (the largest) heatmaps are drawn.
        dataset: dataset to file all sources under, whatever they say themselves; empty: what they say.
        symbol: name for sources without a symbol column.
        salvage: keep what stands before the break of a damaged source.
        runner: who works on the tasks: threads of the run's process, processes on its machine, or the workers of a Dask cluster.
        dask_address: scheduler of the cluster, such as tcp://10.0.0.5:8786; empty: a cluster of the run's own on its machine.
        profile: laptop, server or ci; empty for the default.
        settings: settings by name, such as workers or memory_bytes, over all others (`bookmill config show` lists them).
    """
    check_count("heatmaps", heatmaps)
    confine(settings, sources=sources, lake=lake, dask_address=dask_address)
    recipe = recipe_of(
        symbols=symbols, publishers=publishers, start=start, end=end, hours=hours, zone=zone, depth=depth, interval=interval, bars=bars,
        clock=clock, on_book_error=on_book_error, starts_empty=starts_empty, sequence=sequence, stale_after=stale_after, heatmap_axis=heatmap_axis,
    )  # fmt: skip
    with MboRun(lake, recipe, load(profile or None, settings)).on(runner, dask_address) as run:
        files = run.scan(sources, dataset, symbol)
        events = run.decode(files, salvage)
        events = run.gate_events(events)
        books = run.reconstruct(events)
        books = run.gate_books(books)
        books = run.certify(books)
        books = run.aggregate(books)
        books = run.gate_aggregates(books)
        run.draw(books, heatmaps)
        run.write_ledger(books)
    return run.report(sources)
