"""Runs as a Prefect server knows them: those that did not finish, whether they still live, and how one is retried there.

Import it only when a server is configured: it imports Prefect.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter, FlowRunFilterId, FlowRunFilterName
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed, Scheduled

from config.settings import load
from deployments.automations import FLOWS
from flows.run_life import HEARTBEAT
from flows.run_record import GRACE_S, MISSED_BEATS, work_of
from tasks.errors import BookmillError, UsageError

MOST = 200  # latest runs that are looked at
_BAD = (StateType.FAILED, StateType.CRASHED)
_ALIVE = (StateType.RUNNING, StateType.CANCELLING)


@dataclass(frozen=True)
class ServerRun:
    """A flow run. state: its name there; why: for a person; alive: it may still work; deployment: id or ""."""

    id: str
    name: str
    flow: str
    started: str
    state: str
    why: str
    alive: bool
    deployment: str
    parameters: dict[str, Any]


def unfinished_runs() -> dict[str, ServerRun]:
    """Of the latest runs of Bookmill's flows those that failed, crashed or are said to run, by id. Of equal work only the last counts.

    Raises BookmillError when the server does not answer.
    """
    with _client() as client:
        flows = {flow.id: flow.name for flow in client.read_flows(flow_filter=FlowFilter(name=FlowFilterName(any_=list(FLOWS))))}
        found = client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=list(FLOWS))), sort=FlowRunSort.START_TIME_DESC, limit=MOST)
        last: dict[str, FlowRun] = {}
        for run in found:
            if run.state is not None and run.start_time is not None and run.parent_task_run_id is None:
                last.setdefault(work_of(flows[run.flow_id], run.parameters), run)
        return {str(run.id): _described(client, run, flows[run.flow_id]) for run in last.values() if run.state_type in (*_BAD, *_ALIVE)}


def find_run(name: str) -> ServerRun:
    """The flow run of this id or name. Raises UsageError when there is none, or several of the name, or it completed."""
    with _client() as client:
        try:
            wanted = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(name)]))
        except ValueError:
            wanted = FlowRunFilter(name=FlowRunFilterName(any_=[name]))
        found = client.read_flow_runs(flow_run_filter=wanted, sort=FlowRunSort.START_TIME_DESC)
        if not found:
            raise UsageError(f"Neither the lake nor the Prefect server knows a run {name}. `bookmill resume` lists those that can be resumed.")
        if len(found) > 1:
            raise UsageError(f"{len(found)} flow runs are named {name!r}; give the id, the latest is {found[0].id}.")
        if found[0].state is not None and found[0].state.is_completed():
            raise UsageError(f"{found[0].name} completed: there is nothing to resume.")
        return _described(client, found[0], client.read_flow(found[0].flow_id).name)


def is_known(flow_run: str) -> bool:
    """Whether the server has a flow run of this id."""
    with _client() as client:
        try:
            client.read_flow_run(UUID(flow_run))
        except ObjectNotFound:
            return False
    return True


def retry(flow_run: str) -> str:
    """Schedule a flow run of a deployment again, under its own id; a sentence that says so. Raises BookmillError when the server refuses."""
    with _client() as client:
        run = client.read_flow_run(UUID(flow_run))
        if run.state is not None and not run.state.is_final():  # its deployment counts it as running, and would let no other start
            client.set_flow_run_state(run.id, Crashed(message="Its process is gone."), force=True)
        client.set_flow_run_state(run.id, Scheduled(name="AwaitingRetry", message="Resumed by `bookmill resume`."), force=True)
    return f"{run.name} ({flow_run}) is scheduled again on the server: a worker of its pool takes it, what is done is skipped."


def bury(flow_run: str) -> None:
    """Set a flow run that is said to run, and whose process is gone, to Crashed."""
    with _client() as client:
        run = client.read_flow_run(UUID(flow_run))
        if run.state is not None and not run.state.is_final():
            client.set_flow_run_state(run.id, Crashed(message="Its process is gone; its work goes on in another run."), force=True)


class _client:
    """A client whose faults are told as ours."""

    def __init__(self) -> None:
        self._client = get_client(sync_client=True)

    def __enter__(self) -> SyncPrefectClient:
        return self._client.__enter__()

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, trace: Any) -> None:
        self._client.__exit__(kind, fault, trace)
        if isinstance(fault, httpx.HTTPError):
            raise BookmillError(f"The Prefect server at {self._client.api_url} does not answer as it should: {fault}.") from fault


def _described(client: SyncPrefectClient, run: FlowRun, flow: str) -> ServerRun:
    assert run.state is not None
    alive, why = False, (run.state.message or run.state.name or "").splitlines()[0]
    if run.state_type in _ALIVE:
        alive, why = _heart(client, run)
    started = run.start_time.isoformat(timespec="seconds") if run.start_time else ""
    deployment = str(run.deployment_id or "")
    return ServerRun(str(run.id), run.name, flow, started, run.state.name or "", why, alive, deployment, run.parameters)


def _heart(client: SyncPrefectClient, run: FlowRun) -> tuple[bool, str]:
    """(whether the run sent a heartbeat lately, how one knows)."""
    patience = timedelta(seconds=MISSED_BEATS * load().heartbeat_s + GRACE_S)
    wanted = {"event": {"name": [HEARTBEAT]}, "resource": {"id": [f"prefect.flow-run.{run.id}"]}, "order": "DESC"}
    events = client.request("POST", "/events/filter", json={"filter": wanted, "limit": 1}).json()["events"]
    last = datetime.fromisoformat(events[0]["occurred"]) if events else run.start_time
    if last is None or datetime.now(UTC) - last > patience:
        return False, f"no heartbeat since {last:%Y-%m-%d %H:%M:%S} UTC" if last else "it never began"
    return True, f"heartbeat {(datetime.now(UTC) - last).total_seconds():.0f} s ago"
