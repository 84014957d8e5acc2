"""Reading images of all modes, against stock anomalib's reader."""

import resource
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.data.utils import read_image as read_stock
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from anomalib_spd.data import LabelledImages, image_files
from anomalib_spd.data.defects import decode_mask
from anomalib_spd.data.image_files import read_image
from anomalib_spd.data.images import decode

RGB = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
GRAY = np.linspace(0, 255, 20 * 30).reshape(20, 30).astype(np.uint8)


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "SAID", set())


def _stock(path: Path) -> Tensor:
    image = read_stock(path, as_tensor=True)
    assert isinstance(image, Tensor)
    return image


def _scaled(pixels: Tensor) -> Tensor:
    scaled: Tensor = v2.functional.to_dtype(pixels, torch.float32, scale=True)
    return scaled


def _rotated() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def _transparent() -> Image.Image:
    image = RGB.convert("RGBA")
    image.putalpha(0)
    return image


ROTATED, FRAMES = {"exif": _rotated()}, {"save_all": True, "append_images": [RGB.rotate(180)]}


@pytest.mark.parametrize(
    ("image", "name", "settings", "said"),
    [
        (RGB, "rgb.png", {}, ""),
        (RGB.convert("L"), "gray.png", {}, ""),
        (RGB.convert("1"), "bits.png", {}, ""),
        (RGB.convert("LA"), "la.png", {}, ""),
        (RGB.quantize(16), "palette.png", {"transparency": 0}, ""),
        (_transparent(), "transparent.png", {}, ""),
        (_transparent(), "transparent.webp", {"exact": True, "lossless": True}, ""),
        (RGB.convert("CMYK"), "cmyk.jpg", {}, ""),
        (RGB.convert("CMYK"), "cmyk.tif", {}, ""),
        (RGB.convert("LAB"), "lab.tif", {}, ""),
        (RGB, "rotated.jpg", ROTATED, "rotated.jpg is marked as rotated"),
        (RGB, "rotated.png", ROTATED, "rotated.png is marked as rotated"),
        (RGB, "rotated.tif", ROTATED, ""),  # Pillow itself rotates it
        (RGB, "frames.png", FRAMES, "frames.png has several frames or pages: the first is read"),
        (RGB, "frames.webp", FRAMES, "frames.webp has several frames"),
        (RGB, "pages.tif", FRAMES, "pages.tif has several frames"),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
def test_an_image_is_the_tensor_that_stock_anomalib_reads(
    image: Image.Image, name: str, settings: dict[str, Any], said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image.save(tmp_path / name, **settings)
    for _ in range(2):
        assert torch.equal(_scaled(read_image(tmp_path / name)), _stock(tmp_path / name))
    assert len(caplog.messages) == bool(said)
    assert said in "".join(caplog.messages)


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_gray_of_16_bits_is_scaled_by_its_range(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Stock anomalib makes nearly all of it white."""
    Image.fromarray(GRAY.astype(np.uint16) * 257).save(tmp_path / name)
    expected = torch.from_numpy(GRAY).expand(3, -1, -1)
    assert torch.equal(read_image(tmp_path / name), expected)
    assert torch.equal(read_image(BytesIO((tmp_path / name).read_bytes())), expected)
    assert len(caplog.messages) == 1
    assert f"{name} has 16 bits: 65535 is white" in caplog.messages[0]
    assert _stock(tmp_path / name).mean() > 0.99
    # a camera of 12 bits
    Image.fromarray(GRAY.astype(np.uint16) * 16).save(tmp_path / name)
    assert (read_image(tmp_path / name, white=255 * 16) - expected.int()).abs().max() == 0


@pytest.mark.parametrize(("values", "mode"), [(GRAY.astype(np.int32), "I"), (GRAY.astype(np.float32), "F")])
def test_modes_without_a_white_are_refused_by_name(values: np.ndarray, mode: str, tmp_path: Path) -> None:
    path = tmp_path / "a_1.tif"
    Image.fromarray(values).save(path)
    with pytest.raises(ValueError, match=f"mode {mode} has no value of white; give it as `white`"):
        read_image(path)
    with pytest.raises(OSError, match=rf"(?s)the last: Pillow's mode {mode} has no value of white.*a_1\.tif"):
        LabelledImages(tmp_path)[0]
    # the same as stock anomalib's with stock anomalib's white
    assert torch.equal(_scaled(read_image(path, white=255.0)), _stock(path))
    pixels, _ = LabelledImages(tmp_path, image_size=20, white=510)[0]
    assert pixels.max() == 126  # the center of the square ends before the brightest columns


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(tmp_path / "nan.tif")
    with pytest.raises(ValueError, match="NaN or infinite"):
        read_image(tmp_path / "nan.tif", white=1)


@pytest.mark.parametrize("white", [0, -1, float("inf"), float("nan")])
def test_white_is_a_positive_number(white: float, labelled_images: Path) -> None:
    with pytest.raises(ValueError, match="white must be a positive number"):
        LabelledImages(labelled_images, white=white)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
def test_masks_of_all_depths_are_what_is_not_black(dtype: type, tmp_path: Path) -> None:
    pixels = np.zeros((8, 8), dtype)
    pixels[2:4, 2:4] = 0.4 if dtype == np.float32 else 1
    Image.fromarray(pixels).save(tmp_path / "mask.tif")
    assert torch.equal(decode_mask(tmp_path / "mask.tif", 8)[0], torch.from_numpy(pixels > 0).to(torch.uint8))


@pytest.mark.parametrize("image_size", [(32, 32), (48, 16), (16, 48), (7, 31)])
@pytest.mark.parametrize("shape", [(64, 64), (40, 100), (100, 40), (33, 97)])
def test_an_image_is_cropped_or_squeezed_to_a_height_and_a_width(
    shape: tuple[int, int], image_size: tuple[int, int], tmp_path: Path
) -> None:
    """Of a ramp in both directions: cropped, its slopes are alike, and one side is whole; squeezed, both sides are."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    Image.fromarray(np.stack([rows, columns, 0 * rows], -1).astype(np.uint8)).save(tmp_path / "ramp.png")
    steps = {}
    for keep_aspect in (False, True):
        pixels = decode(tmp_path / "ramp.png", image_size, keep_aspect).double()
        assert pixels.shape == (3, *image_size)
        middle = [length // 2 for length in image_size]
        along = (pixels[0, :, middle[1]], pixels[1, middle[0]])
        steps[keep_aspect] = [float(each[-2] - each[1]) / (len(each) - 3) for each in along]
    per_pixel = [length / size for length, size in zip(shape, image_size, strict=True)]
    assert steps[False] == pytest.approx(per_pixel, abs=0.3)
    assert steps[True] == pytest.approx([min(per_pixel)] * 2, abs=0.3)


@pytest.mark.parametrize("size", [(1, 40000), (40000, 1)])
def test_a_small_file_takes_little_memory(size: tuple[int, int], tmp_path: Path) -> None:
    """Its short side resized to 256 px, the whole image would take 7.9 GB."""
    image = Image.new("RGB", size, "red")
    image.putpixel((size[0] // 2, size[1] // 2), (0, 0, 255))
    image.save(tmp_path / "long.png")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes
    pixels = decode(tmp_path / "long.png", 256)
    assert pixels.shape == (3, 256, 256)
    assert pixels[2, 128, 128] > 100
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000
