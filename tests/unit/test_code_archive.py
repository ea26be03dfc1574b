"""Which archives of code are taken, and what comes out of them."""

from __future__ import annotations

import random
import stat
import struct
import warnings
import zipfile
from typing import TYPE_CHECKING

import pytest

from invocation import code_archive
from invocation.code_archive import ArchiveError, check_entries, unpack
from model.definition_rules import MAX_ARCHIVE_BYTES, MAX_CODE_BYTES
from tests.support.archives import archive, archive_of, entry

if TYPE_CHECKING:
    from pathlib import Path

FILE = stat.S_IFREG | 0o644


def refusal(packed: bytes, folder: Path) -> str:
    """Return why an archive is not taken; nothing lies outside its folder then."""
    with pytest.raises(ArchiveError) as caught:
        unpack(packed, folder / "code")
    assert {path.name for path in folder.iterdir()} <= {"code"}
    return str(caught.value)


def test_files_and_folders_come_out_readable(tmp_path: Path) -> None:
    """Contents as they were; programs can be run, nothing can be written by others, no set-user-id bit stays."""
    packed = archive_of(
        (entry("app.py"), "x = 1"),
        (entry("lib/", stat.S_IFDIR | 0o700), ""),
        (entry("lib/deep/ü.py", 0), "y"),
        (entry("bootstrap", stat.S_IFREG | 0o4777), "#!/bin/sh"),
    )
    unpack(packed, tmp_path / "code")
    found = {str(path.relative_to(tmp_path)): path.stat().st_mode for path in tmp_path.rglob("*")}
    folder, plain, program = stat.S_IFDIR | 0o755, FILE, stat.S_IFREG | 0o755
    assert found == {
        "code": folder,
        "code/app.py": plain,
        "code/lib": folder,
        "code/lib/deep": folder,
        "code/lib/deep/ü.py": plain,
        "code/bootstrap": program,
    }
    assert (tmp_path / "code/app.py").read_text() == "x = 1"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../out.py", "leads out of the folder"),
        ("a/../../out.py", "leads out of the folder"),
        ("/etc/out.py", "leads out of the folder"),
        ("..\\out.py", "a name that is not taken"),
        ("C:\\out.py", "a name that is not taken"),
        ("a//b.py", "a name that is not taken"),
        ("./a.py", "a name that is not taken"),
        ("a" * 256, "a name that is not taken"),
        ("a/" * 65 + "b", "a name that is not taken"),
        ("a.py\0.txt", "a name that is not taken"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str, why: str) -> None:
    """Nothing of the archive is unpacked when a name could lead out of the folder, or is no name of a file."""
    assert why in refusal(archive_of((entry("app.py"), "x"), (entry(name), "x")), tmp_path)
    assert not (tmp_path / "code").exists()


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFDIR])
def test_what_is_no_file_is_refused(tmp_path: Path, kind: int) -> None:
    """Links, devices, pipes, sockets, and folders under a file's name."""
    assert "neither a file nor a folder" in refusal(archive_of((entry("app.py", kind | 0o777), "/etc")), tmp_path)


