"""`bookmill resume`: which runs did not finish and why, and one of them started again. What is done is found done by the run itself.

A lake knows the runs that wrote to it (`flows/run_record.py`); a Prefect server knows those that report to it (`server_runs.py`). Where both know
a run, the lake is right: it tells a killed run at once, and whether a later run has completed the work.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from config.settings import Settings, load
from deployments import screen
from deployments.backfill import run_backfill
from deployments.launch import run_flow
from flows.run_record import RunRecord, is_alive, partial_runs, read_records
from flows.runtime import prepare
from tasks.errors import StorageError, UsageError

if TYPE_CHECKING:
    from deployments.server_runs import ServerRun

# Flow -> its name for `run_flow`. A backfill has no record of its own in the lake: a server knows it, and the lake knows its runs.
COMMANDS = {"market-by-order": "mbo", "depth-snapshots": "depth"}
BACKFILL = "backfill"


@dataclass(frozen=True)
class Unfinished:
    """A run that did not finish. run: what `bookmill resume` takes, a word that no other run has; flow_run: its id on the server or ""; why: for a
    person; alive: it may still work; server: its state there or ""; name: that of a run which only the server knows, which others may have, too."""

    run: str
    flow: str
    started: str
    why: str
    alive: bool
    lake: str
    flow_run: str = ""
    server: str = ""
    name: str = ""


def unfinished(lake: Path, url: str | None) -> list[Unfinished]:
    """Runs of the lake, and of the server at `url` where there is one, that did not finish; oldest first."""
    records = read_records(lake)
    remote: dict[str, ServerRun] = {}
    if url is not None:
        from deployments.server_runs import unfinished_runs

        remote = unfinished_runs()
    found = []
    for partial in partial_runs(lake, records):
        record = partial.record
        there = remote.get(record.flow_run)
        found.append(
            Unfinished(
                record.run_id, record.flow, record.started, partial.why, partial.alive, str(lake), record.flow_run, there.state if there else ""
            )
        )
    known = {record.flow_run for record in records}
    for run in remote.values():
        if run.id not in known:
            lake_there = str(run.parameters.get("lake", ""))
            found.append(Unfinished(run.id, run.flow, run.started, run.why, run.alive, lake_there, run.id, run.state, run.name))
    return sorted(found, key=lambda run: run.started)


def print_unfinished(lake: Path, settings: Settings, api_url: str | None, as_json: bool) -> None:
    """List runs that did not finish, with the reason. Raises StorageError where there is neither a lake nor a server."""
    url = prepare(settings, api_url=api_url)
    if url is None and not lake.is_dir():
        raise StorageError(f"There is no lake at {lake}. Give the folder that a run wrote to with --lake.")
    found = unfinished(lake, url)
    if as_json:
        print(json.dumps([asdict(run) for run in found], indent=2))
        return
    console = screen.console(soft_wrap=True)
    for run in found:
        style, there = ("yellow" if run.alive else "red"), f", on the server {run.server}" if run.server else ""
        where = f" into {run.lake}" if Path(run.lake) != lake else ""  # of a lake that only the server knows
        called = f" {run.name!r}" if run.name else ""
        console.print(Text.assemble((run.run, style), f" {run.flow}{called}{where}, started {run.started}{there}: {run.why}"))
    over = [run for run in found if not run.alive]
    if not found:
        console.print(f"No run of {lake} is unfinished.")
    elif over:
        console.print(f"\n`bookmill resume {over[-1].run}` starts one again; what is done is skipped.")


def resume(name: str, lake: Path, settings: Settings, api_url: str | None, here: bool) -> int:
    """Start the run `name` (run id or its beginning, flow run id or name) again with its parameters; returns the exit code.

    A run of a deployment is retried on its server, where a worker takes it, unless `here`; any other runs in this process, as a new run.
    Raises UsageError when there is no such run, or it is still at work, or its work is done.
    """
    url = prepare(settings, api_url=api_url)
    records = [record for record in read_records(lake) if name in (record.run_id, record.flow_run) or record.run_id.startswith(name)]
    if len(records) > 1:
        raise UsageError(f"{name} is the beginning of {len(records)} runs: {', '.join(r.run_id for r in records[:5])}. Give more of it.")
    if not records and url is None:
        raise UsageError(f"No run {name} has a record in {lake}. `bookmill resume --lake DIR` lists those of a lake.")
    if not records:
        from deployments.server_runs import find_run

        run = find_run(name)
        if run.alive:
            raise UsageError(f"{run.name} is still at work: {run.why}. Wait for it, or cancel it first.")
        return _again(run.flow, run.parameters, run.id, bool(run.deployment), here, api_url)
    record = records[0]
    if record.state == "completed":
        raise UsageError(f"{record.run_id} completed at {record.ended}: there is nothing to resume.")
    alive, how = is_alive(lake, record) if record.state == "running" else (False, "")
    if alive:
        raise UsageError(f"{record.run_id} is still at work: {how}. Wait for it, or end it first.")
    same_server = url is not None and _reports_here(record)
    # A lake may have been moved or copied since: the run goes on where its record lies.
    parameters = record.parameters | {"lake": str(lake.absolute())}
    if same_server and record.deployment and not here and Path(record.parameters.get("lake", lake)).absolute() != lake.absolute():
        raise UsageError(f"{record.run_id} worked on {record.parameters['lake']}, where its server would go on. Say --here to go on in {lake}.")
    return _again(record.flow, parameters, record.flow_run if same_server else "", bool(record.deployment), here, api_url)


def _reports_here(record: RunRecord) -> bool:
    from deployments.server_runs import is_known

    return bool(record.flow_run) and is_known(record.flow_run)


def _again(flow: str, parameters: dict[str, Any], flow_run: str, deployed: bool, here: bool, api_url: str | None) -> int:
    """flow_run: its id on the configured server, "" where that does not know it."""
    if flow_run and deployed and not here:
        from deployments.server_runs import retry

        print(retry(flow_run))
        return 0
    if flow not in (*COMMANDS, BACKFILL):
        raise UsageError(f"Runs of {flow} are not started here; allowed: {', '.join((*COMMANDS, BACKFILL))}. Start it again with its own command.")
    if flow_run:
        from deployments.server_runs import bury

        bury(flow_run)
    settings = load(parameters.get("profile") or None, parameters.get("settings") or {})
    if flow == BACKFILL:
        return run_backfill(settings, parameters, api_url)
    return run_flow(COMMANDS[flow], settings, parameters, api_url)
