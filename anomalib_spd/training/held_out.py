"""Chooses how far an adaptation goes, by normal images that it was not trained on, with faint defects drawn on them."""

import copy
from collections.abc import Sequence
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

#: weights that are compared: the backbone's, halfway, the trained ones
FRACTIONS = (0.0, 0.5, 1.0)
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
        fraction: how far the weights are from the backbone's (0) to the trained ones (1).
        image_auroc: AU-ROC of images.
        pixel_aupr: AU-PR of pixels.
    """

    fraction: float
    image_auroc: float
    pixel_aupr: float

    @property
    def total(self) -> float:
        """What decides: the sum of both."""
        return self.image_auroc + self.pixel_aupr


@torch.no_grad()
def compare_on_held_out(training: Adaptation, memory: Tensor, held_out: Tensor) -> list[HeldOutScores]:
    """Judge the backbone, the trained weights and those halfway, on the same images.

    PatchCore with a coreset of 1 % in small: a memory of training images, and the held-out images as they are and with faint
    defects. Random states are restored.

    Source: ours. The halfway weights are those of Wortsman et al., Robust fine-tuning of zero-shot models (CVPR 2022).

    Args:
        training: its encoder ends as it was.
        memory: training images, uint8 ``(M, 3, H, W)``.
        held_out: normal images that were not trained on, uint8 ``(N, 3, H, W)``.

    Returns:
        The scores by ``FRACTIONS``.
    """
    defective, masks = draw_faint_defects(held_out, min(DEFECTIVE_IMAGES, 8 * len(held_out)), seed=0)
    queries = torch.cat([held_out, defective])
    masks = torch.cat([torch.zeros(len(held_out), *masks.shape[1:]), masks])[:, 0, ::4, ::4].flatten() > 0
    labels = torch.arange(len(queries)) >= len(held_out)
    results = []
    for fraction in FRACTIONS:
        network = between(training, fraction)
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
        results.append(HeldOutScores(fraction, image_auroc.item(), pixel_aupr.item()))
    return results


def choose(results: Sequence[HeldOutScores]) -> HeldOutScores:
    """Return the best; of equal ones the nearest to the backbone."""
    return max(results, key=lambda each: (each.total, -each.fraction))


def between(training: Adaptation, fraction: float) -> nn.Module:
    """Return a network with weights between the backbone's (0) and the trained ones (1), in eval mode."""
    network: nn.Module = copy.deepcopy(training.encoder).eval()
    with torch.no_grad():
        for weight, original in zip(network.parameters(), training.teacher.parameters(), strict=True):
            weight.lerp_(original, 1 - fraction)
    return network


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
