"""From what people write to what the program uses: sizes, shares, core counts, durations, choices. Nothing about where a value was written."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from config.hardware import Hardware

_UNITS = {"": 1, "b": 1, "k": 10**3, "kb": 10**3, "m": 10**6, "mb": 10**6, "g": 10**9, "gb": 10**9, "t": 10**12, "tb": 10**12}
_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_TIMES = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z%]*)")
_CORES = re.compile(r"all(?:\s*-\s*(\d+))?")

MIB = 1 << 20


@dataclass(frozen=True)
class Kind:
    """How one sort of setting is read. `parse` takes what was written and raises ValueError; `allowed` is the end of "allowed: ...".

    `note` explains a value that depends on the machine, such as a share of the memory.
    """

    allowed: str
    parse: Callable[[object, Hardware], object]
    note: Callable[[object, Hardware], str] = lambda raw, hardware: ""


def show_bytes(value: int) -> str:
    """1.5 GiB, 256 MiB, 900 bytes."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if value >= unit:
            return f"{value / unit:.4g} {name}"
    return f"{value} bytes"


def whole(least: int, most: int) -> Kind:
    """An integer from `least` to `most`."""

    def parse(raw: object, hardware: Hardware) -> int:
        return _within(_integer(raw), least, most)

    return Kind(f"a whole number from {least:,} to {most:,}", parse)


def cores(most: int = 1024) -> Kind:
    """A number of cores, or "all", or "all-1": of two cores that is both, since half a machine would be too much to leave."""

    def parse(raw: object, hardware: Hardware) -> int:
        match = _CORES.fullmatch(str(raw).strip().lower())
        if match:
            return max(min(2, hardware.cores), hardware.cores - int(match[1] or 0))
        return _within(_integer(raw), 1, most)

    def note(raw: object, hardware: Hardware) -> str:
        return f"{raw} of {hardware.cores} cores, {hardware.cores_from}" if _CORES.fullmatch(str(raw).strip().lower()) else ""

    return Kind(f'a whole number from 1 to {most:,}, "all", or "all-1" to leave one core free (of three and more)', parse, note)


def size(least: int, most: int = 1 << 60) -> Kind:
    """Bytes: 536870912, "512MB", "1GiB", or "50%" of the memory that this process may use, at most what of it is free now."""

    def parse(raw: object, hardware: Hardware) -> int:
        number, unit = _quantity(raw)
        if unit == "%":
            if not 0 < number <= 100:
                raise ValueError
            # Where others hold the memory already, half of all of it would be swapped.
            return max(least, min(int(hardware.memory_total * number / 100), hardware.memory_available))
        if unit not in _UNITS:
            raise ValueError
        return _within(int(number * _UNITS[unit]), least, most)

    def note(raw: object, hardware: Hardware) -> str:
        number, unit = _quantity(raw)
        if unit != "%":
            return ""
        share = int(hardware.memory_total * number / 100)
        text = f"{number:g}% of {show_bytes(hardware.memory_total)}, {hardware.memory_total_from}"
        if share > hardware.memory_available:
            text += f"; lowered to what is free now, {hardware.memory_available_from}"
        return text

    return Kind(f'at least {show_bytes(least)}, as bytes, "512MB", "1GiB", or "50%" of the usable memory', parse, note)


def seconds(most: float) -> Kind:
    """A positive duration: 90, 1.5, "500ms", "10m", "6h"."""

    def parse(raw: object, hardware: Hardware) -> float:
        return _seconds(raw, most)

    return Kind(f'a positive duration up to {most:g} s, such as 90, "10m" or "6h"', parse)


def delays(most: float) -> Kind:
    """Durations before the first, second, ... retry; the last one holds for all that follow."""

    def parse(raw: object, hardware: Hardware) -> tuple[float, ...]:
        items = raw if isinstance(raw, list | tuple) else [part for part in str(raw).split(",") if part.strip()]
        if not 1 <= len(items) <= 50:  # Prefect refuses more than 50
            raise ValueError
        return tuple(_seconds(item, most) for item in items)

    return Kind(f'1 to 50 durations of up to {most:g} s, such as "2,6,18"', parse)


def choice(*names: str, upper: bool = False) -> Kind:
    """One of `names`, in any case."""

    def parse(raw: object, hardware: Hardware) -> str:
        text = str(raw).strip().upper() if upper else str(raw).strip().lower()
        if text not in names:
            raise ValueError
        return text

    return Kind(", ".join(names), parse)


def folder() -> Kind:
    """A path; ~ is the home folder. It need not exist."""

    def parse(raw: object, hardware: Hardware) -> Path:
        if not isinstance(raw, str | Path) or not str(raw).strip() or "\0" in str(raw):
            raise ValueError
        return Path(raw).expanduser()

    return Kind("a path", parse)


def folders() -> Kind:
    """Absolute paths of folders, separated by commas or as a list; none is allowed. They need not exist."""

    def parse(raw: object, hardware: Hardware) -> tuple[Path, ...]:
        items = raw if isinstance(raw, list | tuple) else [part for part in str(raw).split(",") if part.strip()]
        paths = tuple(Path(str(item).strip()).expanduser() for item in items)
        if (isinstance(raw, str) and not paths) or not all(path.is_absolute() and "\0" not in str(path) for path in paths):
            raise ValueError
        return paths

    return Kind('absolute paths separated by commas, such as "/data/feeds,/data/lake"', parse)


def _integer(raw: object) -> int:
    if isinstance(raw, bool) or (isinstance(raw, float) and not raw.is_integer()):
        raise ValueError
    return int(str(raw).strip().replace("_", "").replace(",", "")) if not isinstance(raw, float) else int(raw)


def _within(value: int, least: int, most: int) -> int:
    if not least <= value <= most:
        raise ValueError
    return value


def _quantity(raw: object) -> tuple[float, str]:
    if isinstance(raw, bool):
        raise ValueError
    match = _QUANTITY.fullmatch(str(raw).strip().lower().replace("_", ""))
    if match is None:
        raise ValueError
    return float(match[1]), match[2]


def _seconds(raw: object, most: float) -> float:
    number, unit = _quantity(raw)
    value = number * _TIMES[unit] if unit in _TIMES else math.nan
    if not 0 < value <= most:
        raise ValueError
    return value
