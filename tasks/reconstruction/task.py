"""The reconstruct, certify and heatmap tasks: events files to book layers. Boundary only; see rebuild.py, certify.py and heatmap.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prefect import task

from tasks.depth_recipe import DepthDay, DepthRecipe
from tasks.partitions import MboRecipe, Partition
from tasks.reconstruction.certify import certify
from tasks.reconstruction.depth_certificate import certify_depth
from tasks.reconstruction.depth_heatmap import build_depth_heatmap
from tasks.reconstruction.heatmap import build_heatmap
from tasks.reconstruction.layer_writer import Rebuilt
from tasks.reconstruction.rebuild import rebuild
from tasks.work import AT_ONCE, Outcome, Work, run_each

# Arrays of a replay at ten levels and the row groups in the making, measured: 190 MB; the grid of a heatmap: 60 MB.
REBUILD_BYTES = 256 << 20
HEATMAP_BYTES = 128 << 20
CERTIFY_BYTES = 128 << 20  # two streams of book rows


@dataclass(frozen=True)
class BookJob:
    """One partition to rebuild. events: its events files; windows: half-open ns spans of wanted output, None for all; carry: closing_book of
    the day before; rows: events in all; rebuilt: for the heatmap, what reconstruct gave."""

    partition: Partition
    events: tuple[str, ...]
    windows: tuple[tuple[int, int], ...] | None = None
    carry: str | None = None
    rows: int = 0
    rebuilt: Rebuilt | None = None


@task(name="reconstruct", task_run_name="reconstruct {label}")
def reconstruct(lake: str, jobs: tuple[BookJob, ...], contents: str, recipe: MboRecipe, label: str, run: Work) -> list[Outcome]:
    """Rebuild and sample the book of each job's partition; values are `Rebuilt`. contents: digest of the files read, for the cache key."""

    def body(job: BookJob):
        with run.slots(1, REBUILD_BYTES):
            built = rebuild(
                Path(lake), job.partition, job.events, recipe, windows=job.windows, carry=job.carry, batch_rows=run.batch_rows,
                progress=lambda rows: run.advance(str(job.partition), rows),
            )  # fmt: skip
        return built, built.facts["rows_in"], built.skipped

    return run_each(jobs, lambda job: str(job.partition), body)


@dataclass(frozen=True)
class ProofJob:
    """One partition to certify. day_before: closing_book of the calendar day before, None where there is none."""

    partition: Partition
    day_before: str | None = None


@task(name="certify", task_run_name="certify {label}")
def certify_books(lake: str, jobs: tuple[ProofJob, ...], contents: str, recipe: MboRecipe, label: str, run: Work) -> list[Outcome]:
    """Hold the book of each job's partition against all truth there is; values are `Certificate`."""

    def body(job: ProofJob):
        with run.slots(1, CERTIFY_BYTES):
            made = certify(Path(lake), job.partition, recipe, day_before=job.day_before)
        return made, sum(row["states_compared"] for row in made.rows), made.skipped

    return run_each(jobs, lambda job: str(job.partition), body, at_once=AT_ONCE)


@task(name="heatmap", task_run_name="heatmap {label}")
def heatmap(lake: str, jobs: tuple[BookJob, ...], contents: str, recipe: MboRecipe, label: str, run: Work) -> list[Outcome]:
    """Fill the heatmap grid of each job's partition; values are paths relative to the lake, None where there was never a touch."""

    def body(job: BookJob):
        assert job.rebuilt is not None
        with run.slots(1, HEATMAP_BYTES):
            path = build_heatmap(Path(lake), job.partition, job.events, job.rebuilt, recipe, carry=job.carry, batch_rows=run.batch_rows)
        return path, job.rebuilt.facts["rows_in"], False

    return run_each(jobs, lambda job: str(job.partition), body)


@task(name="certify depth", task_run_name="certify {label}")
def certify_depth_books(lake: str, jobs: tuple[DepthDay, ...], contents: str, label: str, run: Work) -> list[Outcome]:
    """The certificate of each job's partition; values are `Certificate`."""

    def body(job: DepthDay):
        made = certify_depth(Path(lake), job.partition)
        return made, sum(row["states_compared"] for row in made.rows), made.skipped

    return run_each(jobs, lambda job: str(job.partition), body, at_once=AT_ONCE)


@task(name="depth heatmap", task_run_name="heatmap {label}")
def depth_heatmap(lake: str, jobs: tuple[DepthDay, ...], contents: str, recipe: DepthRecipe, label: str, run: Work) -> list[Outcome]:
    """Fill the heatmap grid of each job's partition; values are paths relative to the lake, None where there was never a touch."""

    def body(job: DepthDay):
        with run.slots(1, HEATMAP_BYTES):
            path = build_depth_heatmap(
                Path(lake), job.partition, depth=job.depth, interval_ns=recipe.interval_ns, width=recipe.heatmap_width, height=recipe.heatmap_height
            )
        return path, 0, False

    return run_each(jobs, lambda job: str(job.partition), body)
