"""The windowed replay of level-N message files against the full-depth book that they were cut from, against its twin, and through real files."""

from __future__ import annotations

import random
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tasks.errors import BookError
from tasks.partitions import MboRecipe
from tasks.reconstruction.rebuild import layer_names, rebuild
from tasks.reconstruction.window import WindowReplay
from tasks.scanning.decode import decode
from tasks.scanning.inventory import scan
from tasks.schemas import EVENT_DTYPES, F_LAST, REASONS, STATUSES, UNDEF_PRICE
from tests.oracles.naive_window import Book, naive_window
from tests.unit.test_replay import generated

UNIT = 100_000  # of a LOBSTER price, in 1e-9
TICK, BASE, LEVELS = 100, 2_238_100, 5  # in LOBSTER units; bids rest at base + 0..4 ticks, asks above them
START_NS = 1_340_285_400_000_000_000  # 2012-06-21 09:30 in New York
HALTED, QUOTING, TRADING = -1, 0, 1
ADD, PARTIAL, DELETE, EXECUTION, HIDDEN, CROSS, HALT = range(1, 8)
_STEPS = (ADD, ADD, ADD, ADD, PARTIAL, DELETE, DELETE, EXECUTION, EXECUTION, HIDDEN, CROSS, HALT)

Step = tuple[int, int, int, int]


@dataclass(frozen=True)
class Message:
    """A line of the message file (price in LOBSTER units) and the published book after it, prices in 1e-9, best first."""

    kind: int
    order_id: int
    size: int
    price: int
    direction: int
    book: Book


class Market:
    """A full-depth book order by order, and the lines that a level-N file has of it: those that change its top N levels."""

    def __init__(self, levels: int) -> None:
        self.levels, self.orders, self.next_id = levels, dict[int, tuple[int, int, int]](), 1  # id -> direction, price, size

    def book(self) -> Book:
        sums: dict[int, dict[int, int]] = {1: {}, -1: {}}
        for direction, price, size in self.orders.values():
            sums[direction][price * UNIT] = sums[direction].get(price * UNIT, 0) + size
        return sorted(sums[1].items(), reverse=True)[: self.levels], sorted(sums[-1].items())[: self.levels]

    def step(self, step: Step) -> Message | None:
        before = self.book()
        line = self._change(*step)
        after = self.book()
        return Message(*line, after) if line is not None and (line[0] in (HIDDEN, CROSS, HALT) or before != after) else None

    def _change(self, kind: int, a: int, b: int, c: int) -> tuple[int, int, int, int, int] | None:
        direction, size = 1 if a % 2 else -1, c + 1
        if kind == ADD:
            price = BASE + TICK * (b % LEVELS + (LEVELS if direction < 0 else 0))
            self.orders[self.next_id] = (direction, price, size)
            self.next_id += 1
            return ADD, self.next_id - 1, size, price, direction
        if kind == HALT:
            return HALT, 0, 0, (HALTED, QUOTING, TRADING)[b % 3], -1
        if kind in (HIDDEN, CROSS):
            return kind, 0 if kind == HIDDEN else -1, size, BASE + LEVELS * TICK - 50, direction
        same = [i for i, order in self.orders.items() if order[0] == direction]
        if not same:
            return None
        chosen = min(same, key=lambda i: (-direction * self.orders[i][1], i)) if kind == EXECUTION else same[b % len(same)]
        _, price, resting = self.orders[chosen]
        if kind == PARTIAL and resting == 1:
            kind = DELETE
        taken = resting if kind == DELETE else min(size, resting - (kind == PARTIAL))
        if taken == resting:
            del self.orders[chosen]
        else:
            self.orders[chosen] = (direction, price, resting - taken)
        return kind, chosen, taken, price, direction


def recorded(steps: list[Step], levels: int, unseen: int) -> list[Message]:
    """The file of a market whose first `unseen` steps came before the recording."""
    market = Market(levels)
    lines = [market.step(step) for step in steps]
    return [line for line in lines[unseen:] if line is not None]


