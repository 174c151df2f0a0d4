"""Claims: one holder at a time across runs, processes and kills, and no waiting in a circle."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tasks.locks import PARTITION, SOURCE, Claims

ROOT = Path(__file__).resolve().parents[2]
HOLDER = """
import sys, time
from pathlib import Path
from tasks.locks import PARTITION, Claims

claims = Claims(Path(sys.argv[1]), lambda text: print(text, flush=True))
claims.claim(PARTITION, sys.argv[2].split(","))
print("held", flush=True)
time.sleep(float(sys.argv[3]))
"""


def holder(lake: Path, names: str, seconds: float = 60) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", HOLDER, str(lake), names, str(seconds)], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_another_process_waits_says_so_and_goes_on_when_the_holder_was_killed(tmp_path):
    first = holder(tmp_path, "A,B")
    assert first.stdout.readline() == "held\n"
    second, told = Claims(tmp_path, lambda text: told.append(text)), []
    waiting = threading.Thread(target=second.claim, args=(PARTITION, ["B", "C"]), daemon=True)
    waiting.start()
    waiting.join(1)
    assert waiting.is_alive()
    assert "another run works on B" in " ".join(told)
    first.send_signal(signal.SIGKILL)
    first.wait()
    waiting.join(5)
    assert not waiting.is_alive()
    assert told[-1] == "the other run has let go; going on"
    second.release()


def test_other_partitions_and_other_lakes_do_not_wait(tmp_path):
    with (
        Claims(tmp_path / "one", pytest.fail) as first,
        Claims(tmp_path / "one", pytest.fail) as second,
        Claims(tmp_path / "two", pytest.fail) as third,
    ):
        first.claim(PARTITION, ["A"])
        second.claim(PARTITION, ["B"])
        second.claim(SOURCE, [])
        third.claim(PARTITION, ["A", "B"])


def test_two_runs_of_one_process_exclude_each_other_and_what_one_gives_back_stays_locked_for_the_other(tmp_path):
    first, second, told = Claims(tmp_path), Claims(tmp_path, lambda text: told.append(text)), []
    first.claim(PARTITION, ["A"])
    second.claim(PARTITION, ["B"])
    first.release()
    # Had the release closed a handle of the file, the kernel would have freed B as well.
    child = holder(tmp_path, "B", 0)
    time.sleep(1)
    assert child.poll() is None
    second.release()
    assert "held\n" in child.communicate(timeout=20)[0]
    assert told == []


def test_claims_out_of_order_end_and_never_wait_in_a_circle(tmp_path):
    names = [f"P{k}" for k in range(40)]
    inside, most, errors = set(), [], []

    def work(number: int) -> None:
        try:
            for turn in range(6):
                with Claims(tmp_path) as claims:
                    mine = {names[(number * 7 + turn * 11 + k * 13) % 40] for k in range(4)}
                    for name in mine:  # one by one, in whatever order the set has
                        claims.claim(PARTITION, [name])
                    assert not inside & mine, "two hold one partition"
                    inside.update(mine)
                    most.append(len(inside))
                    time.sleep(0.001)
                    inside.difference_update(mine)
        except BaseException as fault:
            errors.append(fault)

    threads = [threading.Thread(target=work, args=(k,), daemon=True) for k in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not [t for t in threads if t.is_alive()]
    assert errors == []
    assert max(most) > 4, "they never worked at the same time"


def test_without_a_place_for_locks_it_is_told_once_and_work_goes_on(tmp_path):
    (tmp_path / "runs").write_text("a file where the folder should be")
    told = []
    claims = Claims(tmp_path, told.append)
    claims.claim(SOURCE, ["a"])
    claims.claim(PARTITION, ["A"])
    claims.release()
    assert len(told) == 1
    assert told[0].startswith("no locks at")
