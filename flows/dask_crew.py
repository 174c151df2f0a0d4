"""The workers of a Dask cluster as the crew of a run: a cluster given by its scheduler's address, else one of our own on this machine."""

from __future__ import annotations

import logging
import sys
import time
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path
from typing import Any

import cloudpickle
from distributed import Client, KilledWorker
from distributed.client import ClosedClientError
from distributed.comm import CommClosedError
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture
from prefect_dask import DaskTaskRunner

from config import environment
from config.settings import Settings
from config.values import MIB
from flows.dask_worker import TOPIC, Prepared, hand_over, look_around
from flows.runners import TASK_BYTES, Crew, Ear, WorkersLost, cut, memory_of_children, processes_in, share_of
from tasks.errors import UsageError
from tasks.schemas import CODE_VERSION
from tasks.storage import temporary_copy
from tasks.work import Work

# A cluster that is asked for must be there soon; one that was lost has the time that a service takes to start it again.
FIND_S, WAIT_S = 15.0, 60.0
LOOK_EVERY_S = 5.0
# Resident beside the data, measured over whole runs of 6,000 records: 614 to 619 MiB, which is 80 more than a process of a pool.
WORKER_BYTES = 620 * MIB
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")

# A lost scheduler is told in a line by us; the client would print the tracebacks of its own attempts over it.
logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
# Workers of a cluster of ours take longer than its 4 s to end, and are killed, after they have handed over all (`hand_over`).
logging.getLogger("distributed.nanny").setLevel(logging.ERROR)


class DaskCrew(Crew):
    """Dask starts tasks of a dead worker again on another; where the scheduler dies, this begins again at the same address.

    Raises UsageError for workers that do not fit (other code, another lake), WorkersLost where nobody answers.
    """

    kind = "dask"
    lost = (CancelledError, CommClosedError, ClosedClientError, KilledWorker)

    def __init__(self, settings: Settings, ear: Ear, address: str, lake: Path) -> None:
        super().__init__(settings, ear)
        self.address, self.lake = address if "://" in address or not address else f"tcp://{address}", lake
        self.workers = processes_in(settings, WORKER_BYTES)
        self._patience = FIND_S
        self.threads, self.share = 1, share_of(settings, self.workers, WORKER_BYTES)
        if self.address and environment.embedded_api() and not self.address.split("://")[1].startswith(LOOPBACK):
            raise UsageError(
                f"The Dask cluster at {self.address} may have workers on other machines, which cannot reach the private Prefect API of this run. "
                "Start `prefect server start --host 0.0.0.0` and set PREFECT_API_URL (or --api-url) to a URL that the workers reach, too."
            )

    def work(self) -> Work:
        """Of one worker of the cluster."""
        return self._remote_work(self.share, self.threads)

    def __exit__(self, *reason: object) -> None:
        if not self.address:
            with suppress(Exception):  # the work is done; what is not handed over is missing in the interface only
                self._runner.client.run(hand_over)
        super().__exit__(*reason)

    def memory_bytes(self) -> int:
        """Of a cluster of our own; what workers elsewhere hold, their Dask says."""
        return 0 if self.address else memory_of_children()

    def _start(self) -> None:
        _take_along_the_flow()
        self._runner = self._new_runner()
        self._submit_to(self._runner)
        patience, self._patience = self._patience, WAIT_S
        end = time.monotonic() + patience
        while True:
            try:
                client = self._runner.client
                client.wait_for_workers(1, timeout=max(1.0, end - time.monotonic()))
                break
            except (OSError, TimeoutError, *self.lost) as fault:
                if time.monotonic() < end and not isinstance(fault, TimeoutError):
                    time.sleep(0.5)
                    continue
                raise WorkersLost(
                    f"No Dask scheduler with workers answers at {self.address or 'this machine'} within {patience:g} s "
                    f"({fault or type(fault).__name__}). Start `dask scheduler` and `dask worker`, or correct --dask-address; "
                    "without it a cluster is started on this machine."
                ) from fault
        self._alone_since: float | None = None
        client.register_plugin(Prepared(self.settings, environment.embedded_api()))
        client.subscribe_topic(TOPIC, lambda event: self._hear(event[1]))
        self._look(client)

    def _new_runner(self) -> DaskTaskRunner:
        if self.address:
            return DaskTaskRunner(address=self.address, client_kwargs={"timeout": 10})
        # No memory limit of Dask's: it counts what is mapped, too, and would kill workers that keep to their share.
        local = {"n_workers": self.workers, "threads_per_worker": 1, "memory_limit": 0, "host": "127.0.0.1", "dashboard_address": None}
        return DaskTaskRunner(cluster_kwargs=local)

    def _look(self, client: Client) -> None:
        """Whether the workers fit the run, and what each may use."""
        with temporary_copy(Path(__file__), str(self.lake)) as probe:
            try:
                found: dict[str, dict[str, Any]] = client.run(look_around, str(probe))
            except ModuleNotFoundError as fault:
                raise UsageError(
                    f"The Dask workers at {self.address} cannot load Bookmill ({fault}); install the same version in their environment."
                ) from fault
        for where, worker in found.items():
            if worker["code"] != CODE_VERSION:
                raise UsageError(
                    f"The Dask worker {where} makes bytes of version {worker['code']}, this run {CODE_VERSION}; install the same version."
                )
            if not worker["sees"]:
                raise UsageError(
                    f"The Dask worker {where} on {worker['host']} does not see the lake {self.lake}; put it on a file system that all of them share "
                    "under the same path."
                )
        if self.address:
            workers = client.scheduler_info(n_workers=-1)["workers"].values()
            self.threads = max((w["nthreads"] for w in workers), default=1)
            # 0 is a worker without a limit, of which nothing is known: it gets what one process here would.
            limits = [w["memory_limit"] for w in workers if w["memory_limit"]]
            memory = min(limits) if limits else self.share.memory_bytes + WORKER_BYTES
            self.share = cut(self.settings, max(TASK_BYTES, memory - WORKER_BYTES), self.threads)
            self.workers = sum(w["nthreads"] for w in workers)

    def _result(self, future: PrefectFuture[Any]) -> Any:
        while True:
            try:
                return future.result(timeout=LOOK_EVERY_S, raise_on_failure=False)
            except TimeoutError:
                self._anybody_there()

    def _anybody_there(self) -> None:
        """Raises WorkersLost when the cluster has had no worker for a while: Dask itself would wait for ever."""
        if self._runner.client.scheduler_info()["n_workers"]:
            self._alone_since = None
            return
        self._alone_since = self._alone_since or time.monotonic()
        if time.monotonic() - self._alone_since > WAIT_S:
            raise WorkersLost(
                f"The Dask cluster at {self.address or 'this machine'} has had no worker for {WAIT_S:g} s. Start workers and run again: "
                "what is finished is kept."
            )


def _take_along_the_flow() -> None:
    """Deployments load a flow by its file, as a module that no worker could import by that name; its few lines then travel with each task."""
    context = FlowRunContext.get()
    if context is not None and context.flow is not None:
        name = context.flow.fn.__module__
        if not name.startswith("flows.") and name in sys.modules and name != "__main__":
            cloudpickle.register_pickle_by_value(sys.modules[name])
