"""`bookmill bench`: starts the benchmark of the checkout that this program runs from. What it measures is in tests/bench/mbo.py."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tasks.errors import UsageError

ROOT = Path(__file__).resolve().parents[1]


def run_bench(records: int, sizes: str, runs: int, only: Sequence[str], json: Path | None, readme: bool, folder: Path | None) -> int:
    """Run the benchmark and return its exit code. sizes: factors of `records`, separated by commas.

    Raises UsageError where there is no checkout, and for sizes that are no numbers.
    """
    if not (ROOT / "tests" / "bench" / "mbo.py").is_file():
        raise UsageError(
            f"The benchmark is not part of the installed package: {ROOT} has no tests/bench. "
            "Get the source, install it there with `pip install -e '.[bench]'`, and start `bookmill bench` of that environment."
        )
    factors = [word.strip() for word in sizes.split(",") if word.strip()]
    try:
        wrong = not factors or min(map(float, factors)) <= 0
    except ValueError:
        wrong = True
    if wrong:
        raise UsageError(f"--sizes is {sizes!r}; give factors of --records above 0, separated by commas, such as 0.1,1,4")
    options = ["--records", str(records), "--sizes", *factors, "--runs", str(runs), *(["--only", *only] if only else [])]
    for name, path in (("--json", json), ("--folder", folder)):
        options += [name, str(path.absolute())] if path else []
    options += ["--readme"] if readme else []
    # A process of its own, whose modules are the checkout's and not those of a folder `tests` in which the user happens to be.
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    return subprocess.run([sys.executable, "-m", "tests.bench.mbo", *options], env=environ, check=False).returncode
