"""Which files hold published books, and of what kind: told from the columns of CSV and Parquet, from the header of DBN.

Here: the formats and schemas, `identify_published` and `published_source`. Files are read by the readers (published_csv.py and its siblings).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import xxhash

from tasks.errors import SchemaMismatch
from tasks.partitions import SourceFile
from tasks.scanning.chunks import compression_of, head_of
from tasks.scanning.inventory import LOCAL, PUBLISHER_DATASETS
from tasks.scanning.published_batches import HEAD
from tasks.schemas import level_fields

PUBLISHED_CSV, PUBLISHED_PARQUET, PUBLISHED_DBN = "published-csv", "published-parquet", "published-dbn"
PUBLISHED_FORMATS = (PUBLISHED_CSV, PUBLISHED_PARQUET, PUBLISHED_DBN)

MBP_1, TBBO = "mbp-1", "tbbo"
INTERVALS = {"bbo-1s": 1_000_000_000, "bbo-1m": 60_000_000_000}  # ns
BBO_RTYPES = {195: "bbo-1s", 196: "bbo-1m"}
# DBN schema -> (type of its records, levels)
DBN_SCHEMAS = {"mbp-1": (1, 1), "tbbo": (1, 1), "mbp-10": (10, 10), "bbo-1s": (195, 1), "bbo-1m": (196, 1)}
# Columns that only Bookmill's own books have: they are no independent truth.
_OWN = {"as_of", "status"}
_HEAD_BYTES = 1 << 16
_HASH_BYTES = 1 << 22
_LEVEL_NAME = re.compile(r"(?:bid|ask)_(?:px|sz|ct)_(\d\d)")


@dataclass(frozen=True)
class Published:
    """What a file of published books holds.

    schema: "mbp-N", "tbbo", "bbo-1s" or "bbo-1m"; settled: False where mbp-1 and tbbo have the same columns and nothing but the rows says
    which it is (tbbo: every row is a trade), then schema is what the first row suggests; has_symbols: whether the file names its symbols.
    """

    format: str
    schema: str
    depth: int
    has_symbols: bool
    settled: bool = True

    @property
    def interval_ns(self) -> int:
        """Spacing of the rows, 0 for a schema with a row per update."""
        return INTERVALS.get(self.schema, 0)

    @property
    def by_row(self) -> bool:
        """Whether there is a row per update, with an action, and not one per interval."""
        return not self.interval_ns


def identify_published(path: Path) -> Published | None:
    """What `path` publishes, None where it holds anything but published books. Reads the first bytes, or a Parquet footer and one row.

    Raises SchemaMismatch where it holds books and lacks columns, or does not say its interval; CorruptSource where a header is damaged.
    """
    with path.open("rb") as file:
        stored = file.read(4)
    if stored == b"PAR1":
        from tasks.scanning.published_parquet import columns_and_first_row

        columns, first = columns_and_first_row(path)
        return _of_columns(path, PUBLISHED_PARQUET, columns, first)
    head = head_of(path, _HEAD_BYTES)
    if head[:3] == b"DBN":
        from tasks.scanning.published_dbn import header_of

        header = header_of(path)
        if header.schema not in DBN_SCHEMAS:
            return None
        return Published(PUBLISHED_DBN, header.schema, DBN_SCHEMAS[header.schema][1], has_symbols=True)
    names, first = _first_lines(head)
    return _of_columns(path, PUBLISHED_CSV, names, first)


def _first_lines(head: bytes) -> tuple[list[str], dict[str, str]]:
    """Names in the header of a CSV, and its first whole row by name; empty where there is none."""
    lines = [line for line in head.decode("utf-8-sig", "replace").splitlines() if line.strip()]
    names, *rows = [[cell.strip().strip('"').strip() for cell in line.split(",")] for line in lines] or [[]]
    return names, next((dict(zip(names, cells, strict=True)) for cells in rows if len(cells) == len(names)), {})


def _of_columns(path: Path, file_format: str, columns: Iterable[str], first: dict[str, str]) -> Published | None:
    names = set(columns)
    if not {"bid_px_00", "ask_px_00"} <= names or names & _OWN:
        return None
    rtype = int(first["rtype"]) if first.get("rtype", "").isdecimal() else -1
    depth = 1 + max(int(level[1]) for name in names if (level := _LEVEL_NAME.fullmatch(name)))
    by_row = "action" in names
    missing = [name for name in (*HEAD, *(name for name, _ in level_fields(depth))) if name not in names and (by_row or name != "action")]
    schema = BBO_RTYPES.get(rtype, "") if not by_row and depth == 1 else ""
    if not by_row and not schema:
        schema = next((name for name in INTERVALS if _says(path, name)), "") if depth == 1 and rtype == -1 else ""
        missing += [] if schema or depth == 1 else ["action"]
    if missing:
        allowed = f"A book of {depth} level(s) has the columns {', '.join(name for name in HEAD if by_row or depth > 1 or name != 'action')}"
        problem = f"holds published books but lacks column{'s' * (len(missing) > 1)} {', '.join(missing[:12])}"
        raise SchemaMismatch(path, problem, remedy=f"{allowed} and px, sz, ct of both sides at each level. Export it again with them")
    if not by_row and not schema:
        problem = f"holds the best bid and offer without an action, and its rtype {first.get('rtype', 'is absent and')} says no known interval"
        raise SchemaMismatch(
            path, problem, remedy="Supported are bbo-1s (rtype 195) and bbo-1m (196): keep rtype, or name the schema in the file name"
        )
    settled = not by_row or depth > 1 or _says(path, MBP_1)
    if by_row:
        schema = TBBO if not settled and first.get("action") == "T" else f"mbp-{depth}"
    return Published(file_format, schema, depth, "symbol" in names, settled)


def _says(path: Path, schema: str) -> bool:
    """Whether the file name has `schema` as a word of its own, as in XNAS.mbp-1.csv.zst."""
    return re.search(rf"(?<![A-Za-z0-9]){re.escape(schema)}(?![A-Za-z0-9])", path.name) is not None


def published_source(path: Path, found: Published, dataset: str | None = None, symbol: str | None = None) -> SourceFile:
    """Describe a file of published books as `inventory.scan` describes one of events; reads it once for the fingerprint.

    dataset: used instead of what the file says. symbol: used where the file does not say it, else its name up to the first dot, so that it
    is that of the events file it comes with.
    """
    # The identity is taken first: a file that grows while it is hashed then fails verify_unchanged.
    stat, digest = path.stat(), xxhash.xxh3_128()
    with open(path, "rb", buffering=0) as file:
        compressed = bool(compression_of(file.read(4)))
        file.seek(0)
        while piece := file.read(_HASH_BYTES):
            digest.update(piece)
    rows, dates, symbols, named = -1, (), (symbol or path.name.split(".")[0],), LOCAL
    if found.format == PUBLISHED_DBN:
        from tasks.scanning.published_dbn import header_of

        header = header_of(path)
        dates, symbols = header.promise()  # type: ignore[assignment]
        named = header.dataset or LOCAL
        whole, rest = divmod(stat.st_size - header.length, header.record_bytes)
        rows = whole if not compressed and not rest else -1
    else:
        if found.format == PUBLISHED_PARQUET:
            from tasks.scanning.published_parquet import columns_and_first_row, row_count

            rows, (_, first) = row_count(path), columns_and_first_row(path)
        else:
            _, first = _first_lines(head_of(path, _HEAD_BYTES))
        publisher = first.get("publisher_id", "")
        named = PUBLISHER_DATASETS.get(int(publisher) if publisher.isdecimal() else 0, LOCAL)
        symbols = () if found.has_symbols else symbols  # type: ignore[assignment]
    return SourceFile(
        os.path.abspath(path), found.format, dataset or named, f"xxh3:{digest.hexdigest()}", stat.st_size, stat.st_mtime_ns, stat.st_ino,
        rows=rows, dates=dates, symbols=symbols,
    )  # fmt: skip
