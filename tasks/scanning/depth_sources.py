"""Which depth feeds there are: Bybit archives and Tardis files in folders of any depth, with pair, day and levels; and how to open each.

Finding, describing and choosing only; the readers are bybit.py and tardis_*.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tasks.depth_batches import DepthReader
from tasks.depth_recipe import DepthSource, day_window
from tasks.errors import EmptySource, SourceError, UnknownFormat
from tasks.paths import shown
from tasks.scanning.inventory import Rejected, described, expand, named_in_text
from tasks.scanning.tardis_formats import BOOK_TICKER, BOOKS, L2, LIQUIDATIONS, QUOTES, TRADES, name_parts

BYBIT_NAME = re.compile(r"(?:(?P<date>\d{4}-\d{2}-\d{2})_)?(?P<pair>[A-Za-z0-9-]+)[_-]ob(?P<depth>\d+)\.data(?:\.zip|\.gz)?", re.IGNORECASE)
_TARDIS_NAME = re.compile(r".*\.csv(?:\.gz|\.zst)?", re.IGNORECASE)
_MARKETS = ("spot", "linear", "inverse", "option")
_READERS = 4
_TARDIS_KINDS = {TRADES: "tardis-trades", L2: "tardis-l2", BOOKS: "tardis-book", QUOTES: "tardis-quotes", BOOK_TICKER: "tardis-quotes"}


@dataclass(frozen=True)
class Covered:
    """A source that is left out because `by` holds the same pair and day with as many levels or more; paths where the names are the same. Which hours
    of the day a source has is not looked at."""

    name: str
    by: str


@dataclass(frozen=True)
class DepthInventory:
    """files: to be worked on, by dataset, pair and day; rejected: what cannot be used, and why; covered: shallower feeds of a pair and day."""

    files: tuple[DepthSource, ...]
    rejected: tuple[Rejected, ...] = ()
    covered: tuple[Covered, ...] = ()


def scan_depth(
    sources: Sequence[str | Path], *, dataset: str = "", pairs: Sequence[str] = (), dates: Sequence[str] = (), limit: int = 0
) -> DepthInventory:
    """Describe every depth feed that files, folders (any depth) and globs lead to.

    pairs, dates: those wanted, empty for all; limit: so many files at most, 0 for all. Files of other kinds in a folder are passed over; a file
    that was named, or has the name of a depth feed, and is none is rejected. Faults of single files do not raise. Names are looked at before any
    file is read.
    """
    found: dict[str, bool] = {}
    rejected: list[Rejected] = []
    for given in sources:
        paths, error = expand(given)
        rejected += [Rejected(shown(given), error)] if error else []
        for path, named in paths:
            found[path] = found.get(path, False) or named
    wanted = [path for path in sorted(found) if _may_be_wanted(Path(path), pairs, dates)]
    with ThreadPoolExecutor(_READERS) as pool:
        outcomes = list(pool.map(lambda path: named_in_text(path, _describe(Path(path), dataset)), wanted))
    files: list[DepthSource] = []
    for path, outcome in zip(wanted, outcomes, strict=True):
        if isinstance(outcome, SourceError):
            if found[path] or not isinstance(outcome, UnknownFormat) or _claims_to_be_one(Path(path)):
                rejected.append(Rejected(shown(path), outcome))
        else:
            files += [source for source in outcome if _is_wanted(source, pairs, dates)]
    if not files and not rejected:
        what = "none of the files is a depth feed (Bybit *_ob200.data.zip and the like, Tardis csv.gz)" + (
            " that was asked for" if pairs or dates else ""
        )
        rejected = [Rejected(shown(given), EmptySource(shown(given), what, remedy="Check the path, the pairs and the dates")) for given in sources]
    kept, covered = deepest(files)
    return DepthInventory(tuple(kept[: limit or None]), tuple(rejected), tuple(covered))


def open_depth(source: DepthSource, path: Path | None = None) -> DepthReader:
    """The reader of a source. path: where its bytes are, if not where the scan saw them."""
    at = path or Path(source.file.path)
    symbol = source.file.symbols[0]
    if source.kind == "bybit":
        from tasks.scanning.bybit import open_bybit

        return open_bybit(at, source.file.member)
    if source.kind == "tardis-l2":
        from tasks.scanning.tardis_l2 import open_tardis_l2

        return open_tardis_l2(at, symbol)
    if source.kind == "tardis-book":
        from tasks.scanning.tardis_books import open_tardis_books

        return open_tardis_books(at, symbol)
    if source.kind == "tardis-quotes":
        from tasks.scanning.tardis_touch import open_tardis_touch

        return open_tardis_touch(at, symbol)
    raise UnknownFormat(at, f"{source.kind} is no kind of depth feed", remedy="Scan it again")


def _may_be_wanted(path: Path, pairs: Sequence[str], dates: Sequence[str]) -> bool:
    """By its name alone; a name that does not tell is looked into."""
    name = BYBIT_NAME.fullmatch(path.name)
    if name is None:
        return True
    return (not pairs or name["pair"].upper() in _upper(pairs)) and (not dates or not name["date"] or name["date"] in dates)


def _is_wanted(source: DepthSource, pairs: Sequence[str], dates: Sequence[str]) -> bool:
    return (not pairs or source.file.symbols[0].upper() in _upper(pairs)) and (not dates or source.file.dates[0] in dates)


def _claims_to_be_one(path: Path) -> bool:
    """Whether a file that is no depth feed has the name of one, as a download that failed has; trades.csv and quotes.csv are others' names, too."""
    named = name_parts(path)
    kind = named.get("type", LIQUIDATIONS)
    return bool(BYBIT_NAME.fullmatch(path.name)) or (kind != LIQUIDATIONS and ("date" in named or kind.startswith((L2, BOOKS))))


