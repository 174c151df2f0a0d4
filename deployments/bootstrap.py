"""What Bookmill needs on a Prefect server before its deployments run there: shared slots and a work pool. Run again after any change of size.

Limits belong to the server, so the last one who bootstraps decides their size: run it with the settings of the machine that does the work.
"""

from __future__ import annotations

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate, WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.workers.process import ProcessWorker

from config.settings import Settings
from config.values import show_bytes
from flows.policies import CPU_LIMIT, MEMORY_LIMIT, server_url
from tasks.errors import BookmillError, UsageError

WORK_POOL = "bookmill"


def bootstrap(settings: Settings) -> list[str]:
    """Create or resize the global concurrency limits, create the work pool; returns a line for each, saying what was done.

    Doing it twice changes nothing, and slots that running tasks hold stay held. Raises UsageError without a configured server (PREFECT_API_URL),
    BookmillError when it cannot be reached or refuses.
    """
    url = server_url()
    if url is None:
        raise UsageError(
            "No Prefect server is configured, and limits on a private one would end with this command. "
            "Start one with `prefect server start`, then set PREFECT_API_URL, e.g. to http://127.0.0.1:4200/api."
        )
    slot = f"slots of {show_bytes(settings.memory_slot_bytes)}"
    try:
        with get_client(sync_client=True) as client:
            return [
                _limit(client, CPU_LIMIT, settings.cpu_slots, "slots"),
                _limit(client, MEMORY_LIMIT, settings.memory_slots, slot),
                _work_pool(client),
            ]
    except httpx.HTTPStatusError as fault:
        raise BookmillError(f"The Prefect server at {url} refused: {fault}. Check its version (3.8 or later) and your rights there.") from fault
    except httpx.HTTPError as fault:
        raise BookmillError(
            f"No Prefect API answers at {url} ({fault}). Start it with `prefect server start`, or correct PREFECT_API_URL."
        ) from fault


def _limit(client: SyncPrefectClient, name: str, slots: int, unit: str) -> str:
    try:
        existing = client.read_global_concurrency_limit_by_name(name)
    except ObjectNotFound:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=slots))
        return f"created the global concurrency limit {name}: {slots} {unit}"
    off = "" if existing.active else "; it is switched off, so that it limits nothing"
    if existing.limit == slots:
        return f"the global concurrency limit {name} has {slots} {unit} already{off}"
    client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(limit=slots))
    return f"changed the global concurrency limit {name} from {existing.limit} to {slots} {unit}{off}"


def _work_pool(client: SyncPrefectClient) -> str:
    pool = WorkPoolCreate(
        name=WORK_POOL,
        type="process",
        description="Runs of Bookmill, each a process of a worker on this machine",
        base_job_template=ProcessWorker.get_default_base_job_template(),
    )
    try:
        client.create_work_pool(pool)
    except ObjectAlreadyExists:
        return f"the work pool {WORK_POOL} is there already"
    return f"created the work pool {WORK_POOL}: start a worker with `prefect worker start --pool {WORK_POOL}`"
