"""SmoothBlend against the formula by explicit convolution, and its promises about masks, replay and inputs."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from kornia.augmentation import AugmentationSequential
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from anomalib_spd.augmentation import RandomSmoothBlend
from anomalib_spd.augmentation.smooth_blend import _jitter

NO_JITTER = (0.0, 0.0, 0.0, 0.0)
HALOS = ("replicate", "literal", "masked")


def _convolved(box: Tensor, sigma: float, radius: int) -> Tensor:
    """Blur (H, W) by the kernel of pixel integrals, the slow way."""
    edges = (torch.arange(-radius, radius + 2, dtype=torch.float64) - 0.5) / sigma
    kernel = torch.special.ndtr(edges).diff()
    kernel = kernel / kernel.sum()
    rows = F.conv2d(box[None, None], kernel.view(1, 1, -1, 1), padding=(radius, 0))
    return F.conv2d(rows, kernel.view(1, 1, 1, -1), padding=(0, radius))[0, 0]


def _by_the_book(image: Tensor, params: dict[str, Tensor], index: int, halo: str, sigma: float, radius: int) -> Tensor:
    """Evaluate methods' formula for one image (C, H, W) in float64, without jitter."""
    height, width = (int(params[k][index]) for k in ("heights", "widths"))
    sy, sx, ty, tx = (int(params[k][index]) for k in ("source_ys", "source_xs", "target_ys", "target_xs"))
    box = torch.zeros(image.shape[1:], dtype=torch.float64)
    box[ty : ty + height, tx : tx + width] = 1
    alpha = _convolved(box, sigma, radius)
    patch = image[:, sy : sy + height, sx : sx + width]
    if halo == "replicate":
        pad = (tx, image.shape[2] - tx - width, ty, image.shape[1] - ty - height)
        u = F.pad(patch[None], pad, mode="replicate")[0]
    else:
        u = torch.zeros_like(image)
        u[:, ty : ty + height, tx : tx + width] = patch
    if halo == "masked":
        alpha = alpha * box
        alpha = alpha / alpha.max()
    return (1 - alpha) * image + alpha * u


@pytest.mark.parametrize("halo", HALOS)
@pytest.mark.parametrize("shape", [(3, 3, 64, 96), (2, 1, 90, 40), (1, 3, 8, 8)])
@pytest.mark.parametrize("sigma", [0.7, 2.0, 8.0])
def test_equals_the_formula_by_explicit_convolution(halo: Any, shape: tuple[int, ...], sigma: float) -> None:
    torch.manual_seed(0)
    image = torch.rand(shape, dtype=torch.float64)
    smooth_blend = RandomSmoothBlend(scale=(0.02, 0.2), sigma=sigma, jitter=NO_JITTER, halo=halo)
    out = smooth_blend(image)
    params = smooth_blend._params
    for index in range(shape[0]):
        expected = _by_the_book(image[index], params, index, halo, sigma, radius=math.ceil(4 * sigma))
        torch.testing.assert_close(out[index], expected, atol=1e-6, rtol=0)


def test_jitter_equals_torchvision_on_the_patch() -> None:
    torch.manual_seed(0)
    patch = torch.rand(4, 3, 9, 14)
    jitter = torch.tensor([[1.1, 1, 1, 0], [1, 0.9, 1, 0], [1, 1, 1.08, 0], [1.05, 0.95, 0.9, -0.07]])
    out = _jitter(patch, torch.ones(4, 1, 9, 14, dtype=torch.bool), jitter)
    for index, (brightness, contrast, saturation, hue) in enumerate(jitter.tolist()):
        expected = tv.adjust_brightness(patch[index], brightness)
        expected = tv.adjust_contrast(expected, contrast)
        expected = tv.adjust_saturation(expected, saturation)
        expected = tv.adjust_hue(expected, hue)
        # the two libraries round the weights of grey differently
        torch.testing.assert_close(out[index], expected, atol=2e-3, rtol=0)


