"""A real Prefect server and the real command line, as a user starts them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def prefect_server(home: Path) -> Iterator[str]:
    """URL of the API of a server with its own home, on a free loopback port; stopped by process id."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    environ = {
        **os.environ, "PREFECT_HOME": str(home), "DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_API_URL": "/api", "PREFECT_SERVER_UI_V2_ENABLED": "false",
    }  # fmt: skip
    environ.pop("PREFECT_API_URL", None)
    with open(home / "server.log", "wb") as log:
        # To a file: a pipe that a leftover child held would hang its reader.
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            end = time.monotonic() + 120
            while True:
                try:
                    urllib.request.urlopen(f"{url}/health", timeout=5).close()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > end:
                        raise RuntimeError(f"the server did not start: {(home / 'server.log').read_text()[-2000:]}") from None
                    time.sleep(0.2)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def ask(url: str, path: str, body: dict[str, Any] | None = None, method: str | None = None, **headers: str) -> Any:
    """The answer of the API as JSON. A server whose database is busy says 503, upon which Prefect's own client asks again as well."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}{path}", data, {"Content-Type": "application/json", **headers}, method=method)
    end = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as fault:
            if fault.code != 503 or time.monotonic() > end:
                raise
            time.sleep(1)


def start_bookmill(arguments: list[str], url: str, home: Path, log: Path) -> subprocess.Popen[bytes]:
    """`bookmill ARGUMENTS` as a process of its own that reports to the server at `url`; output goes to `log`."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("BOOKMILL_")}
    environ |= {"PREFECT_API_URL": url, "PREFECT_HOME": str(home), "BOOKMILL_PROFILE": "ci", "PYTHONPATH": str(ROOT)}
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "deployments.cli", *arguments], env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=log.parent
        )


def bookmill(arguments: list[str], url: str, home: Path, log: Path) -> tuple[int, str]:
    """Exit code and output of `bookmill ARGUMENTS`."""
    code = start_bookmill(arguments, url, home, log).wait(240)
    return code, log.read_text()


def data_files(lake: Path) -> dict[str, bytes]:
    """Every file of the lake that holds data, by name; what tells of single runs (reports, runs) is left out."""
    return {
        path.relative_to(lake).as_posix(): path.read_bytes()
        for path in sorted(lake.rglob("*"))
        if path.is_file() and path.relative_to(lake).parts[0] not in ("reports", "runs") and not path.name.startswith(".")
    }
