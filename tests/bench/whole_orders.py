"""A session as other programs' books take it, which know no partial cancel: what is compared then is the same book."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from tasks.schemas import MBO_RECORD


def whole_orders(records: np.ndarray, sizes: dict[int, int]) -> np.ndarray:
    """The records as NautilusTrader and hftbacktest take them, book and touch unchanged: none of action N, which one refuses, and a cancel of a
    part as a modify to what is left, because both take the whole order away. sizes: order id -> size before them, kept up.
    """
    records = records[records["action"] != ord("N")]
    letters, ids, counts = records["action"].tobytes().decode(), records["order_id"].tolist(), records["size"].tolist()
    for i, (letter, order_id, size) in enumerate(zip(letters, ids, counts, strict=True)):
        if letter in "AM":
            sizes[order_id] = size
        elif letter == "C" and sizes.get(order_id, 0) > size:
            sizes[order_id] -= size
            records["action"][i], records["size"][i] = ord("M"), sizes[order_id]
        elif letter == "C":
            sizes.pop(order_id, None)
        elif letter == "R":
            sizes.clear()
    return records


def session_of_whole_orders(source: Path) -> Path:
    """The `.dbn.zst` at `source` with `whole_orders` only, beside it; made once."""
    path = source.with_name(f"whole-orders-{source.name}")
    if path.exists():
        return path
    part, sizes = path.with_suffix(".part"), dict[int, int]()
    with opened(source) as reader, part.open("wb") as out, zstandard.ZstdCompressor(1).stream_writer(out) as writer:
        head = reader.read(8)
        writer.write(head + reader.read(int.from_bytes(head[4:], "little")))
        while piece := reader.read(MBO_RECORD.itemsize << 14):
            writer.write(whole_orders(np.frombuffer(piece, MBO_RECORD), sizes).tobytes())
    return part.rename(path)


def opened(path: Path) -> Any:
    """The inflated bytes of a zstd file, as a stream."""
    return zstandard.ZstdDecompressor().stream_reader(path.open("rb"), read_across_frames=True, closefd=True)
