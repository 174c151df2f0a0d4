"""Which process something belongs to, and whether it still lives: across machines, containers, reboots and process ids used again.

Partial files (storage.py) and the records of runs carry an owner. What belongs to another machine can only be judged by its age, which is
the caller's matter.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import psutil

from tasks.partitions import digest

# The start of a process is told in whole seconds, from a boot time that the clock's corrections move a little.
START_TOLERANCE_S = 2


@dataclass(frozen=True)
class Owner:
    """One process. host: digest of the machine's name; space: of its boot and process id namespace, in which `pid` means something;
    start: seconds since 1970 at which it started."""

    host: str
    space: str
    pid: int
    start: int

    @classmethod
    def me(cls) -> Owner:
        """This process."""
        return _owner(os.getpid())

    @property
    def text(self) -> str:
        """host-pid-space-start, for file names."""
        return f"{self.host}-{self.pid}-{self.space}-{self.start:x}"

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """The owner written as `text`, None where it is none."""
        parts = text.split("-")
        try:
            return cls(parts[0], parts[2], int(parts[1]), int(parts[3], 16)) if len(parts) == 4 and parts[0] and parts[2] else None
        except ValueError:
            return None

    @property
    def alive(self) -> bool | None:
        """Whether the process lives; None where this machine cannot say: another one, another container, or a boot before this one."""
        if (self.host, self.space) != (HOST, space()):
            return None
        try:
            process = psutil.Process(self.pid)
            if abs(int(process.create_time()) - self.start) > START_TOLERANCE_S:
                return False  # the id was used again
            return process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False
        except psutil.Error:
            return True


HOST = digest(socket.gethostname())[:8]


@lru_cache(maxsize=1)
def space() -> str:
    """Digest of the boot and the process id namespace: machines of one name (containers often have one) differ in it."""
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    try:
        return digest([boot.read_text(encoding="ascii").strip(), os.readlink(namespace)])[:8]
    except OSError:  # no Linux: the boot by its time, to the minute
        return digest([round(psutil.boot_time() / 60)])[:8]


@lru_cache(maxsize=4)
def _owner(pid: int) -> Owner:
    return Owner(HOST, space(), pid, int(psutil.Process(pid).create_time()))
