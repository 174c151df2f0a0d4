"""Generated sessions as files of the formats that are read: DBN, Parquet and CSV as Databento gives them, and the seven-column layout.

What the records say is decided in synthetic.py. Everything streams: memory does not grow with the session.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from databento_dbn import Metadata, Schema, SType
from isal import igzip

from tasks.errors import UsageError
from tasks.scanning.synthetic import Session, SessionFacts, SessionSpec
from tasks.scanning.synthetic_text_kernels import LINE_BYTES, mbo_lines, seven_lines
from tasks.schemas import ACTIONS, F_LAST, SIDES, UNDEF_PRICE, char_index
from tasks.storage import atomic_file, atomic_path

FORMATS = ("dbn", "dbn.zst", "parquet", "csv", "csv.gz", "csv.zst", "seven-parquet", "seven-csv")
DBN_VERSIONS = (1, 2, 3)
WRITE_RECORDS = 65_536  # the lines of a batch stay below 17 MB
CAPTURE_LAG_NS = 1_000_000_000  # the last record is received after the session's end by no more
_CSV_HEAD = b"ts_recv,ts_event,rtype,publisher_id,instrument_id,action,side,price,size,channel_id,order_id,flags,ts_in_delta,sequence,symbol\n"
_SEVEN_HEAD = b"ts_event,action,side,price,size,order_id,is_last\n"
_TS = pa.timestamp("ns", tz="UTC")
_NUMBERS = {"rtype": pa.uint8(), "publisher_id": pa.uint16(), "instrument_id": pa.uint32(), "price": pa.int64(), "size": pa.uint32(),
            "channel_id": pa.uint8(), "order_id": pa.uint64(), "flags": pa.uint8(), "ts_in_delta": pa.int32(), "sequence": pa.uint32()}  # fmt: skip
_DATABENTO = pa.schema([(name, _NUMBERS.get(name, _TS if name.startswith("ts_") else pa.string())) for name in _CSV_HEAD.decode().strip().split(",")])
_SEVEN = pa.schema(
    [("ts_event", _TS), ("action", pa.string()), ("side", pa.string()), ("price", pa.float64()), ("size", pa.uint32()), ("order_id", pa.uint64()),
     ("is_last", pa.uint8())]
)  # fmt: skip


def write_session(spec: SessionSpec, path: Path, format: str = "dbn.zst", *, version: int = 3) -> SessionFacts:
    """Write a session to `path`, which appears only when it is whole; returns its truth.

    format: one of FORMATS; version: of DBN. Prices are int64 1e-9 in DBN and "parquet", decimal in the others. Raises UsageError, StorageError.
    """
    if format not in FORMATS:
        raise UsageError(f"format is {format!r}; allowed: {', '.join(FORMATS)}")
    if version not in DBN_VERSIONS:
        raise UsageError(f"version is {version}; allowed: 1, 2, 3")
    session = Session(spec)
    if format.endswith("parquet"):
        _write_parquet(session, path, _SEVEN if format == "seven-parquet" else _DATABENTO)
    elif format.startswith("dbn"):
        _write_bytes(session, path, format, _dbn_head(spec, version), lambda batch: batch.view(np.uint8))
    elif format == "seven-csv":
        _write_bytes(session, path, format, _SEVEN_HEAD, _seven_text)
    else:
        _write_bytes(session, path, format, _CSV_HEAD, _Text(spec))
    return session.facts()


def generate_files(spec: SessionSpec, path: Path, format: str = "dbn.zst", *, version: int = 3) -> tuple[Path, SessionFacts]:
    """Write a session, and its truth as JSON beside it (`<file>.facts.json`). A `path` that is a folder gets a file with Databento's kind of name."""
    if path.is_dir():
        suffix = format.removeprefix("seven-")
        path = path / f"{spec.dataset.lower().replace('.', '-')}-{spec.date.replace('-', '')}.mbo.{suffix}"
    facts = write_session(spec, path, format, version=version)
    with atomic_file(path.with_name(path.name + ".facts.json")) as file:
        file.write(json.dumps({"spec": asdict(spec), **asdict(facts)}, indent=1).encode())
    return path, facts


