"""What lies in a lake, and what in it belongs to nothing any more: partial files, orphans, events of a source that was replaced.

Knows layers by name, path and footer, never the code that makes them. Whether the files fit each other is in doctor.py; what goes, in cleaning.py.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import StorageError
from tasks.partitions import Partition
from tasks.paths import files_below
from tasks.schemas import CODE_VERSION
from tasks.storage import PARTIAL, partial_owner

PICTURES = (".png", ".html")
_OWN = ("reports", "runs")  # folders of files that are no layers
ACCOUNTS = ("sources", "quarantine")  # one file a source, not a partition
_READ = (*ACCOUNTS, "ledger")  # whose rows are looked at, and few
_FOOTER = ("inputs", "recipe", "code", "rows", "facts")
# Facts of a heatmap are its axes: they are not needed here, and large.
_WITH_FACTS = ("events", "bbo", "depth-bbo", "cbbo", "sources")
_AGAIN = "Start the run again: it is made anew."


@dataclass(frozen=True)
class Finding:
    """One thing that is to be said of a lake.

    path: relative to the lake; what: one sentence; remedy: what to do; wrong: False for what is only told; remove: files that go with it when
    the lake is cleaned, relative to the lake.
    """

    kind: str
    path: str
    what: str
    remedy: str
    wrong: bool = True
    remove: tuple[str, ...] = ()


@dataclass(frozen=True)
class LakeFile:
    """One Parquet file. source: what follows the partition in its name, "" for none; footer: without the prefix, empty when it is not usable."""

    path: str
    layer: str
    partition: Partition | None
    source: str
    footer: dict[str, str]
    facts: dict[str, Any]

    @property
    def stamp(self) -> tuple[str, str]:
        """(inputs, recipe)."""
        return self.footer["inputs"], self.footer["recipe"]


@dataclass
class Stock:
    """All files of a lake. partitions: partition -> layer -> its files, the broken ones with them; related: (dataset, symbol, publisher) and (symbol,
    date) -> partitions; sources: path of a SOURCES file -> its rows."""

    lake: Path
    files: dict[str, LakeFile] = field(default_factory=dict)
    pictures: list[str] = field(default_factory=list)
    partials: list[str] = field(default_factory=list)
    partitions: dict[Partition, dict[str, list[LakeFile]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    related: dict[tuple[Any, ...], set[Partition]] = field(default_factory=lambda: defaultdict(set))
    sources: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    problems: list[Finding] = field(default_factory=list)

    def usable(self, path: str) -> LakeFile | None:
        """The file at `path` when it is there and its footer can be used."""
        file = self.files.get(path)
        return file if file is not None and file.footer else None


def take_stock(lake: Path, *, deep: bool = False) -> Stock:
    """Look at every file of the lake once; deep: read all rows of the Parquet files, too. Raises StorageError when there is no lake."""
    if not lake.is_dir():
        raise StorageError(f"There is no lake at {lake}. Give the folder that a run wrote to with --lake.")
    stock = Stock(lake)
    # Links are followed: without a layer that lies on another disk, all that was made from it would look like an orphan.
    for path in files_below(lake):
        _note(stock, path.relative_to(lake), deep)
    for file in stock.files.values():
        if file.layer == "sources" and file.footer:
            stock.sources[file.path] = pq.read_table(lake / file.path, partitioning=None).to_pylist()
    return stock


def _note(stock: Stock, path: Path, deep: bool) -> None:
    name, layer, text = path.name, path.parts[0], path.as_posix()
    if name.startswith(".") and name.endswith(PARTIAL):
        stock.partials.append(text)
    elif any(part.startswith(".") for part in path.parts) or layer in _OWN or len(path.parts) == 1:
        return
    elif layer == "heatmap" and path.suffix in PICTURES:
        stock.pictures.append(text)
    elif path.suffix == ".parquet":
        partition = None
        if layer not in ACCOUNTS:
            with suppress(KeyError, ValueError, IndexError):
                partition = Partition.of_path(path)
        footer, facts = _read(stock, text, layer, deep)
        file = LakeFile(text, layer, partition, "-".join(path.stem.split("-")[3:]), footer, facts)
        stock.files[text] = file
        if partition is not None:
            stock.partitions[partition][layer].append(file)
            for key in ((partition.dataset, partition.symbol, partition.publisher_id), (partition.symbol, partition.date)):
                stock.related[key].add(partition)
    elif path.parts[1].startswith("dataset="):
        stock.problems.append(Finding("foreign", text, "Is no file that Bookmill writes.", "Move it out of the lake."))


def _read(stock: Stock, path: str, layer: str, deep: bool) -> tuple[dict[str, str], dict[str, Any]]:
    """Footer and facts of one file, both empty when they cannot be used; what is wrong goes to the problems."""

    def tell(kind: str, what: str, remedy: str = f"Delete it. {_AGAIN}") -> None:
        stock.problems.append(Finding(kind, path, what, remedy))

    try:
        metadata = pq.read_metadata(stock.lake / path)
        raw = {k.decode(errors="replace"): v.decode(errors="replace") for k, v in (metadata.metadata or {}).items()}
        if deep or layer in _READ:
            _read_rows(stock.lake / path, metadata.num_rows)
    except (OSError, pa.ArrowException) as fault:
        tell("unreadable", f"Cannot be read as Parquet: {str(fault).splitlines()[0].rstrip('.')}.")
        return {}, {}
    footer = {name: raw[f"bookmill.{name}"] for name in _FOOTER if f"bookmill.{name}" in raw}
    try:
        facts = json.loads(footer["facts"]) if layer in _WITH_FACTS else {}
        rows = int(footer["rows"])
    except (KeyError, ValueError):
        rows = -1
    if rows < 0 or len(footer) < len(_FOOTER):
        tell("no_footer", "Has no footer of Bookmill, so nothing says what it was made from.", f"Move it out of the lake. {_AGAIN}")
        return {}, {}
    if rows != metadata.num_rows:
        tell("rows", f"Its footer says {rows:,} rows, the file holds {metadata.num_rows:,}.")
        return {}, {}
    if footer["code"] != CODE_VERSION:
        tell("old_code", f"Was made by version {footer['code']} of the code; this one is {CODE_VERSION}.", _AGAIN)
    return footer, facts


def _read_rows(path: Path, rows: int) -> None:
    with pq.ParquetFile(path, pre_buffer=False) as file:
        read = sum(len(batch) for batch in file.iter_batches(use_threads=False))
    if read != rows:
        raise pa.ArrowInvalid(f"{read:,} of {rows:,} rows can be read")


def find_partials(stock: Stock) -> Iterator[Finding]:
    """Files that were being written, by what became of their writer; only those of dead writers of this machine can go."""
    for path in stock.partials:
        process, alive = partial_owner(path)
        if process is None:
            yield Finding("partial", path, "Was being written by a process of another machine.", "Delete it when no run works there on this lake.")
        elif alive:
            yield Finding("partial", path, f"Is being written by process {process}, which is alive.", "Wait for its run to end.", wrong=False)
        else:
            yield Finding(
                "partial", path, f"Was being written by process {process}, which is dead.", "`bookmill clean` removes it; so does the next run.",
                remove=(path,),
            )  # fmt: skip


def _is_ours(picture: str) -> bool:
    """Whether a picture is named as those of grids are: people may keep others beside them."""
    try:
        partition = Partition.of_path(picture)
    except (KeyError, ValueError, IndexError):
        return False
    return any(picture == partition.path("heatmap", suffix=suffix) for suffix in PICTURES)


def find_orphans(stock: Stock) -> Iterator[Finding]:
    """What belongs to nothing: outputs without the layer that they are made from, pictures without a grid, events that no source lists."""
    remedy = "`bookmill clean` removes it; a run of its source makes it anew."
    pictures, gone = set(stock.pictures), set()
    for partition, layers in sorted(stock.partitions.items()):
        for file in (file for files in layers.values() for file in files):
            roots = _roots(stock, file)
            if roots and not any(_stands(stock, partition, root, file) for root in roots):
                grid = file.path.removesuffix(".parquet") if file.layer == "heatmap" else ""
                drawn = tuple(grid + suffix for suffix in PICTURES if grid + suffix in pictures)
                gone |= set(drawn)
                what = f"Was made from {' or '.join(roots)} of {partition}, of which there is nothing any more."
                # Only what says that it is ours may go.
                yield Finding("orphan", file.path, what, remedy, remove=(file.path, *drawn) if file.footer else ())
    for path in filter(_is_ours, stock.pictures):
        if path not in gone and f"{path.rsplit('.', 1)[0]}.parquet" not in stock.files:
            yield Finding("orphan", path, "Is a picture without its grid.", remedy, remove=(path,))
    listed = {row["path"] for rows in stock.sources.values() for row in rows}
    for file in stock.files.values():
        account = file.partition and f"sources/dataset={quote(file.partition.dataset, safe='.')}/{file.source}.parquet"
        # A broken SOURCES file is told by itself.
        if file.layer == "events" and file.path not in listed and (account in stock.sources or account not in stock.files):
            what = "Is listed by no file of `sources`, so its decode did not end."
            yield Finding("unlisted", file.path, what, "Start the run again with its source.")


def _roots(stock: Stock, file: LakeFile) -> tuple[str, ...]:
    """Layers of which one must be there for a file to belong to something; empty where it stands for itself."""
    if file.layer in ("events", "published", "depth-bbo", "depth-trades"):
        return ()
    if file.layer in ("certificate", "heatmap", "ledger"):
        return ("events", "depth-bbo", "depth-trades")
    if file.layer == "cbbo":
        return ("bbo",)
    if file.layer == "closing_book" and file.partition and len(stock.partitions[file.partition]) == 1:
        return ()  # a pull brings it alone, for the days after it
    return ("depth-bbo",) if file.layer.startswith(("depth-", "mid-")) or file.layer == "exports" else ("events",)


def _stands(stock: Stock, partition: Partition, root: str, file: LakeFile) -> bool:
    if file.layer == "cbbo":  # filed under a dataset of its own, made of those of all others
        return any("bbo" in stock.partitions[p] for p in stock.related[partition.symbol, partition.date])
    if file.layer == "truth":
        return partition.path("events", file.source) in stock.files
    return root in stock.partitions[partition]


def find_old_events(stock: Stock) -> Iterator[Finding]:
    """Events files of one partition that come from sources of one name, where the books are made of the others: a source that changed."""
    pairs = [pair for partition, layers in sorted(stock.partitions.items()) for pair in _replaced(stock, partition, layers)]
    removable = {old.path for old, new in pairs if _overlap(old, new)}
    for old, new in pairs:
        assert old.partition is not None
        account = f"sources/dataset={quote(old.partition.dataset, safe='.')}/{old.source}.parquet"
        listed = [row["path"] for row in stock.sources.get(account, []) if row["path"] in stock.files]
        what = f"Is of {old.facts.get('source')} as it was; the books are made of {new.path.rsplit('/', 1)[-1]}, which has the same source name."
        if old.path in removable and listed and removable.issuperset(listed):
            truths = [stock.files[path].partition.path("truth", old.source) for path in listed]  # type: ignore[union-attr]
            beside = [account, *truths, f"quarantine/{account.split('/')[1]}/source-{old.source}.parquet"]
            remove = tuple(path for path in [*beside, *listed] if path in stock.files)
            yield Finding("old_events", old.path, what, "`bookmill clean --old-events` removes it with its account and quarantine.", remove=remove)
        else:
            remedy = "Not all of that source was replaced. Give both sources to one run, or delete the files of the one that is wrong."
            yield Finding("old_events", old.path, what, remedy)


def _replaced(stock: Stock, partition: Partition, layers: dict[str, list[LakeFile]]) -> Iterator[tuple[LakeFile, LakeFile]]:
    """(events file that the book leaves out, one of the same source name that it is made of)."""
    book = stock.usable(partition.path("bbo"))
    used = set(book.facts.get("events", [])) if book else set()
    events = [file for file in layers.get("events", []) if file.footer]
    for old in (file for file in events if used and file.path not in used):
        new = [file for file in events if file.path in used and file.facts.get("source") == old.facts.get("source")]
        yield from ((old, file) for file in new[:1])


def _overlap(one: LakeFile, other: LakeFile) -> bool:
    first, last = ("first_ts_recv", "last_ts_recv")
    return bool(one.facts[first] <= other.facts[last] and other.facts[first] <= one.facts[last])
