"""Imports Great Expectations without its noise: no analytics, no progress bars, no chatter in the log. Nothing here reads settings.

The import takes 6 to 9 seconds, so it happens inside the function, when the first gate runs.
"""

from __future__ import annotations

import logging
import os
from types import ModuleType

_SILENT = {"GX_ANALYTICS_ENABLED": "false", "GE_USAGE_STATS": "false", "TQDM_DISABLE": "1"}
# The first writes hundreds of lines during the import; the second sets its own level then, and names a temporary folder at every gate.
_LOGGERS = ("great_expectations", "great_expectations.data_context.types.base")


def great_expectations() -> ModuleType:
    """The library, with its analytics (which would call an outside host) switched off before it can read its variables."""
    os.environ.update(_SILENT)
    _hush()
    import great_expectations as library

    _hush()
    return library


def _hush() -> None:
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
