"""What the fault campaign runs on: a server with its database, a worker, a Dask cluster, runs; each a process that can be killed and started again.

What is killed when, and what must hold afterwards, is in test_rounds.py.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import psutil

from tests.flows.dask_cluster import DaskCluster
from tests.flows.postgres import Postgres, binary
from tests.flows.servers import ask

ROOT = Path(__file__).resolve().parents[2]
LIMITS = ("bookmill-cpu", "bookmill-memory")
# The shortest heartbeat whose crash detection Prefect takes: it waits for 10 s.
HEARTBEAT_S = "3"
OVER = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def until(what: Callable[[], Any], seconds: float, told: str) -> Any:
    """The first true value of `what`."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, told
        time.sleep(0.05)
    return found


def family(pid: int) -> list[psutil.Process]:
    """A process and all below it that are there now."""
    with suppress(psutil.NoSuchProcess):
        return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return []


def kill_all(processes: list[psutil.Process]) -> None:
    """SIGKILL as when a machine goes away: none of them can tell anybody of another one's death."""
    for act in (psutil.Process.suspend, psutil.Process.kill):
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                act(process)


class Server:
    """A Prefect server on a port of its own, on PostgreSQL where that is installed, else on SQLite. url: of its API."""

    def __init__(self, home: Path) -> None:
        self.home, self._open = home, ExitStack()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.database: Postgres | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        if binary("postgres") and binary("initdb"):
            self.database = self._open.enter_context(Postgres())
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._open.close()

    def start(self) -> None:
        """Start, and wait until it answers."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("BOOKMILL_", "PREFECT_"))}
        environ |= {
            "PREFECT_HOME": str(self.home), "DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_SERVER_UI_ENABLED": "false",
            # Slots of runs that were alive all the time must not be forgotten with a server that was killed.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        }  # fmt: skip
        if self.database is not None:
            environ["PREFECT_API_DATABASE_CONNECTION_URL"] = self.database.url
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        with (self.home / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(self._answers, 180, "the server did not start")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.home / "server.log").read_text()[-2000:]
        with suppress(OSError):
            urllib.request.urlopen(f"{self.url}/health", timeout=5).close()
            return True
        return False

    def kill(self) -> None:
        """SIGKILL to the server and to what it started."""
        if self.process is not None:
            kill_all(family(self.process.pid))
            self.process.wait()

    def call(self, path: str, body: dict[str, Any] | None = None, method: str | None = None) -> Any:
        """The answer of the API as JSON; one that is too busy is asked again."""
        return ask(self.url, path, body, method)


class Ground:
    """All of it, each part started when a round first needs it. A context manager. folder: for homes and logs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._open = folder, ExitStack()
        self._server: Server | None = None
        self._cluster: DaskCluster | None = None
        self._deployment = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def server(self) -> Server:
        """With limits, work pool and crash detection. The limits are switched off: no round is to wait for the slots of the one before it."""
        if self._server is None:
            home = self.folder / "server"
            home.mkdir()
            self._server = self._open.enter_context(Server(home))
            code, output = self.bookmill(["bootstrap"], self.folder / "bootstrap.log")
            assert code == 0, output
            for name in LIMITS:
                self._server.call(f"/v2/concurrency_limits/{name}", {"active": False}, "PATCH")
        return self._server

    @property
    def cluster(self) -> DaskCluster:
        """A scheduler and two workers, those that ended in an earlier round started again."""
        if self._cluster is None:
            folder = self.folder / "dask"
            folder.mkdir()
            self._cluster = self._open.enter_context(DaskCluster(folder))
            for number in range(2):
                self._cluster.wait_for("Registered to", f"worker-{number}")
        self._cluster.start_those_that_ended()
        return self._cluster

    @property
    def deployment(self) -> str:
        """Id of the deployment of the flow market-by-order."""
        if not self._deployment:
            command = [
                sys.executable,
                "-m",
                "prefect",
                "--no-prompt",
                "deploy",
                "--prefect-file",
                "deployments/prefect.yaml",
                "-n",
                "market-by-order",
            ]
            environ = self._environ(self.server.url)
            done = subprocess.run(command, env=environ, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            self._deployment = self.server.call("/deployments/name/market-by-order/market-by-order")["id"]
        return self._deployment

    def _environ(self, url: str | None) -> dict[str, str]:
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("BOOKMILL_", "PREFECT_"))}
        environ |= {"PREFECT_HOME": str(self.folder / "home"), "PYTHONPATH": str(ROOT), "DO_NOT_TRACK": "1"}
        environ |= {"BOOKMILL_PROFILE": "ci", "BOOKMILL_HEARTBEAT_S": HEARTBEAT_S}
        return environ if url is None else environ | {"PREFECT_API_URL": url}

    def start(self, arguments: list[str], log: Path, *, private: bool = False) -> subprocess.Popen[bytes]:
        """`bookmill ARGUMENTS`, on the server or on an API of its own; output is added to `log`."""
        environ = self._environ(None if private else self.server.url)
        with log.open("ab") as out:
            command = [sys.executable, "-m", "deployments.cli", *arguments]
            return subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=log.parent)

    def bookmill(self, arguments: list[str], log: Path, *, private: bool = False) -> tuple[int, str]:
        """Exit code and output of `bookmill ARGUMENTS`."""
        code = self.start(arguments, log, private=private).wait(400)
        return code, log.read_text(errors="replace")

    @contextmanager
    def worker(self, log: Path) -> Iterator[subprocess.Popen[bytes]]:
        """A worker of the pool; killed with all that it started when the block ends."""
        environ = self._environ(self.server.url) | {"PREFECT_WORKER_QUERY_SECONDS": "1"}
        with log.open("ab") as out:
            command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "bookmill"]
            process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=ROOT)
        try:
            yield process
        finally:
            kill_all(family(process.pid))
            process.wait()
