"""The README held against the code: commands parse, links lead somewhere, and the reference tables say what the code says.

`python -m tests.unit.test_readme` writes the tables anew; the cells that people wrote (meanings, remedies) are kept by the row's first cell.
"""

from __future__ import annotations

import ast
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
import typer.main
from PIL import Image

from config.errors import ConfigError
from config.settings import KINDS, NAMES, Settings
from deployments.cli import app
from tasks import schemas
from tasks.errors import BookmillError
from tasks.events_file import truth_schema
from tasks.heatmap_grid import GRID
from tasks.reconstruction.checkpoints import RESTING_ORDERS
from tasks.reconstruction.depth_export import EXPORTS
from tasks.scanning.check_kernels import REASON_TEXT
from tasks.scanning.csv_field_kernels import REASONS as CSV_REASONS
from tasks.scanning.formats import DATABENTO_COLUMNS, DATABENTO_OPTIONAL, SEVEN_COLUMNS
from tasks.scanning.itch_kernels import REASONS as ITCH_REASONS
from tasks.scanning.published_batches import REASONS as PUBLISHED_REASONS
from tasks.scanning.tardis_field_kernels import REASONS as TARDIS_REASONS
from validation.rules import FILE_RULES, Context
from validation.suites import DEPTH_SUITES, SUITES, suite_of

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
SET_UP = (
    "python3 -m venv .venv && .venv/bin/pip install -c deployments/constraints.txt -e . && .venv/bin/bookmill demo",
    "python3 -m venv .venv && .venv/bin/pip install -c deployments/constraints.txt -e '.[test]' && .venv/bin/pytest",
)
MARKED = re.compile(r"<!-- table: (\S+) -->\n(.*?)<!-- /table -->", re.DOTALL)


class Table(NamedTuple):
    """rows: the cells that the code decides, the first of which is the key; written: names of the last columns, which people fill in."""

    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    written: tuple[str, ...] = ()


def code(text: object) -> str:
    return f"`{text}`" if str(text) else "(empty)"


def columns_of(schema: pa.Schema) -> Table:
    kinds = [str(f.type.value_type if pa.types.is_dictionary(f.type) else f.type).replace("tz=", "") for f in schema]
    return Table(("column", "type"), [(code(f.name), kind) for f, kind in zip(schema, kinds, strict=True)], ("meaning",))


def commands() -> Iterator[tuple[str, Any]]:
    """(words, command) of every command of bookmill."""

    def walk(prefix: str, command: Any) -> Iterator[tuple[str, Any]]:
        yield prefix, command
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(f"{prefix} {name}", child)

    yield from walk("bookmill", typer.main.get_command(app))


def option_table(command: str) -> Table:
    rows = []
    for option in dict(commands())[command].params:
        shown = ", ".join(code(o) for o in option.opts) if option.param_type_name == "option" else code(option.name.upper())
        default = "" if option.required else "off" if option.default is False else code(option.default) if str(option.default) else ""
        rows.append((shown, default, option.help))
    return Table(("option", "default", "meaning"), rows)


def setting_table() -> Table:
    metadata = {name: Settings.__dataclass_fields__[name].metadata for name in NAMES}
    return Table(("setting", "meaning", "allowed"), [(code(name), metadata[name]["meaning"], KINDS[name].allowed) for name in NAMES])


def gate_table() -> Table:
    """The rules of all suites in every context that changes them, each once."""
    rows = [("every gate", code(r.name), r.consequence, r.why) for r in FILE_RULES]
    grid = Context(depth=10, grid=True, interval_ns=1_000_000_000)
    contexts = [Context(depth=10), grid, replace(grid, windows=((0, 1),)), Context(time_bars=False)]
    for suite in (*SUITES, *DEPTH_SUITES):
        for context in contexts:
            own = {r.name for r in FILE_RULES}
            rows += [(suite, code(r.name), r.consequence, r.why) for r in suite_of(suite, context).rules if r.name not in own]
    return Table(("gate", "expectation", "consequence", "why"), list(dict.fromkeys(rows)))


