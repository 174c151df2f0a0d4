"""Questions about the past of a book, slow and obvious: everything is replayed from the first record, one by one, with dicts and lists.

Twin of advance_kernels.py, track_kernels.py and lifetime_kernels.py. A day is a list of files, each (records, rows before which a row was
quarantined); `opening` are the orders of the day before, as (side, price, order id, size) in priority order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tasks.schemas import F_SNAPSHOT, F_TOB
from tests.oracles.naive_book import NaiveBook

Files = Sequence[tuple[np.ndarray, Sequence[int]]]
Opening = Sequence[tuple[str, int, int, int]]
CAUSES = ("end", "add", "fill", "modify", "cancel")


def opened(opening: Opening | None, starts_empty: bool) -> NaiveBook:
    """The book before the first record."""
    book = NaiveBook(starts_empty=starts_empty)
    if opening is not None:
        for side, price, order_id, size in opening:
            book._append(side, price, size, order_id)
        book.status, book.reason = "valid", ""
    return book


def queues(book: NaiveBook) -> list[tuple[str, int, int, int]]:
    """(side, price, order id, size) of all orders, bids first, best level first, in priority order."""
    return [
        (side, price, order_id, size)
        for side in ("B", "A")
        for price in sorted(book.queues[side], reverse=side == "B")
        for order_id, size in book.queue(price, side)
    ]


def moments(files: Files, clock: str, starts_empty: bool = False, opening: Opening | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """(clock time, the book as it may be shown) after each record, and once more after a file that a quarantined row ends."""
    book, now = opened(opening, starts_empty), 0
    empty: dict[str, Any] = {"bids": (), "asks": (), "orders": [], "as_of": None, "sequence": 0}
    shown = empty | {"status": "valid" if starts_empty else "no_book", "reason": "" if starts_empty else "no_snapshot", "since": None}
    for file, (records, marks) in enumerate(files):
        book.next_file()
        for i, record in enumerate(records):
            snapshot = bool(record["flags"] & F_SNAPSHOT)
            now = max(now, int(record["ts_recv" if clock == "ts_recv" or snapshot else "ts_event"]))
            if shown["since"] is None:
                shown = shown | {"since": now}
            if i in marks:
                doubt(book)
            book.apply(record)
            if book.event_end:
                since = shown["since"] if (book.status, book.reason) == (shown["status"], shown["reason"]) else now
                shown = {
                    "bids": tuple(book.levels("B")), "asks": tuple(book.levels("A")), "orders": queues(book), "as_of": now,
                    "sequence": int(record["sequence"]), "status": book.status, "reason": book.reason, "since": since,
                }  # fmt: skip
            yield now, shown | {"file": file, "row": i + 1, "end": book.event_end, "top": any(book.top.values())}
        if any(mark >= len(records) for mark in marks):
            doubt(book)
            if shown["status"] == "valid":
                shown = shown | {"status": "suspect", "reason": "quarantined", "since": now}
            yield now, shown | {"end": False}


def doubt(book: NaiveBook) -> None:
    """A quarantined row stood here."""
    book.set_aside()


class Happening(NamedTuple):
    """What one record did. ended: (order id, reason, size left); changed: (order id, filled, cancelled, grown, size before and after)."""

    record: np.void
    book: NaiveBook
    ended: list[tuple[int, str, int]]
    born: int | None
    changed: tuple[int, int, int, int, int, int] | None


def happenings(files: Files, starts_empty: bool = False, opening: Opening | None = None) -> Iterator[Happening]:
    """One for each record. What an F takes is what the next C or M of the order in the same event, or of the same sequence number and time, takes
    off, or, of an M that does not make the order smaller, what it had before."""
    book, after_snapshot = opened(opening, starts_empty), False
    fills: dict[int, tuple[int, int, tuple[int, int]]] = {}  # size, number of the event, (sequence, ts_event)
    event = 0
    for records, marks in files:
        book.next_file()
        after_snapshot = after_snapshot and book.incomplete
        for i, record in enumerate(records):
            action, side, flags, order_id = chr(record["action"]), chr(record["side"]), int(record["flags"]), int(record["order_id"])
            snapshot = bool(flags & F_SNAPSHOT)
            if i in marks:
                doubt(book)
            alive = dict(book.orders)
            ended, born, changed = [], None, None
            if action == "R" or (snapshot and not after_snapshot):
                ended, alive = [(o, "snapshot" if snapshot else "cleared", size) for o, (_, _, size) in alive.items()], {}
            elif action == "A" and flags & F_TOB and side in "AB":
                ended = [(o, "replaced", size) for o, (s, _, size) in alive.items() if s == side]
            after_snapshot = snapshot
            book.apply(record)
            old, new = alive.get(order_id, ("", 0, 0))[2], book.orders.get(order_id, ("", 0, 0))[2]
            message = int(record["sequence"]), int(record["ts_event"])
            waiting, its_event, its_message = fills.get(order_id, (0, event, message))
            if its_event != event and (its_message != message or not message[0]):
                waiting = 0
            if action == "F" and old:
                fills[order_id] = waiting + int(record["size"]), event, message
            if action in "CM" or (action == "A" and not flags & F_TOB):
                if action == "A" and old:
                    ended.append((order_id, "replaced", old))
                    old = 0
                if new and not old:
                    born = order_id
                    fills.pop(order_id, None)
                elif old:
                    filled = min(waiting, old if action == "M" and new >= old else old - new)
                    fills[order_id] = waiting - filled, its_event, its_message
                    cancelled, grown = max(old - filled - new, 0), max(new - (old - filled), 0)
                    changed = (order_id, filled, cancelled, grown, old, new)
                    if not new:
                        ended.append((order_id, "cancelled" if cancelled else "filled", 0))
            event += book.event_end
            yield Happening(record, book, ended, born, changed)
        if any(mark >= len(records) for mark in marks):
            doubt(book)


def queue_rows(files: Files, wanted: int, starts_empty: bool = False, opening: Opening | None = None) -> list[dict[str, Any]]:
    """Rows of queue_position, times as ns."""
    rows, waiting = [], []
    book = opened(opening, starts_empty)
    price, last, cause, episode = 0, None, [], 0
    if wanted in book.orders:
        price, cause, episode = book.orders[wanted][1], ["add"], 1
    for record, book, ended, born, changed in happenings(files, starts_empty, opening):
        for order_id, reason, _ in ended:
            if order_id == wanted:
                waiting.append({"episode": episode, "price": price, "cause": "end", "end_reason": reason} | dict.fromkeys(NUMBERS, 0))
                last, cause = None, []
        if born == wanted:
            episode, last, cause = episode + 1, None, ["add"]
        elif changed and changed[0] == wanted and wanted in book.orders:
            _, filled, _, _, old, new = changed
            modify = record["action"] == ord("M")
            cause += ["fill"] if filled else ["modify"] if modify else ["cancel"] if new < old else []
        if wanted in book.orders:
            price = book.orders[wanted][1]
        if not book.event_end:
            continue
        if wanted in book.orders:
            side, price, size = book.orders[wanted]
            ids = book.queues[side][price]
            at = ids.index(wanted)
            sizes = [book.orders[i][2] for i in ids]
            place = (price, size, sum(sizes[:at]), at, sum(sizes[at + 1 :]), len(ids) - at - 1)
            if place != last:
                other = "ahead" if last is None or place[2:4] != last[2:4] else "behind"
                first = min(cause, key=CAUSES.index, default=other)
                waiting.append(dict(zip(("price", *NUMBERS), place, strict=True)) | {"episode": episode, "cause": first, "end_reason": "resting"})
            last = place
        stamp = {name: int(record[name]) for name in ("ts_event", "ts_recv", "sequence")} | {"status": book.status}
        rows += [stamp | row for row in waiting]
        waiting, cause = [], []
    return rows


NUMBERS = ("size", "ahead_size", "ahead_orders", "behind_size", "behind_orders")


def lifetime_rows(files: Files, starts_empty: bool = False, opening: Opening | None = None) -> list[dict[str, Any]]:
    """Rows of order_lifetimes, times as ns."""
    rows, lives = [], {}
    book = opened(opening, starts_empty)
    for side, price, order_id, size in opening or ():
        ids = book.queues[side][price]
        ahead = sum(book.orders[i][2] for i in ids[: ids.index(order_id)])
        lives[order_id] = _life(order_id, side, price, size, ahead) | {"ts_event": None, "ts_recv": None, "from_snapshot": True}
    for record, book, ended, born, changed in happenings(files, starts_empty, opening):
        if changed:
            order_id, filled, cancelled, grown, _, new = changed
            life = lives[order_id]
            life["filled"], life["cancelled"], life["grown"] = life["filled"] + filled, life["cancelled"] + cancelled, life["grown"] + grown
            if record["action"] == ord("M"):
                life["modified"] += not filled
                life["last_price"] = book.orders[order_id][1] if new else life["last_price"]
        end = {"end_ts_event": int(record["ts_event"]), "end_ts_recv": int(record["ts_recv"])}
        # Those that end with one record come in the order in which they entered, which a dict keeps.
        reasons = {order_id: (reason, left) for order_id, reason, left in ended}
        for order_id in [o for o in lives if o in reasons]:
            reason, left = reasons[order_id]
            life = lives.pop(order_id) | end | {"end_reason": reason, "left": left}
            known = life["ts_event"] is not None
            rows.append(life | {"duration_ns": life["end_ts_event"] - life["ts_event"] if known else None})
        if born is not None:
            side, price, size = book.orders[born]
            ahead = sum(book.orders[i][2] for i in book.queues[side][price][:-1])
            top = book.top[side]
            ahead += top[1] if top and top[0] == price else 0
            times = {"ts_event": int(record["ts_event"]), "ts_recv": int(record["ts_recv"])}
            lives[born] = _life(born, side, price, size, ahead) | times | {"from_snapshot": bool(record["flags"] & F_SNAPSHOT)}
    nothing = {"end_ts_event": None, "end_ts_recv": None, "end_reason": "resting", "duration_ns": None}
    return rows + [life | nothing | {"left": book.orders[order_id][2]} for order_id, life in lives.items()]


def _life(order_id: int, side: str, price: int, size: int, ahead: int) -> dict[str, Any]:
    return {
        "order_id": order_id, "side": side, "price": price, "size": size, "last_price": price, "ahead_size": ahead,
        "filled": 0, "cancelled": 0, "grown": 0, "modified": 0,
    }  # fmt: skip
