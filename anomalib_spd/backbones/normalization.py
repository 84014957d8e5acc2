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
        raise ValueError(f"Expected 3 means and 3 positive standard deviations, got {tuple(mean)} and {tuple(std)}.")
    if max(*mean, *std) > 1:
        msg = f"Expected the statistics of images in [0, 1], got mean={tuple(mean)} and std={tuple(std)}"
        raise ValueError(f"{msg}. Divide by 255 what was measured on images in [0, 255].")
    name, conv = _first_conv(model)
    m_own, s_own, m, s = (torch.tensor(each, dtype=torch.float64) for each in (mean, std, IMAGENET_MEAN, IMAGENET_STD))
    kernel = conv.weight.double()
    constant = torch.einsum("ocij,c->o", kernel, (m - m_own) / s_own)
    if conv.bias is not None:
        conv.bias.copy_(conv.bias.double() + constant)
    else:
        running_mean = _batch_norm_behind(model, name).running_mean
        running_mean.copy_(running_mean.double() - constant)  # type: ignore[union-attr]
    conv.weight.copy_(kernel * (s / s_own).view(1, 3, 1, 1))


def _first_conv(model: nn.Module) -> tuple[str, nn.Conv2d]:
    pretrained_cfg: Any = getattr(model, "pretrained_cfg", {})
    name = pretrained_cfg.get("first_conv")
    conv = model.get_submodule(name) if isinstance(name, str) else None
    # exactly these classes: a subclass may standardize its kernel in `forward` (NFNet), which would undo the scaling
    if not isinstance(conv, nn.Conv2d) or type(conv) not in (nn.Conv2d, Conv2dSame) or conv.weight.shape[1] != 3:
        msg = f"its first convolution {name!r} is {type(conv).__name__}, expected one plain Conv2d of 3 channels"
        raise _cannot_fold(model, msg)
    return name, conv


def _batch_norm_behind(model: nn.Module, name: str) -> nn.BatchNorm2d:
    """Return the batch norm that reads the output of convolution ``name``, as one pass shows: names differ between networks."""
    # a copy: the pass needs one dtype throughout, and the caller's hooks and modes stay untouched
    trial = copy.deepcopy(model).float().eval()
    produced: list[Tensor] = []
    found: list[nn.Module] = []

    def note(norm: nn.Module, args: tuple[Tensor, ...]) -> None:
        if produced and args[0] is produced[0]:
            found.append(norm)

    trial.get_submodule(name).register_forward_hook(lambda _conv, _args, output: produced.append(output))
    for module in trial.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.register_forward_pre_hook(note)
    pretrained_cfg: Any = model.pretrained_cfg
    trial(torch.zeros(1, 3, *pretrained_cfg["input_size"][1:]))
    if not found:
        raise _cannot_fold(model, "its first convolution has no bias and no batch norm behind it")
    behind = model.get_submodule(next(each for each, module in trial.named_modules() if module is found[0]))
    assert isinstance(behind, nn.BatchNorm2d)
    return behind


def _cannot_fold(model: nn.Module, reason: str) -> ValueError:
    return ValueError(
        f"Cannot fold input statistics into {type(model).__name__}: {reason}. Give a checkpoint that was trained with "
        "ImageNet mean and std."
    )
