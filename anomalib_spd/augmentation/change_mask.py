"""What of a change can be seen."""

from torch import Tensor

#: of a channel's range; what differs less is not seen as changed
_LEAST = 0.03


def visibly_changed(before: Tensor, after: Tensor) -> Tensor:
    """Return where two images differ enough to be told apart (ours); a transform's own mask has all that it touched.

    Args:
        before: floating ``(B, C, H, W)`` in ``[0, 1]``.
        after: likewise.

    Returns:
        0 or 1, ``(B, 1, H, W)``, of the images' dtype.
    """
    return ((after - before).abs().amax(1, keepdim=True) > _LEAST).to(before.dtype)
