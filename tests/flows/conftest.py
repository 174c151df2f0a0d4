"""Real Prefect APIs for the flow tests: one in this process for the session, because entering it costs 10 s, and a server for a module."""

from __future__ import annotations

import os

import pytest

from tests.flows.servers import prefect_server


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """(url, home) of a Prefect server for this module."""
    home = tmp_path_factory.mktemp("prefect")
    with prefect_server(home) as url:
        yield url, home


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory):
    """URL of a Prefect API with a database and result storage of its own; runs of these tests report to it."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    from prefect.settings import (
        PREFECT_LOCAL_STORAGE_PATH,
        PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE,
        PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL,
        get_current_settings,
        temporary_settings,
    )
    from prefect.testing.utilities import prefect_test_harness

    results = tmp_path_factory.mktemp("prefect-results")
    chosen = {
        PREFECT_LOCAL_STORAGE_PATH: results,
        PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE: 200,
        PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL: 1,
    }
    with temporary_settings(updates=chosen), prefect_test_harness(server_startup_timeout=180):
        url = get_current_settings().api.url
        assert url is not None
        yield url
