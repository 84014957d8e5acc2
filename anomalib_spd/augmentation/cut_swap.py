"""CutSwap: two patches of the image swap, where a saliency map says."""

from torch import Tensor

from anomalib_spd.augmentation.anchors import ClusterChoice
from anomalib_spd.augmentation.generators import BoxGenerator
from anomalib_spd.augmentation.patches import Patch, patches
from anomalib_spd.augmentation.swap import Guide, SwapAugmentation


class RandomCutSwap(SwapAugmentation):
    r"""Swap two patches of the image in salient locations.

    The saliency map is clustered by value, and the first pixels of the two patches, the anchors, are sampled from the
    cluster of the largest center. Without a map anchors are sampled from all pixels. No color changes: each image
    keeps its multiset of pixels, and the same parameters applied twice restore it.

    In Kornia's containers CutSwap and CutSwap-scar count as mixes, of which a container applies one: give both only to
    one with ``random_apply=1``. Class labels are refused there.

    Source: CutSwap (multilevel saliency-guided fine-tuning), "Anchor selection" and "CutSwap". It does not state the
    size of the patches; ours is CutPaste's. Patches that would overlap shrink, see :func:`swap_locations`.

    Args:
        scale: range of the patches' area as a share of the image's, a quarter at most.
        ratio: range of the patches' width over their height.
        clusters: number of clusters of saliency, the paper's k.
        cluster: cluster that anchors are sampled from; ``"min"`` and ``"random"`` are ablations.
        top: sample anchors from this number of most salient pixels instead, the ablation "saliency sorting" (300).
        guide: what comes with the images in a container. ``"saliency"``: the first mask is the saliency map, and is
            returned as it was. ``"anchors"``: the keypoints are the anchors. ``None``: neither.
        relocate: move both patches together to a random location after the guide has placed them: the control of a guide, with
            its sizes and distances (ours).
        p: probability that an image is changed.
        same_on_batch: sample once for the whole batch; each image keeps its own map.
        keepdim: return ``(C, H, W)`` for ``(C, H, W)``.

    Shape:
        - Input: floating :math:`(C, H, W)` or :math:`(B, C, H, W)`.
        - Saliency: floating :math:`(B, 1, H, W)` or :math:`(B, H, W)`, finite, of any range.
        - Anchors: :math:`(B, T, 2)`, columns and rows, 2 at least; the second patch gets the first of the others at
          which it does not overlap.
        - Output: :math:`(B, C, H, W)`. Pixels outside the mask are untouched, bit for bit.
        - Mask (``data_keys=["input", "mask"]``): the given one, :math:`(B, 1, H, W)`, united with both patches.

    Raises:
        ValueError: for arguments out of bounds, a saliency map of another size than the image's, anchors of another
            shape, or where ``guide`` announces what the container does not have.
        RuntimeError: for a saliency map with NaN.
        TypeError: for images or maps of integers.

    Examples:
        >>> import torch
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
        cluster: ClusterChoice = "max",
        top: int | None = None,
        guide: Guide | None = None,
        relocate: bool = False,
        p: float = 1.0,
        same_on_batch: bool = False,
        keepdim: bool = False,
    ) -> None:
        super().__init__(BoxGenerator(scale, ratio), clusters, cluster, top, guide, relocate, p, same_on_batch, keepdim)

    def two_patches(self, params: dict[str, Tensor], max_area: int, image_size: tuple[int, int]) -> tuple[Patch, Patch]:
        """Return the patches, both of one shape."""
        patch = patches(params, max_area, image_size)
        return patch, patch
