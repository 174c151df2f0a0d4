"""The certificate of a depth partition: what its own snapshots said of the book that the deltas built. The comparing is in depth_replay.py."""

from __future__ import annotations

from pathlib import Path

from tasks.errors import BookmillError
from tasks.footers import is_done, read_facts, read_footer
from tasks.partitions import Partition, Stamp, digest
from tasks.reconstruction.certify import LAYER, Certificate, read_certificate, write_certificate
from tasks.reconstruction.depth_build import BBO
from tasks.reconstruction.proof import row_of

_SOURCES = {"snapshot": "snapshots in the feed", "integrity": "the book itself"}


def depth_certificate_stamp(lake: Path, partition: Partition) -> Stamp:
    """What the certificate is made from. Raises BookmillError when the partition was not rebuilt."""
    footer = read_footer(lake / partition.path(BBO))
    if footer is None:
        raise BookmillError(f"{lake / partition.path(BBO)} is missing or not readable. Start the run again: it is made anew.")
    return Stamp(digest([footer[f"bookmill.{name}"] for name in ("inputs", "recipe", "code")]), digest("depth"))


def is_depth_certified(lake: Path, partition: Partition) -> bool:
    """Whether the certificate is there for what is in the lake now."""
    try:
        return is_done(lake / partition.path(LAYER), depth_certificate_stamp(lake, partition))
    except BookmillError:
        return False


def certify_depth(lake: Path, partition: Partition) -> Certificate:
    """Certify a partition whose layers are there; prices and sizes of a difference are in the units of its layers, which `detail` tells
    (price_digits, size_digits). Raises BookmillError when the partition was not rebuilt."""
    if is_depth_certified(lake, partition):
        return read_certificate(lake, partition)
    facts = read_facts(lake / partition.path(BBO))
    scale = {name: facts[name] for name in ("price_digits", "size_digits")}
    rows = [
        row_of(partition, truth, _SOURCES[truth], told | {"detail": told["detail"] | scale})
        for truth, told in facts["proofs"].items()
        if told["number"][0] or truth == "integrity" or any(told["detail"].get(f"{kind}_compared") for kind in ("suspect", "apart"))
    ]
    return write_certificate(lake, partition, rows, depth_certificate_stamp(lake, partition))
