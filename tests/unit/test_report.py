"""The report of a run: all sections, from whatever layers there are, everything escaped, nothing loaded from outside."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from plotly.offline import get_plotlyjs

from tasks.partitions import Partition, Stamp
from tasks.publishing import ledger
from tasks.publishing.report import DETAILED, RunFacts, markdown_summary, partition_fields, table_rows, write_report
from tasks.publishing.report_charts import BUCKETS
from tasks.schemas import BARS, BOOK_HEAD, QUARANTINE, UNDEF_PRICE, books_schema
from tasks.storage import write_table
from tests.unit.test_book_rows import level_names, packed_table, with_columns

STAMP = Stamp("i", "r")
EVIL = "<script>alert('&1')</script>"
DAY = Partition("GLBX.MDP3", "2023-12-25", "ESH4", 1, 17)
ODD = Partition("X/NAS", "2023-12-26", "0005 <b>/%2F", 2, 5)
T0 = 1_703_514_600 * 10**9
SECTIONS = ["Errors", "Partitions", "Books and bars", "Certificates", "Data quality", "Ledger", "Quarantine", "Throughput", "Memory", "What was run"]
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8ffff3f0005fe02fe0def46b80000000049454e44ae426082"
)


def filled(schema: pa.Schema, n: int, **given) -> pa.Table:
    """n rows of `schema`: the given columns, else zero or an empty text."""
    arrays = []
    for field in schema:
        values = given.get(field.name)
        if pa.types.is_dictionary(field.type):
            arrays.append(pa.array(values if values is not None else [""] * n).dictionary_encode().cast(field.type))
        else:
            arrays.append(pa.array(values if values is not None else np.zeros(n, np.int64)).cast(field.type))
    return pa.table(arrays, schema=schema)


def make_lake(lake, partition, n=3_000):
    ts = T0 + np.arange(n) * 10**9
    bid = np.full(n, 4_800 * 10**9)
    bid[:200] = UNDEF_PRICE
    status = ["no_book"] * 100 + ["suspect"] * 200 + ["valid"] * (n - 300)
    sizes = {f"{side}_sz_{level:02d}": np.full(n, 5 if side == "bid" else 3) for side in ("bid", "ask") for level in range(10)}
    book = filled(books_schema(10), n, ts_event=ts, bid_px_00=bid, ask_px_00=np.full(n, 4_800 * 10**9 + 250_000_000), status=status, **sizes)
    write_table(lake / partition.path("mbp-10-1s"), book, STAMP)
    price = 4_800 * 10**9 + np.arange(n) * 250_000_000
    bars = filled(BARS, n, ts_event=ts, open=price, high=price + 1, low=price - 1, close=price, volume=np.full(n, 7), buy_volume=np.full(n, 4),
                  sell_volume=np.full(n, 3), trades=np.full(n, 2))  # fmt: skip
    write_table(lake / partition.path("ohlcv-1s"), bars, STAMP, {"rows_in": 6000, "rows_used": 6000, "rows_out": n})
    events = {"rows_in": n + 3, "rows_out": n, "filtered": {"hours": 1}, "quarantined": 2, "fingerprint": "xxh3:a"}
    write_table(lake / partition.path("events", "aaaaaaaaaa"), pa.table({"ts_event": ts}), STAMP, events)
    bad = {"stage": "decode", "reason": f"bad price {EVIL}", "detail": EVIL, "source": "es & co.csv", "fingerprint": "xxh3:a", "byte_offset": 77,
           "source_row": 4711, "event_row": 5, "symbol": partition.symbol, "raw": b"<i>"}  # fmt: skip
    folder = lake / partition.path("quarantine")
    write_table(folder.parents[1] / "aaaaaaaaaa.parquet", pa.Table.from_pylist([bad, bad | {"source_row": 9000}], schema=QUARANTINE), STAMP)
    write_table(lake / partition.path("heatmap"), pa.table({"row": [0]}), STAMP)
    (lake / partition.path("heatmap", suffix=".png")).write_bytes(PIXEL)


def outputs_of(lake, partition) -> dict[str, Any]:
    """Everything that the lake has of a partition, and its events."""
    ((_, files),) = ledger.files_of(lake, [partition])
    found = {layer: {"path": paths[0].relative_to(lake).as_posix(), "rows": 0} for layer, paths in files.items()}
    return found | {"events": {"path": partition.path("events", "aaaaaaaaaa"), "rows": 3000}}


def make_facts(lake, partitions, error=None) -> RunFacts:
    entries = [
        {
            "partition": partition_fields(p), "status": "failed" if error else "done", "error": error,
            "outputs": outputs_of(lake, p),
            "counts": {"crossed": 891, "locked": 12, "anomalies": {"unknown_id": 4}, "statuses": {"valid": 2900, "no_book": 100}},
        }
        for p in partitions
    ]  # fmt: skip
    missed = {
        "name": f"price on tick {EVIL}",
        "consequence": "quarantine",
        "success": False,
        "unexpected": 1234,
        "why": "why " + EVIL,
        "look": "there",
    }
    return RunFacts(
        run_id=f"run {EVIL}", command=f"bookmill mbo {EVIL}", started="2025-01-05T02:00:00+00:00", finished="2025-01-05T02:01:00+00:00", code="1",
        recipe={"depth": 10, "filter": {"symbols": [EVIL]}}, hardware={"cores": 2},
        stages=[{"stage": "decode", "partition": str(p), "seconds": 2.0, "rows": 5_000_000, "bytes": 2**20} for p in partitions],
        partitions=entries, gates=[{"suite": "events", "partition": str(DAY), "status": "warn", "rows": 9, "results": [missed, {"success": True}]}],
        ledger=ledger.collect(lake, partitions).to_pylist(), memory=[(i / 2, 2**28 + i) for i in range(5_000)],
        rejected=[{"path": f"data/{EVIL}.dbn", "error": "byte 1,024: it ends in a record. Copy it again."}],
    )  # fmt: skip


class Page(HTMLParser):
    """Tags with their attributes, texts of headings, and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.headings: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def figures_of(text: str) -> dict[str, Any]:
    """The charts of a page by their id."""
    found = re.search(r"const FIGURES = (\[.*\]);\n", text.replace(get_plotlyjs(), ""))
    assert found is not None
    return {figure["id"]: figure for figure in json.loads(found[1])}


