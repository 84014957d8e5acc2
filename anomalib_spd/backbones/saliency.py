"""Saliency maps of a classifier, for trainings whose transforms they guide."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from timm.models import VGG
from torch import Tensor, nn

from anomalib_spd.backbones.loading import load
from anomalib_spd.backbones.normalization import IMAGENET_MEAN, IMAGENET_STD, fold_input_statistics
from anomalib_spd.backbones.transformers import is_transformer
from anomalib_spd.files import cache_folder
from anomalib_spd.saliency import LayerCAM, SaliencyCache


def saliency_cache(name: str, layers: Sequence[str] | None = None, folder: Path | str | None = None) -> SaliencyCache:
    """Return what computes, or reads from disk, the saliency maps of a pretrained classifier.

    Args:
        name: of the classifier, in the registry or in timm.
        layers: one map each; by default the last layer of each stride, which are 2, 4, 8, 16 and 32 of most networks, and
            the poolings of a VGG, which the CutSwap paper's numbers of layers are; the blocks of a transformer but the last, of
            whose patches the logits may be independent.
        folder: of the maps; by default ``saliency`` among the package's caches.

    Returns:
        images ``(B, 3, H, W)`` of ImageNet's mean and std, whatever the classifier was trained with, to maps
        ``(B, L, H, W)``, see :class:`~anomalib_spd.saliency.SaliencyCache`.

    Raises:
        ValueError: where the network is no classifier, or has no such layer.
        RuntimeError: where timm does not know it, or cannot load its weights.
    """
    classifier: Any = load(name).eval()
    if not getattr(classifier, "num_classes", 0):
        msg = f"{name!r} has no classifier, so it has no classes to explain. Give one that has, such as its base."
        raise ValueError(msg)
    statistics = tuple(classifier.pretrained_cfg["mean"]), tuple(classifier.pretrained_cfg["std"])
    if statistics != (IMAGENET_MEAN, IMAGENET_STD):
        fold_input_statistics(classifier, *statistics)
    if layers is None:
        pools = [name for name, module in classifier.named_modules() if isinstance(module, nn.MaxPool2d)]
        layers = pools if isinstance(classifier, VGG) else [info["module"] for info in classifier.feature_info]
        layers = layers[:-1] if is_transformer(classifier) else layers
    return SaliencyCache(folder or cache_folder("saliency"), LayerCAM(classifier, layers))


def saliency_maps(saliency: SaliencyCache, images: Tensor) -> Tensor:
    """Return the maps of every layer ``(B, L, H, W)`` of normalized images ``(B, 3, H, W)``.

    Images are passed one by one, and in float32: an image's maps depend on it alone, whatever run asks for them first.
    """
    with torch.autocast(images.device.type, enabled=False), _one_thread():
        return torch.cat([saliency(image[None]) for image in images])


def draw_saliency_maps(saliency: SaliencyCache, images: Tensor) -> Tensor:
    """Return one map of each normalized image ``(B, 3, H, W)``, of a layer drawn for each, ``(B, H, W)``."""
    maps = saliency_maps(saliency, images)
    layers = torch.randint(maps.shape[1], (len(maps),), device=maps.device)
    return maps[torch.arange(len(maps), device=maps.device), layers]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one CPU thread: with several, the last bits of maps were not the same in every process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
