"""SPot-the-Difference of a part's locations and those of other good parts of its category."""

from typing import Any

import torch
from kornia.augmentation import RandomCrop, RandomHorizontalFlip, RandomVerticalFlip
from torch import Tensor, nn

from anomalib_spd.augmentation import RandomCrack, RandomCutSwap, RandomCutSwapScar
from anomalib_spd.local.base import LocalTerms
from anomalib_spd.local.dense import DenseSPD
from anomalib_spd.local.equal_rms import EqualRMSSPD
from anomalib_spd.local.memory import check_memory, compare_with_memory


class CrossImageSPD(EqualRMSSPD):
    """Distillation of the backbone by itself, plus ``eta`` times SPD of locations with a memory of other parts.

    An inspector compares a part with other good parts of its category. So a batch is of one category: half of its images are
    the memory, and the others are perturbed and compared with it, see
    :func:`~anomalib_spd.local.memory.compare_with_memory`. What is normal differs from category to category, so what is learned
    is to compare.

    The distillation keeps the features of the memory, and of replay images of anything, where the batch has some: of parts
    alone a backbone would forget what it knows.

    Source: ours. :class:`~anomalib_spd.local.CategoryAdaptation` learns the same of the one category to be inspected.

    Args:
        memory: locations of the other parts in the memory, drawn at random; all of them where there are no more. With few,
            faint defects were lost (``docs/experiments.md``, sections 15 and 16).
        eta: weight of the SPD term.
        image_size: height and width of the crops, pixels. They are of the same location in all images of a batch, so that
            parts lie as they lay.
        **settings: see :class:`~anomalib_spd.local.equal_rms.EqualRMSSPD` and :class:`~anomalib_spd.local.base.LocalSPD`;
            local augmentations are by default those of :class:`DenseSPD`, swaps, and cracks.

    Batch:
        ``(images, labels)``: uint8 ``(B, 3, H, W)`` in ``[0, 255]``, at least two of one category, and int64 ``(B,)``, negative
        for replay images. Or ``(images, labels, masks)``: uint8 ``(B, 1, H, W)``, 1 where an image has a defect, else 0, see
        :class:`~anomalib_spd.data.DefectFolder`. Where a mask is not empty, real defects take the place of perturbations in the
        whole batch.

    Raises:
        ValueError: for a memory below 1; in training, for a batch without two parts, or with parts of several categories.
    """

    def __init__(self, memory: int = 4000, eta: float = 8.0, image_size: int = 224, **settings: Any) -> None:
        check_memory(memory)
        super().__init__(eta=eta, image_size=image_size, **settings)
        self.memory = memory
        self.crop = nn.Sequential(
            RandomCrop((image_size, image_size), same_on_batch=True),
            RandomHorizontalFlip(p=0.5, same_on_batch=True),
            RandomVerticalFlip(p=0.5, same_on_batch=True),
        )

    @staticmethod
    def default_augmentations() -> list[nn.Module]:
        """Return those of dense SPD, CutSwap in two sizes and its scar, and cracks."""
        return [
            *DenseSPD.default_augmentations(),
            RandomCutSwap((0.0005, 0.01), clusters=1),
            RandomCutSwap((0.01, 0.05), clusters=1),
            RandomCutSwapScar(clusters=1),
            # alone not made of the image's own patches: as often as pasted ones
            RandomCrack(),
            RandomCrack(),
        ]

    def views(self, images: Tensor) -> list[Tensor]:
        """Return crops ``(B, 3, size, size)`` of images ``(B, 3, H, W)`` as they are, and perturbed, in ``[0, 1]``."""
        with torch.no_grad():
            parts = self.crop(images)
            return [parts, self.perturb(parts)[0]]

    def compare(self, images: Tensor, labels: Tensor, masks: Tensor | None = None) -> LocalTerms:
        """Return the distillation of memory and replay images, and the SPD term of the other parts.

        Args:
            images: ``(B, 3, H, W)`` in ``[0, 1]``.
            labels: the parts' category, the same of all; negative for replay images.
            masks: of defects, ``(B, 1, H, W)``, 0 or 1, empty in the first half of the parts. If all are, the second half is
                perturbed.
        """
        is_part = labels >= 0
        if is_part.sum() < 2 or len(labels[is_part].unique()) > 1:
            msg = (
                "A batch holds two or more parts of one category. Got labels "
                f"{labels.tolist()}: read the images by anomalib_spd.data.CategoryFolder or SyntheticParts."
            )
            raise ValueError(msg)
        # images and masks in one crop: a mask is cropped and flipped as its image
        defects = masks if masks is not None and masks.any() else images[:, :0]
        with torch.no_grad():
            crops = self.crop(torch.cat([images, defects.to(images.dtype)], dim=1))
        parts, replay_images = crops[is_part], crops[~is_part, :3]
        memory, query = parts.tensor_split([len(parts) // 2])
        self.measure(replay_images if len(replay_images) else memory[:, :3])
        return compare_with_memory(
            self,
            memory[:, :3],
            query[:, :3],
            self.memory,
            replay_images=replay_images,
            masks=query[:, 3:] if defects.numel() else None,
        )
