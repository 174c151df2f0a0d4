"""Options that several commands share, and what they mean to the settings. Imports nothing heavy."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import Annotated, Any

import typer


def path_of(given: str | Path) -> Path:
    """What every option and argument that is a path becomes, by its exact text: a leading ~ is the home folder.

    A shell replaces it at the beginning of a word only, so that `--lake=~/x` arrives as it was typed.
    """
    return Path(os.path.expanduser(given))


Lake = Annotated[
    Path | None,
    typer.Option("--lake", parser=path_of, help="Folder of the lake; default: the setting `lake`, which is lake.", show_default=False),
]
Profile = Annotated[str, typer.Option(help="laptop, server or ci; empty for the default.")]
ApiUrl = Annotated[str, typer.Option(help="URL of a Prefect server; empty: the configured one, else a private one for this run.")]
Runner = Annotated[str, typer.Option(help="threads, processes, or dask: who works on the tasks.")]
DaskAddress = Annotated[str, typer.Option(help="Scheduler of a Dask cluster, such as tcp://10.0.0.5:8786; empty: a cluster on this machine.")]
Workers = Annotated[int, typer.Option(help="Partitions worked on at once; 0: from the machine.")]
Memory = Annotated[str, typer.Option(help="Memory budget such as 1GB or 50%; empty: from the machine.")]
Publisher = Annotated[int | None, typer.Option(help="Publisher id, where several have the symbol.", show_default=False)]
Dataset = Annotated[str | None, typer.Option(help="Dataset, where several have the symbol.", show_default=False)]
Instrument = Annotated[int | None, typer.Option(help="Instrument id, where several share the symbol.", show_default=False)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]


def lake_of(given: Path | None) -> Path:
    """The folder given, else the setting."""
    from config.settings import load

    return given if given is not None else load().lake


def settings_of(profile: str, workers: int, memory: str, lake: Path | None, quiet: bool) -> tuple[Any, dict[str, str]]:
    """(settings, those given on the command line by name)."""
    from config.settings import load

    given = {"workers": str(workers) if workers else None, "memory_bytes": memory or None, "progress": "off" if quiet else None}
    overrides = {name: value for name, value in given.items() if value is not None}
    return load(profile or None, overrides), overrides


def absolute(sources: list[str]) -> list[str]:
    """Paths and patterns from which a run in another folder finds the same files. Raises UsageError for one that no run can be given."""
    from tasks.errors import UsageError
    from tasks.paths import shown

    paths = [_absolute(given) for given in sources]
    if odd := [path for path in paths if shown(path) != path]:
        raise UsageError(f"sources has {shown(odd[0])}, which is not valid UTF-8; rename it, or give the folder that it is in to run all other files")
    return paths


def _absolute(given: str) -> str:
    if not given or given.startswith("~"):
        return given
    # Brackets in the name of the working folder mean nothing in a path that is there, and something in a pattern.
    return str(Path(given).absolute()) if Path(given).exists() else str(Path(glob.escape(os.getcwd()), given))


def numbers(text: str, option: str) -> list[int]:
    """Whole numbers separated by commas. Raises UsageError naming the option."""
    from tasks.errors import UsageError

    parts = split(text)
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise UsageError(f"{option} is {text!r}; allowed: numbers separated by commas, such as 1,2")
    return [int(part) for part in parts]


def split(text: str) -> list[str]:
    """Words separated by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]
