"""Embedded demo data set in VisA's layout, made offline from scikit-image's own photographs.

This is a **demo**: three photographs, synthetic defects. It shows that an installation works and what
the commands print. A figure measured on it says nothing about real defects or real products.

The defects are drawn here by mechanisms that neither SPD (a colour-jittered patch of the image blended
back into it) nor CutSwap (rectangles swapped within the image) uses, so that a model trained with
either has not seen the test's answer. To add a kind, see `defects.py`.

Source: ours. Photographs: ``skimage.data.brick``, ``grass`` and ``gravel`` (CC0), 512 x 512 grey
levels, which are shipped inside the scikit-image wheel, so that nothing is downloaded.
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

from anomalib_spd.data.sample.defects import DEFECTS, SIZE
from anomalib_spd.files import atomic_folder

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]
CATEGORIES = ("brick", "grass", "gravel")
"""Categories of the set: each is the name of the ``skimage.data`` function that gives its photograph."""

COUNTS = {"train/good": 24, "test/good": 10}
"""Normal pictures per folder of a category."""

DEFECTIVE_PER_KIND = 3
"""Defective test pictures per kind of `DEFECTS`."""

REGIONS = {"train": slice(0, 288), "test": slice(288, 512)}
"""Columns of the photograph that each split is cut from: disjoint, so that no test pixel was trained on."""

# The photographs are grey; a mild fixed tint makes RGB pictures that look natural.
_TINTS = {"brick": (1.20, 0.88, 0.72), "grass": (0.86, 1.08, 0.62), "gravel": (1.05, 1.00, 0.92)}

# Side in photograph pixels of the window that becomes one picture. Turned by the largest angle, the largest
# window still fits in the narrower region (208 * (cos 4 deg + sin 4 deg) = 222 < 224): nothing is padded.
_WINDOW = (192.0, 208.0)
_MAX_TURN = np.deg2rad(4.0)

_NOTICE = """Demo set of anomalib_spd, category "{category}".

