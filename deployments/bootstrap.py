"""What Bookmill needs on a Prefect server before its deployments run there: shared slots, a work pool, automations. Run again after any change.

Limits belong to the server, so the last one who bootstraps decides their size: run it with the settings of the machine that does the work.
"""

from __future__ import annotations

from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate, WorkPoolCreate
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.workers.process import ProcessWorker

from config.settings import Settings
from config.values import show_bytes
from deployments.automations import FLOWS, ensure_automations, named_block, webhook_block
from flows.policies import CPU_LIMIT, MEMORY_LIMIT, server_url
from tasks.errors import BookmillError, UsageError

WORK_POOL = "bookmill"


def bootstrap(settings: Settings, *, notify_webhook: str = "", notify_block: str = "", release_slots: bool = False) -> list[str]:
    """Create or resize the global concurrency limits, create the work pool and the automations; returns a line for each, saying what was done.

    notify_webhook: URL, notify_block: TYPE/NAME of a notification block; alerts go there, without either nothing is sent. release_slots: free the
    slots of dead runs now instead of when their leases end. Doing it twice changes nothing, and slots that running tasks hold stay held.
    Raises UsageError without a configured server (PREFECT_API_URL), BookmillError when it cannot be reached or refuses.
    """
    if notify_webhook and notify_block:
        raise UsageError("Give --notify-webhook or --notify-block, not both: alerts have one target. More can be added to the automations by hand.")
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
                *ensure_automations(client, settings, _target(client, notify_webhook, notify_block)),
                *(_release(client) if release_slots else []),
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


def _target(client: SyncPrefectClient, webhook: str, block: str) -> UUID | None:
    return webhook_block(webhook) if webhook else named_block(client, block) if block else None


def _release(client: SyncPrefectClient) -> list[str]:
    """Free all slots. Raises UsageError while a run that may hold some is going on."""
    running = client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=list(FLOWS))),
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.CANCELLING]))),
    )
    if running:
        raise UsageError(
            f"Slots were not released: {len(running)} runs are going on there, the first is {running[0].name}. Wait for them, or set those that are "
            "dead to Crashed (`bookmill resume` lists them); slots of dead runs come back by themselves after their lease."
        )
    lines = []
    for name in (CPU_LIMIT, MEMORY_LIMIT):
        taken = client.read_global_concurrency_limit_by_name(name).active_slots
        client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(active_slots=0))
        lines.append(f"released {taken} slots of the global concurrency limit {name}")
    return lines


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
