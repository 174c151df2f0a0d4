"""Makes events files in a lake from MBO records, as the decode stage leaves them; for tests of the stages after it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tasks.events_file import events_sink, to_table
from tasks.partitions import Partition, Stamp, digest
from tasks.schemas import EVENT_DTYPES

PARTITION = Partition("TEST", "2025-10-22", "ESZ5", 1, 1)


def columns_of(records: np.ndarray) -> dict[str, np.ndarray]:
    """The event columns of MBO_RECORDs."""
    return {name: records[name].astype(dtype) for name, dtype in EVENT_DTYPES.items()}


def write_events(
    lake: Path, records: np.ndarray, partition: Partition = PARTITION, short: str = "0123456789", suspect_rows=(), capped: bool = False
) -> str:
    """One events file of one partition; returns its path relative to the lake. capped: rows behind the last suspect one were not listed."""
    columns = columns_of(records)
    name = partition.path("events", short)
    with events_sink(lake / name) as sink:
        sink.write(to_table(columns, partition.symbol))
        facts = {
            "rows_in": len(records), "rows_out": len(records), "filtered": {}, "quarantined": 0, "suspect_rows": list(suspect_rows),
            "first_ts_recv": int(columns["ts_recv"][0]), "last_ts_recv": int(columns["ts_recv"][-1]),
        } | ({"suspect_rows_capped": True} if capped else {})  # fmt: skip
        sink.commit(Stamp(digest(records.tobytes().hex()), "test"), facts)
    return name
