"""A depth feed to its layers as plain functions: real files, a scale that grows, bad lines, strictness, a temporary copy."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from deployments.certify import print_certificates
from tasks.aggregation.depth_aggregate import DepthAggregates, aggregate_depth
from tasks.depth_recipe import DepthRecipe, DepthSource
from tasks.errors import BookError, SchemaMismatch, SourceError, UsageError
from tasks.publishing.ledger import check, collect
from tasks.reconstruction.depth_build import DepthBuilt, build_depth, is_built
from tasks.reconstruction.depth_certificate import certify_depth
from tasks.reconstruction.depth_export import CsvTarget
from tasks.scanning.depth_journal import DepthJournal
from tasks.scanning.depth_sources import open_depth, scan_depth
from tasks.scanning.depth_trades import decode_trades
from tasks.scanning.tardis_formats import HEAD_BYTES
from tasks.schemas import UNDEF_PRICE
from tasks.storage import temporary_copy

MIDNIGHT_MS = 1_754_697_600_000  # 2025-08-09
NAME = "2025-08-09_BTCUSDT_ob200.data"


def build(lake: Path, source: DepthSource, recipe: DepthRecipe = DepthRecipe(), csv: CsvTarget | None = None) -> DepthBuilt:  # noqa: B008 - frozen
    return build_depth(lake, source, recipe, lambda: open_depth(source), journal=lambda: DepthJournal(source, lake), csv=csv)


def line(kind: str, ms: int, u: int, bids: list[tuple[str, str]], asks: list[tuple[str, str]] = []) -> str:  # noqa: B006 - read only
    data = {"s": "BTCUSDT", "b": [list(b) for b in bids], "a": [list(a) for a in asks], "u": u, "seq": 7_000_000_000 + u}
    return json.dumps({"topic": "orderbook.200.BTCUSDT", "type": kind, "ts": MIDNIGHT_MS + ms, "data": data, "cts": MIDNIGHT_MS + ms - 3})


def feed(folder: Path, *lines: str) -> DepthSource:
    (folder / NAME).write_text("\n".join(lines) + "\n")
    (source,) = scan_depth([folder / NAME]).files
    return source


def grid(lake: Path, built: DepthBuilt, depth: int) -> list[dict]:
    return pq.read_table(lake / built.grids[depth][0], partitioning=None).to_pylist()


@pytest.mark.real_data
def test_the_real_archives_have_no_gap_never_cross_and_give_a_row_a_minute(real_data, tmp_path):
    found = scan_depth([real_data("bybit")])
    assert len(found.files) == 7
    assert found.rejected == found.covered == ()
    for source in found.files:
        built = build(tmp_path, source)
        facts = built.facts
        assert {rows for _, rows in built.grids.values()} == {1_440}
        assert set(built.grids) == ({500, 200} if source.depth == 500 else {200})
        assert (facts["anomalies"]["gaps"], facts["crossed"], facts["rows_quarantined"]) == (0, 0, 0)
        assert facts["rows_in"] == facts["rows_out"] == facts["event_ends"]
        assert (facts["bid_levels"], facts["ask_levels"]) == (source.depth, source.depth)
        assert certify_depth(tmp_path, source.partition).verdict == "no_truth"
    assert next(s for s in found.files if s.partition.symbol == "XRPUSDT").partition.date == "2024-12-01"
    assert sum(build(tmp_path, s).facts["rows_in"] for s in found.files if s.partition.symbol == "XRPUSDT") == 50


@pytest.mark.real_data
def test_the_tardis_samples_are_sources_of_the_same_flow(real_data, tmp_path):
    found = scan_depth([real_data("tardis")])
    kinds = {(s.kind, s.partition.dataset) for s in found.files}
    assert kinds == {
        ("tardis-l2", "deribit"), ("tardis-book", "binance-futures"), ("tardis-quotes", "binance-futures"), ("tardis-quotes", "huobi-dm-swap"),
        ("tardis-trades", "bitmex"), ("tardis-trades", "binance-futures"),
    }  # fmt: skip
    assert [c.name for c in found.covered] == ["binance-futures_book_snapshot_5_BTCUSDT.csv"]
    for source in found.files:
        if source.kind == "tardis-trades":
            facts = decode_trades(source, tmp_path, Path(source.file.path)).facts
        else:
            facts = build(tmp_path, source).facts
            assert facts["outputs"][DepthRecipe().grid_layer(max(DepthRecipe().depths_of(source.depth)))] == 1_440
            assert certify_depth(tmp_path, source.partition).verdict == "no_truth", "snapshots without ids prove nothing"
        assert facts["rows_in"] == facts["rows_out"] + facts["rows_filtered"] + facts["rows_quarantined"] > 0
    assert check(collect(tmp_path, sorted({s.partition for s in found.files}))) == []


def test_an_update_with_more_decimals_than_any_before_makes_the_scale_grow_and_loses_nothing(tmp_path):
    lines = [line("snapshot", 0, 10, [("100.5", "1")], [("101.5", "2")]), line("delta", 60_500, 11, [("100.50000000001", "0.12345")])]
    built = build(tmp_path, feed(tmp_path, *lines))
    assert (built.facts["price_digits"], built.facts["size_digits"]) == (11, 5)
    rows = grid(tmp_path, built, 200)
    assert (rows[1]["bid_px_00"], rows[1]["bid_sz_00"], rows[2]["bid_px_00"], rows[2]["bid_sz_00"]) == (
        10_050 * 10**9,
        100_000,
        10_050_000_000_001,
        12_345,
    )
    assert {row["price_digits"] for row in rows} == {11}
    assert not list(tmp_path.rglob("*.partial"))


def test_a_bad_line_is_set_aside_with_its_place_and_the_book_is_suspect_until_the_next_snapshot(tmp_path):
    lines = [
        line("snapshot", 0, 10, [("100", "1")], [("101", "2")]), '{"topic": "orderbook.200.BTCUSDT", "type": "delta", "ts": 1',
        line("delta", 70_000, 12, [("100", "3")]), line("snapshot", 130_000, 13, [("100", "3")], [("101", "2")]), line("delta", 190_000, 14, []),
    ]  # fmt: skip
    source = feed(tmp_path, *lines)
    built = build(tmp_path, source)
    states = [(row["status"], row["reason"]) for row in grid(tmp_path, built, 200)[:5]]
    assert states == [("valid", ""), ("stale", "silence"), ("suspect", "quarantined"), ("stale", "silence"), ("stale", "silence")]
    assert built.facts["rows_quarantined"] == 1
    (row,) = pq.read_table(next((tmp_path / "quarantine").rglob("*.parquet")), partitioning=None).to_pylist()
    assert (row["source_row"], row["byte_offset"], row["raw"].decode()) == (1, len(lines[0]) + 1, lines[1])
    assert check(collect(tmp_path, [source.partition])) == []


def mid_bars(lake: Path, source: DepthSource, built: DepthBuilt) -> list[dict]:
    aggregate_depth(lake, source.partition, DepthAggregates(depth=max(built.grids), bars=("1m",)))
    return pq.read_table(lake / source.partition.path("mid-1m"), partitioning=None).to_pylist()


def test_bars_of_the_mid_begin_with_the_book_that_the_engine_made_before_midnight(tmp_path):
    # Sent at 00:00:00.001, made 3 ms before: the mid is 101 from midnight to 00:00:30 and 101.5 after it.
    lines = [line("snapshot", 1, 10, [("100", "1")], [("102", "1")]), line("delta", 30_003, 11, [("101", "1")])]
    source = feed(tmp_path, *lines)
    built = build(tmp_path, source, DepthRecipe(stale_after_ns=None))
    bar = mid_bars(tmp_path, source, built)[0]
    assert [bar[name] for name in ("status", "open", "low", "high", "close", "twap", "valid_share")] == ["valid", 101, 101, 101.5, 101.5, 101.25, 1]


@pytest.mark.parametrize("after", [[], [line("delta", 150_003, 11, [("100", "7")])]], ids=["nothing", "an old message"])
def test_a_bad_line_that_no_message_of_the_book_follows_makes_the_bars_suspect_as_the_grid_is(tmp_path, after):
    lines = [line("snapshot", 3, 10, [("100", "1")], [("102", "1")]), line("delta", 90_003, 11, []), '{"topic": "orderbook.200', *after]
    source = feed(tmp_path, *lines)
    built = build(tmp_path, source, DepthRecipe(stale_after_ns=None))
    # Known with the next message, or with the last one there is: at 00:01:30 or 00:02:30.
    doubtful = 2 if after else 1
    rows, bars = grid(tmp_path, built, 200), mid_bars(tmp_path, source, built)
    assert [row["status"] for row in rows] == ["valid"] * (doubtful + 1) + ["suspect"] * (1_439 - doubtful)
    assert [bar["status"] for bar in bars] == ["valid"] * doubtful + ["suspect"] * (1_440 - doubtful)
    assert [bar["valid_share"] for bar in bars[: doubtful + 2]] == [1.0] * doubtful + [0.5, 0.0]
    assert {bar["reason"] for bar in bars[doubtful:]} == {"quarantined"}


@pytest.mark.parametrize(
    ("price", "words"),
    [
        ("10000000000", r"^Line 0 .* in units of 10\^-9, the largest is \d+\. Prices have no larger units: .* leave the pair out \(--pairs\)"),
        (
            "5000000000",
            r"10\^-9; allowed: less than 2\^62 .*so that a mid can be taken\. Books and touch are right .* leave the pair out \(--pairs\)",
        ),
    ],
)
def test_a_price_too_large_for_the_coarsest_units_gets_an_advice_that_can_be_followed(tmp_path, price, words):
    source = feed(tmp_path, line("snapshot", 1_000, 10, [(price, "1")], [(price[:-1] + "1", "1")]))
    with pytest.raises((BookError, SchemaMismatch), match=words):
        mid_bars(tmp_path, source, build(tmp_path, source))


def test_a_gap_fails_the_file_where_that_is_asked_for_and_leaves_nothing_behind(tmp_path):
    source = feed(tmp_path, line("snapshot", 0, 10, [("100", "1")]), line("delta", 100, 12, [("100", "2")]))
    with pytest.raises(BookError, match="update id 12 after 10"):
        build(tmp_path / "lake", source, DepthRecipe(on_book_error="fail"))
    assert not [path for path in (tmp_path / "lake").rglob("*") if path.is_file()]
    assert build(tmp_path / "lake", source).facts["status"] == "suspect"


def test_a_bad_line_fails_the_file_where_that_is_asked_for_and_leaves_nothing_behind(tmp_path):
    first = line("snapshot", 0, 10, [("100", "1")])
    for after in ([line("delta", 100, 12, [("100", "2")])], []):
        source = feed(tmp_path, first, '{"bad', *after)
        with pytest.raises(BookError, match=rf"Line 1 \(from 0; byte {len(first) + 1}\) could not be read"):
            build(tmp_path / "lake", source, DepthRecipe(on_book_error="fail"))
        assert not [path for path in (tmp_path / "lake").rglob("*") if path.is_file()]
    assert build(tmp_path / "lake", source).facts["status"] == "suspect"


@pytest.mark.parametrize(("u", "flow"), [(900, 0.0), (13, 75.0)], ids=["after a gap", "next in order"])
def test_a_snapshot_after_a_gap_is_no_order_flow_and_one_that_goes_on_is(u, flow, tmp_path):
    source = feed(
        tmp_path, line("snapshot", 0, 10, [("100", "5")], [("101", "5")]), line("delta", 60_500, 12, [("99", "1")]),
        line("snapshot", 3_600_000, u, [("200", "70")], [("201", "7")]), line("delta", 3_660_000, u + 1, [("200", "72")]),
    )  # fmt: skip
    built = build(tmp_path, source)
    wanted = DepthAggregates(depth=max(built.grids), interval_ns=60_000_000_000, bars=())
    aggregate_depth(tmp_path, source.partition, wanted)
    rows = pq.read_table(tmp_path / source.partition.path(wanted.features_layer), partitioning=None).to_pylist()
    # The bid rises to 70 lots; the ask of 5 goes: 70 + 5.
    assert [row["ofi"] for row in rows[60:62]] == [flow, 2.0]
    assert (rows[60]["realised_vol"] > 0) == (flow > 0)


def test_bookmill_certify_holds_depth_books_against_their_snapshots_and_tells_sizes_as_the_feed_wrote_them(tmp_path, capsys):
    lines = [
        line("snapshot", 0, 10, [("100.5", "1.250")], [("101", "2")]), line("delta", 60_000, 11, [("100.5", "1.375")]),
        line("snapshot", 86_400_000, 12, [("100.5", "1.5")], [("101", "2")]),
    ]  # fmt: skip
    build(tmp_path, feed(tmp_path, *lines))
    assert print_certificates(tmp_path, [], [], "", False, False) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "bybit BTCUSDT 2025-08-09 p0-0: diverged" in told
    assert "0 of 1 states 1 of 2 levels" in told
    assert "bid level 1 is 1.375 at 100.5, the truth says 1.5 at 100.5" in told
    assert "0 matched, 1 diverged, 0 without a truth" in told


def test_what_is_there_is_found_again_and_another_recipe_is_other_work(tmp_path):
    source = feed(tmp_path, line("snapshot", 0, 10, [("100", "1")], [("101", "1")]))
    assert is_built(tmp_path, source, DepthRecipe(), None) is None
    assert not build(tmp_path, source).skipped
    assert build(tmp_path, source).skipped
    assert is_built(tmp_path, source, DepthRecipe(clock="ts"), None) is None
    (tmp_path / source.partition.path("depth-200-1m")).unlink()
    assert is_built(tmp_path, source, DepthRecipe(), None) is None


def test_a_clock_of_the_engine_and_one_of_the_sender_differ_by_what_the_feed_says(tmp_path):
    # Sent at 00:01:00.001, made by the engine 3 ms before: in the book of 00:01 on the engine's clock only.
    source = feed(tmp_path, line("snapshot", 5_000, 10, [("100", "1")]), line("delta", 60_001, 11, [("100", "2")]))
    by_engine = grid(tmp_path, build(tmp_path, source), 200)[1]
    by_sender = grid(tmp_path / "ts", build(tmp_path / "ts", source, DepthRecipe(clock="ts")), 200)[1]
    assert (by_engine["bid_sz_00"], by_engine["age_ns"], by_sender["bid_sz_00"]) == (2, 2_000_000, 1)
    assert by_engine["ask_px_00"] == UNDEF_PRICE


@pytest.mark.parametrize("day", ["2025-08-08", "2025-08-10"])
def test_a_file_under_the_name_of_another_day_is_refused_instead_of_giving_a_day_of_stale_rows(tmp_path, day):
    feed(tmp_path, line("snapshot", 5_000, 10, [("100", "1")]))
    (tmp_path / NAME).rename(tmp_path / NAME.replace("2025-08-09", day))
    (source,) = scan_depth([tmp_path / NAME.replace("2025-08-09", day)]).files
    with pytest.raises(SourceError, match=f"none of {day}, the day in its name"):
        build(tmp_path / "lake", source)
    assert not [path for path in (tmp_path / "lake").rglob("*") if path.is_file()]


def l2_rows(*hours: float) -> str:
    """A Tardis file of one level a row, so many hours after midnight."""
    rows = "".join(f"binance,BTCUSDT,{(us := int(MIDNIGHT_MS * 1_000 + hour * 3.6e9))},{us},{hour == hours[0]},bid,100,1\n" for hour in hours)
    return "exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount\n" + rows


@pytest.mark.parametrize(
    ("name", "hours", "told"),
    [
        ("mine.csv", [0, 5, 10, 26], "3 of them of 2025-08-09, the day of its first row, as its name has none, and 1 of other days"),
        ("mine.csv", [-0.001, 1, 2, 3], "1 of them of 2025-08-08, the day of its first row, as its name has none, and 3 of other days"),
        ("binance_incremental_book_L2_2025-08-09_BTCUSDT.csv", [-12, -6, 1], "1 of them of 2025-08-09, the day in its name, and 2 of other days"),
    ],
)
def test_a_file_of_several_days_is_refused_instead_of_giving_one_of_them(tmp_path, name, hours, told):
    (tmp_path / name).write_text(l2_rows(*hours))
    (source,) = scan_depth([tmp_path / name]).files
    with pytest.raises(SourceError, match=told):
        build(tmp_path / "lake", source)
    assert not [path for path in (tmp_path / "lake").rglob("*") if path.is_file()]


def test_trades_of_several_days_are_refused_instead_of_being_filed_under_the_first(tmp_path):
    path = tmp_path / "mine.csv"
    rows = [f"binance,BTCUSDT,{us},{us},1,buy,100,1\n" for us in (MIDNIGHT_MS * 1_000, MIDNIGHT_MS * 1_000 + 30 * 3_600_000_000)]
    path.write_text("exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n" + "".join(rows))
    (source,) = scan_depth([path]).files
    with pytest.raises(SourceError, match="and 1 of other days"):
        decode_trades(source, tmp_path / "lake", path)
    assert not [found for found in (tmp_path / "lake").rglob("*") if found.is_file()]


@pytest.mark.parametrize(("name", "last", "others"), [("mine.csv", 24.5, 0), ("binance_incremental_book_L2_2025-08-09_BTCUSDT.csv", 26, 1)])
def test_what_a_file_has_of_the_hour_behind_its_day_is_allowed_and_more_is_counted(tmp_path, name, last, others):
    (tmp_path / name).write_text(l2_rows(0, 5, last))
    (source,) = scan_depth([tmp_path / name]).files
    assert build(tmp_path / "lake", source).facts["messages_of_other_days"] == others


def test_the_csv_of_one_market_is_not_replaced_by_that_of_another_and_is_by_its_own(tmp_path):
    sources, lake, csv = {}, tmp_path / "lake", CsvTarget(str(tmp_path / "csv"))
    for market, price in (("linear", "100"), ("spot", "200")):
        (tmp_path / market).mkdir()
        sources[market] = feed(tmp_path / market, line("snapshot", 0, 10, [(price, "1")]))
    build(lake, sources["linear"], csv=csv)
    path = tmp_path / "csv/0200/BTCUSDT/2025-08-09_BTCUSDT_ob200_1m.csv"
    told = "holds the snapshots of bybit-linear, those of bybit-spot would replace them. Give each dataset a CSV folder of its own"
    with pytest.raises(UsageError, match=told):
        build(lake, sources["spot"], csv=csv)
    assert path.read_text().splitlines()[2].split(",")[1] == "100"
    assert not build(lake, sources["linear"], DepthRecipe(clock="ts"), csv).skipped
    build(lake, sources["spot"], csv=CsvTarget(str(tmp_path / "csv/spot")))
    path.unlink()
    build(lake, sources["spot"], csv=csv)
    assert path.read_text().splitlines()[2].split(",")[1] == "200"


def test_a_temporary_copy_is_read_and_removed(tmp_path):
    source = feed(tmp_path, line("snapshot", 0, 10, [("100", "1")]))
    with temporary_copy(Path(source.file.path), str(tmp_path / "fast")) as path:
        assert path.parent == tmp_path / "fast"
        assert sum(len(batch) for batch in open_depth(source, path).batches(1 << 16)) == 1
    assert not list((tmp_path / "fast").iterdir())


def test_a_failed_download_in_a_folder_is_told_and_a_file_of_another_kind_is_not(tmp_path):
    page, answer = b"<html>403 Forbidden</html>\n", b'{"code":100,"message":"no access"}'
    failed = {
        NAME: page, "binance_incremental_book_L2_2025-08-09_AAAUSDT.csv.gz": b"", "binance_book_snapshot_25_BBBUSDT.csv.gz": answer,
        "binance_trades_2025-08-09_CCCUSDT.csv.gz": answer, "binance/quotes/2025/08/09/DDDUSDT.csv.gz": page,
    }  # fmt: skip
    others = {"README.md": page, "trades.csv": b"time,price\n1,2\n", "mine.csv": b"", "binance_liquidations_2025-08-09_EEEUSDT.csv.gz": answer}
    for name, data in (failed | others).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    found = scan_depth([tmp_path])
    assert sorted(rejected.path for rejected in found.rejected) == sorted(str(tmp_path / name) for name in failed)


def test_a_depth_feed_whose_name_is_not_utf_8_is_told_and_a_file_of_another_kind_is_not(tmp_path):
    folder = os.path.join(os.fsencode(tmp_path), b"caf\xe9")
    os.mkdir(folder)
    for name in (b"binance_book_snapshot_5_2025-08-09_X.csv.gz", b"caf\xe9.pdf", b"caf\xe9.csv"):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(b"" if name.endswith(b"gz") else b"a,b\n1,2\n")
    found = scan_depth([tmp_path])
    assert [rejected.path for rejected in found.rejected] == [f"{tmp_path}/caf\\xe9/binance_book_snapshot_5_2025-08-09_X.csv.gz"]
    str(found).encode()


def test_of_feeds_of_one_day_the_one_of_all_levels_is_used_whatever_its_kind_and_the_others_are_told_apart(tmp_path):
    levels = [f"{side}[{level}].{what}" for level in range(5) for side in ("asks", "bids") for what in ("price", "amount")]
    head = f"binance,BTCUSDT,{MIDNIGHT_MS * 1_000},{MIDNIGHT_MS * 1_000}"
    book, whole = "binance_book_snapshot_5_2025-08-09_BTCUSDT.csv", "binance_incremental_book_L2_2025-08-09_BTCUSDT.csv"
    (tmp_path / book).write_text("exchange,symbol,timestamp,local_timestamp," + ",".join(levels) + f"\n{head}" + ",1" * 20 + "\n")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / whole).write_text(l2_rows(0 if folder == "a" else 12))
    found = scan_depth([tmp_path])
    assert [(source.kind, source.file.path) for source in found.files] == [("tardis-l2", str(tmp_path / "a" / whole))]
    assert {(covered.name, covered.by) for covered in found.covered} == {
        (book, whole), (str(tmp_path / "b" / whole), str(tmp_path / "a" / whole)),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("book.csv", "has no day: neither its name nor its first rows tell one"), (NAME.replace("08-09", "02-30"), "2025-02-30, is none"),
        ("binance_incremental_book_L2_2025-02-30_BTCUSDT.csv", "2025-02-30, is none"),
    ],
)  # fmt: skip
def test_a_source_without_a_valid_day_is_rejected_with_a_remedy(tmp_path, name, told):
    is_bybit = name.endswith(".data")
    (tmp_path / name).write_text(line("snapshot", 0, 10, [("100", "1")]) + "\n" if is_bybit else l2_rows(0) if "L2" in name else l2_rows())
    found = scan_depth([tmp_path])
    assert not found.files
    assert [type(rejected.error) for rejected in found.rejected] == [SourceError]
    assert told in str(found.rejected[0].error)
    assert "Put its day into its name as YYYY-MM-DD" in str(found.rejected[0].error)


@pytest.mark.parametrize("shown", [1, 2])
def test_a_symbol_of_a_group_that_comes_late_in_the_file_is_a_source_like_the_first(tmp_path, shown):
    names = [f"BTC-29AUG25-{strike}-C" for strike in (100_000, 110_000, 120_000)]
    of_row = [names[k % shown] for k in range(6_000)] + names[2:] * 10
    rows = [f"deribit,{name},{MIDNIGHT_MS * 1_000 + k},{MIDNIGHT_MS * 1_000 + k},{k},buy,0.05,1\n" for k, name in enumerate(of_row)]
    path = tmp_path / "deribit_trades_2025-08-09_OPTIONS.csv"
    path.write_text("exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n" + "".join(rows))
    assert sum(len(row) for row in rows[:6_000]) > HEAD_BYTES, "what the first rows show is not all"
    sources = scan_depth([path]).files
    assert [source.partition.symbol for source in sources] == [*names[:shown], names[2]]
    assert [decode_trades(source, tmp_path, path).facts["rows_out"] for source in sources] == [*[6_000 // shown] * shown, 10]


@pytest.mark.parametrize(
    "wrong", [{"depths": ()}, {"depths": (0,)}, {"depths": (2_000,)}, {"interval_ns": 7}, {"clock": "ts_event"}, {"stale_after_ns": 0}]
)
def test_a_recipe_that_cannot_be_says_what_is_allowed(wrong):
    with pytest.raises(UsageError, match=r"allowed|must"):
        DepthRecipe(**wrong)
