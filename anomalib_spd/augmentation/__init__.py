"""Kornia transforms: an image batch in; the image batch and the mask of what changed out."""

from .smooth_blend import RandomSmoothBlend
from .views import anchor_view, supervised_view, weak_view

__all__ = ["RandomSmoothBlend", "anchor_view", "supervised_view", "weak_view"]
