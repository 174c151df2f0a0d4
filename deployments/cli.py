"""The command line. Only what a person types and reads is here; everything heavy is imported when a command runs, so that --help is quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from config.collector import QuickEnd, imports
from deployments.backfill import register as register_backfill
from deployments.options import ApiUrl, Dataset, Instrument, Lake, Memory, Profile, Publisher, Quiet, Workers, lake_of, path_of, settings_of, split
from deployments.run_commands import run_app
from deployments.store import register as register_store

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Raw order-book files in; verified books, bars, features and heatmaps out.",
)
config_app = typer.Typer(no_args_is_help=True, help="Settings: what they are and where they come from.")
quarantine_app = typer.Typer(no_args_is_help=True, help="Rows that were set aside.")
app.add_typer(run_app, name="run")
app.add_typer(config_app, name="config")
app.add_typer(quarantine_app, name="quarantine")
register_backfill(app)
register_store(app)


def _tell_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(version("bookmill"))
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Show the version and end.")] = False,
) -> None:
    """Options of every command; the text that --help shows is the application's."""


def program() -> None:
    """The process `bookmill`: `main` and a quick end. For no other caller: its process would end with the status of the command."""
    end = QuickEnd()
    try:
        main()
    except SystemExit as done:
        end.status = 0 if done.code is None else done.code if isinstance(done.code, int) else None
        raise


def main() -> None:
    """A command: known errors become one line on standard error and an exit code (0 done, 1 some failed, 2 nothing could run)."""
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


@app.command()
def demo(
    records: Annotated[int, typer.Option(help="Records of the generated session.")] = 1_000_000,
    seed: Annotated[int, typer.Option(help="Seed: the same seed gives the same session.")] = 1,
    lake: Annotated[Path, typer.Option("--lake", parser=path_of, help="Folder for the session and its lake.")] = Path("bookmill-demo"),
    profile: Profile = "",
    api_url: ApiUrl = "",
    quiet: Quiet = False,
) -> None:
    """Make a realistic futures session, run the whole flow on it, and show what came out."""
    settings, overrides = settings_of(profile, 0, "", lake, quiet)
    from deployments.demo import run_demo

    raise typer.Exit(run_demo(settings, overrides, records, seed, lake, profile, api_url or None))


@app.command()
def generate(
    path: Annotated[Path, typer.Argument(parser=path_of, help="File to write.")],
    records: Annotated[int, typer.Option(help="Records, in all, 3.5 billion at most.")] = 1_000_000,
    format: Annotated[str, typer.Option(help="dbn.zst, dbn, parquet, csv, csv.zst, csv.gz, seven-parquet, seven-csv.")] = "dbn.zst",
    symbols: Annotated[str, typer.Option(help="Symbols, separated by commas, or a number of them, 100,000 at most.")] = "ESZ5",
    seed: Annotated[int, typer.Option(help="Seed, 0 or more.")] = 1,
    date: Annotated[str, typer.Option(help="UTC date of the session.")] = "2025-10-22",
) -> None:
    """Write a generated futures session."""
    from deployments.demo import generate_file

    generate_file(path, records, format, symbols, seed, date)


@app.command("generate-depth")
def generate_depth(
    folder: Annotated[Path, typer.Argument(parser=path_of, help="Folder to write to; the file gets the name that Bybit would give it.")],
    symbol: Annotated[str, typer.Option(help="Pair.")] = "BTCUSDT",
    date: Annotated[str, typer.Option(help="UTC day.")] = "2025-08-09",
    depth: Annotated[int, typer.Option(help="Levels a side.")] = 500,
    interval: Annotated[str, typer.Option(help="Time between messages.")] = "1s",
    gaps: Annotated[int, typer.Option(help="So often messages are lost.")] = 0,
    outage: Annotated[str, typer.Option(help="Length of a silence in the day, such as 20m; empty for none.")] = "",
    seed: Annotated[int, typer.Option(help="Seed, 0 or more.")] = 1,
) -> None:
    """Write a generated order-book archive of a pair and day, as Bybit's are."""
    from deployments.demo import generate_archive

    generate_archive(folder, symbol, date, depth, interval, gaps, outage, seed)


