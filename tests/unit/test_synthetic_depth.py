"""Generated depth archives are the same for the same spec, never break a rule of the feed, and end where their facts say."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from tasks.depth_batches import SNAPSHOT
from tasks.errors import StorageError, UsageError
from tasks.scanning.bybit import head, open_bybit
from tasks.scanning.synthetic_depth import DAY_MS, DepthDay, DepthFacts, DepthSpec, write_archive
from tests.oracles import naive_bybit as naive

SMALL = DepthSpec(interval_ms=120_000, depth=40, updates=12.0)
SPECS = {
    "plain": SMALL,
    "dense spot": replace(SMALL, layout="spot", price_digits=5, size_digits=0, step=1.0, open_price=70_530, seed=2, symbol="DOGEUSDT"),
    "far apart": replace(SMALL, step=30.0, price_digits=2, tick=10, open_price=6_511_410, seed=3, cts=False, depth=50),
    "eventful": replace(SMALL, restarts=3, gaps=2, outage_minutes=90, seed=4, interval_ms=60_000),
    "wrong": replace(SMALL, next_day="wrong", size_digits=8, price_digits=12, open_price=10**17 - 1, seed=5),
    "none": replace(SMALL, next_day="none", restarts=0, updates=1.0, depth=2, seed=6),
    "many changes": replace(SMALL, depth=500, updates=100.0, interval_ms=600_000, seed=7),
}
Side = dict[int, int]


def made(spec: DepthSpec) -> tuple[bytes, DepthFacts]:
    day = DepthDay(spec)
    return b"".join(chunk.tobytes() for chunk in day.chunks()), day.facts()


@pytest.fixture(scope="module", params=SPECS, ids=lambda name: name.replace(" ", "_"))
def archive(request) -> tuple[DepthSpec, DepthFacts, naive.Reading]:
    spec = SPECS[request.param]
    data, facts = made(spec)
    assert len(data) == facts.text_bytes
    reading = naive.read(data)
    assert (reading.bad, reading.end) == ([], "")
    return spec, facts, reading


def books(reading: naive.Reading, spec: DepthSpec) -> Iterator[tuple[tuple, tuple[Side, Side], tuple[Side, Side]]]:
    """Each message with the book before and after it; levels in units of the spec's decimals."""
    sides: tuple[Side, Side] = ({}, {})
    for message in reading.messages:
        before = ({**sides[0]}, {**sides[1]})
        if message[2] == SNAPSHOT:
            sides = ({}, {})
        for side, price, size, price_digits, size_digits in message[-1]:
            price, size = price * 10 ** (spec.price_digits - price_digits), size * 10 ** (spec.size_digits - size_digits)
            if size:
                sides[side][price] = size
            elif price in sides[side] or not spec.gaps:
                del sides[side][price]
        yield message, before, sides


def test_the_window_is_always_full_never_crossed_and_every_change_is_one(archive):
    spec, facts, reading = archive
    for message, before, after in books(reading, spec) if not facts.gaps else ():
        levels = [(side, price * 10 ** (spec.price_digits - digits)) for side, price, _, digits, _ in message[-1]]
        assert len(set(levels)) == len(levels)
        assert [len(side) for side in after] == [spec.depth] * 2
        assert 0 < max(after[0]) < min(after[1])
        assert {price % spec.tick for _, price in levels} <= {0}
        if message[2] != SNAPSHOT:
            assert levels
            assert all(before[side].get(price) != after[side].get(price) for side, price in levels)


def test_the_facts_are_those_of_the_lines(archive):
    spec, facts, reading = archive
    messages = reading.messages
    assert reading.topic == f"orderbook.{spec.depth}.{spec.symbol}"
    assert (facts.lines, facts.updates) == (len(messages), sum(len(m[-1]) for m in messages))
    assert (facts.first_ts_ns, facts.last_ts_ns, facts.last_update_id) == (messages[0][3], messages[-1][3], messages[-1][5])
    assert facts.snapshots == tuple(m[0] for m in messages if m[2] == SNAPSHOT)
    assert facts.restarts == tuple(m[0] for m in messages if m[5] == 1)
    jumps = [b[0] for a, b in pairwise(messages) if b[5] not in (1, a[5] + 1)]
    outages = [b[0] for a, b in pairwise(messages) if facts.outage_ns and a[3] < facts.outage_ns[1] <= b[3]]
    assert (len(facts.restarts), list(facts.gaps), len(facts.outage_ns)) == (spec.restarts, jumps, 2 if spec.outage_minutes else 0)
    assert [messages[line][2] for line in outages] == [SNAPSHOT] * len(outages)
    assert not [m for m in messages if facts.outage_ns and facts.outage_ns[0] <= m[3] < facts.outage_ns[1]]
    assert sum(len(m[-1]) for m in messages if m[2] != SNAPSHOT) / len(messages) == pytest.approx(spec.updates, rel=0.35)


