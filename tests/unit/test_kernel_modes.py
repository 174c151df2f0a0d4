"""The kernel tests again, each mode in a process of its own: as plain Python (JIT off), and compiled with every index checked.

JIT off finds what only the compiler lets pass (an integer that overflows, a name that is not bound); bounds checks find a write beside an
array, which the compiled kernel would make without a word. What the tests claim is in their own files.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODES = {"jit off": {"NUMBA_DISABLE_JIT": "1"}, "bounds": {"NUMBA_BOUNDSCHECK": "1"}}
# In plain Python an integer that wraps is a warning, and here an error. Hashing wraps on purpose.
WRAPS = ("tasks.reconstruction.ladder_kernels", "tasks.reconstruction.order_table_kernels")
BOOKS = ("replay", "heatmap_grid", "window", "book_at", "queue_position", "lifetimes", "depth_replay", "depth_layers")
ROWS = (
    "bars", "book_times", "consolidated", "depth_aggregates", "depth_csv", "depth_heatmap", "event_rows", "features", "filtering", "itch",
    "lobster_reader",
)  # fmt: skip
SLOW = (
    "bybit",
    "csv_source",
    "dbn",
    "decode",
    "heatmap_drawing",
    "gates",
    "levels_proven",
    "rebuild",
    "published",
    "quick_heatmap",
    "real_books",
    "synthetic",
    "synthetic_depth",
    "synthetic_formats",
    "tardis_l2",
    "tardis_tables",
)
MANY = "a_book_of_many_orders or session or command_line or wherever"  # 60,000 orders and more, 5 s without JIT
FILES = "zipped_pair or corrupted_file"  # compile the readers of files, 6 s

# Writes past the end of an array, which is the start of a longer one, so that it harms nothing: in a kernel, in a kernel with other
# decorators, and in a function that is inlined into a kernel.
PROBE = """
import numpy as np
from tasks.reconstruction import sample_kernels as sk
from tasks.reconstruction.ladder_kernels import to_ranks
from tasks.scanning.check_kernels import check_rows

def refused(kernel, *arguments):
    try:
        kernel(*arguments)
    except IndexError:
        return True
    return False

def zeros(*shape, dtype=np.int64):
    return np.zeros(shape, dtype)

letters = zeros(3, dtype=np.uint8)
rows = sk.Rows(zeros(8, 8)[:1], zeros(2, 8), zeros(2, 8, dtype=np.uint32), zeros(8), zeros(8, dtype=np.int8), zeros(8, dtype=np.int8), zeros(8))
grid, clock = sk.Grid(rows, zeros(8), zeros(8), zeros(8, dtype=np.uint32)), zeros(sk.CLOCK_SIZE)
clock[sk.T_INTERVAL] = 5
top = sk.Top(zeros(2, 1), zeros(2, 1), zeros(2, 1), zeros(5), zeros(2, 1), zeros(8))
print([
    refused(to_ranks, zeros(8, 2), zeros(3), zeros(8, dtype=np.int32)[:2]),
    refused(check_rows, zeros(3), zeros(3), letters, letters, zeros(3), zeros(3, dtype=np.uint32), letters, zeros(8, dtype=np.uint8)[:2]),
    refused(sk.grid_until, clock, top, grid, sk.Windows(zeros(1), zeros(1) + 9), 1, 3),
])
"""


def python(arguments: list[str], variables: dict[str, str], folder: Path, timeout_s: float = 280) -> tuple[int, str]:
    """Exit code and output of an interpreter with a compilation cache of its own: code with checks must not be taken for code without."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "PYTEST_"))}
    log = folder / "log"
    with log.open("wb") as out:
        code = subprocess.run(
            [sys.executable, *arguments], env={**environ, "NUMBA_CACHE_DIR": str(folder / "numba"), **variables}, cwd=ROOT,
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=timeout_s, check=False,
        ).returncode  # fmt: skip
    return code, log.read_text()


def kernel_tests(mode: str, names: tuple[str, ...], folder: Path, *, examples: int, leave_out: str = "", timeout_s: float = 280) -> None:
    options = ["-p", "no:cacheprovider", "-W", "error::RuntimeWarning"]
    options += [option for module in WRAPS for option in ("-W", f"ignore:overflow encountered in scalar multiply:RuntimeWarning:{module}")]
    options += ["-k", f"not ({leave_out})"] if leave_out else []
    files = [f"tests/unit/test_{name}.py" for name in names]
    variables = {**MODES[mode], "TEST_EXAMPLES": str(examples)}
    if mode == "jit off":
        variables["BOOKMILL_REAL_DATA"] = str(folder / "none")  # days of real data take minutes without JIT
    code, output = python(["-m", "pytest", *options, *files], variables, folder, timeout_s)
    assert code == 0, output[-8_000:]
    passed = re.search(r"(\d+) passed", output)
    assert passed is not None, output[-8_000:]
    assert int(passed[1]) >= 2 * len(names)


@pytest.mark.parametrize("mode", ["", *MODES])
def test_an_index_out_of_range_is_refused_in_both_modes_and_in_no_other(mode, tmp_path):
    code, output = python(["-W", "ignore", "-c", PROBE], MODES.get(mode, {}), tmp_path)
    assert (code, output.strip()) == (0, str([bool(mode)] * 3))


@pytest.mark.timeout(1_200)  # 200 s and more on a slow machine, as plain Python
@pytest.mark.parametrize("names", [BOOKS, ROWS], ids=["books", "rows"])
def test_kernels_equal_their_twins_as_plain_python(names, tmp_path):
    kernel_tests("jit off", names, tmp_path, examples=10, leave_out=MANY, timeout_s=1_150)


def test_book_kernels_stay_inside_their_arrays(tmp_path):
    kernel_tests("bounds", BOOKS, tmp_path, examples=30, leave_out=FILES)


@pytest.mark.campaign
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("mode", MODES)
def test_every_kernel_test_holds_in_every_mode(mode, tmp_path):
    kernel_tests(mode, (*BOOKS, *ROWS, *SLOW), tmp_path, examples=100 if mode == "jit off" else 1_000, timeout_s=3_500)
