"""What a run shows while it works: bars on a terminal, lines in a log, a progress artifact in the Prefect interface.

Counting is `tally.py`'s matter. Nothing shown here may slow a task or make it fail: `advance` counts under a lock, one thread does the rest.
"""

from __future__ import annotations

import contextvars
import logging
import re
import sys
import threading
import time
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as RichProgress

from flows.tally import Snapshot, Tally, clock

TICK_S, LINE_EVERY_S, ARTIFACT_EVERY_S = 0.25, 5.0, 2.0

_log = logging.getLogger(__name__)


class Progress:
    """Progress of one run over its partitions; a context manager, safe to advance from any thread.

    mode: "auto" (bar on a terminal, else log lines), "bar" (only on a terminal, else nothing), "log" or "off" (`Settings.progress`). Log lines go
    to the run's log at INFO; with "log" they are written to `stream` (stderr) too, whatever the level of the terminal.
    Inside of a flow or task run it keeps a progress artifact as well, in every mode.
    """

    def __init__(self, mode: str = "auto", title: str = "bookmill", *, stream: TextIO | None = None) -> None:
        self.title, self._stream = title, stream or sys.stderr
        terminal = self._stream.isatty()
        self._show_bar = terminal and mode in ("auto", "bar")
        self._show_lines = mode == "log" or (mode == "auto" and not terminal)
        self._echo = mode == "log"
        self._lock = threading.Lock()
        self._tally = Tally()
        self._ended = threading.Event()
        self._bar = _Bar(title, self._stream) if self._show_bar else None
        self._artifact: _Artifact | None = None
        self._thread: threading.Thread | None = None
        self._next_line = self._next_artifact = 0.0

    def expect(self, key: str, rows: int = -1, bytes: int = -1) -> None:
        """Announce a partition with what is known of its size; -1 is unknown. Announce all before the first advances, or the share falls."""
        with self._lock:
            self._tally.expect(key, rows, bytes)

    def advance(self, key: str, rows: int = 0, bytes: int = 0) -> None:
        """Count rows and bytes (as stored) just worked through."""
        with self._lock:
            self._tally.advance(key, rows, bytes)

    def finish(self, key: str) -> None:
        """The partition is done, now or before this run."""
        with self._lock:
            self._tally.finish(key)

    def tell(self, line: str) -> None:
        """Show a line of its own at once: above the bar, or in the log and, unless shown nowhere, on `stream`."""
        _log.info("%s", line)
        if self._bar is not None:
            self._bar.print(line)
        elif self._show_lines:
            print(line, file=self._stream, flush=True)

    def snapshot(self) -> Snapshot:
        """The counts now, for a report."""
        with self._lock:
            return self._tally.snapshot()

    def __enter__(self) -> Progress:
        self._artifact = _Artifact.of_this_run(self.title)
        now = time.monotonic()
        self._next_line, self._next_artifact = now + LINE_EVERY_S, now
        if self._bar is not None:
            self._bar.start()
        if self._bar is not None or self._show_lines or self._artifact is not None:
            # In a copy of this context, because Prefect finds the run there.
            self._thread = threading.Thread(target=contextvars.copy_context().run, args=(self._show,), name="progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        snapshot = self.snapshot()
        if self._bar is not None:
            self._bar.draw(snapshot, self._open_parts())
            self._bar.stop()
        if self._show_lines:
            self._line(snapshot, f"{'stopped' if kind else 'finished'} after {clock(snapshot.elapsed_s)}: ")
        if self._artifact is not None:
            self._artifact.update(snapshot)

    def _show(self) -> None:
        while not self._ended.wait(TICK_S):
            snapshot, now = self.snapshot(), time.monotonic()
            if self._bar is not None:
                self._bar.draw(snapshot, self._open_parts())
            if self._show_lines and now >= self._next_line:
                self._next_line = now + LINE_EVERY_S
                self._line(snapshot)
            if self._artifact is not None and now >= self._next_artifact:
                self._artifact.update(snapshot)
                self._next_artifact = time.monotonic() + ARTIFACT_EVERY_S

    def _line(self, snapshot: Snapshot, prefix: str = "") -> None:
        _log.info("%s: %s%s", self.title, prefix, snapshot.line())
        if self._echo:
            print(f"{self.title}: {prefix}{snapshot.line()}", file=self._stream, flush=True)

    def _open_parts(self) -> dict[str, tuple[float, int]]:
        with self._lock:
            return {k: (p.share, p.done_rows) for k, p in self._tally.parts.items() if not p.finished and (p.done_rows or p.done_size)}


class _Bar:
    """One bar for the run and one for each partition in work, at most as many as a screen takes. Used by one thread."""

    MOST = 12

    def __init__(self, title: str, stream: TextIO) -> None:
        # Refreshed by our own tick: a second thread of rich's would draw between two updates.
        console = Console(file=stream)
        text = TextColumn("{task.fields[text]}", markup=False)
        self._rich = RichProgress(TextColumn("{task.description}", markup=False), BarColumn(), text, console=console, auto_refresh=False)
        self._whole = self._rich.add_task(title, total=100.0, text="")
        self._parts: dict[str, TaskID] = {}

    def start(self) -> None:
        self._rich.start()

    def print(self, line: str) -> None:
        self._rich.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def draw(self, snapshot: Snapshot, open_parts: dict[str, tuple[float, int]]) -> None:
        self._rich.update(self._whole, completed=snapshot.percent, text=snapshot.line())
        for key in [key for key in self._parts if key not in open_parts]:
            self._rich.remove_task(self._parts.pop(key))
        for key, (share, rows) in open_parts.items():
            if key not in self._parts and len(self._parts) < self.MOST:
                self._parts[key] = self._rich.add_task(f"  {key}", total=1.0, text="")
            if key in self._parts:
                self._rich.update(self._parts[key], completed=share, text=f"{rows:,} rows")
        self._rich.refresh()

    def stop(self) -> None:
        self._rich.stop()


class _Artifact:
    """The progress artifact of a run; after one failure it stays silent."""

    def __init__(self, title: str) -> None:
        self._title, self._failed = title, False
        self._id: Any = None
        self._key = re.sub(r"[^a-z0-9]+", "-", f"{title} progress".lower()).strip("-")  # all that Prefect allows in a key

    @classmethod
    def of_this_run(cls, title: str) -> _Artifact | None:
        """None outside of a flow or task run."""
        if "prefect" not in sys.modules:  # then there is no run, and importing it takes seconds
            return None
        from prefect.context import FlowRunContext, TaskRunContext

        return cls(title) if FlowRunContext.get() or TaskRunContext.get() else None

    def update(self, snapshot: Snapshot) -> None:
        """Create or change the artifact; never raises."""
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        if self._failed:
            return
        shown: dict[str, Any] = {"progress": snapshot.percent, "description": f"{self._title}: {snapshot.line()}"}
        try:
            if self._id is None:
                self._id = create_progress_artifact(key=self._key, **shown)
            else:
                update_progress_artifact(self._id, **shown)
        except Exception as fault:  # the work goes on without it
            self._failed = True
            _log.warning("The progress artifact cannot be written, and is given up: %s", fault)
