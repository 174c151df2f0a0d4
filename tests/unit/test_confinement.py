"""Paths of a run and the roots of its worker: what leads out is refused before anything is read, whatever way it is written."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint

from config.errors import ConfigError
from config.settings import load
from flows import confinement
from flows.confinement import confine
from tasks.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
DEPLOYMENTS = yaml.safe_load((ROOT / "deployments/prefect.yaml").read_text(encoding="utf-8"))["deployments"]
# Parameters that are text and no paths. A new text parameter of a flow must be put here, or be confined.
NO_PATHS = {
    "symbols", "start", "end", "hours", "zone", "interval", "bars", "clock", "on_book_error", "sequence", "stale_after", "heatmap_axis", "dataset",
    "symbol", "profile", "pairs", "dates", "runner", "dask_address", "depths", "publishers", "settings",
    "kind", "settle", "options",
}  # fmt: skip
PATHS = {"sources", "lake", "csv", "temp_dir"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Two roots with a file each, and a folder beside them that is none."""
    for name in ("feeds/day", "lake", "secret", "feeds-old"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "feeds/day/a.csv").write_text("a\n")
    (tmp_path / "secret/b.csv").write_text("b\n")
    monkeypatch.setenv("BOOKMILL_ROOTS", f"{tmp_path / 'feeds'},{tmp_path / 'lake'}")
    monkeypatch.chdir(tmp_path / "feeds")
    return tmp_path


def refused(settings=None, **given) -> str:
    with pytest.raises(UsageError) as caught:
        confine(settings or {}, **given)
    return str(caught.value)


def test_without_roots_every_path_is_allowed(tmp_path, monkeypatch):
    monkeypatch.delenv("BOOKMILL_ROOTS", raising=False)
    monkeypatch.chdir(tmp_path)
    confine({}, sources=["/", "../../x", "*"], lake="/anywhere", csv="")


def test_a_confined_run_may_not_choose_a_dask_scheduler(place):
    assert "dask_address" in refused(lake=str(place / "lake"), dask_address="tcp://10.0.0.5:8786")


def test_paths_inside_of_the_roots_are_allowed(place):
    confine(
        {}, sources=["day", "day/a.csv", "day/*.csv", "**/*.csv", "day/../day/a.csv", "nothing-there.csv", "no/match-*"], lake=str(place / "lake")
    )
    confine({}, sources=[str(place / "feeds/day/a.csv")], lake=str(place / "lake/deep/not-there-yet"), csv="", temp_dir=str(place / "feeds"))


@pytest.mark.parametrize(
    "given",
    ["../secret/b.csv", "../secret", "day/../../secret/b.csv", "../secret/*.csv", "/etc/hostname", "/etc/host*", "/", "~", "..",
     "../feeds-old", "../*/b.csv", "/proc/self/environ"],
)  # fmt: skip
def test_sources_that_lead_out_are_refused(place, given):
    assert "sources is" in refused(sources=[given], lake=str(place / "lake"))


def test_a_pattern_that_climbs_in_its_middle_is_judged_by_what_it_matches(place):
    (place / "feeds/day/deep").mkdir()
    assert str(place / "secret") in refused(sources=["day/*/../../../secret/b.csv"])


def test_links_are_followed_before_they_are_judged(place):
    (place / "feeds/file").symlink_to(place / "secret/b.csv")
    (place / "feeds/folder").symlink_to(place / "secret")
    for given in ("file", "folder", "folder/b.csv", "f*", "**/*.csv"):
        assert str(place / "secret") in refused(sources=[given]), given
    # A folder that holds a link that leads out is refused as well, and before anything of it is read.
    assert "file" in refused(sources=["."])
    assert "lake is" in refused(lake="folder/lake")
    assert "csv is" in refused(csv="folder")
    assert "temp_dir is" in refused(temp_dir="folder/../x")


def test_a_link_from_root_to_root_is_allowed(place):
    (place / "lake/raw").symlink_to(place / "feeds/day")
    confine({}, sources=[str(place / "lake/raw/a.csv")], lake=str(place / "lake"))


