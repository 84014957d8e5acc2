"""Folds an input normalization into a network's first convolution.

anomalib normalizes every image with ImageNet's mean and standard deviation, whatever the backbone was trained with. A
checkpoint that expects other statistics is therefore rewritten once, when it is added to the registry, so that with
ImageNet statistics it computes what it computed in training.
"""

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import Conv2dSame
from torch import Tensor, nn

IMAGENET_MEAN: tuple[float, float, float] = IMAGENET_DEFAULT_MEAN
IMAGENET_STD: tuple[float, float, float] = IMAGENET_DEFAULT_STD


@torch.no_grad()
def fold_input_statistics(model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
    """Change ``model``, trained on ``(x - mean) / std``, so that it expects ImageNet statistics, in place.

    With ``z = (x - m) / s`` the ImageNet-normalized image, ``(x - mean) / std = a * z + b`` per channel, where
    ``a = s / std`` and ``b = (m - mean) / std``. ``a`` scales the kernel; the constant that ``b`` contributes goes into
    the convolution's bias, or, where it has none, into the running mean of the batch norm behind it. Exact wherever the
    kernel sees no zero padding; at the border, the padding represents another color than before.

    Source: ours.

    Args:
        model: timm model whose ``pretrained_cfg`` names its ``first_conv``; images are ``(B, 3, H, W)``, ``x`` in
            ``[0, 1]``.
        mean: three means that the weights were trained with, of images in ``[0, 1]``.
        std: three standard deviations that the weights were trained with, all positive.

    Raises:
        ValueError: where there are not three statistics of images in ``[0, 1]``, or the model has no first convolution
            that can absorb them.
    """
    if len(mean) != 3 or len(std) != 3 or not all(map(math.isfinite, [*mean, *std])) or min(std) <= 0:
        msg = f"Expected 3 means and 3 positive standard deviations, got mean={tuple(mean)} and std={tuple(std)}."
        raise ValueError(msg)
    if max(*mean, *std) > 1:
        msg = (
            f"Expected the statistics of images in [0, 1], got mean={tuple(mean)} and std={tuple(std)}. Divide by 255 "
            "what was measured on images in [0, 255]."
        )
        raise ValueError(msg)
    conv = _first_conv(model)
    scale, offset = (
        torch.tensor(values, dtype=torch.float64)
        for values in zip(
            *[
                (s_imagenet / s, (m_imagenet - m) / s)
                for m, s, m_imagenet, s_imagenet in zip(mean, std, IMAGENET_MEAN, IMAGENET_STD, strict=True)
            ],
            strict=True,
        )
    )
    kernel = conv.weight.double()
    constant = torch.einsum("ocij,c->o", kernel, offset)
    if conv.bias is not None:
        conv.bias.copy_(conv.bias.double() + constant)
    else:
        running_mean = _batch_norm_behind(model, conv).running_mean
        running_mean.copy_(running_mean.double() - constant)  # type: ignore[union-attr]
    conv.weight.copy_(kernel * scale.view(1, 3, 1, 1))


def _first_conv(model: nn.Module) -> nn.Conv2d:
    name = getattr(model, "pretrained_cfg", {}).get("first_conv")
    conv = model.get_submodule(name) if isinstance(name, str) else None
    # exactly these classes: a subclass may standardize its kernel in `forward` (NFNet), which would undo the scaling
    if not isinstance(conv, nn.Conv2d) or type(conv) not in (nn.Conv2d, Conv2dSame) or conv.weight.shape[1] != 3:
        msg = (
            f"Cannot fold input statistics into {type(model).__name__}: its first convolution {name!r} is "
            f"{type(conv).__name__}, expected one plain Conv2d of 3 channels. Give a checkpoint that was trained with "
            "ImageNet mean and std."
        )
        raise ValueError(msg)
    return conv


def _batch_norm_behind(model: nn.Module, conv: nn.Conv2d) -> nn.BatchNorm2d:
    """Return the batch norm that reads ``conv``'s output, found by the data flow, since names differ between architectures."""
    names = {module: name for name, module in model.named_modules()}
    # a copy: the pass needs one dtype throughout, and the caller's hooks and modes stay untouched
    trial = copy.deepcopy(model).float().eval()
    produced: list[Tensor] = []
    found: list[str] = []
    trial.get_submodule(names[conv]).register_forward_hook(lambda _module, _args, output: produced.append(output))
    for name, module in trial.named_modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:

            def note(_module: nn.Module, args: tuple[Tensor, ...], name: str = name) -> None:
                if produced and args[0] is produced[0]:
                    found.append(name)

            module.register_forward_pre_hook(note)
    pretrained_cfg: Any = model.pretrained_cfg
    trial(torch.zeros(1, 3, *pretrained_cfg["input_size"][1:]))
    behind = model.get_submodule(found[0]) if found else None
    if not isinstance(behind, nn.BatchNorm2d):
        msg = (
            f"Cannot fold input statistics into {type(model).__name__}: its first convolution has no bias and no batch "
            "norm behind it. Give a checkpoint that was trained with ImageNet mean and std."
        )
        raise ValueError(msg)
    return behind
