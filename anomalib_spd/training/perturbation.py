"""Local perturbations of images, by any transforms."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from anomalib_spd.augmentation.base import takes_saliency


class Perturbation(nn.Module):
    """Perturbs images by transforms of which one is drawn at a time, for the whole batch.

    Args:
        transforms: of images ``(B, C, H, W)`` in ``[0, 1]``, Kornia's or any others that keep size and range.
        number: of transforms applied one after the other.

    Shape:
        - images: floating ``(B, C, H, W)`` in ``[0, 1]``
        - saliency: ``(B, H, W)``, for the transforms that take it; or None
        - output: ``(B, C, H, W)`` in ``[0, 1]``

    Raises:
        ValueError: for no transforms, what is no transform, or a number below 1.
    """

    def __init__(self, transforms: Sequence[nn.Module], number: int = 1) -> None:
        super().__init__()
        if not transforms or not all(isinstance(each, nn.Module) for each in transforms) or number < 1:
            msg = (
                "`local_augmentations` are one transform or more, objects or in YAML class_path and init_args, and "
                f"`num_perturbations` is at least 1. Got {transforms!r} and {number}."
            )
            raise ValueError(msg)
        self.transforms = nn.ModuleList(transforms)
        self.number = number

    @property
    def takes_saliency(self) -> bool:
        """Whether any of the transforms can be guided."""
        return any(takes_saliency(each) for each in self.transforms)

    def forward(self, images: Tensor, saliency: Tensor | None = None) -> Tensor:
        """Return the perturbed images."""
        for _ in range(self.number):
            # one transform needs no draw
            drawn = int(torch.randint(len(self.transforms), ())) if len(self.transforms) > 1 else 0
            transform = self.transforms[drawn]
            guide = {} if saliency is None or not takes_saliency(transform) else {"saliency": saliency}
            images = transform(images, **guide)
        return images