def _ahead(batches: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The same batches, each made while the one before is written."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, batches, None)
            yield batch


def _write_bytes(session: Session, path: Path, format: str, head: bytes, encode: Callable[[np.ndarray], np.ndarray]) -> None:
    with ExitStack() as stack:
        file: Any = stack.enter_context(atomic_file(path))
        if format.endswith(".zst"):
            compressor = zstandard.ZstdCompressor(level=1, threads=2)
            file = stack.enter_context(compressor.stream_writer(file, closefd=False))
        elif format.endswith(".gz"):
            file = stack.enter_context(igzip.IGzipFile(filename="", mode="wb", compresslevel=1, fileobj=file, mtime=0))
        file.write(head)
        for batch in _ahead(session.batches(WRITE_RECORDS)):
            file.write(encode(batch).data)


def _dbn_head(spec: SessionSpec, version: int) -> bytes:
    """DBN metadata with the symbols' dated mappings, half-open in days."""
    longest, room = max(spec.symbols, key=len), 21 if version == 1 else 70
    if len(longest) > room:
        raise UsageError(f"symbol {longest!r} has {len(longest)} letters; DBN version {version} has room for {room}")
    last = datetime.fromtimestamp(spec.end_ns // 1_000_000_000, UTC).date() + timedelta(days=1)
    first = datetime.fromisoformat(spec.date).date()
    mappings = [
        SimpleNamespace(raw_symbol=symbol, intervals=[SimpleNamespace(start_date=first, end_date=last, symbol=str(instrument))])
        for symbol, instrument in zip(spec.symbols, spec.instrument_ids, strict=True)
    ]
    metadata = Metadata(
        dataset=spec.dataset,
        start=spec.start_ns,
        end=spec.end_ns + CAPTURE_LAG_NS,
        stype_in=SType.from_str("raw_symbol"),
        stype_out=SType.from_str("instrument_id"),
        schema=Schema.from_str("mbo"),
        symbols=list(spec.symbols),
        mappings=mappings,
        version=version,
    )
    return bytes(metadata)


def _codes(spec_ids: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """int64[n] symbol of each record."""
    return np.searchsorted(spec_ids, batch["instrument_id"])  # ids ascend


class _Text:
    """Databento CSV lines of batches, in a buffer that is used again."""

    def __init__(self, spec: SessionSpec) -> None:
        names = [symbol.encode() for symbol in spec.symbols]
        self._ids = np.array(spec.instrument_ids, np.uint32)
        self._names = np.frombuffer(b"".join(names), np.uint8).copy()
        self._ends = np.cumsum([len(name) for name in names])
        self._line = LINE_BYTES + max(len(name) for name in names)
        self._out = np.empty(0, np.uint8)

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        if len(self._out) < len(batch) * self._line:
            self._out = np.empty(len(batch) * self._line, np.uint8)
        return self._out[: mbo_lines(batch, _codes(self._ids, batch), self._names, self._ends, self._out)]


def _seven_text(batch: np.ndarray) -> np.ndarray:
    out = np.empty(len(batch) * LINE_BYTES, np.uint8)
    return out[: seven_lines(batch, out)]


def _write_parquet(session: Session, path: Path, schema: pa.Schema) -> None:
    texts = [name for name in schema.names if schema.field(name).type == pa.string()]
    # Numbers split into their bytes: a third faster to write than plain here, and as small as with a dictionary.
    split: list[str] | bool = [name for name in schema.names if name not in texts and schema.field(name).type.bit_width >= 32]
    options: Any = {"compression": "zstd", "compression_level": 1, "use_dictionary": texts, "use_byte_stream_split": split}
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, **options) as sink:
        for batch in _ahead(session.batches()):
            sink.write_batch(_arrow(session.spec, batch, schema))


def _arrow(spec: SessionSpec, batch: np.ndarray, schema: pa.Schema) -> pa.RecordBatch:
    """The columns of `schema` from records."""
    columns = []
    for field in schema:
        if field.name in ("action", "side"):
            letters = ACTIONS if field.name == "action" else SIDES
            columns.append(_strings(char_index(letters)[batch[field.name]], letters))
        elif field.name == "symbol":
            columns.append(_strings(_codes(np.array(spec.instrument_ids, np.uint32), batch).astype(np.int32), spec.symbols))
        elif field.name == "is_last":
            columns.append(pa.array((batch["flags"] & F_LAST) >> 7))
        elif field.type == pa.float64():
            columns.append(pa.array(batch["price"] / 1e9, mask=batch["price"] == UNDEF_PRICE))
        else:
            values = np.ascontiguousarray(batch[field.name])
            columns.append(pa.array(values.view(np.int64) if field.type == _TS else values, field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _strings(codes: np.ndarray, values: tuple[str, ...]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(values)).cast(pa.string())
