"""The market-by-order flow on one generated session: each stage as plain Python, and the whole flow as a person runs it.

`python -m tests.bench.mbo_flow --records 7449892 [--runs 1] [--json FILE] [--plain] [--one-process] [--folder FOLDER]`

Every measurement is a fresh process. The floor is the decompression of the source alone; ratios are wall time to the floor's of the same run,
because a machine drifts between hours. What comes out is compared with the generator's truth before anything is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.measure import Measured, machine, median, run_watched
from tests.bench.stages import FLOOR, STAGES, WHOLE
from tests.flows.servers import ROOT, prefect_server

WARM_RECORDS = 2_000  # a session that is only there to have the kernels compiled and cached
NEW_PICTURE = "bookmill heatmap on the .dbn.zst"
PLAIN = "all stages as plain Python, one process"
PRIVATE = tuple(f"bookmill run mbo, private API, {state}" for state in ("cold", "warm"))
SERVED = tuple(f"bookmill run mbo, server, {state}" for state in ("cold", "warm"))
Runs = dict[str, list[Measured]]


def environment(home: Path) -> dict[str, str]:
    """The caller's, without settings of ours and of Prefect's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BOOKMILL_", "PREFECT_"))}
    return {**kept, "PREFECT_HOME": str(home), "PYTHONPATH": str(ROOT)}


def session(folder: Path, records: int, format: str = "dbn.zst", symbols: int = 1) -> Path:
    """The source, generated once; its truth stands beside it."""
    path = folder / f"session-{records}{f'-{symbols}-symbols' if symbols > 1 else ''}.mbo.{format.replace('-', '.')}"
    if not path.exists():
        from tasks.scanning.synthetic import SessionSpec
        from tasks.scanning.synthetic_writers import generate_files

        names = tuple(f"SYM{i:04d}" for i in range(symbols)) if symbols > 1 else SessionSpec.symbols
        generate_files(SessionSpec(records=records, symbols=names), path, format)
    return path


@contextmanager
def new_lake(folder: Path) -> Iterator[Path]:
    """An empty folder for a lake, gone afterwards."""
    lake = Path(tempfile.mkdtemp(prefix="lake-", dir=folder))
    try:
        yield lake
    finally:
        shutil.rmtree(lake)


def check(source: Path, lake: Path) -> None:
    """Raise AssertionError unless the lake's book ends as the generator's did."""
    from tasks.footers import read_facts

    truth = json.loads(source.with_name(source.name + ".facts.json").read_text(encoding="utf-8"))
    (bbo,) = (lake / "bbo").rglob("*.parquet")
    facts, book = read_facts(bbo), truth["books"][0]
    found = (facts["rows_in"], facts["event_ends"], facts["orders"], facts["best_bid"], facts["best_ask"], facts["status"])
    wanted = (truth["records"], truth["event_ends"], book["live_orders"], [book["bid_px"], book["bid_sz"]], [book["ask_px"], book["ask_sz"]], "valid")
    if found != wanted:
        raise AssertionError(f"the book of {source} ends with {found}, the generator's with {wanted}")


def run_stages(folder: Path, source: Path, *, together: bool) -> list[Measured]:
    """Every stage once on a new lake, each in a process of its own, or all in one."""
    found: list[Measured] = []
    with new_lake(folder) as lake:
        for names in [list(STAGES)] if together else [[name] for name in STAGES]:
            out = folder / "stage.json"
            command = [sys.executable, "-m", "tests.bench.stages", str(source), str(lake), str(out), *names]
            _, code = run_watched(command, environment(folder / "prefect"), folder / "stage.log")
            if code:
                raise RuntimeError(f"{', '.join(names)} failed: {(folder / 'stage.log').read_text()[-4_000:]}")
            found += [Measured(**entry) for entry in json.loads(out.read_text(encoding="utf-8"))]
        check(source, lake)
    return found


def run_plain(folder: Path, source: Path) -> Measured:
    """The flow's stages one after the other as plain Python in one process, on a new lake; timed from outside as the flow is."""
    with new_lake(folder) as lake:
        command = [sys.executable, "-m", "tests.bench.stages", str(source), str(lake), str(folder / "stage.json"), WHOLE]
        found, code = run_watched(command, environment(folder / "prefect"), folder / "stage.log")
        if code:
            raise RuntimeError(f"the plain run failed: {(folder / 'stage.log').read_text()[-4_000:]}")
        check(source, lake)
    return Measured(PLAIN, found.wall, found.cpu, found.peak_rss)


def run_picture(folder: Path, source: Path) -> Measured:
    """`bookmill heatmap` as a new process."""
    with tempfile.TemporaryDirectory(prefix="picture-", dir=folder) as out:
        png = Path(out) / "heat.png"
        command = [sys.executable, "-m", "deployments.cli", "heatmap", str(source), "--out", str(png)]
        found, code = run_watched(command, environment(folder / "prefect"), folder / "stage.log")
        if code or not png.read_bytes().startswith(b"\x89PNG"):
            raise RuntimeError(f"the picture failed: {(folder / 'stage.log').read_text()[-4_000:]}")
    return Measured(NEW_PICTURE, found.wall, found.cpu, found.peak_rss)


