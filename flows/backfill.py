"""What is missing, stale or failed in a lake is found and made, in bounded batches and in the order of the days."""

from __future__ import annotations

from typing import Any, Literal

from prefect import flow

from config.settings import load
from flows.backfill_run import BackfillRun
from flows.confinement import confine
from flows.plan_options import asked_of
from flows.run_life import beating


@flow(name="backfill", flow_run_name="backfill {kind} into {lake}", description=__doc__)
def backfill(
    sources: list[str],
    kind: Literal["mbo", "depth"] = "mbo",
    lake: str = "lake",
    symbols: list[str] = [],  # noqa: B006 - a form field: Prefect shows the default, nothing changes it
    start: str = "",
    end: str = "",
    batch: int = 20,
    max_batches: int = 0,
    settle: str = "30s",
    retry_failed: bool = True,
    dry_run: bool = False,
    options: dict[str, Any] = {},  # noqa: B006
    dataset: str = "",
    profile: str = "",
    settings: dict[str, str] = {},  # noqa: B006
) -> dict[str, Any]:
    """Hold sources against a lake and run what is left. Started again, it does only what is left then; with nothing to do it takes seconds.

    Args:
        sources: files, folders or globs, as the flow of this kind takes them; new files in a folder are found.
        kind: mbo, order-by-order sources (flow market-by-order); depth, depth feeds (flow depth-snapshots).
        lake: folder of the lake.
        symbols: symbols or pairs wanted; empty for all.
        start: first day wanted, YYYY-MM-DD; empty for all. Chooses sources by the days that they tell, and cuts no rows.
        end: first day not wanted any more; empty for all.
        batch: sources of one run at most; those that share a partition stay together.
        max_batches: runs at most; 0 for as many as it takes.
        settle: a file has to stand unchanged for so long before it is taken, such as 30s or 5m; off to take all.
        retry_failed: try again what failed in the last run; off: tell it, and leave it until its source, the options or the code change.
        dry_run: publish the plan, and run nothing.
        options: options of the flow by name, where they are not the defaults, such as {"depth": 20, "bars": ["1s"]}.
        dataset: dataset to file all sources under; empty: what they say.
        profile: laptop, server or ci; empty for the default.
        settings: settings by name, over all others (`bookmill config show` lists them).
    """
    confine(settings, sources=sources, lake=lake, csv=str(options.get("csv", "")), temp_dir=str(options.get("temp_dir", "")))
    asked = asked_of(
        kind, sources, lake, symbols=symbols, start=start, end=end, settle=settle, options=options, dataset=dataset, profile=profile,
        settings=settings,
    )  # fmt: skip
    run = BackfillRun(asked, batch, max_batches, retry_failed)
    with beating(load(profile or None, settings)):
        planned = run.plan()
        run.publish(planned)
        while not dry_run and run.goes_on(planned):
            run.work(planned)
            planned = run.plan()
            run.publish(planned)
        return run.result(planned)
