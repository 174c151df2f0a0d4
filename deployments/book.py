"""What the command line shows of one book: the ladder at an instant, the place of an order over its life, and the lives of all orders."""

from __future__ import annotations

import datetime
import json
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from tasks.errors import UsageError
from tasks.reconstruction.book_at import BookAt, book_at
from tasks.reconstruction.history import find_partition
from tasks.reconstruction.lifetimes import LIFETIMES, order_lifetimes
from tasks.reconstruction.queue_position import queue_position
from tasks.storage import atomic_file

# Which book, as the options say: publisher, dataset, instrument.
Choice = dict[str, Any]
_PRICES = ("price", "last_price")


def print_book(lake: Path, symbol: str, time: str, date: str, zone: str, depth: int, orders: bool, as_json: bool, choice: Choice) -> None:
    """The book of a symbol at a time, asks above bids. Raises UsageError for a time that cannot be read and for a book that is not there."""
    time_ns = _time_ns(time, date, zone)
    book = book_at(lake, find_partition(lake, symbol, time_ns, **choice), time_ns, depth=depth)
    if as_json:
        print(json.dumps(_object(book, orders), default=str))
    else:
        _print_ladder(book, orders)


def _time_ns(time: str, date: str, zone: str) -> int:
    from flows.options import parse_time

    text = time.strip()
    if text.isascii() and text.isdigit() and len(text) >= 16:  # ns since 1970; shorter ones are taken for years and days
        return int(text)
    if "-" not in text and ":" in text:
        if not date:
            raise UsageError(f"time is {time!r}, which has no date; give it with --date, or a whole time such as 2025-10-22T14:30:00.5")
        text = f"{_date(date)}T{text}"
    return parse_time(text, zone, "time")


def _date(text: str) -> str:
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        raise UsageError(f"date is {text!r}; allowed: YYYY-MM-DD, such as 2025-10-22") from None


def _iso(ns: int | None) -> str | None:
    return None if ns is None else f"{np.datetime64(ns, 'ns')}Z"


def _price(price: int, places: int = 9) -> str:
    """An exact decimal with at least `places` places."""
    exact = Decimal(price).scaleb(-9)
    return f"{exact:.{max(places, 9 - _zeros(price))}f}"


def _zeros(price: int) -> int:
    text = str(price)
    return 9 if price == 0 else min(9, len(text) - len(text.rstrip("0")))


def _object(book: BookAt, orders: bool) -> dict[str, Any]:
    levels = {side: [{"price": _price(p), "size": s, "orders": n} for p, s, n in rows] for side, rows in (("bids", book.bids), ("asks", book.asks))}
    partition = book.partition
    found = {
        "dataset": partition.dataset, "symbol": partition.symbol, "publisher_id": partition.publisher_id, "instrument_id": partition.instrument_id,
        "time": _iso(book.time_ns), "clock": book.clock, "as_of": _iso(book.as_of), "age_ns": book.age_ns, "sequence": book.sequence,
        "status": book.status, "reason": book.reason, "status_since": _iso(book.status_since), **levels,
    }  # fmt: skip
    return found | ({"orders": _plain(_shown(book)).to_pylist()} if orders else {})


def _shown(book: BookAt) -> pa.Table:
    """The orders of the levels that are shown."""
    table = book.orders()
    side, price = table["side"].cast(pa.string()), table["price"].to_numpy()
    bids, asks = ([level[0] for level in rows] for rows in (book.bids, book.asks))
    return table.filter(pa.array(np.where(side.to_numpy() == "B", np.isin(price, bids), np.isin(price, asks))))


