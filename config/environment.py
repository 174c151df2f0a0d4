"""The environment as Bookmill reads it: its own variables, and what the user told Prefect. Nothing else in the project reads it."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path

PREFIX = "BOOKMILL_"
# Set by `flows.runtime` for its children, so that a worker process can tell its parent's private API from a server of the user's.
EMBEDDED_API = "BOOKMILL_EMBEDDED_API"
# Variables that are no settings.
RESERVED = frozenset({"BOOKMILL_REAL_DATA", "BOOKMILL_CONFIG", EMBEDDED_API})


def bookmill_variables(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables that begin with BOOKMILL_ and could be settings; an empty value counts as not given."""
    environ = os.environ if environ is None else environ
    return {name: value for name, value in environ.items() if name.startswith(PREFIX) and name not in RESERVED and value.strip()}


def config_path(environ: Mapping[str, str] | None = None) -> str | None:
    """The file named by BOOKMILL_CONFIG, or None."""
    return (os.environ if environ is None else environ).get("BOOKMILL_CONFIG") or None


def embedded_api() -> str | None:
    """URL of the private API that this run or its parent started, or None."""
    return os.environ.get(EMBEDDED_API) or None


def prefect_choices() -> dict[str, str]:
    """What the user chose for Prefect: the active profile, and over it the PREFECT_* variables.

    Read without importing Prefect, which takes 2.5 s and reads them itself only once, at import.
    """
    chosen = {name: value for name, value in os.environ.items() if name.startswith("PREFECT_") or name == "DO_NOT_TRACK"}
    profiles = Path(chosen.get("PREFECT_PROFILES_PATH") or _home(chosen) / "profiles.toml").expanduser()
    try:
        content = tomllib.loads(profiles.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        # Absent: nothing chosen. Broken: Prefect itself says so, better than we could.
        return chosen
    profile = content.get("profiles", {}).get(chosen.get("PREFECT_PROFILE") or content.get("active", ""), {})
    return {name: str(value) for name, value in profile.items()} | chosen if isinstance(profile, dict) else chosen


def prefect_home() -> Path:
    """The folder in which Prefect keeps its database and the results of tasks."""
    return _home(prefect_choices())


def _home(chosen: Mapping[str, str]) -> Path:
    return Path(chosen.get("PREFECT_HOME") or "~/.prefect").expanduser()