def test_contrast_turns_about_the_patch_alone() -> None:
    window = torch.rand(1, 3, 20, 20)
    inside = torch.zeros(1, 1, 20, 20, dtype=torch.bool)
    inside[..., 5:12, 3:17] = True
    jitter = torch.tensor([[1.0, 0.6, 1.0, 0.0]])
    alone = _jitter(window[..., 5:12, 3:17], torch.ones(1, 1, 7, 14, dtype=torch.bool), jitter)
    torch.testing.assert_close(_jitter(window, inside, jitter)[..., 5:12, 3:17], alone)


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(8, 80),
    width=st.integers(8, 80),
    batch=st.integers(1, 4),
    channels=st.sampled_from([1, 3]),
    halo=st.sampled_from(HALOS),
    p=st.sampled_from([0.5, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_mask_range_and_replay(
    height: int, width: int, batch: int, channels: int, halo: Any, p: float, seed: int
) -> None:
    torch.manual_seed(seed)
    image = torch.rand(batch, channels, height, width)
    given_mask = (torch.rand(batch, 1, height, width) > 0.9).float()
    smooth_blend = RandomSmoothBlend(scale=(0.01, 0.1), sigma=2, halo=halo, p=p)
    augment = AugmentationSequential(smooth_blend, data_keys=["input", "mask"])
    out, mask = augment(image, given_mask)
    assert out.shape == image.shape
    assert mask.shape == given_mask.shape
    assert out.min() >= 0
    assert out.max() <= 1
    # the given mask is kept, and whatever lies outside is untouched, bit for bit
    assert ((mask == 0) | (mask == 1)).all()
    assert (mask >= given_mask).all()
    unchanged = (mask == 0).expand_as(image)
    assert (out[unchanged] == image[unchanged]).all()
    skipped = smooth_blend._params["batch_prob"] < 0.5
    assert (out[skipped] == image[skipped]).all()
    assert (mask[skipped] == given_mask[skipped]).all()
    # the parameters alone repeat it
    again = smooth_blend(image, params=smooth_blend._params)
    assert (again == out).all()


@pytest.mark.parametrize("halo", HALOS)
def test_the_mask_is_no_larger_than_what_changes(halo: Any) -> None:
    torch.manual_seed(0)
    image = torch.rand(8, 3, 64, 64, dtype=torch.float64)
    augment = AugmentationSequential(RandomSmoothBlend(sigma=2, halo=halo), data_keys=["input", "mask"])
    out, mask = augment(image, torch.zeros(8, 1, 64, 64, dtype=torch.float64))
    # on noise, every pixel within reach of the blur takes another value
    assert ((out != image).any(1, keepdim=True) == (mask > 0)).all()


def test_replicate_leaves_no_dark_halo() -> None:
    grey = torch.full((4, 3, 64, 64), 0.5)
    assert RandomSmoothBlend(jitter=NO_JITTER, sigma=3)(grey).sub(0.5).abs().max() < 1e-6
    assert RandomSmoothBlend(jitter=NO_JITTER, sigma=3, halo="literal")(grey).min() < 0.45


def test_same_seed_same_result() -> None:
    image = torch.rand(4, 3, 64, 64)
    results = []
    for _ in range(2):
        torch.manual_seed(7)
        results.append(RandomSmoothBlend()(image))
    assert (results[0] == results[1]).all()


def test_same_on_batch_keepdim_and_p() -> None:
    image = torch.rand(3, 64, 64)
    torch.manual_seed(0)
    same = RandomSmoothBlend(same_on_batch=True)(image.expand(5, 3, 64, 64))
    assert (same == same[:1]).all()
    assert RandomSmoothBlend(keepdim=True)(image).shape == (3, 64, 64)
    assert RandomSmoothBlend()(image).shape == (1, 3, 64, 64)
    assert (RandomSmoothBlend(p=0.0)(image[None]) == image).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    image = torch.rand(2, 3, 64, 64).to(dtype)
    smooth_blend = RandomSmoothBlend()
    out = smooth_blend(image)
    assert out.dtype == dtype
    reference = smooth_blend(image.double(), params=smooth_blend._params)
    torch.testing.assert_close(out.double(), reference, atol=8 * torch.finfo(dtype).eps, rtol=0)


def test_dictionary_input() -> None:
    batch = {"image": torch.rand(2, 3, 64, 64), "mask": torch.zeros(2, 1, 64, 64)}
    out = AugmentationSequential(RandomSmoothBlend(), data_keys=None)(batch)
    assert set(out) == {"image", "mask"}
    assert out["mask"].any()


def test_gradient_reaches_the_image() -> None:
    image = torch.rand(1, 3, 12, 12, dtype=torch.float64, requires_grad=True)
    smooth_blend = RandomSmoothBlend(scale=(0.1, 0.2), sigma=1, jitter=NO_JITTER)
    smooth_blend(image)
    params = smooth_blend._params
    assert torch.autograd.gradcheck(lambda x: smooth_blend(x, params=params), (image,), raise_exception=True)


def test_compiles_as_one_graph() -> None:
    image = torch.rand(2, 3, 64, 64)
    smooth_blend = RandomSmoothBlend()
    compiled = torch.compile(smooth_blend, fullgraph=True, backend="eager")
    out = compiled(image)
    torch.testing.assert_close(out, smooth_blend(image, params=smooth_blend._params))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sigma": 0}, "`sigma`"),
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


def test_images_of_other_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"1 or 3 channels, got \(2, 4, 32, 32\)"):
        RandomSmoothBlend()(torch.rand(2, 4, 32, 32))
    with pytest.raises(TypeError):
        RandomSmoothBlend()(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
