"""The feature layers of a network: their names in timm, and a check of those that a user names."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from anomalib_spd.backbones.registry import available
from anomalib_spd.backbones.sources import find_network
from anomalib_spd.backbones.transformers import build_empty, check_routing, is_transformer
from anomalib_spd.spelling import did_you_mean


def layers(backbone: str) -> list[str]:
    """Return the layers that detectors read by default: those at strides 8 and 16, as PatchCore's paper reads a ResNet.

    Args:
        backbone: name in the registry or in timm.

    Raises:
        ValueError: where there is none of that name, with the nearest names, or detectors could not read its maps.

    Example:
        >>> layers("efficientnet_lite0_spd"), layers("resnet18.tv_in1k")
        (['blocks.2', 'blocks.4'], ['layer2', 'layer3'])
    """
    registered = available()
    if backbone in registered:
        return list(registered[backbone].layers)
    network = find_network(backbone)
    return list(describe_layers(network.architecture, network.model_args)["layers"])


def default_layers(backbone: str) -> list[str]:
    """Return the layers of detectors that read three scales: those at strides 4, 8 and 16, as of a ResNet.

    Args:
        backbone: name in the registry or in timm.

    Raises:
        ValueError: where there is none of that name, or detectors could not read its maps.
    """
    network = find_network(backbone)
    return [layer["module"] for layer in layers_at((4, 8, 16), network.architecture, network.model_args)]


def check_doubling(backbone: str, layers: Sequence[str]) -> int:
    """Check that each layer has half the stride of the next, and return the last stride.

    Args:
        backbone: name in timm, ours included.
        layers: timm's names of feature layers, first to last.

    Raises:
        ValueError: where they do not.
    """
    if is_transformer(build_empty(backbone)):
        raise ValueError(f"Layers of a transformer have one stride. {backbone} is one: give a CNN.")
    strides = [each["reduction"] for each in _feature_info(backbone) if each["module"] in layers]
    if any(2 * finer != coarser for finer, coarser in pairwise(strides)):
        raise ValueError(f"Give layers of which each has half the stride of the next. {list(layers)} have {strides}.")
    return int(strides[-1])


def describe_layers(architecture: str, model_args: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the layers that detectors read, by timm's own description of the architecture.

    Returns:
        ``layers``: names at strides 8 and 16; ``n_features``: what PaDiM keeps, 100 channels or all if there are fewer
        (PaDiM paper, section 3.2: 100 random dimensions lose next to nothing for ResNet-18).

    Raises:
        ValueError: where timm gives no feature maps of the architecture, or gives them channels last.
    """
    layers = layers_at((4, 8, 16), architecture, model_args)
    return {
        "layers": [layer["module"] for layer in layers if layer["reduction"] != 4],
        "n_features": min(100, sum(layer["num_chs"] for layer in layers)),
    }


def layers_at(
    strides: Iterable[int], architecture: str, model_args: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Return timm's records (``module``, ``num_chs``, ``reduction``) of the last layer at each stride.

    A network that has none of the strides, such as a transformer of 14-pixel patches, gives its very last layer.
    """
    layers = _feature_info(architecture, model_args)
    by_stride = {layer["reduction"]: layer for layer in layers}
    return [by_stride[stride] for stride in strides if stride in by_stride] or layers[-1:]


def check_layers(backbone: str, layers: Sequence[str | int]) -> None:
    """Check that a backbone has the layers, named in the order in which anomalib reads them.

    Args:
        backbone: name in timm, ours included.
        layers: timm's names of feature layers, of a transformer those of its blocks. Numbers are not checked.

    Raises:
        ValueError: for a layer that the backbone does not have, for layers out of order, whose maps anomalib would
            confuse, and for a backbone whose maps anomalib cannot read, or not under its name.
    """
    known = [each["module"] for each in _feature_info(backbone)]
    check_routing(backbone, build_empty(backbone))
    names = [layer for layer in layers if isinstance(layer, str)]
    if unknown := [name for name in names if name not in known]:
        msg = (
            f"Backbone {backbone!r} has no layer {', '.join(map(repr, unknown))}{did_you_mean(unknown[0], known)}; it has: "
            f"{', '.join(known)}. Give `layers` of these."
        )
        raise ValueError(msg)
    ordered = sorted(set(names), key=known.index)
    if names != ordered:
        msg = f"Give the layers of backbone {backbone!r} once each and from first to last: {ordered}. Got {names}."
        raise ValueError(msg)


def _feature_info(backbone: str, model_args: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Return timm's records of the layers that anomalib reads.

    Raises:
        ValueError: where timm has none, or the maps are channels last, which anomalib takes for channels first.
    """
    try:
        network = build_empty(backbone, **(model_args or {}))
        if is_transformer(network):  # whose network of feature maps has the last three blocks alone
            return list(network.feature_info)
        network = build_empty(backbone, features_only=True, **(model_args or {}))
    except (RuntimeError, AttributeError, TypeError) as error:
        msg = f"timm gives no feature maps of {backbone} ({error}), so no detector could read them."
        raise ValueError(msg) from error
    if getattr(network, "output_fmt", None) == "NHWC":
        raise ValueError(
            f"{backbone} gives maps of the form (B, H, W, C), as Swin, MambaOut and Sequencer do, and anomalib would read their "
            "rows as channels. Give a network with channels first, such as a ConvNeXt."
        )
    records: list[dict[str, Any]] = network.feature_info.get_dicts()
    return records
