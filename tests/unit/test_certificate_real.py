"""Certificates of real files, with the figures that their publishers and our survey give."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.events_file import read_events
from tasks.partitions import MboRecipe
from tasks.reconstruction.certify import certify
from tasks.reconstruction.rebuild import rebuild
from tasks.scanning.decode import decode
from tasks.scanning.inventory import scan
from tasks.scanning.published import decode_published, identify_published, published_source
from tasks.schemas import MBO_RECORD
from tests.certificates import (
    only,
)
from tests.lake_building import PARTITION, write_events


@pytest.mark.real_data
def test_arl_matches_every_published_row_and_event_end(real_data, tmp_path):
    recipe = MboRecipe(clock="ts_event", starts_empty=True)
    (source,) = scan([real_data("databento/arl_20250717_morning.mbo.csv")]).files
    (part,) = decode(source, tmp_path, recipe).parts
    rebuild(tmp_path, part.partition, [part.path], recipe)
    path = real_data("databento/arl_20250717_morning.mbp-10.csv")
    found = identify_published(path)
    decode_published(published_source(path, found, source.dataset, part.partition.symbol), tmp_path)
    certificate = certify(tmp_path, part.partition, recipe)
    ends, rows = only(certificate, "published", "event ends"), only(certificate, "published", "rows")
    assert (rows["states_compared"], rows["states_matched"], rows["detail"]["rows_published"]) == (1_917, 1_917, 1_917)
    assert ends["states_compared"] == ends["states_matched"] > 1_900
    assert certificate.verdict == "matched"


@pytest.mark.real_data
def test_esh4_opens_with_the_book_of_the_day_before(real_data, tmp_path):
    parts = {}
    for file in scan([real_data("databento/esh4-glbx-mdp3-20231224.mbo.dbn.zst"), real_data("databento/esh4-glbx-mdp3-20231225.mbo.dbn.zst")]).files:
        for part in decode(file, tmp_path, MboRecipe()).parts:
            parts[part.partition.date] = part
            rebuild(tmp_path, part.partition, [part.path], MboRecipe())
    before, day = parts["2023-12-24"].partition, parts["2023-12-25"].partition
    certificate = certify(tmp_path, day, MboRecipe(), day_before=before.path("closing_book"))
    opening, integrity = only(certificate, "opening"), only(certificate, "integrity")
    assert (opening["levels_compared"], opening["levels_matched"]) == (1_451, 1_451)
    assert (opening["detail"]["orders_compared"], opening["detail"]["orders_matched"]) == (8_725, 8_725)
    assert sum(integrity["detail"][name] for name in ("crossed", "locked", "crossed_halted")) == 891
    assert integrity["detail"]["event_ends"] == 47_022
    assert certificate.verdict == "matched"


@pytest.mark.real_data
def test_a_feed_that_starts_in_the_middle_has_no_book_and_no_pass(real_data, tmp_path):
    (source,) = scan([real_data("databento/esh4-glbx-mdp3-20231225.mbo.dbn.zst")]).files
    (part,) = decode(source, tmp_path / "whole", MboRecipe()).parts
    batches = list(read_events(tmp_path / "whole" / part.path))
    columns = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    half = len(columns["price"]) // 2
    records = np.zeros(len(columns["price"]) - half, MBO_RECORD)
    for name, values in columns.items():
        records[name] = values[half:]
    facts = rebuild(tmp_path, PARTITION, [write_events(tmp_path, records)], MboRecipe()).facts
    assert (facts["status"], facts["reason"]) == ("no_book", "no_snapshot")
    assert facts["anomalies"]["unknown_cancel"] > 0
    assert facts["anomalies"]["unknown_modify"] > 0
    certificate = certify(tmp_path, PARTITION, MboRecipe())
    assert certificate.verdict == "no_truth"
    assert {row["truth"] for row in certificate.rows} <= {"none", "integrity"}


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "compared"),
    [
        ("lobster/LOBSTER_SampleFile_AMZN_1.zip", 57_514),
        ("lobster/LOBSTER_SampleFile_AMZN_5.zip", 155_934),
        ("lobster/MSFT_2012-06-21_34200000_37800000_message_50.csv", 999),
    ],
)
def test_lobster_books_match_their_order_book_file(real_data, tmp_path, name, compared):
    (source,) = scan([real_data(name)]).files
    (part,) = decode(source, tmp_path, MboRecipe()).parts
    rebuild(tmp_path, part.partition, [part.path], MboRecipe())
    row = only(certify(tmp_path, part.partition, MboRecipe()), "published")
    assert (row["states_compared"], row["states_matched"], row["verdict"]) == (compared, compared, "matched")
