"""SmoothBlend, the local perturbation of SPot-the-Difference."""

import math
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from anomalib_spd.augmentation.base import PatchAugmentation, params_like
from anomalib_spd.augmentation.color_jitter import jitter_colors
from anomalib_spd.augmentation.generators import BoxGenerator, Jitter, PasteGenerator
from anomalib_spd.augmentation.patches import add_to_mask, gather_pixels, locations, patches, scatter_pixels

Halo = Literal["replicate", "literal"]


class RandomSmoothBlend(PatchAugmentation):
    r"""Blend a color-jittered patch of the image smoothly into another location of it.

    A patch is cut, its colors are jittered, and it is laid on a foreground :math:`u` at a random location. With
    :math:`\alpha` the patch's outline after a Gaussian blur, the result is
    :math:`\bar x = (1 - \alpha) x + \alpha u`. The blur distinguishes it from CutPaste.

    The Gaussian blur of a box is a product of two differences of the normal distribution function, so :math:`\alpha`
    costs no convolution, and only a window around the patch is read and written. The Gaussian ends at ``truncate``
    standard deviations, so the changed pixels are a known rectangle; it is the blur with a kernel whose weights are the
    Gaussian's integrals over pixels.

    Source: Zou et al., SPot-the-Difference Self-Supervised Pre-training (ECCV 2022), section 3. Its strengths are not
    known; ours are those of an unofficial implementation (patch 0.5-1 % of the image, ``sigma`` 8 px at 224 px) and of
    CutPaste (color jitter 0.1).

    Args:
        scale: range of the patch's area as a share of the image's.
        ratio: range of the patch's width over its height.
        sigma: standard deviation of the blur, in pixels of an image of ``sigma_size``.
        jitter: largest change of brightness, contrast, saturation (factors) and hue (turns), see
            :func:`jitter_colors`. Images of one channel use the first two only.
        halo: foreground around the patch, where the blurred outline exceeds the patch. ``"replicate"``: the patch's edge
            continues (ours: no dark halo, and inside the patch the formula as it stands). ``"literal"``: zeros, the
            formula as it stands, which darkens a ring around the patch.
        truncate: radius of the blur in standard deviations. Beyond three, :math:`\alpha` is below 0.0014: no change of
            8-bit color.
        sigma_size: shorter side of the images that ``sigma`` is given for, pixels: the blur grows with the image, as the patch does
            (ours). None: ``sigma`` holds whatever the size.
        p: probability that an image is changed.
        same_on_batch: sample once for the whole batch.
        keepdim: return ``(C, H, W)`` for ``(C, H, W)``.

    Shape:
        - Input: floating :math:`(C, H, W)` or :math:`(B, C, H, W)` with values in ``[0, 1]``; C is 1 or 3.
        - Output: :math:`(B, C, H, W)`; values stay in ``[0, 1]``. Pixels outside the mask are untouched, bit for bit.
        - Mask (``data_keys=["input", "mask"]``): the given one, :math:`(B, 1, H, W)`, united with the pixels where
          :math:`\alpha > 0`. Give zeros to get the changed pixels alone. The change fades out towards the mask's border,
          so the mask is larger than what is visible.

    Raises:
        ValueError: for arguments out of bounds, or images that have neither 1 nor 3 channels.
        TypeError: for images of integers.

    Examples:
        >>> from kornia.augmentation import AugmentationSequential
        >>> image, clean = torch.rand(2, 3, 224, 224), torch.zeros(2, 1, 224, 224)
        >>> augment = AugmentationSequential(RandomSmoothBlend(), data_keys=["input", "mask"])
        >>> negative, mask = augment(image, clean)

        Repeat a call by its parameters:

        >>> smooth_blend = RandomSmoothBlend()
        >>> first = smooth_blend(image)
        >>> bool((smooth_blend(image, params=smooth_blend._params) == first).all())
        True
    """

    def __init__(
        self,
        scale: tuple[float, float] = (0.005, 0.01),
        ratio: tuple[float, float] = (0.3, 3.0),
        sigma: float = 8.0,
        jitter: Jitter = (0.1, 0.1, 0.1, 0.1),
        halo: Halo = "replicate",
        truncate: float = 3.0,
        sigma_size: int | None = 224,
        p: float = 1.0,
        same_on_batch: bool = False,
        keepdim: bool = False,
    ) -> None:
        if not (0 < sigma < math.inf and 0 < truncate < math.inf and (sigma_size is None or sigma_size > 0)):
            raise ValueError(
                "`sigma` and `sigma_size` (pixels) and `truncate` (standard deviations) are positive. Got "
                f"{sigma}, {sigma_size} and {truncate}."
            )
        if halo not in get_args(Halo):
            raise ValueError(f"`halo` is one of {get_args(Halo)}. Got {halo!r}.")
        size = BoxGenerator(scale, ratio)
        flags = {"sigma": sigma, "sigma_size": sigma_size, "halo": halo, "truncate": truncate}
        super().__init__(PasteGenerator(size, jitter), flags, p, same_on_batch, keepdim)
        self.size = size
        self.has_jitter = any(jitter)

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Return the blended images ``(B, C, H, W)``."""
        params, (height, width) = params_like(input, params), input.shape[-2:]
        cut = patches(params, self.size.largest(height, width)[2], (height, width))
        patch = gather_pixels(input, cut.offsets + locations(params, "source", width))
        if self.has_jitter:
            patch = jitter_colors(patch, params["jitter"], cut.mean(patch))

        window = self._window(input, params, flags)
        row, column = _nearest(window.rows, params["heights"]), _nearest(window.columns, params["widths"])
        # the foreground: the patch at its target, with its edge continued
        source = ((row * params["widths"][:, None])[:, :, None] + column[:, None]).flatten(1)
        foreground = patch.gather(2, source[:, None].expand(-1, input.shape[1], -1))
        if flags["halo"] == "literal":
            inside = (window.rows == row)[:, :, None] & (window.columns == column)[:, None]
            foreground = foreground * inside.flatten(1)[:, None]
        alpha = _alpha(window, params, _blur(input, flags), input.dtype)[:, None].to(input.dtype)
        index = window.pixel_index(width)
        # interpolation is exact at both ends, and never leaves the range of the two
        return scatter_pixels(input, (index, torch.lerp(gather_pixels(input, index), foreground, alpha)))

    def apply_transform_mask(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Return the masks ``(B, C, H, W)`` united with the changed pixels."""
        params = params_like(input, params)
        window = self._window(input, params, flags)
        return add_to_mask(
            input, (window.pixel_index(input.shape[-1]), _alpha(window, params, _blur(input, flags), input.dtype) > 0)
        )

    def _window(self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any]) -> "_Window":
        """Return a window that holds all changed pixels of each image, sized for the largest possible patch."""
        _, reach = _blur(input, flags)

        def axis(first: Tensor, size: int, limit: int) -> tuple[Tensor, Tensor]:
            size = min(limit, size + 2 * reach)
            start, number = (first - reach).clamp(0, limit - size), torch.arange(size, device=input.device)
            return start, (start - first)[:, None] + number

        height, width = input.shape[-2:]
        patch_height, patch_width, _ = self.size.largest(height, width)
        top, rows = axis(params["target_ys"], patch_height, height)
        left, columns = axis(params["target_xs"], patch_width, width)
        return _Window(top, left, rows, columns)


