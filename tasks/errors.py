"""The exceptions of Bookmill, one tree; nothing below a task boundary leaks another type for a known fault.

BookmillError
|-- UsageError            an option or argument is not allowed
|-- SourceError           an input file cannot be used; names the file
|   |-- UnknownFormat       its content matches no supported format
|   |-- CorruptSource       it starts well and breaks at an offset (truncated, bad magic, bad block)
|   |-- SchemaMismatch      columns missing or of the wrong type
|   |-- EmptySource         there is nothing in it
|   `-- SourceChanged       it changed between the scan and the end of the read
|-- BookError             an event that the book cannot apply (only with on_book_error="fail")
|-- BookBroken            a rebuilt book contradicts itself: a fault of the program, nothing is published
|-- GateBlocked           an expectation with consequence "block" failed
|-- StorageError          the lake, or Prefect's folder, cannot be written or read (full, read-only, permission)
`-- LakeConflict          two sources cover the same span of the same partition

`transient` tells a retry policy whether trying again can help: a busy disk yes, a corrupt file never.
"""

from __future__ import annotations

from pathlib import Path


class BookmillError(Exception):
    """Base of all errors that Bookmill raises on purpose."""

    transient = False


class UsageError(BookmillError):
    """An option or argument is not allowed; the message says what is."""


class SourceError(BookmillError):
    """An input file cannot be used.

    path: the file; offset: byte offset in the (decompressed, where compressed) stream or None; row: 0-based data row or None;
    remedy: what the user can do.
    """

    def __init__(self, path: str | Path, problem: str, *, offset: int | None = None, row: int | None = None, remedy: str = "") -> None:
        self.path, self.problem, self.offset, self.row, self.remedy = Path(path), problem, offset, row, remedy
        where = "".join(f", {name} {value:,}" for name, value in (("byte", offset), ("row", row)) if value is not None)
        super().__init__(f"{path}{where}: {problem}." + (f" {remedy}" if remedy else ""))

    def __reduce__(self):
        # Exceptions with keyword arguments do not survive pickling by default; process pools and Dask need it.
        return (_rebuild_source_error, (type(self), str(self.path), self.problem, self.offset, self.row, self.remedy))


def _rebuild_source_error(kind: type[SourceError], path: str, problem: str, offset: int | None, row: int | None, remedy: str) -> SourceError:
    return kind(path, problem, offset=offset, row=row, remedy=remedy)


class UnknownFormat(SourceError):
    """The content matches no supported format."""


class CorruptSource(SourceError):
    """The file starts as its format says and breaks at an offset."""


class SchemaMismatch(SourceError):
    """Columns are missing, unknown or of a type that cannot be read."""


class EmptySource(SourceError):
    """There is nothing in the file."""


class SourceChanged(SourceError):
    """The file changed between the scan and the end of the read; nothing of it was published."""


class BookError(BookmillError):
    """An event that the book cannot apply, with the event's place and the remedy in the message."""


class BookBroken(BookmillError):
    """A level of a rebuilt book is not the sum of its orders; the message names the event after which it was found."""


class GateBlocked(BookmillError):
    """An expectation with consequence "block" failed; the message names each, its count and where to look."""


class StorageError(BookmillError):
    """The lake, or Prefect's folder, cannot be written or read. `transient` is set for faults that can pass."""

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class LakeConflict(BookmillError):
    """Two sources cover the same span of the same partition; the message names both."""
