"""The life of a run as others see it: its record in the lake, its heartbeat, its claims, its alerts, and its name on every log line.

What the run does is in run.py. Everything here ends with the process: claims are freed by the kernel, and a record whose heart has stopped says
that the run was killed.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.events import emit_event
from prefect.events.schemas.automations import EventTrigger
from prefect.events.worker import EventsWorker

from config.logging_format import place, use_json
from config.settings import Settings
from flows.alerts import Alerts
from flows.policies import server_url
from flows.run_record import MISSED_BEATS, RunRecord, beat
from tasks.errors import StorageError
from tasks.locks import PARTITION, SOURCE, Claims, source_claim
from tasks.owners import Owner
from tasks.partitions import Partition, SourceFile

HEARTBEAT = "bookmill.run.heartbeat"
# Made by bootstrap; it sets a run without a heartbeat to Crashed.
CRASH_AUTOMATION = "bookmill: silent runs are crashed"
MOST_WAITING = 50
Method = TypeVar("Method", bound=Callable[..., Any])

_log = logging.getLogger(__name__)


class Life:
    """Of one run. `begin` when it starts, `end` when it is over; what is called in between may come from any thread."""

    def __init__(self, run_id: str, title: str, lake: Path, settings: Settings) -> None:
        self._lake, self._settings = lake, settings
        self.alerts = Alerts(run_id, lake, settings)
        self._claims = Claims(lake, lambda text: logging.getLogger("bookmill").warning("%s", text))
        self._record, self._written = _record(run_id, title, settings), False
        self._heart: Heart | None = None
        self._place = contextlib.ExitStack()

    def begin(self) -> None:
        """Write the record and let the heart beat. A lake that cannot be written is told by what has to write to it."""
        if self._settings.log_format == "json":
            use_json()
        self._place.enter_context(place(run=self._record.run_id))
        with contextlib.suppress(StorageError):
            self._record.write(self._lake)
            self._written = True
        self._heart = Heart(self._settings.heartbeat_s, self._beat)
        self._heart.start()

    def claim(self, partitions: Iterable[Partition], sources: Iterable[SourceFile] = ()) -> None:
        """Hold sources and partitions until the run lets go; waits for other runs on them. A source is its content, whatever its path."""
        self._claims.claim(SOURCE, *_named(sources))
        self._claims.claim(PARTITION, map(str, partitions))

    def claim_items(self, items: Iterable[Any]) -> None:
        """Claim what a stage works on: sources by their content, jobs by their partition."""
        items = list(items)
        found = [item if isinstance(item, Partition) else getattr(item, "partition", None) for item in items]
        self.claim([partition for partition in found if isinstance(partition, Partition)], (item for item in items if isinstance(item, SourceFile)))

    def let_go(self) -> None:
        """Give the claims back: nothing is written to partitions any more."""
        self._claims.release()

    def end(self, error: str = "", failed: Mapping[str, str] | None = None, *, interrupted: bool = False) -> None:
        """The run is over, badly where there is an error. Harmless when repeated: the first end counts."""
        if self._heart is None:
            return
        self._heart.stop()
        self._heart = None
        self.let_go()
        self._place.close()
        state = "interrupted" if interrupted else "failed" if error else "completed"
        ended = datetime.now(UTC).isoformat(timespec="seconds")
        self._record = replace(self._record, state=state, ended=ended, error=error, failed=dict(failed or {}))
        if self._written:
            try:
                self._record.write(self._lake)
            except StorageError as fault:  # the run's own end must not be hidden by it
                _log.warning("%s", fault)
        if error:
            self.alerts.failed(error, failed or {}, interrupted)

    def _beat(self) -> None:
        if self._written:
            with contextlib.suppress(OSError):
                beat(self._lake, self._record)
        self.alerts.disk()


class Heart(threading.Thread):
    """Beats every `seconds` until stopped: calls `and_then`, and on a user's server sends the event that crash detection waits for, for the flow run
    that it was made in and those around it."""

    def __init__(self, seconds: float, and_then: Callable[[], None] = lambda: None) -> None:
        super().__init__(name="heart", daemon=True)
        self._runs = _flow_runs() if server_url() is not None else []
        self._seconds = min(seconds, _patience_of_server() / MISSED_BEATS) if self._runs else seconds
        self._and_then, self._stopped = and_then, threading.Event()
        # The settings of Prefect, such as its API, are in the context; a new thread would start with an empty one.
        self._context = contextvars.copy_context()

    def run(self) -> None:
        """Until `stop`."""
        self._context.run(self._loop)

    def stop(self) -> None:
        """No beat comes after this."""
        self._stopped.set()
        if self.is_alive():
            self.join(5)

    def _loop(self) -> None:
        while True:
            for run, name in self._runs if _events_flow() else []:
                try:
                    emit_event(HEARTBEAT, {"prefect.resource.id": f"prefect.flow-run.{run}", "prefect.resource.name": name})
                except Exception as fault:  # the server is away: the work goes on
                    _log.debug("no heartbeat sent: %s", fault)
            self._and_then()
            if self._stopped.wait(self._seconds):
                return


@contextlib.contextmanager
def beating(settings: Settings) -> Iterator[None]:
    """The heart of a flow that has no run of its own and starts others, such as a backfill: without it a killed one would stay Running."""
    heart = Heart(settings.heartbeat_s)
    heart.start()
    try:
        yield
    finally:
        heart.stop()


def ends_run(method: Method) -> Method:
    """For the last method of a run: when it ends, well or badly, the run is over."""

    @functools.wraps(method)
    def last(run: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            result = method(run, *args, **kwargs)
        except BaseException as fault:
            run.ended_badly(fault)
            raise
        run.life.end()
        return result

    return last  # type: ignore[return-value]  # same signature


def _named(sources: Iterable[SourceFile]) -> tuple[list[str], dict[str, str]]:
    """(names of the claims, what to call each)."""
    shown = {source_claim(source.dataset, source.fingerprint): source.name for source in sources}
    return list(shown), shown


def _events_flow() -> bool:
    """False while the server is away and events pile up: each one left would hold the end of the process for seconds (7 s measured)."""
    waiting = getattr(EventsWorker.instance(), "_queue", None)
    return waiting is None or waiting.qsize() < MOST_WAITING


def _flow_runs() -> list[tuple[str, str]]:
    """(id, name) of the flow run of this context."""
    run = FlowRunContext.get()
    return [(str(run.flow_run.id), run.flow_run.name)] if run is not None and run.flow_run is not None else []


def _patience_of_server() -> float:
    """Seconds of silence after which the server takes a run for dead; endless where it has no crash detection, or cannot be asked."""
    try:
        with get_client(sync_client=True) as client:
            found = client.read_automations_by_name(CRASH_AUTOMATION)
    except Exception as fault:  # an older server, or one that is away for a moment
        _log.debug("crash detection of the server is not known: %s", fault)
        return inf
    # Who bootstrapped the server with other settings than this run has must not have it taken for dead.
    return min((automation.trigger.within.total_seconds() for automation in found if isinstance(automation.trigger, EventTrigger)), default=inf)


def _record(run_id: str, title: str, settings: Settings) -> RunRecord:
    context = FlowRunContext.get()
    run = context.flow_run if context is not None else None
    return RunRecord(
        run_id=run_id,
        flow=context.flow.name if context is not None and context.flow is not None else title,
        parameters=dict((context.parameters if context is not None else None) or {}),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        owner=Owner.me().text,
        machine=socket.gethostname(),
        heartbeat_s=settings.heartbeat_s,
        flow_run=str(run.id) if run is not None else "",
        deployment=str(run.deployment_id) if run is not None and run.deployment_id is not None else "",
        api=_without_login(server_url() or ""),
    )


def _without_login(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
