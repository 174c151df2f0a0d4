"""The README's Python runs as it stands, in a process of its own, without Prefect; its SQL is asked of the lake that it made."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.publishing.views import layers, query

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PACKAGES = ("tasks.scanning", "tasks.filtering", "tasks.reconstruction", "tasks.aggregation", "tasks.publishing", "validation")


def block(name: str) -> str:
    """The Python block marked `name`."""
    (found,) = re.findall(rf"<!-- run: {name} -->\n```python\n(.*?)```", README, re.DOTALL)
    return found


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    out, err = folder / "stdout", folder / "stderr"
    with out.open("w") as stdout, err.open("w") as stderr:
        code = subprocess.run([sys.executable, "-c", code], cwd=folder, stdout=stdout, stderr=stderr, timeout=240, check=False).returncode
    return subprocess.CompletedProcess([], code, out.read_text(), err.read_text())


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """(folder, what the block for a whole run printed), and then which libraries it had loaded."""
    folder = tmp_path_factory.mktemp("plain")
    return folder, run(block("plain") + "\nimport sys\nprint(sorted({'prefect', 'great_expectations'} & set(sys.modules)))\n", folder)


def test_the_whole_run_by_hand_works_and_loads_no_prefect(plain):
    folder, done = plain
    assert done.returncode == 0, done.stderr
    picture, counts, loaded = done.stdout.splitlines()
    assert (counts, loaded) == ("[{'events': 20000}]", "[]")
    assert (folder / "lake" / picture).read_bytes().startswith(b"\x89PNG")
    made = {
        "events", "sources", "bbo", "mbp-10", "mbp-10-1s", "trades", "opening_book", "closing_book", "checkpoints", "ohlcv-1s", "ohlcv-1m",
        "features-1s", "heatmap", "ledger",
    }  # fmt: skip
    assert set(layers(folder / "lake")) == made


@pytest.mark.parametrize("name", ["read", "gate", "ask"])
def test_a_snippet_on_the_lake_runs(plain, name):
    folder, _ = plain
    done = run(block(name) + ("\nassert len(trades) and len(rows)\n" if name == "read" else ""), folder)
    assert done.returncode == 0, done.stderr
    if name == "gate":
        assert done.stdout.split()[0] in ("ok", "warn")


def test_every_python_block_is_one_that_is_run():
    """All here but `store`, which tests/flows/test_store.py asks of a store that runs."""
    assert README.count("```python") == len(re.findall(r"<!-- run: \w+ -->\n```python\n", README)) == 5


def test_the_queries_of_the_readme_have_answers(plain):
    folder, _ = plain
    lines = [shlex.split(line) for line in re.findall(r"^bookmill sql .*$", README, re.MULTILINE) if "depth_" not in line]
    assert len(lines) == 3  # those on depth layers have a lake of their own, in tests/flows
    for words in lines:
        (sql,) = [word for word in words if word.startswith("select")]
        assert query(folder / "lake", sql).num_rows > 0


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_hands_out_its_functions_and_nothing_else(name):
    package = importlib.import_module(name)
    assert package.__all__ == sorted(package._HOMES)
    for public in package.__all__:
        module, attribute = package._HOMES[public].split(".")
        assert getattr(package, public) is getattr(importlib.import_module(f"{name}.{module}"), attribute)
        assert public in dir(package)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing


@pytest.mark.parametrize("name", PACKAGES)
def test_what_a_package_shows_to_type_checkers_is_what_it_hands_out(name):
    path = ROOT / name.replace(".", "/") / "__init__.py"
    (guarded,) = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.If)]
    shown = {a.asname or a.name: f"{i.module}.{a.name}" for i in guarded.body if isinstance(i, ast.ImportFrom) for a in i.names}
    assert shown == {public: f"{name}.{home}" for public, home in importlib.import_module(name)._HOMES.items()}


def test_importing_the_packages_loads_nothing_heavy(tmp_path):
    heavy = "{'numba', 'pyarrow', 'duckdb', 'prefect', 'great_expectations', 'pandas', 'numpy'}"
    done = run(f"import sys, {', '.join(PACKAGES)}\nprint(sorted({heavy} & set(sys.modules)))", tmp_path)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
