"""Patches of float32 images in a CPU's memory, by the extension in C; where :func:`anomalib_spd.native.serves` says so."""

import torch
from torch import Tensor

from anomalib_spd import native
from anomalib_spd.augmentation.color_jitter import ColorMap

_BOX = ("heights", "widths", "source_ys", "source_xs", "target_ys", "target_xs")
_FEW_THREADS = 4


def swap_patches(images: Tensor, params: dict[str, Tensor]) -> Tensor:
    """Return images ``(B, C, H, W)`` in which the patches at the two places that ``params`` says have changed places.

    Raises:
        ValueError: where a patch leaves its image, as in all functions here.
    """
    return _call("swap_patches", images, _boxes(params))


def paste_patches(images: Tensor, params: dict[str, Tensor], colors: ColorMap | None) -> Tensor:
    """Return images ``(B, C, H, W)`` that have a patch at another place again, in other colours."""
    return _call("paste_patches", images, _boxes(params), *_arrays(colors))


def blend_patches(
    images: Tensor,
    params: dict[str, Tensor],
    colors: ColorMap | None,
    places: Tensor,
    rows: Tensor,
    columns: Tensor,
    bare: bool,
) -> Tensor:
    """Return images ``(B, C, H, W)`` into which a patch, its edge continued, is blended in a window of each.

    Args:
        images: as above.
        params: where the patch is, and where it comes to lie.
        colors: what its colours become.
        places: first row and column of the window, int64 ``(B, 2)``.
        rows: how much of the patch is seen in each row of the window, ``(B, h)``; this times that of the column.
        columns: likewise, ``(B, w)``.
        bare: zeros around the patch, not its edge.
    """
    window = places.contiguous(), rows.contiguous(), columns.contiguous(), rows.shape[1], columns.shape[1], int(bare)
    return _call("blend_patches", images, _boxes(params), *_arrays(colors), *window)


def _boxes(params: dict[str, Tensor]) -> Tensor:
    return torch.stack([params[name] for name in _BOX], 1).long()


def _arrays(colors: ColorMap | None) -> tuple[Tensor | None, ...]:
    return (None,) * 3 if colors is None else tuple(each.contiguous() for each in colors)


def _call(name: str, images: Tensor, boxes: Tensor, *rest: native.Argument) -> Tensor:
    # a few threads copy little faster than one, for which an image stays in the cache; many do
    copied = torch.get_num_threads() > _FEW_THREADS
    output = images.clone() if copied else torch.empty_like(images)
    refused = native.call(name, output, images, boxes, *rest, int(copied), *images.shape)
    if refused:
        height, width = images.shape[-2:]
        msg = f"Patches leave their images of {height} x {width} pixels: {refused} of {len(images)}."
        raise ValueError(msg)
    return output
