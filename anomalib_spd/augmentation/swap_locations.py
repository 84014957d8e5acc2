"""The locations at which two patches of one size can swap."""

import torch
from torch import Tensor


def swap_locations(anchors: Tensor, heights: Tensor, widths: Tensor, image_size: tuple[int, int]) -> dict[str, Tensor]:
    """Place two patches at anchors, inside the image and without overlap.

    An anchor is the first pixel of a patch; a patch that would leave the image is shifted inwards. The first patch gets
    the first anchor, the second patch the first of the others at which the two do not overlap. If there is none, both
    shrink, keeping their aspect, until they fit at the anchor that leaves them largest. If all anchors are the same pixel,
    the second patch lies half the image away (ours: CutSwap does not treat patches that overlap).

    Args:
        anchors: rows and columns, int64 ``(B, T, 2)``, T at least 2.
        heights: of both patches, int64 ``(B,)``, pixels.
        widths: of both patches, int64 ``(B,)``, pixels.
        image_size: height and width, pixels.

    Returns:
        ``heights``, ``widths``: int64 ``(B,)``, pixels, as they fit; ``source_ys``, ``source_xs``, ``target_ys``,
        ``target_xs``: int64 ``(B,)``, the first row and column of each patch; ``anchors``: int64 ``(B, 2, 2)``, columns
        and rows of the two anchors, before patches were shifted inwards.
    """
    limits, sizes = anchors.new_tensor(image_size), torch.stack([heights, widths], 1)
    first, others = anchors[:, :1], anchors[:, 1:]
    others = torch.cat([others, (first + limits // 2) % limits], 1)
    near, far = torch.minimum(first, others), torch.maximum(first, others)
    # the longest side for which the farther patch, shifted inwards, still begins where the nearer one ends
    longest = torch.minimum(far - near, (limits - near) // 2)
    share = (longest / sizes[:, None]).amax(2).clamp(max=1)
    # half the image away is the last resort
    preference = torch.cat([share[:, :-1], share[:, -1:] * 1e-6], 1)
    chosen = preference.argmax(1, keepdim=True)
    # the summand is less than a pixel's share, and makes up for the division's rounding
    sizes = (sizes * share.gather(1, chosen) + 1e-3).long().clamp_(min=1)
    both = torch.cat([first, others.gather(1, chosen[..., None].expand(-1, 1, 2))], 1)
    found = torch.cat([sizes[:, None], torch.minimum(both, (limits - sizes)[:, None])], 1).flatten(1).unbind(1)
    names = ("heights", "widths", "source_ys", "source_xs", "target_ys", "target_xs")
    return dict(zip(names, found, strict=True)) | {"anchors": both.flip(2)}


def relocate_pair(found: dict[str, Tensor], draws: Tensor, image_size: tuple[int, int]) -> dict[str, Tensor]:
    """Move both patches together to a uniform location, so that their size and their distance stay.

    Source: ours, the control of a guide that is matched in size and distance.

    Args:
        found: of :func:`swap_locations`.
        draws: of the row and the column, floating ``(B, 2)`` in ``[0, 1)``.
        image_size: height and width, pixels.

    Returns:
        The same names; ``anchors`` are the patches' first pixels.
    """
    firsts = torch.stack([torch.stack([found[f"{name}_ys"], found[f"{name}_xs"]], 1) for name in ("source", "target")])
    sizes = torch.stack([found["heights"], found["widths"]], 1)
    least, last = firsts.amin(0), firsts.new_tensor(image_size) - (firsts.amax(0) + sizes - firsts.amin(0))
    # the minimum is for a draw so near to 1 that the product is rounded up to the first location outside
    moved = firsts + torch.minimum((draws * (last + 1)).long(), last) - least
    source_ys, source_xs, target_ys, target_xs = moved.transpose(0, 1).flatten(1).unbind(1)
    patches = {"source_ys": source_ys, "source_xs": source_xs, "target_ys": target_ys, "target_xs": target_xs}
    return found | patches | {"anchors": moved.transpose(0, 1).flip(2)}