def _upper(names: Sequence[str]) -> set[str]:
    return {name.upper() for name in names}


def _describe(path: Path, dataset: str) -> list[DepthSource] | SourceError:
    try:
        if BYBIT_NAME.fullmatch(path.name):
            return _bybit(path, dataset)
        if _TARDIS_NAME.fullmatch(path.name):
            return _tardis(path, dataset)
        raise UnknownFormat(
            path, "is no depth feed by its name", remedy="Names are such as 2025-01-01_BTCUSDT_ob500.data.zip, or *.csv.gz for Tardis"
        )
    except SourceError as error:
        return error
    except OSError as fault:
        return SourceError(path, f"cannot be read ({fault.strerror or fault})", remedy="Check the disk and the permissions")
    except UnicodeEncodeError as fault:  # of a library that takes only names that are text
        return SourceError(path, f"cannot be read ({fault.reason})", remedy="Rename it")


def _bybit(path: Path, dataset: str) -> list[DepthSource]:
    from tasks.scanning.bybit import head, members

    found = []
    for member in members(path):
        first = head(path, member)
        name = BYBIT_NAME.fullmatch(Path(member or path.name).name) or BYBIT_NAME.fullmatch(path.name)
        day = (name["date"] if name else None) or datetime.fromtimestamp(first.first_ts_ns // 10**9, UTC).date().isoformat()
        market = next((part.lower() for part in reversed(path.parts[:-1]) if part.lower() in _MARKETS), "")
        _check_day(path, day)
        file = described(path, "bybit", dataset or "-".join(filter(None, ("bybit", market))), (first.symbol,), (day,), member)
        found.append(DepthSource(file, "bybit", first.depth))
    return found


def _tardis(path: Path, dataset: str) -> list[DepthSource]:
    from tasks.scanning.tardis_formats import identify_tardis

    found = identify_tardis(path)
    if found is None or found.kind not in _TARDIS_KINDS:
        what = f"is a file of {found.kind}" if found else "has none of Tardis's layouts"
        raise UnknownFormat(
            path, f"{what}, not a depth feed", remedy="Give incremental_book_L2, book_snapshot_N, quotes or trades files of Tardis.dev"
        )
    _check_day(path, found.date)
    kind = _TARDIS_KINDS[found.kind]
    symbols = _symbols(path, found.symbols) or (found.symbol,)
    files = [described(path, kind, dataset or found.exchange, (symbol,), (found.date,), symbol if len(symbols) > 1 else "") for symbol in symbols]
    return [DepthSource(file, kind, 1 if kind == "tardis-quotes" else found.depth) for file in files]


def _check_day(path: Path, day: str) -> None:
    """Raise SourceError unless `day`, of the name or of the first row, is one."""
    try:
        day_window(day)
    except ValueError as fault:
        problem = f"the day in its name, {day}, is none" if day else "has no day: neither its name nor its first rows tell one"
        raise SourceError(path, problem, remedy="Put its day into its name as YYYY-MM-DD, or leave the file out") from fault


def _symbols(path: Path, shown: tuple[str, ...]) -> tuple[str, ...]:
    """Symbols of a Tardis file. shown: in its first rows; unless it is named after the one that is there, it (of a group: OPTIONS) may hold more."""
    if [_as_in_names(symbol) for symbol in shown] == [_as_in_names(name_parts(path).get("symbol", ""))]:
        return shown
    from tasks.scanning.tardis_rows import symbols

    return tuple(symbols(path))


def _as_in_names(symbol: str) -> str:
    """A symbol as file names have it: Tardis writes XBT/USD as XBT-USD."""
    return re.sub(r"[^A-Z0-9]", "-", symbol.upper())


def deepest(files: list[DepthSource]) -> tuple[list[DepthSource], list[Covered]]:
    """One source for each pair and day: the deepest (a feed that does not say its depth has all levels), of equally deep ones the first by kind, then
    the one with the pair in its name, else the first by path."""
    kept: dict[object, DepthSource] = {}
    covered = []

    def rank(source: DepthSource) -> tuple[object, ...]:
        other_name = source.file.symbols[0].upper() not in Path(source.file.path).name.upper()
        return -(source.depth or 1 << 30), source.kind, other_name, source.file.path, source.file.member

    for source in sorted(files, key=rank):
        best = kept.setdefault(source.subject, source)
        if best is not source:
            alike = source.name == best.name
            covered.append(Covered(*((one.file.path if alike else one.name) for one in (source, best))))
    return sorted(kept.values(), key=lambda s: (s.file.dataset, s.file.symbols, s.file.dates, s.file.path)), covered
