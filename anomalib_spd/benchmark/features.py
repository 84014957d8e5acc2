"""Computes features that several cells of a grid share once."""

import time
from collections.abc import Sequence

import torch
from anomalib.models.components import AnomalibModule, MemoryBankMixin, TimmFeatureExtractor
from torch import Tensor, nn

from anomalib_spd.files import digest


class SharedFeatures:
    """The features of all images that a backbone has processed, at all layers that some detector reads.

    The key of an image is its pixels as the backbone gets them, so data modules or crops never mix. Images pass the
    backbone one at a time: their features do not depend on the rest of a batch, and the figures of a cell are the same alone
    and in a grid.

    Args:
        backbone: name in the registry or in timm.
        layers: that the detectors read, first to last.
    """

    def __init__(self, backbone: str, layers: Sequence[str]) -> None:
        self.extractor = TimmFeatureExtractor(backbone, layers).eval()
        self._seconds_saved = 0.0
        self._features: dict[str, tuple[dict[str | int, Tensor], float]] = {}

    def serve(self, model: AnomalibModule) -> bool:
        """Let a detector read its features from here, if it has a memory bank and does not train the backbone.

        Args:
            model: a detector that was just built.

        Returns:
            Whether it reads them from here.
        """
        stock = getattr(model.model, "feature_extractor", None)
        if not isinstance(model, MemoryBankMixin) or not isinstance(stock, TimmFeatureExtractor):
            return False
        if stock.requires_grad or not set(stock.layers) <= set(self.extractor.layers):
            return False
        model.model.feature_extractor = _SharedExtractor(self, stock)
        return True

    def take_seconds_saved(self) -> float:
        """Return the seconds that reused features had taken, of those reused since the last call."""
        seconds, self._seconds_saved = self._seconds_saved, 0.0
        return seconds

    def __call__(self, images: Tensor) -> dict[str | int, Tensor]:
        """Return the features of images.

        Args:
            images: (B, 3, H, W) float, pre-processed.

        Returns:
            Layer -> (B, C, h, w).
        """
        each = [self._features_of(image) for image in images]
        return {layer: torch.stack([one[layer] for one in each]).to(images.device) for layer in each[0]}

    def _features_of(self, image: Tensor) -> dict[str | int, Tensor]:
        key = digest(image.detach().cpu().contiguous().numpy().data)
        if key in self._features:
            features, seconds = self._features[key]
            self._seconds_saved += seconds
            return features
        start = time.perf_counter()
        self.extractor.to(image.device)
        features = {layer: maps[0].cpu() for layer, maps in self.extractor(image[None]).items()}
        self._features[key] = features, time.perf_counter() - start
        return features


class _SharedExtractor(nn.Module):
    """Replaces a detector's own feature extractor."""

    def __init__(self, shared: SharedFeatures, stock: TimmFeatureExtractor) -> None:
        super().__init__()
        # no submodule: the detector neither moves nor saves it
        self._shared = (shared,)
        self.layers, self.out_dims = stock.layers, stock.out_dims

    def forward(self, images: Tensor) -> dict[str | int, Tensor]:
        features = self._shared[0](images)
        return {layer: features[layer] for layer in self.layers}
