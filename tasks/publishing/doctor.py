"""Whether the files of a lake fit each other: what each was made from, as the footers tell, against what is there now; accounts and quarantine.

A stage stamps what it makes with a digest of the stamps of what it read. The same digests are taken here over the files as they are. What lies in
the lake, and what belongs to nothing, is in orphans.py. Only looks.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.partitions import CARRY_DAYS, Partition, digest
from tasks.publishing import ledger
from tasks.publishing.orphans import Finding, LakeFile, Stock, find_old_events, find_orphans, find_partials, take_stock

_GRID = re.compile(r"mbp-\d+(-.*)?|depth-\d+-.*")
_DERIVED = re.compile(r"(ohlcv|bars|features|mid|depth-features)-.*|heatmap")
_AGAIN = "Start the run again: it is made anew; or delete it."
_MOST_BOOKS = 64  # combinations of publishers that a consolidated touch is held against


@dataclass(frozen=True)
class Checkup:
    """files: Parquet files looked at; findings: sorted by kind and path."""

    files: int
    findings: list[Finding]

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong; what is only told does not count."""
        return not any(finding.wrong for finding in self.findings)


def examine(lake: Path, *, deep: bool = False) -> Checkup:
    """Look at a lake and say what is wrong with it; deep: read every row group, too. Raises StorageError when there is no lake."""
    stock = take_stock(lake, deep=deep)
    orphans = list(find_orphans(stock))
    lost = {finding.path for finding in orphans}
    replaced = list(find_old_events(stock))
    found = [*stock.problems, *find_partials(stock), *orphans, *replaced, *_missing(stock), *_quarantined(stock)]
    found += [finding for finding in _misfits(stock) if finding.path not in lost]
    old, gone = ({stock.files[finding.path].partition for finding in of if finding.path in stock.files} for of in (replaced, orphans))
    whole = _whole(stock, gone)
    account = ledger.collect(lake, whole)
    found += _accounts(whole, account, old)
    found += _kept_ledgers(stock, account, {stock.files[f.path].partition for f in found if f.wrong and f.path in stock.files}, set(whole))
    return Checkup(len(stock.files), sorted(found, key=lambda finding: (finding.kind, finding.path, finding.what)))


def _missing(stock: Stock) -> Iterator[Finding]:
    """What an account names and is not there, or is there with other rows."""
    for account, rows in sorted(stock.sources.items()):
        facts = stock.files[account].facts
        again = "Start the run again with this source."
        for row in (row for row in rows if row["path"]):
            file = stock.usable(row["path"])
            if row["path"] not in stock.files:
                yield Finding("missing", account, f"Lists {row['path']}, which is not there; its source is {row['source']}.", again)
            elif file and file.layer == "events" and int(file.footer["rows"]) != row["rows_out"]:
                what = f"Counts {row['rows_out']:,} rows in {row['path']}, which holds {int(file.footer['rows']):,}."
                yield Finding("account", account, what, again)
        for path in [facts.get("quarantine", ""), *(_truth(path) for path in facts.get("truth", []))]:
            if path and path not in stock.files:
                yield Finding("missing", account, f"Names {path}, which is not there.", again)


def _truth(events: str) -> str:
    return "truth" + events.removeprefix("events")


def _quarantined(stock: Stock) -> Iterator[Finding]:
    for file in stock.files.values():
        if file.layer == "quarantine" and file.footer:
            rows = pq.read_table(stock.lake / file.path, columns=["source", "stage", "reason"], partitioning=None)
            for group in rows.group_by(["source", "stage", "reason"], use_threads=False).aggregate([([], "count_all")]).to_pylist():
                what = f"{group['count_all']:,} rows of {group['source']} were set aside at {group['stage']}: {group['reason']}."
                yield Finding("quarantine", file.path, what, "`bookmill quarantine list` shows an example, `export` writes the rows.", wrong=False)


def _whole(stock: Stock, gone: set[Partition | None]) -> list[Partition]:
    """Partitions whose account can be whole. gone: those with orphans."""
    broken = {file.partition for file in stock.files.values() if not file.footer} | gone
    datasets = {file.path.split("/")[1] for file in stock.files.values() if file.layer == "sources" and not file.footer}
    return [p for p in stock.partitions if p not in broken and p.path("sources").split("/")[1] not in datasets]


def _accounts(whole: list[Partition], account: pa.Table, replaced: set[Partition | None]) -> Iterator[Finding]:
    """What of the account (schema LEDGER) does not add up. replaced: partitions with events of a source that changed, which the books rightly leave
    out."""
    # Rows of no partition share a key with each other, and may share one with a partition: they are held to themselves.
    inside = _inside(account)
    outside = account.filter(pc.invert(inside))
    problems = [*ledger.check(account.filter(inside)), *(said for i in range(len(outside)) for said in ledger.check(outside.slice(i, 1)))]
    for said in problems:
        of = next((p for p in whole if said.startswith((f"{p},", f"{p}:"))), None)
        if of is None or of not in replaced or ": decode put out" not in said:
            path = of.path("ledger") if of else "sources"
            yield Finding("ledger", path, said[:1].upper() + said[1:], "Start the run again; when it stays, please report it with the source.")


