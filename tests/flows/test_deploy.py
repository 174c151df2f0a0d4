"""`bookmill deploy` on a real server: without questions, again and again, never against what people set there; secrets stay where they are."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.flows import servers
from tests.flows.servers import ROOT, bookmill, prefect_server

NAMES = [d["name"] for d in yaml.safe_load((ROOT / "deployments/prefect.yaml").read_text(encoding="utf-8"))["deployments"]]
LOGIN, PASSWORD = "desk", "hunter2-never-to-be-seen"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("deploy")


@pytest.fixture(scope="module")
def server(place):
    """URL of a server that asks for a login, as a shared one should; the clients of this module have it in their environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_SERVER_API_AUTH_STRING", f"{LOGIN}:{PASSWORD}")
        patch.setenv("PREFECT_API_AUTH_STRING", f"{LOGIN}:{PASSWORD}")
        # Secrets that the environment of a worker holds.
        patch.setenv("AWS_SECRET_ACCESS_KEY", PASSWORD)
        patch.setenv("PREFECT_SERVER_DATABASE_PASSWORD", PASSWORD)
        with prefect_server(place) as url:
            yield url


def ask(url: str, path: str, body: dict[str, Any] | None = None, method: str | None = None) -> Any:
    login = "Basic " + base64.b64encode(f"{LOGIN}:{PASSWORD}".encode()).decode()
    return servers.ask(url, path, body, method, Authorization=login)


def deployments(url: str) -> dict[str, dict[str, Any]]:
    return {d["name"]: d for d in ask(url, "/deployments/filter", {})}


def deploy(url: str, place: Path, *options: str) -> str:
    code, said = bookmill(["deploy", *options], url, place, place / "deploy.log")
    assert code == 0, said
    assert PASSWORD not in said
    return said


