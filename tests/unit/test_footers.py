"""Footers are kept by file: what is told is what stands in the file now, whoever wrote it, and what is kept stays bounded."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks import footers
from tasks.disk import together
from tasks.footers import contents, is_done, read_facts, read_footer
from tasks.partitions import Stamp
from tasks.storage import write_table

TABLE = pa.table({"a": [1, 2, 3]})


def stands_in(path: Path) -> dict[str, str]:
    """The entries as Parquet reads them from the file itself."""
    return {k.decode(): v.decode() for k, v in (pq.read_metadata(path).metadata or {}).items() if k.startswith(b"bookmill.")}


@pytest.fixture
def counted(monkeypatch):
    """Paths whose metadata are read, in order; nothing is kept from before."""
    monkeypatch.setattr(footers, "_footers", footers._Footers(footers.KEPT_BYTES))
    paths: list[Path] = []
    read = pq.read_metadata

    def counting(path):
        paths.append(path)
        return read(path)

    monkeypatch.setattr(footers.pq, "read_metadata", counting)
    return paths


@pytest.mark.parametrize("in_a_block", [False, True])
def test_what_was_written_here_is_known_without_reading_and_equals_what_stands_in_the_file(tmp_path, counted, in_a_block):
    path, stamp = tmp_path / "x.parquet", Stamp("in", "how")
    if in_a_block:
        with together():
            write_table(path, TABLE, stamp, {"rows_in": 3})
            assert read_footer(path) is None  # it has no name yet
    else:
        write_table(path, TABLE, stamp, {"rows_in": 3})
    assert read_footer(path) is not None
    assert is_done(path, stamp)
    assert read_facts(path) == {"rows_in": 3}
    assert counted == []
    assert read_footer(path) == stands_in(path)


def test_a_file_that_was_replaced_or_changed_is_read_anew_and_one_that_is_gone_is_not_told(tmp_path, counted):
    path = tmp_path / "x.parquet"
    write_table(path, TABLE, Stamp("one", "r"))
    write_table(tmp_path / "y.parquet", TABLE, Stamp("two", "r"))
    shutil.copyfile(tmp_path / "y.parquet", tmp_path / "z.parquet")
    os.replace(tmp_path / "z.parquet", path)
    assert read_footer(path)["bookmill.inputs"] == "two"
    assert counted == [path]
    read_footer(path)
    assert counted == [path]
    path.write_bytes(b"PAR1 is not enough")
    os.utime(path, ns=(1, 1))
    assert read_footer(path) is None
    path.unlink()
    assert read_footer(path) is None
    assert not is_done(path, Stamp("two", "r"))


def test_what_a_caller_does_with_a_footer_changes_nothing(tmp_path):
    path = tmp_path / "x.parquet"
    write_table(path, TABLE, Stamp("one", "r"))
    read_footer(path)["bookmill.inputs"] = "other"
    assert is_done(path, Stamp("one", "r"))


def test_what_is_kept_is_bounded_and_those_used_last_stay(tmp_path, counted, monkeypatch):
    monkeypatch.setattr(footers, "_footers", footers._Footers(10 * 1_000))
    paths = [tmp_path / f"{k}.parquet" for k in range(40)]
    for path in paths:
        write_table(path, TABLE, Stamp(path.stem, "r"), {"text": "x" * 300})
        read_footer(paths[0])
    kept = footers._footers
    assert kept._size == sum(footers._weight(entries) for entries in kept._kept.values()) <= 10_000
    assert 5 <= len(kept._kept) <= 10
    assert counted == []  # the first was asked for all the time
    assert [read_footer(path)["bookmill.inputs"] for path in paths] == [path.stem for path in paths]
    assert len(counted) >= 30


def test_threads_that_ask_at_once_are_told_the_same(tmp_path, counted):
    paths = [tmp_path / f"{k}.parquet" for k in range(20)]
    for path in paths:
        write_table(path, TABLE, Stamp(path.stem, "r"))
    footers._footers._kept.clear()
    found: list[list[str]] = []

    def ask():
        found.append([read_footer(path)["bookmill.inputs"] for path in paths for _ in range(20)])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[path.stem for path in paths for _ in range(20)]] * 4


def test_contents_change_with_any_file_and_not_with_the_order_of_names(tmp_path):
    names = ["a.parquet", "b.parquet"]
    for name in names:
        write_table(tmp_path / name, TABLE, Stamp(name, "r"), {"fact": 1})
    whole = contents(tmp_path, names)
    assert contents(tmp_path, reversed(names)) == whole
    write_table(tmp_path / "b.parquet", TABLE, Stamp("other", "r"), {"fact": 1})
    other = contents(tmp_path, names)
    (tmp_path / "b.parquet").unlink()
    assert len({whole, other, contents(tmp_path, names)}) == 3
