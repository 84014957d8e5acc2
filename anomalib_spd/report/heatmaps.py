"""The sheet: anomalous images with the heatmaps of two backbones, the best, the median and the worst.

Scores of two backbones cannot be compared. A colour therefore stands for the share of the normal images' pixels that
score higher: the false positive rate at which that pixel would be flagged.
"""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from anomalib_spd.benchmark.results import FALSE_POSITIVE_RATES, Result, Scores
from anomalib_spd.metrics.areas import aupr_step
from anomalib_spd.report.comparison import Findings, Pair

COLOURS = "inferno"
#: pixels of the larger side of a photograph
SIDE = 192


@dataclass(frozen=True)
class Picture:
    """One image of the sheet; pictures are ``data:`` addresses, absent where they are not shown.

    Attributes:
        place: ``best``, ``median`` or ``worst``.
        name: end of the image's path.
        rank: figure that it is ranked by.
        photograph: as the detector saw it.
        truth: its mask.
        heatmaps: of A and of B.
    """

    place: str
    name: str
    rank: float
    photograph: str | None
    truth: str | None
    heatmaps: tuple[str, str]


@dataclass(frozen=True)
class Sheet:
    """The images of one category.

    Attributes:
        category: label.
        seed: of the detector.
        ranked_by_pixels: by A's pixel AU-PR of the image; otherwise by the share of normal images that score lower.
        pictures: of it.
    """

    category: str
    seed: int
    ranked_by_pixels: bool
    pictures: Sequence[Picture]


def sheets(findings: Findings, pair: Pair, detector: str, *, images: bool = True) -> list[Sheet]:
    """A sheet for every category that A and B were both measured on, at the first seed that they share.

    Args:
        findings: of a folder of results.
        pair: A, by which the images are ranked, and B.
        detector: label.
        images: whether photographs and masks are shown.
    """
    found = []
    for category in findings.grid.categories:
        for a, b in list(zip(*findings.matched(pair, detector, "image_AUROC", category), strict=True))[:1]:
            found.append(_sheet(a, b, images))
    return [sheet for sheet in found if sheet.pictures]


def false_positive_rate(scores: Scores, values: NDArray[Any]) -> NDArray[np.float64]:
    """The share of the normal images' pixels that score higher, from 1 to 1e-4, between the noted ones on a log scale.

    Args:
        scores: of one run.
        values: scores of pixels, of any shape.
    """
    noted = scores.false_positive_score.astype(float)
    return np.asarray(10 ** np.interp(values.astype(float), noted, np.log10(FALSE_POSITIVE_RATES)))


def ranking(scores: Scores) -> tuple[NDArray[np.int64], NDArray[np.float64], bool]:
    """The anomalous images, those that were recognised best first.

    Args:
        scores: of one run.

    Returns:
        Their places among all images, the figure that each is ranked by, and whether this is the pixel AU-PR within the
        image. Where there are no masks it is the share of normal images that score lower. Ties go by the image's score.
    """
    chosen = np.flatnonzero(scores.image_label & (scores.pixel_positive.sum(1) > 0))
    by_pixels = bool(len(chosen))
    if by_pixels:
        positive, negative = scores.pixel_positive[chosen], scores.pixel_negative[chosen]
        figures = aupr_step(torch.from_numpy(positive), torch.from_numpy(negative)).numpy()
    else:
        chosen = np.flatnonzero(scores.image_label)
        normal = np.sort(scores.image_score[~scores.image_label])
        figures = np.searchsorted(normal, scores.image_score[chosen]) / max(1, len(normal))
    order = np.lexsort((-scores.image_score[chosen], -figures))
    return chosen[order], figures[order], by_pixels


def gradient() -> str:
    """The colours from a false positive rate of 1 to one of 1e-4, as CSS."""
    colours = mpl.colormaps[COLOURS](np.linspace(0, 1, 17))
    return ", ".join(mpl.colors.to_hex(colour) for colour in colours)


def _sheet(a: Result, b: Result, images: bool) -> Sheet:
    of_a, of_b = a.scores(), b.scores()
    order, figures, by_pixels = ranking(of_a)
    size = a.record["sizes"]
    pictures = []
    # of one or two images, none stands there twice
    places = {(len(order) - 1) // 2: "median", len(order) - 1: "worst", 0: "best"} if len(order) else {}
    for at, place in sorted(places.items()):
        index = order[at]
        photograph, mask = str(of_a.image_path[index]), str(of_a.mask_path[index])
        pictures.append(
            Picture(
                place,
                "/".join(Path(photograph).parts[-2:]),
                float(figures[at]),
                _seen(photograph, size, "RGB") if images else None,
                _seen(mask, size, "L") if images else None,
                (_heatmap(of_a, index), _heatmap(of_b, index)),
            )
        )
    return Sheet(a.cell.category, a.cell.seed, by_pixels, pictures)


def _heatmap(scores: Scores, index: int) -> str:
    height = -np.log10(false_positive_rate(scores, scores.anomaly_map[index])) / -np.log10(FALSE_POSITIVE_RATES[-1])
    levels = len(FALSE_POSITIVE_RATES) - 1
    image = Image.fromarray(np.round(levels * height).astype(np.uint8), "P")
    palette = mpl.colormaps[COLOURS](np.linspace(0, 1, levels + 1))[:, :3]
    image.putpalette(np.round(255 * palette).astype(np.uint8).tobytes())
    return _address(lambda file: image.save(file, "PNG", optimize=True), "png")


def _seen(path: str, size: dict[str, Any], mode: str) -> str | None:
    """An image or a mask as the detector saw it: resized, then its centre; ``None`` where the file is not there."""
    try:
        with Image.open(path) as file:
            image = file.convert(mode)
    except OSError:
        return None
    mask = mode == "L"
    if size["image_size"]:
        height, width = size["image_size"]
        image = image.resize((width, height), Image.Resampling.NEAREST if mask else Image.Resampling.BILINEAR)
    if size["crop"]:
        height, width = size["crop"]
        left, top = round((image.width - width) / 2), round((image.height - height) / 2)
        image = image.crop((left, top, left + width, top + height))
    image.thumbnail((SIDE, SIDE), Image.Resampling.NEAREST if mask else Image.Resampling.BILINEAR)
    if mask:
        truth = image.point(lambda value: 255 * (value > 0)).convert("1", dither=Image.Dither.NONE)
        return _address(lambda file: truth.save(file, "PNG", optimize=True), "png")
    return _address(lambda file: image.save(file, "JPEG", quality=82), "jpeg")


def _address(save: Callable[[BytesIO], None], kind: str) -> str:
    file = BytesIO()
    save(file)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
