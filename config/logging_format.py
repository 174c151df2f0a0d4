"""Log lines as one JSON object each, and what they say about the place in a run: run, partition, stage. Nothing about what is logged.

The place lives in context variables, which Prefect's task threads inherit from the thread that submits; a thread of one's own needs
`contextvars.copy_context().run`.
"""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

from rich.console import Console

FIELDS = ("run", "partition", "stage")
_place: dict[str, ContextVar[str]] = {name: ContextVar(f"bookmill_{name}", default="") for name in FIELDS}


@contextmanager
def place(**values: str) -> Iterator[None]:
    """Lines logged in the block carry these fields (run, partition, stage), over those of an outer block."""
    tokens = [(_place[name], _place[name].set(value)) for name, value in values.items()]
    try:
        yield
    finally:
        for variable, token in reversed(tokens):
            variable.reset(token)


def here() -> dict[str, str]:
    """The fields of this place that are known."""
    return {name: value for name, variable in _place.items() if (value := variable.get())}


class JsonLines(logging.Formatter):
    """time (ISO 8601, UTC, microseconds), level, logger, message; run, partition, stage, flow_run and task_run where known; exception."""

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()  # whatever format a logging configuration hands over does not apply

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the message holds."""
        line: dict[str, str] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "level": record.levelname, "logger": record.name, "message": record.getMessage(),
        } | here()  # fmt: skip
        for name in ("flow_run", "task_run"):
            if (value := getattr(record, f"{name}_name", None)) and value != "<unknown>":
                line[name] = str(value)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)  # ASCII: file names need not be valid text, and terminals need not be UTF-8


class JsonText(io.StringIO):
    """Standard error for what writes plain lines, each of which becomes a JSON line at INFO."""

    def __init__(self, logger: str = "flows.progress") -> None:
        super().__init__()
        self._logger, self._begun = logger, ""

    def isatty(self) -> bool:
        """No bar is drawn among the lines."""
        return False

    def write(self, text: str) -> int:
        """Whole lines go out, the rest waits."""
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            record = logging.LogRecord(self._logger, logging.INFO, "", 0, line, None, None)
            print(JsonLines().format(record), file=sys.stderr, flush=True)
        return len(text)


def use_json() -> None:
    """Let what goes to the terminal be JSON from now on, from all loggers; harmless when repeated. Prefect must be imported, so that its handlers
    are there."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setFormatter(JsonLines())
            if hasattr(handler, "console"):  # Prefect's: it colours and reads markup
                handler.console = Console(file=handler.stream, markup=False, emoji=False, highlight=False, no_color=True, force_terminal=False)
