"""A file of many symbols from source to books, as plain Python: what a record costs when it comes with 2,000 books instead of one; and the floor
of it, the writing of the same files.

The grid is of minutes: that of seconds has 23,400 rows of ten levels a symbol whatever its records, in a file of 2,000 symbols six times as many
as there are records.
"""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.bench.mbo_flow import WARM_RECORDS
from tests.bench.mbo_session import Call, Files, Found, facts_of
from tests.bench.stages import Place

INTERVAL_NS = 60_000_000_000
LEFT = "many-lake-"
IN_MEMORY = 64  # partitions


def clear(folder: Path) -> None:
    """Delete the lakes that the contenders left in the folder of the benchmark."""
    for lake in folder.glob(f"{LEFT}*"):
        shutil.rmtree(lake)


def decode_and_rebuild(files: Files, many: bool, workers: int) -> Call:
    """Decode the file into a lake of its own, which stays until `clear`, and rebuild `workers` partitions at a time, the largest first."""

    def call(of: Files) -> Found:
        # For minutes after many files were deleted ext4 passes over their inodes where it makes new ones: a fifth of the time of the next contender.
        return _books(of.many if many else of.source, Path(tempfile.mkdtemp(prefix=_left(of, many), dir=files.folder)), workers)

    call(Files(files.folder, WARM_RECORDS, files.lake))  # kernels compiled and loaded
    source = files.many if many else files.source
    assert source.exists()
    return lambda: call(files)


def _left(files: Files, many: bool) -> str:
    """What the lakes of such a source are called."""
    return f"{LEFT}{'many' if many else 'one'}-{files.records}-"


def written_only(files: Files, workers: int) -> Call:
    """The files of that lake once more from memory, `workers` partitions at a time, as a rebuild writes and syncs them. Only that counts."""
    left = _left(files, many=True)
    if not list(files.folder.glob(f"{left}*")):
        decode_and_rebuild(files, many=True, workers=2)()
    lake = next(files.folder.glob(f"{left}*"))
    partitions: dict[tuple[str, ...], list[Path]] = {}
    for path in sorted(lake.rglob("symbol=*/part-*.parquet")):
        partitions.setdefault(path.relative_to(lake).parts[1:], []).append(path)

    def call() -> Found:
        out, wall, cpu, found = Path(tempfile.mkdtemp(prefix=f"{LEFT}written-", dir=files.folder)), 0.0, 0.0, 0
        chosen = iter(partitions.values())
        with ThreadPoolExecutor(workers, "write") as pool:
            while some := [[_File.of(path, out / path.relative_to(lake)) for path in paths] for paths in itertools.islice(chosen, IN_MEMORY)]:
                began, spent = time.perf_counter(), time.process_time()
                list(pool.map(_write, some))
                wall, cpu, found = wall + time.perf_counter() - began, cpu + time.process_time() - spent, found + sum(map(len, some))
        return Found(facts={"files": found}, seconds=(wall, cpu))

    return call


@dataclass(frozen=True)
class _File:
    """A file of a lake in memory, the name of its copy, and how it is encoded."""

    path: Path
    schema: Any
    groups: Sequence[Any]
    options: dict[str, Any]
    footer: dict[str, str]

    @staticmethod
    def of(path: Path, copy: Path) -> _File:
        import pyarrow.parquet as pq

        with pq.ParquetFile(path, pre_buffer=False) as file:
            metadata = file.metadata
            groups = [file.read_row_group(group) for group in range(metadata.num_row_groups)]
            columns = [metadata.row_group(0).column(at) for at in range(metadata.num_columns)] if groups else []
            encodings = {c.path_in_schema: kind for c in columns for kind in ("BYTE_STREAM_SPLIT", "DELTA_BINARY_PACKED") if kind in c.encodings}
            options = {
                "dictionary": [c.path_in_schema for c in columns if "RLE_DICTIONARY" in c.encodings], "encodings": encodings,
                "statistics": [c.path_in_schema for c in columns if c.is_stats_set],
            }  # fmt: skip
            return _File(copy, file.schema_arrow, groups, options, {k.decode(): v.decode() for k, v in metadata.metadata.items()})


def _write(files: Sequence[_File]) -> None:
    """The files of a partition, named together."""
    from tasks.disk import together
    from tasks.partitions import Stamp
    from tasks.storage import ParquetSink

    with together():
        for file in files:
            with ParquetSink(file.path, file.schema, row_group_rows=1 << 40, **file.options) as sink:
                for group in file.groups:
                    sink.write(group)
                    sink.end_group()
                footer = file.footer
                sink.commit(Stamp(footer["bookmill.inputs"], footer["bookmill.recipe"]), json.loads(footer["bookmill.facts"]))


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
