"""Listing images: order, classes, the cache, and a million names."""

import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from anomalib_spd.data import ImageIndex, index
from anomalib_spd.data.index import Names
from anomalib_spd.files import cache_folder

IMAGENET = 1_281_167


def _tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def _settle(*paths: Path) -> None:
    """Make folders look as if they had been left alone for long."""
    for path in paths:
        os.utime(path, (1e9, 1e9))


def _names(found: ImageIndex) -> list[str]:
    return [path.relative_to(found.root).as_posix() for path in found]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for lists, of which even the shortest are cached."""
    monkeypatch.setattr(index, "CACHED_FROM", 1)
    return tmp_path / "cache"


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was listed anew, not read from the cache."""
    roots: list[str] = []

    def note(name: str) -> None:
        original: Callable[..., None] = getattr(index, name)

        def noted(*args: object) -> None:
            roots.append(name)
            original(*args)

        monkeypatch.setattr(index, name, noted)

    note("_list_folder")
    note("_list_file")
    return roots


def test_names_are_a_sequence() -> None:
    names = Names.of(["a", "", "ü\udcff", "b c\n"])
    assert list(names) == ["a", "", "ü\udcff", "b c\n"]
    assert (len(names), names[-1], len(Names.of([]))) == (4, "b c\n", 0)
    with pytest.raises(IndexError):
        names[4]


def test_a_tree_is_in_alphabetical_order_of_its_parts(tmp_path: Path) -> None:
    root = _tree(tmp_path, "b/1.jpg", "a.png", "a/z.JPEG", "a/b/c.tif", "a b/1.webp", "n1_2_3.bmp", "a/no.txt", "a/jpg")
    found = ImageIndex.of(root)
    images = sorted(path for path in root.rglob("*") if path.suffix.lower() in index.EXTENSIONS)
    assert list(found) == images
    assert list(found.classes) == ["a", "a b", "b", "n1"]
    assert found.labels.tolist() == [0, 0, 1, 0, 2, 3]
    assert found.labels.dtype == np.int32


def test_links_are_followed_once(tmp_path: Path) -> None:
    root = _tree(tmp_path / "root", "real/1.jpg")
    _tree(tmp_path / "elsewhere", "2.jpg")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "real" / "up").symlink_to(root)
    (root / "real" / "gone.jpg").symlink_to(root / "nowhere")
    assert _names(ImageIndex.of(root)) == ["linked/2.jpg", "real/1.jpg", "real/gone.jpg"]


def test_a_list_keeps_its_order(tmp_path: Path) -> None:
    outside = _tree(tmp_path / "other", "dog/3.jpg") / "dog/3.jpg"
    root = _tree(tmp_path / "root", "cat/1.jpg", "n1_7.jpg")
    lines = ["n1_7.jpg", "", "./cat/deep/1.jpg", str(outside), f"{root}/cat/2.jpg", "../other/fox/4.jpg"]
    (root / "list.txt").write_text("\r\n".join(lines), encoding="utf-8-sig")
    found = ImageIndex.of(root / "list.txt")
    assert [found.classes[label] for label in found.labels] == ["n1", "cat", "dog", "cat", "fox"]
    assert list(found)[1:4] == [root / "cat/deep/1.jpg", outside, root / "cat/2.jpg"]


def test_a_list_with_classes(tmp_path: Path) -> None:
    images = _tree(tmp_path / "images", "x y.jpg")
    (tmp_path / "names.txt").write_text("x y.jpg\tzebra\nb.jpg\tant\nc.jpg\tzebra\n")
    found = ImageIndex.of(tmp_path / "names.txt", relative_to=images)
    assert (list(found.classes), found.labels.tolist()) == (["ant", "zebra"], [1, 0, 1])
    assert found[0] == images / "x y.jpg"
    (tmp_path / "numbers.txt").write_text("x y.jpg\t10\nb.jpg\t9\n")
    found = ImageIndex.of(tmp_path / "numbers.txt", relative_to=images)
    assert (list(found.classes), found.labels.tolist()) == (["9", "10"], [1, 0])


@pytest.mark.parametrize("second", ["b.jpg", "b.jpg\t", "b.jpg\t "])
def test_a_class_on_some_lines_is_an_error(tmp_path: Path, second: str) -> None:
    (tmp_path / "list.txt").write_text(f"a.jpg\tant\n{second}\n")
    with pytest.raises(ValueError, match=r"Line 2 of .*list\.txt has no class.*'b\.jpg'"):
        ImageIndex.of(tmp_path / "list.txt")


