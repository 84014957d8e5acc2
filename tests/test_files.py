"""Atomic writes, digests, and the user's folders."""

import errno
import hashlib
import os
import shutil
import sys
from pathlib import Path

import pytest

from anomalib_spd import files
from anomalib_spd.files import atomic_folder, atomic_write, cache_folder, data_folder, digest, first_few, sha256_of


def test_a_file_takes_its_name_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    for content in (b"one", b"two"):
        before = path.read_bytes() if path.exists() else None
        with atomic_write(path) as file:
            file.write(content)
            assert (path.read_bytes() if path.exists() else None) == before
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_previous_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"), atomic_write(path) as file:
        file.write(b"half")
    with atomic_write(tmp_path / "not_synced", sync=False) as file:
        file.write(b"whole")
    assert path.read_bytes() == b"before"
    assert {path.name for path in tmp_path.iterdir()} == {"file", "not_synced"}


def test_stale_files_are_removed_on_demand(tmp_path: Path) -> None:
    stale, other = tmp_path / ".file.0123abcd", tmp_path / ".other.0123abcd"
    stale.touch()
    other.touch()
    with atomic_write(tmp_path / "file"):
        assert stale.exists()
    with atomic_write(tmp_path / "file", remove_stale=True):
        assert not stale.exists()
    assert other.exists()


def test_two_writers_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_write(path) as one, atomic_write(path) as other:
        one.write(b"one")
        other.write(b"other")
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_takes_its_name_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder"
    with atomic_folder(path) as folder:
        (folder / "file").write_bytes(b"content")
        assert not path.exists()
    assert (path / "file").read_bytes() == b"content"
    assert list(path.parent.iterdir()) == [path]
    if os.name == "posix":
        mask = os.umask(0)
        os.umask(mask)
        assert path.stat().st_mode & 0o777 == 0o777 & ~mask


def test_a_failed_folder_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError), atomic_folder(tmp_path / "folder") as folder:
        shutil.copytree(__file__, folder / "copy")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_does_not_replace_another(tmp_path: Path) -> None:
    source, path = tmp_path / "source", tmp_path / "folder"
    source.mkdir()
    (source / "file").touch()
    with pytest.raises(OSError, match="folder"), atomic_folder(path):
        shutil.copytree(source, path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "file", "folder", "source"]


def test_digests(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    expected = hashlib.sha256(b"content").hexdigest()
    assert sha256_of(tmp_path / "file") == expected
    assert digest("con", b"te", memoryview(b"nt")) == expected
    assert digest("\udcff") == hashlib.sha256(b"\xff").hexdigest()


def test_the_users_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ANOMALIB_SPD_HOME", "~/mine")
    assert data_folder() == tmp_path / "mine"
    assert cache_folder("index") == tmp_path / "mine" / ".index"
    monkeypatch.delenv("ANOMALIB_SPD_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if sys.platform == "linux":
        assert data_folder() == tmp_path / "data" / "anomalib_spd"
        assert cache_folder("index") == tmp_path / "cache" / "anomalib_spd" / "index"
    assert list(tmp_path.iterdir()) == []


def test_first_few() -> None:
    assert first_few([]) == ""
    assert first_few(["a", "b", "c"]) == "a, b, c"
    assert first_few(f"{number}" for number in range(9)) == "0, 1, 2, ..."


def test_digests_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HOME", "ANOMALIB_SPD_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda _uid: {}["uid not found"])
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileNotFoundError, match=r"has no home folder. Set ANOMALIB_SPD_HOME"):
        files.cache_folder("digests")
    assert files.content_digests([tmp_path / "file"]) == {tmp_path / "file": files.sha256_of(tmp_path / "file")}


def test_foreign_text_is_one_line_without_control_characters() -> None:
    assert files.one_line("a\n\tb\x1b[31m \x9b \u202ec\udcff é 日本") == "a b\ufffd[31m \ufffd \ufffdc\ufffd é 日本"


@pytest.mark.parametrize("name", [".DS_Store", "._a.jpg", ".ipynb_checkpoints", "__MACOSX", "@eaDir", "Thumbs.db"])
def test_hidden_and_system_entries(name: str) -> None:
    assert files.is_system_entry(name)
    assert not files.is_system_entry(f"a{name}")