def _print_ladder(book: BookAt, orders: bool) -> None:
    from rich.table import Table

    from deployments import screen

    console = screen.console()
    console.print(f"{book.partition} at {_iso(book.time_ns)} ({book.clock})", soft_wrap=True)
    if book.status != "valid":
        since = f" since {_iso(book.status_since)}" if book.status_since is not None else ""
        console.print(f"NOT VALID: {book.status.upper()}{since}, reason: {book.reason or 'none'}", style="bold red", soft_wrap=True)
    last = "no complete event before it" if book.as_of is None else f"as of {_iso(book.as_of)}, {_span(book.age_ns)} before, sequence {book.sequence}"
    console.print(f"{book.status}, {last}", soft_wrap=True)
    places = max((9 - _zeros(price) for price, *_ in (*book.bids, *book.asks)), default=2)
    table = Table(box=None, pad_edge=False)
    for name in ("", "price", "size", "orders"):
        table.add_column(name, justify="right")
    for side, rows in (("ask", book.asks[::-1]), ("bid", book.bids)):
        for price, size, count in rows:
            table.add_row(side, _price(price, max(places, 2)), f"{size:,}", f"{count:,}" if count else "-")
    console.print(table if table.row_count else "No levels.")
    if orders:
        queues = _plain(_shown(book))
        _show(queues, queues.num_rows + 1)


def _span(ns: float) -> str:
    """A time span in the unit that suits it."""
    for unit, size in (("d", 86_400e9), ("h", 3_600e9), ("min", 60e9), ("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if abs(ns) >= size:
            return f"{ns / size:,.3f} {unit}"
    return f"{ns:,.0f} ns"


def _plain(table: pa.Table) -> pa.Table:
    """Prices as exact decimals, words as text: what CSV and JSON can hold."""
    for i, field in enumerate(table.schema):
        column = table.column(i)
        if field.name in _PRICES:
            exact = column.cast(pa.decimal128(28, 0)).combine_chunks()
            chunks = exact.chunks if isinstance(exact, pa.ChunkedArray) else [exact]
            column = pa.chunked_array([chunk.view(pa.decimal128(28, 9)) for chunk in chunks], pa.decimal128(28, 9))
        elif pa.types.is_dictionary(field.type):
            column = column.cast(pa.string())
        table = table.set_column(i, field.name, column)
    return table


def _show(table: pa.Table, rows: int = 60) -> None:
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.from_arrow(table).show(max_width=250, max_rows=rows)


def print_queue(lake: Path, symbol: str, order_id: int, date: str, as_json: bool, csv: Path | None, choice: Choice) -> None:
    """The place of an order over its life: as a table, as JSON, or to a CSV file."""
    table = _plain(queue_position(lake, find_partition(lake, symbol, _date(date), **choice), order_id))
    if csv is not None:
        with atomic_file(csv) as file:
            pa.csv.write_csv(table, file)
        print(f"{csv}: {table.num_rows:,} rows")
    elif as_json:
        print(json.dumps(table.to_pylist(), default=str))
    else:
        _show(table)


def write_orders(lake: Path, symbol: str, date: str, out: Path, choice: Choice) -> None:
    """Write a row for every order of a partition to `out` (.parquet as in the lake, .csv with decimal prices) and print what they came to."""
    if out.suffix not in (".parquet", ".csv"):
        raise UsageError(f"out is {str(out)!r}; allowed: a name that ends in .parquet or .csv")
    partition = find_partition(lake, symbol, _date(date), **choice)
    batches = order_lifetimes(lake, partition)
    ends: Counter[str] = Counter()
    durations = [np.zeros(0, np.int64)]
    with atomic_file(out) as file:
        plain = _plain(LIFETIMES.empty_table()).schema
        writer = pq.ParquetWriter(file, LIFETIMES, compression="zstd") if out.suffix == ".parquet" else pa.csv.CSVWriter(file, plain)
        with writer:
            for batch in batches:
                table = pa.Table.from_batches([batch])
                writer.write_table(table if out.suffix == ".parquet" else _plain(table))
                for row in batch.column("end_reason").value_counts().to_pylist():
                    ends[row["values"]] += row["counts"]
                durations.append(batch.column("duration_ns").drop_null().to_numpy())
    known = np.concatenate(durations)
    print(f"{out}: {sum(ends.values()):,} orders of {partition}")
    for reason, count in ends.most_common():
        print(f"  {reason:<10} {count:>12,}")
    print(f"  median lifetime {_span(float(np.median(known)))} of {len(known):,} that ended" if len(known) else "  no lifetime is known")
    sys.stdout.flush()
