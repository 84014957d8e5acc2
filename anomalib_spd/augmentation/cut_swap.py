"""CutSwap: two patches of the image change places, where a saliency map says."""

from typing import Any

from torch import Tensor

from anomalib_spd.augmentation.anchors import Choice
from anomalib_spd.augmentation.base import on_device_of
from anomalib_spd.augmentation.generators import BoxGenerator
from anomalib_spd.augmentation.patches import Patch, once, patches, read, unite, write
from anomalib_spd.augmentation.swap import Guide, SwapAugmentation


class RandomCutSwap(SwapAugmentation):
    r"""Exchange two patches of the image that lie where it is salient.

    The saliency map is clustered by value, and the first pixels of the two patches, the anchors, are drawn from the
    cluster of the largest center. Without a map anchors are drawn from all pixels. No colour is changed: each image
    keeps its multiset of pixels, and the same parameters applied twice restore it.

    In Kornia's containers CutSwap and CutSwap-scar count as mixes, of which a container applies one: give both only to
    one with ``random_apply=1``. Class labels are refused there.

    Source: CutSwap (multilevel saliency-guided fine-tuning), "Anchor selection" and "CutSwap". It does not state the
    size of the patches; ours is CutPaste's. Patches that would overlap shrink, see :func:`swap_places`.

    Args:
        scale: range of the patches' area as a share of the image's, a quarter at most.
        ratio: range of the patches' width over their height.
        clusters: number of clusters of saliency, the paper's k.
        cluster: which of them anchors are drawn from; ``"min"`` and ``"random"`` are ablations.
        top: draw anchors from so many most salient pixels instead, the ablation "saliency sorting" (300).
        guide: what comes with the images in a container. ``"saliency"``: its first mask is the saliency map, and comes
            back as it was. ``"anchors"``: its keypoints are the anchors. ``None``: neither.
        p: probability that an image is changed.
        same_on_batch: draw once for the whole batch; the maps stay each image's own.
        keepdim: return ``(C, H, W)`` for ``(C, H, W)``.

    Shape:
        - Input: floating :math:`(C, H, W)` or :math:`(B, C, H, W)`.
        - Saliency: floating :math:`(B, 1, H, W)` or :math:`(B, H, W)`, finite, of any range.
        - Anchors: :math:`(B, T, 2)`, columns and rows, 2 at least; the second patch takes the first of the others at
          which it does not overlap.
        - Output: :math:`(B, C, H, W)`. Pixels outside the mask are untouched, bit for bit.
        - Mask (``data_keys=["input", "mask"]``): what is given, :math:`(B, 1, H, W)`, united with both patches.

    Raises:
        ValueError: for arguments out of bounds, a saliency map of another size than the image's, anchors of another
            shape, or where ``guide`` announces what the container does not have.
        RuntimeError: for a saliency map with NaN.
        TypeError: for images or maps of integers.

    Examples:
        >>> image, saliency, clean = torch.rand(2, 3, 256, 256), torch.rand(2, 1, 256, 256), torch.zeros(2, 1, 256, 256)
        >>> negative = RandomCutSwap()(image, saliency=saliency)

        In a container, beside other transforms:

        >>> from kornia.augmentation import AugmentationSequential, RandomHorizontalFlip
        >>> transforms = RandomHorizontalFlip(), RandomCutSwap(guide="saliency")
        >>> augment = AugmentationSequential(*transforms, data_keys=["input", "mask", "mask"])
        >>> negative, _, mask = augment(image, saliency, clean)
    """

    def __init__(
        self,
        scale: tuple[float, float] = (0.02, 0.15),
        ratio: tuple[float, float] = (0.3, 1 / 0.3),
        clusters: int = 4,
        cluster: Choice = "max",
        top: int | None = None,
        guide: Guide | None = None,
        p: float = 1.0,
        same_on_batch: bool = False,
        keepdim: bool = False,
    ) -> None:
        super().__init__(BoxGenerator(scale, ratio), clusters, cluster, top, guide, p, same_on_batch, keepdim)

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Return the images ``(B, C, H, W)`` with their patches swapped."""
        patch, source, target = self._patch(input, params)
        first, second = once(patch, read(input, source)), once(patch, read(input, target))
        return write(input, (target, first), (source, second))

    def apply_transform_mask(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Return the masks ``(B, C, H, W)`` united with both patches."""
        _, source, target = self._patch(input, params)
        return unite(input, (source, None), (target, None))

    def _patch(self, input: Tensor, params: dict[str, Tensor]) -> tuple[Patch, Tensor, Tensor]:
        """Return the patches, and the index ``(B, N)`` of each of the two places."""
        params = on_device_of(input, params)
        height, width = input.shape[-2:]
        patch = patches(params["heights"], params["widths"], self.size.largest(height, width)[2], (height, width))
        source = patch.at(params["source_ys"], params["source_xs"], width)
        return patch, source, patch.at(params["target_ys"], params["target_xs"], width)