def values(trace: dict, name: str = "y") -> np.ndarray:
    """The numbers of a trace as they stand in the page."""
    return np.frombuffer(base64.b64decode(trace[name]["bdata"]), trace[name]["dtype"])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    for partition in (DAY, ODD):
        make_lake(root / "lake", partition)
    write_report(make_facts(root / "lake", [DAY, ODD]), root / "lake", root / "reports" / "run.html")
    return root, (root / "reports" / "run.html").read_text()


def test_all_sections_are_there_and_every_tag_is_closed(made):
    page = Page(made[1])
    assert page.headings == SECTIONS
    assert page.open == []


def test_nothing_of_the_facts_or_the_data_becomes_markup(made):
    own = made[1].replace(get_plotlyjs(), "")
    assert "alert(" in own
    assert "<script>alert" not in own
    assert [tag for tag, _ in Page(made[1]).tags].count("script") == 2
    assert "0005 <b>" not in own


def test_a_browser_would_load_nothing_from_outside(made):
    page = Page(made[1])
    for tag, attributes in page.tags:
        for name in ("src", "srcset", "data", "action", "poster"):
            assert attributes.get(name, "data:").startswith("data:"), (tag, attributes)
        assert tag not in ("iframe", "object", "embed", "base")
    assert ("link", {"rel": "icon", "href": "data:,"}) in page.tags
    assert sum(tag == "link" for tag, _ in page.tags) == 1
    assert "default-src 'none'" in made[1]
    assert not re.search(r"https?://|@import|url\(", made[1].replace(get_plotlyjs(), ""))
    assert made[1].count(get_plotlyjs()) == 1


