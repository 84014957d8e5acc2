"""Kornia transforms that take an image batch and return it perturbed, with the mask of what changed."""

from anomalib_spd.augmentation.crack import RandomCrack
from anomalib_spd.augmentation.cut_paste import RandomCutPaste
from anomalib_spd.augmentation.cut_paste_scar import RandomCutPasteScar
from anomalib_spd.augmentation.cut_swap import RandomCutSwap
from anomalib_spd.augmentation.cut_swap_scar import RandomCutSwapScar
from anomalib_spd.augmentation.random_color_jitter import RandomColorJitter
from anomalib_spd.augmentation.smooth_blend import RandomSmoothBlend
from anomalib_spd.augmentation.torchvision_transform import TorchvisionTransform
from anomalib_spd.augmentation.views import (
    anchor_view,
    moco_v2_view,
    simclr_view,
    simsiam_view,
    supervised_view,
    weak_view,
)

__all__ = [
    "RandomColorJitter",
    "RandomCrack",
    "RandomCutPaste",
    "RandomCutPasteScar",
    "RandomCutSwap",
    "RandomCutSwapScar",
    "RandomSmoothBlend",
    "TorchvisionTransform",
    "anchor_view",
    "moco_v2_view",
    "simclr_view",
    "simsiam_view",
    "supervised_view",
    "weak_view",
]
