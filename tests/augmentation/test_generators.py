"""Parameters lie within their documented ranges and follow their documented distributions."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kornia.augmentation.random_generator import RandomGeneratorBase
from scipy import stats
from torch import Tensor

from anomalib_spd.augmentation.generators import (
    BoxGenerator,
    PasteGenerator,
    ScarGenerator,
    SwapGenerator,
)

# so large that rounding to pixels does not show
SIDE = 20_000
DRAWS = 2000
DEGREES = (-30.0, 60.0)
NO_JITTER = (0.0, 0.0, 0.0, 0.0)


def _box() -> BoxGenerator:
    return BoxGenerator((0.005, 0.01), (0.3, 3.0))


def _scar() -> ScarGenerator:
    return ScarGenerator((0.01, 0.05), (0.05, 0.2), DEGREES)


EVERY: dict[str, Callable[[], Any]] = {
    "box": _box,
    "scar": _scar,
    "two boxes": lambda: PasteGenerator(_box(), NO_JITTER),
    "two scars": lambda: PasteGenerator(_scar(), NO_JITTER),
    "jittered": lambda: PasteGenerator(_box(), (0.1, 0.2, 0.3, 0.05)),
    "swap": lambda: SwapGenerator(_scar()),
}
every = pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)


def _is_uniform(draws: Tensor, low: float = 0.0, high: float = 1.0) -> bool:
    return bool(stats.kstest(((draws.double() - low) / (high - low)).numpy(), "uniform").pvalue > 0.01)


def _bounds(least: float, most: float) -> st.SearchStrategy[tuple[float, float]]:
    """Ranges within ``[least, most]``."""
    ends = st.floats(math.log(least), math.log(most)).map(math.exp)
    return st.tuples(ends, ends).map(lambda pair: (max(least, min(pair)), min(most, max(pair))))


def _assert_within_largest(generator: Any, height: int, width: int, batch: int = 256) -> dict[str, Tensor]:
    params: dict[str, Tensor] = generator((batch, 3, height, width))
    tallest, widest, area = generator.largest(height, width)
    assert tallest <= height
    assert widest <= width
    assert params["heights"].dtype == params["widths"].dtype == torch.int64
    assert params["heights"].shape == params["widths"].shape == (batch,)
    assert params["heights"].min() >= 1
    assert params["widths"].min() >= 1
    assert params["heights"].max() <= tallest
    assert params["widths"].max() <= widest
    assert (params["heights"] * params["widths"]).max() <= area
    return params


@settings(deadline=None, max_examples=200)
@example(height=20, width=20, scale=(0.005, 0.005), ratio=(200.0, 200.0), seed=0)
@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    scale=_bounds(1e-4, 1.0),
    ratio=_bounds(0.01, 100.0),
    seed=st.integers(0, 2**31),
)
def test_boxes_are_no_larger_than_the_largest(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float], seed: int
) -> None:
    torch.manual_seed(seed)
    _assert_within_largest(BoxGenerator(scale, ratio), height, width)


@settings(deadline=None, max_examples=100)
@given(
    height=st.integers(2, 400),
    width=st.integers(2, 400),
    share=_bounds(1e-3, 0.25),
    length=_bounds(1e-3, 0.25),
    seed=st.integers(0, 2**31),
)
def test_squares_of_scars_are_no_larger_than_the_largest_and_hold_them(
    height: int, width: int, share: tuple[float, float], length: tuple[float, float], seed: int
) -> None:
    torch.manual_seed(seed)
    params = _assert_within_largest(ScarGenerator(share, length, (-180, 180)), height, width)
    assert (params["heights"] == params["widths"]).all()
    diagonal = torch.hypot(params["scar_widths"], params["scar_lengths"])
    assert (params["heights"] >= diagonal.clamp(max=min(height, width)) - 1e-3).all()


@settings(deadline=None, max_examples=60)
@given(height=st.integers(4, 300), width=st.integers(4, 300), seed=st.integers(0, 2**31), scar=st.booleans())
def test_both_locations_lie_inside_the_image(height: int, width: int, seed: int, scar: bool) -> None:
    torch.manual_seed(seed)
    size = ScarGenerator((0.01, 0.25), (0.01, 0.25), DEGREES) if scar else BoxGenerator((0.005, 1.0), (0.1, 10.0))
    params = PasteGenerator(size, NO_JITTER)((64, 3, height, width))
    for place in ("source", "target"):
        for axis, side, limit in (("ys", "heights", height), ("xs", "widths", width)):
            first = params[f"{place}_{axis}"]
            assert first.dtype == torch.int64
            assert first.min() >= 0
            assert (first + params[side]).max() <= limit


def test_areas_aspects_and_locations_are_distributed_as_documented() -> None:
    torch.manual_seed(0)
    params = PasteGenerator(_box(), NO_JITTER)((DRAWS, 3, SIDE, 2 * SIDE))
    heights, widths = params["heights"].double(), params["widths"].double()
    assert _is_uniform(heights * widths / (2 * SIDE**2), 0.005, 0.01)
    assert _is_uniform((widths / heights).log(), math.log(0.3), math.log(3.0))
    locations = {
        f"{place}_{axis}": params[f"{place}_{axis}"] / (limit - side)
        for place in ("source", "target")
        for axis, limit, side in (("ys", SIDE, heights), ("xs", 2 * SIDE, widths))
    }
    for name, place in locations.items():
        assert _is_uniform(place), name
    # independent of one another
    correlation = torch.corrcoef(torch.stack([*locations.values(), heights * widths, widths / heights]))
    assert (correlation - torch.eye(6)).abs().max() < 4 / DRAWS**0.5


@pytest.mark.parametrize("axis", ["ys", "xs"])
def test_first_and_last_location_are_as_likely_as_others(axis: str) -> None:
    torch.manual_seed(0)
    # a pixel on an image of 6 by 6
    params = PasteGenerator(BoxGenerator((1e-6, 1e-6), (1.0, 1.0)), NO_JITTER)((6000, 3, 6, 6))
    for place in ("source", "target"):
        assert stats.chisquare(params[f"{place}_{axis}"].bincount(minlength=6).numpy()).pvalue > 0.01


def test_scars_are_distributed_as_documented() -> None:
    torch.manual_seed(0)
    params = _scar()((DRAWS, 3, SIDE, 2 * SIDE))
    assert _is_uniform(params["scar_widths"] / SIDE, 0.01, 0.05)
    assert _is_uniform(params["scar_lengths"] / SIDE, 0.05, 0.2)
    assert params["angles"].shape == (DRAWS, 2)
    for angles in params["angles"].T:
        assert _is_uniform(angles, *DEGREES)
    assert params["angles"].T.corrcoef()[0, 1].abs() < 4 / DRAWS**0.5


def test_jitter_is_distributed_around_no_change() -> None:
    torch.manual_seed(0)
    jitter = EVERY["jittered"]()((DRAWS, 3, 64, 64))["jitter"]
    assert jitter.shape == (DRAWS, 4)
    for column, (center, strength) in zip(jitter.T, [(1, 0.1), (1, 0.2), (1, 0.3), (0, 0.05)], strict=True):
        assert _is_uniform(column, center - strength, center + strength)


def test_anchors_and_clusters_are_sampled_uniformly() -> None:
    torch.manual_seed(0)
    params = SwapGenerator(_box(), tries=5)((DRAWS, 3, SIDE, 2 * SIDE))
    assert params["anchor_draws"].shape == (DRAWS, 6, 2)
    assert all(_is_uniform(draws) for draws in params["anchor_draws"].flatten(1).T)
    assert _is_uniform(params["cluster_draw"])
    # columns and rows; the second is preferred where it does not overlap the first
    (xs, ys), (_, _) = params["anchors"].permute(1, 2, 0)
    assert _is_uniform(xs / (2 * SIDE))
    assert _is_uniform(ys / SIDE)
    assert (params["source_ys"] == torch.minimum(ys, SIDE - params["heights"])).all()
    assert (params["source_xs"] == torch.minimum(xs, 2 * SIDE - params["widths"])).all()


def test_patches_shrink_only_for_lack_of_room() -> None:
    torch.manual_seed(0)
    params = SwapGenerator(BoxGenerator((0.2, 0.25), (0.5, 2.0)), tries=1)((DRAWS, 3, 60, 60))
    fits = params["heights"] == params["full_heights"]
    assert (params["heights"] <= params["full_heights"]).all()
    assert (params["widths"] <= params["full_widths"]).all()
    assert 0.05 < fits.float().mean() < 0.95
    with pytest.raises(ValueError, match=r"up to a quarter.*`scale`"):
        SwapGenerator(BoxGenerator((0.1, 0.3), (0.5, 2.0)))


@every
def test_same_on_batch_samples_once(make: Callable[[], Any]) -> None:
    once, each = make()((6, 3, 200, 100), same_on_batch=True), make()((6, 3, 200, 100), same_on_batch=False)
    for key, value in once.items():
        assert value.shape == each[key].shape
        assert (value == value[:1]).all()
    assert any((value != value[:1]).any() for value in each.values())


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_device_and_dtype_reach_every_part(make: Callable[[], Any], dtype: torch.dtype) -> None:
    generator = make()
    generator.set_rng_device_and_dtype(torch.device("meta"), dtype)
    assert all(part.dtype == dtype for part in generator.modules() if isinstance(part, RandomGeneratorBase))
    values = generator((4, 3, 64, 64)).values()
    assert {value.device.type for value in values} == {"meta"}
    # half precision cannot represent all locations
    assert {v.dtype for v in values} <= {torch.int64, torch.promote_types(dtype, torch.float32)}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_draws_do_not_coarsen_with_the_dtype(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    generator = EVERY["jittered"]()
    generator.set_rng_device_and_dtype(torch.device("cpu"), dtype)
    params = generator((DRAWS, 3, 4096, 4096))
    # bfloat16 represents 256 locations at the most
    for key in ("source_ys", "source_xs", "target_ys", "target_xs"):
        assert len(params[key].unique()) > DRAWS // 2
    assert len(params["jitter"][:, 0].unique()) > DRAWS // 2


@every
def test_repr_shows_the_ranges(make: Callable[[], Any]) -> None:
    generator = make()
    inner = next(part for part in generator.modules() if isinstance(part, (BoxGenerator, ScarGenerator)))
    for name in ("scale", "ratio") if isinstance(inner, BoxGenerator) else ("width", "length", "degrees"):
        assert f"{name}={getattr(inner, name)}" in repr(generator)


@pytest.mark.parametrize("scale", [(0.0, 0.1), (0.2, 0.1), (0.5, 1.1), (0.1,), (math.nan, 0.1)])
def test_impossible_areas_are_refused(scale: Any) -> None:
    with pytest.raises(ValueError, match=r"`scale` is a range of shares.*Got"):
        BoxGenerator(scale, (0.3, 3.0))


@pytest.mark.parametrize("ratio", [(0.0, 1.0), (2.0, 1.0), (1.0, math.inf), (1.0, math.nan)])
def test_impossible_aspects_are_refused(ratio: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"`ratio` is a range of positive.*Got"):
        BoxGenerator((0.1, 0.2), ratio)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("width", "length") for value in [(0.0, 0.1), (0.2, 0.1), (0.1, 0.26)]),
        *(("degrees", value) for value in [(10.0, -10.0), (-181.0, 0.0), (0.0, 181.0), (0.0,)]),
    ],
)
def test_impossible_scars_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"`{name}` is a range.*Got"):
        ScarGenerator(**({"width": (0.1, 0.2), "length": (0.1, 0.2), "degrees": DEGREES} | {name: value}))


@pytest.mark.parametrize("jitter", [(0.1, 0.1, 0.1), (-0.1, 0, 0, 0), (0, 2, 0, 0), (0, 0, 0, 0.6)])
def test_impossible_jitter_is_refused(jitter: Any) -> None:
    with pytest.raises(ValueError, match=r"`jitter` is brightness.*Got"):
        PasteGenerator(_box(), jitter)
