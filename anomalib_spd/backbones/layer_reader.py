"""Reads the layers that detectors read, and freezes what does not contribute to them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from anomalib_spd.backbones.feature_layers import check_layers
from anomalib_spd.backbones.transformers import is_transformer, patch_size


class LayerReader:
    """Computes the maps of some layers of a network, in one pass that ends after the last of them.

    They are those that anomalib's detectors read: of a transformer the patches' tokens, each layer's behind the last norm.

    Args:
        backbone: name of the network in timm, ours included.
        layers: timm's names of feature layers, first to last.

    Raises:
        ValueError: where the backbone has no such layer, or not in this order.
    """

    def __init__(self, backbone: str, layers: Sequence[str]) -> None:
        check_layers(backbone, layers)
        self.layers = list(layers)

    def __call__(self, network: Any, inputs: Tensor) -> list[Tensor]:
        """Return the maps ``(B, C, h, w)`` of the layers, of normalized inputs ``(B, 3, H, W)``."""
        modules = [info["module"] for info in network.feature_info]
        maps: list[Tensor] = network.forward_intermediates(
            inputs,
            indices=[modules.index(each) for each in self.layers],
            norm=is_transformer(network),
            stop_early=True,
            intermediates_only=True,
        )
        return maps

    def parts_before(self, network: nn.Module) -> list[str]:
        """Return the names of the parts of a network that come before the first layer that is read and have weights.

        Source: ours. Adaptation to few images needs no new edges and colors, and each step is cheaper.
        """
        path = self.layers[0].split(".")
        parts: dict[str, None] = {}
        for name, _ in network.named_parameters():  # in timm's networks in the order of the forward pass
            steps = name.split(".")
            if steps[: len(path)] == path:
                break
            parts[".".join(steps[: len(path)] if steps[: len(path) - 1] == path[:-1] else steps[:1])] = None
        return list(parts)

    def freeze_unused(self, network: nn.Module, frozen: Sequence[str] = ()) -> None:
        """Freeze the weights that the maps do not depend on, and parts of the network.

        Distributed training needs a gradient of every weight that it trains.

        Args:
            network: is left in eval mode.
            frozen: names of parts, or of weights, to freeze as well; layers that are read may be among them, but not all.

        Raises:
            ValueError: where the network has no such part, or no weight is left to train.
        """
        parts = {**dict(network.named_parameters()), **dict(network.named_modules())}
        for part in frozen:
            if part not in parts:
                known = ", ".join(name for name, _ in network.named_children())
                raise ValueError(
                    f"{type(network).__name__} has no part {part!r} to freeze. It has: {known}. Give `frozen` of these."
                )
            parts[part].requires_grad_(False)
        network.eval()
        weights = [each for each in network.parameters() if each.requires_grad]
        # of a layer that is frozen whole, with all before it, no gradient can be asked for
        length = 64 // patch_size(network) * patch_size(network)
        maps = [each for each in self(network, torch.zeros(1, 3, length, length)) if each.requires_grad]
        if not maps:
            raise ValueError(f"Nothing of {', '.join(self.layers)} is left to train: freeze less than {list(frozen)}.")
        reached = torch.autograd.grad([each.sum() for each in maps], weights, allow_unused=True)
        for weight, gradient in zip(weights, reached, strict=True):
            weight.requires_grad_(gradient is not None)
