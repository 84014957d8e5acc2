"""What both forms of CutSwap take from a container."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from kornia.augmentation import AugmentationSequential, ImageSequential, RandomHorizontalFlip
from torch import Tensor

from anomalib_spd.augmentation import RandomCutSwap, RandomCutSwapScar

both = pytest.mark.parametrize("make", [RandomCutSwap, RandomCutSwapScar])


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
def test_a_replay_takes_another_copy_of_the_map(make: Callable[..., Any]) -> None:
    image, saliency, mask = _inputs()
    augment = AugmentationSequential(make(guide="saliency"), data_keys=["input", "mask", "mask"])
    expected = augment(image, saliency, mask)
    again = augment(image, saliency.clone(), mask, params=augment._params)
    torch.testing.assert_close(again, expected, rtol=0, atol=0)


@both
@pytest.mark.parametrize("p", [0.5, 1.0])
def test_one_tensor_as_map_and_masks(make: Callable[..., Any], p: float) -> None:
    image, _, _ = _inputs()
    # patches hold pixels that are not set
    blob = (torch.rand(3, 1, 32, 40) > 0.7).float()
    augment = AugmentationSequential(make(guide="saliency", p=p), data_keys=["input", "mask", "mask", "mask"])
    for _ in range(3):
        out, same, *united = augment(image, blob, blob, blob)
        changed = _changed(image, out)
        assert (same == blob).all()
        assert all(((each == 1) == (changed | (blob == 1))).all() for each in united)
        assert any((each != blob).any() for each in united)
    again = augment(image, blob.clone(), blob, blob, params=augment._params)
    torch.testing.assert_close(again, [out, same, *united], rtol=0, atol=0)


@both
@pytest.mark.parametrize("guide", ["saliency", "anchors"])
def test_a_guide_that_does_not_arrive_is_missed(make: Callable[..., Any], guide: str) -> None:
    image, saliency, mask = _inputs()
    with pytest.raises(ValueError, match=f"guide='{guide}' takes what guides it from"):
        make(guide=guide)(image)
    # Kornia asks the children of an inner container for nothing
    nested = AugmentationSequential(ImageSequential(make(guide=guide)), data_keys=["input", "mask", "mask"])
    with pytest.raises(ValueError, match=f"guide='{guide}' takes what guides it from"):
        nested(image, saliency, mask)


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
def test_a_map_in_a_container_compiles_as_one_graph(make: Callable[..., Any]) -> None:
    torch._dynamo.reset()
    image, saliency, mask = _inputs()
    augment = AugmentationSequential(make(guide="saliency"), data_keys=["input", "mask", "mask"])
    out, same, united = torch.compile(augment, fullgraph=True, backend="eager")(image, saliency, mask)
    assert (same == saliency).all()
    assert ((united == 1) == _changed(image, out)).all()


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


@both
@pytest.mark.parametrize("size", [(32, 40), (96, 64)])
def test_a_relocated_swap_has_the_size_and_the_distance_of_the_guided_one(
    make: Callable[..., Any], size: tuple[int, int]
) -> None:
    batch = 64
    images = torch.rand(batch, 3, *size)
    saliency = torch.zeros(batch, *size)
    saliency[:, 4:20, 4:24] = torch.rand(batch, 16, 20)
    guided, moved = make(), make(relocate=True)
    torch.manual_seed(0)
    guided(images, saliency=saliency)
    torch.manual_seed(0)
    out = moved(images, saliency=saliency)
    names = ("heights", "widths")
    assert all((guided._params[name] == moved._params[name]).all() for name in names)
    for axis, side, limit in (("y", "heights", size[0]), ("x", "widths", size[1])):
        before, after = (
            torch.stack([each._params[f"{name}_{axis}s"] for name in ("source", "target")]) for each in (guided, moved)
        )
        assert (before.diff(dim=0) == after.diff(dim=0)).all()
        assert (after >= 0).all()
        assert (after + moved._params[side] <= limit).all()
        # over the whole image, where the map is in one corner
        assert after.max() > before.max()
        assert after.min() <= before.min()
    for here, there in zip(guided.last_swaps(), moved.last_swaps(), strict=True):
        torch.testing.assert_close(here, there)
    torch.testing.assert_close(moved(images, saliency=saliency, params=moved._params), out, rtol=0, atol=0)


@both
@pytest.mark.parametrize("p", [0.5, 1.0])
def test_last_swaps_are_what_was_changed(make: Callable[..., Any], p: float) -> None:
    images = torch.rand(16, 3, 48, 64)
    swap = make(p=p)
    with pytest.raises(RuntimeError, match="swapped nothing yet"):
        swap.last_swaps()
    masks = torch.zeros(16, 1, 48, 64)
    out, united = AugmentationSequential(swap, data_keys=["input", "mask"])(images, masks)
    area, distance = swap.last_swaps()
    changed = united.sum((1, 2, 3))[united.flatten(1).any(1)]
    assert len(area) == len(changed) > 0
    # both patches, which of scars may cover a little more or less of the pixels
    torch.testing.assert_close(area * 2 * 48 * 64, changed, rtol=0.3 if make is RandomCutSwapScar else 1e-5, atol=2)
    assert ((distance > 0) & (distance < 1)).all()
    assert (_changed(images, out) <= (united == 1)).all()
