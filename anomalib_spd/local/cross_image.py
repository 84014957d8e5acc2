"""SPot-the-Difference of a part's places and those of other good parts of its kind."""

from typing import Any

import torch
from kornia.augmentation import RandomCrop, RandomHorizontalFlip, RandomVerticalFlip
from torch import Tensor, nn

from anomalib_spd.augmentation import RandomCrack, RandomCutSwap, RandomCutSwapScar
from anomalib_spd.local.dense import DenseSPD
from anomalib_spd.losses import detect_with_memory, distillation, patch_embedding


class CrossImageSPD(DenseSPD):
    r"""Distillation of the backbone by itself, plus ``eta`` times SPD of places with a memory of other parts.

    What an inspector compares a part with is other good parts of the same kind. So a batch is of one kind: half of its images are
    the memory, as detectors have one, and into the others local changes are made. The distance of every place to the nearest of the memory is
    mapped as PatchCore maps it, and is to be larger at changed places than at what would be a false alarm: the farthest unchanged
    places of all images, and those just beside a change, see :func:`~anomalib_spd.losses.local.detection_loss`. From kind to kind another thing is
    normal, so what is learnt is to compare.

    The method's own part keeps the features of the memory at what the backbone, frozen, gives for them, and those of photographs of anything,
    where the batch has some: of parts alone a backbone would forget what it knows. All else is as in :class:`DenseSPD`; of the photographs the
    layers' energies are measured, too.

    Source: ours. With ``eta = 0`` it is the distillation alone. :class:`~anomalib_spd.local.CategoryAdaptation` asks the same of the one
    category that is to be inspected.

    Args:
        memory: places of the other parts that are kept, drawn at random; all, where there are no more. With few, faint defects were
            lost (``docs/experiments.md``, sections 15 and 16).
        **settings: see :class:`DenseSPD`; ``eta`` is 8 by default, and ``image_size`` 224. Crops are of the same place in all images
            of a batch, so that parts lie as they lay.

    Batch:
        ``(images, labels)``: uint8 ``(B, 3, H, W)`` in ``[0, 255]``, at least two of one kind, and int64 ``(B,)``, negative for
        photographs.

    Raises:
        ValueError: where nothing is remembered; in training, where a batch has no two parts of a kind, or parts of several.
    """

    def __init__(self, memory: int = 4000, eta: float = 8.0, image_size: int = 224, **settings: Any) -> None:
        if memory < 1:
            msg = f"`memory` is at least 1. Got {memory}."
            raise ValueError(msg)
        super().__init__(eta=eta, image_size=image_size, **settings)
        self.memory = memory
        self.crop = nn.Sequential(
            RandomCrop((image_size, image_size), same_on_batch=True),
            RandomHorizontalFlip(p=0.5, same_on_batch=True),
            RandomVerticalFlip(p=0.5, same_on_batch=True),
        )
        swaps = [
            RandomCutSwap((0.0005, 0.01), clusters=1),
            RandomCutSwap((0.01, 0.05), clusters=1),
            RandomCutSwapScar(clusters=1),
        ]
        # cracks are the one kind that is not made of the image's own patches: as often as pasted ones
        self.changes.extend([*swaps, RandomCrack(), RandomCrack()])

    def views(self, images: Tensor) -> list[Tensor]:
        """Return the images ``(B, 3, H, W)`` as they are remembered, and with changes, ``(B, 3, size, size)`` in ``[0, 1]``."""
        with torch.no_grad():
            parts = self.crop(images)
            return [parts, self._changed(parts)[0]]

    def losses(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the distillation, the SPD term, and what is logged beside them.

        Args:
            images: ``(B, 3, H, W)`` in ``[0, 1]``.
            labels: the parts' kind, the same of all; negative for photographs.
        """
        with torch.no_grad():
            cropped = self.crop(images)
            parts, photographs = cropped[labels >= 0], cropped[labels < 0]
            if len(parts) < 2 or len(labels[labels >= 0].unique()) > 1:
                msg = (
                    "A batch holds two or more parts of one kind. Got labels "
                    f"{labels.tolist()}: read the images by anomalib_spd.data.CategoryFolder or SyntheticParts."
                )
                raise ValueError(msg)
            remembered, queries = parts.tensor_split([len(parts) // 2])
            changed, mask = self._changed(queries)
            kept_images = torch.cat([photographs, remembered])
            if not self.energies.any():
                self._measure(photographs if len(photographs) else remembered)
            taught = self.features(self.teacher, kept_images)
        maps = self.features(self.encoder, torch.cat([kept_images, changed]))
        kept = distillation([each[: len(kept_images)] for each in maps], taught, self.energies)
        # the loss is of ratios, but for the little that keeps distances from 0
        embedding = patch_embedding([each[len(photographs) :] for each in maps]) / self.energies.sum().sqrt()
        normal, shown = embedding.tensor_split([len(remembered)])
        difference_loss, in_order = detect_with_memory(normal, shown, mask, self.memory, self.temperature)
        measured = [each[: len(photographs) or len(remembered)] for each in maps]
        return kept.mean(), difference_loss, {**self._noted(measured, kept), "in_order": in_order}
