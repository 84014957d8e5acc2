"""Where a classifier looks: LayerCAM maps of several depths, kept on disk, and what of them is salient."""

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
