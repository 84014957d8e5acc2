"""A folder of images of synthetic parts, made once."""

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from PIL import Image

from anomalib_spd.data.drawn_folder import drawn_folder
from anomalib_spd.data.synthetic_parts.part_category import PartCategory

logger = logging.getLogger(__name__)

_NOTICE = """Made by anomalib_spd.data.SyntheticParts, seed {seed}: {categories} categories of synthetic parts and surfaces, {images} images of each,
to train backbones with. All are good parts. Delete this folder to have it made anew.
"""


def make_parts(folder: Path | str, categories: int, images_per_category: int, seed: int = 0) -> Path:
    """Write ``FOLDER/CATEGORY/NUMBER.jpg``, unless the folder exists: JPEG of 256 x 256 px, quality 95.

    An existing folder is complete: it takes its name in one step, see :func:`drawn_folder`.

    Args:
        folder: where the images are to be.
        categories: number of categories of parts, at least 1.
        images_per_category: number of images of each, at least 1.
        seed: of all categories.

    Returns:
        The folder.

    Raises:
        ValueError: if a number is less than 1.
        FileExistsError: if the folder exists, but holds something else.
        OSError: if it cannot be written; the message names it.
    """
    if categories < 1 or images_per_category < 1:
        raise ValueError(
            f"`categories` and `images_per_category` are at least 1. Got {categories} and {images_per_category}."
        )
    folder = Path(folder)
    notice = _NOTICE.format(seed=seed, categories=categories, images=images_per_category)
    if not folder.exists():
        logger.warning(
            "Making %s: %d categories of parts, %d images of each. This is done once.",
            folder,
            categories,
            images_per_category,
        )
        digits = len(str(categories - 1)), len(str(images_per_category - 1))
        with drawn_folder(folder, "the synthetic parts") as made:
            write = partial(_write_category, made, images_per_category, seed, *digits)
            # threads: nearly all of it is NumPy's, which releases the interpreter's lock
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                list(pool.map(write, range(categories)))
            (made / "README.txt").write_text(notice, encoding="utf-8")
    readme = folder / "README.txt"
    if not readme.is_file() or readme.read_text(encoding="utf-8") != notice:
        raise FileExistsError(
            f"{folder} exists, but it does not hold these synthetic parts:\n{notice}Give another root, or delete the folder."
        )
    return folder


def _write_category(folder: Path, images: int, seed: int, category_digits: int, image_digits: int, number: int) -> None:
    category = PartCategory(number, seed)
    subfolder = folder / f"{number:0{category_digits}d}"
    subfolder.mkdir()
    for each in range(images):
        # chroma subsampling would blur small colored differences
        image = Image.fromarray(category.image(each))
        image.save(subfolder / f"{each:0{image_digits}d}.jpg", quality=95, subsampling=0)
