"""Color jitter against four steps, one after the other, and against torchvision's where the two agree."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from anomalib_spd.augmentation import RandomCutPaste, RandomCutPasteScar, RandomSmoothBlend
from anomalib_spd.augmentation.color_jitter import jitter_colors

every_user = pytest.mark.parametrize("make", [RandomSmoothBlend, RandomCutPaste, RandomCutPasteScar])

LUMA = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)


def _factors(*values: tuple[float, float, float, float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _mean(patch: Tensor) -> Tensor:
    return patch.mean(2, keepdim=True)


def _luma(patch: Tensor) -> Tensor:
    return torch.einsum("c,bcn->bn", LUMA, patch)[:, None]


def _step_by_step(patch: Tensor, jitter: Tensor) -> Tensor:
    """Jitter (B, 3, N) in float64: brightness, contrast, saturation, hue; clamped at the end."""
    brightness, contrast, saturation, hue = jitter[:, :, None, None].unbind(1)
    patch = brightness * patch
    patch = contrast * patch + (1 - contrast) * _luma(patch).mean(2, keepdim=True)
    patch = saturation * patch + (1 - saturation) * _luma(patch)
    # NTSC's two axes of chroma, and back by solving for the three colors
    to_yiq = torch.stack(
        [LUMA, torch.tensor([0.5959, -0.2746, -0.3213]).double(), torch.tensor([0.2115, -0.5227, 0.3112]).double()]
    )
    y, i, q = torch.einsum("dc,bcn->dbn", to_yiq, patch)
    angle = 2 * math.pi * hue[:, 0]
    turned = torch.stack([y, angle.cos() * i + angle.sin() * q, angle.cos() * q - angle.sin() * i], 1)
    return torch.linalg.solve(to_yiq, turned).clamp(0, 1)


def test_equals_its_four_steps() -> None:
    torch.manual_seed(0)
    patch = torch.rand(64, 3, 50, dtype=torch.float64)
    jitter = _factors((1, 1, 1, 0)) + (2 * torch.rand(64, 4) - 1) * _factors((0.9, 0.9, 0.9, 0.5))
    # the axes above are rounded to float32
    torch.testing.assert_close(
        jitter_colors(patch, jitter, _mean(patch)), _step_by_step(patch, jitter), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_no_change_changes_nothing(channels: int) -> None:
    patch = torch.rand(2, channels, 30, dtype=torch.float64)
    same = jitter_colors(patch, _factors((1, 1, 1, 0)).expand(2, 4), _mean(patch))
    torch.testing.assert_close(same, patch, rtol=0, atol=1e-12)


@pytest.mark.parametrize("factor", [0.6, 0.9, 1.1, 1.7])
def test_brightness_contrast_and_saturation_are_torchvisions(factor: float) -> None:
    torch.manual_seed(0)
    patch = torch.rand(3, 3, 6, 7, dtype=torch.float64)
    for position, adjust in enumerate((tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation)):
        values = [1.0, 1.0, 1.0, 0.0]
        values[position] = factor
        out = jitter_colors(patch.flatten(2), torch.tensor([values] * 3), _mean(patch.flatten(2)))
        # the two round the weights of gray differently
        torch.testing.assert_close(out.view_as(patch), adjust(patch, factor), rtol=0, atol=2e-3)


def test_hue_turns_as_torchvisions_does() -> None:
    torch.manual_seed(0)
    patch = 0.2 + 0.6 * torch.rand(1, 3, 20, 20, dtype=torch.float64)
    flat = patch.flatten(2)

    def distance(ours: float, theirs: float) -> float:
        # luma is what torchvision changes besides
        out, other = (
            x - _luma(x)
            for x in (
                jitter_colors(flat, _factors((1, 1, 1, ours)), _mean(flat)),
                tv.adjust_hue(patch, theirs).flatten(2),
            )
        )
        return float((out - other).abs().mean())

    for hue in (-0.1, 0.1):
        assert distance(hue, hue) < 0.5 * distance(0, hue)
        assert distance(hue, hue) < 0.25 * distance(-hue, hue)


@pytest.mark.parametrize("hue", [-0.5, -0.1, 0.3])
def test_hue_keeps_luma_and_amount_of_gray(hue: float) -> None:
    torch.manual_seed(0)
    # little chroma: no clamp binds
    patch = 0.5 + 0.1 * torch.rand(2, 3, 40, dtype=torch.float64)
    out = jitter_colors(patch, _factors((1, 1, 1, hue)).expand(2, 4), _mean(patch))
    torch.testing.assert_close(_luma(out), _luma(patch), rtol=0, atol=1e-4)
    gray = patch[:, :1].expand(2, 3, 40)
    turned = jitter_colors(gray, _factors((1, 1, 0.2, hue)).expand(2, 4), _mean(gray))
    torch.testing.assert_close(turned, gray, rtol=0, atol=1e-4)
    back = jitter_colors(out, _factors((1, 1, 1, -hue)).expand(2, 4), _mean(out))
    torch.testing.assert_close(back, patch, rtol=0, atol=1e-9)


def test_contrast_turns_about_the_given_mean() -> None:
    patch, mean = torch.rand(2, 1, 9, dtype=torch.float64), torch.tensor([0.3, 0.8]).double().view(2, 1, 1)
    out = jitter_colors(patch, _factors((1, 0.5, 1, 0), (1, 0, 1, 0)), mean)
    torch.testing.assert_close(out[0], 0.5 * patch[0] + 0.15)
    torch.testing.assert_close(out[1], mean[1].expand(1, 9))


def test_gray_images_know_brightness_and_contrast_only() -> None:
    patch = torch.rand(1, 1, 9)
    plain, colored = (
        jitter_colors(patch, _factors((1.1, 0.8, saturation, hue)), _mean(patch))
        for saturation, hue in ((1.0, 0.0), (0.2, 0.4))
    )
    assert (plain == colored).all()
    gray = patch.expand(1, 3, 9)
    as_rgb = jitter_colors(gray, _factors((1.1, 0.8, 1, 0)), _mean(gray))
    torch.testing.assert_close(as_rgb, plain.expand(1, 3, 9), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_keeps_dtype_shape_and_range(dtype: torch.dtype) -> None:
    patch = torch.rand(3, 3, 20).to(dtype)
    kept = patch.clone()
    jitter = _factors((2, 2, 2, 0.2)).expand(3, 4)
    out = jitter_colors(patch, jitter, _mean(patch))
    assert out.dtype == dtype
    assert out.shape == patch.shape
    assert out.min() >= 0
    assert out.max() <= 1
    assert (patch == kept).all()
    precise = jitter_colors(patch.double(), jitter, _mean(patch).double())
    torch.testing.assert_close(out.double(), precise, rtol=0, atol=8 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("channels", [2, 4])
def test_other_channels_are_refused(channels: int) -> None:
    patch = torch.rand(1, channels, 9)
    with pytest.raises(ValueError, match=f"1 or 3 channels.*Got {channels}"):
        jitter_colors(patch, _factors((1, 1, 1, 0)), _mean(patch))


@every_user
@pytest.mark.parametrize("channels", [2, 4])
def test_other_channels_are_refused_unless_jitter_is_off(make: Callable[..., Any], channels: int) -> None:
    image = torch.rand(2, channels, 16, 16, dtype=torch.float64)
    with pytest.raises(ValueError, match=f"1 or 3 channels.*Got {channels}"):
        make()(image)
    assert make(jitter=(0, 0, 0, 0))(image).shape == image.shape


@every_user
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_bright_large_images_in_half_precision(make: Callable[..., Any], dtype: torch.dtype) -> None:
    # the sum of their pixels has no place in float16
    torch.manual_seed(0)
    large = {"width": (0.25, 0.25), "length": (0.25, 0.25)} if make is RandomCutPasteScar else {"scale": (0.1, 0.1)}
    image, transform = torch.ones(1, 1, 1100, 1100, dtype=dtype), make(jitter=(0.1, 0.9, 0, 0), **large)
    image[..., ::2] = 0.75
    out = transform(image)
    expected = transform(image.double(), params=transform._params)
    torch.testing.assert_close(out.double(), expected, atol=8 * torch.finfo(dtype).eps, rtol=0)
