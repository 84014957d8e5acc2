"""Reads an image or a mask from a file, the same way for every reader of this package."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

logger = logging.getLogger(__name__)

#: an image is cropped to this ratio of its sides before it is resized: memory is bounded by the number of its pixels
MAX_ASPECT = 16
_WHITE_OF_16_BITS = 65535
_ORIENTATION = 0x0112
#: what was said of files in this process
SAID: set[str] = set()


def read_image(file: Path | str | BinaryIO, white: float | None = None) -> Tensor:
    """Read an image as stock anomalib's ``read_image`` does, except where that gives white or black pictures.

    * One channel of 16 bits is scaled by its range, so that 65535 is white; stock anomalib sets all above 255 to white. For
      detectors, convert such files to 8 bits.
    * One channel of 32 bits or of floats has no white of its own, and is refused unless ``white`` is given; stock anomalib takes
      255 for white.
    * Color of 16 bits is read by the high byte of each value, as in stock anomalib.
    * Of several frames or pages, the first is read. Transparency is dropped, and the colors below it stay. The orientation of
      EXIF data is applied to TIFF files only. All of that is what stock anomalib does.

    What a reader may not expect is logged once in each process.

    Args:
        file: path or open file.
        white: value of white of images with one channel of more than 8 bits, such as 4095 for cameras of 12 bits.

    Returns:
        uint8 ``(3, H, W)`` in ``[0, 255]``.

    Raises:
        ValueError: if the image has no white and ``white`` is not given, or values are not finite.
        Exception: of nearly any type, for a damaged or truncated file: Pillow's decoders differ.
    """
    with Image.open(file) as image:
        if getattr(image, "is_animated", False):
            _say_once(image, "has several frames or pages: the first is read")
        if "exif" in image.info and image.format != "TIFF" and image.getexif().get(_ORIENTATION, 1) != 1:
            _say_once(image, "is marked as rotated: like stock anomalib, we read the pixels as they are stored")
        if not _is_deep(image):
            pixels: Tensor = v2.functional.pil_to_tensor(image.convert("RGB"))
            return pixels
        # the files of PNG have 16 bits at most, whatever mode Pillow gives them
        if white is None and (image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PNG")):
            white = _WHITE_OF_16_BITS
            _say_once(image, "has 16 bits: 65535 is white, unless `white` is given. Stock anomalib takes 255 for white")
        if white is None:
            raise ValueError(
                f"Pillow's mode {image.mode} has no value of white; give it as `white`, or convert to 8 bits"
            )
        values = np.array(image, np.float32)  # a copy, changed in place: images can be large
    if not np.isfinite(values).all():
        raise ValueError("it holds NaN or infinite values")
    values /= white
    np.clip(values, 0, 1, out=values)
    values *= 255
    np.rint(values, out=values)
    return torch.from_numpy(values.astype(np.uint8)).expand(3, -1, -1).contiguous()


def read_mask(file: Path | str) -> Tensor:
    """Read a mask: what is not black belongs to the defect, whatever the number of bits.

    Returns:
        float32 ``(1, H, W)``, 0 or 1.

    Raises:
        Exception: of nearly any type, for a damaged or truncated file: Pillow's decoders differ.
    """
    with Image.open(file) as image:
        pixels = np.asarray(image if _is_deep(image) else image.convert("L"))
    return torch.from_numpy((pixels > 0).astype(np.float32))[None]


def resize(pixels: Tensor, image_size: int | tuple[int, int], keep_aspect: bool) -> Tensor:
    """Resize until one side fits and crop the other one's center, or resize both sides.

    Args:
        pixels: ``(C, H, W)``, of any type.
        image_size: height and width, pixels; one number stands for both.
        keep_aspect: crop what is too long; False resizes both sides, as detectors do.

    Returns:
        ``(C, height, width)`` of the same type.
    """
    height, width = fitted = height_and_width("image_size", image_size)
    if keep_aspect:
        longest = MAX_ASPECT * min(pixels.shape[-2:])
        pixels = v2.functional.center_crop(pixels, [min(length, longest) for length in pixels.shape[-2:]])
        rows, columns = pixels.shape[-2:]
        wide = height * columns >= width * rows
        fitted = (height, int(height * columns / rows)) if wide else (int(width * rows / columns), width)
    resized = v2.functional.resize(pixels, [*fitted], antialias=True)
    cropped: Tensor = v2.functional.center_crop(resized, [height, width])
    return cropped


def height_and_width(name: str, size: int | Sequence[int]) -> tuple[int, int]:
    """Return both, where one number stands for both: torchvision would take it for the short side alone.

    Args:
        name: of the option, for the message.
        size: pixels.

    Raises:
        ValueError: if it is not one or two numbers above 0.
    """
    both = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(both) != 2 or not all(isinstance(each, int) and each > 0 for each in both):
        raise ValueError(f"{name} is {size}, expected height and width, or one number for both, in pixels above 0")
    return int(both[0]), int(both[1])  # plain numbers: a command line gives a class of its own


def check_white(white: float | None) -> None:
    """Check the value of white.

    Raises:
        ValueError: if it is not a positive number.
    """
    if white is not None and not 0 < white < float("inf"):
        raise ValueError(f"white must be a positive number, such as 4095 for cameras of 12 bits, got {white}")


def _is_deep(image: Image.Image) -> bool:
    """Return whether an image has one channel of more than 8 bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _say_once(image: Image.Image, fact: str) -> None:
    if fact not in SAID:
        SAID.add(fact)
        logger.warning("%s %s (said once)", getattr(image, "filename", "") or "an image", fact)
