"""The certificate of a partition: what its source knows of the truth, and whether the rebuilt book agrees.

Reads what the replay compared on the way (footer of the bbo layer), the opening book against the closing book of the day before, and the
layer "published". Writes layer "certificate" (schema CERTIFICATE): a row a truth, or one row "none". It changes no other layer: a status is
what was known at the time of its row, and a certificate comes later; so a wrong stretch that only a later snapshot shows is named here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import BookmillError
from tasks.footers import is_done, read_facts, read_footer
from tasks.partitions import MboRecipe, Partition, Stamp, continued, digest
from tasks.reconstruction.carry import begins_late, closes_early
from tasks.reconstruction.checkpoints import read_resting
from tasks.reconstruction.proof import no_truth_row, row_of, to_json
from tasks.reconstruction.published_truth import compare_published
from tasks.reconstruction.snapshot_truth import BookImage, SnapshotTruth
from tasks.schemas import CERTIFICATE
from tasks.storage import write_table

LAYER = "certificate"


@dataclass(frozen=True)
class Certificate:
    """verdict: "matched", "diverged" or "no_truth" over all independent truths; rows: as in the layer."""

    partition: Partition
    path: str
    verdict: str
    rows: list[dict[str, Any]]
    skipped: bool


def certificate_stamp(lake: Path, partition: Partition, recipe: MboRecipe, day_before: str | None) -> Stamp:
    """What a certificate is made from. Raises BookmillError when the partition was not rebuilt."""
    inputs = []
    for name in [partition.path("bbo"), *published_files(lake, partition), *([day_before] if day_before else [])]:
        footer = read_footer(lake / name)
        if footer is None:
            raise BookmillError(f"{lake / name} is missing or not readable. Start the run again: it is made anew.")
        inputs.append([name, footer["bookmill.inputs"], footer["bookmill.recipe"], footer["bookmill.code"]])
    return Stamp(digest(inputs), recipe.digest_of("depth", "clock"))


def published_files(lake: Path, partition: Partition) -> list[str]:
    """Published books of a partition, relative to the lake."""
    folder = (lake / partition.path("published")).parent
    pattern = f"part-{partition.publisher_id}-{partition.instrument_id}-*.parquet"
    return sorted(path.relative_to(lake).as_posix() for path in folder.glob(pattern)) if folder.is_dir() else []


def day_before(lake: Path, partition: Partition) -> str | None:
    """The closing book of the same symbol and publisher on the calendar day before, relative to the lake; None where there is none.

    Not of an earlier day: over a weekend orders expire, and an opening snapshot owes nothing to Friday's book. Nor one that is not of the end of
    its day, or that the lake has events after which the partition was not made from: what lies between would be taken for a divergence.
    """
    day = (date.fromisoformat(partition.date) - timedelta(days=1)).isoformat()
    same = continued(partition, named_alike(lake, partition, "closing_book", day), named_alike(lake, partition, "events", partition.date))
    if same is None or closes_early(lake, same):
        return None
    book = lake / partition.path("bbo")
    return None if book.exists() and begins_late(lake, partition, read_facts(book)["events"]) else same.path("closing_book")


def named_alike(lake: Path, partition: Partition, layer: str, day: str) -> list[Partition]:
    """Partitions of `day` with the dataset, symbol and publisher of `partition` that have a file in `layer`, sorted."""
    at = Path(replace(partition, date=day).path(layer)).parent
    try:
        names = os.listdir(lake / at)
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = [name for name in names if name.startswith(f"part-{partition.publisher_id}-") and name.endswith(".parquet")]
    return sorted(Partition.of_path(at / name) for name in found)


def is_certified(lake: Path, partition: Partition, recipe: MboRecipe, day_before: str | None) -> bool:
    """Whether the certificate is there for what is in the lake now."""
    try:
        return is_done(lake / partition.path(LAYER), certificate_stamp(lake, partition, recipe, day_before))
    except BookmillError:
        return False


def read_certificate(lake: Path, partition: Partition) -> Certificate:
    """The certificate as it stands in the lake."""
    path = partition.path(LAYER)
    rows = pq.ParquetFile(lake / path).read().to_pylist()
    return Certificate(partition, path, read_facts(lake / path)["verdict"], rows, True)


def certify(lake: Path, partition: Partition, recipe: MboRecipe, *, day_before: str | None = None) -> Certificate:
    """Certify a rebuilt partition. day_before: closing_book of the calendar day before, where there is one."""
    if is_certified(lake, partition, recipe, day_before):
        return read_certificate(lake, partition)
    return write_certificate(lake, partition, _rows(lake, partition, recipe, day_before), certificate_stamp(lake, partition, recipe, day_before))


def write_certificate(lake: Path, partition: Partition, rows: list[dict[str, Any]], stamp: Stamp) -> Certificate:
    """Write the rows of comparisons as the certificate of a partition; without a truth among them it says so in a row of its own."""
    verdict = verdict_of(rows)
    table = pa.Table.from_pylist([*rows, no_truth_row(partition)] if verdict == "no_truth" else rows, schema=CERTIFICATE)
    path = partition.path(LAYER)
    write_table(lake / path, table, stamp, {"verdict": verdict})
    return Certificate(partition, path, verdict, table.to_pylist(), False)


def verdict_of(rows: list[dict[str, Any]]) -> str:
    """The verdict over all independent truths."""
    said = {row["verdict"] for row in rows if row["truth"] not in ("none", "integrity")}
    return "diverged" if "diverged" in said else "matched" if "matched" in said else "no_truth"


def certificate_facts(certificate: Certificate) -> list[dict[str, Any]]:
    """The rows as JSON-able values: times as ISO text, the wrong spans as pairs of them."""
    return [{name: _plain(value) for name, value in row.items()} for row in certificate.rows]


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [[_plain(span["start"]), _plain(span["end"])] for span in value]
    return value.isoformat() if hasattr(value, "isoformat") else value


def _rows(lake: Path, partition: Partition, recipe: MboRecipe, day_before: str | None) -> list[dict[str, Any]]:
    facts = read_facts(lake / partition.path("bbo"))
    sources = {"snapshot": "snapshots in the feed", "published": "order book file", "fills": "fills in the feed", "integrity": "the book itself"}
    rows = []
    if day_before and (told := _opening(lake, partition, day_before)) is not None:
        rows.append(row_of(partition, "opening", day_before, told))
    for truth, told in facts["proofs"].items():
        if told["number"][0] or told["detail"].get("suspect_compared") or truth == "integrity":
            rows.append(row_of(partition, truth, sources[truth], told))
    for name in published_files(lake, partition):
        for told in compare_published(lake, partition, name, recipe):
            what = f"{read_facts(lake / name)['source']} ({told['detail']['schema']}, {told['detail']['compared']})"
            rows.append(row_of(partition, "published", what, told))
    return rows


def _opening(lake: Path, partition: Partition, day_before: str) -> dict[str, Any] | None:
    """The snapshot that begins the day against the closing book of the day before; None when the day does not begin with one."""
    opening = read_facts(lake / partition.path("opening_book"))
    closing = read_facts(lake / day_before)
    if opening["ns"] < 0 or closing["status"] == "no_book":
        return None
    truth = SnapshotTruth()
    before = BookImage.of_orders(read_resting(lake / day_before), closing["status"], closing["reason"], closing)
    after = BookImage.of_orders(read_resting(lake / partition.path("opening_book")), "valid", "", opening)
    truth.compare(before, after, opening["ns"], 0)
    return to_json(truth.proof, {**truth.facts(), "closed_ns": closing["ns"]})
