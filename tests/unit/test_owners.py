"""Owners of partial files: who lives, who is dead, and who cannot be judged from here."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from tasks.owners import Owner
from tasks.storage import FOREIGN_DEAD_S, AtomicFile, atomic_file, partial_owner, remove_partials


def test_an_owner_survives_being_written_into_a_name():
    me = Owner.me()
    assert (me.pid, me.alive) == (os.getpid(), True)
    assert Owner.parse(me.text) == me


@pytest.mark.parametrize("text", ["", "a-b-c-d", "00000000-1-12345678", "x-1--5", "x-1-y-zz", "123"])
def test_what_is_no_owner_is_none(text):
    assert Owner.parse(text) is None


def test_a_process_that_ended_is_dead_and_so_is_one_whose_id_was_used_again():
    me = Owner.me()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert replace(me, pid=ended.pid).alive is False
    assert replace(me, start=me.start - 60).alive is False
    assert replace(me, start=me.start - 1).alive is True  # the clock was corrected


def test_a_process_that_nobody_has_waited_for_is_dead():
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    try:
        import psutil

        start = int(psutil.Process(zombie.pid).create_time())
        assert replace(Owner.me(), pid=zombie.pid, start=start).alive is False
    finally:
        zombie.wait()


@pytest.mark.parametrize("other", [{"host": "00000000"}, {"space": "00000000"}])
def test_of_another_machine_container_or_boot_nothing_is_known(other):
    assert replace(Owner.me(), **other).alive is None


def test_only_partial_files_of_the_dead_are_removed(tmp_path):
    with AtomicFile(tmp_path / "mine") as mine:
        mine.write(b"x")
        me, (living,) = Owner.me(), tmp_path.glob(".mine.*.partial")

        def left_by(owner: Owner, age_s: float = 0.0):
            path = tmp_path / living.name.replace(me.text, owner.text).replace("mine", f"f{len(list(tmp_path.iterdir()))}")
            path.write_bytes(b"")
            os.utime(path, (path.stat().st_mtime - age_s,) * 2)
            return path

        dead = left_by(replace(me, start=me.start - 100))
        far, far_and_old = left_by(replace(me, host="ffffffff")), left_by(replace(me, host="ffffffff"), FOREIGN_DEAD_S + 60)
        # A container of the same name has its own process ids: that this machine has none of that number says nothing.
        container = left_by(replace(me, space="ffffffff", pid=999_999_999))
        others = tmp_path / ".upload-of-another-program.partial"  # a folder for CSV may be shared
        others.write_bytes(b"theirs")
        os.utime(others, (time.time() - FOREIGN_DEAD_S - 60,) * 2)
        assert sorted(remove_partials(tmp_path)) == sorted([dead, far_and_old])
        assert all(path.exists() for path in (living, far, container, others))
        assert partial_owner(living.name) == (os.getpid(), True)
        assert partial_owner(far.name) == partial_owner(container.name) == (None, False)
        mine.commit()
    assert (tmp_path / "mine").read_bytes() == b"x"


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_file(tmp_path / "a") as file:
        file.write(b"%d" % (1 // 0))
    assert list(tmp_path.iterdir()) == []
