"""CutPaste-scar: a thin strip of the image, in slightly other colours, turned, at another place of it."""

from typing import Any

import torch
from torch import Tensor

from anomalib_spd.augmentation.base import PatchAugmentation, on_device_of
from anomalib_spd.augmentation.color_jitter import jitter_colors
from anomalib_spd.augmentation.generators import Jitter, JitteredGenerator, ScarGenerator, TwoPlacesGenerator
from anomalib_spd.augmentation.patches import once, read, unite, write
from anomalib_spd.augmentation.scars import Scar, scars


class RandomCutPasteScar(PatchAugmentation):
    r"""Cut a thin strip of the image, jitter its colours, turn it, and paste it at a random place.

    Source: Li et al., CutPaste: Self-Supervised Learning for Anomaly Detection and Localization (CVPR 2021), section
    2.3. Ranges are those of its public re-implementations, 2-16 by 10-25 px on images of 256 px; here they grow with the
    image (ours). Pixels are turned to the nearest, so that no colour arises that the strip did not have.

    Args:
        width: range of the strip's width as a share of the image's shorter side.
        length: range of its length, likewise.
        degrees: range of the angle, degrees, counter-clockwise as displayed.
        jitter: largest change of brightness, contrast, saturation (factors) and hue (turns), see
            :func:`jitter_colors`. Images of one channel know the first two only.
        p: probability that an image is changed.
        same_on_batch: draw once for the whole batch.
        keepdim: return ``(C, H, W)`` for ``(C, H, W)``.

    Shape:
        - Input: floating :math:`(C, H, W)` or :math:`(B, C, H, W)` with values in ``[0, 1]``; C is 1 or 3, without
          jitter any.
        - Output: :math:`(B, C, H, W)`; values stay in ``[0, 1]``. Pixels outside the mask are untouched, bit for bit.
        - Mask (``data_keys=["input", "mask"]``): what is given, :math:`(B, 1, H, W)`, united with the strip's pixels.

    Raises:
        ValueError: for arguments out of bounds, or images that have neither 1 nor 3 channels.
        TypeError: for images of integers.

    Examples:
        >>> from kornia.augmentation import AugmentationSequential
        >>> augment = AugmentationSequential(RandomCutPasteScar(), data_keys=["input", "mask"])
        >>> negative, mask = augment(torch.rand(2, 3, 256, 256), torch.zeros(2, 1, 256, 256))
    """

    def __init__(
        self,
        width: tuple[float, float] = (2 / 256, 16 / 256),
        length: tuple[float, float] = (10 / 256, 25 / 256),
        degrees: tuple[float, float] = (-45.0, 45.0),
        jitter: Jitter = (0.1, 0.1, 0.1, 0.1),
        p: float = 1.0,
        same_on_batch: bool = False,
        keepdim: bool = False,
    ) -> None:
        scar = ScarGenerator(width, length, degrees)
        super().__init__(JitteredGenerator(TwoPlacesGenerator(scar), jitter), {}, p, same_on_batch, keepdim)
        self.scar = scar
        self.jittered = any(jitter)

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Return the images ``(B, C, H, W)`` with their strips pasted."""
        params = on_device_of(input, params)
        scar, index = self._target(input, params)
        source = scar.source + (params["source_ys"] * input.shape[-1] + params["source_xs"])[:, None]
        pixels = read(input, source)
        if self.jittered:
            pixels = jitter_colors(pixels, params["jitter"], scar.mean(pixels))
        pixels = torch.where(scar.inside[:, None], pixels, read(input, index))
        return write(input, (index, once(scar.square, pixels)))

    def apply_transform_mask(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Return the masks ``(B, C, H, W)`` united with the strips' pixels."""
        scar, index = self._target(input, on_device_of(input, params))
        return unite(input, (index, scar.inside))

    def _target(self, input: Tensor, params: dict[str, Tensor]) -> tuple[Scar, Tensor]:
        """Return the scars, and where their squares lie, ``(B, N)``."""
        height, width = input.shape[-2:]
        room = self.scar.largest(height, width)[2]
        scar = scars(params, params["angles"][:, 0], room, (height, width))
        return scar, scar.square.at(params["target_ys"], params["target_xs"], width)
