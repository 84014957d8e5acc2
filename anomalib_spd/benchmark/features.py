"""Features that several cells of a grid share are computed once."""

import time
from collections.abc import Sequence

import torch
from anomalib.models.components import AnomalibModule, MemoryBankMixin, TimmFeatureExtractor
from torch import Tensor, nn

from anomalib_spd.files import digest


class SharedFeatures:
    """The features of every image that a backbone has seen, at all layers that some detector reads.

    Images are told apart by what reaches the backbone: two data modules or crops never mix. They pass one at a time, so
    that their features do not depend on who came with them, and a cell gives the same figures alone and in a grid.

    Args:
        backbone: name on the shelf or in timm.
        layers: of all detectors that share it.
    """

    def __init__(self, backbone: str, layers: Sequence[str]) -> None:
        self.extractor = TimmFeatureExtractor(backbone, layers).eval()
        self._seconds_saved = 0.0
        self._features: dict[str, tuple[dict[str | int, Tensor], float]] = {}

    def serve(self, model: AnomalibModule) -> bool:
        """Let a detector take its features from here, if it is of those that leave the backbone as it is.

        Args:
            model: a detector that was just built.

        Returns:
            Whether it does. Those that fit a memory bank to the features of one layer set do; those that train do not.
        """
        stock = getattr(model.model, "feature_extractor", None)
        if not isinstance(model, MemoryBankMixin) or not isinstance(stock, TimmFeatureExtractor):
            return False
        if stock.requires_grad or not set(stock.layers) <= set(self.extractor.layers):
            return False
        model.model.feature_extractor = _View(self, stock)
        return True

    def take_seconds_saved(self) -> float:
        """Seconds that those features took which were asked for again, since this was last called."""
        seconds, self._seconds_saved = self._seconds_saved, 0.0
        return seconds

    def __call__(self, images: Tensor) -> dict[str | int, Tensor]:
        """Features of images.

        Args:
            images: (B, 3, H, W) float, as the pre-processor leaves them.

        Returns:
            Layer -> (B, C, h, w).
        """
        each = [self._of(image) for image in images]
        return {layer: torch.stack([one[layer] for one in each]).to(images.device) for layer in each[0]}

    def _of(self, image: Tensor) -> dict[str | int, Tensor]:
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


class _View(nn.Module):
    """What a detector has in the place of its own feature extractor."""

    def __init__(self, shared: SharedFeatures, stock: TimmFeatureExtractor) -> None:
        super().__init__()
        # no submodule: the detector neither moves nor saves it
        self._shared = (shared,)
        self.layers, self.out_dims = stock.layers, stock.out_dims

    def forward(self, images: Tensor) -> dict[str | int, Tensor]:
        features = self._shared[0](images)
        return {layer: features[layer] for layer in self.layers}
