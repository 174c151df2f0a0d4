"""One generated session as a file of any of the formats, with the time of each message, so that it can be cut off at any moment.

The messages come from sessions.py, windowed.py and itch_messages.py; here they get times that stand still, jump and step back, and are written.
Each format is written plainly: what the readers make of odd files is tested with them.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from hypothesis import strategies as st

from tasks.schemas import F_LAST, F_SNAPSHOT, UNDEF_PRICE
from tests.oracles.naive_dbn import header
from tests.oracles.naive_filter import naive_check
from tests.strategies import itch_messages as itch
from tests.strategies import windowed
from tests.strategies.sessions import START_NS, sessions

FORMATS = ("dbn", "dbn.zst", "csv", "parquet", "seven-csv", "seven-parquet", "lobster", "itch")
NEW_YORK_MIDNIGHT = {"lobster": windowed.START_NS - 34_200 * 10**9, "itch": 1_548_824_400 * 10**9}  # 2012-06-21, 2019-01-30
OPENS = {"lobster": windowed.START_NS, "itch": NEW_YORK_MIDNIGHT["itch"] + itch.NINE}
# From one message to the next; a negative one makes a late message.
STEPS_NS = (0, 0, 1, 999, 400_000, 1_000_000, 3_500_000, 20_000_000)
BACK_NS = (-1, -700_000, -5_000_000)
LAGS_NS = (0, 85_000, 85_000, 2_000_000)
NAMES = 1 + len(itch.STOCKS)  # messages that an ITCH day begins with
_TS = pa.timestamp("ns", tz="UTC")
_CSV = ("ts_recv", "ts_event", "rtype", "publisher_id", "instrument_id", "action", "side", "price", "size", "channel_id", "order_id", "flags",
        "ts_in_delta", "sequence", "symbol")  # fmt: skip
_SEVEN = ("ts_event", "action", "side", "price", "size", "order_id", "is_last")
_LETTERS = {"action", "side", "symbol"}


@dataclass(frozen=True)
class Feed:
    """The messages of one file. messages: MBO_RECORD[n], or a list of windowed.Message or of ITCH messages; times: own time of each by clock;
    keys: which book each is for; bad: whether the decode stage must set it aside.
    """

    format: str
    messages: Any
    times: dict[str, list[int]]
    keys: list[int]
    bad: list[bool]

    def __len__(self) -> int:
        return len(self.messages)

    def known(self, clock: str) -> list[int | None]:
        """When each message became known: the greatest time of its book so far.

        A message that was set aside has no time that could be trusted: it counts from the next good one of its book on, None without one.
        """
        now: dict[int, int] = {}
        found: list[int | None] = []
        for key, time, bad in zip(self.keys, self.times[clock], self.bad, strict=True):
            if not bad:
                now[key] = max(now.get(key, time), time)
            found.append(None if bad else now[key])
        after: dict[int, int | None] = {}
        for i in range(len(self) - 1, -1, -1):
            found[i] = after[self.keys[i]] = found[i] if not self.bad[i] else after.get(self.keys[i])
        return found

    def late(self, clock: str) -> bool:
        """Whether a message is older than one of its book before it, so that its own time says nothing of when it was known."""
        return any(known is not None and time < known for time, known in zip(self.times["trade " + clock], self.known(clock), strict=True))

    def until(self, clock: str, moment: int) -> list[bool]:
        """Which messages are known at `moment`; those set aside after the last good one of their book go with that one."""
        known = self.known(clock)
        last = {key: time for key, time in zip(self.keys, known, strict=True) if time is not None}
        times = [last.get(key) if time is None else time for key, time in zip(self.keys, known, strict=True)]
        return [time is not None and time <= moment for time in times]

    def write(self, folder: Path, kept: list[bool]) -> Path:
        """The file of the messages that are kept, in a folder of its own; a LOBSTER order book is cut with its messages."""
        folder.mkdir(parents=True)
        write = {"lobster": _lobster, "itch": _itch}.get(self.format, _records)
        return write(self, folder, kept)


@st.composite
def feeds(draw: st.DrawFn, format: str) -> Feed:
    """A session of one format: late messages, ties and pauses, messages to be set aside, starts in the middle, MAYBE_BAD_BOOK."""
    if format == "lobster":
        messages: Any = draw(windowed.files)
    elif format == "itch":
        messages = draw(itch.days(40))
        # The system event and the directory stay: without names, one stock would be two partitions.
        messages = [*messages[:NAMES], *messages[NAMES + draw(st.sampled_from((0, 0, 1, 3, 7))) :]]
    else:
        messages = draw(sessions(publishers=2 if format.startswith("dbn") else 1))
        if format.startswith("seven"):
            messages["flags"] &= F_LAST
            messages["publisher_id"] = messages["instrument_id"] = messages["sequence"] = 0
    n = len(messages)
    steps = draw(st.lists(st.sampled_from(draw(st.sampled_from((STEPS_NS, STEPS_NS, STEPS_NS + BACK_NS)))), min_size=n, max_size=n))
    times = [OPENS.get(format, START_NS) + passed for passed in itertools.accumulate(steps)]
    if format == "lobster":
        return _windowed_feed(messages, times, draw(st.integers(0, n)) if draw(st.booleans()) else None)
    if format == "itch":
        midnight = NEW_YORK_MIDNIGHT["itch"]
        retimed = [(kind, locate, time - midnight, *rest) for (kind, locate, _, *rest), time in zip(messages, times, strict=True)]
        for at in draw(st.lists(st.integers(NAMES, n - 1), max_size=2)) if n > NAMES else ():
            _, locate, time, *_ = retimed[at]
            retimed[at] = ("A", locate or 1, time, 10**6 + at, b"B", 0, itch.STOCKS[locate or 1], 1_000_000)  # no shares
        same = {"ts_event": times, "ts_recv": times, "trade ts_event": times, "trade ts_recv": times}
        return Feed(format, retimed, same, [m[1] for m in retimed], [m[0] == "A" and m[5] == 0 for m in retimed])
    lag = draw(st.lists(st.sampled_from(LAGS_NS), min_size=n, max_size=n))
    messages["ts_event"], messages["ts_recv"] = times, times if format.startswith("seven") else np.add(times, lag)
    received = messages["ts_recv"].tolist()
    # The ts_event of a snapshot's record is the age of an order.
    on_event = [recv if flags & F_SNAPSHOT else time for recv, time, flags in zip(received, times, messages["flags"].tolist(), strict=True)]
    clocks = {"ts_event": on_event, "ts_recv": received, "trade ts_event": times, "trade ts_recv": received}
    names = messages.dtype.names or ()
    rows = [{name: chr(row[name]) if name in ("action", "side") else int(row[name]) for name in names} for row in messages]
    return Feed(format, messages, clocks, messages["publisher_id"].tolist(), [bool(naive_check(row)) for row in rows])


def _windowed_feed(messages: list[windowed.Message], times: list[int], odd: int | None) -> Feed:
    """odd: place of an added message that is set aside, an order of size 0, with the book as it stood."""
    bad = [False] * len(messages)
    if odd is not None:
        book = messages[max(odd - 1, 0)].book
        messages = [*messages[:odd], windowed.Message(windowed.ADD, 9, 0, windowed.BASE, 1, book), *messages[odd:]]
        times, bad = [*times[:odd], times[max(odd - 1, 0)], *times[odd:]], [*bad[:odd], True, *bad[odd:]]
    same = {"ts_event": times, "ts_recv": times, "trade ts_event": times, "trade ts_recv": times}
    return Feed("lobster", messages, same, [0] * len(messages), bad)


def _records(feed: Feed, folder: Path, kept: list[bool]) -> Path:
    rows = feed.messages[np.array(kept, bool)]
    path = folder / f"feed.{feed.format.removeprefix('seven-')}"
    if feed.format.startswith("dbn"):
        days = SimpleNamespace(start_date=date(2025, 10, 22), end_date=date(2025, 10, 23), symbol="1")
        head = header(mappings=[SimpleNamespace(raw_symbol="ESZ5", intervals=[days])], start=START_NS, end=START_NS + 10**12, symbols=["ESZ5"])
        data = head + rows.tobytes()
        path.write_bytes(zstandard.compress(data) if feed.format.endswith("zst") else data)
        return path
    names = _SEVEN if feed.format.startswith("seven") else _CSV
    columns = {name: _column(rows, name) for name in names}
    if feed.format.endswith("csv"):
        prices = ["" if p == UNDEF_PRICE else f"{'-' * (p < 0)}{abs(p) // 10**9}.{abs(p) % 10**9:09d}" for p in columns["price"]]
        lines = zip(*(prices if name == "price" else columns[name] for name in names), strict=True)
        path.write_text("\n".join([",".join(names), *(",".join(map(str, line)) for line in lines), ""]))
        return path
    types = {"ts_recv": _TS, "ts_event": _TS, "price": pa.int64(), "order_id": pa.uint64(), "size": pa.uint32()}
    arrays = [pa.array(columns[name], pa.string() if name in _LETTERS else types.get(name, pa.int32())) for name in names]
    pq.write_table(pa.table(arrays, names=list(names)), path)
    return path


def _column(rows: np.ndarray, name: str) -> list:
    if name == "symbol":
        return ["ESZ5"] * len(rows)
    if name == "is_last":
        return (rows["flags"] >> 7).tolist()
    return [chr(code) for code in rows[name]] if name in _LETTERS else rows[name].tolist()


def _lobster(feed: Feed, folder: Path, kept: list[bool]) -> Path:
    levels, lines, books = windowed.levels_of(feed.messages), [], []
    for m, time in itertools.compress(zip(feed.messages, feed.times["ts_event"], strict=True), kept):
        past = time - NEW_YORK_MIDNIGHT["lobster"]
        lines.append(f"{past // 10**9}.{past % 10**9:09d},{m.kind},{max(m.order_id, 0)},{m.size},{m.price},{m.direction}\n")
        bids, asks = (
            [(px // windowed.UNIT, size) for px, size in side] + [(empty, 0)] * (levels - len(side))
            for side, empty in zip(m.book, (-(10**10) + 1, 10**10 - 1), strict=True)
        )
        books.append(",".join(f"{ap},{az},{bp},{bz}" for (bp, bz), (ap, az) in zip(bids, asks, strict=True)) + "\n")
    name = "XYZ_2012-06-21_34200000_57600000_{}_" + f"{levels}.csv"
    (folder / name.format("orderbook")).write_text("".join(books))
    path = folder / name.format("message")
    path.write_text("".join(lines))
    return path


def _itch(feed: Feed, folder: Path, kept: list[bool]) -> Path:
    path = folder / "01302019.NASDAQ_ITCH50"
    # A message of another stock may be cut off before one that is kept: it leaves its number to a system event, which is no stock's.
    last = max((i for i, keep in enumerate(kept) if keep), default=-1)
    whole = zip(feed.messages[: last + 1], kept, strict=False)
    path.write_bytes(itch.encoded([message if keep else ("S", 0, message[2], b"Q") for message, keep in whole]))
    return path
