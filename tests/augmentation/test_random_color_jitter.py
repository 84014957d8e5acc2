"""Color jitter of whole images against Kornia's, and what Kornia asks of its own augmentations."""

import copy
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kornia.augmentation import AugmentationSequential, ColorJitter
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from anomalib_spd.augmentation import RandomColorJitter

STRENGTHS = (0.4, 0.4, 0.4, 0.1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _with(name: str, value: float, order: tuple[int, ...] = (0, 1, 2, 3)) -> dict[str, Tensor]:
    """Parameters for one image that change nothing but this."""
    params = {f"{each}_factor": torch.ones(1) for each in ("brightness", "contrast", "saturation")}
    params |= {"hue_factor": torch.zeros(1), "order": torch.tensor(order), "batch_prob": torch.ones(1)}
    return params | {f"{name}_factor": torch.tensor([value])}


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 24),
    width=st.integers(1, 24),
    batch=st.integers(1, 4),
    strengths=st.tuples(*[st.floats(0, 1)] * 3, st.floats(0, 0.5)),
    levels=st.sampled_from([2, 3, 256, 2**20]),
    p=st.sampled_from([0.5, 1.0]),
    same_on_batch=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_one_seed_gives_what_kornias_gives(
    height: int,
    width: int,
    batch: int,
    strengths: tuple[float, float, float, float],
    levels: int,
    p: float,
    same_on_batch: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    # few levels: gray, black and white pixels, and ties between channels
    images = torch.randint(levels, (batch, 3, height, width)).double() / (levels - 1)
    kept = images.clone()
    ours, kornias = (case(*strengths, p=p, same_on_batch=same_on_batch) for case in (RandomColorJitter, ColorJitter))
    torch.manual_seed(seed)
    out = ours(images)
    torch.manual_seed(seed)
    expected = kornias(images)
    # Kornia keeps hues from a division by zero with an epsilon of its own
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)
    assert 0 <= out.min() <= out.max() <= 1
    assert (ours(images, params=ours._params) == out).all()
    assert (images == kept).all()
    assert (out[ours._params["batch_prob"] == 0] == images[ours._params["batch_prob"] == 0]).all()


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
@pytest.mark.parametrize("value", [-0.5, -0.1, 0.0, 0.05, 0.5])
def test_each_step_is_torchvisions(name: str, value: float) -> None:
    image = torch.rand(1, 3, 40, 30, dtype=torch.float64)
    factor = value if name == "hue" else 1 + value
    out = RandomColorJitter()(image, params=_with(name, factor))
    expected = getattr(tv, f"adjust_{name}")(image, factor)
    # the two round the weights of gray differently
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-4 if name in ("brightness", "hue") else 2e-3)


def test_hue_comes_back_after_a_full_turn() -> None:
    jitter, image = RandomColorJitter(), torch.rand(1, 3, 20, 20, dtype=torch.float64)
    out = image
    for _ in range(5):
        out = jitter(out, params=_with("hue", 0.2))
    torch.testing.assert_close(out, image)
    # a third of a turn: red becomes green
    torch.testing.assert_close(jitter(image, params=_with("hue", 1 / 3)), image.roll(1, 1), rtol=0, atol=1e-6)


def test_hue_keeps_gray() -> None:
    gray = torch.linspace(0, 1, 11).expand(1, 3, 1, 11)
    assert (RandomColorJitter()(gray, params=_with("hue", 0.3)) == gray).all()


def test_the_order_is_the_sampled_one() -> None:
    image = torch.rand(1, 3, 8, 8)
    params = _with("brightness", 3.0) | {"contrast_factor": torch.tensor([0.1])}
    one, other = (
        RandomColorJitter()(image, params=params | {"order": torch.tensor(order)})
        for order in ([0, 1, 2, 3], [1, 0, 2, 3])
    )
    assert (one - other).abs().max() > 0.1


def test_gray_images_know_brightness_and_contrast_only() -> None:
    image, jitter = torch.rand(4, 1, 9, 9), RandomColorJitter(0.4, 0.4, 0.9, 0.5)
    out = jitter(image)
    assert out.shape == image.shape
    colors = jitter._params | {"saturation_factor": torch.ones(4), "hue_factor": torch.zeros(4)}
    as_rgb = ColorJitter(0.4, 0.4)(image.expand(4, 3, 9, 9), params=colors)
    torch.testing.assert_close(out.expand(4, 3, 9, 9), as_rgb, rtol=0, atol=1e-5)


@pytest.mark.parametrize("p", [0.0, 1.0])
@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5), (2, 3, 4, 5), (0, 3, 4, 5)])
def test_shapes(p: float, shape: tuple[int, ...]) -> None:
    image = torch.rand(shape)
    assert RandomColorJitter(*STRENGTHS, p=p)(image).shape == (1,) * (4 - len(shape)) + shape
    assert RandomColorJitter(*STRENGTHS, p=p, keepdim=True)(image).shape == shape


