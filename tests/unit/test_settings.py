"""Settings: who wins, what is refused and how, and what an explanation says."""

from __future__ import annotations

import pickle
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from config import settings, sources
from config.errors import ConfigError
from config.hardware import Hardware
from config.settings import NAMES, load
from config.values import show_bytes

GIB = 1 << 30


def machine(cores: int = 8, total: int = 32 * GIB, available: int = 30 * GIB) -> Hardware:
    return Hardware(cores, "machine", total, "machine", available, "machine", 10**12, "/", "ext4", "local")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def value(name: str, raw: object) -> object:
    return getattr(load("ci", {name: raw}, environ={}, hardware=machine()), name)


def test_command_line_beats_variable_beats_file_beats_profile_beats_derived(empty_folder):
    def origin_and_value(overrides, environ):
        made = load("ci", overrides, environ=environ, hardware=machine())
        return made.workers, made.origins["workers"]

    file = empty_folder / "bookmill.toml"
    assert origin_and_value({}, {}) == (2, "profile ci")
    file.write_text("workers = 3\n")
    assert origin_and_value({}, {}) == (3, "bookmill.toml")
    assert origin_and_value({}, {"BOOKMILL_WORKERS": "4"}) == (4, "environment BOOKMILL_WORKERS")
    assert origin_and_value({"workers": 5}, {"BOOKMILL_WORKERS": "4"}) == (5, "command line")
    assert origin_and_value({"workers": None}, {"BOOKMILL_WORKERS": ""}) == (3, "bookmill.toml")
    assert load("ci", environ={}, hardware=machine()).origins["cpu_slots"] == "derived: workers"


def test_the_profile_itself_follows_the_same_order(empty_folder):
    (empty_folder / "bookmill.toml").write_text('profile = "ci"\n')
    assert load(environ={}, hardware=machine()).profile == "ci"
    assert load(environ={"BOOKMILL_PROFILE": "server"}, hardware=machine()).profile == "server"
    assert load("laptop", environ={"BOOKMILL_PROFILE": "server"}, hardware=machine()).profile == "laptop"


def test_a_file_named_by_variable_is_read_instead_of_the_local_one(empty_folder):
    (empty_folder / "bookmill.toml").write_text("workers = 3\n")
    other = empty_folder / "other.toml"
    other.write_text("workers = 7\n")
    assert load("ci", environ={"BOOKMILL_CONFIG": str(other)}, hardware=machine()).workers == 7


def test_laptop_leaves_a_core_and_half_of_the_memory_and_server_takes_the_machine():
    laptop, server = (load(name, environ={}, hardware=machine()) for name in ("laptop", "server"))
    assert (laptop.workers, laptop.memory_bytes) == (7, 16 * GIB)
    assert (server.workers, server.memory_bytes) == (8, int(32 * GIB * 0.7))
    assert [load("laptop", environ={}, hardware=machine(cores=n)).workers for n in (1, 2, 3, 8)] == [1, 2, 2, 7]


def test_a_share_of_the_memory_is_at_most_what_is_free_and_says_so():
    made = load("laptop", environ={}, hardware=machine(available=3 * GIB))
    assert made.memory_bytes == 3 * GIB
    assert made.origins["memory_bytes"] == "profile laptop: 50% of 32 GiB, machine; lowered to what is free now, machine"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [("512MB", 512_000_000), ("1GiB", GIB), ("1.5 gib", GIB * 3 // 2), (GIB, GIB), ("1_073_741_824", GIB), ("300 MiB", 300 << 20), ("50%", 16 * GIB)],
)
def test_sizes_are_read_as_people_write_them(raw, expected):
    assert value("memory_bytes", raw) == expected


@pytest.mark.parametrize(("raw", "expected"), [(90, 90.0), ("1.5", 1.5), ("500ms", 0.5), ("10m", 600.0), ("6h", 21_600.0)])
def test_durations_are_read_as_people_write_them(raw, expected):
    assert value("task_timeout_s", raw) == expected


def test_retry_delays_come_as_text_and_as_list():
    assert value("retry_delays_s", "1, 4,16") == value("retry_delays_s", [1, 4, 16]) == (1.0, 4.0, 16.0)


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("workers", "0"), ("workers", "many"), ("workers", True), ("workers", 2.5), ("workers", "-1"), ("workers", [1]),
        ("memory_bytes", "12 parsecs"), ("memory_bytes", "0%"), ("memory_bytes", "101%"), ("memory_bytes", "1MB"),
        ("memory_bytes", "-1GiB"), ("memory_bytes", "1e999"), ("batch_rows", 10), ("retries", 51), ("retry_delays_s", ""),
        ("retry_delays_s", "0"), ("retry_delays_s", [1.0] * 51), ("task_timeout_s", "0"), ("task_timeout_s", "soon"), ("progress", "loud"),
        ("log_level", "chatty"), ("lake", ""), ("lake", "a\0b"), ("lake", 5), ("profile", "desktop"),
    ],
)  # fmt: skip
def test_a_bad_value_is_refused_with_its_place_the_value_and_what_is_allowed(empty_folder, name, raw):
    with pytest.raises(ConfigError) as caught:
        load(None if name == "profile" else "ci", {name: raw}, environ={}, hardware=machine())
    message = str(caught.value)
    assert f"{name} (command line)" in message
    assert repr(raw) in message
    assert "allowed: " in message


