"""What a contender of the market-by-order benchmark is, what it may tell, and the session that all of them take."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.bench.mbo_flow import session
from tests.bench.stages import Place

MOST_SYMBOLS = 2_000
RECORDS_A_SYMBOL = 1_000  # fewer symbols where the session has not so many


@dataclass(frozen=True)
class Found:
    """What a contender ended with.

    truth: values that must be those of the session's truth, by name; facts: numbers for the table's remarks and targets (rows, bytes);
    seconds: (wall, CPU) as the contender counted them itself, where it does something besides what is measured.
    """

    truth: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, float] = field(default_factory=dict)
    seconds: tuple[float, float] | None = None


Call = Callable[[], Found]
Prepare = Callable[["Files"], Call]


@dataclass(frozen=True)
class Contender:
    """group: floor, ours or peer; needs: the stage that must be in the lake, "" for none; package: import name that must be installed;
    program: a command that must be there, "" for none; prefix: records that it takes at most, its times scaled up to all (0: takes all)."""

    group: str
    prepare: Prepare
    needs: str = ""
    package: str = "tasks"
    program: str = ""
    prefix: int = 0


class Files:
    """The session in its formats, its truth, and the lake with the stages done so far."""

    def __init__(self, folder: Path, records: int, lake: Path) -> None:
        self.folder, self.records, self.lake = folder, records, lake

    @cached_property
    def source(self) -> Path:
        """`.dbn.zst`, which is the reference of all ratios."""
        return session(self.folder, self.records)

    @cached_property
    def full(self) -> Path:
        """Parquet with all columns of the vendor."""
        return session(self.folder, self.records, "parquet")

    @cached_property
    def seven(self) -> Path:
        """Parquet with seven columns."""
        return session(self.folder, self.records, "seven-parquet")

    @cached_property
    def many(self) -> Path:
        """`.dbn.zst` with as many records of many symbols, their activity by Zipf's law."""
        return session(self.folder, self.records, symbols=min(MOST_SYMBOLS, max(2, self.records // RECORDS_A_SYMBOL)))

    @cached_property
    def place(self) -> Place:
        """Source and lake as the stages take them."""
        return Place(self.source, self.lake)

    @property
    def events(self) -> Path:
        """The one events file."""
        return self.lake / self.place.part.path

    @cached_property
    def truth(self) -> dict[str, Any]:
        """The generator's facts, those of its one book under the names that a replay gives them."""
        facts = facts_of(self.source)
        (book,) = facts["books"]
        touch = {f"best_{side}": [book[f"{side}_px"], book[f"{side}_sz"]] for side in ("bid", "ask")}
        return {**{name: facts[name] for name in ("records", "event_ends", "volume")}, "orders": book["live_orders"], **touch}


def facts_of(source: Path) -> dict[str, Any]:
    """What the generator wrote about a session."""
    return json.loads(source.with_name(source.name + ".facts.json").read_text(encoding="utf-8"))


def batches(files: Files) -> list[dict[str, Any]]:
    """The event columns that a rebuild reads, all of them in memory, in the batches that it takes."""
    from tasks.events_file import read_events
    from tasks.reconstruction.rebuild import COLUMNS, REPLAY_ROWS

    return list(read_events(files.events, COLUMNS, REPLAY_ROWS))
