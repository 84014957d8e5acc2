"""SmoothBlend against its formula by explicit convolution."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from kornia.augmentation import AugmentationSequential
from torch import Tensor

from anomalib_spd.augmentation import RandomSmoothBlend
from anomalib_spd.augmentation.color_jitter import jitter_colors

NO_JITTER = (0.0, 0.0, 0.0, 0.0)
HALOS = ("replicate", "literal")
every_halo = pytest.mark.parametrize("halo", HALOS)


def _convolved(box: Tensor, sigma: float, radius: int) -> Tensor:
    """Blur (H, W) by the kernel of pixel integrals, the slow way."""
    edges = (torch.arange(-radius, radius + 2, dtype=torch.float64) - 0.5) / sigma
    kernel = torch.special.ndtr(edges).diff()
    kernel = kernel / kernel.sum()
    rows = F.conv2d(box[None, None], kernel.view(1, 1, -1, 1), padding=(radius, 0))
    return F.conv2d(rows, kernel.view(1, 1, 1, -1), padding=(0, radius))[0, 0]


def _by_the_book(
    image: Tensor, params: dict[str, Tensor], index: int, halo: str, sigma: float, truncate: float = 3.0
) -> Tensor:
    """Evaluate the methods' formula for one image (C, H, W) in float64, with the jitter that is drawn."""
    height, width = (int(params[k][index]) for k in ("heights", "widths"))
    sy, sx, ty, tx = (int(params[k][index]) for k in ("source_ys", "source_xs", "target_ys", "target_xs"))
    box = torch.zeros(image.shape[1:], dtype=torch.float64)
    box[ty : ty + height, tx : tx + width] = 1
    alpha = _convolved(box, sigma, math.ceil(truncate * sigma))
    flat = image[None, :, sy : sy + height, sx : sx + width].flatten(2)
    flat = jitter_colors(flat, params["jitter"][index : index + 1].double(), flat.mean(2, keepdim=True))
    patch = flat[0].unflatten(1, (height, width))
    if halo == "replicate":
        pad = (tx, image.shape[2] - tx - width, ty, image.shape[1] - ty - height)
        u = F.pad(patch[None], pad, mode="replicate")[0]
    else:
        u = torch.zeros_like(image)
        u[:, ty : ty + height, tx : tx + width] = patch
    return (1 - alpha) * image + alpha * u


@every_halo
@pytest.mark.parametrize("shape", [(3, 3, 64, 96), (2, 1, 90, 40), (2, 3, 8, 8)])
@pytest.mark.parametrize("sigma", [0.3, 0.7, 2.0, 8.0])
@pytest.mark.parametrize("jitter", [NO_JITTER, (0.3, 0.3, 0.3, 0.2)])
def test_equals_the_formula_by_explicit_convolution(
    halo: Any, shape: tuple[int, ...], sigma: float, jitter: Any
) -> None:
    torch.manual_seed(0)
    image = torch.rand(shape, dtype=torch.float64)
    smooth_blend = RandomSmoothBlend(scale=(0.02, 0.2), sigma=sigma, jitter=jitter, halo=halo, sigma_size=None)
    out = smooth_blend(image)
    for index in range(shape[0]):
        expected = _by_the_book(image[index], smooth_blend._params, index, halo, sigma)
        torch.testing.assert_close(out[index], expected, atol=1e-6, rtol=0)


@settings(deadline=None, max_examples=40)
@given(
    height=st.integers(8, 80),
    width=st.integers(8, 80),
    scale=st.sampled_from([(0.001, 0.01), (0.005, 1.0)]),
    ratio=st.sampled_from([(0.3, 3.0), (0.05, 20.0)]),
    sigma=st.floats(0.3, 10.0),
    truncate=st.floats(0.5, 5.0),
    halo=st.sampled_from(HALOS),
    seed=st.integers(0, 2**31),
)
def test_equals_the_formula_whatever_the_arguments(
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    sigma: float,
    truncate: float,
    halo: Any,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    image = torch.rand(2, 3, height, width, dtype=torch.float64)
    smooth_blend = RandomSmoothBlend(scale, ratio, sigma, NO_JITTER, halo, truncate, sigma_size=None)
    out = smooth_blend(image)
    for index in range(2):
        expected = _by_the_book(image[index], smooth_blend._params, index, halo, sigma, truncate)
        torch.testing.assert_close(out[index], expected, atol=1e-6, rtol=0)


@every_halo
@pytest.mark.parametrize("size", [(64, 80), (9, 30)])
def test_the_mask_is_the_patch_and_the_reach_of_its_blur(halo: Any, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    smooth_blend = RandomSmoothBlend(sigma=2.3, halo=halo, sigma_size=None)
    augment = AugmentationSequential(smooth_blend, data_keys=["input", "mask"])
    _, mask = augment(torch.rand(8, 3, *size), torch.zeros(8, 1, *size))
    reach = math.ceil(3 * 2.3)
    expected = torch.zeros_like(mask)
    for index in range(8):
        h, w, y, x = (int(smooth_blend._params[k][index]) for k in ("heights", "widths", "target_ys", "target_xs"))
        expected[index, :, max(0, y - reach) : y + h + reach, max(0, x - reach) : x + w + reach] = 1
    assert (mask == expected).all()


def test_replicate_leaves_no_dark_halo() -> None:
    torch.manual_seed(0)
    gray = torch.full((4, 3, 64, 64), 0.5)
    assert RandomSmoothBlend(jitter=NO_JITTER, sigma=3, sigma_size=None)(gray).sub(0.5).abs().max() < 1e-6
    assert RandomSmoothBlend(jitter=NO_JITTER, sigma=3, halo="literal", sigma_size=None)(gray).min() < 0.45


@every_halo
@pytest.mark.parametrize("jitter", [NO_JITTER, (0.1, 0.1, 0.1, 0.1)])
def test_gradients(halo: Any, jitter: Any) -> None:
    torch.manual_seed(0)
    image = (0.35 + 0.3 * torch.rand(2, 3, 8, 7, dtype=torch.float64)).requires_grad_()
    smooth_blend = RandomSmoothBlend(scale=(0.1, 0.3), sigma=1, jitter=jitter, halo=halo, sigma_size=None)
    smooth_blend(image)
    params = smooth_blend._params
    assert torch.autograd.gradcheck(lambda x: smooth_blend(x, params=params), (image,), fast_mode=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sigma": 0}, "`sigma`"),
        ({"sigma_size": 0}, "`sigma_size`"),
        ({"sigma": math.inf}, "`sigma`"),
        ({"truncate": -1}, "`truncate`"),
        ({"halo": "soft"}, "`halo` is one of"),
        ({"scale": (0.5, 2)}, "`scale`"),
        ({"ratio": (0, 1)}, "`ratio`"),
        ({"jitter": (3, 0, 0, 0)}, "`jitter`"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RandomSmoothBlend(**arguments)


@pytest.mark.parametrize(("size", "sigma"), [((224, 224), 8.0), ((112, 112), 4.0), ((300, 448), 75 / 7)])
def test_the_blur_grows_with_the_image(size: tuple[int, int], sigma: float) -> None:
    image = torch.rand(3, 3, *size, dtype=torch.float64)
    torch.manual_seed(0)
    relative = RandomSmoothBlend()(image)
    torch.manual_seed(0)
    assert torch.equal(relative, RandomSmoothBlend(sigma=sigma, sigma_size=None)(image))
