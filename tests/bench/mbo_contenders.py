"""What the market-by-order benchmark measures of ours, and the floors: each a call that is prepared before its clock starts.

Others' programs are in mbo_peers.py, the stages as the flow calls them in stages.py; how they are started and shown is in mbo.py.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from tests.bench.mbo_flow import WARM_RECORDS, session
from tests.bench.measure import decompress
from tests.bench.stages import FLOOR, STAGES, Place

BLOCK_BYTES = 1 << 26  # of the copy: larger than any cache
HEAT_COLUMNS, HEAT_ROWS, HEAT_TICK = 1600, 1000, 250_000_000
WRITE_GROUPS = 4
Found = dict[str, Any] | None  # values that must be those of the truth
Prepare = Callable[["Files"], Callable[[], Any]]


@dataclass(frozen=True)
class Contender:
    """group: floor, ours or peer; needs: the stage that must be in the lake, "" for none; package: import name that must be installed;
    prefix: records that it takes at most, its times scaled up to all (0: takes all)."""

    group: str
    prepare: Prepare
    needs: str = ""
    package: str = "tasks"
    prefix: int = 0


class Files:
    """The session in its formats, its truth, and the lake with the stages done so far."""

    def __init__(self, folder: Path, records: int, lake: Path) -> None:
        self.folder, self.records, self.lake = folder, records, lake

    @cached_property
    def source(self) -> Path:
        """`.dbn.zst`, which is the reference of all ratios."""
        return session(self.folder, self.records)

    @cached_property
    def full(self) -> Path:
        """Parquet with all columns of the vendor."""
        return session(self.folder, self.records, "parquet")

    @cached_property
    def seven(self) -> Path:
        """Parquet with seven columns."""
        return session(self.folder, self.records, "seven-parquet")

    @cached_property
    def place(self) -> Place:
        """Source and lake as the stages take them."""
        return Place(self.source, self.lake)

    @property
    def events(self) -> Path:
        """The one events file."""
        return self.lake / self.place.part.path

    @cached_property
    def truth(self) -> dict[str, Any]:
        """The generator's facts, those of its one book under the names that a replay gives them."""
        facts = json.loads(self.source.with_name(self.source.name + ".facts.json").read_text(encoding="utf-8"))
        (book,) = facts["books"]
        touch = {f"best_{side}": [book[f"{side}_px"], book[f"{side}_sz"]] for side in ("bid", "ask")}
        return {**{name: facts[name] for name in ("records", "event_ends", "volume")}, "orders": book["live_orders"], **touch}


def _floor(files: Files) -> Callable[[], Found]:
    path = files.source

    def call() -> Found:
        assert decompress(path) > 56 * files.records, "bytes are missing"
        return None

    return call


def _copy(files: Files) -> Callable[[], Found]:
    """As many bytes as the records have, block by block from one array to another."""
    import numpy as np

    size = 56 * files.records
    here, there = (np.full(min(BLOCK_BYTES, size), value, np.uint8) for value in (1, 2))  # written to, so that the copy meets no new page

    def call() -> Found:
        for at in range(0, size, BLOCK_BYTES):
            count = min(BLOCK_BYTES, size - at)
            np.copyto(there[:count], here[:count])
        return None

    return call


def _parquet(files: Files, layout: str) -> Callable[[], Found]:
    import pyarrow.parquet as pq

    path = getattr(files, layout)
    return lambda: {"records": sum(batch.num_rows for batch in pq.ParquetFile(path).iter_batches())}


def _write(files: Files) -> Callable[[], Found]:
    """As many rows of each book layer as a rebuild writes, from a few of its row groups again and again: no more than those are in memory."""
    import numpy as np
    import pyarrow.parquet as pq

    from tasks.reconstruction.layer_writer import WIDE_GROUP_ROWS, layer_names
    from tasks.storage import ParquetSink

    names, layers = layer_names(files.place.recipe), []
    for kind in ("rows", "grid", "trades", "bbo"):
        file = pq.ParquetFile(files.lake / files.place.part.partition.path(names[kind]))
        chosen = np.unique(np.linspace(0, file.num_row_groups - 1, min(WRITE_GROUPS, file.num_row_groups)).astype(int))
        layers.append((kind, file.schema_arrow, file.metadata.num_rows, [file.read_row_group(int(group)) for group in chosen]))

    def call() -> Found:
        with tempfile.TemporaryDirectory(prefix="write-", dir=files.folder) as folder:
            for kind, schema, rows, groups in layers:
                dictionary = [name for name in ("symbol", "status", "reason", "side", "side_method") if name in schema.names]
                with ParquetSink(Path(folder) / kind, schema, dictionary=dictionary, row_group_rows=WIDE_GROUP_ROWS) as sink:
                    while sink.rows < rows:
                        for group in groups:
                            sink.write(group.slice(0, rows - sink.rows))
        return None

    return call


def _stage(files: Files, name: str) -> Callable[[], Found]:
    call = STAGES[name](files.place)

    def run() -> Found:
        call()
        return None

    return run


