"""Stages that prove and combine rebuilt books: certificates, and the consolidated touch. Mixed into the run of a flow that makes books."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flows.run import Run
from tasks.aggregation.consolidated import SymbolDay, is_consolidated, symbol_days
from tasks.aggregation.task import consolidate_symbols
from tasks.footers import contents
from tasks.partitions import MboRecipe, Partition, SourceFile
from tasks.reconstruction.certify import Certificate, certificate_facts, day_before, is_certified, published_files
from tasks.reconstruction.task import ProofJob, certify_books
from tasks.scanning.published import is_published
from tasks.scanning.task import decode_published_books


class ProofStages(Run):
    """Needs `recipe`; `published` holds the published books that the scan found. `certificates` is filled by `certify`."""

    recipe: MboRecipe
    published: list[SourceFile]
    certificates: list[dict[str, Any]]

    def prove(self, partitions: Sequence[Partition], rows: dict[Partition, int]) -> None:
        """Read published books, then certify every partition against all truth there is. A divergence is told, it fails nothing."""
        self.stage(
            decode_published_books, self.batches(self.published, lambda f: 2_000_000), lambda f: is_published(f, self.lake) is not None, "sources",
        )  # fmt: skip
        wanted = set(partitions)
        jobs = [ProofJob(p, day_before(self.lake, p)) for p in partitions]
        outcomes = self.stage(
            certify_books, self.batches(jobs, lambda j: rows[j.partition]),
            lambda j: is_certified(self.lake, j.partition, self.recipe, j.day_before), "jobs", recipe=self.recipe,
            contents=self._proof_contents,
        )  # fmt: skip
        found: list[Certificate] = [o.value for o in outcomes]
        self.certificates = [row for certificate in found for row in certificate_facts(certificate)]
        for certificate in found:
            if certificate.verdict == "diverged":
                self.log.warning("%s: the rebuilt book differs from its truth; see its certificate", certificate.partition)
        for file in self.published:
            parts = {Partition.of_path(p.path) for p in is_published(file, self.lake) or []}
            if not parts & wanted:
                self.log.warning("%s: none of its books belongs to a partition of this run; it proves nothing here", file.name)

    def consolidated(self, partitions: Sequence[Partition], rows: dict[Partition, int]) -> list[str]:
        """The best bid and offer over all publishers of each symbol and day that has several; paths of the files."""
        days = symbol_days(partitions)
        outcomes = self.stage(
            consolidate_symbols, self.batches(days, lambda d: sum(rows[p] for p in d.publishers)),
            lambda d: is_consolidated(self.lake, d.publishers, clock=self.recipe.clock), "jobs", recipe=self.recipe, contents=self._touches,
        )  # fmt: skip
        return [o.value.path for o in outcomes]

    def _proof_contents(self, jobs: Sequence[ProofJob]) -> str:
        paths = [path for j in jobs for path in (j.partition.path("bbo"), *published_files(self.lake, j.partition))]
        return contents(self.lake, paths + [j.day_before for j in jobs if j.day_before])

    def _touches(self, days: Sequence[SymbolDay]) -> str:
        return contents(self.lake, [p.path("bbo") for d in days for p in d.publishers])
