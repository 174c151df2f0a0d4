"""What runs inside the workers of a Dask cluster: our environment there, and the answer to whether a worker fits the run.

Unpickled by workers before any task: it must not import Prefect, nor anything that does, at its top.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import distributed

from config import environment
from config.settings import Settings
from flows import relay
from flows.runtime import prepare
from tasks.schemas import CODE_VERSION

# All runs on a cluster share one topic, because a scheduler keeps every topic that it has ever heard of.
TOPIC = "bookmill"


class Prepared(distributed.WorkerPlugin):
    """Set up on every worker, those that join later included. embedded_api: URL of the run's private API, None when it has a server."""

    name = "bookmill"

    def __init__(self, settings: Settings, embedded_api: str | None) -> None:
        self.settings, self.embedded_api = settings, embedded_api

    def setup(self, worker: Any) -> None:
        """Prefect's variables, log levels, and the way back for progress."""
        prepare(self.settings)
        if self.embedded_api is None:
            os.environ.pop(environment.EMBEDDED_API, None)
        else:
            os.environ[environment.EMBEDDED_API] = self.embedded_api
        relay.send_by(lambda message: worker.log_event(TOPIC, message))


def hand_over() -> None:
    """Send the task states and log lines that Prefect still holds here; for workers that are about to end."""
    from prefect.events.worker import EventsWorker  # not at the top, see above
    from prefect.logging.handlers import APILogWorker

    EventsWorker.drain_all(timeout=20)
    APILogWorker.drain_all(timeout=20)


def look_around(probe: str) -> dict[str, Any]:
    """Host, code version, and whether the file `probe` is seen from here."""
    return {"host": socket.gethostname(), "code": CODE_VERSION, "sees": Path(probe).exists()}
