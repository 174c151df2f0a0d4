"""Bybit's archives against a line-by-line twin, on real files, and broken in every way that a file breaks."""

from __future__ import annotations

import gzip
import os
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings

from tasks.depth_batches import DELTA, NO_ID, NO_TIME, SNAPSHOT
from tasks.errors import CorruptSource, EmptySource, SchemaMismatch, SourceError, UnknownFormat
from tasks.scanning import bybit
from tasks.scanning.bybit import BybitReader, Head, head, members, open_bybit
from tasks.scanning.bybit_line_kernels import MAX_LINE
from tests.oracles import naive_bybit as naive
from tests.strategies import bybit_lines as lines

EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "200"))
generated = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
DTYPES = {
    "kind": "u1", "ts": "i8", "cts": "i8", "update_id": "i8", "sequence": "i8", "line": "i8", "offset": "i8", "first": "i8", "side": "u1",
    "price": "i8", "size": "i8", "price_digits": "u1", "size_digits": "u1",
}  # fmt: skip
GOOD = (
    b'{"topic":"orderbook.500.BTCUSDT","type":"snapshot","ts":1733011200691,"data":{"s":"BTCUSDT","b":[["1.9531","6203"],["1.9530","0"]],'
    b'"a":[["1.9532","17.50"]],"u":1,"seq":130020227226},"cts":1733011200689}\n'
)
NEXT = GOOD.replace(b"snapshot", b"delta").replace(b'"u":1', b'"u":2')


def read(reader: BybitReader, batch_bytes: int) -> tuple[naive.Reading, Exception | None]:
    """The file in the twin's words, and the error that ended it; checks what each batch promises."""
    found, error = naive.Reading(), None
    try:
        for batch in reader.batches(batch_bytes):
            assert {name: getattr(batch, name).dtype.str[1:] for name in DTYPES} == DTYPES
            assert len(batch) or batch.bad
            assert (batch.first[0], batch.first[-1], len(batch.first)) == (0, len(batch.price), len(batch) + 1)
            assert {len(getattr(batch, name)) for name in list(DTYPES)[:7]} == {len(batch)}
            assert {len(getattr(batch, name)) for name in list(DTYPES)[8:]} == {len(batch.price)}
            found.bad += [(len(found.messages) + b.before, b.source_row, b.byte_offset, b.raw) for b in batch.bad]
            assert all(b.reason and b.detail for b in batch.bad)
            updates = list(zip(*(getattr(batch, name).tolist() for name in list(DTYPES)[8:]), strict=True))
            rows = zip(*(getattr(batch, name).tolist() for name in ("line", "offset", "kind", "ts", "cts", "update_id", "sequence")), strict=True)
            for k, row in enumerate(rows):
                found.messages.append((*row, updates[batch.first[k] : batch.first[k + 1]]))
            assert reader.symbol or not len(batch)
    except SourceError as fault:
        error = fault
    finally:
        reader.close()
    found.lines = reader.lines
    assert found.lines == len(found.messages) + len(found.bad)
    return found, error


def agrees(path: Path, data: bytes, batch_bytes: int = 1 << 20, member: str = "") -> naive.Reading:
    """The reader's reading of a file that holds `data` is the twin's; returns the twin's."""
    twin, reader = naive.read(data), open_bybit(path, member)
    found, error = read(reader, batch_bytes)
    assert found.messages == twin.messages
    assert found.bad == twin.bad
    assert found.lines == twin.lines
    assert type(error) is {"": type(None), "empty": EmptySource, "cut": CorruptSource}[twin.end]
    if twin.end == "cut":
        assert error.offset == twin.cut_at
    assert (reader.symbol, reader.depth) == (twin.head if twin.topic else ("", 0))
    return twin


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bybit")


@generated
@given(lines.files())
@example(b"")
@example(b"\n\n")
@example(GOOD[:-1])
@example(GOOD + NEXT[:-9])
@example(b"\xef\xbb\xbf" + GOOD + NEXT)
def test_every_file_reads_as_by_the_twin_whatever_the_batches(folder, data):
    path = folder / "x.data"
    path.write_bytes(data)
    for batch_bytes in (1 << 20, 97, 613):
        agrees(path, data, batch_bytes)


