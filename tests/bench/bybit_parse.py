"""One generated day of a Bybit order book: inflate alone, the reader, the usual JSON parsers; then zip to minute snapshots, ours and the plain way.

`python -m tests.bench.bybit_parse [--interval-ms 100] [--runs 1] [--json FILE] [--folder FOLDER] [--only NAME ...]`

Every measurement is a fresh process; imports, and a small archive that has kernels compiled and loaded, come before its clock starts. The floor is
isal's inflate without a checksum; ratios are wall time to the floor's of the same run. Each contender must find the lines and levels that the
generator wrote. The JSON parsers get lines from isal in the same thread and count levels; none of them makes numbers of the decimals.
Install the extra `bench` for all of them; those that are not installed are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench.measure import Measured, machine, median, peak_rss
from tests.flows.servers import ROOT

STEP = 1 << 17
FLOOR = "isal inflate (floor)"
WARM_INTERVAL_MS = 600_000
Found = tuple[int, int, int]  # lines, levels, bytes inflated; -1 where not looked at


def _stored(path: Path) -> Iterator[bytes]:
    """The deflated bytes of the one member."""
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        (info,) = archive.infolist()
        file.seek(info.header_offset + 26)
        head = file.read(4)
        file.seek(int.from_bytes(head[:2], "little") + int.from_bytes(head[2:], "little"), 1)
        left = info.compress_size
        while data := file.read(min(STEP, left)):
            left -= len(data)
            yield data


def _isal_pieces(path: Path) -> Iterator[bytes]:
    from isal import igzip_lib

    inflater = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_DEFLATE)
    for data in _stored(path):
        made = inflater.decompress(data, STEP)
        while made:
            yield made
            made = b"" if inflater.eof or inflater.needs_input else inflater.decompress(b"", STEP)


def _lines(path: Path) -> Iterator[bytes]:
    rest = b""
    for piece in _isal_pieces(path):
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines


def isal(path: Path) -> Found:
    """Inflate with isal, nothing else."""
    return -1, -1, sum(map(len, _isal_pieces(path)))


def zlib_alone(path: Path) -> Found:
    """Inflate with zlib, nothing else."""
    inflater, total = zlib.decompressobj(-15), 0
    for data in _stored(path):
        total += len(inflater.decompress(data))
    return -1, -1, total


def zip_module(path: Path) -> Found:
    """Read the member through zipfile."""
    with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as file:
        total = 0
        while data := file.read(STEP):
            total += len(data)
    return -1, -1, total


def reader(path: Path, batch_bytes: int | None = None) -> Found:
    """Our reader, batches dropped."""
    from tasks.scanning.bybit import BATCH_BYTES, open_bybit

    opened, levels = open_bybit(path), 0
    for batch in opened.batches(batch_bytes or BATCH_BYTES):
        assert not batch.bad
        levels += len(batch.price)
    opened.close()
    return opened.lines, levels, -1


def _parsed(path: Path, levels_of: Callable[[bytes], int]) -> Found:
    lines = levels = 0
    for line in _lines(path):
        lines += 1
        levels += levels_of(line)
    return lines, levels, -1


def _by_loads(path: Path, loads: Callable[[bytes], Any]) -> Found:
    def levels_of(line: bytes) -> int:
        data = loads(line)["data"]
        return len(data["b"]) + len(data["a"])

    return _parsed(path, levels_of)


def with_msgspec(path: Path) -> Found:
    """msgspec with typed structs."""
    import msgspec

    levels = list[tuple[str, str]]
    book = msgspec.defstruct("Book", [("s", str), ("b", levels), ("a", levels), ("u", int), ("seq", int)], gc=False)
    message = msgspec.defstruct("Message", [("topic", str), ("type", str), ("ts", int), ("data", book), ("cts", int, -1)], gc=False)
    decode: Callable[[bytes], Any] = msgspec.json.Decoder(message).decode

    def levels_of(line: bytes) -> int:
        data = decode(line).data
        return len(data.b) + len(data.a)

    return _parsed(path, levels_of)


def with_orjson(path: Path) -> Found:
    """orjson."""
    import orjson

    return _by_loads(path, orjson.loads)


def with_simdjson(path: Path) -> Found:
    """pysimdjson, documents as Python objects: its proxies alone give no values."""
    import simdjson

    parser = simdjson.Parser()
    return _by_loads(path, lambda line: parser.parse(line, True))


def with_json(path: Path) -> Found:
    """The standard library."""
    return _by_loads(path, json.loads)


def snapshots(path: Path) -> Found:
    """Ours from zip to 1,440 rows at 500 and at 200 levels in a lake, the touch besides."""
    with tempfile.TemporaryDirectory(prefix="bookmill-bench-") as lake:
        return _built(path, Path(lake))


def two_files(path: Path) -> Found:
    """The same day twice into two lakes, two workers."""
    with tempfile.TemporaryDirectory(prefix="bookmill-bench-") as lakes, ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda name: _built(path, Path(lakes) / name), ("one", "other"))
    assert one == other
    return one


def _built(path: Path, lake: Path) -> Found:
    from tasks.depth_recipe import DepthRecipe
    from tasks.reconstruction.depth_build import build_depth
    from tasks.scanning.depth_journal import DepthJournal
    from tasks.scanning.depth_sources import open_depth, scan_depth

    named = lake / "in" / "2025-08-09_BTCUSDT_ob500.data.zip"
    named.parent.mkdir(parents=True)
    named.symlink_to(path)
    (source,) = scan_depth([named]).files
    built = build_depth(lake, source, DepthRecipe(), lambda: open_depth(source), journal=lambda: DepthJournal(source, lake))
    assert {rows for _, rows in built.grids.values()} == {1_440}
    return built.facts["rows_in"], built.facts["updates"], -1


def _price(level: tuple[str, str]) -> Decimal:
    return Decimal(level[0])


def plain_way(path: Path) -> Found:
    """json, a dict a side, sorted at each minute for 500 and 200 levels; the rows are kept as lists and not written."""
    bids: dict[str, str] = {}
    asks: dict[str, str] = {}
    rows: list[list[list[tuple[str, str]]]] = []  # those of 200 levels are their beginnings
    lines = levels = minute = 0
    for line in _lines(path):
        message = json.loads(line)
        now = message["ts"] // 60_000
        if now != minute:
            minute = now
            rows.append([sorted(side.items(), key=_price, reverse=side is bids)[:500] for side in (bids, asks)])
        data = message["data"]
        if message["type"] == "snapshot":
            bids.clear()
            asks.clear()
        for side, changes in ((bids, data["b"]), (asks, data["a"])):
            for px, sz in changes:
                if sz == "0":
                    side.pop(px, None)
                else:
                    side[px] = sz
        lines += 1
        levels += len(data["b"]) + len(data["a"])
    return lines, levels, -1


CONTENDERS: dict[str, tuple[Callable[[Path], Found], str]] = {
    FLOOR: (isal, "isal"), "zlib inflate": (zlib_alone, "zlib"), "zipfile": (zip_module, "zipfile"), "reader": (reader, "tasks"),
    "msgspec, typed": (with_msgspec, "msgspec"), "orjson": (with_orjson, "orjson"), "pysimdjson": (with_simdjson, "simdjson"),
    "json": (with_json, "json"),
    "zip to snapshots": (snapshots, "tasks"), "two files, two workers": (two_files, "tasks"), "json, dict, sorted": (plain_way, "json"),
    **{f"reader, batches of {kb} KB": (partial(reader, batch_bytes=kb << 10), "tasks") for kb in (256, 512, 2048, 4096)},
}  # fmt: skip


def archive(folder: Path, interval_ms: int) -> tuple[Path, Found]:
    """The generated day, made once, and what is in it."""
    path = folder / f"day-{interval_ms}.data.zip"
    truth = path.with_suffix(".json")
    if not truth.exists():
        from tasks.scanning.synthetic_depth import DepthSpec, write_archive

        facts = write_archive(path, DepthSpec(interval_ms=interval_ms))
        truth.write_text(json.dumps([facts.lines, facts.updates, facts.text_bytes]), encoding="utf-8")
    lines, levels, size = json.loads(truth.read_text(encoding="utf-8"))
    return path, (lines, levels, size)


def run_here(name: str, path: Path, warm: Path) -> dict[str, Any]:
    """One contender in this process: what it took and what it found."""
    start = time.perf_counter()
    contender = CONTENDERS[name][0]
    contender(warm)
    began, cpu = time.perf_counter(), time.process_time()
    found = contender(path)
    measured = Measured(name, time.perf_counter() - began, time.process_time() - cpu, peak_rss(), began - start)
    return {"measured": measured.to_json(), "found": found}


def run_alone(name: str, path: Path, warm: Path, truth: Found) -> Measured:
    """One contender in a process of its own. Raises AssertionError when it did not find what was written."""
    command = [sys.executable, "-m", "tests.bench.bybit_parse", "--here", name, str(path), str(warm)]
    told = json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)
    for found, wanted in zip(told["found"], truth, strict=True):
        if found not in (-1, wanted):
            raise AssertionError(f"{name} found {told['found']}, the generator wrote {truth}")
    return Measured(**told["measured"])


def table(truth: Found, runs: dict[str, list[Measured]]) -> str:
    """The measurements as text, one a line, medians over the runs."""
    floor, width = median(runs[FLOOR]).wall, max(map(len, runs))
    lines = [f"{'':{width}}  {'wall s':>8}  {'CPU s':>8}  {'M levels/s':>10}  {'x isal':>8}  {'peak MB':>8}"]
    for name, measured in runs.items():
        m = median(measured)
        numbers = f"{m.wall:8.3f}  {m.cpu:8.3f}  {truth[1] / m.wall / 1e6:10.2f}  {m.wall / floor:8.2f}  {m.peak_rss / 2**20:8.0f}"
        lines.append(f"{name:{width}}  {numbers}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interval-ms", type=int, default=100, help="between messages: 100 gives 800,000 lines")
    parser.add_argument("--runs", type=int, default=1, help="how often; medians are shown")
    parser.add_argument("--json", type=Path, help="file for all measurements")
    parser.add_argument("--folder", type=Path, help="folder for the archive; kept. Default: a temporary one")
    parser.add_argument("--only", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS), help="contenders beside the floor")
    parser.add_argument("--here", nargs=3, metavar=("NAME", "FILE", "WARM"), help="one contender in this process, as JSON")
    options = parser.parse_args(arguments)
    if options.here:
        name, path, warm = options.here
        print(json.dumps(run_here(name, Path(path), Path(warm))))
        return 0
    with tempfile.TemporaryDirectory(prefix="bookmill-bench-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        (path, truth), (warm, _) = archive(folder, options.interval_ms), archive(folder, WARM_INTERVAL_MS)
        names = [name for name, (_, module) in CONTENDERS.items() if name in (FLOOR, *options.only) and importlib.util.find_spec(module)]
        runs: dict[str, list[Measured]] = {}
        for _ in range(options.runs):
            for name in names:
                runs.setdefault(name, []).append(run_alone(name, path, warm, truth))
        size = path.stat().st_size
    facts = machine()
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print(f"{truth[0]:,} lines, {truth[1]:,} levels, {truth[2] / 1e6:.1f} MB of text in {size / 1e6:.1f} MB of zip, {options.runs} run(s), medians\n")
    print(table(truth, runs))
    if options.json:
        measured = {name: [m.to_json() for m in found] for name, found in runs.items()}
        options.json.write_text(json.dumps({"machine": facts, "truth": truth, "bytes": size, "measured": measured}, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
