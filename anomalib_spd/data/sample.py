"""Embedded demo data set in VisA's layout, made offline from scikit-image's own photographs.

This is a **demo**: three photographs, synthetic defects. It shows that an installation works and what
the commands print. A figure measured on it says nothing about real defects or real products.

The defects are drawn here by mechanisms that neither SPD (a colour-jittered patch of the image blended
back into it) nor CutSwap (rectangles swapped within the image) uses, so that a model trained with
either has not seen the test's answer. To add a kind, write one function and enter it in `DEFECTS`.

Source: ours. Photographs: ``skimage.data.brick``, ``grass`` and ``gravel`` (CC0), 512 x 512 grey
levels, which are shipped inside the scikit-image wheel, so that nothing is downloaded.
"""

import functools
import itertools
import logging
import shutil
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from anomalib.data import Visa
from anomalib.utils.path import resolve_dataset_root
from PIL import Image
from skimage import data, draw, filters, transform

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Defect = Callable[[Floats, np.random.Generator], tuple[Floats, Bools]]
"""Draws one defect. Takes an RGB picture of shape (H, W, 3), values in [0, 1], and the source of the defect's
shape and place; returns the drawn picture (clipped to [0, 1] later) and the support of shape (H, W), outside
which what was drawn does not count."""

SIZE = 256
"""Side of every picture and mask, in pixels."""

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