def _inside(account: pa.Table) -> pa.ChunkedArray:
    return pc.match_substring(account["counts"], '"file_rows"')


def _kept_ledgers(stock: Stock, account: pa.Table, told: set[Partition | None], whole: set[Partition]) -> Iterator[Finding]:
    """Each ledger file against the digest of its own lines, and against what its files say now. told: partitions of which something else is wrong;
    what makes those right changes what their files say."""
    by_files: dict[Partition, list[dict[str, Any]]] = defaultdict(list)
    for row in account.filter(_inside(account)).to_pylist():
        by_files[Partition(row["dataset"], row["date"], row["symbol"], row["publisher_id"], row["instrument_id"])].append(row)
    for file in (file for file in stock.files.values() if file.layer == "ledger" and file.footer):
        lines = pq.read_table(stock.lake / file.path, partitioning=None).to_pylist()
        apart = ledger.difference(lines, by_files[file.partition]) if file.partition in whole else ""
        if digest(lines) != file.footer["inputs"]:
            what = f"Its lines are not those that were written, by the digest in its footer{': ' if apart else ''}{apart}."
            yield Finding("ledger", file.path, what, "Delete it and start the run again: it is made anew.")
        elif apart and file.partition not in told:
            yield Finding("outdated", file.path, f"Does not say what the files of its partition say: {apart}.", _AGAIN)


def _misfits(stock: Stock) -> Iterator[Finding]:
    for partition, layers in sorted(stock.partitions.items()):
        for root, fits in (("bbo", _book_fits), ("depth-bbo", _depth_fits)):
            book = stock.usable(partition.path(root))
            if book:
                yield from fits(stock, partition, layers, book)
            elif partition.path(root) not in stock.files:
                yield from _unfinished(layers, root)
        for file in layers.get("cbbo", []):
            if file.footer and not _cbbo_fits(stock, partition, file):
                yield Finding("outdated", file.path, "Was not made from the bbo of its publishers that are there now.", _AGAIN)


def _unfinished(layers: dict[str, list[LakeFile]], root: str) -> Iterator[Finding]:
    """Outputs without the touch, which is named last: a rebuild that died. Of depth feeds those are orphans already."""
    made = sorted(layer for layer in layers if layer == "trades" or layer.startswith(("mbp-", "ohlcv-", "bars-", "features-")))
    if root == "bbo" and made:
        what = f"Is there without the bbo that it belongs to, as {', '.join(made[1:]) or 'nothing else'}."
        yield Finding("unfinished", layers[made[0]][0].path, what, "Start the run again: it is made anew.")


def _book_fits(stock: Stock, partition: Partition, layers: dict[str, list[LakeFile]], book: LakeFile) -> Iterator[Finding]:
    """The layers of an order book: books against events, all else against books."""
    names = book.facts.get("events", [])
    gone = [name for name in names if name not in stock.files]
    events = [file for name in names if (file := stock.usable(name))]
    inputs = {book.footer["inputs"]}
    if gone:
        yield Finding("outdated", book.path, f"Was made from {', '.join(gone)}, which is not there.", _AGAIN)
    elif len(events) == len(names):
        if book.footer["inputs"] not in _books_of(events, _books_before(stock, partition, CARRY_DAYS)):
            what = "Was made from other events, or another closing book of a day before, than are there now."
            yield Finding("outdated", book.path, what, _AGAIN)
        inputs |= _books_of(events, _books_before(stock, partition, CARRY_DAYS, earlier=True))
    # Books of earlier options stay in the lake, and so does what was made of them.
    yield from _outputs(stock, partition, layers, book, inputs)
    fitting = {digest(list(file.stamp)) for file in [book, *_siblings(layers, inputs)]}
    yield from _derived(layers, "bbo", fitting)
    for file in layers.get("certificate", []):
        if file.footer and file.footer["inputs"] not in _certificates(stock, partition, layers, book):
            what = "Was not made from the bbo, the published books and the day before that are there now."
            yield Finding("outdated", file.path, what, "`bookmill certify` makes it anew.")


def _depth_fits(stock: Stock, partition: Partition, layers: dict[str, list[LakeFile]], book: LakeFile) -> Iterator[Finding]:
    """The layers of a depth feed: grids against the touch, all else against both."""
    inputs = {book.footer["inputs"]}
    yield from _outputs(stock, partition, layers, book, inputs)
    grids = [file for layer, files in layers.items() if _GRID.fullmatch(layer) for file in files if file.footer]
    books = [book, *_siblings(layers, inputs)]
    fitting = {digest([list(touch.stamp), list(grid.stamp)]) for touch in books for grid in grids}
    # Where grids were deleted, nothing can be said.
    if grids:
        yield from _derived(layers, "depth-bbo and grid", fitting)
    for file in layers.get("certificate", []):
        if file.footer and file.footer["inputs"] != digest([*book.stamp, book.footer["code"]]):
            yield Finding("outdated", file.path, "Was not made from the depth-bbo that is there now.", _AGAIN)


