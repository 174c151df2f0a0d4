"""Trades of a depth feed's venue into the lake: columns as they came, in file order. They make no book and are held against none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.depth_recipe import DepthSource
from tasks.depth_span import DaySpan
from tasks.errors import BookmillError
from tasks.footers import is_done, read_facts
from tasks.partitions import Partition, Stamp, digest
from tasks.scanning.depth_journal import DepthJournal
from tasks.scanning.inventory import verify_unchanged
from tasks.scanning.tardis_trades import TradeBatch, open_tardis_trades
from tasks.schemas import DEPTH_TRADES, SIDES, char_index
from tasks.storage import ParquetSink

LAYER = "depth-trades"
BATCH_BYTES = 1 << 20
_TS = pa.timestamp("ns", tz="UTC")
_SIDES, _SIDE_INDEX = pa.array(SIDES), char_index(SIDES)


@dataclass(frozen=True)
class DepthTrades:
    """grids: none, trades make no book; facts: the counts in the footer; skipped: it was there already."""

    partition: Partition
    grids: dict[int, tuple[str, int]]
    facts: dict[str, Any]
    skipped: bool


def trades_stamp(source: DepthSource) -> Stamp:
    """What the layer is made from."""
    return Stamp(source.file.fingerprint, digest("trades"))


def are_trades_done(lake: Path, source: DepthSource) -> DepthTrades | None:
    """What the lake holds of a source, None unless it is all there."""
    path = lake / source.partition.path(LAYER)
    return DepthTrades(source.partition, {}, read_facts(path), True) if is_done(path, trades_stamp(source)) else None


def decode_trades(source: DepthSource, lake: Path, path: Path, progress: Callable[[int, int], None] = lambda rows, size: None) -> DepthTrades:
    """Bring the trades of a source into the lake, or find that they are there. path: where its bytes are. Raises SourceError and its kinds."""
    done = are_trades_done(lake, source)
    if done is not None:
        return done
    partition, stamp = source.partition, trades_stamp(source)
    reader, journal, committed = open_tardis_trades(path, partition.symbol), DepthJournal(source, lake, LAYER), False
    symbol, day, bad, told = pa.array([partition.symbol]), DaySpan(source), 0, 0
    try:
        with ParquetSink(lake / partition.path(LAYER), DEPTH_TRADES) as sink:
            for batch in reader.batches(BATCH_BYTES):
                sink.write(_table(batch, symbol))
                for row in batch.bad:
                    journal.add(row)
                bad += len(batch.bad)
                day.add(batch.ts)
                progress(len(batch), reader.bytes_read - told)
                told = reader.bytes_read
            left_out = reader.left_out
            if reader.lines != sink.rows + bad + sum(left_out.values()):
                raise BookmillError(f"{source.name}: {reader.lines:,} rows were read, but {sink.rows + bad:,} accounted for. Nothing was published.")
            day.check()
            verify_unchanged(source.file)
            journal.commit(stamp, reader.lines, sink.rows, left_out, day.span)
            committed = True
            facts = {
                "rows_in": reader.lines, "rows_out": sink.rows, "rows_quarantined": bad, "rows_filtered": sum(left_out.values()),
                "messages_of_other_days": day.outside,
                "event_ends": 0, "crossed": 0, "locked": 0, "anomalies": {}, "statuses": {}, "status": "", "reason": "", "source": source.name,
                "fingerprint": source.file.fingerprint, "outputs": {LAYER: sink.rows},
            }  # fmt: skip
            sink.commit(stamp, facts)
    finally:
        reader.close()
        journal.close(undo=not committed)
    return DepthTrades(partition, {}, facts, False)


def _table(batch: TradeBatch, symbol: pa.Array) -> pa.Table:
    n = len(batch)
    # Text and places of the ids are those of an Arrow string column.
    offsets = pa.py_buffer((batch.id_first[: n + 1] - (batch.id_first[0] if n else 0)).astype(np.int32))
    start, stop = (int(batch.id_first[0]), int(batch.id_first[n])) if n else (0, 0)
    ids = pa.StringArray.from_buffers(n, offsets, pa.py_buffer(batch.id_text[start:stop].copy()))
    columns = [
        pa.array(batch.cts).view(_TS), pa.array(batch.ts).view(_TS), pa.DictionaryArray.from_arrays(np.zeros(n, np.int32), symbol), ids,
        pa.DictionaryArray.from_arrays(_SIDE_INDEX[batch.side], _SIDES), pa.array(batch.price), pa.array(batch.amount), pa.array(batch.price_digits),
        pa.array(batch.amount_digits),
    ]  # fmt: skip
    return pa.table(columns, schema=DEPTH_TRADES)
