"""Maps of saliency that are known beforehand: some spots on each level."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

SIDE = 64

#: the first pixels of the spots of a level, which are 3 x 3
Spots = Sequence[tuple[int, int]]


def take_for_salient(model: Any, changes: Iterable[Any], levels: Sequence[Spots]) -> list[Tensor]:
    """Have a model swap the spots of a level, by some of its changes; returns what it looks at, as it does."""
    seen: list[Tensor] = []
    for each in changes:
        each.flags["clusters"] = 2

    def saliency(images: Tensor) -> Tensor:
        seen.append(images.clone())
        maps = torch.rand(len(images), len(levels), SIDE, SIDE) * 0.1
        for level, spots in enumerate(levels):
            for y, x in spots:
                maps[:, level, y : y + 3, x : x + 3] += 0.9
        return maps

    model.saliency = saliency
    return seen


def near(spots: Spots, reach: int) -> Tensor:
    """Pixels that a patch may cover, at most ``reach`` long, whose first pixel lies in a spot; bool ``(H, W)``."""
    covered = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    for y, x in spots:
        # shifted inwards at the border
        y, x = min(y, SIDE - reach), min(x, SIDE - reach)
        covered[y : y + reach + 5, x : x + reach + 5] = True
    return covered
