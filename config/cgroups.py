"""Limits of Linux control groups, v1 and v2, on the way from this process's group up to the root. Absent files mean no limit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Limits:
    """The tightest limit found of each kind, None where there is none. memory, memory_free in bytes; cores may be a fraction."""

    cores: float | None = None
    cores_from: str = ""
    memory: int | None = None
    memory_from: str = ""
    memory_free: int | None = None
    memory_free_from: str = ""

    def add_cores(self, cores: float, where: str) -> None:
        """Keep the smaller."""
        if self.cores is None or cores < self.cores:
            self.cores, self.cores_from = cores, where

    def add_memory(self, limit: int, used: int, where: str) -> None:
        """Keep the smaller limit, and the smaller rest: they can sit in different groups."""
        if self.memory is None or limit < self.memory:
            self.memory, self.memory_from = limit, where
        free = max(0, limit - used)
        if self.memory_free is None or free < self.memory_free:
            self.memory_free, self.memory_free_from = free, where


def limits(root: Path) -> Limits:
    """Limits that hold for this process; `root` is where proc/ and sys/fs/cgroup/ are."""
    found = Limits()
    base = root / "sys/fs/cgroup"
    paths = _own_groups(root)
    for unified in (base, base / "unified"):
        for group in _upwards(unified, paths.get("", "/")):
            _read_v2(group, found)
    for group in _v1_groups(base, paths, "cpu"):
        quota, period = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
        if quota and period and quota > 0:  # -1: no quota
            found.add_cores(quota / period, "cgroup v1 cpu.cfs_quota_us")
    for group in _v1_groups(base, paths, "memory"):
        limit = _number(group / "memory.limit_in_bytes")
        if limit is not None and 0 < limit < 1 << 60:  # "no limit" is written as 2^63 less a page
            used = (_number(group / "memory.usage_in_bytes") or 0) - _stat(group / "memory.stat", "total_inactive_file")
            found.add_memory(limit, max(0, used), "cgroup v1 memory.limit_in_bytes")
    return found


def _read_v2(group: Path, found: Limits) -> None:
    words = _text(group / "cpu.max").split()
    if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]):
        found.add_cores(int(words[0]) / int(words[1]), "cgroup v2 cpu.max")
    for name in ("memory.max", "memory.high"):  # above `high` the kernel slows the group down; treat it as the limit
        limit = _number(group / name)  # "max" is no number: no limit
        if limit is not None:
            # The file cache of a group counts as used and is given back under pressure.
            used = (_number(group / "memory.current") or 0) - _stat(group / "memory.stat", "inactive_file")
            found.add_memory(limit, max(0, used), f"cgroup v2 {name}")


def _own_groups(root: Path) -> dict[str, str]:
    """Controller -> path of this process's group; "" is the v2 hierarchy."""
    paths: dict[str, str] = {}
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(","):
            paths[controller] = path
    return paths


def _v1_groups(base: Path, paths: dict[str, str], controller: str) -> Iterator[Path]:
    for mount in (controller, "cpu,cpuacct") if controller == "cpu" else (controller,):
        yield from _upwards(base / mount, paths.get(controller, "/"))


def _upwards(base: Path, path: str) -> Iterator[Path]:
    """Groups from the process's own to the root of the mount.

    In a container without a cgroup namespace the path is the host's and does not exist below the mount; the root of the mount is then
    the container's own group.
    """
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    for depth in range(len(parts), -1, -1):
        group = base.joinpath(*parts[:depth])
        if group.is_dir():
            yield group


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.lstrip("-").isdigit() else None


def _stat(path: Path, name: str) -> int:
    for line in _text(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.strip().isdigit():
            return int(value)
    return 0
