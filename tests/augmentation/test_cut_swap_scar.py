"""CutSwap-scar against a loop over pixels."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from anomalib_spd.augmentation import RandomCutSwap, RandomCutSwapScar

WIDE: dict[str, Any] = {"width": (0.02, 0.25), "length": (0.05, 0.25), "degrees": (-180.0, 180.0)}


def _by_loop(image: Tensor, params: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the images with both strips exchanged, and where they lie, pixel by pixel."""
    out, footprint = image.clone(), torch.zeros_like(image[:, :1])
    for index in range(len(image)):
        side, full = int(params["heights"][index]), int(params["full_heights"][index])
        # a shrunk strip stays large enough to meet a pixel at any angle
        half_width, half_length = (
            max(params[key][index].item() * (side / full), least) / 2
            for key, least in (("scar_widths", 1.5), ("scar_lengths", 2.0))
        )
        places = [(int(params[f"{p}_ys"][index]), int(params[f"{p}_xs"][index])) for p in ("source", "target")]
        for (to_y, to_x), (from_y, from_x), degrees in zip(
            places, places[::-1], params["angles"][index].tolist(), strict=True
        ):
            cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
            for row in range(side):
                for column in range(side):
                    y, x = row + 0.5 - side / 2, column + 0.5 - side / 2
                    across, along = cos * x - sin * y, sin * x + cos * y
                    if -half_width <= across < half_width and -half_length <= along < half_length:
                        source = [min(max(math.floor(o + side / 2), 0), side - 1) for o in (along, across)]
                        out[index, :, to_y + row, to_x + column] = image[
                            index, :, from_y + source[0], from_x + source[1]
                        ]
                        footprint[index, :, to_y + row, to_x + column] = 1
    return out, footprint


@pytest.mark.parametrize("size", [(8, 8), (40, 24), (64, 90)])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("crowded", [False, True])
def test_equals_a_loop_bit_for_bit(size: tuple[int, int], channels: int, crowded: bool) -> None:
    torch.manual_seed(0)
    image = torch.rand(6, channels, *size, dtype=torch.float64)
    # parameters in float64, so that both round alike
    swap = RandomCutSwapScar(**WIDE).to(torch.float64)
    # where anchors crowd, strips shrink
    out = swap(image, anchors=torch.randint(0, 6, (6, 3, 2)) if crowded else None)
    expected, footprint = _by_loop(image, swap._params)
    assert (out == expected).all()
    assert ((out != image).any(1, keepdim=True) == (footprint > 0)).all()
    mask = swap.transform_masks(torch.zeros(6, 1, *size), swap._params, swap.flags)
    assert (mask == footprint).all()


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(8, 80),
    width=st.integers(8, 80),
    arguments=st.sampled_from([{}, WIDE]),
    where=st.sampled_from(["anywhere", "saliency", "corner", "one pixel"]),
    seed=st.integers(0, 2**31),
)
def test_strips_are_apart_and_inside_and_make_no_color(
    height: int, width: int, arguments: dict[str, Any], where: str, seed: int
) -> None:
    torch.manual_seed(seed)
    image, swap = torch.rand(3, 3, height, width), RandomCutSwapScar(**arguments)
    reach = 3 if where == "corner" else 1
    anchors = torch.randint(0, reach, (3, 4, 2)) + torch.randint(0, 2, (2,)) * torch.tensor([width - 3, height - 3])
    out = {
        "anywhere": lambda: swap(image),
        "saliency": lambda: swap(image, saliency=torch.rand(3, 1, height, width) ** 4),
    }.get(where, lambda: swap(image, anchors=anchors))()
    params = swap._params
    size = params["heights"]
    assert (params["widths"] == size).all()
    assert size.min() >= 1
    distance = [(params[f"source_{axis}"] - params[f"target_{axis}"]).abs() for axis in ("ys", "xs")]
    assert (torch.maximum(*distance) >= size).all()
    for place in ("source", "target"):
        for axis, limit in (("ys", height), ("xs", width)):
            assert params[f"{place}_{axis}"].min() >= 0
            assert (params[f"{place}_{axis}"] + size).max() <= limit
    for before, after in zip(image, out, strict=True):
        assert set(map(tuple, after.flatten(1).T.tolist())) <= set(map(tuple, before.flatten(1).T.tolist()))
    # both strips have a pixel
    assert ((out != image).any(1).sum((1, 2))[size == params["full_heights"]] >= 2).all()


@pytest.mark.parametrize("apart", [1, 2, 3])
@pytest.mark.parametrize("side", [8, 24, 64])
def test_every_strip_has_a_pixel_also_where_it_shrinks(apart: int, side: int) -> None:
    torch.manual_seed(0)
    image = torch.rand(256, 1, side, side, dtype=torch.float64)
    anchors = torch.tensor([[0, 0], [apart, 0]]).expand(256, 2, 2)
    out = RandomCutSwapScar()(image, anchors=anchors)
    assert ((out != image).sum((1, 2, 3)) >= 2).all()


def test_refuses_scars_of_which_two_do_not_fit() -> None:
    for name in ("width", "length"):
        with pytest.raises(ValueError, match=f"`{name}` is a range"):
            RandomCutSwapScar(**{name: (0.1, 0.3)})
    with pytest.raises(ValueError, match=r"up to a quarter.*`scale`"):
        RandomCutSwap(scale=(0.1, 0.3))
