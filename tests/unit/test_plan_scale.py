"""A plan over a generated catalog: as many partitions as a large archive has, every one of them judged, and the few that differ found.

TEST_PLAN_PARTITIONS=1000000 with `-m campaign -s` prints what a million partitions take; the numbers in freshness.py are from there.
"""

from __future__ import annotations

import os
import time
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest

from flows.plan import _table
from tasks.partitions import digest
from tasks.publishing.freshness import FAILED, GIVEN, WANTED, Orders, judge_orders
from tasks.publishing.freshness_catalog import CATALOG, mark_of, take_catalog
from tasks.schemas import CODE_VERSION

OPTIONS = Orders("events", {"": "books"})
BOOKS = ["bbo", "closing_book", "mbp-10", "mbp-10-1s", "trades", "opening_book", "checkpoints"]
DERIVED = ["ohlcv-1s", "ohlcv-1m", "features-1s"]


def catalog_of(days: int, symbols: int, books: list[str], derived: list[str]) -> tuple[pa.Table, pa.Table]:
    """(catalog, sources) of an archive that is done: one source a day, a book that goes on from the day before for every second symbol."""
    dates = [(date(2000, 1, 1) + timedelta(d)).isoformat() for d in range(days)]
    names = [f"S{s:05}" for s in range(symbols)]
    n = days * symbols
    fingerprints = [f"xxh3:{digest(day)}{digest([day])}" for day in dates]
    shorts = [f.split(":")[1][:10] for f in fingerprints]
    stamps = [f'["{f}","events","{CODE_VERSION}"]' for f in fingerprints]
    inputs, carries = [], []
    before: list[str] = []
    for day in range(days):
        now = []
        for s in range(symbols):
            carried = day > 0 and s % 2 == 0
            text = f"[{stamps[day]},{before[s]}]" if carried else f"[{stamps[day]}]"
            made = _digest(text)
            inputs.append(made)
            now.append(f'["{made}","books","{CODE_VERSION}"]')
            carries.append("closing" if carried else "")
        before = now
    above = [_digest(f'["{i}","books"]') for i in inputs]
    day_of = pa.DictionaryArray.from_arrays(np.repeat(np.arange(days, dtype=np.int32), symbols), pa.array(dates)).cast(pa.string())
    symbol_of = pa.DictionaryArray.from_arrays(np.tile(np.arange(symbols, dtype=np.int32), days), pa.array(names)).cast(pa.string())
    source_of = pa.DictionaryArray.from_arrays(np.repeat(np.arange(days, dtype=np.int32), symbols), pa.array(shorts)).cast(pa.string())
    fingerprint_of = pa.DictionaryArray.from_arrays(np.repeat(np.arange(days, dtype=np.int32), symbols), pa.array(fingerprints)).cast(pa.string())
    tables = []
    for layer in ["events", *books, *derived]:
        plain = {"layer": layer, "dataset": "X", "recipe": "books" if layer in books else layer, "code": CODE_VERSION, "source": "", "carry": "",
                 "name": "", "mark": "", "made_of": "", "left_out": "", "wanted": ""}  # fmt: skip
        columns = {name: pa.repeat(pa.scalar(value), n) for name, value in plain.items()}
        columns |= {f.name: pa.repeat(pa.scalar(0, f.type), n) for f in CATALOG if f.type == pa.int64()}
        columns |= {"date": day_of, "symbol": symbol_of, "unclear": pa.repeat(pa.scalar(False), n), "inputs": pa.array(inputs)}
        columns["path"] = pa.compute.binary_join_element_wise(columns["layer"], day_of, symbol_of, "/")
        if layer == "events":
            columns |= {"inputs": fingerprint_of, "source": source_of}
        elif layer == "bbo":
            columns["carry"] = pa.array(carries)
        elif layer in derived:
            columns["inputs"] = pa.array(above)
        tables.append(pa.table({name: columns[name] for name in CATALOG.names}, schema=CATALOG))
    accounts = [
        {
            **{f.name: "" if f.type == pa.string() else 0 for f in CATALOG}, "unclear": False, "path": f"sources/{short}", "layer": "sources",
            "dataset": "X", "source": short, "inputs": fingerprint, "recipe": "decode", "code": CODE_VERSION, "name": f"{day}.dbn",
            "mark": mark_of(sorted((f"events/{day}/{name}", fingerprint, 0) for name in names)),
        }
        for day, short, fingerprint in zip(dates, shorts, fingerprints, strict=True)
    ]  # fmt: skip
    given = [(i, "X", shorts[i], f"{dates[i]}.dbn", fingerprints[i], dates[i], dates[i], "", "", "", "decode") for i in range(days)]
    return pa.concat_tables([*tables, pa.Table.from_pylist(accounts, CATALOG)]), _table(given, GIVEN)