@app.command()
def heatmap(
    source: Annotated[Path, typer.Argument(parser=path_of, help="An order-by-order file: DBN, CSV, Parquet or ITCH, compressed or not.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", parser=path_of, help="PNG to write; default: the file's name, in this folder.", show_default=False)
    ] = None,
    html: Annotated[bool, typer.Option("--html", help="Write a page to zoom and hover, too, beside the PNG.")] = False,
    symbol: Annotated[str, typer.Option(help="Which book, where a file holds several; empty: the one with most of the first rows.")] = "",
    width: Annotated[int, typer.Option(help="Columns of time.")] = 1600,
    height: Annotated[int, typer.Option(help="Rows of price, at most.")] = 1000,
    clock: Annotated[str, typer.Option(help="ts_recv or ts_event.")] = "ts_recv",
    starts_empty: Annotated[
        bool, typer.Option("--starts-empty", help="Assert an empty book where the file starts without a clear or snapshot.")
    ] = False,
) -> None:
    """Draw the heatmap of one file in one pass, without a lake."""
    with imports():
        from deployments.heatmap import write_heatmap

    raise typer.Exit(write_heatmap(source, out, html, symbol, width, height, clock, starts_empty))


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="SQL over the layers as views, e.g. 'select * from \"mbp-10\" limit 5'.")],
    lake: Lake = None,
    format: Annotated[str, typer.Option(help="table, csv or json; in json, NaN and infinities are null.")] = "table",
) -> None:
    """Query the lake with SQL; only data on standard output."""
    from deployments.query import print_query

    print_query(lake_of(lake), query, format)


@app.command()
def layers(lake: Lake = None) -> None:
    """List the layers of a lake with their files and rows."""
    from deployments.query import print_layers

    print_layers(lake_of(lake))


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
    print_book(lake_of(lake), symbol, time, date, zone, depth, orders, json, choice)


@app.command()
def queue(
    symbol: Annotated[str, typer.Argument(help="Symbol, as in the lake.")],
    order_id: Annotated[int, typer.Argument(help="Id of the order.")],
    date: Annotated[str, typer.Option(help="UTC date of the partition.")],
    lake: Lake = None,
    json: Annotated[bool, typer.Option("--json", help="A JSON list.")] = False,
    csv: Annotated[Path | None, typer.Option("--csv", parser=path_of, help="CSV file to write.", show_default=False)] = None,
    publisher: Publisher = None,
    dataset: Dataset = None,
    instrument: Instrument = None,
) -> None:
    """Follow an order: its place in the queue after every event that changed it."""
    from deployments.book import print_queue

    print_queue(lake_of(lake), symbol, order_id, date, json, csv, {"publisher": publisher, "dataset": dataset, "instrument": instrument})


@app.command()
def orders(
    symbol: Annotated[str, typer.Argument(help="Symbol, as in the lake.")],
    date: Annotated[str, typer.Option(help="UTC date of the partition.")],
    out: Annotated[Path, typer.Option(parser=path_of, help="File to write: .parquet or .csv.")],
    lake: Lake = None,
    publisher: Publisher = None,
    dataset: Dataset = None,
    instrument: Instrument = None,
) -> None:
    """Write a row for every order of a day: entry, size ahead, fills, cancels, end, lifetime."""
    from deployments.book import write_orders

    write_orders(lake_of(lake), symbol, date, out, {"publisher": publisher, "dataset": dataset, "instrument": instrument})


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

    raise typer.Exit(print_certificates(lake_of(lake), truths or [], split(symbols), date, json, strict))


@config_app.command("show")
def config_show(profile: Profile = "", workers: Workers = 0, memory: Memory = "") -> None:
    """Each setting: its value, where it came from, and what it means."""

    from deployments.query import print_settings

    print_settings(settings_of(profile, workers, memory, None, False)[0])


@app.command()
def resume(
    run: Annotated[str, typer.Argument(help="Run id or its beginning, flow run id or name; without it, unfinished runs are listed.")] = "",
    lake: Lake = None,
    json: Annotated[bool, typer.Option("--json", help="The list, as JSON.")] = False,
    here: Annotated[bool, typer.Option("--here", help="In this process, also what a worker of the server could do.")] = False,
    api_url: ApiUrl = "",
) -> None:
    """List runs that did not finish and why, or start one again. What is done is skipped."""
    settings, _ = settings_of("", 0, "", None, False)
    from deployments import resume as runs

    if run:
        raise typer.Exit(runs.resume(run, lake_of(lake), settings, api_url or None, here))
    runs.print_unfinished(lake_of(lake), settings, api_url or None, json)


