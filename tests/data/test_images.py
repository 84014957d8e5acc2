"""Labels, sizes and the errors of image folders."""

import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from anomalib_spd.data import ImageFolder, LabelledImages


def _image(path: Path, size: tuple[int, int] = (50, 40), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, "red" if mode == "RGB" else 200).save(path)


def test_classes_are_the_file_names_up_to_the_underscore(labelled_images: Path) -> None:
    images = LabelledImages(labelled_images, image_size=32)
    assert images.classes == ["n00000", "n00001", "n00002"]
    for index, path in enumerate(images.files):
        pixels, label = images[index]
        assert (pixels.shape, pixels.dtype) == ((3, 32, 32), torch.uint8)
        assert path.name.startswith(images.classes[label])


def test_classes_are_the_sub_folders(tmp_path: Path) -> None:
    for name in ("cat/a_1.jpg", "cat/deep/b_1.png", "ant/c_1.JPEG", "ant/gray.bmp"):
        _image(tmp_path / name, mode="L" if "gray" in name else "RGB")
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    images = LabelledImages(tmp_path, image_size=16)
    assert images.classes == ["ant", "cat"]
    assert images.labels == [0, 0, 1, 1]
    assert images[1][0].shape == (3, 16, 16)


def test_the_thousand_real_images_have_their_imagenet_classes(real_images: Path) -> None:
    images = LabelledImages(real_images / "imagenet1000")
    assert images.labels == list(range(1000))
    assert images.files[1].name.endswith("goldfish.jpg")  # class 1 of ImageNet


def test_batches(labelled_images: Path) -> None:
    data = ImageFolder(labelled_images, batch_size=5, image_size=24, num_workers=0)
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert [images.shape for images, _ in batches] == [(5, 3, 24, 24)] * 2
    assert batches[0][1].dtype == torch.int64


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no image.*--data.root"):
        LabelledImages(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"missing does not exist.*--data.root"):
        LabelledImages(tmp_path / "missing")


def test_a_batch_larger_than_the_folder_is_an_error(labelled_images: Path) -> None:
    with pytest.raises(ValueError, match=r"holds 12 images, fewer than a batch of 13.*--data.batch_size"):
        ImageFolder(labelled_images, batch_size=13).setup("fit")


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_more_than_one_percent_of_damaged_images_stop_the_run(tmp_path: Path, content: bytes | None) -> None:
    for number in range(99):
        _image(tmp_path / f"a_{number}.jpg", (300, 300))
    path = tmp_path / "a_0.jpg"
    path.write_bytes(path.read_bytes()[:400] if content is None else content)
    with pytest.raises(OSError, match=r"1 of 99 files cannot be read as images, .*more than 1%.*\n.*a_0\.jpg"):
        LabelledImages(tmp_path)[0]


def test_the_error_lists_twenty_files(tmp_path: Path) -> None:
    for number in range(2500):
        (tmp_path / f"a_{number:04d}.jpg").touch()
    with pytest.raises(OSError, match=r"26 of 2500 files") as error:
        LabelledImages(tmp_path)[0]
    named = str(error.value).splitlines()[1:]
    assert (len(named), named[-1].strip()) == (21, "and 6 more")


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four hundred images, of which four, 1 %, are damaged: two files are truncated, two are gone."""
    folder = tmp_path_factory.mktemp("damaged")
    rng = np.random.default_rng(0)
    for number in range(400):
        pixels = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"c{number % 2}_{number:03d}.jpg")
    for path in sorted(folder.iterdir())[:2]:
        path.write_bytes(path.read_bytes()[:-300])
    for path in sorted(folder.iterdir())[-2:]:
        path.unlink()
        path.symlink_to(folder / "nowhere")
    return folder


# a spawned process imports everything anew, which takes ten seconds
STARTS = ["fork", pytest.param("spawn", marks=pytest.mark.slow)]
DAMAGED = ["c0_000.jpg", "c0_002.jpg", "c1_397.jpg", "c1_399.jpg"]


def test_a_damaged_image_is_replaced_and_logged_once(damaged: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = LabelledImages(damaged, image_size=8)
    first = [images[index] for index in range(len(images))]
    again = LabelledImages(damaged, image_size=8)
    for index in reversed(range(len(images))):  # in another order
        images[index]
        pixels, label = again[index]
        assert torch.equal(pixels, first[index][0])
        assert label == first[index][1]
    assert [path.name for path in images.unreadable] == DAMAGED
    for name in DAMAGED:
        assert sum(name in line for line in caplog.messages) == 2  # once for each data set


@pytest.mark.parametrize("method", STARTS)
def test_worker_processes_count_together(damaged: Path, tmp_path: Path, method: str) -> None:
    log = logging.FileHandler(tmp_path / "log")
    logger = logging.getLogger("anomalib_spd.data.images")
    logger.addHandler(log)  # forked processes have it too
    try:
        images = LabelledImages(damaged, image_size=8)
        loader = DataLoader(
            images, batch_size=10, num_workers=2, multiprocessing_context=method, persistent_workers=True
        )
        for _ in range(2):
            assert sum(len(labels) for _, labels in loader) == 400
    finally:
        logger.removeHandler(log)
    assert [path.name for path in images.unreadable] == DAMAGED
    if method == "fork":
        lines = (tmp_path / "log").read_text().splitlines()
        assert [sum(name in line for line in lines) for name in DAMAGED] == [1] * 4


@pytest.mark.parametrize("method", STARTS)
def test_worker_processes_stop_together(damaged: Path, tmp_path: Path, method: str) -> None:
    """Neither process alone meets more than 1 % of damaged images."""
    folder = Path(shutil.copytree(damaged, tmp_path / "images", symlinks=True))
    (folder / "c0_200.jpg").write_bytes(b"")
    loader = DataLoader(LabelledImages(folder, image_size=8), 100, num_workers=2, multiprocessing_context=method)
    with pytest.raises(OSError, match=r"5 of 400 files cannot be read.*\n.*c0_000") as error:
        list(loader)
    assert all(name in str(error.value) for name in [*DAMAGED, "c0_200.jpg"])


def test_a_flat_folder_and_a_list_of_it(labelled_images: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(sorted(path.name for path in labelled_images.iterdir())))
    data = ImageFolder(listed, batch_size=12, image_size=24, num_workers=0, relative_to=labelled_images)
    data.setup("fit")
    (batch,) = data.train_dataloader()
    whole = LabelledImages(labelled_images, image_size=24)
    assert data.images is not None
    assert data.images.labels == whole.labels
    assert sorted(batch[1].tolist()) == sorted(whole.labels)


def test_one_image_is_an_error(tmp_path: Path) -> None:
    _image(tmp_path / "a_0.jpg")
    with pytest.raises(ValueError, match=r"holds 1 image, but .* give two or more"):
        ImageFolder(tmp_path, batch_size=1).setup("fit")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"batch_size": 0}, "batch_size must be 1 or more, .* got 0 and 2"),
        ({"image_size": 0}, "image_size is 0, expected height and width, or one number for both"),
        ({"num_workers": -1}, "num_workers must not be negative, got 32 and -1"),
    ],
)
def test_argument_errors(argument: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageFolder("anywhere", **argument)


def test_every_device_needs_a_batch(labelled_images: Path) -> None:
    data = ImageFolder(labelled_images, batch_size=4)
    data.trainer = SimpleNamespace(world_size=4)
    with pytest.raises(ValueError, match="12 images, fewer than a batch of 4 on each of 4 devices"):
        data.setup("fit")
