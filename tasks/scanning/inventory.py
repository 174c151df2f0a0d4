"""Which sources there are: files, folders and globs to described, fingerprinted files, in an order that does not depend on the file system.

Here: finding, describing, telling copies apart, and the check that a file did not change. What a file is, is decided in formats.py.
"""

from __future__ import annotations

import glob
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

import xxhash

from tasks.errors import CorruptSource, EmptySource, SchemaMismatch, SourceChanged, SourceError, UnknownFormat
from tasks.partitions import SourceFile
from tasks.paths import shown
from tasks.scanning import formats
from tasks.scanning.chunks import compression_of, head_of
from tasks.scanning.formats import Identified, identify
from tasks.scanning.itch_messages import session_date, venue_of

LOCAL, LOBSTER_DATASET = "local", "LOBSTER"  # datasets of sources that do not name theirs
# Ids of the publishers whose feeds are order by order, as Databento numbers them (`databento_dbn` has no table of them):
# https://databento.com/docs/standards-and-conventions/common-fields-enums-types
PUBLISHER_DATASETS = {
    1: "GLBX.MDP3", 2: "XNAS.ITCH", 3: "XBOS.ITCH", 4: "XPSX.ITCH", 5: "BATS.PITCH", 6: "BATY.PITCH", 7: "EDGA.PITCH", 8: "EDGX.PITCH",
    9: "XNYS.PILLAR", 10: "XCIS.PILLAR", 11: "XASE.PILLAR", 12: "XCHI.PILLAR", 15: "MEMX.MEMOIR", 16: "EPRL.DOM", 38: "IEXG.TOPS",
    43: "ARCX.PILLAR", 57: "IFEU.IMPACT", 58: "NDEX.IMPACT", 84: "IFEU.IMPACT", 85: "NDEX.IMPACT", 97: "IFUS.IMPACT", 98: "IFUS.IMPACT",
    99: "IFLL.IMPACT", 100: "IFLL.IMPACT", 101: "XEUR.EOBI", 102: "XEEE.EOBI", 103: "XEUR.EOBI", 104: "XEEE.EOBI", 105: "XCBF.PITCH",
    106: "XCBF.PITCH", 107: "OCEA.MEMOIR",
}  # fmt: skip

_SIDE_SUFFIXES = {".json", ".md", ".txt", ".html", ".htm", ".pdf", ".rst", ".log", ".yaml", ".yml", ".sha256", ".md5"}
_SIDE_STEMS = ("readme", "license", "licence", "manifest", "condition", "metadata", "symbology")
_HASH_BYTES = 1 << 22
_FIRST_LINES = 1 << 13  # bytes of a CSV in which its first publisher is looked for
_HASHING = 4  # files described at once: hashing releases the interpreter, disks like a few readers
_GET_AGAIN = "Fetch the file again"
Described = TypeVar("Described")


@dataclass(frozen=True)
class Rejected:
    """A path that was given or found and cannot be used, and why."""

    path: str
    error: SourceError


@dataclass(frozen=True)
class Duplicate:
    """A source whose content is that of `kept`, which is used instead."""

    path: str
    kept: str


@dataclass(frozen=True)
class Inventory:
    """What a scan found: files by dataset, first date and path; skipped: side material in folders (readme, manifest), as paths;
    published: books that a vendor rebuilt from its feed, truth for ours (published.py)."""

    files: tuple[SourceFile, ...]
    rejected: tuple[Rejected, ...] = ()
    duplicates: tuple[Duplicate, ...] = ()
    skipped: tuple[str, ...] = ()
    published: tuple[SourceFile, ...] = ()


