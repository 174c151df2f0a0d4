"""A lake fetched from an object store is a lake: a run there finds everything done, and what is missing is made with the same bytes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from tasks.scanning.synthetic import SessionSpec
from tasks.scanning.synthetic_writers import write_session
from tests.flows.servers import bookmill, data_files
from tests.object_store import access, s3_server

README = Path(__file__).resolve().parents[2] / "README.md"


@pytest.fixture
def s3(tmp_path, monkeypatch):
    """Address of an empty place on an S3 server."""
    with s3_server(tmp_path / "s3.log", dict(os.environ)) as url:
        for name, value in access(url).items():
            monkeypatch.setenv(name, value)
        urllib.request.urlopen(urllib.request.Request(f"{url}/lakes", method="PUT")).close()
        yield "s3://lakes/mill"


def asked_there(store: str) -> int:
    """Rows that the README's question finds on the store."""
    (block,) = re.findall(r"<!-- run: store -->\n```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert "s3://bucket/lake/" in block
    code = f"{block.replace('s3://bucket/lake/', store + '/')}\nprint(bbo.num_rows)"
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True).stdout)


def times(lake: Path) -> dict[str, int]:
    return {name: (lake / name).stat().st_mtime_ns for name in data_files(lake) if not name.startswith("ledger")}


def test_a_run_in_a_pulled_lake_finds_everything_done_and_makes_what_is_missing_with_the_same_bytes(server, s3, tmp_path):
    source, lake, back = tmp_path / "source", tmp_path / "lake", tmp_path / "back"
    write_session(SessionSpec(records=20_000, seed=5, symbols=("ESZ5", "NQZ5")), source / "many.dbn.zst", "dbn.zst")
    run = ["run", "mbo", str(source), "--lake"]
    for arguments in ([*run, str(lake)], ["push", s3, "--lake", str(lake)], ["pull", s3, "--lake", str(back)]):
        code, output = bookmill(arguments, *server, tmp_path / "log")
        assert code == 0, output
    whole = data_files(lake)
    assert data_files(back) == whole
    assert asked_there(s3) == ds.dataset(lake / "bbo", partitioning=None).count_rows()
    before = times(back)
    code, output = bookmill([*run, str(back)], *server, tmp_path / "log")
    assert code == 0, output
    assert times(back) == before
    assert data_files(back) == whole
    for name in [name for name in whole if name.startswith(("bbo", "ohlcv-1m"))]:
        (back / name).unlink()
    code, output = bookmill([*run, str(back)], *server, tmp_path / "log")
    assert code == 0, output
    assert data_files(back) == whole
    # What was made again is what the store has.
    code, output = bookmill(["push", s3, "--lake", str(back)], *server, tmp_path / "log")
    assert code == 0, output
    sent = int(output.split(" files sent")[0].rsplit(" ", 1)[-1])
    told_of_runs = sum(1 for folder in ("reports", "runs") for path in (back / folder).iterdir() if path.suffix in (".html", ".json"))
    assert sent == told_of_runs - 2
