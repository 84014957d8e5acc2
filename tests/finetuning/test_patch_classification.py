"""What a fine-tuning compares, what it makes of it, and that no map is computed where none is looked at."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from anomalib_spd.backbones.normalization import IMAGENET_MEAN, IMAGENET_STD
from anomalib_spd.finetuning import PatchClassification
from anomalib_spd.saliency import LayerCAM
from tests.finetuning.spots import SIDE, near, take_for_salient

SCALE = (0.02, 0.03)
# the longest side of a patch of that scale, pixels, and of the square that a scar turns in, which is smaller
REACH = math.ceil((SCALE[1] / 0.3) ** 0.5 * SIDE)
# the first pixels of two spots of 3 x 3, of each level's map
SPOTS = [((2, 2), (38, 36)), ((4, 34), (36, 6)), ((30, 20), (2, 40))]


def small(**settings: Any) -> Any:
    """An untrained model; no network is loaded to look for salience, unless it is asked for."""
    torch.manual_seed(0)
    settings = {"backbone": "test_efficientnet", "pretrained": False, "clusters": 1, "scale": SCALE, **settings}
    return PatchClassification(**settings)


def seeing(**settings: Any) -> tuple[Any, list[Tensor]]:
    """A model that takes the spots for salient; and what it looked at."""
    model = small(**settings)
    return model, take_for_salient(model, model.local_augmentations, SPOTS)


def changed(positive: Tensor, negative: Tensor) -> Tensor:
    """Which pixels differ, bool ``(B, H, W)``."""
    return (positive != negative).any(1)


def noise(batch: int = 4, side: int = SIDE) -> Tensor:
    return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(1)) * 0.8 + 0.1


def colours(images: Tensor) -> list[list[list[float]]]:
    """Each image's pixels, sorted."""
    return [sorted(image.flatten(1).T.tolist()) for image in images]


def test_the_positive_differs_by_colour_alone() -> None:
    """Pixels of one colour have one colour afterwards, wherever they lie."""
    palette = torch.rand(6, 3)
    number = torch.randint(0, 6, (4, SIDE, SIDE))
    images = palette[number].movedim(-1, 1)
    positive = small().views(images)[0]
    assert positive.min() >= 0
    assert positive.max() <= 1
    for before, after, which in zip(images, positive, number, strict=True):
        assert not torch.equal(before, after)
        for each in range(6):
            of_one = after[:, which == each]
            assert torch.equal(of_one, of_one[:, :1].expand_as(of_one))
    # each image in colours of its own
    assert len({tuple(image[:, which == 0][:, 0].tolist()) for image, which in zip(positive, number, strict=True)}) == 4


@pytest.mark.parametrize("settings", [{"clusters": 1}, {"all_levels": True}])
def test_swaps_move_pixels_and_make_none(settings: dict[str, Any]) -> None:
    model = seeing(**settings)[0] if "all_levels" in settings else small(**settings)
    positive, *negatives = model.views(noise())
    levels = len(negatives) // 2
    for negative in negatives[:levels]:
        assert changed(positive, negative).flatten(1).any(1).all()
        assert colours(negative) == colours(positive)
    for scar in negatives[levels:]:
        assert changed(positive, scar).flatten(1).any(1).all()
        for before, after in zip(colours(positive), colours(scar), strict=True):
            assert set(map(tuple, after)) <= set(map(tuple, before))


def test_pasting_puts_one_box_of_the_asked_size_in_slightly_other_colours() -> None:
    positive, negative, scar = small(operation="paste", scale=(0.1, 0.15)).views(noise(16))
    for mask in changed(positive, negative):
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        area = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1) / SIDE**2
        assert 0.08 < area <= 0.15
        assert mask.sum() / SIDE**2 > 0.95 * area
    assert colours(negative) != colours(positive)
    shares = changed(positive, scar).float().mean((1, 2))
    assert shares.min() > 0
    assert shares.max() < 0.1


def test_every_level_gives_a_negative_where_its_own_map_is_salient() -> None:
    model, seen = seeing(all_levels=True)
    outside = 0
    for _ in range(5):
        positive, *negatives = model.views(noise(8))
        assert len(negatives) == 2 * len(SPOTS)
        for number, negative in enumerate(negatives):
            where = changed(positive, negative)
            level = number % len(SPOTS)
            assert where.flatten(1).any(1).all()
            assert not (where & ~near(SPOTS[level], REACH)).any()
            # what the others cover is not what this one does
            outside += int((where & ~near(SPOTS[(level + 1) % len(SPOTS)], REACH)).any())
    assert outside == 5 * 2 * len(SPOTS)
    assert len(seen) > 0


def test_without_a_map_patches_are_swapped_anywhere() -> None:
    positive, patch, scar = small().views(noise(64))
    for negative in (patch, scar):
        where = changed(positive, negative)
        assert all((where & ~near(SPOTS[level], REACH)).any() for level in range(len(SPOTS)))
        # each part of the image is reached
        assert where.view(64, 4, 16, 4, 16).any(4).any(2).any(0).all()


