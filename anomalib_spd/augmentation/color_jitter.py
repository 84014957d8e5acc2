"""Color jitter of patches as one matrix product."""

import math

import torch
from torch import Tensor

# the color space of NTSC (FCC 47 CFR 73.682): luma, as in torchvision's and Pillow's gray, and two axes of chroma
_TO_YIQ = torch.tensor(
    [[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]], dtype=torch.float64
)
_LUMA = _TO_YIQ[0]
_GREY = torch.ones(3, 1, dtype=torch.float64) * _LUMA
_CHROMA = torch.eye(3, dtype=torch.float64) - _GREY
# turns chroma by a quarter, from red towards green
_QUARTER_TURN = _TO_YIQ.inverse() @ torch.tensor([[0.0, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=torch.float64) @ _TO_YIQ
#: the basis (3, 9) of all changes of saturation and hue, and the weights of red, green and blue in gray
_CONSTANTS = {
    dtype: (torch.stack([_GREY, _CHROMA, _QUARTER_TURN]).flatten(1).to(dtype), _LUMA.to(dtype))
    for dtype in (torch.float32, torch.float64)
}


def jitter_colors(patch: Tensor, jitter: Tensor, mean: Tensor) -> Tensor:
    """Change brightness, contrast about the patch's mean gray, saturation and hue, in this order (ours).

    torchvision takes four steps, clamps after each, and turns hue in HSV. Here hue is a rotation of chroma at constant
    luma, as in NVIDIA's DALI, which makes all four one affine map of color, and values are clamped once. The map costs
    one pass. Its turned colors differ visibly from torchvision's, whose turn changes luma.

    Args:
        patch: floating ``(B, C, N)`` in ``[0, 1]``; C is 1 or 3. In gray images only brightness and contrast change.
        jitter: float ``(B, 4)``, factors of brightness, contrast, saturation, and the turn of hue (1 is a full turn).
        mean: floating ``(B, C, 1)``, the patch's mean color.

    Returns:
        The jittered patch, of the same shape and dtype.

    Raises:
        ValueError: for patches of neither 1 nor 3 channels.
    """
    channels = patch.shape[1]
    if channels not in (1, 3):
        raise ValueError(
            f"Colors are jittered in images of 1 or 3 channels; give `jitter=(0, 0, 0, 0)`. Got {channels}."
        )
    dtype = torch.promote_types(patch.dtype, torch.float32)
    brightness, contrast, saturation, hue = jitter.to(dtype).unbind(1)
    gain = brightness * contrast
    # the share of the mean gray that contrast keeps
    rest = (brightness - gain)[:, None, None]
    pixels, mean = patch.to(dtype), mean.to(dtype)
    # autocast must not reach these products: half precision would be visible
    with torch.autocast(patch.device.type, enabled=False):
        if channels == 1:
            jittered = torch.mul(gain[:, None, None], pixels)
        else:
            basis, luma = (constant.to(jitter.device) for constant in _CONSTANTS[dtype])
            angle, color = hue * (2 * math.pi), gain * saturation
            weights = torch.stack([gain, color * angle.cos(), color * angle.sin()], 1)
            jittered, mean = torch.bmm((weights @ basis).view(-1, 3, 3), pixels), (luma @ mean)[:, None]
        return jittered.add_(rest * mean).clamp_(0, 1).to(patch.dtype)
