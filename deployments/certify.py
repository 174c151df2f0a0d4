"""`bookmill certify`: the certificates of a lake, made where they are missing or out of date, as a table or JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from deployments import screen
from tasks.errors import UsageError
from tasks.footers import read_facts
from tasks.partitions import MboRecipe, Partition
from tasks.paths import files_below
from tasks.publishing.report_sections import difference_text
from tasks.reconstruction.certify import Certificate, certificate_facts, certify, day_before
from tasks.reconstruction.depth_build import BBO
from tasks.reconstruction.depth_certificate import certify_depth

_STYLES = {"matched": "green", "diverged": "bold red", "no_truth": "yellow"}


def print_certificates(lake: Path, truths: Sequence[str], symbols: Sequence[str], date: str, as_json: bool, strict: bool) -> int:
    """Certify and print. truths: files of published books to hold the lake's books against besides. Returns the exit code: 0 when every book
    agrees with all truth there is, 1 when one differs (with strict also when one has no truth)."""
    read_truths(lake, truths)
    orders, depths = (
        [p for p in rebuilt_partitions(lake, layer) if (not symbols or p.symbol in symbols) and date in ("", p.date)] for layer in ("bbo", BBO)
    )
    if not orders and not depths:
        raise UsageError(f"No rebuilt book of {lake} fits. `bookmill layers` lists what there is; `bookmill run` rebuilds books.")
    certificates = [certify(lake, p, recipe_of_lake(lake, p), day_before=day_before(lake, p)) for p in orders]
    certificates += [certify_depth(lake, p) for p in depths]
    if as_json:
        print(json.dumps([{"verdict": c.verdict, "truths": certificate_facts(c)} for c in certificates], indent=2))
    else:
        _print_table(certificates)
    verdicts = {c.verdict for c in certificates}
    return int("diverged" in verdicts or (strict and "no_truth" in verdicts))


def read_truths(lake: Path, truths: Sequence[str]) -> None:
    """Bring files of published books into the lake. Raises UsageError naming every file that holds none."""
    from tasks.scanning.inventory import scan
    from tasks.scanning.published import decode_published

    found = scan(truths) if truths else None
    if found is None:
        return
    problems = [f"{r.path}: {r.error}" for r in found.rejected] + [f"{f.path}: holds events, not books" for f in found.files]
    if problems:
        raise UsageError(f"Not usable as truth: {'; '.join(problems)}. Allowed: mbp-10, mbp-1, tbbo, bbo-1s, bbo-1m as CSV, Parquet or DBN.")
    for source in found.published:
        decode_published(source, lake)


def rebuilt_partitions(lake: Path, layer: str = "bbo") -> list[Partition]:
    """The partitions that have the layer of a rebuilt touch, sorted."""
    found = (path for path in files_below(lake / layer) if path.match("part-*.parquet"))
    return sorted(Partition.of_path(path.relative_to(lake)) for path in found)


def recipe_of_lake(lake: Path, partition: Partition) -> MboRecipe:
    """The options that a certificate depends on, as the partition was made."""
    facts = read_facts(lake / partition.path("bbo"))
    # Of the layers that were made with this touch: a deeper one of an earlier run, of other events maybe, can lie beside them.
    layer = next((name for name in facts.get("outputs", {}) if re.fullmatch(r"mbp-\d+", name)), None)
    if layer is None or not (lake / partition.path(layer)).exists():
        raise UsageError(f"{partition} has no {layer or 'mbp'} layer in {lake}. Run it again: what is missing is made anew.")
    return MboRecipe(depth=int(layer.removeprefix("mbp-")), clock=facts["clock"])


def _print_table(certificates: Sequence[Certificate]) -> None:
    console = screen.console()
    for certificate in certificates:
        style = _STYLES[certificate.verdict]
        console.print(Text.assemble(f"{certificate.partition}: ", (certificate.verdict.replace("_", " "), style)))
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for row in certificate_facts(certificate):
            if row["truth"] != "none":
                table.add_row("", *_cells(row))
        console.print(table)
    said = [c.verdict for c in certificates]
    console.print(f"{said.count('matched'):,} matched, {said.count('diverged'):,} diverged, {said.count('no_truth'):,} without a truth")


def _cells(row: dict[str, Any]) -> list[str | Text]:
    verdict, style = row["verdict"].replace("_", " "), _STYLES[row["verdict"]]
    if row["truth"] == "integrity":  # a crossed book can be real: no verdict over the rebuild
        verdict, style = ("crossed", "yellow") if row["verdict"] == "diverged" else ("never crossed", "green")
    states, levels = (f"{row[f'{name}_matched']:,} of {row[f'{name}_compared']:,} {name}" for name in ("states", "levels"))
    found = difference_text(row)
    told = f"first difference {found}" if found else f"to {row['last_compared']}"
    source = Path(row["source"]).parts[0] if row["truth"] == "opening" else row["source"]
    return [row["truth"], source, Text(verdict, style), states, levels, told]
