"""Vision transformers: which networks anomalib reads as such, by which names, and which images they take."""

from typing import Any

import timm
import torch
from timm.models import Eva, VisionTransformer
from torch import nn

# in a name, these make a detector of anomalib treat the backbone as a transformer (TimmFeatureExtractor, PatchFlow)
TRANSFORMER_MARKERS = ("vit", "dinov2")
# timm's classes whose maps are tokens of one stride at any size of image, as anomalib asks for them
_CLASSES = (VisionTransformer, Eva)


def build_empty(backbone: str, **model_args: Any) -> Any:
    """Return a network without memory for its weights, for questions about its structure. No random number is drawn.

    Args:
        backbone: name in timm, ours included.
        model_args: of timm's function.
    """
    with torch.random.fork_rng([]):
        try:
            with torch.device("meta"):
                return timm.create_model(backbone, **model_args)
        except NotImplementedError:  # timm computes with numbers of tensors while it builds some networks
            return timm.create_model(backbone, **model_args)


def is_transformer(network: nn.Module) -> bool:
    """Return whether anomalib can read a network as a vision transformer."""
    return isinstance(network, _CLASSES)


def transformer_markers(text: str) -> list[str]:
    """Return the parts of a name or path by which anomalib recognizes transformers."""
    return [marker for marker in TRANSFORMER_MARKERS if marker in text.lower()]


def check_routing(name: str, network: nn.Module) -> None:
    """Check that anomalib would take a network by its name for what it is, a transformer or none.

    Args:
        name: or path, that detectors will be given.
        network: of timm.

    Raises:
        ValueError: where it would not.
    """
    markers, family = transformer_markers(name), type(network).__name__
    if not is_transformer(network) and markers:
        raise ValueError(
            f"The name {name!r} contains {markers[0]!r}, by which anomalib recognizes vision transformers. This network is "
            f"a {family}, and anomalib would fail to read its layers. Take a name without it."
        )
    if is_transformer(network) and TRANSFORMER_MARKERS[0] not in markers:
        raise ValueError(
            f"The name {name!r} does not contain {TRANSFORMER_MARKERS[0]!r}, by which anomalib recognizes vision "
            f"transformers. This network is one ({family}), and anomalib would read it as a CNN, at one size of image and "
            "without its last norm. Take a name with it."
        )


def patch_size(network: Any) -> int:
    """Return the height and width of a transformer's patches, pixels; 1 of other networks."""
    return int(network.patch_embed.patch_size[0]) if is_transformer(network) else 1


def check_image_size(network: nn.Module, *sizes: int) -> None:
    """Check that images are of whole patches.

    Args:
        network: of timm.
        *sizes: heights and widths of images, pixels.

    Raises:
        ValueError: where they are not, with the nearest sizes that are.
    """
    patch = patch_size(network)
    for size in sizes:
        if size % patch:
            below = size // patch * patch
            near = f"{below} or {below + patch}" if below else f"{patch}"
            raise ValueError(
                f"A {type(network).__name__} of {patch}-pixel patches takes images of whole patches. Got {size} px: give "
                f"image_size {near}."
            )
