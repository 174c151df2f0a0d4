"""A real Dask cluster on loopback: a scheduler and workers, each a process of its own that can be killed and started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parents[2]


class DaskCluster:
    """scheduler and workers by number; a context manager. address: of the scheduler. Output goes to files in `folder`."""

    def __init__(self, folder: Path, workers: int = 2) -> None:
        self.folder, self.count = folder, workers
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        self.start("scheduler")
        for number in range(self.count):
            self.start(f"worker-{number}")
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()

    def start(self, name: str) -> None:
        """As a service would start it, also again after it was killed."""
        if name == "scheduler":
            command = ["scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--dashboard-address", "127.0.0.1:0"]
        else:
            # Without the nanny, whose process id would be the one that is known here.
            command = ["worker", self.address, "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny", "--no-dashboard", "--memory-limit", "1GiB"]
            command += ["--name", name, "--local-directory", str(self.folder / name)]
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("BOOKMILL_", "PREFECT_"))}
        environ |= {"PYTHONPATH": str(ROOT), "PREFECT_HOME": str(self.folder / "home")}
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "dask", *command], env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder
            )

    def kill(self, name: str) -> None:
        """SIGKILL."""
        self.processes[name].send_signal(signal.SIGKILL)
        self.processes[name].wait()

    def start_those_that_ended(self) -> None:
        """What a service does: workers end when their scheduler is gone."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                self.start(name)

    def name_of(self, pid: int) -> str | None:
        """The worker with this process id."""
        return next((name for name, process in self.processes.items() if process.pid == pid and name != "scheduler"), None)

    def said(self, name: str) -> str:
        """Its output."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def wait_for(self, text: str, name: str, seconds: float = 60) -> None:
        """Until `name` has said `text`."""
        end = time.monotonic() + seconds
        while text not in self.said(name):
            if time.monotonic() > end or self.processes[name].poll() is not None:
                raise RuntimeError(f"{name}: no {text!r} in {self.said(name)[-2000:]}")
            time.sleep(0.1)
