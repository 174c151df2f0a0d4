"""DBN records one at a time with struct: the slow twin of tasks/scanning/dbn_kernels.py, and a writer of small DBN files."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from datetime import date
from types import SimpleNamespace

import databento_dbn

# length, rtype, publisher, instrument, ts_event, order_id, price, size, flags, channel, action, side, ts_recv, ts_in_delta, sequence
LAYOUT = struct.Struct("<BBHIQQqIBBBBQiI")
FIELDS = (
    "publisher_id", "instrument_id", "ts_event", "order_id", "price", "size", "flags", "channel_id", "action", "side", "ts_recv", "ts_in_delta",
    "sequence",
)  # fmt: skip
START, END = 1_704_067_200_000_000_000, 1_704_240_000_000_000_000  # 2024-01-01 and -03


def header(version: int = 3, mappings: Sequence = (), ts_out: bool = False, schema: str | None = "mbo", **changes) -> bytes:
    """An encoded DBN header; mappings come from `mapping`."""
    arguments = {
        "dataset": "GLBX.MDP3", "start": START, "end": END, "schema": schema and databento_dbn.Schema(schema), "ts_out": ts_out, "version": version,
        "stype_in": databento_dbn.SType.RAW_SYMBOL, "stype_out": databento_dbn.SType.INSTRUMENT_ID, "symbols": [], "partial": [], "not_found": [],
        "mappings": list(mappings),
    }  # fmt: skip
    return databento_dbn.Metadata(**{**arguments, **changes}).encode()


def mapping(symbol: str, *intervals: tuple[int, int, str]) -> SimpleNamespace:
    """What the encoder takes for a symbol mapping: (first day, end day, symbol out) in January 2024."""
    parts = [SimpleNamespace(start_date=date(2024, 1, first), end_date=date(2024, 1, end), symbol=number) for first, end, number in intervals]
    return SimpleNamespace(raw_symbol=symbol, intervals=parts)


def mbo(ts_out: bool = False, **fields: int) -> bytes:
    """One mbo record; what is not named is 0."""
    values = [fields.get(name, 0) for name in FIELDS]
    return LAYOUT.pack(16 if ts_out else 14, 160, *values) + (b"\1" * 8 if ts_out else b"")


def other(rtype: int, words: int, instrument_id: int = 0, ts_event: int = 0, body: bytes = b"") -> bytes:
    """A record of another type, padded with zeros to `words` 4-byte words."""
    return (struct.pack("<BBHIQ", words, rtype, 0, instrument_id, ts_event) + body).ljust(4 * words, b"\0")


def decode(body: bytes) -> Iterable[tuple[int, bytes, dict[str, int] | None]]:
    """(offset, bytes, fields or None for another type) of each whole record."""
    at = 0
    while at < len(body) and at + 4 * body[at] <= len(body):
        record = body[at : at + 4 * body[at]]
        yield at, record, dict(zip(FIELDS, LAYOUT.unpack_from(record)[2:], strict=True)) if record[1] == 160 else None
        at += len(record)
