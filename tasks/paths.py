"""Files below a folder of a lake, and names of files in SQL and for people. Nothing here opens one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path


def files_below(folder: Path) -> Iterator[Path]:
    """Files below a folder, in order; links to folders are followed, once each, as a layer or a dataset may lie on another disk."""
    seen = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (Path(parent) / name for name in sorted(names))


def shown(path: str | Path) -> str:
    """`path` as text that can be printed and stored: itself, but bytes in it that are not UTF-8 as \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def exact(path: Path) -> str:
    """`path` as a pattern of DuckDB that means this file only, whatever wildcards stand in it."""
    return re.sub(r"([*?\[])", r"[\1]", str(path))


def literal_path(path: Path) -> str:
    """`exact` as a SQL string."""
    return "'" + exact(path).replace("'", "''") + "'"