class _Window(NamedTuple):
    """A rectangle of each image of a batch, all of one size.

    Attributes:
        top: its first row, int64 ``(B,)``.
        left: its first column, int64 ``(B,)``.
        rows: its rows, relative to the first row of the patch, int64 ``(B, h)``.
        columns: its columns, relative to the first column of the patch, int64 ``(B, w)``.
    """

    top: Tensor
    left: Tensor
    rows: Tensor
    columns: Tensor

    def pixel_index(self, image_width: int) -> Tensor:
        """Return the index of its pixels, int64 ``(B, h * w)``."""
        down, across = (torch.arange(each.shape[1], device=each.device) for each in (self.rows, self.columns))
        first = torch.add(self.left, self.top, alpha=image_width)
        return first[:, None] + torch.add(across, down[:, None], alpha=image_width).flatten()


def blurred_box(offset: Tensor, length: Tensor, sigma: float, radius: int, dtype: torch.dtype) -> Tensor:
    r"""Blur the indicator of ``[0, length)`` by a Gaussian, in one dimension and closed form (ours).

    The kernel's weight at offset :math:`j` is the Gaussian's integral over ``[j - 0.5, j + 0.5]``, zero beyond
    ``radius`` and scaled to sum to 1; the sum over the box telescopes into a difference of two distribution functions.

    Args:
        offset: positions, int64 ``(B, N)``, pixels from the box's first.
        length: pixels of the box, int64 ``(B,)``.
        sigma: standard deviation, pixels.
        radius: radius of the kernel, pixels.
        dtype: of the result.

    Returns:
        Values in ``[0, 1]``, ``(B, N)``.
    """
    # a table, as few of its entries differ
    edges = torch.arange(-radius - 1, radius + 1, device=offset.device, dtype=dtype) + 0.5
    distribution = (edges / (sigma * math.sqrt(2))).erf_()
    to_first, to_last = (
        distribution[(each + radius + 1).clamp(0, 2 * radius + 1)] for each in (offset, offset - length[:, None])
    )
    blurred: Tensor = (to_first - to_last) / (2 * distribution[-1])
    return blurred


def _alpha(window: _Window, params: dict[str, Tensor], blur: tuple[float, int], dtype: torch.dtype) -> Tensor:
    """Return the blurred outline ``(B, h * w)``, in float32 or wider."""
    dtype = torch.promote_types(dtype, torch.float32)
    rows, columns = (
        blurred_box(offsets, length, *blur, dtype)
        for offsets, length in ((window.rows, params["heights"]), (window.columns, params["widths"]))
    )
    return (rows[:, :, None] * columns[:, None]).flatten(1)


def _nearest(offsets: Tensor, size: Tensor) -> Tensor:
    """Return the row or column of the patch that is nearest to each of ``offsets``, int64 ``(B, N)``."""
    return torch.minimum(offsets.clamp(min=0), size[:, None] - 1)


def _blur(images: Tensor, flags: dict[str, Any]) -> tuple[float, int]:
    """Return standard deviation and radius of the blur on images of this size, pixels."""
    sigma: float = flags["sigma"]
    if flags["sigma_size"] is not None:
        sigma *= min(images.shape[-2:]) / flags["sigma_size"]
    return sigma, math.ceil(flags["truncate"] * sigma)
