"""Generated order-book archives of one pair and day, as Bybit's are: any size, the same for the same spec, with the truth about them.

For the demonstration, benchmarks and tests. What happens in the book is in synthetic_depth_kernels.py, how it is written in
synthetic_depth_text_kernels.py. Everything streams: memory does not grow with the day.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from isal import igzip

from tasks.errors import UsageError
from tasks.scanning import synthetic_depth_text_kernels as tk
from tasks.scanning.synthetic_depth_kernels import MOST_CHANGES, STATE, Book, Changes, fill_book
from tasks.scanning.synthetic_limits import check_date, check_seed
from tasks.storage import atomic_file

DAY_MS = 86_400_000
CHUNK_BYTES = 1 << 20
NEXT_DAYS = ("right", "wrong", "none")
LEVEL_TEXT = 32  # bytes of a usual level, to tell a large archive before it is written
FIRST_SEQUENCE = 130_020_227_226


@dataclass(frozen=True)
class DepthSpec:
    """What to generate. Equal specs give equal bytes.

    date: UTC day, which begins with a snapshot; depth: levels a side; interval_ms: between messages, `quiet` of which do not come; updates: mean
    levels of a delta; price_digits, size_digits: decimals; tick, open_price: units of a price's last decimal; step: mean distance of two levels in
    ticks, 1 is a book without holes; layout: "linear" (fixed decimals) or "spot" (trailing zeros cut, other order of keys); cts: whether it is told.
    restarts: so many snapshots with u = 1, spread over the day; gaps: so often messages are lost, and the lines lead to the true book again only
    from the next snapshot on; outage_minutes: no messages from 60% of the day on, then a snapshot; next_day: the snapshot of the next day's start,
    "right" as the true book, "wrong" in a few sizes, or "none".
    """

    symbol: str = "BTCUSDT"
    date: str = "2025-08-09"
    depth: int = 500
    interval_ms: int = 100
    quiet: float = 0.074
    updates: float = 18.0
    price_digits: int = 1
    size_digits: int = 3
    tick: int = 1
    open_price: int = 1_165_000
    step: float = 2.0
    layout: str = "linear"
    cts: bool = True
    restarts: int = 1
    gaps: int = 0
    outage_minutes: float = 0.0
    next_day: str = "right"
    seed: int = 1

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {
            "depth": (2, 10_000), "interval_ms": (8, DAY_MS // 16), "quiet": (0.0, 0.99), "updates": (1.0, 100.0), "price_digits": (0, 12),
            "size_digits": (0, 12), "tick": (1, 10**9), "open_price": (1, 10**17), "step": (1.0, 1_000.0), "restarts": (0, 1_000),
            "gaps": (0, 1_000), "outage_minutes": (0.0, 500.0),
        }  # fmt: skip
        for name, (least, most) in limits.items():
            if not least <= getattr(self, name) <= most:
                raise UsageError(f"{name} is {getattr(self, name)}; allowed: {least:,} to {most:,}")
        for name, allowed in (("layout", ("linear", "spot")), ("next_day", NEXT_DAYS)):
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} is {getattr(self, name)!r}; allowed: {', '.join(allowed)}")
        if self.open_price // self.tick < (lowest := int(30_000 + 20 * self.depth * self.step)):
            raise UsageError(f"open_price is {self.open_price // self.tick:,} ticks; it must be {lowest:,} or more for the book to stay above 0")
        check_seed(self.seed)
        if not self.symbol.isascii() or not self.symbol.isalnum() or len(self.symbol) > 64:
            raise UsageError(f"symbol is {self.symbol!r}; allowed: 1 to 64 ASCII letters and digits")
        try:
            self.start_ms  # noqa: B018
        except ValueError as fault:
            raise UsageError(f"date is {self.date!r}; give YYYY-MM-DD") from fault
        check_date(self.date)

    @property
    def start_ms(self) -> int:
        """Start of the day in ms since the epoch UTC."""
        return int(datetime.strptime(self.date, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()) * 1000

    @property
    def slots(self) -> int:
        """Intervals of the day."""
        return -(-DAY_MS // self.interval_ms)

    @property
    def outage_slots(self) -> tuple[int, int]:
        """First slot without a message, and the one after the last; equal when there is no outage."""
        first = 6 * self.slots // 10
        return first, first + int(self.outage_minutes * 60_000 / self.interval_ms)

    @property
    def file_name(self) -> str:
        """Bybit's kind of name, without the ending of the archive."""
        return f"{self.date}_{self.symbol}_ob{self.depth}.data"


@dataclass(frozen=True)
class DepthFacts:
    """Truth about an archive. updates: levels in all messages; text_bytes: inflated; snapshots, restarts: 0-based lines of all snapshots and of those
    with u = 1; gaps: lines of the first message after each; outage_ns: first moment and the one after the last, empty without one; wrong_levels:
    that differ in the next day's snapshot; bids, asks: true book at the end of the day, (price, size) in units of their last decimals, best first.
    """

    lines: int
    updates: int
    text_bytes: int
    first_ts_ns: int
    last_ts_ns: int
    last_update_id: int
    snapshots: tuple[int, ...]
    restarts: tuple[int, ...]
    gaps: tuple[int, ...]
    outage_ns: tuple[int, ...]
    wrong_levels: int
    bids: tuple[tuple[int, int], ...]
    asks: tuple[tuple[int, int], ...]


