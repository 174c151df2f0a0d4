"""The stages of the market-by-order flow: which tasks, on what, with which gate behind them. The work itself is in tasks/ and validation/."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from config.settings import Settings
from flows.book_run import BookRun
from flows.proof_stages import ProofStages
from flows.run import RunFailed
from tasks.aggregation.aggregate import aggregate_layers, is_aggregated
from tasks.aggregation.task import aggregate_partitions
from tasks.errors import BookmillError
from tasks.filtering.predicate import output_windows
from tasks.footers import contents, is_done
from tasks.partitions import CARRY_DAYS, MboRecipe, Partition, SourceFile, continued
from tasks.publishing.report import RunFacts
from tasks.reconstruction.carry import LeftOut, gap_before, read_left_out
from tasks.reconstruction.certify import named_alike
from tasks.reconstruction.heatmap import LAYER, heatmap_stamp
from tasks.reconstruction.layer_writer import layer_names
from tasks.reconstruction.rebuild import begins_with, closed_inside, in_time_order, is_rebuilt, rebuild_stamp, stops_inside
from tasks.reconstruction.task import BookJob, heatmap, reconstruct
from tasks.scanning.decode import Decoded, is_decoded
from tasks.scanning.gate_quarantine import quarantine_rows
from tasks.scanning.inventory import Inventory, scan
from tasks.scanning.sources_file import mends_path
from tasks.scanning.task import decode_sources
from tasks.specs import parse_bar
from validation import judge_process

# From here on the process that judges is worth its memory less than the seconds in which it starts, beside the first queries of the next gate.
LONG_ROWS = 50_000_000


class MboRun(ProofStages, BookRun[BookJob]):
    """A run of the market-by-order flow; each method is one stage and returns what the next one works on."""

    def __init__(self, lake: str, recipe: MboRecipe, settings: Settings) -> None:
        super().__init__("market-by-order", Path(lake), settings)
        self.recipe, self.command = recipe, "bookmill run mbo"
        self.rejected: list[dict[str, Any]] = []
        self.sources: list[SourceFile] = []
        self.decoded: list[Decoded] = []
        self.books: dict[Partition, BookJob] = {}
        self.published: list[SourceFile] = []
        self.certificates: list[dict[str, Any]] = []
        self._left_out: dict[str, LeftOut] = {}

    def scan(self, sources: Sequence[str], dataset: str, symbol: str) -> list[SourceFile]:
        """Find and identify the sources. Raises RunFailed (exit code 2) when there is nothing to work on."""
        inventory = scan(sources, dataset=dataset or None, symbol=symbol or None)
        self.rejected = [{"path": str(r.path), "error": str(r.error)} for r in inventory.rejected]
        for entry in self.rejected:
            self.log.error("%s", entry["error"])
        if not inventory.files:
            raise RunFailed(f"Nothing could run: {self._why_nothing(inventory)}", self.facts(sources).to_json(), 2)
        self.published = list(inventory.published)
        for file in inventory.files:
            self.progress.expect(file.name, file.rows, file.size)
        return list(inventory.files)

    def _why_nothing(self, inventory: Inventory) -> str:
        """What was found in the place of sources with events."""
        told = [r["error"] for r in self.rejected]
        if inventory.published:
            names = ", ".join(file.name for file in inventory.published[:5]) + (" and others" if len(inventory.published) > 5 else "")
            told.append(f"{names}: books that a vendor rebuilt. They prove books and make none; give the events (schema mbo) of the same time, too.")
        elif not told:
            told.append("there is no file of a format that holds orders.")
        return " ".join(told)

    def decode(self, files: list[SourceFile], salvage: bool) -> list[BookJob]:
        """Events files of every source; partitions in order."""
        self.sources = files
        outcomes = self.stage(
            decode_sources, self.batches(files, lambda f: 2_000_000), lambda f: is_decoded(f, self.lake, self.recipe, salvage=salvage) is not None,
            "sources",
            recipe=self.recipe, salvage=salvage,
        )  # fmt: skip
        # As the lake has it now: a result from the cache may be older than a gate that took rows out.
        found = [o.value for o in outcomes]
        self.decoded = [is_decoded(d.source, self.lake, self.recipe, salvage=salvage) or d for d in found]
        parts: dict[Partition, list[Any]] = defaultdict(list)
        for decoded, then in zip(self.decoded, found, strict=True):
            self.progress.finish(decoded.source.name)
            self._tell_lost(decoded, new=not then.skipped)
            for part in decoded.parts:
                parts[part.partition].append(part)
        for decoded in self.decoded:
            for partition, rows in decoded.lost:
                if partition in parts:  # of other sources, whose events do not tell where these rows stood
                    told = "%s: its book is made without the rows of %s (%d), all of which were set aside; from where they stood on it can be wrong"
                    self.log.warning(told, partition, decoded.source.name, rows)
        limited = self.recipe.filter.start_ns is not None or self.recipe.filter.end_ns is not None or self.recipe.filter.hours is not None
        jobs = []
        for partition in sorted(parts):
            windows = tuple(output_windows(self.recipe.filter, partition.date, self.recipe.clock)) if limited else None
            jobs.append(BookJob(partition, tuple(sorted(p.path for p in parts[partition])), windows, None, sum(p.rows for p in parts[partition])))
        return self.known(jobs)

    def _tell_lost(self, decoded: Decoded, *, new: bool) -> None:
        """Say where nothing came out of a source, and where rows of a new one were set aside; one of which no row could be read has failed."""
        name, rows, bad = decoded.source.name, decoded.rows_in, decoded.rows_quarantined
        where = f"{bad:,} of {rows:,} rows are in quarantine: `bookmill quarantine list --lake {self.lake}` says why"
        if new and (self.lake / mends_path(decoded.source.dataset, decoded.source.short)).exists():
            self.log.warning("%s: decoded as it stands, without its mends: `bookmill replay-quarantine` puts them in their places again", name)
        if bad and bad == rows:
            self.fail(name, "decode", f"BadRows: {where}.")
        elif rows and not decoded.rows_out:
            self.log.warning("%s: none of its %d rows is an event that the filter wants (%d are in quarantine)", name, rows, bad)
        elif bad and new:
            self.log.warning("%s: %s", name, where)

    def gate_events(self, jobs: list[BookJob]) -> list[BookJob]:
        """Judge the events; rows that may not go on are quarantined, files that may not are failed."""
        by_path = {path: job for job in jobs for path in job.events}
        for report in self.gate("events", list(by_path), {"clock": self.recipe.clock}):
            for path, bad in report.quarantine.items():
                name = Path(path).relative_to(self.lake).as_posix()
                removed = quarantine_rows(self.lake, name, bad.rows, list(bad.reasons), "gate:events")
                self.log.warning("%s: %d rows quarantined by the gate", name, removed)
        kept = []
        for job in self.alive(jobs):
            events = tuple(path for path in job.events if (self.lake / path).exists())
            if events:
                kept.append(replace(job, events=events))
        return self.known(kept)

    def reconstruct(self, jobs: list[BookJob]) -> list[BookJob]:
        """Books of every partition; those that go on from the day before come after it, one wave a day."""
        for job in jobs:
            self.progress.expect(str(job.partition), job.rows)
        with judge_process.away() if sum(job.rows for job in jobs) >= LONG_ROWS else nullcontext():
            return self._reconstruct(jobs)

    def _reconstruct(self, jobs: list[BookJob]) -> list[BookJob]:
        before, done = self._days_before(jobs), list[BookJob]()
        waiting = [job for job in jobs if job.partition in before]
        while waiting:
            names = {job.partition for job in waiting}
            now = [_carrying(job, before[job.partition]) for job in waiting if before[job.partition] not in names]
            outcomes = self.stage(
                reconstruct, self.batches(now, lambda j: j.rows), lambda j: self._is_rebuilt(j), "jobs", recipe=self.recipe,
                contents=lambda batch: contents(self.lake, [p for j in batch for p in (*j.events, *([j.carry] if j.carry else []))]),
            )  # fmt: skip
            built = {o.subject: o.value for o in outcomes}
            done += [replace(job, rebuilt=built[str(job.partition)]) for job in now if str(job.partition) in built]
            waiting = [job for job in waiting if before[job.partition] in names]
        return self.known(sorted(done, key=lambda j: j.partition))

    def _days_before(self, jobs: list[BookJob]) -> dict[Partition, Partition | None]:
        """What each partition goes on from; without those of which it cannot be said, which are failed."""
        planned: dict[tuple[str, str, int], dict[Partition, Sequence[str]]] = defaultdict(dict)
        for job in jobs:
            planned[_instrument(job.partition)][job.partition] = job.events
        self._left_out.clear()
        found = {}
        for job in jobs:
            try:
                found[job.partition] = self._day_before(job, planned[_instrument(job.partition)])
            except BookmillError as fault:  # two sources of the same time, or a file that has gone: this partition's fault alone
                self.fail(str(job.partition), "reconstruct", f"{type(fault).__name__}: {fault}")
        return found

    def gate_books(self, jobs: list[BookJob]) -> list[BookJob]:
        """Judge books and trades."""
        for job in jobs:
            if job.rebuilt is not None and job.rebuilt.facts["event_ends"] == 0:
                told = f"None of its {job.rows:,} events ends an event (flag LAST 128, or is_last), so the book may never be read. "
                self.fail(str(job.partition), "reconstruct", told + "Check how the source was exported.")
        names = layer_names(self.recipe)
        base = {"clock": self.recipe.clock}
        judged: list[tuple[str, list[str], dict[str, Any]]] = [
            ("books", [j.partition.path("bbo") for j in jobs], {**base, "depth": 1}),
            ("books", [j.partition.path(names["rows"]) for j in jobs], {**base, "depth": self.recipe.depth}),
        ]
        grid = [("books", paths, {**context, "depth": self.recipe.depth, "grid": True}) for paths, context in self._on_grid(jobs, names["grid"])]
        self.gate_all([*judged, *grid, ("trades", [j.partition.path("trades") for j in jobs], base)])
        return self.alive(jobs)

    def certify(self, jobs: list[BookJob]) -> list[BookJob]:
        """A certificate for every partition, and the consolidated touch of symbols with several publishers."""
        rows = {job.partition: job.rows for job in jobs}
        self.prove([j.partition for j in jobs], rows)
        alive = self.alive(jobs)
        paths = self.consolidated([j.partition for j in alive], rows)
        if paths:
            self.gate("consolidated", paths, {"clock": self.recipe.clock})
        return self.alive(alive)

    def aggregate(self, jobs: list[BookJob]) -> list[BookJob]:
        """Bars, features and heatmap grids."""
        batches = self.batches([j.partition for j in jobs], lambda p: self.books[p].rows)
        outcomes = self.stage(
            aggregate_partitions,
            batches,
            lambda p: is_aggregated(self.lake, p, self.recipe),
            "partitions",
            recipe=self.recipe,
            contents=self._bbo_contents,
        )
        good = {o.subject for o in outcomes}
        return [j for j in jobs if str(j.partition) in good]

    def gate_aggregates(self, jobs: list[BookJob]) -> list[BookJob]:
        """Judge bars and features."""
        *_bars, features = aggregate_layers(self.recipe)
        bars = [
            ("bars", [j.partition.path(spec.layer) for j in jobs], {"clock": self.recipe.clock, "time_bars": spec.kind == "time"})
            for spec in map(parse_bar, self.recipe.bars)
        ]
        self.gate_all([*bars, *(("features", paths, context) for paths, context in self._on_grid(jobs, features))])
        return self.alive(jobs)

    def _on_grid(self, jobs: list[BookJob], layer: str) -> list[tuple[list[str], dict[str, Any]]]:
        """Files of a layer on the grid, with the context of those that have the same windows."""
        paths: dict[tuple[tuple[int, int], ...] | None, list[str]] = defaultdict(list)
        for job in jobs:
            # The grid of a day keeps to it, also where its other rows may be of the day before.
            paths[job.windows and job.partition.of_day(job.windows)].append(job.partition.path(layer))
        same = {"clock": self.recipe.clock, "interval_ns": self.recipe.interval_ns}
        return [(found, {**same, "windows": windows}) for windows, found in paths.items()]

    def draw(self, jobs: list[BookJob], most: int) -> None:
        """Heatmap grids and pictures of the largest partitions."""
        chosen = sorted(jobs, key=lambda j: -j.rows)[:most]
        outcomes = self.stage(
            heatmap, self.batches(chosen, lambda j: j.rows), self._is_heatmap, "jobs", recipe=self.recipe,
            contents=lambda batch: self._bbo_contents([j.partition for j in batch]),
        )  # fmt: skip
        drawn = {o.subject for o in outcomes if o.value is not None}
        partitions = [j.partition for j in chosen if str(j.partition) in drawn]
        self.draw_pictures(partitions, self.recipe.clock)

    def facts(self, sources: Sequence[str]) -> RunFacts:
        """As every run, and of each source that failed its fingerprint: several may have one name."""
        facts = super().facts(sources)
        done = {decoded.source.fingerprint for decoded in self.decoded}
        for entry in facts.rejected:
            entry["fingerprints"] = [f.fingerprint for f in self.sources if f.name == entry["path"] and f.fingerprint not in done]
        return facts

    def _day_before(self, job: BookJob, planned: Mapping[Partition, Sequence[str]]) -> Partition | None:
        """The partition whose closing book this one goes on from, None when its own events begin with a clear or snapshot, or there is none, or
        rows are known to lie between the two. planned: those of the same instrument that are made now, with their events."""
        events = in_time_order(self.lake, job.partition, job.events)
        first = begins_with(self.lake, events)
        if first == "clear":
            return None

        def of(day: str) -> list[Partition]:
            # Of this run, or of an earlier one: a nightly run has each day before it in the lake.
            return [*(p for p in planned if p.date == day), *named_alike(self.lake, job.partition, "closing_book", day)]

        today = date.fromisoformat(job.partition.date)
        siblings = named_alike(self.lake, job.partition, "events", job.partition.date)
        for days in range(1, 2 if first else CARRY_DAYS + 1):
            day = (today - timedelta(days)).isoformat()
            if before := continued(job.partition, of(day), siblings):
                if first and not self._stops_inside(before, planned):
                    return None
                dataset = job.partition.dataset
                if dataset not in self._left_out:
                    self._left_out[dataset] = read_left_out(self.lake, dataset)
                gap = gap_before(self.lake, job.partition, job.events, before, planned, self._left_out[dataset])
                if gap:
                    self.log.warning("%s does not go on from %s and begins without a book: %s", job.partition, before.date, gap)
                return None if gap else before
        return None

    def _stops_inside(self, before: Partition, planned: Mapping[Partition, Sequence[str]]) -> bool:
        """Whether a partition ends inside a snapshot, which then goes on over midnight; its closing book need not be there yet."""
        if before in planned:
            return stops_inside(self.lake, in_time_order(self.lake, before, planned[before]))
        return closed_inside(self.lake, before.path("closing_book"))

    def _is_rebuilt(self, job: BookJob) -> bool:
        try:
            events = in_time_order(self.lake, job.partition, job.events)
            stamp = rebuild_stamp(self.lake, events, self.recipe, job.windows, job.carry)
        except (BookmillError, KeyError):
            return False
        return is_rebuilt(self.lake, job.partition, stamp, self.recipe) is not None

    def _is_heatmap(self, job: BookJob) -> bool:
        assert job.rebuilt is not None
        return is_done(self.lake / job.partition.path(LAYER), heatmap_stamp(self.lake, job.rebuilt, self.recipe))

    def _bbo_contents(self, partitions: Sequence[Partition]) -> str:
        return contents(self.lake, [p.path("bbo") for p in partitions])


def _carrying(job: BookJob, before: Partition | None) -> BookJob:
    return job if before is None else replace(job, carry=before.path("closing_book"))


def _instrument(partition: Partition) -> tuple[str, str, int]:
    """What stays the same from one day to the next; an instrument's id may change over night."""
    return partition.dataset, partition.symbol, partition.publisher_id
