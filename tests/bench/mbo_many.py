"""A file of many symbols from source to books, as plain Python: what a record costs when it comes with 2,000 books instead of one.

The grid is of minutes: that of seconds has 23,400 rows of ten levels a symbol whatever its records, in a file of 2,000 symbols six times as many
as there are records.
"""

from __future__ import annotations

import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.bench.mbo_flow import WARM_RECORDS
from tests.bench.mbo_session import Call, Files, Found, facts_of
from tests.bench.stages import Place

INTERVAL_NS = 60_000_000_000
LEFT = "many-lake-"


def clear(folder: Path) -> None:
    """Delete the lakes that the contenders left in the folder of the benchmark."""
    for lake in folder.glob(f"{LEFT}*"):
        shutil.rmtree(lake)


def decode_and_rebuild(files: Files, many: bool, workers: int) -> Call:
    """Decode the file into a lake of its own, which stays until `clear`, and rebuild `workers` partitions at a time, the largest first."""

    def call(of: Files) -> Found:
        # For minutes after many files were deleted ext4 passes over their inodes where it makes new ones: a fifth of the time of the next contender.
        return _books(of.many if many else of.source, Path(tempfile.mkdtemp(prefix=LEFT, dir=files.folder)), workers)

    call(Files(files.folder, WARM_RECORDS, files.lake))  # kernels compiled and loaded
    source = files.many if many else files.source
    assert source.exists()
    return lambda: call(files)


def _books(source: Path, lake: Path, workers: int) -> Found:
    from tasks.reconstruction.rebuild import rebuild
    from tasks.scanning.decode import decode

    place = Place(source, lake)
    recipe = replace(place.recipe, interval_ns=INTERVAL_NS)
    decoded = decode(place.file, lake, recipe)
    parts = sorted(decoded.parts, key=lambda part: -part.rows)
    with ThreadPoolExecutor(workers, "rebuild") as pool:
        rebuilt = list(pool.map(lambda part: rebuild(lake, part.partition, [part.path], recipe), parts))
    _check(facts_of(source), {built.partition.instrument_id: built.facts for built in rebuilt})
    return Found({"records": decoded.rows_out}, {"books": len(rebuilt)})


def _check(truth: dict[str, Any], facts: dict[int, dict[str, Any]]) -> None:
    """Raise AssertionError unless every book ends as the generator's did; a symbol of which no record came has none."""
    ends = sum(found["event_ends"] for found in facts.values())
    assert ends == truth["event_ends"], f"found {ends:,} event ends, the generator wrote {truth['event_ends']:,}"
    for book in truth["books"]:
        found = facts.get(book["instrument_id"])
        got = (found["orders"], found["best_bid"], found["best_ask"]) if found else (0, None, None)
        touch = [[book[f"{side}_px"], book[f"{side}_sz"]] if book[f"{side}_sz"] else None for side in ("bid", "ask")]
        assert got == (book["live_orders"], *touch), f"the book of {book['symbol']} ends with {got}, the generator's with {book}"