def _siblings(layers: dict[str, list[LakeFile]], inputs: set[str]) -> list[LakeFile]:
    """Grids and event rows of these inputs, of whatever options."""
    of_books = (file for layer, files in layers.items() if _GRID.fullmatch(layer) for file in files)
    return [file for file in of_books if file.footer and file.footer["inputs"] in inputs]


def _outputs(
    stock: Stock, partition: Partition, layers: dict[str, list[LakeFile]], book: LakeFile, inputs: set[str]
) -> Iterator[Finding]:  # fmt: skip
    """What was written in one pass with `book` has its stamp; grids of other options, and CSV records, at least some of `inputs`."""
    outputs = book.facts.get("outputs", {})
    for layer in outputs:
        path = partition.path(layer)
        file = stock.usable(path)
        if path not in stock.files:
            yield Finding("missing", book.path, f"Was written together with {path}, which is not there.", "Start the run again: it is made anew.")
        elif file and file.stamp != book.stamp:
            yield Finding("outdated", path, f"Was not written together with the {book.layer} that is there now.", _AGAIN)
    of_depth = book.layer == "depth-bbo"
    for layer, files in layers.items():
        beside = layer in ("exports", "depth-updates") if of_depth else False
        if layer not in outputs and (beside or (_GRID.fullmatch(layer) and layer.startswith("depth-") == of_depth)):
            for file in files:
                if file.footer and file.footer["inputs"] not in inputs:
                    yield Finding("outdated", file.path, f"Was made from another source than the {book.layer} that is there now.", _AGAIN)


def _derived(layers: dict[str, list[LakeFile]], what: str, fitting: set[str]) -> Iterator[Finding]:
    for layer, files in layers.items():
        if _DERIVED.fullmatch(layer):
            for file in files:
                if file.footer and file.footer["inputs"] not in fitting:
                    yield Finding("outdated", file.path, f"Was not made from the {what} that is there now.", _AGAIN)


def _books_of(events: list[LakeFile], before: list[list[str]]) -> set[str]:
    """Inputs of a book of these events, which goes on from none or one of the books before."""
    made_from = [[*file.stamp, file.footer["code"]] for file in events]
    return {digest(made_from), *(digest([*made_from, carry]) for carry in before)}


def _days_before(stock: Stock, partition: Partition, days: int) -> list[Partition]:
    """Partitions of the same symbol and publisher of so many days before. The id of an instrument may change over night."""
    first = (date.fromisoformat(partition.date) - timedelta(days=days)).isoformat()
    same = stock.related[partition.dataset, partition.symbol, partition.publisher_id]
    return sorted(p for p in same if first <= p.date < partition.date)


def _books_before(stock: Stock, partition: Partition, days: int, *, earlier: bool = False) -> list[list[str]]:
    """Inputs, recipe and code of the closing books of the days before; earlier: of those of earlier options, too, as their other layers tell."""
    found = []
    for before in _days_before(stock, partition, days):
        layers = [layer for layer in stock.partitions[before] if layer == "closing_book" or (earlier and _GRID.fullmatch(layer))]
        found += [[*file.stamp, file.footer["code"]] for layer in layers if (file := stock.usable(before.path(layer)))]
    return found


def _certificates(stock: Stock, partition: Partition, layers: dict[str, list[LakeFile]], book: LakeFile) -> set[str]:
    """Inputs that a certificate may name, with and without the day before, which may have come later."""
    published = sorted((file for file in layers.get("published", []) if file.footer), key=lambda file: file.path)
    own = [[file.path, *file.stamp, file.footer["code"]] for file in [book, *published]]
    closings = [file for p in _days_before(stock, partition, 1) if (file := stock.usable(p.path("closing_book")))]
    before = [[[file.path, *file.stamp, file.footer["code"]]] for file in closings]
    return {digest([*own, *day]) for day in [[], *before]}


def _cbbo_fits(stock: Stock, partition: Partition, file: LakeFile) -> bool:
    """Whether some choice of books, one of each publisher that the footer names, gives the inputs."""
    same = stock.related[partition.symbol, partition.date]
    books = {p: book for p in sorted(same) if (book := stock.usable(p.path("bbo")))}
    choices = [[p for p in books if p.publisher_id == number] for number in file.facts.get("publishers", [])]
    for chosen in itertools.islice(itertools.product(*choices), _MOST_BOOKS):
        if digest([[str(p), *books[p].stamp, books[p].footer["code"]] for p in sorted(chosen)]) == file.footer["inputs"]:
            return True
    return False
