"""Many runs at once on one server and one lake: together they keep to its CPU and memory slots, and the lake is that of one run over all sources.

Four runs by default; TEST_FAULT_RUNS=20 for the campaign. `-s` shows what was measured.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from config.values import MIB
from tasks.publishing.doctor import examine
from tasks.scanning.synthetic import SessionSpec
from tasks.scanning.synthetic_writers import write_session
from tasks.storage import PARTIAL, partial_owner
from tests.faults.ground import LIMITS, Ground, family
from tests.flows.servers import data_files

RUNS = int(os.environ.get("TEST_FAULT_RUNS", "4"))
CPU_SLOTS, MEMORY_SLOTS = 2, 3  # memory in slots of 256 MiB
BUDGET_BYTES = 1024 * MIB  # of each run: the profile ci
OPTIONS = ["--depth=3", "--interval=1m", "--bars=1m", "--heatmaps=0"]
# Written while slots are held, by one task at a time each.
SLOTTED = ("events", "bbo")

pytestmark = pytest.mark.timeout(1800)


class Watch(threading.Thread):
    """Looks again and again at what all runs hold together; peaks are there when it was stopped."""

    def __init__(self, ground: Ground, lake: Path, pids: list[int]) -> None:
        super().__init__(name="watch", daemon=True)
        self._ground, self._lake, self._pids, self._over = ground, lake, pids, threading.Event()
        self.slots = dict.fromkeys(LIMITS, 0)
        self.writers = self.alive = self.looks = self.answers = self.sum_bytes = 0
        self.own_bytes = dict.fromkeys(pids, 0)

    def run(self) -> None:
        """Until `stop`."""
        while not self._over.wait(0.1):
            self._look()

    def stop(self) -> None:
        """No look comes after this."""
        self._over.set()
        self.join(60)

    def _look(self) -> None:
        for name in LIMITS:
            with suppress(OSError):  # a server with much to do may not answer in time
                self.slots[name] = max(self.slots[name], self._ground.server.call(f"/v2/concurrency_limits/{name}")["active_slots"])
                self.answers += 1
        held = {}
        for pid in self._pids:
            with suppress(psutil.Error):
                # With what it started: gates are judged in a process of their own.
                held[pid] = sum(process.memory_info().rss for process in family(pid))
                self.own_bytes[pid] = max(self.own_bytes[pid], held[pid])
        if sum(held.values()) > self.sum_bytes:
            self.sum_bytes, self.alive = sum(held.values()), len(held)
        writing = {partial_owner(path.name)[0] for layer in SLOTTED for path in (self._lake / layer).rglob(f".*{PARTIAL}")} - {None}
        self.writers, self.looks = max(self.writers, len(writing)), self.looks + 1


@pytest.fixture
def ground(tmp_path_factory, monkeypatch):
    """A server with so many slots, whatever the machine has."""
    with Ground(tmp_path_factory.mktemp("ground")) as made:
        url = made.server.url
        for name, slots in zip(LIMITS, (CPU_SLOTS, MEMORY_SLOTS), strict=True):
            made.server.call(f"/v2/concurrency_limits/{name}", {"active": True, "limit": slots}, "PATCH")
        assert url
        yield made


def test_runs_at_once_keep_to_the_slots_of_the_server_and_make_the_lake_of_one_run(ground, tmp_path):
    sources, lake = tmp_path / "in", tmp_path / "lake"
    sources.mkdir()
    for number in range(RUNS):
        symbol = f"S{number:02}Z5"
        write_session(SessionSpec(records=6_000, seed=number, symbols=(symbol,), live_orders=200), sources / f"{symbol}.dbn.zst", "dbn.zst")
    start = time.monotonic()
    files = sorted(sources.iterdir())
    runs = [ground.start(["run", "mbo", str(f), "--lake", str(lake), *OPTIONS], tmp_path / f"{f.name}.log") for f in files]
    watch = Watch(ground, lake, [run.pid for run in runs])
    watch.start()
    try:
        codes = [run.wait(max(1.0, 1500 - (time.monotonic() - start))) for run in runs]
    finally:
        watch.stop()
        for run in runs:
            run.kill()
            run.wait()
    told = "\n".join(f"{f.name}: {(tmp_path / f'{f.name}.log').read_text()[-1500:]}" for f, code in zip(files, codes, strict=True) if code)
    peak = max(watch.own_bytes.values())
    print(
        f"\n{RUNS} runs at once: {time.monotonic() - start:.0f} s, {watch.looks} looks, {watch.answers} answers of the server; "
        f"slots in use at most: {watch.slots} of "
        f"{CPU_SLOTS} and {MEMORY_SLOTS}; tasks writing at once: {watch.writers}; resident at most: {watch.sum_bytes / MIB:,.0f} MiB in "
        f"{watch.alive} runs, {peak / MIB:,.0f} MiB in one",
        flush=True,
    )
    assert codes == [0] * RUNS, told
    assert 0 < watch.slots[LIMITS[0]] <= CPU_SLOTS
    assert 0 < watch.slots[LIMITS[1]] <= MEMORY_SLOTS
    assert 0 < watch.writers <= CPU_SLOTS
    # Slots bound what is worked on; each run weighs something before any data, with its process for the gates, and keeps to its own budget.
    assert peak <= BUDGET_BYTES
    whole = tmp_path / "whole"
    code, output = ground.bookmill(["run", "mbo", str(sources), "--lake", str(whole), *OPTIONS], tmp_path / "log")
    assert code == 0, output
    one, many = data_files(whole), data_files(lake)
    assert one.keys() == many.keys()
    assert [name for name, content in many.items() if content != one[name]] == []
    assert [finding for finding in examine(lake, deep=True).findings if finding.wrong] == []