number = st.integers(0, 9)
steps = st.lists(st.tuples(st.sampled_from(_STEPS), number, number, number), min_size=2, max_size=90)
files = st.builds(recorded, steps, st.integers(1, 3), st.integers(0, 30)).filter(bool)


def levels_of(messages: list[Message]) -> int:
    return max(1, *(len(side) for m in messages for side in m.book))


def records_of(messages: list[Message]) -> list[tuple[str, str, int, int, int, int]]:
    """(action, side, price, size, flags, message) of each event, as the LOBSTER reader makes them."""
    rows: list[tuple[str, str, int, int, int, int]] = []
    for n, m in enumerate(messages):
        side, other = ("B", "A") if m.direction > 0 else ("A", "B")
        price = m.price * UNIT if m.kind != HALT else m.price * 10**9
        if m.kind == EXECUTION:
            rows.append(("T", other, price, m.size, 0, n))
        action = {ADD: "A", HIDDEN: "T", CROSS: "T", HALT: "N"}.get(m.kind, "C")
        side = {HIDDEN: other, CROSS: "N", HALT: "N"}.get(m.kind, side)
        rows.append((action, side, price, m.size, F_LAST, n))
    return rows


def columns_of(messages: list[Message]) -> dict[str, np.ndarray]:
    rows = records_of(messages)
    columns = {name: np.zeros(len(rows), dtype) for name, dtype in EVENT_DTYPES.items()}
    for i, (action, side, price, size, flags, n) in enumerate(rows):
        columns["action"][i], columns["side"][i], columns["price"][i] = ord(action), ord(side), price
        columns["size"][i], columns["flags"][i], columns["sequence"][i] = size, flags, n
        columns["ts_event"][i] = START_NS + n // 2 * 1_000_000  # pairs share a time
    columns["ts_recv"] = columns["ts_event"].copy()
    return columns


def truth_of(messages: list[Message], levels: int) -> np.ndarray:
    truth = np.zeros((len(messages), levels, 4), np.int64)
    truth[:, :, [0, 2]] = UNDEF_PRICE
    for n, m in enumerate(messages):
        for at, side in ((2, m.book[0]), (0, m.book[1])):
            for k, level in enumerate(side):
                truth[n, k, at : at + 2] = level
    return truth


def cells(book: Book, depth: int) -> tuple:
    sides = [side[:depth] + [(UNDEF_PRICE, 0)] * (depth - len(side)) for side in book]
    return tuple((*sides[side][level], 0) for level in range(depth) for side in range(2))


def run(messages: list[Message], levels: int, depth: int, *, batch: int = 1 << 16, interval: int = 700_000, strict: bool = False):
    """Samples as lists of plain tuples: rows and bbo (message, status, reason, cells), grid (time, as_of, ...), trades; and the replay."""
    replay = WindowReplay(levels=levels, depth=depth, interval_ns=interval, clock="ts_recv", windows=None, strict=strict, batch_rows=max(batch, 1))
    columns, truth = columns_of(messages), truth_of(messages, levels)
    rows, bbo, grid, trades, used = [], [], [], [], 0

    def plain(buffer, n, head):
        for r in range(n):
            found = tuple((int(buffer.px[k, r]), int(buffer.sz[k, r]), int(buffer.ct[k, r])) for k in range(len(buffer.px)))
            yield (*head(r), STATUSES[buffer.status[r]], REASONS[buffer.reason[r]], found)

    def take(samples):
        events = samples.events
        rows.extend(plain(samples.rows, samples.n_rows, lambda r: (int(events["sequence"][samples.rows.at[r]]),)))
        bbo.extend(plain(samples.bbo, samples.n_bbo, lambda r: (int(events["sequence"][samples.bbo.at[r]]),)))
        grid.extend(plain(samples.grid.rows, samples.n_grid, lambda r: (int(samples.grid.time[r]), int(samples.grid.as_of[r]))))
        for r in range(samples.n_trades):
            trades.append((int(events["sequence"][samples.trades.at[r]]), *samples.trades.touch[:, r].tolist()))

    for at in range(0, len(columns["price"]), batch):
        cut = {name: values[at : at + batch].copy() for name, values in columns.items()}
        ends = int(np.count_nonzero(cut["flags"] & F_LAST))
        for samples in replay.feed(cut, truth[used : used + ends].copy()):
            take(samples)
        used += ends
    for samples in replay.finish():
        take(samples)
    return rows, bbo, grid, trades, replay


