"""CutSwap-scar: two thin strips of the image swap, each turned, where a saliency map says."""

from torch import Tensor

from anomalib_spd.augmentation.anchors import ClusterChoice
from anomalib_spd.augmentation.generators import MIN_SCAR_LENGTH, MIN_SCAR_WIDTH, ScarGenerator
from anomalib_spd.augmentation.patches import Patch, patches
from anomalib_spd.augmentation.swap import Guide, SwapAugmentation


class RandomCutSwapScar(SwapAugmentation):
    r"""Swap two thin strips of the image in salient locations, each turned by its own angle.

    Source: CutSwap (multilevel saliency-guided fine-tuning), which says: long thin boxes, swapped, then rotated. Sizes
    and angles are CutPaste-scar's, see :class:`RandomCutPasteScar`; where the turned strip does not cover the location of
    the other one, the image stays (ours). Pixels are turned to the nearest, so that no new color appears.

    Args:
        width: range of the strips' width as a share of the image's shorter side.
        length: range of their length as such a share.
        degrees: range of the angles, degrees, counter-clockwise as displayed.
        clusters, cluster, top, guide, relocate, p, same_on_batch, keepdim: see :class:`RandomCutSwap`.

    Shape:
        - Input, saliency, anchors, output: as for :class:`RandomCutSwap`. An anchor is the first pixel of the square in
          which the strip turns.
        - Mask (``data_keys=["input", "mask"]``): the given one, :math:`(B, 1, H, W)`, united with both strips.

    Raises:
        ValueError, RuntimeError, TypeError: as :class:`RandomCutSwap`.

    Examples:
        >>> import torch
        >>> image, saliency = torch.rand(2, 3, 256, 256), torch.rand(2, 1, 256, 256)
        >>> negative = RandomCutSwapScar()(image, saliency=saliency)
    """

    def __init__(
        self,
        width: tuple[float, float] = (2 / 256, 16 / 256),
        length: tuple[float, float] = (10 / 256, 25 / 256),
        degrees: tuple[float, float] = (-45.0, 45.0),
        clusters: int = 4,
        cluster: ClusterChoice = "max",
        top: int | None = None,
        guide: Guide | None = None,
        relocate: bool = False,
        p: float = 1.0,
        same_on_batch: bool = False,
        keepdim: bool = False,
    ) -> None:
        size = ScarGenerator(width, length, degrees)
        super().__init__(size, clusters, cluster, top, guide, relocate, p, same_on_batch, keepdim)

    def two_patches(self, params: dict[str, Tensor], max_area: int, image_size: tuple[int, int]) -> tuple[Patch, Patch]:
        """Return the strips, shrunk as their squares had to."""
        share = params["heights"] / params["full_heights"]
        fitted = params | {
            "scar_widths": (params["scar_widths"] * share).clamp(min=MIN_SCAR_WIDTH),
            "scar_lengths": (params["scar_lengths"] * share).clamp(min=MIN_SCAR_LENGTH),
        }
        first, second = (patches(fitted, max_area, image_size, angles) for angles in params["angles"].unbind(1))
        return first, second
