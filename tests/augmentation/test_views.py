"""The views' sizes and ranges, and that each changes what it says, as often as it says."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from kornia.augmentation import RandomGaussianBlur, RandomGrayscale, RandomHorizontalFlip, RandomResizedCrop
from scipy import stats
from torch import Tensor, nn
from torchvision.transforms import v2

from anomalib_spd.augmentation import RandomColorJitter
from anomalib_spd.augmentation.views import (
    anchor_view,
    moco_v2_view,
    simclr_view,
    simsiam_view,
    supervised_view,
    weak_view,
)

View = Callable[[int], nn.Module]
STRONG = pytest.mark.parametrize("view", [simsiam_view, simclr_view])


def _part(view: nn.Module, step: type[nn.Module]) -> Any:
    """Return the only step of a class."""
    (part,) = (module for module in view.children() if isinstance(module, step))
    return part


def _is_share(count: int, total: int, share: float) -> bool:
    return bool(stats.binomtest(count, total, share).pvalue > 0.01)


@pytest.mark.parametrize("view", [anchor_view, weak_view, supervised_view, simsiam_view, moco_v2_view, simclr_view])
@pytest.mark.parametrize("shape", [(3, 80, 120), (3, 256, 256), (3, 32, 200)])
def test_size_and_range(view: View, shape: tuple[int, ...]) -> None:
    out = view(64)(torch.rand(4, *shape))
    assert out.shape == (4, 3, 64, 64)
    assert out.dtype == torch.float32
    assert out.min() >= 0
    assert out.max() <= 1


@STRONG
def test_white_stays_in_range(view: View) -> None:
    torch.manual_seed(0)
    out = view(32)(torch.ones(64, 3, 40, 60))
    assert out.max() <= 1


def test_the_anchor_is_not_random() -> None:
    images = torch.rand(4, 3, 90, 70)
    assert (anchor_view(64)(images) == anchor_view(64)(images)).all()


@STRONG
def test_the_seed_decides(view: View) -> None:
    images = torch.rand(8, 3, 48, 48)
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(view(32)(images))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_moco_v2_has_the_view_of_simsiam() -> None:
    images = torch.rand(8, 3, 48, 48)
    results = []
    for view in (simsiam_view, moco_v2_view):
        torch.manual_seed(0)
        results.append(view(32)(images))
    assert torch.equal(results[0], results[1])


def _distance(view: View) -> float:
    """Mean distance from the anchor, flipped or not."""
    torch.manual_seed(0)
    # a smooth picture: what is measured is where things are and what color they have
    images = nn.functional.interpolate(torch.rand(64, 3, 6, 6), size=96, mode="bicubic").clamp(0, 1)
    anchor, out = anchor_view(64)(images), view(64)(images)
    flipped = anchor.flip(-1)
    return torch.minimum((out - anchor).abs().mean((1, 2, 3)), (out - flipped).abs().mean((1, 2, 3))).mean().item()


def test_views_are_ordered_by_strength() -> None:
    weak, supervised, simsiam, simclr = map(_distance, (weak_view, supervised_view, simsiam_view, simclr_view))
    assert 0 < weak < 0.6 * min(supervised, simsiam)
    assert max(supervised, simsiam) < simclr


@STRONG
def test_a_fifth_is_gray(view: View) -> None:
    torch.manual_seed(0)
    out = view(8)(torch.rand(2000, 3, 32, 32))
    gray = (out == out[:, :1]).all(3).all(2).all(1)
    assert _is_share(int(gray.sum()), 2000, 0.2)


@STRONG
def test_half_are_flipped(view: View) -> None:
    torch.manual_seed(0)
    # dark on the left, bright on the right: no crop, jitter or blur turns that round
    out = view(8)(torch.linspace(0.1, 0.9, 32).expand(2000, 3, 32, 32))
    flipped = out[..., :4].mean((1, 2, 3)) > out[..., 4:].mean((1, 2, 3))
    assert _is_share(int(flipped.sum()), 2000, 0.5)


@STRONG
def test_half_are_blurred_and_not_along_with_the_jitter(view: View) -> None:
    torch.manual_seed(0)
    changed: dict[type[nn.Module], Tensor] = {}

    def record(module: nn.Module, inputs: tuple[Tensor], out: Tensor) -> None:
        changed[type(module)] = (out != inputs[0]).flatten(1).any(1)

    module = view(40)
    for step in (RandomColorJitter, RandomGaussianBlur):
        _part(module, step).register_forward_hook(record)
    module(torch.rand(1000, 3, 32, 32))
    jittered, blurred = changed[RandomColorJitter], changed[RandomGaussianBlur]
    # below a sigma of 0.17 px float32 shows no change
    assert _is_share(int(blurred.sum()), 1000, 0.5 * (2.0 - 0.17) / (2.0 - 0.1))
    assert _is_share(int(jittered.sum()), 1000, 0.8)
    assert stats.chi2_contingency(stats.contingency.crosstab(jittered, blurred).count).pvalue > 0.01


@pytest.mark.parametrize(("view", "smallest"), [(simsiam_view, 0.2), (simclr_view, 0.08)])
def test_crops_are_distributed_as_torchvisions(view: View, smallest: float) -> None:
    torch.manual_seed(0)
    side, count = 100, 1000
    # red says the column and green the row; bilinear reaches half a pixel into the crop's outermost ones
    grid = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="xy")).float()
    images = torch.cat([grid, grid[:1]])[None].expand(count, 3, side, side)
    out = _part(view(200), RandomResizedCrop)(images)
    extent = out.amax((2, 3)) - out.amin((2, 3)) + 1
    area, aspect = extent[:, 0] * extent[:, 1] / side**2, extent[:, 0] / extent[:, 1]

    reference = v2.RandomResizedCrop(1, scale=(smallest, 1.0), ratio=(3 / 4, 4 / 3))
    expected = [reference.make_params([images[0]]) for _ in range(count)]
    heights, widths = (torch.tensor([float(each[key]) for each in expected]) for key in ("height", "width"))
    assert smallest - 0.01 < area.min() < area.max() <= 1
    assert stats.ks_2samp(area, heights * widths / side**2).pvalue > 0.01
    assert stats.ks_2samp(aspect, widths / heights).pvalue > 0.01


@STRONG
def test_the_crop_is_torchvisions(view: View) -> None:
    torch.manual_seed(0)
    images = torch.rand(4, 3, 70, 50)
    crop = _part(view(32), RandomResizedCrop)
    out = crop(images)
    for image, got, corners in zip(images, out, crop._params["src"].long(), strict=True):
        (left, top), (right, bottom) = corners[0].tolist(), corners[2].tolist()
        expected = v2.functional.resized_crop(
            image, top, left, bottom - top + 1, right - left + 1, [32, 32], antialias=False
        )
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    ("view", "jitter"),
    [(simsiam_view, (0.4, 0.4, 0.4, 0.1)), (simclr_view, (0.8, 0.8, 0.8, 0.2))],
)
def test_the_jitter_is_torchvisions_within_its_bounds(view: View, jitter: tuple[float, ...]) -> None:
    torch.manual_seed(0)
    images = torch.rand(500, 3, 4, 4)
    module = _part(view(32), RandomColorJitter)
    out = module(images)
    params = module._params
    names = ("brightness", "contrast", "saturation", "hue")
    factors = [params[f"{name}_factor"] for name in names]
    for factor, strength, center in zip(factors, jitter, (1, 1, 1, 0), strict=True):
        assert stats.kstest(((factor - center) / strength + 1) / 2, "uniform").pvalue > 0.01
    adjust = [getattr(v2.functional, f"adjust_{name}") for name in names]
    for index in range(20):
        expected = images[index]
        if params["batch_prob"][index]:
            for step in params["order"].tolist():
                expected = adjust[step](expected, factors[step][index].item())
        # the two libraries round the weights of gray differently
        torch.testing.assert_close(out[index], expected, atol=2e-3, rtol=0)


@STRONG
def test_the_blur_is_a_gaussian_of_the_stated_widths(view: View) -> None:
    torch.manual_seed(0)
    blur = _part(view(224), RandomGaussianBlur)
    point = torch.zeros(200, 1, 41, 41)
    point[..., 20, 20] = 1
    profile = blur(point).sum((1, 2))
    offset = torch.arange(-20.0, 21.0)
    width = (profile * offset**2).sum(1).sqrt()
    blurred = blur._params["batch_prob"] > 0
    # a fine sigma is narrower on pixels, the widest loses its tails: 2 % of its width
    assert width[~blurred].max() == 0
    assert stats.kstest(width[blurred & (width > 0.5)], stats.uniform(0.5, 1.48).cdf).pvalue > 0.01
    assert 1.9 < width.max() <= 2


def test_simclrs_blur_grows_with_the_image() -> None:
    sides = {size: _part(simclr_view(size), RandomGaussianBlur).flags["kernel_size"] for size in (32, 64, 100, 224)}
    assert sides == {32: (3, 3), 64: (7, 7), 100: (11, 11), 224: (13, 13)}


@STRONG
def test_every_component_is_there(view: View) -> None:
    module = view(32)
    steps = (RandomResizedCrop, RandomColorJitter, RandomGrayscale, RandomGaussianBlur, RandomHorizontalFlip)
    assert [_part(module, step).p for step in steps] == [1.0, 0.8, 0.2, 0.5, 0.5]


@STRONG
def test_moves_with_to(view: View) -> None:
    # as far as that shows without a second device: the samplers follow
    module = view(32).to(torch.float64)
    assert module(torch.rand(2, 3, 40, 40, dtype=torch.float64)).dtype == torch.float64
    assert all(part.dtype == torch.float64 for part in module.children() if hasattr(part, "p"))
