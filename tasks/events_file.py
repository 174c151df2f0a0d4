"""Events files of the lake: how event columns become Parquet and come back as NumPy; and the truth layer beside a source that brings one.

Encodings are decided here. What rows go into a file is decided by the decode stage (scanning/decode.py, scanning/routing.py).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.disk import storage_error
from tasks.errors import StorageError
from tasks.schemas import ACTIONS, EVENT_DTYPES, EVENTS, SIDES, char_codes, char_index, level_fields
from tasks.storage import ParquetSink

# Measured on 1.5M futures events, zstd-1, one thread (write, read, bytes a row): these 4.4 M/s, 9.9 M/s, 16.2; all plain 2.8, 5.1, 17.5;
# all dictionary 1.5, 4.2, 24.5; times or sequence delta-packed 4.3, 9.3-10.1, 15.7; size as a dictionary 4.5, 9.2, 16.3.
DICTIONARY = ["symbol", "action", "side", "publisher_id", "instrument_id", "flags", "channel_id"]
ENCODINGS = {field.name: "BYTE_STREAM_SPLIT" for field in EVENTS if field.name not in DICTIONARY}

_TS = pa.timestamp("ns", tz="UTC")
_LETTERS = {"action": ACTIONS, "side": SIDES}


def events_sink(path: Path) -> ParquetSink:
    """A sink for one events file."""
    return ParquetSink(path, EVENTS, dictionary=DICTIONARY, encodings=ENCODINGS)


def to_table(columns: Mapping[str, np.ndarray], symbol: str) -> pa.Table:
    """Event columns of one symbol as a table of schema EVENTS, without copying the integers: the arrays must not change afterwards.

    action and side get the dictionaries ACTIONS and SIDES, in that order; symbol a dictionary of one. An unknown action or side is an
    ArrowInvalid: rows are checked before they come here.
    """
    n = len(columns["ts_recv"])
    arrays: dict[str, pa.Array] = {"symbol": pa.DictionaryArray.from_arrays(np.zeros(n, np.int32), pa.array([symbol]))}
    for name in EVENT_DTYPES:
        if name in _LETTERS:
            index = char_index(_LETTERS[name])[columns[name]]
            arrays[name] = pa.DictionaryArray.from_arrays(index, pa.array(_LETTERS[name]))
        else:
            plain = pa.array(np.ascontiguousarray(columns[name]))
            arrays[name] = plain.view(_TS) if EVENTS.field(name).type == _TS else plain
    return pa.table([arrays[field.name] for field in EVENTS], schema=EVENTS)


def read_events(path: Path, columns: Sequence[str] | None = None, batch_rows: int = 65_536) -> Generator[dict[str, np.ndarray], None, None]:
    """The named event columns (all of EVENT_DTYPES when None) in batches of at most `batch_rows` rows, in file order.

    Each array is contiguous, writeable and owned by the caller, of the dtype in EVENT_DTYPES; action and side are ASCII codes. Memory: one
    row group. Raises StorageError when the file is absent or broken.
    """
    names = list(EVENT_DTYPES) if columns is None else list(columns)
    unknown = [name for name in names if name not in EVENT_DTYPES]
    if unknown:
        raise KeyError(f"no event columns: {', '.join(unknown)}; there are {', '.join(EVENT_DTYPES)}")
    try:
        with pq.ParquetFile(path, memory_map=False, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_rows, columns=names, use_threads=False):
                yield {name: _to_numpy(batch.column(name), name) for name in names}
    except pa.ArrowException as fault:
        raise StorageError(f"Cannot read {path}: {fault}. Delete it and start again: it is made anew from its source.") from fault
    except OSError as fault:
        raise storage_error(path, fault) from fault


def _to_numpy(array: pa.Array, name: str) -> np.ndarray:
    if name in _LETTERS:
        # take, not indexing: a new array of its own in one pass.
        return np.take(char_codes(tuple(array.dictionary.to_pylist())), array.indices.to_numpy())
    if array.type == _TS:
        array = array.view(pa.int64())
    return np.array(array.to_numpy(), EVENT_DTYPES[name])


def truth_schema(depth: int) -> pa.Schema:
    """Columns of the truth layer: the published book after each event end of an events file, one row for each of its F_LAST rows, in order.

    message: 0-based data row of the source; then price (1e-9, UNDEF_PRICE when empty) and size of `depth` levels per side, no order counts.
    """
    return pa.schema([("message", pa.int64()), *(field for field in level_fields(depth) if "_ct_" not in field[0])])


def truth_sink(path: Path, depth: int) -> ParquetSink:
    """A sink for the truth layer of one events file."""
    schema = truth_schema(depth)
    return ParquetSink(path, schema, dictionary=[], encodings=dict.fromkeys(schema.names, "BYTE_STREAM_SPLIT"))


def truth_table(message: np.ndarray, truth: np.ndarray) -> pa.Table:
    """message int64[m] and truth int64[m, depth, 4] (ask px, ask sz, bid px, bid sz) as a table of `truth_schema(depth)`."""
    depth = truth.shape[1]
    place = {"ask_px": 0, "ask_sz": 1, "bid_px": 2, "bid_sz": 3}
    arrays = [pa.array(np.array(message))]
    for name in truth_schema(depth).names[1:]:
        arrays.append(pa.array(np.ascontiguousarray(truth[:, int(name[-2:]), place[name[:6]]])))
    return pa.table(arrays, schema=truth_schema(depth))
