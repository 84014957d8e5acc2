"""Spots against a loop over pixels."""

import math
from typing import Any

import pytest
import torch
from kornia.augmentation import AugmentationSequential
from torch import Tensor

from anomalib_spd.augmentation import RandomSpot


def _covered(params: dict[str, Tensor], index: int, size: tuple[int, int], softness: float) -> Tensor:
    """How much of the change each pixel has: 1 in the ellipse, falling to 0 across its edge."""
    y, x, angle = (params[name][index].item() for name in ("ys", "xs", "angles"))
    long, short = (each.item() / 2 for each in params["diameters"][index])
    covered = torch.zeros(size, dtype=torch.float64)
    for row in range(size[0]):
        for column in range(size[1]):
            turned = complex(column - x, row - y) * complex(math.cos(angle), -math.sin(angle))
            radius = math.hypot(turned.real / long, turned.imag / short)
            share = min(1, max(0, (1 + softness - radius) / (2 * softness)))
            covered[row, column] = 3 * share**2 - 2 * share**3
    return covered


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (40, 24), (60, 90)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_equals_a_loop(size: tuple[int, int], channels: int) -> None:
    torch.manual_seed(0)
    image = torch.rand(3, channels, *size, dtype=torch.float64)
    spot = RandomSpot(diameter=(0.1, 0.8), softness=0.3).to(torch.float64)
    out, mask = AugmentationSequential(spot, data_keys=["input", "mask"])(image, torch.zeros(3, 1, *size))
    params = spot._params
    for index in range(3):
        covered = _covered(params, index, size, 0.3)
        expected = (image[index] + covered * params["changes"][index][:, None, None]).clamp(0, 1)
        torch.testing.assert_close(out[index], expected, rtol=0, atol=1e-9)
        assert torch.equal(mask[index, 0] > 0, covered > 0)


def test_spots_are_as_large_and_as_strong_as_they_are_to_be() -> None:
    torch.manual_seed(0)
    spot = RandomSpot(diameter=(0.1, 0.2), strength=(0.2, 0.4))
    spot(torch.rand(500, 3, 200, 300))
    params = spot._params
    assert 20 <= params["diameters"].min() < 20.5
    assert 39.5 < params["diameters"].max() <= 40
    assert 0.1 <= params["changes"].abs().min() < 0.12
    assert 0.38 < params["changes"].abs().max() <= 0.4
    # lighter ones and darker ones, in all channels
    signs = params["changes"].sign()
    assert (signs == signs[:, :1]).all()
    assert 0.4 < (signs[:, 0] > 0).float().mean() < 0.6
    assert params["ys"].max() > 190
    assert params["xs"].max() > 285


def test_however_fine_an_image_is_a_spot_is_seen() -> None:
    torch.manual_seed(0)
    image = torch.full((20, 3, 9, 9), 0.5)
    changed = (RandomSpot(diameter=(0.001, 0.002))(image) - image).abs().flatten(1).amax(1)
    assert (changed > 0.01).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"diameter": (0.0, 0.5)}, r"`diameter` is a range of shares of the image's shorter side within \(0, 1\]"),
        ({"strength": (0.5, 1.5)}, r"`strength` is a range of changes of color within \(0, 1\]"),
        ({"softness": 0.0}, r"`softness` is a share of the radius within \(0, 1\]. Got 0.0"),
    ],
)
def test_what_is_out_of_bounds_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RandomSpot(**arguments)
