"""What is drawn lies where it is said to lie, and is spread as it is said to be spread."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from anomalib_spd.augmentation.generators import JitteredPatchGenerator, PatchPairGenerator


@given(height=st.integers(8, 300), width=st.integers(8, 300), seed=st.integers(0, 2**31), batch=st.integers(1, 5))
def test_both_places_lie_inside_the_image(height: int, width: int, seed: int, batch: int) -> None:
    torch.manual_seed(seed)
    generator = PatchPairGenerator((0.005, 0.5), (0.3, 3.0))
    params = generator((batch, 3, height, width))
    largest_height, largest_width = generator.largest_patch(height, width)
    assert all(value.shape == (batch,) and value.dtype == torch.int64 for value in params.values())
    assert (params["heights"] >= 1).all()
    assert (params["heights"] <= largest_height).all()
    assert (params["widths"] >= 1).all()
    assert (params["widths"] <= largest_width).all()
    for place in ("source", "target"):
        assert (params[f"{place}_ys"] >= 0).all()
        assert (params[f"{place}_ys"] + params["heights"] <= height).all()
        assert (params[f"{place}_xs"] >= 0).all()
        assert (params[f"{place}_xs"] + params["widths"] <= width).all()


def test_areas_aspects_and_places_are_spread_as_stated() -> None:
    torch.manual_seed(0)
    side = 20_000  # so large that rounding to pixels does not show
    scale, ratio = (0.005, 0.01), (0.3, 3.0)
    params = PatchPairGenerator(scale, ratio)((2000, 3, side, side))
    heights, widths = params["heights"].double(), params["widths"].double()
    draws = {
        "area": ((heights * widths / side**2 - scale[0]) / (scale[1] - scale[0])),
        "aspect": ((widths / heights).log() - math.log(ratio[0])) / math.log(ratio[1] / ratio[0]),
        "source": params["source_ys"] / (side - heights),
        "target": params["target_xs"] / (side - widths),
    }
    for name, draw in draws.items():
        assert stats.kstest(draw.numpy(), "uniform").pvalue > 0.01, name


def test_jitter_is_spread_around_no_change() -> None:
    torch.manual_seed(0)
    jitter = JitteredPatchGenerator((0.1, 0.2), (0.5, 2.0), (0.1, 0.2, 0.3, 0.05))((2000, 3, 64, 64))["jitter"]
    assert jitter.shape == (2000, 4)
    for column, (center, strength) in zip(jitter.T, [(1, 0.1), (1, 0.2), (1, 0.3), (0, 0.05)], strict=True):
        assert stats.kstest(((column - center) / strength + 1) / 2, "uniform").pvalue > 0.01


def test_same_on_batch_draws_once() -> None:
    params = JitteredPatchGenerator((0.01, 0.5), (0.3, 3.0), (0.1, 0.1, 0.1, 0.1))((6, 3, 200, 100), same_on_batch=True)
    for value in params.values():
        assert (value == value[:1]).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_draws_do_not_coarsen_with_the_dtype(dtype: torch.dtype) -> None:
    generator = PatchPairGenerator((0.001, 0.002), (0.5, 2.0))
    generator.set_rng_device_and_dtype(torch.device("cpu"), dtype)
    # bfloat16 could tell 256 places apart at the most
    assert len(generator((2000, 3, 4096, 4096))["source_ys"].unique()) > 1200


@pytest.mark.parametrize("scale", [(0.0, 0.1), (0.2, 0.1), (0.5, 1.1)])
def test_impossible_areas_are_refused(scale: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"`scale` is a range of shares.*Got"):
        PatchPairGenerator(scale, (0.3, 3.0))


@pytest.mark.parametrize("ratio", [(0.0, 1.0), (2.0, 1.0), (1.0, math.inf)])
def test_impossible_aspects_are_refused(ratio: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"`ratio` is a range of positive.*Got"):
        PatchPairGenerator((0.1, 0.2), ratio)


@pytest.mark.parametrize("jitter", [(0.1, 0.1, 0.1), (-0.1, 0, 0, 0), (0, 2, 0, 0), (0, 0, 0, 0.6)])
def test_impossible_jitter_is_refused(jitter: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"`jitter` is brightness.*Got"):
        JitteredPatchGenerator((0.1, 0.2), (0.3, 3.0), jitter)  # type: ignore[arg-type]
