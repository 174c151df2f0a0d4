"""Every table of the lake: column, dtype, unit, sentinel and layer. The single source; tests pin it.

In memory, events travel as a dict of equally long NumPy arrays keyed by the names of `EVENT_DTYPES` ("event columns"): action and side
are uint8 ASCII codes, times int64 ns since the epoch UTC, prices int64 in 1e-9. In Parquet, times are timestamp[ns, UTC] and action and
side one-letter dictionary strings. Names are Databento's, so that the field recognises them.

Nothing that reads or writes belongs here.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pyarrow as pa

# Raised whenever the bytes of any output change for the same input and recipe; it is part of every output's stamp.
CODE_VERSION = "6"

UNDEF_PRICE = np.iinfo(np.int64).max  # price not set: 2^63-1, as in DBN
PRICE_SCALE = 1_000_000_000  # price units in one currency unit

# Flags of an event, as in DBN.
F_LAST = 128  # last record of the event for this instrument: the book may be read
F_TOB = 64  # a top-of-book record: replaces the whole side, not an order
F_SNAPSHOT = 32
F_MBP = 16
F_BAD_TS_RECV = 8
F_MAYBE_BAD_BOOK = 4  # unrecoverable gap on the channel

ACTIONS = ("A", "C", "F", "M", "N", "R", "T")  # add, cancel, fill, modify, none, clear, trade
SIDES = ("A", "B", "N")  # ask, bid, none

# Status of a book row. It ends at the next clear or whole snapshot, `halted` when trading resumes, `stale` with the next complete event.
STATUSES = ("valid", "suspect", "stale", "no_book", "halted")
VALID, SUSPECT, STALE, NO_BOOK, HALTED = range(5)
# From best to worst, where several rows give one status: a halt is the market's doing, a suspect book may be wrong.
SEVERITY = ("valid", "stale", "halted", "suspect", "no_book")

# Why a row is not valid. The order is the code.
REASONS = (
    "",
    "no_snapshot",  # no clear or snapshot seen yet
    "unknown_id",  # cancel or modify of an order never added
    "over_cancel",  # cancel of more than the order has
    "duplicate_id",  # add of an order id that rests already
    "side_change",  # modify that changes the side
    "maybe_bad_book",  # the feed said that it lost messages
    "quarantined",  # a bad row of this partition was set aside here
    "halt",  # trading halted
    "truth_mismatch",  # the rebuilt book differs from the independent truth beside it
    "gap",  # sequence numbers are missing in a source said to have all of them
    "silence",  # no complete event for longer than stale_after
)

_TS = pa.timestamp("ns", tz="UTC")
_CHAR = pa.dictionary(pa.int8(), pa.string())
_TEXT = pa.dictionary(pa.int32(), pa.string())

# name -> NumPy dtype of the in-memory event columns (symbol is constant in a partition and joins on writing)
EVENT_DTYPES: dict[str, np.dtype] = {
    "ts_event": np.dtype("i8"),
    "ts_recv": np.dtype("i8"),
    "publisher_id": np.dtype("u2"),
    "instrument_id": np.dtype("u4"),
    "action": np.dtype("u1"),
    "side": np.dtype("u1"),
    "price": np.dtype("i8"),
    "size": np.dtype("u4"),
    "order_id": np.dtype("u8"),
    "flags": np.dtype("u1"),
    "channel_id": np.dtype("u1"),
    "ts_in_delta": np.dtype("i4"),
    "sequence": np.dtype("u4"),
}

# DBN's 56-byte mbo record, the same in versions 1 to 3.
MBO_RECORD = np.dtype(
    [
        ("length", "u1"), ("rtype", "u1"), ("publisher_id", "<u2"), ("instrument_id", "<u4"), ("ts_event", "<u8"),
        ("order_id", "<u8"), ("price", "<i8"), ("size", "<u4"), ("flags", "u1"), ("channel_id", "u1"),
        ("action", "u1"), ("side", "u1"), ("ts_recv", "<u8"), ("ts_in_delta", "<i4"), ("sequence", "<u4"),
    ]
)  # fmt: skip

EVENTS = pa.schema(
    [
        ("ts_event", _TS),  # venue time
        ("ts_recv", _TS),  # capture time; equals ts_event where the source has none
        ("publisher_id", pa.uint16()),
        ("instrument_id", pa.uint32()),  # unique within a day only
        ("symbol", _TEXT),
        ("action", _CHAR),  # one of ACTIONS
        ("side", _CHAR),  # one of SIDES: resting side for A C M F, aggressor for T
        ("price", pa.int64()),  # 1e-9, UNDEF_PRICE when not set
        ("size", pa.uint32()),
        ("order_id", pa.uint64()),
        ("flags", pa.uint8()),  # F_* bits
        ("channel_id", pa.uint8()),
        ("ts_in_delta", pa.int32()),  # ns, send to receive
        ("sequence", pa.uint32()),
    ]
)

BOOK_HEAD = [
    ("ts_event", _TS),  # event rows: venue time of the last record; grid rows: the grid time T
    ("ts_recv", _TS),  # event rows: capture time of that record; grid rows: T
    ("as_of", _TS),  # clock time of the last complete event in the book, never after the row's own time
    ("age_ns", pa.int64()),  # grid rows: T - as_of; event rows: 0; -1 when no event was complete yet
    ("publisher_id", pa.uint16()),
    ("instrument_id", pa.uint32()),
    ("symbol", _TEXT),
    ("sequence", pa.uint32()),
    ("status", _CHAR),  # one of STATUSES
    ("reason", _CHAR),  # one of REASONS
    ("status_since", _TS),  # clock time from which on status and reason have been so; null before the first record
]


def level_fields(depth: int) -> list[tuple[str, pa.DataType]]:
    """Column names and types of `depth` book levels in Databento's order: bid_px_00, ask_px_00, bid_sz_00, ask_sz_00, bid_ct_00, ask_ct_00, ...

    px: int64 1e-9, UNDEF_PRICE where the level is empty; sz: int64 shares or contracts, 0 where empty; ct: uint32 orders, 0 where empty.
    """
    return [
        (f"{side}_{kind}_{level:02d}", dtype)
        for level in range(depth)
        for kind, dtype in (("px", pa.int64()), ("sz", pa.int64()), ("ct", pa.uint32()))
        for side in ("bid", "ask")
    ]


@cache
def books_schema(depth: int) -> pa.Schema:
    """Schema of an mbp-`depth` layer (event ends or grid); bbo is `books_schema(1)`."""
    return pa.schema(BOOK_HEAD + level_fields(depth))


BBO = books_schema(1)

# Books of price levels (depth feeds) have layers of their own: sizes are decimals there, with a scale that differs from one instrument to the next.
_DEPTH_HEAD = [
    ("ts_event", _TS),  # rows of messages: engine time, where told; grid rows: the grid time T
    ("ts_recv", _TS),  # rows of messages: when it was sent (Tardis: captured); grid rows: T
    ("as_of", _TS),  # clock time of the last message in the book, never after the row's own time
    ("age_ns", pa.int64()),  # grid rows: T - as_of; rows of messages: 0; -1 when there was no message yet
    ("symbol", _TEXT),
    ("update_id", pa.int64()),  # of the last message, -1 where not told
    ("sequence", pa.int64()),
    ("status", _CHAR),
    ("reason", _CHAR),
    ("status_since", _TS),
    ("price_digits", pa.uint8()),  # px is in units of 10^-price_digits: 9, more only where an instrument is quoted with more
    ("size_digits", pa.uint8()),  # sz is in units of 10^-size_digits; one scale a file
]


def depth_fields(depth: int) -> list[tuple[str, pa.DataType]]:
    """bid_px_00, ask_px_00, bid_sz_00, ask_sz_00, bid_px_01, ...: int64; px UNDEF_PRICE and sz 0 where the level is empty."""
    return [field for field in level_fields(depth) if "_ct_" not in field[0]]


@cache
def depth_books_schema(depth: int) -> pa.Schema:
    """Schema of the layers depth-<depth>-<interval> (grid) and depth-bbo (depth 1, a row per change of touch or status)."""
    return pa.schema(_DEPTH_HEAD + depth_fields(depth))


DEPTH_BBO = depth_books_schema(1)

DEPTH_UPDATES = pa.schema(
    [
        ("ts_event", _TS),
        ("ts_recv", _TS),
        ("symbol", _TEXT),
        ("is_snapshot", pa.bool_()),  # of a message that replaces the book
        ("last", pa.bool_()),  # last update of its message: the book may be read
        ("side", _CHAR),  # A or B; N for a message without updates
        ("price", pa.int64()),  # in units of 10^-price_digits, UNDEF_PRICE for a message without updates
        ("size", pa.int64()),  # in units of 10^-size_digits, 0 removes the level
        ("price_digits", pa.uint8()),  # as written
        ("size_digits", pa.uint8()),
        ("update_id", pa.int64()),
        ("sequence", pa.int64()),
    ]
)

DEPTH_TRADES = pa.schema(
    [
        ("ts_event", _TS),  # the exchange's time
        ("ts_recv", _TS),  # when it was captured
        ("symbol", _TEXT),
        ("id", pa.string()),  # the exchange's, "" where it has none
        ("side", _CHAR),  # aggressor: B bought, A sold, N not known
        ("price", pa.int64()),  # in units of 10^-price_digits
        ("size", pa.int64()),  # in units of 10^-size_digits
        ("price_digits", pa.uint8()),  # as written
        ("size_digits", pa.uint8()),
    ]
)

MID_BARS = pa.schema(
    [
        ("ts_event", _TS),  # inclusive start
        ("ts_close", _TS),  # exclusive end
        ("symbol", _TEXT),
        ("open", pa.float64()),  # mid in price units of 1.0; the state at the start; null where a side was empty all along
        ("high", pa.float64()),
        ("low", pa.float64()),
        ("close", pa.float64()),  # the state after the last change before the end
        ("twap", pa.float64()),  # mid weighted by the time it stood
        ("spread_mean", pa.float64()),  # weighted by time, price units of 1.0
        ("bid_sz_mean", pa.float64()),  # size at the touch weighted by time, units of 1.0
        ("ask_sz_mean", pa.float64()),
        ("changes", pa.int64()),  # of the touch within the bar
        ("valid_share", pa.float64()),  # share of the bar's time with a valid book, 0..1
        ("status", _CHAR),  # worst status within it
        ("reason", _CHAR),  # of the first stretch with that status
        ("status_since", _TS),
    ]
)

BANDS_BPS = (10, 25, 50)  # distances from the mid within which features sum the sizes
DEPTH_FEATURES = pa.schema(
    [
        ("ts_event", _TS),  # the grid time T
        ("as_of", _TS),
        ("age_ns", pa.int64()),
        ("symbol", _TEXT),
        ("status", _CHAR),
        ("reason", _CHAR),
        ("status_since", _TS),
        ("spread", pa.float64()),  # price units of 1.0; null when a side is empty, as all that follow
        ("mid", pa.float64()),
        ("microprice", pa.float64()),
        ("imbalance_1", pa.float64()),  # (bid - ask) / (bid + ask) at the touch, -1..1
        ("imbalance_n", pa.float64()),  # the same over all levels
        # Size within that distance of the mid, units of 1.0.
        *((f"{side}_depth_{bps}bps", pa.float64()) for bps in BANDS_BPS for side in ("bid", "ask")),
        ("bid_depth", pa.float64()),  # size of all levels
        ("ask_depth", pa.float64()),
        ("ofi", pa.float64()),  # order-flow imbalance of the touch over (T - interval, T], as in FEATURES; units of 1.0
        ("realised_vol", pa.float64()),  # sqrt of the sum of squared log mid returns over (T - interval, T]
        ("changes", pa.int64()),  # of the touch in (T - interval, T]
    ]
)

TRADES = pa.schema(
    [
        ("ts_event", _TS),
        ("ts_recv", _TS),
        ("as_of", _TS),  # clock time at which it was known: its own, or that of a record before it where it came late
        ("publisher_id", pa.uint16()),
        ("instrument_id", pa.uint32()),
        ("symbol", _TEXT),
        ("price", pa.int64()),  # 1e-9
        ("size", pa.uint32()),
        ("side", _CHAR),  # aggressor: B bought, A sold, N not known
        ("side_method", _CHAR),  # feed, quote, tick, none
        ("order_id", pa.uint64()),
        ("flags", pa.uint8()),
        ("sequence", pa.uint32()),
        ("bid_px_00", pa.int64()),  # touch before the trade's event, UNDEF_PRICE when none
        ("ask_px_00", pa.int64()),
        ("bid_sz_00", pa.int64()),
        ("ask_sz_00", pa.int64()),
        ("status", _CHAR),  # of the book before the trade's event
        ("reason", _CHAR),
        ("status_since", _TS),
    ]
)
SIDE_METHODS = ("none", "feed", "quote", "tick")

BARS = pa.schema(
    [
        ("ts_event", _TS),  # time bars: inclusive start; others: as_of of the first trade
        ("ts_close", _TS),  # time bars: exclusive end; others: as_of of the last trade
        ("publisher_id", pa.uint16()),
        ("instrument_id", pa.uint32()),
        ("symbol", _TEXT),
        ("open", pa.int64()),  # 1e-9
        ("high", pa.int64()),
        ("low", pa.int64()),
        ("close", pa.int64()),
        ("volume", pa.int64()),  # traded size
        ("vwap", pa.int64()),  # 1e-9, rounded to nearest
        ("trades", pa.int64()),  # count
        ("buy_volume", pa.int64()),  # size bought by the aggressor
        ("sell_volume", pa.int64()),
        ("valid_share", pa.float64()),  # share of the bar's trades printed while the book was valid, 0..1
        ("status", _CHAR),  # worst status of its trades
        ("reason", _CHAR),  # of the first trade with that status
        ("status_since", _TS),  # of that trade
    ]
)

FEATURES = pa.schema(
    [
        ("ts_event", _TS),  # the grid time T
        ("as_of", _TS),
        ("age_ns", pa.int64()),
        ("publisher_id", pa.uint16()),
        ("instrument_id", pa.uint32()),
        ("symbol", _TEXT),
        ("status", _CHAR),
        ("reason", _CHAR),
        ("status_since", _TS),
        ("spread", pa.int64()),  # 1e-9; UNDEF_PRICE when a side is empty
        ("mid", pa.float64()),  # price units of 1.0; null when a side is empty
        ("microprice", pa.float64()),  # price units of 1.0: touch weighted by the opposite size
        ("imbalance_1", pa.float64()),  # (bid - ask) / (bid + ask) at the touch, -1..1
        ("imbalance_n", pa.float64()),  # the same over all levels of the grid's depth
        ("ofi", pa.int64()),  # order-flow imbalance over (T - interval, T], Cont, Kukanov, Stoikov (2014), eq. 2-4; size
        ("realised_vol", pa.float64()),  # sqrt of the sum of squared log mid returns over (T - interval, T]
        ("trades", pa.int64()),  # prints in (T - interval, T]
        ("volume", pa.int64()),  # size in (T - interval, T]
        ("signed_volume", pa.int64()),  # bought - sold by the aggressor in (T - interval, T]
        ("last_side", _CHAR),  # aggressor of the last trade at or before T
        ("last_side_method", _CHAR),
    ]
)


def published_schema(depth: int) -> pa.Schema:
    """Schema of the layer "published": books of a source that its vendor rebuilt from the same feed (mbp-N, bbo), as they stood."""
    head = [("ts_event", _TS), ("ts_recv", _TS), ("sequence", pa.uint32()), ("action", _CHAR), ("flags", pa.uint8())]
    return pa.schema(head + level_fields(depth))


# One row per resting order and checkpoint, a row group a checkpoint; where each one stands in the events is in the footer's facts.
CHECKPOINTS = pa.schema(
    [
        ("checkpoint", pa.int32()),  # position in the footer's list
        ("side", _CHAR),
        ("price", pa.int64()),  # 1e-9
        ("order_id", pa.uint64()),
        ("size", pa.int64()),
    ]
)

# Best bid and offer over all publishers of a symbol, a row at each change.
CBBO = pa.schema(
    [
        ("ts_event", _TS),  # venue time of the change
        ("ts_recv", _TS),
        ("symbol", _TEXT),
        ("bid_px", pa.int64()),  # 1e-9, UNDEF_PRICE when no publisher has a bid
        ("ask_px", pa.int64()),
        ("bid_sz", pa.int64()),  # summed over the publishers at that price
        ("ask_sz", pa.int64()),
        ("bid_ct", pa.uint32()),
        ("ask_ct", pa.uint32()),
        ("bid_venues", pa.list_(pa.uint16())),  # publisher ids at that price, ascending
        ("ask_venues", pa.list_(pa.uint16())),
        ("venues", pa.uint16()),  # publishers that count: those with a book that is not halted
        ("status", _CHAR),  # worst of all publishers seen on that day
        ("reason", _CHAR),
        ("status_since", _TS),
    ]
)

# One row per partition and truth that its source holds; one row of truth "none" where it holds none.
# snapshot: in mid-day, against the book that stood before it; opening: the snapshot that begins the day, against the closing book of the day
# before; published: a book that the vendor rebuilt from the same feed; fills: orders said to be filled, against the orders that rest;
# integrity: bid below ask after each event. The last one is no independent truth and does not count for a verdict.
TRUTHS = ("none", "snapshot", "opening", "published", "fills", "integrity")
VERDICTS = ("no_truth", "matched", "diverged")
_INTERVAL = pa.list_(pa.struct([("start", _TS), ("end", _TS)]))
CERTIFICATE = pa.schema(
    [
        ("dataset", pa.string()),
        ("date", pa.string()),
        ("symbol", pa.string()),
        ("publisher_id", pa.uint16()),
        ("instrument_id", pa.uint32()),
        ("truth", pa.string()),  # one of TRUTHS
        ("source", pa.string()),  # the file the truth stands in, and of what kind it is
        ("verdict", pa.string()),  # one of VERDICTS
        ("states_compared", pa.int64()),
        ("states_matched", pa.int64()),
        ("levels_compared", pa.int64()),
        ("levels_matched", pa.int64()),
        ("first_compared", _TS),  # clock times of the first and last state compared
        ("last_compared", _TS),
        ("last_good", _TS),  # of the last state that matched before the first divergence
        ("diverged_at", _TS),  # first divergence: its time, and what was found where; all null when there is none
        ("sequence", pa.int64()),
        ("side", pa.string()),
        ("level", pa.int32()),  # 0 at the touch
        ("expected_px", pa.int64()),
        ("expected_sz", pa.int64()),
        ("expected_ct", pa.int64()),
        ("found_px", pa.int64()),
        ("found_sz", pa.int64()),
        ("found_ct", pa.int64()),
        ("wrong", _INTERVAL),  # spans in which the book was not what the truth says: (last good, next good]; the first WRONG_SPANS of them
        ("wrong_spans", pa.int64()),  # how many there are
        ("detail", pa.string()),
    ]
)
WRONG_SPANS = 1_000

QUARANTINE = pa.schema(
    [
        ("stage", pa.string()),  # decode, or the gate that set it aside
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("source", pa.string()),  # file name as scanned
        ("fingerprint", pa.string()),
        ("byte_offset", pa.int64()),  # in the decompressed stream; -1 when the format has none (Parquet)
        ("source_row", pa.int64()),  # 0-based data row in the source
        ("event_row", pa.int64()),  # row of the events file before which it stood; -1 when its partition is not known
        ("symbol", pa.string()),
        ("raw", pa.binary()),  # the bytes as they stood (a CSV line, a DBN record, a Parquet row as JSON)
    ]
)

# One row per source and partition of a decode (layer "sources"); its presence says that the decode of that source is complete.
SOURCES = pa.schema(
    [
        ("source", pa.string()),
        ("fingerprint", pa.string()),
        ("format", pa.string()),
        ("dataset", pa.string()),
        ("date", pa.string()),  # YYYY-MM-DD; "" on the row that carries what belongs to no partition
        ("symbol", pa.string()),
        ("publisher_id", pa.uint16()),
        ("instrument_id", pa.uint32()),
        ("path", pa.string()),  # events file relative to the lake; "" when no row of it was kept
        ("rows_in", pa.int64()),
        ("rows_out", pa.int64()),
        ("rows_filtered", pa.int64()),
        ("rows_quarantined", pa.int64()),
        ("first_ts", _TS),  # ts_recv of the first and last kept row
        ("last_ts", _TS),
    ]
)

# One row per partition and stage: rows_in = rows_out + rows_filtered + rows_quarantined holds in each (rows_in of
# reconstruct counts events; what its outputs hold is in `counts`).
LEDGER = pa.schema(
    [
        ("dataset", pa.string()),
        ("date", pa.string()),
        ("symbol", pa.string()),
        ("publisher_id", pa.uint16()),
        ("instrument_id", pa.uint32()),
        ("stage", pa.string()),  # decode, reconstruct, aggregate, gate:<table>
        ("rows_in", pa.int64()),
        ("rows_out", pa.int64()),
        ("rows_filtered", pa.int64()),
        ("rows_quarantined", pa.int64()),
        ("status", pa.string()),  # ok, warn, blocked
        ("counts", pa.string()),  # JSON object of counters, e.g. anomalies, crossed event ends, rows per output
    ]
)


def char_codes(values: tuple[str, ...]) -> np.ndarray:
    """uint8[len(values)] ASCII codes of one-letter values."""
    return np.frombuffer("".join(values).encode("ascii"), np.uint8).copy()


def char_index(values: tuple[str, ...]) -> np.ndarray:
    """int8[256]: ASCII code -> position in `values`, -1 for any other code."""
    table = np.full(256, -1, np.int8)
    table[char_codes(values)] = np.arange(len(values), dtype=np.int8)
    return table
