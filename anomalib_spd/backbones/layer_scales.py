"""Scales what layers give, without a change of what the network says.

A detector that joins the features of several layers, as PatchCore does, weighs each by the size of its numbers, which
are whatever training has left. Here a layer's numbers are multiplied in the weights that write them, and divided in those
that read them.
"""

from collections.abc import Mapping
from typing import Any

import torch
from timm.models import EfficientNet
from torch import Tensor, nn


@torch.no_grad()
def scale_layers(model: nn.Module, scales: Mapping[str, float | Tensor]) -> None:
    """Multiply what stages of a network give, in place; later layers and the network's output stay as they are.

    Exact but for rounding. A stage ends in a sum of projections without an activation, each the output of a batch norm,
    and all that reads them is a convolution without a bias: both are scaled.

    Source: ours. That the sizes of layers weigh in PatchCore is measured in ``docs/experiments.md``.

    Args:
        model: timm EfficientNet, with or without its classifier.
        scales: name of a stage (``blocks.2``) -> factor, positive; a tensor is a scalar.

    Raises:
        ValueError: for another network, for what is none of its stages, or for a factor that is not positive and finite;
            nothing is changed.
    """
    if not isinstance(model, EfficientNet):
        msg = (
            f"Cannot scale the layers of {type(model).__name__}: expected timm's EfficientNet, whose stages end without "
            "an activation."
        )
        raise ValueError(msg)
    stages: Any = model.blocks
    positions = {f"blocks.{position}": position for position in range(len(stages))}
    for layer, scale in scales.items():
        if layer not in positions or not 0 < float(scale) < float("inf"):
            msg = f"Expected a stage, one of {', '.join(positions)}, and a positive factor, got {layer!r}: {scale}."
            raise ValueError(msg)
        _writers(stages[positions[layer]])
    for layer, scale in scales.items():
        position = positions[layer]
        for norm in _writers(stages[position]):
            norm.weight.mul_(scale)
            norm.bias.mul_(scale)
        behind = stages[position + 1][0] if position + 1 < len(stages) else getattr(model, "conv_head", nn.Identity())
        for reader in [*map(_first_conv, stages[position][1:]), _first_conv(behind)]:
            if reader is not None:  # a pyramid of features ends here
                reader.weight.div_(scale)


def _writers(stage: Any) -> list[nn.BatchNorm2d]:
    """The batch norms whose outputs sum up to what a stage gives."""
    norms = []
    for position, block in enumerate(stage):
        norm = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)][-1]
        # its first block would pass on what is not of this stage, the others must
        skips = bool(getattr(block, "has_skip", False))
        if not isinstance(getattr(norm, "act", nn.Identity()), nn.Identity) or (position == 0 and skips):
            msg = f"Cannot scale a stage of {type(block).__name__}: its output is not a sum of projections of its own."
            raise ValueError(msg)
        norms.append(norm)
    return norms


def _first_conv(module: nn.Module) -> nn.Conv2d | None:
    return next((each for each in module.modules() if isinstance(each, nn.Conv2d)), None)