Made by anomalib_spd.data.Sample from the photograph skimage.data.{category} (CC0), with synthetic
defects and exact masks. It serves to try the commands: figures measured on it say nothing about real
defects. Delete this folder to have it made anew.
"""


class Sample(Visa):
    """Demo data module: stock ``Visa`` on a small synthetic set that it makes when missing.

    Each category holds 24 normal pictures to train on, and 10 normal and 15 defective ones (3 of each
    kind in `DEFECTS`, named ``<kind>_<number>.png``) to test on: RGB PNG, uint8, 256 x 256, with masks of
    the same size whose values are 0 and 255. The set is deterministic and is made in seconds, offline;
    nothing is ever downloaded. It is a demo: figures on it say nothing about real defects.

    Args:
        texture: Category of the set: ``brick``, ``grass`` or ``gravel``.
        folder: Folder of the set; a category lies in ``<folder>/visa_pytorch/<category>``.
        train_batch_size: Pictures per training batch.
        eval_batch_size: Pictures per validation or test batch.
        num_workers: Worker processes per loader.
        **kwargs: The other arguments of ``anomalib.data.Visa``, unchanged.

    Raises:
        ValueError: If ``texture`` is not one of `CATEGORIES`.
    """

    def __init__(
        self,
        # Not Visa's names `category` and `root`, on purpose: where `--data anomalib_spd.data.Sample` replaces the Visa
        # of a config file, the command line hands on arguments of equal names, and the sample would be sought, or
        # worse, made, in the folder of the real VisA.
        texture: str = CATEGORIES[0],
        folder: Path | str = "./datasets/anomalib_spd_sample",
        train_batch_size: int = 8,
        eval_batch_size: int = 8,
        # Reading a few dozen small PNG files takes less time than starting worker processes.
        num_workers: int = 0,
        **kwargs: Any,
    ) -> None:
        taken = {"root": "folder", "category": "texture"}.keys() & kwargs.keys()
        if taken:
            message = (
                f"Sample has no argument {', '.join(sorted(taken))}: give `texture` for category, `folder` for root."
            )
            raise TypeError(message)
        _check_category(texture)
        super().__init__(
            root=folder,
            category=texture,
            train_batch_size=train_batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            **kwargs,
        )

    def prepare_data(self) -> None:
        """Make the category's folder if it is missing; an existing one is used unchanged.

        Raises:
            OSError: If the folder cannot be written.
        """
        folder = self.split_root / self.category
        if folder.is_dir():
            logger.info("Found the demo set %s.", folder)
            return
        make_category(self.root, self.category)
        logger.warning("Made the demo set %s. Figures on it say nothing about real defects.", folder)


def make_category(root: Path | str, category: str) -> Path:
    """Write one category in VisA's layout, unless its folder exists.

    The files are written to a temporary folder beside the final one, which is then renamed. So an
    incomplete set is never visible, and of two processes at once the first wins and the other discards
    its own. (A process that is killed leaves a hidden folder ``.<category>.*``, which is safe to delete.)

    Args:
        root: Folder of the set.
        category: One of `CATEGORIES`.

    Returns:
        The category's folder, ``<root>/visa_pytorch/<category>``.

    Raises:
        ValueError: If ``category`` is not one of `CATEGORIES`.
        OSError: If the folder cannot be written; the message names it.
    """
    _check_category(category)
    folder = Path(root) / "visa_pytorch" / category
    if folder.is_dir():
        return folder
    try:
        with atomic_folder(folder) as made:
            _write_category(made, category)
    except OSError as error:
        if folder.is_dir():
            return folder  # another process was faster: its folder is the same to the byte
        # Given its number, OSError makes itself the fitting subclass, such as PermissionError.
        message = f"cannot write the demo set ({error.strerror or error}); choose another root than"
        raise OSError(error.errno, message, str(root)) from error
    return folder


def clean_picture(category: str, split: str, name: str) -> Bytes:
    """Give a picture without defects: a window of the photograph, in some pose and light.

    The pose is a random position, size (a side of 192 to 208 photograph pixels), turn (up to 4 degrees)
    and left-right flip; the light, a gain (0.9 to 1.1), a linear gradient (up to 12 %) and slight noise.

    Args:
        category: One of `CATEGORIES`.
        split: ``"train"`` or ``"test"``; only the columns ``REGIONS[split]`` of the photograph are read.
        name: Any name; it seeds the variation together with ``category`` and ``split``.

    Returns:
        RGB picture of shape (256, 256, 3), dtype uint8.
    """
    rng = _generator(category, split, name, "clean")
    region = _photograph(category)[:, REGIONS[split]].copy()  # warp refuses read-only arrays

    side = rng.uniform(*_WINDOW)
    turn = rng.uniform(-_MAX_TURN, _MAX_TURN)
    flip = rng.choice([-1.0, 1.0])
    reach = side / 2 * (np.cos(turn) + np.abs(np.sin(turn)))  # half the side of the turned window's bounding box
    row, column = (rng.uniform(reach, length - reach) for length in region.shape)
    # From picture to photograph; scikit-image has 0 in the middle of the first pixel, whence the halves.
    centred = transform.AffineTransform(translation=(-(SIZE - 1) / 2, -(SIZE - 1) / 2))
    posed = transform.AffineTransform(scale=(side / SIZE * flip, side / SIZE), rotation=turn)
    placed = transform.AffineTransform(translation=(column - 0.5, row - 0.5))
    grey = transform.warp(region, centred + posed + placed, output_shape=(SIZE, SIZE), order=3, mode="edge")

    rows, columns = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    bearing = rng.uniform(0, 2 * np.pi)
    gradient = rng.uniform(0, 0.12) * (np.sin(bearing) * rows + np.cos(bearing) * columns)
    lit = grey * rng.uniform(0.9, 1.1) * (1 + gradient)
    picture = lit[..., None] * np.array(_TINTS[category])
    # float32, which is drawn in half the time.
    return _to_bytes(picture + 0.008 * rng.standard_normal(picture.shape, dtype=np.float32))


def defective_picture(category: str, kind: str, number: int) -> tuple[Bytes, Bytes]:
    """Give a defective test picture and its exact mask.

    Args:
        category: One of `CATEGORIES`.
        kind: A key of `DEFECTS`.
        number: Number of the picture among those of its kind.

    Returns:
        The picture, of shape (256, 256, 3), and the mask, of shape (256, 256), both uint8. The mask is 255
        exactly where the picture differs from ``clean_picture(category, "test", f"{kind}_{number:03d}")``,
        and 0 elsewhere.
    """
    name = f"{kind}_{number:03d}"
    clean = clean_picture(category, "test", name)
    drawn, support = DEFECTS[kind](clean / 255.0, _generator(category, "test", name, "defect"))
    picture = np.where(support[..., None], _to_bytes(drawn), clean)
    # By the bytes, not by the shape: what rounding left as it was is not a defect that anyone could find.
    mask = np.where((picture != clean).any(axis=-1), 255, 0).astype(np.uint8)
    return picture, mask


def _check_category(category: str) -> None:
    if category not in CATEGORIES:
        message = f"Unknown category {category!r}; the demo set has {', '.join(CATEGORIES)}."
        raise ValueError(message)


def _write_category(folder: Path, category: str) -> None:
    for place in (*COUNTS, "test/bad", "ground_truth/bad"):
        (folder / place).mkdir(parents=True)
    (folder / "README.txt").write_text(_NOTICE.format(category=category), encoding="utf-8")
    for place, count in COUNTS.items():
        for name in (f"{number:03d}" for number in range(count)):
            _save(clean_picture(category, place.split("/")[0], name), folder / place / f"{name}.png")
    for kind in DEFECTS:
        for number in range(DEFECTIVE_PER_KIND):
            picture, mask = defective_picture(category, kind, number)
            # Stock Visa pairs pictures and masks by sorted order and checks the stems: same name for both.
            _save(picture, folder / "test/bad" / f"{kind}_{number:03d}.png")
            _save(mask, folder / "ground_truth/bad" / f"{kind}_{number:03d}.png")


def _save(picture: Bytes, path: Path) -> None:
    # Lossless at any level; noise hardly compresses, and the lowest level takes the least time.
    Image.fromarray(picture).save(path, compress_level=1)


@functools.cache
def _photograph(category: str) -> Floats:
    photograph: Floats = getattr(data, category)() / 255.0
    photograph.flags.writeable = False  # shared by all callers through the cache
    return photograph


def _generator(*names: str) -> np.random.Generator:
    # Not hash(): Python salts it, and each process would make another set.
    return np.random.default_rng(zlib.crc32("/".join(names).encode()))


def _to_bytes(image: Floats) -> Bytes:
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
