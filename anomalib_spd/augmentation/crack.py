"""Crack: a thin bent line, darker or brighter than the surface."""

import math
from typing import Any

import torch
from torch import Tensor

from anomalib_spd.augmentation.base import PatchAugmentation, params_like
from anomalib_spd.augmentation.generators import UniformGenerator, between, check_range

#: pixels; a thinner line could slip between the centers of pixels
_MIN_WIDTH = 0.8

#: standard deviations at which a line ends on both sides
_REACH = 3.0


class CrackGenerator(UniformGenerator):
    """A generator of lines that proceed by one pixel at a time and turn a little each time.

    Args:
        length: range of a line's length, as a share of the image's shorter side, positive.
        width: range of its width, as such a share; 2 standard deviations.
        turn: largest turn at each pixel, degrees; in addition a whole line is bent by up to a tenth of that per pixel.
        opacity: range of the opacity in its middle, within ``(0, 1]``.

    Returns:
        ``ys``, ``xs``: float ``(B, P)``, the lines' points, pixels; ``lengths``: float ``(B,)``, the number of points that
        count; ``widths``: float ``(B,)``, pixels; ``opacities``: float ``(B,)``; ``colors``: float ``(B, C)`` in ``[0, 1]``.

    Raises:
        ValueError: where a range is not one, or out of bounds.
    """

    def __init__(
        self, length: tuple[float, float], width: tuple[float, float], turn: float, opacity: tuple[float, float]
    ) -> None:
        super().__init__()
        check_range("length", length, "positive shares of the image's shorter side")
        check_range("width", width, "shares of the image's shorter side within (0, 0.25]", 0.25)
        check_range("opacity", opacity, "shares within (0, 1]", 1)
        if not 0 <= turn <= 180:
            raise ValueError(f"`turn` is an angle within [0, 180], degrees. Got {turn}.")
        self.length, self.width, self.turn, self.opacity = length, width, turn, opacity

    def __repr__(self) -> str:
        return f"length={self.length}, width={self.width}, turn={self.turn}, opacity={self.opacity}"

    def reach(self, height: int, width: int) -> int:
        """Return an upper bound of the pixels that a line covers on each side of its middle."""
        return math.ceil(_REACH * max(_MIN_WIDTH, self.width[1] * min(height, width)) / 2)

    def forward(self, batch_shape: tuple[int, ...], same_on_batch: bool = False) -> dict[str, Tensor]:
        """Sample for a batch of ``(B, C, H, W)``."""
        channels, height, width = batch_shape[-3:]
        shorter = min(height, width)
        points = max(1, math.ceil(self.length[1] * shorter))
        turns = self.uniform(points, batch_shape, same_on_batch)
        y, x, heading, bend, length, thickness, opacity, polarity, gray = self.uniform(9, batch_shape, same_on_batch)
        tint = self.uniform(channels, batch_shape, same_on_batch).T
        largest = math.radians(self.turn)
        headings = 2 * math.pi * heading + (largest * (2 * turns - 1 + (2 * bend - 1) / 10)).cumsum(0)
        # three of five lines are dark like gaps, the others bright like scratches
        shade = torch.where(polarity < 0.6, 0.3 * gray, 1 - 0.3 * gray)
        return {
            "ys": (y * (height - 1) + headings.sin().cumsum(0)).T.contiguous(),
            "xs": (x * (width - 1) + headings.cos().cumsum(0)).T.contiguous(),
            "lengths": (shorter * between(self.length, length)).clamp(min=1),
            "widths": (shorter * between(self.width, thickness)).clamp(min=_MIN_WIDTH),
            "opacities": between(self.opacity, opacity),
            "colors": (shade[:, None] + 0.1 * (2 * tint - 1)).clamp(0, 1),
        }


