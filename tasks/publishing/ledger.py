"""Rows in = rows out + filtered + quarantined: the account of each partition and stage, read from the footers of the data files themselves.

There is no second record that could disagree with the data: what a stage counted stands in the file it wrote. Gate verdicts are not files
of the lake; who runs a gate adds its row. Nothing here changes data.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.footers import is_done, read_facts, read_footer
from tasks.partitions import Partition, Stamp, digest
from tasks.schemas import LEDGER
from tasks.storage import write_table

_AGGREGATES = ("ohlcv-", "bars-", "features", "mid-", "depth-features-")


def collect(lake: Path, partitions: Sequence[Partition]) -> pa.Table:
    """The ledger (schema LEDGER) of `partitions`, sorted, one row per stage whose files exist.

    decode: all events files of the partition together; reconstruct: the bbo file; snapshot: the touch of a depth feed; aggregate:<layer>: each
    bars and features file. `counts` holds every counter of the footer, and `file_rows`, the rows that the files really have, by which `check`
    ties the account to the data.
    Last come the rows of the same sources of which no events file tells: those that belong to no partition, and partitions kept in no part.
    """
    rows = [_row(partition, line) for partition in sorted(partitions) for line in _stages(lake, partition)]
    return pa.Table.from_pylist(rows + outside_partitions(lake, partitions), schema=LEDGER)


def check(table: pa.Table) -> list[str]:
    """What in a ledger does not add up, one sentence each; empty when every row is accounted for.

    Within a line: rows in = out + filtered + quarantined, and as many rows out as the files hold. Between lines: reconstruct takes what
    decode put out, each aggregate takes the trades that reconstruct put out.
    """
    return _problems(table.to_pylist())


def _problems(rows: list[dict[str, Any]]) -> list[str]:
    problems, by_partition = [], dict[Partition, dict[str, dict[str, Any]]]()
    for plain in rows:
        partition = Partition(plain["dataset"], plain["date"], plain["symbol"], plain["publisher_id"], plain["instrument_id"])
        row = {**plain, "counts": json.loads(plain["counts"] or "{}")}
        by_partition.setdefault(partition, {})[row["stage"]] = row
        accounted = row["rows_out"] + row["rows_filtered"] + row["rows_quarantined"]
        if row["rows_in"] != accounted:
            problems.append(
                f"{partition}, {row['stage']}: {row['rows_in']:,} rows in, but {row['rows_out']:,} out + {row['rows_filtered']:,} filtered + "
                f"{row['rows_quarantined']:,} quarantined = {accounted:,}; {_difference(row['rows_in'] - accounted)}."
            )
        written, expected = row["counts"].get("file_rows"), row["counts"].get("file_rows_expected")
        if written is not None and expected is not None and written != expected:
            problems.append(f"{partition}, {row['stage']}: the footer counts {expected:,} rows, the file holds {written:,}; rebuild the partition.")
    for partition, stages in by_partition.items():
        problems += _handovers(partition, stages)
    return problems


def write(lake: Path, partition: Partition) -> pa.Table:
    """Write the ledger of `partition` to its layer `ledger` and return it. No times in it: equal data give equal bytes, and are left as they are.

    Raises StorageError when the lake cannot be written.
    """
    table = pa.Table.from_pylist([_row(partition, line) for line in _stages(lake, partition)], schema=LEDGER)
    rows = table.to_pylist()
    # The digest of the lines stands in for inputs: `bookmill doctor` holds the lines to it, and it to the files.
    stamp = Stamp(inputs=digest(rows), recipe=digest("ledger"))
    path = lake / partition.path("ledger")
    if not is_done(path, stamp):
        write_table(path, table, stamp, {"violations": _problems(rows)})
    return table


def difference(kept: list[dict[str, Any]], now: list[dict[str, Any]]) -> str:
    """The first thing in which the lines of a kept ledger differ from `now`, the lines that its files give; "" where they are the same."""
    lines, files = ({row["stage"]: row for row in rows} for rows in (kept, now))
    for stage in [*files, *(stage for stage in lines if stage not in files)]:
        if stage not in files:
            return f"it has a line of {stage}, of which there are no files"
        if stage not in lines:
            return f"it has no line of {stage}, of which there are files"
        for name, value in files[stage].items():
            if lines[stage].get(name) != value:
                return f"{name} of {stage} is {lines[stage].get(name)!r} in it, and {value!r} by the files"
    return "" if kept == now else "its lines are in another order, twice, or have other columns"


def layer_files(lake: Path, partition: Partition, layer: str) -> list[Path]:
    """Files of `partition` in `layer` (several for events: one per source), sorted by name."""
    folder, _, name = f"{lake}/{partition.path(layer)}".rpartition("/")
    stem = name.removesuffix(".parquet")
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = (name for name in names if name.endswith(".parquet"))
    return [Path(folder, name) for name in sorted(found) if name == f"{stem}.parquet" or name.startswith(f"{stem}-")]


def files_of(lake: Path, partitions: Iterable[Partition], beginnings: tuple[str, ...] = ("",)) -> Iterator[tuple[Partition, dict[str, list[Path]]]]:
    """Each partition with the layers in which it has Parquet files, sorted, and these files; only layers that begin with one of `beginnings`."""
    try:
        with os.scandir(lake) as entries:
            names = sorted(e.name for e in entries if e.name.startswith(beginnings) and not e.name.startswith(".") and e.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        names = []
    for partition in partitions:
        yield partition, {name: files for name in names if (files := layer_files(lake, partition, name))}


_Line = tuple[str, int, int, int, int, dict[str, Any]]


def _row(partition: Partition, line: _Line) -> dict[str, Any]:
    stage, in_, out, filtered, quarantined, counts = line
    conserved = in_ == out + filtered + quarantined
    return {
        **asdict(partition), "stage": stage, "rows_in": in_, "rows_out": out, "rows_filtered": filtered, "rows_quarantined": quarantined,
        "status": "blocked" if not conserved else "warn" if quarantined else "ok", "counts": json.dumps(counts, sort_keys=True),
    }  # fmt: skip


def outside_partitions(lake: Path, partitions: Sequence[Partition]) -> list[dict[str, Any]]:
    """Rows of the layer `sources` without an events file, of the sources that these partitions were made from."""
    used = {read_facts(file).get("fingerprint") for partition in partitions for file in layer_files(lake, partition, "events")}
    folders = sorted({(lake / partition.path("sources")).parents[2] for partition in partitions})
    rows = []
    for file in sorted(f for folder in folders if folder.is_dir() for f in folder.rglob("*.parquet") if not f.name.startswith(".")):
        for entry in pq.read_table(file, partitioning=None).to_pylist():
            if entry["path"] == "" and entry["fingerprint"] in used and entry["rows_in"]:
                where = Partition(entry["dataset"], entry["date"], entry["symbol"], entry["publisher_id"], entry["instrument_id"])
                counts = {"source": entry["source"]}
                rows.append(_row(where, ("decode", entry["rows_in"], entry["rows_out"], entry["rows_filtered"], entry["rows_quarantined"], counts)))
    return rows


def _stages(lake: Path, partition: Partition) -> Iterable[_Line]:
    """(stage, in, out, filtered, quarantined, counts) in order of work."""
    events = layer_files(lake, partition, "events")
    if events:
        yield _decode(events)
    bbo = layer_files(lake, partition, "bbo")
    if bbo:
        yield _reconstruct(bbo[0])
    touch = layer_files(lake, partition, "depth-bbo")
    if touch:
        yield _snapshot(touch[0], "depth-bbo")
    trades = layer_files(lake, partition, "depth-trades")
    if trades:
        yield _snapshot(trades[0], "depth-trades")
    for _, aggregates in files_of(lake, [partition], _AGGREGATES):
        for layer, files in aggregates.items():
            yield _aggregate(layer, files[0])


def _decode(files: list[Path]) -> _Line:
    rows_in = rows_out = quarantined = replayed = 0
    filtered: dict[str, int] = {}
    for file in files:
        facts = read_facts(file)
        rows_in += int(facts.get("rows_in", 0))
        rows_out += int(facts.get("rows_out", _rows(file)))
        quarantined += int(facts.get("quarantined", 0))
        replayed += int(facts.get("replayed", 0))
        for reason, count in dict(facts.get("filtered", {})).items():
            filtered[reason] = filtered.get(reason, 0) + int(count)
    counts = {"files": len(files), "filtered": filtered, "file_rows": sum(map(_rows, files)), "file_rows_expected": rows_out}
    if replayed:  # of rows_out: rows that were in quarantine and came back mended
        counts["replayed"] = replayed
    return "decode", rows_in, rows_out, sum(filtered.values()), quarantined, counts


def _reconstruct(file: Path) -> _Line:
    facts = read_facts(file)
    rows_in = int(facts.get("rows_in", 0))
    # Every event ends as applied or ignored; where the footer counts them apart, their sum is what the book accounts for.
    accounted = facts["applied"] + facts["ignored"] if {"applied", "ignored"} <= facts.keys() else rows_in
    counts = {**facts, "file_rows": _rows(file)}
    if "bbo" in facts.get("outputs", {}):
        counts["file_rows_expected"] = int(facts["outputs"]["bbo"])
    return "reconstruct", rows_in, int(facts.get("rows_out", accounted)), 0, 0, counts


def _snapshot(file: Path, layer: str) -> _Line:
    """A depth feed in one pass, or its trades: lines in, messages (or updates, or trades) out."""
    facts = read_facts(file)
    counts = {**facts, "file_rows": _rows(file), "file_rows_expected": int(facts["outputs"][layer])}
    return (
        "snapshot" if layer == "depth-bbo" else "trades",
        int(facts["rows_in"]),
        int(facts["rows_out"]),
        int(facts.get("rows_filtered", 0)),
        int(facts["rows_quarantined"]),
        counts,
    )


def _aggregate(layer: str, file: Path) -> _Line:
    """Bars take trades and say how many they used; features take grid rows and put out as many."""
    facts = read_facts(file)
    made = int(facts.get("rows_out", 0))
    left_out = int(facts.get("rows_filtered", 0)) + int(facts.get("rows_unpriced", 0))
    counts = {**facts, "file_rows": _rows(file), "file_rows_expected": made}
    return f"aggregate:{layer}", int(facts.get("rows_in", 0)), int(facts.get("rows_used", made)), left_out, 0, counts


def _rows(file: Path) -> int:
    return int((read_footer(file) or {}).get("bookmill.rows", 0))


def _handovers(partition: Partition, stages: dict[str, dict[str, Any]]) -> list[str]:
    problems = []
    rebuilt = stages.get("reconstruct")
    if rebuilt and "decode" in stages and stages["decode"]["rows_out"] != rebuilt["rows_in"]:
        problems.append(
            f"{partition}: decode put out {stages['decode']['rows_out']:,} events, reconstruct took {rebuilt['rows_in']:,}; "
            "the books are not of these events, run the partition again."
        )
    trades = (rebuilt or {}).get("counts", {}).get("outputs", {}).get("trades")
    for stage, row in stages.items():
        taken = row["counts"].get("trades_in") if stage.startswith("aggregate:features") else row["rows_in"]
        if trades is not None and taken is not None and stage.startswith("aggregate:") and taken != trades:
            problems.append(f"{partition}: reconstruct put out {trades:,} trades, {stage} took {taken:,}; run the partition again.")
    return problems


def _difference(missing: int) -> str:
    return f"{missing:,} rows are not accounted for" if missing > 0 else f"{-missing:,} rows are counted twice"
