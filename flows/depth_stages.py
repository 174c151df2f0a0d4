"""The stages of the depth flow: which tasks, on what, with which gate behind them. The work itself is in tasks/ and validation/."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.settings import Settings
from flows.book_run import HEATMAP, BookRun
from flows.depth_task import snapshot_depth
from flows.run import RunFailed
from tasks.aggregation.depth_aggregate import depth_aggregate_layers, is_depth_aggregated
from tasks.aggregation.task import aggregate_depth_days, wanted_of
from tasks.depth_recipe import TRADES, DepthDay, DepthRecipe, DepthSource
from tasks.footers import contents, is_done
from tasks.partitions import Partition
from tasks.reconstruction.certify import Certificate, certificate_facts
from tasks.reconstruction.depth_build import BBO, DepthBuilt, is_built
from tasks.reconstruction.depth_certificate import is_depth_certified
from tasks.reconstruction.depth_csv import path_name
from tasks.reconstruction.depth_export import CsvTarget
from tasks.reconstruction.depth_heatmap import depth_heatmap_stamp
from tasks.reconstruction.task import certify_depth_books, depth_heatmap
from tasks.scanning.depth_sources import DepthInventory, scan_depth
from tasks.scanning.depth_trades import LAYER as TRADES_LAYER
from tasks.scanning.depth_trades import DepthTrades, are_trades_done
from tasks.storage import remove_partials
from tasks.work import Outcome


@dataclass(frozen=True)
class DepthJob:
    """One source in work; its partition has no other. rebuilt: None until its snapshots are made."""

    source: DepthSource
    rebuilt: DepthBuilt | DepthTrades | None = None

    @property
    def partition(self) -> Partition:
        """Of the source."""
        return self.source.partition

    @property
    def rows(self) -> int:
        """A guess of the lines, for sharing out the work: a compressed line of a delta takes a hundred bytes."""
        return self.source.file.size // 100


class DepthRun(BookRun[DepthJob]):
    """A run of the depth flow; each method is one stage and returns what the next one works on."""

    def __init__(self, lake: str, recipe: DepthRecipe, settings: Settings) -> None:
        super().__init__("depth-snapshots", Path(lake), settings)
        self.recipe, self.command = recipe, "bookmill run depth"
        self.books: dict[Partition, DepthJob] = {}
        self.rejected: list[dict[str, Any]] = []
        self.certificates: list[dict[str, Any]] = []
        self.inventory = DepthInventory(())
        self._sources: dict[str, DepthSource] = {}
        self._trades: list[DepthJob] = []
        self._told, self._told_lock = 0, threading.Lock()

    def scan(self, sources: Sequence[str], dataset: str, pairs: Sequence[str], dates: Sequence[str], limit: int) -> list[DepthSource]:
        """Find and identify the sources. Raises RunFailed (exit code 2) when there is nothing to work on."""
        found = self.inventory = scan_depth(sources, dataset=dataset, pairs=pairs, dates=dates, limit=limit)
        self.rejected = [{"path": str(r.path), "error": str(r.error)} for r in found.rejected]
        for entry in self.rejected:
            self.progress.tell(f"ERROR {entry['error']}")
        for other in found.covered:
            self.progress.tell(f"LEFT OUT {other.name}: {other.by} has the same pair and day, and no fewer levels; parts of a day have to be joined")
        if not found.files:
            raise RunFailed("Nothing could run: " + " ".join(r["error"] for r in self.rejected), self.facts(sources).to_json(), 2)
        for source in found.files:
            self.progress.expect(source.subject, bytes=source.file.size)
        self._sources = {source.subject: source for source in found.files}
        return list(found.files)

    def snapshot(self, sources: list[DepthSource], csv: str, formatted: bool, temp_dir: str) -> list[DepthJob]:
        """Snapshots of every source; what has its outputs is skipped. Each file is told as it ends, and the totals at the end."""
        for path in remove_partials(Path(csv)) if csv and Path(csv).is_dir() else []:
            self.log.info("removed %s, left behind by a run that died", path)
        # Two markets have the same pairs: their files would get the same names.
        datasets = {source.partition.dataset for source in sources}
        folders = {name: str(Path(csv, path_name(name) if len(datasets) > 1 else "")) for name in datasets}
        targets = {name: CsvTarget(folder, formatted) if csv else None for name, folder in folders.items()}
        start, built = time.perf_counter(), dict[str, DepthBuilt | DepthTrades]()
        todo = []
        for source in sources:
            done = self._done(source, targets[source.partition.dataset])
            if done is None:
                todo.append(source)
            else:
                built[source.subject] = done
                self.told(Outcome(source.subject, 0.0, done.facts["rows_in"], True, done))
                self.progress.finish(source.subject)
        outcomes = self.stage(
            snapshot_depth, self.batches(todo, lambda s: s.file.size // 100), lambda s: False, "sources", recipe=self.recipe, csv=targets,
            temp_dir=temp_dir,
        )  # fmt: skip
        built |= {o.subject: o.value for o in outcomes}
        rows = sum(n for made in built.values() for _, n in made.grids.values())
        skipped, failed, many = len(sources) - len(todo), len(sources) - len(built), "s" if len(sources) != 1 else ""
        self.progress.tell(
            f"{len(sources):,} file{many}: {len(built) - skipped:,} done, {skipped:,} skipped, {failed:,} failed; {rows:,} snapshots; "
            f"{time.perf_counter() - start:.1f} s"
        )
        jobs = [DepthJob(source, built[source.subject]) for source in sources if source.subject in built]
        books = [job for job in jobs if self._made(job).grids]
        # Trades make no book: where a day has one, too, its account has a line for them; alone they are a partition of their own.
        self._trades = self.known([job for job in jobs if not self._made(job).grids and job.partition not in {b.partition for b in books}])
        paths = [job.partition.path(TRADES_LAYER) for job in jobs if not self._made(job).grids]
        if paths:
            self.gate("depth_trades", paths, {})
        return self.known(self.alive(books))

    def _done(self, source: DepthSource, csv: CsvTarget | None) -> DepthBuilt | DepthTrades | None:
        return are_trades_done(self.lake, source) if source.kind == TRADES else is_built(self.lake, source, self.recipe, csv)

    def write_ledger(self, jobs: list[DepthJob]) -> None:
        """The ledger of every partition, those with trades only included."""
        super().write_ledger([*jobs, *self.alive(self._trades)])

    def told(self, outcome: Outcome) -> None:
        """[n/N] DONE|SKIPPED|ERROR PAIR file [depths] -> snapshots"""
        with self._told_lock:
            self._told += 1
            number = self._told
        source = self._sources[outcome.subject]
        head = f"[{number}/{len(self._sources)}] {'ERROR' if outcome.error else 'SKIPPED' if outcome.skipped else 'DONE'} {source.partition.symbol}"
        if outcome.error:
            self.progress.tell(f"{head} {Path(source.file.path).name}: {outcome.error}")
            return
        grids = outcome.value.grids
        rows, what = max((n for _, n in grids.values()), default=0), "snapshots"
        if source.kind == TRADES:
            rows, what = outcome.value.facts["rows_out"], "trades"
        took = "" if outcome.skipped else f", {outcome.seconds:.1f} s"
        others = outcome.value.facts["messages_of_other_days"]
        lost = f"; {others:,} messages are of other days" if others else ""
        self.progress.tell(f"{head} {Path(source.file.path).name} [{','.join(map(str, sorted(grids)))}] -> {rows:,} {what}{took}{lost}")

    def gate_books(self, jobs: list[DepthJob]) -> list[DepthJob]:
        """Judge touch and snapshots."""
        self.gate("depth_books", [j.partition.path(BBO) for j in jobs], {"depth": 1})
        for depth in sorted({d for j in jobs for d in self._made(j).grids}):
            paths = [j.partition.path(self.recipe.grid_layer(depth)) for j in jobs if depth in self._made(j).grids]
            self.gate("depth_books", paths, {"depth": depth, "grid": True, "interval_ns": self.recipe.interval_ns})
        return self.alive(jobs)

    def certify(self, jobs: list[DepthJob]) -> list[DepthJob]:
        """A certificate for every partition. A divergence is told, it fails nothing."""
        days = self._days(jobs)
        outcomes = self.stage(
            certify_depth_books, self.batches(days, lambda d: 1_000), lambda d: is_depth_certified(self.lake, d.partition), "jobs",
            contents=self._contents,
        )  # fmt: skip
        found: list[Certificate] = [o.value for o in outcomes]
        self.certificates = [row for certificate in found for row in certificate_facts(certificate)]
        for certificate in found:
            if certificate.verdict == "diverged":
                self.log.warning("%s: the rebuilt book differs from its truth; see its certificate", certificate.partition)
        return self.alive(jobs)

    def aggregate(self, jobs: list[DepthJob]) -> list[DepthJob]:
        """Bars of the mid and features."""
        outcomes = self.stage(
            aggregate_depth_days, self.batches(self._days(jobs), self._weight),
            lambda d: is_depth_aggregated(self.lake, d.partition, wanted_of(d, self.recipe)), "jobs", recipe=self.recipe, contents=self._contents,
        )  # fmt: skip
        good = {o.subject for o in outcomes}
        return [j for j in jobs if str(j.partition) in good]

    def gate_aggregates(self, jobs: list[DepthJob]) -> list[DepthJob]:
        """Judge bars and features."""
        for day in self._days(jobs)[:1]:
            *bars, features = depth_aggregate_layers(wanted_of(day, self.recipe))
            for layer in bars:
                self.gate("mid_bars", [j.partition.path(layer) for j in jobs], {})
            self.gate("depth_features", [j.partition.path(features) for j in jobs], {})
        return self.alive(jobs)

    def draw(self, jobs: list[DepthJob], most: int) -> None:
        """Heatmap grids and pictures of the largest partitions."""
        chosen = self._days(sorted(jobs, key=lambda j: -j.rows)[:most])
        outcomes = self.stage(
            depth_heatmap, self.batches(chosen, self._weight), self._is_heatmap, "jobs", recipe=self.recipe, contents=self._contents
        )
        drawn = {o.subject for o in outcomes if o.value is not None}
        self.draw_pictures([d.partition for d in chosen if str(d.partition) in drawn], "ts_event")

    def _days(self, jobs: list[DepthJob]) -> list[DepthDay]:
        return [DepthDay(job.partition, max(self._made(job).grids)) for job in jobs]

    def _weight(self, day: DepthDay) -> int:
        return self.books[day.partition].rows

    def _is_heatmap(self, day: DepthDay) -> bool:
        recipe = self.recipe
        stamp = depth_heatmap_stamp(self.lake, day.partition, recipe.grid_layer(day.depth), recipe.heatmap_width, recipe.heatmap_height)
        return is_done(self.lake / day.partition.path(HEATMAP), stamp)

    def _made(self, job: DepthJob) -> DepthBuilt | DepthTrades:
        assert job.rebuilt is not None
        return job.rebuilt

    def _contents(self, days: Sequence[DepthDay]) -> str:
        paths = [path for d in days for path in (d.partition.path(BBO), d.partition.path(self.recipe.grid_layer(d.depth)))]
        return contents(self.lake, paths)
