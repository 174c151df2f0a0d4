"""What a plan or a backfill is asked for: the options of the flow behind it, checked, as a recipe and as its parameters. No Prefect here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from flows.options import depth_recipe_of, recipe_of
from flows.plan import Planned, plan_depth, plan_orders
from tasks.depth_recipe import DepthRecipe
from tasks.errors import UsageError
from tasks.partitions import MboRecipe
from tasks.specs import parse_interval

KINDS = ("mbo", "depth")
# Options that make a recipe, with the defaults of the flows (a test holds them against each other), and those that only their runs know.
_RECIPE: dict[str, dict[str, Any]] = {
    "mbo": {
        "publishers": [], "start": "", "end": "", "hours": "", "zone": "UTC", "depth": 10, "interval": "1s", "bars": ["1s", "1m"], "clock": "ts_recv",
        "on_book_error": "suspect", "starts_empty": False, "sequence": "sparse", "stale_after": "5m", "heatmap_axis": "time",
    },
    "depth": {
        "depths": [200, 500], "interval": "1m", "clock": "cts", "stale_after": "10s", "on_book_error": "suspect", "bars": ["1m"], "updates": False,
    },
}  # fmt: skip
_RUN: dict[str, dict[str, Any]] = {
    "mbo": {"heatmaps": 20, "symbol": "", "salvage": False, "runner": "threads", "dask_address": ""},
    "depth": {"heatmaps": 20, "csv": "", "formatted_timestamp": False, "temp_dir": "", "runner": "threads", "dask_address": ""},
}


@dataclass(frozen=True)
class Asked:
    """sources against lake; start, end: days; parameters: of the flow of this kind, without its sources."""

    kind: str
    sources: list[str]
    lake: Path
    recipe: MboRecipe | DepthRecipe
    symbols: list[str]
    start: str
    end: str
    settle_s: float
    dataset: str
    symbol: str
    parameters: dict[str, Any]

    def plan(self, *, keep: bool = True) -> Planned:
        """The plan now. keep: write the caches of the lake."""
        if isinstance(self.recipe, MboRecipe):
            return plan_orders(
                self.sources, self.lake, self.recipe, dataset=self.dataset, symbol=self.symbol, start=self.start, end=self.end,
                settle_s=self.settle_s, keep=keep,
            )  # fmt: skip
        return plan_depth(
            self.sources, self.lake, self.recipe, dataset=self.dataset, pairs=self.symbols, start=self.start, end=self.end, settle_s=self.settle_s,
            keep=keep,
        )  # fmt: skip


def asked_of(
    kind: str, sources: Sequence[str], lake: str, *, symbols: Sequence[str] = (), start: str = "", end: str = "", settle: str = "off",
    options: Mapping[str, Any] | None = None, dataset: str = "", profile: str = "", settings: Mapping[str, str] | None = None,
) -> Asked:  # fmt: skip
    """Check what was asked for. options: of the flow by name; lists, numbers and switches may be given as text. Raises UsageError."""
    if kind not in KINDS:
        raise UsageError(f"kind is {kind!r}; allowed: {', '.join(KINDS)}")
    for name, day in (("start", start), ("end", end)):
        if day and not _is_day(day):
            raise UsageError(f"{name} is {day!r}; allowed: a day such as 2025-10-22, or nothing")
    own, others = _RECIPE[kind], _RUN[kind]
    given = {}
    for name, value in (options or {}).items():
        if name not in own and name not in others:
            raise UsageError(f"option {name!r} is none of the flow; allowed: {', '.join([*own, *others])}")
        given[name] = _as(name, value, own.get(name, others.get(name)))
    chosen = {name: given.get(name, default) for name, default in own.items()}
    recipe = recipe_of(symbols=symbols, **chosen) if kind == "mbo" else depth_recipe_of(**chosen)
    settle_s = 0.0 if settle in ("off", "", "0") else parse_interval(settle, "settle") / 1e9
    parameters = {
        **given, "lake": str(Path(lake).absolute()), "dataset": dataset, "profile": profile, "settings": dict(settings or {}),
        "symbols" if kind == "mbo" else "pairs": list(symbols),
    }  # fmt: skip
    return Asked(
        kind, list(sources), Path(lake).absolute(), recipe, list(symbols), start, end, settle_s, dataset, str(given.get("symbol", "")), parameters
    )


def _is_day(text: str) -> bool:
    try:
        return bool(re.fullmatch(r"\d{4}-\d{2}-\d{2}", text)) and bool(date.fromisoformat(text))
    except ValueError:
        return False


def _as(name: str, value: Any, default: Any) -> Any:
    """A value as typed on a command line or in a form, as what the option is."""
    try:
        if isinstance(default, list):
            values = [v.strip() for v in value.split(",") if v.strip()] if isinstance(value, str) else list(value)
            return [int(v) for v in values] if name in ("publishers", "depths") else [str(v) for v in values]
        if isinstance(default, bool):
            if str(value).lower() not in ("true", "false"):
                raise ValueError
            return str(value).lower() == "true"
        return int(value) if isinstance(default, int) else str(value)
    except (TypeError, ValueError) as fault:
        allowed = "true or false" if isinstance(default, bool) else "a whole number" if isinstance(default, int) else "values separated by commas"
        raise UsageError(f"option {name} is {value!r}; allowed: {allowed}") from fault
