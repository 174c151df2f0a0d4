"""The book layers of one partition on their way to the lake: sinks, the counts in their footer, and what they are called."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.book_rows import LEVELS, cell, packed_schema
from tasks.disk import together
from tasks.errors import BookmillError
from tasks.partitions import MboRecipe, Partition, Stamp
from tasks.reconstruction.checkpoints import CheckpointWriter, write_resting
from tasks.reconstruction.layers import LayerTables
from tasks.reconstruction.proof import to_json
from tasks.reconstruction.replay import Replay
from tasks.reconstruction.row_groups import RowGroups
from tasks.reconstruction.sampling import Samples
from tasks.reconstruction.window import WindowReplay
from tasks.schemas import STATUSES, TRADES, books_schema
from tasks.specs import interval_name
from tasks.storage import ParquetSink, steady

# Wide rows: half the row group of narrow tables, so that a group in the making stays near 30 MB at ten levels.
WIDE_GROUP_ROWS = 65_536
DICTIONARY = ["symbol", "status", "reason", "side", "side_method"]
# Half the time of plain pages, and a tenth of the bytes for sequence numbers (measured on 1.5M rows).
SPLIT = frozenset({"ts_event", "ts_recv", "as_of", "sequence", "order_id"})


@dataclass(frozen=True)
class Rebuilt:
    """outputs: layer -> (path relative to the lake, rows); facts: the counts in the bbo footer; skipped: it was there already."""

    partition: Partition
    outputs: dict[str, tuple[str, int]]
    facts: dict[str, Any]
    skipped: bool


def layer_names(recipe: MboRecipe) -> dict[str, str]:
    """Layer of each kind of output: rows, grid, trades, opening, closing, checkpoints, bbo (in the order in which they get their names)."""
    depth = f"mbp-{recipe.depth}"
    return {
        "rows": depth, "grid": f"{depth}-{interval_name(recipe.interval_ns)}", "trades": "trades", "opening": "opening_book",
        "closing": "closing_book", "checkpoints": "checkpoints", "bbo": "bbo",
    }  # fmt: skip


@cache
def _made_as(depth: int) -> dict[str, tuple[pa.Schema, dict[str, str]]]:
    """Schema and encodings of each kind of output that is written batch by batch."""
    schemas = {"rows": packed_schema(depth), "grid": books_schema(depth), "trades": TRADES, "bbo": books_schema(1)}
    split = {kind: {name: "BYTE_STREAM_SPLIT" for name in schema.names if name in SPLIT or cell(name, depth)} for kind, schema in schemas.items()}
    return {kind: (schema, split[kind] | (steady(schema) if kind == "grid" else {})) for kind, schema in schemas.items()}


class LayerWriter:
    """The book layers of one partition while they are written; commit gives them their names, leaving without it drops them.

    beside: encode the wide rows in a thread of their own, as is of use where there are several row groups.
    """

    def __init__(self, lake: Path, partition: Partition, recipe: MboRecipe, stack: ExitStack, *, beside: bool) -> None:
        self._lake, self._partition, self._recipe = lake, partition, recipe
        self._names = layer_names(recipe)
        self._tables = LayerTables(partition, recipe.depth)
        self._statuses = np.zeros(len(STATUSES), np.int64)
        self._fresh_rows: list[int] = []  # rows of bbo whose touch does not follow from that of the row before
        self._sinks = {
            kind: stack.enter_context(
                ParquetSink(
                    lake / partition.path(self._names[kind]),
                    schema,
                    dictionary=DICTIONARY,
                    encodings=encodings,
                    row_group_rows=WIDE_GROUP_ROWS,
                    # Of packed rows they would be of no use, and cost as much as their encoding.
                    statistics=[name for name in schema.names if name != LEVELS],
                )
            )
            for kind, (schema, encodings) in _made_as(recipe.depth).items()
        }

        self.checkpoints = CheckpointWriter(lake / partition.path(self._names["checkpoints"]))
        stack.enter_context(self.checkpoints.sink)
        # Encoding the wide rows costs as much as all the rest of a rebuild; it may go on beside the replay. Entered after the sinks, so that
        # it has ended before they are dropped.
        encoder = stack.enter_context(ThreadPoolExecutor(1, "encode")) if beside else None
        self._rows = RowGroups(recipe.depth, WIDE_GROUP_ROWS, self._tables.event_rows, self._sinks["rows"].write, encoder)

    def write(self, samples: Samples) -> None:
        if samples.n_rows:
            self._statuses += np.bincount(samples.rows.status[: samples.n_rows], minlength=len(STATUSES))
            self._rows.add(samples)
        if samples.n_bbo:
            fresh = np.flatnonzero(samples.events["fresh"][samples.bbo.at[: samples.n_bbo]])
            self._fresh_rows += (self._sinks["bbo"].rows + fresh).tolist()
            self._sinks["bbo"].write(self._tables.bbo(samples))
        if samples.n_grid:
            self._sinks["grid"].write(self._tables.grid(samples))
        if samples.n_trades:
            self._sinks["trades"].write(self._tables.trades(samples))

    def commit(self, replay: Replay | WindowReplay, stamp: Stamp, rows_in: int, made_from: dict[str, Any]) -> Rebuilt:
        """Name everything. made_from: facts of the inputs, for the footer."""
        self._rows.finish()
        closing, opening = replay.closing(), replay.opening()
        rows = {kind: sink.rows for kind, sink in self._sinks.items()}
        rows |= {"opening": len(opening[0]["price"]), "closing": len(closing["price"]), "checkpoints": self.checkpoints.sink.rows}
        paths = {kind: self._partition.path(name) for kind, name in self._names.items()}
        facts = _facts(replay, rows_in, {self._names[kind]: n for kind, n in rows.items()})
        facts |= made_from | {"proofs": {name: to_json(proof, detail) for name, (proof, detail) in replay.comparisons().items()}}
        facts["fresh_rows"] = self._fresh_rows
        facts["statuses"] = {name: int(n) for name, n in zip(STATUSES, self._statuses, strict=True) if n}
        with together():
            for kind in ("rows", "grid", "trades"):
                self._sinks[kind].commit(stamp)
            write_resting(self._lake / paths["opening"], opening[0], stamp, opening[1])
            ended = {**replay.closing_facts(), "ns": replay.last_ns}
            ended |= {name: made_from[name] for name in ("events", "cut_rows")}  # whether a later day may go on from it, see carry.py
            write_resting(self._lake / paths["closing"], closing, stamp, ended)
            self.checkpoints.commit(stamp)
            self._sinks["bbo"].commit(stamp, facts)
        return Rebuilt(self._partition, {self._names[k]: (paths[k], rows[k]) for k in self._names}, facts, False)


def _facts(replay: Replay | WindowReplay, rows_in: int, outputs: dict[str, int]) -> dict[str, Any]:
    """The counts of a rebuild. Every event is counted under exactly one action; a difference is an error of the program, not of the data."""
    counters = replay.counters()
    by_action = {name: counters.pop(name) for name in ("add", "cancel", "fill", "modify", "none", "clear", "trade")}
    if sum(by_action.values()) != rows_in:
        raise BookmillError(f"{rows_in:,} events went in but {sum(by_action.values()):,} were accounted for; nothing was published.")
    applied = by_action["add"] + by_action["cancel"] + by_action["modify"] + by_action["clear"]
    ignored = by_action["trade"] + by_action["fill"] + by_action["none"]
    status, reason = replay.status()
    return {
        "rows_in": rows_in, "rows_out": rows_in, "applied": applied, "ignored": ignored, "actions": by_action,
        "event_ends": counters.pop("event_ends"), "crossed": counters.pop("crossed"), "locked": counters.pop("locked"),
        "anomalies": {name: counters[name] for name in sorted(counters) if name in ANOMALY_NAMES},
        "counts": {name: counters[name] for name in sorted(counters) if name not in ANOMALY_NAMES},
        "outputs": outputs, "status": status, "reason": reason, **replay.end_facts(),
    }  # fmt: skip


ANOMALY_NAMES = (
    "unknown_cancel", "unknown_modify", "over_cancel", "duplicate_add", "side_change", "maybe_bad_book", "quarantined_before", "unknown_level", "gap",
)  # fmt: skip
