"""CutPaste: a patch of the image is pasted at another location, in slightly different colors."""

from typing import Any

import torch
from torch import Tensor

from anomalib_spd.augmentation.base import PatchAugmentation, params_like
from anomalib_spd.augmentation.color_jitter import jitter_colors
from anomalib_spd.augmentation.generators import BoxGenerator, Jitter, PasteGenerator, ScarGenerator
from anomalib_spd.augmentation.patches import (
    Patch,
    add_to_mask,
    gather_pixels,
    locations,
    patches,
    scatter_pixels,
)


class PasteAugmentation(PatchAugmentation):
    """The common part of CutPaste and CutPaste-scar; for its arguments see :class:`RandomCutPaste`."""

    def __init__(
        self, size: BoxGenerator | ScarGenerator, jitter: Jitter, p: float, same_on_batch: bool, keepdim: bool
    ) -> None:
        super().__init__(PasteGenerator(size, jitter), {}, p, same_on_batch, keepdim)
        self.size = size
        self.has_jitter = any(jitter)

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Return the images ``(B, C, H, W)`` with their patches pasted."""
        params = params_like(input, params)
        patch, index = self._target(input, params)
        pixels = gather_pixels(input, patch.source + locations(params, "source", input.shape[-1]))
        if self.has_jitter:
            pixels = jitter_colors(pixels, params["jitter"], patch.mean(pixels))
        if patch.inside is not None:
            pixels = torch.where(patch.inside[:, None], pixels, gather_pixels(input, index))
        return scatter_pixels(input, (index, patch.detach_repetitions(pixels)))

    def apply_transform_mask(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Return the masks ``(B, C, H, W)`` united with the pasted pixels."""
        patch, index = self._target(input, params_like(input, params))
        return add_to_mask(input, (index, patch.inside))

    def _target(self, input: Tensor, params: dict[str, Tensor]) -> tuple[Patch, Tensor]:
        """Return the patches, and the index ``(B, N)`` of where they are pasted."""
        height, width = input.shape[-2:]
        angles = params["angles"][:, 0] if "angles" in params else None
        patch = patches(params, self.size.largest(height, width)[2], (height, width), angles)
        return patch, patch.offsets + locations(params, "target", width)


class RandomCutPaste(PasteAugmentation):
    r"""Cut a patch of the image, jitter its colors, and paste it at a random location.

    Source: Li et al., CutPaste: Self-Supervised Learning for Anomaly Detection and Localization (CVPR 2021), section
    2.2. Ranges are those of its public re-implementations: area 2-15 % of the image, aspect log-uniform.

    Args:
        scale: range of the patch's area as a share of the image's.
        ratio: range of the patch's width over its height.
        jitter: largest change of brightness, contrast, saturation (factors) and hue (turns), see
            :func:`jitter_colors`. Images of one channel use the first two only.
        p: probability that an image is changed.
        same_on_batch: sample once for the whole batch.
        keepdim: return ``(C, H, W)`` for ``(C, H, W)``.

    Shape:
        - Input: floating :math:`(C, H, W)` or :math:`(B, C, H, W)` with values in ``[0, 1]``; C is 1 or 3, without
          jitter any.
        - Output: :math:`(B, C, H, W)`; values stay in ``[0, 1]``. Pixels outside the mask are untouched, bit for bit.
        - Mask (``data_keys=["input", "mask"]``): the given one, :math:`(B, 1, H, W)`, united with the pasted pixels.

    Raises:
        ValueError: for arguments out of bounds, or images that have neither 1 nor 3 channels.
        TypeError: for images of integers.

    Examples:
        >>> from kornia.augmentation import AugmentationSequential
        >>> augment = AugmentationSequential(RandomCutPaste(), data_keys=["input", "mask"])
        >>> negative, mask = augment(torch.rand(2, 3, 256, 256), torch.zeros(2, 1, 256, 256))
    """

    def __init__(
        self,
        scale: tuple[float, float] = (0.02, 0.15),
        ratio: tuple[float, float] = (0.3, 1 / 0.3),
        jitter: Jitter = (0.1, 0.1, 0.1, 0.1),
        p: float = 1.0,
        same_on_batch: bool = False,
        keepdim: bool = False,
    ) -> None:
        super().__init__(BoxGenerator(scale, ratio), jitter, p, same_on_batch, keepdim)
