"""Alerts as a user gets them: a run on a real server, automations made by bootstrap, and a web server that is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from flows.alerts import DATA_STALE, DISK_LOW, EVENTS, GATE_BLOCKED, MEMORY_HIGH, PARTITION_FAILED, QUARANTINED, RUN_FAILED, RUN_INTERRUPTED
from tests.flows.servers import ROOT, bookmill, prefect_server

# Thresholds that every run crosses.
TOUCHY = "alert_memory_percent = 1\nalert_disk_free_gb = 1000000\nalert_stale_days = 3\n"

pytestmark = pytest.mark.timeout(600)


class Inbox(ThreadingHTTPServer):
    """Keeps what is posted to it."""

    def __init__(self) -> None:
        self.posts: list[tuple[str, dict[str, str]]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook?token=s3cret-t0ken"

    def wait_for(self, titles: set[str], seconds: float = 60) -> dict[str, list[str]]:
        """Texts by title, once all of these titles are there."""
        end = time.monotonic() + seconds
        while not titles <= {body["title"] for _, body in self.posts}:
            missing = titles - {body["title"] for _, body in self.posts}
            assert time.monotonic() < end, f"no alert came for {missing}"
            time.sleep(0.1)
        found: dict[str, list[str]] = {}
        for _, body in self.posts:
            found.setdefault(body["title"], []).append(body["text"])
        return found


class _Handler(BaseHTTPRequestHandler):
    server: Inbox

    def do_POST(self) -> None:
        self.server.posts.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture(scope="module")
def inbox() -> Iterator[Inbox]:
    with Inbox() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[tuple[str, Path]]:
    home = tmp_path_factory.mktemp("prefect")
    with prefect_server(home) as url:
        yield url, home


def title(event: str) -> str:
    return f"Bookmill: {EVENTS[event]}"


def test_nobody_is_told_unless_asked_and_then_of_everything_once(server, inbox, tmp_path):
    url, home = server
    code, output = bookmill(["bootstrap"], url, home, tmp_path / "log")
    assert code == 0, output
    assert [line for line in output.splitlines() if "automation" in line] == ["created the automation bookmill: silent runs are crashed"]
    code, output = bookmill(["bootstrap", "--notify-webhook", inbox.url], url, home, tmp_path / "log")
    assert code == 0, output
    assert output.count("created the automation bookmill alert: ") == len(EVENTS) + 1
    code, output = bookmill(["bootstrap", "--notify-webhook", inbox.url], url, home, tmp_path / "log")
    assert code == 0, output
    assert f"{len(EVENTS) + 2} of {len(EVENTS) + 2} automations are there already" in output
    code, output = bookmill(["bootstrap", "--notify-block", "custom-webhook/bookmill-alerts"], url, home, tmp_path / "log")
    assert code == 0, output
    code, output = bookmill(["bootstrap", "--notify-block", "slack-webhook/nobody"], url, home, tmp_path / "log")
    assert (code, "there is no such block" in output, "Traceback" in output) == (2, True, False), output
    code, output = bookmill(["bootstrap", "--notify-webhook", "hooks.example.com"], url, home, tmp_path / "log")
    assert (code, "--notify-webhook is 'hooks.example.com'" in output) == (2, True), output
    # Targets hold passwords: they are kept as secrets.
    blocks = subprocess.run(
        [sys.executable, "-c", "import sys,urllib.request as u; r=u.Request(sys.argv[1], b'{}', {'Content-Type':'application/json'});"
         "print(u.urlopen(r).read().decode())", f"{url}/block_documents/filter"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "bookmill-alerts" in blocks
    assert "s3cret" not in blocks


def test_a_run_with_bad_files_old_days_little_memory_and_a_full_disk_is_told_of_by_each(server, inbox, tmp_path):
    folder, lake = tmp_path / "in", tmp_path / "lake"
    folder.mkdir()
    (tmp_path / "bookmill.toml").write_text(TOUCHY)
    rows = [f"{1_761_139_800_000_000_000 + k},A,B,{100 + k % 7}.25,{5 if k % 100 else -5},{k + 1},1" for k in range(1_000)]
    head = ["ts_event,action,side,price,size,order_id,is_last", "1761139800000000000,R,N,,0,0,1"]
    (folder / "SICK.csv").write_text("\n".join([*head, *rows]) + "\n")
    (folder / "cut.dbn").write_bytes(b"DBN\x02")
    inbox.posts.clear()
    code, output = bookmill(["run", "mbo", str(folder), "--lake", str(lake)], *server, tmp_path / "log")
    assert code == 1, output
    told = inbox.wait_for({title(event) for event in (RUN_FAILED, PARTITION_FAILED, QUARANTINED, DATA_STALE, MEMORY_HIGH, DISK_LOW)})
    assert "cut.dbn" in " ".join(told[title(PARTITION_FAILED)])
    assert "SICK.csv: 10 rows were set aside by decode" in told[title(QUARANTINED)][0]
    assert "SICK: the newest day is 2025-10-22" in told[title(DATA_STALE)][0]
    time.sleep(3)
    once = {name: len(texts) for name, texts in told.items()}
    assert {once[title(event)] for event in (RUN_FAILED, MEMORY_HIGH, DISK_LOW, QUARANTINED, DATA_STALE)} == {1}
    assert {path for path, _ in inbox.posts} == {"/hook?token=s3cret-t0ken"}
    # A second run sets nothing aside that the first one had not.
    inbox.posts.clear()
    code, output = bookmill(["run", "mbo", str(folder), "--lake", str(lake)], *server, tmp_path / "log")
    assert title(QUARANTINED) not in inbox.wait_for({title(RUN_FAILED)})


EMIT = """
from pathlib import Path
from config.settings import load
from flows.runtime import api

with api(load("ci")) as server:
    from prefect import flow
    from flows.alerts import Alerts

    server.ready()

    @flow(name="market-by-order")
    def run():
        alerts = Alerts("20250101T000000-abcd", Path("lake"), load("ci"))
        alerts.failed("1 of 2 failed", {"XNAS ARL 2025-07-17": "GateBlocked: books: crossed: 7 unexpected."})
        alerts.failed("cancelled", {}, interrupted=True)
        raise SystemExit("gone")

    run(return_state=True)
"""


def test_a_blocked_gate_an_interrupted_run_and_a_crash_are_told(server, inbox, tmp_path):
    url, home = server
    inbox.posts.clear()
    environ = {**os.environ, "PREFECT_API_URL": url, "PREFECT_HOME": str(home), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", EMIT], env=environ, cwd=tmp_path, capture_output=True, timeout=120, check=False)
    told = inbox.wait_for({title(GATE_BLOCKED), title(RUN_INTERRUPTED), "Bookmill: a run crashed"})
    assert told[title(GATE_BLOCKED)] == [f"{title(GATE_BLOCKED)}\nXNAS ARL 2025-07-17: GateBlocked: books: crossed: 7 unexpected."]
    assert "cancelled" in told[title(RUN_INTERRUPTED)][0]
