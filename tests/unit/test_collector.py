"""The collector is back after a block of imports, however it ends, and a process that ends quickly still does what it has to do at its end."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from config import collector


def test_the_collector_works_on_after_a_block_of_imports_that_fails():
    def block() -> None:
        with collector.imports():
            assert not gc.isenabled()
            raise ImportError

    try:
        with pytest.raises(ImportError):
            block()
        assert gc.isenabled()
    finally:
        gc.unfreeze()  # the tests that follow are searched as ever


def test_what_was_imported_is_not_searched_any_more_and_what_comes_later_is():
    script = """
import gc
from config import collector
with collector.imports():
    before = [[] for _ in range(1_000)]
frozen = gc.get_freeze_count()
assert frozen > len(before)
ring = []
ring.append(ring)
del ring
assert gc.collect() == 1
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("status", [0, 2])
def test_a_quick_end_does_what_was_registered_flushes_what_was_written_and_keeps_the_status(tmp_path, status):
    script = f"""
import atexit, logging, sys, threading, time
from config.collector import QuickEnd
end = QuickEnd()
file = open({str(tmp_path / "file")!r}, "w")
atexit.register(file.close)
atexit.register(print, "last words")
file.write("kept")
threading.Thread(target=lambda: (time.sleep(0.2), print("a thread"))).start()
print("first words")
end.status = {status}
sys.exit(1)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (status, "")
    assert done.stdout.split() == ["first", "words", "a", "thread", "last", "words"]
    assert (tmp_path / "file").read_text() == "kept"


def test_an_error_that_nobody_caught_keeps_its_traceback():
    script = "from config.collector import QuickEnd\nend = QuickEnd()\nraise ValueError('told')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("ValueError: told\n")


@pytest.mark.parametrize(("entry", "status"), [("main", 0), ("program", 2)])
def test_a_command_within_another_program_leaves_that_program_its_own_end(entry, status):
    """A program that calls commands, such as the suite of tests, ended with the status of the last of them, which here is a usage error."""
    script = f"""
import contextlib, sys
from deployments.cli import {entry}
sys.argv = ["bookmill", "no-such-command"]
with contextlib.suppress(SystemExit):
    {entry}()
print("went on")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (status, "went on\n")
