"""Spot: an ellipse with a soft edge, lighter or darker than the surface."""

import math
from typing import Any

import torch
from torch import Tensor

from anomalib_spd.augmentation.base import PatchAugmentation, params_like
from anomalib_spd.augmentation.generators import UniformGenerator, between, check_range
from anomalib_spd.augmentation.patches import Window, add_to_mask, gather_pixels, scatter_pixels

#: pixels; a thinner ellipse could slip between the centers of pixels
_MIN_DIAMETER = 2.0

#: a channel changes by this share of the strength at least
_LEAST_OF_CHANNEL = 0.5


class SpotGenerator(UniformGenerator):
    """A generator of ellipses at any place and angle.

    Args:
        diameter: range of the lengths of both axes, as a share of the image's shorter side, within ``(0, 1]``.
        strength: range of the change of color, within ``(0, 1]``.

    Returns:
        ``ys``, ``xs``: float ``(B,)``, centers, pixels; ``diameters``: float ``(B, 2)``, pixels; ``angles``: float ``(B,)``,
        radians; ``changes``: float ``(B, C)`` in ``[-1, 1]``, all of one sign.

    Raises:
        ValueError: where a range is not one, or out of bounds.
    """

    def __init__(self, diameter: tuple[float, float], strength: tuple[float, float]) -> None:
        super().__init__()
        check_range("diameter", diameter, "shares of the image's shorter side within (0, 1]", 1)
        check_range("strength", strength, "changes of color within (0, 1]", 1)
        self.diameter, self.strength = diameter, strength

    def __repr__(self) -> str:
        return f"diameter={self.diameter}, strength={self.strength}"

    def largest(self, height: int, width: int) -> float:
        """Return the largest diameter on an image of this size, pixels."""
        return max(_MIN_DIAMETER, self.diameter[1] * min(height, width))

    def forward(self, batch_shape: tuple[int, ...], same_on_batch: bool = False) -> dict[str, Tensor]:
        """Sample for a batch of ``(B, C, H, W)``."""
        channels, height, width = batch_shape[-3:]
        y, x, angle, strength, polarity, *axes = self.uniform(7, batch_shape, same_on_batch)
        of_channels = between((_LEAST_OF_CHANNEL, 1), self.uniform(channels, batch_shape, same_on_batch).T)
        sign = torch.where(polarity < 0.5, -1.0, 1.0)
        diameters = between(self.diameter, torch.stack(axes, dim=1)) * min(height, width)
        return {
            "ys": y * (height - 1),
            "xs": x * (width - 1),
            "diameters": diameters.clamp(min=_MIN_DIAMETER),
            "angles": math.pi * angle,
            "changes": (sign * between(self.strength, strength))[:, None] * of_channels,
        }


class RandomSpot(PatchAugmentation):
    r"""Make an ellipse with a soft edge lighter or darker, as a stain, a dent or an inclusion is.

    The published perturbations consist of the image's own patches. A spot is of a color that the surface may have nowhere. Of
    the mechanisms that were measured alone, it taught most about real defects (``docs/experiments.md``, sections 30 and 31).

    Source: ours.

    Args:
        diameter: range of the lengths of both axes, as a share of the image's shorter side.
        strength: range of the change of color; each channel changes by half to all of it, all in one direction.
        softness: the edge reaches by this share of the radius to either side, within ``(0, 1]``.
        p: probability that an image is changed.
        same_on_batch: sample once for the whole batch.
        keepdim: return ``(C, H, W)`` for ``(C, H, W)``.

    Shape:
        - Input: floating :math:`(C, H, W)` or :math:`(B, C, H, W)` with values in ``[0, 1]``.
        - Output: :math:`(B, C, H, W)`; values stay in ``[0, 1]``. Pixels outside the mask are untouched, bit for bit.
        - Mask (``data_keys=["input", "mask"]``): the given one, :math:`(B, 1, H, W)`, united with the spot's pixels. The change
          fades out towards the mask's border, so the mask is larger than what is visible.

    Raises:
        ValueError: for arguments out of bounds.

    Examples:
        >>> from kornia.augmentation import AugmentationSequential
        >>> augment = AugmentationSequential(RandomSpot(), data_keys=["input", "mask"])
        >>> negative, mask = augment(torch.rand(2, 3, 256, 256), torch.zeros(2, 1, 256, 256))
    """

    def __init__(
        self,
        diameter: tuple[float, float] = (0.04, 0.15),
        strength: tuple[float, float] = (0.075, 0.5),
        softness: float = 0.5,
        p: float = 1.0,
        same_on_batch: bool = False,
        keepdim: bool = False,
    ) -> None:
        if not 0 < softness <= 1:
            raise ValueError(f"`softness` is a share of the radius within (0, 1]. Got {softness}.")
        spot = SpotGenerator(diameter, strength)
        super().__init__(spot, {"softness": softness}, p, same_on_batch, keepdim)
        self.spot = spot

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Return the images ``(B, C, H, W)`` with their spots."""
        params = params_like(input, params)
        window = self._window(input, params)
        covered = _covered(window, params, flags["softness"], input.dtype)
        index = window.pixel_index(input.shape[-1])
        pixels, change = gather_pixels(input, index).to(covered.dtype), params["changes"][:, :, None].to(covered.dtype)
        changed = torch.addcmul(pixels, covered[:, None], change).clamp_(0, 1)
        return scatter_pixels(input, (index, changed.to(input.dtype)))

    def apply_transform_mask(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Return the masks ``(B, C, H, W)`` united with the spots' pixels."""
        params = params_like(input, params)
        window = self._window(input, params)
        is_covered = _covered(window, params, flags["softness"], input.dtype) > 0
        return add_to_mask(input, (window.pixel_index(input.shape[-1]), is_covered))

    def _window(self, input: Tensor, params: dict[str, Tensor]) -> Window:
        """Return a window that holds the spot of each image, sized for the largest possible one."""
        reach = math.ceil(self.spot.largest(*input.shape[-2:]) / 2 * (1 + self.flags["softness"]))

        def axis(center: Tensor, limit: int) -> tuple[Tensor, Tensor]:
            size = min(limit, 2 * reach + 1)
            start = (center.round().long() - reach).clamp(0, limit - size)
            pixels = start[:, None] + torch.arange(size, device=center.device)
            return start, pixels - center[:, None]

        top, rows = axis(params["ys"], input.shape[-2])
        left, columns = axis(params["xs"], input.shape[-1])
        return Window(top, left, rows, columns)


def _covered(window: Window, params: dict[str, Tensor], softness: float, dtype: torch.dtype) -> Tensor:
    """Return how much of the change each pixel of the window has, ``(B, h * w)`` in ``[0, 1]``, in float32 or wider."""
    dtype = torch.promote_types(dtype, torch.float32)
    cos, sin = params["angles"][:, None].cos(), params["angles"][:, None].sin()
    long, short = (2 / params["diameters"][:, each, None] for each in (0, 1))
    along = (window.rows * sin * long)[:, :, None] + (window.columns * cos * long)[:, None]
    across = (window.rows * cos * short)[:, :, None] - (window.columns * sin * short)[:, None]
    # 1 inside, 0 outside, and between the two a step without corners
    inside = ((1 + softness - torch.hypot(along, across)) / (2 * softness)).clamp_(0, 1)
    return (inside.square() * (3 - 2 * inside)).flatten(1).to(dtype)
