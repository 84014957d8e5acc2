"""Scars: thin boxes of pixels, turned by an angle."""

from typing import NamedTuple

import torch
from torch import Tensor

from anomalib_spd.augmentation.patches import Patch, patches


class Scar(NamedTuple):
    """The pixels of a square, and what of it a turned scar covers.

    Attributes:
        square: the square.
        inside: bool ``(B, N)``, whether the scar covers the pixel.
        source: int64 ``(B, N)``, offset of the pixel of an upright scar's square that comes to lie there; right where
            ``inside``.
    """

    square: Patch
    inside: Tensor
    source: Tensor

    def mean(self, pixels: Tensor) -> Tensor:
        """Return the mean ``(B, C, 1)`` of the pixels ``(B, C, N)`` that the scar covers."""
        weight = (self.inside & self.square.valid())[:, None].to(torch.promote_types(pixels.dtype, torch.float32))
        return (pixels * weight).sum(2, keepdim=True) / weight.sum(2, keepdim=True)


def scars(params: dict[str, Tensor], angles: Tensor, room: int, image_size: tuple[int, int]) -> Scar:
    """Return the scars of a batch, each about the middle of its square.

    Args:
        params: what :class:`ScarGenerator` draws.
        angles: float ``(B,)``, degrees, counter-clockwise as displayed.
        room: pixels of the largest square there can be.
        image_size: height and width, pixels.
    """
    square = patches(params["heights"], params["widths"], room, image_size)
    row = torch.div(square.offsets, image_size[1], rounding_mode="floor")
    side = params["heights"][:, None]
    half_width, half_length, angle = (
        value[:, None] for value in (params["scar_widths"] / 2, params["scar_lengths"] / 2, torch.deg2rad(angles))
    )
    middle = (side - 1) / 2
    y, x = row - middle, square.offsets - row * image_size[1] - middle
    # back from where a pixel lies to where it came from; y counts downwards
    across = angle.cos() * x - angle.sin() * y
    along = angle.sin() * x + angle.cos() * y
    inside = (across >= -half_width) & (across < half_width) & (along >= -half_length) & (along < half_length)

    def pixel(offset: Tensor) -> Tensor:
        # the scar fits into its square at any angle, but for rounding
        return torch.minimum((offset + side / 2).floor().long().clamp(min=0), side - 1)

    return Scar(square, inside, pixel(along) * image_size[1] + pixel(across))
