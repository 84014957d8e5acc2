"""Perlin noise: patches of a drawn texture where gradient noise is high."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from anomalib_spd.augmentation.base import PatchAugmentation, params_like
from anomalib_spd.augmentation.generators import UniformGenerator, between, check_range

#: noise has 1, 2, 4 ... 32 cells across an image, as DRAEM's: at 224 px the smallest have 7 pixels
_OCTAVES = 6

#: cells of the lattice of random gradients along each side, after which the noise repeats itself
_LATTICE = 64

#: cells of the texture along each side
_TEXTURE = 64

#: largest difference of a channel's color from the others'
_TINT = 0.15


class PerlinGenerator(UniformGenerator):
    """A generator of Perlin noise, and of the texture that is to be seen where it is high.

    Args:
        scale: range of the changed pixels, as a share of the image's, within ``(0, 1]``.
        opacity: range of the texture's opacity, within ``(0, 1]``.

    Returns:
        ``gradients``: float ``(B, 64, 64)``, radians; ``cells``: float ``(B, 2)``, across the image's shorter side along both axes;
        ``angles``: float ``(B,)``, of the axes, radians; ``scales``, ``opacities``, ``contrasts``, ``persistences``: float ``(B,)``;
        ``grains``: float ``(B, 1 + C, 64, 64)`` in ``[0, 1)``, of all channels and of each; ``colors``: float ``(B, C)``.

    Raises:
        ValueError: where a range is not one, or out of bounds.
    """

    def __init__(self, scale: tuple[float, float], opacity: tuple[float, float]) -> None:
        super().__init__()
        check_range("scale", scale, "shares of the image's area within (0, 1]", 1)
        check_range("opacity", opacity, "shares within (0, 1]", 1)
        self.scale, self.opacity = scale, opacity

    def __repr__(self) -> str:
        return f"scale={self.scale}, opacity={self.opacity}"

    def forward(self, batch_shape: tuple[int, ...], same_on_batch: bool = False) -> dict[str, Tensor]:
        """Sample for a batch of ``(B, C, H, W)``."""
        count, channels = batch_shape[0], batch_shape[-3]
        scale, opacity, contrast, persistence, shade, angle, *octaves = self.uniform(8, batch_shape, same_on_batch)
        tints = self.uniform(channels, batch_shape, same_on_batch).T
        gradients = self.uniform(_LATTICE**2, batch_shape, same_on_batch).T
        grains = self.uniform((1 + channels) * _TEXTURE**2, batch_shape, same_on_batch).T
        return {
            "gradients": (2 * math.pi * gradients).reshape(count, _LATTICE, _LATTICE),
            "cells": 2 ** (torch.stack(octaves, 1) * _OCTAVES).floor(),
            "angles": math.pi * angle,
            # small and large areas are as likely
            "scales": torch.exp(between((math.log(self.scale[0]), math.log(self.scale[1])), scale)),
            "opacities": between(self.opacity, opacity),
            "contrasts": between((0.05, 0.35), contrast),
            "persistences": between((0.5, 1), persistence),
            "grains": grains.reshape(count, 1 + channels, _TEXTURE, _TEXTURE),
            "colors": shade[:, None] + _TINT * (2 * tints - 1),
        }


class RandomPerlinNoise(PatchAugmentation):
    r"""Blend a texture into the image wherever Perlin noise is high: patches of irregular outlines, few or many.

    Source: DRAEM (Zavrtanik et al., ICCV 2021, section 3.2). Departures: its texture is an image of another data set. Here it is drawn,
    so that no other images are needed: noise of all scales whose power falls with the frequency as it does in photographs, in nearly
    one color. And how many pixels change is drawn, where DRAEM takes those above 0.5, which may be none.

    Args:
        scale: range of the changed pixels, as a share of the image's; the share is log-uniform.
        opacity: range of the texture's opacity (DRAEM: 0.2 to 1).
        p: probability that an image is changed.
        same_on_batch: sample once for the whole batch.
        keepdim: return ``(C, H, W)`` for ``(C, H, W)``.

    Shape:
        - Input: floating :math:`(C, H, W)` or :math:`(B, C, H, W)` with values in ``[0, 1]``.
        - Output: :math:`(B, C, H, W)`; values stay in ``[0, 1]``. Pixels outside the mask are untouched, bit for bit.
        - Mask (``data_keys=["input", "mask"]``): the given one, :math:`(B, 1, H, W)`, united with the changed pixels.

    Raises:
        ValueError: for arguments out of bounds.

    Examples:
        >>> from kornia.augmentation import AugmentationSequential
        >>> augment = AugmentationSequential(RandomPerlinNoise(), data_keys=["input", "mask"])
        >>> negative, mask = augment(torch.rand(2, 3, 256, 256), torch.zeros(2, 1, 256, 256))
    """

    def __init__(
        self,
        scale: tuple[float, float] = (0.002, 0.15),
        opacity: tuple[float, float] = (0.2, 1.0),
        p: float = 1.0,
        same_on_batch: bool = False,
        keepdim: bool = False,
    ) -> None:
        super().__init__(PerlinGenerator(scale, opacity), {}, p, same_on_batch, keepdim)

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Return the images ``(B, C, H, W)`` with their textures."""
        params = params_like(input, params)
        texture = draw_texture(params, input.shape[-2:])
        opacity = self._covered(input, params) * params["opacities"][:, None, None, None]
        # interpolation is exact where the opacity is 0, and never leaves the range of the two
        dtype = torch.promote_types(input.dtype, texture.dtype)
        return torch.lerp(input.to(dtype), texture.to(dtype), opacity.to(dtype).expand(input.shape)).to(input.dtype)

    def apply_transform_mask(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Return the masks ``(B, C, H, W)`` united with the changed pixels."""
        return torch.where(self._covered(input, params_like(input, params)), input.clamp(min=1), input)

    def _covered(self, input: Tensor, params: dict[str, Tensor]) -> Tensor:
        """Return where the noise is high, bool ``(B, 1, H, W)``: at the highest pixels, as many as were drawn."""
        noise = perlin_noise(params["gradients"], params["cells"], params["angles"], input.shape[-2:])
        pixels = noise.flatten(1)
        number = (params["scales"] * pixels.shape[1]).round().long().clamp(min=1)
        least = pixels.sort(dim=1, descending=True).values.gather(1, number[:, None] - 1)
        return (noise >= least[:, :, None])[:, None]


def perlin_noise(gradients: Tensor, cells: Tensor, angles: Tensor, size: tuple[int, int]) -> Tensor:
    """Return gradient noise, interpolated by a quintic.

    Source: Perlin, Improving Noise (SIGGRAPH 2002), of unit gradients at any angle; scaled by the square root of 2, as DRAEM's.

    Args:
        gradients: angles at the points of the lattice, which repeats itself, radians, ``(B, N, N)``.
        cells: of the lattice across the image's shorter side, along both axes, ``(B, 2)``.
        angles: of the axes, radians, ``(B,)``.
        size: height and width, pixels.

    Returns:
        ``(B, H, W)`` in ``[-1, 1]``.
    """
    rows, columns = (torch.arange(each, device=cells.device) / min(size) for each in size)
    cos, sin = angles.cos()[:, None, None], angles.sin()[:, None, None]
    turned = (cos * rows[:, None] + sin * columns, cos * columns - sin * rows[:, None])
    count, noise = gradients.shape[-1], torch.zeros_like(turned[0])
    slopes = gradients.sin().flatten(1), gradients.cos().flatten(1)
    places = [axis * cell[:, None, None] for axis, cell in zip(turned, cells.T, strict=True)]
    corners = [place.floor() for place in places]
    inside = [place - corner for place, corner in zip(places, corners, strict=True)]
    weights = [((6 * each - 15) * each + 10) * each**3 for each in inside]
    for steps in ((0, 0), (0, 1), (1, 0), (1, 1)):
        row, column = ((corner.long() + step) % count for corner, step in zip(corners, steps, strict=True))
        at = (row * count + column).flatten(1)
        height = sum(
            slope.gather(1, at).view_as(each) * (each - step)
            for slope, each, step in zip(slopes, inside, steps, strict=True)
        )
        near = [weight if step else 1 - weight for weight, step in zip(weights, steps, strict=True)]
        noise += near[0] * near[1] * height
    return math.sqrt(2) * noise


def draw_texture(params: dict[str, Tensor], size: tuple[int, int]) -> Tensor:
    """Return fractal noise in nearly one color: its amplitude at each scale is ``persistences`` times that at twice the scale (ours).

    Args:
        params: ``grains``, ``persistences``, ``contrasts`` and ``colors`` of :class:`PerlinGenerator`.
        size: height and width, pixels.

    Returns:
        ``(B, C, H, W)`` in ``[0, 1]``.
    """
    grains = params["grains"] - 0.5
    total = 0
    for level in range(int(math.log2(_TEXTURE))):
        # a mean of 4 ** level grains, of their standard deviation
        coarse = F.avg_pool2d(grains, 2**level) * 2**level
        octave = F.interpolate(coarse, size, mode="bilinear", align_corners=False)
        total = total + octave * params["persistences"][:, None, None, None] ** -level
    deviation = total - total.mean(dim=(1, 2, 3), keepdim=True)
    total = total / deviation.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    shape = total[:, :1] + 0.3 * total[:, 1:]
    return (params["colors"][:, :, None, None] + params["contrasts"][:, None, None, None] * shape).clamp(0, 1)
