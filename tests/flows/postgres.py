"""A real PostgreSQL on loopback, with a folder of its own; not as root, because PostgreSQL refuses that."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

BINARIES = [Path("/usr/local/bin"), *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]


def binary(name: str) -> str | None:
    """Path of a program of PostgreSQL, None where it is not installed."""
    return shutil.which(name) or next((str(folder / name) for folder in BINARIES if (folder / name).exists()), None)


class Postgres:
    """A database server that can be killed and started again; a context manager. url: for Prefect."""

    def __init__(self) -> None:
        # Not below pytest's folders: another user must be able to get there.
        self._folder = tempfile.TemporaryDirectory(prefix="postgres-")
        self.folder = Path(self._folder.name)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"postgresql+asyncpg://prefect@127.0.0.1:{self.port}/postgres"
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            somebody = next(user for name in ("postgres", "nobody") for user in pwd.getpwall() if user.pw_name == name)
            self._as = {"user": somebody.pw_uid, "group": somebody.pw_gid, "extra_groups": []}

    def __enter__(self) -> Self:
        if self._as:
            os.chown(self.folder, self._as["user"], self._as["group"])
        command = [binary("initdb"), "-D", str(self.folder / "data"), "-U", "prefect", "--auth=trust", "-E", "UTF8", "--locale=C"]
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder, **self._as)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGINT)  # "fast" shutdown
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
        self._folder.cleanup()

    def start(self) -> None:
        """Start, and wait until it answers; after a kill it first repairs itself from its log."""
        log_path = self.folder / "postgres.log"
        options = ["-h", "127.0.0.1", "-p", str(self.port), "-k", "", "-c", "max_connections=60"]
        command = [binary("postgres"), "-D", str(self.folder / "data"), *options]
        with log_path.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, **self._as)
        end = time.monotonic() + 60
        while "ready to accept connections" not in log_path.read_text():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"PostgreSQL did not start: {log_path.read_text()[-2000:]}")
            time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL to the server and to the processes of its connections, as when the machine fails."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self._process.kill()
        self._process.wait()
        for child in children:
            try:
                os.kill(int(child), signal.SIGKILL)
            except ProcessLookupError:
                continue