def test_each_image_draws_a_level_and_in_time_all_of_them() -> None:
    model, _ = seeing()
    drawn = torch.zeros(8, len(SPOTS), dtype=torch.bool)
    together = set()
    for _ in range(20):
        positive, *negatives = model.views(noise(8))
        assert len(negatives) == 2
        fits = torch.stack(
            [
                torch.stack(
                    [
                        ~(changed(positive, negative) & ~near(SPOTS[level], REACH)).flatten(1).any(1)
                        for negative in negatives
                    ]
                )
                for level in range(len(SPOTS))
            ]
        ).all(1)
        # patch and scar of an image are of one level
        assert fits.any(0).all()
        alone = fits.sum(0) == 1
        drawn |= fits.T & alone[:, None]
        together.add(len({int(level) for level in fits[:, alone].int().argmax(0)}))
    assert drawn.all()
    assert max(together) > 1


@pytest.mark.parametrize("all_levels", [False, True])
def test_the_map_is_that_of_the_image_before_its_colours_change(all_levels: bool) -> None:
    model, seen = seeing(all_levels=all_levels)
    images = noise()
    before = images.clone()
    model.views(images)
    looked_at = torch.cat(seen).double()
    mean, std = (torch.tensor(each).double()[:, None, None] for each in (IMAGENET_MEAN, IMAGENET_STD))
    torch.testing.assert_close(looked_at, (images.double() - mean) / std, atol=1e-6, rtol=0)
    assert torch.equal(images, before)


@pytest.mark.parametrize(("settings", "number"), [({"ways": 2}, 1), ({"ways": 3}, 2)])
@pytest.mark.parametrize("operation", ["swap", "paste"])
def test_two_ways_have_no_scars(settings: dict[str, Any], number: int, operation: str) -> None:
    model = small(operation=operation, **settings)
    assert model.head[-1].out_features == number + 1
    assert [view.shape for view in model.views(noise())] == [(4, 3, SIDE, SIDE)] * (number + 1)
    # the second view is a patch, larger than any scar
    positive, patch = model.views(noise(32))[:2]
    assert changed(positive, patch).float().mean() > (0.03 if operation == "swap" else 0.015)


@pytest.mark.parametrize("settings", [{"operation": "paste", "clusters": 4}, {"clusters": 1}])
def test_no_classifier_is_loaded_where_none_looks(settings: dict[str, Any], home: Path) -> None:
    model = small(classifier="there is none of that name", **settings)
    assert model.saliency is None
    model.views(noise())
    assert not (home / ".saliency").exists()


@pytest.mark.parametrize("settings", [{"clusters": 2}, {"clusters": 1, "top": 300}])
def test_elsewhere_one_is(settings: dict[str, Any], home: Path) -> None:
    with pytest.raises(RuntimeError, match="there is none of that name"):
        small(classifier="there is none of that name", **settings)
    model = small(classifier="small_b", **settings)
    model.views(noise())
    assert len(list((home / ".saliency").rglob("*.safetensors"))) == 4
    # neither trained nor kept
    assert {name.partition(".")[0] for name in model.state_dict()} == {"encoder", "head"}


def maps_of(model: Any, images: Tensor) -> Tensor:
    """The maps that guide a step of all levels."""
    maps: list[Tensor] = []

    def forward(positive: Tensor, saliency: Tensor) -> Tensor:
        maps.append(saliency)
        return positive

    model.local_augmentations[0].forward = forward
    model.views(images)
    return torch.stack(maps, 1)


def test_maps_are_the_classifiers_whatever_the_company_and_the_precision(home: Path, tmp_path: Path) -> None:
    """They are kept: what the first to ask computes, all others get."""

    def fresh(name: str) -> Any:
        settings = {"clusters": 4, "all_levels": True, "ways": 2, "saliency_cache": tmp_path / name}
        return small(classifier="small_b", **settings)

    images = noise(5)
    together = maps_of(fresh("together"), images)
    model = fresh("by parts")
    for part in ([3], [0, 4, 1]):
        maps_of(model, images[part])
    assert torch.equal(maps_of(model, images), together)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(maps_of(fresh("rounded"), images), together)

    cam = LayerCAM(model.saliency.cam.model, [f"blocks.{stage}" for stage in range(5)])
    torch.testing.assert_close(together, cam(model.normalize(images)), atol=1e-3, rtol=0)
    assert together.flatten(2).std(2).min() > 0.01


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"operation": "cut"}, "`operation` is one of .*Got 'cut'"),
        ({"batch_norm": "frozen"}, "`batch_norm` one of .*'frozen'"),
        ({"ways": 4}, "`ways` 2 or 3.*and 4"),
        ({"frozen_steps": -1}, "`frozen_steps` is a number of steps, 0 or more. Got -1"),
        ({"clusters": 0}, "`clusters` is 1 or more"),
        ({"top": 1}, "`top` 2 pixels or more"),
        ({"cluster": "middle"}, "`cluster` is one of .*'middle'"),
        ({"layers": ["blocks.9"]}, "EfficientNet has no layer 'blocks.9'. Near it: blocks"),
        ({"layers": []}, "`layers` is one name at least"),
        ({"scale": (0.3, 0.2)}, "scale"),
    ],
)
def test_arguments_that_are_refused(settings: dict[str, Any], message: str, home: Path) -> None:
    with pytest.raises(ValueError, match=message):
        small(**{"clusters": 4, "classifier": "small_b", **settings})
