"""Whether a run of DBN records can be used as it lies, without being split into columns."""

from __future__ import annotations

import numpy as np

from tasks.kernels import kernel
from tasks.scanning.dbn_kernels import DAY_NS

_MAX_TIME = np.uint64(2**63 - 1)


@kernel
def is_plain(records):
    """Whether all records (MBO_RECORD[n], n > 0) have times that can be told, and are of one instrument, publisher and UTC day of ts_recv."""
    first = records[0]
    instrument, publisher = first["instrument_id"], first["publisher_id"]
    day = np.uint64(DAY_NS)
    begins = first["ts_recv"] // day * day
    good = True
    for i in range(records.shape[0]):
        row = records[i]
        good &= (
            (row["instrument_id"] == instrument)
            & (row["publisher_id"] == publisher)
            & (row["ts_event"] <= _MAX_TIME)
            & (row["ts_recv"] - begins < day)
        )
    return good and begins <= _MAX_TIME - day
