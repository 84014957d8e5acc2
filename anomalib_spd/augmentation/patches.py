"""Patches of images of a batch, each of its own size and place, read and written without a loop over the batch.

An image is a row of ``H * W`` pixels here, and a patch an index into it. The index has room for the largest patch there
can be; beyond a smaller one it repeats that patch's last pixel, which is read and written again, the same.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Patch(NamedTuple):
    """Where the pixels of patches of up to N pixels lie, row by row.

    Attributes:
        offsets: int64 ``(B, N)``, from a patch's first pixel.
        area: int64 ``(B, 1)``, pixels; what follows is repeated.
    """

    offsets: Tensor
    area: Tensor

    def at(self, ys: Tensor, xs: Tensor, image_width: int) -> Tensor:
        """Return the index int64 ``(B, N)`` of the patches whose first pixels lie at rows ``ys``, columns ``xs``."""
        return self.offsets + torch.add(xs, ys, alpha=image_width)[:, None]

    def valid(self) -> Tensor:
        """Return bool ``(B, N)``, false for what is repeated."""
        return torch.arange(self.offsets.shape[1], device=self.offsets.device) < self.area

    def mean(self, pixels: Tensor) -> Tensor:
        """Return the mean ``(B, C, 1)`` of the patches' pixels ``(B, C, N)``."""
        dtype = torch.promote_types(pixels.dtype, torch.float32)
        repeated = (self.offsets.shape[1] - self.area)[:, None]
        total = pixels.sum(2, keepdim=True, dtype=dtype)
        return torch.addcmul(total, repeated.to(dtype), pixels[:, :, -1:].to(dtype), value=-1) / self.area[:, None]


def patches(heights: Tensor, widths: Tensor, room: int, image_size: tuple[int, int]) -> Patch:
    """Return the patches of ``heights`` and ``widths`` int64 ``(B,)``, of at most ``room`` pixels each."""
    # a float's quotient is many times faster than an integer's; in float32 it is exact up to 2^22 pixels
    dtype = torch.float32 if image_size[0] * image_size[1] < 2**22 else torch.float64
    number = torch.arange(room, device=heights.device, dtype=dtype)
    rows = ((number + 0.5) / widths[:, None]).floor_()
    # from row to row the image has so many pixels more than the patch
    offsets = rows.mul_(image_size[1] - widths[:, None]).add_(number)
    last = torch.add(widths - 1, heights - 1, alpha=image_size[1])[:, None]
    return Patch(offsets.clamp_(max=last.to(dtype)).long(), (heights * widths)[:, None])


def read(images: Tensor, index: Tensor) -> Tensor:
    """Return the pixels ``(B, C, N)`` of images ``(B, C, H, W)`` at ``index`` ``(B, N)``."""
    return images.flatten(2).gather(2, index[:, None].expand(-1, images.shape[1], -1))


def once(patch: Patch, pixels: Tensor) -> Tensor:
    """Return pixels ``(B, C, N)`` such that the one that is written repeatedly has its gradient once."""
    return torch.where(patch.valid()[:, None], pixels, pixels.detach()) if pixels.requires_grad else pixels


def write(images: Tensor, *pieces: tuple[Tensor, Tensor]) -> Tensor:
    """Return a copy of images ``(B, C, H, W)`` that has, of each piece, pixels ``(B, C, N)`` at index ``(B, N)``."""
    # after all is read and computed: a copy drives everything else out of a CPU's cache
    output = images.clone(memory_format=torch.contiguous_format)
    for index, pixels in pieces:
        output.flatten(2).scatter_(2, index[:, None].expand(-1, images.shape[1], -1), pixels)
    return output


def unite(masks: Tensor, *pieces: tuple[Tensor, Tensor | None]) -> Tensor:
    """Return masks ``(B, C, H, W)`` that are at least 1 at each index ``(B, N)``, where bool ``(B, N)``, if any, holds."""
    united = []
    for index, changed in pieces:
        here = read(masks, index)
        least = here.new_ones(()) if changed is None else changed[:, None].to(here.dtype)
        united.append((index, torch.maximum(here, least)))
    return write(masks, *united)
