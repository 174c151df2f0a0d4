"""An S3 server on this machine, for tests of what goes over HTTP to one; and a way to it that can be closed in the middle of a transfer."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

KEY, SECRET = "AKIABOOKMILLTESTS", "a-secret-that-nobody-may-read"


@contextmanager
def s3_server(log: Path, environ: dict[str, str]) -> Iterator[str]:
    """URL of an S3 server on a free loopback port; stopped by process id. environ: its whole environment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as out:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=log.parent)
        try:
            end = time.monotonic() + 60
            while True:
                try:
                    urllib.request.urlopen(f"{url}/moto-api/", timeout=5).close()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > end:
                        raise RuntimeError(f"the S3 server did not start: {log.read_text()[-2000:]}") from None
                    time.sleep(0.1)
            yield url
        finally:
            process.kill()
            process.wait()


def access(url: str) -> dict[str, str]:
    """Variables with which S3 libraries find the server at `url`, and nothing of the caller's own account."""
    return {
        "AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }  # fmt: skip


class Narrow:
    """A way to the server at `url` that lets so many bytes through in one direction ("up" to the server, "down" from it) and then nothing more.

    full is set when the limit is reached. A context manager; `url` of it is the address to use.
    """

    def __init__(self, url: str, limit: int, direction: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._server, self._left, self._direction = (host, int(port)), limit, direction
        self.full, self._guard, self._ends = threading.Event(), threading.Lock(), list[socket.socket]()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Narrow:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for end in [self._listener, *self._ends]:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                server = socket.create_connection(self._server)
                self._ends += [client, server]
                threading.Thread(target=self._copy, args=(client, server, "up"), daemon=True).start()
                threading.Thread(target=self._copy, args=(server, client, "down"), daemon=True).start()

    def _copy(self, one: socket.socket, other: socket.socket, direction: str) -> None:
        with suppress(OSError):
            while data := one.recv(1 << 16):
                if direction == self._direction and not self._passes(len(data)):
                    return  # both ends stay open, as on a line that hangs
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)

    def _passes(self, count: int) -> bool:
        with self._guard:
            self._left -= count
            if self._left < 0:
                self.full.set()
            return self._left >= 0
