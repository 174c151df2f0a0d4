"""What may be asked of the generators, where both ask the same or a limit needs a reason."""

from __future__ import annotations

from tasks.errors import UsageError

# Sequence numbers have 32 bits and rise by 1.1 an event, of which there are at most as many as records.
MOST_RECORDS = 3_500_000_000
MOST_SYMBOLS = 100_000  # a gigabyte of books
# Times are nanoseconds since 1970 in 64 bits, which end in April 2262.
FIRST_DATE, LAST_DATE = "1970-01-01", "2261-12-31"


def check_seed(seed: int) -> None:
    """Raise UsageError for a seed that random numbers cannot begin with."""
    if seed < 0:
        raise UsageError(f"seed is {seed}; allowed: 0 or more")


def check_date(text: str) -> None:
    """Raise UsageError for a day, in any form of ISO 8601, whose times the formats cannot hold."""
    if not FIRST_DATE[:4] <= text[:4] <= LAST_DATE[:4]:
        raise UsageError(f"date is {text!r}; allowed: {FIRST_DATE} to {LAST_DATE}")
