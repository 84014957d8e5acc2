"""Adaptation to one category: what is far from all that its other normal images show."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anomalib_spd.backbones.saliency import draw_saliency_maps
from anomalib_spd.backbones.saliency import saliency_cache as cache_of
from anomalib_spd.local.base import LocalSPD, LocalTerms
from anomalib_spd.local.cross_image import CrossImageSPD
from anomalib_spd.local.memory import check_memory, compare_with_memory


class CategoryAdaptation(LocalSPD):
    """Fine-tunes the layers that detectors read so that perturbations are far from other normal images, and the rest near.

    A batch is a detector in small: half of its images are the memory, and the others are perturbed and compared with it, see
    :func:`~anomalib_spd.local.memory.compare_with_memory`. So the training sees how normal parts differ from each other, which
    perturbations alone do not show. The distillation keeps the memory's features at what the backbone, frozen, gives.

    Source: ours.

    Args:
        memory: locations of the other images in the memory, drawn at random.
        classifier: name in the registry or in timm of the network whose saliency maps guide the local augmentations that take
            them (swaps of more than one cluster); where it is None, or none of them does, no map is computed, and patches are
            swapped anywhere.
        saliency_layers: of the classifier, one map each; by default the last layer of each stride.
        saliency_cache: folder of maps; by default ``.saliency`` in ``$ANOMALIB_SPD_HOME``, or the platform's for caches.
        **settings: see :class:`~anomalib_spd.local.base.LocalSPD`; local augmentations are by default those of
            :class:`~anomalib_spd.local.cross_image.CrossImageSPD`.

    Batch:
        ``(images, labels)``: uint8 ``(B, 3, H, W)`` in ``[0, 255]``, B at least 2, as large as detectors will see them; labels
        are not used. They are of one category: among other parts everything is far from the memory, changed or not.

    Raises:
        ValueError: for a memory below 1, or a classifier that is none; in training, for a batch of one image.
    """

    def __init__(
        self,
        memory: int = 400,
        classifier: str | None = None,
        saliency_layers: Sequence[str] | None = None,
        saliency_cache: Path | str | None = None,
        **settings: Any,
    ) -> None:
        check_memory(memory)
        super().__init__(**settings)
        self.memory = memory
        if classifier is not None and self.perturbation.takes_saliency:
            self.saliency = cache_of(classifier, saliency_layers, saliency_cache)

    @staticmethod
    def default_augmentations() -> list[nn.Module]:
        """Return changes of many mechanisms, those of cross-image SPD: most like real defects by docs/experiments.md, section 22."""
        return CrossImageSPD.default_augmentations()

    def views(self, images: Tensor) -> list[Tensor]:
        """Return the images ``(B, 3, H, W)`` as they are, and perturbed, in ``[0, 1]``."""
        return [images, self.perturb(images, self._saliency_of(images))[0]]

    def compare(self, images: Tensor, labels: Tensor) -> LocalTerms:
        """Return the distillation of the memory, and the SPD term of the other images.

        Args:
            images: ``(B, 3, H, W)`` in ``[0, 1]``.
            labels: are not used.
        """
        if len(images) < 2:
            msg = (
                "Images are compared with other images of their batch. Got batches of 1: give more images or a larger "
                "--batch_size, or patch classification (finetune/cutswap), which takes one."
            )
            raise ValueError(msg)
        memory, query = images.tensor_split([len(images) // 2])
        return compare_with_memory(self, memory, query, self.memory, self._saliency_of(query))

    @torch.no_grad()
    def _saliency_of(self, images: Tensor) -> Tensor | None:
        """Return maps ``(B, H, W)`` of images before any perturbation, if the perturbations are guided."""
        return None if self.saliency is None else draw_saliency_maps(self.saliency, self.normalize(images))
