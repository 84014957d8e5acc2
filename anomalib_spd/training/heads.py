"""Heads of trainings: layers between an encoder's features and a loss, which are dropped afterwards."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import nn


def mlp(widths: Sequence[int], batch_norm: bool = True, last_norm: bool = False) -> nn.Sequential:
    """Return a multi-layer perceptron: linear layers with ReLU between them.

    Args:
        widths: of the input and of every layer's output, two or more.
        batch_norm: add batch norm after every layer but the last; such layers have no bias.
        last_norm: add batch norm without weights after the last layer, as in SimSiam's and SimCLR's projectors.

    Returns:
        a module from ``(B, widths[0])`` to ``(B, widths[-1])``.

    Raises:
        ValueError: for fewer than two widths.
    """
    if len(widths) < 2:
        msg = f"`widths` are those of the input and of every layer, two or more. Got {list(widths)}."
        raise ValueError(msg)
    *hidden, last = pairwise(widths)
    layers: list[nn.Module] = []
    for before, after in hidden:
        layers.append(nn.Linear(before, after, bias=not batch_norm))
        layers += [nn.BatchNorm1d(after)] if batch_norm else []
        layers.append(nn.ReLU(inplace=True))
    layers.append(nn.Linear(*last, bias=not last_norm))
    layers += [nn.BatchNorm1d(last[1], affine=False)] if last_norm else []
    return nn.Sequential(*layers)


def pooled_width(encoder: Any) -> int:
    """Return the width D of the pooled features ``(B, D)`` of a network of timm's without its classifier.

    A MobileNet widens them behind the pooling, so that its last map has fewer channels.
    """
    return int(getattr(encoder, "head_hidden_size", None) or encoder.num_features)
