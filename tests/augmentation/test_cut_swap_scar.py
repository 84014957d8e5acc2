"""CutSwap-scar against a loop over pixels; and what both forms of CutSwap take from a container."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kornia.augmentation import AugmentationSequential, RandomHorizontalFlip
from torch import Tensor

from anomalib_spd.augmentation import RandomCutSwap, RandomCutSwapScar

WIDE: dict[str, Any] = {"width": (0.02, 0.25), "length": (0.05, 0.25), "degrees": (-180.0, 180.0)}
both = pytest.mark.parametrize("make", [RandomCutSwap, RandomCutSwapScar])


def _by_loop(image: Tensor, params: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the images with both strips exchanged, and where they lie, pixel by pixel."""
    out, footprint = image.clone(), torch.zeros_like(image[:, :1])
    for index in range(len(image)):
        side, full = int(params["heights"][index]), int(params["full_heights"][index])
        half_width, half_length = (
            params[key][index].item() * (side / full) / 2 for key in ("scar_widths", "scar_lengths")
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
def test_strips_are_apart_and_inside_and_make_no_colour(
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


def _inputs() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.rand(3, 3, 32, 40, dtype=torch.float64), torch.rand(3, 1, 32, 40), torch.zeros(3, 1, 32, 40)


def _changed(before: Tensor, after: Tensor) -> Tensor:
    return (before != after).any(1, keepdim=True)


@both
@pytest.mark.parametrize("p", [0.5, 1.0])
def test_a_map_comes_back_as_it_was_and_masks_are_united(make: Callable[..., Any], p: float) -> None:
    image, saliency, mask = _inputs()
    given_map, mask[:, :, 3] = saliency.clone(), 1
    swap = make(guide="saliency", p=p)
    augment = AugmentationSequential(swap, data_keys=["input", "mask", "mask"])
    out, same, united = augment(image, saliency, mask)
    assert (same == given_map).all()
    assert (saliency == given_map).all()
    changed = _changed(image, out)
    assert (changed.flatten(1).any(1) == (swap._params["batch_prob"] > 0.5)).all()
    assert ((united == 1) == (changed | (mask == 1))).all()
    again = augment(image, saliency, mask, params=augment._params)
    torch.testing.assert_close(again, [out, same, united], rtol=0, atol=0)


@both
def test_a_replay_knows_the_map_by_its_place(make: Callable[..., Any]) -> None:
    image, saliency, mask = _inputs()
    augment = AugmentationSequential(make(guide="saliency"), data_keys=["input", "mask", "mask"])
    expected = augment(image, saliency, mask)
    again = augment(image, saliency.clone(), mask, params=augment._params)
    torch.testing.assert_close(again, expected, rtol=0, atol=0)


@both
def test_one_tensor_as_map_and_mask(make: Callable[..., Any]) -> None:
    image, _, _ = _inputs()
    blob = torch.zeros(3, 1, 32, 40)
    blob[..., 5:15, 10:30] = 1
    augment = AugmentationSequential(make(guide="saliency"), data_keys=["input", "mask", "mask"])
    out, same, united = augment(image, blob, blob)
    assert (same == blob).all()
    assert ((united == 1) == (_changed(image, out) | (blob == 1))).all()


@both
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_map_in_a_dictionary(make: Callable[..., Any], dtype: torch.dtype) -> None:
    image, saliency, mask = _inputs()
    augment = AugmentationSequential(make(guide="saliency"), data_keys=None)
    out = augment({"image": image, "mask_saliency": saliency.to(dtype), "mask": mask})
    assert set(out) == {"image", "mask_saliency", "mask"}
    assert (out["mask_saliency"] == saliency.to(dtype)).all()
    assert ((out["mask"] == 1) == _changed(image, out["image"])).all()


@both
def test_a_map_goes_through_what_is_before(make: Callable[..., Any]) -> None:
    image, saliency, mask = _inputs()
    # the left third alone is salient; once flipped, the right one
    saliency = (torch.arange(40) < 13).float().expand_as(saliency).contiguous()
    swap = make(guide="saliency")
    augment = AugmentationSequential(RandomHorizontalFlip(p=1.0), swap, data_keys=["input", "mask", "mask"])
    out, flipped, united = augment(image, saliency, mask)
    assert (flipped == saliency.flip(3)).all()
    assert ((united == 1) == _changed(image.flip(3), out)).all()
    for place in ("source", "target"):
        begins = torch.minimum(torch.tensor(27), 40 - swap._params["widths"])
        assert (swap._params[f"{place}_xs"] >= begins).all()


@both
def test_a_map_in_a_container_is_a_map_as_an_argument(make: Callable[..., Any]) -> None:
    image, saliency, _ = _inputs()
    augment = AugmentationSequential(make(guide="saliency"), data_keys=["input", "mask"])
    torch.manual_seed(1)
    out, _ = augment(image, saliency)
    torch.manual_seed(1)
    assert (out == make()(image, saliency=saliency)).all()


@both
def test_keypoints_are_anchors(make: Callable[..., Any]) -> None:
    image, _, mask = _inputs()
    points = torch.tensor([[4.0, 20.0], [30.0, 1.0], [5.0, 5.0]]).repeat(3, 1, 1)
    swap = make(guide="anchors")
    augment = AugmentationSequential(RandomHorizontalFlip(p=1.0), swap, data_keys=["input", "mask", "keypoints"])
    out, changed, moved = augment(image, mask, points)
    flipped = points.clone()
    flipped[..., 0] = 39 - flipped[..., 0]
    assert (moved == flipped).all()
    assert ((changed == 1) == _changed(image.flip(3), out)).all()
    params = swap._params
    assert (params["source_ys"] == torch.minimum(torch.tensor(20), 32 - params["heights"])).all()
    assert (params["source_xs"] == torch.minimum(torch.tensor(35), 40 - params["widths"])).all()


@both
def test_a_missing_companion_is_missed(make: Callable[..., Any]) -> None:
    image, saliency, _ = _inputs()
    with pytest.raises(ValueError, match="guide='saliency' takes a 'mask' among data_keys"):
        AugmentationSequential(make(guide="saliency"), data_keys=["input"])(image)
    with pytest.raises(ValueError, match="guide='anchors' takes a 'keypoints' among data_keys"):
        AugmentationSequential(make(guide="anchors"), data_keys=["input", "mask"])(image, saliency)


@both
def test_wrong_companions_are_refused(make: Callable[..., Any]) -> None:
    image, saliency, _ = _inputs()
    for wrong in (saliency[..., :-1], saliency[:2], saliency.transpose(2, 3), saliency.expand(3, 2, 32, 40)):
        with pytest.raises(ValueError, match="One saliency map of an image's own size"):
            make()(image, saliency=wrong)
    for value in (torch.nan, torch.inf):
        broken = saliency.clone()
        broken[1, 0, 4, 4] = value
        with pytest.raises(RuntimeError, match="finite"):
            make()(image, saliency=broken)
    with pytest.raises(TypeError, match="floating"):
        make()(image, saliency=(255 * saliency).byte())
    for shape in ((3, 2), (2, 2, 2), (3, 1, 2), (3, 2, 3)):
        with pytest.raises(ValueError, match="Anchors are columns and rows"):
            make()(image, anchors=torch.zeros(shape))


@both
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clusters": 0}, "`clusters` is 1 or more"),
        ({"top": 1}, "`top` 2 pixels or more"),
        ({"cluster": "middle"}, "`cluster` is one of"),
        ({"guide": "mask"}, "`guide`.* one of"),
    ],
)
def test_impossible_arguments_are_refused(make: Callable[..., Any], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**arguments)