@app.command()
def bootstrap(
    notify_webhook: Annotated[str, typer.Option(help="URL that alerts are posted to; empty: nobody is notified.")] = "",
    notify_block: Annotated[str, typer.Option(help="Prefect notification block for alerts, TYPE/NAME such as sendgrid-email/desk.")] = "",
    release_slots: Annotated[bool, typer.Option("--release-slots", help="Free slots of dead runs now, not when their leases end.")] = False,
    profile: Profile = "",
    api_url: ApiUrl = "",
) -> None:
    """Create concurrency limits, the work pool, crash detection and alerts on a Prefect server."""
    settings, _ = settings_of(profile, 0, "", None, False)
    from flows.runtime import prepare

    prepare(settings, api_url=api_url or None)
    from deployments.bootstrap import bootstrap as create

    for line in create(settings, notify_webhook=notify_webhook, notify_block=notify_block, release_slots=release_slots):
        print(line)


@app.command()
def deploy(
    lake: Annotated[
        Path | None,
        typer.Option(
            "--lake", parser=path_of, help="Folder that the forms offer; default: as before, at first the setting `lake`.", show_default=False
        ),
    ] = None,
    profile: Profile = "",
    api_url: ApiUrl = "",
) -> None:
    """Bootstrap a Prefect server and put every flow on it, with form and schedules. Again: renews them, and keeps what people set there."""
    settings, _ = settings_of(profile, 0, "", None, False)
    from flows.runtime import prepare

    prepare(settings, api_url=api_url or None)
    from deployments.deploy import deploy as put

    for line in put(settings, lake):
        print(line)


@app.command()
def doctor(
    lake: Lake = None,
    json: Annotated[bool, typer.Option("--json", help="All findings, as JSON.")] = False,
    deep: Annotated[bool, typer.Option("--deep", help="Read all rows of all files, too.")] = False,
) -> None:
    """Look at a lake and say what is wrong with it. Exit code 1 when something is."""
    from deployments.doctor import print_checkup

    raise typer.Exit(print_checkup(lake_of(lake), json, deep))


@app.command()
def clean(
    lake: Lake = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would go, with sizes.")] = False,
    orphans: Annotated[bool, typer.Option("--orphans", help="Also books and what is made of them, where their events are gone.")] = False,
    old_events: Annotated[bool, typer.Option("--old-events", help="Also the events of a source that a newer one of its name replaced.")] = False,
) -> None:
    """Remove partial files of dead processes, and pictures without their grid."""
    from deployments.doctor import print_clean

    print_clean(lake_of(lake), dry_run, orphans, old_events)


@app.command()
def bench(
    records: Annotated[int, typer.Option(min=1, help="Records of the generated session.")] = 7_449_892,
    sizes: Annotated[str, typer.Option(help="Factors of --records, separated by commas, such as 0.1,1,4.")] = "1",
    runs: Annotated[int, typer.Option(min=1, help="How often; medians are shown.")] = 1,
    only: Annotated[list[str] | None, typer.Option("--only", help="Name of a contender, or a part of names. May be repeated.")] = None,
    json: Annotated[Path | None, typer.Option("--json", parser=path_of, help="File for all measurements.", show_default=False)] = None,
    readme: Annotated[bool, typer.Option("--readme", help="Write the tables into the README of the checkout.")] = False,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", parser=path_of, help="Folder for sessions and lakes, kept; default: a temporary one.", show_default=False),
    ] = None,
) -> None:
    """Measure the flow beside its floors and others' programs, all in one run. Needs the checkout."""
    from deployments.bench import run_bench

    raise typer.Exit(run_bench(records, sizes, runs, only or [], json, readme, folder))


@quarantine_app.command("list")
def quarantine_list(lake: Lake = None) -> None:
    """How many rows were set aside, by source and reason, with an example of each."""
    from deployments.quarantine import print_quarantine

    print_quarantine(lake_of(lake))


@quarantine_app.command("export")
def quarantine_export(
    folder: Annotated[Path, typer.Argument(parser=path_of, help="Folder to write to.")],
    lake: Lake = None,
) -> None:
    """Write the raw bytes of quarantined rows, one file a source, to be mended and run again."""
    from deployments.quarantine import export_quarantine

    for line in export_quarantine(lake_of(lake), folder):
        print(line)


if __name__ == "__main__":
    program()