def scan(sources: Sequence[str | Path], *, dataset: str | None = None, symbol: str | None = None) -> Inventory:
    """Describe every source that files, folders (any depth; hidden and *.partial names left out) and globs (with **) lead to.

    dataset: used instead of what the sources say. symbol: used for sources that do not say it themselves, else the name up to the first dot.
    Faults of single paths do not raise: they are in `rejected`, as is a folder or pattern that leads to nothing, and a file whose name is not UTF-8,
    which no result could tell. Reads every file once.
    """
    found: dict[str, bool] = {}  # path -> named by the caller itself
    rejected: list[Rejected] = []
    for given in sources:
        paths, error = expand(given)
        rejected += [Rejected(shown(given), error)] if error else []
        for path, named in paths:
            found[path] = found.get(path, False) or named
    with ThreadPoolExecutor(_HASHING) as pool:
        described = list(pool.map(lambda path: _describe(path, dataset, symbol), sorted(found)))
    files: list[SourceFile] = []
    skipped: list[str] = []
    for path, outcome in zip(sorted(found), described, strict=True):
        if not isinstance(outcome, SourceError):
            files += outcome
        elif not found[path] and isinstance(outcome, (UnknownFormat, EmptySource)) and _is_side_material(path):
            skipped.append(shown(path))
        else:
            rejected.append(Rejected(shown(path), outcome))
    files.sort(key=lambda file: (file.dataset, file.dates[:1], file.path, file.member))
    kept: dict[str, SourceFile] = {}
    duplicates = []
    for file in files:
        first = kept.setdefault(file.fingerprint, file)
        if first is not file:
            duplicates.append(Duplicate(_full_name(file), _full_name(first)))
    events = tuple(file for file in kept.values() if not file.format.startswith("published-"))
    published = tuple(file for file in kept.values() if file.format.startswith("published-"))
    return Inventory(events, tuple(rejected), tuple(duplicates), tuple(skipped), published)


def verify_unchanged(source: SourceFile) -> None:
    """Raise SourceChanged unless the file (both of a loose pair) has the size, modification time and inode that the scan saw."""
    try:
        now = _identity(Path(source.path), source.companion if not source.member else "")
    except OSError as fault:
        raise SourceChanged(source.path, f"cannot be read any more ({fault.strerror})", remedy="Put it back and start again") from fault
    before = (source.size, source.mtime_ns, source.inode)
    if now != before:
        names = ("size", "modification time", "inode")
        changed = ", ".join(f"{name} {old:,} -> {new:,}" for name, old, new in zip(names, before, now, strict=True) if old != new)
        raise SourceChanged(source.path, f"changed since the scan: {changed}", remedy="Wait until its writer is finished and start again")


def _full_name(file: SourceFile) -> str:
    return file.path + (f":{file.member}" if file.member else "")


def expand(given: str | Path) -> tuple[list[tuple[str, bool]], SourceError | None]:
    """(path, whether the caller named this very file) of each file that `given` leads to, and why it leads to none or not to all."""
    text = os.path.expanduser(given)
    if not text:
        return [], SourceError("", "an empty path was given", remedy="Give a file, a folder or a pattern")
    faults: list[OSError] = []  # of folders that cannot be listed
    if os.path.isdir(text):
        paths = [(path, False) for path in _walk(text, faults)]
        empty = "the folder holds no files" if not paths else None
    elif os.path.lexists(text):
        return [(os.path.abspath(text), True)], None
    elif glob.has_magic(text):
        hits = sorted(glob.glob(text, recursive=True))
        found = [path for hit in hits for path in (_walk(hit, faults) if os.path.isdir(hit) else [os.path.abspath(hit)])]
        paths = [(path, False) for path in found if not _is_hidden(path)]
        empty = "the pattern matches no files" if not paths else None
    else:
        return [], SourceError(shown(given), "does not exist", remedy="Check the spelling; relative paths start at the working folder")
    if faults:  # what could be listed is used
        told = ", ".join(f"{shown(fault.filename)} ({fault.strerror})" for fault in faults)
        return paths, SourceError(shown(given), f"cannot be listed in full: {told}", remedy="Check the permissions, and whether the disk is there")
    return paths, EmptySource(shown(given), empty, remedy="Check the path, or whether the download finished") if empty else None


