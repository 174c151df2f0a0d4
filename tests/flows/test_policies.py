"""Policies against a real Prefect API: what is skipped, what is tried again, what waits, and what the interface shows."""

from __future__ import annotations

import errno
import json
import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest

from config.settings import load
from tasks.errors import CorruptSource, StorageError, UsageError
from tasks.footers import read_facts
from tasks.partitions import EventFilter, MboRecipe, Partition, SourceFile

policies = pytest.importorskip("flows.policies")

from prefect import flow, task  # noqa: E402
from prefect.artifacts import Artifact  # noqa: E402
from prefect.client.orchestration import get_client  # noqa: E402
from prefect.task_runners import ThreadPoolTaskRunner  # noqa: E402

SOURCE = SourceFile("/data/a.dbn.zst", "dbn", "XNAS.ITCH", "xxh3:00", 10, 1, 2)
PARTITION = Partition("XNAS.ITCH", "2025-07-17", "ARL", 2, 17)


@pytest.fixture(scope="session")
def settings():
    return load("ci", {"retries": 2, "retry_delays_s": [0.01]}, environ={})


def key(name: str = "t", **inputs: object) -> str:
    @dataclass
    class Named:
        name: str

    @dataclass
    class Context:
        task: Named

    return policies.BY_CONTENT.compute_key(Context(Named(name)), inputs, {})


def test_a_second_run_takes_results_from_the_cache_and_lost_outputs_are_made_again(prefect_api, settings, tmp_path):
    made = []

    @task(name="make one")
    def make(partition: Partition, recipe: MboRecipe, settings: object, lake: Path) -> str:
        made.append(partition.symbol)
        return f"{partition.symbol} in {lake.name}"

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=2))
    def run(done: bool, recipe: MboRecipe, settings: object):
        ready = policies.equip(make, settings)
        futures = [policies.submit_checked(ready, done, replace(PARTITION, symbol=s), recipe, settings, tmp_path) for s in ("A", "B")]
        return [(f.result(), f.state.name) for f in futures]

    names = [f"A in {tmp_path.name}", f"B in {tmp_path.name}"]
    assert run(False, MboRecipe(), settings) == [(name, "Completed") for name in names]
    assert run(True, MboRecipe(), replace(settings, workers=1)) == [(name, "Cached") for name in names]
    assert sorted(made) == ["A", "B"]
    assert run(False, MboRecipe(), settings) == [(name, "Completed") for name in names]
    assert run(True, MboRecipe(depth=5), settings) == [(name, "Completed") for name in names]
    assert len(made) == 6


def test_a_ledger_is_that_of_the_books_of_now_when_options_go_and_come_back(prefect_api, tmp_path):
    """The results of the first two runs are in the cache when the same options come again."""
    from flows.mbo_stages import MboRun

    source = tmp_path / "ES.csv"
    rows = [f"{1_761_139_800_000_000_000 + k},A,B,{100 + k % 7},5,{k + 1},1" for k in range(20)]
    source.write_text("\n".join(["ts_event,action,side,price,size,order_id,is_last", *rows]) + "\n")  # no clear: --starts-empty counts

    @flow(name="ledgers")
    def stages(starts_empty: bool) -> None:
        run = MboRun(str(tmp_path / "lake"), MboRecipe(starts_empty=starts_empty), load("ci", {"progress": "off"}))
        with run:
            run.write_ledger(run.reconstruct(run.decode(run.scan([str(source)], "", ""), False)))
        run.life.end()
        assert not run.failed

    for starts_empty, status in ((False, "no_book"), (True, "valid"), (False, "no_book"), (True, "valid")):
        stages(starts_empty)
        (book,), (ledger,) = (sorted((tmp_path / "lake" / layer).rglob("*.parquet")) for layer in ("bbo", "ledger"))
        (line,) = (row for row in pq.read_table(ledger, partitioning=None).to_pylist() if row["stage"] == "reconstruct")
        assert read_facts(book)["statuses"].keys() == {status}
        assert json.loads(line["counts"])["statuses"] == read_facts(book)["statuses"]


