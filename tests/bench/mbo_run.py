"""Starts the contenders of the market-by-order benchmark, each in a process of its own, and holds what they found against the truth.

`python -m tests.bench.mbo_run NAME FOLDER RECORDS LAKE OUT` is one contender in this process, as JSON in OUT; mbo.py is what a person starts.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tests.bench.mbo_contenders import CONTENDERS, OF_MANY
from tests.bench.mbo_flow import (
    NEW_PICTURE,
    PLAIN,
    PRIVATE,
    SERVED,
    WARM_RECORDS,
    check,
    environment,
    new_lake,
    run_picture,
    run_plain,
    run_private,
    run_served,
    session,
)
from tests.bench.mbo_peers import PEERS
from tests.bench.mbo_session import Files
from tests.bench.mbo_table import Result
from tests.bench.measure import Measured, run_watched, timed
from tests.bench.stages import STAGES

FLOWS = (NEW_PICTURE, PLAIN, *PRIVATE, *SERVED)
ALL = {**CONTENDERS, **PEERS}
# In the order of the table: contender -> group.
GROUPS = {
    **{name: c.group for name, c in CONTENDERS.items()},
    **dict.fromkeys(FLOWS, "ours, timed from outside"),
    **{name: c.group for name, c in PEERS.items()},
}
ORDER = list(STAGES)[1:]
LEAVES_NOTHING = [name for name in ORDER if name == "scan" or name.startswith("gate")]  # no other contender needs these stages


def run_here(name: str, folder: Path, records: int, lake: Path) -> tuple[Measured, str]:
    """One contender in this process, and how what it found differs from what the generator wrote ("" where it does not)."""
    contender, files = ALL[name], Files(folder, records, lake)
    _read_once([*folder.glob("*"), *lake.rglob("*")])
    measured, found = timed(name, lambda: contender.prepare(files))
    wall, cpu = found.seconds or (measured.wall, measured.cpu)
    if contender.prefix and contender.prefix < records:
        scale = records / contender.prefix
        return Measured(name, wall * scale, cpu * scale, measured.peak_rss, measured.prepare), ""
    wanted, got = {key: files.truth[key] for key in found.truth}, dict(found.truth)
    differs = "" if got == wanted else f"found {got}, the generator wrote {wanted}"
    return Measured(name, wall, cpu, measured.peak_rss, measured.prepare, dict(found.facts)), differs


def _read_once(paths: Iterable[Path]) -> None:
    """Bring files into the machine's memory, where they may not have stayed: work is measured, not the disk (a floor took 3.5 s instead of 0.4)."""
    for path in paths:
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                while file.read(1 << 22):
                    pass


def run_alone(name: str, folder: Path, records: int, lake: Path) -> tuple[Measured | None, str]:
    """One contender in a process of its own, and a remark. Of others' programs a failure or a different book is a remark; of ours an error.

    Raises RuntimeError with the end of the output, AssertionError for a wrong result.
    """
    out, log = folder / "contender.json", folder / "contender.log"
    command = [sys.executable, "-m", "tests.bench.mbo_run", name, str(folder), str(records), str(lake), str(out)]
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
        for stage in [stage for stage in ORDER[:last] if stage in own or stage not in LEAVES_NOTHING]:
            found = run_alone(stage, folder, records, lake)
            if stage in own:
                yield stage, *found
        if "rebuild" in ORDER[:last]:
            check(session(folder, records), lake)
        for name in own:
            if ALL[name].needs and name not in ORDER:
                yield name, *run_alone(name, folder, records, lake)
    source = session(folder, records)
    for name, once in ((NEW_PICTURE, run_picture), (PLAIN, run_plain)):
        if name in names:
            yield name, once(folder, source), ""
    for run, of_run in ((run_private, PRIVATE), (run_served, SERVED)):
        if set(of_run) & set(names):
            yield from ((measured.name, measured, "") for measured, _ in run(folder, source) if measured.name in names)


def run_size(names: Sequence[str], folder: Path, records: int, runs: int) -> Result:
    """Every contender named, `runs` times, on a session of so many records."""
    files = Files(folder, records, folder)
    for of in (Files(folder, WARM_RECORDS, folder), files):  # here, so that no contender's memory holds the generator
        written = [of.source, of.full, of.seven, *([of.many] if OF_MANY & set(names) else [])]
    sizes = {name: path.stat().st_size for name, path in zip((".dbn.zst", "full Parquet", "seven columns", "many symbols"), written, strict=False)}
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
    """(contenders whose package and program are there, the packages and programs that are not)."""
    missing = {}
    for name in [name for name in names if name in ALL]:
        if importlib.util.find_spec(ALL[name].package) is None:
            missing[name] = ALL[name].package
        elif ALL[name].program and shutil.which(ALL[name].program) is None:
            missing[name] = ALL[name].program
    return [name for name in names if name not in missing], sorted(set(missing.values()))


def main(name: str, folder: str, records: str, lake: str, out: str) -> None:
    """One contender in this process."""
    measured, differs = run_here(name, Path(folder), int(records), Path(lake))
    Path(out).write_text(json.dumps({"measured": measured.to_json(), "differs": differs}), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
