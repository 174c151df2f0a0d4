"""From one order-by-order file straight to a picture, in one pass and without a lake: scanning, reconstruction and publishing put together.

A composition of stages, so it lives with the flows; but it is a plain function and imports nothing of Prefect. What is painted, and how exactly,
is said in tasks/reconstruction/quick_heat.py; what a row must be to count, in tasks/scanning/check_kernels.py, as for the lake.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tasks.ahead import ahead
from tasks.errors import CorruptSource, EmptySource, UsageError
from tasks.heatmap_grid import HeatmapGrid
from tasks.partitions import SourceFile
from tasks.reconstruction.quick_heat import QuickHeat, Trades
from tasks.scanning import formats
from tasks.scanning.batches import RawBatch, Reader
from tasks.scanning.check_kernels import REASONS, check_rows
from tasks.scanning.quick_check_kernels import is_clean
from tasks.scanning.readers import open_reader

BATCH_ROWS = 16_384  # half of the second level cache; more rows are no faster and take more memory
CLOCKS = ("ts_recv", "ts_event")
_MOST = 16_384  # columns or bins: more than any screen shows, and memory follows their product
_NO_MARKS = np.zeros(0, np.int64)
_BOOK = ("ts_event", "ts_recv", "action", "side", "price", "size", "order_id", "flags")


@dataclass
class QuickPicture:
    """A heatmap grid made in one pass, and the account of the rows behind it: painted + bad + left_out = all that were read.

    trades: (time ns, price, size, side code), None before the end; painted: rows of the book shown; bad: reason -> rows that could not be used;
    left_out: symbol -> rows of other books; status: with its reason, of the book at the end; fault: where the file broke, None when it was whole;
    seconds: to make the grid.
    """

    source: SourceFile
    symbol: str
    clock: str
    grid: HeatmapGrid | None = None
    trades: Trades | None = None
    painted: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    status: tuple[str, str] = ("no_book", "no_snapshot")
    fault: CorruptSource | None = None
    seconds: float = 0.0

    @property
    def rows(self) -> int:
        """Rows that were read."""
        return self.painted + self.bad.total() + self.left_out.total()


def quick_heatmap(
    path: str | Path, *, symbol: str = "", width: int = 1600, height: int = 1000, clock: str = "ts_recv", starts_empty: bool = False
) -> QuickPicture:
    """Replay an order-by-order file and paint the resting size of one book by time and price.

    symbol: which book, where the file says symbols (default: that with most of the first rows), else what to call it; width columns and at most
    `height` price bins; starts_empty: the book is whole from the first row on. Raises UsageError, and the SourceError of a file that cannot be
    read from its beginning; a file that breaks later is painted up to there (`fault`).
    """
    began = time.perf_counter()
    for name, value in (("width", width), ("height", height)):
        if not 1 <= value <= _MOST:
            raise UsageError(f"{name} is {value}; allowed: 1 to {_MOST:,}")
    if clock not in CLOCKS:
        raise UsageError(f"clock is {clock!r}; allowed: {', '.join(CLOCKS)}")
    source = _describe(Path(path), symbol)
    source, reader, span, expected_end = _open(source, clock)
    try:
        heat = QuickHeat(
            width, height, clock=clock, span=span, expected_end=expected_end, starts_empty=starts_empty, halts=source.format == formats.ITCH,
            batch_rows=BATCH_ROWS,
        )  # fmt: skip
        picture = QuickPicture(source, source.symbols[0] if source.symbols else symbol, clock)
        _Run(reader, heat, picture, "" if source.symbols else symbol).all()
    finally:
        reader.close()
    picture.grid, picture.trades, picture.status = heat.finish(), heat.trades(), heat.status
    picture.seconds = time.perf_counter() - began
    return picture


def draw_picture(picture: QuickPicture, png: Path | None, html: Path | None) -> None:
    """Draw a picture that has a grid as PNG, as HTML, or both, as those of a lake are. Raises StorageError."""
    assert picture.grid is not None
    assert picture.trades is not None
    date = str(np.datetime64(int(picture.grid.time_edges[0]), "ns").astype("datetime64[D]"))
    title = f"{picture.symbol}  {date}  {picture.source.dataset}"
    if png is not None:
        from tasks.publishing.heatmap_png import draw_png

        draw_png(picture.grid, picture.trades, png, title=title)
    if html is not None:
        from tasks.publishing.heatmap_html import draw_html

        draw_html(picture.grid, picture.trades, html, title=title)


def _describe(path: Path, symbol: str) -> SourceFile:
    """The source, without the fingerprint that only a lake needs: hashing costs half of what the replay does. symbols: its name, if it says none."""
    if not path.is_file():
        raise UsageError(f"{path} is not a file; give one order-by-order file. For folders and patterns there is `bookmill run mbo`")
    found = formats.identify(path)
    if len(found) != 1 or found[0].format == formats.LOBSTER:
        raise UsageError(
            f"{path} holds LOBSTER files: their book begins in the middle and is known from the order book file only. "
            "Use `bookmill run mbo`, which draws one picture for each pair"
        )
    dates: tuple[str, ...] = ()
    dataset = "local"
    if found[0].format == formats.ITCH:
        from tasks.scanning.itch_messages import session_date, venue_of

        dates, dataset = (str(session_date(path)),), venue_of(path)[0]
    names = () if found[0].has_symbols else (symbol or path.name.split(".")[0],)
    stat = path.stat()
    return SourceFile(str(path), found[0].format, dataset, "", stat.st_size, stat.st_mtime_ns, stat.st_ino, dates=dates, symbols=names)


def _open(source: SourceFile, clock: str) -> tuple[SourceFile, Reader, tuple[int, int] | None, int | None]:
    """(source with its dataset, reader, first and last time where known exactly, the time by which the data should have ended where told)."""
    if source.format == formats.DBN:
        from tasks.scanning.quick_dbn import DbnViews

        reader = DbnViews(source)
        end = reader.header.metadata.end
        source = replace(source, dataset=reader.header.dataset or source.dataset)
        return source, reader, reader.span() if clock == "ts_recv" else None, int(end) if end and end < 2**63 else None
    span = None
    if source.format in (formats.DATABENTO_PARQUET, formats.SEVEN_COLUMN_PARQUET):
        from tasks.scanning.quick_parquet import time_span

        if source.format == formats.SEVEN_COLUMN_PARQUET or clock == "ts_recv":  # of a snapshot, ts_event lies before the file
            span = time_span(Path(source.path), "ts_event" if source.format == formats.SEVEN_COLUMN_PARQUET else clock)
    return source, open_reader(source), span, None


class _Run:
    """Batches to the painter: chooses the book, leaves others out, and counts every row."""

    def __init__(self, reader: Reader, heat: QuickHeat, picture: QuickPicture, wanted: str) -> None:
        self._reader, self._heat, self._picture, self._wanted = reader, heat, picture, wanted
        self._key: tuple[int, int, int] | None = None  # symbol code, publisher and instrument of the book
        self._reason = np.zeros(BATCH_ROWS, np.uint8)

    def all(self) -> None:
        """Read to the end, or to where the file breaks."""
        batches = self._batches()
        try:
            for batch, clean in batches:
                self._take(batch, clean)
        except CorruptSource as fault:
            if not self._picture.rows:
                raise
            self._picture.fault = fault
        finally:
            batches.close()
        if self._key is None:
            if not self._picture.rows:
                raise EmptySource(self._picture.source.path, "holds no rows", remedy="Check whether its download finished")
            met = ", ".join(sorted(self._reader.symbols)[:20])
            raise UsageError(f"symbol {self._wanted!r} is not in {self._picture.source.path}; it has {met or 'no usable rows'}")

    def _batches(self) -> Generator[tuple[RawBatch, bool], None, None]:
        """(batch, whether all its rows are surely good), looked through in a thread while the one before is painted."""
        return ahead(_looked_through(self._reader.batches(BATCH_ROWS)), 1, "look")

    def _take(self, batch: RawBatch, clean: bool) -> None:
        columns, n = batch.columns, len(batch)
        for bad in batch.bad:
            self._picture.bad[bad.reason] += 1
        if n and self._key is None:
            self._choose(batch)
        if self._key is None:
            self._leave_out(batch, np.ones(n, bool))
            return
        code, publisher, instrument = self._key
        places = [bad.before for bad in batch.bad if bad.symbol_code in (-1, code)]
        ours: np.ndarray | None = None
        if not _constant(batch.symbol_code) or (n and batch.symbol_code[0] != code):
            ours = (batch.symbol_code == code) & (columns["publisher_id"] == publisher) & (columns["instrument_id"] == instrument)
        elif n and (columns["publisher_id"][0] != publisher or columns["instrument_id"][0] != instrument):
            ours = np.zeros(n, bool)  # views are of one instrument
        if ours is not None and not ours.all():
            self._leave_out(batch, ~ours)
            columns, places = _keep(columns, ours, places)
        if not clean:
            columns, places = self._check(columns, places)
        self._picture.painted += len(columns["price"])
        self._heat.feed(columns, np.array(places, np.int64) if places else _NO_MARKS)

    def _choose(self, batch: RawBatch) -> None:
        """The book with most rows in this batch, of the symbol wanted."""
        codes = np.asarray(batch.symbol_code)
        rows = np.arange(len(codes))
        if self._wanted:
            code = self._reader.symbols.index(self._wanted) if self._wanted in self._reader.symbols else -1
            rows = np.flatnonzero(codes == code)
        if not len(rows):
            return
        keys = np.stack([codes[rows], batch.columns["publisher_id"][rows], batch.columns["instrument_id"][rows]]).astype(np.int64)
        distinct, counts = np.unique(keys, axis=1, return_counts=True)
        code, publisher, instrument = distinct[:, int(np.argmax(counts))].tolist()
        self._key = (code, publisher, instrument)
        self._picture.symbol = self._reader.symbols[code]

    def _leave_out(self, batch: RawBatch, rows: np.ndarray) -> None:
        codes, counts = np.unique(np.asarray(batch.symbol_code)[rows], return_counts=True)
        for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
            self._picture.left_out[self._reader.symbols[code]] += count

    def _check(self, columns: dict[str, np.ndarray], places: list[int]) -> tuple[dict[str, np.ndarray], list[int]]:
        n = len(columns["price"])
        names = ("ts_event", "ts_recv", "action", "side", "price", "size", "flags")
        if not check_rows(*(columns[name] for name in names), self._reason[:n]):  # type: ignore[call-arg]
            return columns, places
        reason = self._reason[:n].copy()
        for code, count in zip(*(a.tolist() for a in np.unique(reason[reason != 0], return_counts=True)), strict=True):
            self._picture.bad[REASONS[code]] += count
        found = np.flatnonzero(reason)
        return _keep(columns, reason == 0, sorted([*places, *found.tolist()]))


def _looked_through(batches: Iterator[RawBatch]) -> Generator[tuple[RawBatch, bool], None, None]:
    for batch in batches:
        columns = batch.columns
        yield batch, bool(is_clean(*(columns[name] for name in ("ts_event", "ts_recv", "action", "side", "price", "size"))))


def _constant(codes: np.ndarray) -> bool:
    return len(codes) == 0 or codes.strides == (0,)


def _keep(columns: dict[str, np.ndarray], rows: np.ndarray, places: list[int]) -> tuple[dict[str, np.ndarray], list[int]]:
    """The columns that the book needs, of the rows that stay, and where `places` lie among these."""
    before = np.concatenate([[0], np.cumsum(rows)])
    return {name: columns[name][rows] for name in _BOOK}, before[places].tolist() if places else []
