"""The settings of a run: what each is, what it may be, and where its value came from. None of them changes a byte of any output.

Options that change bytes belong to the recipe (`tasks.partitions`). Finding the values in files and the environment: `sources.py`;
reading sizes and durations: `values.py`; looking at the machine: `hardware.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from config import environment, sources, values
from config.errors import ConfigError, did_you_mean
from config.hardware import Hardware, detect
from config.values import MIB, Kind, show_bytes


@dataclass(frozen=True)
class Explained:
    """One setting with its origin: a command line option, a variable, a file, a profile, or what it was derived from."""

    name: str
    value: object
    origin: str
    meaning: str


def _about(kind: Kind, meaning: str) -> dict[str, object]:
    return {"kind": kind, "meaning": meaning}


_PROFILE = values.choice(*sources.PROFILES)
_PROGRESS = values.choice("auto", "bar", "log", "off")
_LOG_LEVEL = values.choice("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", upper=True)
_LOG_FORMAT = values.choice("text", "json")
# What no profile says.
_DEFAULTS: dict[str, object] = {
    "log_format": "text",
    "heartbeat_s": 30,
    "alert_memory_percent": 95,
    "alert_disk_free_gb": 5,
    "alert_stale_days": 0,
}


@dataclass(frozen=True)
class Settings:
    """All settings of a run; made by `load`. Sizes in bytes, durations in seconds. Survives pickling to worker processes."""

    profile: str = field(metadata=_about(_PROFILE, "set of defaults: laptop leaves room for other work, server takes the machine, ci is small"))
    workers: int = field(metadata=_about(values.cores(), "partitions worked on at once, one thread each"))
    memory_bytes: int = field(metadata=_about(values.size(256 * MIB), "budget of the whole process"))
    batch_rows: int = field(metadata=_about(values.whole(1_024, 4_194_304), "rows of a batch on its way through a task"))
    duckdb_threads: int = field(metadata=_about(values.cores(), "threads of one DuckDB connection"))
    duckdb_memory_bytes: int = field(metadata=_about(values.size(64 * MIB), "memory limit of one DuckDB connection; it can exceed it by a tenth"))
    cpu_slots: int = field(metadata=_about(values.cores(), "CPU slots shared by all tasks; on a server by all runs"))
    memory_slot_bytes: int = field(metadata=_about(values.size(MIB), "size of one memory slot; a task takes as many as its estimate"))
    memory_slots: int = field(metadata=_about(values.whole(1, 1_000_000), "memory slots shared by all tasks; on a server by all runs"))
    max_partitions_per_batch: int = field(metadata=_about(values.whole(1, 100_000), "partitions handed to the task runner at a time"))
    retries: int = field(metadata=_about(values.whole(0, 50), "retries of a task after a fault that can pass"))
    retry_delays_s: tuple[float, ...] = field(metadata=_about(values.delays(3_600), "waits before the first, second, ... retry"))
    task_timeout_s: float = field(metadata=_about(values.seconds(7 * 86_400), "a task that runs longer fails"))
    prefect_start_timeout_s: float = field(metadata=_about(values.seconds(3_600), "wait for the private Prefect API to start"))
    progress: str = field(metadata=_about(_PROGRESS, "auto: a bar on a terminal, else lines in the log"))
    log_level: str = field(metadata=_about(_LOG_LEVEL, "least severe messages shown in the terminal; Prefect's log tab shows INFO and above"))
    log_format: str = field(metadata=_about(_LOG_FORMAT, "log lines in the terminal as text, or as one JSON object a line"))
    heartbeat_s: float = field(metadata=_about(values.seconds(3_600), "a run says so often that it lives; after three times as long it is dead"))
    alert_memory_percent: int = field(metadata=_about(values.whole(0, 1_000), "alert when a run holds this share of memory_bytes; 0: never"))
    alert_disk_free_gb: int = field(metadata=_about(values.whole(0, 1_000_000), "alert when the lake's disk has less room, in GB; 0: never"))
    alert_stale_days: int = field(
        metadata=_about(values.whole(0, 36_500), "alert when the newest day of a symbol ended so many days before the run; 0: never")
    )
    lake: Path = field(metadata=_about(values.folder(), "folder of the lake; relative to the working directory"))
    roots: tuple[Path, ...] = field(metadata=_about(values.folders(), "folders that the paths of a run must lie in; empty: anywhere"))
    origins: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    def explain(self) -> list[Explained]:
        """Every setting in order, with its origin and meaning."""
        return [Explained(f.name, getattr(self, f.name), self.origins.get(f.name, "given"), f.metadata["meaning"]) for f in _FIELDS]


_FIELDS = tuple(f for f in fields(Settings) if f.name != "origins")
NAMES = tuple(f.name for f in _FIELDS)
KINDS: dict[str, Kind] = {f.name: f.metadata["kind"] for f in _FIELDS}


def load(
    profile: str | None = None,
    overrides: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    hardware: Hardware | None = None,
) -> Settings:
    """Settings from, in this order: overrides (command line), BOOKMILL_* variables, the user's file, the profile, the machine.

    profile: its name, as if an override. overrides: by field name, None counts as not given. environ, hardware: given by tests.
    Raises ConfigError naming the place, the value and what is allowed.
    """
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    if profile is not None:
        given["profile"] = profile
    for name in given:
        if name not in NAMES:
            raise ConfigError(f"{name} is no setting.{did_you_mean(name, NAMES)} Settings: {', '.join(NAMES)}.")
    found = {name: sources.Found(value, "command line") for name, value in given.items()}
    for layer in (sources.from_environment(environment.bookmill_variables(environ), NAMES), sources.from_user_file(environ, NAMES)):
        found = layer | found

    chosen = found.get("profile", sources.Found(sources.DEFAULT_PROFILE, "default"))
    machine = hardware or detect()
    in_profile = {name: sources.Found(value, "default") for name, value in _DEFAULTS.items()}
    in_profile |= sources.from_profile(str(_parse("profile", chosen, machine)), NAMES)
    found = in_profile | {"profile": chosen, "lake": sources.Found("lake", "default"), "roots": sources.Found((), "default")} | found

    parsed = {name: _parse(name, item, machine) for name, item in found.items()}
    origins = {name: item.origin + _note(name, item, machine) for name, item in found.items()}
    _derive(parsed, origins)
    settings = Settings(**parsed, origins=origins)  # type: ignore[arg-type]  # each value was parsed by the kind of its field
    _check(settings)
    return settings


def _parse(name: str, item: sources.Found, machine: Hardware) -> object:
    try:
        return KINDS[name].parse(item.raw, machine)
    except (ValueError, TypeError, OverflowError) as fault:
        raise ConfigError(f"{item.named(name)} is {item.raw!r}; allowed: {KINDS[name].allowed}.") from fault


def _note(name: str, item: sources.Found, machine: Hardware) -> str:
    note = KINDS[name].note(item.raw, machine)
    return f": {note}" if note else ""


def _derive(parsed: dict[str, Any], origins: dict[str, str]) -> None:
    """What nobody said follows from workers and memory, which every profile gives."""

    def default(name: str, value: object, origin: str) -> None:
        if name not in parsed:
            parsed[name], origins[name] = value, f"derived: {origin}"

    workers, memory = parsed["workers"], parsed["memory_bytes"]
    # 64K rows is where the replay kernels are fastest (16-64K measured equal); a worker holds a few batches of about 1 KiB a row at worst,
    # so an eighth of its share of the memory is one batch.
    rows = min(65_536, max(4_096, 1 << ((memory // workers // 8_192).bit_length() - 1) if memory // workers >= 8_192 else 4_096))
    default("batch_rows", rows, "memory_bytes / workers, at most 65,536")
    default("duckdb_threads", workers, "workers")
    default("duckdb_memory_bytes", max(64 * MIB, memory * 2 // 5), "two fifths of memory_bytes")
    default("cpu_slots", workers, "workers")
    default("memory_slot_bytes", min(256 * MIB, memory), "256 MiB, or all of a smaller budget")
    default("memory_slots", max(1, memory // parsed["memory_slot_bytes"]), "memory_bytes / memory_slot_bytes")
    default("retry_delays_s", tuple(min(300.0, 2.0 * 3**k) for k in range(max(1, parsed["retries"]))), "2 s, three times longer each, at most 5 min")


def _check(settings: Settings) -> None:
    """Refuse values that are allowed one by one and contradict each other."""
    for name in ("duckdb_memory_bytes", "memory_slot_bytes"):
        if getattr(settings, name) > settings.memory_bytes:
            raise ConfigError(
                f"{name} is {show_bytes(getattr(settings, name))} ({settings.origins[name]}), more than memory_bytes, "
                f"{show_bytes(settings.memory_bytes)} ({settings.origins['memory_bytes']}); allowed: at most memory_bytes."
            )
    if settings.memory_slots * settings.memory_slot_bytes > settings.memory_bytes:
        raise ConfigError(
            f"memory_slots x memory_slot_bytes is {show_bytes(settings.memory_slots * settings.memory_slot_bytes)}, more than memory_bytes, "
            f"{show_bytes(settings.memory_bytes)}; lower memory_slots ({settings.origins['memory_slots']}) or leave it out."
        )
