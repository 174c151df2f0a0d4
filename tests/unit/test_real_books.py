"""Books rebuilt from files recorded by others, against truth that others published. Skipped where the files are absent."""

from __future__ import annotations

import csv
from decimal import Decimal

import numpy as np
import pytest

from tasks.partitions import MboRecipe
from tasks.reconstruction.rebuild import rebuild
from tasks.reconstruction.replay import Replay
from tasks.reconstruction.window import WindowReplay
from tasks.scanning.decode import decode
from tasks.scanning.inventory import scan
from tasks.scanning.readers import open_reader
from tasks.schemas import EVENT_DTYPES, UNDEF_PRICE
from tests.sampled import sampled_levels

pytestmark = pytest.mark.real_data

DEPTH = 10


def events_of(path):
    """All event columns of one source."""
    (source,) = scan([path]).files
    reader = open_reader(source)
    batches = list(reader.batches(65_536))
    assert not any(b.bad for b in batches)
    return {name: np.concatenate([b.columns[name] for b in batches]).astype(dtype) for name, dtype in EVENT_DTYPES.items()}


def ns(text: str) -> int:
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return int(np.datetime64(whole, "s").astype(np.int64)) * 10**9 + int(fraction.ljust(9, "0"))


def price_of(text: str) -> int:
    return int(Decimal(text) * 10**9) if text else UNDEF_PRICE


def test_arl_replays_to_every_published_mbp_10_row(real_data):
    events = events_of(real_data("databento/arl_20250717_morning.mbo.csv"))
    replay = Replay(depth=DEPTH, clock="ts_event", every_record=True, windows=[(0, 2**62)], interval_ns=2**61)
    (samples,) = replay.feed(events)
    assert samples.n_rows == len(events["price"])
    px, sz, ct = sampled_levels(samples.rows, samples.n_rows)
    # A trade that took a resting order is published as one row after its cancel, which carries the same time and sequence.
    exact, by_event = {}, {}
    for i in range(len(events["price"])):
        event = int(events["ts_event"][i]), int(events["sequence"][i])
        exact[(*event, chr(events["action"][i]), int(events["order_id"][i]))] = i
        by_event[event] = i
    matched = 0
    with real_data("databento/arl_20250717_morning.mbp-10.csv").open() as file:
        for row in csv.DictReader(file):
            event = ns(row["ts_event"]), int(row["sequence"])
            at = by_event[event] if row["action"] == "T" else exact[(*event, row["action"], int(row["order_id"]))]
            expected = [
                (price_of(row[f"{side}_px_{k:02d}"]), int(row[f"{side}_sz_{k:02d}"]), int(row[f"{side}_ct_{k:02d}"]))
                for k in range(DEPTH) for side in ("bid", "ask")
            ]  # fmt: skip
            found = [(int(px[c, at]), int(sz[c, at]), int(ct[c, at])) for c in range(2 * DEPTH)]
            assert found == expected, f"row {matched} at {row['ts_event']}"
            matched += 1
    assert matched == 1_917


def test_esh4_ends_as_recorded_and_its_crossed_states_are_reported(real_data, tmp_path):
    (source,) = scan([real_data("databento/esh4-glbx-mdp3-20231225.mbo.dbn.zst")]).files
    (part,) = decode(source, tmp_path, MboRecipe()).parts
    facts = rebuild(tmp_path, part.partition, [part.path], MboRecipe()).facts
    assert (part.partition.symbol, part.partition.date, facts["rows_in"]) == ("ESH4", "2023-12-25", 68_792)
    assert (facts["bid_levels"], facts["ask_levels"], facts["orders"]) == (922, 565, 11_217)
    assert (facts["best_bid"], facts["best_ask"]) == ([4_810_000_000_000, 22], [4_810_250_000_000, 28])
    assert (facts["event_ends"], facts["crossed"] + facts["locked"]) == (47_022, 891)
    assert facts["status"] == "valid"
    assert sum(facts["anomalies"].values()) == 0


def test_the_days_before_and_after_midnight_are_two_partitions_that_do_not_disturb_each_other(real_data, tmp_path):
    files = scan([real_data("databento")]).files
    parts = {p.partition.date: p for f in files if "esh4" in f.path for p in decode(f, tmp_path, MboRecipe()).parts}
    assert sorted(parts) == ["2023-12-24", "2023-12-25"]
    first = rebuild(tmp_path, parts["2023-12-24"].partition, [parts["2023-12-24"].path], MboRecipe()).facts
    assert (first["rows_in"], first["orders"]) == (8_725, 8_725)


@pytest.mark.parametrize(
    ("name", "messages", "levels"),
    [
        ("lobster/LOBSTER_SampleFile_AMZN_1.zip", 57_515, 1),
        ("lobster/LOBSTER_SampleFile_AMZN_5.zip", 155_935, 5),
        ("lobster/MSFT_2012-06-21_34200000_37800000_message_50.csv", 1_000, 50),
    ],
)
def test_lobster_equals_the_published_book_after_every_message(real_data, name, messages, levels):
    (source,) = scan([real_data(name)]).files
    replay = WindowReplay(levels=levels, depth=10, interval_ns=10**9, clock="ts_recv", windows=None, strict=True, batch_rows=65_536)
    for batch in open_reader(source).batches(32_768):
        assert not batch.bad
        for _ in replay.feed({k: v.copy() for k, v in batch.columns.items()}, batch.truth):
            pass
    counters = replay.counters()
    assert counters["event_ends"] == messages
    assert counters["truth_matched"] == counters["truth_compared"] == messages - 1  # the first row seeds the book
    assert replay.diverged is None


def test_dbn_versions_1_2_and_3_give_one_table(real_data):
    names = ("test_data.mbo.dbn", "test_data.mbo.v1.dbn.zst", "test_data.mbo.v2.dbn.zst", "test_data.mbo.v3.dbn", "test_data.mbo.v3.dbn.zst")
    tables = [events_of(real_data(f"databento/dbn_versions/{name}")) for name in names]
    assert len(tables[0]["price"]) > 0
    for table in tables[1:]:
        assert {k: v.tolist() for k, v in table.items()} == {k: v.tolist() for k, v in tables[0].items()}
