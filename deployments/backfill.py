"""`bookmill plan`, `bookmill backfill` and `bookmill replay-quarantine` on the command line: what a person types for them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from deployments.options import ApiUrl, Lake, Profile, Quiet, Workers, absolute, lake_of, numbers, path_of, settings_of, split

Kind = Annotated[str, typer.Argument(help="mbo: order-by-order sources; depth: depth feeds.")]
Sources = Annotated[list[str], typer.Argument(help="Files, folders or globs, as `bookmill run` takes them.")]
Symbols = Annotated[str, typer.Option(help="Symbols or pairs wanted, separated by commas.")]
Start = Annotated[str, typer.Option(help="First day wanted, YYYY-MM-DD. Chooses sources, cuts no rows.")]
End = Annotated[str, typer.Option(help="First day not wanted any more.")]
Settle = Annotated[str, typer.Option(help="A file has to stand unchanged for so long, such as 30s; off to take all.")]
Options = Annotated[list[str] | None, typer.Option("--option", "-o", help="Option of the flow: -o depth=20 -o bars=1s,1m.", show_default=False)]
DatasetName = Annotated[str, typer.Option(help="Dataset to file all sources under.")]
_FOLDERS = ("csv", "temp_dir")  # options of a flow that are paths


def options_of(given: list[str] | None) -> dict[str, str]:
    """name=value as a mapping. Raises UsageError."""
    from tasks.errors import UsageError

    found = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--option is {text!r}; allowed: NAME=VALUE such as depth=20")
        name, value = name.strip().replace("-", "_"), value.strip()
        found[name] = str(path_of(value)) if value and name in _FOLDERS else value
    return found


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("plan")(plan)
    app.command("backfill")(backfill)
    app.command("replay-quarantine")(replay_quarantine)


def plan(
    kind: Kind,
    sources: Sources,
    lake: Lake = None,
    symbols: Symbols = "",
    start: Start = "",
    end: End = "",
    layer: Annotated[str, typer.Option(help="Layers shown, separated by commas; empty for all.")] = "",
    state: Annotated[str, typer.Option(help="States shown, separated by commas: done, missing, stale, failed; empty for all.")] = "",
    option: Options = None,
    settle: Settle = "off",
    dataset: DatasetName = "",
    json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """Say what a lake has and lacks of these sources, by symbol, day and layer. Exit code 1 when something is left to do."""
    from deployments.plan import print_plan
    from flows.plan_options import asked_of

    asked = asked_of(
        kind, sources, str(lake_of(lake)), symbols=split(symbols), start=start, end=end, settle=settle, options=options_of(option), dataset=dataset
    )
    raise typer.Exit(print_plan(asked, split(layer), split(state), json))


def backfill(
    kind: Kind,
    sources: Sources,
    lake: Lake = None,
    symbols: Symbols = "",
    start: Start = "",
    end: End = "",
    batch: Annotated[int, typer.Option(help="Sources of one run at most.")] = 20,
    max_batches: Annotated[int, typer.Option(help="Runs at most; 0 for as many as it takes.")] = 0,
    settle: Settle = "30s",
    new_only: Annotated[bool, typer.Option("--new-only", help="Leave what failed in the last run, and only tell it.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Publish the plan as artifacts, and run nothing.")] = False,
    option: Options = None,
    dataset: DatasetName = "",
    profile: Profile = "",
    workers: Workers = 0,
    api_url: ApiUrl = "",
    quiet: Quiet = False,
) -> None:
    """Make what is missing, stale or failed, in batches and in the order of the days. Started again, it does what is left."""
    from flows.plan_options import asked_of

    lake = lake_of(lake)
    shared: dict[str, Any] = {
        "symbols": split(symbols),
        "start": start,
        "end": end,
        "settle": settle,
        "options": options_of(option),
        "dataset": dataset,
    }
    asked_of(kind, sources, str(lake), **shared)  # what cannot be is told before anything is started
    settings, overrides = settings_of(profile, workers, "", lake, quiet)
    parameters = shared | {
        "sources": absolute(sources), "kind": kind, "lake": str(lake.absolute()), "batch": batch, "max_batches": max_batches,
        "retry_failed": not new_only, "dry_run": dry_run, "profile": profile, "settings": overrides,
    }  # fmt: skip
    raise typer.Exit(run_backfill(settings, parameters, api_url or None))


def run_backfill(settings: Any, parameters: dict[str, Any], api_url: str | None) -> int:
    """Run the flow and tell how it went; returns the exit code. The result, with all that its traceback holds, ends with this function."""
    from flows.runtime import api
    from tasks.errors import BookmillError

    with api(settings, api_url=api_url) as server:
        from deployments.launch import run_to_end
        from flows.backfill import backfill as flow
        from flows.run import RunFailed

        server.ready()
        state = run_to_end(flow, parameters, server.url)
        if state is None:
            return 1
        result: Any = state.result(raise_on_failure=False)
    if isinstance(result, BaseException) and not isinstance(result, BookmillError):
        raise result
    summary = result.facts if isinstance(result, RunFailed) else result
    if isinstance(summary, dict):
        _print_summary(summary)
    if isinstance(result, BookmillError):
        print(f"Error: {result}", file=sys.stderr)
        return result.exit_code if isinstance(result, RunFailed) else 2
    return 0


def _print_summary(summary: dict[str, Any]) -> None:
    from deployments import screen
    from tasks.publishing.freshness_table import unread_sentence

    for number, batch in enumerate(summary["batches"]):
        print(f"[{number + 1}] {batch['sources']} sources from {batch['first_date'] or 'unknown dates'}: {batch['state']}")
    for name, why in summary["held"].items():
        print(f"WAITS {name}: its books go on from {why}")
    for path in summary["waiting"]:
        print(f"WAITS {path}: it changed a moment ago")
    for entry in summary["rejected"]:
        print(screen.not_read(entry["path"], entry["error"]))
    if summary["unread"]:
        print(unread_sentence(summary["unread"]))
    states = ", ".join(f"{n:,} {state}" for state, n in summary["states"].items()) or "nothing known"
    print(f"{len(summary['batches'])} batches; {states} (partitions times layers); {summary['left']:,} sources left.")


def replay_quarantine(
    sources: Annotated[list[str], typer.Argument(help="The sources whose rows were set aside: files, folders or globs.")],
    lake: Lake = None,
    mended: Annotated[
        Path | None, typer.Option(parser=path_of, help="Folder that `bookmill quarantine export` wrote, with the rows mended.", show_default=False)
    ] = None,
    reason: Annotated[str, typer.Option(help="Take mended rows of these reasons only, separated by commas.")] = "",
    symbols: Annotated[str, typer.Option(help="As in the run that decoded the sources.")] = "",
    publishers: Annotated[str, typer.Option(help="As in the run that decoded the sources.")] = "",
    end: Annotated[str, typer.Option(help="As in the run that decoded the sources.")] = "",
    zone: Annotated[str, typer.Option(help="Time zone of --end.")] = "UTC",
    dataset: DatasetName = "",
    symbol: Annotated[str, typer.Option(help="Symbol of sources without a symbol column.")] = "",
) -> None:
    """Put quarantined rows that are mended back into the events, in their place. The next run makes the books anew."""
    from deployments.replay_quarantine import replay_all
    from flows.plan_options import asked_of
    from tasks.partitions import MboRecipe

    options = {"publishers": numbers(publishers, "publishers"), "end": end, "zone": zone, "symbol": symbol}
    asked = asked_of("mbo", sources, str(lake_of(lake)), symbols=split(symbols), options=options, dataset=dataset)
    assert isinstance(asked.recipe, MboRecipe)
    raise typer.Exit(replay_all(sources, asked.lake, asked.recipe, mended, split(reason), dataset, symbol))
