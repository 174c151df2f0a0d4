"""`bookmill doctor` and `bookmill clean`: what is wrong with a lake, and what can go, as people and programs read it."""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.text import Text

from deployments import screen
from tasks.publishing.cleaning import clean
from tasks.publishing.doctor import examine

SHOWN = 20  # findings of a kind; --json has all


def print_checkup(lake: Path, as_json: bool, deep: bool) -> int:
    """Say what is wrong with the lake. Returns the exit code: 0 when nothing is, 1 when something is."""
    checkup = examine(lake, deep=deep)
    if as_json:
        findings = [{k: v for k, v in asdict(f).items() if k != "remove"} for f in checkup.findings]
        print(json.dumps({"lake": str(lake), "files": checkup.files, "healthy": checkup.healthy, "findings": findings}, indent=2))
        return int(not checkup.healthy)
    console = screen.console(soft_wrap=True)
    for kind, group in itertools.groupby(checkup.findings, key=lambda finding: finding.kind):
        found = list(group)
        for finding in found[:SHOWN]:
            style = "red" if finding.wrong else "yellow"
            console.print(Text.assemble((kind, style), f" {finding.path}: {finding.what} {finding.remedy}"))
        if len(found) > SHOWN:
            console.print(f"{kind}: {len(found) - SHOWN:,} more; --json lists all")
    wrong = sum(finding.wrong for finding in checkup.findings)
    console.print(f"{checkup.files:,} files, {wrong:,} things wrong." if wrong else f"{checkup.files:,} files, nothing is wrong.")
    return int(wrong > 0)


def print_clean(lake: Path, dry_run: bool, orphans: bool, old_events: bool) -> None:
    """Remove what belongs to nothing, or with dry_run only list it, with sizes."""
    removed, kept = clean(lake, dry_run=dry_run, orphans=orphans, old_events=old_events, tell=lambda text: print(text, file=sys.stderr))
    for name, size in removed:
        print(f"{size:>15,}  {name}")
    if kept:
        print(kept)
    print(f"{len(removed):,} files, {sum(size for _, size in removed):,} bytes {'would be removed' if dry_run else 'removed'}.")
