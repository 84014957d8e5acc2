"""Where two patches of one size can change places."""

import torch
from torch import Tensor

_NAMES = ("heights", "widths", "source_ys", "source_xs", "target_ys", "target_xs")


def swap_places(anchors: Tensor, heights: Tensor, widths: Tensor, image_size: tuple[int, int]) -> dict[str, Tensor]:
    """Place two patches at anchors, inside the image and without overlap.

    An anchor is the first pixel of a patch; where the patch would leave the image, it is shifted inwards. The first
    patch stands at the first anchor; the second at the first of the others at which the two do not overlap. If there is
    none, both shrink, their aspect kept, until they fit at the anchor that leaves them largest; and if all anchors are
    one pixel, the second stands half the image away (ours: CutSwap does not say what happens to overlapping patches).

    Args:
        anchors: rows and columns, int64 ``(B, T, 2)``, 2 at least.
        heights: of both patches, int64 ``(B,)``, pixels.
        widths: likewise.
        image_size: height and width, pixels.

    Returns:
        ``heights``, ``widths``: int64 ``(B,)``, pixels, as they fit; ``source_ys``, ``source_xs``, ``target_ys``,
        ``target_xs``: int64 ``(B,)``, the first row and column of each patch; ``anchors``: int64 ``(B, 2, 2)``, columns
        and rows of the two anchors, of which the patches may have been shifted.
    """
    limits = anchors.new_tensor(image_size)
    sizes = torch.stack([heights, widths], 1)
    first, others = anchors[:, :1], anchors[:, 1:]
    others = torch.cat([others, (first + limits // 2) % limits], 1)
    near, far = torch.minimum(first, others), torch.maximum(first, others)
    # the longest side for which the farther patch, shifted inwards, still begins where the nearer ends
    longest = torch.minimum(far - near, (limits - near) // 2)
    share = (longest / sizes[:, None]).amax(2).clamp(max=1)
    # half the image away is for where nothing else is left
    preference = torch.cat([share[:, :-1], share[:, -1:] * 1e-6], 1)
    chosen = preference.argmax(1, keepdim=True)
    share = share.gather(1, chosen)
    # what is added is less than a pixel's share, and makes up for the division's rounding
    sizes = (sizes * share + 1e-3).long().clamp_(min=1)
    second = others.gather(1, chosen[..., None].expand(-1, 1, 2))[:, 0]
    (source_ys, source_xs), (target_ys, target_xs) = (
        torch.minimum(place, limits - sizes).unbind(1) for place in (first[:, 0], second)
    )
    return dict(zip(_NAMES, (*sizes.unbind(1), source_ys, source_xs, target_ys, target_xs), strict=True)) | {
        "anchors": torch.stack([first[:, 0], second], 1).flip(2),
    }