def _is_hidden(path: str) -> bool:
    name = os.path.basename(path)
    return name.startswith(".") or name.endswith(".partial")


def _walk(folder: str, faults: list[OSError]) -> Iterator[str]:
    """Files at any depth, also behind links to folders; each folder once. `faults` gets the folders that cannot be listed."""
    tops, seen = [folder], set[str]()
    for top in tops:  # grows while it is read: linked folders come last, so that what stands here itself is found under its own name
        for root, folders, names in os.walk(top, onerror=faults.append):
            real = os.path.realpath(root)
            if real in seen:
                folders[:] = []
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            tops += [path for name in folders if os.path.islink(path := os.path.join(root, name))]
            for name in sorted(names):
                if not _is_hidden(name):
                    yield os.path.abspath(os.path.join(root, name))


def _is_side_material(path: str) -> bool:
    name = Path(path).name.lower()
    return Path(name).suffix in _SIDE_SUFFIXES or name.startswith(_SIDE_STEMS)


def named_in_text(path: str, outcome: list[Described] | SourceError) -> list[Described] | SourceError:
    """What was found out about a file, or why it cannot be used under its name: tables, footers, JSON and Prefect hold text only.

    What is no source, or empty, stays that.
    """
    name = shown(path)
    if name == path or not (isinstance(outcome, SourceError) or outcome):
        return outcome
    kind = type(outcome) if isinstance(outcome, UnknownFormat | EmptySource) else SourceError
    return kind(name, "the name of the file, or of a folder above it, is not valid UTF-8", remedy="Rename it")


def _describe(path: str, dataset: str | None, symbol: str | None) -> list[SourceFile] | SourceError:
    return named_in_text(path, _look_into(path, dataset, symbol))


def _look_into(path: str, dataset: str | None, symbol: str | None) -> list[SourceFile] | SourceError:
    try:
        try:
            return [_source(Path(path), one, dataset, symbol) for one in identify(Path(path))]
        except SchemaMismatch:
            # Published books have other columns, or another DBN schema, than events; whatever else mismatches stays an error.
            if published := _published(Path(path), dataset, symbol):
                return [published]
            raise
    except SourceError as error:
        return error
    except OSError as fault:
        return SourceError(path, f"cannot be read ({fault.strerror or fault})", remedy="Check the disk and the permissions")
    except UnicodeEncodeError as fault:  # of a library that takes only names that are text
        return SourceError(path, f"cannot be read ({fault.reason})", remedy="Rename it")


def _published(path: Path, dataset: str | None, symbol: str | None) -> SourceFile | None:
    from tasks.scanning.published_formats import identify_published, published_source

    found = identify_published(path)
    return published_source(path, found, dataset, symbol) if found else None


def described(path: Path, format: str, dataset: str, symbols: tuple[str, ...], dates: tuple[str, ...], member: str = "") -> SourceFile:
    """A single file, or a member of a zip, as a SourceFile; its fingerprint is that of the bytes as stored (and the member's name)."""
    identity = _identity(path, "")
    digest = _fingerprint(path, Identified(format, "", "", True))
    if member:
        digest = f"xxh3:{xxhash.xxh3_128(f'{digest}:{member}'.encode()).hexdigest()}"
    return SourceFile(str(path), format, dataset, digest, *identity, member, symbols=symbols, dates=dates)


