"""A plan of order-by-order sources or depth feeds against a lake: what is done, missing, stale or failed, and what has to be run. No Prefect here.

The comparison is made in tasks/publishing/freshness.py; here the stages are asked which layers they make and from which options.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from flows.options import check_count
from flows.plan_sources import Found, look_for_depth, look_for_orders
from tasks.aggregation.aggregate import aggregate_layers, aggregate_stamp
from tasks.aggregation.depth_aggregate import DepthAggregates, depth_aggregate_layers, depth_aggregate_stamp
from tasks.depth_recipe import TRADES, DepthRecipe, DepthSource
from tasks.errors import BookmillError
from tasks.filtering.predicate import output_windows
from tasks.partitions import MboRecipe, Partition, SourceFile
from tasks.publishing.freshness import FAILED, GIVEN, WANTED, Orders, Plan, judge_depth, judge_orders, starts_clean_of
from tasks.publishing.freshness_catalog import take_catalog
from tasks.reconstruction.depth_build import BBO, UPDATES, build_stamp
from tasks.reconstruction.layer_writer import layer_names
from tasks.reconstruction.rebuild import rebuild_stamp, starts_clean
from tasks.scanning.decode import decode_stamp, events_stamp
from tasks.scanning.depth_sources import deepest
from tasks.scanning.depth_trades import LAYER as TRADES_LAYER
from tasks.scanning.depth_trades import trades_stamp
from tasks.scanning.published import is_published
from tasks.scanning.sources_file import covered, wanted_of
from tasks.schemas import CODE_VERSION

ACCOUNTS = ("certificate", "ledger")
RUNS = 200  # of the last runs, in which failures are looked for
_NOBODY = SourceFile("", "", "", "", 0, 0, 0)


@dataclass
class Planned:
    """plan: the judged lake; files: the sources given, by their id in the plan; rejected: (path, why); waiting: paths that are still being written;
    covered: (name, of the one that is used instead); unread: published books that are not in the lake, which no state of the plan tells."""

    plan: Plan
    files: list[Found]
    rejected: list[tuple[str, str]]
    waiting: list[str]
    covered: list[tuple[str, str]] = field(default_factory=list)
    unread: list[SourceFile] = field(default_factory=list)


def plan_orders(
    sources: Sequence[str], lake: Path, recipe: MboRecipe, *, dataset: str = "", symbol: str = "", start: str = "", end: str = "",
    settle_s: float = 0, keep: bool = True,
) -> Planned:  # fmt: skip
    """Hold order-by-order sources against the lake. start, end: days (YYYY-MM-DD, end exclusive) that a source has to touch as far as its header
    tells; settle_s: files have to stand unchanged for so long; keep: write the caches of the lake."""
    look = look_for_orders(sources, lake, dataset, symbol, settle_s=settle_s, keep=keep)
    wanted_symbols = set(recipe.filter.symbols)

    def fits(file: SourceFile) -> bool:
        return _within(file, start, end) and (not wanted_symbols or not file.symbols or bool(wanted_symbols & set(file.symbols)))

    files = [found for found in look.files if fits(found.file)]
    names, aggregates = layer_names(recipe), aggregate_layers(recipe)
    catalog = take_catalog(lake, layers=["events", "published", *names.values(), *aggregates, *ACCOUNTS], keep=keep)
    wanted = [(layer, "book", "", "") for layer in dict.fromkeys(names.values())]
    wanted += [(layer, "derived", _recipe_of(catalog, "bbo", partial(_aggregate_recipe, lake, recipe, layer)), "") for layer in aggregates]
    wanted += [(layer, "account", "", "") for layer in ACCOUNTS]
    answered = [text for text in pa.compute.unique(catalog["wanted"]).to_pylist() if text]
    other = [text for text in answered if not covered({"wanted": json.loads(text)}, wanted_of(recipe.filter))]
    options = Orders(events_stamp(_NOBODY, recipe).recipe, _book_recipes(lake, catalog, recipe), other)
    failures = _failures(lake, asdict(recipe))
    given = _given(files, failures, recipe=lambda f: decode_stamp(f.file, recipe).recipe)
    plan = judge_orders(
        catalog, given, _table(wanted, WANTED), _failed(failures), options, starts_clean_of(lake, starts_clean)
    )  # fmt: skip
    return Planned(plan, files, look.rejected, look.waiting, unread=_unread(lake, catalog, [file for file in look.published if fits(file)]))


def _unread(lake: Path, catalog: pa.Table, published: Sequence[SourceFile]) -> list[SourceFile]:
    """Which of these published books the lake does not hold whole."""
    paths: dict[str, list[Path]] = {}
    for row in catalog.filter(pa.compute.equal(catalog["layer"], "published")).select(["path", "source"]).to_pylist():
        paths.setdefault(row["source"], []).append(lake / row["path"])
    return [file for file in published if is_published(file, lake, paths.get(file.short, [])) is None]


def plan_depth(
    sources: Sequence[str], lake: Path, recipe: DepthRecipe, *, dataset: str = "", pairs: Sequence[str] = (), dates: Sequence[str] = (),
    start: str = "", end: str = "", limit: int = 0, settle_s: float = 0, keep: bool = True,
) -> Planned:  # fmt: skip
    """As `plan_orders`, for depth feeds; CSV files outside of the lake are not looked at."""
    check_count("limit", limit)
    look = look_for_depth(sources, lake, dataset, settle_s=settle_s, keep=keep)
    upper = {pair.upper() for pair in pairs}
    fitting = [f for f in look.files if _within(f.file, start, end) and (not dates or f.file.dates[0] in dates)]
    fitting = [f for f in fitting if not upper or f.file.symbols[0].upper() in upper]
    chosen, covered = deepest([DepthSource(f.file, f.kind, f.depth) for f in fitting])
    files = [Found(s.file, s.kind, s.depth) for s in chosen[: limit or None]]
    wanted: list[tuple[str, str, str, str]] = []
    catalog_layers = {BBO, UPDATES, TRADES_LAYER, *ACCOUNTS}
    kinds = {(f.kind == TRADES, f.depth) for f in files}
    for _, depth in kinds:
        catalog_layers |= {recipe.grid_layer(d) for d in recipe.depths_of(depth)}
        catalog_layers |= set(depth_aggregate_layers(DepthAggregates(max(recipe.depths_of(depth)), recipe.interval_ns, recipe.bars)))
    catalog = take_catalog(lake, layers=sorted(catalog_layers), keep=keep)
    books = build_stamp(DepthSource(_NOBODY, "", 0), recipe).recipe
    for trades, depth in sorted(kinds):
        wanted += _depth_layers(lake, catalog, recipe, depth, trades)
    failures = _failures(lake, asdict(recipe))
    given = _given(files, failures, lambda f: _kind(f.kind == TRADES, f.depth))
    return Planned(
        judge_depth(catalog, given, _table(wanted, WANTED), _failed(failures), books), files, look.rejected, look.waiting,
        [(c.name, c.by) for c in covered],
    )  # fmt: skip


def _depth_layers(lake: Path, catalog: pa.Table, recipe: DepthRecipe, depth: int, trades: bool) -> list[tuple[str, str, str, str]]:
    kind = _kind(trades, depth)
    if trades:
        return [(TRADES_LAYER, "book", trades_stamp(DepthSource(_NOBODY, "", 0)).recipe, kind), ("ledger", "account", "", kind)]
    depths = recipe.depths_of(depth)
    made = DepthAggregates(max(depths), recipe.interval_ns, recipe.bars)
    wanted = [(BBO, "book", "", kind), *([(UPDATES, "book", "", kind)] if recipe.updates else [])]
    # Features and bars are made from the deepest one.
    wanted += [(recipe.grid_layer(d), "grid" if d == max(depths) else "book", "", kind) for d in depths]
    for layer in depth_aggregate_layers(made):
        wanted.append((layer, "derived", _recipe_of(catalog, BBO, partial(_depth_recipe, lake, made, layer)), kind))
    return wanted + [(layer, "account", "", kind) for layer in ACCOUNTS]


def _aggregate_recipe(lake: Path, recipe: MboRecipe, layer: str, partition: Partition) -> str:
    return aggregate_stamp(lake, partition, recipe, layer).recipe


def _depth_recipe(lake: Path, made: DepthAggregates, layer: str, partition: Partition) -> str:
    return depth_aggregate_stamp(lake, partition, made, layer).recipe


def _kind(trades: bool, depth: int) -> str:
    return "trades" if trades else f"depth {depth}"


def _within(file: SourceFile, start: str, end: str) -> bool:
    """Whether a source can hold rows of the days; one whose header tells no date can."""
    return not file.dates or ((not end or min(file.dates) < end) and (not start or max(file.dates) >= start))


def _recipe_of(catalog: pa.Table, layer: str, ask: Callable[[Partition], str]) -> str:
    """The digest of a stage's options; it depends on no partition, but the stage tells it of one that is there. "" where there is none."""
    rows = catalog.filter(pa.compute.and_(pa.compute.equal(catalog["layer"], layer), pa.compute.not_equal(catalog["inputs"], "")))
    for row in rows.slice(0, 64).to_pylist():
        try:
            return ask(Partition.of_path(row["path"]))
        except BookmillError:  # its grid is not there
            continue
    return ""


