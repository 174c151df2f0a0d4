"""Prices in doubles are the decimals they were meant to be, exactly, or are refused."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.scanning import arrow_values


@settings(max_examples=300, deadline=None)
@given(st.integers(-(10**17), 10**17), st.integers(0, 9))
@example(2**52 - 1, 8)  # times 1e8 it is rounded to the half beside
@example(3_503_599_627_370_495, 8)
def test_a_double_is_the_shortest_decimal_it_prints_as(digits, places):
    value = float(Decimal(digits).scaleb(-places))
    units = Decimal(repr(value)).scaleb(9)
    (found,), (ok,) = arrow_values.prices(pa.array([value]))
    if abs(units) >= 2**63:
        assert not ok
    elif units == int(units) and (abs(value) < 2**21 or abs(digits) < 2**53):
        assert ok
        assert int(found) == int(units)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 2_000_000), st.sampled_from(["0.01", "0.25", "0.0001", "0.00000001", "0.05", "0.015625"]))
def test_ticks_times_tick_size_in_doubles_is_still_the_price_meant(ticks, tick):
    computed = ticks * float(tick)
    (found,), (ok,) = arrow_values.prices(pa.array([computed]))
    assert ok
    assert int(found) == ticks * int(Decimal(tick).scaleb(9))


@pytest.mark.parametrize("value", [1.23456789012, 1e-10, 0.1 + 1e-12, float("inf"), -float("inf"), 1e10, 9_223_372_036.9])
def test_a_double_that_no_price_in_units_of_1e_9_stands_for_is_refused(value):
    (found,), (ok,) = arrow_values.prices(pa.array([value]))
    assert (int(found), bool(ok)) == (0, False)
