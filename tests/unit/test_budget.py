"""Slots of one process: never more than there are, in order of arrival, and nobody waits for ever."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.budget import Budget, budget_of


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(0, 6), st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9)), min_size=1, max_size=16))
def test_the_totals_are_kept_and_all_takers_run(cpu, memory, wants):
    budget, lock, held, most, ran = Budget(cpu, memory), threading.Lock(), [0, 0], [0, 0], []

    def work(want):
        with budget.take(*want):
            taken = (min(want[0], cpu), min(want[1], memory))
            with lock:
                for k in (0, 1):
                    held[k] += taken[k]
                    most[k] = max(most[k], held[k])
            time.sleep(0.0005)
            with lock:
                ran.append(want)
                for k in (0, 1):
                    held[k] -= taken[k]

    threads = [threading.Thread(target=work, args=(want,), daemon=True) for want in wants]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(ran) == sorted(wants)
    assert most[0] <= cpu
    assert most[1] <= memory
    assert (budget.free_cpu, budget.free_memory) == (cpu, memory)


def test_a_large_taker_is_not_overtaken_by_small_ones_that_came_later():
    budget, order = Budget(2, 4), []

    def taker(name, cpu, memory):
        with budget.take(cpu, memory):
            order.append(name)

    threads = []
    with budget.take(1, 1):
        for name, cpu, memory in (("large", 2, 4), ("small", 1, 1)):
            threads.append(threading.Thread(target=taker, args=(name, cpu, memory), daemon=True))
            threads[-1].start()
            while len(budget._queue) < len(threads):
                time.sleep(0.001)
        assert order == []  # a slot is free for the small one, but the large one is first
    for thread in threads:
        thread.join(10)
    assert order == ["large", "small"]


def test_slots_come_back_after_a_failure():
    budget = Budget(1, 1)
    with pytest.raises(ZeroDivisionError), budget.take(1, 1):
        raise ZeroDivisionError
    with budget.take(1, 1):
        assert (budget.free_cpu, budget.free_memory) == (0, 0)


def test_an_interrupted_wait_leaves_no_ticket_behind(monkeypatch):
    budget = Budget(1, 1)

    def interrupted(predicate):
        raise KeyboardInterrupt

    monkeypatch.setattr(budget._changed, "wait_for", interrupted)
    with pytest.raises(KeyboardInterrupt), budget.take(1, 1):
        pass
    assert not budget._queue
    assert (budget.free_cpu, budget.free_memory) == (1, 1)


def test_taking_twice_in_one_thread_is_refused_instead_of_waiting_for_ever():
    budget = Budget(1, 1)
    with budget.take(1, 0):
        with pytest.raises(RuntimeError, match="holds slots already"), budget.take(1, 0):
            pass
        with pytest.raises(ValueError, match="negative"), budget.take(-1, 0):
            pass


def test_equal_settings_share_one_budget():
    assert budget_of(3, 5) is budget_of(3, 5)
    assert budget_of(3, 5) is not budget_of(4, 5)
