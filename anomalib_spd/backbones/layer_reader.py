"""Reads the layers that detectors read, and trains what they are made of alone."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from anomalib_spd.detectors.pre_processing import check_layers


class LayerReader:
    """Gives the maps of some layers of a network, from one pass that ends behind the last of them.

    Args:
        backbone: name of the network, on the shelf or in timm.
        layers: timm's names of feature layers, first to last.

    Raises:
        ValueError: where the backbone has no such layer, or not in this order.
    """

    def __init__(self, backbone: str, layers: Sequence[str]) -> None:
        check_layers(backbone, layers)
        self.layers = list(layers)

    def __call__(self, network: Any, inputs: Tensor) -> list[Tensor]:
        """Return the maps ``(B, C, h, w)`` of the layers, of normalised inputs ``(B, 3, H, W)``."""
        modules = [info["module"] for info in network.feature_info]
        maps: list[Tensor] = network.forward_intermediates(
            inputs, indices=[modules.index(each) for each in self.layers], stop_early=True, intermediates_only=True
        )
        return maps

    def freeze_the_rest(self, network: nn.Module, frozen: Sequence[str] = ()) -> None:
        """Freeze parts of a network, and what lies behind the last layer.

        Distributed training wants a gradient of all that it trains.

        Args:
            network: is left in eval mode.
            frozen: names of its parts.

        Raises:
            ValueError: where the network has no such part, or no weight is left to be trained.
        """
        parts = dict(network.named_modules())
        for part in frozen:
            if part not in parts:
                known = ", ".join(name for name, _ in network.named_children())
                raise ValueError(f"{type(network).__name__} has no part {part!r} to be frozen. It has: {known}.")
            parts[part].requires_grad_(False)
        network.eval()
        weights = [each for each in network.parameters() if each.requires_grad]
        maps = self(network, torch.zeros(1, 3, 64, 64))
        if not any(each.requires_grad for each in maps):
            raise ValueError(
                f"Nothing of {', '.join(self.layers)} is left to be trained: freeze less than {list(frozen)}."
            )
        reached = torch.autograd.grad([each.sum() for each in maps], weights, allow_unused=True)
        for weight, gradient in zip(weights, reached, strict=True):
            weight.requires_grad_(gradient is not None)