def _digest(text: str) -> str:
    import hashlib

    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def wanted(books: list[str], derived: list[str]) -> pa.Table:
    return _table([*((layer, "book", "", "") for layer in books), *((layer, "derived", layer, "") for layer in derived)], WANTED)


def judge(files: pa.Table, given: pa.Table, books: list[str], derived: list[str]):
    return judge_orders(files, given, wanted(books, derived), _table([], FAILED), OPTIONS, lambda path: pytest.fail("the footers tell"))


def test_every_partition_of_a_large_catalog_is_judged_and_what_differs_is_found():
    days, symbols = 40, 250
    files, given = catalog_of(days, symbols, BOOKS, DERIVED)
    n = days * symbols
    plan = judge(files, given, BOOKS, DERIVED)
    assert plan.counts() == {"done": n * (1 + len(BOOKS) + len(DERIVED))}
    assert plan.todo() == []
    # The bars of one partition are gone; of another the trades were made by older code; and one book has other inputs.
    paths = np.array(files["path"].to_pylist(), object)
    gone = paths == "ohlcv-1s/2000-01-05/S00007"
    code = files["code"].to_pylist()
    code[int(np.flatnonzero(paths == "trades/2000-02-09/S00001")[0])] = "1"
    inputs = files["inputs"].to_pylist()
    inputs[int(np.flatnonzero(paths == "mbp-10/2000-02-05/S00002")[0])] = "other"
    files = files.set_column(files.schema.get_field_index("code"), "code", pa.array(code))
    files = files.set_column(files.schema.get_field_index("inputs"), "inputs", pa.array(inputs)).filter(pa.array(~gone))
    plan = judge(files, given, BOOKS, DERIVED)
    assert [(r["date"], r["symbol"], r["layer"]) for r in plan.rows(states=["missing"])] == [("2000-01-05", "S00007", "ohlcv-1s")]
    # With its trades the bars and features of that day; the book itself is read from events.
    assert {(r["date"], r["symbol"], r["layer"]) for r in plan.rows(states=["stale: code"])} == {
        ("2000-02-09", "S00001", layer) for layer in ("trades", *DERIVED)
    }
    # A book that goes on from the day before is made anew with it, up to the last day.
    days_left = {r["date"] for r in plan.rows(states=["stale: source"], symbols=["S00002"])}
    assert days_left == {f"2000-02-0{d}" for d in range(5, 10)}
    assert [entry["first_date"] for entry in plan.todo()] == ["2000-01-05", *sorted(days_left)]


def test_a_listing_is_compared_with_the_cache_and_only_new_files_are_read(tmp_path, monkeypatch):
    from tasks.partitions import Partition, Stamp
    from tasks.publishing import freshness_catalog
    from tasks.storage import write_table

    table = pa.table({"n": [1, 2]})
    days = [Partition("X", f"2025-01-{d:02}", f"S{s}", 1, s) for d in range(1, 11) for s in range(5)]
    for partition in days:
        write_table(tmp_path / partition.path("bbo"), table, Stamp(str(partition), "r"), {"carry": None, "statuses": {}})
    assert len(take_catalog(tmp_path)) == len(days)
    read: list[str] = []
    whole = freshness_catalog.read_footer
    monkeypatch.setattr(freshness_catalog, "read_footer", lambda path: read.append(path.name) or whole(path))
    write_table(tmp_path / days[3].path("bbo"), table, Stamp("other", "r"))
    (tmp_path / days[4].path("bbo")).unlink()
    again = take_catalog(tmp_path)
    assert (len(again), len(read)) == (len(days) - 1, 1)
    assert "other" in again["inputs"].to_pylist()
    # Deleted, cut short or of another kind, the cache is made anew.
    for content in (None, b"", b"PAR1 is how it begins"):
        cache = tmp_path / ".plan" / "catalog.parquet"
        cache.unlink() if content is None else cache.write_bytes(content)
        assert take_catalog(tmp_path).sort_by("path").equals(again.sort_by("path"))
    # A plan of some layers and days forgets nothing of the others.
    assert len(take_catalog(tmp_path, layers=["bbo"], start="2025-01-09")) == 10
    read.clear()
    assert (len(take_catalog(tmp_path)), read) == (len(days) - 1, [])


@pytest.mark.campaign
def test_a_million_partitions_are_planned_in_seconds(capsys):
    n = int(os.environ.get("TEST_PLAN_PARTITIONS", "1000000"))
    for books, derived in ((["bbo", "closing_book"], []), (BOOKS, DERIVED)):
        days = 500
        partitions = n if not derived else n // 10
        files, given = catalog_of(days, partitions // days, books, derived)
        start, work = time.perf_counter(), time.process_time()
        plan = judge(files, given, books, derived)
        counts = plan.counts()
        seconds, cpu = time.perf_counter() - start, time.process_time() - work
        with capsys.disabled():
            print(f"\n{partitions:,} partitions, {len(files):,} files: {seconds:.1f} s, of one core {cpu:.1f} s")
        assert set(counts) == {"done"}
