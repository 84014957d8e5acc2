"""A contact sheet of drawn defects: each image beside itself with the true outline."""

from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from anomalib_spd.detectors.pictures import (
    COLUMNS,
    FAINT,
    GAP,
    INK,
    PANEL,
    PAPER,
    TRUTH,
    draw_outline,
    fit_text,
    font_of,
)

#: images in it
MOST = 60
_HEADER = 50
_CAPTION = 22


def to_picture(image: Tensor) -> Image.Image:
    """Return an image as RGB.

    Args:
        image: float ``(3, H, W)`` in ``[0, 1]``.
    """
    return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())


def defect_grid(defects: Iterable[tuple[str, Image.Image, Image.Image]], title: str) -> Image.Image:
    """Arrange drawn defects in rows: the image as it is, and with the outline of its defect.

    Args:
        defects: caption, image and mask, black where there is no defect.
        title: the first line.

    Returns:
        An RGB picture.
    """
    cells = [_cell(*each) for each in defects]
    rows = [cells[start : start + COLUMNS] for start in range(0, len(cells), COLUMNS)]
    width = max(2, min(COLUMNS, len(cells))) * (2 * PANEL + 3 * GAP) + GAP
    picture = Image.new("RGB", (width, _HEADER + sum(max(cell.height for cell in row) for row in rows) + GAP), PAPER)
    bold = font_of(22, bold=True)
    ImageDraw.Draw(picture).text((2 * GAP, 14), fit_text(title, bold, width - 4 * GAP), INK, bold)
    top = _HEADER
    for row in rows:
        for column, cell in enumerate(row):
            picture.paste(cell, (GAP + column * (2 * PANEL + 3 * GAP), top))
        top += max(cell.height for cell in row)
    return picture


def _cell(caption: str, image: Image.Image, mask: Image.Image) -> Image.Image:
    scale = PANEL / max(image.size)
    size = (max(1, round(scale * image.width)), max(1, round(scale * image.height)))
    plain = image.resize(size, Image.Resampling.LANCZOS)
    # a pixel is defective where any pixel below it is: thin defects do not vanish
    truth = np.asarray(Image.fromarray(np.asarray(mask, np.float32)).resize(size, Image.Resampling.BOX)) > 0
    outlined = plain.copy()
    draw_outline(outlined, truth, TRUTH, width=2, halo=1)
    cell = Image.new("RGB", (2 * PANEL + GAP, _CAPTION + size[1] + GAP), PAPER)
    font = font_of(13)
    ImageDraw.Draw(cell).text((0, 2), fit_text(caption, font, cell.width), FAINT, font)
    for number, panel in enumerate((plain, outlined)):
        cell.paste(panel, (number * (PANEL + GAP), _CAPTION))
    return cell
