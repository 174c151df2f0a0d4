"""The windowed replay of level-N message files against the full-depth book that they were cut from, against its twin, and through real files."""

from __future__ import annotations

import itertools
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tasks.book_rows import read_table
from tasks.errors import BookError
from tasks.partitions import MboRecipe
from tasks.reconstruction.layer_writer import layer_names
from tasks.reconstruction.rebuild import rebuild
from tasks.reconstruction.window import WindowReplay
from tasks.scanning.decode import decode
from tasks.scanning.inventory import scan
from tasks.schemas import F_LAST, REASONS, STATUSES, UNDEF_PRICE
from tests.oracles.naive_window import Book, naive_window
from tests.sampled import sampled_levels
from tests.strategies.windowed import (
    ADD,
    CROSS,
    DELETE,
    EXECUTION,
    HALT,
    HIDDEN,
    START_NS,
    TRADING,
    UNIT,
    Message,
    busy,
    columns_of,
    files,
    levels_of,
    records_of,
    truth_of,
)
from tests.unit.test_replay import generated


def cells(book: Book, depth: int) -> tuple:
    sides = [side[:depth] + [(UNDEF_PRICE, 0)] * (depth - len(side)) for side in book]
    return tuple((*sides[side][level], 0) for level in range(depth) for side in range(2))


def run(messages: list[Message], levels: int, depth: int, *, batch: int = 1 << 16, interval: int = 700_000, strict: bool = False):
    """Samples as lists of plain tuples: rows and bbo (message, status, reason, cells), grid (time, as_of, ...), trades; and the replay."""
    replay = WindowReplay(levels=levels, depth=depth, interval_ns=interval, clock="ts_recv", windows=None, strict=strict, batch_rows=max(batch, 1))
    columns, truth = columns_of(messages), truth_of(messages, levels)
    rows, bbo, grid, trades, used = [], [], [], [], 0

    def plain(buffer, n, head):
        px, sz, ct = sampled_levels(buffer, n)
        for r in range(n):
            found = tuple((int(px[k, r]), int(sz[k, r]), int(ct[k, r])) for k in range(len(px)))
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
        halted = m.price != TRADING if m.kind == HALT else halted  # quoting that resumes is no trading yet
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
    levels, interval = levels_of(messages), max(interval, len(messages) * 2_000)  # some 250 rows at most
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
    candidates = [n for n, m in enumerate(messages) if n > 0 and m.kind <= EXECUTION]
    assume(candidates)
    at = data.draw(st.sampled_from(candidates))
    m = messages[at]
    size = m.size + data.draw(st.integers(1, 11)) if data.draw(st.booleans()) or m.size == 1 else data.draw(st.integers(1, m.size - 1))
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
    assert next(n for n, (_, found) in enumerate(expected) if found is not None) == at
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
                assert all(sign * a < sign * b for a, b in itertools.pairwise(prices)), "levels out of order or twice"


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


