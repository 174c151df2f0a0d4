"""The error of this layer. It stands apart from `tasks.errors`, which `config` may not import; the command line shows both alike."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """A setting is unknown or its value not allowed; the message names where it was given, the value, and what is allowed."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ " Did you mean x?" for the nearest of `known`, or "" when none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {near[0]}?" if near else ""