def run_flow(folder: Path, source: Path, name: str, environ: Mapping[str, str]) -> tuple[Measured, list[dict[str, Any]]]:
    """`bookmill run mbo` on a new lake; what it took, and the stages as the flow itself timed them."""
    with new_lake(folder) as lake:
        command = [sys.executable, "-m", "deployments.cli", "run", "mbo", str(source), "--lake", str(lake), "--quiet"]
        found, code = run_watched(command, environ, folder / "flow.log")
        if code:
            raise RuntimeError(f"the flow failed: {(folder / 'flow.log').read_text()[-4_000:]}")
        check(source, lake)
        (run,) = (lake / "runs").glob("*.json")
        stages = json.loads(run.read_text(encoding="utf-8"))["stages"]
    gates = sum(entry["seconds"] for entry in stages if entry["stage"].startswith("gate"))
    return Measured(name, found.wall, found.cpu, found.peak_rss, facts={"gate_seconds": gates}), stages


def run_private(folder: Path, source: Path) -> Iterator[tuple[Measured, list[dict[str, Any]]]]:
    """The flow on a private API, cold (a new Prefect home) and warm (the same home, another lake)."""
    with tempfile.TemporaryDirectory(prefix="home-", dir=folder) as home:
        for name in PRIVATE:
            yield run_flow(folder, source, name, environment(Path(home)))


def run_served(folder: Path, source: Path) -> Iterator[tuple[Measured, list[dict[str, Any]]]]:
    """The flow on a started server, cold (the first run that it sees) and warm."""
    with tempfile.TemporaryDirectory(prefix="home-", dir=folder) as home, prefect_server(Path(home)) as url:
        for name in SERVED:
            yield run_flow(folder, source, name, {**environment(Path(home)), "PREFECT_API_URL": url})


def run_flows(folder: Path, source: Path) -> Iterator[tuple[Measured, list[dict[str, Any]]]]:
    """The flow on a private API and on a server, each cold and warm."""
    yield from run_private(folder, source)
    yield from run_served(folder, source)


def table(records: int, runs: Mapping[str, list[Measured]]) -> str:
    """The measurements as text, one a line, medians over the runs."""
    floor = median(runs[FLOOR]).wall
    width = max(map(len, runs))
    lines = [f"{'':{width}}  {'wall s':>8}  {'CPU s':>8}  {'M rec/s':>8}  {'x floor':>8}  {'peak MB':>8}  {'before s':>8}"]
    for name, measured in runs.items():
        m = median(measured)
        numbers = f"{m.wall:8.3f}  {m.cpu:8.3f}  {records / m.wall / 1e6:8.2f}  {m.wall / floor:8.1f}  {m.peak_rss / 2**20:8.0f}  {m.prepare:8.2f}"
        lines.append(f"{name:{width}}  {numbers}")
    return "\n".join(lines)


def stage_table(flows: Mapping[str, list[list[dict[str, Any]]]]) -> str:
    """The flow's own stage times of its last run, gates of one stage together; what is left of the wall time is start, end and Prefect."""
    totals = {name: _by_stage(of_runs[-1]) for name, of_runs in flows.items()}
    stages = list(dict.fromkeys(stage for found in totals.values() for stage in found))
    short = [name.removeprefix("bookmill run mbo, ") for name in totals]
    lines = [f"{'stage, as the flow timed it (s)':32}" + "".join(f"  {name:>18}" for name in short)]
    for stage in stages:
        lines.append(f"{stage:32}" + "".join(f"  {found.get(stage, 0.0):18.3f}" for found in totals.values()))
    return "\n".join([*lines, f"{'sum':32}" + "".join(f"  {sum(found.values()):18.3f}" for found in totals.values())])


def _by_stage(stages: list[dict[str, Any]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for entry in stages:
        found[entry["stage"]] = found.get(entry["stage"], 0.0) + entry["seconds"]
    return found


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=7_449_892, help="records of the session")
    parser.add_argument("--runs", type=int, default=1, help="how often; medians are shown")
    parser.add_argument("--json", type=Path, help="file for all measurements")
    parser.add_argument("--folder", type=Path, help="folder for session and lakes; kept. Default: a temporary one")
    parser.add_argument("--plain", action="store_true", help="leave out the whole flow")
    parser.add_argument("--one-process", action="store_true", help="all stages in one process; memory is then the largest so far")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bookmill-bench-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        facts, source = machine(), session(folder, options.records)
        if options.records > WARM_RECORDS:
            run_stages(folder, session(folder, WARM_RECORDS), together=True)
        runs: Runs = {}
        own: dict[str, list[list[dict[str, Any]]]] = {}
        for _ in range(options.runs):
            for measured in run_stages(folder, source, together=options.one_process):
                runs.setdefault(measured.name, []).append(measured)
            for measured, stages in () if options.plain else run_flows(folder, source):
                runs.setdefault(measured.name, []).append(measured)
                own.setdefault(measured.name, []).append(stages)
        size = source.stat().st_size
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print(f"{options.records:,} records, {size / 1e6:.1f} MB as .dbn.zst, {options.runs} run(s), medians\n")
    print(table(options.records, runs))
    if own:
        print(f"\n{stage_table(own)}")
    if options.json:
        found = {"machine": facts, "records": options.records, "bytes": size, "flow_stages": own}
        found["measured"] = {name: [m.to_json() for m in measured] for name, measured in runs.items()}
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
