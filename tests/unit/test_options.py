"""From what a person types to what a flow takes: what is meant is taken exactly, and anything else is refused with what is allowed."""

from __future__ import annotations

import pytest

from flows.options import check_count, check_runner, parse_time
from tasks.errors import UsageError

NOON = 1_761_139_800 * 10**9  # 2025-10-22T13:30:00Z


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("2025-10-22T13:30:00", 0), ("2025-10-22T13:30", 0), ("2025-10-22 13:30:00.5", 500_000_000), ("2025-10-22T13:30:00,5", 500_000_000),
        ("2025-10-22T13:30:00,123456789Z", 123_456_789), ("2025-10-22T09:30:00.000000001-04:00", 1), ("20251022T133000.25", 250_000_000),
        ("1969-12-31T23:59:59.999999999", -NOON - 1),
    ],
)  # fmt: skip
def test_times_are_exact_with_a_point_or_a_comma(text, ns):
    assert parse_time(text, "UTC", "start") == NOON + ns


@pytest.mark.parametrize(
    "text", ["2025-10-22T13:30.5", "2025-10-22T13.5", "2025-10-22.5", "2025-10-22T13:30:00.", "2025-10-22T13:30:00.1234567891", "noon"]
)
def test_decimals_of_anything_but_seconds_are_refused_and_not_taken_for_those(text):
    with pytest.raises(UsageError, match=r"end is .* allowed: ISO 8601"):
        parse_time(text, "UTC", "end")


def test_less_than_none_is_not_taken_for_all():
    assert check_count("limit", 0) == 0
    with pytest.raises(UsageError, match="limit is -1; allowed: 0 or more"):
        check_count("limit", -1)


@pytest.mark.parametrize("address", ["10.0.0.5", "tcp://10.0.0.5", "foo://x:1", "tcp://a b:1"])
def test_what_is_no_address_of_a_scheduler_is_refused(address):
    with pytest.raises(UsageError, match="allowed: that of a scheduler"):
        check_runner("dask", address)
