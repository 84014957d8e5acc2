"""The classifiers whose saliency guides the swaps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
from timm.models import VGG
from torch import nn

from anomalib_spd.backbones.statistics import IMAGENET_MEAN, IMAGENET_STD, fold_input_statistics
from anomalib_spd.cache_folders import cache_folder
from anomalib_spd.saliency import LayerCAM, SaliencyCache


def saliency_cache(name: str, layers: Sequence[str] | None = None, folder: Path | str | None = None) -> SaliencyCache:
    """Return what computes, or has kept, the maps of a pretrained classifier.

    Args:
        name: of the classifier, on the shelf or in timm.
        layers: one map each; by default the last of each stride, which are 2, 4, 8, 16 and 32 of most, and the poolings
            of a VGG, the paper's.
        folder: of the maps; by default ``saliency`` among the package's caches.

    Returns:
        images ``(B, 3, H, W)`` of ImageNet's mean and std, whatever the classifier was trained with, to maps
        ``(B, L, H, W)``, see :class:`~anomalib_spd.saliency.SaliencyCache`.

    Raises:
        ValueError: where the network is no classifier, or has no such layer.
        RuntimeError: where timm does not know it, or cannot load its weights.
    """
    classifier: Any = timm.create_model(name, pretrained=True).eval()
    if not getattr(classifier, "num_classes", 0):
        msg = f"{name!r} has no classifier, so it has no classes to explain. Give one that has, such as its base."
        raise ValueError(msg)
    statistics = tuple(classifier.pretrained_cfg["mean"]), tuple(classifier.pretrained_cfg["std"])
    if statistics != (IMAGENET_MEAN, IMAGENET_STD):
        fold_input_statistics(classifier, *statistics)
    if layers is None:
        pools = [name for name, module in classifier.named_modules() if isinstance(module, nn.MaxPool2d)]
        layers = pools if isinstance(classifier, VGG) else [info["module"] for info in classifier.feature_info]
    return SaliencyCache(folder or cache_folder("saliency"), LayerCAM(classifier, layers))
