"""Grids of heatmaps: the best, the median and the worst anomalous image of a category, with two backbones' heatmaps.

Scores of two backbones cannot be compared. A color therefore stands for the share of the normal images' pixels that score
higher: the false positive rate at which that pixel would be flagged.
"""

import base64
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from anomalib_spd.benchmark.results import FALSE_POSITIVE_RATES, Result, Scores
from anomalib_spd.metrics.areas import aupr_step
from anomalib_spd.report.comparison import GridResults, Pair, matched

COLORS = "inferno"
#: pixels of the larger side of a photograph in the page
LARGER_SIDE = 192


class Picture(NamedTuple):
    """One image of a grid: ``rank`` is best, median or worst, ``value`` ranks it.

    ``photograph`` is the image as the detector saw it, ``truth`` its mask, ``heatmaps`` those of A and B: ``data:``
    addresses, ``None`` where they are not shown.
    """

    rank: str
    name: str
    value: float
    photograph: str | None
    truth: str | None
    heatmaps: tuple[str, str]


class HeatmapGrid(NamedTuple):
    """The images of one category, best first.

    They are ranked ``by_pixels``, by A's pixel AU-PR of the image; otherwise by the share of normal images that score lower.
    """

    category: str
    seed: int
    by_pixels: bool
    pictures: Sequence[Picture]


def heatmap_grids(grid: GridResults, pair: Pair, detector: str, *, images: bool = True) -> list[HeatmapGrid]:
    """Return a grid for every category on which A and B were both measured, at the first seed that they share.

    Args:
        grid: the results.
        pair: A, by which the images are ranked, and B.
        detector: label.
        images: whether photographs and masks are shown.
    """
    found = []
    for category in grid.categories:
        a, b = matched(grid.measured, pair, detector, "image_AUROC", category)
        found += [heatmap_grid(a[0], b[0], images)] if a else []
    return [heatmaps for heatmaps in found if heatmaps.pictures]


def heatmap_grid(a: Result, b: Result, images: bool) -> HeatmapGrid:
    """Return the grid of two cells of one category and seed."""
    scores_a, scores_b = a.scores(), b.scores()
    order, values, by_pixels = ranking(scores_a)
    last = len(order) - 1
    # of one or two images, none is shown twice
    ranks = {last // 2: "median", last: "worst", 0: "best"} if len(order) else {}
    pictures = []
    for at, rank in sorted(ranks.items()):
        index = order[at]
        photograph, mask = str(scores_a.image_path[index]), str(scores_a.mask_path[index])
        pictures.append(
            Picture(
                rank,
                "/".join(Path(photograph).parts[-2:]),
                float(values[at]),
                _as_seen(photograph, a.record["sizes"], "RGB") if images else None,
                _as_seen(mask, a.record["sizes"], "L") if images else None,
                (_heatmap(scores_a, index), _heatmap(scores_b, index)),
            )
        )
    return HeatmapGrid(a.cell.category, a.cell.seed, by_pixels, pictures)


def false_positive_rate(scores: Scores, values: NDArray[Any]) -> NDArray[np.float64]:
    """Return the share of the normal images' pixels that score higher, from 1 to 1e-4, interpolated on a log scale.

    Args:
        scores: of one run.
        values: scores of pixels, of any shape.
    """
    noted = scores.false_positive_score.astype(float)
    return np.asarray(10 ** np.interp(values.astype(float), noted, np.log10(FALSE_POSITIVE_RATES)))


def ranking(scores: Scores) -> tuple[NDArray[np.int64], NDArray[np.float64], bool]:
    """Rank the anomalous images, the best recognized first; ties go by the image's score.

    Args:
        scores: of one run.

    Returns:
        Indices among all images, the value that ranks each, and whether this is the pixel AU-PR within the image.
        Without masks it is the share of normal images that score lower.
    """
    chosen = np.flatnonzero(scores.image_label & (scores.pixel_positive.sum(1) > 0))
    by_pixels = bool(len(chosen))
    if by_pixels:
        positive, negative = scores.pixel_positive[chosen], scores.pixel_negative[chosen]
        values = aupr_step(torch.from_numpy(positive), torch.from_numpy(negative)).numpy()
    else:
        chosen = np.flatnonzero(scores.image_label)
        normal = np.sort(scores.image_score[~scores.image_label])
        values = np.searchsorted(normal, scores.image_score[chosen]) / max(1, len(normal))
    order = np.lexsort((-scores.image_score[chosen], -values))
    return chosen[order], values[order], by_pixels


def gradient() -> str:
    """Return the colors from a false positive rate of 1 to one of 1e-4, as CSS."""
    return ", ".join(mpl.colors.to_hex(color) for color in mpl.colormaps[COLORS](np.linspace(0, 1, 17)))


def _heatmap(scores: Scores, index: int) -> str:
    height = np.log10(false_positive_rate(scores, scores.anomaly_map[index])) / np.log10(FALSE_POSITIVE_RATES[-1])
    levels = len(FALSE_POSITIVE_RATES) - 1
    image = Image.fromarray(np.round(levels * height).astype(np.uint8), "P")
    palette = mpl.colormaps[COLORS](np.linspace(0, 1, levels + 1))[:, :3]
    image.putpalette(np.round(255 * palette).astype(np.uint8).tobytes())
    return _data_address(image, "png", optimize=True)


def _as_seen(path: str, sizes: dict[str, Any], mode: str) -> str | None:
    """Return an image or a mask as the detector saw it, resized and cropped; ``None`` where the file is gone."""
    try:
        with Image.open(Path(path)) as file:  # Pillow 10 has no OSError for the empty path of a good image's mask
            image = file.convert(mode)
    except OSError:
        return None
    filter_ = Image.Resampling.NEAREST if mode == "L" else Image.Resampling.BILINEAR
    if sizes["image_size"]:
        image = image.resize(sizes["image_size"][::-1], filter_)
    if sizes["crop"]:
        height, width = sizes["crop"]
        left, top = round((image.width - width) / 2), round((image.height - height) / 2)
        image = image.crop((left, top, left + width, top + height))
    image.thumbnail((LARGER_SIDE, LARGER_SIDE), filter_)
    if mode == "RGB":
        return _data_address(image, "jpeg", quality=82)
    truth = image.point(lambda value: 255 * (value > 0)).convert("1", dither=Image.Dither.NONE)
    return _data_address(truth, "png", optimize=True)


def _data_address(image: Image.Image, extension: str, **options: Any) -> str:
    file = BytesIO()
    image.save(file, extension, **options)
    return f"data:image/{extension};base64,{base64.b64encode(file.getvalue()).decode()}"
