"""CutSwap-scar: two thin strips of the image change places, each turned, where a saliency map says."""

from typing import Any

import torch
from torch import Tensor

from anomalib_spd.saliency.anchors import Choice

from .base import on_device_of
from .generators import ScarGenerator
from .patches import read, unite, write
from .scars import Scar, scars
from .swap import Guide, SwapAugmentation


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
        params = on_device_of(input, params)
        width = input.shape[-1]
        (first, second), index, inside = self._scars(input, params)
        # what lies at the first place comes from the second, and the other way round
        came_from = torch.cat(
            [
                first.source.at(params["target_ys"], params["target_xs"], width),
                second.source.at(params["source_ys"], params["source_xs"], width),
            ],
            1,
        )
        pixels = read(input, torch.where(inside, came_from, index))
        return write(input, index, pixels, torch.cat([first.square.valid, second.square.valid], 1))

    def apply_transform_mask(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Return the masks ``(B, C, H, W)`` united with both strips."""
        _, index, inside = self._scars(input, on_device_of(input, params))
        return unite(input, index, inside)

    def _scars(self, input: Tensor, params: dict[str, Tensor]) -> tuple[tuple[Scar, Scar], Tensor, Tensor]:
        """Return both scars, the index ``(B, N)`` of both squares, and what of it the scars cover."""
        size = input.shape[-2:]
        share = params["heights"] / params["full_heights"]
        shrunk = params | {key: params[key] * share for key in ("scar_widths", "scar_lengths")}
        first, second = (scars(shrunk, angles, self.size.largest(*size)[2], size) for angles in params["angles"].unbind(1))
        index = torch.cat(
            [
                first.square.at(params["source_ys"], params["source_xs"], size[1]),
                second.square.at(params["target_ys"], params["target_xs"], size[1]),
            ],
            1,
        )
        return (first, second), index, torch.cat([first.inside, second.inside], 1)
