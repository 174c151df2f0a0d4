"""The decode tasks: sources to events files, published books to theirs. Boundary only; see decode.py and published.py."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from tasks.partitions import MboRecipe, SourceFile
from tasks.scanning.decode import decode
from tasks.scanning.published import decode_published
from tasks.work import Outcome, Work, run_each


@task(name="decode", task_run_name="decode {label}")
def decode_sources(lake: str, sources: tuple[SourceFile, ...], recipe: MboRecipe, salvage: bool, label: str, run: Work) -> list[Outcome]:
    """Decode, filter and check each source; values are `Decoded`."""

    def body(source: SourceFile):
        told = [0, 0]

        def progress(size: int, rows: int) -> None:
            run.advance(source.name, rows - told[1], size - told[0])
            told[:] = size, rows

        with run.slots(1, run.memory_bytes):
            found = decode(
                source, Path(lake), recipe, batch_rows=run.batch_rows, memory_bytes=run.memory_bytes, salvage=salvage,
                progress=progress,
            )  # fmt: skip
        run.finish(source.name)
        return found, found.rows_in, found.skipped

    return run_each(sources, lambda source: source.name, body)


@task(name="decode published books", task_run_name="decode published books {label}")
def decode_published_books(lake: str, sources: tuple[SourceFile, ...], label: str, run: Work) -> list[Outcome]:
    """Read each source of published books; values are lists of `PublishedPart`."""

    def body(source: SourceFile):
        with run.slots(1, run.memory_bytes):
            parts = decode_published(source, Path(lake))
        return parts, sum(part.rows for part in parts), False

    return run_each(sources, lambda source: source.name, body)
