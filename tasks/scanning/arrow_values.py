"""Arrow columns of any usual encoding to exact NumPy values: times in ns, prices in 1e-9, integers, letters.

Each function takes one array of n rows and returns (values, ok): values of the target dtype, ok bool[n] false where a row has no such value
(null included), its value then 0. Which columns a layout has, and what a bad value means, belongs to parquet_source.py.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

Values = tuple[np.ndarray, np.ndarray]

_NS_PER_UNIT = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_INT64_MAX = 2**63 - 1
_ISO = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d(:?\d\d)?)?$"
_ZONE = r"(Z|[+-]\d\d(:?\d\d)?)$"
# Below this, 1e-9 is coarser than the spacing of doubles and p * 1e9 is off by less than half a unit: one candidate, and it is the right one.
_PLAIN_DOUBLE = 2**51 / 1e9
_ULPS = 4  # how far arithmetic (ticks times tick size, a sum or two) may have moved a price from the decimal it stands for


def is_text(dtype: pa.DataType) -> bool:
    """Strings of any width, plain or in a dictionary; also the type of a column that is all null."""
    dtype = dtype.value_type if pt.is_dictionary(dtype) else dtype
    return pt.is_string(dtype) or pt.is_large_string(dtype) or pt.is_string_view(dtype) or pt.is_null(dtype)


def is_letters(dtype: pa.DataType) -> bool:
    """What `letters` reads: text, bytes, or one-byte ASCII codes, plain or in a dictionary."""
    plain = dtype.value_type if pt.is_dictionary(dtype) else dtype
    return is_text(plain) or pt.is_binary(plain) or pt.is_large_binary(plain) or pt.is_fixed_size_binary(plain) or plain in (pa.int8(), pa.uint8())


def is_time(dtype: pa.DataType) -> bool:
    """What `times` reads: 64-bit ns, timestamps, ISO 8601 text."""
    return dtype in (pa.int64(), pa.uint64()) or pt.is_timestamp(dtype) or is_text(dtype)


def is_price(dtype: pa.DataType) -> bool:
    """What `prices` reads: int64 in 1e-9, decimals, doubles, decimal text. 32-bit floats hold no exact prices."""
    return dtype in (pa.int64(), pa.float64()) or pt.is_decimal(dtype) or is_text(dtype)


def is_integer(dtype: pa.DataType) -> bool:
    """What `integers` reads: integers, booleans, 64-bit floats and decimals that are whole, digits as text."""
    return pt.is_integer(dtype) or pt.is_boolean(dtype) or dtype == pa.float64() or pt.is_decimal(dtype) or is_text(dtype)


def _plain(array: pa.Array) -> pa.Array:
    if pt.is_null(array.type):
        return array.cast(pa.string())
    return array.dictionary_decode() if pt.is_dictionary(array.type) else array


def as_dictionary(array: pa.Array) -> pa.Array:
    """The same values as dictionary and indices."""
    return array if pt.is_dictionary(array.type) else _plain(array).dictionary_encode()


def _numbers(array: pa.Array) -> Values:
    """Values as NumPy holds them, 0 where null."""
    ok = np.ones(len(array), bool) if array.null_count == 0 else array.is_valid().to_numpy(zero_copy_only=False)
    filled = array if array.null_count == 0 else array.fill_null(pa.scalar(0, array.type))
    return filled.to_numpy(zero_copy_only=False), ok


def cast_rows(array: pa.Array, target: pa.DataType) -> pa.Array:
    """`array` as `target`, null where a row cannot be. Arrow refuses a whole array for one row, so halves are tried until the row is alone."""
    try:
        return array.cast(target)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        if len(array) == 1:
            return pa.nulls(1, target)
        half = len(array) // 2
        return pa.concat_arrays([cast_rows(array.slice(0, half), target), cast_rows(array.slice(half), target)])


def times(array: pa.Array) -> Values:
    """int64 ns since the epoch UTC. Integers are ns; timestamps and text without a zone are UTC. Not ok before 1970 or past 2^63-1."""
    array = _plain(array)
    if is_text(array.type):
        array = _parse_times(array)
    factor = _NS_PER_UNIT[array.type.unit] if pt.is_timestamp(array.type) else 1
    values, ok = _numbers(array.view(pa.int64()) if pt.is_timestamp(array.type) else array)
    ok = ok & (values >= 0) & (values <= _INT64_MAX // factor)
    return np.where(ok, values, 0).astype(np.int64) * factor, ok


def _parse_times(text: pa.Array) -> pa.Array:
    shaped = pc.if_else(pc.match_substring_regex(text, _ISO), text, pa.scalar(None, text.type))
    zoned = pc.match_substring_regex(shaped, _ZONE)
    if not pc.all(zoned, min_count=0).as_py():
        shaped = pc.if_else(zoned, shaped, pc.binary_join_element_wise(shaped, pa.scalar("Z", text.type), pa.scalar("", text.type)))
    return cast_rows(shaped, pa.timestamp("ns", "UTC"))


def prices(array: pa.Array) -> Values:
    """int64 in 1e-9. Not ok: null, NaN, out of range, or finer than 1e-9. `absent` tells null and NaN from the rest."""
    array = _plain(array)
    if array.type == pa.float64():
        values, ok = _numbers(array)
        units, exact = _decimal_of_double(values)
        return units, ok & exact
    if array.type == pa.int64():
        values, ok = _numbers(array)
        return values, ok
    # Text goes straight to the fixed scale; so do decimals, and a finer one keeps its value only when its last digits are zeros.
    scaled = cast_rows(array, pa.decimal128(38, 9))
    ok = scaled.is_valid().to_numpy(zero_copy_only=False)
    halves = np.frombuffer(scaled.buffers()[1], np.int64)[2 * scaled.offset : 2 * (scaled.offset + len(scaled))].reshape(-1, 2)
    low = halves[:, 0]  # 128-bit two's complement, little endian: it fits when the high half is only the sign
    ok = ok & (halves[:, 1] == low >> 63)
    return np.where(ok, low, 0), ok


def absent(array: pa.Array) -> np.ndarray:
    """bool[n]: null or NaN."""
    return _plain(array).is_null(nan_is_null=True).to_numpy(zero_copy_only=False)


def _decimal_of_double(values: np.ndarray) -> Values:
    """int64[n] in 1e-9 of the shortest decimal that each double stands for; not ok where that decimal is finer than 1e-9 or out of range."""
    with np.errstate(invalid="ignore", over="ignore"):
        near = np.rint(values * 1e9)
        ok = (np.abs(values) < _PLAIN_DOUBLE) & (np.abs(near / 1e9 - values) <= _ULPS * np.spacing(np.abs(values)))
        large = np.isfinite(values) & (np.abs(values) >= _PLAIN_DOUBLE) & (np.abs(values) < 2**63 / 1e9)
    units = np.where(ok, near, 0).astype(np.int64)
    left = np.flatnonzero(large)
    # Large prices: doubles lie further apart than 1e-9, so the fewest decimals that give the double back decide.
    for decimals in range(10):
        here = values[left] * 10.0**decimals
        whole = np.rint(here)
        hit = (whole / 10.0**decimals == values[left]) & (np.abs(whole) <= 2**53)
        for step in (-1, 1):  # the product is rounded too: of sixteen digits the last may be one off
            beside = ~hit & ((whole + step) / 10.0**decimals == values[left]) & (np.abs(whole + step) <= 2**53)
            whole[beside] += step
            hit |= beside
        units[left[hit]] = whole[hit].astype(np.int64) * 10 ** (9 - decimals)
        ok[left[hit]] = True
        left = left[~hit]
    return units, ok


def integers(array: pa.Array, dtype: np.dtype) -> Values:
    """Values of an integer `dtype`. Not ok: null, a fraction, out of the dtype's range, or a double past 2^53, which is not exact."""
    array = _plain(array)
    if is_text(array.type) or pt.is_decimal(array.type):
        array = cast_rows(array, pa.uint64() if dtype == np.uint64 else pa.int64())
    elif pt.is_boolean(array.type):
        array = array.cast(pa.uint8())
    values, ok = _numbers(array)
    if values.dtype == dtype:
        return values, ok
    limits = np.iinfo(dtype)
    if values.dtype.kind == "f":
        ok = ok & np.isfinite(values) & (np.abs(values) <= 2**53)
        values = np.where(ok, values, 0)
        ok = ok & (values == np.rint(values))
    # NumPy compares a Python integer with any integer array exactly, whatever its sign or width.
    ok = ok & (values >= limits.min) & (values <= limits.max)
    return np.where(ok, values, 0).astype(dtype), ok


