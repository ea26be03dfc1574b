"""Where code lies that the API brought, and how long."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from invocation.code_archive import ArchiveError
from invocation.code_facts import FolderFacts
from invocation.code_folders import UNUSED_S, CodeFolders
from invocation.code_version import code_version
from tests.support.archives import archive

if TYPE_CHECKING:
    from pathlib import Path

CODE = archive({"app.py": "x = 1"})
DIGEST = sha256(CODE).hexdigest()


def names(folder: Path) -> set[str]:
    """Return what is in a folder."""
    return {path.name for path in folder.iterdir()}


def test_a_version_lies_under_its_hash_with_its_archive(tmp_path: Path) -> None:
    """Put twice it is there once; nothing temporary stays."""
    folders = CodeFolders(tmp_path / "functions")
    assert not folders.use("f", DIGEST)
    assert [folders.put("f", CODE), folders.put("f", CODE)] == [DIGEST, DIGEST]
    assert (folders.path("f", DIGEST) / "app.py").read_text() == "x = 1"
    assert folders.archive("f", DIGEST) == CODE
    assert sorted(names(tmp_path / "functions/f")) == [DIGEST, f"{DIGEST}.zip"]
    assert folders.archive("g", DIGEST) is None
    (tmp_path / f"functions/f/{DIGEST}.zip").write_bytes(b"other")
    assert folders.archive("f", DIGEST) is None


def test_what_is_refused_leaves_nothing(tmp_path: Path) -> None:
    """A bad archive, or a folder that cannot be written to."""
    folders = CodeFolders(tmp_path)
    with pytest.raises(ArchiveError):
        folders.put("f", archive({"ok.py": "", "../out": "x"}))
    assert names(tmp_path / "f") == set()
    (tmp_path / "g").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="Not a directory"):
        folders.put("g", CODE)


def test_processes_that_put_the_same_at_once_all_have_it(tmp_path: Path) -> None:
    """Whoever is slower uses what the faster one has put."""
    code = archive({f"{n}.py": "x" * 1000 for n in range(50)})
    with ThreadPoolExecutor(8) as threads:
        found = set(threads.map(lambda _: CodeFolders(tmp_path).put("f", code), range(8)))
    assert found == {sha256(code).hexdigest()}
    assert len(names(tmp_path / "f")) == 2
    assert len(list(CodeFolders(tmp_path).path("f", found.pop()).iterdir())) == 50


def test_versions_go_when_nobody_has_used_them_for_long(tmp_path: Path) -> None:
    """What this process uses stays whatever its age, and so does what another has said it uses."""
    folders, old = CodeFolders(tmp_path), time.time() - UNUSED_S - 1
    digests = [folders.put("f", archive({"app.py": str(n)})) for n in range(3)]
    (tmp_path / "f/.new-left").mkdir()
    for path in (tmp_path / "f").iterdir():
        os.utime(path, (old, old))
    assert CodeFolders(tmp_path).use("f", digests[1])
    removed = folders.sweep({("f", digests[0])})
    assert f"f/{digests[2]}" in removed
    kept = {digests[0], f"{digests[0]}.zip", digests[1], f"{digests[1]}.zip"}
    assert names(tmp_path / "f") == kept
    os.utime(tmp_path / "f" / digests[1], (old, old))
    folders.sweep(set(), unused_s=-60)
    assert names(tmp_path) == set()
    assert CodeFolders(tmp_path / "none").sweep(set()) == []


def test_a_version_that_comes_back_has_its_archive(tmp_path: Path) -> None:
    """Also when it is put again after its archive went; else no node could be given it any more."""
    folders = CodeFolders(tmp_path)
    digest = folders.put("f", CODE)
    folders.path("f", digest).with_suffix(".zip").unlink()
    assert folders.put("f", CODE) == digest
    assert folders.archive("f", digest) == CODE
    assert names(tmp_path / "f") == {digest, f"{digest}.zip"}


def test_a_removal_that_is_cut_off_leaves_no_half_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is out of the way before anything of it is removed."""
    folders = CodeFolders(tmp_path)
    digest = folders.put("f", CODE)
    monkeypatch.setattr("shutil.rmtree", lambda *_args, **_options: None)  # killed right then
    folders.sweep(set(), unused_s=-60)
    assert not folders.use("f", digest)


def test_using_a_version_is_no_change_of_its_code(tmp_path: Path) -> None:
    """So environments that run it go on."""
    folders = CodeFolders(tmp_path)
    path = folders.path("f", folders.put("f", CODE))
    os.utime(path, (1, 1))
    before = code_version(str(path))
    folders.use("f", DIGEST)
    assert path.stat().st_mtime > 1
    assert code_version(str(path)) == before


def test_the_facts_of_a_folder_follow_its_content(tmp_path: Path) -> None:
    """Size, hash and time of the last change; compiled files do not count, pipes are not read, nothing is nothing."""
    facts = FolderFacts()
    code = tmp_path / "code"
    assert facts.of(str(code)) == (0, sha256().hexdigest(), 0.0)
    code.mkdir()
    (code / "app.py").write_bytes(b"12345")
    os.utime(code / "app.py", (1_700_000_000, 1_700_000_000))
    (code / "__pycache__").mkdir()
    (code / "__pycache__/app.pyc").write_bytes(b"xxx")
    os.mkfifo(code / "pipe")
    first = facts.of(str(code))
    assert (first.size, first.modified_time) == (5, 1_700_000_000)
    (code / "app.py").write_bytes(b"54321")
    second = facts.of(str(code))
    assert second.size == 5
    assert second.digest != first.digest
    os.truncate(code / "app.py", 262_144_001)  # a hole: nothing of it is on disk
    assert facts.of(str(code)).digest is None