def test_what_is_no_list(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(FileNotFoundError, match=r"empty\.txt has no line.*--data\.root"):
        ImageIndex.of(tmp_path / "empty.txt")
    (tmp_path / "list.txt").write_text("a.jpg\n")
    with pytest.raises(FileNotFoundError, match=r"first image .*a\.jpg.*relative_to"):
        ImageIndex.of(tmp_path / "list.txt")
    with pytest.raises(ValueError, match="relative_to is for the paths of a text file"):
        ImageIndex.of(tmp_path, relative_to=tmp_path)


def test_an_unchanged_tree_is_read_from_the_cache(tmp_path: Path, cache: Path, listed: list[str]) -> None:
    root = _tree(tmp_path / "root", "a/1.jpg", "b/2.jpg")
    _settle(root, root / "a", root / "b")
    first = ImageIndex.of(root, cache=cache)
    listed.clear()
    second = ImageIndex.of(root, cache=cache)
    assert not listed
    assert list(second) == list(first)
    assert list(second.classes) == list(first.classes)
    assert second.labels.tolist() == first.labels.tolist()
    (tmp_path / "link").symlink_to(root)
    assert ImageIndex.of(tmp_path / "link", cache=cache)[0] == tmp_path / "link/a/1.jpg"
    assert not listed


def test_a_changed_tree_is_listed_anew(tmp_path: Path, cache: Path) -> None:
    root = _tree(tmp_path / "root", "a/1.jpg", "b/2.jpg")

    def now() -> list[str]:
        _settle(*(path for path in [root, *root.rglob("*")] if path.is_dir() and path != changed))
        return _names(ImageIndex.of(root, cache=cache))

    changed = root
    assert now() == ["a/1.jpg", "b/2.jpg"]
    changed = root / "b"
    (root / "b" / "2.jpg").rename(root / "b" / "3.jpg")
    assert now() == ["a/1.jpg", "b/3.jpg"]
    changed = root / "a"
    (root / "a" / "1.jpg").unlink()
    assert now() == ["b/3.jpg"]
    changed = root
    (root / "b").rename(root / "c")
    assert now() == ["c/3.jpg"]


def test_a_changed_list_is_read_anew(tmp_path: Path, cache: Path, listed: list[str]) -> None:
    root = _tree(tmp_path / "root", "a/1.jpg", "b/2.jpg")
    file = tmp_path / "list.txt"
    file.write_text("a/1.jpg\n")
    _settle(file)
    for _ in range(2):
        assert _names(ImageIndex.of(file, root, cache)) == ["a/1.jpg"]
    assert listed == ["_list_file"]
    file.write_text("b/2.jpg\na/1.jpg\n")
    _settle(file)  # the same time, another size
    assert _names(ImageIndex.of(file, root, cache)) == ["b/2.jpg", "a/1.jpg"]


def test_a_tree_that_changes_this_moment_is_not_cached(tmp_path: Path, cache: Path) -> None:
    ImageIndex.of(_tree(tmp_path / "root", "a/1.jpg"), cache=cache)
    assert not cache.exists()


def _flip(content: bytes) -> bytes:
    place = content.index(b"a/1.jpg")
    return content[:place] + b"z" + content[place + 1 :]


@pytest.mark.parametrize("damage", [lambda _: b"", lambda content: content[:-100], lambda _: b"no zip", _flip])
def test_a_damaged_cache_is_made_anew(
    tmp_path: Path, cache: Path, listed: list[str], caplog: pytest.LogCaptureFixture, damage: Callable[[bytes], bytes]
) -> None:
    root = _tree(tmp_path / "root", "a/1.jpg")
    _settle(root, root / "a")
    ImageIndex.of(root, cache=cache)
    (file,) = cache.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert _names(ImageIndex.of(root, cache=cache)) == ["a/1.jpg"]
    assert "cannot be read" in caplog.text
    listed.clear()
    ImageIndex.of(root, cache=cache)
    assert not listed


def test_a_cache_that_cannot_be_written_is_no_error(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = _tree(tmp_path / "root", "a/1.jpg")
    _settle(root, root / "a")
    cache.touch()  # a file, where a folder is to be made
    assert len(ImageIndex.of(root, cache=cache)) == 1
    assert "cannot be cached" in caplog.text


def test_the_place_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMALIB_SPD_HOME", str(tmp_path))
    assert cache_folder("index") == tmp_path / ".index"
    monkeypatch.delenv("ANOMALIB_SPD_HOME")
    assert cache_folder("index").parts[-2:] == ("anomalib_spd", "index")


def test_thousands_of_files(tmp_path: Path, listed: list[str]) -> None:
    root, cache = tmp_path / "root", tmp_path / "cache"
    for number in range(110):
        folder = root / f"n{number:08d}"
        folder.mkdir(parents=True)
        for image in range(100):
            (folder / f"{image}.jpg").touch()
        _settle(folder)
    _settle(root)
    found = ImageIndex.of(root, cache=cache)
    listed.clear()
    again = ImageIndex.of(root, cache=cache)
    assert not listed
    assert len(again) == 11_000
    assert again.labels.tolist() == found.labels.tolist() == sorted([*range(110)] * 100)
    assert list(again) == list(found)


@pytest.mark.parametrize("flat", [False, True])
def test_imagenets_number_of_names(tmp_path: Path, flat: bool) -> None:
    (tmp_path / "n00000000").mkdir()
    file = tmp_path / "list.txt"
    with file.open("w") as lines:
        # flat and without a class in the name: each image is a class of its own, the largest list there can be
        name = "{1:08d}.jpg" if flat else "n{0:08d}/n{0:08d}_{1}.JPEG"
        lines.writelines(f"{name}\n".format(number // 1300, number) for number in range(IMAGENET))
    (tmp_path / name.format(0, 0)).touch()
    _settle(file)
    cache = tmp_path / "cache"
    found = ImageIndex.of(file, cache=cache)
    assert len(found) == IMAGENET

    tracemalloc.start()
    start = time.perf_counter()
    again = ImageIndex.of(file, cache=cache)
    seconds = time.perf_counter() - start
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds < 5
    assert peak < 300e6
    assert again.nbytes < 150e6
    assert len(again.classes) == (IMAGENET if flat else 986)
    assert again[IMAGENET - 1] == tmp_path / name.format((IMAGENET - 1) // 1300, IMAGENET - 1)
