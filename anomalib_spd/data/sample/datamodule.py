"""The embedded demo data set in VisA's layout, made offline from scikit-image's photographs.

It is a **demo**: three photographs, synthetic defects. It shows that an installation works and what the commands print. A
figure measured on it says nothing about real defects or real products.

Source: ours. Photographs: ``skimage.data.brick``, ``grass`` and ``gravel`` (CC0), 512 x 512 gray levels, shipped in the
scikit-image wheel.
"""

import functools
import logging
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from anomalib.data import Visa
from PIL import Image
from skimage import data, transform

from anomalib_spd.data.drawn_folder import drawn_folder
from anomalib_spd.data.sample.defects import DEFECTS, SIZE
from anomalib_spd.spelling import did_you_mean

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]

CATEGORIES = ("brick", "grass", "gravel")
"""Categories of the set: each is the name of the ``skimage.data`` function that gives its photograph."""

COUNTS = {"train/good": 24, "test/good": 10}
"""Normal images per folder of a category."""

IMAGES_PER_DEFECT = 3
"""Defective test images per entry of `DEFECTS`."""

REGIONS = {"train": slice(0, 288), "test": slice(288, 512)}
"""Columns of the photograph that each split is cut from: disjoint, so that no test pixel was trained on."""

# the photographs are gray; a mild fixed tint makes RGB images that look natural
_TINTS = {"brick": (1.20, 0.88, 0.72), "grass": (0.86, 1.08, 0.62), "gravel": (1.05, 1.00, 0.92)}

# Length in photograph pixels of the square window that becomes one image. Rotated by the largest angle, the largest
# window still fits in the narrower region (208 * (cos 4 deg + sin 4 deg) = 222 < 224): nothing is padded.
_WINDOW = (192.0, 208.0)
_MAX_ROTATION = np.deg2rad(4.0)

_NOTICE = """Demo set of anomalib_spd, category "{category}".

Made by anomalib_spd.data.Sample from the photograph skimage.data.{category} (CC0), with synthetic
defects and exact masks. It serves to try the commands: figures measured on it say nothing about real
defects. Delete this folder to have it made anew.
"""


class Sample(Visa):
    """Demo data module: stock ``Visa`` on a small synthetic set, which it makes if missing, offline, in seconds.

    Each category holds 24 normal images to train on, and 10 normal and 15 defective ones (3 for each entry of `DEFECTS`, named
    ``<defect>_<number>.png``) to test on: RGB PNG, uint8, 256 x 256, with masks of the same size and values 0 and 255. The
    set is deterministic. It is a demo: figures on it say nothing about real defects.

    Args:
        texture: category of the set: ``brick``, ``grass`` or ``gravel``.
        folder: folder of the set; a category lies in ``<folder>/visa_pytorch/<category>``.
        train_batch_size: images per training batch.
        eval_batch_size: images per validation or test batch.
        num_workers: worker processes per loader.
        **kwargs: the other arguments of ``anomalib.data.Visa``.

    Raises:
        ValueError: if ``texture`` is not one of `CATEGORIES`.
        TypeError: if ``root`` or ``category`` is given.
    """

    def __init__(
        self,
        # Not Visa's names `category` and `root`, on purpose: where `--data anomalib_spd.data.Sample` replaces the Visa
        # of a config file, the command line keeps arguments of equal names, and the sample would be looked for, or
        # worse, made, in the folder of the real VisA.
        texture: str = CATEGORIES[0],
        folder: Path | str = "./datasets/anomalib_spd_sample",
        train_batch_size: int = 8,
        eval_batch_size: int = 8,
        # reading a few dozen small PNG files takes less time than starting worker processes
        num_workers: int = 0,
        **kwargs: Any,
    ) -> None:
        if taken := {"root", "category"} & kwargs.keys():
            raise TypeError(
                f"Sample has no argument {', '.join(sorted(taken))}: give `texture` for category, `folder` for root."
            )
        if texture not in CATEGORIES:
            raise ValueError(
                f"Unknown category {texture!r}{did_you_mean(texture, CATEGORIES)}; the demo set has {', '.join(CATEGORIES)}."
            )
        super().__init__(
            root=folder,
            category=texture,
            train_batch_size=train_batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            **kwargs,
        )

    def prepare_data(self) -> None:
        """Make the category's folder if it is missing; an existing one stays unchanged.

        Raises:
            OSError: if the folder cannot be written.
        """
        folder = self.split_root / self.category
        if folder.is_dir():
            logger.info("Found the demo set %s.", folder)
            return
        with drawn_folder(folder, "the demo set") as made:
            _write_category(made, self.category)
        logger.warning("Made the demo set %s. Figures on it say nothing about real defects.", folder)