def test_the_key_of_a_task_fed_by_another_is_that_of_its_value(prefect_api, settings):
    made = []

    @task(name="first")
    def first(partition: Partition) -> Partition:
        return partition

    @task(name="second")
    def second(partition: Partition) -> int:
        made.append(partition)
        return 1

    @flow
    def run():
        future = policies.equip(second, settings).submit(policies.equip(first, settings).submit(PARTITION))
        future.result()
        return future.state.name

    assert [run(), run()] == ["Completed", "Cached"]
    assert made == [PARTITION]


def test_keys_follow_content():
    same = key(source=SOURCE, lake="lake", settings=1, progress=object())
    assert same == key(source=replace(SOURCE, mtime_ns=9, inode=9), lake=Path("lake").absolute(), settings=2)
    different = [
        key(source=replace(SOURCE, fingerprint="xxh3:01"), lake="lake"),
        key(source=SOURCE, lake="lake2"),
        key("other", source=SOURCE, lake="lake"),
        key(other=SOURCE, lake="lake"),
        key(source=[SOURCE], lake="lake"),
    ]
    assert len({same, *different}) == 6
    assert key(r=MboRecipe()) != key(r=MboRecipe(filter=EventFilter(symbols=("A",))))
    assert key(x=1) != key(x="1") != key(x=[1]) != key(x={"a": 1})
    assert key(x={"b": 1, "a": 2}) == key(x={"a": 2, "b": 1})
    assert key(x={3, 1, 2}) == key(x={1, 2, 3})
    with pytest.raises(TypeError, match="Condition cannot be part of a cache key"):
        key(x=policies.budget_of(1, 1)._changed)


def status(code: int) -> httpx.HTTPStatusError:
    request = httpx.Request("GET", "http://x")
    return httpx.HTTPStatusError("x", request=request, response=httpx.Response(code, request=request))


@pytest.mark.parametrize(
    ("fault", "passes"),
    [
        (StorageError("busy", transient=True), True), (StorageError("full"), False), (CorruptSource("a", "cut off"), False),
        (UsageError("no"), False),
        (OSError(errno.EIO, "io"), True), (OSError(errno.ENOSPC, "full"), False), (FileNotFoundError(errno.ENOENT, "gone"), False),
        (PermissionError(errno.EACCES, "no"), False), (ConnectionResetError(), True), (TimeoutError(), True), (httpx.ConnectError("x"), True),
        (httpx.ReadTimeout("x"), True), (status(503), True), (status(429), True), (status(422), False),
        (ValueError("bug"), False), (MemoryError(), False),
    ],
)  # fmt: skip
def test_faults_that_can_pass_are_told_from_those_that_cannot(fault, passes):
    assert policies.can_pass(fault) == passes


@pytest.mark.parametrize(
    ("fault", "tries"), [(StorageError("busy", transient=True), 3), (CorruptSource("a.dbn", "it is cut off", offset=7), 1), (KeyError("bug"), 1)]
)
def test_only_faults_that_can_pass_are_tried_again(prefect_api, settings, fault, tries):
    seen = []

    @task(name=f"fails {type(fault).__name__}")
    def fails(partition: Partition) -> None:
        seen.append(1)
        raise fault

    @flow
    def run():
        policies.equip(fails, settings).submit(PARTITION).result()

    with pytest.raises(type(fault)):
        run()
    assert len(seen) == tries


def test_a_task_that_ran_into_its_timeout_is_not_started_again(prefect_api, settings):
    seen = []

    @task(name="slow")
    def slow(partition: Partition) -> None:
        seen.append(1)
        for _ in range(500):
            time.sleep(0.01)

    @flow
    def run():
        policies.equip(slow, replace(settings, task_timeout_s=0.2)).submit(PARTITION).result()

    with pytest.raises(Exception, match=r"timed out"):
        run()
    assert len(seen) == 1


