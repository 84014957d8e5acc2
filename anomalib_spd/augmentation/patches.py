"""Patches of a batch's images, each of its own size and location, read and written without a loop over the batch.

An image is a row of ``H * W`` pixels here, and a patch is an index into it. Each index has as many entries as the largest
possible patch has pixels, so that shapes do not depend on values. The index of a smaller patch repeats its last pixel.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Patch(NamedTuple):
    """Rectangles of pixels, of which a scar covers only a part, turned by an angle.

    Attributes:
        offsets: distance of each pixel from the rectangle's first one, int64 ``(B, N)``, row by row.
        source: distance of the pixel to copy there, int64 ``(B, N)``; valid where ``inside``.
        inside: whether the scar covers the pixel, bool ``(B, N)``; ``None`` for a whole rectangle.
        area: pixels of the rectangle, int64 ``(B, 1)``; entries beyond are repetitions.
    """

    offsets: Tensor
    source: Tensor
    inside: Tensor | None
    area: Tensor

    def is_first(self) -> Tensor:
        """Return bool ``(B, N)``, false for repetitions."""
        return torch.arange(self.offsets.shape[1], device=self.offsets.device) < self.area

    def mean(self, pixels: Tensor) -> Tensor:
        """Return the mean ``(B, C, 1)`` of the covered ones of pixels ``(B, C, N)``, in float32 or wider."""
        dtype = torch.promote_types(pixels.dtype, torch.float32)
        if self.inside is not None:
            weight = (self.inside & self.is_first())[:, None].to(dtype)
            return (pixels * weight).sum(2, keepdim=True) / weight.sum(2, keepdim=True)
        repetitions = (self.offsets.shape[1] - self.area)[:, None].to(dtype)
        total = pixels.sum(2, keepdim=True, dtype=dtype)
        return torch.addcmul(total, repetitions, pixels[:, :, -1:].to(dtype), value=-1) / self.area[:, None]

    def detach_repetitions(self, pixels: Tensor) -> Tensor:
        """Return pixels ``(B, C, N)`` of which only the first occurrence has a gradient."""
        return torch.where(self.is_first()[:, None], pixels, pixels.detach()) if pixels.requires_grad else pixels


def locations(params: dict[str, Tensor], name: str, image_width: int) -> Tensor:
    """Return the index of the first pixel of each ``source`` or ``target``, int64 ``(B, 1)``."""
    return torch.add(params[f"{name}_xs"], params[f"{name}_ys"], alpha=image_width)[:, None]


def patches(
    params: dict[str, Tensor], max_area: int, image_size: tuple[int, int], angles: Tensor | None = None
) -> Patch:
    """Return the patches of a batch.

    Args:
        params: ``heights`` and ``widths``, int64 ``(B,)``; for scars, all that :class:`ScarGenerator` samples.
        max_area: pixels of the largest possible patch.
        image_size: height and width, pixels.
        angles: degrees, counter-clockwise as displayed, ``(B,)``, by which scars turn about the middle of their square.
    """
    heights, widths = params["heights"], params["widths"]
    # a float's quotient is many times faster than an integer's; in float32 it is exact up to 2^22 pixels
    dtype = torch.float32 if image_size[0] * image_size[1] < 2**22 else torch.float64
    number = torch.arange(max_area, device=heights.device, dtype=dtype)
    rows = ((number + 0.5) / widths[:, None]).floor_()
    # a row of the image is so many pixels longer than one of the patch
    offsets = rows.mul_(image_size[1] - widths[:, None]).add_(number)
    last = torch.add(widths - 1, heights - 1, alpha=image_size[1])[:, None]
    offsets, area = offsets.clamp_(max=last.to(dtype)).long(), (heights * widths)[:, None]
    if angles is None:
        return Patch(offsets, offsets, None, area)
    row = torch.div(offsets, image_size[1], rounding_mode="floor")
    square = heights[:, None]
    half_width, half_length, angle = (
        value[:, None] for value in (params["scar_widths"] / 2, params["scar_lengths"] / 2, torch.deg2rad(angles))
    )
    middle = (square - 1) / 2
    y, x = row - middle, offsets - row * image_size[1] - middle
    # turn back from the target to the source; y counts downwards
    across = angle.cos() * x - angle.sin() * y
    along = angle.sin() * x + angle.cos() * y
    inside = (across >= -half_width) & (across < half_width) & (along >= -half_length) & (along < half_length)
    # rounding may leave the square
    source_y, source_x = (
        torch.minimum((offset + square / 2).floor().long().clamp(min=0), square - 1) for offset in (along, across)
    )
    return Patch(offsets, source_y * image_size[1] + source_x, inside, area)


def gather_pixels(images: Tensor, index: Tensor) -> Tensor:
    """Return the pixels ``(B, C, N)`` of images ``(B, C, H, W)`` at ``index`` ``(B, N)``."""
    return images.flatten(2).gather(2, index[:, None].expand(-1, images.shape[1], -1))


def scatter_pixels(images: Tensor, *pieces: tuple[Tensor, Tensor]) -> Tensor:
    """Return a copy of images ``(B, C, H, W)`` with the pixels ``(B, C, N)`` of each piece at its index ``(B, N)``."""
    # the copy comes last, as it evicts everything else from a CPU's cache
    output = images.clone(memory_format=torch.contiguous_format)
    for index, pixels in pieces:
        output.flatten(2).scatter_(2, index[:, None].expand(-1, images.shape[1], -1), pixels)
    return output


def add_to_mask(masks: Tensor, *pieces: tuple[Tensor, Tensor | None]) -> Tensor:
    """Return masks ``(B, C, H, W)`` that are at least 1 at each index ``(B, N)``, where bool ``(B, N)``, if given, holds."""
    united = []
    for index, inside in pieces:
        present = gather_pixels(masks, index)
        least = present.new_ones(()) if inside is None else inside[:, None].to(present.dtype)
        united.append((index, torch.maximum(present, least)))
    return scatter_pixels(masks, *united)
