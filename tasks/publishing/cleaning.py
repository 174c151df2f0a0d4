"""`bookmill clean`: the removal of what belongs to nothing any more, while no run works on it. What that is: orphans.py."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tasks.disk import storage_error
from tasks.locks import PARTITION, SOURCE, Claims, source_claim
from tasks.partitions import Partition
from tasks.publishing import ledger
from tasks.publishing.orphans import ACCOUNTS, PICTURES, Stock, find_old_events, find_orphans, find_partials, take_stock
from tasks.storage import PARTIAL


def clean(
    lake: Path, *, dry_run: bool = False, orphans: bool = False, old_events: bool = False, tell: Callable[[str], None] = lambda text: None
) -> tuple[list[tuple[str, int]], str]:  # fmt: skip
    """Remove partial files of dead processes and pictures without their grid; with orphans all that its events are gone of, with old_events the
    events that a newer source replaced.

    dry_run: remove nothing. Returns ((path relative to the lake, bytes) of each, why something was kept or ""). While a run writes to the lake only
    partial files go. Sources and partitions that lose files are claimed: it waits for runs that work on them, and tells so. What links lead to
    outside of the lake stays. Raises StorageError.
    """
    stock = take_stock(lake)
    names, kept = _removable(stock, orphans, old_events)
    if dry_run:
        return _remove(lake, names, kept, dry_run=True)
    with Claims(lake, tell) as claims:
        sources, partitions = _claims_of(stock, names)
        if sources or partitions:
            claims.claim(SOURCE, sources)
            claims.claim(PARTITION, partitions)
            # Others may have made anew meanwhile what was to go.
            again, kept = _removable(take_stock(lake), orphans, old_events)
            still = set(again)
            names = [name for name in names if name in still]
        removed, kept = _remove(lake, names, kept, dry_run=False)
        _account_anew(lake, [name for name, _ in removed])
        return removed, kept


def _account_anew(lake: Path, removed: list[str]) -> None:
    """Ledgers of partitions that lost events: without this they would still count those."""
    for partition in sorted({Partition.of_path(name) for name in removed if name.startswith("events/") and name.endswith(".parquet")}):
        if (lake / partition.path("ledger")).exists():
            ledger.write(lake, partition)


def _claims_of(stock: Stock, names: list[str]) -> tuple[list[str], list[str]]:
    """(sources, partitions) to which these files belong, as they are claimed; partial files belong to nobody who lives."""
    sources, partitions = set(), set()
    for name in names:
        layer = name.split("/")[0]
        if name in stock.sources:
            sources |= {source_claim(row["dataset"], row["fingerprint"]) for row in stock.sources[name]}
        elif layer not in ACCOUNTS and not name.endswith(PARTIAL):
            with suppress(KeyError, ValueError, IndexError):
                partitions.add(str(Partition.of_path(name)))
    return sorted(sources), sorted(partitions)


def _removable(stock: Stock, orphans: bool, old_events: bool) -> tuple[list[str], str]:
    """(files that can go, why others are kept or "")."""
    partials, kept = list(find_partials(stock)), ""
    # Events may have been deleted to save space, and the books not: those are taken only where that is said.
    loose = [finding for finding in find_orphans(stock) if orphans or finding.path.endswith(PICTURES)]
    found = [*partials, *loose, *(find_old_events(stock) if old_events else ())]
    if any(not finding.wrong for finding in partials):
        found, kept = partials, "A run is writing to this lake: only partial files were looked at. Start again when it has ended."
    return list(dict.fromkeys(name for finding in found for name in finding.remove)), kept


def _remove(lake: Path, names: list[str], kept: str, *, dry_run: bool) -> tuple[list[tuple[str, int]], str]:
    removed = []
    for name in names:
        path = lake / name
        if not path.parent.resolve().is_relative_to(lake.resolve()):
            kept = "What lies behind a link out of the lake was kept: clean there by hand."
            continue
        try:
            removed.append((name, path.lstat().st_size))
            if not dry_run:
                path.unlink()
        except FileNotFoundError:
            continue
        except OSError as fault:
            raise storage_error(path, fault) from fault
        if not dry_run and "=" in path.parent.name and path.relative_to(lake).parts[0] not in ACCOUNTS:
            with suppress(OSError):  # not empty
                path.parent.rmdir()
                path.parent.parent.rmdir()
    return removed, kept
