"""`bookmill deploy`: everything in prefect.yaml onto a server, without questions, as often as one likes.

Prefect's own `deploy` sets schedules back to what the file says, and drops those that were added by hand. Here what people set since (a schedule
switched on, its parameters, a default in the form) is read first and handed on.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from prefect.settings import get_current_settings

from config.settings import Settings
from deployments.bootstrap import bootstrap
from tasks.errors import BookmillError

# The folder that holds flows/ and deployments/: the checkout, or site-packages.
ROOT = Path(__file__).resolve().parents[1]
PREFECT_FILE = ROOT / "deployments" / "prefect.yaml"


def deploy(settings: Settings, lake: Path | None = None) -> list[str]:
    """Create or renew limits, work pool and deployments; returns a line for each and what to do next.

    lake: what the forms offer as lake; None: what they offered before, at first the setting `lake`. Raises UsageError without a configured server,
    BookmillError where it cannot be reached or refuses.
    """
    lines = bootstrap(settings)
    wanted = yaml.safe_load(PREFECT_FILE.read_text(encoding="utf-8"))
    names = [deployment["name"] for deployment in wanted["deployments"]]
    try:
        with get_client(sync_client=True) as client:
            before = _existing(client, names)
            # A flow that is new there gets the lake that the others have.
            known = {found.parameters["lake"] for found in before.values() if found.parameters.get("lake")}
            first = known.pop() if len(known) == 1 else str(settings.lake.absolute())
            for deployment in wanted["deployments"]:
                deployment["version"] = version("bookmill")
                _keep(deployment, before.get(deployment["name"]), first, lake.absolute() if lake else None)
            _run_prefect(wanted)
            after = _existing(client, names)
            lines += [_line(client, after[name], name in before) for name in names]
    except httpx.HTTPError as fault:
        raise BookmillError(
            f"The Prefect server did not take the deployments ({fault}). Look at its log, then run `bookmill deploy` again."
        ) from fault
    pool = wanted["deployments"][0]["work_pool"]["name"]
    return [
        *lines,
        f"next: start a worker where the files are, `prefect worker start --pool {pool}`",
        f"then: open {get_current_settings().ui_url or 'the interface'}/deployments, choose a deployment, Run",
    ]


def _existing(client: SyncPrefectClient, names: list[str]) -> dict[str, DeploymentResponse]:
    """Ours by name, which is that of their flow, too: other projects on the server may have deployments of the same name."""
    of_name = client.read_deployments(deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=names)))
    return {found.name: found for found in of_name if client.read_flow(found.flow_id).name == found.name}


def _keep(deployment: dict[str, Any], before: DeploymentResponse | None, first: str, lake: Path | None) -> None:
    """Put into the wanted deployment what people set on the existing one."""
    parameters = {"lake": first} | deployment.get("parameters", {}) | (before.parameters if before else {})
    deployment["parameters"] = parameters | ({"lake": str(lake)} if lake else {})
    known = {schedule.slug: schedule for schedule in before.schedules if schedule.slug} if before else {}
    for schedule in deployment["schedules"]:
        if (old := known.get(schedule["slug"])) is not None:
            schedule["active"] = old.active
            if old.parameters:
                schedule["parameters"] = schedule.get("parameters", {}) | old.parameters
    ours = {schedule["slug"] for schedule in deployment["schedules"]}
    deployment["schedules"] += [_as_written(old) for old in before.schedules if old.slug not in ours] if before else []


def _as_written(schedule: DeploymentSchedule) -> dict[str, Any]:
    """A schedule of the server as prefect.yaml writes it."""
    when = schedule.schedule
    written: dict[str, Any] = {"active": schedule.active}
    if isinstance(when, CronSchedule):
        written |= {"cron": when.cron, "day_or": when.day_or, "timezone": when.timezone}
    elif isinstance(when, IntervalSchedule):
        written |= {"interval": when.interval.total_seconds(), "anchor_date": when.anchor_date.isoformat(), "timezone": when.timezone}
    elif isinstance(when, RRuleSchedule):
        written |= {"rrule": when.rrule, "timezone": when.timezone}
    written |= {"slug": schedule.slug} if schedule.slug else {}
    return written | ({"parameters": schedule.parameters} if schedule.parameters else {})


def _run_prefect(wanted: dict[str, Any]) -> None:
    """`prefect deploy` in the folder of the flows, which becomes the working folder of their runs."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "prefect.yaml")
        file.write_text(yaml.safe_dump(wanted), encoding="utf-8")
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--prefect-file", str(file), "--all"]
        done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BookmillError(f"`prefect deploy` ended with code {done.returncode}. Its last words:\n{(done.stdout + done.stderr)[-2_000:].strip()}")


def _line(client: SyncPrefectClient, deployment: DeploymentResponse, was_there: bool) -> str:
    flow = client.read_flow(deployment.flow_id).name
    schedules = ", ".join(sorted(f"{s.slug or 'one without a name'} {'on' if s.active else 'off'}" for s in deployment.schedules))
    verb = "renewed" if was_there else "created"
    return f"{verb} the deployment {flow}/{deployment.name}: lake {deployment.parameters.get('lake')}; schedules {schedules or 'none'}"