def normal_image(category: str, split: str, name: str) -> Bytes:
    """Return an image without defects: a window of the photograph in a random pose and light.

    The pose is a random position, size (192 to 208 photograph pixels), rotation (up to 4 degrees) and left-right flip; the
    light a gain (0.9 to 1.1), a linear gradient (up to 12 %) and slight noise.

    Args:
        category: one of `CATEGORIES`.
        split: ``"train"`` or ``"test"``; only the columns ``REGIONS[split]`` of the photograph are read.
        name: any name; it seeds the variation together with ``category`` and ``split``.

    Returns:
        RGB image of shape (256, 256, 3), dtype uint8.
    """
    rng = _generator(category, split, name, "clean")
    region = _photograph(category)[:, REGIONS[split]].copy()  # warp refuses read-only arrays

    length = rng.uniform(*_WINDOW)
    rotation = rng.uniform(-_MAX_ROTATION, _MAX_ROTATION)
    flip = rng.choice([-1.0, 1.0])
    reach = length / 2 * (np.cos(rotation) + np.abs(np.sin(rotation)))  # half the bounding box of the rotated window
    row, column = (rng.uniform(reach, limit - reach) for limit in region.shape)
    # from image to photograph; scikit-image has 0 in the center of the first pixel, hence the halves
    centered = transform.AffineTransform(translation=(-(SIZE - 1) / 2, -(SIZE - 1) / 2))
    posed = transform.AffineTransform(scale=(length / SIZE * flip, length / SIZE), rotation=rotation)
    positioned = transform.AffineTransform(translation=(column - 0.5, row - 0.5))
    gray = transform.warp(region, centered + posed + positioned, output_shape=(SIZE, SIZE), order=3, mode="edge")

    rows, columns = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    direction = rng.uniform(0, 2 * np.pi)
    gradient = rng.uniform(0, 0.12) * (np.sin(direction) * rows + np.cos(direction) * columns)
    lit = gray * rng.uniform(0.9, 1.1) * (1 + gradient)
    image = lit[..., None] * np.array(_TINTS[category])
    # float32 takes half the time
    return _to_bytes(image + 0.008 * rng.standard_normal(image.shape, dtype=np.float32))


def defective_image(category: str, defect: str, number: int) -> tuple[Bytes, Bytes]:
    """Return a defective test image and its exact mask.

    Args:
        category: one of `CATEGORIES`.
        defect: a key of `DEFECTS`.
        number: number of the image among those with this defect.

    Returns:
        The image, of shape (256, 256, 3), and the mask, of shape (256, 256), both uint8. The mask is 255 exactly where the
        image differs from ``normal_image(category, "test", f"{defect}_{number:03d}")``, and 0 elsewhere.
    """
    name = f"{defect}_{number:03d}"
    normal = normal_image(category, "test", name)
    drawn, support = DEFECTS[defect](normal / 255.0, _generator(category, "test", name, "defect"))
    image = np.where(support[..., None], _to_bytes(drawn), normal)
    # by the bytes, not by the shape: nobody could find a defect in pixels that rounding left unchanged
    mask = np.where((image != normal).any(axis=-1), 255, 0).astype(np.uint8)
    return image, mask


def _write_category(folder: Path, category: str) -> None:
    for subfolder in (*COUNTS, "test/bad", "ground_truth/bad"):
        (folder / subfolder).mkdir(parents=True)
    (folder / "README.txt").write_text(_NOTICE.format(category=category), encoding="utf-8")
    for subfolder, count in COUNTS.items():
        for name in (f"{number:03d}" for number in range(count)):
            _save(normal_image(category, subfolder.split("/")[0], name), folder / subfolder / f"{name}.png")
    for defect in DEFECTS:
        for number in range(IMAGES_PER_DEFECT):
            image, mask = defective_image(category, defect, number)
            # stock Visa pairs images and masks by sorted order and checks the stems: same name for both
            _save(image, folder / "test/bad" / f"{defect}_{number:03d}.png")
            _save(mask, folder / "ground_truth/bad" / f"{defect}_{number:03d}.png")


def _save(image: Bytes, path: Path) -> None:
    # lossless at any level; noise hardly compresses, and the lowest level takes the least time
    Image.fromarray(image).save(path, compress_level=1)


@functools.cache
def _photograph(category: str) -> Floats:
    photograph: Floats = getattr(data, category)() / 255.0
    photograph.flags.writeable = False  # all callers share it through the cache
    return photograph


def _generator(*names: str) -> np.random.Generator:
    # not hash(): Python salts it, and each process would make another set
    return np.random.default_rng(zlib.crc32("/".join(names).encode()))


def _to_bytes(image: Floats) -> Bytes:
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
