"""Folds an input normalisation into a network's first convolution.

anomalib normalises every image with ImageNet's mean and standard deviation, whatever the backbone was trained with. A
checkpoint that expects other statistics is therefore rewritten once, when it is put on the shelf, so that fed with
ImageNet statistics it sees what it saw in training.
"""

from collections.abc import Sequence

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

IMAGENET_MEAN: tuple[float, float, float] = IMAGENET_DEFAULT_MEAN
IMAGENET_STD: tuple[float, float, float] = IMAGENET_DEFAULT_STD


@torch.no_grad()
def fold_input_statistics(model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
    """Make ``model``, trained on ``(x - mean) / std``, expect ImageNet statistics instead, in place.

    With ``z = (x - m) / s`` the ImageNet-normalised image, ``(x - mean) / std = a * z + b`` per channel, where
    ``a = s / std`` and ``b = (m - mean) / std``. ``a`` scales the kernel; the constant that ``b`` contributes goes into
    the convolution's bias, or, where it has none, into the running mean of the batch norm behind it. Exact wherever the
    kernel sees no zero padding; within reach of the border the padding stands for another colour than before (ours).

    Args:
        model: timm model whose ``pretrained_cfg`` names its ``first_conv``; images are ``(B, 3, H, W)``, ``x`` in
            ``[0, 1]``.
        mean: three means that the weights were trained with.
        std: three standard deviations that the weights were trained with, all positive.

    Raises:
        ValueError: where there are not three positive statistics, or the model has no first convolution that can absorb
            them.
    """
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        msg = f"Expected 3 means and 3 positive standard deviations, got mean={tuple(mean)} and std={tuple(std)}."
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
    if not isinstance(conv, nn.Conv2d) or conv.in_channels != 3:
        msg = (
            f"Cannot fold input statistics into {type(model).__name__}: its first convolution is {name!r}, expected one "
            "Conv2d of 3 channels. Give a checkpoint that was trained with ImageNet mean and std."
        )
        raise ValueError(msg)
    return conv


def _batch_norm_behind(model: nn.Module, conv: nn.Conv2d) -> nn.BatchNorm2d:
    """Find the batch norm that reads ``conv``'s very output: names differ between architectures, the data flow does not."""
    produced: list[Tensor] = []
    found: list[nn.BatchNorm2d] = []
    handles = [conv.register_forward_hook(lambda _module, _args, output: produced.append(output))]
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:

            def note(module: nn.Module, args: tuple[Tensor, ...]) -> None:
                if produced and args[0] is produced[0] and isinstance(module, nn.BatchNorm2d):
                    found.append(module)

            handles.append(module.register_forward_pre_hook(note))
    training = model.training
    try:
        model.eval()(torch.zeros(1, 3, *model.pretrained_cfg["input_size"][1:]))
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    if not found:
        msg = (
            f"Cannot fold input statistics into {type(model).__name__}: its first convolution has no bias and no batch "
            "norm behind it. Give a checkpoint that was trained with ImageNet mean and std."
        )
        raise ValueError(msg)
    return found[0]
