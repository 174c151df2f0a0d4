"""Containerfile, compose.yaml and the Kubernetes template: linted, held against each other and the code, and built as far as no engine is needed.

`pytest -m campaign tests/unit/test_deployments_containers.py` runs the steps of the image's build in a clean folder; it needs a package index.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from config.settings import load
from deployments.bootstrap import WORK_POOL
from deployments.cli import app

ROOT = Path(__file__).resolve().parents[2]
CONTAINERFILE = ROOT / "deployments/Containerfile"
COMPOSE = (ROOT / "deployments/compose.yaml").read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
TEMPLATE = json.loads((ROOT / "deployments/kubernetes-work-pool.json").read_text(encoding="utf-8"))


def instructions() -> list[tuple[str, str]]:
    """(instruction, rest) of the Containerfile, continued lines joined."""
    text = re.sub(r"(?m)^#.*\n", "", CONTAINERFILE.read_text(encoding="utf-8")).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in text.splitlines() if line.strip()]


def stages() -> list[list[tuple[str, str]]]:
    found: list[list[tuple[str, str]]] = [[]]
    for name, rest in instructions():
        if name == "FROM":
            found.append([])
        found[-1].append((name, rest))
    return found[1:]


def variables() -> dict[str, str]:
    """ENV of the image."""
    pairs = [pair for name, rest in stages()[-1] if name == "ENV" for pair in rest.split()]
    return dict(pair.split("=", 1) for pair in pairs)


def test_the_linter_of_containerfiles_finds_nothing():
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed (extra `test`)")
    done = subprocess.run([hadolint, "--failure-threshold", "style", str(CONTAINERFILE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_image_runs_as_nobody_in_particular_and_holds_no_secret():
    last = stages()[-1]
    assert [rest for name, rest in last if name == "USER"] == ["10001:10001"]
    # A Kubernetes job brings the whole command as arguments.
    assert "ENTRYPOINT" not in dict(last)
    assert not re.search(r"(?i)password|secret|token|api_key", CONTAINERFILE.read_text(encoding="utf-8"))
    for name, rest in instructions():
        if name == "COPY" and "--from" not in rest:
            assert all((ROOT / source).exists() for source in rest.split()[:-1]), rest
    allowed = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in allowed
    copied = {source for name, rest in instructions() if name == "COPY" and "--from" not in rest for source in rest.split()[:-1]}
    assert copied == {line.strip("!/") for line in allowed if line.startswith("!")}


def test_the_variables_of_the_image_are_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = load(environ={name: value for name, value in variables().items() if name.startswith("BOOKMILL_")})
    assert made.profile == "server"
    assert made.lake in made.roots
    owned = " ".join(rest for name, rest in stages()[-1] if name == "RUN")
    assert all(str(root) in owned for root in made.roots)


def test_every_published_port_is_on_loopback_and_every_password_comes_from_outside():
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    given = {name: str(value) for service in SERVICES.values() for name, value in service.get("environment", {}).items()}
    secret = {name: value for name, value in given.items() if re.search("PASSWORD|CONNECTION_URL", name)}
    assert len(secret) >= 3
    assert all("${" in value for value in secret.values())
    # Each is asked for where it is missing; nothing has a default that everybody knows.
    assert re.search(r"\$\{POSTGRES_PASSWORD:\?.+\}", COMPOSE)
    assert re.search(r"\$\{QUESTDB_PASSWORD:\?.+\}", COMPOSE)
    assert "PASSWORD:-" not in COMPOSE


def test_the_services_fit_together():
    whole = yaml.safe_load(COMPOSE)
    assert set(SERVICES) == {"postgres", "server", "deploy", "worker", "questdb"}
    ours = {name for name, service in SERVICES.items() if "build" in service}
    assert ours == {"server", "deploy", "worker"}
    for name, service in SERVICES.items():
        for other, condition in service.get("depends_on", {}).items():
            assert condition["condition"] in ("service_healthy", "service_completed_successfully")
            # The image of ours asks for its own health; the others must say how.
            assert other in ours or "healthcheck" in SERVICES[other]
        named = [v.split(":")[0] for v in service.get("volumes", []) if not v.startswith("${")]
        assert set(named) <= set(whole["volumes"])
        assert set(service["networks"]) <= set(whole["networks"])
        if name not in ours:
            assert re.search(r":\d", service["image"]), f"{name} has no version"
        else:
            build = service["build"]
            assert (ROOT / "deployments" / build["context"] / build["dockerfile"]).resolve() == CONTAINERFILE
    assert SERVICES["worker"]["command"][-2:] == ["--pool", WORK_POOL]
    assert SERVICES["deploy"]["command"][0] == "bookmill"
    assert SERVICES["deploy"]["command"][1] in typer.main.get_command(app).commands  # type: ignore[attr-defined]
    # The shared slots are sized by the one, used by the other.
    assert [SERVICES["deploy"][k] for k in ("mem_limit", "cpus")] == [SERVICES["worker"][k] for k in ("mem_limit", "cpus")]
    mounted = {volume.rsplit("}:", 1)[1].split(":")[0] for volume in SERVICES["worker"]["volumes"] if volume.startswith("${")}
    assert mounted == set(variables()["BOOKMILL_ROOTS"].split(","))


def placeholders(value: Any) -> set[str]:
    return set(re.findall(r"\{\{\s*(\w+)\s*\}\}", json.dumps(value)))


def test_the_kubernetes_template_declares_what_it_uses_and_uses_what_it_declares():
    declared = TEMPLATE["variables"]["properties"]
    assert placeholders(TEMPLATE["job_configuration"]) == set(declared)
    job = TEMPLATE["job_configuration"]["job_manifest"]
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    pod = job["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert set(container["resources"]) == {"requests", "limits"}
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    paths = {mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
    assert paths["/feeds"] is True
    assert paths[variables()["BOOKMILL_LAKE"]] is False
    assert all(variables()[name].startswith("/state/") for name in ("NUMBA_CACHE_DIR", "PREFECT_HOME"))
    assert "/state" in paths
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" == dict(stages()[-1])["USER"]
    for name in ("image", "cpu_request", "cpu_limit", "memory_request", "memory_limit", "lake_claim", "feeds_claim"):
        assert declared[name]["default"], name


@pytest.mark.campaign
@pytest.mark.timeout(1800)
def test_the_steps_of_the_build_work_in_a_clean_folder(tmp_path):
    """COPY and RUN of the build stage, with the folders of the image below a temporary one; then what is installed, as a container would start it."""
    build, image = tmp_path / "build", tmp_path / "image"
    build.mkdir()
    arguments = {}
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("BOOKMILL_", "PREFECT_", "PYTHON", "VIRTUAL"))}
    for name, rest in stages()[0]:
        if name == "ARG":
            arguments |= dict([rest.split("=", 1)])
        if name == "COPY":
            for source in rest.split()[:-1]:
                here, there = ROOT / source, build / rest.split()[-1]
                if here.is_dir():
                    shutil.copytree(here, there, ignore=shutil.ignore_patterns("__pycache__", "images"))
                else:
                    shutil.copy(here, there)
        if name == "RUN":
            command = rest.replace("/bookmill", f"{image}/bookmill")
            done = subprocess.run(["bash", "-ec", command], cwd=build, env=environ | arguments, capture_output=True, text=True, check=False)
            assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    shutil.rmtree(build)
    inside = {
        name: value.replace("/state", f"{image}/state").replace("/bookmill/bin", f"{image}/bookmill/bin") for name, value in variables().items()
    }
    inside["PATH"] = inside["PATH"].replace("$PATH", environ["PATH"])
    for command in (["bookmill", "--version"], ["bookmill", "config", "show"], ["prefect", "version"], ["prefect", "worker", "start", "--help"]):
        done = subprocess.run(command, cwd=image, env=environ | inside, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (command, done.stderr)
    made = ["bookmill", "generate", "es.dbn.zst", "--records", "2000"]
    subprocess.run(made, cwd=image, env=environ | inside, check=True, capture_output=True)
    assert (image / "es.dbn.zst").stat().st_size > 0
