"""Each stage of the market-by-order flow as a plain call, without Prefect, on one source of one partition.

`python -m tests.bench.stages SOURCE LAKE OUT STAGE [STAGE ...]` times the stages named, one after the other, and writes a JSON list to OUT.
The stages before them must be in the lake. Imports, and the look at what is done already, come before the clock starts. With `whole` as the
only stage all of them are run and none is timed: it is what the flow does, without Prefect.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench.measure import Measured, decompress, timed

if TYPE_CHECKING:
    from tasks.partitions import SourceFile
    from tasks.reconstruction.rebuild import Rebuilt
    from tasks.scanning.decode import EventPart

FLOOR = "decompress (floor)"
WHOLE = "whole"
Call = Callable[[], Any]


class Place:
    """The source and the lake, and what earlier stages left there, looked up when asked for."""

    def __init__(self, source: Path, lake: Path) -> None:
        from tasks.partitions import MboRecipe

        self.source, self.lake, self.recipe = source, lake, MboRecipe()

    @cached_property
    def file(self) -> SourceFile:
        """The source as scanned."""
        from tasks.scanning.inventory import scan

        (file,) = scan([self.source]).files
        return file

    @cached_property
    def part(self) -> EventPart:
        """The one partition, decoded."""
        from tasks.scanning.decode import decode

        (part,) = decode(self.file, self.lake, self.recipe).parts
        return part

    @cached_property
    def rebuilt(self) -> Rebuilt:
        """Its book layers."""
        from tasks.reconstruction.rebuild import rebuild

        return rebuild(self.lake, self.part.partition, [self.part.path], self.recipe)

    def gate(self, suite: str, layer: str, **context: Any) -> Call:
        """A call that judges one layer of the partition."""
        from config.settings import load
        from validation import judge_process
        from validation.gate import require, run_gate
        from validation.quiet import great_expectations

        if judge_process.current() is None:
            great_expectations()  # which takes seconds, once a process

        settings = load(environ={})
        path = self.lake / (self.part.path if layer == "events" else self.part.partition.path(layer))
        context = {"clock": self.recipe.clock, **context}
        return lambda: require(run_gate(suite, [path], threads=settings.duckdb_threads, memory_bytes=settings.duckdb_memory_bytes, context=context))


def _all(*calls: Call) -> Call:
    def run() -> list[Any]:
        with ThreadPoolExecutor(2, "gate") as pool:  # side by side, as the flow judges them
            return list(pool.map(lambda call: call(), calls))

    return run


def _scan(place: Place) -> Call:
    from tasks.scanning.inventory import scan

    return lambda: scan([place.source])


def _decode(place: Place) -> Call:
    from tasks.scanning.decode import decode
    from tasks.scanning.readers import open_reader

    open_reader(place.file).close()  # imports the reader of the format
    return lambda: decode(place.file, place.lake, place.recipe)


def _rebuild(place: Place) -> Call:
    from tasks.reconstruction.rebuild import rebuild

    part = place.part
    return lambda: rebuild(place.lake, part.partition, [part.path], place.recipe)


def _gate_books(place: Place) -> Call:
    from tasks.reconstruction.rebuild import layer_names

    names, depth = layer_names(place.recipe), place.recipe.depth
    return _all(
        place.gate("books", "bbo", depth=1),
        place.gate("books", names["rows"], depth=depth),
        place.gate("books", names["grid"], depth=depth, grid=True, interval_ns=place.recipe.interval_ns),
        place.gate("trades", "trades"),
    )


def _certify(place: Place) -> Call:
    from tasks.reconstruction.certify import certify

    part = place.rebuilt.partition
    return lambda: certify(place.lake, part, place.recipe)


def _aggregate(place: Place) -> Call:
    from tasks.aggregation.aggregate import aggregate

    return lambda: aggregate(place.lake, place.part.partition, place.recipe)


def _gate_aggregates(place: Place) -> Call:
    from tasks.aggregation.aggregate import features_layer
    from tasks.specs import parse_bar

    bars = [parse_bar(name) for name in place.recipe.bars]
    return _all(*(place.gate("bars", bar.layer, time_bars=bar.kind == "time") for bar in bars), place.gate("features", features_layer(place.recipe)))


def _heatmap(place: Place) -> Call:
    from tasks.reconstruction.heatmap import build_heatmap

    part, rebuilt = place.part, place.rebuilt
    return lambda: build_heatmap(place.lake, part.partition, [part.path], rebuilt, place.recipe)


def _draw(place: Place) -> Call:
    from tasks.publishing.draw import draw

    return lambda: draw(place.lake, place.part.partition, place.recipe.clock)


def _ledger(place: Place) -> Call:
    from tasks.publishing import ledger

    return lambda: ledger.write(place.lake, place.part.partition)


def _report(place: Place) -> Call:
    from tasks.publishing.ledger import files_of
    from tasks.publishing.report import RunFacts, partition_fields, write_report

    lake, part, built = place.lake, place.part.partition, place.rebuilt
    ((_, found),) = files_of(lake, [part])
    outputs = {layer: {"path": path.relative_to(lake).as_posix(), "rows": 0} for layer, paths in found.items() for path in paths}
    counts = {name: built.facts[name] for name in ("rows_in", "crossed", "locked", "anomalies", "statuses", "event_ends", "status", "reason")}
    done = {"partition": partition_fields(part), "status": "done", "error": "", "outputs": outputs, "counts": counts}
    facts = RunFacts(run_id="bench", partitions=[done])
    return lambda: write_report(facts, lake, lake / "reports" / "bench.html")


STAGES: dict[str, Callable[[Place], Call]] = {
    FLOOR: lambda place: lambda: decompress(place.source),
    "scan": _scan,
    "decode": _decode,
    "gate events": lambda place: place.gate("events", "events"),
    "rebuild": _rebuild,
    "gate books": _gate_books,
    "certify": _certify,
    "aggregate": _aggregate,
    "gate aggregates": _gate_aggregates,
    "heatmap": _heatmap,
    "draw": _draw,
    "ledger": _ledger,
    "report": _report,
}


def measure(place: Place, name: str) -> Measured:
    """Time one stage."""
    return timed(name, lambda: STAGES[name](place))[0]


def run_whole(place: Place) -> None:
    """All stages once, as the flow calls them: Great Expectations in a process of its own, which gets ready beside the first of them."""
    from validation import judge_process

    judge_process.begin()
    for name in list(STAGES)[1:]:
        STAGES[name](place)()
    judge_process.end()


def main(source: str, lake: str, out: str, *names: str) -> None:
    """Time the stages named and write what was found; or run them all, for one who looks at the clock outside."""
    if names == (WHOLE,):
        run_whole(Place(Path(source), Path(lake)))
        return
    if not names or set(names) - set(STAGES):
        sys.exit(f"stages are {', '.join(names) or 'not named'}; allowed: {', '.join(STAGES)}")
    place = Place(Path(source), Path(lake))
    Path(out).write_text(json.dumps([measure(place, name).to_json() for name in names]), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