def _decode(files: Files, layout: str) -> Callable[[], Found]:
    """Decode with a filter that looks at each row and keeps it, into a lake of its own."""
    from tasks.partitions import EventFilter, MboRecipe
    from tasks.scanning.decode import decode

    recipe = MboRecipe(filter=EventFilter(end_ns=2**62))

    def call(of: Files) -> Found:
        with tempfile.TemporaryDirectory(prefix="lake-", dir=files.folder) as lake:
            return {"records": decode(file[of], Path(lake), recipe).rows_out}

    small = Files(files.folder, WARM_RECORDS, files.lake)
    file = {of: Place(getattr(of, layout), of.lake).file for of in (small, files)}
    call(small)  # kernels compiled and loaded
    return lambda: call(files)


def batches(files: Files) -> list[dict[str, Any]]:
    """The event columns that a rebuild reads, all of them in memory, in the batches that it takes."""
    from tasks.events_file import read_events
    from tasks.reconstruction.rebuild import COLUMNS, REPLAY_ROWS

    return list(read_events(files.events, COLUMNS, REPLAY_ROWS))


def _replay(files: Files, depth: int, rows: bool = True, heat: bool = False) -> Callable[[], Found]:
    """Columns to samples, without files: the samples are overwritten by the next batch."""
    from tasks.reconstruction.rebuild import REPLAY_ROWS
    from tasks.reconstruction.replay import Replay

    events = batches(files)

    def run(columns: Iterator[dict[str, Any]]) -> Found:
        replay = Replay(depth=depth, windows=None if rows else [], batch_rows=REPLAY_ROWS)
        for batch in columns:
            for _ in replay.feed(batch):
                pass
        for _ in replay.finish():
            pass
        end = replay.end_facts()
        return {"event_ends": replay.counters()["event_ends"], **{name: end[name] for name in ("orders", "best_bid", "best_ask")}}

    def call(columns: list[dict[str, Any]]) -> Found:
        if heat:
            _heat(columns, files.truth["best_bid"][0])
        return run(iter(columns))

    call(events[:1])  # kernels compiled and loaded
    return lambda: call(events)


def _heat(events: list[dict[str, Any]], middle: int) -> None:
    """The pass of the heatmap: resting size by time and price, weighted by time, one tick a row, over all records."""
    import numpy as np

    from tasks.reconstruction.heat_kernels import accumulate, price_rows, settle_all, time_positions
    from tasks.reconstruction.rebuild import REPLAY_ROWS
    from tasks.reconstruction.replay import Batch, OrderBook

    book, rank, marks = OrderBook(), np.zeros(REPLAY_ROWS, np.int32), np.zeros(0, np.int64)
    plane, held, since = np.zeros((2, HEAT_ROWS, HEAT_COLUMNS)), np.zeros((2, HEAT_ROWS)), np.zeros((2, HEAT_ROWS))
    x, row_of = np.zeros(REPLAY_ROWS), np.zeros(0, np.int32)
    low, now = middle - HEAT_ROWS // 2 * HEAT_TICK - HEAT_TICK // 2, 0
    first, last = int(events[0]["ts_recv"][0]), int(events[-1]["ts_recv"][-1])
    for columns in events:
        n = len(columns["price"])
        clock = np.maximum(np.maximum.accumulate(columns["ts_recv"]), now)
        now = int(clock[-1])
        book.ranks(columns["price"], rank[:n])
        named = {name: columns[name] for name in ("action", "side", "flags", "size", "order_id", "sequence")}
        batch, at = Batch(rank=rank[:n], clock=clock, marks=marks, **named), 0
        time_positions(clock, columns["flags"], first, HEAT_COLUMNS / max(last - first, 1), x[:n])
        if len(row_of) != len(book.arrays.prices):
            row_of = np.zeros(len(book.arrays.prices), np.int32)
            price_rows(book.arrays.prices, low, HEAT_TICK, HEAT_ROWS, row_of)
        while at < n:
            at = accumulate(batch, at, n, x, book.arrays, plane, held, since, row_of)
            if at < n:
                book.grow_pool()
    settle_all(plane, held, since, float(HEAT_COLUMNS))
    assert plane.any(), "the heatmap is empty"


CONTENDERS: dict[str, Contender] = {
    FLOOR: Contender("floor", _floor),
    "copy of the records in memory": Contender("floor", _copy),
    "Parquet decode, all columns": Contender("floor", partial(_parquet, layout="full")),
    "Parquet decode, seven columns": Contender("floor", partial(_parquet, layout="seven")),
    "write the book layers only": Contender("floor", _write, needs="rebuild"),
    "decode + filter, .dbn.zst": Contender("ours", partial(_decode, layout="source")),
    "decode + filter, full Parquet": Contender("ours", partial(_decode, layout="full")),
    "decode + filter, seven columns": Contender("ours", partial(_decode, layout="seven")),
    "replay alone": Contender("ours", partial(_replay, depth=1, rows=False), needs="decode"),
    "replay + bbo": Contender("ours", partial(_replay, depth=1), needs="decode"),
    "replay + bbo + ten levels": Contender("ours", partial(_replay, depth=10), needs="decode"),
    "replay + bbo + ten levels + heatmap": Contender("ours", partial(_replay, depth=10, heat=True), needs="decode"),
    **{name: Contender("ours", partial(_stage, name=name), needs=name) for name in STAGES if name != FLOOR},
}  # fmt: skip
