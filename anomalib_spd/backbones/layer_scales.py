"""Rescales the outputs of layers without changing the output of the network.

A detector that concatenates the features of several layers, such as PatchCore, weights each layer by the magnitude of its
features, which training leaves arbitrary. The factor is multiplied into the weights that produce a layer's output, and
divided out of the weights that read it.
"""

from collections.abc import Mapping
from typing import Any

import torch
from timm.models import EfficientNet
from torch import Tensor, nn


@torch.no_grad()
def rescale_layers(model: nn.Module, scales: Mapping[str, float | Tensor]) -> None:
    """Multiply the outputs of stages, in place; later layers and the network's output stay as they are.

    Exact up to rounding. A stage's output is a sum of projections without an activation, each the output of a batch norm,
    and only convolutions without a bias read it: both are rescaled.

    Source: ours. ``docs/experiments.md`` measures how the magnitudes of layers affect PatchCore.

    Args:
        model: timm EfficientNet, with or without its classifier.
        scales: name of a stage (``blocks.2``) -> factor, positive; a tensor is a scalar.

    Raises:
        ValueError: for another network, for a name that is none of its stages, or for a factor that is not positive and
            finite; nothing is changed.
    """
    if not isinstance(model, EfficientNet):
        raise ValueError(
            f"Cannot rescale the layers of {type(model).__name__}: expected timm's EfficientNet, whose stages end without "
            "an activation."
        )
    stages: Any = model.blocks
    positions = {f"blocks.{position}": position for position in range(len(stages))}
    for layer, scale in scales.items():
        if layer not in positions or not 0 < float(scale) < float("inf"):
            msg = f"Expected a stage, one of {', '.join(positions)}, and a positive factor, got {layer!r}: {scale}."
            raise ValueError(msg)
        _output_norms(stages[positions[layer]])
    for layer, scale in scales.items():
        position = positions[layer]
        for norm in _output_norms(stages[position]):
            norm.weight.mul_(scale)
            norm.bias.mul_(scale)
        behind = stages[position + 1][0] if position + 1 < len(stages) else getattr(model, "conv_head", nn.Identity())
        for reader in [*map(_first_conv, stages[position][1:]), _first_conv(behind)]:
            if reader is not None:  # a pyramid of features ends here
                reader.weight.div_(scale)


def _output_norms(stage: Any) -> list[nn.BatchNorm2d]:
    """Return the batch norms whose outputs add up to a stage's output."""
    norms = []
    for position, block in enumerate(stage):
        norm = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)][-1]
        # a skip connection of the first block would add the previous stage's output; those of the others stay within
        skips = bool(getattr(block, "has_skip", False))
        if not isinstance(getattr(norm, "act", nn.Identity()), nn.Identity) or (position == 0 and skips):
            raise ValueError(
                f"Cannot rescale a stage of {type(block).__name__}: its output is not a sum of projections of its own."
            )
        norms.append(norm)
    return norms


def _first_conv(module: nn.Module) -> nn.Conv2d | None:
    return next((each for each in module.modules() if isinstance(each, nn.Conv2d)), None)
