"""A table of pictures: a row an image, a column each thing that is shown of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from anomalib_spd.files import atomic_write

Columns = Mapping[str, Sequence[Tensor] | Tensor]


def write_picture_table(columns: Columns, path: Path, outlines: Columns | None = None) -> None:
    """Write images as a table with a title for each column.

    Args:
        columns: title of each, and its images, ``(C, H, W)`` in ``[0, 1]``, as many in each column.
        path: of the picture; ``.jpg`` or ``.png``.
        outlines: title of a column, and masks ``(1, H, W)`` whose outlines are drawn on its images.

    Raises:
        OSError: where the file cannot be written.
    """
    rows = len(next(iter(columns.values())))
    lines = [title.split("\n") for title in columns]
    header = 0.05 + 0.2 * max(map(len, lines))
    # that two inches hold
    font_size = min(10, 240 / max(len(line) for title in lines for line in title))
    size = (2.0 * len(columns), 2.0 * rows + header)
    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, len(columns), squeeze=False)
    figure.subplots_adjust(0.002, 0.004, 0.998, 1 - header / size[1], wspace=0.02, hspace=0.02)
    for number, (title, images) in enumerate(columns.items()):
        axes[0, number].set_title(title, fontsize=font_size, pad=3)
        for row, (axis, image) in enumerate(zip(axes[:, number], images, strict=True)):
            axis.imshow(np.asarray(image.movedim(0, -1)), cmap="gray", vmin=0, vmax=1)
            axis.set_axis_off()
            if outlines and title in outlines:
                axis.contour(np.asarray(outlines[title][row].squeeze()), levels=[0.5], colors="cyan", linewidths=1.5)
    jpeg = path.suffix.lower() in (".jpg", ".jpeg")
    with atomic_write(path) as file:
        figure.savefig(file, format="jpeg" if jpeg else "png", dpi=120, pil_kwargs={"quality": 85} if jpeg else {})
