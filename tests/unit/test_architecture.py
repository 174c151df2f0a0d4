"""The house rules as tests: who may import whom, who may touch what, and what stands where. Read from the source, nothing is imported."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("flows", "tasks", "validation", "config", "deployments")
ALLOWED = {
    "config": {"config"},
    "tasks": {"config", "tasks"},
    "validation": {"config", "tasks", "validation"},
    "flows": {"config", "tasks", "validation", "flows"},
    "deployments": {"config", "tasks", "validation", "flows", "deployments"},
}
# (stage, other stage): why it may know the other's code.
STAGE_EXCEPTIONS = {
    ("scanning", "filtering"): "rows are filtered while they are decoded, which is one pass instead of two",
}
TOP_LEVEL = {*PACKAGES, "tests", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"}
# The build's own folder; ignored, never part of the project.
MADE = {"bookmill.egg-info", "build", "dist", "__pycache__"}


@cache
def modules() -> tuple[Path, ...]:
    """Python files of the project, tests aside."""
    return tuple(sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def imports(path: Path) -> frozenset[str]:
    """Dotted names imported anywhere in a file; `from a import b` gives a and a.b."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = list(path.relative_to(ROOT).with_suffix("").parts)[: -node.level]
                base = ".".join([*here, *filter(None, [base])])
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return frozenset(found)


def importers(library: str) -> set[str]:
    return {name(path) for path in modules() if any(i == library or i.startswith(f"{library}.") for i in imports(path))}


def python_sources() -> list[Path]:
    return [*modules(), *sorted((ROOT / "tests").rglob("*.py"))]


def test_there_is_something_to_check():
    assert len(modules()) > 20
    assert importers("numba")
    assert importers("prefect")


@pytest.mark.parametrize("package", PACKAGES)
def test_arrows_between_packages_run_one_way(package):
    for path in modules():
        if path.relative_to(ROOT).parts[0] == package:
            wrong = {i for i in imports(path) if i.split(".")[0] in PACKAGES and i.split(".")[0] not in ALLOWED[package]}
            assert not wrong, f"{name(path)} imports {sorted(wrong)}; {package} may import {sorted(ALLOWED[package])}"


