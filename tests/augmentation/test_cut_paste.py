"""CutPaste against a slice that is assigned, image by image."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from anomalib_spd.augmentation import RandomCutPaste
from anomalib_spd.augmentation.color_jitter import jitter_colors

NO_JITTER = (0.0, 0.0, 0.0, 0.0)


def _by_slices(images: Tensor, params: dict[str, Tensor], jitter: bool) -> Tensor:
    out = images.clone()
    names = ("heights", "widths", "source_ys", "source_xs", "target_ys", "target_xs")
    for index, (height, width, sy, sx, ty, tx) in enumerate(zip(*(params[n].tolist() for n in names), strict=True)):
        patch = images[index : index + 1, :, sy : sy + height, sx : sx + width].clone()
        if jitter:
            flat = patch.flatten(2)
            change = params["jitter"][index : index + 1]
            patch = jitter_colors(flat, change, flat.mean(2, keepdim=True)).view_as(patch)
        out[index : index + 1, :, ty : ty + height, tx : tx + width] = patch
    return out


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(8, 80),
    width=st.integers(8, 80),
    channels=st.integers(1, 4),
    scale=st.sampled_from([(0.001, 0.01), (0.02, 0.15), (0.001, 1.0)]),
    ratio=st.sampled_from([(0.3, 1 / 0.3), (0.02, 50.0), (1.0, 1.0)]),
    seed=st.integers(0, 2**31),
)
def test_equals_slices_bit_for_bit(
    height: int, width: int, channels: int, scale: tuple[float, float], ratio: tuple[float, float], seed: int
) -> None:
    torch.manual_seed(seed)
    image, cut_paste = torch.rand(4, channels, height, width), RandomCutPaste(scale, ratio, NO_JITTER)
    out = cut_paste(image)
    assert (out == _by_slices(image, cut_paste._params, jitter=False)).all()


@pytest.mark.parametrize("size", [(64, 96), (33, 20), (8, 8), (5, 40)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("jitter", [(0.1, 0.1, 0.1, 0.1), (0.0, 1.0, 0.0, 0.0), (0.5, 0.5, 0.5, 0.5)])
def test_equals_jittered_slices(size: tuple[int, int], channels: int, jitter: Any) -> None:
    torch.manual_seed(0)
    image = torch.rand(8, channels, *size, dtype=torch.float64)
    cut_paste = RandomCutPaste(scale=(0.01, 0.5), jitter=jitter)
    out = cut_paste(image)
    expected = _by_slices(image, cut_paste._params, jitter=True)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)


def test_any_one_strength_jitters() -> None:
    torch.manual_seed(0)
    image = torch.rand(2, 3, 32, 32)
    plain = RandomCutPaste(jitter=NO_JITTER)
    plain(image)
    for position in range(4):
        jitter = [0.0] * 4
        jitter[position] = 0.3
        cut_paste = RandomCutPaste(jitter=tuple(jitter))  # type: ignore[arg-type]
        out = cut_paste(image)
        assert (out - _by_slices(image, cut_paste._params, jitter=False)).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": (0.5, 2)}, "`scale`"),
        ({"scale": (0.2, 0.1)}, "`scale`"),
        ({"ratio": (0, 1)}, "`ratio`"),
        ({"jitter": (3, 0, 0, 0)}, "`jitter`"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RandomCutPaste(**arguments)
