"""The command line. Only what a person types and reads is here; everything heavy is imported when a command runs, so that --help is quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Raw order-book files in; verified books, bars, features and heatmaps out.",
)
run_app = typer.Typer(no_args_is_help=True, help="Run a flow.")
config_app = typer.Typer(no_args_is_help=True, help="Settings: what they are and where they come from.")
quarantine_app = typer.Typer(no_args_is_help=True, help="Rows that were set aside.")
app.add_typer(run_app, name="run")
app.add_typer(config_app, name="config")
app.add_typer(quarantine_app, name="quarantine")

Lake = Annotated[Path | None, typer.Option("--lake", help="Folder of the lake; default: the setting `lake`, which is lake.", show_default=False)]
Profile = Annotated[str, typer.Option(help="laptop, server or ci; empty for the default.")]
ApiUrl = Annotated[str, typer.Option(help="URL of a Prefect server; empty: the configured one, else a private one for this run.")]
Workers = Annotated[int, typer.Option(help="Partitions worked on at once; 0: from the machine.")]
Memory = Annotated[str, typer.Option(help="Memory budget such as 1GB or 50%; empty: from the machine.")]
Publisher = Annotated[int | None, typer.Option(help="Publisher id, where several have the symbol.", show_default=False)]
Dataset = Annotated[str | None, typer.Option(help="Dataset, where several have the symbol.", show_default=False)]
Instrument = Annotated[int | None, typer.Option(help="Instrument id, where several share the symbol.", show_default=False)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]


def main() -> None:
    """Entry point: known errors become one line on standard error and an exit code (0 done, 1 some failed, 2 nothing could run)."""
    try:
        app()
    except Exception as fault:  # the boundary: known faults are told in a line, unknown ones keep their traceback
        sys.exit(_tell(fault))


def _tell(fault: Exception) -> int:
    from config.errors import ConfigError
    from tasks.errors import BookmillError

    if isinstance(fault, BookmillError | ConfigError):
        print(f"Error: {fault}", file=sys.stderr)
        return getattr(fault, "exit_code", 2)
    raise fault


def _lake(given: Path | None) -> Path:
    from config.settings import load

    return given if given is not None else load().lake


def _settings(profile: str, workers: int, memory: str, lake: Path | None, quiet: bool) -> tuple[Any, dict[str, str]]:
    from config.settings import load

    given = {"workers": str(workers) if workers else None, "memory_bytes": memory or None, "progress": "off" if quiet else None}
    overrides = {name: value for name, value in given.items() if value is not None}
    return load(profile or None, overrides), overrides


@run_app.command("mbo")
def run_mbo(
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
    sequence: Annotated[str, typer.Option(help="contiguous: sources have every message, a missing sequence number is a gap; or sparse.")] = "sparse",
    stale_after: Annotated[str, typer.Option(help="Age from which on a grid row is stale, such as 30s; off for never.")] = "5m",
    heatmap_axis: Annotated[str, typer.Option(help="time or event.")] = "time",
    heatmaps: Annotated[int, typer.Option(help="Draw heatmaps of this many partitions, the largest.")] = 20,
    dataset: Annotated[str, typer.Option(help="Dataset to file all sources under, whatever they say themselves.")] = "",
    symbol: Annotated[str, typer.Option(help="Symbol of sources without a symbol column.")] = "",
    salvage: Annotated[bool, typer.Option("--salvage", help="Keep what stands before the break of a damaged source.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show inventory and plan; write nothing.")] = False,
    profile: Profile = "",
    workers: Workers = 0,
    memory: Memory = "",
    api_url: ApiUrl = "",
    quiet: Quiet = False,
) -> None:
    """Order-by-order files to a verified lake. Start it again to resume: what is done is found done."""
    options = {
        "symbols": _split(symbols), "publishers": _numbers(publishers, "publishers"), "start": start, "end": end, "hours": hours, "zone": zone,
        "depth": depth, "interval": interval, "bars": _split(bars), "clock": clock, "on_book_error": on_book_error,
        "starts_empty": starts_empty, "sequence": sequence, "stale_after": stale_after, "heatmap_axis": heatmap_axis,
    }  # fmt: skip
    from flows.options import recipe_of

    lake = _lake(lake)
    recipe = recipe_of(**options)  # type: ignore[arg-type]  # what cannot be is told before anything is started
    if dry_run:
        from deployments.plan import show_plan

        raise typer.Exit(show_plan(sources, lake, recipe, dataset or None, symbol or None))
    settings, overrides = _settings(profile, workers, memory, lake, quiet)
    from deployments.launch import run_flow

    parameters = options | {
        "sources": [str(Path(s).absolute()) if Path(s).exists() else s for s in sources], "lake": str(lake.absolute()), "heatmaps": heatmaps,
        "dataset": dataset, "symbol": symbol, "salvage": salvage, "profile": profile, "settings": overrides,
    }  # fmt: skip
    raise typer.Exit(run_flow(settings, parameters, api_url or None))


def _numbers(text: str, option: str) -> list[int]:
    from tasks.errors import UsageError

    parts = _split(text)
    if not all(part.isdigit() for part in parts):
        raise UsageError(f"{option} is {text!r}; allowed: numbers separated by commas, such as 1,2")
    return [int(part) for part in parts]


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


@app.command()
def demo(
    records: Annotated[int, typer.Option(help="Records of the generated session.")] = 1_000_000,
    seed: Annotated[int, typer.Option(help="Seed: the same seed gives the same session.")] = 1,
    lake: Annotated[Path, typer.Option("--lake", help="Folder for the session and its lake.")] = Path("bookmill-demo"),
    profile: Profile = "",
    api_url: ApiUrl = "",
    quiet: Quiet = False,
) -> None:
    """Make a realistic futures session, run the whole flow on it, and show what came out."""
    settings, overrides = _settings(profile, 0, "", lake, quiet)
    from deployments.demo import run_demo

    raise typer.Exit(run_demo(settings, overrides, records, seed, lake, profile, api_url or None))


@app.command()
def generate(
    path: Annotated[Path, typer.Argument(help="File to write.")],
    records: Annotated[int, typer.Option(help="Records, in all.")] = 1_000_000,
    format: Annotated[str, typer.Option(help="dbn.zst, dbn, parquet, csv, csv.zst, csv.gz, seven-parquet, seven-csv.")] = "dbn.zst",
    symbols: Annotated[str, typer.Option(help="Symbols, separated by commas, or a number of them.")] = "ESZ5",
    seed: Annotated[int, typer.Option(help="Seed.")] = 1,
    date: Annotated[str, typer.Option(help="UTC date of the session.")] = "2025-10-22",
) -> None:
    """Write a generated futures session of any size."""
    from deployments.demo import generate_file

    generate_file(path, records, format, symbols, seed, date)


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="SQL over the layers as views, e.g. 'select * from \"mbp-10\" limit 5'.")],
    lake: Lake = None,
    format: Annotated[str, typer.Option(help="table, csv or json.")] = "table",
) -> None:
    """Query the lake with SQL; only data on standard output."""
    from deployments.query import print_query

    print_query(_lake(lake), query, format)


@app.command()
def layers(lake: Lake = None) -> None:
    """List the layers of a lake with their files and rows."""
    from deployments.query import print_layers

    print_layers(_lake(lake))


@app.command()
def book(
    symbol: Annotated[str, typer.Argument(help="Symbol, as in the lake.")],
    time: Annotated[str, typer.Argument(help="ISO 8601, ns since 1970, or a time of day with --date.")],
    lake: Lake = None,
    date: Annotated[str, typer.Option(help="Date of a time of day, in --zone.")] = "",
    zone: Annotated[str, typer.Option(help="Time zone of a time without an offset.")] = "UTC",
    depth: Annotated[int, typer.Option(help="Levels a side.")] = 10,
    orders: Annotated[bool, typer.Option("--orders", help="The orders of these levels, too, in priority order.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    publisher: Publisher = None,
    dataset: Dataset = None,
    instrument: Instrument = None,
) -> None:
    """Show the book of a symbol at any instant."""
    from deployments.book import print_book

    choice = {"publisher": publisher, "dataset": dataset, "instrument": instrument}
    print_book(_lake(lake), symbol, time, date, zone, depth, orders, json, choice)


@app.command()
def queue(
    symbol: Annotated[str, typer.Argument(help="Symbol, as in the lake.")],
    order_id: Annotated[int, typer.Argument(help="Id of the order.")],
    date: Annotated[str, typer.Option(help="UTC date of the partition.")],
    lake: Lake = None,
    json: Annotated[bool, typer.Option("--json", help="A JSON list.")] = False,
    csv: Annotated[Path | None, typer.Option("--csv", help="CSV file to write.", show_default=False)] = None,
    publisher: Publisher = None,
    dataset: Dataset = None,
    instrument: Instrument = None,
) -> None:
    """Follow an order: its place in the queue after every event that changed it."""
    from deployments.book import print_queue

    print_queue(_lake(lake), symbol, order_id, date, json, csv, {"publisher": publisher, "dataset": dataset, "instrument": instrument})


@app.command()
def orders(
    symbol: Annotated[str, typer.Argument(help="Symbol, as in the lake.")],
    date: Annotated[str, typer.Option(help="UTC date of the partition.")],
    out: Annotated[Path, typer.Option(help="File to write: .parquet or .csv.")],
    lake: Lake = None,
    publisher: Publisher = None,
    dataset: Dataset = None,
    instrument: Instrument = None,
) -> None:
    """Write a row for every order of a day: entry, size ahead, fills, cancels, end, lifetime."""
    from deployments.book import write_orders

    write_orders(_lake(lake), symbol, date, out, {"publisher": publisher, "dataset": dataset, "instrument": instrument})


@app.command()
def certify(
    truths: Annotated[
        list[str] | None, typer.Argument(help="Published books (mbp-10, mbp-1, tbbo, bbo) to hold the lake's books against besides.")
    ] = None,
    lake: Lake = None,
    symbols: Annotated[str, typer.Option(help="Symbols wanted, separated by commas; empty for all.")] = "",
    date: Annotated[str, typer.Option(help="UTC date wanted; empty for all.")] = "",
    json: Annotated[bool, typer.Option("--json", help="All that the certificates say, as JSON.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="A book that no truth proves counts as a failure.")] = False,
) -> None:
    """Hold every rebuilt book against all truth there is. Exit code 1 when one differs."""
    from deployments.certify import print_certificates

    raise typer.Exit(print_certificates(_lake(lake), truths or [], _split(symbols), date, json, strict))


@config_app.command("show")
def config_show(profile: Profile = "", workers: Workers = 0, memory: Memory = "") -> None:
    """Each setting: its value, where it came from, and what it means."""
    from deployments.query import print_settings

    print_settings(_settings(profile, workers, memory, None, False)[0])


@app.command()
def bootstrap(profile: Profile = "", api_url: ApiUrl = "") -> None:
    """Create concurrency limits and the work pool on a Prefect server."""
    settings, _ = _settings(profile, 0, "", None, False)
    from flows.runtime import prepare

    prepare(settings, api_url=api_url or None)
    from deployments.bootstrap import bootstrap as create

    for line in create(settings):
        print(line)


@quarantine_app.command("list")
def quarantine_list(lake: Lake = None) -> None:
    """How many rows were set aside, by source and reason, with an example of each."""
    from deployments.quarantine import print_quarantine

    print_quarantine(_lake(lake))


@quarantine_app.command("export")
def quarantine_export(
    folder: Annotated[Path, typer.Argument(help="Folder to write to.")],
    lake: Lake = None,
) -> None:
    """Write the raw bytes of quarantined rows, one file a source, to be mended and run again."""
    from deployments.quarantine import export_quarantine

    for line in export_quarantine(_lake(lake), folder):
        print(line)


if __name__ == "__main__":
    main()
