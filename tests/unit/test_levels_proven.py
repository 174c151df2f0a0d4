"""The rules on levels, packed and in columns. `proven` and SQL share the work; a row that neither of them sees is what these tests look for."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.schemas import UNDEF_PRICE, books_schema
from tests.unit.test_book_rows import level_names, struct_packed
from tests.unit.test_suites import TICK, N, Rows, empty, good_books, write, write_packed
from validation import level_columns, packed_levels, profile
from validation.gate import run_gate
from validation.rules import Context
from validation.suites import suite_of

DEPTH = 4
PLACES = [(side, level) for side in ("bid", "ask") for level in range(DEPTH)]
EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "150"))
Change = Callable[[Rows, int], None]  # of one row


def write_columns(path: Path, rows: Rows, depth: int, row_group_size: int = 5) -> Path:
    """Book rows as a grid has them: a column for each number of a level."""
    return write(path, rows, books_schema(depth), row_group_size)


def proven_of_columns(path: Path, depth: int, threads: int) -> set[str] | None:
    return level_columns.proven(path, level_names(depth), threads)


LAYOUTS = {"packed": (write_packed, packed_levels.proven), "columns": (write_columns, proven_of_columns)}


@pytest.fixture(autouse=True)
def _pass_pays(monkeypatch):
    """Of a few rows, too."""
    monkeypatch.setattr(profile, "PASS_NUMBERS", 0)


def full_books(depth: int, *, counts: bool = True) -> Rows:
    """Books at event ends with every level set, the first row too."""
    rows = good_books(depth, grid=False, counts=counts)
    for row in (0, 1):
        for name in (*level_names(depth), "status", "reason"):
            rows[name][row] = rows[name][2]
    return rows


def cut(rows: Rows, row: int, side: str, level: int, depth: int = DEPTH) -> None:
    """The side ends before `level`."""
    for deeper in range(level, depth):
        empty(rows, side, deeper, row)


def cells(side: str, level: int, **values: int) -> Change:
    def change(rows: Rows, row: int) -> None:
        for kind, value in values.items():
            rows[f"{side}_{kind}_{level:02d}"][row] = value

    return change


def beyond(side: str, level: int, **values: int) -> Change:
    """Something is left in the first level beyond the end of a side."""

    def change(rows: Rows, row: int) -> None:
        cut(rows, row, side, level)
        cells(side, level, **values)(rows, row)

    return change


def repeated(side: str, level: int) -> Change:
    def change(rows: Rows, row: int) -> None:
        rows[f"{side}_px_{level + 1:02d}"][row] = rows[f"{side}_px_{level:02d}"][row]

    return change


def swapped(side: str, level: int) -> Change:
    def change(rows: Rows, row: int) -> None:
        upper, lower = rows[f"{side}_px_{level:02d}"], rows[f"{side}_px_{level + 1:02d}"]
        upper[row], lower[row] = lower[row], upper[row]

    return change


def uncounted(rows: Rows, row: int) -> None:
    """No level of the row has a count."""
    for name in rows:
        if "_ct_" in name:
            rows[name][row] = 0


def hole(side: str, level: int) -> Change:
    return lambda rows, row: empty(rows, side, level, row)


UPPER = [(side, level) for side, level in PLACES if level < DEPTH - 1]
COUNTED = [cells(*place, ct=0) for place in PLACES] + [beyond(*place, ct=1) for place in PLACES]
BREAKS: dict[str, list[Change]] = {
    "levels_ordered": [break_(*place) for break_ in (repeated, swapped) for place in UPPER],
    "no_gap_levels": [hole(*place) for place in UPPER],
    "sizes_fit_prices": [cells(*p, sz=0) for p in PLACES] + [cells(*p, sz=-1) for p in PLACES] + [beyond(*p, sz=1) for p in PLACES],
    "counts_fit_prices": COUNTED,
    "not_crossed": [cells("bid", 0, px=1001 * TICK), cells("ask", 0, px=999 * TICK), cells("bid", 0, px=UNDEF_PRICE - 1)],
}
COUNTS: dict[str, tuple[bool | None, dict[str, list[Change]]]] = {
    "counts as the rows say": (None, BREAKS),
    "counts known": (True, {**BREAKS, "counts_fit_prices": [*COUNTED, uncounted]}),
    "counts not known": (False, {**BREAKS, "counts_fit_prices": [cells(*p, ct=c) for p in PLACES for c in (1, 2**32 - 1)]}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("counted", ["alone", "together"])
@pytest.mark.parametrize("known", COUNTS)
def test_one_broken_level_fails_exactly_its_rule_once(tmp_path, monkeypatch, known, counted, layout):
    """In the first row, in the middle and in the last; each file proven and counted by itself, or all of them in one stream."""
    monkeypatch.setattr(profile, "SMALL_ROWS", 1 if counted == "alone" else 50_000)
    has_counts, breaks = COUNTS[known]
    written, _ = LAYOUTS[layout]
    expected: dict[str, dict[str, int]] = {}
    for rule, changes in breaks.items():
        for k, change in enumerate(changes):
            row = (0, N // 2, N - 1)[k % 3]
            rows = full_books(DEPTH, counts=has_counts is not False)
            change(rows, row)
            expected[str(written(tmp_path / f"{rule}-{k}-row-{row}.parquet", rows, DEPTH))] = {rule: 1}
    good = written(tmp_path / "good.parquet", full_books(DEPTH, counts=has_counts is not False), DEPTH)
    report = run_gate("books", [good, *map(Path, expected)], context={"depth": DEPTH, "has_counts": has_counts})
    found: dict[str, dict[str, int]] = {}
    for outcome in report.failed:
        for path, count in outcome.by_file.items():
            found.setdefault(path, {})[outcome.name] = count
    assert found == expected


@pytest.mark.parametrize("layout", LAYOUTS)
def test_several_broken_rows_are_counted_each_under_its_rules(tmp_path, layout):
    written, _ = LAYOUTS[layout]
    rows = full_books(DEPTH)
    for rule, places in {"sizes_fit_prices": (0, 3, 11), "levels_ordered": (3, 6), "no_gap_levels": (8,), "not_crossed": (5, 11)}.items():
        for row in places:
            BREAKS[rule][0](rows, row)
    uncounted(rows, 7)  # breaks nothing where the rows say whether counts are known
    cells("ask", 2, ct=0)(rows, 9)
    path = written(tmp_path / "rows.parquet", rows, DEPTH)
    report = run_gate("books", [path], context={"depth": DEPTH})
    assert {outcome.name: outcome.unexpected for outcome in report.failed} == {
        "sizes_fit_prices": 3, "levels_ordered": 2, "no_gap_levels": 1, "not_crossed": 2, "counts_fit_prices": 1,
    }  # fmt: skip
    told = {outcome.name: outcome.example for outcome in report.failed}
    for rule, row in (("sizes_fit_prices", 0), ("levels_ordered", 3), ("no_gap_levels", 8), ("not_crossed", 5), ("counts_fit_prices", 9)):
        assert told[rule].startswith(f"{path} row {row} ("), told[rule]
    assert "ask_ct_02=0" in told["counts_fit_prices"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_row_that_is_not_valid_may_be_crossed(tmp_path, layout):
    """The proof looks at no status, the rule does."""
    written, proven = LAYOUTS[layout]
    rows = full_books(DEPTH)
    BREAKS["not_crossed"][0](rows, 6)
    rows["status"][6], rows["reason"][6] = "suspect", "gap"
    path = written(tmp_path / "rows.parquet", rows, DEPTH)
    assert "not_crossed" not in proven(path, DEPTH, 1)
    assert run_gate("books", [path], context={"depth": DEPTH}).status == "ok"


@pytest.mark.parametrize(("depth", "status"), [(2, "ok"), (4, "ok"), (5, "blocked")])
def test_packed_files_of_other_depths_than_the_suite_are_judged_by_the_levels_that_it_asks_for(tmp_path, depth, status):
    rows = full_books(DEPTH)
    path = write_packed(tmp_path / "rows.parquet", rows, DEPTH)
    report = run_gate("books", [path], context={"depth": depth})
    assert report.status == status
    assert {o.name: o.unexpected for o in report.failed} == ({"columns_as_declared": 6} if depth > DEPTH else {})
    cells("bid", 3, sz=-1)(rows, 6)
    path = write_packed(tmp_path / "broken.parquet", rows, DEPTH)
    found = {o.name: o.unexpected for o in run_gate("books", [path], context={"depth": depth}).failed}
    assert found == {2: {}, 4: {"sizes_fit_prices": 1}, 5: {"columns_as_declared": 6}}[depth]


def test_packed_files_and_files_with_columns_are_judged_side_by_side(tmp_path):
    paths: list[Path] = []
    expected: dict[str, int] = {}
    for layout in ("packed", "columns", "packed"):
        for broken in (False, True):
            rows = full_books(DEPTH)
            if broken:
                cells("ask", 1, sz=0)(rows, len(paths))
            path = tmp_path / f"{len(paths)}.parquet"
            paths.append(write_packed(path, rows, DEPTH) if layout == "packed" else write(path, rows, books_schema(DEPTH)))
            expected |= {str(path): 1} if broken else {}
    (outcome,) = run_gate("books", paths, context={"depth": DEPTH}).failed
    assert (outcome.name, outcome.by_file) == ("sizes_fit_prices", expected)


def plain_sides(rows: Rows, row: int, depth: int) -> dict[str, list[tuple[int | None, int, int]]]:
    """side -> (price, size, count) by level, None for the price of an empty level."""
    found = {}
    for side in ("bid", "ask"):
        levels = [tuple(rows[f"{side}_{kind}_{level:02d}"][row] for kind in ("px", "sz", "ct")) for level in range(depth)]
        found[side] = [(None if px == UNDEF_PRICE else px, sz, ct) for px, sz, ct in levels]
    return found


def plain_faults(rows: Rows, row: int, depth: int) -> set[str]:
    """Those of packed_levels.CHECKS that a row breaks, from the words of the rules."""
    sides = plain_sides(rows, row, depth)
    every = sides["bid"] + sides["ask"]
    faults = set()
    for side, levels in sides.items():
        for (px, _, _), (deeper, _, _) in pairwise(levels):
            if px is not None and deeper is not None and (deeper >= px if side == "bid" else deeper <= px):
                faults.add("ordered")
            if px is None and deeper is not None:
                faults.add("no_gap")
    if any(sz < 0 or (sz > 0) == (px is None) for px, sz, _ in every):
        faults.add("sizes")
    if any((ct > 0) == (px is None) for px, _, ct in every):
        faults.add("counts")
    if any(ct > 0 for _, _, ct in every):
        faults |= {"no_counts"} | ({"counts_or_none"} if "counts" in faults else set())
    bid, ask = sides["bid"][0][0], sides["ask"][0][0]
    if bid is not None and ask is not None and bid >= ask:
        faults.add("not_crossed")
    return faults


@st.composite
def odd_books(draw: Any) -> tuple[int, Rows]:
    """Depth and up to N rows: good ones, of which some have no counts, some end early, some are not valid, and some cells are anything."""
    depth, n = draw(st.integers(1, DEPTH)), draw(st.integers(1, N))
    rows = {name: values[:n] for name, values in full_books(depth, counts=draw(st.booleans())).items()}
    place = {"row": st.integers(0, n - 1), "side": st.sampled_from(["bid", "ask"]), "level": st.integers(0, depth - 1)}
    for at in draw(st.lists(st.fixed_dictionaries(place), max_size=4)):
        cut(rows, at["row"], at["side"], at["level"], depth)
    for row in draw(st.sets(place["row"], max_size=2)):
        uncounted(rows, row)
    for row in draw(st.sets(place["row"], max_size=3)):
        rows["status"][row], rows["reason"][row] = "suspect", "gap"
    prices = st.sampled_from([UNDEF_PRICE, UNDEF_PRICE - 1, -(2**63), 0, *(1000 * TICK + k * TICK for k in range(-DEPTH - 1, DEPTH + 2))])
    odd = {"px": prices, "sz": st.sampled_from([-(2**63), -1, 0, 1, 2**63 - 1]), "ct": st.sampled_from([0, 1, 2**31, 2**32 - 1])}
    for at in draw(st.lists(st.fixed_dictionaries({**place, "kind": st.sampled_from(list(odd))}), max_size=3)):
        rows[f"{at['side']}_{at['kind']}_{at['level']:02d}"][at["row"]] = draw(odd[at["kind"]])
    for at in draw(st.lists(st.fixed_dictionaries(place), max_size=1)):
        empty(rows, at["side"], at["level"], at["row"])
    for at in draw(st.lists(st.fixed_dictionaries(place), max_size=1)):
        if at["level"]:
            repeated(at["side"], at["level"] - 1)(rows, at["row"])
    for row in draw(st.sets(place["row"], max_size=1)):
        rows["bid_px_00"][row] = rows["ask_px_00"][row]
    return depth, rows


@pytest.fixture(scope="module")
def connection():
    with profile.scanner(1, 1 << 28) as connection:
        yield connection


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(made=odd_books(), group=st.integers(1, N), threads=st.integers(1, 3), layout=st.sampled_from(list(LAYOUTS)))
def test_what_is_proven_of_levels_is_what_no_row_breaks(tmp_path, made, group, threads, layout):
    """Never more, or a broken row would pass; and no less, or it would be read once more for nothing."""
    depth, rows = made
    written, proven = LAYOUTS[layout]
    path = written(tmp_path / "rows.parquet", rows, depth, group)
    faults = set().union(*(plain_faults(rows, row, depth) for row in range(len(rows["status"]))))
    assert proven(path, depth, threads) == set(packed_levels.CHECKS) - faults


@settings(max_examples=max(1, EXAMPLES // 3), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(made=odd_books(), has_counts=st.sampled_from([None, True, False]), layout=st.sampled_from(list(LAYOUTS)))
def test_rules_on_levels_count_the_rows_that_break_them(tmp_path, connection, made, has_counts, layout):
    depth, rows = made
    path = LAYOUTS[layout][0](tmp_path / "rows.parquet", rows, depth)
    checks = {
        "levels_ordered": "ordered", "no_gap_levels": "no_gap", "sizes_fit_prices": "sizes",
        "counts_fit_prices": {None: "counts_or_none", True: "counts", False: "no_counts"}[has_counts],
    }  # fmt: skip
    expected: Counter[str] = Counter()
    for row, status in enumerate(rows["status"]):
        faults = plain_faults(rows, row, depth)
        expected.update(rule for rule, check in checks.items() if check in faults)
        expected["not_crossed"] += status == "valid" and "not_crossed" in faults
    suite = suite_of("books", Context.of({"depth": depth, "has_counts": has_counts}))
    (found,) = profile.profile_files(connection, suite, [path], 1)
    assert {rule: count for rule, count in found.counts.items() if count} == {rule: count for rule, count in expected.items() if count}


@settings(max_examples=max(1, EXAMPLES // 3), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(made=odd_books(), group=st.integers(1, N))
def test_of_books_without_counts_everything_but_counts_is_proven(tmp_path, made, group):
    depth, rows = made
    names = [name for name in level_names(depth) if "_ct_" not in name]
    schema = pa.schema([books_schema(depth).field(name) for name in names])
    pq.write_table(pa.table({name: rows[name] for name in names}, schema), tmp_path / "rows.parquet", row_group_size=group)
    faults = set().union(*(plain_faults(rows, row, depth) for row in range(len(rows["status"]))))
    assert level_columns.proven(tmp_path / "rows.parquet", names, 2) == set(level_columns.CHECKS) - level_columns.COUNTS - faults


@pytest.mark.parametrize("row", [None, 0, 16_383, 16_384, 39_999])
def test_a_broken_row_in_columns_is_seen_wherever_batches_and_row_groups_end(tmp_path, monkeypatch, row):
    n, depth = 40_000, 2
    monkeypatch.setattr(level_columns, "BATCH_NUMBERS", 16_384 * len(level_names(depth)))
    rows = {name: np.full(n, values[0]) for name, values in full_books(depth).items() if name in level_names(depth)}
    if row is not None:
        rows["ask_sz_01"][row] = -1
    schema = pa.schema([books_schema(depth).field(name) for name in rows])
    pq.write_table(pa.table({name: pa.array(rows[name], schema.field(name).type) for name in rows}, schema), tmp_path / "rows.parquet",
                   row_group_size=16_385)  # fmt: skip
    proven = proven_of_columns(tmp_path / "rows.parquet", depth, 2)
    assert set(level_columns.CHECKS) - proven == {"no_counts"} | ({"sizes"} if row is not None else set())


@pytest.mark.parametrize("column", ["bid_px_00", "ask_sz_03", "bid_ct_01"])
def test_a_null_in_a_column_of_a_level_blocks(tmp_path, column):
    """Of a null nothing is proven; SQL counts it where nulls are counted."""
    rows = full_books(DEPTH)
    rows[column][7] = None
    path = write_columns(tmp_path / "rows.parquet", rows, DEPTH)
    assert proven_of_columns(path, DEPTH, 1) is None
    assert "no_nulls" in {outcome.name for outcome in run_gate("books", [path], context={"depth": DEPTH}).failed}


@pytest.mark.parametrize("group", [9_999, 16_385, 65_536])
def test_a_broken_row_is_seen_wherever_batches_and_row_groups_end(tmp_path, group):
    n, depth = 40_000, 2
    rows = full_books(depth)
    rows["ask_sz_01"][1] = -1
    fine, broken = struct_packed({name: rows[name][:2] for name in level_names(depth)}, depth)
    for row in (None, 0, 9_998, 9_999, 16_383, 16_384, 16_385, 32_768, n - 1):
        levels = [fine] * n
        if row is not None:
            levels[row] = broken
        pq.write_table(pa.table({"levels": pa.array(levels, pa.binary(40 * depth))}), tmp_path / "rows.parquet", row_group_size=group)
        proven = packed_levels.proven(tmp_path / "rows.parquet", depth, 2)
        assert set(packed_levels.CHECKS) - proven == {"no_counts"} | ({"sizes"} if row is not None else set()), row


@pytest.mark.parametrize("plain", [
    False,
    # The slot of a null holds what stood there when plain pages are decoded: mostly a good row.
    True,
])  # fmt: skip
def test_a_row_without_packed_levels_blocks(tmp_path, plain):
    path = write_packed(tmp_path / "rows.parquet", full_books(DEPTH), DEPTH)
    table = pq.read_table(path)
    at = table.schema.get_field_index("levels")
    levels = [None if row == 5 else value for row, value in enumerate(table["levels"].to_pylist())]
    pq.write_table(table.set_column(at, "levels", pa.array(levels, table.schema.field(at).type)), path, use_dictionary=not plain)
    assert run_gate("books", [path], context={"depth": DEPTH}).status == "blocked"


def test_packed_rows_that_are_no_whole_number_of_levels_block(tmp_path):
    rows = full_books(1)
    path = write_packed(tmp_path / "rows.parquet", rows, 1)
    table = pq.read_table(path)
    at = table.schema.get_field_index("levels")
    longer = pa.array([value + bytes(8) for value in table["levels"].to_pylist()], pa.binary(48))
    pq.write_table(table.set_column(at, pa.field("levels", longer.type, nullable=False), longer), path)
    report = run_gate("books", [path], context={"depth": 1})
    assert [outcome.name for outcome in report.failed if str(path) in outcome.by_file] == ["columns_as_declared"]