def test_deploying_twice_gives_the_same_and_keeps_what_people_set(server, place):
    first = deploy(server, place, "--lake", str(place / "lake"))
    for name in NAMES:
        assert f"created the deployment {name}/{name}" in first
    assert "prefect worker start --pool bookmill" in first
    found = deployments(server)
    assert set(found) == set(NAMES)
    assert all(d["parameters"]["lake"] == str(place / "lake") for d in found.values())
    assert all(d["pull_steps"] == [{"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}] for d in found.values())

    # A person fills in a default, switches a schedule on, gives it sources, and adds one without a name.
    mbo = found["market-by-order"]
    cme = next(s for s in mbo["schedules"] if s["slug"] == "after-cme-close")
    ask(server, f"/deployments/{mbo['id']}", {"parameters": mbo["parameters"] | {"depth": 5}}, "PATCH")
    ask(server, f"/deployments/{mbo['id']}/schedules/{cme['id']}", {"active": True, "parameters": {"sources": ["/feeds/cme"]}}, "PATCH")
    own = {"schedule": {"interval": 3600, "timezone": "Asia/Tokyo"}, "active": True, "parameters": {"sources": ["/feeds/jpx"]}}
    ask(server, f"/deployments/{mbo['id']}/schedules", [own])

    second = deploy(server, place)
    assert "renewed the deployment market-by-order/market-by-order" in second
    assert "after-cme-close on" in second
    again = deployments(server)["market-by-order"]
    assert again["id"] == mbo["id"]
    assert again["parameters"] == {"lake": str(place / "lake"), "depth": 5}
    slugs = [s["slug"] for s in again["schedules"]]
    assert sorted(s or "" for s in slugs) == ["", *sorted(s["slug"] for s in mbo["schedules"])]
    kept = {s["slug"]: s for s in again["schedules"]}
    assert (kept["after-cme-close"]["active"], kept["after-cme-close"]["parameters"]) == (True, {"sources": ["/feeds/cme"]})
    assert (kept[None]["active"], kept[None]["schedule"]["interval"], kept[None]["schedule"]["timezone"]) == (True, 3600, "Asia/Tokyo")
    assert kept[None]["parameters"] == {"sources": ["/feeds/jpx"]}

    deploy(server, place, "--lake", str(place / "other"))
    third = deployments(server)["market-by-order"]
    assert third["parameters"] == {"lake": str(place / "other"), "depth": 5}
    assert len(third["schedules"]) == len(again["schedules"])


def test_a_deployment_of_that_name_of_another_project_is_left_alone_and_gives_nothing(server, place):
    theirs = ask(server, "/flows/", {"name": "warehouse-etl"})
    every = {"schedule": {"cron": "*/10 * * * *", "timezone": "UTC"}, "active": True, "slug": "every-ten"}
    body = {"name": "backfill", "flow_id": theirs["id"], "parameters": {"table": "orders", "lake": "/theirs"}, "schedules": [every]}
    other = ask(server, "/deployments/", body)
    try:
        deploy(server, place, "--lake", str(place / "lake"))
        found = {d["id"]: d for d in ask(server, "/deployments/filter", {}) if d["name"] == "backfill"}
        assert found.pop(other["id"])["parameters"] == body["parameters"]
        (ours,) = found.values()
        assert "table" not in ours["parameters"]
        assert "every-ten" not in {s["slug"] for s in ours["schedules"]}
    finally:
        ask(server, f"/deployments/{other['id']}", method="DELETE")


def prefect(url: str, place: Path, *arguments: str) -> tuple[int, str]:
    environ = {**os.environ, "PREFECT_API_URL": url, "PREFECT_HOME": str(place)}
    command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_plain_way_of_prefect_works_as_well(server, place):
    code, said = bookmill(["bootstrap"], server, place, place / "bootstrap.log")
    assert code == 0, said
    code, said = prefect(server, place, "deploy", "--prefect-file", "deployments/prefect.yaml", "--all")
    assert code == 0, said
    assert said.count("successfully created") == len(NAMES)


def test_the_server_takes_the_template_for_kubernetes(server, place):
    template = "deployments/kubernetes-work-pool.json"
    code, said = prefect(server, place, "work-pool", "create", "on-kubernetes", "--type", "kubernetes", "--base-job-template", template)
    assert code == 0, said
    made = ask(server, "/work_pools/on-kubernetes")
    assert made["type"] == "kubernetes"
    assert made["base_job_template"]["variables"]["properties"]["lake_claim"]["default"] == "bookmill-lake"
    # Names in a deployment that the template does not know would be refused.
    assert "env" in made["base_job_template"]["variables"]["properties"]


def test_without_a_server_it_says_what_to_do(tmp_path, monkeypatch):
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "BOOKMILL_"))}
    environ |= {"PREFECT_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "deployments.cli", "deploy"]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "prefect server start" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_password_of_the_environment_is_in_no_file_log_or_artifact_of_a_run(server, place):
    source, lake = place / "es.mbo.dbn.zst", place / "secret-lake"
    assert bookmill(["generate", str(source), "--records", "3000"], server, place, place / "generate.log")[0] == 0
    code, said = bookmill(["run", "mbo", str(source), "--lake", str(lake)], server, place, place / "run.log")
    assert code == 0, said
    assert PASSWORD not in said
    written = [path for path in lake.rglob("*") if path.is_file()]
    assert len(written) > 10
    assert not [path for path in written if PASSWORD.encode() in path.read_bytes()]
    # What Prefect keeps for others to read: runs with their parameters, logs, artifacts, events; its database is all of it.
    assert ask(server, "/flow_runs/filter", {})
    assert ask(server, "/artifacts/filter", {})
    for path in ("/flow_runs/filter", "/task_runs/filter", "/logs/filter", "/artifacts/filter", "/deployments/filter"):
        assert PASSWORD not in json.dumps(ask(server, path, {})), path
    kept = [path for path in place.rglob("prefect.db*") if path.is_file()]
    assert kept
    assert not [path for path in kept if PASSWORD.encode() in path.read_bytes()]


def test_a_password_in_the_url_of_the_server_is_refused_and_not_repeated(tmp_path):
    url = f"http://{LOGIN}:{PASSWORD}@127.0.0.1:9/api"
    for command in (["deploy"], ["bootstrap"], ["demo", "--records", "1000", "--lake", str(tmp_path / "lake")]):
        code, said = bookmill(command, url, tmp_path, tmp_path / "said.log")
        assert code == 2, said
        assert "PREFECT_API_AUTH_STRING" in said
        assert PASSWORD not in said
