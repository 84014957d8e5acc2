"""Where a classifier looks: LayerCAM maps of several depths, kept on disk."""

from .cache import SaliencyCache
from .layer_cam import EFFICIENTNET_LITE0_STRIDES, VGG16_POOLS, LayerCAM, Target, TopK

__all__ = ["EFFICIENTNET_LITE0_STRIDES", "VGG16_POOLS", "LayerCAM", "SaliencyCache", "Target", "TopK"]
