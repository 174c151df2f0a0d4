"""An update of one kernel module reaches the kernels of other modules that call it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

CALLEE = "from numba import njit\n\n@njit(cache=True)\ndef step(x):\n    return x + {by}\n"
CALLER = "from numba import njit\nfrom steps.one_kernels import step\n\n@njit(cache=True)\ndef twice(x):\n    return step(step(x))\n"


def run(folder: Path) -> str:
    code = """
from pathlib import Path
from config.kernel_cache import use_kernel_cache
use_kernel_cache(Path("steps"))
from steps.two_kernels import twice
print(twice(0))
"""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")} | {"PYTHONPATH": f"{ROOT}:{folder}"}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environ, capture_output=True, text=True, check=True, timeout=120
    ).stdout.strip()


def test_a_changed_callee_is_used_by_a_cached_caller_in_another_module(tmp_path):
    steps = tmp_path / "steps"
    steps.mkdir()
    (steps / "two_kernels.py").write_text(CALLER)
    (steps / "one_kernels.py").write_text(CALLEE.format(by=1))
    assert [run(tmp_path), run(tmp_path)] == ["2", "2"]
    (steps / "one_kernels.py").write_text(CALLEE.format(by=10))
    assert run(tmp_path) == "20"
    assert len(list((steps / "__pycache__").glob("kernels-*"))) == 2


def test_a_cache_folder_of_the_user_stays(tmp_path):
    code = "import os, tasks; print(os.environ['NUMBA_CACHE_DIR'])"
    environ = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True).stdout.strip() == str(tmp_path)
