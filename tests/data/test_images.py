"""Labels, sizes and the errors of image folders."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from anomalib_spd.data import ImageFolder, LabelledImages


def _picture(path: Path, size: tuple[int, int] = (50, 40), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, "red" if mode == "RGB" else 200).save(path)


def test_classes_are_the_file_names_up_to_the_underscore(labelled_images: Path) -> None:
    images = LabelledImages(labelled_images, side=32)
    assert images.classes == ["n00000", "n00001", "n00002"]
    for index, path in enumerate(images.files):
        pixels, label = images[index]
        assert (pixels.shape, pixels.dtype) == ((3, 32, 32), torch.uint8)
        assert path.name.startswith(images.classes[label])


def test_classes_are_the_sub_folders(tmp_path: Path) -> None:
    for name in ("cat/a_1.jpg", "cat/deep/b_1.png", "ant/c_1.JPEG", "ant/grey.bmp"):
        _picture(tmp_path / name, mode="L" if "grey" in name else "RGB")
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    images = LabelledImages(tmp_path, side=16)
    assert images.classes == ["ant", "cat"]
    assert images.labels == [0, 0, 1, 1]
    assert images[1][0].shape == (3, 16, 16)


def test_the_thousand_real_images_have_their_imagenet_classes(real_images: Path) -> None:
    images = LabelledImages(real_images / "imagenet1000")
    assert images.labels == list(range(1000))
    assert images.files[1].name.endswith("goldfish.jpg")  # class 1 of ImageNet


def test_batches(labelled_images: Path) -> None:
    data = ImageFolder(labelled_images, batch_size=5, side=24, num_workers=0)
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


@pytest.mark.parametrize("content", [b"", b"no picture", None])
def test_a_damaged_image_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a_0.jpg"
    _picture(path, (300, 300))
    path.write_bytes(path.read_bytes()[:400] if content is None else content)
    with pytest.raises(OSError, match=r"a_0\.jpg cannot be read as an image"):
        LabelledImages(tmp_path)[0]
