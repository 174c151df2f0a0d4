"""The lake as SQL: the views hold exactly the rows of the files, prices are exact, and nothing can be written or read beside the lake."""

from __future__ import annotations

import shutil
from collections import Counter
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.errors import StorageError, UsageError
from tasks.partitions import Partition, Stamp
from tasks.publishing import views
from tasks.schemas import BOOK_HEAD, UNDEF_PRICE, books_schema
from tasks.storage import write_table
from tests.unit.test_book_rows import book, head_of, level_names, packed_table, with_columns

PARTITIONS = [
    Partition("GLBX.MDP3", "2023-12-25", "ESH4", 1, 17),
    Partition("GLBX.MDP3", "2023-12-26", "ESH4", 1, 17),
    Partition("X'NAS/1", "2023-12-26", "0005/b c", 2, 5),
]


@pytest.fixture
def lake(tmp_path):
    for i, partition in enumerate(PARTITIONS):
        for layer, n in (("bbo", 100 + i), ("mbp-10-1s", 10 + i), ("ohlcv-1s", i + 1)):
            symbols = pa.array([partition.symbol] * n).dictionary_encode()
            price = np.full(n, 4_810_250_000_001)
            price[0] = UNDEF_PRICE
            table = pa.table({"ts_event": np.arange(n), "symbol": symbols, "bid_px_00": price})
            write_table(tmp_path / "lake" / partition.path(layer), table, Stamp("i", "r"))
    broken = tmp_path / "lake" / PARTITIONS[0].path("bbo")
    broken.with_name(f".{broken.name}.123-abc.partial").write_bytes(b"half a file")
    broken.with_name(".hidden.parquet").write_bytes(b"half a file")
    return tmp_path / "lake"


def test_views_hold_as_many_rows_as_pyarrow_counts(lake):
    for layer, files in views.layers(lake).items():
        expected = sum(pq.read_metadata(f).num_rows for f in files)
        for name in (f'"{layer}"', views.alias(layer)):
            assert views.query(lake, f"SELECT count(*) AS n FROM {name}")["n"].to_pylist() == [expected]
    assert list(views.layers(lake)) == ["bbo", "mbp-10-1s", "ohlcv-1s"]


def test_dataset_and_date_come_from_the_path_and_symbol_from_the_data(lake):
    sql = "SELECT dataset, date::VARCHAR AS date, symbol, count(*) AS n FROM bbo GROUP BY ALL ORDER BY ALL"
    found = [tuple(row.values()) for row in views.query(lake, sql).to_pylist()]
    assert found == [(p.dataset, p.date, p.symbol, 100 + i) for i, p in enumerate(PARTITIONS)]


@pytest.mark.parametrize("linked", ["bbo", "bbo/dataset=GLBX.MDP3"])
def test_a_folder_of_the_lake_may_be_a_link_to_another_disk(linked, lake, tmp_path):
    before = views.query(lake, "SELECT dataset, count(*) AS n FROM bbo GROUP BY ALL ORDER BY ALL").to_pylist()
    (tmp_path / "disk").mkdir()
    shutil.move(lake / linked, tmp_path / "disk" / "moved")
    (lake / linked).symlink_to(tmp_path / "disk" / "moved")
    assert views.query(lake, "SELECT dataset, count(*) AS n FROM bbo GROUP BY ALL ORDER BY ALL").to_pylist() == before
    with pytest.raises(UsageError, match="Permission"):
        views.query(lake, f"SELECT * FROM read_parquet('{tmp_path}/disk/**/*.parquet')")


def test_the_name_of_a_lake_may_have_wildcards_and_means_no_neighbour(lake, tmp_path):
    wanted = views.query(lake, "SELECT count(*) AS n FROM bbo").to_pylist()
    shutil.copytree(lake, tmp_path / "lake1")
    lake.rename(tmp_path / "lake[1]")
    for partition in PARTITIONS[1:]:
        (tmp_path / "lake1" / partition.path("bbo")).unlink()
    assert views.query(tmp_path / "lake[1]", "SELECT count(*) AS n FROM bbo").to_pylist() == wanted


def test_a_filter_on_the_date_leaves_the_other_files_unread(lake):
    with views.open_lake(lake, threads=1, memory_bytes=256 * 2**20) as connection:
        plan = connection.execute("EXPLAIN ANALYZE SELECT sum(ts_event) FROM bbo WHERE date = '2023-12-25'").fetchall()[0][1]
    assert "Scanning Files: 1/3" in plan


def test_prices_are_exact_decimals_and_null_where_not_set(lake):
    sql = "SELECT DISTINCT price(bid_px_00) AS p, price_f(bid_px_00) AS f FROM bbo ORDER BY p NULLS FIRST"
    assert views.query(lake, sql).to_pylist() == [{"p": None, "f": None}, {"p": Decimal("4810.250000001"), "f": 4810.250000001}]
    largest = views.query(lake, "SELECT price($1::BIGINT) AS p", parameters=[UNDEF_PRICE - 1])
    assert largest["p"].to_pylist() == [Decimal("9223372036.854775806")]


def test_values_travel_as_parameters(lake):
    sql = "SELECT count(*) AS n FROM bbo WHERE symbol = ?"
    assert views.query(lake, sql, parameters=["0005/b c"])["n"].to_pylist() == [102]
    assert views.query(lake, sql, parameters=["x' OR 1=1 --"])["n"].to_pylist() == [0]


