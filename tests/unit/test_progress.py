"""Progress: the counts, and what is shown where. The artifact is tested with a real API in tests/flows."""

from __future__ import annotations

import io
import logging
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows import progress as progress_module
from flows.progress import Progress
from flows.tally import Tally, clock


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_rate_and_time_left_follow_the_last_seconds_not_the_whole_run():
    now = Clock()
    tally = Tally(now)
    tally.expect("a", rows=10_000)
    for step in range(60):  # 10 rows a second for a minute, then 100
        now.seconds += 1
        tally.advance("a", 10, 0)
        early = tally.snapshot()
        assert step == 0 or early.rows_per_s == pytest.approx(10)
    for _ in range(30):
        now.seconds += 1
        tally.advance("a", 100, 0)
        late = tally.snapshot()
    assert late.rows_per_s == pytest.approx(100)
    assert late.eta_s == pytest.approx((10_000 - 3_600) / 100)
    assert late.percent == pytest.approx(36)
    assert late.elapsed_s == pytest.approx(90)


def test_partitions_weigh_by_bytes_when_all_sizes_are_known_and_alike_when_not():
    known, mixed = Tally(), Tally()
    for key, size in (("small", 10), ("large", 90)):
        known.expect(key, size=size)
        mixed.expect(key, size=size if key == "large" else -1)
    for tally in (known, mixed):
        tally.finish("large")
    assert known.snapshot().percent == pytest.approx(90)
    assert mixed.snapshot().percent == pytest.approx(50)


def test_a_hundred_percent_means_all_partitions_are_finished():
    tally = Tally()
    tally.expect("a", rows=5)
    tally.advance("a", 50, 0)
    assert tally.snapshot().percent == 99.9
    tally.finish("a")
    assert (tally.snapshot().percent, tally.snapshot().eta_s) == (100.0, 0.0)


def test_a_retried_partition_is_not_counted_twice():
    tally = Tally()
    tally.expect("a", rows=100)
    tally.advance("a", 60, 6)
    tally.expect("a", rows=100)
    tally.advance("a", 100, 10)
    assert (tally.snapshot().rows, tally.snapshot().size, tally.snapshot().parts) == (100, 10, 1)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-1, 1_000), st.integers(-1, 1_000)), max_size=6),
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 500), st.integers(0, 500), st.floats(0, 30)), max_size=20),
)
def test_whatever_happens_the_percentage_stays_between_0_and_100_and_the_rows_add_up(expected, steps):
    now = Clock()
    tally = Tally(now)
    for index, (rows, size) in enumerate(expected):
        tally.expect(str(index), rows, size)
    for key, rows, size, seconds in steps:
        now.seconds += seconds
        tally.advance(str(key), rows, size)
        shot = tally.snapshot()
        assert 0 <= shot.percent <= 99.9
        assert shot.rows_per_s >= 0
        assert shot.eta_s is None or shot.eta_s >= 0
    assert tally.snapshot().rows == sum(rows for _, rows, _, _ in steps)


def test_clock_reads_like_a_clock():
    assert [clock(s) for s in (0, 42, 725, 10_807, -3)] == ["0:00", "0:42", "12:05", "3:00:07", "0:00"]


def test_advances_from_many_threads_all_count():
    stream = io.StringIO()
    with Progress("off", stream=stream) as shown:
        shown.expect("a", rows=8_000)
        threads = [threading.Thread(target=lambda: [shown.advance("a", 1, 2) for _ in range(1_000)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (shown.snapshot().rows, shown.snapshot().size) == (8_000, 16_000)
    assert stream.getvalue() == ""


def test_a_bar_is_drawn_on_a_terminal_only(caplog):
    screen, file = Screen(), io.StringIO()
    for stream in (screen, file):
        with Progress("bar", "mbo", stream=stream) as shown:
            shown.expect("ARL [2025-07-17]", rows=100)
            shown.advance("ARL [2025-07-17]", rows=100)
            shown.finish("ARL [2025-07-17]")
    assert "100.0%, 1/1 partitions, 100 rows" in screen.getvalue()
    assert file.getvalue() == ""


def test_partitions_in_work_have_a_bar_each_until_they_finish(monkeypatch):
    monkeypatch.setattr(progress_module, "TICK_S", 0.01)
    screen = Screen()
    with Progress("auto", "mbo", stream=screen) as shown:
        shown.expect("ARL [x]", rows=100)
        shown.expect("ESH4", rows=100)
        shown.advance("ARL [x]", rows=50)
        while "ARL [x]" not in screen.getvalue():
            assert shown._thread.is_alive()
        shown.finish("ARL [x]")
    assert "50 rows" in screen.getvalue()
    assert "ESH4" not in screen.getvalue()


def test_off_a_terminal_lines_go_to_the_log_and_with_log_to_the_stream_too(caplog, monkeypatch):
    caplog.set_level(logging.INFO, logger="flows.progress")
    for mode, echoed in (("auto", False), ("log", True), ("off", False)):
        stream = io.StringIO()
        caplog.clear()
        with Progress(mode, "mbo", stream=stream) as shown:
            shown.expect("a", rows=10)
            shown.advance("a", rows=5)
        assert ("mbo: finished after 0:00: 50.0%, 0/1 partitions, 5 rows" in stream.getvalue()) == echoed
        assert bool(caplog.records) == (mode != "off")


def test_lines_are_repeated_while_the_run_lasts(caplog, monkeypatch):
    caplog.set_level(logging.INFO, logger="flows.progress")
    monkeypatch.setattr(progress_module, "TICK_S", 0.01)
    monkeypatch.setattr(progress_module, "LINE_EVERY_S", 0.02)
    with Progress("log", "mbo", stream=io.StringIO()) as shown:
        while len(caplog.records) < 3:
            assert shown._thread.is_alive()
    assert "stopped" not in caplog.text


def test_a_failing_run_says_stopped_and_the_failure_goes_on(caplog):
    caplog.set_level(logging.INFO, logger="flows.progress")
    with pytest.raises(ZeroDivisionError), Progress("log", "mbo", stream=io.StringIO()):
        raise ZeroDivisionError
    assert "stopped after" in caplog.text
