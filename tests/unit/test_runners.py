"""What a worker process may use, what it tells, and which runners may be chosen. Runs on real pools and clusters: tests/flows."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

from config.settings import load
from config.values import MIB
from flows import relay
from flows.options import check_runner
from tasks.errors import UsageError
from tasks.work import Outcome

runners = pytest.importorskip("flows.runners")

GIB = 1024 * MIB


def settings(workers: int, memory: str):
    return load("server", {"workers": workers, "memory_bytes": memory}, environ={})


@pytest.fixture
def posted(monkeypatch):
    """Messages of this process."""
    messages: list[relay.Message] = []
    monkeypatch.setattr(relay, "_send", messages.append)
    monkeypatch.setattr(relay, "_counts", {})
    return messages


@pytest.mark.parametrize(
    ("workers", "memory", "processes"), [(2, "1GiB", 1), (2, "2GiB", 2), (16, "4GiB", 4), (16, "64GiB", 16), (1, "64GiB", 1), (4, "300MiB", 1)]
)
def test_so_many_processes_are_started_as_the_budget_holds(workers, memory, processes):
    assert runners.processes_in(settings(workers, memory)) == processes


@pytest.mark.parametrize("workers", [1, 2, 3, 16, 64])
@pytest.mark.parametrize("gib", [2, 3, 16, 256])
def test_all_processes_together_keep_the_budget_of_memory_and_cores(workers, gib):
    whole = settings(workers, f"{gib}GiB")
    processes = runners.processes_in(whole)
    share = runners.share_of(whole, processes)
    assert runners.RUN_BYTES + processes * (runners.PROCESS_BYTES + share.memory_bytes) <= whole.memory_bytes
    assert share.memory_bytes >= runners.TASK_BYTES
    assert share.memory_slots * share.memory_slot_bytes <= max(share.memory_bytes, share.memory_slot_bytes)
    assert share.cpu_slots * processes <= max(whole.cpu_slots, processes)
    assert share.duckdb_memory_bytes <= share.memory_bytes
    assert share.duckdb_threads <= share.cpu_slots


def test_what_a_task_is_given_survives_the_way_to_a_worker_process():
    told = []
    ear = runners.Ear("run-1", told.append, told.append, told.append)
    crew = runners.ProcessCrew(settings(2, "4GiB"), ear)
    work = pickle.loads(pickle.dumps(crew.work()))
    assert work == crew.work()
    assert (work.advance.run_id, work.finish.name, work.tell.name) == ("run-1", "finish", "tell")
    assert work.slots.share == runners.share_of(crew.settings, 2)


def test_counts_are_added_up_and_told_once_a_second_or_with_the_end_of_a_job(posted, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(relay.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(relay, "_told", 100.0)
    advance, finish = relay.Counter("r"), relay.Relay("r", "finish")
    for _ in range(1_000):
        advance("a", 3, 5)
    assert posted == []
    clock[0] += relay.TELL_EVERY_S
    advance("a", rows=1)
    advance("b", bytes=7)
    assert [(run, name, pickle.loads(args)) for run, name, args in posted] == [("r", "advance", ("a", 3_001, 5_000))]
    finish("a")
    assert [(name, pickle.loads(args)) for _, name, args in posted[1:]] == [("advance", ("b", 0, 7)), ("finish", ("a",))]


def test_a_run_hears_its_own_workers_only_and_each_job_once():
    heard: list[tuple] = []
    ear = runners.Ear("mine", lambda *a: heard.append(a), lambda *a: heard.append(a), lambda *a: heard.append(a))
    crew = runners.Crew(settings(2, "4GiB"), ear)
    outcome = Outcome("BTCUSDT", 1.0, 10, False)
    crew._hear(("other", "finish", pickle.dumps(("a",))))
    crew._hear(("mine", "advance", pickle.dumps(("a", 1, 2))))
    crew._hear(("mine", "tell", pickle.dumps((outcome,))))
    crew._hear(("mine", "tell", pickle.dumps((replace(outcome, skipped=True),))))
    assert heard == [("a", 1, 2), (outcome,)]


def test_a_task_that_kills_every_worker_is_told_and_takes_no_other_with_it():
    class Lost(Exception):
        pass

    class Future:
        task_run_id = None

        def __init__(self, number: int) -> None:
            self.number = number

        def result(self, raise_on_failure: bool) -> object:
            # Number 3 takes the whole pool with it, as a process that is killed does.
            if 3 in batch and (self.number >= 3):
                raise Lost("killed")
            return self.number

    class Fragile(runners.Crew):
        kind, lost = "fragile", (Lost,)
        starts = 0

        def _start(self) -> None:
            self.starts += 1
            batch.clear()

    batch: set[int] = set()

    def call(number: int):
        batch.add(number)
        return Future(number)

    crew = Fragile(settings(2, "4GiB"), runners.Ear("r", print, print, print))
    with crew:
        results = crew.gather([lambda n=n: call(n) for n in range(6)])
    assert results[:3] == [0, 1, 2]
    assert isinstance(results[3], runners.WorkersLost)
    assert "lost 3 times" in str(results[3])
    assert results[4:] == [4, 5]
    assert crew.starts == 4


@pytest.mark.parametrize(
    ("runner", "address", "told"),
    [("thread", "", "allowed: threads, processes, dask"), ("processes", "tcp://a:1", "say --runner dask, or leave the address out")],
)
def test_runners_that_may_not_be_chosen_are_told(runner, address, told):
    with pytest.raises(UsageError, match=told):
        check_runner(runner, address)


def test_dask_without_its_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("flows.options.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install .*\[dask\]"):
        check_runner("dask", "")


def test_workers_elsewhere_cannot_reach_a_private_api(monkeypatch):
    pytest.importorskip("prefect_dask")
    from flows.dask_crew import DaskCrew

    monkeypatch.setenv("BOOKMILL_EMBEDDED_API", "http://127.0.0.1:5/api")
    ear = runners.Ear("r", print, print, print)
    assert DaskCrew(settings(2, "4GiB"), ear, "127.0.0.1:8786", "lake").address == "tcp://127.0.0.1:8786"
    with pytest.raises(UsageError, match="cannot reach the private Prefect API"):
        DaskCrew(settings(2, "4GiB"), ear, "tcp://10.0.0.5:8786", "lake")
