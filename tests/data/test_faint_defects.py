"""Faint defects: where they lie, how large they are, and that a seed decides them."""

import pytest
import torch
from torch import Tensor

from anomalib_spd.data.faint_defects import VISIBLE, draw_faint_defects


def parts(size: int, count: int = 4) -> Tensor:
    """Gray grained disks on a black background, uint8."""
    generator = torch.Generator().manual_seed(0)
    grain = 110 + 40 * torch.rand(count, 3, size, size, generator=generator)
    rows = torch.arange(size) - size / 2
    inside = (rows[:, None] ** 2 + rows**2).sqrt() < 0.42 * size
    return (grain * inside).to(torch.uint8)


@pytest.mark.parametrize("size", [112, 224, 256])
def test_the_mask_is_what_visibly_changed_and_lies_on_the_part(size: int) -> None:
    images = parts(size)
    defective, masks = draw_faint_defects(images, 24, seed=1)
    assert (defective.shape, defective.dtype) == ((24, 3, size, size), torch.uint8)
    assert (masks.shape, masks.dtype) == ((24, 1, size, size), torch.float32)
    change = (defective.float() - images.repeat(6, 1, 1, 1).float()).abs().amax(1, keepdim=True) / 255
    # bytes round by half a step
    assert (change[masks == 1] > VISIBLE - 1 / 255).all()
    assert (change[masks == 0] <= VISIBLE + 1 / 255).all()
    areas = masks.flatten(1).mean(1)
    assert (areas >= 25 / 224**2).all()
    assert areas.median() < 0.03
    background = images[:1].amax(1, keepdim=True) == 0
    assert (masks * background).sum() < 0.15 * masks.sum()


def test_a_seed_decides() -> None:
    images = parts(112)
    (one, masks), (again, _), (other, _) = (draw_faint_defects(images, 12, seed) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    # all mechanisms: fills and blots, as well as lines of few pixels
    assert masks.flatten(1).sum(1).unique().numel() > 6


def test_surfaces_have_defects_anywhere() -> None:
    surface = (torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 255).to(torch.uint8)
    _, masks = draw_faint_defects(surface, 40, seed=0)
    seen = masks.amax(0)[0]
    halves = [seen[:64, :64], seen[:64, 64:], seen[64:, :64], seen[64:, 64:]]
    assert all(each.any() for each in halves)


def test_parts_too_thin_have_defects_anywhere() -> None:
    thin = torch.full((1, 3, 128, 128), 200, dtype=torch.uint8)
    thin[..., 60:62] = 20  # a dark wire on white paper
    defective, masks = draw_faint_defects(thin, 20, seed=0)
    assert masks.flatten(1).any(1).all()
    assert (defective != thin).any()