def test_same_on_batch_samples_once() -> None:
    images = torch.rand(1, 3, 12, 10).expand(6, 3, 12, 10)
    out = RandomColorJitter(*STRENGTHS, same_on_batch=True)(images)
    torch.testing.assert_close(out, out[:1].expand_as(out), rtol=0, atol=1e-6)
    assert len(RandomColorJitter(*STRENGTHS)(images).flatten(1).unique(dim=0)) == 6


def test_each_image_of_a_batch_is_its_own() -> None:
    images, jitter = torch.rand(3, 3, 12, 10), RandomColorJitter(*STRENGTHS)
    out, params = jitter(images), jitter._params
    for index in range(3):
        one = {name: value[index : index + 1] for name, value in params.items() if name.endswith("_factor")}
        one["order"] = params["order"]
        torch.testing.assert_close(jitter(images[index : index + 1], params=one), out[index : index + 1])


@pytest.mark.parametrize("layout", ["channels_last", "expanded", "transposed"])
def test_memory_layouts(layout: str) -> None:
    images, jitter = torch.rand(3, 3, 12, 12), RandomColorJitter(*STRENGTHS)
    if layout == "channels_last":
        strided = images.to(memory_format=torch.channels_last)
    elif layout == "expanded":
        strided = images[:1].expand(3, 3, 12, 12)
    else:
        strided = images.transpose(2, 3)
    before = strided.clone()
    out = jitter(strided)
    torch.testing.assert_close(out, jitter(before.contiguous(), params=jitter._params), rtol=0, atol=1e-6)
    assert (strided == before).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    images, jitter = torch.rand(4, 3, 32, 24).to(dtype), RandomColorJitter(*STRENGTHS)
    out = jitter(images)
    assert out.dtype == dtype
    expected = jitter(images.double(), params=jitter._params)
    torch.testing.assert_close(out.double(), expected, atol=16 * torch.finfo(dtype).eps, rtol=0)


def test_autocast_changes_nothing() -> None:
    images, jitter = torch.rand(3, 3, 20, 30), RandomColorJitter(*STRENGTHS)
    plain = jitter(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = jitter(images, params=jitter._params)
    assert inside.dtype == plain.dtype
    assert (inside == plain).all()


def test_a_container_changes_neither_masks_nor_keypoints() -> None:
    images, mask = torch.rand(2, 3, 12, 10), torch.rand(2, 1, 12, 10)
    augment = AugmentationSequential(RandomColorJitter(*STRENGTHS), data_keys=["input", "mask"])
    out, same = augment(images, mask)
    assert (out != images).any()
    assert (same == mask).all()
    assert (augment.transform_matrix == torch.eye(3)).all()
    assert (augment(images, mask, params=augment._params)[0] == out).all()


def test_copies_draw_the_same() -> None:
    images, jitter = torch.rand(2, 3, 12, 10), RandomColorJitter(*STRENGTHS, p=0.5)
    outs = []
    for each in (jitter, copy.deepcopy(jitter), pickle.loads(pickle.dumps(jitter))):
        torch.manual_seed(3)
        outs.append(each(images))
    assert all((out == outs[0]).all() for out in outs)


def test_repr_shows_the_settings() -> None:
    text = repr(RandomColorJitter(0.4, (0.5, 1.5), hue=0.1, p=0.25))
    for part in ("brightness=0.4", "contrast=(0.5, 1.5)", "hue=0.1", "p=0.25"):
        assert part in text


def test_gradients() -> None:
    # away from the ends, where clamps would bind
    image = (0.4 + 0.2 * torch.rand(2, 3, 4, 5, dtype=torch.float64)).requires_grad_()
    jitter = RandomColorJitter(*STRENGTHS)
    for _ in range(4):  # of the orders
        jitter(image)
        params: dict[str, Any] = jitter._params
        assert torch.autograd.gradcheck(lambda x, params=params: jitter(x, params=params), (image,))


def test_refusals() -> None:
    with pytest.raises(ValueError, match="`p` is a probability"):
        RandomColorJitter(p=1.1)
    for wrong in ({"brightness": -0.1}, {"hue": 0.6}, {"contrast": (1.5, 0.5)}, {"saturation": float("inf")}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            RandomColorJitter(**wrong)
    with pytest.raises(ValueError, match=r"1 or 3 channels\. Got 2"):
        RandomColorJitter()(torch.rand(1, 2, 4, 4))
    with pytest.raises(TypeError):
        RandomColorJitter()(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
