"""Which sources there are for a plan: what a scan says of each file, kept from one look to the next, and the files that are still being written.

A scan reads every file in full for its fingerprint. Here a file is read again only when its size, modification time or inode changed; what was said
of it is kept in `<lake>/.plan/`, which can be deleted at any time. A run trusts none of this: it scans what it is given. Knows nothing of Prefect.
"""

from __future__ import annotations

import glob
import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tasks.errors import BookmillError, SourceError
from tasks.partitions import SourceFile, digest
from tasks.paths import shown
from tasks.publishing.freshness_catalog import FOLDER
from tasks.scanning.depth_sources import DepthInventory, scan_depth
from tasks.scanning.inventory import Inventory, expand, scan, verify_unchanged
from tasks.schemas import CODE_VERSION
from tasks.storage import atomic_file

_READERS = 4


@dataclass(frozen=True)
class Found:
    """A source as a scan describes it. kind, depth: of a depth feed, as in DepthSource; "" and 0 else."""

    file: SourceFile
    kind: str = ""
    depth: int = 0


@dataclass
class Look:
    """What one look found. rejected: (path, why it cannot be used); waiting: files that changed within the last seconds; published: books that a
    vendor rebuilt, which prove ours and make none."""

    files: list[Found] = field(default_factory=list)
    rejected: list[tuple[str, str]] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    published: list[SourceFile] = field(default_factory=list)


# (files, why the path cannot be used or "", whether that is so for as long as the file stays as it is) of one path or pattern.
Describe = Callable[[str], tuple[list[Found], str, bool]]


def look_for_orders(sources: Sequence[str], lake: Path, dataset: str = "", symbol: str = "", *, settle_s: float = 0, keep: bool = True) -> Look:
    """Order-by-order sources and published books, each content once.

    settle_s: a file has to stand unchanged for so long; keep: remember what was said of the files.
    """

    def describe(given: str) -> tuple[list[Found], str, bool]:
        inventory = scan([given], dataset=dataset or None, symbol=symbol or None)
        return [Found(f) for f in (*inventory.files, *inventory.published)], *_why(inventory, given)

    look = _look(sources, lake, digest(["mbo", dataset, symbol]), describe, settle_s, keep)
    kept: dict[str, Found] = {}
    for found in sorted(look.files, key=lambda f: (f.file.dataset, f.file.dates[:1], f.file.path, f.file.member)):
        kept.setdefault(found.file.fingerprint, found)
    look.published = [found.file for found in kept.values() if found.file.format.startswith("published-")]
    look.files = [found for found in kept.values() if not found.file.format.startswith("published-")]
    return look


def look_for_depth(sources: Sequence[str], lake: Path, dataset: str = "", *, settle_s: float = 0, keep: bool = True) -> Look:
    """Depth feeds; which of several for one pair and day is used, is decided by the caller."""

    def describe(given: str) -> tuple[list[Found], str, bool]:
        inventory = scan_depth([given], dataset=dataset)
        return [Found(s.file, s.kind, s.depth) for s in inventory.files], *_why(inventory, given)

    return _look(sources, lake, digest(["depth", dataset]), describe, settle_s, keep)


def _why(inventory: Inventory | DepthInventory, given: str) -> tuple[str, bool]:
    """What is said of a path, and whether it lies in the content: a plain SourceError (may not be read, its other half is not there) can pass.

    That a pattern leads to nothing is told by who expands it.
    """
    errors = [r.error for r in inventory.rejected if r.path != given or os.path.lexists(given)]
    return " ".join(map(str, errors)), all(type(error) is not SourceError for error in errors)


def _look(sources: Sequence[str], lake: Path, key: str, describe: Describe, settle_s: float, keep: bool) -> Look:
    look, named = Look(), dict[str, bool]()
    for given in sources:
        paths, error = expand(given)
        look.rejected += [(shown(given), str(error))] if error is not None else []
        for path, by_name in paths:
            named[path] = named.get(path, False) or by_name
    store = lake / FOLDER / f"sources-{key}.json"
    known, now = _known(store), time.time_ns()
    entries: dict[str, dict[str, Any]] = {}
    fresh, passing = [], set[str]()
    for path in sorted(named):
        entry = known.get(path)
        identity = _identity(path)
        if entry is None or entry["identity"] != identity:
            entry = {"identity": identity, "seen_ns": now, "files": None, "error": "", "named": named[path]}
        elif entry.get("named") != named[path]:  # of what somebody names it is told why it cannot be used; side material of a folder is passed over
            entry = entry | {"files": None, "named": named[path]}
        elif entry["files"] is not None and not _still_so(entry["files"]):
            entry = entry | {"files": None}
        entries[path] = entry
        # By the clock of whoever writes, or by ours where that one runs ahead.
        if settle_s and now - min(identity[1] if identity else now, entry["seen_ns"]) < settle_s * 1e9:
            look.waiting.append(path)
        elif entry["files"] is None:
            fresh.append(path)
    with ThreadPoolExecutor(_READERS) as pool:
        for path, (files, why, lasting) in zip(fresh, pool.map(lambda p: describe(p if named[p] else _found(p)), fresh), strict=True):
            entries[path] |= {"files": [asdict(found) for found in files], "error": why}
            passing |= set() if lasting else {path}
    for path, entry in entries.items():
        if entry["files"] is not None and path not in look.waiting:
            found = [_restored(one) for one in entry["files"]]
            look.files += [f for f in found if f.file.companion not in look.waiting]
            look.rejected += [(shown(path), entry["error"])] if entry["error"] else []
    entries |= {path: entries[path] | {"files": None, "error": ""} for path in passing}  # asked again at the next look
    if keep and lake.is_dir() and entries != known:
        with suppress(BookmillError), atomic_file(store) as out:
            out.write(json.dumps({"code": CODE_VERSION, "paths": known | entries}).encode())
    look.waiting = [shown(path) for path in look.waiting]
    return look


def _known(store: Path) -> dict[str, dict[str, Any]]:
    try:
        kept = json.loads(store.read_bytes())
        return kept["paths"] if kept["code"] == CODE_VERSION else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _identity(path: str) -> list[int]:
    try:
        stat = os.stat(path)
    except OSError:
        return []
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]


def _still_so(files: list[dict[str, Any]]) -> bool:
    """Whether all that a source consists of, the other file of a pair too, is as it was."""
    try:
        for one in files:
            verify_unchanged(_restored(one).file)
    except SourceError:
        return False
    return True


def _restored(one: dict[str, Any]) -> Found:
    file = one["file"] | {"dates": tuple(one["file"]["dates"]), "symbols": tuple(one["file"]["symbols"])}
    return Found(SourceFile(**file), one["kind"], one["depth"])


def _found(path: str) -> str:
    """A pattern for this path alone: a file that is found in a folder is passed over when it is no source, one that is named is rejected."""
    letter = next((i for i in range(len(path) - 1, -1, -1) if path[i].isalnum()), None)
    return path if letter is None else f"{glob.escape(path[:letter])}[{path[letter]}]{glob.escape(path[letter + 1 :])}"
