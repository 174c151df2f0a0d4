"""The snapshot task: a depth feed to its snapshots in one pass. It joins the reader of one stage with the book of another; both are handed to it.

Minute snapshots are a ten-thousandth of the updates they are made from: writing those to the lake first, to read them once, would double the work.
"""

from __future__ import annotations

from pathlib import Path

from prefect import task

from tasks.depth_recipe import TRADES, DepthRecipe, DepthSource
from tasks.reconstruction.depth_build import build_depth
from tasks.reconstruction.depth_export import CsvTarget
from tasks.scanning.depth_journal import DepthJournal
from tasks.scanning.depth_sources import open_depth
from tasks.scanning.depth_trades import decode_trades
from tasks.scanning.inventory import verify_unchanged
from tasks.storage import temporary_copy
from tasks.work import Outcome, Work, run_each

# Text in flight, the book, and a row group of 2,000 columns in the making, measured.
SNAPSHOT_BYTES = 192 << 20


@task(name="snapshot", task_run_name="snapshot {label}")
def snapshot_depth(
    lake: str, sources: tuple[DepthSource, ...], recipe: DepthRecipe, csv: dict[str, CsvTarget | None], temp_dir: str, label: str, run: Work
) -> list[Outcome]:
    """Read, rebuild and sample each source; values are `DepthBuilt`, of trades `DepthTrades`.

    csv: by dataset; temp_dir: where to copy the file first, "" for nowhere.
    """

    def body(source: DepthSource):
        folder = Path(lake)
        with run.slots(1, SNAPSHOT_BYTES), temporary_copy(Path(source.file.path), temp_dir) as path:
            if source.kind == TRADES:
                trades = decode_trades(source, folder, path, lambda rows, size: run.advance(source.subject, rows, size))
                run.finish(source.subject)
                return trades, trades.facts["rows_in"], trades.skipped
            built = build_depth(
                folder, source, recipe, lambda: open_depth(source, path), csv=csv[source.partition.dataset],
                journal=lambda: DepthJournal(source, folder),
                verify=lambda: verify_unchanged(source.file), progress=lambda lines, size: run.advance(source.subject, lines, size),
            )  # fmt: skip
        run.finish(source.subject)
        return built, built.facts["rows_in"], built.skipped

    return run_each(sources, lambda source: source.subject, body, run.tell)
