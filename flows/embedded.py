"""The private Prefect API of one run: a server process that lives and dies with the run that started it.

Started by `runtime.py` as `python flows/embedded.py FD`; FD is a bound TCP socket. It serves until its standard input closes, which happens
at the end of the run and as well when the run is killed in any way. Prefect's own temporary server outlives a killed parent for ever, and
a Ctrl-C reaches it before the run has reported its end. Imports nothing of the project: it may run from anywhere.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import threading
import time
from pathlib import Path

import uvicorn
from prefect.settings import get_current_settings

# What the run sent last may still be on its way through the server's queues to the database; they are empty when the process idles.
IDLE_WINDOW_S, IDLE_CPU_S, LINGER_S = 0.25, 0.03, 10.0
# A server that does not come down by itself (a client that never hangs up) is ended.
GRACE_S = 30.0


def serve(fd: int) -> None:
    """Serve Prefect's API on the bound socket `fd` until standard input closes."""
    # The lock falls with this process, or when startup ends: two first runs at once would both create the tables, and one would fail.
    lock = _startup_lock(Path(get_current_settings().home))
    config = uvicorn.Config("prefect.server.api.server:create_app", factory=True, log_level="error", lifespan="on", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    threading.Thread(target=_unlock_when_started, args=(server, lock), daemon=True).start()
    threading.Thread(target=_stop_at_end_of_input, args=(server,), daemon=True).start()
    server.run(sockets=[socket.socket(fileno=fd)])
    # The services have stopped and the database is closed; the interpreter's own end would take 3 s more (measured) for threads that idle.
    sys.stderr.flush()
    os._exit(0 if server.started else 3)


def _startup_lock(home: Path) -> int:
    home.mkdir(parents=True, exist_ok=True)
    lock = os.open(home / "bookmill-start.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def _unlock_when_started(server: uvicorn.Server, lock: int) -> None:
    while not server.started and not server.should_exit:
        time.sleep(0.05)
    os.close(lock)


def _stop_at_end_of_input(server: uvicorn.Server) -> None:
    sys.stdin.buffer.read()
    end = time.monotonic() + LINGER_S
    while time.monotonic() < end:
        before = time.process_time()
        time.sleep(IDLE_WINDOW_S)
        if server.started and time.process_time() - before < IDLE_CPU_S:
            break
    server.should_exit = True
    time.sleep(GRACE_S)
    os._exit(1)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