def test_a_bad_variable_is_named_as_the_user_wrote_it():
    with pytest.raises(ConfigError, match=r"^BOOKMILL_WORKERS is 'x'; allowed: a whole number"):
        load("ci", environ={"BOOKMILL_WORKERS": "x"}, hardware=machine())


def test_unknown_names_are_refused_everywhere_with_a_guess(empty_folder):
    with pytest.raises(ConfigError, match=r"BOOKMILL_WORKER is no setting\. Did you mean BOOKMILL_WORKERS\?"):
        load("ci", environ={"BOOKMILL_WORKER": "3"}, hardware=machine())
    with pytest.raises(ConfigError, match=r"batchrows is no setting\. Did you mean batch_rows\?"):
        load("ci", {"batchrows": 3}, environ={}, hardware=machine())
    (empty_folder / "bookmill.toml").write_text("memory_byte = 1\n")
    with pytest.raises(ConfigError, match=r"bookmill\.toml: memory_byte is no setting\. Did you mean memory_bytes\?"):
        load("ci", environ={}, hardware=machine())


def test_variables_that_are_no_settings_are_left_alone():
    environ = {"BOOKMILL_REAL_DATA": "/x", "BOOKMILL_EMBEDDED_API": "http://127.0.0.1:1/api", "HOME": "/h", "PREFECT_API_URL": "u"}
    assert load("ci", environ=environ, hardware=machine()).workers == 2


def test_missing_and_broken_files_are_refused_by_name(empty_folder):
    with pytest.raises(ConfigError, match=r"absent.toml \(from BOOKMILL_CONFIG\) cannot be read"):
        load("ci", environ={"BOOKMILL_CONFIG": "absent.toml"}, hardware=machine())
    (empty_folder / "bookmill.toml").write_text("workers = = 3")
    with pytest.raises(ConfigError, match=r"bookmill.toml is not valid TOML: .*line 1"):
        load("ci", environ={}, hardware=machine())


@pytest.mark.parametrize("given", [{"duckdb_memory_bytes": "2GiB"}, {"memory_slot_bytes": "2GiB"}, {"memory_slots": 100}])
def test_values_that_contradict_the_budget_are_refused(given):
    with pytest.raises(ConfigError, match="more than memory_bytes"):
        load("ci", given, environ={}, hardware=machine())


@hypothesis_settings(max_examples=60, deadline=None)
@given(cores=st.integers(1, 512), total=st.integers(256 << 20, 1 << 44), share=st.floats(0.05, 1), profile=st.sampled_from(sources.PROFILES))
def test_every_machine_gets_settings_that_hold_together(cores, total, share, profile):
    made = load(profile, environ={}, hardware=machine(cores, total, int(total * share)))
    assert made.memory_slots * made.memory_slot_bytes <= made.memory_bytes
    assert made.duckdb_memory_bytes <= made.memory_bytes
    assert made.workers >= 1
    assert 4_096 <= made.batch_rows <= 65_536
    assert made.batch_rows & (made.batch_rows - 1) == 0


def test_every_setting_is_explained():
    made = load("laptop", environ={}, hardware=machine())
    explained = made.explain()
    assert tuple(e.name for e in explained) == NAMES
    assert all(e.meaning and e.origin != "given" and e.value == getattr(made, e.name) for e in explained)


def test_settings_survive_the_way_to_another_process_and_compare_by_value():
    made = load("ci", environ={}, hardware=machine())
    copy = pickle.loads(pickle.dumps(made))
    assert copy == made
    assert copy.origins == made.origins


@pytest.mark.parametrize("profile", sources.PROFILES)
def test_each_line_of_a_profile_says_why(profile):
    path = Path(settings.__file__).parent / "profiles" / f"{profile}.toml"
    lines = [line for line in path.read_text().splitlines() if "=" in line and not line.startswith("#")]
    assert len(lines) == len(tomllib.loads(path.read_text()))
    assert all("# " in line for line in lines)


def test_sizes_are_shown_in_the_largest_whole_unit():
    assert [show_bytes(v) for v in (900, 2048, 256 << 20, 3 * GIB // 2)] == ["900 bytes", "2 KiB", "256 MiB", "1.5 GiB"]
