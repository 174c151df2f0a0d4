"""Expectations of the canonical events: what a decoder may hand to the book. Rules of the formats are in tasks/scanning, of the book in
tasks/reconstruction.

Rows that the book cannot use are quarantined; what the feed itself may do, though it is odd, is a warning; mixed partitions block.
"""

from __future__ import annotations

import pyarrow as pa

from tasks.schemas import ACTIONS, EVENTS, F_BAD_TS_RECV, F_LAST, F_SNAPSHOT, F_TOB, SIDES, UNDEF_PRICE
from validation.rules import Context, Rule, complete, every, one_letter, one_partition

EARLIEST_NS = 631_152_000_000_000_000  # 1990-01-01, before the first electronic order book of any supported feed
LATEST_NS = 4_102_444_800_000_000_000 - 1  # the last nanosecond before 2100-01-01
UNDEF_SIZE = 2**32 - 1  # size not set, as in DBN
CLOCK_TOLERANCE_NS = 1_000_000_000  # two clocks may differ; venues and captures stay within a second
RESERVED_FLAGS = 1  # the only bit without a meaning: DBN uses bit 1 for what a publisher defines, and CME records carry it

_DECODER = "The decoder of the source format in tasks/scanning, and the quarantined rows with their raw bytes."


def schema(context: Context) -> pa.Schema:
    """Columns of the events layer."""
    return EVENTS


def rules(context: Context) -> tuple[Rule, ...]:
    """All expectations on events; nothing in them depends on the context."""
    return (*_ROWS, *_FILE)


_ROWS = (
    Rule(
        "action_known",
        "quarantine",
        why=f"The book acts on {', '.join(ACTIONS)}; any other letter would be skipped and its order stay wrong.",
        look=_DECODER,
        check="action",
        holds=one_letter("action", ACTIONS),
    ),
    Rule(
        "side_known",
        "quarantine",
        why=f"Side is {', '.join(SIDES)}; with another letter an order lands on no side.",
        look=_DECODER,
        check="side",
        holds=one_letter("side", SIDES),
    ),
    Rule(
        "price_defined",
        "quarantine",
        why="An add, modify, trade or fill without a price has no level; only a top-of-book record may leave it out (an empty side).",
        look=f"Rows with price {UNDEF_PRICE}: does the source leave the price empty, or does the decoder misread its scale?",
        check="price",
        # CASE stops at the first branch that is true; OR would evaluate all of them on every row (measured: half the time).
        holds=f"CASE WHEN price <> {UNDEF_PRICE} THEN true WHEN flags & {F_TOB} <> 0 THEN true ELSE strpos('CNR', action) > 0 END",
        bounds={"price": (None, UNDEF_PRICE - 1)},
    ),
    Rule(
        "size_usable",
        "quarantine",
        why=f"Size {UNDEF_SIZE} means not set, and an order of size 0 would stand in the book as a level that holds nothing.",
        look=_DECODER,
        check="size",
        holds=f"CASE WHEN size BETWEEN 1 AND {UNDEF_SIZE - 1} THEN true WHEN strpos('NR', action) > 0 OR flags & {F_TOB} <> 0 THEN true "
        "ELSE size = 0 AND action <> 'A' END",
        bounds={"size": (1, UNDEF_SIZE - 1)},
    ),
    Rule(
        "times_in_range",
        "quarantine",
        why="A time outside [1990, 2100) is an unset sentinel or a wrong unit (ms or us read as ns); it would stretch every grid over decades.",
        look="The time columns of the source: their unit and the value it uses for not set.",
        check="times",
        holds=every(f"{name} BETWEEN {EARLIEST_NS} AND {LATEST_NS}" for name in ("ts_event", "ts_recv")),
        bounds={"ts_event": (EARLIEST_NS, LATEST_NS), "ts_recv": (EARLIEST_NS, LATEST_NS)},
    ),
    Rule(
        "size_not_zero",
        "warn",
        why="A cancel, modify, trade or fill of size 0 changes nothing; many of them mean that sizes were rounded down (fractional lots).",
        look="The size scale of the source format.",
        check="size_not_zero",
        holds=f"size > 0 OR strpos('NRA', action) > 0 OR flags & {F_TOB} <> 0",
        bounds={"size": (1, None)},
    ),
    Rule(
        "received_after_event",
        "warn",
        why="A record captured more than a second before it happened shows a wrong clock or a wrong time zone; samples on ts_recv are then early.",
        look="Clock of the capture and time zone of the source. Rows flagged SNAPSHOT or BAD_TS_RECV are excepted: their ts_recv says nothing.",
        check="received_after",
        # The difference of two sentinels does not fit 64 bits.
        holds=f"CASE WHEN ts_recv >= ts_event THEN true WHEN ts_event::HUGEINT - ts_recv <= {CLOCK_TOLERANCE_NS} THEN true "
        f"ELSE flags & {F_SNAPSHOT | F_BAD_TS_RECV} <> 0 END",
    ),
    Rule(
        "flags_known",
        "warn",
        why="Bit 0 has no meaning in DBN; rows that carry it come from a newer format version, or the flags were shifted.",
        look="The version of the source file and the flags column of its decoder.",
        check="flags",
        holds=f"flags & {RESERVED_FLAGS} = 0",
    ),
)

_REPEATED = ("ts_event", "ts_recv", "sequence", "order_id", "action", "side", "price", "size", "flags")

_FILE = (
    one_partition(),
    complete(EVENTS.names, look=_DECODER),
    Rule(
        "received_in_order",
        "warn",
        why="Files are in the order of capture; a step back in ts_recv means merged or sorted sources, and a replay in file order may be wrong.",
        look="Whether the source was sorted by ts_event or joined from several captures; the row named comes before its predecessor.",
        check="in_order",
        holds="prev_ts_recv IS NULL OR ts_recv >= prev_ts_recv",
        previous=("ts_recv",),
    ),
    Rule(
        "ends_with_last",
        "warn",
        why="Without LAST on its final record the file ends inside an event, and that event never reaches a sample.",
        look="Whether the source was cut (compare its row count and end time with the vendor's), or filtered after the fact.",
        holds=f"flags & {F_LAST} <> 0",
        last_row_only=True,
    ),
    Rule(
        "no_repeated_record",
        "warn",
        why="A record equal to the one before it is most often written twice; its size would count twice.",
        look="Overlapping or resumed captures. Equal prints of one sweep exist on some feeds: compare the sequence with the vendor's file.",
        check="not_repeated",
        # Comparing nine columns costs 0.4 s per 5M rows, two of them 0.1 s; rows that agree in both are rare enough to look again.
        holds=f"(prev_ts_recv IS NULL) OR NOT ({every(f'{name} = prev_{name}' for name in _REPEATED)})",
        previous=_REPEATED,
        screen="ts_recv = prev_ts_recv AND order_id = prev_order_id AND sequence = prev_sequence AND size = prev_size",
    ),
)