def states(messages: list[Message], suspect_from: int | None = None) -> list[tuple[str, str]]:
    """(status, reason) after each message."""
    found, halted = [], False
    for n, m in enumerate(messages):
        halted = m.price == HALTED if m.kind == HALT else halted
        doubtful = suspect_from is not None and n >= suspect_from
        found.append(("suspect", "truth_mismatch") if doubtful else ("halted", "halt") if halted else ("valid", ""))
    return found


def twin(messages: list[Message], truth: list[Message], levels: int) -> list[tuple[Book, int | None]]:
    ends = [(action, side, price, size) for action, side, price, size, flags, _ in records_of(messages) if flags & F_LAST]
    return naive_window(ends, [m.book for m in truth], levels)


@generated
@given(files, st.integers(1, 5))
def test_every_row_is_the_top_of_the_full_book_and_halted_from_a_halt_to_its_end(messages, depth):
    levels = levels_of(messages)
    rows, bbo, _, trades, replay = run(messages, levels, depth)
    assert [level for _, level in twin(messages, messages, levels)] == [None] * len(messages)
    expected = [(n, *state, cells(m.book, depth)) for n, (m, state) in enumerate(zip(messages, states(messages), strict=True))]
    assert rows == expected
    counters = replay.counters()
    assert counters["truth_compared"] == counters["truth_matched"] == len(messages) - 1
    assert (replay.diverged, counters["unknown_level"], counters["over_cancel"]) == (None, 0, 0)
    assert counters["halts"] == sum(m.kind == HALT for m in messages)
    changes = [
        row
        for before, row in zip([None, *expected], expected, strict=False)
        if before is None or before[1:3] != row[1:3] or before[3][:2] != row[3][:2]
    ]
    assert bbo == [(*row[:3], row[3][:2]) for row in changes]
    touches = [(UNDEF_PRICE, UNDEF_PRICE, 0, 0), *((b[0], a[0], b[1], a[1]) for b, a, *_ in (row[3] for row in expected))]
    assert trades == [(n, *touches[n]) for n, m in enumerate(messages) if m.kind in (EXECUTION, HIDDEN, CROSS)]


