"""What bounds the market-by-order flow from below, or is another way to the same bytes: reading, copying, writing, and the replay in C."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.mbo_session import Call, Files, Found, batches
from tests.bench.measure import decompress

BLOCK_BYTES = 1 << 26  # of the copy: larger than any cache
WRITE_GROUPS = 4
TWIN = Path(__file__).with_name("replay_twin.c")


def floor(files: Files) -> Call:
    """Decompression, streamed."""
    path = files.source

    def call() -> Found:
        assert decompress(path) > 56 * files.records, "bytes are missing"
        return Found()

    return call


def copy(files: Files) -> Call:
    """As many bytes as the records have, block by block from one array to another."""
    import numpy as np

    size = 56 * files.records
    here, there = (np.full(min(BLOCK_BYTES, size), value, np.uint8) for value in (1, 2))  # written to, so that the copy meets no new page

    def call() -> Found:
        for at in range(0, size, BLOCK_BYTES):
            count = min(BLOCK_BYTES, size - at)
            np.copyto(there[:count], here[:count])
        return Found()

    return call


def parquet(files: Files, layout: str) -> Call:
    """Decode the source in Parquet, all its columns."""
    import pyarrow.parquet as pq

    path = getattr(files, layout)
    return lambda: Found({"records": sum(batch.num_rows for batch in pq.ParquetFile(path).iter_batches())})


def write(files: Files) -> Call:
    """As many rows of each book layer as a rebuild writes, from a few of its row groups again and again: no more than those are in memory."""
    import numpy as np
    import pyarrow.parquet as pq

    from tasks.book_rows import LEVELS
    from tasks.reconstruction.layer_writer import DICTIONARY, SPLIT, WIDE_GROUP_ROWS, layer_names
    from tasks.storage import ParquetSink

    names, layers = layer_names(files.place.recipe), []
    for kind in ("rows", "grid", "trades", "bbo"):
        file = pq.ParquetFile(files.lake / files.place.part.partition.path(names[kind]))
        chosen = np.unique(np.linspace(0, file.num_row_groups - 1, min(WRITE_GROUPS, file.num_row_groups)).astype(int))
        layers.append((kind, file.schema_arrow, file.metadata.num_rows, [file.read_row_group(int(group)) for group in chosen]))

    def call() -> Found:
        with tempfile.TemporaryDirectory(prefix="write-", dir=files.folder) as folder:
            for kind, schema, rows, groups in layers:
                dictionary = [name for name in DICTIONARY if name in schema.names]
                options: dict[str, Any] = {
                    "encodings": {name: "BYTE_STREAM_SPLIT" for name in schema.names if name in SPLIT},
                    "statistics": [name for name in schema.names if name != LEVELS],
                }
                with ParquetSink(Path(folder) / kind, schema, dictionary=dictionary, row_group_rows=WIDE_GROUP_ROWS, **options) as sink:
                    while sink.rows < rows:
                        for group in groups:
                            sink.write(group.slice(0, rows - sink.rows))
        return Found()

    return call


def states_as_columns(files: Files) -> Call:
    """The rows of the lake's mbp layer once more, each number of each level in a column of its own: plain, zstd-1, which was the fastest of all
    such encodings tried. Only its writing counts, with the sync at its end; neither the replay nor the making of the columns does."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tasks.book_rows import as_read, cell, depth_of, read_rows
    from tasks.partitions import Stamp
    from tasks.reconstruction.layer_writer import DICTIONARY, SPLIT, WIDE_GROUP_ROWS, layer_names
    from tasks.storage import ParquetSink

    path = files.lake / files.place.part.partition.path(layer_names(files.place.recipe)["rows"])
    stored = pq.read_schema(path)
    depth, schema = depth_of(stored), as_read(stored).remove_metadata()
    plain = [name for name in schema.names if not cell(name, depth)]
    seconds = [0.0, 0.0]

    class Timed:
        def __enter__(self) -> None:
            self.began = time.perf_counter(), time.process_time()

        def __exit__(self, *_: object) -> None:
            seconds[0] += time.perf_counter() - self.began[0]
            seconds[1] += time.process_time() - self.began[1]

    def call() -> Found:
        with tempfile.TemporaryDirectory(prefix="write-", dir=files.folder) as folder:
            out = Path(folder) / "columns.parquet"
            split = {name: "BYTE_STREAM_SPLIT" for name in plain if name in SPLIT}
            dictionary = [name for name in DICTIONARY if name in plain]
            with ParquetSink(out, schema, dictionary=dictionary, encodings=split, row_group_rows=WIDE_GROUP_ROWS, statistics=plain) as sink:
                for batch in read_rows(path, batch_rows=WIDE_GROUP_ROWS):
                    table = pa.Table.from_batches([batch]).cast(schema)
                    with Timed():
                        sink.write(table)
                with Timed():
                    sink.commit(Stamp("bench", "bench"))
            facts = {"rows": sink.rows, "bytes": out.stat().st_size}
        return Found({"event_ends": sink.rows}, facts, (seconds[0], seconds[1]))

    return call


def replay_in_c(files: Files) -> Call:
    """The replay in C on the same columns, with the size of its tables, the ladder and the ranks known in advance; compiled here."""
    import numpy as np

    from tasks.reconstruction.book import OrderBook
    from tasks.reconstruction.rebuild import REPLAY_ROWS
    from tasks.reconstruction.replay import Replay

    library = files.folder / "replay_twin.so"
    subprocess.run(["cc", "-O3", "-march=native", "-shared", "-fPIC", "-o", str(library), str(TWIN)], check=True)
    twin = ctypes.CDLL(str(library))
    twin.book_new.restype, twin.book_new.argtypes = ctypes.c_void_p, [ctypes.c_int64] * 3
    twin.replay.restype, twin.replay.argtypes = ctypes.c_int64, [ctypes.c_void_p, ctypes.c_int64, *[ctypes.c_void_p] * 6]
    twin.book_end.restype, twin.book_end.argtypes = None, [ctypes.c_void_p, ctypes.c_void_p]

    events = batches(files)
    sized = Replay(depth=1, windows=[], batch_rows=REPLAY_ROWS)
    for batch in events:
        for _ in sized.feed(batch):
            pass
    pool, bits = len(sized.book.arrays.orders), len(sized.book.arrays.table).bit_length() - 1
    ladder, met = OrderBook(), np.unique(np.concatenate([batch["price"] for batch in events]))
    ladder.ranks(met, np.zeros(len(met), np.int32))
    prices = ladder.arrays.prices
    columns: list[tuple[Any, ...]] = []
    for batch in events:
        rank = np.zeros(len(batch["price"]), np.int32)
        ladder.ranks(batch["price"], rank)
        columns.append((len(rank), batch["action"], batch["side"], batch["flags"], rank, batch["size"], batch["order_id"]))

    def run(some: list[tuple[Any, ...]]) -> np.ndarray:
        book, end = twin.book_new(len(prices), pool, bits), np.zeros(16, np.int64)
        for n, *arrays in some:
            done = twin.replay(book, n, *(values.ctypes.data for values in arrays))
            assert done == n, f"the pool of {pool:,} orders is full after {done:,} of {n:,} records"
        twin.book_end(book, end.ctypes.data)
        twin.book_free(ctypes.c_void_p(book))
        return end

    def call() -> Found:
        end = run(columns)
        touch = {f"best_{side}": [int(prices[end[at]]), int(end[at + 1])] for side, at in (("bid", 5), ("ask", 7))}
        return Found({"event_ends": int(end[0]), "orders": int(end[1]), **touch})

    run(columns[:1])
    return call
