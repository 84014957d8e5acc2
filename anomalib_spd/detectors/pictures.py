"""Pictures of what a detector found: photograph and anomaly map side by side, and a contact sheet of many."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

COLORS = "inferno"
#: longer edge of a photograph in a picture, and the space around it, pixels
PANEL, GAP = 256, 10
#: pixels above the photograph: two lines of text
HEADER = 50
COLUMNS = 3

PAPER, INK, FAINT = "#ffffff", "#1a1b1c", "#6b6c6e"
# of Okabe and Ito, which color-blind readers can distinguish; what they say stands beside them in words
RIGHT, WRONG = "#00795a", "#c34a00"
# rare in products, and not in the colors of the map
TRUTH = "#00e5ff"
# the border that the detector never saw
HATCH = ("#8f9092", "#d9dadb")


class Inspection(NamedTuple):
    """What is known of one image.

    Attributes:
        name: how the image is named in its picture.
        photograph: as read from its file, RGB.
        region: left, top, right and bottom of the part that the detector saw, in pixels of the photograph.
        anomaly_map: normalized scores of this part, ``(H, W)`` in [0, 1]; None where the detector has none.
        truth: the true mask, True where defective, of the photograph's height and width; None where unknown.
        score: normalized score of the image, in [0, 1].
        defective: the detector's verdict.
        truly_defective: the true label; None where unknown.
    """

    name: str
    photograph: Image.Image
    region: tuple[float, float, float, float]
    anomaly_map: NDArray[np.floating[Any]] | None = None
    truth: NDArray[np.bool_] | None = None
    score: float | None = None
    defective: bool | None = None
    truly_defective: bool | None = None


def draw(inspection: Inspection, threshold: float = 0.5) -> Image.Image:
    """Draw one image: its verdict above the photograph with the true outline, and its anomaly map in fixed colors.

    Args:
        inspection: what is known of it.
        threshold: of the map, whose contour is drawn.

    Returns:
        An RGB picture, of the same width for all photographs.
    """
    photograph = inspection.photograph
    scale = PANEL / max(photograph.size)
    size = (max(1, round(scale * photograph.width)), max(1, round(scale * photograph.height)))
    left, top, right, bottom = (round(scale * edge) for edge in inspection.region)
    box = (left, top, max(right, left + 1), max(bottom, top + 1))

    seen = photograph.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    # hatched, not only paler: that would not be seen on gray parts
    shaded = Image.blend(seen, _hatched(size), 0.75)
    shaded.paste(seen.crop(box), box)
    panels = [shaded, _map_panel(inspection.anomaly_map, size, box, threshold)]
    if inspection.truth is not None:
        # a pixel of the panel is defective where any pixel of the photograph is: thin defects do not vanish
        truth = Image.fromarray(inspection.truth.astype(np.float32)).resize(size, Image.Resampling.BOX)
        for panel in panels:
            draw_outline(panel, np.asarray(truth) > 0, TRUTH, width=2, halo=1)

    picture = Image.new("RGB", (2 * PANEL + 3 * GAP, HEADER + size[1] + GAP), PAPER)
    for column, panel in enumerate(panels):
        picture.paste(panel, (GAP + column * (PANEL + GAP) + (PANEL - size[0]) // 2, HEADER))
    _write_header(picture, inspection)
    return picture


def contact_grid(
    pictures: Sequence[Path], title: str, lines: Sequence[str], threshold: float = 0.5, *, border: bool = False
) -> Image.Image:
    """Arrange pictures of `draw` in rows below a title and a legend.

    Args:
        pictures: their files, in order.
        title: the first line.
        lines: more lines of text.
        threshold: of the maps, marked on the scale.
        border: whether the legend explains the border that was not inspected.

    Returns:
        An RGB picture.
    """
    cells = []
    for path in pictures:
        with Image.open(path) as file:
            cells.append(file.convert("RGB"))
    columns = max(1, min(COLUMNS, len(cells)))
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    heights = [max(cell.height for cell in row) + GAP for row in rows]
    # a narrow one still holds the legend
    cell_width = 2 * PANEL + 4 * GAP
    width = max(2, columns) * cell_width + GAP
    legend_top = 52 + 22 * len(lines)
    top = legend_top + 76
    grid_size = (width, top + sum(heights))
    picture = Image.new("RGB", grid_size, PAPER)
    pen = ImageDraw.Draw(picture)
    pen.text((2 * GAP, 14), fit_text(title, font_of(22, bold=True), width - 4 * GAP), INK, font_of(22, bold=True))
    for number, line in enumerate(lines):
        pen.text((2 * GAP, 48 + 22 * number), fit_text(line, font_of(15), width - 4 * GAP), INK, font_of(15))
    _draw_legend(picture, legend_top, threshold, border)
    for row, height in zip(rows, heights, strict=True):
        pen.line((2 * GAP, top - GAP // 2, width - 2 * GAP, top - GAP // 2), HATCH[1])
        for column, cell in enumerate(row):
            picture.paste(cell, (GAP + column * cell_width, top))
        top += height
    return picture


def _map_panel(
    scores: NDArray[np.floating[Any]] | None, size: tuple[int, int], box: tuple[int, int, int, int], threshold: float
) -> Image.Image:
    panel = _hatched(size)
    if scores is None:
        text = "no anomaly map"
        ImageDraw.Draw(panel).text((size[0] / 2, size[1] / 2), text, INK, font_of(14), anchor="mm", stroke_fill=PAPER)
        return panel
    map_size = (box[2] - box[0], box[3] - box[1])
    resized = Image.fromarray(np.asarray(scores, dtype=np.float32)).resize(map_size, Image.Resampling.BILINEAR)
    values = np.asarray(resized)
    colors = Image.fromarray(_colored(values))
    # a contour inside what is above the threshold
    above = values > threshold
    draw_outline(colors, ~above, PAPER, width=1)
    panel.paste(colors, box[:2])
    return panel


def draw_outline(image: Image.Image, mask: NDArray[np.bool_], color: str, width: int, halo: int = 0) -> None:
    """Draw a line around a mask, on the pixels that are not in it, and a dark one around the line.

    Args:
        image: RGB, changed in place.
        mask: of its height and width.
        color: of the line.
        width: of the line, pixels.
        halo: width of the dark line, pixels.
    """
    filled = Image.fromarray(np.where(mask, np.uint8(255), np.uint8(0)))
    for reach, drawn in ((width + halo, INK), (width, color)):
        around = np.asarray(filled.filter(ImageFilter.MaxFilter(2 * reach + 1))) > 0
        image.paste(drawn, mask=Image.fromarray(np.where(around & ~mask, np.uint8(255), np.uint8(0))))


def _write_header(picture: Image.Image, inspection: Inspection) -> None:
    pen = ImageDraw.Draw(picture)
    verdict, truth = inspection.defective, inspection.truly_defective
    parts = [] if inspection.score is None else [f"{inspection.score:.2f}"]
    parts += [] if verdict is None else ["defective" if verdict else "good"]
    pen.text((GAP, 4), "  ".join(parts), INK, font_of(17, bold=True))
    if verdict is not None and truth is not None:
        judged = "✓ right" if verdict == truth else "✗ false alarm" if verdict else "✗ missed"
        color = RIGHT if verdict == truth else WRONG
        pen.text((picture.width - GAP, 4), judged, color, font_of(17, bold=True), anchor="ra")
        pen.line((2, 4, 2, picture.height - GAP), color, width=4)
    name = fit_text(inspection.name, font_of(13), picture.width - 2 * GAP)
    pen.text((GAP, 27), name, FAINT, font_of(13))


def _draw_legend(picture: Image.Image, top: int, threshold: float, border: bool) -> None:
    pen, font = ImageDraw.Draw(picture), font_of(13)
    left, length, height = 2 * GAP, 300, 16
    picture.paste(
        Image.fromarray(_colored(np.tile(np.linspace(0, 1, length, dtype=np.float32), (height, 1)))), (left, top + 20)
    )
    pen.text((left, top), "anomaly score, one scale for all maps", INK, font)
    at = left + round(threshold * (length - 1))
    pen.line((at, top + 20, at, top + 19 + height), PAPER, width=2)
    marks = ((0.0, "0", "la"), (threshold, f"{threshold:g} threshold", "ma"), (1.0, "1", "ra"))
    for value, text, anchor in marks:
        pen.text((left + value * (length - 1), top + 40), text, INK, font, anchor=anchor)

    left += length + 4 * GAP
    entries = [("true outline", TRUTH), ("contour of the map at the threshold", PAPER)]
    for number, (text, color) in enumerate(entries):
        y = top + 22 * number
        pen.rectangle((left, y, left + 26, y + 15), INK)
        pen.rectangle((left + 4, y + 4, left + 22, y + 11), outline=color, width=2)
        pen.text((left + 36, y), text, INK, font)
    if border:
        picture.paste(_hatched((26, 15)), (left, top + 44))
        pen.text((left + 36, top + 44), "not inspected: cropped away", INK, font)


def _hatched(size: tuple[int, int]) -> Image.Image:
    rows, columns = np.indices(size[::-1])
    stripes = Image.fromarray(np.where((rows + columns) % 10 < 3, np.uint8(255), np.uint8(0)))
    image = Image.new("RGB", size, HATCH[1])
    image.paste(HATCH[0], mask=stripes)
    return image


def _colored(values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    colors: NDArray[np.uint8] = np.round(255 * mpl.colormaps[COLORS](np.clip(values, 0, 1))[..., :3]).astype(np.uint8)
    return colors


def fit_text(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Return a text that fits, without its beginning where it is too long: the end of a path names the image.

    Args:
        text: one line.
        font: of the text.
        width: that there is, pixels.
    """
    fitted = text
    while text and font.getlength(fitted) > width:
        text = text[1:]
        fitted = f"…{text}"
    return fitted


def font_of(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return a font, the same on all machines.

    Args:
        size: pixels.
        bold: whether bold.
    """
    # matplotlib brings it along, so that all machines draw the same
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    # as text: Pillow 10.1 takes no path
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / name), size)
