"""The ground under a flow: Prefect's variables, and the private API of a run, started for real.

Each case is a process of its own, because Prefect reads its variables once. Output goes to files: a pipe that a leftover server held would
hang the reader, and leftover servers are what some of these cases look for.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]

RUN = """
import json, signal, sys, time
from config.settings import load
from flows import runtime

# A shell starts background jobs with SIGINT ignored, and a test run may be one; a person at a terminal is not.
signal.signal(signal.SIGINT, signal.default_int_handler)

with runtime.api(load("ci")) as api:
    import logging
    from prefect import flow, task
    from prefect.task_runners import ThreadPoolTaskRunner

    api.ready()

    @task
    def one(number):
        logging.getLogger("tasks.anything").info("number %d", number)
        return number

    @task
    def nap():
        print("napping", flush=True)
        time.sleep(120)

    @flow(name="numbers", task_runner=ThreadPoolTaskRunner(max_workers=2))
    def numbers(count):
        return sum(f.result() for f in one.map(range(count)))

    @flow(name="sleeper")
    def sleeper():
        nap()

    if sys.argv[1] == "numbers":
        print(json.dumps([numbers(60), api.private, api.url]), flush=True)
    else:
        sleeper()
"""

PREPARE = """
import json, os, sys
from config.settings import load
from flows import runtime

before = dict(os.environ)
url = runtime.prepare(load("ci"), api_url=sys.argv[1] or None)
print(json.dumps([url, {k: v for k, v in os.environ.items() if before.get(k) != v}, "prefect" in sys.modules]))
"""


class Started:
    """A Python process with its output in files and a clean environment."""

    def __init__(self, folder: Path, code: str, *arguments: str, home: Path, **environ: str) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "BOOKMILL_", "DO_NOT_TRACK", "GX_"))}
        self.out, self.err = folder / "out.txt", folder / "err.txt"
        path = os.pathsep.join([str(ROOT), *filter(None, [kept.get("PYTHONPATH")])])
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=folder, start_new_session=True,
                env=kept | {"PREFECT_HOME": str(home), "PYTHONPATH": path} | environ,
            )  # fmt: skip

    def wait_for(self, text: str) -> None:
        end = time.monotonic() + 180
        while text not in self.out.read_text():
            assert self.process.poll() is None, self.err.read_text()
            assert time.monotonic() < end
            time.sleep(0.05)

    def end(self) -> str:
        self.process.wait(180)
        return self.out.read_text()


def prepared(folder: Path, url: str = "", **environ: str) -> tuple[str | None, dict[str, str]]:
    started = Started(folder, PREPARE, url, home=folder / "home", **environ)
    answer = started.end()
    assert started.process.returncode == 0, started.err.read_text()
    found, changed, imported = json.loads(answer)
    assert not imported
    return found, changed


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A Prefect home shared by the cases that start a server: its first start migrates the database, which takes the longest."""
    return tmp_path_factory.mktemp("home")


