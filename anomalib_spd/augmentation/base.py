"""The base class of the transforms of patches."""

import inspect
from typing import Any

from kornia.augmentation import IntensityAugmentationBase2D
from kornia.augmentation.random_generator import RandomGeneratorBase
from torch import Tensor, nn


class PatchAugmentation(IntensityAugmentationBase2D):
    """A Kornia transform that changes a patch of each image, and the image's mask with it.

    A subclass implements ``apply_transform`` and ``apply_transform_mask``, both as functions of the parameters.

    Args:
        generator: samples the parameters.
        flags: fixed settings by name.
        p, same_on_batch, keepdim: see :class:`RandomCutPaste`.

    Raises:
        ValueError: where ``p`` is no probability.
    """

    def __init__(
        self, generator: RandomGeneratorBase, flags: dict[str, Any], p: float, same_on_batch: bool, keepdim: bool
    ) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"`p` is a probability within [0, 1]. Got {p}.")
        # not `super()`: a subclass may have other bases of Kornia's, with other arguments
        IntensityAugmentationBase2D.__init__(self, p=p, same_on_batch=same_on_batch, keepdim=keepdim)
        self._param_generator = generator
        self.flags = flags


def params_like(images: Tensor, params: dict[str, Any]) -> dict[str, Tensor]:
    """Return the tensors among ``params`` on the images' device; containers add arguments of their own."""
    return {key: value.to(images.device) for key, value in params.items() if isinstance(value, Tensor)}


def takes_saliency(transform: nn.Module) -> bool:
    """Return whether a transform can be guided: whether its ``forward`` has an argument ``saliency``."""
    return "saliency" in inspect.signature(transform.forward).parameters
