"""Prefect as the ground under a flow: its environment, and the API that a run reports to. No flow, no task, no settings of ours here.

`with api(settings):` goes round everything that imports or runs flows. Prefect reads its variables once, when it is first imported, so this
module must not import it, nor anything that does, at its top.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import inspect
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from config import environment
from config.logging_format import use_json
from config.settings import Settings
from tasks.errors import BookmillError, StorageError, UsageError

LOGGERS = ("bookmill", "flows", "tasks", "validation", "deployments")

_FIXED = {
    # No network call that the user did not ask for; the first two are needed both.
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "GX_ANALYTICS_ENABLED": "false",
    # The second interface asks an outside host even then.
    "PREFECT_SERVER_UI_V2_ENABLED": "false",
    # A user whose profile names no API, and not the temporary one either, still gets a run.
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
    # One insert per task run is the default and falls behind. The interval is cut to whole seconds: 0.5 becomes 0 and keeps a core busy (measured).
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    # A server whose database is away for a moment answers 500, which the client takes as final by itself.
    "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500",
    # Plain loggers of ours reach the log tab of the run, and stay silent about it outside of one.
    "PREFECT_LOGGING_EXTRA_LOGGERS": ",".join(LOGGERS),
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}
# Only for our private server.
_EMBEDDED = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}

# For what Prefect has not sent when the work is over. By itself it waits without a limit: 7 s for each event at a server that is gone, 117 s at one
# that hangs (measured), with 50 events and more in its queue. A private API is on this machine and has nothing else to do.
TELL_S, TELL_PRIVATE_S = 120.0, 20.0
# A connection that hangs is given up within 10 s.
GIVE_UP_S = 15.0

_log = logging.getLogger(__name__)


def prepare(settings: Settings, *, api_url: str | None = None) -> str | None:
    """Set Prefect's variables for this process and its children; what the user set, by variable or Prefect profile, stays.

    api_url: of a Prefect server, over any other choice. Returns the URL that runs will report to, None when none is configured.
    Raises UsageError for a URL that is none, or that holds a password.
    """
    chosen = environment.prefect_choices()
    wanted = _FIXED | {
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": str(max(1, int(settings.prefect_start_timeout_s))),
        # The level of the terminal only: PREFECT_LOGGING_LEVEL would empty the log tab as well.
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": settings.log_level,
    }
    for name, value in wanted.items():
        if name not in chosen:
            os.environ.setdefault(name, value)
    for name in LOGGERS:
        logging.getLogger(name).setLevel(min(logging.INFO, logging.getLevelName(settings.log_level)))

    url = api_url or chosen.get("PREFECT_API_URL") or None
    if url is not None and urlsplit(url).password is not None:
        # Prefect repeats the URL in log lines and links of every run.
        raise UsageError("The URL of the Prefect API holds a password; allowed: a URL without. Set PREFECT_API_AUTH_STRING to user:password instead.")
    if url is not None and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
        raise UsageError(f"The Prefect API is {url!r}; allowed: a URL such as http://127.0.0.1:4200/api")
    if api_url:
        os.environ["PREFECT_API_URL"] = api_url
    if "prefect" in sys.modules and api_url and _current_url() != api_url:
        raise RuntimeError("prepare() must run before prefect is imported: it has read its variables already")
    return url


class Api:
    """The API of a run. url: None when Prefect was imported before us and decides by itself; private: started for this run."""

    def __init__(self, url: str | None, timeout_s: float, process: subprocess.Popen[bytes] | None = None, errors: IO[bytes] | None = None) -> None:
        self.url, self.private, self._timeout_s, self._process, self._errors = url, process is not None, timeout_s, process, errors
        # Prefect's handlers exist once it is imported, which is when `ready` is called.
        self.json_lines = False

    def ready(self) -> None:
        """Wait until it answers. Raises BookmillError when it does not: at once for a server of the user's, else after the timeout."""
        if self.json_lines:
            use_json()
        if self.url is None:
            return
        end = time.monotonic() + (self._timeout_s if self.private else 0)
        while not _answers(self.url, direct=self.private):
            if self._process is not None and self._process.poll() is not None:
                raise BookmillError(f"The private Prefect API ended with code {self._process.returncode}. Its last words:\n{self._last_words()}")
            if time.monotonic() >= end and self.private:
                raise BookmillError(
                    f"The private Prefect API did not answer within {self._timeout_s:g} s. The first start takes longest: "
                    f"raise BOOKMILL_PREFECT_START_TIMEOUT_S, or use a running server (--api-url).\n{self._last_words()}"
                )
            if time.monotonic() >= end:
                raise BookmillError(
                    f"No Prefect API answers at {self.url}. Start it with `prefect server start`, correct PREFECT_API_URL (or the active Prefect "
                    "profile), or leave both out to run on a private one."
                )
            time.sleep(0.05)

    def close(self) -> None:
        """Hand over what this process still has to tell, then let the private server end. Harmless when repeated."""
        if self._process is None:
            _drain(TELL_S)
            return
        if self._process.stdin is None or self._process.stdin.closed:
            return
        if self._process.poll() is None:
            _drain(TELL_PRIVATE_S)
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._errors is not None:
            self._errors.close()

    def _last_words(self) -> str:
        if self._errors is None:
            return ""
        self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - 2_000))
        return self._errors.read().decode(errors="replace").strip()


