"""Rescales the outputs of layers without changing the output of the network.

A detector that concatenates the features of several layers, such as PatchCore, weights each layer by the magnitude of its
features, which training leaves arbitrary. The factor is multiplied into the weights that produce a layer's output, and
divided out of the weights that read it.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

# layers that pass a positive factor on, and those that a factor can be divided out of
_PASSING = (nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.MaxPool2d, nn.ReLU, nn.Flatten)
_READING = (nn.Conv2d, nn.Linear, nn.LayerNorm)


class _Weights(NamedTuple):
    """The weights of a layer's output, by their names.

    Attributes:
        produce: are multiplied.
        read: are divided.
    """

    produce: list[str]
    read: list[str]


@torch.no_grad()
def rescale_layers(model: nn.Module, scales: Mapping[str, float | Tensor]) -> None:
    """Multiply the outputs of stages, in place; later layers and the network's output stay as they are.

    Exact up to rounding, and where layer norms read a stage, up to their epsilon. A stage's output is the sum of what its blocks
    add to it, each the output of a batch norm, a layer scale or a linear layer, perhaps behind a ReLU, which passes a factor on;
    convolutions, linear layers and layer norms read it. That it is so is found by a trial: a first stage whose first block
    adds to what comes before it, and other networks, are refused.

    Source: ours. ``docs/experiments.md`` measures how the magnitudes of layers affect PatchCore.

    Args:
        model: of timm, such as an EfficientNet, a MobileNet, a ResNet, a RegNet or a ConvNeXt.
        scales: name of a stage (``blocks.2``) -> factor, positive; a tensor is a scalar.

    Raises:
        ValueError: for another network or stage, for a name that is none of its stages, or for a factor that is not positive
            and finite; nothing is changed.
    """
    stages = [info["module"] for info in getattr(model, "feature_info", [])]
    for layer, scale in scales.items():
        if layer not in stages or not 0 < float(scale) < float("inf"):
            msg = f"Expected a stage, one of {', '.join(stages)}, and a positive factor, got {layer!r}: {scale}."
            raise ValueError(msg)
    with torch.autocast("cpu", enabled=False):  # of a training, in which the trial would be too coarse
        weights = _weights(model, list(scales))
    for layer, scale in scales.items():
        _apply(model, weights[layer], scale)


def _apply(model: nn.Module, weights: _Weights, scale: float | Tensor) -> None:
    for name in weights.produce:
        model.get_parameter(name).mul_(scale)
    for name in weights.read:
        model.get_parameter(name).div_(scale)


def _weights(model: nn.Module, layers: list[str]) -> dict[str, _Weights]:
    """Return the weights of each layer, proven on a copy of the network.

    Raises:
        ValueError: where multiplying and dividing them changes something else, or not the layer.
    """
    trial: Any = copy.deepcopy(model).cpu().float().eval()
    # whatever the training's precision is, to which Lightning sets the default
    images = torch.rand(1, 3, 64, 64, dtype=torch.float32, generator=torch.Generator().manual_seed(0))
    stages = [info["module"] for info in trial.feature_info]
    taken = sorted(map(stages.index, layers))
    weights = {}
    output, maps = trial(images), trial.forward_intermediates(images, indices=taken, intermediates_only=True)
    for layer in layers:
        try:
            weights[layer] = _weights_of(trial, trial.get_submodule(layer), images)
        except (AttributeError, LookupError, TypeError):  # built otherwise
            raise _cannot(model, layer) from None
        _apply(trial, weights[layer], 2.0)
        scaled = trial.forward_intermediates(images, indices=taken, intermediates_only=True)
        for place, before, after in zip(taken, maps, scaled, strict=True):
            factor = 2 if stages[place] == layer else 1
            if not torch.allclose(after, factor * before, rtol=1e-3, atol=1e-3 * float(before.abs().mean())):
                raise _cannot(model, layer)
        if not torch.allclose(trial(images), output, rtol=1e-3, atol=1e-3 * float(output.abs().mean())):
            raise _cannot(model, layer)
        _apply(trial, weights[layer], 0.5)
    return weights


def _weights_of(model: nn.Module, stage: Any, images: Tensor) -> _Weights:
    """Return the weights that make the output of a stage, and those that read it."""
    names = {id(each): name for name, each in model.named_parameters()}
    blocks = list(getattr(stage, "blocks", stage.children()))
    produce = [weight for block in blocks for weight in _last_weights(block)]
    if hasattr(stage, "downsample"):  # all blocks add to what comes out of it
        produce += _outputs(stage.downsample)
        blocks.append(stage.downsample)
    read = [module.weight for module in _readers(model, blocks, images) if not isinstance(module, nn.LayerNorm)]
    return _Weights([names[id(each)] for each in produce], [names[id(each)] for each in read])


def _last_weights(block: Any) -> Iterator[nn.Parameter]:
    """Yield the weights behind which a block's output is a sum: of its own path, and of a shortcut that has some."""
    shortcut = getattr(block, "downsample", None)
    within = set(shortcut.modules()) if isinstance(shortcut, nn.Module) else set()
    if isinstance(getattr(block, "gamma", None), nn.Parameter):
        yield block.gamma
    else:
        yield from _outputs(nn.ModuleList(each for each in block.modules() if each not in within and not _parts(each)))
    if isinstance(shortcut, nn.Module) and any(True for _ in shortcut.parameters()):
        yield from _outputs(shortcut)


def _outputs(path: nn.Module) -> list[nn.Parameter]:
    """Return weight and bias of the last layer of a path that has some."""
    last = [each for each in path.modules() if not _parts(each) and any(True for _ in each.parameters())][-1]
    return list(last.parameters())


def _parts(module: nn.Module) -> bool:
    """Return whether a module has parts with weights, and so none of its own that count."""
    return any(True for child in module.children() for _ in child.parameters())


def _readers(model: nn.Module, parts: list[nn.Module], images: Tensor) -> list[Any]:
    """Return the layers with weights that read the outputs of parts, as they are or pooled."""
    outputs: list[Tensor] = []
    readers: dict[nn.Module, None] = {}

    def note_output(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if module in parts or any(inputs[0] is each for each in outputs):
            outputs.append(output)

    def note_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if any(inputs[0] is each for each in outputs):
            readers[module] = None

    hooks = [module.register_forward_hook(note_output) for module in model.modules() if isinstance(module, _PASSING)]
    hooks += [part.register_forward_hook(note_output) for part in parts]
    hooks += [
        module.register_forward_pre_hook(note_input) for module in model.modules() if isinstance(module, _READING)
    ]
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return list(readers)


def _cannot(model: nn.Module, layer: str) -> ValueError:
    return ValueError(
        f"Cannot rescale layer {layer!r} of {type(model).__name__}: its output is not a sum of projections of its own. Take later "
        "layers, or leave their sizes as they are (--model.equalize_rms false)."
    )
