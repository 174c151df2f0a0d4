"""The server hangs while the run does its last work: the lake is complete, and the run ends, instead of waiting for the server without a limit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import psutil
import pytest

from tasks.publishing.doctor import examine
from tasks.scanning.synthetic import SessionSpec
from tasks.scanning.synthetic_writers import write_session
from tests.faults.ground import ROOT, Server, family, kill_all, until

# The command line with less patience: minutes by default.
IMPATIENT = """
import sys
from flows import runtime
runtime.TELL_S = 5.0
from deployments.cli import main
main()
"""
PATIENCE = {"PREFECT_CLIENT_MAX_RETRIES": "0", "PREFECT_API_REQUEST_TIMEOUT": "10", "BOOKMILL_PROFILE": "ci", "BOOKMILL_HEARTBEAT_S": "1"}
# Three requests wait for their time out, then what is still to be told. Each of the events that wait would take 117 s by itself.
END_S = 150.0


@pytest.mark.parametrize("command", ["run", pytest.param("backfill", marks=pytest.mark.campaign)])
def test_a_run_ends_when_its_server_hangs_at_its_end(tmp_path, command):
    lake, log = tmp_path / "lake", tmp_path / "log"
    write_session(SessionSpec(records=3_000, seed=5, symbols=("ESZ5",), live_orders=200), tmp_path / "many.dbn.zst", "dbn.zst")
    (tmp_path / "server").mkdir()
    with Server(tmp_path / "server") as server, log.open("wb") as out:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("BOOKMILL_", "PREFECT_"))}
        options = {"depth": "3", "interval": "1m", "bars": "1m", "heatmaps": "0"}
        given = [f"--{name}={value}" for name, value in options.items()]
        if command == "backfill":
            given = ["--settle=off", *(f"--option={name}={value}" for name, value in options.items())]
        arguments = [command, "mbo", str(tmp_path / "many.dbn.zst"), "--lake", str(lake), *given]
        process = subprocess.Popen(
            [sys.executable, "-c", IMPATIENT, *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=tmp_path,
            env=kept | PATIENCE | {"PREFECT_API_URL": server.url, "PREFECT_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        try:
            until(lambda: (lake / "ledger").exists() or process.poll() is not None, 240, "the run did not come to its ledger")
            assert process.poll() is None, log.read_text()
            for one in family(server.process.pid):
                psutil.Process.suspend(one)
            start = time.monotonic()
            code = process.wait(END_S)
            print(f"ended {time.monotonic() - start:.0f} s after its server began to hang")
        finally:
            kill_all(family(process.pid))
            process.wait()
    told = log.read_text()
    assert code == 1, told
    assert f"the Prefect API at {server.url} did not take the end of the run" in told
    assert "did not take the artifacts of the run" in told
    assert "did not take the last records of this process" in told
    assert "pending items" not in told
    [record] = [json.loads(path.read_text()) for path in (lake / "runs/records").glob("*.json")]
    assert record["state"] == "completed"
    assert [finding for finding in examine(lake, deep=True).findings if finding.wrong] == []
