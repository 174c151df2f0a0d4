"""The collector is back after a block of imports, however it ends, and a process that ends quickly still does what it has to do at its end."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from config import collector


@pytest.fixture(autouse=True)
def _thawed():
    yield
    gc.unfreeze()


def test_the_collector_works_on_after_a_block_of_imports_that_fails():
    with pytest.raises(ImportError), collector.imports():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()


def test_what_was_imported_is_not_searched_any_more_and_what_comes_later_is():
    with collector.imports():
        before = [[] for _ in range(1_000)]
    frozen = gc.get_freeze_count()
    assert frozen > len(before)
    ring: list = []
    ring.append(ring)
    del ring
    assert gc.collect() >= 1
    assert gc.get_freeze_count() <= frozen


def test_a_process_that_ends_quickly_does_what_was_registered_for_its_end_and_flushes_what_it_wrote(tmp_path):
    script = (
        "import atexit\nfrom config.collector import quick_end\nquick_end()\natexit.register(print, 'last words')\n"
        f"file = open({str(tmp_path / 'file')!r}, 'w')\nfile.write('kept')\nprint('first words')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["first words", "last words", ""]
    assert (tmp_path / "file").read_text() == "kept"
