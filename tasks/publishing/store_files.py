"""What of a lake has its place on an object store, in which order it goes, and which part of it is wanted."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from tasks.errors import StorageError
from tasks.paths import files_below

# What says that a source is decoded or a book is made; whoever sees it finds all that it speaks of.
_LAST = ("sources", "bbo", "depth-bbo")
# Made from books, each with a stamp of its own.
_MADE_OF_BOOKS = ("ohlcv-", "bars-", "features", "mid-", "depth-features-", "certificate", "cbbo", "heatmap", "ledger", "mends")
_OF_RUNS = ("reports", "runs")  # one file a run, no layer
_ACCOUNTS = ("quarantine", "mends", "sources")  # one file a source, of no date
_SUFFIXES = {"runs": (".json",), "reports": (".html",), "heatmap": (".parquet", ".png", ".html")}
FIRST, DONE, MADE, SHOWN = range(4)


@dataclass(frozen=True)
class Selection:
    """The part of a lake that is wanted; empty means all. start: first date, end: first date not wanted any more, both YYYY-MM-DD."""

    symbols: tuple[str, ...] = ()
    start: str = ""
    end: str = ""
    layers: tuple[str, ...] = field(default=())

    @property
    def of_partitions(self) -> bool:
        """Whether only some partitions are wanted."""
        return bool(self.symbols or self.start or self.end)

    def wants_layer(self, layer: str) -> bool:
        """Whether anything of a layer can be wanted."""
        return not self.layers or layer in self.layers

    def wants(self, name: str) -> bool:
        """Whether a file is wanted, by its name relative to the lake; of accounts, whether it would be if all of its partitions were."""
        layer = name.split("/", 1)[0]
        if not self.wants_layer(layer):
            return False
        if not self.of_partitions or layer in _ACCOUNTS or (layer in self.layers and layer in _OF_RUNS):
            return True
        day, symbol = _value(name, "date"), unquote(_value(name, "symbol"))
        return bool(
            day and (not self.symbols or symbol in self.symbols) and (not self.start or day >= self.start) and (not self.end or day < self.end)
        )


@dataclass(frozen=True)
class Identity:
    """Which file stood under a name: another one has another inode or time."""

    inode: int
    mtime_ns: int
    size: int

    @classmethod
    def of(cls, stat: os.stat_result) -> Identity:
        """The identity of a file by its stat."""
        return cls(stat.st_ino, stat.st_mtime_ns, stat.st_size)


def rank(name: str) -> int:
    """FIRST, DONE, MADE or SHOWN: files of a later rank speak of those of an earlier one."""
    layer = name.split("/", 1)[0]
    if layer in _OF_RUNS or not name.endswith(".parquet"):
        return SHOWN
    if layer in _LAST:
        return DONE
    return MADE if layer.startswith(_MADE_OF_BOOKS) else FIRST


def belongs(name: str) -> bool:
    """Whether a file, by its name relative to the lake, is mirrored: data, pictures, reports and facts of runs; no file in the making, no lock, no
    record of a run's life, nothing hidden."""
    parts = name.split("/")
    if any(part.startswith(".") for part in parts) or not name.endswith(_SUFFIXES.get(parts[0], (".parquet",))):
        return False
    return len(parts) == 2 if parts[0] in _OF_RUNS else len(parts) >= 3 and parts[1].startswith("dataset=")


def in_reading_order(layers: Iterable[str]) -> list[str]:
    """Layers in the order in which they are listed: what speaks of others first, so that these are there when they are looked for."""
    return sorted(layers, key=lambda layer: (-max(rank(f"{layer}/x.parquet"), SHOWN if layer == "heatmap" else 0), layer))


def steps(names: Iterable[str]) -> list[list[str]]:
    """Names in groups, to be transferred one group after the other: by date, and within a date by rank; what has no date, accounts and runs, at last.

    So whoever looks meanwhile, and whoever goes on after a kill, finds whole days.
    """
    groups: dict[tuple[str, int], list[str]] = {}
    for name in names:
        groups.setdefault((_value(name, "date") or "~", rank(name)), []).append(name)
    return [sorted(groups[key]) for key in sorted(groups)]


def files_of(lake: Path) -> dict[str, Identity]:
    """The files of a lake that are mirrored, in reading order. Raises StorageError when there is no lake."""
    if not lake.is_dir():
        raise StorageError(f"There is no lake at {lake}. Give the folder that a run wrote to with --lake.")
    found = {}
    for layer in in_reading_order(entry.name for entry in os.scandir(lake) if entry.is_dir() and not entry.name.startswith(".")):
        for path in files_below(lake / layer):
            name = path.relative_to(lake).as_posix()
            if belongs(name):
                try:
                    found[name] = Identity.of(path.stat())
                except FileNotFoundError:  # a link to nothing, or removed just now
                    continue
    return found


def _value(name: str, key: str) -> str:
    return next((part.partition("=")[2] for part in name.split("/") if part.startswith(f"{key}=")), "")