def test_links_lead_to_the_files_of_the_lake(made):
    root, text = made
    from urllib.parse import unquote

    links = [a["href"] for tag, a in Page(text).tags if tag == "a" and not a["href"].startswith("#")]
    assert len(links) == 2 * len({"events", "mbp-10-1s", "ohlcv-1s", "heatmap"})
    assert all((root / "reports" / unquote(link)).resolve().is_file() for link in links)


def test_charts_hold_the_values_of_the_layers_in_at_most_2000_points(made):
    figures = figures_of(made[1])
    assert set(figures) == {f"partition-{i}-{kind}" for i in (0, 1) for kind in ("spread", "depth", "bars")} | {"throughput", "memory"}
    spread, (bids, asks) = figures["partition-0-spread"]["data"], figures["partition-0-depth"]["data"]
    assert values(spread[1], "x")[0] == (T0 + 100 * 10**9) / 1e6  # there is no book before
    assert np.isnan(values(spread[1])[:30]).all()  # a book, and no bid
    assert set(values(spread[1])[40:]) == {0.25}
    assert set(values(bids)) == {50.0}
    assert set(values(asks, "customdata")) == {30.0}
    assert len(figures["partition-0-spread"]["layout"]["shapes"]) == 1
    for figure in figures.values():
        for trace in figure["data"]:
            for name in ("x", "y", "open", "customdata"):
                assert not isinstance(trace.get(name), dict) or len(values(trace, name)) <= 2_000
    candles, bought, sold = figures["partition-0-bars"]["data"]
    assert len(values(candles, "open")) <= 300
    assert values(bought).sum() == 4 * 3_000
    assert values(sold).sum() == 3 * 3_000
    assert values(candles, "open")[0] == 4_800
    assert values(candles, "close")[-1] == 4_800 + 2_999 * 0.25


@pytest.mark.parametrize("layout", ["packed", "columns"])
@pytest.mark.parametrize("depth", [1, 3, 10])
def test_a_run_without_a_grid_gets_the_charts_of_its_books_at_event_ends(tmp_path, layout, depth):
    """Each row has numbers of its own, a second apart, so that a stretch of the chart holds one row."""
    n, tick = 600, 250_000_000
    k = np.arange(n)
    columns = {}
    for level in range(depth):
        columns[f"bid_px_{level:02d}"] = np.full(n, 4_800 * 10**9 - (1 + level) * tick)
        columns[f"ask_px_{level:02d}"] = 4_800 * 10**9 + (k % 7 + level) * tick
        columns[f"bid_sz_{level:02d}"] = 10 * level + k
        columns[f"ask_sz_{level:02d}"] = 2**33 + 100 * level + 3 * k
        for side in ("bid", "ask"):
            columns[f"{side}_ct_{level:02d}"] = np.full(n, 2**32 - 1)  # never taken for a size
    columns["bid_px_00"][49::50] = UNDEF_PRICE
    levels = {name: columns[name].tolist() for name in level_names(depth)}
    status = ["no_book"] * 20 + ["suspect"] * 30 + ["valid"] * (n - 50)
    head = filled(pa.schema(BOOK_HEAD), n, ts_event=T0 + k * 10**9, status=status)
    table = packed_table(levels, head, depth) if layout == "packed" else with_columns(levels, head)
    write_table(tmp_path / "lake" / DAY.path(f"mbp-{depth}"), table, STAMP)

    write_report(make_facts(tmp_path / "lake", [DAY]), tmp_path / "lake", tmp_path / "r.html")
    figures = figures_of((tmp_path / "r.html").read_text())
    assert set(figures) == {"partition-0-spread", "partition-0-depth", "throughput", "memory"}
    (largest, mean), (bids, asks) = figures["partition-0-spread"]["data"], figures["partition-0-depth"]["data"]
    seen = k[20:]  # the first rows have no book
    for trace in (largest, mean, bids, asks):
        after = (T0 + seen * 10**9) / 1e6 - values(trace, "x")  # ms since its stretch began
        assert after.min() >= 0
        assert after.max() < 1_000 * (n - 20) / BUCKETS
    spread = np.where(seen % 50 == 49, np.nan, 0.25 * (seen % 7 + 1))
    np.testing.assert_array_equal(values(largest), spread)
    np.testing.assert_array_equal(values(mean), spread)
    pairs = depth * (depth - 1) // 2
    assert values(bids).tolist() == (10 * pairs + depth * seen).tolist()
    assert values(asks, "customdata").tolist() == (-values(asks)).tolist() == (depth * 2**33 + 100 * pairs + 3 * depth * seen).tolist()
    assert figures["partition-0-depth"]["layout"]["yaxis"]["title"]["text"] == f"size over {depth} level{'s' if depth > 1 else ''}"
    (shape,) = figures["partition-0-spread"]["layout"]["shapes"]
    assert shape["x0"] == (T0 + 20 * 10**9) / 1e6
    assert (T0 + 49 * 10**9) / 1e6 < shape["x1"] < (T0 + 50 * 10**9) / 1e6


