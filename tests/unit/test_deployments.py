"""prefect.yaml held against the flows: every flow is deployed, its form reads well, its schedules keep to the clock of their venue."""

from __future__ import annotations

import ast
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import yaml
from prefect.client.schemas.schedules import CronSchedule
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema

from deployments.bootstrap import WORK_POOL
from flows.runtime import LOGGERS

ROOT = Path(__file__).resolve().parents[2]
DEPLOYMENTS = yaml.safe_load((ROOT / "deployments/prefect.yaml").read_text(encoding="utf-8"))["deployments"]

each = pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: d["name"])


def schema(deployment) -> dict:
    return parameter_schema(load_flow_from_entrypoint(str(ROOT / deployment["entrypoint"]))).model_dump()


def test_every_flow_is_deployed_once():
    flows = []
    for path in sorted((ROOT / "flows").glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            calls = [d.func if isinstance(d, ast.Call) else d for d in getattr(node, "decorator_list", [])]
            if any(isinstance(call, ast.Name) and call.id == "flow" for call in calls):
                flows.append(f"flows/{path.name}:{node.name}")
    assert len(flows) >= 2
    assert sorted(d["entrypoint"] for d in DEPLOYMENTS) == sorted(flows)


@each
def test_a_deployment_says_what_it_is_and_where_it_runs(deployment):
    assert load_flow_from_entrypoint(str(ROOT / deployment["entrypoint"])).name == deployment["name"]
    assert "bookmill" in deployment["tags"]
    assert len(deployment["tags"]) > 1
    assert len(deployment["description"]) > 80
    assert "**lake**" in deployment["description"]
    assert deployment["work_pool"]["name"] == WORK_POOL
    assert deployment["concurrency_limit"]["limit"] >= 1
    # A run that looks round every few minutes is not missed when one is still going on; any other waits for its turn.
    strategy = "CANCEL_NEW" if any(s["cron"].startswith("*/") for s in deployment["schedules"]) else "ENQUEUE"
    assert deployment["concurrency_limit"]["collision_strategy"] == strategy


@each
def test_a_run_of_a_worker_logs_to_its_tab_and_calls_nobody(deployment):
    env = deployment["work_pool"]["job_variables"]["env"]
    assert set(LOGGERS) <= set(env["PREFECT_LOGGING_EXTRA_LOGGERS"].split(","))
    assert "bookmill" in env["PREFECT_LOGGING_EXTRA_LOGGERS"].split(",")
    assert (env["DO_NOT_TRACK"], env["GX_ANALYTICS_ENABLED"]) == ("1", "false")
    assert all(isinstance(value, str) for value in env.values())


@each
def test_a_form_is_flat_explained_and_filled_in(deployment):
    form = schema(deployment)
    assert not form.get("definitions")
    for name, field in form["properties"].items():
        assert field.get("description"), f"{name} has no line under Args"
        assert not {"anyOf", "allOf", "$ref"} & field.keys(), f"{name} is no plain field"
        kind = field["type"]
        assert kind in ("string", "integer", "number", "boolean", "array", "object"), name
        if kind == "array":
            assert field["items"]["type"] in ("string", "integer"), name
        # What must be filled in is what nobody can guess.
        assert name in ("sources", "lake") or "default" in field, name
    assert set(form.get("required", [])) <= {"sources", "lake"}


@each
def test_schedules_are_named_off_and_keep_the_clock_of_their_venue(deployment):
    assert deployment["schedules"]
    slugs = [schedule["slug"] for schedule in deployment["schedules"]]
    assert len(set(slugs)) == len(slugs)
    for schedule in deployment["schedules"]:
        assert schedule["active"] is False
        zone, cron = ZoneInfo(schedule["timezone"]), schedule["cron"].split()
        if cron[0].startswith("*/"):
            continue  # all day long
        times = set()
        for begin in (datetime(2026, 1, 12, tzinfo=UTC), datetime(2026, 7, 13, tzinfo=UTC)):
            local, utc = next_time(schedule, begin)
            assert (local.minute, local.hour) == (int(cron[0]), int(cron[1]))
            times.add(utc.hour)
        # Where summer time is kept, the time of day in UTC moves with it.
        moves = zone.utcoffset(datetime(2026, 1, 12)) != zone.utcoffset(datetime(2026, 7, 13))
        assert len(times) == (2 if moves else 1)


def next_time(schedule, begin: datetime) -> tuple[datetime, datetime]:
    """The first time of a schedule, as Prefect reckons it: in its zone, in UTC."""
    import asyncio

    from prefect.server.schemas.schedules import CronSchedule as Reckoned

    CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])  # the client's own check
    found = asyncio.run(Reckoned(cron=schedule["cron"], timezone=schedule["timezone"]).get_dates(1, begin, begin + timedelta(days=8)))[0]
    return found.astimezone(ZoneInfo(schedule["timezone"])), found.astimezone(UTC)


def test_the_zones_are_those_of_venues():
    zones = {schedule["timezone"] for deployment in DEPLOYMENTS for schedule in deployment["schedules"]}
    assert {"America/Chicago", "America/New_York", "UTC"} <= zones
