"""Where a run may read and write: the folders that the worker's setting `roots` names. One check, made by every flow before it reads anything.

It keeps what a person can type into a form away from the rest of the machine. It is no fence against those who may start programs there, or
change what lies in the roots while a run works: deployments/SECURITY.md says what is.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from config.settings import load
from tasks.errors import UsageError
from tasks.scanning.inventory import expand


def confine(settings: Mapping[str, str], *, sources: Sequence[str] = (), dask_address: str = "", **folders: str) -> None:
    """Check that every file the sources lead to, and every folder (by the name of its parameter; empty: not given), lies in one of the roots.

    Links are followed first, so that neither `..` nor a link leads out; patterns are judged by where they start and by what they match. Without
    roots everything is allowed; with them a run may not choose a Dask scheduler. settings: the run's own; the roots are the worker's and never
    among them. Raises UsageError.
    """
    if "roots" in settings:
        raise UsageError("settings names roots; allowed: any other setting. They are the worker's: set BOOKMILL_ROOTS where it is started.")
    roots = tuple(root.resolve() for root in load().roots)
    if not roots:
        return
    if dask_address:
        # A Dask scheduler's workers run what they are sent, under their own user, wherever they are.
        raise UsageError(f"dask_address is {dask_address!r}; allowed here: none. This worker confines its runs to {_allowed(roots)}.")
    for name, folder in folders.items():
        if folder:
            _check(name, folder, Path(folder), roots)
    for given in sources:
        text = os.path.expanduser(given)
        _check("sources", given, Path(text if os.path.lexists(text) else _fixed(text)), roots)
        # What a folder holds and what a pattern matches may be links: each file is judged by where it is. Nothing is read for that.
        for path, _ in expand(given)[0]:
            _check("sources", path, Path(path), roots)


def _fixed(pattern: str) -> str:
    """The folder that a pattern starts from: its parts before the first with a wildcard; all of a path without one."""
    parts = Path(pattern).parts
    wild = next((at for at, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return str(Path(*parts[:wild])) if wild else "."


def _check(name: str, given: str, path: Path, roots: tuple[Path, ...]) -> None:
    try:
        where = path.resolve()
    except (OSError, RuntimeError, ValueError) as fault:  # a circle of links, a path that is none
        raise UsageError(f"{name} is {given!r}, which leads nowhere ({fault}); allowed: {_allowed(roots)}.") from fault
    if not any(where.is_relative_to(root) for root in roots):
        follows = "" if str(where) == given else f", which is {where}"
        raise UsageError(
            f"{name} is {given!r}{follows}; allowed: {_allowed(roots)}. Move it there, or have BOOKMILL_ROOTS of the worker name its folder."
        )


def _allowed(roots: tuple[Path, ...]) -> str:
    return "paths inside " + " or ".join(map(str, roots))
