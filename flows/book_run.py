"""What every flow that makes books does with them: gates, pictures, ledger, report. Mixed into the run of a flow."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import httpx
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.utilities.annotations import quote

from config.settings import Settings
from flows.policies import equip, submit_placed
from flows.run import Run, RunFailed
from flows.run_life import ends_run
from tasks.footers import contents, read_footer
from tasks.partitions import Partition
from tasks.publishing import ledger
from tasks.publishing.draw import are_drawn, picture_markdown
from tasks.publishing.report import RunFacts, certificate_rows, markdown_summary, partition_fields, table_rows
from tasks.publishing.report_sections import partition_of
from tasks.publishing.task import draw_heatmaps, publish_report, write_ledgers
from validation.gate import GateReport
from validation.task import gate, rules_digest

# Files that one gate judges together, fewer only where every worker has a gate then: a verdict costs 0.1 s, whatever the number of files.
GATE_FILES, GATE_FILES_LEAST = 1_000, 200
# Heatmaps shown as artifacts; all are in the lake and the report.
PICTURES = 4
HEATMAP = "heatmap"
# Layers that no gate is given and no option names.
ALWAYS = frozenset({"certificate", "ledger", "truth", "published", "exports", "mends"})
SHOWN_FACTS = ("rows_in", "crossed", "locked", "anomalies", "statuses", "event_ends", "status", "reason")


class Made(Protocol):
    """What a book was made into: facts are the counts in its footer."""

    @property
    def facts(self) -> dict[str, Any]: ...


class Job(Protocol):
    """One partition in work. rows: its weight; rebuilt: None until its book is made."""

    @property
    def partition(self) -> Partition: ...

    @property
    def rows(self) -> int: ...

    @property
    def rebuilt(self) -> Made | None: ...


J = TypeVar("J", bound=Job)


class BookRun(Run, Generic[J]):
    """Needs `recipe` (a dataclass) and `command`, the words that start this flow. books: the partitions so far; rejected: sources that cannot be
    used; certificates: filled by the flow."""

    recipe: Any
    command: str
    books: dict[Partition, J]
    rejected: list[dict[str, Any]]
    certificates: list[dict[str, Any]]

    def __init__(self, title: str, lake: Path, settings: Settings) -> None:
        super().__init__(title, lake, settings)
        self.given: set[str] = set()  # to a gate: the layers that this run made or found done
        self.drawn: set[str] = set()

    def known(self, jobs: list[J]) -> list[J]:
        """Note these jobs as the latest of their partitions."""
        self.life.claim([job.partition for job in jobs])
        self.books |= {job.partition: job for job in jobs}
        return jobs

    def alive(self, jobs: list[J]) -> list[J]:
        """Those that have not failed."""
        return [job for job in jobs if str(job.partition) not in self.failed]

    def gate(self, suite: str, paths: list[str], context: dict[str, Any]) -> list[GateReport]:
        """Judge files in groups; partitions of blocked files are failed."""
        return self.gate_all([(suite, paths, context)])

    def gate_all(self, judged: Sequence[tuple[str, list[str], dict[str, Any]]]) -> list[GateReport]:
        """`gate` for several tables at once: (suite, paths, context) each. Their scans run side by side."""
        equipped, start = equip(gate, self.settings), time.perf_counter()
        calls, layers = [], []
        for suite, paths, context in judged:
            self.given.update(paths)
            if suite != "events":
                # No trade in a partition, or no row in the hours wanted, is no fault; how many rows there are is in the ledger.
                paths = [path for path in paths if int((read_footer(self.lake / path) or {}).get("bookmill.rows", 1))]
            rules = rules_digest(suite, context)
            most = min(GATE_FILES, max(GATE_FILES_LEAST, -(-len(paths) // self.crew.workers)))
            for at in range(0, len(paths), most):
                group = tuple(paths[at : at + most])
                label = str(Partition.of_path(group[0])) + (f" and {len(group) - 1} more" if len(group) > 1 else "")
                layers.append(Path(group[0]).parts[0])
                calls.append(
                    partial(
                        submit_placed,
                        equipped,
                        suite=suite,
                        lake=str(self.lake),
                        paths=group,
                        contents=contents(self.lake, group),
                        rules=rules,
                        context=context,
                        label=label,
                        run=self.work,
                    )
                )
        reports = self.crew.gather(calls)
        for fault in [report for report in reports if isinstance(report, BaseException)]:
            raise fault  # a gate that could not judge lets nothing pass
        told = ", ".join(dict.fromkeys(layers)) or ", ".join(dict.fromkeys(suite for suite, _, _ in judged))
        seconds, rows = round(time.perf_counter() - start, 3), sum(r.rows for r in reports)
        self.stages.append({"stage": f"gate {told}", "partition": "all", "seconds": seconds, "rows": rows, "bytes": 0})
        for layer, report in zip(layers, reports, strict=True):
            self._book(layer, report)
        return reports

    def _book(self, layer: str, report: GateReport) -> None:
        """Note what a gate found; partitions of blocked files are failed."""
        self.gates.append({**report.to_json(), "partition": f"{layer}, {report.files} file{'s' if report.files != 1 else ''}"})
        for path, bad in report.quarantine.items():
            self.life.alerts.quarantined(str(Partition.of_path(path)), len(bad.rows), f"the gate of {report.suite}")
        for path in report.blocked_files:
            partition = Partition.of_path(path)
            said = "; ".join(
                f"{r.name}: {r.by_file[path]:,} unexpected. {r.why} Look at: {r.look}"
                for r in report.failed
                if path in r.by_file and r.consequence == "block"
            )
            self.fail(str(partition), "gate", f"GateBlocked: {report.suite}: {said}")

    def draw_pictures(self, partitions: Sequence[Partition], clock: str) -> None:
        """Pictures of the partitions that have a heatmap grid."""
        outcomes = self.stage(
            draw_heatmaps, self.batches(partitions, lambda p: self.books[p].rows), lambda p: are_drawn(self.lake, p), "partitions", clock=clock,
            contents=lambda batch: contents(self.lake, [p.path(HEATMAP) for p in batch]),
        )  # fmt: skip
        self.drawn = {outcome.subject for outcome in outcomes}

    def write_ledger(self, jobs: list[J]) -> None:
        """The ledger of every partition."""
        self.ledger: list[dict[str, Any]] = []
        outcomes = self.stage(
            # Never from the cache, which may know these contents from before other options came in between; a ledger that is right is left alone.
            write_ledgers, self.batches([j.partition for j in jobs], lambda p: 50_000), lambda p: False,
            "partitions", contents=self._all_contents,
        )  # fmt: skip
        for outcome in outcomes:
            self.ledger += [row for row in outcome.value if self._is_own(row)]
            self.progress.finish(outcome.subject)
        self.ledger += ledger.outside_partitions(self.lake, [job.partition for job in jobs])

    def _is_own(self, row: dict[str, Any]) -> bool:
        """Whether a line of the ledger is of this run: that of the lake tells of the bars of runs with other options, too."""
        stage, _, layer = row["stage"].partition(":")
        return stage != "aggregate" or partition_of({"partition": row}).path(layer) in self.given

    @ends_run
    def report(self, sources: Sequence[str]) -> dict[str, Any]:
        """Write the report, publish the artifacts, and say how it went. Raises RunFailed when a source or partition failed."""
        facts = self.facts(sources)
        publish: Any = equip(publish_report, self.settings, persist_result=False, cache_policy=None)
        path = publish(str(self.lake), quote(facts))  # else Prefect looks for results of tasks in it, value by value
        try:
            self._show(facts, Path(path))
        except httpx.HTTPError as fault:  # the client has tried for a minute and more; what was worked for is in the lake
            self.log.warning("The Prefect API did not take the artifacts of the run (%s); all that they say is in the report %s", fault, path)
        self.life.alerts.stale(self.books)
        summary = {**facts.to_json(), "report": path, "lake": str(self.lake), "peak_rss_bytes": max((b for _, b in self.memory), default=0)}
        if self.failed or self.rejected:
            nothing = not any(p["status"] == "done" for p in summary["partitions"])
            raise RunFailed(facts.sentence, summary, 2 if nothing else 1)
        return summary

    def _show(self, facts: RunFacts, report: Path) -> None:
        """The artifacts of the run, for the interface."""
        create_markdown_artifact(key="bookmill-run", markdown=markdown_summary(facts), description="What the run did")
        create_table_artifact(key="bookmill-partitions", table=table_rows(facts), description="Partitions of the run")
        for number, entry in enumerate(self._drawn(facts)[:PICTURES]):
            create_markdown_artifact(key=f"bookmill-heatmap-{number + 1}", markdown=picture_markdown(*entry), description="Heatmap")
        if facts.certificates:
            create_table_artifact(key="bookmill-certificates", table=certificate_rows(facts), description="Books against their truth")
        # Browsers follow no file link from a page of a server: the text says where the file is.
        create_link_artifact(key="bookmill-report", link=report.as_uri(), link_text=str(report), description="HTML report, where the run worked")

    def _drawn(self, facts: RunFacts) -> list[tuple[str, Path]]:
        """(partition, PNG) of the partitions that have a picture."""
        found = [
            (f"{e['partition']['symbol']} {e['partition']['date']}", (self.lake / e["outputs"][HEATMAP]["path"]).with_suffix(".png"))
            for e in facts.partitions
            if HEATMAP in e["outputs"]
        ]
        return [(name, path) for name, path in found if path.exists()]

    def facts(self, sources: Sequence[str]) -> RunFacts:
        """All that the run says about itself."""
        partitions = []
        made = dict(ledger.files_of(self.lake, [job.partition for job in self.books.values() if job.rebuilt]))
        for job in sorted(self.books.values(), key=lambda j: j.partition):
            error = self.failed.get(str(job.partition), "")
            built = job.rebuilt
            partitions.append({
                "partition": partition_fields(job.partition), "status": "failed" if error else "done", "error": error,
                "outputs": self._outputs(job.partition, built, made[job.partition]) if built else {},
                "counts": {name: built.facts[name] for name in SHOWN_FACTS} if built else {},
            })  # fmt: skip
        known = {str(p) for p in self.books}
        broken = [{"path": name, "error": error} for name, error in self.failed.items() if name not in known]
        return RunFacts(
            run_id=self.run_id, command=f"{self.command} " + " ".join(sources), started=self.started, finished=self.finished(), code=self.code,
            recipe=asdict(self.recipe), hardware=self.hardware, stages=self.stages, partitions=partitions, gates=self.gates,
            ledger=getattr(self, "ledger", []), memory=self.memory, rejected=[*self.rejected, *broken], certificates=self.certificates,
        )  # fmt: skip

    def _outputs(self, partition: Partition, built: Made, files: dict[str, list[Path]]) -> dict[str, dict[str, Any]]:
        """The files of the partition that are of this run; those of runs with other options stay beside them in the lake."""
        own = {*ALWAYS, *built.facts["outputs"], *([HEATMAP] if str(partition) in self.drawn else [])}
        found = {}
        for layer, paths in files.items():
            for path in paths:
                name = path.relative_to(self.lake).as_posix()
                if layer in own or name in self.given:
                    found[layer] = {"path": name, "rows": int((read_footer(path) or {}).get("bookmill.rows", 0))}
        return found

    def _all_contents(self, partitions: Sequence[Partition]) -> str:
        paths = [path for _, files in ledger.files_of(self.lake, partitions) for found in files.values() for path in found]
        return contents(self.lake, [path.relative_to(self.lake).as_posix() for path in paths])
