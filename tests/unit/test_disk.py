"""Files that get their names together: all or none, in order, after their content is synced; and faults of the disk on the way."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from tasks import disk
from tasks.disk import together
from tasks.errors import StorageError
from tasks.storage import atomic_file


def write(path: Path) -> None:
    with atomic_file(path) as file:
        file.write(path.name.encode())


def write_together(*paths: Path, fault: Exception | None = None) -> None:
    with together():
        for path in paths:
            write(path)
        if fault:
            raise fault


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def told(monkeypatch):
    """What happens to files, in order: ("sync" or "name", the name it has or gets)."""
    calls: list[tuple[str, str]] = []
    sync, replace, lock = os.fsync, os.replace, threading.Lock()

    def fsync(handle):
        with lock:
            calls.append(("sync", Path(os.readlink(f"/proc/self/fd/{handle}")).name))
        sync(handle)

    def rename(source, target):
        calls.append(("name", Path(target).name))
        replace(source, target)

    monkeypatch.setattr(disk.os, "fsync", fsync)
    monkeypatch.setattr(disk.os, "replace", rename)
    return calls


def test_a_file_is_synced_before_it_gets_its_name_and_its_folder_afterwards(tmp_path, told):
    write(tmp_path / "a" / "x")
    assert [call[0] for call in told] == ["sync", "name", "sync"]
    assert told[0][1].startswith(".x.")
    assert told[1:] == [("name", "x"), ("sync", "a")]


def test_files_together_get_their_names_at_the_end_in_order_when_all_are_synced(tmp_path, told):
    wanted = [tmp_path / folder / name for folder, name in (("b", "3"), ("a", "1"), ("b", "2"))]
    with together():
        for path in wanted:
            write(path)
            assert not path.exists()
        assert told == []
    assert [path.read_bytes() for path in wanted] == [b"3", b"1", b"2"]
    assert sorted(name.split(".")[1] for kind, name in told[:3] if kind == "sync") == ["1", "2", "3"]
    assert told[3:6] == [("name", "3"), ("name", "1"), ("name", "2")]
    assert sorted(told[6:]) == [("sync", "a"), ("sync", "b")]  # each folder once
    assert files(tmp_path) == ["1", "2", "3"]


def test_a_block_inside_of_a_block_is_a_part_of_it(tmp_path):
    with together():
        with together():
            write(tmp_path / "inner")
        assert files(tmp_path / "none") == []
        assert not (tmp_path / "inner").exists()
    assert files(tmp_path) == ["inner"]
    write(tmp_path / "after")
    assert files(tmp_path) == ["after", "inner"]


def test_a_block_that_fails_inside_of_another_leaves_its_own_files_out_and_those_of_the_other_alone(tmp_path):
    with together():
        write(tmp_path / "before")
        with pytest.raises(ValueError, match="inside"):
            write_together(tmp_path / "inner", fault=ValueError("inside"))
        write(tmp_path / "after")
        assert len(files(tmp_path)) == 2
    assert files(tmp_path) == ["after", "before"]


def test_nothing_of_a_block_that_fails_is_left(tmp_path):
    with pytest.raises(RuntimeError):
        write_together(tmp_path / "x", tmp_path / "y", fault=RuntimeError())
    assert files(tmp_path) == []
    write(tmp_path / "z")
    assert files(tmp_path) == ["z"]


@pytest.mark.parametrize("at", range(3))
def test_where_the_content_of_one_cannot_be_synced_none_appears(tmp_path, monkeypatch, at):
    sync = os.fsync

    def full(handle):
        if Path(os.readlink(f"/proc/self/fd/{handle}")).name.startswith(f".{at}."):
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    monkeypatch.setattr(disk.os, "fsync", full)
    with pytest.raises(StorageError, match=rf"{tmp_path / str(at)}: No space left.*free space"):
        write_together(*(tmp_path / str(name) for name in range(3)))
    assert files(tmp_path) == []


def test_where_one_cannot_be_named_those_before_it_are_complete_and_the_rest_is_gone(tmp_path):
    (tmp_path / "1" / "in the way").mkdir(parents=True)
    with pytest.raises(StorageError, match=str(tmp_path / "1")):
        write_together(*(tmp_path / str(name) for name in range(3)))
    assert files(tmp_path) == ["0"]
    assert (tmp_path / "0").read_bytes() == b"0"


def test_a_block_is_of_its_thread_alone(tmp_path):
    with together():
        thread = threading.Thread(target=write, args=(tmp_path / "other",))
        thread.start()
        thread.join()
        assert files(tmp_path) == ["other"]


@pytest.mark.parametrize("fault", [None, OSError(22, "no such advice")])
def test_small_files_are_told_to_be_written_before_the_first_is_waited_for_and_large_ones_are_left_in_memory(tmp_path, told, monkeypatch, fault):
    def advise(handle, start, length, advice):
        told.append(("begin", Path(os.readlink(f"/proc/self/fd/{handle}")).name.split(".")[1]))
        if fault:
            raise fault

    monkeypatch.setattr(disk.os, "posix_fadvise", advise)
    monkeypatch.setattr(disk, "SMALL_BYTES", 3)
    with together():
        for name, content in (("1", b"abc"), ("2", b"abcd"), ("3", b"a")):
            with atomic_file(tmp_path / name) as file:
                file.write(content)
    assert told[:2] == [("begin", "1"), ("begin", "3")]
    assert [kind for kind, _ in told[2:]] == ["sync"] * 3 + ["name"] * 3 + ["sync"]
    assert files(tmp_path) == ["1", "2", "3"]
