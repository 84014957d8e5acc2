"""CutPaste-scar against a loop over pixels, each turned back to where it came from."""

import math
from typing import Any

import pytest
import torch
from kornia.augmentation import AugmentationSequential
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from anomalib_spd.augmentation import RandomCutPasteScar
from anomalib_spd.augmentation.color_jitter import jitter_colors

NO_JITTER = (0.0, 0.0, 0.0, 0.0)
WIDE: dict[str, Any] = {"width": (0.02, 0.25), "length": (0.05, 0.25), "degrees": (-180.0, 180.0)}


def _sources(params: dict[str, Tensor], index: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return rows and columns of each pixel of one scar, and of the pixel that comes to lie there."""
    names = ("heights", "source_ys", "source_xs", "target_ys", "target_xs", "scar_widths", "scar_lengths")
    side, sy, sx, ty, tx, width, length = (params[name][index].item() for name in names)
    angle = math.radians(params["angles"][index, 0].item())
    pairs = []
    for row in range(int(side)):
        for column in range(int(side)):
            y, x = row + 0.5 - side / 2, column + 0.5 - side / 2
            # clockwise as displayed, where y counts downwards: back to the upright scar
            upright_x = math.cos(angle) * x - math.sin(angle) * y
            upright_y = math.sin(angle) * x + math.cos(angle) * y
            if -width / 2 <= upright_x < width / 2 and -length / 2 <= upright_y < length / 2:
                source = (math.floor(upright_y + side / 2), math.floor(upright_x + side / 2))
                source_row, source_column = (min(max(offset, 0), int(side) - 1) for offset in source)
                pairs.append(((int(ty) + row, int(tx) + column), (int(sy) + source_row, int(sx) + source_column)))
    return pairs


@pytest.mark.parametrize("size", [(8, 8), (40, 24), (64, 90), (120, 120)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_equals_a_loop_bit_for_bit(size: tuple[int, int], channels: int) -> None:
    torch.manual_seed(0)
    image = torch.rand(4, channels, *size, dtype=torch.float64)
    # parameters in float64, so that both round alike
    scar = RandomCutPasteScar(**WIDE, jitter=NO_JITTER).to(torch.float64)
    augment = AugmentationSequential(scar, data_keys=["input", "mask"])
    out, mask = augment(image, torch.zeros(4, 1, *size))
    expected, footprint = image.clone(), torch.zeros(4, 1, *size)
    for index in range(4):
        for (ty, tx), (sy, sx) in _sources(scar._params, index):
            expected[index, :, ty, tx] = image[index, :, sy, sx]
            footprint[index, :, ty, tx] = 1
    assert (out == expected).all()
    assert (mask == footprint).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_colors_are_jittered_about_the_mean_of_what_is_pasted(channels: int) -> None:
    torch.manual_seed(0)
    image = torch.rand(4, channels, 60, 80, dtype=torch.float64)
    scar = RandomCutPasteScar(**WIDE, jitter=(0.3, 0.5, 0.3, 0.3)).to(torch.float64)
    out = scar(image)
    expected = image.clone()
    for index in range(4):
        targets, sources = zip(*_sources(scar._params, index), strict=True)
        (ty, tx), (sy, sx) = torch.tensor(targets).T, torch.tensor(sources).T
        pixels = image[index, :, sy, sx][None]
        change = scar._params["jitter"][index : index + 1]
        expected[index, :, ty, tx] = jitter_colors(pixels, change, pixels.mean(2, keepdim=True))[0]
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)


def _turned_by(degrees: float, image: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    scar = RandomCutPasteScar(width=(0.24, 0.25), length=(0.24, 0.25), degrees=(degrees, degrees), jitter=NO_JITTER)
    augment = AugmentationSequential(scar, data_keys=["input", "mask"])
    out, mask = augment(image, torch.zeros(len(image), 1, *image.shape[2:]))
    return out, mask, scar._params


@pytest.mark.parametrize("degrees", [-180.0, -90.0, -45.0, -20.0, 0.0, 10.0, 45.0, 90.0, 135.0])
def test_turns_as_torchvision_does(degrees: float) -> None:
    torch.manual_seed(0)
    image = torch.rand(4, 3, 100, 120)
    out, mask, params = _turned_by(degrees, image)
    for index in range(4):
        side, sy, sx, ty, tx = (
            int(params[k][index]) for k in ("heights", "source_ys", "source_xs", "target_ys", "target_xs")
        )
        square = image[index, :, sy : sy + side, sx : sx + side]
        expected = tv.rotate(square, degrees, InterpolationMode.NEAREST)
        inside = mask[index, 0, ty : ty + side, tx : tx + side] > 0
        same = (out[index, :, ty : ty + side, tx : tx + side] == expected).all(0)[inside]
        # but for pixels half way between two
        assert same.float().mean() > 0.98


def test_the_top_goes_to_the_left() -> None:
    torch.manual_seed(0)
    # rows get darker downwards
    image = torch.linspace(1, 0, 128)[:, None].expand(1, 1, 128, 128)
    out, mask, _ = _turned_by(90.0, image)
    columns = mask[0, 0].any(0).nonzero()[:, 0]
    row = mask[0, 0].any(1).nonzero()[:, 0].float().mean().round().long()
    pasted = out[0, 0, row, columns]
    assert (pasted.diff() < 0).all()


def test_covers_its_width_times_its_length() -> None:
    torch.manual_seed(0)
    scar = RandomCutPasteScar(width=(0.1, 0.25), length=(0.2, 0.25), degrees=(-180, 180))
    augment = AugmentationSequential(scar, data_keys=["input", "mask"])
    _, mask = augment(torch.rand(64, 3, 128, 160), torch.zeros(64, 1, 128, 160))
    stated = scar._params["scar_widths"] * scar._params["scar_lengths"]
    ratio = mask.sum((1, 2, 3)) / stated
    assert ratio.min() > 0.75
    assert ratio.max() < 1.25
    assert abs(ratio.mean() - 1) < 0.02


@pytest.mark.parametrize("size", [(4, 5), (8, 8), (8, 64), (17, 23), (256, 300)])
@pytest.mark.parametrize("arguments", [{}, {"degrees": (-180.0, 180.0)}, WIDE])
def test_every_scar_lies_inside_and_has_a_pixel(size: tuple[int, int], arguments: dict[str, Any]) -> None:
    torch.manual_seed(0)
    batch = 32 if size[0] > 100 else 512
    scar = RandomCutPasteScar(**arguments)
    augment = AugmentationSequential(scar, data_keys=["input", "mask"])
    _, mask = augment(torch.rand(batch, 1, *size), torch.zeros(batch, 1, *size))
    assert (mask.flatten(1).sum(1) >= 1).all()
    params = scar._params
    for place in ("source", "target"):
        for axis, limit in zip(("ys", "xs"), size, strict=True):
            assert params[f"{place}_{axis}"].min() >= 0
            assert (params[f"{place}_{axis}"] + params["heights"]).max() <= limit


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": (0.1, 0.3)}, "`width`"),
        ({"length": (0.1, 0.3)}, "`length`"),
        ({"width": (0.2, 0.1)}, "`width`"),
        ({"degrees": (-200, 0)}, "`degrees`"),
        ({"jitter": (0, 0, 0, 0.6)}, "`jitter`"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RandomCutPasteScar(**arguments)
