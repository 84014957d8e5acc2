"""SPot-the-Difference of an image's places and those of other views of it, where no place has a partner."""

from typing import Any

import torch
from kornia.augmentation import RandomAffine, RandomHorizontalFlip
from torch import Tensor, nn

from anomalib_spd.augmentation import RandomCutSwap
from anomalib_spd.local.dense import DenseSPD
from anomalib_spd.losses import detection_loss, distillation, memory_distance, patch_embedding


class MemorySPD(DenseSPD):
    r"""Distillation of the backbone by itself, plus ``eta`` times SPD of places with a memory, as detectors have one.

    PatchCore does not compare a place with the same place of another image, but with all that it remembers. So there is no
    positive beside the negative here, but a memory: the places of a few other views of the same image, turned, moved, scaled,
    mirrored and in other colours. The negative is one more such view with local changes. The distance of its places to the nearest of
    the memory is mapped as PatchCore maps it, and is to be larger at changed places than at what would be a false alarm: the image's
    farthest unchanged places, and those just beside a change, see :func:`~anomalib_spd.losses.local.detection_loss`.

    The method's own part keeps the features of the memory's views at what the backbone, frozen, gives for them; all else is as in
    :class:`DenseSPD`. What :class:`~anomalib_spd.local.CategoryAdaptation` learns of the normal images of one category, this is
    to learn of any images.

    Source: ours. With ``eta = 0`` it is the distillation alone.

    Args:
        memory_views: views of an image that are remembered.
        **settings: see :class:`DenseSPD`; ``eta`` is 1 by default, and ``image_size`` 192.

    Raises:
        ValueError: where nothing is remembered.
    """

    def __init__(self, memory_views: int = 2, eta: float = 1.0, image_size: int = 192, **settings: Any) -> None:
        if memory_views < 1:
            msg = f"`memory_views` is at least 1. Got {memory_views}."
            raise ValueError(msg)
        super().__init__(eta=eta, image_size=image_size, **settings)
        self.memory_views = memory_views
        # as one part does not lie as another; no place has a partner any more
        self.move = nn.Sequential(
            RandomAffine(15.0, translate=(0.08, 0.08), scale=(0.85, 1.15), padding_mode="reflection", p=1.0),
            RandomHorizontalFlip(p=0.5),
        )
        # what is swapped is at home in the image, but for its place
        self.changes.append(RandomCutSwap(scale=(0.0005, 0.01)))

    def views(self, images: Tensor) -> list[Tensor]:
        """Return the memory's views and the negative of images ``(B, 3, H, W)``, all ``(B, 3, size, size)`` in ``[0, 1]``."""
        return self._seen(images)[:-1]

    def _seen(self, images: Tensor) -> list[Tensor]:
        """Return the views and a mask ``(B, 1, size, size)`` of what the negatives' changes have changed visibly, 0 or 1."""
        with torch.no_grad():
            anchor = self.crop(images)
            *remembered, query = (self.photometric(self.move(anchor)).clamp(0, 1) for _ in range(self.memory_views + 1))
            negative, mask = self._changed(query)
            return [*remembered, negative, mask]

    def losses(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the distillation, the SPD term, and what is logged beside them.

        Args:
            images: ``(B, 3, H, W)`` in ``[0, 1]``.
            labels: are not used.
        """
        del labels
        *remembered, negative, mask = self._seen(images)
        with torch.no_grad():
            if not self.energies.any():
                self._measure(remembered[0])
            taught = self.features(self.teacher, torch.cat(remembered))
        maps = self.features(self.encoder, torch.cat([*remembered, negative]))
        kept = distillation([each[: -len(images)] for each in maps], taught, self.energies)
        # the loss is of ratios, but for the little that keeps distances from 0
        embedding = patch_embedding(maps) / self.energies.sum().sqrt()
        normal, shown = embedding.tensor_split([-len(images)])
        memories = normal.unflatten(0, (self.memory_views, -1)).transpose(0, 1).movedim(2, -1).flatten(1, 3)
        of_images = [
            detection_loss(memory_distance(each[None], memory, mask.shape[-2:]), changed[None], self.temperature)
            for each, memory, changed in zip(shown, memories, mask, strict=True)
        ]
        difference_loss, in_order = (torch.stack(each).mean() for each in zip(*of_images, strict=True))
        return kept.mean(), difference_loss, {**self._noted(maps, kept), "in_order": in_order}
