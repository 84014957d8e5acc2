"""Local changes that no training of the package draws, to be compared with those that one does (docs/experiments.md, section 30).

``PYTHONPATH=scripts anomalib-spd pretrain ... --model.local_augmentations '[{class_path: changes.LocalBlur}]'``
"""

from pathlib import Path

import torch
from anomalib.data.utils.generators.perlin import PerlinAnomalyGenerator
from kornia.filters import gaussian_blur2d
from torch import Tensor, nn


class PerlinTexture(nn.Module):
    """DRAEM's change: a photograph, blended in where Perlin noise is high.

    Args:
        photographs: folder of them.
    """

    def __init__(self, photographs: Path) -> None:
        super().__init__()
        self.generator = PerlinAnomalyGenerator(str(photographs), probability=1.0)

    def forward(self, images: Tensor) -> Tensor:
        """Return the changed images ``(B, 3, H, W)``, in ``[0, 1]``."""
        changed: Tensor = self.generator(images)[0]
        return changed.clamp(0, 1)


class LocalBlur(nn.Module):
    """Blurs within an ellipse, by a sigma of 4 pixels."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the changed images ``(B, 3, H, W)``, in ``[0, 1]``."""
        return images.lerp(gaussian_blur2d(images, (25, 25), (4.0, 4.0)), soft_ellipses(images))


class Spot(nn.Module):
    """Makes an ellipse lighter or darker, by a color of 0.08 to 0.5."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the changed images ``(B, 3, H, W)``, in ``[0, 1]``."""
        strength = torch.empty(len(images), 1, 1, 1).uniform_(0.15, 1) * torch.empty(len(images), 3, 1, 1).uniform_(
            0.25, 0.5
        )
        sign = torch.randint(2, (len(images), 1, 1, 1)) * 2 - 1
        return (images + soft_ellipses(images) * (sign * strength).to(images)).clamp(0, 1)


def soft_ellipses(images: Tensor) -> Tensor:
    """Return an ellipse with a soft edge for each image, ``(B, 1, H, W)`` in ``[0, 1]``, with axes of 4 to 15 % of the image."""
    count, _, height, width = images.shape
    place, axes = torch.rand(count, 2, 1, 1, 1), torch.empty(count, 2, 1, 1, 1).uniform_(0.02, 0.075)
    rows, columns = torch.linspace(0, 1, height).view(1, 1, -1, 1), torch.linspace(0, 1, width).view(1, 1, 1, -1)
    away = (((rows - place[:, 0]) / axes[:, 0]) ** 2 + ((columns - place[:, 1]) / axes[:, 1]) ** 2).sqrt()
    return torch.sigmoid(8 * (1 - away)).to(images)