def stage_of(module: str) -> str:
    """The stage that a dotted name under tasks belongs to, "" for what all stages may know: the modules directly in tasks."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "tasks" and (ROOT / "tasks" / parts[1]).is_dir() else ""


def test_no_stage_knows_the_code_of_another():
    used = set()
    for path in modules():
        own = stage_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for imported in imports(path) if own else ():
            other = stage_of(imported)
            if other not in ("", own):
                used.add((own, other))
                assert (own, other) in STAGE_EXCEPTIONS, f"{name(path)} imports {imported}: a stage knows another's schema, never its code"
    assert used == set(STAGE_EXCEPTIONS), "an exception that nobody uses any more must go"


def test_what_all_stages_may_know_knows_no_stage():
    # Otherwise a module there would be a back door from one stage into another.
    for path in (ROOT / "tasks").glob("*.py"):
        wrong = {imported for imported in imports(path) if stage_of(imported)}
        assert not wrong, f"{name(path)} imports {sorted(wrong)}"


def test_only_kernel_modules_import_numba():
    assert not {path for path in importers("numba") if not (path.endswith("_kernels.py") or Path(path).name == "kernels.py")}


def test_only_task_modules_flows_and_deployments_import_prefect():
    assert not {path for path in importers("prefect") if not (path.startswith(("flows/", "deployments/")) or Path(path).name == "task.py")}


def test_only_gates_import_great_expectations():
    assert not {path for path in importers("great_expectations") if not path.startswith("validation/")}


def test_the_runtime_does_not_import_prefect_before_it_has_set_its_variables():
    for module in ("flows/runtime.py", "flows/__init__.py", "config/__init__.py"):
        top = [node for node in tree(ROOT / module).body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {alias.name for node in top for alias in node.names} | {node.module or "" for node in top if isinstance(node, ast.ImportFrom)}
        assert not {n for n in names if n.split(".")[0] == "prefect"}
    # What it imports of ours stays clear of it as well.
    assert not {p for p in importers("prefect") if p.startswith(("config/", "tasks/errors", "tasks/schemas"))}


def environment_reads(path: Path) -> list[int]:
    """Lines that read the environment; setting, popping and handing a copy to a child process are no reads."""
    lines = []
    for parent in ast.walk(tree(path)):
        for node in ast.iter_child_nodes(parent):
            if isinstance(node, ast.Attribute) and node.attr in ("getenv", "getenvb", "environb") and _is_os(node.value):
                lines.append(node.lineno)
            if isinstance(node, ast.Attribute) and node.attr == "environ" and _is_os(node.value) and not _is_write(parent, node):
                lines.append(node.lineno)
            if isinstance(node, ast.ImportFrom) and node.module == "os" and {a.name for a in node.names} & {"environ", "getenv"}:
                lines.append(node.lineno)
    return lines


def _is_os(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "os"


def _is_write(parent: ast.AST, node: ast.AST) -> bool:
    if isinstance(parent, ast.Attribute):
        return parent.attr in ("setdefault", "pop", "update")
    if isinstance(parent, ast.Subscript):
        return isinstance(parent.ctx, ast.Store | ast.Del)
    return isinstance(parent, ast.Dict) and any(key is None and value is node for key, value in zip(parent.keys, parent.values, strict=True))


def test_only_config_reads_the_environment():
    wrong = {f"{name(path)}:{line}" for path in modules() if not name(path).startswith("config/") for line in environment_reads(path)}
    assert not wrong, f"{sorted(wrong)} read the environment; take the value from config"


def test_the_reading_of_the_environment_is_recognised(tmp_path):
    path = tmp_path / "m.py"
    path.write_text(
        "import os\nos.environ['A'] = '1'\nos.environ.setdefault('A', '1')\nchild({**os.environ, 'A': 1})\n"
        "a = os.environ['A']\nb = os.getenv('A')\nc = os.environ.get('A')\nfrom os import environ\nd = dict(os.environ)\n"
    )
    assert sorted(environment_reads(path)) == [5, 6, 7, 8, 9]


def test_every_module_says_what_belongs_in_it():
    # An empty __init__.py has nothing to say.
    silent = {name(path) for path in python_sources() if path.read_text(encoding="utf-8").strip() and not ast.get_docstring(tree(path))}
    assert not silent


def test_every_public_name_has_a_docstring():
    silent = []
    for path in modules():
        for node in tree(path).body:
            named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if named and not ast.get_docstring(node):
                silent.append(f"{name(path)}:{node.lineno} {node.name}")
    assert not silent


def test_no_grab_bag_modules():
    assert not {name(path) for path in modules() if re.search(r"util|helper|manager|processor|misc|common", path.stem)}


# Absolute paths of somebody's machine, in any text file of the project. /dev, /proc and /sys are everybody's.
MACHINE_PATH = re.compile(r"""(?:^|[\s"'(=:`])(/(?:home|Users|root|work|mnt|tmp|opt|srv|var)/[\w.-]+)""")
TEXT = {".py", ".toml", ".yaml", ".yml", ".md", ".txt", ".cfg", ".json", ""}


def test_no_machine_paths():
    found = []
    for path in project_files():
        if path.suffix in TEXT and path != Path(__file__):
            text = path.read_text(encoding="utf-8", errors="replace")
            found += [f"{name(path)}:{number} {match[1]}" for number, line in enumerate(text.splitlines(), 1) if (match := MACHINE_PATH.search(line))]
    assert not found


def project_files() -> list[Path]:
    """Files that git knows or would take; all files where there is no git (an unpacked archive)."""
    listed = subprocess.run(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        return [path for part in listed.stdout.split("\0") if part and (path := ROOT / part).is_file()]
    return [path for path in ROOT.rglob("*") if path.is_file() and not {p for p in path.relative_to(ROOT).parts if p.startswith(".") or p in MADE}]


def test_the_top_level_stays_as_it_is():
    top = {path.relative_to(ROOT).parts[0] for path in project_files()}
    assert not {entry for entry in top if entry not in TOP_LEVEL and not entry.startswith(".")}
    assert {*PACKAGES, "tests", "pyproject.toml"} <= top


def test_constraints_are_versions_only():
    lines = (ROOT / "deployments/constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 50
    assert not [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)]
    assert pins == sorted(pins, key=str.lower)


def test_every_dependency_is_pinned():
    constraints = (ROOT / "deployments/constraints.txt").read_text(encoding="utf-8")
    pinned = {_canonical(line.split("==")[0]) for line in constraints.splitlines() if "==" in line}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [re.match(r"[A-Za-z0-9._-]+", line)[0] for line in [*project["dependencies"], *project["optional-dependencies"]["test"]]]
    assert len(wanted) > 15
    assert not {_canonical(w) for w in wanted} - pinned


def _canonical(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def test_the_ci_script_is_runnable():
    script = ROOT / ".ci/run"
    assert script.stat().st_mode & 0o100
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
