"""Kornia transforms: an image batch in; the image batch and the mask of what changed out."""

from .crack import RandomCrack
from .cut_paste import RandomCutPaste
from .cut_paste_scar import RandomCutPasteScar
from .cut_swap import RandomCutSwap
from .cut_swap_scar import RandomCutSwapScar
from .random_color_jitter import RandomColorJitter
from .smooth_blend import RandomSmoothBlend
from .torchvision_transform import TorchvisionTransform
from .views import anchor_view, moco_v2_view, simclr_view, simsiam_view, supervised_view, weak_view

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
