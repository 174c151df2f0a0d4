"""The compiled pass over times and statuses of book rows. `proven` and SQL share the work; a row that neither of them sees is looked for here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.schemas import REASONS, STATUSES
from tests.unit.test_event_rows import mild
from tests.unit.test_suites import SECOND, T0, N, Rows, good_books, write, write_packed
from validation import book_times, event_rows, packed_levels, profile
from validation.rules import Context
from validation.suites import DEPTH_SUITES, SUITES, suite_of

DEPTH = 2
CLOCKS = ("ts_recv", "ts_event")
BOOKS = {clock: suite_of("books", Context(depth=DEPTH, clock=clock)) for clock in CLOCKS}


def plain_faults(rows: Rows) -> dict[str, int]:
    """check -> rows that break it, from the words of the rules; no value is null."""
    counts = dict.fromkeys(book_times.CHECKS, 0)
    records = [dict(zip(book_times.COLUMNS, values, strict=True)) for values in zip(*(rows[name] for name in book_times.COLUMNS), strict=True)]
    for k, row in enumerate(records):
        counts["status"] += row["status"] not in STATUSES
        counts["reason"] += row["reason"] not in REASONS
        counts["reason_fits"] += (row["status"] == "valid") != (row["reason"] == "")
        counts["since_as_of"] += row["status_since"] > row["as_of"]
        counts["as_of_until_ts_recv"] += row["as_of"] > row["ts_recv"]
        counts["as_of_until_both"] += row["as_of"] > max(row["ts_recv"], row["ts_event"])
        counts["age_none"] += row["age_ns"] != 0
        for name in ("as_of", "ts_event", "ts_recv"):
            counts[f"{name}_in_order"] += k > 0 and row[name] < records[k - 1][name]
    return counts


@st.composite
def odd_books(draw: Any, words: tuple[str, ...] = ()) -> Rows:
    """Up to N rows at event ends: good ones, of which some cells are anything; `words`: what statuses and reasons may be besides."""
    n = draw(st.integers(1, N))
    rows = {name: list(values[:n]) for name, values in good_books(DEPTH, grid=False).items()}
    row = st.integers(0, n - 1)
    times = st.one_of(
        st.sampled_from([0, -1, -(2**63) + 2, 2**63 - 2]), st.builds(lambda k, off: T0 + k * SECOND + off, st.integers(0, n), st.integers(499, 501))
    )
    odd = {
        **dict.fromkeys(book_times.TIMES, times), "age_ns": st.sampled_from([-1, 1, 2**63 - 1]),
        "status": st.sampled_from([*STATUSES, *words]), "reason": st.sampled_from([*REASONS, *words]),
    }  # fmt: skip
    for name in draw(st.lists(st.sampled_from(list(odd)), max_size=4)):
        rows[name][draw(row)] = draw(odd[name])
    return rows


@pytest.fixture(scope="module")
def connection():
    with profile.scanner(1, 1 << 28) as connection:
        yield connection


def test_every_check_proves_a_rule_and_no_rule_has_one_that_nothing_proves():
    contexts = [Context(depth=DEPTH, clock=clock, grid=grid) for clock in CLOCKS for grid in (False, True)]
    names = (*SUITES, *DEPTH_SUITES)
    checks = {name: {rule.check for context in contexts for rule in suite_of(name, context).rules if rule.check} for name in names}
    assert set(book_times.CHECKS) <= checks["books"]
    assert set.union(*checks.values()) <= {*book_times.CHECKS, *packed_levels.CHECKS, *event_rows.CHECKS}
    grid = {rule.check for rule in suite_of("books", Context(depth=DEPTH, grid=True)).rules}
    # A grid has other ages, and other times to begin before and not to look beyond.
    assert not {book_times.MARK, "age_none", "as_of_until_ts_recv", "as_of_until_both", "since_as_of"} & grid


@mild
@given(rows=odd_books(words=("", "odd")), group=st.integers(1, N), threads=st.integers(1, 4))
def test_what_is_proven_of_times_is_what_no_row_breaks(tmp_path, rows, group, threads):
    """Never more, or a broken row would pass; and no less, or it would be read once more for nothing. Rows stand in row groups of any size."""
    path = write_packed(tmp_path / "rows.parquet", rows, DEPTH, group)
    assert book_times.proven(path, threads) == {check for check, count in plain_faults(rows).items() if count == 0}


@mild
@given(rows=odd_books(words=("", "odd")), clock=st.sampled_from(CLOCKS), packed=st.booleans(), threads=st.integers(1, 3))
def test_rules_on_times_count_the_rows_that_break_them_with_the_pass_and_without(tmp_path, connection, rows, clock, packed, threads):
    suite = BOOKS[clock]
    path = write_packed(tmp_path / "rows.parquet", rows, DEPTH) if packed else write(tmp_path / "rows.parquet", rows, suite.schema)
    faults = plain_faults(rows)
    expected = {rule.name: faults[rule.check] for rule in suite.rules if rule.check in faults}
    assert len(expected) == 8
    found = []
    for least in (1, 50_000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(profile, "SMALL_ROWS", least)
            (counted,) = profile.profile_files(connection, suite, [path], threads)
        found.append({name: counted.counts[name] for name in expected})
    assert found == [expected, expected]


@pytest.mark.parametrize("name", book_times.TIMES)
@pytest.mark.parametrize("value", [2**63 - 1, -(2**63) + 1, None])
@pytest.mark.parametrize("row", [0, 5, N - 1])
def test_times_that_are_infinity_to_sql_or_absent_are_counted_alike_with_the_pass_and_without(tmp_path, connection, monkeypatch, name, value, row):
    rows = good_books(DEPTH, grid=False)
    rows[name][row] = value
    path = write_packed(tmp_path / "rows.parquet", rows, DEPTH)
    found = []
    for least in (50_000, 1):
        monkeypatch.setattr(profile, "SMALL_ROWS", least)
        found.append(profile.profile_files(connection, BOOKS["ts_recv"], [path], 2)[0].counts)
    assert found[0] == found[1]


@pytest.mark.parametrize("group", [9_999, 65_536, 70_000])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_row_out_of_order_is_seen_wherever_batches_row_groups_and_runs_end(tmp_path, group, threads):
    n = 200_000
    rows: Rows = {name: np.resize(np.array(values[3:4]), n) for name, values in good_books(1, grid=False).items()}
    fine = {**rows, **{name: T0 + np.arange(n) for name in ("as_of", "ts_event", "ts_recv")}}
    path = tmp_path / "rows.parquet"
    runs = -(-n // group)
    borders = {k * group for k in range(1, runs)} | {group * (runs * t // threads) for t in range(1, threads)}
    write_packed(path, fine, 1, group)
    assert book_times.proven(path, threads) == set(book_times.CHECKS)
    for at in sorted({1, 65_536, n - 1} | {b for b in borders if 0 < b < n})[:6]:
        times = T0 + np.arange(n)
        times[at] = times[at - 1] - 1
        write_packed(path, {**fine, "ts_event": times}, 1, group)
        assert book_times.proven(path, threads) == set(book_times.CHECKS) - {"ts_event_in_order"}
