"""Patches of images of a batch, each of its own size and place, read and written without a loop over the batch.

An image is a row of ``H * W`` pixels here, and a patch an index into it. The index has room for the largest patch there
can be; beyond a smaller one it repeats that patch's last pixel, which is read and written again, the same.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Patch(NamedTuple):
    """The pixels of patches of up to N pixels, row by row.

    Attributes:
        rows: float ``(B, N)``, counted from the patch's first row.
        columns: float ``(B, N)``, counted from the patch's first column.
        valid: bool ``(B, N)``, false for what is repeated.
    """

    rows: Tensor
    columns: Tensor
    valid: Tensor

    def at(self, ys: Tensor, xs: Tensor, image_width: int) -> Tensor:
        """Return the index int64 ``(B, N)`` of the patch whose first pixel lies at row ``ys``, column ``xs``."""
        offsets = torch.add(self.columns, self.rows, alpha=image_width).long()
        return offsets.add_((ys * image_width + xs)[:, None])


def patches(heights: Tensor, widths: Tensor, room: int, image_size: tuple[int, int]) -> Patch:
    """Return the pixels of patches of ``heights`` and ``widths`` int64 ``(B,)``, at most ``room`` each."""
    # a float's quotient is many times faster than an integer's; in float32 it is exact up to 2^22 pixels
    dtype = torch.float32 if image_size[0] * image_size[1] < 2**22 else torch.float64
    area, width = (heights * widths).to(dtype)[:, None], widths.to(dtype)[:, None]
    number = torch.arange(room, device=heights.device, dtype=dtype)
    pixel = torch.minimum(number, area - 1)
    rows = ((pixel + 0.5) / width).floor_()
    return Patch(rows, torch.addcmul(pixel, rows, width, value=-1), number < area)


def read(images: Tensor, index: Tensor) -> Tensor:
    """Return the pixels ``(B, C, N)`` of images ``(B, C, H, W)`` at ``index`` ``(B, N)``."""
    return images.flatten(2).gather(2, index[:, None].expand(-1, images.shape[1], -1))


def write(images: Tensor, index: Tensor, pixels: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return a copy of images ``(B, C, H, W)`` with pixels ``(B, C, N)`` at ``index`` ``(B, N)``.

    ``valid`` ``(B, N)`` is false for what repeats another pixel.
    """
    if valid is not None and pixels.requires_grad:
        # a pixel that is written several times has its gradient once
        pixels = torch.where(valid[:, None], pixels, pixels.detach())
    return images.flatten(2).scatter(2, index[:, None].expand(-1, images.shape[1], -1), pixels).view(images.shape)


def unite(masks: Tensor, index: Tensor, changed: Tensor | None = None) -> Tensor:
    """Return masks ``(B, C, H, W)`` that are at least 1 at ``index`` ``(B, N)``, where ``changed`` ``(B, N)`` holds."""
    here = read(masks, index)
    least = here.new_ones(()) if changed is None else changed[:, None].to(here.dtype)
    return write(masks, index, torch.maximum(here, least))
