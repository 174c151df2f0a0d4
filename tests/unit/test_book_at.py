"""The book at any instant, against a replay of everything before it: any time, any checkpoints, several files, damaged sessions."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.book_rows import read_table
from tasks.errors import BookmillError, UsageError
from tasks.events_file import DICTIONARY, ENCODINGS, to_table
from tasks.footers import read_facts
from tasks.partitions import MboRecipe, Partition, Stamp
from tasks.reconstruction import rebuild as rebuild_module
from tasks.reconstruction.book_at import BookAt, book_at
from tasks.reconstruction.checkpoints import CheckpointWriter, write_resting
from tasks.reconstruction.history import find_partition, rows_from
from tasks.reconstruction.lifetimes import LIFETIMES
from tasks.reconstruction.queue_position import queue_position
from tasks.reconstruction.rebuild import rebuild
from tasks.scanning.decode import decode
from tasks.scanning.inventory import scan
from tasks.scanning.synthetic import SessionSpec, generate
from tasks.schemas import BBO, EVENT_DTYPES, EVENTS, F_LAST, F_SNAPSHOT, UNDEF_PRICE
from tasks.storage import ParquetSink, write_table
from tests.lake_building import PARTITION, columns_of, write_events
from tests.oracles.naive_book import NaiveBook
from tests.oracles.naive_tracking import Files, Opening, moments
from tests.strategies.sessions import sessions
from tests.unit.test_replay import generated, one_book, record

ROOT = Path(__file__).resolve().parents[2]
BEFORE = replace(PARTITION, date="2025-10-21")
STAMP = Stamp("inputs", "recipe")


def resting(orders: Opening) -> dict[str, np.ndarray]:
    side, price, order_id, size = zip(*orders, strict=True) if orders else ((), (), (), ())
    return {
        "side": np.array([ord(s) for s in side], np.uint8), "price": np.array(price, np.int64), "order_id": np.array(order_id, np.uint64),
        "size": np.array(size, np.int64),
    }  # fmt: skip


def build(
    lake: Path, files: Files, *, every: int = 3, group_rows: int = 7, clock: str = "ts_recv", starts_empty: bool = False,
    opening: Opening | None = None, **more: object,
) -> Partition:  # fmt: skip
    """Events in small row groups, a checkpoint after every so many events, made by the naive book, and the facts of a bbo layer."""
    names = []
    for number, (records, marks) in enumerate(files):
        columns = columns_of(records)
        names.append(PARTITION.path("events", f"{number:010}"))
        with ParquetSink(lake / names[-1], EVENTS, dictionary=DICTIONARY, encodings=ENCODINGS, row_group_rows=group_rows) as sink:
            sink.write(to_table(columns, PARTITION.symbol))
            sink.commit(STAMP, {"suspect_rows": list(marks)})
    carry = None
    if opening is not None:
        carry = BEFORE.path("closing_book")
        write_resting(lake / carry, resting(opening), STAMP, {"status": "valid", "reason": ""})
    checkpoints = CheckpointWriter(lake / PARTITION.path("checkpoints"))
    if every:
        ends = [(now, shown) for now, shown in moments(files, clock, starts_empty, opening) if shown["end"]]
        for now, shown in ends[every - 1 :: every]:
            if not shown["top"]:  # which no order of a checkpoint could tell
                state = {name: shown[name] for name in ("as_of", "sequence", "status", "reason", "since")}
                checkpoints.add(names[shown["file"]], shown["row"], resting(shown["orders"]), state | {"now": now, "halted": 0})
    checkpoints.commit(STAMP)
    facts = {"events": names, "carry": carry, "clock": clock, "starts_empty": starts_empty, "windowed": False, "trading_states": False}
    write_table(lake / PARTITION.path("bbo"), BBO.empty_table(), STAMP, facts | more)
    return PARTITION


@st.composite
def days(draw: st.DrawFn) -> tuple[Files, Opening | None]:
    """One or two files of one book, rows set aside in them, and perhaps a closing book of the day before, after which nothing clears the book."""
    records = one_book(draw(sessions(max_records=50)))
    whole, opening = records, None
    while len(records) > 1 and records["action"][0] == ord("R"):
        records = records[1:]
    if draw(st.booleans()) and records["action"][0] != ord("R") and not records["flags"][0] & F_SNAPSHOT:
        base = int(records["price"][records["price"] != UNDEF_PRICE].max(initial=0))
        opening = [("B", base, 900, 4), ("B", base, 2, 5), ("B", base - 10, 3, 1), ("A", base + 10, 901, 7)]
    else:
        records = whole
    cut = draw(st.integers(0, len(records)))
    parts = [part for part in (records[:cut], records[cut:]) if len(part)]
    return [(part, sorted(draw(st.sets(st.integers(0, len(part)), max_size=2)))) for part in parts], opening


def seen(book: BookAt) -> dict:
    orders = [tuple(row.values()) for row in book.orders().drop_columns("place").to_pylist()]
    return {
        "bids": book.bids, "asks": book.asks, "orders": orders, "as_of": book.as_of, "sequence": book.sequence, "status": book.status,
        "reason": book.reason, "since": book.status_since,
    }  # fmt: skip


NOTHING = {"bids": (), "asks": (), "orders": [], "as_of": None, "sequence": 0, "status": "no_book", "reason": "no_snapshot", "since": None}


def expected(files: Files, time_ns: int, clock: str, starts_empty: bool, opening: Opening | None) -> dict:
    found = NOTHING
    for now, shown in moments(files, clock, starts_empty, opening):
        if now > time_ns:
            break
        found = {name: shown[name] for name in NOTHING}
    return found


@generated
@given(days(), st.data(), st.integers(0, 6), st.integers(1, 20), st.sampled_from(["ts_recv", "ts_event"]), st.booleans())
def test_the_book_at_any_time_is_the_naive_one_whatever_the_checkpoints(day, data, every, group_rows, clock, starts_empty):
    files, opening = day
    times = sorted({int(t) for records, _ in files for name in ("ts_recv", "ts_event") for t in records[name]})
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder), files, every=every, group_rows=group_rows, clock=clock, starts_empty=starts_empty, opening=opening)
        for time_ns in data.draw(st.lists(st.sampled_from(times), min_size=1, max_size=4)):
            at = time_ns + data.draw(st.integers(-1, 1))
            book = book_at(Path(folder), PARTITION, at)
            assert seen(book) == expected(files, at, clock, starts_empty, opening)
            assert book.age_ns == (-1 if book.as_of is None else at - book.as_of)
            shallow = book_at(Path(folder), PARTITION, at, depth=2)
            assert (shallow.bids, shallow.asks) == (book.bids[:2], book.asks[:2])


@pytest.fixture(scope="module")
def session() -> np.ndarray:
    return np.concatenate(list(generate(SessionSpec(records=30_000, seed=3))))


def test_it_is_every_row_of_the_time_grid(session, tmp_path, monkeypatch):
    monkeypatch.setattr(rebuild_module, "CHECKPOINT_EVERY", 2_000)
    recipe = MboRecipe(interval_ns=20_000_000_000)
    rebuild(tmp_path, PARTITION, [write_events(tmp_path, session, suspect_rows=[9_000])], recipe, batch_rows=1_000)
    rows = pq.read_table(tmp_path / PARTITION.path("mbp-10-20s"), partitioning=None).to_pylist()
    assert len(rows) > 20
    assert {row["status"] for row in rows} >= {"valid", "suspect"}
    for row in rows[::3]:
        book = book_at(tmp_path, PARTITION, row["ts_event"].value, depth=10)
        assert (book.status, book.reason, book.age_ns, book.sequence) == (row["status"], row["reason"], row["age_ns"], row["sequence"])
        assert (book.as_of, book.status_since) == (row["as_of"].value, row["status_since"].value)
        for side, levels in (("bid", book.bids), ("ask", book.asks)):
            shown = [(row[f"{side}_px_{k:02d}"], row[f"{side}_sz_{k:02d}"], row[f"{side}_ct_{k:02d}"]) for k in range(10)]
            assert [level for level in shown if level[0] != UNDEF_PRICE] == list(levels)


def test_a_number_missing_over_a_snapshot_is_a_gap_after_the_checkpoint_at_its_end(tmp_path, monkeypatch):
    """Of a snapshot no numbers count: the last one before it and the first one after it follow each other, or there is a gap."""
    orders = ("A", "B", 100, 5, 1), ("A", "A", 105, 5, 2)
    before = np.concatenate([record("R"), *(record(*order) for order in orders), *[record("N")] * 6])
    snapshot = np.concatenate([record("R"), *(record(*order) for order in orders)])
    snapshot["flags"] = F_SNAPSHOT, F_SNAPSHOT, F_SNAPSHOT | F_LAST
    for missing in (0, 1):
        records = np.concatenate([before, snapshot, record("N"), record("N")])
        records["ts_recv"] = records["ts_event"] = np.arange(len(records)) + 1_761_139_800_000_000_000
        records["sequence"] = [*range(1, 10), 0, 0, 0, 10 + missing, 11 + missing]
        lake = tmp_path / str(missing)
        monkeypatch.setattr(rebuild_module, "CHECKPOINT_EVERY", 10)
        made = rebuild(lake, PARTITION, [write_events(lake, records)], MboRecipe(sequence="contiguous"), batch_rows=3)
        assert [c["row"] for c in read_facts(lake / PARTITION.path("checkpoints"))["checkpoints"]] == [12]
        assert made.facts["anomalies"]["gap"] == missing
        book = book_at(lake, PARTITION, int(records["ts_recv"][-1]))
        assert (book.status, book.reason) == (("suspect", "gap") if missing else ("valid", ""))


def test_only_the_records_after_the_checkpoint_are_read(session, tmp_path, monkeypatch):
    build(tmp_path, [(session[:6_000], [])], every=500, group_rows=500)
    events = tmp_path / PARTITION.path("events", f"{0:010}")
    read = []
    whole = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_group", lambda self, i, *a, **k: read.append((self.metadata.num_columns, i)) or whole(self, i, *a, **k)
    )
    columns = len(EVENTS)
    book_at(tmp_path, PARTITION, int(session["ts_recv"][4_800]))
    groups = {group for width, group in read if width == columns}
    assert len(groups) <= 3, "checkpoints are 500 events apart, so that fewer than 700 records are needed"
    assert max(groups) == 9
    assert [row for row, _ in rows_from(events, 5_400, ["flags"], 10_000)] == [5_400, 5_500]


def test_checkpoints_of_another_rebuild_are_not_taken(session, tmp_path):
    build(tmp_path, [(session[:2_000], [])], every=50, group_rows=500)
    at = int(session["ts_recv"][1_500])
    right = book_at(tmp_path, PARTITION, at)
    wrong = CheckpointWriter(tmp_path / PARTITION.path("checkpoints"))
    moment = {"now": at, "as_of": at, "sequence": 1, "status": "valid", "reason": "", "since": at, "halted": 0}
    wrong.add(PARTITION.path("events", f"{0:010}"), 1_500, resting([]), moment)
    wrong.commit(Stamp("others", "recipe"))
    assert book_at(tmp_path, PARTITION, at) == right


def test_a_book_without_events_for_too_long_is_stale_and_one_without_trading_is_halted(tmp_path):
    rows = [
        record("R", ts=1_000), record("A", "B", 100, 3, 7, ts=1_010), record("N", price=-1, ts=1_020), record("A", "B", 101, 3, 8, ts=1_030),
        record("N", price=1, ts=1_040),
    ]  # fmt: skip
    build(tmp_path, [(np.concatenate(rows), [])], every=0, trading_states=True, stale_after_ns=50)
    seen_at = {at: book_at(tmp_path, PARTITION, at) for at in (1_019, 1_030, 1_090, 1_091)}
    assert [(b.status, b.reason, b.status_since) for b in seen_at.values()] == [
        ("valid", "", 1_000), ("halted", "halt", 1_020), ("valid", "", 1_040), ("stale", "silence", 1_090),
    ]  # fmt: skip
    build(tmp_path, [(np.concatenate(rows), [])], every=0, trading_states=False)
    assert book_at(tmp_path, PARTITION, 1_091).status == "valid"


def test_a_partition_is_found_or_the_candidates_are_named(tmp_path):
    with pytest.raises(UsageError, match="no lake"):
        find_partition(tmp_path / "nowhere", "ESZ5", "2025-10-22")
    with pytest.raises(UsageError, match="no book of ESZ5"):
        find_partition(tmp_path, "ESZ5", "2025-10-22")
    parts = [Partition("TEST", "2025-10-22", "BRN/A B", 1, 1), Partition("TEST", "2025-10-22", "BRN/A B", 2, 1)]
    parts += [Partition("TEST", "2025-10-23", "BRN/A B", 1, 1), Partition("OTHER", "2025-10-23", "BRN/A B", 1, 7)]
    for part in parts:
        write_table(tmp_path / part.path("bbo"), BBO.empty_table(), STAMP, {})
    day = int(np.datetime64("2025-10-22T23:59:59.999999999", "ns").astype(np.int64))
    with pytest.raises(UsageError, match=r"Several .* p1-1, .* p2-1.* --publisher"):
        find_partition(tmp_path, "BRN/A B", day)
    assert find_partition(tmp_path, "BRN/A B", day, publisher=2) == parts[1]
    assert find_partition(tmp_path, "BRN/A B", day + 1, dataset="OTHER") == parts[3]
    assert find_partition(tmp_path, "BRN/A B", "2025-10-23", instrument=1) == parts[2]
    with pytest.raises(UsageError, match=r"on 2025-10-24 fits. There are: .*2025-10-22"):
        find_partition(tmp_path, "BRN/A B", "2025-10-24")
    with pytest.raises(UsageError, match=r"no book of ESZ5. There are books of: BRN/A B"):
        find_partition(tmp_path, "ESZ5", day)
    with pytest.raises(BookmillError, match="older version"):
        book_at(tmp_path, parts[0], day)
    with pytest.raises(UsageError, match="no book of TEST ESZ5"):
        book_at(tmp_path, PARTITION, day)


@pytest.mark.real_data
def test_esh4_at_some_instants_is_a_replay_from_the_start(real_data, tmp_path, monkeypatch):
    monkeypatch.setattr(rebuild_module, "CHECKPOINT_EVERY", 10_000)
    (source,) = scan([real_data("databento/esh4-glbx-mdp3-20231225.mbo.dbn.zst")]).files
    (part,) = decode(source, tmp_path, MboRecipe()).parts
    rebuild(tmp_path, part.partition, [part.path], MboRecipe())
    (events,) = [columns for _, columns in rows_from(tmp_path / part.path, 0, list(EVENT_DTYPES), 1 << 20)]
    times = np.maximum.accumulate(events["ts_recv"])
    wanted = sorted(int(times[k]) + add for k, add in ((8_000, 0), (8_724, 0), (8_800, 1), (20_000, 0), (44_444, -1), (68_791, 10**9)))
    book, after, left = NaiveBook(), None, list(wanted)
    for i in range(len(times) + 1):
        while left and (i == len(times) or times[i] > left[0]):
            found = book_at(tmp_path, part.partition, left.pop(0))
            assert after == ((), (), None) if found.as_of is None else (found.bids, found.asks, found.sequence) == after
        if i < len(times):
            book.apply({name: int(events[name][i]) for name in ("action", "side", "price", "size", "order_id", "flags")})
            if i == 0:
                after = ((), (), None)
            # Levels are asked for only where they may be compared: all of them cost a millisecond.
            if book.event_end and (not left or i + 1 == len(times) or times[i + 1] > left[0] or not _ends_before(events, times, i, left[0])):
                after = tuple(book.levels("B")), tuple(book.levels("A")), int(events["sequence"][i])
    assert not left


def _ends_before(events: dict[str, np.ndarray], times: np.ndarray, i: int, limit: int) -> bool:
    """Whether another event ends after record i at or before a time."""
    end = int(np.searchsorted(times, limit, "right"))
    return bool((events["flags"][i + 1 : end] & F_LAST).any())


@pytest.mark.real_data
def test_a_level_file_is_answered_with_the_row_of_its_last_event(real_data, tmp_path):
    (source,) = scan([real_data("lobster/LOBSTER_SampleFile_AMZN_5.zip")]).files
    (part,) = decode(source, tmp_path, MboRecipe()).parts
    spans = [(1_340_285_400_000_000_000, 1_340_290_800_000_000_000)]  # 13:30 to 15:00 UTC
    rebuild(tmp_path, part.partition, [part.path], MboRecipe(), windows=spans)
    *_, (_, last) = rows_from(tmp_path / part.path, 0, ["ts_recv", "flags"], 1 << 20)
    rows = read_table(tmp_path / part.partition.path("mbp-10"))
    as_of = rows["as_of"].cast("int64").to_numpy()
    for time_ns in (int(as_of[1]), int(as_of[20_000]) + 5, int(as_of[-1])):
        book = book_at(tmp_path, part.partition, time_ns)
        row = rows.slice(int(np.searchsorted(as_of, time_ns, "right")) - 1, 1).to_pylist()[0]
        assert (book.as_of, book.sequence, book.status) == (row["as_of"].value, row["sequence"], row["status"])
        assert book.bids == tuple((row[f"bid_px_{k:02d}"], row[f"bid_sz_{k:02d}"], 0) for k in range(5))
        assert book.asks == tuple((row[f"ask_px_{k:02d}"], row[f"ask_sz_{k:02d}"], 0) for k in range(5))
    with pytest.raises(UsageError, match="does not tell the orders"):
        book.orders()
    with pytest.raises(UsageError, match="within --start and --hours"):
        book_at(tmp_path, part.partition, int(last["ts_recv"][-1]))
    with pytest.raises(UsageError, match="has no orders"):
        queue_position(tmp_path, part.partition, 1)
    assert seen_levels(book_at(tmp_path, part.partition, int(as_of[0]) - 10**9)) == ((), (), "no_book")


def seen_levels(book: BookAt) -> tuple:
    return book.bids, book.asks, book.status


PRICE = 4_810_250_000_000
START = 1_703_500_000_000_000_000


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> Path:
    """A lake of one small day, at the end of which the book is suspect."""
    lake = tmp_path_factory.mktemp("told") / "lake"
    rows = [
        record("R", ts=START), record("A", "B", PRICE, 3, 7, ts=START + 1), record("A", "B", PRICE, 2, 8, ts=START + 2),
        record("A", "A", PRICE + 250_000_000, 1_500, 9, ts=START + 3), record("A", "A", PRICE + 500_000_000, 4, 10, ts=START + 4),
        record("C", "B", PRICE, 9, 7, ts=START + 1_000_000_005),
    ]  # fmt: skip
    build(lake, [(np.concatenate(rows), [])], every=2)
    return lake


def bookmill(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, standard output and error of the command line in a process of its own."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("BOOKMILL_")} | {"COLUMNS": "200", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "deployments.cli", *map(str, arguments)], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_the_command_line_shows_a_ladder_and_is_loud_when_it_is_not_valid(told):
    code, out, err = bookmill("book", "ESZ5", "2025-10-22T10:00", "--lake", told)
    assert (code, err) == (0, "")
    assert [line.split() for line in out.splitlines()[1:]][1:] == [
        ["suspect,", "as", "of", "2023-12-25T10:26:41.000000005Z,", "666.981", "d", "before,", "sequence", "0"],
        ["price", "size", "orders"], ["ask", "4810.75", "4", "1"], ["ask", "4810.50", "1,500", "1"], ["bid", "4810.25", "2", "1"],
    ]  # fmt: skip
    assert "NOT VALID: SUSPECT since 2023-12-25T10:26:41.000000005Z, reason: over_cancel" in out
    code, out, err = bookmill("book", "ESZ5", "2025-10-22T02:00+00:00", "--lake", told, "--depth", "1", "--json", "--orders")
    found = json.loads(out)
    assert (code, err, found["status"], found["asks"]) == (0, "", "suspect", [{"price": "4810.500000000", "size": 1_500, "orders": 1}])
    assert [(o["side"], o["price"], o["place"], o["order_id"]) for o in found["orders"]] == [
        ("B", "4810.250000000", 0, 8),
        ("A", "4810.500000000", 0, 9),
    ]


def test_the_command_line_follows_orders_and_writes_their_lives(told, tmp_path):
    code, out, err = bookmill("queue", "ESZ5", "8", "--date", "2025-10-22", "--lake", told, "--json")
    rows = json.loads(out)
    assert (code, err) == (0, "")
    assert [(r["ahead_size"], r["cause"], r["price"], r["status"]) for r in rows] == [
        (3, "add", "4810.250000000", "valid"), (0, "ahead", "4810.250000000", "suspect"),
    ]  # fmt: skip
    code, out, err = bookmill("queue", "ESZ5", "8", "--date", "2025-10-22", "--lake", told, "--csv", tmp_path / "q.csv")
    assert (code, out, err) == (0, f"{tmp_path / 'q.csv'}: 2 rows\n", "")
    with (tmp_path / "q.csv").open() as file:
        assert [r["price"] for r in csv.DictReader(file)] == ["4810.250000000"] * 2
    for suffix in ("csv", "parquet"):
        code, out, err = bookmill("orders", "ESZ5", "--date", "2025-10-22", "--lake", told, "--out", tmp_path / f"o.{suffix}")
        assert (code, err) == (0, "")
        assert re.search(r"4 orders of TEST ESZ5 2025-10-22 p1-1\n  resting +3\n  cancelled +1\n  median lifetime 1.000 s of 1 that ended", out), out
    with (tmp_path / "o.csv").open() as file:
        lives = list(csv.DictReader(file))
    assert next((r["order_id"], r["price"], r["end_reason"]) for r in lives) == ("7", "4810.250000000", "cancelled")
    assert pq.read_table(tmp_path / "o.parquet").schema.equals(LIFETIMES)


@pytest.mark.parametrize(
    ("arguments", "told_so"),
    [
        (["book", "ESZ5", "14:30"], "--date"),
        (["book", "ESZ5", "noon"], "ISO 8601"),
        (["book", "ESZ5", "2025-10-22", "--depth", "0"], "depth is 0"),
        (["book", "ESZ5", "2025-10-25"], "There are: TEST ESZ5 2025-10-22 p1-1"),
        (["queue", "ESZ5", "999", "--date", "2025-10-22"], "names order 999"),
        (["queue", "ESZ5", "8", "--date", "today"], "date is 'today'"),
        (["orders", "NQZ5", "--date", "2025-10-22", "--out", "x.csv"], "no book of NQZ5"),
        (["orders", "ESZ5", "--date", "2025-10-22", "--out", "x.xlsx"], ".parquet or .csv"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_answered_is_one_line_and_exit_code_2(told, arguments, told_so):
    code, out, err = bookmill(*arguments, "--lake", told)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"Error: [^\n]+\n", err), err
    assert told_so in err


def test_the_questions_load_no_prefect(told):
    script = (
        "import sys\nfrom pathlib import Path\nfrom deployments.book import print_book\n"
        f"print_book(Path({str(told)!r}), 'ESZ5', '2025-10-22', '', 'UTC', 5, False, True, {{}})\n"
        "print(sorted({'prefect', 'great_expectations'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_closing_book_that_was_made_anew_or_is_gone_is_not_taken_for_the_one_the_book_went_on_from(tmp_path):
    def events(partition: Partition, *records: np.ndarray) -> str:
        name = partition.path("events", "0123456789")
        with ParquetSink(tmp_path / name, EVENTS, dictionary=DICTIONARY, encodings=ENCODINGS) as sink:
            rows = np.concatenate(records)
            sink.write(to_table(columns_of(rows), partition.symbol))
            sink.commit(
                Stamp(str(len(rows)), "r"),
                {"rows_out": len(rows), "first_ts_recv": int(rows["ts_recv"][0]), "last_ts_recv": int(rows["ts_recv"][-1])},
            )
        return name

    recipe, first = MboRecipe(depth=3), [record("R", ts=1), record("A", "B", 99, 5, 1, ts=2)]
    rebuild(tmp_path, BEFORE, [events(BEFORE, *first)], recipe)
    rebuild(tmp_path, PARTITION, [events(PARTITION, record("A", "A", 105, 5, 2, ts=10))], recipe, carry=BEFORE.path("closing_book"))
    assert book_at(tmp_path, PARTITION, 15).bids == ((99, 5, 1),)
    rebuild(tmp_path, BEFORE, [events(BEFORE, *first, record("A", "B", 101, 5, 3, ts=3))], recipe)
    with pytest.raises(BookmillError, match=r"which is another one or none now\. Run both days again"):
        book_at(tmp_path, PARTITION, 15)
    (tmp_path / BEFORE.path("closing_book")).unlink()
    with pytest.raises(BookmillError, match="pull the day before as well"):
        book_at(tmp_path, PARTITION, 15)