def edges() -> list[bytes]:
    """The good line with every odd number in every place of one, and every odd decimal in every place of one."""
    places = (b'"ts":1733011200691', b'"cts":1733011200689', b'"u":1', b'"seq":130020227226')
    found = [GOOD.replace(place, place.partition(b":")[0] + b":" + odd) for place in places for odd in lines.ODD_NUMBERS]
    for text in lines.ODD_DECIMALS:
        odd = text.encode()
        found += [GOOD.replace(b'"1.9530"', b'"%s"' % odd), GOOD.replace(b'"6203"', b'"%s"' % odd), GOOD.replace(b'"17.50"', b'"1","%s"' % odd)]
        found += [
            GOOD.replace(b'"1.9530"', b'"-%s"' % odd),
            GOOD.replace(b'"1.9530"', b' "%s" ' % odd),
            GOOD.replace(b'"6203"', b'"6203","%s"' % odd),
        ]
    return found


def test_every_edge_of_a_number_reads_as_by_the_twin(tmp_path):
    path, data = tmp_path / "x.data", b"".join([GOOD, *edges()])
    path.write_bytes(data)
    twin = agrees(path, data)
    assert min(len(twin.messages), len(twin.bad)) > 50


def test_what_the_fields_of_a_message_mean(tmp_path):
    path = tmp_path / "x.data"
    bare = NEXT.replace(b',"cts":1733011200689', b"").replace(b'"u":2,"seq":130020227226', b'"seq":7')
    path.write_bytes(GOOD + bare.replace(b'["1.9530","0"]', b'["-0.5","1","2"]'))
    reader = open_bybit(path)
    (batch,) = reader.batches()
    assert (reader.symbol, reader.depth, reader.lines, reader.third_fields) == ("BTCUSDT", 500, 2, 1)
    assert batch.kind.tolist() == [SNAPSHOT, DELTA]
    assert batch.ts.tolist() == [1_733_011_200_691_000_000] * 2
    assert batch.cts.tolist() == [1_733_011_200_689_000_000, NO_TIME]
    assert batch.update_id.tolist() == [1, NO_ID]
    assert batch.sequence.tolist() == [130_020_227_226, 7]
    assert batch.line.tolist() == [0, 1]
    assert batch.offset.tolist() == [0, len(GOOD)]
    assert batch.side.tolist() == [0, 0, 1] * 2
    assert (batch.price.tolist(), batch.price_digits.tolist()) == ([19531, 19530, 19532, 19531, -5, 19532], [4, 4, 4, 4, 1, 4])
    assert (batch.size.tolist(), batch.size_digits.tolist()) == ([6203, 0, 1750, 6203, 1, 1750], [0, 0, 2, 0, 0, 2])


CHANGES = {  # bytes of a good line, what stands there instead, and why that cannot be read
    (b"500", b"200"): "topic", (b"snapshot", b"full"): "type", (b'"s":"BTC', b'"s":"ETH'): "symbol", (b'"ts":17', b'"ts":"17'): "json",
    (b'"ts":1733011200691', b'"ts":1.7e12'): "time", (b'"u":1', b'"u":-1'): "number", (b'["1.9532","17.50"]', b'["1.9532"]'): "levels",
    (b'"1.9532"', b"1.9532"): "levels", (b"1.9532", b"1e-19"): "price", (b"17.50", b"-1"): "size", (b"17.50", b"1 "): "size",
    (b'"u"', b'"b":[],"u"'): "json", (b"{", b"\xff{"): "json",
}  # fmt: skip
BAD = {GOOD.replace(*change, 1).removesuffix(b"\n"): reason for change, reason in CHANGES.items()}
BAD |= {b"x": "json", b'{"topic":"a"': "json", b"[]": "missing", b"{}": "missing", b" " * (MAX_LINE + 1): "line_too_long"}


@pytest.mark.parametrize("raw", BAD, ids=[f"{reason}-{k}" for k, reason in enumerate(BAD.values())])
def test_a_bad_line_is_set_aside_with_its_place_bytes_and_reason_and_costs_no_other(tmp_path, raw):
    path = tmp_path / "x.data"
    path.write_bytes(GOOD + raw + b"\n" + NEXT)
    reader = open_bybit(path)
    batches = list(reader.batches())
    (bad,) = [entry for batch in batches for entry in batch.bad]
    assert (bad.source_row, bad.byte_offset, bad.raw, bad.reason) == (1, len(GOOD), raw[:MAX_LINE], BAD[raw])
    assert bad.detail
    assert [int(u) for batch in batches for u in batch.update_id] == [1, 2]