@generated
@given(files, st.integers(1, 3_000_000))
def test_a_grid_row_holds_the_last_message_at_or_before_its_time(messages, interval):
    levels = levels_of(messages)
    _, _, grid, _, _ = run(messages, levels, levels, interval=interval)
    times = [START_NS + n // 2 * 1_000_000 for n in range(len(messages))]
    first, last = -(-times[0] // interval), -(-times[-1] // interval)
    expected = []
    for at in range(first * interval, last * interval + 1, interval):
        n = max(i for i, time in enumerate(times) if time <= at)
        expected.append((at, times[n], *states(messages)[n], cells(messages[n].book, levels)))
    assert grid == expected


@generated
@given(files, st.integers(1, 7))
def test_batches_of_any_size_give_the_same_rows(messages, batch):
    levels = levels_of(messages)
    whole, cut = run(messages, levels, 2), run(messages, levels, 2, batch=batch)
    assert cut[:4] == whole[:4]
    assert cut[4].counters() == whole[4].counters()


@generated
@given(files, st.data())
def test_a_message_of_the_wrong_size_is_found_at_its_row_and_level_and_not_before(messages, data):
    levels = levels_of(messages)
    at = data.draw(st.integers(0, len(messages) - 1))
    m = messages[at]
    size = data.draw(st.integers(1, 12))
    assume(at > 0 and m.kind <= EXECUTION and size != m.size)
    side = 0 if m.direction > 0 else 1
    price, before = m.price * UNIT, messages[at - 1].book[side]
    corrupted = [*messages[:at], replace(m, size=size), *messages[at + 1 :]]
    expected = twin(corrupted, messages, levels)
    rows, _, _, _, replay = run(corrupted, levels, levels)
    if m.kind != ADD and m.size == dict(before)[price] < size:
        # More than the whole level: what is left is right, so the published book cannot tell; it is counted.
        assert (replay.diverged, replay.counters()["over_cancel"]) == (None, 1)
        return
    level = [p for p, _ in m.book[side] if p != price and (p > price) == (side == 0)]  # those that stand before it
    assert replay.diverged == (at, len(level))
    assert [n for n, (_, found) in enumerate(expected) if found is not None][0] == at
    assert expected[at][1] == len(level)
    found = [(n, *state, cells(book, levels)) for n, (state, (book, _)) in enumerate(zip(states(messages, at), expected, strict=True))]
    assert rows == found
    assert replay.counters()["truth_matched"] == sum(level is None for _, level in expected) - 1


@generated
@given(files, st.data())
def test_a_lost_or_doubled_message_leaves_the_book_as_the_twin_has_it_and_its_levels_in_order(messages, data):
    levels = levels_of(messages)
    at = data.draw(st.integers(0, len(messages) - 1))
    none = Message(HALT, 0, 0, TRADING, -1, messages[at].book)  # in place of the lost one: the rows of both files still pair
    again = [*messages[: at + 1], messages[at], *messages[at + 1 :]]
    lost = [*messages[:at], none, *messages[at + 1 :]]
    for faulty, truth in ((lost, messages), (again, again)):
        expected = twin(faulty, truth, levels)
        rows, _, _, _, replay = run(faulty, levels, levels)
        assert [row[3] for row in rows] == [cells(book, levels) for book, _ in expected]
        wrong = [(n, level) for n, (_, level) in enumerate(expected) if level is not None]
        assert replay.diverged == (wrong[0] if wrong else None)
        for row in rows:
            for side, sign in ((0, -1), (1, 1)):
                prices = [px for px, _, _ in row[3][side::2] if px != UNDEF_PRICE]
                assert all(sign * a < sign * b for a, b in zip(prices, prices[1:], strict=False)), "levels out of order or twice"


def busy(count: int, seed: int = 4) -> list[Message]:
    rng = random.Random(seed)
    drawn = [(rng.choice(_STEPS), rng.randrange(10), rng.randrange(1000), rng.randrange(10)) for _ in range(count)]
    return recorded(drawn, 3, 40)


def test_strict_replay_names_the_message_and_the_level():
    messages = busy(400)
    at = next(n for n, m in enumerate(messages) if n > 100 and m.kind == ADD and m.price * UNIT == m.book[0][0][0])
    corrupted = [*messages[:at], replace(messages[at], size=77), *messages[at + 1 :]]
    with pytest.raises(BookError, match=rf"After message {at} .* at level 1\. .*--on-book-error suspect"):
        run(corrupted, 3, 3, strict=True)
    run(messages, 3, 3, strict=True)


def test_published_books_that_do_not_pair_with_the_events_are_refused():
    messages = busy(100)
    replay = WindowReplay(levels=3, depth=3, interval_ns=10**9, clock="ts_recv", windows=None, strict=False, batch_rows=1_000)
    with pytest.raises(BookError, match="event ends but"):
        list(replay.feed(columns_of(messages), truth_of(messages, 3)[1:]))


def write_pair(folder: Path, messages: list[Message]) -> Path:
    """A zip as LOBSTER delivers it."""
    lines = [f"{34_200 + n // 2 / 1000:.9f},{m.kind},{m.order_id},{m.size},{m.price},{m.direction}" for n, m in enumerate(messages)]
    rows = []
    for m in messages:
        sides = [
            [(px // UNIT, size) for px, size in side] + [(empty, 0)] * (3 - len(side))
            for side, empty in zip(m.book, (-(10**10) + 1, 10**10 - 1), strict=True)
        ]
        rows.append(",".join(f"{ap},{az},{bp},{bz}" for (bp, bz), (ap, az) in zip(*sides, strict=True)))
    path = folder / "pair.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("XYZ_2012-06-21_34200000_57600000_message_3.csv", "\n".join(lines) + "\n")
        archive.writestr("XYZ_2012-06-21_34200000_57600000_orderbook_3.csv", "\n".join(rows) + "\n")
    return path


RECIPE = MboRecipe(depth=4, interval_ns=1_000_000)


def rebuilt(folder: Path, messages: list[Message], recipe: MboRecipe = RECIPE, batch_rows: int = 500):
    (source,) = scan([write_pair(folder, messages)]).files
    (part,) = decode(source, folder / "lake", recipe).parts
    return rebuild(folder / "lake", part.partition, [part.path], recipe, batch_rows=batch_rows)


def test_a_zipped_pair_becomes_layers_that_equal_the_published_book_without_counts(tmp_path):
    messages = busy(3_000)
    made = rebuilt(tmp_path, messages)
    counts = made.facts["counts"]
    assert counts["truth_compared"] == counts["truth_matched"] == len(messages) - 1
    assert (made.facts["event_ends"], made.facts["first_difference"], made.facts["orders"]) == (len(messages), None, -1)
    assert counts["halts"] > 10
    table = pq.read_table(tmp_path / "lake" / made.outputs[layer_names(RECIPE)["rows"]][0], partitioning=None)
    assert list(zip(table["status"].to_pylist(), table["reason"].to_pylist(), strict=True)) == states(messages)
    rows = table.select([f"{side}_{kind}_{k:02d}" for k in range(4) for side in ("bid", "ask") for kind in ("px", "sz", "ct")]).to_pylist()
    for m, row in zip(messages, rows, strict=True):
        values = list(row.values())
        assert tuple(zip(values[::3], values[1::3], values[2::3], strict=True)) == cells(m.book, 4)
    closing = pq.read_table(tmp_path / "lake" / made.outputs["closing_book"][0], partitioning=None)
    assert closing.num_rows == 0


def test_a_corrupted_file_is_suspect_from_its_message_on_or_fails_when_asked_to(tmp_path):
    messages = busy(600)
    at = next(n for n, m in enumerate(messages) if n > 300 and m.kind == DELETE and len(m.book[m.direction < 0]) == 3)
    corrupted = [*messages[:at], replace(messages[at], size=1 + messages[at].size), *messages[at + 1 :]]
    if dict(messages[at - 1].book[messages[at].direction < 0])[messages[at].price * UNIT] == messages[at].size:
        corrupted[at] = replace(corrupted[at], kind=ADD)
    for name in ("suspect", "fail"):
        (tmp_path / name).mkdir()
    made = rebuilt(tmp_path / "suspect", corrupted)
    assert made.facts["first_difference"]["message"] == at
    assert (made.facts["status"], made.facts["reason"]) == ("suspect", "truth_mismatch")
    table = pq.read_table(tmp_path / "suspect/lake" / made.outputs[layer_names(RECIPE)["rows"]][0], partitioning=None)
    assert [s == "suspect" for s in table["status"].to_pylist()] == [n >= at for n in range(len(messages))]
    with pytest.raises(BookError, match=f"After message {at} "):
        rebuilt(tmp_path / "fail", corrupted, replace(RECIPE, on_book_error="fail"))
