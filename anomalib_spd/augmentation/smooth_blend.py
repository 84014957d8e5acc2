"""SmoothBlend, the local perturbation of SPot-the-Difference."""

import math
from typing import Any, Literal, get_args

import torch
from kornia.augmentation import IntensityAugmentationBase2D
from kornia.color import rgb_to_grayscale
from kornia.enhance import adjust_hue
from torch import Tensor

from .generators import JitteredPatchGenerator

Halo = Literal["replicate", "literal", "masked"]


class RandomSmoothBlend(IntensityAugmentationBase2D):
    r"""Blend a colour-jittered patch of the image smoothly into another place of it.

    A patch is cut, its colours are jittered, and it is laid on a foreground :math:`u` at a random place. With
    :math:`\alpha` the patch's outline after a Gaussian blur, the result is
    :math:`\bar x = (1 - \alpha) x + \alpha u`. The blur is what tells it from CutPaste.

    The Gaussian blur of a box is a product of two differences of the normal distribution function, so :math:`\alpha`
    costs no convolution, and only a window around the patch is read and written. The Gaussian ends at ``truncate``
    standard deviations, so the changed pixels are a known rectangle; it is the blur with a kernel whose weights are the
    Gaussian's integrals over pixels.

    Source: Zou et al., SPot-the-Difference Self-Supervised Pre-training (ECCV 2022), section 3. Its strengths are not
    known; ours are those of an unofficial implementation (patch 0.5-1 % of the image, ``sigma`` 8 px at 224 px) and of
    CutPaste (colour jitter 0.1). The order of the jitter is fixed: brightness, contrast, saturation, hue.

    Args:
        scale: range of the patch's area as a share of the image's.
        ratio: range of the patch's width over its height.
        sigma: standard deviation of the blur, in pixels.
        jitter: largest change of brightness, contrast, saturation (factors) and hue (turns). Images of one channel
            know the first two only.
        halo: what lies around the patch on the foreground, where the blurred outline leaks over its edge.
            ``"replicate"``: the patch's edge continues (ours: no dark halo, and inside the patch the formula as it
            stands). ``"literal"``: zeros, the formula as it stands, which darkens a ring around the patch.
            ``"masked"``: nothing; the outline is cut off at the patch and scaled up until its peak is 1.
        truncate: radius of the blur in standard deviations.
        p: probability that an image is changed.
        same_on_batch: draw once for the whole batch.
        keepdim: return ``(C, H, W)`` for ``(C, H, W)``.

    Shape:
        - Input: floating :math:`(C, H, W)` or :math:`(B, C, H, W)` with values in ``[0, 1]``; C is 1 or 3.
        - Output: :math:`(B, C, H, W)`; values stay in ``[0, 1]``. Pixels outside the mask are untouched, bit for bit.
        - Mask (``data_keys=["input", "mask"]``): what is given, :math:`(B, 1, H, W)`, united with the pixels where
          :math:`\alpha > 0`. Give zeros to get the changed pixels alone.

    Raises:
        ValueError: for arguments out of bounds, or images that have neither 1 nor 3 channels.

    Examples:
        >>> from kornia.augmentation import AugmentationSequential
        >>> image, clean = torch.rand(2, 3, 224, 224), torch.zeros(2, 1, 224, 224)
        >>> augment = AugmentationSequential(RandomSmoothBlend(), data_keys=["input", "mask"])
        >>> negative, mask = augment(image, clean)

        To apply the same once more:

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
        jitter: tuple[float, float, float, float] = (0.1, 0.1, 0.1, 0.1),
        halo: Halo = "replicate",
        truncate: float = 4.0,
        p: float = 1.0,
        same_on_batch: bool = False,
        keepdim: bool = False,
    ) -> None:
        super().__init__(p=p, same_on_batch=same_on_batch, keepdim=keepdim)
        if not (0 < sigma < math.inf and 0 < truncate < math.inf):
            msg = f"`sigma` (pixels) and `truncate` (standard deviations) are positive. Got {sigma} and {truncate}."
            raise ValueError(msg)
        if halo not in get_args(Halo):
            msg = f"`halo` is one of {get_args(Halo)}. Got {halo!r}."
            raise ValueError(msg)
        self._generator = JitteredPatchGenerator(scale, ratio, jitter)
        self._param_generator = self._generator
        self.flags = {"sigma": sigma, "halo": halo, "truncate": truncate}

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Return the blended images ``(B, C, H, W)``."""
        channels = input.shape[1]
        if channels not in (1, 3):
            msg = f"SmoothBlend takes images of 1 or 3 channels, got {tuple(input.shape)}."
            raise ValueError(msg)
        params = _on_device_of(input, params)
        rows, columns = self._window(input, params, flags)
        alpha, inside = _outline(rows, columns, params, flags, input.dtype)
        # the foreground: the patch moved to its place, its edge continued
        source_rows = _shift_into(rows, params["target_ys"], params["source_ys"], params["heights"])
        source_columns = _shift_into(columns, params["target_xs"], params["source_xs"], params["widths"])
        foreground = _jitter(input[_index(channels, source_rows, source_columns)], inside, params["jitter"])
        if flags["halo"] == "literal":
            foreground = foreground * inside
        window = _index(channels, rows, columns)
        background = input[window]
        # lerp as the paper writes it; where alpha is 0 the background must come back bit for bit
        blended = torch.where(alpha > 0, (1 - alpha) * background + alpha * foreground, background)
        return input.index_put(window, blended)

    def apply_transform_mask(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Return the masks ``(B, C, H, W)`` united with the changed pixels."""
        params = _on_device_of(input, params)
        rows, columns = self._window(input, params, flags)
        alpha, _ = _outline(rows, columns, params, flags, torch.float32)
        window = _index(input.shape[1], rows, columns)
        return input.index_put(window, torch.maximum(input[window], (alpha > 0).to(input.dtype)))

    def _window(self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return the rows ``(B, h)`` and columns ``(B, w)`` of a window that holds everything that changes.

        Its size is that of the largest patch there can be, the same for the whole batch.
        """
        height, width = input.shape[-2:]
        reach = 0 if flags["halo"] == "masked" else _radius(flags)
        patch_height, patch_width = self._generator.largest_patch(height, width)

        def positions(first: Tensor, size: int, limit: int) -> Tensor:
            size = min(limit, size + 2 * reach)
            start = (first - reach).clamp(0, limit - size)
            return start[:, None] + torch.arange(size, device=input.device)

        return (
            positions(params["target_ys"], patch_height, height),
            positions(params["target_xs"], patch_width, width),
        )


def blurred_box(position: Tensor, start: Tensor, length: Tensor, sigma: float, radius: int) -> Tensor:
    r"""Blur the indicator of ``[start, start + length)`` by a Gaussian, in one dimension and closed form (ours).

    The kernel's weight at offset :math:`j` is the Gaussian's integral over ``[j - 0.5, j + 0.5]``, zero beyond
    ``radius`` and scaled to sum to 1; the sum over the box telescopes into a difference of two distribution functions.

    Args:
        position: where to evaluate, pixels, ``(B, N)``.
        start: first pixel of the box, ``(B,)``.
        length: pixels of the box, ``(B,)``.
        sigma: standard deviation, pixels.
        radius: reach of the kernel, pixels.

    Returns:
        values in ``[0, 1]``, ``(B, N)``, of the dtype of ``position``.
    """
    reach = radius + 0.5
    scale = 1 / (sigma * math.sqrt(2))

    def cumulative(offset: Tensor) -> Tensor:
        return torch.erf(offset.clamp(-reach, reach) * scale)

    offset = position - start[:, None]
    spread = cumulative(offset + 0.5) - cumulative(offset + 0.5 - length[:, None])
    return spread / (2 * math.erf(reach * scale))


def _outline(
    rows: Tensor, columns: Tensor, params: dict[str, Tensor], flags: dict[str, Any], dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return the blurred outline, ``dtype`` ``(B, 1, h, w)``, and where the patch itself lies, bool of that shape."""
    precise = torch.promote_types(dtype, torch.float32)
    axes = []
    for positions, first, size in (
        (rows, params["target_ys"], params["heights"]),
        (columns, params["target_xs"], params["widths"]),
    ):
        blurred = blurred_box(positions.to(precise), first, size, flags["sigma"], _radius(flags))
        inside = (positions >= first[:, None]) & (positions < (first + size)[:, None])
        if flags["halo"] == "masked":
            blurred = blurred * inside
            blurred = blurred / blurred.amax(dim=1, keepdim=True)
        axes.append((blurred, inside))
    (vertical, inside_rows), (horizontal, inside_columns) = axes
    alpha = vertical[:, None, :, None] * horizontal[:, None, None, :]
    return alpha.to(dtype), inside_rows[:, None, :, None] & inside_columns[:, None, None, :]


def _jitter(foreground: Tensor, inside: Tensor, jitter: Tensor) -> Tensor:
    """Change the colours of ``(B, C, h, w)``; contrast turns about the mean grey of the patch, which ``inside`` marks."""
    brightness, contrast, saturation = (f.to(foreground.dtype).view(-1, 1, 1, 1) for f in jitter[:, :3].unbind(1))
    color = foreground.shape[1] == 3
    out = (foreground * brightness).clamp(0, 1)
    grey = rgb_to_grayscale(out) if color else out
    mean = (grey * inside).sum((1, 2, 3), keepdim=True) / inside.sum((1, 2, 3), keepdim=True)
    out = (mean + (out - mean) * contrast).clamp(0, 1)
    if not color:
        return out
    grey = rgb_to_grayscale(out)
    out = (grey + (out - grey) * saturation).clamp(0, 1)
    return adjust_hue(out, jitter[:, 3].to(out.dtype) * (2 * math.pi)).clamp(0, 1)


def _shift_into(positions: Tensor, target: Tensor, source: Tensor, size: Tensor) -> Tensor:
    """Map window positions ``(B, N)`` to positions in the source patch; those beside the patch to its edge."""
    offset = positions - target[:, None]
    return source[:, None] + torch.minimum(offset.clamp(min=0), size[:, None] - 1)


def _index(channels: int, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the index that selects ``(B, C, h, w)`` at ``rows`` ``(B, h)`` and ``columns`` ``(B, w)``."""
    batch = torch.arange(rows.shape[0], device=rows.device)
    channel = torch.arange(channels, device=rows.device)
    return batch[:, None, None, None], channel[None, :, None, None], rows[:, None, :, None], columns[:, None, None, :]


def _on_device_of(input: Tensor, params: dict[str, Any]) -> dict[str, Tensor]:
    # a container mixes arguments of its own, no tensors, into the params
    return {key: value.to(input.device) for key, value in params.items() if isinstance(value, Tensor)}


def _radius(flags: dict[str, Any]) -> int:
    truncate: float = flags["truncate"]
    sigma: float = flags["sigma"]
    return math.ceil(truncate * sigma)