# Pixels between the lines that are drawn and the border, so that np.roll carries nothing to the other side.
_RIM = 10

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
        root: Folder of the set; a category lies in ``<root>/visa_pytorch/<category>``. ``None`` means
            ``anomalib_spd_sample`` in anomalib's own folder of data sets.
        category: One of `CATEGORIES`.
        train_batch_size: Pictures per training batch.
        eval_batch_size: Pictures per validation or test batch.
        num_workers: Worker processes per loader.
        **kwargs: The other arguments of ``anomalib.data.Visa``, unchanged.

    Raises:
        ValueError: If ``category`` is not one of `CATEGORIES`.
    """

    def __init__(
        self,
        root: Path | str | None = "./datasets/anomalib_spd_sample",
        category: str = CATEGORIES[0],
        train_batch_size: int = 8,
        eval_batch_size: int = 8,
        # Reading a few dozen small PNG files takes less time than starting worker processes.
        num_workers: int = 0,
        **kwargs: Any,
    ) -> None:
        _check_category(category)
        super().__init__(
            # Resolved here, because for None the parent would answer with the folder of the real VisA.
            root=resolve_dataset_root(root, "anomalib_spd_sample"),
            category=category,
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
    its own. (A process that is killed leaves a hidden folder ``.<category>-*``, which is safe to delete.)

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
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{category}-", dir=folder.parent) as temporary:
            # An inner folder is renamed, because the temporary one is readable by its owner only.
            made = Path(temporary) / category
            _write_category(made, category)
            try:
                made.rename(folder)
            except OSError:
                if not folder.is_dir():
                    raise
                shutil.rmtree(made)  # another process was faster: its folder, the same to the byte, stays
    except OSError as error:
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


def _scratch(image: Floats, rng: np.random.Generator) -> tuple[Floats, Bools]:
    """Draw a curved groove with a bright lip."""
    start, bearing, length = _place(rng, 70), rng.uniform(0, 2 * np.pi), rng.uniform(80, 140)
    along = np.array([np.sin(bearing), np.cos(bearing)])
    across = along[::-1] * (1.0, -1.0)
    end = np.clip(start + length * along, _RIM, SIZE - 1 - _RIM)
    middle = (start + end) / 2 + rng.uniform(-25, 25) * across
    (r0, c0), (r1, c1), (r2, c2) = np.rint([start, middle, end]).astype(int)
    core = np.zeros(image.shape[:2])
    core[draw.bezier_curve(r0, c0, r1, c1, r2, c2, weight=1.0)] = 1
    groove = _peak_one(filters.gaussian(core, rng.uniform(1.0, 1.5)))
    lip = np.roll(groove, (2, 1), axis=(0, 1)) * (1 - groove)
    depth = rng.uniform(0.65, 0.85)
    drawn = image * (1 - depth * groove[..., None]) + 0.30 * lip[..., None]
    return drawn, np.maximum(groove, lip) > 0.15


def _stain(image: Floats, rng: np.random.Generator) -> tuple[Floats, Bools]:
    """Soak a smooth blob: the picture shows through, multiplied by a tint that is strongest at the rim."""
    angles = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    waves = sum(rng.uniform(-0.5, 0.5) / k * np.cos(k * angles + rng.uniform(0, 2 * np.pi)) for k in range(2, 6))
    radius = rng.uniform(16, 30) * (1 + 0.6 * np.asarray(waves))
    row, column = _place(rng, 50)
    outline = np.stack([row + radius * np.sin(angles), column + radius * np.cos(angles)], axis=1)
    blob = draw.polygon2mask(image.shape[:2], outline).astype(float)
    soaked = filters.gaussian(blob, 1.5)
    rim = np.clip(soaked - filters.gaussian(blob, 5), 0, None)
    tint = np.array([(0.72, 0.60, 0.46), (0.62, 0.64, 0.70), (0.66, 0.52, 0.74)][rng.integers(3)])
    strength = np.clip(soaked * 0.9 + rim * 0.8, 0, 1.3)[..., None]
    return image * (1 - strength * (1 - tint)), soaked > 0.1


def _hole(image: Floats, rng: np.random.Generator) -> tuple[Floats, Bools]:
    """Punch one to three elliptic holes, dark, with some light on their lower right walls."""
    holes = np.zeros(image.shape[:2])
    centre = _place(rng, 50)
    for _ in range(rng.integers(1, 4)):
        row, column = centre + rng.uniform(-22, 22, 2)
        high, wide = rng.uniform(5, 10, 2)
        holes[draw.ellipse(row, column, high, wide, rotation=rng.uniform(-np.pi, np.pi))] = 1
    edge = filters.gaussian(holes, 0.7)
    wall = edge * (1 - filters.gaussian(np.roll(holes, (-3, -3), axis=(0, 1)), 1.0))
    inside = image * (0.18 + 0.45 * wall[..., None])
    return image + edge[..., None] * (inside - image), edge > 0.1


def _dent(image: Floats, rng: np.random.Generator) -> tuple[Floats, Bools]:
    """Press a round dent: the texture is pulled towards or from its centre, and one side is shaded."""
    row, column = _place(rng, 50)
    radius = rng.uniform(24, 36)
    power = rng.choice([-0.35, 0.8])
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    down, right = (rows - row) / radius, (columns - column) / radius
    distance = np.hypot(down, right)
    # 1 at the border and outside, so that the texture runs on into the surroundings.
    pull = np.clip(distance, 0.05, 1) ** power
    source = np.stack([row + down * pull * radius, column + right * pull * radius])
    warped = np.stack([transform.warp(image[..., c], source, order=1, mode="edge") for c in range(3)], axis=-1)
    light = rng.uniform(0, 2 * np.pi)
    slope = np.sin(light) * down + np.cos(light) * right
    shade = 1 + 0.45 * slope * np.sin(np.pi * np.clip(distance, 0, 1))
    return warped * shade[..., None], distance < 0.98


def _thread(image: Floats, rng: np.random.Generator) -> tuple[Floats, Bools]:
    """Lay a wavy coloured fibre on the surface, with its shadow."""
    steps = rng.integers(32, 55)
    bearings = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(rng.uniform(-0.08, 0.08), 0.16, steps))
    path = np.cumsum(3 * np.stack([np.sin(bearings), np.cos(bearings)], axis=1), axis=0)
    path = np.clip(np.rint(path - path.mean(axis=0) + _place(rng, 80)), _RIM, SIZE - 1 - _RIM).astype(int)
    fibre = np.zeros(image.shape[:2])
    for (r0, c0), (r1, c1) in itertools.pairwise(path):
        fibre[draw.line(r0, c0, r1, c1)] = 1
    fibre = _peak_one(filters.gaussian(fibre, rng.uniform(0.8, 1.1)))
    shadow = np.roll(fibre, (3, 2), axis=(0, 1))
    colour = np.array([(0.97, 0.95, 0.90), (0.25, 0.33, 0.60), (0.62, 0.20, 0.22)][rng.integers(3)])
    shaded = image * (1 - 0.4 * shadow[..., None])
    return shaded + 0.9 * fibre[..., None] * (colour - shaded), np.maximum(fibre, shadow) > 0.15


DEFECTS: dict[str, Defect] = {
    "dent": _dent,
    "hole": _hole,
    "scratch": _scratch,
    "stain": _stain,
    "thread": _thread,
}
"""Kinds of defect: name (the prefix of the file names) and the function that draws one."""


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


def _place(rng: np.random.Generator, margin: float) -> Floats:
    return rng.uniform(margin, SIZE - margin, 2)


def _peak_one(profile: Floats) -> Floats:
    scaled: Floats = profile / profile.max()
    return scaled


def _to_bytes(image: Floats) -> Bytes:
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