class DepthDay:
    """A day under way. `chunks` may be used once; `facts` holds at its end."""

    def __init__(self, spec: DepthSpec) -> None:
        self.spec, self._state, self._events, self._bytes = spec, np.zeros(1, STATE), _events(spec), 0
        first = self._state[0]
        first["slots"], first["start_ms"], first["interval_ms"] = spec.slots + (spec.next_day != "none"), spec.start_ms, spec.interval_ms
        first["quiet"], first["mean"], first["step"], first["centre"] = spec.quiet, spec.updates, spec.step - 1.0, spec.open_price // spec.tick
        first["outage_from"], first["outage_to"] = spec.outage_slots
        first["tick"], first["price_digits"], first["size_digits"] = spec.tick, spec.price_digits, spec.size_digits
        first["spot"], first["cts"] = spec.layout == "spot", spec.cts
        first["update_id"], first["sequence"] = 15_076_952, FIRST_SEQUENCE
        first["random"] = int(np.random.default_rng(spec.seed).integers(1, 2**63))
        self._book = Book(np.zeros((2, spec.depth), np.int64), np.zeros((2, spec.depth), np.int64))
        self._changes = Changes(np.zeros((2, MOST_CHANGES), np.int64), np.zeros((2, MOST_CHANGES), np.int64), np.zeros(2, np.int64))
        fill_book(first, self._book)

    def chunks(self) -> Iterator[np.ndarray]:
        """The lines as uint8 arrays of about CHUNK_BYTES, each the caller's to keep."""
        texts = _texts(self.spec)
        room = CHUNK_BYTES + 4 * max(self.spec.depth, MOST_CHANGES) * tk.LEVEL_BYTES + 2 * tk.LINE_BYTES
        while True:
            out = np.empty(room, np.uint8)
            count = int(tk.put_day(self._state[0], self._book, self._changes, self._events, texts, out))
            if count == 0:
                return
            self._bytes += count
            yield out[:count]

    def facts(self) -> DepthFacts:
        """See DepthFacts."""
        first, spec = self._state[0], self.spec
        met = self._events[self._events[:, tk.LINE] >= 0]
        lines = {kind: tuple(met[met[:, tk.KIND] == kind, tk.LINE].tolist()) for kind in (tk.RESTART, tk.GAP)}
        snapshots = met[met[:, tk.KIND] != tk.GAP, tk.LINE].tolist()
        outage = tuple((spec.start_ms + slot * spec.interval_ms) * 1_000_000 for slot in spec.outage_slots) if spec.outage_minutes else ()
        prices = np.abs(self._book.keys) * spec.tick
        bids, asks = (tuple(zip(prices[side].tolist(), self._book.sizes[side].tolist(), strict=True)) for side in (0, 1))
        wrong = len(range(0, spec.depth, 1 + spec.depth // 3)) if spec.next_day == "wrong" else 0
        return DepthFacts(
            int(first["lines"]), int(first["updates"]), self._bytes, int(first["first_ms"]) * 1_000_000, int(first["last_ms"]) * 1_000_000,
            int(first["update_id"]), tuple(snapshots), lines[tk.RESTART], lines[tk.GAP], outage, wrong, bids, asks,
        )  # fmt: skip


def write_archive(path: Path, spec: DepthSpec) -> DepthFacts:
    """Write a day; a zip with one member, gzip or plain lines by the ending of `path` (.zip, .gz, any other). Raises StorageError."""
    day = DepthDay(spec)
    with ExitStack() as stack:
        file: Any = stack.enter_context(atomic_file(path))
        if path.suffix == ".zip":
            # zlib at 5 packs like the real archives (5:1) in half the time of 6: 6.5 s for 400 MB.
            archive = stack.enter_context(zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=5))
            large = spec.slots * spec.updates * LEVEL_TEXT > 1 << 30
            file = stack.enter_context(archive.open(spec.file_name, "w", force_zip64=large))
        elif path.suffix == ".gz":
            file = stack.enter_context(igzip.IGzipFile(filename="", mode="wb", compresslevel=1, fileobj=file, mtime=0))
        pool = stack.enter_context(ThreadPoolExecutor(1))
        chunks = day.chunks()
        coming = pool.submit(next, chunks, None)
        while (chunk := coming.result()) is not None:
            coming = pool.submit(next, chunks, None)  # made while this one is packed
            file.write(chunk.data)
    return day.facts()


def _events(spec: DepthSpec) -> np.ndarray:
    """int64[n, EVENT_SIZE]: what is planned for which slot, no two for the same one; a last one that never comes."""
    slots, kinds = spec.slots, {0: tk.RESUME}
    first, end = spec.outage_slots
    if end > first:
        kinds[end] = tk.RESUME
    if spec.next_day != "none":
        kinds[slots] = tk.NEXT_DAY if spec.next_day == "right" else tk.WRONG_NEXT_DAY
    for count, kind, offset in ((spec.restarts, tk.RESTART, 0), (spec.gaps, tk.GAP, -1)):
        for k in range(count):
            slot = max(1, (2 * k + 1) * slots // (2 * count) + offset * max(1, slots // (4 * count + 4)))
            while slot in kinds or first <= slot < end:
                slot += 1
            if slot < slots:
                kinds[slot] = kind
    return np.array([*((slot, kinds[slot], -1) for slot in sorted(kinds)), (np.iinfo(np.int64).max, tk.GAP, -1)], np.int64)


def _texts(spec: DepthSpec) -> tuple[np.ndarray, np.ndarray]:
    """The fixed parts of a line, in the order of the kernel's, and where each ends."""
    parts = [
        f'{{"topic":"orderbook.{spec.depth}.{spec.symbol}"', ',"type":"snapshot"', ',"type":"delta"', ',"ts":',
        f',"data":{{"s":"{spec.symbol}","b":[', '],"a":[', '],"u":', ',"seq":', '},"cts":', "}\n" if spec.cts else "}}\n",
    ]  # fmt: skip
    return np.frombuffer(bytearray("".join(parts).encode()), np.uint8), np.cumsum([0, *map(len, parts)])