def test_a_line_may_be_as_long_as_the_limit_and_no_longer(tmp_path):
    path = tmp_path / "x.data"
    for more, bad in ((0, 0), (1, 1)):
        data = GOOD + NEXT[:-2] + b" " * (MAX_LINE + more - len(NEXT) + 1) + b"}\n" + NEXT + b" " * (3 * MAX_LINE) + b"\n" + NEXT
        path.write_bytes(data)
        for batch_bytes in (1 << 16, 1 << 20, 1 << 24):
            twin = agrees(path, data, batch_bytes)
            assert (len(twin.messages), len(twin.bad)) == (4 - bad, 1 + bad)


@pytest.mark.real_data
@pytest.mark.parametrize(
    "name",
    [f"linear/0200/{pair}/2026-08-09_{pair}_ob200.data.zip" for pair in ("BTCUSDT", "DOGEUSDT", "ETHUSDT", "SOLUSDT")]
    + [f"spot/0200/{pair}/2026-08-09_{pair}_ob200.data.zip" for pair in ("BTCUSDT", "ETHUSDT")]
    + ["xrpusdt-ob500.data.zip"],
)
def test_every_line_of_a_real_archive_equals_the_twin_and_none_needs_the_general_parser(real_data, name, monkeypatch):
    path = real_data(f"bybit/{name}")
    (member,) = members(path)
    with zipfile.ZipFile(path) as archive:
        data = archive.read(member)
    asked = []
    monkeypatch.setattr(bybit, "parse", lambda raw: asked.append(raw) or bybit_parse(raw))
    twin = agrees(path, data, 50_000, member)
    assert (twin.end, twin.bad) == ("", [])
    assert asked == [data.split(b"\n")[0]], "only the first line, which tells the topic"
    ids = [entry[5] for entry in twin.messages]
    assert set(np.diff(ids).tolist()) == {1}
    found = head(path)
    assert (found.symbol, found.depth, found.first_ts_ns) == (*twin.head, twin.messages[0][3])


bybit_parse = bybit.parse


def zipped(path: Path, *parts: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in parts:
            archive.writestr(name, data)
    return path


def day(count: int = 3_000) -> bytes:
    random = np.random.default_rng(3)
    sizes = enumerate(random.integers(0, 10**9, count))
    return GOOD + b"".join(NEXT.replace(b"6203", b"%d" % size).replace(b'"u":2', b'"u":%d' % (k + 2)) for k, size in sizes)


@pytest.mark.parametrize("kind", ["zip", "stored", "gz", "plain", "gz-members"])
def test_every_way_of_packing_gives_the_same(tmp_path, kind):
    data, path = day(), tmp_path / "x"
    if kind in ("zip", "stored"):
        zipped(path, ("x.data", data), method=zipfile.ZIP_DEFLATED if kind == "zip" else zipfile.ZIP_STORED)
    else:
        half = len(data) // 2
        path.write_bytes({"gz": gzip.compress(data), "plain": data, "gz-members": gzip.compress(data[:half]) + gzip.compress(data[half:])}[kind])
    for batch_bytes in (7_919, 1 << 20):
        agrees(path, data, batch_bytes)


@pytest.mark.parametrize("kind", ["zip", "stored", "gz", "plain"])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 0.999])
def test_a_file_that_is_cut_short_gives_its_whole_lines_and_then_an_error(tmp_path, kind, share):
    data, path = day(), tmp_path / "x"
    if kind in ("zip", "stored"):
        whole = zipped(path, ("x.data", data), method=zipfile.ZIP_DEFLATED if kind == "zip" else zipfile.ZIP_STORED).read_bytes()
    else:
        whole = gzip.compress(data) if kind == "gz" else data
    path.write_bytes(whole[: int(len(whole) * share)])
    found, error = read(open_bybit(path), 1 << 16)
    assert type(error) is CorruptSource
    twin = naive.read(data).messages
    assert found.messages == twin[: len(found.messages)]
    assert len(found.messages) >= int(share * len(twin)) - 60
    assert found.bad == []
    assert str(path) in str(error)


