"""A small classifier and images for it, and what to look for in a model afterwards."""

import torch
from torch import Tensor, nn

CLASSES = 10


def small_classifier(inplace: bool = True) -> nn.Sequential:
    """A classifier whose layers "1" and "3" are worked on in place by what follows."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.SiLU(inplace),  # LayerCAM's map is the same before and behind a ReLU
        nn.Conv2d(8, 8, 3, stride=2),
        nn.SiLU(inplace),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, CLASSES),
    )


def some_images(batch: int = 3, side: int = 64) -> Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1))


def count_hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._backward_hooks) for module in model.modules())
