"""Nasdaq TotalView-ITCH 5.0 files: every message of a day, plain or compressed, as batches of event columns.

One message becomes one event or more, the last one carries F_LAST; `order_id` is the order's reference, for prints the match number:

| message | events |
|---|---|
| R directory | R: the book of the stock begins empty; N when the stock had a directory or order message before |
| A, F add | A |
| E executed | T with the aggressor's side (the other one) at the order's price, F of the resting order, C of the size executed |
| C executed with price | the same, T at the message's price, and only when it is printable |
| X partial cancel, D delete | C with the size removed; a delete removes what is left |
| U replace | C of what is left of the old order, A of the new one with its side |
| P trade with a hidden order | T with side N |
| Q cross | T with side N; N where no shares crossed |
| B broken trade | N |
| H trading action | N, price -1 (halted or paused), 0 (quoting only) or 1 (trading); every other N has no price |

The other types make no event and are counted. A message about an order that is not there (a file that starts in the middle of a day) becomes C with
side N and price 0, of the message's shares (0 for D and U), so that the book reports it; a printable C gives its T, with side N, too.

publisher_id is Nasdaq's (BX or PSX where the file name says so), instrument_id the stock locate, sequence the number of the message in the file,
counted from 1 over all types, modulo 2^32; ts_recv = ts_event. Source: "Nasdaq TotalView-ITCH 5.0", section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, time
from zoneinfo import ZoneInfo

import numpy as np

from tasks.errors import CorruptSource, EmptySource
from tasks.partitions import SourceFile
from tasks.scanning import itch_frame_kernels as fk
from tasks.scanning import itch_kernels as ik
from tasks.scanning.batches import BadRow, RawBatch
from tasks.scanning.chunks import ByteStream, read_ahead
from tasks.scanning.itch_field_kernels import big_16
from tasks.scanning.itch_messages import END_MARK, LENGTHS, is_plausible, session_date, venue_of
from tasks.scanning.itch_table_kernels import MIN_SLOTS, ORDER, move_orders
from tasks.schemas import EVENT_DTYPES

MESSAGE_BYTES = 32  # of most messages, with their length
_ZONE = ZoneInfo("America/New_York")
_LOCATES = 1 << 16
_GET_AGAIN = "Fetch the file again, or convert the part that is whole"


class ItchReader:
    """Reader (see batches.py) of one ITCH 5.0 file.

    Rows are the messages that become events, and the frames that are no message of the specification: those are bad rows, whose bytes begin with the
    frame's two of length. A file that ends inside a message has a last bad row "truncated" and no other fault; a last length of 0 is the end mark.
    message_counts: whole messages by type; unknown_references: messages about orders that are not there. Both are final at the end.

    Times count from midnight in New York of source.dates[0], else of the date in the file name (SchemaMismatch where there is none).
    Memory: a few pieces of `batch_rows` messages, and 24 bytes for each slot of the order table, which has two to four for each order that rests.
    """

    def __init__(self, source: SourceFile, *, block_bytes: int | None = None) -> None:
        day = datetime.strptime(source.dates[0], "%Y-%m-%d").date() if source.dates else session_date(source.path)
        self._midnight_ns = int(datetime.combine(day, time(), _ZONE).timestamp()) * 1_000_000_000
        self._publisher_id = venue_of(source.path)[1]
        self._block_bytes = block_bytes
        self._stream = ByteStream(source.path)
        self.symbols: list[str] = []
        self.source_rows = self.expanded_rows = self.bytes_read = 0
        self._counts, self._state = np.zeros(256, np.int64), np.zeros(fk.STATE_SIZE, np.int64)
        self._orders = np.zeros(MIN_SLOTS, ORDER)
        self._locates = ik.Locates(np.full(_LOCATES, -1, np.int32), np.zeros(_LOCATES, np.uint64), np.zeros(_LOCATES, np.uint8))

    @property
    def message_counts(self) -> dict[str, int]:
        """Whole messages met so far by type; types that were not met are left out."""
        return {kind: int(self._counts[ord(kind)]) for kind in LENGTHS if self._counts[ord(kind)]}

    @property
    def unknown_references(self) -> int:
        """Messages so far about orders that are not there."""
        return int(self._state[fk.S_UNKNOWN])

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def batches(self, batch_rows: int) -> Iterator[RawBatch]:
        """Yield the events in file order, at most `batch_rows` of them and bad rows (but as many as one message makes) in a batch.

        Raises CorruptSource, after everything before it was yielded, where compressed data breaks or lengths lead nowhere any more; EmptySource.
        """
        batch_rows = max(batch_rows, ik.MOST_EVENTS)
        rows = np.empty((batch_rows, 3), np.int64)
        rest, base = np.empty(0, np.uint8), 0
        for piece in read_ahead(self._stream, self._block_bytes or batch_rows * MESSAGE_BYTES):
            data = np.concatenate([rest, piece]) if len(rest) else piece
            at, count = 0, len(rows)
            self.bytes_read = self._stream.bytes_read
            while count == len(rows):
                count, at = fk.find_messages(data, at, base, rows, self._counts, self._state)
                yield from self._expand(data, base, rows[:count], batch_rows)
            if self._state[fk.S_RUN] == fk.LOST:
                first = int(self._state[fk.S_RUN_START])
                problem = f"{fk.LOST} frames in a row from there on are no messages, so that no length can be trusted; {self._told()}"
                raise CorruptSource(self._stream.path, problem, offset=first, remedy=_GET_AGAIN)
            rest, base = data[at:], base + at
        yield from self._end(rest.tobytes(), base)

    def _told(self) -> str:
        return f"{self._state[fk.S_NUMBER]:,} messages before it"

    def _end(self, rest: bytes, base: int) -> Iterator[RawBatch]:
        """What stands after the last whole message: nothing, the end mark, or a message that is cut short."""
        if self._stream.fault:
            raise CorruptSource(self._stream.path, f"{self._stream.fault}; {self._told()}", offset=self._stream.position, remedy=_GET_AGAIN)
        if not base and not rest:
            raise EmptySource(self._stream.path, "the file is empty", remedy="Fetch it again or leave it out")
        if rest in (b"", END_MARK):
            return
        length = int.from_bytes(rest[:2], "big")
        if not is_plausible(rest):
            problem = f"the frame there claims {length:,} bytes, which no message of its type has and which the file does not hold; {self._told()}"
            raise CorruptSource(self._stream.path, problem, offset=base, remedy=_GET_AGAIN)
        told = f"{len(rest) - 2} of {length} bytes of its message" if len(rest) > 1 else "half a length"
        # Of no symbol: all of them miss what would have come.
        bad = BadRow(0, self.source_rows, base, rest, "truncated", f"the file ends after {told}")
        self.source_rows += 1
        yield self._batch(ik.Events(*(np.empty(0, dtype) for dtype in _event_dtypes())), lambda row: (-1, b""), [bad])

    def _expand(self, data: np.ndarray, base: int, rows: np.ndarray, room: int) -> Iterator[RawBatch]:
        """Batches of the events of `rows`, see `find_messages`."""
        low = 0
        self._make_room(len(rows))
        while low < len(rows):
            out = ik.Events(*(np.empty(room, dtype) for dtype in _event_dtypes()))
            bad = ik.Bad(*(np.empty(room, np.int64) for _ in ik.Bad._fields))
            names = ik.Names(np.empty(len(rows), np.int64), np.empty(len(rows), np.uint64))
            high, n, wrong = ik.messages_to_events(
                data, rows, low, len(rows), self._midnight_ns, out, bad, self._locates, names, self._orders, self._state
            )
            self._add_symbols(names)
            out = ik.Events(*(column[:n] for column in out))
            faults = zip(*(column[:wrong].tolist() for column in bad), strict=True)
            bad_rows = [self._bad_row(data, base, before, low, rows[row], row, reason, code) for before, row, reason, code in faults]
            starts = rows[low:high, fk.R_AT].copy()
            place = out.row - low
            out.row[:] = place + self.source_rows

            def raw(row: int, starts: np.ndarray = starts, place: np.ndarray = place) -> tuple[int, bytes]:
                start = int(starts[place[row]])
                return base + start, _frame(data, start)

            self.source_rows += high - low
            self.expanded_rows += n - (high - low - wrong)
            low = high
            yield self._batch(out, raw, bad_rows)

    def _batch(self, out: ik.Events, raw: Callable[[int], tuple[int, bytes]], bad: list[BadRow]) -> RawBatch:
        n = len(out.row)
        columns = {name: getattr(out, name) if name in ik.Events._fields else np.zeros(n, dtype) for name, dtype in EVENT_DTYPES.items()}
        columns["ts_recv"] = out.ts_event.copy()
        columns["publisher_id"][:] = self._publisher_id
        return RawBatch(columns, out.code, out.row, raw, bad)

    def _bad_row(self, data: np.ndarray, base: int, before: int, low: int, found: np.ndarray, row: int, reason: int, code: int) -> BadRow:
        frame = _frame(data, int(found[fk.R_AT]))
        return BadRow(before, self.source_rows + row - low, base + int(found[fk.R_AT]), frame, ik.REASONS[reason], _detail(reason, frame), code)

    def _make_room(self, more: int) -> None:
        """Keep the load of the order table at 1/2 or below after `more` orders."""
        slots = len(self._orders)
        while slots < 2 * (int(self._state[fk.S_LIVE]) + more):
            slots *= 2
        if slots > len(self._orders):
            larger = np.zeros(slots, ORDER)
            move_orders(self._orders, larger)
            self._orders = larger

    def _add_symbols(self, names: ik.Names) -> None:
        for locate, stock in zip(*(column[: self._state[fk.S_NAMED]].tolist() for column in names), strict=True):
            self.symbols.append(stock.to_bytes(8, "big").decode("ascii").rstrip() if stock else f"locate-{locate}")


def _event_dtypes() -> list[np.dtype]:
    dtypes: dict[str, np.dtype] = {**EVENT_DTYPES, "code": np.dtype(np.int32), "row": np.dtype(np.int64)}
    return [dtypes[name] for name in ik.Events._fields]


def _frame(data: np.ndarray, start: int) -> bytes:
    """The frame at `start`: its length, and the bytes that the length counts."""
    return data[start : start + 2 + big_16(data, start)].tobytes()


def _detail(reason: int, frame: bytes) -> str:
    """What was found and what is allowed, of a bad frame."""
    kind, length = chr(frame[2]) if len(frame) > 2 else "", len(frame) - 2
    if reason == fk.LENGTH:
        return f"a message of type {kind} has {LENGTHS[kind]} bytes, this one {length}" if kind else "a length of 0, and the file goes on"
    letter = {ik.SIDE: 19, ik.PRINTABLE: 31, ik.STATE: 19}.get(reason)
    if letter is not None:
        allowed = {ik.SIDE: "B, S", ik.PRINTABLE: "Y, N", ik.STATE: "H, P, Q, T"}[reason]
        return f"{chr(frame[2 + letter])!r} in a message of type {kind}; allowed: {allowed}"
    return {
        fk.TYPE: f"type {kind!r} of {length} bytes; known are {', '.join(LENGTHS)}",
        ik.TIME: f"{int.from_bytes(frame[7:13], 'big'):,} ns after midnight; a day has {86_400 * 10**9:,}",
        ik.STOCK: f"the stock in a message of type {kind} is blank or not printable",
        ik.SIZE: f"{int.from_bytes(frame[13:21], 'big'):,} shares; allowed: up to {2**32 - 1:,}",
        ik.LOCATE: f"its order belongs to another stock than locate {int.from_bytes(frame[3:5], 'big')}",
    }[reason]
