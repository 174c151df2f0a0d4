"""Lakes on an object store: whole, in order, never twice, with nothing of the credentials; over HTTP against an S3 server on this machine.

That a run in a pulled lake finds everything done is in tests/flows/test_store.py.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deployments import cli
from flows.plan import plan_orders
from tasks.errors import StorageError, UsageError
from tasks.partitions import Partition, Stamp
from tasks.publishing import store as store_module
from tasks.publishing.cleaning import clean
from tasks.publishing.doctor import examine
from tasks.publishing.store import Store
from tasks.publishing.store_checksum import PART_BYTES, Checksum
from tasks.publishing.store_files import Selection, belongs, files_of, rank, steps
from tasks.publishing.store_sync import pull, push
from tasks.schemas import SOURCES
from tasks.storage import write_table
from tests.object_store import KEY, SECRET, Narrow, access, s3_server
from tests.unit.test_plan import DAYS, RECIPE, session, without_clear, work_on

ROOT = Path(__file__).resolve().parents[2]
DAY = Partition("GLBX.MDP3", "2025-10-22", "ES H4/x", 1, 17)
NEXT = Partition("GLBX.MDP3", "2025-10-23", "NQZ5", 1, 18)
NOT_MIRRORED = ("runs/lock", "runs/records/a.json", ".plan/x.parquet", "bbo/dataset=D/.part-1-1.parquet.a.partial", "notes.txt", "bbo/readme.parquet")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with s3_server(tmp_path_factory.mktemp("s3") / "log", dict(os.environ)) as url:
        yield url


@pytest.fixture
def s3(server, monkeypatch):
    """Address of an empty place on the server, which this process has the credentials for."""
    for name, value in access(server).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    urllib.request.urlopen(f"{server}/moto-api/reset", data=b"").close()
    urllib.request.urlopen(urllib.request.Request(f"{server}/lakes", method="PUT")).close()
    return "s3://lakes/mill"


@pytest.fixture(autouse=True)
def unsynced(monkeypatch):
    """What a sync is for cannot be seen here, and on a busy disk each takes 100 ms."""
    monkeypatch.setattr("tasks.disk._sync_all", lambda _: None)


@pytest.fixture
def lake(tmp_path):
    return make_lake(tmp_path / "lake")


def put(lake: Path, partition: Partition, layer: str, source: str = "", made_from: str = "inputs", rows: int = 5) -> str:
    name = partition.path(layer, source)
    write_table(lake / name, pa.table({"ts_event": np.arange(rows) + len(layer)}), Stamp(made_from, "recipe"), {"rows_in": rows})
    return name


def make_lake(lake: Path) -> Path:
    """Two days of one source, and what a lake holds besides."""
    paths = [put(lake, partition, "events", "0123456789") for partition in (DAY, NEXT)]
    for layer in ("mbp-10", "trades", "bbo", "ohlcv-1s", "heatmap", "ledger"):
        for partition in (DAY, NEXT):
            put(lake, partition, layer)
    columns = {field.name: pa.nulls(2, field.type) for field in SOURCES} | {"path": pa.array(paths, SOURCES.field("path").type)}
    write_table(lake / "sources/dataset=GLBX.MDP3/0123456789.parquet", pa.table(columns), Stamp("s", "r"))
    write_table(lake / "quarantine/dataset=GLBX.MDP3/source-0123456789.parquet", pa.table({"reason": ["price"]}), Stamp("s", "r"))
    write_table(lake / "mends/dataset=GLBX.MDP3/source-0123456789.parquet", pa.table({"source_row": [7]}), Stamp("s", "r"))
    for name, content in ((DAY.path("heatmap", suffix=".png"), b"\x89PNG"), ("reports/run.html", b"<p>"), ("runs/run.json", b"{}")):
        (lake / name).parent.mkdir(parents=True, exist_ok=True)
        (lake / name).write_bytes(content)
    for name in NOT_MIRRORED:
        (lake / name).parent.mkdir(parents=True, exist_ok=True)
        (lake / name).write_bytes(b"not for the store")
    return lake


def write_large(lake: Path, seed: int = 1) -> str:
    """A file of three and a half parts."""
    values = np.random.default_rng(seed).integers(0, 2**62, PART_BYTES * 7 // 2 // 8)
    name = DAY.path("mbp-20")
    write_table(lake / name, pa.table({"price": values}), Stamp(f"large {seed}", "recipe"))
    assert (lake / name).stat().st_size > 3 * PART_BYTES
    return name


def mirrored(lake: Path) -> dict[str, bytes]:
    return {name: (lake / name).read_bytes() for name in files_of(lake)}


def every_file(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def objects(url: str) -> dict[str, bytes]:
    """What the store really holds, asked for by itself."""
    fs, root = fsspec.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
    return {name[len(root) + 1 :]: fs.cat_file(name) for name in fs.find(root)}


def start(arguments: list[str], log: Path, **more: str) -> subprocess.Popen[bytes]:
    with log.open("wb") as out:
        environ = {**os.environ, **more, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen([sys.executable, "-m", "deployments.cli", *arguments], env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=out)


@pytest.fixture
def bookmill(monkeypatch, capfd):
    """A function from arguments to (exit code, all that was printed)."""

    def call(*arguments: str | Path) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["bookmill", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code or 0, "".join(capfd.readouterr())

    return call


def test_a_lake_comes_back_byte_for_byte_and_goes_only_once(s3, lake, tmp_path, bookmill):
    code, output = bookmill("push", s3, "--lake", lake)
    assert code == 0, output
    wanted = mirrored(lake)
    assert len(wanted) == 20
    assert f"{len(wanted)} files sent" in output
    assert objects(s3) == wanted
    assert every_file(lake).keys() - wanted.keys() == set(NOT_MIRRORED)
    code, output = bookmill("push", s3, "--lake", lake)
    assert (code, "0 files sent (0.0 MB), 20 there already" in output) == (0, True), output
    code, output = bookmill("pull", s3, "--lake", tmp_path / "back")
    assert code == 0, output
    assert every_file(tmp_path / "back") == wanted
    code, output = bookmill("pull", s3, "--lake", tmp_path / "back")
    assert (code, "0 files fetched (0.0 MB), 20 there already" in output) == (0, True), output


def test_only_the_partition_that_changed_is_sent_again(s3, lake, tmp_path):
    push(lake, Store(s3))
    pull(tmp_path / "back", Store(s3), Selection())
    changed = {put(lake, NEXT, layer, made_from="others") for layer in ("mbp-10", "bbo")}
    # The same size: it is the content that counts.
    assert {(lake / name).stat().st_size for name in changed} == {(tmp_path / "back" / name).stat().st_size for name in changed}
    (lake / DAY.path("trades")).touch()
    assert set(push(lake, Store(s3)).moved) == changed
    assert objects(s3) == mirrored(lake)
    kept = pull(tmp_path / "back", Store(s3), Selection())
    assert (set(kept.kept), kept.moved) == (changed, [])
    assert set(pull(tmp_path / "back", Store(s3), Selection(), replace=True).moved) == changed
    assert every_file(tmp_path / "back") == mirrored(lake)


def test_a_push_deletes_nothing(s3, lake):
    push(lake, Store(s3))
    before = objects(s3)
    for name in files_of(lake):
        if "2025-10-22" in name:
            (lake / name).unlink()
    assert push(lake, Store(s3)).moved == []
    assert objects(s3) == before


@pytest.mark.parametrize(
    ("selection", "names"),
    [
        (Selection(symbols=("ES H4/x",)), lambda name: "2025-10-22" in name),
        (Selection(start="2025-10-23"), lambda name: "2025-10-23" in name),
        (Selection(end="2025-10-23", layers=("bbo", "trades")), lambda name: "2025-10-22" in name and name.startswith(("bbo", "trades"))),
        (Selection(start="2025-10-22", end="2025-10-24"), lambda name: "run" not in name.split("/")[0] and not name.startswith("reports")),
        (Selection(layers=("reports",)), lambda name: name.startswith("reports")),
    ],
    ids=["symbol", "start", "end and layers", "all days", "reports"],
)
def test_a_part_of_a_lake_comes_with_the_accounts_it_can_stand_for(s3, lake, tmp_path, selection, names):
    push(lake, Store(s3))
    pull(tmp_path / "back", Store(s3), selection)
    wanted = {name for name in files_of(lake) if names(name)}
    assert wanted
    assert every_file(tmp_path / "back").keys() == wanted


def test_a_part_comes_with_the_closing_book_that_its_first_day_goes_on_from(tmp_path, bookmill):
    lake, back, place = tmp_path / "lake", tmp_path / "back", (tmp_path / "shared").as_uri()
    sources = [session(tmp_path / "in" / f"ES-{day}.csv", day) for day in DAYS]
    for source in sources:
        work_on(lake, without_clear(source) if source is not sources[0] else source)
    push(lake, Store(place))
    code, output = bookmill("pull", place, "--lake", back, "--start", DAYS[1], "--end", DAYS[2])
    assert (code, "1 closing books of days before --start belong to it" in output) == (0, True), output
    whole = mirrored(back)
    (closing,) = (name for name in whole if f"date={DAYS[0]}" in name)
    assert closing.startswith("closing_book/")
    # It stands for itself, what is there is done, and what is made again has the same bytes.
    assert [finding for finding in examine(back, deep=True).findings if finding.wrong] == []
    assert clean(back, dry_run=True, orphans=True)[0] == []
    assert plan_orders([str(sources[1])], back, RECIPE).plan.counts().keys() == {"done"}
    (bbo,) = back.glob("bbo/*/*/*/*.parquet")
    bbo.unlink()
    work_on(back, sources[1])
    assert mirrored(back) == whole
    # A machine that makes the next day has nothing of it yet.
    pull(tmp_path / "next", Store(place), Selection(start="2025-10-25"))
    assert [name.split("/")[:3:2] for name in every_file(tmp_path / "next")] == [["closing_book", f"date={DAYS[2]}"]]


def closed(lake: Path, day: str, symbol: str = "ESZ5", number: int = 1, made_of: tuple[str, ...] = ("aa",), there: tuple[str, ...] = ("aa",)) -> str:
    """Events and the closing book of a day. made_of: events that it was made from; there: those that the lake has."""
    partition = Partition("D", day, symbol, 1, number)
    for source in there:
        put(lake, partition, "events", source)
    name = partition.path("closing_book")
    facts = {"events": [partition.path("events", source) for source in made_of]}
    write_table(lake / name, pa.table({"price": np.arange(3)}), Stamp("inputs", "recipe"), facts)
    return name


def left_out(lake: Path, day: str, symbol: str = "ESZ5") -> None:
    row = dict.fromkeys(SOURCES.names) | {
        "dataset": "D", "date": day, "symbol": symbol, "publisher_id": 1, "instrument_id": 1, "path": "", "rows_in": 7, "rows_quarantined": 7,
    }  # fmt: skip
    write_table(lake / "sources/dataset=D/ff.parquet", pa.Table.from_pylist([row], schema=SOURCES), Stamp("s", "r"))


@pytest.mark.parametrize(
    ("make", "selection", "taken", "told"),
    [
        (lambda lake: [closed(lake, day) for day in ("2025-10-16", "2025-10-17", "2025-10-18")], {}, ["2025-10-18"], ""),
        (lambda lake: closed(lake, "2025-10-17"), {}, ["2025-10-17"], ""),
        (lambda lake: closed(lake, "2025-10-16"), {}, [], ""),  # more than a weekend and a holiday ago
        (lambda lake: [closed(lake, "2025-10-21", there=()), closed(lake, "2025-10-20")], {}, ["2025-10-21"], ""),
        (lambda lake: [closed(lake, "2025-10-21"), closed(lake, "2025-10-21", "NQZ5")], {"symbols": ("NQZ5",)}, ["2025-10-21"], ""),
        # Two instruments of one name, each by itself.
        (lambda lake: [closed(lake, "2025-10-20"), closed(lake, "2025-10-21", number=2)], {}, ["2025-10-20", "2025-10-21"], ""),
        (lambda lake: closed(lake, "2025-10-21"), {"layers": ("events", "bbo")}, [], ""),
        (lambda lake: closed(lake, "2025-10-21"), {"start": "", "end": "2025-10-21"}, [], ""),
        (
            lambda lake: [closed(lake, "2025-10-20"), put(lake, Partition("D", "2025-10-21", "ESZ5", 1, 1), "events", "aa")], {}, [],
            "D ESZ5 2025-10-21 p1-1 has events and no closing book",
        ),
        (lambda lake: closed(lake, "2025-10-21", there=("aa", "bb")), {}, [], "was not made from all events of its day"),
        (lambda lake: [closed(lake, "2025-10-20"), left_out(lake, "2025-10-21")], {}, [], "rows of 2025-10-21 that were all left out"),
        (lambda lake: [closed(lake, "2025-10-21"), left_out(lake, "2025-10-20")], {}, ["2025-10-21"], ""),
        (lambda lake: [closed(lake, "2025-10-20"), left_out(lake, "2025-10-21", "NQZ5")], {}, ["2025-10-20"], ""),
    ],
)  # fmt: skip
def test_a_closing_book_comes_where_the_first_day_may_go_on_from_it_and_else_it_is_told_why_not(make, selection, taken, told, tmp_path):
    lake, back, place = tmp_path / "lake", tmp_path / "back", Store((tmp_path / "shared").as_uri())
    make(lake)
    push(lake, place)
    result = pull(back, place, Selection(**({"start": "2025-10-22"} | selection)))
    assert [re.findall(r"date=([^/]*)", name)[0] for name in result.closings] == taken
    if "end" not in selection:
        assert [name for name in result.moved if not name.startswith("sources/")] == result.closings
    assert [told in why for why in result.without] == ([True] if told else []), result.without


def test_what_says_done_goes_after_what_it_speaks_of(s3, lake, monkeypatch):
    order = []
    put_file = Store.put
    monkeypatch.setattr(Store, "put", lambda self, name, file: (put_file(self, name, file), order.append(name))[0])
    push(lake, Store(s3))
    place = {name: order.index(name) for name in order}
    account = place["sources/dataset=GLBX.MDP3/0123456789.parquet"]
    for partition in (DAY, NEXT):
        assert place[partition.path("events", "0123456789")] < account
        assert max(place[partition.path(layer)] for layer in ("mbp-10", "trades")) < place[partition.path("bbo")]
        assert place[partition.path("bbo")] < place[partition.path("ohlcv-1s")]
    assert place[DAY.path("heatmap")] < place[DAY.path("heatmap", suffix=".png")]
    assert max(place[name] for name in order if "2025-10-22" in name) < min(place[name] for name in order if "2025-10-23" in name)
    assert [[rank(name) for name in group] for group in steps(order)] == [[rank(group[0])] * len(group) for group in steps(order)]


def test_a_file_that_cannot_be_sent_keeps_back_what_speaks_of_it(s3, lake, monkeypatch):
    put_file = Store.put

    def refuse(self, name, file):
        if name == NEXT.path("trades"):
            raise StorageError("refused")
        return put_file(self, name, file)

    monkeypatch.setattr(Store, "put", refuse)
    with pytest.raises(StorageError, match=r"refused .* files were transferred before") as fault:
        push(lake, Store(s3))
    assert fault.value.exit_code == 1
    there = objects(s3)
    assert DAY.path("bbo") in there
    assert not [name for name in there if name.startswith("sources") or name == NEXT.path("bbo")]
    monkeypatch.undo()


def test_a_book_that_a_run_makes_anew_during_the_push_comes_with_its_layers(s3, lake, monkeypatch):
    put_file, done = Store.put, []

    def change(self, name, file):
        size = put_file(self, name, file)
        if name == DAY.path("mbp-10") and not done:
            done.append([put(lake, DAY, layer, made_from="anew") for layer in ("mbp-10", "bbo")])
        if name == DAY.path("bbo"):
            there = fsspec.url_to_fs(s3)[0].cat_file(f"{s3}/{DAY.path('mbp-10')}")
            assert pq.read_metadata(pa.BufferReader(there)).metadata[b"bookmill.inputs"] == b"anew"
        return size

    monkeypatch.setattr(Store, "put", change)
    result = push(lake, Store(s3))
    assert done
    assert result.unsettled == []
    assert objects(s3) == mirrored(lake)


def test_an_object_replaced_during_the_pull_is_taken_as_it_is_then(s3, lake, tmp_path, monkeypatch):
    push(lake, Store(s3))
    get, done = Store.get, []

    def replaced(self, name, blob, to):
        if name == DAY.path("trades") and not done:
            done.extend(put(lake, DAY, layer, made_from="anew") for layer in ("mbp-10", "trades", "bbo"))
            push(lake, Store(s3))
        return get(self, name, blob, to)

    monkeypatch.setattr(Store, "get", replaced)
    result = pull(tmp_path / "back", Store(s3), Selection(), replace=True)
    assert done
    assert result.unsettled == []
    assert every_file(tmp_path / "back") == mirrored(lake)


@pytest.mark.parametrize("limit", [PART_BYTES // 2, PART_BYTES * 5 // 2], ids=["in the first part", "in the third part"])
def test_a_killed_push_leaves_no_broken_object_and_completes_when_started_again(s3, server, lake, tmp_path, limit):
    large = write_large(lake)
    with Narrow(server, limit, "up") as way:
        process = start(["push", s3, "--lake", str(lake)], tmp_path / "log", AWS_ENDPOINT_URL=way.url)
        try:
            assert way.full.wait(60), (tmp_path / "log").read_text()
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    there = objects(s3)
    assert large not in there
    assert there.items() <= mirrored(lake).items()
    assert not [name for name in there if name.startswith(("sources", "bbo"))]
    push(lake, Store(s3))
    assert objects(s3) == mirrored(lake)


def test_a_killed_push_of_a_file_sent_in_one_request_leaves_no_broken_object(s3, server, tmp_path):
    lake = tmp_path / "lake"
    name = DAY.path("mbp-10")
    values = np.random.default_rng(2).integers(0, 2**62, 1_000_000)
    write_table(lake / name, pa.table({"price": values}), Stamp("one", "recipe"))
    with Narrow(server, 4_000_000, "up") as way:
        process = start(["push", s3, "--lake", str(lake)], tmp_path / "log", AWS_ENDPOINT_URL=way.url)
        try:
            assert way.full.wait(60), (tmp_path / "log").read_text()
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert objects(s3) == {}
    assert push(lake, Store(s3)).moved == [name]
    assert objects(s3) == mirrored(lake)


def test_a_killed_pull_leaves_no_broken_file_and_completes_when_started_again(s3, server, lake, tmp_path):
    large, back = write_large(lake), tmp_path / "back"
    push(lake, Store(s3))
    with Narrow(server, PART_BYTES * 5 // 2, "down") as way:
        process = start(["pull", s3, "--lake", str(back)], tmp_path / "log", AWS_ENDPOINT_URL=way.url)
        try:
            assert way.full.wait(60), (tmp_path / "log").read_text()
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert list(back.rglob(".*.partial"))
    assert large not in mirrored(back)
    assert mirrored(back).items() <= mirrored(lake).items()
    pull(back, Store(s3), Selection())
    assert mirrored(back) == mirrored(lake)


def test_pushes_of_one_lake_at_once_do_no_harm(s3, lake, tmp_path):
    write_large(lake)
    runs = [start(["push", s3, "--lake", str(lake)], tmp_path / f"log{n}") for n in range(2)]
    assert [run.wait(120) for run in runs] == [0, 0], [(tmp_path / f"log{n}").read_text() for n in range(2)]
    assert objects(s3) == mirrored(lake)


def test_large_files_are_compared_without_being_read_back_and_a_foreign_copy_by_its_footer(s3, lake):
    large = write_large(lake)
    push(lake, Store(s3))
    listed = Store(s3).listing("mbp-20")[large]
    with (lake / large).open("rb") as file:
        assert listed.checksum == Checksum.of(file, listed.size)
        assert re.fullmatch(r"[0-9a-f]{32}-4", listed.checksum)
    # As another program sends it: in one request, which makes another checksum.
    fs = fsspec.url_to_fs(s3, skip_instance_cache=True)[0]
    fs.call_s3("put_object", Bucket="lakes", Key=f"mill/{large}", Body=(lake / large).read_bytes())
    assert push(lake, Store(s3)).moved == []
    write_large(lake, seed=2)
    assert push(lake, Store(s3)).moved == [large]


def test_an_object_that_is_no_file_of_bookmill_is_told_and_the_others_come(s3, lake, tmp_path, bookmill):
    push(lake, Store(s3))
    fs = fsspec.url_to_fs(s3, skip_instance_cache=True)[0]
    fs.pipe_file(f"{s3}/{DAY.path('trades')}", (lake / DAY.path("trades")).read_bytes()[:-20])
    code, output = bookmill("pull", s3, "--lake", tmp_path / "back")
    assert code == 1
    assert f"{DAY.path('trades')} is no Parquet file of Bookmill, or not whole. Push it again" in output
    assert every_file(tmp_path / "back").keys() == files_of(lake).keys() - {DAY.path("trades")}
    code, _ = bookmill("push", s3, "--lake", lake)
    assert (code, objects(s3)) == (0, mirrored(lake))


def test_names_that_lead_out_of_the_lake_are_not_taken(s3, lake, tmp_path):
    push(lake, Store(s3))
    fs = fsspec.url_to_fs(s3, skip_instance_cache=True)[0]
    fs.call_s3("put_object", Bucket="lakes", Key="mill/bbo/dataset=X/../../../out.parquet", Body=(lake / DAY.path("bbo")).read_bytes())
    pull(tmp_path / "back", Store(s3), Selection())
    assert every_file(tmp_path / "back") == mirrored(lake)
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize("name", NOT_MIRRORED)
def test_what_is_no_final_file_has_no_place_on_the_store(name):
    assert not belongs(name)


def test_without_a_bucket_or_a_lake_it_says_so(s3, lake, tmp_path, bookmill):
    code, output = bookmill("push", "s3://nobody-made-it/mill", "--lake", lake)
    assert (code, "there is no bucket nobody-made-it" in output) == (2, True), output
    code, output = bookmill("push", s3, "--lake", tmp_path / "none")
    assert (code, "There is no lake at" in output) == (2, True), output


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("lakes/mill", "'lakes/mill' is no address of a store; allowed: s3://bucket/prefix"),
        ("s3://", "is no address of a store"),
        ("nothing://a/b", "Protocol not known: nothing"),
        (f"s3://{KEY}:{SECRET}@lakes/mill", "holds a password"),
        (f"s3://{KEY}:a/{SECRET}@lakes/mill", "holds a password"),
        (f"s3://lakes/mill?sig={SECRET}", "'s3://lakes/mill' is no address of a store"),
    ],
)
def test_an_address_that_cannot_be_one_is_refused_without_telling_a_secret(address, told, lake, bookmill):
    with pytest.raises(UsageError) as fault:
        Store(address)
    assert told in str(fault.value)
    code, output = bookmill("push", address, "--lake", lake)
    assert (code, told in output, SECRET in output) == (2, True, False), output


def test_access_denied_is_told_with_the_remedy_and_no_secret(s3, lake, tmp_path, bookmill):
    environ = {**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": "0"}
    with s3_server(tmp_path / "strict", environ) as strict:
        os.environ["AWS_ENDPOINT_URL"] = strict  # given back by the fixture s3
        code, output = bookmill("push", s3, "--lake", lake)
    assert code == 2
    assert "access denied" in output
    assert "AWS_PROFILE" in output
    assert SECRET not in output
    assert KEY not in output


def test_without_credentials_or_server_it_ends_soon_and_says_so(s3, lake, bookmill, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    code, output = bookmill("push", s3, "--lake", lake)
    assert (code, "Check the network and the address" in output) == (2, True), output
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    code, output = bookmill("push", s3, "--lake", lake)
    assert (code, "Unable to locate credentials" in output) == (2, True), output


def test_nothing_of_the_credentials_is_in_the_store_or_the_lake(s3, lake, tmp_path):
    push(lake, Store(s3))
    pull(tmp_path / "back", Store(s3), Selection())
    everything = [*objects(s3).values(), *every_file(tmp_path / "back").values(), *every_file(lake).values()]
    assert not [content for content in everything if SECRET.encode() in content or KEY.encode() in content]
    head = fsspec.url_to_fs(s3, skip_instance_cache=True)[0].call_s3("head_object", Bucket="lakes", Key=f"mill/{DAY.path('bbo')}")
    assert head["Metadata"] == {"bookmill-checksum": hashlib.md5((lake / DAY.path("bbo")).read_bytes()).hexdigest()}


def test_a_store_that_comes_back_is_waited_for(s3, lake, monkeypatch):
    monkeypatch.setattr(store_module, "RETRY_DELAYS_S", (0.0, 0.0))
    place, tries = Store(s3), []
    put_file = place._fs.put_file

    def away(file, path, **more):
        tries.append(path)
        if tries.count(path) < 3:
            raise ConnectionResetError(104, "Connection reset by peer")
        put_file(file, path, **more)

    monkeypatch.setattr(place._fs, "put_file", away)
    assert len(push(lake, place).moved) == 20
    assert objects(s3) == mirrored(lake)


def test_a_shared_folder_serves_as_a_store(lake, tmp_path):
    place = Store((tmp_path / "shared").as_uri())
    assert len(push(lake, place).moved) == 20
    assert every_file(tmp_path / "shared") == mirrored(lake)
    changed = put(lake, NEXT, "bbo", made_from="other")
    assert push(lake, place).moved == [changed]
    pull(tmp_path / "back", place, Selection())
    assert every_file(tmp_path / "back") == mirrored(lake)


@pytest.mark.parametrize("size", [0, 1, PART_BYTES * 2 - 1, PART_BYTES * 2, PART_BYTES * 2 + 1, PART_BYTES * 3])
def test_checksums_are_those_that_s3_makes(size, s3, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(np.random.default_rng(size).bytes(size))
    with path.open("rb") as file:
        assert Store(s3).put("bbo/file", file) == size
        assert Store(s3).blob("bbo/file").checksum == Checksum.of(file, size)
