"""Log lines as JSON: one object a line whatever is logged, with the place in the run, in every thread that inherits it."""

from __future__ import annotations

import contextvars
import io
import json
import logging
import threading
from datetime import datetime

import pytest

from config.logging_format import JsonLines, JsonText, here, place
from tasks.errors import StorageError
from tasks.work import PartitionsFailed, run_each


@pytest.fixture
def logged():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("tests.json")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(handler)
    yield logger, lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logger.removeHandler(handler)


def test_a_line_has_time_level_logger_message_and_nothing_that_is_not_known(logged):
    logger, lines = logged
    logger.warning("%d rows of %s", 3, "ES")
    (line,) = lines()
    assert {k: v for k, v in line.items() if k != "time"} == {"level": "WARNING", "logger": "tests.json", "message": "3 rows of ES"}
    assert line["time"].endswith("Z")
    assert datetime.fromisoformat(line["time"]).utcoffset().total_seconds() == 0


def test_the_place_is_on_every_line_of_its_block_and_of_threads_that_inherit_it(logged):
    logger, lines = logged
    with place(run="r1"):
        with place(stage="decode", partition="ES 2025-01-01"):
            thread = threading.Thread(target=contextvars.copy_context().run, args=(logger.info, "in a thread"))
            thread.start()
            thread.join()
            stranger = threading.Thread(target=logger.info, args=("of somebody else",))
            stranger.start()
            stranger.join()
        logger.info("after")
    assert here() == {}
    inside, strange, after = lines()
    assert (inside["run"], inside["stage"], inside["partition"]) == ("r1", "decode", "ES 2025-01-01")
    assert "run" not in strange
    assert (after["run"], "stage" in after) == ("r1", False)


def test_lines_of_a_job_carry_its_own_partition_and_not_that_of_its_batch(logged):
    logger, lines = logged

    def body(job: str) -> tuple[None, int, bool]:
        logger.info("working")
        if job == "NQ":
            raise StorageError("no room")
        return None, 0, False

    with place(stage="reconstruct", partition="ES and 2 more"):
        with pytest.raises(PartitionsFailed):
            run_each(["ES", "NQ", "CL"], lambda job: f"{job} 2025-01-01", body)
        logger.info("after")
    assert [(line["stage"], line["partition"]) for line in lines()] == [
        *(("reconstruct", f"{job} 2025-01-01") for job in ("ES", "NQ", "CL")), ("reconstruct", "ES and 2 more"),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["two\nlines", 'quotes " and \\', "\x1b[31mred\x00", "größer 買い", "[bold]markup[/bold] :smile:", "\ud800"])
def test_any_text_is_one_line_and_comes_back(logged, text):
    logger, lines = logged
    logger.info("%s", text)
    assert [line["message"] for line in lines()] == [text]


def test_an_exception_is_a_field(logged):
    logger, lines = logged
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        logger.exception("broken")
    (line,) = lines()
    assert line["message"] == "broken"
    assert line["exception"].splitlines()[-1] == "ZeroDivisionError: division by zero"


def test_plain_lines_become_json_lines(capsys):
    stream = JsonText()
    with place(run="r1"):
        print("50%, 1/2", file=stream)
        stream.write("no end")
    (line,) = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (line["message"], line["level"], line["run"]) == ("50%, 1/2", "INFO", "r1")
    assert not stream.isatty()
