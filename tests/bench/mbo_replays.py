"""The replay on event columns in memory: alone, with its samples, with the heatmap's pass, with its rows written; and from the file to the touch."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.bench.mbo_flow import WARM_RECORDS
from tests.bench.mbo_session import Call, Files, Found, batches

HEAT_COLUMNS, HEAT_ROWS, HEAT_TICK = 1600, 1000, 250_000_000
STATES_DEPTH = 10


def end_of(columns: Iterable[dict[str, Any]], depth: int, rows: bool) -> Found:
    """What a replay of these batches ends with. Samples are overwritten by the next batch; without rows none are taken."""
    from tasks.reconstruction.rebuild import REPLAY_ROWS
    from tasks.reconstruction.replay import Replay

    replay = Replay(depth=depth, windows=None if rows else [], batch_rows=REPLAY_ROWS)
    for batch in columns:
        for _ in replay.feed(batch):
            pass
    for _ in replay.finish():
        pass
    end = replay.end_facts()
    return Found({"event_ends": replay.counters()["event_ends"], **{name: end[name] for name in ("orders", "best_bid", "best_ask")}})


def replay(files: Files, depth: int, rows: bool = True, heat: bool = False) -> Call:
    """Columns to samples, without files."""
    events = batches(files)

    def call(columns: list[dict[str, Any]]) -> Found:
        if heat:
            _heat(columns, files.truth["best_bid"][0])
        return end_of(columns, depth, rows)

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


def states_written(files: Files) -> Call:
    """Columns to the mbp rows at event ends, on the disk and synced, as a rebuild writes them; no other layer."""
    events, partition = batches(files), files.place.part.partition

    def call(columns: list[dict[str, Any]]) -> Found:
        with tempfile.TemporaryDirectory(prefix="write-", dir=files.folder) as folder:
            return _write_states(columns, partition, Path(folder) / "states.parquet")

    call(events[:1])
    return lambda: call(events)


def _write_states(columns: list[dict[str, Any]], partition: Any, out: Path) -> Found:
    from tasks.book_rows import LEVELS, packed_schema
    from tasks.partitions import Stamp
    from tasks.reconstruction.layer_writer import DICTIONARY, SPLIT, WIDE_GROUP_ROWS
    from tasks.reconstruction.layers import LayerTables
    from tasks.reconstruction.rebuild import REPLAY_ROWS
    from tasks.reconstruction.replay import Replay
    from tasks.reconstruction.row_groups import RowGroups
    from tasks.storage import ParquetSink

    schema = packed_schema(STATES_DEPTH)
    options: dict[str, Any] = {
        "dictionary": [name for name in DICTIONARY if name in schema.names],
        "encodings": {name: "BYTE_STREAM_SPLIT" for name in schema.names if name in SPLIT},
        "statistics": [name for name in schema.names if name != LEVELS],
        "row_group_rows": WIDE_GROUP_ROWS,
    }
    with ParquetSink(out, schema, **options) as sink, ThreadPoolExecutor(1, "encode") as encoder:
        groups = RowGroups(STATES_DEPTH, WIDE_GROUP_ROWS, LayerTables(partition, STATES_DEPTH).event_rows, sink.write, encoder)
        made = Replay(depth=STATES_DEPTH, batch_rows=REPLAY_ROWS)
        for batch in columns:
            for samples in made.feed(batch):
                groups.add(samples)
        for samples in made.finish():
            groups.add(samples)
        groups.finish()
        sink.commit(Stamp("bench", "bench"))
    return Found({"event_ends": sink.rows}, {"rows": sink.rows, "bytes": out.stat().st_size})


def file_to_touch(files: Files) -> Call:
    """`.dbn.zst` to the book at its end and its touch: the reader works ahead in a thread, nothing is filtered, nothing written."""

    def call(of: Files) -> Found:
        return end_of(_from_file(of), depth=1, rows=False)

    call(Files(files.folder, WARM_RECORDS, files.lake))
    return lambda: call(files)


def _from_file(files: Files) -> Generator[dict[str, Any], None, None]:
    import numpy as np

    from tasks.ahead import ahead
    from tasks.reconstruction.rebuild import COLUMNS, REPLAY_ROWS
    from tasks.scanning.readers import open_reader
    from tasks.schemas import EVENT_DTYPES

    reader = open_reader(files.place.file)

    def read() -> Generator[dict[str, Any], None, None]:
        for batch in reader.batches(REPLAY_ROWS):
            assert not batch.bad, "the generator writes no bad row"
            yield {name: np.array(batch.columns[name], EVENT_DTYPES[name]) for name in COLUMNS}  # the reader uses its buffers again

    try:
        yield from ahead(read(), 2, "read")
    finally:
        reader.close()
