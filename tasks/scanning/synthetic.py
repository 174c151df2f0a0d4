"""Generated market-by-order sessions: of 1 to 3.5 billion records, the same for the same spec, valid by every rule of the book.

For the demonstration, benchmarks and tests. Files of them are written by synthetic_writers.py; the stochastic part is in the synthetic_*_kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from tasks.errors import UsageError
from tasks.scanning.synthetic_kernels import EVENT_ROWS
from tasks.scanning.synthetic_limits import MOST_RECORDS, MOST_SYMBOLS, check_date, check_seed
from tasks.scanning.synthetic_market import new_market, side_facts
from tasks.scanning.synthetic_phase_kernels import run
from tasks.schemas import ACTIONS, F_LAST, MBO_RECORD

FIRST_INSTRUMENT_ID = 42_140_878
BATCH_RECORDS = 262_144


@dataclass(frozen=True)
class SessionSpec:
    """What to generate. Equal specs give equal records.

    records: exactly so many, over all symbols; symbols: each with a book per publisher, the first the most active; date, start: UTC;
    hours: length, records spread over all of it; tick, open_price: 1e-9, open_price of the first symbol, the others' follow from the seed;
    zipf: activity of symbol i is proportional to 1 / i^zipf; live_orders: resting orders the busiest book has, fewer where its records do not
    allow for so many; snapshot_start: starts with a snapshot, else with a clear, first orders and an auction; mid_clear: half-way all books are
    cleared and built anew; gap: at 70% messages are lost (MAYBE_BAD_BOOK, unknown ids), at 72% a snapshot repairs the books.
    """

    records: int = 1_000_000
    seed: int = 1
    symbols: tuple[str, ...] = ("ESZ5",)
    dataset: str = "GLBX.MDP3"
    date: str = "2025-10-22"
    start: str = "13:30"
    hours: float = 6.5
    tick: int = 250_000_000
    open_price: int = 6_738_750_000_000
    zipf: float = 1.0
    live_orders: int = 19_000
    snapshot_start: bool = False
    mid_clear: bool = True
    gap: bool = False
    publishers: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        if not 1 <= self.records <= MOST_RECORDS:
            raise UsageError(f"records is {self.records}; allowed: 1 to {MOST_RECORDS:,}")
        check_seed(self.seed)
        for name, value in (("hours", self.hours), ("tick", self.tick), ("live_orders", self.live_orders)):
            if value <= 0:
                raise UsageError(f"{name} is {value}; it must be positive")
        for name, values in (("symbols", self.symbols), ("publishers", self.publishers)):
            if not values or len(set(values)) != len(values):
                raise UsageError(f"{name} has {len(values)} entries, {len(set(values))} different; give at least one, each once")
        if len(self.symbols) > MOST_SYMBOLS:
            raise UsageError(f"symbols has {len(self.symbols):,} entries; allowed: 1 to {MOST_SYMBOLS:,}")
        if odd := [s for s in self.symbols if not s or not s.isascii() or not s.isprintable() or any(c in s for c in ',"')]:
            raise UsageError(f"symbol {odd[0]!r} cannot stand in every format; use printable ASCII without comma and quote")
        try:
            self.start_ns  # noqa: B018
        except ValueError as fault:
            raise UsageError(f"date {self.date!r} and start {self.start!r} are no time; give YYYY-MM-DD and HH:MM") from fault
        check_date(self.date)

    @property
    def start_ns(self) -> int:
        """Start in ns since the epoch UTC."""
        return int(datetime.fromisoformat(f"{self.date}T{self.start}").replace(tzinfo=UTC).timestamp()) * 1_000_000_000

    @property
    def end_ns(self) -> int:
        """End in ns since the epoch UTC; no ts_event is at or after it."""
        return self.start_ns + int(self.hours * 3_600_000_000_000)

    @property
    def instrument_ids(self) -> tuple[int, ...]:
        """Instrument id of each symbol."""
        return tuple(FIRST_INSTRUMENT_ID + 97 * i for i in range(len(self.symbols)))


@dataclass(frozen=True)
class BookFacts:
    """A book at the end of a session, as the generator kept it. Prices 1e-9, UNDEF_PRICE and size 0 where a side is empty."""

    symbol: str
    instrument_id: int
    publisher_id: int
    live_orders: int
    bid_levels: int
    ask_levels: int
    bid_px: int
    bid_sz: int
    ask_px: int
    ask_sz: int


@dataclass(frozen=True)
class SessionFacts:
    """Truth about a whole session: what a correct replay of it finds. actions: letter -> records; event_ends: records with LAST;
    volume: size of all T; first_ts, last_ts: ts_recv of the first and last record; books: per symbol and publisher.
    """

    records: int
    actions: dict[str, int]
    event_ends: int
    volume: int
    first_ts: int
    last_ts: int
    books: tuple[BookFacts, ...]


class Session:
    """A session under way. `batches` may be used once; `facts` holds for what it has yielded, for the whole session at its end."""

    def __init__(self, spec: SessionSpec) -> None:
        self.spec = spec
        self._market = new_market(spec)
        self._actions = np.zeros(256, np.int64)
        self._event_ends = self._volume = self._last_ts = 0
        self._first_ts = -1

    def batches(self, batch_records: int = BATCH_RECORDS) -> Iterator[np.ndarray]:
        """MBO_RECORD[batch_records] arrays, the last one shorter. Each is the caller's to keep; memory does not grow with the session."""
        if batch_records <= 0:
            raise UsageError(f"batch_records is {batch_records}; it must be positive")
        over = np.zeros(0, MBO_RECORD)  # the end of an event that did not fit into the batch before
        done = 0
        while done < self.spec.records:
            buffer = np.empty(max(batch_records, len(over)) + EVENT_ROWS, MBO_RECORD)
            buffer[: len(over)] = over
            rows = len(over)
            if rows < batch_records:
                rows += int(run(self._market, buffer[rows:], batch_records - rows))
            batch, over = buffer[:batch_records], buffer[batch_records:rows].copy()
            batch = batch[:rows]
            done += len(batch)
            self._count(batch)
            yield batch

    def facts(self) -> SessionFacts:
        """See SessionFacts. Not meaningful for books in which the session ends before the snapshot that repairs a gap."""
        actions = {letter: int(self._actions[ord(letter)]) for letter in ACTIONS}
        symbols, books = dict(zip(self.spec.instrument_ids, self.spec.symbols, strict=True)), []
        for b, book in enumerate(self._market.books):
            instrument, publisher, live = (int(book[name]) for name in ("instrument", "publisher", "live"))
            books.append(BookFacts(symbols[instrument], instrument, publisher, live, *side_facts(self._market, b)))
        total = sum(actions.values())
        return SessionFacts(total, actions, self._event_ends, self._volume, self._first_ts, self._last_ts, tuple(books))

    def _count(self, batch: np.ndarray) -> None:
        self._actions += np.bincount(batch["action"], minlength=256)
        self._event_ends += int(np.count_nonzero(batch["flags"] & F_LAST))
        self._volume += int(batch["size"][batch["action"] == ord("T")].sum(dtype=np.int64))
        self._first_ts = int(batch["ts_recv"][0]) if self._first_ts < 0 else self._first_ts
        self._last_ts = int(batch["ts_recv"][-1])


def generate(spec: SessionSpec, batch_records: int = BATCH_RECORDS) -> Iterator[np.ndarray]:
    """The records of a session: MBO_RECORD arrays of `batch_records`, the last one shorter. What they hold does not depend on `batch_records`."""
    return Session(spec).batches(batch_records)
