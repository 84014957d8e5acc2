"""Color jitter of whole images: the formulas of torchvision and Kornia, in fewer passes."""

from typing import Any

import torch
from kornia.augmentation import IntensityAugmentationBase2D
from kornia.augmentation.random_generator import ColorJitterGenerator
from torch import Tensor

from anomalib_spd.augmentation.base import params_like

Range = float | tuple[float, float]


class RandomColorJitter(IntensityAugmentationBase2D):
    """Change brightness, contrast, saturation and hue of images, one after the other, in an order sampled once a batch.

    Parameters, formulas and results are those of Kornia's ``ColorJitter``, which has torchvision's formulas: a factor of
    brightness, of contrast about the mean gray, of saturation, and a turn of hue in HSV, clamped after each. It takes a
    quarter of the time or less, as no image is converted to HSV (ours).

    Source: torchvision's ``ColorJitter``, which samples the order once an image.

    Args:
        brightness: largest change of the factor, ``[max(0, 1 - v), 1 + v]``, or its range.
        contrast: of the same kind as brightness.
        saturation: of the same kind as brightness.
        hue: largest turn, within ``[0, 0.5]``, 1 being a full turn, or its range.
        p: probability that an image is changed.
        same_on_batch: sample once for the whole batch.
        keepdim: return ``(C, H, W)`` for ``(C, H, W)``.

    Shape:
        - Input: floating :math:`(C, H, W)` or :math:`(B, C, H, W)` with values in ``[0, 1]``; C is 1 or 3. In gray images
          only brightness and contrast change.
        - Output: :math:`(B, C, H, W)`; values stay in ``[0, 1]``.

    Raises:
        ValueError: for arguments out of bounds, or images that have neither 1 nor 3 channels.
        TypeError: for images of integers.

    Examples:
        >>> jitter = RandomColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8)
        >>> image = torch.rand(2, 3, 224, 224)
        >>> first = jitter(image)
        >>> bool((jitter(image, params=jitter._params) == first).all())
        True
    """

    def __init__(
        self,
        brightness: Range = 0.0,
        contrast: Range = 0.0,
        saturation: Range = 0.0,
        hue: Range = 0.0,
        p: float = 1.0,
        same_on_batch: bool = False,
        keepdim: bool = False,
    ) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"`p` is a probability within [0, 1]. Got {p}.")
        super().__init__(p=p, same_on_batch=same_on_batch, keepdim=keepdim)
        self._param_generator = ColorJitterGenerator(brightness, contrast, saturation, hue)

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Return the images ``(B, C, H, W)`` with jittered colors."""
        if input.shape[1] not in (1, 3):
            raise ValueError(f"Colors are jittered in images of 1 or 3 channels. Got {input.shape[1]}.")
        is_gray = input.shape[1] == 1
        dtype = torch.promote_types(input.dtype, torch.float32)
        factors = params_like(input, params)
        images = input.to(dtype).clamp(0, 1)
        for number in params["order"].tolist():
            name, step = _STEPS[number]
            if not (is_gray and name in ("saturation", "hue")):
                images = step(images, factors[f"{name}_factor"].to(dtype)[:, None, None, None])
        return images.to(input.dtype)


def _gray(images: Tensor) -> Tensor:
    """Return the luma ``(B, 1, H, W)`` of ``(B, C, H, W)``, with the weights of torchvision and Kornia."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, 1)
    return torch.mul(red, 0.299).add_(green, alpha=0.587).add_(blue, alpha=0.114)


def _brighten(images: Tensor, factor: Tensor) -> Tensor:
    return images.mul_(factor).clamp_(0, 1)


def _contrast(images: Tensor, factor: Tensor) -> Tensor:
    # gray of the mean is the mean of gray
    mean = _gray(images.mean((2, 3), keepdim=True))
    return images.mul_(factor).add_(mean * (1 - factor)).clamp_(0, 1)


def _saturate(images: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(_gray(images), images, factor).clamp_(0, 1)


def _turn_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn hue in HSV by ``(B, 1, 1, 1)``, 1 being a full turn.

    Value and chroma do not change. A channel has its minimum up to a sixth of a turn from the hue opposite to its own, its
    maximum from a third on, and is linear between.
    """
    red, green, blue = images.split(1, 1)
    least = torch.minimum(torch.minimum(red, green), blue)
    chroma = torch.maximum(torch.maximum(red, green), blue).sub_(least)
    # the distance from red in turns: HSV's, without a case for each order of the channels
    away = (green + blue).sub_(red).sub_(least).div_(chroma.clamp(min=torch.finfo(chroma.dtype).tiny))
    hue = away.add_(1).div_(6).copysign_(green - blue) + turn
    own = torch.arange(3, device=hue.device, dtype=hue.dtype)[:, None, None] / 3
    # two more turns, so that the fraction is that of a positive number
    from_opposite = (hue + (2 - own)).frac_().sub_(0.5).abs_().clamp_(1 / 6, 1 / 3)
    return torch.addcmul(least - chroma, from_opposite, chroma, value=6).clamp_(0, 1)


#: indexed by Kornia's ``order``
_STEPS = (("brightness", _brighten), ("contrast", _contrast), ("saturation", _saturate), ("hue", _turn_hue))