def _source(path: Path, found: Identified, dataset: str | None, symbol: str | None) -> SourceFile:
    # The identity is taken first: a file that grows while it is hashed then fails verify_unchanged.
    identity = _identity(path, found.companion if not found.member else "")
    dates = (str(session_date(path)),) if found.format == formats.ITCH else ()
    source = SourceFile(str(path), found.format, dataset or LOCAL, _fingerprint(path, found), *identity, found.member, found.companion, dates=dates)
    if found.format == formats.DBN:
        source = _with_header(source, dataset)
    elif found.format == formats.LOBSTER:
        name = formats.LOBSTER_NAME.fullmatch(Path(found.member or path).name)
        assert name is not None  # identify() accepts no other names
        return replace(source, dataset=dataset or LOBSTER_DATASET, dates=(name["date"],), symbols=(symbol or name["ticker"],))
    elif found.format == formats.ITCH:
        source = replace(source, dataset=dataset or venue_of(path)[0])
    else:
        is_parquet = found.format in (formats.DATABENTO_PARQUET, formats.SEVEN_COLUMN_PARQUET)
        publisher = _first_publisher(path, is_parquet)
        source = replace(source, dataset=dataset or PUBLISHER_DATASETS.get(publisher or 0, LOCAL), rows=_parquet_rows(path) if is_parquet else -1)
    return source if found.has_symbols else replace(source, symbols=(symbol or path.name.split(".")[0],))


def _with_header(source: SourceFile, dataset: str | None) -> SourceFile:
    from tasks.scanning.dbn import header_of

    header = header_of(source.path)
    dates, symbols = header.promise()
    with open(source.path, "rb") as file:
        plain = not compression_of(file.read(4))
    rows, rest = divmod(source.size - header.length, header.record_bytes)
    known = plain and header.schema and not rest
    return replace(source, dataset=dataset or header.dataset or LOCAL, dates=dates, symbols=symbols, rows=rows if known else -1)


def _parquet_rows(path: Path) -> int:
    from tasks.scanning.parquet_source import row_count

    return row_count(path)


def _first_publisher(path: Path, is_parquet: bool) -> int | None:
    if is_parquet:
        from tasks.scanning.parquet_source import first_publisher

        return first_publisher(path)
    head = head_of(path, _FIRST_LINES)
    lines = head.decode("utf-8-sig", "replace").splitlines()
    header, *rows = [line.split(",") for line in (lines if len(head) < _FIRST_LINES else lines[:-1]) if line.strip()] or [[]]
    names = [name.strip().strip('"') for name in header]
    for cells in rows if "publisher_id" in names else ():
        value = cells[names.index("publisher_id")].strip('" ') if len(cells) == len(names) else ""
        if value.isascii() and value.isdigit():
            return int(value)
    return None


def _identity(path: Path, companion: str) -> tuple[int, int, int]:
    """(size, mtime_ns, inode); of a loose pair the summed size, the later time and the inode of the message file."""
    stat = path.stat()
    if not companion:
        return stat.st_size, stat.st_mtime_ns, stat.st_ino
    other = os.stat(companion)
    return stat.st_size + other.st_size, max(stat.st_mtime_ns, other.st_mtime_ns), stat.st_ino


def _fingerprint(path: Path, found: Identified) -> str:
    """xxh3_128 over the stored bytes; over message then order book of a pair, unpacked, so that a zip equals the loose files."""
    digest = xxhash.xxh3_128()
    if found.member:
        try:
            with zipfile.ZipFile(path) as archive:
                for member in (found.member, found.companion):
                    with archive.open(member) as file:
                        _feed(digest, cast(BinaryIO, file))
        except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, RuntimeError, NotImplementedError) as fault:
            raise CorruptSource(path, f"the zip cannot be unpacked ({fault})", remedy=_GET_AGAIN) from fault
    else:
        for part in (path, found.companion):
            if part:
                with open(part, "rb", buffering=0) as plain:
                    _feed(digest, cast(BinaryIO, plain))
    return f"xxh3:{digest.hexdigest()}"


def _feed(digest: xxhash.xxh3_128, file: BinaryIO) -> None:
    buffer = bytearray(_HASH_BYTES)
    view = memoryview(buffer)
    while count := file.readinto(view):  # type: ignore[attr-defined]
        digest.update(view[:count])
