"""Saliency of a difference: where a backbone sees that an image is not like its references."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from anomalib_spd.saliency.layer_cam import LayerCAM


class FeatureDistance(nn.Module):
    """Scores images by the distance of their pooled features to those of references: one minus the cosine, as in SPD.

    Source: SPD's loss (Zou et al., ECCV 2022, section 4.1) compares these distances; to take its gradient for a saliency map is ours.

    Args:
        encoder: returns pooled features ``(B, C)``.
        references: features, floating ``(B, C)``, one row an image, or ``(1, C)`` for all images.
    """

    def __init__(self, encoder: nn.Module, references: Tensor) -> None:
        super().__init__()
        self.encoder = encoder.eval()
        self.references = references

    def forward(self, images: Tensor) -> Tensor:
        """Return scores ``(B, 1)`` in ``[0, 2]`` of images ``(B, 3, H, W)``."""
        return 1 - F.cosine_similarity(self.encoder(images), self.references)[:, None]


def difference_maps(encoder: nn.Module, images: Tensor, references: Tensor, layers: Sequence[str]) -> Tensor:
    """Return where an encoder sees that images are not like their references: LayerCAM of `FeatureDistance`.

    Args:
        encoder: returns pooled features ``(B, C)``.
        images: floating ``(B, 3, H, W)``, normalized as the encoder expects.
        references: features, floating ``(B, C)`` or ``(1, C)``.
        layers: names of modules of the encoder.

    Returns:
        float32 ``(B, L, H, W)`` in ``[0, 1]``, each map from its own minimum to its own maximum.

    Raises:
        ValueError: as `LayerCAM` does, for layers that the encoder does not have.
    """
    return LayerCAM(FeatureDistance(encoder, references), [f"encoder.{layer}" for layer in layers])(images)
