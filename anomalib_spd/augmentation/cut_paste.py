"""CutPaste: a patch of the image, in slightly other colours, at another place of it."""

from typing import Any

from torch import Tensor

from anomalib_spd.augmentation.base import PatchAugmentation, on_device_of
from anomalib_spd.augmentation.color_jitter import jitter_colors
from anomalib_spd.augmentation.generators import BoxGenerator, Jitter, JitteredGenerator, TwoPlacesGenerator
from anomalib_spd.augmentation.patches import Patch, once, patches, read, unite, write


class RandomCutPaste(PatchAugmentation):
    r"""Cut a patch of the image, jitter its colours, and paste it at a random place.

    Source: Li et al., CutPaste: Self-Supervised Learning for Anomaly Detection and Localization (CVPR 2021), section
    2.2. Ranges are those of its public re-implementations: area 2-15 % of the image, aspect log-uniform.

    Args:
        scale: range of the patch's area as a share of the image's.
        ratio: range of the patch's width over its height.
        jitter: largest change of brightness, contrast, saturation (factors) and hue (turns), see
            :func:`jitter_colors`. Images of one channel know the first two only.
        p: probability that an image is changed.
        same_on_batch: draw once for the whole batch.
        keepdim: return ``(C, H, W)`` for ``(C, H, W)``.

    Shape:
        - Input: floating :math:`(C, H, W)` or :math:`(B, C, H, W)` with values in ``[0, 1]``; C is 1 or 3, without
          jitter any.
        - Output: :math:`(B, C, H, W)`; values stay in ``[0, 1]``. Pixels outside the mask are untouched, bit for bit.
        - Mask (``data_keys=["input", "mask"]``): what is given, :math:`(B, 1, H, W)`, united with the pasted pixels.

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
        box = BoxGenerator(scale, ratio)
        super().__init__(JitteredGenerator(TwoPlacesGenerator(box), jitter), {}, p, same_on_batch, keepdim)
        self.box = box
        self.jittered = any(jitter)

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Return the images ``(B, C, H, W)`` with their patches pasted."""
        params = on_device_of(input, params)
        patch = self._patch(input, params)
        pixels = read(input, patch.at(params["source_ys"], params["source_xs"], input.shape[-1]))
        if self.jittered:
            pixels = jitter_colors(pixels, params["jitter"], patch.mean(pixels))
        target = patch.at(params["target_ys"], params["target_xs"], input.shape[-1])
        return write(input, (target, once(patch, pixels)))

    def apply_transform_mask(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Return the masks ``(B, C, H, W)`` united with the pasted pixels."""
        params = on_device_of(input, params)
        target = self._patch(input, params).at(params["target_ys"], params["target_xs"], input.shape[-1])
        return unite(input, (target, None))

    def _patch(self, input: Tensor, params: dict[str, Tensor]) -> Patch:
        height, width = input.shape[-2:]
        return patches(params["heights"], params["widths"], self.box.largest(height, width)[2], (height, width))
