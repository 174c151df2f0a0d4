"""The console that commands print to."""

from __future__ import annotations

import sys

from rich.console import Console

# Of what is no terminal (a log, a pipe): 80, which rich would take, breaks every name of a partition into three lines.
COLUMNS = 180


def console(*, soft_wrap: bool = False) -> Console:
    """A console on standard output, without colours for numbers; soft_wrap: lines are never broken by us.

    Names and values of sources may hold brackets: no text is taken for markup, and what is coloured is a `Text`.
    """
    return Console(highlight=False, markup=False, soft_wrap=soft_wrap, width=None if sys.stdout.isatty() else COLUMNS)


def not_read(path: object, why: object) -> str:
    """The line about a source that cannot be used. Most errors begin with the path themselves."""
    return f"NOT READ {why}" if str(why).startswith(str(path)) else f"NOT READ {path}: {why}"