def test_a_root_that_is_a_link_itself_means_what_it_leads_to(place, monkeypatch):
    (place / "alias").symlink_to(place / "feeds")
    monkeypatch.setenv("BOOKMILL_ROOTS", str(place / "alias"))
    confine({}, sources=[str(place / "feeds/day/a.csv"), str(place / "alias/day")], lake=str(place / "feeds/lake"))


def test_a_circle_of_links_is_refused(place):
    os.symlink("round", "round")
    assert "leads nowhere" in refused(lake="round/lake")


def test_the_message_says_what_is_allowed_and_what_to_do(place):
    said = refused(sources=["../secret/b.csv"])
    assert said == (
        f"sources is '../secret/b.csv', which is {place}/secret/b.csv; allowed: paths inside {place}/feeds or {place}/lake. "
        "Move it there, or have BOOKMILL_ROOTS of the worker name its folder."
    )


def test_a_run_cannot_widen_the_roots_itself(place, monkeypatch):
    assert "BOOKMILL_ROOTS" in refused({"roots": "/"}, sources=["day"], lake="day")
    monkeypatch.delenv("BOOKMILL_ROOTS")
    assert "BOOKMILL_ROOTS" in refused({"roots": "/"}, lake="day")


def test_roots_come_from_the_variable_or_the_file(tmp_path, monkeypatch):
    monkeypatch.delenv("BOOKMILL_ROOTS", raising=False)
    monkeypatch.chdir(tmp_path)
    assert load("ci").roots == ()
    (tmp_path / "bookmill.toml").write_text('roots = ["/data/a", "/data/b"]\n')
    assert load("ci").roots == (Path("/data/a"), Path("/data/b"))
    monkeypatch.setenv("BOOKMILL_ROOTS", " /data/c , /data/d,")
    assert load("ci").roots == (Path("/data/c"), Path("/data/d"))


@pytest.mark.parametrize("raw", ["data", "/data,lake", ",", " , ,", "./x"])
def test_roots_that_are_none_are_refused_and_never_taken_for_no_roots(raw):
    with pytest.raises(ConfigError, match=r"BOOKMILL_ROOTS is .* allowed: absolute paths"):
        load("ci", environ={"BOOKMILL_ROOTS": raw})


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: d["name"])
def test_every_deployed_flow_confines_all_its_paths_before_anything_else(place, monkeypatch, deployment):
    monkeypatch.chdir(ROOT)
    flow = load_flow_from_entrypoint(deployment["entrypoint"])
    text = {
        name for name, parameter in inspect.signature(flow.fn).parameters.items()
        if "str" in str(parameter.annotation) or "Path" in str(parameter.annotation)
    }  # fmt: skip
    assert text <= NO_PATHS | PATHS, f"paths or not? {sorted(text - NO_PATHS - PATHS)}"
    inside = {"sources": [str(place / "feeds/day/a.csv")], "lake": str(place / "lake"), "csv": "", "temp_dir": ""}
    given = {name: value for name, value in inside.items() if name in text}
    assert given
    module = inspect.getmodule(flow.fn)

    def never(*arguments, **named):
        raise AssertionError("work began with a path that is not allowed")

    monkeypatch.setattr(module, "load", never, raising=False)
    for name in given:
        outside = [str(place / "secret/b.csv")] if name == "sources" else str(place / "secret")
        with pytest.raises(UsageError, match=f"{name} is "):
            flow.fn(**given | {name: outside})
    assert not (place / "secret/.bookmill").exists()
    assert sorted(p.name for p in (place / "secret").iterdir()) == ["b.csv"]


def test_nothing_is_read_by_the_check(place, monkeypatch):
    opened = []
    monkeypatch.setattr(confinement, "load", lambda: SimpleNamespace(roots=(place / "feeds",)))
    monkeypatch.setattr("builtins.open", lambda *a, **k: opened.append(a))
    confine({}, sources=["day"], lake="x")
    assert not opened