def letters(array: pa.Array) -> Values:
    """uint8 ASCII codes of one-letter values. Not ok: null, empty, more than one letter, not printable."""
    if array.type in (pa.int8(), pa.uint8()):
        values, ok = _numbers(array)
        return np.where(ok, values, 0).astype(np.uint8), ok & (values > 32) & (values < 127)
    coded = as_dictionary(array)
    if coded.dictionary.type in (pa.int8(), pa.uint8()):
        return letters(_plain(coded))
    raw = [value.encode() if isinstance(value, str) else value for value in coded.dictionary.to_pylist()]
    # One entry more than the dictionary, so that a column of nulls only has something to take.
    table = np.array([value[0] if value and len(value) == 1 and 32 < value[0] < 127 else 0 for value in raw] + [0], np.uint8)
    index, ok = _numbers(coded.indices)
    values = table[index]
    return values, ok & (values != 0)


READS: dict[str, tuple[Callable[[pa.DataType], bool], str]] = {
    "time": (is_time, "int64 or uint64 ns, a timestamp, or ISO 8601 text"),
    "price": (is_price, "int64 in 1e-9, a decimal, a double, or decimal text"),
    "letter": (is_letters, "text, bytes or one-byte codes"),
    "integer": (is_integer, "an integer"),
    "text": (is_text, "text"),
}
