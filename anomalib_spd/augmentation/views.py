"""The views that pre-training compares; each function states its source and every departure from it.

All take float ``(B, 3, H, W)`` in ``[0, 1]`` and return ``(B, 3, size, size)`` in ``[0, 1]``; normalisation follows once,
on all views together.
"""

from kornia.augmentation import (
    CenterCrop,
    ColorJitter,
    RandomGaussianBlur,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
)
from torch import nn


def anchor_view(size: int) -> nn.Module:
    """Return the SPD anchor: the image itself, its short side resized to ``size``, the middle cut out (ours).

    The paper does not say what the anchor is; an unofficial implementation resizes the image without changing a colour.
    """
    return nn.Sequential(Resize(size, side="short", antialias=True), CenterCrop(size))


def weak_view(size: int) -> nn.Module:
    """Return SPD's weak global augmentation: slight crop, colour jitter, blur, flip.

    The kinds are those of the SPD paper (section 3), its strengths are not known; these are ours, clearly weaker than
    any strong view.
    """
    return nn.Sequential(
        RandomResizedCrop((size, size), scale=(0.8, 1.0), ratio=(0.9, 1.1), cropping_mode="resample"),
        ColorJitter(0.1, 0.1, 0.1, 0.05, p=0.8),
        RandomGaussianBlur((7, 7), (0.1, 1.0), p=0.5),
        RandomHorizontalFlip(p=0.5),
    )


def supervised_view(size: int) -> nn.Module:
    """Return the usual augmentation of ImageNet classification: random resized crop and flip.

    As in torchvision's and PyTorch's reference training (scale 0.08-1, aspect 3/4-4/3, flip 0.5).
    """
    return nn.Sequential(
        RandomResizedCrop((size, size), scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), cropping_mode="resample"),
        RandomHorizontalFlip(p=0.5),
    )
