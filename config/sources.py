"""Where settings are written: variables, the user's file, the profiles. Names are checked here, values in `settings.py`."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config import environment
from config.errors import ConfigError, did_you_mean

PROFILES = ("laptop", "server", "ci")
DEFAULT_PROFILE = "laptop"
USER_FILE = "bookmill.toml"
_PROFILE_FOLDER = Path(__file__).parent / "profiles"


@dataclass(frozen=True)
class Found:
    """A value as it was written, and where. `label` names it where its place has another name for it, e.g. a variable."""

    raw: Any
    origin: str
    label: str = ""

    def named(self, name: str) -> str:
        """For messages: BOOKMILL_WORKERS, or workers (bookmill.toml)."""
        return self.label or f"{name} ({self.origin})"


def from_environment(variables: Mapping[str, str], names: Collection[str]) -> dict[str, Found]:
    """Settings in BOOKMILL_* variables. Raises ConfigError for a variable that is no setting."""
    known = {environment.PREFIX + name.upper(): name for name in names}
    for variable in variables:
        if variable not in known:
            allowed = sorted(known) + sorted(environment.RESERVED - {environment.EMBEDDED_API})
            raise ConfigError(f"{variable} is no setting.{did_you_mean(variable, allowed)} Allowed variables: {', '.join(allowed)}.")
    return {known[variable]: Found(value, f"environment {variable}", variable) for variable, value in variables.items()}


def from_user_file(environ: Mapping[str, str] | None, names: Collection[str]) -> dict[str, Found]:
    """Settings in the file that BOOKMILL_CONFIG names (it must exist), else in ./bookmill.toml where that exists."""
    named = environment.config_path(environ)
    path = Path(named).expanduser() if named else Path(USER_FILE)
    if not named and not path.is_file():
        return {}
    return _from_toml(path, names, str(path), " (from BOOKMILL_CONFIG)" if named else "")


def from_profile(profile: str, names: Collection[str]) -> dict[str, Found]:
    """Settings of a profile of ours."""
    return _from_toml(_PROFILE_FOLDER / f"{profile}.toml", names, f"profile {profile}", "")


def _from_toml(path: Path, names: Collection[str], origin: str, why: str) -> dict[str, Found]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as fault:
        raise ConfigError(f"{path}{why} cannot be read: {fault.strerror or fault}. Name a TOML file or unset BOOKMILL_CONFIG.") from fault
    except ValueError as fault:
        raise ConfigError(f"{path}{why} is not valid TOML: {fault}. Write lines such as: workers = 4") from fault
    for name in content:
        if name not in names:
            raise ConfigError(f"{path}: {name} is no setting.{did_you_mean(name, names)} Settings: {', '.join(names)}.")
    return {name: Found(value, origin) for name, value in content.items()}
