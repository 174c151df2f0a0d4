"""What stays of the account of a source when it is decoded for other symbols: two runs may want different symbols of one source, night after night.

Events of symbols that a decode does not want stay in the lake as they are, mended and gated as they may be. So does what was said of them: their
SOURCES rows, their quarantined rows, and for which filters the account is complete. Reads only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.partitions import EventFilter, MboRecipe, SourceFile
from tasks.scanning.sources_file import Wanted, covers, quarantine_stands, read_account, row_stands, wanted_of, wants
from tasks.schemas import QUARANTINE


@dataclass(frozen=True)
class Kept:
    """rows: of SOURCES, of partitions that stay; quarantine: rows of schema QUARANTINE that stay with them, and those of no partition of the same
    symbols. wanted (filters for which the account stays complete), homeless, truth, rewritten: facts of the account, as far as they stay."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    quarantine: pa.Table = field(default_factory=QUARANTINE.empty_table)
    wanted: list[Wanted] = field(default_factory=list)
    homeless: list[list[Any]] = field(default_factory=list)
    truth: list[str] = field(default_factory=list)
    rewritten: dict[str, str] = field(default_factory=dict)


def widened(source: SourceFile, lake: Path, recipe: MboRecipe) -> MboRecipe:
    """The recipe with all publishers that earlier runs had of the source, too: a quarantined row is known by its symbol only, so an account that
    stays is told from a new one by symbols. Where rows were mended, with all symbols as well: the mends are undone by a decode, and counts of rows
    whose symbol a mend made known would not add up beside it."""
    account, chosen = read_account(source, lake, recipe), recipe.filter
    if account is None:
        return recipe
    rows, facts = account
    whole = whole_filter(rows, facts, chosen)
    publishers = _union([chosen.publishers, whole.publishers])
    symbols = _union([chosen.symbols, whole.symbols]) if facts.get("replayed") else chosen.symbols
    return replace(recipe, filter=replace(chosen, symbols=symbols, publishers=publishers))


def whole_filter(rows: Sequence[dict[str, Any]], facts: dict[str, Any], wanted: EventFilter) -> EventFilter:
    """A filter for all that an account is for; the range is that of `wanted`."""
    found = [([row["symbol"]], [row["publisher_id"]]) for row in rows if row["date"]]
    symbols, publishers = zip(*facts["wanted"], *found, strict=True)
    return replace(wanted, symbols=_union(symbols), publishers=_union(publishers))


def _union(chosen: Iterable[Sequence[Any]]) -> tuple[Any, ...]:
    """All that any of the choices has, sorted; () stands for everything there is."""
    every = list(chosen)
    return tuple(sorted({value for values in every for value in values})) if all(every) else ()


def kept_of(source: SourceFile, lake: Path, recipe: MboRecipe, *, truncated: bool) -> Kept:
    """What stays of the account of `source` beside a decode with `recipe` (as `widened` gives it). truncated: whether it was salvaged; an account of
    a whole source does not stay beside one that breaks off. Callers hold `sources_lock`.

    Of a symbol of which one file is not as the account says, nothing stays: its quarantined rows cannot be told apart by partition. Nor of all
    where the quarantine is not: a gate or decode was killed before it wrote the account.
    """
    account, mine = read_account(source, lake, recipe), wanted_of(recipe.filter)
    if account is None or ("truncated" in account[1]) != truncated:
        return Kept()
    rows, facts = account
    outside = [row for row in rows if row["date"] and not wants(mine, row["symbol"], row["publisher_id"])]
    lost = {row["symbol"] for row in outside if not row_stands(source, lake, recipe, row, facts)}
    if not quarantine_stands(source, lake, recipe, facts):
        return Kept()
    path = lake / facts["quarantine"] if facts["quarantine"] else None
    kept = [row for row in outside if row["symbol"] not in lost]
    paths = {row["path"] for row in kept if row["path"]}
    return Kept(
        kept,
        _quarantined(path, mine, lost),
        # What an account has of a symbol with a lost file is not whole any more.
        [w for w in facts["wanted"] if not covers(mine, w) and not any(wants(w, symbol, -1) for symbol in lost)],
        [entry for entry in facts["homeless"] if entry[0] and entry[0] not in lost and not wants(mine, entry[0], entry[1])],
        [path for path in facts["truth"] if path in paths],
        {path: inputs for path, inputs in facts["rewritten"].items() if path in paths},
    )


def _quarantined(path: Path | None, mine: Wanted, lost: set[str]) -> pa.Table:
    symbols = mine[0]
    if path is None or not symbols:
        return QUARANTINE.empty_table()
    table = pq.read_table(path, partitioning=None).cast(QUARANTINE)
    gone = pa.array(["", *symbols, *lost], pa.string())
    return table.filter(pc.invert(pc.is_in(table["symbol"].cast(pa.string()), gone)))