def error_table() -> Table:
    """Every class below BookmillError, found in the source, so that nothing is imported for it; and ConfigError, which stands apart."""
    bases: dict[str, list[str]] = {}
    for path in sorted(path for package in ("tasks", "validation", "flows", "deployments") for path in (ROOT / package).rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                bases[node.name] = [base.id for base in node.bases if isinstance(base, ast.Name)]
    names = [BookmillError.__name__]
    for name in names:  # grows while it is read
        names += [child for child, parents in bases.items() if name in parents]
    return Table(("error",), [(code(name),) for name in [*names, ConfigError.__name__]], ("what it says", "what to do"))


def branches(node: ast.expr) -> Iterator[str]:
    """The texts that an expression can be."""
    if isinstance(node, ast.IfExp):
        yield from branches(node.body)
        yield from branches(node.orelse)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def reasons_in(module: str, raised: str = "BadRow", at: int = 4) -> set[str]:
    """Reasons that a reader writes itself: of BadRow(...), of _fail(rows, reason), and of returned (reason, detail, symbol)."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / "tasks/scanning" / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == raised:
            found |= set(branches(node.args[at]))
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "_fail":
            found |= set(branches(node.args[1]))
        elif isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple) and len(node.value.elts) == 3:
            found |= set(branches(node.value.elts[0]))
    return found


def row_reason_table() -> Table:
    where: dict[str, list[str]] = {name: ["all"] for name in REASON_TEXT if name}
    text = [name for name in CSV_REASONS if name not in ("", "malformed")]
    lobster = {"message_type", "direction", "orderbook"}
    for kind, names in (
        ("CSV", [n for n in text if n not in lobster]), ("LOBSTER", [n for n in text if n in lobster]),
        ("DBN", sorted(reasons_in("dbn.py"))), ("ITCH", [n for n in ITCH_REASONS if n]), ("Parquet", sorted(reasons_in("parquet_source.py"))),
        ("Bybit", sorted(reasons_in("bybit_general.py", "Unreadable", 0))), ("Tardis", [n for n in TARDIS_REASONS if n and n not in text]),
        ("published books", [n for n in PUBLISHED_REASONS if n and n not in text]),
        ("all", sorted(reasons_in("decode.py"))),
    ):  # fmt: skip
        for name in names:
            if "all" not in where.setdefault(name, []):
                where[name].append(kind)
    rows = [(code(name), ", ".join(kinds)) for name, kinds in where.items()]
    return Table(("reason", "sources"), [*rows, ("the column's name", "Parquet")], ("what is wrong", "what to do"))


TABLES: dict[str, Callable[[], Table]] = {
    "options": lambda: option_table("bookmill run mbo"),
    "depth_options": lambda: option_table("bookmill run depth"),
    "events": lambda: columns_of(schemas.EVENTS),
    "books": lambda: columns_of(schemas.BBO),
    "trades": lambda: columns_of(schemas.TRADES),
    "bars": lambda: columns_of(schemas.BARS),
    "features": lambda: columns_of(schemas.FEATURES),
    "heatmap": lambda: columns_of(GRID),
    "closing_book": lambda: columns_of(RESTING_ORDERS),
    "checkpoints": lambda: columns_of(schemas.CHECKPOINTS),
    "certificate": lambda: columns_of(schemas.CERTIFICATE),
    "published": lambda: columns_of(schemas.published_schema(1)),
    "cbbo": lambda: columns_of(schemas.CBBO),
    "depth_books": lambda: columns_of(schemas.DEPTH_BBO),
    "depth_updates": lambda: columns_of(schemas.DEPTH_UPDATES),
    "depth_trades": lambda: columns_of(schemas.DEPTH_TRADES),
    "mid_bars": lambda: columns_of(schemas.MID_BARS),
    "depth_features": lambda: columns_of(schemas.DEPTH_FEATURES),
    "exports": lambda: columns_of(EXPORTS),
    "truth": lambda: columns_of(truth_schema(1)),
    "quarantine": lambda: columns_of(schemas.QUARANTINE),
    "sources": lambda: columns_of(schemas.SOURCES),
    "ledger": lambda: columns_of(schemas.LEDGER),
    "statuses": lambda: Table(("status",), [(code(name),) for name in schemas.STATUSES], ("meaning",)),
    "reasons": lambda: Table(("reason",), [(code(name),) for name in schemas.REASONS], ("meaning",)),
    "errors": error_table,
    "rows": row_reason_table,
    "gates": gate_table,
    "settings": setting_table,
}


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]


def render(name: str, before: str) -> str:
    """The table `name` with the written cells of its text `before`."""
    table = TABLES[name]()
    kept = {cells[0]: cells[-len(table.written) :] for cells in map(cells_of, before.splitlines()) if table.written and len(cells) > 1}
    lines = [(*table.columns, *table.written), ("---",) * (len(table.columns) + len(table.written))]
    lines += [(*(cell.replace("|", "\\|") for cell in row), *kept.get(row[0], [""] * len(table.written))) for row in table.rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def written_anew(text: str) -> str:
    """The README with all its tables made from the code."""
    return MARKED.sub(lambda found: f"<!-- table: {found[1]} -->\n{render(found[1], found[2])}<!-- /table -->", text)


@pytest.fixture(scope="module")
def readme() -> str:
    return README.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", TABLES)
def test_a_reference_table_says_what_the_code_says(readme, name):
    marked = dict(MARKED.findall(readme))
    assert marked[name] == render(name, marked[name]), "write it anew with `python -m tests.unit.test_readme` and fill in what is new"
    assert not [line for line in marked[name].splitlines() if line.endswith("|  |")], "a cell is empty"


def test_there_is_no_table_without_a_source(readme):
    assert {name for name, _ in MARKED.findall(readme)} == set(TABLES)


def test_a_row_that_the_code_gained_is_noticed_and_what_was_written_is_kept():
    before = "| `valid` | as it says |\n| `gone` | no more |\n"
    after = render("statuses", before)
    assert "| `valid` | as it says |" in after
    assert "| `halted` |  |" in after
    assert "gone" not in after


@pytest.mark.parametrize("command", SET_UP)
def test_the_set_up_commands_stand_alone_in_a_block(readme, command):
    assert f"```sh\n{command}\n```" in readme


def command_lines(readme: str) -> list[str]:
    """Commands of shell blocks, and those in backticks of tables of commands."""
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", readme, re.DOTALL)).replace("\\\n", " ")
    lines = [line for line in blocks.splitlines() if line.startswith("bookmill ")]
    return lines + [text for text in re.findall(r"`(bookmill [^`]*)`", readme) if " --" in text or "/" in text]


def leaf_of(words: list[str]) -> tuple[Any, list[str]]:
    command = typer.main.get_command(app)
    rest = words[1:]
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]
    return command, rest


def test_every_command_parses(readme):
    lines = command_lines(readme)
    assert len(lines) > 15
    for line in lines:
        leaf, rest = leaf_of(shlex.split(line))
        assert not getattr(leaf, "commands", {}), line
        if "--help" not in rest:
            leaf.make_context(leaf.name, list(rest))  # raises for an option that is none, or an argument that is missing


def test_every_command_is_mentioned(readme):
    for words, command in commands():
        if not getattr(command, "commands", {}):
            assert words in readme


def test_links_lead_somewhere(readme):
    slugs = {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in re.findall(r"^#+ (.*)$", readme, re.MULTILINE)}
    links = re.findall(r"\]\(([^)]+)\)", readme)
    assert len(links) > 20
    for link in links:
        if link.startswith("#"):
            assert link[1:] in slugs, link
        elif not link.startswith("https://"):
            assert (ROOT / link).is_file(), link


def test_the_pictures_are_there_and_not_heavy(readme):
    names = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", readme)
    assert names[0].endswith("heatmap.png")
    for name in names:
        with Image.open(ROOT / name) as picture:
            assert picture.format == "PNG"
            assert 600 <= picture.width <= 1600
        assert (ROOT / name).stat().st_size < (600_000 if name == names[0] else 150_000)


def test_every_column_that_a_parquet_reason_can_name_is_in_the_readme(readme):
    assert {name for name in (*DATABENTO_COLUMNS, *DATABENTO_OPTIONAL[:4], *SEVEN_COLUMNS) if name not in readme} == set()


if __name__ == "__main__":
    old = README.read_text(encoding="utf-8")
    new = written_anew(old)
    README.write_text(new, encoding="utf-8")
    print("README.md has changed" if new != old else "README.md was up to date", file=sys.stderr)
