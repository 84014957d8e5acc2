"""CutSwap-scar: two thin strips of the image change places, each turned, where a saliency map says."""

from typing import Any

import torch
from torch import Tensor

from anomalib_spd.augmentation.anchors import Choice
from anomalib_spd.augmentation.base import on_device_of
from anomalib_spd.augmentation.generators import LEAST_SCAR_LENGTH, LEAST_SCAR_WIDTH, ScarGenerator
from anomalib_spd.augmentation.patches import once, read, unite, write
from anomalib_spd.augmentation.scars import Scar, scars
from anomalib_spd.augmentation.swap import Guide, SwapAugmentation


class RandomCutSwapScar(SwapAugmentation):
    r"""Exchange two thin strips of the image that lie where it is salient, each turned by an angle of its own.

    Source: CutSwap (multilevel saliency-guided fine-tuning), which says: long thin boxes, swapped, then rotated. Sizes
    and angles are CutPaste-scar's, see :class:`RandomCutPasteScar`; where the turned strip does not cover the other's
    place, the image stays (ours). Pixels are turned to the nearest, so that no colour arises that was not there.

    Args:
        width: range of the strips' width as a share of the image's shorter side.
        length: range of their length, likewise.
        degrees: range of the angles, degrees, counter-clockwise as displayed.
        clusters: see :class:`RandomCutSwap`.
        cluster: see there.
        top: see there.
        guide: see there.
        p: probability that an image is changed.
        same_on_batch: draw once for the whole batch; the maps stay each image's own.
        keepdim: return ``(C, H, W)`` for ``(C, H, W)``.

    Shape:
        - Input, saliency, anchors, output: as of :class:`RandomCutSwap`. An anchor is the first pixel of the square in
          which the strip turns.
        - Mask (``data_keys=["input", "mask"]``): what is given, :math:`(B, 1, H, W)`, united with both strips.

    Raises:
        ValueError: as :class:`RandomCutSwap`.
        RuntimeError: for a saliency map with NaN.
        TypeError: for images or maps of integers.

    Examples:
        >>> image, saliency = torch.rand(2, 3, 256, 256), torch.rand(2, 1, 256, 256)
        >>> negative = RandomCutSwapScar()(image, saliency=saliency)
    """

    def __init__(
        self,
        width: tuple[float, float] = (2 / 256, 16 / 256),
        length: tuple[float, float] = (10 / 256, 25 / 256),
        degrees: tuple[float, float] = (-45.0, 45.0),
        clusters: int = 4,
        cluster: Choice = "max",
        top: int | None = None,
        guide: Guide | None = None,
        p: float = 1.0,
        same_on_batch: bool = False,
        keepdim: bool = False,
    ) -> None:
        scar = ScarGenerator(width, length, degrees)
        super().__init__(scar, clusters, cluster, top, guide, p, same_on_batch, keepdim)

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Return the images ``(B, C, H, W)`` with their strips swapped."""
        pieces = []
        for place, other, scar in self._scars(input, on_device_of(input, params)):
            index = scar.square.offsets + place
            pixels = read(input, torch.where(scar.inside, scar.source + other, index))
            pieces.append((index, once(scar.square, pixels)))
        return write(input, *pieces)

    def apply_transform_mask(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Return the masks ``(B, C, H, W)`` united with both strips."""
        both = self._scars(input, on_device_of(input, params))
        return unite(input, *((scar.square.offsets + place, scar.inside) for place, _, scar in both))

    def _scars(self, input: Tensor, params: dict[str, Tensor]) -> list[tuple[Tensor, Tensor, Scar]]:
        """Return, for each of the two, where its square begins and the other's, int64 ``(B, 1)``, and the scar."""
        height, width = input.shape[-2:]
        share = params["heights"] / params["full_heights"]
        fitted = params | {
            "scar_widths": (params["scar_widths"] * share).clamp(min=LEAST_SCAR_WIDTH),
            "scar_lengths": (params["scar_lengths"] * share).clamp(min=LEAST_SCAR_LENGTH),
        }
        source = (params["source_ys"] * width + params["source_xs"])[:, None]
        target = (params["target_ys"] * width + params["target_xs"])[:, None]
        room = self.size.largest(height, width)[2]
        first, second = (scars(fitted, angles, room, (height, width)) for angles in params["angles"].unbind(1))
        return [(source, target, first), (target, source, second)]
