"""Cracks against a loop over pixels and points."""

import math
from typing import Any

import pytest
import torch
from kornia.augmentation import AugmentationSequential
from torch import Tensor

from anomalib_spd.augmentation import RandomCrack


def _covered(params: dict[str, Tensor], index: int, size: tuple[int, int]) -> Tensor:
    """How much of each pixel one line covers in its middle: what its nearest point does."""
    deviation = params["widths"][index].item() / 2
    points = [
        (params["ys"][index, point].item(), params["xs"][index, point].item())
        for point in range(params["ys"].shape[1])
        if point < params["lengths"][index].item()
    ]
    covered = torch.zeros(size, dtype=torch.float64)
    for row in range(size[0]):
        for column in range(size[1]):
            nearest = min(math.hypot(row - y, column - x) for y, x in points)
            if nearest <= 3 * deviation:
                covered[row, column] = math.exp(-(nearest**2) / (2 * deviation**2))
    return covered


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (40, 24), (60, 90)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_equals_a_loop(size: tuple[int, int], channels: int) -> None:
    torch.manual_seed(0)
    image = torch.rand(3, channels, *size, dtype=torch.float64)
    crack = RandomCrack(length=(0.1, 1.5), width=(0.01, 0.1)).to(torch.float64)
    out, mask = AugmentationSequential(crack, data_keys=["input", "mask"])(image, torch.zeros(3, 1, *size))
    params = crack._params
    for index in range(3):
        covered = _covered(params, index, size)
        share = params["opacities"][index] * covered
        expected = (1 - share) * image[index] + share * params["colors"][index][:, None, None]
        torch.testing.assert_close(out[index], expected, rtol=0, atol=1e-12)
        assert torch.equal(mask[index, 0] > 0, covered > 0)


def test_lines_are_as_long_and_as_wide_as_they_are_to_be() -> None:
    torch.manual_seed(0)
    crack = RandomCrack(length=(0.25, 0.5), width=(0.01, 0.02), turn=4.0, opacity=(0.4, 0.9))
    crack(torch.rand(500, 3, 200, 300))
    params = crack._params
    assert 50 <= params["lengths"].min() < 55
    assert 95 < params["lengths"].max() <= 100
    assert 2 <= params["widths"].min() < 2.1
    assert 3.9 < params["widths"].max() <= 4
    assert 0.4 <= params["opacities"].min() < 0.42
    assert 0.88 < params["opacities"].max() <= 0.9
    assert params["ys"].shape == (500, 100)
    steps = torch.stack([params["ys"].diff(), params["xs"].diff()], -1)
    torch.testing.assert_close(steps.norm(dim=-1), torch.ones(500, 99), rtol=0, atol=1e-3)
    turns = torch.atan2(*steps.unbind(-1)).diff()
    turns = torch.rad2deg(torch.remainder(turns + math.pi, 2 * math.pi) - math.pi).abs()
    assert 3.9 < turns.max() <= 4.4 + 0.1  # up to a tenth more, and rounding
    # dark ones and bright ones, as gaps are and scratches
    is_dark = params["colors"].mean(1) < 0.5
    assert 0.5 < is_dark.float().mean() < 0.7
    assert ((params["colors"] <= 0.4) | (params["colors"] >= 0.6)).all()


def test_however_fine_an_image_is_a_line_is_seen() -> None:
    torch.manual_seed(0)
    image = torch.full((20, 3, 9, 9), 0.5)
    changed = (RandomCrack(length=(0.001, 0.002), width=(0.0001, 0.0002))(image) - image).abs().flatten(1).amax(1)
    assert (changed > 0.01).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": (0.0, 0.5)}, r"`length` is a range of positive shares"),
        ({"width": (0.1, 0.3)}, r"`width` is a range of shares of the image's shorter side within \(0, 0.25\]"),
        ({"opacity": (0.5, 1.5)}, r"`opacity` is a range of shares within \(0, 1\]"),
        ({"turn": -1.0}, r"`turn` is an angle within \[0, 180\], degrees. Got -1.0"),
    ],
)
def test_what_is_out_of_bounds_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RandomCrack(**arguments)