class RandomCrack(PatchAugmentation):
    r"""Draw a thin bent line over the image, dark or bright, fading out to both sides.

    The published perturbations consist of the image's own patches, in slightly different colors. Cracks and scratches are
    thinner, and of another color.

    Source: ours.

    Args:
        length: range of the line's length, as a share of the image's shorter side.
        width: range of its width, as such a share; 2 standard deviations of its profile.
        turn: largest turn at each pixel, degrees.
        opacity: range of the opacity in its middle.
        p: probability that an image is changed.
        same_on_batch: sample once for the whole batch.
        keepdim: return ``(C, H, W)`` for ``(C, H, W)``.

    Shape:
        - Input: floating :math:`(C, H, W)` or :math:`(B, C, H, W)` with values in ``[0, 1]``.
        - Output: :math:`(B, C, H, W)`; values stay in ``[0, 1]``. Pixels outside the mask are untouched, bit for bit.
        - Mask (``data_keys=["input", "mask"]``): the given one, :math:`(B, 1, H, W)`, united with the line's pixels.

    Raises:
        ValueError: for arguments out of bounds.

    Examples:
        >>> from kornia.augmentation import AugmentationSequential
        >>> augment = AugmentationSequential(RandomCrack(), data_keys=["input", "mask"])
        >>> negative, mask = augment(torch.rand(2, 3, 256, 256), torch.zeros(2, 1, 256, 256))
    """

    def __init__(
        self,
        length: tuple[float, float] = (20 / 256, 140 / 256),
        width: tuple[float, float] = (1 / 256, 4 / 256),
        turn: float = 15.0,
        opacity: tuple[float, float] = (0.1, 0.8),
        p: float = 1.0,
        same_on_batch: bool = False,
        keepdim: bool = False,
    ) -> None:
        line = CrackGenerator(length, width, turn, opacity)
        super().__init__(line, {}, p, same_on_batch, keepdim)
        self.line = line

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Return the images ``(B, C, H, W)`` with their lines."""
        params = params_like(input, params)
        covered = self._covered(input, params) * params["opacities"][:, None, None, None]
        colors = params["colors"][:, :, None, None].to(covered.dtype)
        blended = torch.lerp(input.to(covered.dtype), colors.expand(input.shape), covered.expand(input.shape))
        return blended.to(input.dtype)

    def apply_transform_mask(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Return the masks ``(B, C, H, W)`` united with the lines' pixels."""
        covered = self._covered(input, params_like(input, params)) > 0
        return torch.where(covered, input.clamp(min=1), input)

    def _covered(self, input: Tensor, params: dict[str, Tensor]) -> Tensor:
        """Return the coverage of each pixel by its line, ``(B, 1, H, W)`` in ``[0, 1]``, in float32 or wider."""
        height, width = input.shape[-2:]
        ys, xs = params["ys"], params["xs"]
        reach = self.line.reach(height, width)
        around = torch.arange(-reach, reach + 1, device=ys.device)
        # the pixels around each point, and their squared distances from it
        rows, columns = ys.round().long()[..., None] + around, xs.round().long()[..., None] + around
        squares = (rows - ys[..., None]).square()[..., :, None] + (columns - xs[..., None]).square()[..., None, :]
        deviations = (params["widths"] / 2)[:, None, None, None]
        counts = torch.arange(ys.shape[1], device=ys.device) < params["lengths"][:, None]
        is_visible = (
            (rows >= 0)[..., :, None]
            & (rows < height)[..., :, None]
            & (columns >= 0)[..., None, :]
            & (columns < width)[..., None, :]
        )
        is_visible = is_visible & counts[..., None, None] & (squares <= (_REACH * deviations) ** 2)
        shares = torch.where(is_visible, torch.exp(-squares / (2 * deviations**2)), 0)
        index = rows.clamp(0, height - 1)[..., :, None] * width + columns.clamp(0, width - 1)[..., None, :]
        covered = shares.new_zeros(len(ys), height * width)
        # the nearest point decides, independently of their order
        covered = covered.scatter_reduce(1, index.flatten(1), shares.flatten(1), "amax")
        return covered.view(-1, 1, height, width).to(torch.promote_types(input.dtype, torch.float32))
