"""The market-by-order benchmark: floors, ours by stage and whole, and others' programs, on one generated session in one run.

`python -m tests.bench.mbo [--records 7449892] [--sizes 0.1 1] [--runs 1] [--only NAME ...] [--json FILE] [--readme] [--folder FOLDER]`

Every contender is a process of its own; imports, compiled kernels and what a replay takes from memory come before its clock starts, and count in
its peak memory. The whole flow is timed from outside, as a person runs it. The reference is the decompression of the `.dbn.zst` in the same run:
ratios are the result, absolute figures carry the machine. A contender of ours that knows counts or a touch must find the generator's; others'
programs that find something else, or fail, are remarked on. The stages stand as in a new process: their time holds the loading of their compiled
kernels, which is most of it in a small session.
Install the extra `bench` for all of them; those that are not installed are left out and named.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.bench.mbo_contenders import CONTENDERS, Files
from tests.bench.mbo_flow import WARM_RECORDS, check, environment, new_lake, run_private, run_stages, session
from tests.bench.mbo_peers import PEERS
from tests.bench.mbo_table import Result, entries, growth, heading, markdown, table, write_readme
from tests.bench.measure import Measured, machine, run_watched, timed
from tests.bench.stages import FLOOR, STAGES
from tests.flows.servers import ROOT

FLOWS = tuple(f"bookmill run mbo, private API, {state}" for state in ("cold", "warm"))
ALL = {**CONTENDERS, **PEERS}
# In the order of the table: contender -> group.
GROUPS = {
    **{name: c.group for name, c in CONTENDERS.items()},
    **dict.fromkeys(FLOWS, "ours"),
    **{name: c.group for name, c in PEERS.items()},
}
ORDER = list(STAGES)[1:]


def run_here(name: str, folder: Path, records: int, lake: Path) -> tuple[Measured, str]:
    """One contender in this process, and how what it found differs from what the generator wrote ("" where it does not)."""
    contender, files = ALL[name], Files(folder, records, lake)
    measured, found = timed(name, lambda: contender.prepare(files))
    if contender.prefix and contender.prefix < records:
        scale = records / contender.prefix
        return Measured(name, measured.wall * scale, measured.cpu * scale, measured.peak_rss, measured.prepare), ""
    wanted = {key: files.truth[key] for key in found or ()}
    return measured, "" if (found or {}) == wanted else f"found {found}, the generator wrote {wanted}"


def run_alone(name: str, folder: Path, records: int, lake: Path) -> tuple[Measured | None, str]:
    """One contender in a process of its own, and a remark. Of others' programs a failure or a different book is a remark; of ours an error.

    Raises RuntimeError with the end of the output, AssertionError for a wrong result.
    """
    out, log = folder / "contender.json", folder / "contender.log"
    command = [sys.executable, "-m", "tests.bench.mbo", "--here", name, str(folder), str(records), str(lake), str(out)]
    _, code = run_watched(command, environment(folder / "prefect"), log)
    peer = ALL[name].group == "peer"
    if code:
        said = log.read_text(errors="replace")[-4_000:]
        if not peer:
            raise RuntimeError(f"{name} failed: {said}")
        lines = [line for line in said.splitlines() if "Error" in line] or [f"exit code {code}"]
        return None, f"failed: {lines[-1]}"
    told = json.loads(out.read_text(encoding="utf-8"))
    if told["differs"] and not peer:
        raise AssertionError(f"{name} {told['differs']}")
    return Measured(**told["measured"]), told["differs"]


def run_all(names: Sequence[str], folder: Path, records: int) -> Iterator[tuple[str, Measured | None, str]]:
    """Every contender named, once: name, what it took, a remark. The stages that others need are run before them, in their order, on one new lake."""
    own = [name for name in names if name in ALL]
    with new_lake(folder) as lake:
        for name in own:
            if not ALL[name].needs:
                yield name, *run_alone(name, folder, records, lake)
        last = max((ORDER.index(ALL[name].needs) + 1 for name in own if ALL[name].needs), default=0)
        for stage in ORDER[:last]:
            found = run_alone(stage, folder, records, lake)
            if stage in own:
                yield stage, *found
        if "rebuild" in ORDER[:last]:
            check(session(folder, records), lake)
        for name in own:
            if ALL[name].needs and name not in ORDER:
                yield name, *run_alone(name, folder, records, lake)
    if set(FLOWS) & set(names):
        yield from ((measured.name, measured, "") for measured, _ in run_private(folder, session(folder, records)) if measured.name in names)


def run_size(names: Sequence[str], folder: Path, records: int, runs: int) -> Result:
    """Every contender named, `runs` times, on a session of so many records."""
    files = Files(folder, records, folder)
    sizes = {".dbn.zst": files.source.stat().st_size, "full Parquet": files.full.stat().st_size, "seven columns": files.seven.stat().st_size}
    found: dict[str, list[Measured]] = {}
    remarks: dict[str, str] = {}
    for _ in range(runs):
        for name, measured, remark in run_all(names, folder, records):
            print(f"{name}: {f'{measured.wall:.3f} s' if measured else '-'} {remark}", file=sys.stderr, flush=True)
            if measured:
                found.setdefault(name, []).append(measured)
            if remark:
                remarks[name] = remark
    return Result(records, sizes, {name: found[name] for name in names if name in found}, remarks)


def installed(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """(contenders whose package is there, the packages that are not)."""
    missing = {name: ALL[name].package for name in names if name in ALL and importlib.util.find_spec(ALL[name].package) is None}
    return [name for name in names if name not in missing], sorted(set(missing.values()))


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--records", type=int, default=7_449_892, help="records of the session")
    found.add_argument(
        "--sizes", type=float, nargs="+", default=[1.0], help="factors of --records, for growth; the last one's table goes to the README"
    )
    found.add_argument("--runs", type=int, default=1, help="how often; medians are shown")
    found.add_argument("--only", nargs="+", choices=list(GROUPS), default=list(GROUPS), metavar="NAME", help="contenders beside the reference")
    found.add_argument("--json", type=Path, help="file for all measurements")
    found.add_argument("--readme", nargs="?", type=Path, const=ROOT / "README.md", help="write the table between the markers of the README")
    found.add_argument("--folder", type=Path, help="folder for sessions and lakes; sessions are kept. Default: a temporary one")
    found.add_argument("--here", nargs=5, metavar=("NAME", "FOLDER", "RECORDS", "LAKE", "OUT"), help="one contender in this process, as JSON")
    return found


def show(options: argparse.Namespace, results: list[Result], facts: dict[str, Any], missing: list[str]) -> None:
    """Print the tables, and write the files asked for."""
    told = ", ".join(f"{name} {value}" for name, value in facts.items())
    left_out = f"left out, not installed: {', '.join(missing) or 'none'}"
    print(f"{told}\n{left_out}")
    for result in results:
        print(f"\n{heading(result, options.runs)}\n{table(entries(result, GROUPS))}")
        for name, remark in result.remarks.items():
            print(f"{name}: {remark}")
    if len(results) > 1:
        print(f"\n{growth(results, GROUPS)}")
    if options.json:
        by_size = [
            {**result._asdict(), "measured": {name: [m.to_json() for m in measured] for name, measured in result.measured.items()}}
            for result in results
        ]
        options.json.write_text(
            json.dumps({"machine": facts, "left_out": missing, "runs": options.runs, "sizes": by_size}, indent=1), encoding="utf-8"
        )
    if options.readme:
        notes = [
            f"{heading(results[-1], options.runs)}.",
            f"{told}.",
            f"Peers {left_out}.",
            *(f"{name} {remark}." for name, remark in results[-1].remarks.items()),
        ]
        write_readme(options.readme, markdown(entries(results[-1], GROUPS), notes))


def main(arguments: list[str] | None = None) -> int:
    """Measure and show."""
    options = parser().parse_args(arguments)
    if options.here:
        name, folder, records, lake, out = options.here
        measured, differs = run_here(name, Path(folder), int(records), Path(lake))
        Path(out).write_text(json.dumps({"measured": measured.to_json(), "differs": differs}), encoding="utf-8")
        return 0
    names, missing = installed([name for name in GROUPS if name in (FLOOR, *options.only)])
    packages = sorted({PEERS[name].package for name in names if name in PEERS} - {"tasks", "duckdb"})
    facts = {**machine(), **{package: importlib.metadata.version(package) for package in packages}}
    with tempfile.TemporaryDirectory(prefix="bookmill-bench-") as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        if any(name in ORDER for name in names) and options.records > WARM_RECORDS:  # kernels compiled and cached
            run_stages(folder, session(folder, WARM_RECORDS), together=True)
        results = [run_size(names, folder, max(round(options.records * size), 1), options.runs) for size in options.sizes]
    show(options, results, facts, missing)
    return 0


if __name__ == "__main__":
    sys.exit(main())