@pytest.mark.parametrize(
    "sql",
    [
        "COPY (SELECT 1) TO '{lake}/x.parquet'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{lake}/x.parquet'",
        "CREATE TABLE t AS SELECT 1",
        "SET enable_external_access = true",
        "SELECT 1; SELECT 2",
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM read_parquet('{lake}/../outside.parquet')",
        "SELECT * FROM nothing_of_that_name",
        "SELEC 1",
    ],
)
def test_only_a_query_over_the_lake_is_answered(lake, sql):
    pq.write_table(pa.table({"a": [1]}), lake.parent / "outside.parquet")
    before = sorted(lake.rglob("*"))
    with pytest.raises(UsageError):
        views.query(lake, sql.format(lake=lake))
    assert sorted(lake.rglob("*")) == before


def test_settings_of_an_open_lake_are_locked(lake):
    import duckdb

    with views.open_lake(lake) as connection, pytest.raises(duckdb.Error):
        connection.execute("SET enable_external_access = true")


def test_no_lake_is_said_so_and_an_empty_one_has_no_views(tmp_path):
    with pytest.raises(StorageError, match="no lake"):
        views.query(tmp_path / "absent", "SELECT 1")
    assert views.query(tmp_path, "SELECT 1 AS one")["one"].to_pylist() == [1]


DEPTH = 10
BOOK_COLUMNS = ["dataset", "date", *(name for name, _ in BOOK_HEAD), *level_names(DEPTH)]


def book_lake(lake, layouts):
    """A layer mbp-10 with a partition for each of `layouts`, and its rows as the views should give them: times as int64 ns."""
    expected: dict[str, list] = {name: [] for name in BOOK_COLUMNS}
    for i, (partition, layout) in enumerate(zip(PARTITIONS, layouts, strict=True)):
        levels, head = book(DEPTH, 20 + i, seed=i), head_of(20 + i)
        table = packed_table(levels, head, DEPTH) if layout == "packed" else with_columns(levels, head)
        write_table(lake / partition.path("mbp-10"), table, Stamp("i", "r"))
        expected["dataset"] += [partition.dataset] * (20 + i)
        expected["date"] += [partition.date] * (20 + i)
        for name in head.column_names:
            column = head[name]
            expected[name] += (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
        for name in level_names(DEPTH):
            expected[name] += levels[name]
    return lake, expected


def plain(table):
    """name -> values; times as int64 ns, dates as text."""
    found = {}
    for name in table.column_names:
        column = table[name]
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.int64())
        found[name] = (column.cast(pa.string()) if pa.types.is_date(column.type) else column).to_pylist()
    return found


LAYOUTS = [("packed",) * 3, ("columns", "packed", "packed"), ("packed", "columns", "columns"), ("packed", "packed", "columns"), ("columns",) * 3]
mixed = pytest.mark.parametrize("layouts", LAYOUTS, ids="-".join)


@mixed
def test_books_at_event_ends_are_seen_as_columns_whichever_way_their_files_are_written(tmp_path, layouts):
    lake, expected = book_lake(tmp_path / "lake", layouts)
    for view in ('"mbp-10"', "mbp_10"):
        table = views.query(lake, f"SELECT * FROM {view} ORDER BY dataset, date, ts_event")
        assert table.column_names == BOOK_COLUMNS
        assert plain(table) == expected
    declared = books_schema(DEPTH)
    assert [table.schema.field(name).type for name in level_names(DEPTH)] == [declared.field(name).type for name in level_names(DEPTH)]


@mixed
def test_columns_of_books_at_event_ends_are_found_by_name_and_in_conditions(tmp_path, layouts):
    lake, expected = book_lake(tmp_path / "lake", layouts)
    backwards = BOOK_COLUMNS[::-1]
    table = views.query(lake, f"SELECT {', '.join(backwards)} FROM mbp_10 ORDER BY dataset, date, ts_event")
    assert table.column_names == backwards
    assert plain(table) == expected

    empty = sum(px == UNDEF_PRICE for px in expected["ask_px_09"])
    assert views.query(lake, f"SELECT count(*) AS n FROM mbp_10 WHERE ask_px_09 = {UNDEF_PRICE}")["n"].to_pylist() == [empty]
    assert views.query(lake, "SELECT count(*) AS n FROM mbp_10 WHERE price(ask_px_09) IS NULL")["n"].to_pylist() == [empty]
    counts = views.query(lake, "SELECT date::VARCHAR AS d, sum(bid_ct_04)::BIGINT AS n FROM mbp_10 GROUP BY d ORDER BY d").to_pylist()
    by_date: Counter[str] = Counter()
    for date, count in zip(expected["date"], expected["bid_ct_04"], strict=True):
        by_date[date] += count
    assert counts == [{"d": date, "n": n} for date, n in sorted(by_date.items())]


def test_the_packed_column_is_not_seen_in_a_view(tmp_path):
    lake, _ = book_lake(tmp_path / "lake", LAYOUTS[1])
    with pytest.raises(UsageError, match="levels"):
        views.query(lake, "SELECT levels FROM mbp_10")