def test_a_zip_without_its_directory_says_so_after_all_its_lines(tmp_path):
    data = day()
    path = zipped(tmp_path / "x.zip", ("x.data", data))
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b"PK\x01\x02") + 9])
    found, error = read(open_bybit(path), 1 << 16)
    assert found.messages == naive.read(data).messages
    assert "no directory" in str(error)
    assert members(path) == ["x.data"]


@pytest.mark.parametrize("kind", ["zip", "gz"])
def test_a_wrong_checksum_is_told_after_all_lines(tmp_path, kind):
    data, path = day(), tmp_path / "x"
    if kind == "zip":
        whole = bytearray(zipped(path, ("x.data", data)).read_bytes())
        whole[whole.rindex(b"PK\x01\x02") + 16] ^= 1
    else:
        whole = bytearray(gzip.compress(data))
        whole[-8] ^= 1
    path.write_bytes(whole)
    found, error = read(open_bybit(path), 1 << 16)
    assert type(error) is CorruptSource
    assert len(found.messages) > (3_000 if kind == "zip" else 2_000)
    if kind == "zip":
        assert "checksum" in str(error)


def test_a_wrong_size_and_damaged_bytes_are_told(tmp_path):
    data = day()
    path = zipped(tmp_path / "x.zip", ("x.data", data))
    whole = bytearray(path.read_bytes())
    whole[whole.rindex(b"PK\x01\x02") + 24] ^= 1
    path.write_bytes(whole)
    assert "the zip says" in str(read(open_bybit(path), 1 << 16)[1])
    whole = bytearray(zipped(path, ("x.data", data)).read_bytes())
    whole[len(whole) // 2 : len(whole) // 2 + 200] = b"\xff" * 200
    path.write_bytes(whole)
    found, error = read(open_bybit(path), 1 << 16)
    assert type(error) is CorruptSource
    assert found.messages


def test_a_zip_of_several_members_is_read_by_name(tmp_path):
    other = GOOD.replace(b"BTC", b"ETH")
    path = zipped(tmp_path / "x.zip", ("readme.txt", b"x"), ("a/", b""), ("a/b.data", GOOD), ("a/c.data", other), ("__MACOSX/a/._b.data", b"x"))
    assert members(path) == ["a/b.data", "a/c.data"]
    agrees(path, other, member="a/c.data")
    assert head(path, "a/b.data") == Head("BTCUSDT", 500, 1_733_011_200_691_000_000)
    with pytest.raises(SchemaMismatch, match=r"Name one of: a/b.data, a/c.data"):
        open_bybit(path)
    with pytest.raises(SchemaMismatch, match="no data member d"):
        open_bybit(path, "d")


def test_files_that_cannot_be_used_say_why(tmp_path):
    path = tmp_path / "x"
    for make, kind, words in (
        (lambda: zipped(path), EmptySource, "no data member"),
        (lambda: path.write_bytes(b""), EmptySource, "no line"),
        (lambda: zipped(path, ("x.data", b"\n")), EmptySource, "no line in x.data"),
        (lambda: zipped(path, ("x.data", GOOD), method=zipfile.ZIP_BZIP2), SourceError, "method 12"),
        (lambda: path.write_bytes(b"PK\x03\x04"), CorruptSource, "first header"),
        (lambda: path.unlink(), SourceError, "cannot be opened"),
    ):
        make()
        with pytest.raises(kind, match=words):
            list(open_bybit(path, "x.data" if "x.data" in words else "").batches())
    path.write_bytes(GOOD)
    with pytest.raises(SchemaMismatch, match="no zip"):
        open_bybit(path, "a")
    assert members(path) == [""]
    path.write_bytes(b"a,b\n" * 100)
    with pytest.raises(UnknownFormat, match="100 lines"):
        head(path)


def test_a_reader_that_is_left_early_ends_its_thread(tmp_path):
    path = tmp_path / "x.data"
    path.write_bytes(day())
    before = threading.active_count()
    reader = open_bybit(path)
    batches = reader.batches(1 << 12)
    next(batches)
    assert 0 < reader.bytes_read < path.stat().st_size
    batches.close()
    reader.close()
    assert threading.active_count() == before
