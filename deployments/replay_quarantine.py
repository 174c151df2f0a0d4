"""`bookmill replay-quarantine`: which exported file holds the mended rows of which source, and what is told of a replay."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from deployments import screen
from deployments.quarantine import export_name
from tasks.errors import BookmillError, UsageError
from tasks.partitions import MboRecipe, SourceFile
from tasks.publishing.orphans import find_partials, take_stock
from tasks.scanning.inventory import scan
from tasks.scanning.replay_patch import TEXT, Mend
from tasks.scanning.replay_quarantine import quarantined_rows, read_mends, replay
from tasks.scanning.sources_file import quarantine_path, sources_path


def replay_all(sources: Sequence[str], lake: Path, recipe: MboRecipe, mended: Path | None, reasons: Sequence[str], dataset: str, symbol: str) -> int:
    """Replay the quarantine of every source that has one. Returns 0; 1 when a source cannot be replayed or used, 2 when none could."""
    if not lake.is_dir():
        raise UsageError(f"There is no lake at {lake}. Give the folder that a run wrote to with --lake.")
    if mended is not None and not mended.is_dir():
        raise UsageError(f"There is no folder {mended}. Make it with `bookmill quarantine export {mended} --lake {lake}`, and mend the rows in it.")
    if busy := [finding for finding in find_partials(take_stock(lake)) if not finding.wrong]:
        raise UsageError(f"A run is writing to this lake ({busy[0].path}). Start again when it has ended.")
    inventory, done, failed = scan(sources, dataset=dataset or None, symbol=symbol or None), 0, 0
    for file in inventory.files:
        if not (lake / sources_path(file.dataset, file.short)).exists():
            print(f"NOT IN THE LAKE {file.name}: start `bookmill run mbo` with it")
            continue
        try:
            done += _replay(file, lake, recipe, mended, reasons)
        except BookmillError as fault:
            failed += 1
            print(f"FAILED {file.name}: {fault}")
    for other in inventory.rejected:
        print(screen.not_read(other.path, other.error))
    if done:
        print(f"Start `bookmill run mbo` (or backfill) with these sources and --lake {lake}: books and all that follows are made anew.")
    if not inventory.files:
        return 2
    return 0 if not failed and not inventory.rejected else 1 if done else 2


def _replay(file: SourceFile, lake: Path, recipe: MboRecipe, mended: Path | None, reasons: Sequence[str]) -> int:
    """1 when events were changed."""
    if not (lake / quarantine_path(file.dataset, file.short)).exists() and not read_mends(lake, file):
        return 0
    mends = mends_of(file, lake, mended, reasons) if mended is not None else []
    result = replay(file, lake, recipe, mends, tell=lambda text: print(f"{file.name}: {text}", file=sys.stderr))
    told = f"{result.replayed:,} mended rows are events, {result.quarantined:,} rows in quarantine"
    if result.filtered:
        reasons = ", ".join(f"{count:,} by {reason}" for reason, count in result.filtered.items())
        told += f", {sum(result.filtered.values()):,} mended rows are good and not wanted by the filter of the run ({reasons})"
    if result.judged_again:
        told += f", {result.judged_again:,} that a gate had set aside are events again until the next gate"
    print(f"{file.name}: {told}; {len(result.changed):,} events files changed")
    return int(bool(result.changed))


def mends_of(file: SourceFile, lake: Path, folder: Path, reasons: Sequence[str]) -> list[Mend]:
    """The rows of the exported file of a source that were changed in it. Raises UsageError when its rows are not those of the quarantine."""
    exported = folder / export_name(file.name, file.short)
    if not exported.exists():
        return []
    current = quarantined_rows(lake, file)
    now = [Mend(row["source_row"], row["byte_offset"], row["reason"], row["raw"], row["raw"]) for row in current]
    before = {mend.source_row: mend for mend in read_mends(lake, file)}
    # A row that was mended and is bad still is quarantined as it was mended; what stands in the source is what the mend replaced.
    now = [before.get(row.source_row, row) for row in now]
    every = sorted({**before, **{row.source_row: row for row in now}}.values(), key=lambda row: row.source_row)
    shown = {row["source_row"]: row["raw"] for row in current}
    text = exported.read_bytes()
    for rows in (now, every):  # an export from before an earlier replay has the rows of that one, too
        lines = _split(file, text, rows)
        if lines is not None:
            break
    else:
        raise UsageError(
            f"{exported} does not hold a row for each of the {len(now):,} quarantined rows of {file.name}. Keep one for each, in order, and leave "
            "those as they are that cannot be mended; or export anew."
        )
    changed = [(row, line) for row, line in zip(rows, lines, strict=True) if line not in (row.raw, shown.get(row.source_row, row.mended))]
    return [Mend(r.source_row, r.byte_offset, r.reason, r.raw, line) for r, line in changed if not reasons or r.reason in reasons]


def _split(file: SourceFile, text: bytes, rows: Sequence[Mend]) -> list[bytes] | None:
    """The exported bytes as a row for each of `rows`, None where they do not fit."""
    if file.format in TEXT or all(b"\x00" not in row.raw for row in rows):
        lines = [line.removesuffix(b"\r") for line in text.removesuffix(b"\n").split(b"\n")]
        return lines if len(lines) == len(rows) else None
    if len(text) != sum(len(row.raw) for row in rows):
        return None
    starts = [sum(len(row.raw) for row in rows[:i]) for i in range(len(rows))]
    return [text[start : start + len(row.raw)] for start, row in zip(starts, rows, strict=True)]