@contextlib.contextmanager
def api(settings: Settings, *, api_url: str | None = None) -> Iterator[Api]:
    """The API for the runs in this block: the server at `api_url` or of the user's choice, else a private one that ends with the block.

    A private one starts in the background (6 s, the first time 15 s: measured on two cores): import the flows first, then call `ready()`.
    Raises StorageError when there is no place for it.
    """
    url = prepare(settings, api_url=api_url)
    if url is not None or "prefect" in sys.modules:
        given = Api(url, settings.prefect_start_timeout_s)
        given.json_lines = settings.log_format == "json"
        try:
            yield given
        finally:
            given.close()
        return
    server = _start(settings)
    server.json_lines = settings.log_format == "json"
    try:
        yield server
    finally:
        server.close()
        for name in ("PREFECT_API_URL", environment.EMBEDDED_API):
            os.environ.pop(name, None)


def end_at_once() -> None:
    """Have flow runs of this process not wait for the end of Prefect's heartbeat thread, which looks once a second whether the run is over.

    That was half a second of every command. The thread sends nothing any more by then, and ends with the process.
    """
    import prefect.flow_engine as engine

    beating = getattr(engine, "_send_heartbeats", None)
    if beating is not None and "join_on_exit" in inspect.signature(beating).parameters:
        engine._send_heartbeats = functools.partial(beating, join_on_exit=False)


def _check_home() -> None:
    """Raise StorageError where Prefect cannot write: its own errors are tracebacks of another process that do not name the variable."""
    home = environment.prefect_home()
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home) as file:
            file.write(bytes(4_096))
    except OSError as fault:
        raise StorageError(
            f"Cannot write in {home}, the folder of Prefect for its database and results: {fault.strerror}. "
            "Free space or change its permissions, or set PREFECT_HOME to a folder that can be written."
        ) from fault


def _start(settings: Settings) -> Api:
    _check_home()
    with socket.socket() as bound:
        # Bound here, so that the URL is known at once and no other process can take the port; it refuses connections until the server listens.
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/api"
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by Api.close; a pipe could fill up, the terminal belongs to the bar
        process = subprocess.Popen(
            # -P: a folder named like one of the server's modules must not stand in for it.
            [sys.executable, "-P", str(Path(__file__).with_name("embedded.py")), str(bound.fileno())],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors, pass_fds=(bound.fileno(),),
            # Its own session: a Ctrl-C must not take the server away before the run has reported its end.
            start_new_session=True, env={**os.environ, **_EMBEDDED},
        )  # fmt: skip
    os.environ["PREFECT_API_URL"] = os.environ[environment.EMBEDDED_API] = url
    return Api(url, settings.prefect_start_timeout_s, process, errors)


def _answers(url: str, *, direct: bool) -> bool:
    # A proxy that the user configured does not lead to our own loopback port.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({})) if direct else urllib.request.build_opener()
    try:
        with opener.open(f"{url.rstrip('/')}/health", timeout=10):
            return True
    except urllib.error.HTTPError as fault:
        return fault.code < 500  # it asks for a login: it is there
    except OSError:
        return False


def _current_url() -> str | None:
    from prefect.settings import get_current_settings

    return get_current_settings().api.url


def _drain(timeout_s: float) -> None:
    """Send the events and log lines that Prefect still holds; task runs are recorded from events, so they would be lost otherwise."""
    if "prefect" not in sys.modules:
        return
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (EventsWorker, APILogWorker):
        # It warns after a moment that items are left; that is what is being waited for.
        logging.getLogger(worker.__name__).setLevel(logging.ERROR)
    try:
        # All services are in one table; taken before, since a service that is told to stop forgets its task.
        services = [(service, service._task) for service in list(EventsWorker._instances.values())]  # type: ignore[misc]
        _, late = EventsWorker.drain_all(timeout=timeout_s)  # type: ignore[misc]  # no coroutine: this thread has no event loop
        if late:
            _log.warning(
                "The Prefect API did not take the last records of this process within %g s: some task states and log lines will be missing in the "
                "interface. The files in the lake are not concerned.", timeout_s,
            )  # fmt: skip
            # The end of the interpreter would wait for them without a limit. What is given up is told above, and not once more by each service.
            logging.getLogger("prefect._internal.concurrency").disabled = True  # it heeds no level but its own
            for service, task in services:
                if task is not None and service._loop is not None:
                    service._loop.call_soon_threadsafe(task.cancel)
            concurrent.futures.wait(late, timeout=GIVE_UP_S)
    except Exception as fault:  # the run itself is over and its files are safe: say it, and end well
        _log.warning("Some records of this run did not reach the Prefect API: %s", fault)
