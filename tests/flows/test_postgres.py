"""A Prefect server over a real PostgreSQL: runs report to it, and lose nothing when the database is killed under them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tasks.scanning.synthetic import SessionSpec
from tasks.scanning.synthetic_writers import write_session
from tests.flows.postgres import Postgres, binary
from tests.flows.servers import ask, bookmill, data_files, prefect_server, start_bookmill

pytestmark = pytest.mark.skipif(not (binary("postgres") and binary("initdb")), reason="PostgreSQL is not installed")


@pytest.fixture(scope="module")
def database():
    """A running PostgreSQL."""
    with Postgres() as running:
        yield running


@pytest.fixture(scope="module")
def server(database, tmp_path_factory):
    """(url, home) of a Prefect server on that database."""
    home = tmp_path_factory.mktemp("prefect")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", database.url)
        with prefect_server(home) as url:
            yield url, home


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    """A folder with a session of three symbols."""
    folder = tmp_path_factory.mktemp("sources")
    write_session(SessionSpec(records=30_000, seed=5, symbols=("ESZ5", "NQZ5", "CLZ5")), folder / "a.dbn.zst", "dbn.zst")
    return folder


@pytest.fixture(scope="module")
def finished(server, sources, tmp_path_factory) -> dict[str, bytes]:
    """The files of a run that nothing disturbed."""
    lake = tmp_path_factory.mktemp("whole") / "lake"
    code, output = bookmill(["run", "mbo", str(sources), "--lake", str(lake)], *server, lake.parent / "log")
    assert code == 0, output
    return data_files(lake)


def test_runs_tasks_and_artifacts_are_in_postgresql(finished, server, database):
    end = time.monotonic() + 30
    while (runs := ask(server[0], "/task_runs/filter", {"limit": 200})) and {run["state_type"] for run in runs} != {"COMPLETED"}:
        assert time.monotonic() < end, {(run["name"], run["state_type"]) for run in runs}
        time.sleep(0.5)  # task runs are recorded from events, which take a moment
    assert {"decode", "gate", "reconstruct", "aggregate", "heatmap", "draw", "ledger", "report"} <= {run["name"].split()[0] for run in runs}
    assert {run["state_type"] for run in ask(server[0], "/flow_runs/filter", {})} == {"COMPLETED"}
    assert "bookmill-report" in {artifact["key"] for artifact in ask(server[0], "/artifacts/filter", {"limit": 200})}
    assert not list(server[1].rglob("prefect.db")), "no SQLite beside it"


def test_the_database_killed_in_the_middle_of_a_run_loses_nothing(finished, server, database, sources, tmp_path):
    lake = tmp_path / "lake"
    arguments = ["run", "mbo", str(sources), "--lake", str(lake)]
    process = start_bookmill(arguments, *server, tmp_path / "log")
    end = time.monotonic() + 90
    while not list(lake.rglob("events/**/*.parquet")):
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < end
        time.sleep(0.02)
    database.kill()
    time.sleep(2)
    database.start()
    code, output = process.wait(240), (tmp_path / "log").read_text()
    again, said = bookmill(arguments, *server, tmp_path / "again")
    assert again == 0, (code, output, said)
    assert data_files(lake) == finished
    assert not list(lake.rglob("*.partial"))
    assert code == 0, output
