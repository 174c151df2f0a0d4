"""Which sources a scan finds, how it describes them, and that it notices a file that changes."""

from __future__ import annotations

import os
import zipfile

import pytest
import xxhash
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import EmptySource, SchemaMismatch, SourceChanged, SourceError, UnknownFormat
from tasks.scanning.inventory import scan, verify_unchanged
from tests.oracles import naive_dbn as naive
from tests.unit.test_formats import DATABENTO_HEADER, MESSAGES, ORDERBOOK, PAIR, SEVEN_HEADER, seven_parquet

SEVEN = f"{SEVEN_HEADER}\n1,A,B,1.5,1,1,1\n"


def names(inventory):
    return [os.path.basename(file.path) for file in inventory.files]


def test_a_folder_is_searched_to_any_depth_and_side_material_is_only_listed(tmp_path):
    deep = tmp_path / "2024" / "01"
    deep.mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "b.csv").write_text(SEVEN)
    (tmp_path / ".c.csv").write_text(SEVEN)
    (tmp_path / "d.csv.partial").write_text(SEVEN)
    (deep / "a.csv").write_text(SEVEN)
    for side in ("README", "manifest.json", "notes.md", "condition.csv"):
        (deep / side).write_text("hello")
    (deep / "empty.txt").write_text("")
    (deep / "odd.csv").write_text("hello")
    inventory = scan([tmp_path])
    assert names(inventory) == ["a.csv"]
    assert [os.path.basename(path) for path in inventory.skipped] == ["README", "condition.csv", "empty.txt", "manifest.json", "notes.md"]
    assert [(os.path.basename(entry.path), type(entry.error)) for entry in inventory.rejected] == [("odd.csv", UnknownFormat)]


