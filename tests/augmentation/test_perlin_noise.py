"""Perlin noise against anomalib's, and the texture that is blended in where it is high."""

import math
from typing import Any

import pytest
import torch
from anomalib.data.utils.generators.perlin import generate_perlin_noise
from kornia.augmentation import AugmentationSequential

from anomalib_spd.augmentation import RandomPerlinNoise
from anomalib_spd.augmentation.perlin_noise import perlin_noise


@pytest.mark.parametrize("cells", [(1, 32), (4, 8), (16, 2)])
def test_equals_anomalibs_noise(cells: tuple[int, int]) -> None:
    torch.manual_seed(0)
    expected = generate_perlin_noise(128, 128, cells, torch.device("cpu"))
    torch.manual_seed(0)
    lattice = torch.zeros(1, 64, 64)
    # anomalib measures the angle of a gradient from the other axis
    lattice[0, : cells[0] + 1, : cells[1] + 1] = math.pi / 2 - 2 * math.pi * torch.rand(cells[0] + 1, cells[1] + 1)
    found = perlin_noise(lattice, torch.tensor([cells]).float(), torch.zeros(1), (128, 128))
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-5)


def test_a_quarter_of_a_turn_turns_the_noise() -> None:
    torch.manual_seed(0)
    lattice, cells = 2 * math.pi * torch.rand(1, 64, 64), torch.tensor([[4.0, 16.0]])
    upright, lying = (perlin_noise(lattice, cells, torch.tensor([angle]), (96, 96)) for angle in (0, math.pi / 2))
    # row r becomes column r, column c row -c, which a turned image has below its lower edge: one period away
    along, across = ((each[:, 1:] - each[:, :-1]).square().mean() for each in (lying.transpose(1, 2), lying))
    assert (
        upright[:, :, 1:].sub(upright[:, :, :-1]).square().mean() > upright[:, 1:].sub(upright[:, :-1]).square().mean()
    )
    assert across > along


@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_as_many_pixels_change_as_are_to(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    images, blank = torch.rand(64, 3, *size), torch.zeros(64, 1, *size)
    transform = RandomPerlinNoise(scale=(0.01, 0.2))
    changed, mask = AugmentationSequential(transform, data_keys=["input", "mask"])(images, blank)
    covered = mask.flatten(1).mean(1)
    assert torch.equal(covered, (transform._params["scales"] * blank[0].numel()).round() / blank[0].numel())
    assert 0.01 <= covered.min() < 0.013
    assert 0.15 < covered.max() <= 0.2
    assert torch.equal((changed != images).any(1), mask[:, 0] > 0)


def test_textures_are_of_a_color_and_of_all_strengths() -> None:
    torch.manual_seed(0)
    black = torch.zeros(200, 3, 64, 64)
    transform = RandomPerlinNoise(scale=(0.5, 0.5), opacity=(1.0, 1.0))
    changed, mask = AugmentationSequential(transform, data_keys=["input", "mask"])(black, black[:, :1])
    pixels = [image[:, where[0] > 0] for image, where in zip(changed, mask, strict=True)]
    shades = torch.stack([each.mean() for each in pixels])
    assert shades.min() < 0.15
    assert shades.max() > 0.85
    deviations = torch.stack([each.mean(0).std() for each in pixels])
    assert deviations.min() < 0.06
    assert deviations.max() > 0.2
    # channels differ by less than what all of them have in common
    tint = torch.stack([each.mean(1).std() for each in pixels])
    assert tint.mean() < shades.std() / 2


def test_one_pixel_changes_at_least() -> None:
    torch.manual_seed(0)
    image = torch.full((8, 1, 5, 7), 0.5)
    assert ((RandomPerlinNoise(scale=(1e-4, 1e-4), opacity=(1.0, 1.0))(image) != image).flatten(1).sum(1) == 1).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": (0.0, 0.5)}, r"`scale` is a range of shares of the image's area within \(0, 1\]"),
        ({"opacity": (0.5, 1.5)}, r"`opacity` is a range of shares within \(0, 1\]"),
    ],
)
def test_what_is_out_of_bounds_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RandomPerlinNoise(**arguments)
