"""A place on an object store: its address, listings, uploads and downloads. The only module that knows fsspec.

What of a lake goes there and in which order is in store_files.py and store_sync.py. Credentials and endpoints are the business of the store's own
library (for S3: AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_ENDPOINT_URL, ~/.aws, the role of the machine): none is taken, kept or told here.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

import fsspec

from tasks.errors import StorageError, UsageError
from tasks.footers import read_footer
from tasks.publishing.store_checksum import PART_BYTES, Checksum, checksum_told, parts_of
from tasks.storage import atomic_path

# Waits between tries of one transfer. The library under it tries a request again by itself, within seconds; these are for a store that is away.
RETRY_DELAYS_S = (1.0, 5.0, 20.0)
CHUNK_BYTES = 8 << 20
_MARK = "bookmill-checksum"
_TYPES = {".html": "text/html; charset=utf-8", ".png": "image/png", ".json": "application/json"}
_PASSES = {
    errno.EIO, errno.EREMOTEIO, errno.EBUSY, errno.EAGAIN, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED, errno.EPIPE, errno.ENETUNREACH,
    errno.EHOSTUNREACH, errno.ESTALE,
}  # fmt: skip
# Of botocore and aiohttp, by name: they are there only with the extra `store`.
_PASSING = {"HTTPClientError", "ConnectionError", "ClientConnectionError", "ClientPayloadError", "ResponseParserError", "FSTimeoutError"}
_DENIED = {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "CredentialRetrievalError", "TokenRetrievalError", "SSOError"}

T = TypeVar("T")


class BadObject(StorageError):
    """One object is not what a lake holds: not whole, or no Parquet of Bookmill. The others are not concerned."""


class Missing(StorageError):
    """There is no such object, folder or bucket."""


class Moved(Exception):
    """An object is not the one of the listing any more: somebody replaced it meanwhile."""


@dataclass(frozen=True)
class Blob:
    """One object as listed. checksum: as checksum_told has it, "" where the store tells none; version: changes with the content."""

    size: int
    checksum: str
    version: str


class Store:
    """A folder of an object store, or of any file system that fsspec knows: s3://bucket/prefix, gs://, az://, file://.

    Raises UsageError for an address that cannot be one, StorageError for what the store refuses.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        parts = urlsplit(url)
        # A part before "@" is an account of Azure; with a colon it is a password, which is not to be told either.
        if "@" in url and ":" in url.partition("://")[2].rpartition("@")[0]:
            raise UsageError(f"The address of the store holds a password. Give it as {parts.scheme}://..., and the credentials in the environment.")
        if not parts.scheme or not (parts.netloc or parts.path.strip("/")) or "?" in url:
            raise UsageError(f"{url.partition('?')[0]!r} is no address of a store; allowed: s3://bucket/prefix, gs://..., az://..., file:///folder")
        try:
            # Listings change under us, and an instance is not shared with others of this process.
            self._fs, self._root = fsspec.url_to_fs(self.url, use_listings_cache=False, skip_instance_cache=True)
        except ImportError as fault:
            raise UsageError(f"{parts.scheme}:// needs a package that is not installed: {fault}. For s3: pip install 'bookmill[store]'.") from fault
        except ValueError as fault:
            raise UsageError(f"{url!r} is no address of a store: {fault}. Allowed: s3://bucket/prefix, gs://..., az://..., file:///folder") from fault
        self._s3, self._local = parts.scheme in ("s3", "s3a"), parts.scheme in ("file", "local")

    def check(self) -> None:
        """Raises StorageError unless the bucket is there and may be listed. A prefix needs no making."""
        # Without waits: an address that answers nothing is wrong more often than its store is away.
        if self.layers(delays=()) or not self._s3:
            return
        bucket, key, _ = self._fs.split_path(self._root)
        try:
            # What the listings need, and no right on the bucket as a whole.
            self._ask(lambda: self._fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=f"{key}/" if key else "", MaxKeys=1), "")
        except Missing as fault:
            raise StorageError(f"{self.url}: there is no bucket {bucket}. Create it, or correct the address.") from fault

    def layers(self, delays: tuple[float, ...] | None = None) -> list[str]:
        """Names of the folders of the place, sorted; empty where nothing was put there yet."""
        try:
            found = self._ask(lambda: self._fs.ls(self._root, detail=True), "", delays)
        except Missing:
            return []
        return sorted(entry["name"].rstrip("/").rsplit("/", 1)[-1] for entry in found if entry["type"] == "directory")

    def listing(self, layer: str) -> dict[str, Blob]:
        """All objects of one folder of the place, by name relative to the place."""
        top = f"{self._root.rstrip('/')}/{layer}"
        try:
            found = self._ask(lambda: self._fs.find(top, detail=True), layer)
        except Missing:
            return {}
        return {f"{layer}{name[len(top) :]}": _blob(entry) for name, entry in found.items() if entry["type"] == "file"}

    def blob(self, name: str) -> Blob:
        """The object as it is now. Raises Missing."""
        return _blob(self._ask(lambda: self._fs.info(self._path(name)), name))

    def holds(self, name: str, blob: Blob, file: BinaryIO) -> bool:
        """Whether the object has the content of `file`: by size and checksum; where the store tells none that can be compared, by the bytes of the
        Parquet footer, which differ wherever stamp, rows or sizes do (of other files, by all bytes)."""
        size = os.fstat(file.fileno()).st_size
        if blob.size != size:
            return False
        if blob.checksum and parts_of(blob.checksum) == Checksum.parts(size):
            mine = Checksum.of(file, size)
            # With keys of the customer (SSE-KMS) the ETag of S3 is no checksum of the content; the mark, set with the upload, is.
            return blob.checksum == mine or self._mark(name) == mine
        start = size - _footer_bytes(file, size)
        file.seek(start)
        for at in range(start, size, CHUNK_BYTES):
            end = min(size, at + CHUNK_BYTES)
            if self._ask(lambda at=at, end=end: self._fs.cat_file(self._path(name), start=at, end=end), name) != file.read(end - at):  # type: ignore[misc]
                return False
        return True

    def put(self, name: str, file: BinaryIO) -> int:
        """Store the content of an open file, as a whole or not at all; returns its bytes. It is this file, whatever becomes of its name."""
        size, path = os.fstat(file.fileno()).st_size, self._path(name)
        if self._local:
            file.seek(0)
            with atomic_path(Path(path)) as temporary, open(temporary, "wb") as out:
                while chunk := file.read(CHUNK_BYTES):
                    out.write(chunk)
            return size
        more: dict[str, Any] = {}
        mine = Checksum.of(file, size)
        if self._s3:
            # Two parts of a file at a time bound the memory of a transfer; by itself the library takes ten of 50 MiB.
            more = {"chunksize": PART_BYTES, "max_concurrency": 2, "Metadata": {_MARK: mine}}
            more |= {"ContentType": _TYPES[suffix]} if (suffix := Path(name).suffix) in _TYPES else {}

        def send() -> None:
            # By its handle: a run may rename another file to the path of this one meanwhile.
            self._fs.put_file(f"/proc/self/fd/{file.fileno()}", path, **more)
            there = _blob(self._fs.info(path))
            if there.size != size:
                raise OSError(errno.EIO, f"{size:,} bytes were sent and {there.size:,} are there")

        self._ask(send, name)
        return size

    def get(self, name: str, blob: Blob, to: Path) -> int:
        """Write the object to `to`, beside and renamed, once it is whole and, if it is Parquet, a file of Bookmill; returns its bytes.

        Raises Moved when it is not the object that was listed, BadObject when it is not whole.
        """
        return self._ask(lambda: self._fetch(name, blob, to), name)

    def content(self, name: str, blob: Blob) -> bytes:
        """All of a small object. Raises Moved."""
        return self._ask(lambda: b"".join(self._read(name, blob)), name)

    def _fetch(self, name: str, blob: Blob, to: Path) -> int:
        checksum = Checksum(blob.size)
        with atomic_path(to) as temporary:
            with open(temporary, "wb") as out:
                for chunk in self._read(name, blob):
                    checksum.update(chunk)
                    out.write(chunk)
            got = temporary.stat().st_size
            if got != blob.size:
                raise BadObject(f"{self.url}/{name}: {blob.size:,} bytes are listed and {got:,} came.", transient=True)
            differs = parts_of(blob.checksum) == Checksum.parts(got) and blob.checksum != checksum.value
            if differs and not (self._s3 and self._mark(name) in ("", checksum.value)):  # see holds
                raise BadObject(f"{self.url}/{name}: what came has another checksum than the object.", transient=True)
            if to.suffix == ".parquet" and "bookmill.inputs" not in (read_footer(temporary) or {}):
                raise BadObject(f"{self.url}/{name} is no Parquet file of Bookmill, or not whole. Push it again from the lake that has it.")
        return got

    def _read(self, name: str, blob: Blob) -> Iterator[bytes]:
        # Not get_file: for S3 it asks for large objects in ranges without saying of which version.
        try:
            with self._fs.open(self._path(name), "rb", block_size=CHUNK_BYTES, cache_type="none") as file:
                # What the handle of S3 was opened with holds for all that it reads.
                if _blob(getattr(file, "details", None) or self._fs.info(self._path(name))).version != blob.version:
                    raise Moved(name)
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk
        except _REPLACED as fault:
            raise Moved(name) from fault
        except OSError as fault:
            # Inside of atomic_path it would be taken for a fault of the lake's disk.
            raise self._told(fault, name) from fault

    def _mark(self, name: str) -> str:
        if not self._s3:
            return ""
        entry = self._ask(lambda: self._fs.metadata(self._path(name), refresh=True), name)
        return str(entry.get(_MARK) or entry.get(_MARK.replace("-", "_")) or "")

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _ask(self, call: Callable[[], T], name: str, delays: tuple[float, ...] | None = None) -> T:
        """The result of `call`, tried again while the fault can pass. Raises StorageError, Missing; Moved goes through."""
        for delay in (*(RETRY_DELAYS_S if delays is None else delays), None):
            try:
                return call()
            except Moved:
                raise
            except FileNotFoundError as fault:
                raise Missing(f"{self.url}/{name} is not there. Check the address; an object may have been removed meanwhile.") from fault
            except Exception as fault:  # libraries of stores raise what they like; unknown ones are told with their type
                told = fault if isinstance(fault, StorageError) else self._told(fault, name)
                if delay is None or not told.transient:
                    raise told from fault
            time.sleep(delay)
        raise AssertionError("unreachable")

    def _told(self, fault: Exception, name: str) -> StorageError:
        where = f"{self.url}/{name}" if name else self.url
        names = {kind.__name__ for kind in type(fault).__mro__}
        text = (str(getattr(fault, "strerror", "") or fault).strip().splitlines() or [type(fault).__name__])[0].rstrip(".")
        if isinstance(fault, PermissionError) or names & _DENIED:
            remedy = "Give credentials that may list, read and write there (for S3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE)"
            return StorageError(f"{where}: access denied: {text}. {remedy}.")
        passing = (
            isinstance(fault, TimeoutError | ConnectionError) or (isinstance(fault, OSError) and fault.errno in _PASSES) or bool(names & _PASSING)
        )
        remedy = "Check the network and the address (for S3: AWS_ENDPOINT_URL), and start again" if passing else "Check the address"
        return StorageError(f"{where}: {text or type(fault).__name__}. {remedy}; what was transferred stays.", transient=passing)


def _replaced() -> tuple[type[Exception], ...]:
    try:
        from s3fs.utils import FileExpired
    except ImportError:
        return (FileNotFoundError,)
    return (FileNotFoundError, FileExpired)


_REPLACED = _replaced()


def _blob(entry: dict[str, Any]) -> Blob:
    size, checksum = int(entry["size"] or 0), checksum_told(entry)
    stamp = entry.get("ETag") or entry.get("etag") or entry.get("generation") or entry.get("mtime") or entry.get("created") or ""
    return Blob(size, checksum, f"{size} {stamp}")


def _footer_bytes(file: BinaryIO, size: int) -> int:
    """Length of the Parquet footer with its trailer; the whole size of what is no Parquet."""
    file.seek(max(0, size - 8))
    trailer = file.read(8)
    return min(size, int.from_bytes(trailer[:4], "little") + 8) if trailer[4:] == b"PAR1" else size
