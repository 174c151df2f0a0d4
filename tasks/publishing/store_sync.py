"""A lake and its mirror on an object store: `push` sends what the store lacks, `pull` fetches what the lake lacks. Nothing is ever deleted.

Both go by groups (store_files.steps), each ended before the next begins, so that what says done comes after what it speaks of; killed at any moment
and started again, they do what is left. A file that says done goes only as it was when it was listed: where a run or another push replaced it
meanwhile, it waits for the next look.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import StorageError
from tasks.publishing.store import BadObject, Blob, Missing, Moved, Store
from tasks.publishing.store_carry import LAYER as CLOSING
from tasks.publishing.store_carry import closings_before
from tasks.publishing.store_files import DONE, Identity, Selection, belongs, files_of, in_reading_order, rank, steps

# At a time. Each holds two parts of 16 MiB, and the library under it copies of them: 310 MB in a push of four large files, 70 MB in a pull.
TRANSFERS = 4
LOOKS = 5
_TELL_EVERY_S = 10.0
_ACCOUNT = ["dataset", "date", "symbol", "publisher_id", "path", "rows_in"]


class TransferStopped(StorageError):
    """The store refused or was away for too long. exit_code: 1 when something was transferred, 2 when nothing was."""

    def __init__(self, message: str, exit_code: int = 2, *, transient: bool = False) -> None:
        super().__init__(message, transient=transient)
        self.exit_code = exit_code


@dataclass
class Transfer:
    """What came of a push or pull. moved, same, kept: names transferred, there already with the same content, and (pull) left as the lake has them
    although the store's differ; bad: name -> why it was not taken; nbytes: bytes moved; unsettled: files that kept changing; closings: (pull) closing
    books of days before the start that belong to it; without: why others do not."""

    moved: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    bad: dict[str, str] = field(default_factory=dict)
    unsettled: list[str] = field(default_factory=list)
    closings: list[str] = field(default_factory=list)
    without: list[str] = field(default_factory=list)
    nbytes: int = 0
    seconds: float = 0.0


_MOVED, _SAME, _KEPT, _LATER, _GONE = "moved", "same", "kept", "later", "gone"
_Tell = Callable[[str], None]


def push(lake: Path, store: Store, tell: _Tell = lambda text: None) -> Transfer:
    """Send to the store what it lacks of the lake, or has with another content. Raises StorageError (TransferStopped)."""
    files = files_of(lake)
    store.check()
    there = {name: blob for layer in {name.split("/", 1)[0] for name in files} for name, blob in store.listing(layer).items() if name in files}
    sent: dict[str, Identity] = {}

    def send(name: str) -> tuple[str, int]:
        try:
            file = open(lake / name, "rb")  # noqa: SIM115 - closed by the with below
        except FileNotFoundError:
            return _GONE, 0
        except OSError as fault:
            raise StorageError(f"Cannot read {lake / name}: {fault.strerror}. Check its permissions and the disk, and start again.") from fault
        with file:
            now = Identity.of(os.fstat(file.fileno()))
            if rank(name) == DONE and now != files[name]:
                return _LATER, 0
            if name in there and _holds(store, name, there[name], file):
                sent[name] = now
                return _SAME, 0
            size = store.put(name, file)
            there.pop(name, None)
            sent[name] = now
            return _MOVED, size

    result, start = Transfer(), time.perf_counter()
    for _ in range(LOOKS):
        waiting = _work(steps(name for name in files if sent.get(name) != files[name]), send, result, tell)
        if not waiting:
            break
        files = files_of(lake)
    result.unsettled, result.seconds = waiting, time.perf_counter() - start
    return result


def pull(lake: Path, store: Store, wanted: Selection, *, replace: bool = False, tell: _Tell = lambda text: None) -> Transfer:
    """Fetch from the store what the lake lacks of the selection. replace: also where the lake has another content; else that is kept.

    Of sources and their quarantine, a selection of partitions takes those of which it holds every partition. With a start come the closing books of
    days before it that its first days go on from. Raises StorageError (TransferStopped).
    """
    store.check()
    blobs: dict[str, Blob] = {}
    fetched: dict[str, str] = {}
    again: set[str] = set()

    def fetch(name: str) -> tuple[str, int]:
        path, blob = lake / name, blobs[name]
        try:
            if rank(name) != DONE:  # a newer one serves as well, and what speaks of it must not come without it
                blob = store.blob(name) if name in again else blob
            if path.exists():
                with open(path, "rb") as file:
                    if store.holds(name, blob, file):
                        fetched[name] = blob.version
                        return _SAME, 0
                if not replace:
                    fetched[name] = blob.version
                    return _KEPT, 0
            size = store.get(name, blob, path)
        except Moved:
            if rank(name) != DONE and name not in again:
                again.add(name)
                return fetch(name)
            return _LATER, 0
        except Missing:
            return _GONE, 0
        fetched[name] = blob.version
        return _MOVED, size

    result, start = Transfer(), time.perf_counter()
    for _ in range(LOOKS):
        blobs = _selected(store, wanted, result)
        waiting = _work(steps(name for name, blob in blobs.items() if fetched.get(name) != blob.version), fetch, result, tell)
        if not waiting:
            break
    result.unsettled, result.seconds = waiting, time.perf_counter() - start
    return result


def _selected(store: Store, wanted: Selection, result: Transfer) -> dict[str, Blob]:
    """The objects of the selection, listed in reading order, and the closing books before it, which the result tells."""
    carried = bool(wanted.start) and wanted.wants_layer(CLOSING)
    needed = {"sources", "events", CLOSING} if carried else set()
    layers = [layer for layer in in_reading_order(store.layers()) if wanted.wants_layer(layer) or layer in needed]
    listed = {layer: {n: b for n, b in store.listing(layer).items() if belongs(n)} for layer in layers}
    found = {n: b for blobs in listed.values() for n, b in blobs.items() if wanted.wants(n)}
    if not wanted.of_partitions:
        return found
    told = {name: _account(store, name, blob) for name, blob in listed.get("sources", {}).items()}
    if carried:
        left_out = [((r["dataset"], r["symbol"], r["publisher_id"]), r["date"]) for rows in told.values() for r in rows or [] if _is_left_out(r)]
        before, result.without = closings_before(store, wanted, listed.get(CLOSING, {}), listed.get("events", {}), left_out)
        result.closings = sorted(before)
        found |= before
    accounts = {name for name in found if name.startswith("sources/") and _covers(wanted, told[name])}
    beside = {name for account in accounts for name in _beside(account)}
    return {n: b for n, b in found.items() if not n.startswith(("sources/", "quarantine/", "mends/")) or n in accounts or n in beside}


def _account(store: Store, name: str, blob: Blob) -> list[dict[str, Any]] | None:
    """The rows of the account of a source, None where it cannot be read."""
    try:
        return pq.read_table(io.BytesIO(store.content(name, blob)), columns=_ACCOUNT).to_pylist()
    except (Missing, Moved, pa.ArrowException, OSError, KeyError):
        return None


def _is_left_out(row: dict[str, Any]) -> bool:
    """Whether a source has rows of a partition and kept none of them."""
    return bool(row["date"] and row["rows_in"] and not row["path"])


def _covers(wanted: Selection, rows: list[dict[str, Any]] | None) -> bool:
    """Whether all events of a source are in the selection, so that its account may say that they are there."""
    return rows is not None and all(wanted.wants(row["path"]) for row in rows if row["path"])


def _holds(store: Store, name: str, blob: Blob, file: BinaryIO) -> bool:
    """Whether the store has this content; not when the object went away since it was listed."""
    try:
        return store.holds(name, blob, file)
    except Missing:
        return False


def _beside(account: str) -> tuple[str, str]:
    """The rows that the decode of a source set aside, and those that were mended: without them a later replay would undo earlier ones."""
    _, dataset, name = account.split("/", 2)
    return f"quarantine/{dataset}/source-{name}", f"mends/{dataset}/source-{name}"


def _work(groups: list[list[str]], transfer: Callable[[str], tuple[str, int]], result: Transfer, tell: _Tell) -> list[str]:
    """Transfer group after group, TRANSFERS files at a time. Returns what has to wait for another look; what failed for good ends all."""
    count, done, told, later = sum(map(len, groups)), 0, time.monotonic(), list[str]()
    for group in groups:
        with ThreadPoolExecutor(min(TRANSFERS, len(group)), "transfer") as pool:
            futures = {pool.submit(transfer, name): name for name in group}
            try:
                for future in as_completed(futures):
                    name, done = futures[future], done + 1
                    try:
                        came, size = future.result()
                    except BadObject as fault:
                        result.bad[name] = str(fault)
                        continue
                    result.nbytes += size
                    if came in (_LATER, _GONE):
                        later.append(name)
                    else:
                        getattr(result, came).append(name)
                    if time.monotonic() - told > _TELL_EVERY_S:
                        told = time.monotonic()
                        tell(f"{done:,} of {count:,} files, {result.nbytes / 1e6:,.1f} MB transferred")
            except BaseException as fault:
                for future in futures:
                    future.cancel()
                if isinstance(fault, StorageError):
                    # From here on nothing follows: what says done must not come without what it speaks of.
                    so_far = f" {len(result.moved):,} files were transferred before." if result.moved else ""
                    raise TransferStopped(f"{fault}{so_far}", 1 if result.moved else 2, transient=fault.transient) from fault
                raise
    return later
