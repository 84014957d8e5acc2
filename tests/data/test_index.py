"""Listing images: order, classes, lists, and a million names."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from anomalib_spd.data import ImageIndex, index

IMAGENET = 1_281_167


def _tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def _names(found: ImageIndex) -> list[str]:
    return [path.relative_to(found.root).as_posix() for path in found]


def test_a_tree_is_in_alphabetical_order_of_its_parts(tmp_path: Path) -> None:
    root = _tree(tmp_path, "b/1.jpg", "a.png", "a/z.JPEG", "a/b/c.tif", "a b/1.webp", "n1_2_3.bmp", "a/no.txt", "a/jpg")
    found = ImageIndex.of(root)
    images = sorted(path for path in root.rglob("*") if path.suffix.lower() in index.EXTENSIONS)
    assert list(found) == images
    assert found.classes == ["a", "a b", "b", "n1"]
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
    assert (found.classes, found.labels.tolist()) == (["ant", "zebra"], [1, 0, 1])
    assert found[0] == images / "x y.jpg"
    (tmp_path / "numbers.txt").write_text("x y.jpg\t10\nb.jpg\t9\n")
    found = ImageIndex.of(tmp_path / "numbers.txt", relative_to=images)
    assert (found.classes, found.labels.tolist()) == (["9", "10"], [1, 0])


@pytest.mark.parametrize("second", ["b.jpg", "b.jpg\t", "b.jpg\t "])
def test_a_class_on_some_lines_is_an_error(tmp_path: Path, second: str) -> None:
    (tmp_path / "list.txt").write_text(f"a.jpg\tant\n{second}\n")
    with pytest.raises(ValueError, match=r"Line 2 of .*list\.txt has no class.*'b\.jpg'"):
        ImageIndex.of(tmp_path / "list.txt")


def test_errors_of_lists(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(FileNotFoundError, match=r"empty\.txt has no line.*--data\.root"):
        ImageIndex.of(tmp_path / "empty.txt")
    (tmp_path / "list.txt").write_text("a.jpg\n")
    with pytest.raises(FileNotFoundError, match=r"first image .*a\.jpg.*relative_to"):
        ImageIndex.of(tmp_path / "list.txt")
    with pytest.raises(ValueError, match="relative_to is for the paths of a text file"):
        ImageIndex.of(tmp_path, relative_to=tmp_path)


def test_names_are_bytes_of_the_file_system(tmp_path: Path) -> None:
    root = _tree(tmp_path, "ü.jpg", "b\udcff c/1.jpg")
    assert list(ImageIndex.of(root)) == [root / "b\udcff c/1.jpg", root / "ü.jpg"]
    with pytest.raises(IndexError):
        ImageIndex.of(root)[2]


def test_other_images_can_follow_without_a_class(tmp_path: Path) -> None:
    found = ImageIndex.of(_tree(tmp_path / "a", "x/1.jpg", "y/1.jpg"))
    both = found.with_background(ImageIndex.of_files([tmp_path / "2.jpg"]))
    assert list(both) == [*found, tmp_path / "2.jpg"]
    assert (both.labels.tolist(), both.classes) == ([0, 1, -1], ["x", "y"])


@pytest.mark.slow
@pytest.mark.parametrize("flat", [False, True])
def test_imagenets_number_of_names_takes_little_memory(tmp_path: Path, flat: bool) -> None:
    file = tmp_path / "list.txt"
    with file.open("w") as lines:
        # flat and without a class in the name: each image is a class of its own
        name = "{1:08d}.jpg" if flat else "n{0:08d}/n{0:08d}_{1}.JPEG"
        lines.writelines(f"{name}\n".format(number // 1300, number) for number in range(IMAGENET))
    _tree(tmp_path, name.format(0, 0))
    tracemalloc.start()
    found = ImageIndex.of(file)
    remaining, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == IMAGENET
    assert peak < 600e6
    assert remaining < 150e6
    assert len(found.classes) == (IMAGENET if flat else 986)
    assert found[IMAGENET - 1] == tmp_path / name.format((IMAGENET - 1) // 1300, IMAGENET - 1)


SYSTEM = (
    ".ipynb_checkpoints/a-checkpoint.jpg",
    "__MACOSX/cat/a.jpg",
    "@eaDir/a.jpg/SYNOFILE_THUMB_M.jpg",
    "cat/._a.jpg",
    "cat/Thumbs.db",
    ".DS_Store",
    ".hidden.png",
)


def test_hidden_and_system_entries_are_no_classes_and_no_images(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = _tree(tmp_path / ".data", "cat/a.jpg", "dog/b.jpg", *SYSTEM)  # what is above does not count
    found = ImageIndex.of(root)
    assert _names(found) == ["cat/a.jpg", "dog/b.jpg"]
    assert found.classes == ["cat", "dog"]
    (line,) = caplog.messages
    assert line.startswith(f"5 hidden or system entries in {root} are skipped: ")
    assert ".ipynb_checkpoints" in line


def test_a_folder_of_system_entries_alone_holds_no_image(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no image"):
        ImageIndex.of(_tree(tmp_path, *SYSTEM))


def test_a_link_to_itself_ends_no_listing(tmp_path: Path) -> None:
    root = _tree(tmp_path, "a/1.jpg")
    for name in ("loop", "a/loop.jpg"):
        (root / name).symlink_to(root / name)
    assert _names(ImageIndex.of(root)) == ["a/1.jpg", "a/loop.jpg"]  # an image that cannot be read
