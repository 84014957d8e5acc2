"""Batch norm that becomes part of the convolution before it, for prediction."""

from copy import deepcopy

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval
from torch.utils.hooks import RemovableHandle

Features = dict[str, Tensor]


@torch.no_grad()
def fold_batch_norm(network: nn.Module, images: Tensor) -> nn.Module:
    """Return a copy of a network in which batch norm is part of the convolution whose output it takes, one pass less over each map.

    Which output it takes is seen in a forward pass. Where the copy's maps then differ from the network's, the network itself is
    returned: some other layer takes the output of a convolution too.

    Args:
        network: in evaluation mode; returns maps by layer.
        images: floating ``(B, 3, H, W)``, for the forward passes.

    Returns:
        the copy, its weights channels-last; its maps are the network's but for rounding.
    """
    folded = deepcopy(network)
    expected = network(images)
    for convolution, norm in _followed_by(folded, images).items():
        _replace(folded, convolution, norm)
    folded.to(memory_format=torch.channels_last)
    found: Features = folded(images)
    if all(
        torch.allclose(found[layer], each, rtol=1e-3, atol=1e-5 * float(each.abs().max()))
        for layer, each in expected.items()
    ):
        return folded
    return network


def _followed_by(network: nn.Module, images: Tensor) -> dict[str, str]:
    """Return the names of the batch norms by those of the convolutions whose output they take."""
    outputs: list[tuple[str, Tensor]] = []
    found: dict[str, str] = {}
    handles: list[RemovableHandle] = []

    def after_convolution(name: str) -> RemovableHandle:
        convolution = network.get_submodule(name)
        return convolution.register_forward_hook(lambda _module, _input, output: outputs.append((name, output)))

    def before_norm(name: str) -> RemovableHandle:
        def look(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found.update({convolution: name for convolution, output in outputs if output is inputs[0]})

        return network.get_submodule(name).register_forward_pre_hook(look)

    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            handles.append(after_convolution(name))
        elif type(module) in (nn.BatchNorm2d, BatchNormAct2d) and module.track_running_stats:
            handles.append(before_norm(name))
    network(images)
    for handle in handles:
        handle.remove()
    calls = [name for name, _ in outputs]
    return {convolution: norm for convolution, norm in found.items() if calls.count(convolution) == 1}


def _replace(network: nn.Module, convolution: str, norm: str) -> None:
    """Put both into the convolution; of timm's norms the activation is left."""
    before, after = network.get_submodule(convolution), network.get_submodule(norm)
    assert isinstance(before, nn.Conv2d)
    assert isinstance(after, nn.BatchNorm2d)
    network.set_submodule(convolution, fuse_conv_bn_eval(before, after))
    network.set_submodule(
        norm, nn.Sequential(after.drop, after.act) if isinstance(after, BatchNormAct2d) else nn.Identity()
    )