def test_prepare_sets_what_the_user_did_not(tmp_path):
    url, changed = prepared(tmp_path, PREFECT_SERVER_UI_V2_ENABLED="true", GX_ANALYTICS_ENABLED="true")
    assert url is None
    assert changed["DO_NOT_TRACK"] == "1"
    assert changed["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert changed["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] == "WARNING"
    assert changed["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] == "300"
    assert not {"PREFECT_SERVER_UI_V2_ENABLED", "GX_ANALYTICS_ENABLED", "PREFECT_LOGGING_LEVEL", "PREFECT_API_URL"} & set(changed)


def test_what_the_user_set_in_the_active_prefect_profile_stays(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home/profiles.toml").write_text(
        'active = "mine"\n[profiles.mine]\nPREFECT_API_URL = "http://server:4200/api"\nPREFECT_SERVER_ANALYTICS_ENABLED = true\n'
        '[profiles.other]\nDO_NOT_TRACK = "0"\n'
    )
    url, changed = prepared(tmp_path)
    assert url == "http://server:4200/api"
    assert "PREFECT_SERVER_ANALYTICS_ENABLED" not in changed
    assert changed["DO_NOT_TRACK"] == "1"
    assert prepared(tmp_path, PREFECT_PROFILE="other")[0] is None
    assert prepared(tmp_path, PREFECT_API_URL="http://b:1/api")[0] == "http://b:1/api"


def test_an_api_given_on_the_command_line_beats_the_environment(tmp_path):
    url, changed = prepared(tmp_path, "http://a:4200/api", PREFECT_API_URL="http://b:4200/api")
    assert url == changed["PREFECT_API_URL"] == "http://a:4200/api"


def test_an_address_that_is_no_url_is_refused(tmp_path):
    started = Started(tmp_path, PREPARE, "localhost:4200", home=tmp_path / "home")
    started.end()
    assert "UsageError: The Prefect API is 'localhost:4200'; allowed: a URL such as" in started.err.read_text()


def test_a_configured_server_that_does_not_answer_is_named_at_once(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/api"
        started = Started(tmp_path, RUN, "numbers", home=tmp_path / "home", PREFECT_API_URL=url)
        started.end()
    assert f"BookmillError: No Prefect API answers at {url}. Start it with `prefect server start`" in started.err.read_text()


@pytest.mark.parametrize("below", ["", "deep/er"])
def test_a_home_of_prefect_that_cannot_be_written_is_named_with_the_variable_that_sets_it(tmp_path, below):
    (tmp_path / "file").write_text("no folder")
    home = tmp_path / "file" / below
    started = Started(tmp_path, RUN, "numbers", home=home)
    started.end()
    told = started.err.read_text().strip().splitlines()[-1]
    assert told.startswith(f"tasks.errors.StorageError: Cannot write in {home}, the folder of Prefect"), told
    assert "set PREFECT_HOME to a folder that can be written" in told
    assert "private Prefect API ended" not in started.err.read_text()


def test_a_private_run_is_recorded_whole_is_quiet_and_leaves_no_server(tmp_path, home):
    started = Started(tmp_path, RUN, "numbers", home=home)
    total, private, url = json.loads(started.end())
    assert started.process.returncode == 0
    assert (total, private) == (sum(range(60)), True)
    assert started.err.read_text() == ""
    with sqlite3.connect(home / "prefect.db") as database:
        assert database.execute("select state_type from flow_run").fetchall() == [("COMPLETED",)]
        assert database.execute("select state_type, count(*) from task_run group by 1").fetchall() == [("COMPLETED", 60)]
        # The log tab is not empty though the terminal is.
        assert database.execute("select count(*) from log where message like 'number %'").fetchone() == (60,)
        assert database.execute("select count(*) from log where message like 'Finished in state%'").fetchone()[0] >= 61
    port = int(url.split(":")[2].split("/")[0])
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize(
    "blow", [signal.SIGKILL, *(pytest.param(s, marks=pytest.mark.campaign) for s in (signal.SIGINT, signal.SIGTERM))], ids=lambda s: s.name
)
def test_no_end_of_a_run_leaves_a_server_behind(tmp_path, home, blow):
    started = Started(tmp_path, RUN, "sleeper", home=home)
    try:
        started.wait_for("napping")
        children = psutil.Process(started.process.pid).children(recursive=True)
        assert children
        os.killpg(started.process.pid, blow)
        started.process.wait(60)
        _, alive = psutil.wait_procs(children, timeout=60)
        assert not alive
    finally:
        if started.process.poll() is None:
            started.process.kill()
    assert started.process.returncode == -blow
    if blow != signal.SIGKILL:
        with sqlite3.connect(home / "prefect.db") as database:
            last = database.execute("select state_type from flow_run where name is not null order by created desc limit 1").fetchone()
        assert last == ("CRASHED",)


@pytest.mark.campaign
def test_two_first_runs_at_once_share_a_new_home(tmp_path):
    runs = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        runs.append(Started(tmp_path / name, RUN, "numbers", home=tmp_path / "home"))
    assert all(json.loads(run.end())[0] == sum(range(60)) for run in runs)
    assert [run.err.read_text() for run in runs] == ["", ""]


def test_a_flow_run_of_a_command_does_not_wait_for_the_thread_of_its_heartbeat(tmp_path):
    code = """
import threading
from config.settings import load
from flows import runtime

with runtime.api(load("ci")) as api:
    from prefect import flow

    api.ready()
    runtime.end_at_once()
    joined, join = [], threading.Thread.join
    threading.Thread.join = lambda self, timeout=None: (joined.append(getattr(self._target, "__qualname__", "")), join(self, timeout))[1]

    @flow
    def work():
        from prefect.context import FlowRunContext
        beating = [t for t in threading.enumerate() if any("heartbeat_loop" in str(a) for a in getattr(t, "_args", ()))]
        joined.clear()
        return len(beating)

    print(work(), joined.count("Context.run"))
"""
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment, timeout=240)
    assert done.stdout.split() == ["1", "0"], done.stderr