def test_layers_and_a_picture_that_are_not_of_this_run_are_not_shown(tmp_path):
    """Of an earlier run with other options: a grid, finer bars and a heatmap, all earlier in the day."""
    make_lake(tmp_path / "lake", DAY)
    facts, n, later = make_facts(tmp_path / "lake", [DAY]), 50, T0 + 7_200 * 10**9
    assert facts.partitions[0]["outputs"].keys() == {"events", "mbp-10-1s", "ohlcv-1s", "heatmap"}
    ts, price, sizes = later + np.arange(n) * 60 * 10**9, np.full(n, 5_000 * 10**9), {f"bid_sz_{level:02d}": np.full(n, 2) for level in range(20)}
    book = filled(books_schema(20), n, ts_event=ts, bid_px_00=price, ask_px_00=price + 10**9, status=["valid"] * n, **sizes)
    bars = filled(BARS, n, ts_event=ts, open=price, high=price, low=price, close=price, volume=np.full(n, 1), trades=np.full(n, 1))
    own = {"mbp-20-1s": book, "ohlcv-1m": bars}
    for layer, table in own.items():
        write_table(tmp_path / "lake" / DAY.path(layer), table, STAMP)
    facts.partitions[0]["outputs"] = {layer: {"path": DAY.path(layer), "rows": n} for layer in own}
    write_report(facts, tmp_path / "lake", tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    figures = figures_of(text)
    for kind in ("spread", "depth", "bars"):
        drawn = values(figures[f"partition-0-{kind}"]["data"][0], "x")
        assert (len(drawn), drawn[0]) == (n, later / 1e6)
    assert set(values(figures["partition-0-depth"]["data"][0])) == {40.0}
    assert set(values(figures["partition-0-bars"]["data"][0], "open")) == {5_000.0}
    assert '<img class="heatmap"' not in text
    assert "No heatmap was drawn for this partition." in text


def test_candles_of_bars_that_begin_at_the_same_time_open_with_the_first_and_close_with_the_last(tmp_path):
    """Bars of two trades each in one sweep, then a second one three minutes on: each sweep is a candle."""
    begins, opens = np.repeat([T0, T0 + 180 * 10**9], 50), np.r_[100 + 2 * np.arange(50), 300 - 2 * np.arange(50)] * 10**9
    closes = opens + np.repeat([10**9, -(10**9)], 50)
    high, low, two = np.maximum(opens, closes), np.minimum(opens, closes), np.full(100, 2)
    bars = filled(BARS, 100, ts_event=begins, ts_close=begins, open=opens, close=closes, high=high, low=low, volume=two, trades=two)
    write_table(tmp_path / "lake" / DAY.path("bars-tick-2"), bars, STAMP)
    write_report(make_facts(tmp_path / "lake", [DAY]), tmp_path / "lake", tmp_path / "r.html")
    candles = figures_of((tmp_path / "r.html").read_text())["partition-0-bars"]["data"][0]
    found = {name: values(candles, name).tolist() for name in ("open", "high", "low", "close")}
    assert found == {"open": [100, 300], "high": [199, 300], "low": [100, 201], "close": [199, 201]}


def test_ledger_lines_carry_a_tick_and_a_broken_one_changes_the_verdict(made, tmp_path):
    root, text = made
    assert text.count("&#10003;") == 4
    assert "All 4 lines add up" in text
    facts = make_facts(root / "lake", [DAY])
    facts.ledger[0]["rows_out"] -= 5
    write_report(facts, root / "lake", tmp_path / "broken.html")
    broken = (tmp_path / "broken.html").read_text()
    assert "&#10007; +5" in broken
    assert "the ledger does not add up" in broken
    assert 'class="verdict bad"' in broken


def test_quarantine_gates_and_errors_are_told_with_place_and_remedy(made, tmp_path):
    root, text = made
    own = text.replace(get_plotlyjs(), "")
    for told in ("4,711", "9,000", "quarantine/dataset=GLBX.MDP3/date=", "1,234", "Copy it again.", "891", "no book"):
        assert told in own, told
    write_report(make_facts(root / "lake", [DAY], error=f"cancel of 5 {EVIL}"), root / "lake", tmp_path / "failed.html")
    failed = (tmp_path / "failed.html").read_text()
    assert "1 of 1 partitions failed" in failed
    assert "cancel of 5 &lt;script&gt;" in failed


def test_missing_layers_a_missing_lake_and_no_facts_at_all_still_make_a_report(tmp_path):
    write_report(RunFacts("empty"), tmp_path / "absent", tmp_path / "empty.html")
    assert Page((tmp_path / "empty.html").read_text()).headings == SECTIONS
    facts = make_facts(tmp_path / "absent", [DAY])
    write_report(facts, tmp_path / "absent", tmp_path / "nothing.html")
    assert str(DAY) in (tmp_path / "nothing.html").read_text()


def test_only_the_largest_partitions_get_pictures_and_the_others_are_listed(tmp_path):
    partitions = [Partition("D", "2024-01-01", f"S{i}", 1, i) for i in range(DETAILED + 3)]
    for partition in partitions:
        write_table(tmp_path / partition.path("events", "aaaaaaaaaa"), pa.table({"ts_event": [1]}), STAMP)
    facts = make_facts(tmp_path, partitions)
    for i, entry in enumerate(facts.partitions):
        entry["outputs"]["events"]["rows"] = i
    write_report(facts, tmp_path, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert "3 partitions without pictures here" in text
    assert [a["id"] for tag, a in Page(text).tags if tag == "h3" and "id" in a] == [f"partition-{i}" for i in range(DETAILED)]
    assert '<h3 id="partition-0">D S8 2024-01-01 p1-8</h3>' in text


def test_facts_survive_json_and_summaries_neither_break_tables_nor_inject(made):
    facts = make_facts(made[0] / "lake", [DAY, ODD], error="a | b\n" + EVIL)
    again = RunFacts.from_json(json.loads(json.dumps(facts.to_json() | {"from_a_newer_version": 1})))
    assert markdown_summary(again) == markdown_summary(facts)
    text = markdown_summary(facts)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 4
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    assert "<script>" not in text
    assert "2 of 2 partitions failed" in text
    assert table_rows(facts)[0] == {
        "dataset": "GLBX.MDP3", "symbol": "ESH4", "date": "2023-12-25", "publisher": 1, "outcome": "failed", "rows": 3000, "crossed": 891,
        "locked": 12, "anomalies": 4,
    }  # fmt: skip
