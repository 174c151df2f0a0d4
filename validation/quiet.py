"""Keeps Great Expectations from speaking: no analytics, no progress bars, no chatter in the log. Nothing here reads settings.

Call `silence()` before the first import of great_expectations; the library reads its variables when it is imported.
"""

from __future__ import annotations

import logging
import os

_SILENT = {"GX_ANALYTICS_ENABLED": "false", "GE_USAGE_STATS": "false", "TQDM_DISABLE": "1"}


def silence() -> None:
    """Switch off the library's analytics (it would call an outside host), its bars and its informational log lines."""
    os.environ.update(_SILENT)
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