def _book_recipes(lake: Path, catalog: pa.Table, recipe: MboRecipe) -> dict[str, str]:
    """Date -> digest of the options of the book layers; they differ by the day only where a part of the day is wanted."""
    plain = rebuild_stamp(lake, [], recipe, None).recipe
    wanted = recipe.filter
    if wanted.start_ns is None and wanted.end_ns is None and wanted.hours is None:
        return {"": plain}
    days = pa.compute.unique(catalog["date"]).to_pylist()
    return {"": plain} | {day: rebuild_stamp(lake, [], recipe, tuple(output_windows(wanted, day, recipe.clock))).recipe for day in days if day}


def _given(
    files: Sequence[Found], failures: dict[str, Any], kind: Callable[[Found], str] = lambda f: "", recipe: Callable[[Found], str] = lambda f: ""
) -> pa.Table:
    rows = []
    for number, found in enumerate(files):
        file = found.file
        # A run tells by content what failed; by its path what it could not even identify. A name alone may be that of several.
        names = [file.fingerprint, file.path]
        if found.kind:
            names.append(DepthSource(file, found.kind, found.depth).subject)
        error, when = next((failures["sources"][name] for name in names if name in failures["sources"]), ("", 0))
        rows.append((
            number, file.dataset, file.short, file.name, file.fingerprint, min(file.dates, default=""), max(file.dates, default=""),
            file.symbols[0] if len(file.symbols) == 1 else "", kind(found), error if file.mtime_ns < when else "", recipe(found),
        ))  # fmt: skip
    return _table(rows, GIVEN)