def test_names_that_are_there_twice_are_refused(tmp_path: Path) -> None:
    """Also a file that another entry takes for a folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of what is made here
        twice = archive_of((entry("app.py"), "x"), (entry("app.py"), "y"))
    assert "there twice" in refusal(twice, tmp_path)
    assert "a file and a folder" in refusal(archive({"a": "x", "a/b": "y"}), tmp_path)


def test_other_methods_and_encryption_are_refused(tmp_path: Path) -> None:
    """Only what is stored or deflated is unpacked."""
    assert "another method" in refusal(archive_of((entry("app.py", method=zipfile.ZIP_LZMA), "x")), tmp_path)
    packed = bytearray(archive({"app.py": "x"}))
    packed[packed.index(b"PK\x01\x02") + 8] |= 1
    assert "is encrypted" in refusal(bytes(packed), tmp_path)


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    """By what it says of itself, before anything is unpacked; and by what comes, when it says less."""
    bomb = archive({f"{n}.bin": bytes(MAX_CODE_BYTES // 8) for n in range(9)})
    assert len(bomb) < 3_000_000
    assert "smaller than 262144000 bytes" in refusal(bomb, tmp_path)
    assert not (tmp_path / "code").exists()


def test_more_than_an_entry_says_does_not_come(tmp_path: Path) -> None:
    """An entry that lies about its size is cut off there and its checksum does not fit: it is refused."""
    packed = bytearray(archive({"app.py": bytes(10_000_000)}))
    central = packed.index(b"PK\x01\x02")
    packed[central + 24 : central + 28] = struct.pack("<I", 5)
    assert "Could not unzip" in refusal(bytes(packed), tmp_path)
    unpacked = tmp_path / "code/app.py"
    assert not unpacked.exists() or unpacked.stat().st_size <= 5


def test_the_limit_holds_while_unpacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes out is counted, not only what entries say."""
    monkeypatch.setattr(code_archive, "check_entries", lambda _entries: None)
    monkeypatch.setattr(code_archive, "MAX_CODE_BYTES", 1000)
    assert "Unzipped size" in refusal(archive({"a": bytes(600), "b": bytes(600)}), tmp_path)


def test_sizes_of_64_bits_that_are_lies_are_refused(tmp_path: Path) -> None:
    """A zip64 field that claims exabytes is believed when it refuses, and never when it allows."""
    extra = struct.pack("<HHQ", 1, 8, 1 << 60)
    info = entry("app.py")
    packed = bytearray(archive_of((info, "x")))
    central = packed.index(b"PK\x01\x02")
    packed[central + 24 : central + 28] = b"\xff\xff\xff\xff"
    name_end = central + 46 + len("app.py")
    packed[central + 30 : central + 32] = struct.pack("<H", len(extra))
    packed[name_end:name_end] = extra
    end = packed.rindex(b"PK\x05\x06")
    size = struct.unpack("<I", packed[end + 12 : end + 16])[0]
    packed[end + 12 : end + 16] = struct.pack("<I", size + len(extra))
    assert "Unzipped size" in refusal(bytes(packed), tmp_path)


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By their number, and by what looks like an entry before any of them is looked at."""
    monkeypatch.setattr(code_archive, "MAX_FILES", 3)
    assert "more than 3 files" in refusal(archive(dict.fromkeys("abcd", "")), tmp_path)
    monkeypatch.setattr(code_archive, "_MAX_ENTRIES", 2)
    monkeypatch.setattr(code_archive, "check_entries", lambda _entries: pytest.fail("looked at"))
    assert "more than 3 files" in refusal(archive(dict.fromkeys("abc", "")), tmp_path)


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    """Noise, half an archive, an archive of nothing, and one that is too large as it is."""
    good = archive({"app.py": "x" * 1000, "b.py": "y"})
    for packed in (b"", b"no zip", good[: len(good) // 2], good[:-22]):
        assert "Could not unzip" in refusal(packed, tmp_path)
    assert "holds no file" in refusal(archive({}), tmp_path)
    assert "Zipped size" in refusal(bytes(MAX_ARCHIVE_BYTES + 1), tmp_path)


def test_damaged_archives_are_refused_and_nothing_else(tmp_path: Path) -> None:
    """Whatever bytes are changed: it is taken, or refused as an archive; nothing lands outside its folder."""
    dice = random.Random(7)
    good = archive({"app.py": "x" * 300, "lib/b.py": "y" * 300})
    for number in range(300):
        packed = bytearray(good)
        for _ in range(dice.randint(1, 4)):
            packed[dice.randrange(len(packed))] = dice.randrange(256)
        try:
            unpack(bytes(packed), tmp_path / str(number))
        except ArchiveError:
            continue
    assert all(path.name.isdigit() for path in tmp_path.iterdir())


def test_checking_looks_at_all_entries() -> None:
    """A good archive's entries raise nothing."""
    check_entries([entry("a.py"), entry("lib/", stat.S_IFDIR | 0o755), entry("lib/b.py", 0)])
