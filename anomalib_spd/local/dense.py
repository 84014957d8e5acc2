"""SPot-the-Difference location by location, on the layers that detectors read."""

from typing import Any

import torch
from kornia.augmentation import (
    AugmentationSequential,
    RandomAffine,
    RandomCrop,
    RandomGaussianBlur,
    RandomGaussianNoise,
    RandomHorizontalFlip,
)
from torch import Tensor, nn

from anomalib_spd.augmentation import RandomCutPaste, RandomCutPasteScar, RandomSmoothBlend
from anomalib_spd.augmentation.random_color_jitter import RandomColorJitter
from anomalib_spd.local.base import LocalTerms
from anomalib_spd.local.equal_rms import EqualRMSSPD
from anomalib_spd.losses import distillation, localization_loss, patch_distance


class DenseSPD(EqualRMSSPD):
    """Distillation of the backbone by itself, plus ``eta`` times SPD at every location of the layers that detectors read.

    The distillation keeps the positive's features at what the backbone, frozen, gives for the same image before its
    photometric change. SPD compares the positive with the negative, the same view slightly turned, moved and noisy, with
    local perturbations: the distance of their embeddings, concatenated, smoothed and enlarged as in PatchCore, is to be larger
    at each perturbed location than at each unperturbed one, those just beside a perturbation above all, see
    :func:`~anomalib_spd.losses.local.localization_loss`. The pooled feature, which the paper compares, does not say where.

    Source: ours.

    Args:
        eta: weight of the SPD term.
        **settings: see :class:`~anomalib_spd.local.equal_rms.EqualRMSSPD` and :class:`~anomalib_spd.local.base.LocalSPD`;
            local augmentations are by default SmoothBlend, CutPaste and its scars, small to large.
    """

    def __init__(self, eta: float = 5.0, **settings: Any) -> None:
        super().__init__(eta=eta, **settings)
        size = self.image_size
        self.crop = nn.Sequential(RandomCrop((size, size)), RandomHorizontalFlip(p=0.5))
        self.photometric = nn.Sequential(
            RandomColorJitter(0.1, 0.1, 0.1, 0.02, p=0.8),
            RandomGaussianBlur((7, 7), (0.1, 1.0), p=0.5),
        )
        self.noise = RandomGaussianNoise(std=0.01, p=1.0)
        # as one part does not lie quite as another; a location is still among its neighbors
        self.move = AugmentationSequential(
            RandomAffine(6.0, translate=(0.025, 0.025), scale=(0.97, 1.03), padding_mode="reflection", p=1.0),
            data_keys=["input", "mask"],
        )

    @staticmethod
    def default_augmentations() -> list[nn.Module]:
        """Return SmoothBlend, CutPaste in two sizes and its scar."""
        return [
            RandomSmoothBlend(scale=(0.0005, 0.02), sigma=2.0),
            RandomCutPaste(scale=(0.0005, 0.01)),
            RandomCutPaste(scale=(0.01, 0.05)),
            RandomCutPasteScar(),
        ]

    def views(self, images: Tensor) -> list[Tensor]:
        """Return anchor, positive and negative of images ``(B, 3, H, W)``, all ``(B, 3, size, size)`` in ``[0, 1]``."""
        return self.views_and_mask(images)[:3]

    @torch.no_grad()
    def views_and_mask(self, images: Tensor) -> list[Tensor]:
        """Return the views, and the mask ``(B, 1, size, size)`` of the negatives' visible perturbations, 0 or 1."""
        anchor = self.crop(images)
        positive = self.photometric(anchor).clamp(0, 1)
        negative, mask = self.move(*self.perturb(positive))
        return [anchor, positive, self.noise(negative).clamp(0, 1), mask]

    def compare(self, images: Tensor, labels: Tensor) -> LocalTerms:
        """Return the distillation of positives, and the dense SPD term of positives and negatives.

        Args:
            images: ``(B, 3, H, W)`` in ``[0, 1]``.
            labels: are not used.
        """
        anchor, positive, negative, mask = self.views_and_mask(images)
        self.measure(anchor)
        with torch.no_grad():
            teacher_maps = self.features(self.teacher, anchor)
        maps = self.features(self.encoder, torch.cat([positive, negative]))
        of_positives = [each[: len(images)] for each in maps]
        # the loss is of ratios, but for the constant that keeps distances from 0
        rms = self.mean_square.sum().sqrt()
        distance = patch_distance([each / rms for each in maps], mask.shape[-2:])
        return LocalTerms(
            distillation(of_positives, teacher_maps, self.mean_square),
            *localization_loss(distance, mask, self.temperature),
            self.encoder_mean_square(maps) / self.mean_square,
        )
