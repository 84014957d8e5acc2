"""Heads have the layers that their papers give them."""

import pytest
import torch
from torch import nn

from anomalib_spd.training.heads import mlp


def test_layers_are_those_of_simsiams_projector() -> None:
    head = mlp([6, 4, 4, 3], last_norm=True)
    kinds = [type(layer).__name__ for layer in head]
    block = ["Linear", "BatchNorm1d", "ReLU"]
    assert kinds == [*block, *block, "Linear", "BatchNorm1d"]
    assert [layer.bias is None for layer in head if isinstance(layer, nn.Linear)] == [True, True, True]
    assert [layer.affine for layer in head if isinstance(layer, nn.BatchNorm1d)] == [True, True, False]
    assert head(torch.randn(5, 6)).shape == (5, 3)


def test_layers_are_those_of_mocos_projector() -> None:
    head = mlp([6, 6, 3], batch_norm=False)
    assert [type(layer).__name__ for layer in head] == ["Linear", "ReLU", "Linear"]
    assert all(layer.bias is not None for layer in head if isinstance(layer, nn.Linear))


def test_layers_are_those_of_simsiams_predictor() -> None:
    head = mlp([6, 2, 6])
    assert [type(layer).__name__ for layer in head] == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert [layer.bias is None for layer in head if isinstance(layer, nn.Linear)] == [True, False]


def test_one_width_is_no_layer() -> None:
    with pytest.raises(ValueError, match=r"`widths` are those of the input and of every layer.*\[3\]"):
        mlp([3])
