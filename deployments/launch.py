"""Start a flow from the command line: the Prefect API around it, the summary after it, the exit code."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from config import collector
from config.settings import Settings
from flows.runtime import api, end_at_once
from tasks.errors import BookmillError
from validation import judge_process


def run_flow(name: str, settings: Settings, parameters: dict[str, Any], api_url: str | None) -> int:
    """Run a flow ("mbo", "depth") with `parameters`; print how it went; returns 0 (all done), 1 (some failed) or 2 (nothing could run)."""
    if parameters.get("runner", "threads") == "threads":
        judge_process.begin()  # its imports take longer than anything before the first gate
    with api(settings, api_url=api_url) as server:
        # While a private API starts (6 s and more), the flow and what it stands on are imported.
        with collector.imports():
            from flows.run import RunFailed

            if name == "mbo":
                from flows.market_by_order import market_by_order as chosen
            else:
                from flows.depth_snapshots import depth_snapshots as chosen  # type: ignore[assignment]  # its parameters differ

        server.ready()
        state = run_to_end(chosen, parameters, server.url)
        if state is None:
            return 1
        result = state.result(raise_on_failure=False)
    if isinstance(result, RunFailed):
        print_summary(result.facts)
        print(f"Error: {result}", file=sys.stderr)
        return result.exit_code
    if isinstance(result, BookmillError):
        print(f"Error: {result}", file=sys.stderr)
        return 2
    if isinstance(result, BaseException):
        raise result
    print_summary(result)
    return 0


def run_to_end(flow: Any, parameters: dict[str, Any], api_url: str | None) -> Any | None:
    """Run a flow; the state in which it ended, or None, and a line that says so, where the API did not take its end."""
    import httpx

    end_at_once()
    try:
        return flow(**parameters, return_state=True)
    except httpx.HTTPError as fault:  # faults of the flow itself are in its state
        told = str(fault).partition("\n")[0] or type(fault).__name__
        print(
            f"Error: the Prefect API at {api_url} did not take the end of the run ({told}). What the run finished is in the lake, "
            "and the records in runs/records there say how runs ended. When the API answers, start the run again: what is finished is skipped.",
            file=sys.stderr,
        )  # fmt: skip
        return None


def print_summary(facts: Mapping[str, Any]) -> None:
    """What came out, for a person: partitions, checks, where to look. `facts` are those of the flow's result."""
    from rich.table import Table

    from deployments import screen

    console = screen.console()
    done = [p for p in facts.get("partitions", []) if p["status"] == "done"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("partition", "events", "event ends", "bbo rows", "trades", "crossed", "anomalies", "status"):
        table.add_column(name, justify="left" if name in ("partition", "status") else "right")
    for entry in facts.get("partitions", [])[:20]:
        outputs, counts, where = entry["outputs"], entry["counts"], entry["partition"]
        rows = {layer: f"{out['rows']:,}" for layer, out in outputs.items()}
        table.add_row(
            f"{where['dataset']} {where['symbol']} {where['date']}", rows.get("events") or f"{counts.get('rows_in', 0):,}",
            f"{counts.get('event_ends', 0):,}", rows.get("bbo") or rows.get("depth-bbo", ""),
            rows.get("trades", ""), f"{counts.get('crossed', 0):,}", f"{sum(counts.get('anomalies', {}).values()):,}",
            entry["status"] if entry["status"] != "done" else counts.get("status", ""),
        )  # fmt: skip
    console.print()
    if facts.get("partitions"):
        console.print(table)
        if len(facts["partitions"]) > 20:
            console.print(f"... and {len(facts['partitions']) - 20:,} more")
        console.print()
    for entry in facts.get("partitions", []):
        if entry["error"]:
            console.print(f"FAILED {entry['partition']['symbol']} {entry['partition']['date']}: {entry['error']}", markup=False, soft_wrap=True)
    if any(p["counts"].get("status") == "no_book" for p in done):
        hint = "no_book at the end: the source has no clear and no snapshot. If its book is empty at its start, say --starts-empty."
        console.print(hint, markup=False, soft_wrap=True)
    for entry in facts.get("rejected", []):
        console.print(screen.not_read(entry["path"], entry["error"]), markup=False, soft_wrap=True)
    checks = [r for g in facts.get("gates", []) for r in g["results"]]
    if checks:
        warned = [r["name"] for r in checks if not r["success"]]
        told = f"; did not hold: {', '.join(sorted(set(warned)))}" if warned else ""
        console.print(f"Checks    {len(checks) - len(warned):,} of {len(checks):,} expectations hold{told}", markup=False, soft_wrap=True)
    broken = sum(r["rows_in"] != r["rows_out"] + r["rows_filtered"] + r["rows_quarantined"] for r in facts.get("ledger", []))
    if facts.get("ledger"):
        console.print(
            f"Ledger    {len(facts['ledger']):,} lines, rows in = out + filtered + quarantined in {'all' if not broken else f'all but {broken:,}'}"
        )
    stages = facts.get("stages", [])
    if stages:
        console.print("Stages    " + ", ".join(f"{s['stage']} {s['seconds']:.2f} s" for s in stages), soft_wrap=True)
    if facts.get("peak_rss_bytes"):
        console.print(f"Memory    {facts['peak_rss_bytes'] / 2**20:,.0f} MB at most")
    if facts.get("lake"):
        lake = Path(facts["lake"])
        console.print(f"Lake      {lake}", markup=False, soft_wrap=True)
        for entry in done[:1]:
            heat = entry["outputs"].get("heatmap")
            if heat:
                picture = (lake / heat["path"]).with_suffix(".png")
                console.print(f"Heatmap   {picture}\n          {picture.with_suffix('.html')}", markup=False, soft_wrap=True)
        console.print(f"Report    {facts['report']}", markup=False, soft_wrap=True)
