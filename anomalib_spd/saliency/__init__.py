"""Saliency: LayerCAM maps of several depths of a classifier, their cache on disk, and their clustering."""

from anomalib_spd.saliency.cache import SaliencyCache
from anomalib_spd.saliency.clustering import Clusters, kmeans_1d
from anomalib_spd.saliency.layer_cam import EFFICIENTNET_LITE0_STRIDES, VGG16_POOLS, LayerCAM, Target, TopK

__all__ = [
    "EFFICIENTNET_LITE0_STRIDES",
    "VGG16_POOLS",
    "Clusters",
    "LayerCAM",
    "SaliencyCache",
    "Target",
    "TopK",
    "kmeans_1d",
]
