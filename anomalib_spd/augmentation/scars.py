"""Scars: thin boxes of pixels, turned by an angle."""

from typing import NamedTuple

import torch
from torch import Tensor

from .patches import Patch, patches


class Scar(NamedTuple):
    """The pixels of a square, and what of it a turned scar covers.

    Attributes:
        square: the pixels of the square.
        inside: bool ``(B, N)``, whether the scar covers the pixel.
        source: the pixel of an upright scar's square that lies there after the turn; right where ``inside``.
    """

    square: Patch
    inside: Tensor
    source: Patch


def scars(params: dict[str, Tensor], angles: Tensor, room: int, image_size: tuple[int, int]) -> Scar:
    """Return the scars of a batch, each about the middle of its square.

    Args:
        params: what :class:`ScarGenerator` draws.
        angles: float ``(B,)``, degrees, counter-clockwise as displayed.
        room: pixels of the largest square there can be.
        image_size: height and width, pixels.
    """
    square = patches(params["heights"], params["widths"], room, image_size)
    side = params["heights"].to(square.rows.dtype)[:, None]
    angle = torch.deg2rad(angles).to(square.rows.dtype)[:, None]
    y, x = square.rows + 0.5 - side / 2, square.columns + 0.5 - side / 2
    # back from where a pixel lies to where it came from; y counts downwards
    across = angle.cos() * x - angle.sin() * y
    along = angle.sin() * x + angle.cos() * y
    half_width, half_length = (params[key].to(y.dtype)[:, None] / 2 for key in ("scar_widths", "scar_lengths"))
    inside = (across >= -half_width) & (across < half_width) & (along >= -half_length) & (along < half_length)

    def pixel(offset: Tensor) -> Tensor:
        # the scar fits into its square at any angle, but for rounding
        return torch.minimum((offset + side / 2).floor().clamp(min=0), side - 1)

    return Scar(square, inside, Patch(pixel(along), pixel(across), square.valid))
