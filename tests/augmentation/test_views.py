"""The views' sizes and ranges, and that each changes what it says."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from anomalib_spd.augmentation import anchor_view, supervised_view, weak_view


@pytest.mark.parametrize("view", [anchor_view, weak_view, supervised_view])
@pytest.mark.parametrize("shape", [(3, 80, 120), (3, 256, 256)])
def test_size_and_range(view: Callable[[int], nn.Module], shape: tuple[int, ...]) -> None:
    out = view(64)(torch.rand(4, *shape))
    assert out.shape == (4, 3, 64, 64)
    assert out.min() >= 0
    assert out.max() <= 1


def test_the_anchor_is_not_random() -> None:
    images = torch.rand(4, 3, 90, 70)
    assert (anchor_view(64)(images) == anchor_view(64)(images)).all()


def test_the_weak_view_stays_nearer_to_the_anchor_than_the_supervised_view() -> None:
    torch.manual_seed(0)
    # a smooth picture: what is measured is where things are and what colour they have
    images = nn.functional.interpolate(torch.rand(32, 3, 6, 6), size=96, mode="bicubic").clamp(0, 1)
    anchor = anchor_view(64)(images)
    flipped = anchor.flip(-1)

    def distance(view: nn.Module) -> float:
        out = view(images)
        return torch.minimum((out - anchor).abs().mean((1, 2, 3)), (out - flipped).abs().mean((1, 2, 3))).mean().item()

    assert 0 < distance(weak_view(64)) < 0.6 * distance(supervised_view(64))
