"""The market-by-order benchmark: floors, ours by stage and whole, and others' programs, on one generated session in one run.

`bookmill bench`, or `python -m tests.bench.mbo [--records 7449892] [--sizes 0.1 1 4] [--runs 1] [--only NAME ...] [--json FILE] [--readme]
[--folder FOLDER]`

Every contender is a process of its own; imports, compiled kernels and what a replay takes from memory come before its clock starts, and count in
its peak memory. The whole flow, and the same work as plain Python, are timed from outside, as a person runs them. The reference is the
decompression of the `.dbn.zst` in the same run: ratios are the result, absolute figures carry the machine. A contender of ours that knows counts
or a touch must find the generator's; others' programs that find something else, or fail, are remarked on. The stages stand as in a new process:
their time holds the loading of their compiled kernels, which is most of it in a small session. Others' programs are not run on more than
--records records: most hold all of them in memory as objects.
Install the extra `bench` for all of them; those that are not installed are left out and named, and so is the replay in C without a compiler.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench import mbo_targets
from tests.bench.mbo_flow import WARM_RECORDS, run_stages, session
from tests.bench.mbo_many import clear
from tests.bench.mbo_peers import PEERS
from tests.bench.mbo_run import ALL, GROUPS, ORDER, installed, run_size
from tests.bench.mbo_table import Result, entries, growth, heading, markdown, remarks_of, table, unexplained, write_readme
from tests.bench.measure import LIBRARIES, machine
from tests.bench.stages import FLOOR
from tests.flows.servers import ROOT


@dataclass(frozen=True)
class Told:
    """What a run shows: a result a size, the one that the targets and the README are about, and what surrounds them."""

    results: list[Result]
    main: Result
    runs: int
    facts: dict[str, Any]
    left_out: list[str]

    @property
    def surroundings(self) -> list[str]:
        """The machine with its versions, and what is missing."""
        shown = {**self.facts, "memory": f"{self.facts['memory'] / 2**30:.1f} GiB", "load": f"{self.facts['load']:.1f}"}
        told = ", ".join(f"{name} {value}" for name, value in shown.items())
        return [told, f"not installed, and left out: {', '.join(self.left_out) or 'none'}"]


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(prog="bookmill bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--records", type=int, default=7_449_892, help="records of the session")
    found.add_argument("--sizes", type=float, nargs="+", default=[1.0], help="factors of --records, for growth; targets and README are about x1")
    found.add_argument("--runs", type=int, default=1, help="how often; medians are shown")
    found.add_argument("--only", nargs="+", default=[], metavar="NAME", help="contenders beside the reference: names or parts of names")
    found.add_argument("--json", type=Path, help="file for all measurements")
    found.add_argument("--readme", nargs="?", type=Path, const=ROOT / "README.md", help="write the tables between the markers of the README")
    found.add_argument("--folder", type=Path, help="folder for sessions and lakes; sessions are kept. Default: a temporary one")
    return found


def chosen(words: Sequence[str]) -> list[str]:
    """The contenders that these words name, with the reference; all for none. A word is a name, or else a part of names.

    Raises ValueError for a word that is in no name.
    """
    found = {FLOOR} if words else set(GROUPS)
    for word in words:
        named = [word] if word in GROUPS else [name for name in GROUPS if word.casefold() in name.casefold()]
        if not named:
            raise ValueError("\n  ".join([f"no contender is named {word!r}; there are", *GROUPS]))
        found.update(named)
    return [name for name in GROUPS if name in found]


def show(told: Told, json_file: Path | None, readme: Path | None) -> None:
    """Print the tables, and write the files asked for."""
    print("\n".join(told.surroundings))
    for result in told.results:
        print(f"\n{heading(result, told.runs)}\n{table(entries(result, GROUPS))}")
        for remark in remarks_of(result):
            print(remark)
    if len(told.results) > 1:
        print(f"\n{growth(told.results, GROUPS)}")
    verdicts = mbo_targets.judge(told.results, told.main)
    if verdicts:
        print(f"\n{mbo_targets.text(verdicts)}")
    if json_file:
        by_size = [
            {**result._asdict(), "measured": {name: [m.to_json() for m in measured] for name, measured in result.measured.items()}}
            for result in told.results
        ]
        whole = {"machine": told.facts, "left_out": told.left_out, "runs": told.runs, "sizes": by_size, "targets": [v._asdict() for v in verdicts]}
        json_file.write_text(json.dumps(whole, indent=1), encoding="utf-8")
    if readme:
        _write_readme(told, verdicts, readme)


def _write_readme(told: Told, verdicts: Sequence[mbo_targets.Verdict], readme: Path) -> None:
    notes = [f"{line[0].upper()}{line[1:]}." for line in (heading(told.main, told.runs), *told.surroundings)]
    parts = [*notes, "", markdown(entries(told.main, GROUPS))]
    parts += ["", *(f"- {remark}." for remark in remarks_of(told.main))] if remarks_of(told.main) else []
    if len(told.results) > 1:
        parts += ["", "```text", growth(told.results, GROUPS), "```"]
    parts += ["", mbo_targets.markdown(verdicts)] if verdicts else []
    write_readme(readme, "\n".join(parts))
    missed = unexplained(readme, [verdict.name for verdict in verdicts if not verdict.met])
    for name in missed:
        print(f"{readme}: missed, and not explained below the table: {name}", file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    """Measure and show."""
    asked = parser()
    options = asked.parse_args(arguments)
    try:
        names, missing = installed(chosen(options.only))
    except ValueError as fault:
        print(f"Error: {fault}", file=sys.stderr)
        return 2
    if options.records < 1 or options.runs < 1 or min(options.sizes) <= 0:
        asked.error("--records and --runs must be at least 1, --sizes above 0")
    packages = sorted({PEERS[name].package for name in names if name in PEERS} - {"tasks", "duckdb", *LIBRARIES})
    facts = {**machine(), **{package: importlib.metadata.version(package) for package in packages}}
    with tempfile.TemporaryDirectory(prefix="bookmill-bench-") as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        if any(name in ORDER for name in names) and options.records > WARM_RECORDS:  # kernels compiled and cached
            run_stages(folder, session(folder, WARM_RECORDS), together=True)
        results = []
        try:
            for size in dict.fromkeys(options.sizes):
                records = max(round(options.records * size), 1)
                own = [name for name in names if records <= options.records or name not in ALL or ALL[name].group != "peer"]
                results.append(run_size(own, folder, records, options.runs))
        finally:
            clear(folder)
    of_one = [result for result in results if result.records == options.records]
    show(Told(results, (of_one or results)[-1], options.runs, facts, missing), options.json, options.readme)
    return 0


if __name__ == "__main__":
    sys.exit(main())