def test_limits_are_made_once_resized_and_taken_by_tasks(prefect_api, settings, monkeypatch):
    from deployments.bootstrap import bootstrap

    monkeypatch.setattr(policies, "_limits", {})
    assert [line.split(" ")[0] for line in bootstrap(settings)] == ["created"] * 4
    again = bootstrap(settings)
    assert again[0] == "the global concurrency limit bookmill-cpu has 2 slots already"
    assert "there already" in again[2]
    assert "from 2 to 1 slots" in bootstrap(replace(settings, cpu_slots=1))[0]

    def taken() -> tuple[int, int]:
        with get_client(sync_client=True) as client:
            return tuple(client.read_global_concurrency_limit_by_name(n).active_slots for n in ("bookmill-cpu", "bookmill-memory"))

    with policies.slots(settings, cpu=2, memory_bytes=settings.memory_slot_bytes + 1):
        assert taken() == (1, 2)  # two wanted, but the server has one CPU slot by now
    assert taken() == (0, 0)


def test_without_the_limits_a_run_says_so_once_and_keeps_its_own_budget(prefect_api, settings, monkeypatch, caplog):
    monkeypatch.setattr(policies, "_limits", {})
    monkeypatch.setattr(policies, "CPU_LIMIT", "bookmill-absent")
    with caplog.at_level(logging.WARNING, logger="flows.policies"):
        for _ in range(2):
            with policies.slots(settings, cpu=1):
                assert policies.budget_of(settings.cpu_slots, settings.memory_slots).free_cpu == settings.cpu_slots - 1
    assert [r.message.split(" at ")[0] for r in caplog.records] == ["The global concurrency limit bookmill-absent does not exist"]


def test_a_private_api_has_no_shared_limits(prefect_api, settings, monkeypatch):
    monkeypatch.setenv("BOOKMILL_EMBEDDED_API", prefect_api)
    monkeypatch.setattr(policies, "_limits", {})
    assert policies.server_url() is None
    with policies.slots(settings, cpu=1, memory_bytes=1):
        assert policies._limits == {}


def test_bootstrap_without_a_server_says_what_to_do(prefect_api, settings, monkeypatch):
    from deployments.bootstrap import bootstrap

    monkeypatch.setenv("BOOKMILL_EMBEDDED_API", prefect_api)
    with pytest.raises(UsageError, match=r"No Prefect server is configured.*prefect server start"):
        bootstrap(settings)


def test_a_run_keeps_a_progress_artifact_and_the_end_is_in_it(prefect_api, monkeypatch):
    from flows import progress

    monkeypatch.setattr(progress, "TICK_S", 0.01)
    monkeypatch.setattr(progress, "ARTIFACT_EVERY_S", 0.05)
    seen = []

    @flow
    def run():
        with progress.Progress("off", "Policies test") as shown:
            shown.expect("a", rows=100)
            shown.advance("a", rows=40)
            while not (found := Artifact.get("policies-test-progress")) or found.data < 40:
                assert shown._thread.is_alive()
            seen.append(found.data)
            shown.advance("a", rows=60)
            shown.finish("a")

    run()
    last = Artifact.get("policies-test-progress")
    assert seen == [40.0]
    assert last.data == 100.0
    assert last.description == "Policies test: " + last.description.split(": ", 1)[1]
    assert "100.0%, 1/1 partitions, 100 rows" in last.description


def test_an_artifact_that_cannot_be_written_harms_nothing(prefect_api, monkeypatch, caplog):
    from flows import progress

    @flow
    def run():
        with progress.Progress("off", "Lost") as shown:
            monkeypatch.setattr("prefect.artifacts.create_progress_artifact", lambda **_: 1 / 0)
            shown.finish("a")
        return "worked"

    assert run() == "worked"
    assert caplog.text.count("The progress artifact cannot be written") == 1
