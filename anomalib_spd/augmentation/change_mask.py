"""The mask of visible differences between two images."""

from torch import Tensor

#: smallest visible difference, as a share of a channel's range
_THRESHOLD = 0.03


def change_mask(before: Tensor, after: Tensor) -> Tensor:
    """Return where two images differ visibly (ours); a transform's own mask holds every pixel that it wrote.

    Args:
        before: floating ``(B, C, H, W)`` in ``[0, 1]``.
        after: of the same shape.

    Returns:
        0 or 1, ``(B, 1, H, W)``, of the images' dtype.
    """
    return ((after - before).abs().amax(1, keepdim=True) > _THRESHOLD).to(before.dtype)
