"""CSV of depth snapshots: the text is what the feed wrote, byte for byte, and the layout that of the converter it replaces."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.reconstruction.depth_csv import CsvWriter, csv_path, header
from tasks.schemas import UNDEF_PRICE

SCALES = (9, 8)


def test_names_and_header_are_those_of_the_old_converter():
    assert csv_path(Path("out"), 200, "BTCUSDT", "2025-01-01", 60_000_000_000) == Path("out/0200/BTCUSDT/2025-01-01_BTCUSDT_ob200_1m.csv")
    assert csv_path(Path("out"), 5, "BTC-29AUG25", "2025-01-01", 10**9) == Path("out/0005/BTC-29AUG25/2025-01-01_BTC-29AUG25_ob5_1s.csv")
    assert header(1, formatted=False) == b"timestamp,bid_price_1,bid_qty_1,ask_price_1,ask_qty_1\n"
    assert header(2, formatted=True).startswith(b"timestamp_formatted,timestamp,bid_price_1,bid_qty_1,bid_price_2,bid_qty_2,ask_price_1,")


@pytest.mark.parametrize(("symbol", "name"), [("XBT/USD", "XBT%2FUSD"), ("../../x", "..%2F..%2Fx"), ("..", "%2E%2E"), ("/a/x", "%2Fa%2Fx")])
def test_a_symbol_is_one_part_of_the_path_and_leads_out_of_no_folder(symbol, name):
    assert csv_path(Path("out"), 200, symbol, "2025-01-01", 60_000_000_000) == Path(f"out/0200/{name}/2025-01-01_{name}_ob200_1m.csv")


@st.composite
def decimals(draw: st.DrawFn, scale: int) -> tuple[str, int, int]:
    """(text, value in units of 10^-scale, digits)"""
    digits = draw(st.integers(0, scale))
    value = draw(st.integers(0, 10 ** (18 - scale + digits) - 1))
    whole, rest = divmod(value, 10**digits)
    return f"{whole}" + (f".{rest:0{digits}d}" if digits else ""), value * 10 ** (scale - digits), digits


levels = st.one_of(st.none(), st.tuples(decimals(SCALES[0]), decimals(SCALES[1])))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 4_102_444_799_999), st.lists(levels, min_size=6, max_size=6)), min_size=1, max_size=5),
    st.integers(1, 3), st.booleans(),
)  # fmt: skip
def test_lines_hold_the_text_as_it_was_written(rows, depth, formatted):
    n = len(rows)
    px, sz = np.full((6, n), UNDEF_PRICE), np.zeros((6, n), np.int64)
    price_digits, size_digits = np.zeros((6, n), np.uint8), np.zeros((6, n), np.uint8)
    expected = header(depth, formatted=formatted).decode()
    for k, (time, cells) in enumerate(rows):
        for r, cell in enumerate(cells):
            if cell is not None:
                (_, px[r, k], price_digits[r, k]), (_, sz[r, k], size_digits[r, k]) = cell
        texts = [cells[2 * level + side] for side in range(2) for level in range(depth)]
        line = [f"{datetime.fromtimestamp(time // 1000, UTC):%Y-%m-%d %H:%M:%S}"] * formatted + [str(time)]
        expected += ",".join([*line, *(t for cell in texts for t in ((cell[0][0], cell[1][0]) if cell else ("", "")))]) + "\n"
    out = io.BytesIO()
    writer = CsvWriter(out, depth, formatted=formatted)
    writer.write(np.array([time * 1_000_000 for time, _ in rows]), px, sz, price_digits, size_digits, SCALES)
    assert out.getvalue().decode() == expected
