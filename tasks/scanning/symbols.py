"""Which symbol an instrument id means on a UTC day, and codes for whole columns of ids.

An id is unique within a day only: mappings are half-open intervals of days, and an id may mean another symbol on another day.
Source: the symbol mappings of DBN metadata. Nothing here reads files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from typing import Any

import numpy as np

from tasks.scanning.dbn_kernels import DAY_NS, find_slot, look_up_pairs

EPOCH = date(1970, 1, 1).toordinal()
FOREVER = 1 << 31  # a day after every other

_FIRST_SLOTS = 1 << 10


def day_of(value: date) -> int:
    """Days since 1970-01-01."""
    return value.toordinal() - EPOCH


def metadata_intervals(metadata: Any) -> Iterator[tuple[int, int, int, str]]:
    """(instrument_id, first day, end day, symbol) of DBN metadata, days since the epoch, the end exclusive.

    One of the two symbol types must be instrument_id, as in every file that Databento sells; entries that are not numbers or are empty
    (a symbol that was not resolved on those days) give nothing. An end that is not after the first day means that one day.
    """
    ids_are_keys = str(metadata.stype_in) == "instrument_id"
    for key, intervals in metadata.mappings.items():
        for interval in intervals:
            number, symbol = (key, interval["symbol"]) if ids_are_keys else (interval["symbol"], key)
            if number.isascii() and number.isdigit() and symbol:
                first = day_of(interval["start_date"])
                yield int(number), first, max(day_of(interval["end_date"]), first + 1), symbol


class DatedSymbols:
    """instrument_id -> symbol by UTC day. Where intervals of one id overlap, the first given wins, but what `learn` adds wins over all before."""

    def __init__(self, intervals: Iterable[tuple[int, int, int, str]] = ()) -> None:
        self._intervals: dict[int, list[tuple[int, int, str]]] = {}
        for instrument_id, first, end, symbol in intervals:
            self._intervals.setdefault(instrument_id, []).append((first, end, symbol))

    def symbol(self, instrument_id: int, day: int) -> str:
        """The symbol of an id on a day (since the epoch); the id itself as text where no interval holds that day."""
        for first, end, symbol in self._intervals.get(instrument_id, ()):
            if first <= day < end:
                return symbol
        return str(instrument_id)

    def learn(self, instrument_id: int, first: int, end: int, symbol: str) -> None:
        """From day `first` to `end` (exclusive) `instrument_id` means `symbol` (a mapping record inside a stream)."""
        self._intervals.setdefault(instrument_id, []).insert(0, (first, end, symbol))


class SymbolCodes:
    """Columns of (instrument_id, time) to int32 codes into `symbols`, which grows in order of first appearance.

    Python runs once per distinct (instrument, day); the rows go through a hash table in a kernel.
    """

    def __init__(self, dated: DatedSymbols) -> None:
        self.symbols: list[str] = []
        self._dated = dated
        self._code_of: dict[str, int] = {}
        self._forget()

    def _forget(self, slots: int = _FIRST_SLOTS) -> None:
        self._keys, self._values, self._used = np.zeros(slots, np.uint64), np.zeros(slots, np.int32), 0

    def code(self, symbol: str) -> int:
        """The code of a symbol, a new one where it was not met before."""
        code = self._code_of.setdefault(symbol, len(self.symbols))
        if code == len(self.symbols):
            self.symbols.append(symbol)
        return code

    def code_of(self, instrument_id: int, ts: int) -> int:
        """The code of one id at a time (ns UTC)."""
        return self.code(self._dated.symbol(instrument_id, ts // DAY_NS))

    def codes(self, instrument_id: np.ndarray, ts: np.ndarray) -> np.ndarray:
        """int32[n] codes of uint32[n] ids at int64[n] ns UTC, none negative."""
        codes, row = np.empty(len(instrument_id), np.int32), 0
        with np.errstate(over="ignore"):  # the hash wraps round; only said aloud when the kernels run uncompiled
            while (row := look_up_pairs(instrument_id, ts, self._keys, self._values, codes, row)) < len(instrument_id):
                self._add(int(instrument_id[row]), int(ts[row]))
        return codes

    def _add(self, instrument_id: int, ts: int) -> None:
        if 4 * self._used >= len(self._keys):  # load under a quarter
            keys, values = self._keys, self._values
            self._forget(4 * len(keys))
            for key, value in zip(keys[keys != 0], values[keys != 0], strict=True):
                self._store(key, value)
        self._store(np.uint64((instrument_id << 32) | (ts // DAY_NS + 1)), self.code_of(instrument_id, ts))

    def _store(self, key: np.uint64, value: int) -> None:
        slot = find_slot(key, self._keys)
        self._keys[slot], self._values[slot] = key, value
        self._used += 1

    def learn(self, instrument_id: int, first: int, end: int, symbol: str) -> None:
        """A mapping record met in the stream: from day `first` to `end` (exclusive) the id means `symbol`."""
        self._dated.learn(instrument_id, first, end, symbol)
        if self._used:
            self._forget()