def _failures(lake: Path, recipe: dict[str, Any]) -> dict[str, Any]:
    """What failed when it was tried last, with the same options and code: partitions with their error, sources by fingerprint, path or subject
    with (error, ns)."""
    found: dict[str, Any] = {"partitions": {}, "sources": {}}
    seen: set[str] = set()
    runs = sorted((lake / "runs").glob("*.json"), reverse=True)[:RUNS] if lake.is_dir() else []
    for run in runs:
        try:
            facts, when = json.loads(run.read_bytes()), run.stat().st_mtime_ns
        except (OSError, ValueError):
            continue
        if facts.get("code") != CODE_VERSION or facts.get("recipe") != json.loads(json.dumps(recipe, default=str)):
            continue
        for entry in facts.get("rejected", []):
            for name in entry.get("fingerprints") or [entry["path"]]:
                if name.removesuffix(" trades") not in seen:  # by newer runs: a depth source is booked under its partition
                    found["sources"].setdefault(name, (entry["error"], when))
        for entry in facts.get("partitions", []):
            partition = Partition(**entry["partition"])
            if str(partition) not in seen and entry["error"]:
                found["partitions"][partition] = entry["error"]
            seen.add(str(partition))
    return found


def _failed(failures: dict[str, Any]) -> pa.Table:
    rows = [(p.dataset, p.date, p.symbol, p.publisher_id, p.instrument_id, "", error) for p, error in failures["partitions"].items()]
    return _table(rows, FAILED)


def _table(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    return pa.table([pa.array([row[i] for row in rows], field.type) for i, field in enumerate(schema)], schema=schema)
