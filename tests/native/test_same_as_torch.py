"""The extension does what torch does, of which the other tests show, in float64, that it is right."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeVar

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from anomalib_spd import native
from anomalib_spd.augmentation import RandomCutPaste, RandomCutSwap, RandomSmoothBlend
from anomalib_spd.augmentation.anchors import Choice, draw_from_region, draw_on_cpu, salient_region
from anomalib_spd.augmentation.swap_locations import swap_places
from anomalib_spd.native import calls

T = TypeVar("T")
NO_JITTER = (0.0, 0.0, 0.0, 0.0)
# colours are sums of products, in another order
TOLERANCE = 2e-6

TRANSFORMS: dict[str, Callable[[], Any]] = {
    "cut_paste": lambda: RandomCutPaste(scale=(0.001, 0.9)),
    "cut_paste, own colours": lambda: RandomCutPaste(scale=(0.001, 0.9), jitter=NO_JITTER),
    "cut_paste, wild colours": lambda: RandomCutPaste(jitter=(1.0, 1.0, 1.0, 0.5)),
    "cut_swap": lambda: RandomCutSwap(scale=(0.001, 0.25)),
    "smooth_blend": lambda: RandomSmoothBlend(scale=(0.005, 0.3), sigma=3.0),
    "smooth_blend, own colours": lambda: RandomSmoothBlend(jitter=NO_JITTER),
    "smooth_blend, literal": lambda: RandomSmoothBlend(scale=(0.005, 0.3), sigma=2.0, halo="literal"),
    "smooth_blend, masked": lambda: RandomSmoothBlend(scale=(0.005, 0.3), halo="masked"),
}
images = st.fixed_dictionaries(
    {
        "height": st.integers(1, 70),
        "width": st.integers(1, 70),
        "batch": st.integers(0, 3),
        "channels": st.sampled_from([1, 3]),
        "seed": st.integers(0, 2**31),
    }
)


def _both(function: Callable[[], T]) -> tuple[T, T]:
    """Return what the extension makes, and what torch makes."""
    assert native.serves(torch.rand(1))
    ours = function()
    with native.switched_off():
        return ours, function()


@pytest.mark.parametrize("make", TRANSFORMS.values(), ids=TRANSFORMS)
@settings(deadline=None, max_examples=60)
@given(case=images)
def test_transforms(make: Callable[[], Any], case: dict[str, int]) -> None:
    torch.manual_seed(case["seed"])
    image = torch.rand(case["batch"], case["channels"], case["height"], case["width"])
    kept, transform = image.clone(), make()
    params = transform.forward_parameters(image.shape)
    ours, theirs = _both(lambda: transform.apply_transform(image, params, transform.flags))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE)
    # a swap computes nothing
    if isinstance(transform, RandomCutSwap):
        assert (ours == theirs).all()
    assert (image == kept).all()


@pytest.mark.parametrize("make", TRANSFORMS.values(), ids=TRANSFORMS)
def test_outside_the_mask_nothing_changes(make: Callable[[], Any]) -> None:
    image, transform = torch.rand(8, 3, 50, 64), make()
    params = transform.forward_parameters(image.shape)
    mask = transform.apply_transform_mask(torch.zeros(8, 1, 50, 64), params, transform.flags)
    changed = transform.apply_transform(image, params, transform.flags) != image
    assert changed.any()
    assert not (changed & (mask == 0)).any()


@pytest.mark.parametrize("make", TRANSFORMS.values(), ids=TRANSFORMS)
def test_a_copy_by_many_threads(make: Callable[[], Any]) -> None:
    image, transform = torch.rand(4, 3, 50, 64), make()
    params, threads = transform.forward_parameters(image.shape), torch.get_num_threads()
    by_few = transform.apply_transform(image, params, transform.flags)
    torch.set_num_threads(8)
    try:
        by_many = transform.apply_transform(image, params, transform.flags)
    finally:
        torch.set_num_threads(threads)
    assert (by_few == by_many).all()


@pytest.mark.parametrize("make", [RandomCutPaste, RandomCutSwap, RandomSmoothBlend])
@pytest.mark.parametrize(
    ("name", "value"),
    [("target_ys", -1), ("target_xs", 64), ("source_ys", 64), ("source_xs", -1), ("heights", 65), ("widths", 0)],
)
def test_parameters_beyond_the_image_are_refused(make: Callable[[], Any], name: str, value: int) -> None:
    image, transform = torch.rand(2, 3, 64, 64), make()
    params = transform.forward_parameters(image.shape)
    params[name] = torch.tensor([value, int(params[name][1])])
    with pytest.raises(ValueError, match=r"leave their images of 64 x 64 pixels: 1 of 2"):
        transform.apply_transform(image, params, transform.flags)


@pytest.mark.parametrize("channels", [2, 5])
def test_any_number_of_channels_without_jitter(channels: int) -> None:
    image, transform = torch.rand(3, channels, 20, 30), RandomCutPaste(jitter=NO_JITTER)
    params = transform.forward_parameters(image.shape)
    ours, theirs = _both(lambda: transform.apply_transform(image, params, transform.flags))
    assert (ours == theirs).all()
    with pytest.raises(ValueError, match="1 or 3 channels"):
        RandomCutPaste()(image)


@settings(deadline=None, max_examples=300)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    batch=st.integers(0, 4),
    tries=st.integers(1, 6),
    seed=st.integers(0, 2**31),
)
def test_places(height: int, width: int, batch: int, tries: int, seed: int) -> None:
    torch.manual_seed(seed)
    anchors = torch.stack([torch.randint(limit, (batch, tries + 1)) for limit in (height, width)], 2)
    # as many patches as there may be overlap
    heights, widths = (torch.randint(1, limit + 1, (batch,)) for limit in (height, width))
    ours, theirs = _both(lambda: swap_places(anchors, heights, widths, (height, width)))
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        assert (ours[name] == expected).all(), name
        assert ours[name].shape == expected.shape
        assert ours[name].dtype == torch.int64


def _smooth(height: int, width: int) -> Tensor:
    maps = F.interpolate(torch.rand(3, 1, 4, 4) ** 3, size=(height, width), mode="bilinear")
    return maps[:, 0].contiguous()


MAPS: dict[str, Callable[[int, int], Tensor]] = {
    "noise": lambda height, width: torch.randn(3, height, width) * 100,
    "smooth": _smooth,
    "few values": lambda height, width: (torch.rand(3, height, width) * 3).round(),
    "flat": lambda height, width: torch.full((3, height, width), 0.3),
    "one pixel": lambda height, width: (
        F.one_hot(torch.tensor([0, 1, 5]), height * width).float().view(3, height, width)
    ),
}


@pytest.mark.parametrize("make", MAPS.values(), ids=MAPS)
@pytest.mark.parametrize("choice", ["max", "min", "random"])
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(height=st.integers(2, 300), width=st.integers(3, 300), clusters=st.integers(1, 6), seed=st.integers(0, 2**31))
def test_salient_pixels(
    make: Callable[[int, int], Tensor], choice: Choice, height: int, width: int, clusters: int, seed: int
) -> None:
    torch.manual_seed(seed)
    maps, cluster_draw, draws = make(height, width), torch.rand(3), torch.rand(3, 9, 2)
    pixels, ours = draw_on_cpu(maps, clusters, choice, cluster_draw, draws)
    theirs = salient_region(maps, clusters, choice, cluster_draw)
    up_to = torch.full_like(ours.above, torch.inf) if theirs.up_to is None else theirs.up_to.float()
    # the best clusterings may be next to equal, and torch looks at nearly all of them: then others are chosen
    alike = (ours.above == theirs.above.float()) & (ours.up_to == up_to)
    expected = draw_from_region(maps, theirs, draws)
    assert (pixels == expected)[alike].all()
    values = maps[torch.arange(3)[:, None], pixels[..., 0], pixels[..., 1]]
    assert ((values > ours.above[:, None]) & (values <= ours.up_to[:, None])).all()


def test_the_regions_are_nearly_always_alike() -> None:
    torch.manual_seed(0)
    maps = torch.cat([_smooth(256, 256) for _ in range(40)])
    cluster_draw, draws = torch.rand(len(maps)), torch.rand(len(maps), 2, 2)
    ours = draw_on_cpu(maps, 4, "max", cluster_draw, draws)[1]
    alike = ours.above == salient_region(maps, 4, "max", cluster_draw).above.float()
    assert alike.float().mean() > 0.95


@pytest.mark.parametrize("clusters", [2, 3, 4, 6])
def test_the_clusters_are_the_best_there_are(clusters: int) -> None:
    """Of few values every clustering can be tried."""
    torch.manual_seed(0)
    levels = torch.rand(9).sort().values
    counts = torch.randint(1, 9, (9,))
    row = levels.repeat_interleave(counts)
    region = draw_on_cpu(row[None, None].contiguous(), clusters, "max", torch.rand(1), torch.rand(1, 2, 2))[1]

    def inertia(edges: tuple[int, ...]) -> float:
        parts = [row[(row >= levels[a]) & (row <= levels[b - 1])] for a, b in pairwise(edges)]
        return sum(float(((part.double() - part.double().mean()) ** 2).sum()) for part in parts)

    candidates = [(0, *inner.tolist(), 9) for inner in torch.combinations(torch.arange(1, 9), clusters - 1)]
    best = min(candidates, key=inertia)
    # the level below the highest cluster is out, its first is in
    assert levels[best[-2] - 1] <= region.above[0] < levels[best[-2]]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", [(0, 0), (1, 1), (299, 199), (150, 7)])
def test_what_is_not_finite_is_refused_wherever_it_is(value: float, place: tuple[int, int]) -> None:
    maps = torch.rand(2, 300, 200)
    maps[(1, *place)] = value
    with pytest.raises(RuntimeError, match="finite"):
        draw_on_cpu(maps, 4, "max", torch.rand(2), torch.rand(2, 3, 2))


def test_values_too_far_apart_are_refused() -> None:
    maps = torch.tensor([[[3e38, -3e38, 0.0]]])
    with pytest.raises(RuntimeError, match="finite"):
        draw_on_cpu(maps, 2, "max", torch.rand(1), torch.rand(1, 3, 2))


def test_the_transform_uses_it() -> None:
    image, maps = torch.rand(4, 3, 64, 64), _smooth(64, 64)[:1].expand(4, 1, 64, 64).contiguous()
    calls_made: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        original = calls._function
        patch.setattr(calls, "_function", lambda name: calls_made.append(name) or original(name))
        RandomCutSwap()(image, saliency=maps)
        RandomCutPaste()(image)
        RandomSmoothBlend()(image)
    assert calls_made == [
        "place_swaps",
        "draw_salient",
        "place_swaps",
        "swap_patches",
        "paste_patches",
        "blend_patches",
    ]
    assert native.serves(image)