def write_pair(folder: Path, messages: list[Message], levels: int = 3, first: int = 0) -> Path:
    """A zip as LOBSTER delivers it; first: number of the first message in the day."""
    lines = [f"{34_200 + n // 2 / 1000:.9f},{m.kind},{m.order_id},{m.size},{m.price},{m.direction}" for n, m in enumerate(messages, start=first)]
    rows = []
    for m in messages:
        sides = [
            ([(px // UNIT, size) for px, size in side] + [(empty, 0)] * (levels - len(side)))[:levels]
            for side, empty in zip(m.book, (-(10**10) + 1, 10**10 - 1), strict=True)
        ]
        rows.append(",".join(f"{ap},{az},{bp},{bz}" for (bp, bz), (ap, az) in zip(*sides, strict=True)))
    path = folder / f"pair-{first}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"XYZ_2012-06-21_34200000_57600000_message_{levels}.csv", "\n".join(lines) + "\n")
        archive.writestr(f"XYZ_2012-06-21_34200000_57600000_orderbook_{levels}.csv", "\n".join(rows) + "\n")
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
    table = read_table(tmp_path / "lake" / made.outputs[layer_names(RECIPE)["rows"]][0])
    assert list(zip(table["status"].to_pylist(), table["reason"].to_pylist(), strict=True)) == states(messages)
    rows = table.select([f"{side}_{kind}_{k:02d}" for k in range(4) for side in ("bid", "ask") for kind in ("px", "sz", "ct")]).to_pylist()
    for m, row in zip(messages, rows, strict=True):
        values = list(row.values())
        assert tuple(zip(values[::3], values[1::3], values[2::3], strict=True)) == cells(m.book, 4)
    closing = pq.read_table(tmp_path / "lake" / made.outputs["closing_book"][0], partitioning=None)
    assert closing.num_rows == 0


def test_a_corrupted_file_is_suspect_from_its_message_on_or_fails_when_asked_to(tmp_path):
    messages = busy(600)

    def more_rests_there(n: int) -> bool:
        m = messages[n]
        return dict(messages[n - 1].book[0 if m.direction > 0 else 1])[m.price * UNIT] > m.size

    at = next(n for n, m in enumerate(messages) if n > 300 and m.kind == DELETE and more_rests_there(n))
    corrupted = [*messages[:at], replace(messages[at], size=1 + messages[at].size), *messages[at + 1 :]]
    for name in ("suspect", "fail"):
        (tmp_path / name).mkdir()
    made = rebuilt(tmp_path / "suspect", corrupted)
    assert made.facts["first_difference"]["message"] == at
    assert (made.facts["status"], made.facts["reason"]) == ("suspect", "truth_mismatch")
    table = read_table(tmp_path / "suspect/lake" / made.outputs[layer_names(RECIPE)["rows"]][0])
    assert [s == "suspect" for s in table["status"].to_pylist()] == [n >= at for n in range(len(messages))]
    with pytest.raises(BookError, match=f"After message {at} "):
        rebuilt(tmp_path / "fail", corrupted, replace(RECIPE, on_book_error="fail"))


@pytest.mark.parametrize("levels", [(3, 3), (3, 2), (2, 3)])
def test_each_pair_of_a_day_begins_with_its_own_published_book_and_has_its_own_levels(levels, tmp_path):
    """Between the two, messages are missing; the first one is corrupted towards its end."""
    messages = busy(900)
    at = next(n for n, m in enumerate(messages) if n > 250 and m.kind == ADD and m.price * UNIT == m.book[0][0][0])
    corrupted = [*messages[:at], replace(messages[at], size=77), *messages[at + 1 : 300]]
    parts = (corrupted, 0, 300), (messages[600:], 600, 900)
    sources = scan([write_pair(tmp_path, part, n, first) for n, (part, first, _) in zip(levels, parts, strict=True)]).files
    decoded = [part for source in sources for part in decode(source, tmp_path / "lake", RECIPE).parts]
    made = rebuild(tmp_path / "lake", decoded[0].partition, [part.path for part in decoded], RECIPE, batch_rows=100)
    rows = read_table(tmp_path / "lake" / made.outputs[layer_names(RECIPE)["rows"]][0]).to_pylist()
    kept = [*messages[:300], *messages[600:]]
    names = [f"{side}_{kind}_{k:02d}" for k in range(4) for side in ("bid", "ask") for kind in ("px", "sz", "ct")]
    for n, (message, state, row) in enumerate(zip(kept, states(kept), rows, strict=True)):
        if at <= n < 300:
            assert (row["status"], row["reason"]) == ("suspect", "truth_mismatch"), n
            continue
        assert (row["status"], row["reason"]) == state, n
        values, shown = [row[name] for name in names], levels[n >= 300]
        bids, asks = (side[:shown] for side in message.book)
        assert tuple(zip(values[::3], values[1::3], values[2::3], strict=True)) == cells((bids, asks), 4), n
    assert made.facts["counts"]["truth_compared"] == len(kept) - 2
    assert made.facts["status"] == "valid"
