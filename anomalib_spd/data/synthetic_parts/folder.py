"""A folder of pictures of synthetic parts, one folder a kind, made once."""

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from PIL import Image

from anomalib_spd.data.synthetic_parts.kinds import Kind
from anomalib_spd.files import atomic_folder

logger = logging.getLogger(__name__)

_NOTICE = """Made by anomalib_spd.data.SyntheticParts, seed {seed}: {kinds} kinds of parts and surfaces that nobody makes, {pictures} pictures of each,
to train backbones with. All are good ones. Delete this folder to have it made anew.
"""


def make_parts(folder: Path | str, kinds: int, pictures: int, seed: int = 0) -> Path:
    """Write ``FOLDER/KIND/NUMBER.jpg``, unless there is such a folder: JPEG of 256 x 256 px, quality 95.

    The files are written to a folder beside it, which is renamed at the end: what is there is whole. (A process that is killed leaves a hidden
    folder ``.NAME.*``, which is safe to delete.)

    Args:
        folder: that is made.
        kinds: of parts, at least 1.
        pictures: of each kind, at least 1.
        seed: of all kinds.

    Returns:
        the folder.

    Raises:
        ValueError: where nothing is to be made.
        FileExistsError: where the folder is there, but not these pictures.
        OSError: where it cannot be written; the message names it.
    """
    if kinds < 1 or pictures < 1:
        raise ValueError(f"`kinds` and `pictures` are at least 1. Got {kinds} and {pictures}.")
    folder = Path(folder)
    notice = _NOTICE.format(seed=seed, kinds=kinds, pictures=pictures)
    if folder.exists():
        return _checked(folder, notice)
    logger.warning("Making %s: %d kinds of parts, %d pictures of each. This is done once.", folder, kinds, pictures)
    try:
        with atomic_folder(folder) as made:
            draw = partial(_write_kind, made, pictures, seed, len(str(kinds - 1)), len(str(pictures - 1)))
            # threads: nearly all of it is NumPy's, which lets others run
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                for _ in pool.map(draw, range(kinds)):
                    pass
            (made / "README.txt").write_text(notice, encoding="utf-8")
    except OSError as error:
        if folder.is_dir():
            return _checked(folder, notice)  # another process was faster
        message = f"cannot write the synthetic parts ({error.strerror or error}); choose another root than"
        raise OSError(error.errno, message, str(folder)) from error
    return folder


def _checked(folder: Path, notice: str) -> Path:
    readme = folder / "README.txt"
    if not readme.is_file() or readme.read_text(encoding="utf-8") != notice:
        raise FileExistsError(
            f"{folder} is there, but it does not hold these synthetic parts:\n{notice}Give another root, or delete the folder."
        )
    return folder


def _write_kind(folder: Path, pictures: int, seed: int, kind_digits: int, digits: int, number: int) -> None:
    kind = Kind(number, seed)
    place = folder / f"{number:0{kind_digits}d}"
    place.mkdir()
    for each in range(pictures):
        # subsampled colors would leave no small colored difference
        Image.fromarray(kind.picture(each)).save(place / f"{each:0{digits}d}.jpg", quality=95, subsampling=0)
