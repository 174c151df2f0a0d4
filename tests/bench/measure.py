"""What a measurement needs: facts of the machine, the peak memory of a process and of a process tree, and the floor that times are compared with."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

POLL_S = 0.05
LIBRARIES = ("numba", "numpy", "pyarrow", "duckdb", "great-expectations", "prefect", "zstandard")


@dataclass(frozen=True)
class Measured:
    """One timed thing. Seconds of wall and CPU time (all threads and ended children); peak_rss in bytes; prepare: seconds before the clock started
    (imports, and finding earlier stages done); facts: what else it told (rows, bytes)."""

    name: str
    wall: float
    cpu: float
    peak_rss: int
    prepare: float = 0.0
    facts: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """As JSON values."""
        return asdict(self)


def median(runs: Sequence[Measured]) -> Measured:
    """The median of each number, by itself; the facts of the last run."""
    numbers = {name: statistics.median(getattr(run, name) for run in runs) for name in ("wall", "cpu", "peak_rss", "prepare")}
    return Measured(runs[0].name, **numbers, facts=runs[-1].facts)  # type: ignore[arg-type]


def timed(name: str, prepare: Callable[[], Callable[[], Any]]) -> tuple[Measured, Any]:
    """Prepare a call before the clock starts, then time it in this process; (measured, what the call returned)."""
    start = time.perf_counter()
    call = prepare()
    began, cpu = time.perf_counter(), time.process_time()
    found = call()
    return Measured(name, time.perf_counter() - began, time.process_time() - cpu, peak_rss(), began - start), found


def machine() -> dict[str, object]:
    """Cores that this process may use, CPU model, memory in bytes, load, and versions."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor() or "unknown")
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cpu": model,
        "memory": psutil.virtual_memory().total,
        "load": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def peak_rss() -> int:
    """Largest resident memory of this process so far, in bytes.

    Not from getrusage where it can be avoided: a process begins with the peak of the one that started it there.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def run_watched(command: Sequence[str], environ: Mapping[str, str], log: Path) -> tuple[Measured, int]:
    """Run a command to its end; (measured, exit code). peak_rss is the largest sum over the process and its descendants, looked at every 50 ms;
    pages that they share count in each. Output goes to `log`: a descendant that outlives the command would keep a pipe open.
    """
    with log.open("wb") as out:
        start = time.perf_counter()
        process = subprocess.Popen(command, env=dict(environ), stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        root, peak = psutil.Process(process.pid), 0
        while True:
            peak = max(peak, _tree_rss(root))
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            time.sleep(POLL_S)
        wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    return Measured("", wall, usage.ru_utime + usage.ru_stime, peak), process.returncode


def _tree_rss(root: psutil.Process) -> int:
    total = 0
    try:
        for process in (root, *root.children(recursive=True)):
            try:
                total += process.memory_info().rss
            except psutil.Error:  # it ended between the two looks
                continue
    except psutil.Error:
        pass
    return total


def decompress(path: Path) -> int:
    """The floor: decompress a zstd file, streamed through one buffer; nothing else. Returns the bytes that came out."""
    import zstandard

    view, total = memoryview(bytearray(1 << 20)), 0
    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as reader:
        while count := reader.readinto(view):
            total += count
    return total
