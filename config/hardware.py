"""What this process may use of the machine: cores, memory, disk, with the place each number comes from.

A container or a batch system often allows less than the machine has, and psutil shows the machine; so control groups (v1 and v2) bound what
psutil and the affinity say. What a run does with the numbers is `settings.py`'s matter.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

from config import cgroups

_FUSE = ("sshfs", "glusterfs", "ceph", "s3fs", "gcsfuse", "rclone", "davfs2", "juicefs")
_SHARED = ("nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "afs", "9p", "ceph", "lustre", "glusterfs", "beegfs", "gpfs", "afpfs", "webdav", "davfs")
NETWORK = frozenset(_SHARED) | {f"fuse.{name}" for name in _FUSE}
MEMORY = frozenset({"tmpfs", "ramfs"})


@dataclass(frozen=True)
class Machine:
    """The bare machine as psutil and the scheduler show it, before any container limit. Sizes in bytes."""

    cores: int
    memory_total: int
    memory_available: int
    cores_from: str = "machine"

    @staticmethod
    def now() -> Machine:
        """This machine, with the affinity of this process."""
        logical = psutil.cpu_count(logical=True) or 1
        try:
            allowed = len(psutil.Process().cpu_affinity() or ())
        except (AttributeError, OSError, psutil.Error):  # macOS has no affinity
            allowed = logical
        memory = psutil.virtual_memory()
        bound = 0 < allowed < logical
        return Machine(allowed if bound else logical, memory.total, memory.available, f"affinity ({allowed} of {logical})" if bound else "machine")


@dataclass(frozen=True)
class Hardware:
    """What this process may use. Sizes in bytes; each `*_from` says where the number was found.

    cores: whole cores, at least 1. lake_filesystem: type of the file system that holds the lake ("" unknown);
    lake_storage: "local", "network", "memory" or "unknown".
    """

    cores: int
    cores_from: str
    memory_total: int
    memory_total_from: str
    memory_available: int
    memory_available_from: str
    disk_free: int
    disk_free_from: str
    lake_filesystem: str
    lake_storage: str


def detect(lake: Path | None = None, *, root: Path = Path("/"), machine: Machine | None = None) -> Hardware:
    """Look at the machine, the limits of this process and the place of `lake` (default: the working directory; it need not exist yet).

    root: where /proc and /sys/fs/cgroup are looked for. machine: given by tests, else looked up.
    """
    machine = machine or Machine.now()
    limits = cgroups.limits(root)

    cores, cores_from = machine.cores, machine.cores_from
    if limits.cores is not None and limits.cores < cores:
        # Half a core beyond the quota is throttled time, so fractions are dropped, but somebody has to do the work.
        cores, cores_from = max(1, int(limits.cores)), f"{limits.cores_from} ({limits.cores:g} cores)"

    total, total_from = machine.memory_total, "machine"
    available, available_from = machine.memory_available, "machine"
    if limits.memory is not None and limits.memory < total:
        total, total_from = limits.memory, limits.memory_from
    if limits.memory_free is not None and limits.memory_free < available:
        available, available_from = limits.memory_free, limits.memory_free_from
    if total < available:
        available, available_from = total, total_from

    place = _existing(lake or Path())
    filesystem = _filesystem(place, root)
    storage = "unknown" if not filesystem else "network" if filesystem in NETWORK else "memory" if filesystem in MEMORY else "local"
    return Hardware(cores, cores_from, total, total_from, available, available_from, shutil.disk_usage(place).free, str(place), filesystem, storage)


def _existing(path: Path) -> Path:
    """`path` resolved, or its nearest parent that exists."""
    path = path.expanduser().resolve()
    return next(p for p in (path, *path.parents) if os.path.exists(p))  # unlike Path.exists, False where permission is missing


def _filesystem(place: Path, root: Path) -> str:
    """Type of the file system of `place`: the mount with the longest matching path, the last one where several are stacked."""
    best, kind = -1, ""
    for point, filesystem in _mounts(root):
        if (place == point or point in place.parents) and len(point.parts) >= best:
            best, kind = len(point.parts), filesystem
    return kind


def _mounts(root: Path) -> list[tuple[Path, str]]:
    try:
        text = (root / "proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        if root != Path("/") or os.name == "nt":
            return []
        return [(Path(p.mountpoint), p.fstype) for p in psutil.disk_partitions(all=True)]
    mounts = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        if right and len(fields := left.split()) >= 5:
            # The kernel writes blank, tab, newline and backslash of a path as octal.
            point = fields[4]
            for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
                point = point.replace(code, char)
            mounts.append((Path(point), right.split()[0]))
    return mounts
