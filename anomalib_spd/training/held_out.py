"""Judges an adaptation by normal images that it was not trained on, with faint defects drawn on them."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from lightning.pytorch import seed_everything
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from anomalib_spd.data.faint_defects import draw_faint_defects
from anomalib_spd.detectors import KCenterGreedy
from anomalib_spd.losses import patch_embedding
from anomalib_spd.losses.local import anomaly_map

#: images of the memory, and defective ones, at most: seconds on a CPU
MEMORY_IMAGES, DEFECTIVE_IMAGES = 150, 120
RATIO = 0.01
BATCH = 16


@runtime_checkable
class Adaptation(Protocol):
    """A training whose encoder and frozen backbone can be compared, such as ``CategoryAdaptation``."""

    encoder: Any
    teacher: Any

    def features(self, network: Any, images: Tensor) -> list[Tensor]:
        """Return the maps ``(B, C, h, w)`` of the layers that detectors read, of images ``(B, 3, H, W)`` in ``[0, 1]``."""


class HeldOutScores(NamedTuple):
    """How well a detector finds faint defects on images that were held out.

    Attributes:
        image_auroc: AU-ROC of images.
        pixel_aupr: AU-PR of pixels.
    """

    image_auroc: float
    pixel_aupr: float

    @property
    def total(self) -> float:
        """What decides: the sum of both."""
        return self.image_auroc + self.pixel_aupr

    def __str__(self) -> str:
        """Return both, with three places."""
        return f"{self.image_auroc:.3f} / {self.pixel_aupr:.3f}"


@torch.no_grad()
def compare_on_held_out(training: Adaptation, memory: Tensor, held_out: Tensor) -> list[HeldOutScores]:
    """Judge the backbone and the trained weights on the same images.

    PatchCore with a coreset of 1 % in small: a memory of training images, and the held-out images as they are and with faint
    defects. Random states are restored.

    Source: ours.

    Args:
        training: the networks that are compared; they do not change.
        memory: training images, uint8 ``(M, 3, H, W)``.
        held_out: normal images that were not trained on, uint8 ``(N, 3, H, W)``.

    Returns:
        The scores of the backbone, and those of the trained weights.
    """
    defective, masks = draw_faint_defects(held_out, min(DEFECTIVE_IMAGES, 8 * len(held_out)), seed=0)
    queries = torch.cat([held_out, defective])
    masks = torch.cat([torch.zeros(len(held_out), *masks.shape[1:]), masks])[:, 0, ::4, ::4].flatten() > 0
    labels = torch.arange(len(queries)) >= len(held_out)
    results = []
    for network in (training.teacher, training.encoder):
        bank = _coreset(_embed(training, network, memory).movedim(1, -1).flatten(0, 2))
        scores, maps = [], []
        for batch in queries.split(BATCH):
            query = _embed(training, network, batch)
            nearest = torch.cdist(query.movedim(1, -1).flatten(0, 2), bank).amin(1)
            distances = nearest.view(len(batch), *query.shape[-2:])
            scores.append(distances.flatten(1).amax(1))
            maps.append(anomaly_map(distances, queries.shape[-2:])[:, ::4, ::4].flatten())
        image_auroc = binary_auroc(_to_unit(torch.cat(scores)), labels)
        pixel_aupr = binary_average_precision(_to_unit(torch.cat(maps)), masks.long())
        results.append(HeldOutScores(image_auroc.item(), pixel_aupr.item()))
    return results


def _embed(training: Adaptation, network: nn.Module, images: Tensor) -> Tensor:
    """Return PatchCore's embedding ``(B, D, h, w)`` of uint8 images, on the CPU."""
    device = next(network.parameters()).device
    parts = [
        patch_embedding(training.features(network, each.to(device).float() / 255)).float()
        for each in images.split(BATCH)
    ]
    return torch.cat([each.cpu() for each in parts])


def _coreset(embedding: Tensor) -> Tensor:
    with isolate_rng():
        seed_everything(0, verbose=False)
        return KCenterGreedy(embedding, max(RATIO, min(1, 50 / len(embedding)))).sample_coreset()


def _to_unit(scores: Tensor) -> Tensor:
    """Scale to ``[0, 1]``, which torchmetrics does not pass through a sigmoid; ranks stay."""
    return scores / scores.max()
