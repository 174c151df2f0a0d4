"""Great Expectations in a process of its own: its import (2 s, 130 MB) goes on beside the run's first stages, on another core.

In a thread it would wait for the interpreter's lock and make the others wait (decode 0.9 -> 1.9 s, measured). The process reads validations
from standard input and writes results to standard output, as pickles, and ends when its input closes: with the run, however that ends.
"""

from __future__ import annotations

import atexit
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import LazyLoader, find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import psutil

if TYPE_CHECKING:
    import pyarrow as pa

    from validation.rules import Rule

# Great Expectations imports them where they are installed, for stores that are not used here: 15 MB.
NOT_NEEDED = ("boto3", "botocore")
# It imports them for the tests and pictures of distributions, which are not used here either: 1.2 of 3.3 s, 75 of 249 MB (measured).
# What asks for them after all gets them: they are loaded at their first use.
LATER = ("altair", "scipy.stats")


class JudgeLost(Exception):
    """The process does not answer any more."""


class JudgeProcess:
    """Starts at once; `validate` waits until it is ready. For one thread at a time."""

    def __init__(self) -> None:
        # A group of its own: a Ctrl-C is for the run, which closes the input when it has told its end.
        self._process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0)

    def validate(self, suite: str, rules: Sequence[Rule], table: pa.Table) -> dict[str, Any]:
        """`verdict.validate` there. Raises JudgeLost when the process has gone, and what the validation raised."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            pickle.dump((suite, list(rules), table), self._process.stdin)
            self._process.stdin.flush()
            result = pickle.load(self._process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError) as fault:
            raise JudgeLost(str(fault)) from fault
        if isinstance(result, BaseException):
            raise result
        return result

    def memory_bytes(self) -> int:
        """Resident memory that it shares with nobody: what libraries it has in common with the run is counted there."""
        try:
            return psutil.Process(self._process.pid).memory_full_info().uss
        except psutil.Error:
            return 0

    def close(self) -> None:
        """End it; what it is working on is given up."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


_current: JudgeProcess | None = None


def begin() -> None:
    """Let a process of its own judge from now on; it gets ready while the caller goes on. Does nothing when there is one."""
    global _current
    if _current is None:
        _current = JudgeProcess()
        atexit.register(end)


def end() -> None:
    """End that process, if there is one."""
    global _current
    process, _current = _current, None
    if process is not None:
        process.close()
        atexit.unregister(end)


@contextmanager
def away() -> Iterator[None]:
    """End the process for a long block without a gate, and begin a new one after it: 130 MB less for as long. Does nothing without a process."""
    there = _current is not None
    end()
    try:
        yield
    finally:
        if there:
            begin()


def current() -> JudgeProcess | None:
    """The process that judges, None where the caller does it itself."""
    return _current


def memory_bytes() -> int:
    """Memory of that process alone, 0 without one."""
    process = _current
    return process.memory_bytes() if process is not None else 0


class _Later(MetaPathFinder):
    """Finds modules of these names as ones that are loaded when something of them is used. Of a process with one thread only (LazyLoader)."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = set(names)

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname not in self._names:
            return None
        self._names.remove(fullname)  # the search below comes here again
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


def serve(requests: BinaryIO, results: BinaryIO) -> None:
    """Answer until the input closes."""
    for name in NOT_NEEDED:
        sys.modules[name] = None  # type: ignore[assignment]  # an import of it fails, as where it is not installed
    sys.meta_path.insert(0, _Later(LATER))
    from config.collector import imports

    with imports():
        from validation.verdict import prepare, validate

        prepare()
    while True:
        try:
            suite, rules, table = pickle.load(requests)
        except EOFError:
            return
        try:
            answer: Any = validate(suite, rules, table)
        except Exception as fault:
            answer = RuntimeError(f"{type(fault).__name__}: {fault}")
        pickle.dump(answer, results)
        results.flush()


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between the results
    serve(sys.stdin.buffer, out)
    os._exit(0)  # the interpreter's own end would wait for idle threads of libraries
