"""`bookmill push` and `bookmill pull`: a lake and its mirror on an object store, as people start them."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.options import Lake, lake_of, split

if TYPE_CHECKING:
    from tasks.publishing.store_sync import Transfer

Place = Annotated[str, typer.Argument(help="Address of the mirror: s3://bucket/prefix, gs://..., az://..., file:///folder.")]
_SHOWN = 20


def register(app: typer.Typer) -> None:
    """Put the commands on the application."""
    app.command("push")(push_lake)
    app.command("pull")(pull_lake)


def push_lake(store: Place, lake: Lake = None) -> None:
    """Send a lake to an object store: what is not there yet, or differs. Nothing is deleted there."""
    from tasks.publishing.store import Store
    from tasks.publishing.store_sync import push

    raise typer.Exit(_print(push(lake_of(lake), Store(store), _tell), store, "sent"))


def pull_lake(
    store: Place,
    lake: Lake = None,
    symbols: Annotated[str, typer.Option(help="Symbols wanted, separated by commas; empty for all.")] = "",
    start: Annotated[str, typer.Option(help="First date wanted, YYYY-MM-DD.")] = "",
    end: Annotated[str, typer.Option(help="First date not wanted any more.")] = "",
    layer: Annotated[list[str] | None, typer.Option("--layer", help="Layer wanted, such as bbo. May be repeated.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Also replace files of the lake that differ from the store's.")] = False,
) -> None:
    """Fetch a lake, or a part of it, from an object store: what is not there yet. Nothing is deleted here."""
    from tasks.errors import UsageError
    from tasks.publishing.store import Store
    from tasks.publishing.store_files import Selection
    from tasks.publishing.store_sync import pull

    for name, value in (("--start", start), ("--end", end)):
        if value and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
            raise UsageError(f"{name} is {value!r}; allowed: a date such as 2025-10-22")
    wanted = Selection(tuple(split(symbols)), start, end, tuple(layer or ()))
    raise typer.Exit(_print(pull(lake_of(lake), Store(store), wanted, replace=replace, tell=_tell), store, "fetched"))


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


def _print(result: Transfer, store: str, verb: str) -> int:
    """Say what came of it. Returns the exit code: 0 all there, 1 something is not."""
    for name, why in sorted(result.bad.items())[:_SHOWN]:
        print(f"not taken: {name}: {why}", file=sys.stderr)
    for name in sorted(result.kept)[:_SHOWN]:
        print(f"kept: {name} differs from the store's; --replace takes that one", file=sys.stderr)
    for name in sorted(result.unsettled)[:_SHOWN]:
        print(f"still changing: {name}; start again when the run or the push that writes it has ended", file=sys.stderr)
    for why in result.without[:_SHOWN]:
        print(f"without: {why}", file=sys.stderr)
    if result.closings:
        print(f"{len(result.closings):,} closing books of days before --start belong to it: its first days go on from them", file=sys.stderr)
    others = {"kept": result.kept, "not taken": result.bad, "still changing": result.unsettled}
    more = "".join(f", {len(names):,} {what}" for what, names in others.items() if names)
    moved = f"{len(result.moved):,} files {verb} ({result.nbytes / 1e6:,.1f} MB)"
    print(f"{store.rstrip('/')}: {moved}, {len(result.same):,} there already{more}; {result.seconds:.1f} s")
    return int(bool(result.bad or result.unsettled))