def test_linked_folders_are_searched_once_and_what_stands_in_the_folder_keeps_its_name(tmp_path):
    for number, path in enumerate(("data/z/a.csv", "disk/b.csv", "disk/deep/c.csv")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(SEVEN.replace("1.5", f"{number}.5"))
    for link, target in (("data/a", "data/z"), ("data/day", "disk"), ("disk/deep/back", "data"), ("data/.hidden", "disk"), ("twice", "data")):
        (tmp_path / link).symlink_to(tmp_path / target)
    inventory = scan([tmp_path / "data"])
    assert sorted(os.path.relpath(file.path, tmp_path) for file in inventory.files) == ["data/day/b.csv", "data/day/deep/c.csv", "data/z/a.csv"]
    assert not inventory.rejected
    assert not inventory.duplicates
    assert names(scan([tmp_path / "twice"])) == ["b.csv", "c.csv", "a.csv"]


@pytest.mark.parametrize("given", ["", "day*"])
def test_a_folder_that_cannot_be_listed_is_told_and_the_rest_is_used(tmp_path, monkeypatch, given):
    for number, path in enumerate(("day1/a.csv", "day1/locked/b.csv")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(SEVEN.replace("1.5", f"{number}.5"))
    scandir = os.scandir

    def locked(path="."):  # who is root may list every folder
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    inventory = scan([tmp_path / given])
    assert names(inventory) == ["a.csv"]
    ((path, error),) = [(entry.path, str(entry.error)) for entry in inventory.rejected]
    assert path == str(tmp_path / given)
    assert f"cannot be listed in full: {tmp_path}/day1/locked (Permission denied)" in error


def test_side_material_that_the_caller_names_is_rejected(tmp_path):
    (tmp_path / "README.md").write_text("hello")
    assert [type(entry.error) for entry in scan([tmp_path / "README.md"]).rejected] == [UnknownFormat]
    assert [type(entry.error) for entry in scan([tmp_path, tmp_path / "README.md"]).rejected] == [UnknownFormat]


def test_a_text_file_with_data_counts_whatever_its_name(tmp_path):
    (tmp_path / "notes.txt").write_text(SEVEN)
    assert names(scan([tmp_path])) == ["notes.txt"]


def test_globs_find_what_the_shell_would_and_each_file_once(tmp_path, monkeypatch):
    (tmp_path / "x" / "y").mkdir(parents=True)
    for i, path in enumerate(("a.csv", "x/b.csv", "x/y/c.csv", "x/y/d.dat")):
        (tmp_path / path).write_text(SEVEN.replace("1.5", f"{i}.5"))
    assert names(scan([f"{tmp_path}/*.csv"])) == ["a.csv"]
    assert names(scan([f"{tmp_path}/**/*.csv"])) == ["a.csv", "b.csv", "c.csv"]
    assert names(scan([f"{tmp_path}/**/*.csv", tmp_path, tmp_path / "a.csv"])) == ["a.csv", "b.csv", "c.csv", "d.dat"]
    monkeypatch.chdir(tmp_path)
    relative = scan(["x/?/c.csv", "./a.csv"])
    assert [file.path for file in relative.files] == [str(tmp_path / "a.csv"), str(tmp_path / "x/y/c.csv")]


def test_a_name_with_pattern_letters_in_it_is_a_file_first(tmp_path):
    (tmp_path / "a[1].csv").write_text(SEVEN)
    assert names(scan([tmp_path / "a[1].csv"])) == ["a[1].csv"]


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [("missing.csv", SourceError, "does not exist"), ("*.nothing", EmptySource, "matches no files"), ("void", EmptySource, "holds no files")],
)
def test_what_leads_to_nothing_is_rejected_with_a_remedy(tmp_path, given, kind, words):
    (tmp_path / "void").mkdir()
    (entry,) = scan([tmp_path / given]).rejected
    assert type(entry.error) is kind
    assert words in str(entry.error)
    assert entry.error.remedy


def test_the_same_content_is_kept_once_and_the_copy_is_listed(tmp_path):
    for name in ("b.csv", "a.csv"):
        (tmp_path / name).write_text(SEVEN)
    inventory = scan([tmp_path / "b.csv", tmp_path / "a.csv"])
    assert names(inventory) == ["a.csv"]
    assert [(entry.path, entry.kept) for entry in inventory.duplicates] == [(str(tmp_path / "b.csv"), str(tmp_path / "a.csv"))]


@settings(max_examples=20, deadline=None)
@given(st.permutations(["GLBX.MDP3", "XNAS.ITCH", "ARCX.PILLAR"]), st.permutations([1, 2, 3]))
def test_the_order_does_not_depend_on_the_order_given(tmp_path_factory, datasets, versions):
    folder = tmp_path_factory.mktemp("scan")
    paths = []
    for number, (dataset, version) in enumerate(zip(datasets, versions, strict=True)):
        for start in (naive.START, naive.START + 86_400_000_000_000):
            paths.append(folder / f"{number}-{start}.dbn")
            paths[-1].write_bytes(naive.header(version, dataset=dataset, start=start))
    found = [(file.dataset, file.dates) for file in scan(paths).files]
    assert found == sorted(found)
    assert scan(paths) == scan(paths[::-1]) == scan([folder])


def test_the_fingerprint_is_over_the_stored_bytes(tmp_path):
    content = zstandard.compress(naive.header() + naive.mbo() * 100_000)
    path = tmp_path / "a.dbn.zst"
    path.write_bytes(content)
    (file,) = scan([path]).files
    assert file.fingerprint == f"xxh3:{xxhash.xxh3_128_hexdigest(content)}"
    assert (file.size, file.mtime_ns, file.inode) == (len(content), path.stat().st_mtime_ns, path.stat().st_ino)
    path.write_bytes(content[:-1] + b"\0")
    assert scan([path]).files[0].fingerprint != file.fingerprint


def test_a_pair_has_one_fingerprint_loose_or_zipped(tmp_path):
    for name, text in zip(PAIR, (MESSAGES, ORDERBOOK), strict=True):
        (tmp_path / name).write_text(text)
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in PAIR:
            archive.write(tmp_path / name, name)
    inventory = scan([tmp_path])
    (file,) = inventory.files
    assert (file.path, file.companion, file.member) == (str(tmp_path / PAIR[0]), str(tmp_path / PAIR[1]), "")
    assert (file.dataset, file.dates, file.symbols) == ("LOBSTER", ("2012-06-21",), ("AMZN",))
    assert file.fingerprint == f"xxh3:{xxhash.xxh3_128_hexdigest((MESSAGES + ORDERBOOK).encode())}"
    assert [entry.path for entry in inventory.duplicates] == [f"{tmp_path}/z.zip:{PAIR[0]}"]
    (zipped,) = scan([tmp_path / "z.zip"]).files
    assert (zipped.member, zipped.companion, zipped.name) == (*PAIR, f"z.zip:{PAIR[0]}")


def test_dataset_and_symbol_come_from_the_source_unless_given(tmp_path):
    header = DATABENTO_HEADER
    row = "1,1,160,2,1108,R,N,,0,0,0,8,0,0"
    (tmp_path / "nasdaq.mbo.csv").write_text(f"{header}\n{row}\n")
    (tmp_path / "mapped.csv").write_text(f"{header},symbol\n{row},ARL\n")
    (tmp_path / "unknown.csv").write_text(f"{header}\n{row.replace('160,2', '160,9999')}\n")
    (tmp_path / "ESH4.day.csv").write_text(SEVEN)
    seven_parquet(tmp_path / "NQH4.parquet")
    (tmp_path / "cme.dbn").write_bytes(naive.header())
    described = {os.path.basename(file.path): (file.dataset, file.symbols, file.rows) for file in scan([tmp_path]).files}
    assert described == {
        "nasdaq.mbo.csv": ("XNAS.ITCH", ("nasdaq",), -1),
        "mapped.csv": ("XNAS.ITCH", (), -1),
        "unknown.csv": ("local", ("unknown",), -1),
        "ESH4.day.csv": ("local", ("ESH4",), -1),
        "NQH4.parquet": ("local", ("NQH4",), 1),
        "cme.dbn": ("GLBX.MDP3", (), 0),
    }
    overridden = {os.path.basename(file.path): (file.dataset, file.symbols) for file in scan([tmp_path], dataset="MINE", symbol="S").files}
    assert overridden == {name: ("MINE", () if name in ("mapped.csv", "cme.dbn") else ("S",)) for name in described}


@pytest.mark.parametrize(
    "text",
    ["{header}\n{row}\n", "\n\r\n{header}\n{row}\n", "{header}\n\n{row}", "{header}\ngarbage\n{unread}\n{row}\n", "\ufeff{header}\r\n\r\n{row}\r\n"],
)
def test_the_dataset_of_a_csv_is_that_of_its_first_row_that_says_it(tmp_path, text):
    row = ",".join("1" if name == "publisher_id" else "5" for name in DATABENTO_HEADER.split(","))
    unread = ",".join("x" for _ in DATABENTO_HEADER.split(","))
    (tmp_path / "a.csv").write_text(text.format(header=DATABENTO_HEADER, row=row, unread=unread))
    assert [file.dataset for file in scan([tmp_path / "a.csv"]).files] == ["GLBX.MDP3"]


def test_rows_of_a_dbn_file_are_known_when_its_size_says_them(tmp_path):
    for name, content, rows in (
        ("plain", naive.header() + naive.mbo() * 3, 3),
        ("sent", naive.header(ts_out=True) + naive.mbo(ts_out=True) * 4, 4),
        ("cut", naive.header() + naive.mbo() * 2 + b"\0", -1),
        ("packed", zstandard.compress(naive.header() + naive.mbo()), -1),
        ("mixed", naive.header(schema=None) + naive.mbo() * 2, -1),
    ):
        (tmp_path / name).write_bytes(content)
        assert scan([tmp_path / name]).files[0].rows == rows, name


def test_a_bad_file_does_not_keep_the_good_ones_from_being_found(tmp_path):
    (tmp_path / "a.csv").write_text(SEVEN)
    (tmp_path / "b.dbn").write_bytes(naive.header(schema="trades"))
    (tmp_path / "c.csv").symlink_to(tmp_path / "gone.csv")
    inventory = scan([tmp_path])
    assert names(inventory) == ["a.csv"]
    assert [type(entry.error) for entry in inventory.rejected] == [SchemaMismatch, SourceError]


@pytest.mark.parametrize("place", [b"", b"d\xe9"])
def test_a_name_that_is_not_utf_8_costs_its_file_only_and_is_told_in_text(tmp_path, place):
    (tmp_path / "a.csv").write_text(SEVEN)
    (tmp_path / "é.csv").write_text(SEVEN.replace("1.5", "2.5"))
    folder = os.path.join(os.fsencode(tmp_path), place)
    os.makedirs(folder, exist_ok=True)
    contents = {
        b"caf\xe9.csv": SEVEN.encode(),
        b"\xff.mbo.dbn": naive.header() + naive.mbo(),
        b"no\xe9.md": b"hello",
        b"p\xe9.parquet": b"PAR1" + bytes(30),
    }
    for name, content in contents.items():
        with open(os.path.join(folder, name), "wb") as file:
            file.write(content)
    inventory = scan([tmp_path])
    assert names(inventory) == ["a.csv", "é.csv"]
    assert [os.path.basename(entry.path) for entry in inventory.rejected] == ["caf\\xe9.csv", "p\\xe9.parquet", "\\xff.mbo.dbn"]
    assert [os.path.basename(path) for path in inventory.skipped] == ["no\\xe9.md"]
    for entry in inventory.rejected:
        assert "is not valid UTF-8. Rename it" in str(entry.error)
        (entry.path + str(entry.error) + repr(inventory)).encode()
    named = scan([os.fsdecode(os.path.join(folder, b"caf\xe9.csv")), os.fsdecode(os.path.join(folder, b"gone\xe9.csv"))])
    assert [os.path.basename(entry.path) for entry in named.rejected] == ["gone\\xe9.csv", "caf\\xe9.csv"]
    str(named).encode()


@pytest.mark.parametrize("change", ["grow", "touch", "replace", "remove", "companion"])
def test_a_source_that_changes_after_the_scan_is_noticed(tmp_path, change):
    message, book = (tmp_path / name for name in PAIR)
    message.write_text(MESSAGES)
    book.write_text(ORDERBOOK)
    (source,) = scan([tmp_path]).files
    verify_unchanged(source)
    stat = message.stat()
    if change == "grow":
        with message.open("a") as file:
            file.write(MESSAGES)
        os.utime(message, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elif change == "touch":
        os.utime(message, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**12))
    elif change == "replace":
        other = tmp_path / "other"
        other.write_text(MESSAGES)
        os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        os.replace(other, message)
    elif change == "remove":
        message.unlink()
    else:
        book.write_text(ORDERBOOK * 2)
    with pytest.raises(SourceChanged, match="start again"):
        verify_unchanged(source)


def test_real_folders_give_their_market_by_order_files(real_data):
    inventory = scan([real_data("databento"), real_data("lobster")])
    assert len(inventory.files) == 11
    assert {file.dataset for file in inventory.files} == {"GLBX.MDP3", "XNAS.ITCH", "LOBSTER"}
    assert all(isinstance(entry.error, SchemaMismatch) for entry in inventory.rejected)
    days = {os.path.basename(file.path): file.dates for file in inventory.files}
    assert days["esh4-glbx-mdp3-20231225.mbo.dbn.zst"] == ("2023-12-25",)