def test_times_and_sequences_rise_and_fill_the_day(archive):
    spec, _, reading = archive
    for place in (3, 6):
        assert (np.diff([m[place] for m in reading.messages]) > 0).all()
    start = spec.start_ms * 1_000_000
    ts = [m[3] for m in reading.messages]
    assert start <= ts[0] < start + 10_000_000
    assert (ts[-1] >= start + DAY_MS * 1_000_000) == (spec.next_day != "none")
    assert ts[-2] < start + DAY_MS * 1_000_000
    assert all((0 < m[3] - m[4] < 60_000_000) if spec.cts else m[4] == -1 for m in reading.messages)


def test_the_book_ends_as_the_facts_say_and_as_the_next_day_begins(archive):
    spec, facts, reading = archive
    *_, (_, before, after) = books(reading, spec)
    truth = (dict(facts.bids), dict(facts.asks))
    assert list(facts.bids) == sorted(facts.bids, reverse=True)
    assert list(facts.asks) == sorted(facts.asks)
    assert (after == truth) == (spec.next_day != "wrong")
    if spec.next_day != "none":
        assert before == truth, "deltas alone lead to the truth"
    differ = [side.keys() | other.keys() for side, other in zip(after, truth, strict=True)]
    count = sum(after[k].get(price) != truth[k].get(price) for k in (0, 1) for price in differ[k])
    assert count == facts.wrong_levels
    assert (count > 0) == (spec.next_day == "wrong")


def test_a_gap_leaves_the_book_wrong_until_the_next_snapshot():
    spec = replace(SMALL, depth=200, gaps=1, restarts=0, updates=60.0, interval_ms=1_200_000)
    data, facts = made(spec)
    *_, (_, before, after) = books(naive.read(data), spec)
    assert len(facts.gaps) == 1
    assert before != (dict(facts.bids), dict(facts.asks))
    assert after == (dict(facts.bids), dict(facts.asks))


def test_layouts_and_decimals_are_the_venues():
    linear, _ = made(SMALL)
    assert linear.startswith(b'{"topic":"orderbook.40.BTCUSDT","type":"snapshot","ts":1754697600')
    assert b'"b":[["116500.0","' in linear
    spot, _ = made(SPECS["dense spot"])
    assert spot.startswith(b'{"topic":"orderbook.40.DOGEUSDT","ts":1754697600')
    assert b'["0.7053","' in spot
    assert b'0","' not in spot.replace(b'"0"', b"")


def test_equal_specs_give_equal_bytes_and_the_seed_another_day(tmp_path):
    one, again, other = (made(replace(SMALL, seed=seed))[0] for seed in (1, 1, 2))
    assert one == again != other
    for name in ("a.zip", "b.zip"):
        write_archive(tmp_path / name, SMALL)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_every_packing_holds_the_same_lines(tmp_path):
    spec = SPECS["eventful"]
    facts = {name: write_archive(tmp_path / name, spec) for name in ("x.data.zip", "x.data.gz", "x.data")}
    assert len(set(facts.values())) == 1
    data = (tmp_path / "x.data").read_bytes()
    with zipfile.ZipFile(tmp_path / "x.data.zip") as archive:
        assert archive.namelist() == ["2025-08-09_BTCUSDT_ob40.data"]
        assert archive.read(spec.file_name) == data
    for name, fact in facts.items():
        assert head(tmp_path / name).first_ts_ns == fact.first_ts_ns
        batches = list(open_bybit(tmp_path / name).batches())
        assert (sum(map(len, batches)), sum(len(b.price) for b in batches)) == (fact.lines, fact.updates)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(facts)


@pytest.mark.parametrize("change", [
    {"depth": 1}, {"interval_ms": 1}, {"quiet": 1.0}, {"updates": 0.5}, {"layout": "x"}, {"next_day": "maybe"}, {"open_price": 1000},
    {"symbol": 'A"'}, {"date": "2025-13-01"}, {"gaps": -1}, {"seed": -1}, {"date": "1969-12-31"}, {"date": "2262-01-01"},
])  # fmt: skip
def test_a_spec_that_cannot_be_is_refused_with_what_is_allowed(change):
    (name,) = change
    with pytest.raises(UsageError, match=name):
        replace(SMALL, **change)


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError):
        write_archive(tmp_path / "file" / "x.zip", SMALL)
