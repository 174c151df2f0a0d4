"""Packed book rows read back: by DuckDB, as columns, as tables and as arrays, always the numbers that `struct` packed.

No input is made by tasks/book_rows.py, whose readers are judged here; other tests build their packed files with `packed_table`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.book_rows import (
    LEVELS,
    as_read,
    cell,
    cell_sql,
    depth_of,
    empty_levels,
    levels_of,
    packed_schema,
    read_rows,
    read_table,
    star_sql,
    unpack,
    unpacked,
    with_cells,
)
from tasks.schemas import BOOK_HEAD, UNDEF_PRICE, books_schema

EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "60"))
FILES = max(1, EXAMPLES // 2)  # examples that write files
SIDES, KINDS = ("bid", "ask"), {"px": "q", "sz": "q", "ct": "I"}
EXTREMES = {"px": (UNDEF_PRICE - 1, -(2**63), -1, 0), "sz": (2**63 - 1, -(2**63), -1, 1), "ct": (2**32 - 1, 2**31, 1, 256)}


def level_names(depth: int) -> list[str]:
    """bid_px_00, ask_px_00, bid_sz_00, ..., written out once more."""
    return [f"{side}_{kind}_{level:02d}" for level in range(depth) for kind in KINDS for side in SIDES]


def struct_packed(columns: Mapping[str, Sequence[int]], depth: int) -> list[bytes]:
    """The rows of level columns as README lays `levels` out: all prices, all sizes, all counts, by level from the touch, bid before ask."""
    layout = struct.Struct(f">{2 * depth}q{2 * depth}q{2 * depth}I")
    order = [f"{side}_{kind}_{level:02d}" for kind in KINDS for level in range(depth) for side in SIDES]
    return [layout.pack(*row) for row in zip(*(columns[name] for name in order), strict=True)]


def packed_table(columns: Mapping[str, Sequence[int]], head: pa.Table, depth: int) -> pa.Table:
    """`head` with the level columns packed beside it, as a book layer at event ends stores them."""
    column = pa.array(struct_packed(columns, depth), pa.binary(40 * depth))
    schema = pa.schema([*head.schema, pa.field("levels", column.type, nullable=False)])
    return pa.table([*head.columns, column], schema=schema)


def book(depth: int, n: int, seed: int) -> dict[str, list[int]]:
    """n rows of level columns: any numbers, extreme ones, and empty levels at any place; most of them differ from all others."""
    random = np.random.default_rng(seed)
    limits = {"px": (-(2**63), UNDEF_PRICE), "sz": (-(2**63), 2**63), "ct": (0, 2**32)}  # half-open
    found = {}
    for name in level_names(depth):
        kind = name[4:6]
        values = random.integers(*limits[kind], n, np.uint64 if kind == "ct" else np.int64).tolist()
        found[name] = [EXTREMES[kind][random.integers(4)] if random.random() < 0.2 else value for value in values]
    for level in range(depth):
        for side in SIDES:
            for row in np.flatnonzero(random.random(n) < 0.2).tolist():
                for kind, value in (("px", UNDEF_PRICE), ("sz", 0), ("ct", 0)):
                    found[f"{side}_{kind}_{level:02d}"][row] = value
    return found


def head_of(n: int) -> pa.Table:
    """The other columns of n rows, no two rows alike."""
    arrays = []
    for name, kind in BOOK_HEAD:
        if pa.types.is_dictionary(kind):
            arrays.append(pa.array([f"{name} {k % 3}" for k in range(n)], pa.string()).dictionary_encode().cast(kind))
        else:
            arrays.append(pa.array(range(len(name), len(name) + n), pa.int64()).cast(kind))
    return pa.table(arrays, schema=pa.schema(BOOK_HEAD))


def with_columns(columns: Mapping[str, Sequence[int]], head: pa.Table) -> pa.Table:
    """The same rows as earlier versions wrote them: a column for every level."""
    schema = books_schema(len(columns) // 6)
    return pa.table([*head.columns, *(pa.array(columns[name], schema.field(name).type) for name in level_names(len(columns) // 6))], schema=schema)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("rows")


@pytest.fixture(scope="module")
def connection():
    with duckdb.connect() as connection:
        connection.execute("SET threads = 2")
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


class Written:
    """A random book in two files, packed and as columns, and what is in them."""

    def __init__(self, folder: Path, depth: int, n: int, seed: int, row_group: int) -> None:
        self.depth, self.n = depth, n
        self.levels, self.head = book(depth, n, seed), head_of(n)
        self.packed, self.columns = folder / "packed.parquet", folder / "columns.parquet"
        pq.write_table(packed_table(self.levels, self.head, depth), self.packed, row_group_size=row_group, use_dictionary=seed % 2 == 0)
        pq.write_table(with_columns(self.levels, self.head), self.columns, row_group_size=row_group)
        self.names = [name for name, _ in BOOK_HEAD] + level_names(depth)

    def expected(self, name: str) -> list:
        return self.levels[name] if name in self.levels else self.head[name].to_pylist()


sizes = {"depth": st.integers(1, 12), "n": st.integers(1, 40), "seed": st.integers(0, 2**32 - 1), "row_group": st.integers(1, 50)}


@settings(max_examples=FILES, deadline=None)
@given(**sizes)
def test_duckdb_reads_every_level_of_a_packed_file(folder, connection, depth, n, seed, row_group):
    made = Written(folder, depth, n, seed, row_group)
    reading = f"FROM read_parquet('{made.packed}', hive_partitioning = false)"
    cells = connection.execute(f"SELECT {', '.join(cell_sql(name, depth) for name in level_names(depth))} {reading}").fetchall()
    assert [list(values) for values in zip(*cells, strict=True)] == [made.levels[name] for name in level_names(depth)]

    star = connection.sql(f"SELECT {star_sql(pq.read_schema(made.packed))} {reading}").to_arrow_table()
    assert star.column_names == made.names
    for name in level_names(depth):
        assert star[name].to_pylist() == made.levels[name]
        assert star.schema.field(name).type == (pa.uint32() if "_ct_" in name else pa.int64())
    assert star["sequence"].to_pylist() == made.expected("sequence")
    assert star_sql(pq.read_schema(made.columns)) == "*"


@settings(max_examples=FILES, deadline=None)
@given(data=st.data(), batch_rows=st.sampled_from([1, 3, 7, 32_768]), **sizes)
def test_readers_give_any_columns_in_any_order_whichever_way_the_file_is_written(folder, data, batch_rows, depth, n, seed, row_group):
    made = Written(folder, depth, n, seed, row_group)
    wanted = data.draw(st.one_of(st.none(), st.lists(st.sampled_from(made.names), min_size=1, max_size=8, unique=True)))
    names = made.names if wanted is None else wanted
    read = {}
    for path in (made.packed, made.columns):
        batches = list(read_rows(path, wanted, batch_rows))
        assert all(0 < batch.num_rows <= batch_rows for batch in batches)
        table = pa.Table.from_batches(batches)
        assert table.column_names == names
        for name in names:
            assert table[name].to_pylist() == made.expected(name), (path.name, name)
        read[path] = read_table(path, wanted)
        assert read[path].to_pydict() == table.to_pydict()
    assert read[made.packed].schema == read[made.columns].schema
    declared = books_schema(depth)
    assert [read[made.packed].schema.field(name).type for name in level_names(depth) if name in names] == [
        declared.field(name).type for name in level_names(depth) if name in names
    ]


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data(), depth=st.integers(1, 12), n=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
def test_a_slice_of_an_array_is_unpacked_from_its_own_first_row(data, depth, n, seed):
    levels = book(depth, n, seed)
    first = data.draw(st.integers(0, n), "first")
    rows = data.draw(st.integers(0, n - first), "rows")
    names = data.draw(st.permutations(level_names(depth)))
    array = pa.array(struct_packed(levels, depth), pa.binary(40 * depth)).slice(first, rows)
    expected = {name: levels[name][first : first + rows] for name in names}
    for name, values in zip(names, unpacked(array, names), strict=True):
        assert values.to_pylist() == expected[name]
        assert values.type == (pa.uint32() if "_ct_" in name else pa.int64())
    batch = pa.record_batch([pa.array(range(n)).slice(first, rows), array], names=["k", "levels"])
    again = unpack(batch, [names[0], "k", names[-1], "levels"])
    assert again.column_names == [names[0], "k", names[-1], "levels"]
    assert [column.to_pylist() for column in again.columns] == [
        expected[names[0]], list(range(first, first + rows)), expected[names[-1]], array.to_pylist(),
    ]  # fmt: skip


@settings(max_examples=EXAMPLES, deadline=None)
@given(depth=st.integers(1, 12), n=st.integers(0, 40), seed=st.integers(0, 2**32 - 1))
def test_arrays_of_levels_are_by_row_side_and_level(depth, n, seed):
    levels = book(depth, n, seed)
    words = np.frombuffer(b"".join(struct_packed(levels, depth)), np.int64).reshape(n, 5 * depth)
    for kind, values in zip(KINDS, levels_of(words), strict=True):
        assert (values.shape, values.dtype, values.flags.c_contiguous) == ((n, 2, depth), np.int64, True)
        for s, side in enumerate(SIDES):
            assert values[:, s].T.tolist() == [levels[f"{side}_{kind}_{level:02d}"] for level in range(depth)]
    if n > 2:  # rows out of a larger buffer
        assert [v.tolist() for v in levels_of(words[1:-1])] == [v[1:-1].tolist() for v in levels_of(words)]


@pytest.mark.parametrize("depth", range(1, 13))
def test_a_row_without_a_level_has_no_price_anywhere(depth):
    levels = {name: [UNDEF_PRICE if "_px_" in name else 0] for name in level_names(depth)}
    words = empty_levels(depth)
    assert (words.dtype, words.tobytes()) == (np.int64, struct_packed(levels, depth)[0])


@pytest.mark.parametrize("depth", [1, 10, 12, 100])
def test_schemas_name_and_type_the_columns_of_the_layer(depth):
    stored = packed_schema(depth)
    assert stored.names == [name for name, _ in BOOK_HEAD] + ["levels"]
    assert stored.field("levels") == pa.field("levels", pa.binary(40 * depth), nullable=False)
    assert [stored.field(name).type for name, _ in BOOK_HEAD] == [kind for _, kind in BOOK_HEAD]
    assert depth_of(stored) == depth
    assert as_read(stored) == books_schema(depth)


def test_a_schema_with_columns_is_read_as_it_is():
    other = pa.schema([("levels", pa.int64()), ("bid_px_00", pa.int64())])
    for schema in (books_schema(10), other, pa.schema([("levels", pa.binary())])):
        assert depth_of(schema) == 0
        assert as_read(schema) is schema
        assert star_sql(schema) == "*"


def test_the_sql_of_a_level_stands_beside_its_field_and_beside_no_other():
    declared = books_schema(4)
    found = with_cells(declared, 3)
    assert found == declared
    told = {field.name: field.metadata[b"sql"].decode() for field in found if field.metadata}
    assert told == {name: cell_sql(name, 3) for name in level_names(3)}


@pytest.mark.parametrize("name", ["bid_px_03", "ask_ct_10", "mid_px_00", "bid_pt_00", "sequence", "levels", "bid_px", "xbid_px_00", "bid_px_00 "])
def test_a_name_that_is_no_level_of_the_row_is_refused(folder, name):
    with pytest.raises(ValueError, match="is no level column of 3 levels"):
        cell_sql(name, 3)
    assert cell(name, 3) is None
    if name in ("sequence", "levels"):
        return
    made = Written(folder, 3, 5, 1, 5)
    for path in (made.packed, made.columns):
        with pytest.raises(KeyError, match=name):
            list(read_rows(path, ["sequence", name]))
        with pytest.raises(KeyError, match=name):
            read_table(path, [name, "bid_px_00"])


@pytest.mark.parametrize("layout", ["packed", "columns"])
@pytest.mark.parametrize("wanted", [None, ["ask_ct_02", "status", "bid_px_00"]])
def test_a_file_without_rows_is_an_empty_table_with_the_columns_asked_for(tmp_path, layout, wanted):
    none: dict[str, list[int]] = {name: [] for name in level_names(3)}
    table = packed_table(none, head_of(0), 3) if layout == "packed" else with_columns(none, head_of(0))
    pq.write_table(table, tmp_path / "none.parquet")
    assert sum(batch.num_rows for batch in read_rows(tmp_path / "none.parquet", wanted)) == 0
    found = read_table(tmp_path / "none.parquet", wanted)
    declared = books_schema(3)
    names = declared.names if wanted is None else wanted
    assert (found.num_rows, found.schema) == (0, pa.schema([declared.field(name) for name in names]))


def test_the_column_of_packed_rows_can_be_read_as_it_is(folder):
    made = Written(folder, 2, 9, 3, 4)
    assert read_table(made.packed, [LEVELS, "ask_sz_01"]).to_pydict() == {
        "levels": struct_packed(made.levels, 2), "ask_sz_01": made.levels["ask_sz_01"],
    }  # fmt: skip


def test_more_rows_than_a_batch_come_whole_and_in_order(tmp_path):
    """The default batch is smaller than a row group of the lake."""
    n = 70_000
    levels = {name: list(range(k * n, (k + 1) * n)) for k, name in enumerate(level_names(1))}
    head = pa.table({"sequence": pa.array(range(n), pa.uint32())})
    pq.write_table(packed_table(levels, head, 1), tmp_path / "long.parquet", row_group_size=65_536)
    batches = list(read_rows(tmp_path / "long.parquet", ["ask_ct_00", "sequence", "bid_sz_00"]))
    assert len(batches) > 1
    table = pa.Table.from_batches(batches)
    for name, expected in (("ask_ct_00", levels["ask_ct_00"]), ("sequence", list(range(n))), ("bid_sz_00", levels["bid_sz_00"])):
        assert table[name].to_pylist() == expected
