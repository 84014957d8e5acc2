"""What holds for every transform: masks, replay, inputs of all kinds, and what Kornia asks of its own augmentations."""

import copy
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kornia.augmentation import AugmentationSequential, RandomErasing, RandomHorizontalFlip
from kornia.augmentation.random_generator import RandomGeneratorBase
from packaging.version import Version
from torch import Tensor
from torch.utils.data import DataLoader

from anomalib_spd.augmentation import (
    RandomCrack,
    RandomCutPaste,
    RandomCutPasteScar,
    RandomCutSwap,
    RandomCutSwapScar,
    RandomSmoothBlend,
)

SCAR = {"width": (0.05, 0.25), "length": (0.1, 0.25), "degrees": (-180.0, 180.0)}
MAKERS: dict[str, Callable[..., Any]] = {
    "smooth_blend": partial(RandomSmoothBlend, scale=(0.01, 0.1), sigma=2.0, sigma_size=None),
    "crack": partial(RandomCrack, length=(0.1, 0.9)),
    "cut_paste": partial(RandomCutPaste, scale=(0.02, 0.5)),
    "cut_paste_scar": partial(RandomCutPasteScar, **SCAR),
    "cut_swap": partial(RandomCutSwap, scale=(0.02, 0.25)),
    "cut_swap_scar": partial(RandomCutSwapScar, **SCAR),
}

every = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _in_container(transform: Any) -> AugmentationSequential:
    return AugmentationSequential(transform, data_keys=["input", "mask"])


def _changed(before: Tensor, after: Tensor) -> Tensor:
    return (before != after).any(1, keepdim=True)


@every
@settings(deadline=None, max_examples=30)
@given(
    height=st.integers(8, 80),
    width=st.integers(8, 80),
    batch=st.integers(1, 4),
    channels=st.sampled_from([1, 3]),
    p=st.sampled_from([0.5, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_the_mask_is_what_changes_and_parameters_repeat_it(
    make: Callable[..., Any], height: int, width: int, batch: int, channels: int, p: float, seed: int
) -> None:
    torch.manual_seed(seed)
    # on noise in float64 no pixel that is written stays what it was
    image = torch.rand(batch, channels, height, width, dtype=torch.float64)
    given_mask = (torch.rand(batch, 1, height, width, dtype=torch.float64) > 0.9).double()
    kept = image.clone(), given_mask.clone()
    transform = make(p=p)
    augment = _in_container(transform)
    out, mask = augment(image, given_mask)
    assert out.shape == image.shape
    assert out.min() >= 0
    assert out.max() <= 1
    changed = _changed(image, out)
    assert (mask == torch.maximum(given_mask, changed.double())).all()
    # an image is changed, or skipped
    assert (changed.flatten(1).any(1) == (transform._params["batch_prob"] > 0.5)).all()

    again = augment(image, given_mask, params=augment._params)
    assert (again[0] == out).all()
    assert (again[1] == mask).all()
    assert (augment(image, torch.zeros_like(given_mask), params=augment._params)[1] == changed).all()
    assert (transform(image, params=transform._params) == out).all()
    assert (image == kept[0]).all()
    assert (given_mask == kept[1]).all()


@every
def test_a_mask_of_other_values_keeps_the_greater(make: Callable[..., Any]) -> None:
    image, given_mask = torch.rand(4, 3, 40, 56, dtype=torch.float64), 3 * torch.rand(4, 1, 40, 56)
    out, mask = _in_container(make())(image, given_mask)
    expected = torch.where(_changed(image, out), given_mask.clamp(min=1), given_mask)
    assert (mask == expected).all()


@every
def test_one_seed_one_result(make: Callable[..., Any]) -> None:
    image = torch.rand(4, 3, 40, 30)
    results = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        results.append(make(p=0.5)(image))
    assert (results[0] == results[1]).all()
    assert (results[0] != results[2]).any()


@every
@pytest.mark.parametrize("p", [0.5, 1.0])
def test_same_on_batch_samples_once(make: Callable[..., Any], p: float) -> None:
    torch.manual_seed(1)
    image = torch.rand(1, 3, 40, 30).expand(6, 3, 40, 30)
    same = make(same_on_batch=True, p=p)
    for _ in range(4):
        out = same(image)
        # but for the order of summation
        torch.testing.assert_close(out, out[:1].expand_as(out), rtol=0, atol=1e-6)
        assert ((out != image).any(1) == (out[:1] != image[:1]).any(1)).all()
    assert len(make(same_on_batch=False)(image).flatten(1).unique(dim=0)) > 1


@every
def test_parameters_may_be_sampled_before_the_call(make: Callable[..., Any]) -> None:
    image, transform = torch.rand(4, 3, 15, 16), make()
    params = transform.forward_parameters(image.shape)
    out = transform(image, params=params)
    assert (out != image).flatten(1).any(1).all()
    assert (transform(image, params=params) == out).all()
    assert (transform.apply_transform(image, params, transform.flags, None) == out).all()
    assert (transform.transform_matrix == torch.eye(3).expand(4, 3, 3)).all()


@every
@pytest.mark.parametrize("p", [0.0, 1.0])
@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5), (2, 3, 4, 5), (1, 1, 4, 5)])
def test_shapes(make: Callable[..., Any], p: float, shape: tuple[int, ...]) -> None:
    image = torch.rand(shape)
    full = (1,) * (4 - len(shape)) + shape
    out = make(p=p)(image)
    assert out.shape == full
    assert make(p=p, keepdim=True)(image).shape == shape
    assert (out != image).any() == (p == 1)


@every
def test_an_empty_batch_stays_empty(make: Callable[..., Any]) -> None:
    out, mask = _in_container(make())(torch.rand(0, 3, 16, 20), torch.rand(0, 1, 16, 20))
    assert out.shape == (0, 3, 16, 20)
    assert mask.shape == (0, 1, 16, 20)


@every
def test_a_mask_without_channels_or_of_truth_values(make: Callable[..., Any]) -> None:
    image, augment = torch.rand(2, 3, 16, 20, dtype=torch.float64), _in_container(make())
    for mask in (torch.zeros(2, 16, 20), torch.zeros(2, 1, 16, 20, dtype=torch.bool)):
        out, changed = augment(image, mask)
        assert changed.dtype == mask.dtype
        assert (changed.bool() == _changed(image, out)).all()


@every
def test_a_single_image_equals_a_batch_of_it(make: Callable[..., Any]) -> None:
    image, transform = torch.rand(3, 20, 24), make(keepdim=True)
    out = transform(image)
    assert (out == transform(image[None], params=transform._params)[0]).all()


@every
def test_each_image_of_a_batch_is_its_own(make: Callable[..., Any]) -> None:
    transform, image = make(), torch.rand(3, 3, 32, 28, dtype=torch.float64)
    out = transform(image)
    for index in range(3):
        one = {
            k: v[index : index + 1] for k, v in transform._params.items() if k != "forward_input_shape" and v.dim() > 0
        }
        # whatever the others are, but for the order of summation
        torch.testing.assert_close(make()(image[index : index + 1], params=one), out[index : index + 1])


@every
def test_a_dictionary(make: Callable[..., Any]) -> None:
    batch = {"image": torch.rand(2, 3, 32, 40, dtype=torch.float64), "mask": torch.zeros(2, 1, 32, 40)}
    out = AugmentationSequential(make(), data_keys=None)(batch)
    assert set(out) == {"image", "mask"}
    assert (_changed(batch["image"], out["image"]) == (out["mask"] == 1)).all()


@every
@pytest.mark.parametrize("layout", ["channels_last", "expanded", "transposed"])
def test_memory_layouts(make: Callable[..., Any], layout: str) -> None:
    image = torch.rand(3, 3, 24, 24)
    if layout == "channels_last":
        strided = image.to(memory_format=torch.channels_last)
    elif layout == "expanded":
        strided = image[:1].expand(3, 3, 24, 24)
    else:
        strided = image.transpose(2, 3)
    before, mask = strided.clone(), torch.zeros(1, 1, 24, 24).expand(3, 1, 24, 24)
    augment = _in_container(make())
    out = augment(strided, mask)
    expected = augment(before.contiguous(), mask.contiguous(), params=augment._params)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)
    assert (strided == before).all()
    assert (mask == 0).all()


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(make: Callable[..., Any], dtype: torch.dtype) -> None:
    image, mask, transform = torch.rand(4, 3, 64, 48).to(dtype), torch.zeros(4, 1, 64, 48, dtype=dtype), make()
    augment = _in_container(transform)
    out, changed = augment(image, mask)
    assert out.dtype == changed.dtype == dtype
    reference, footprint = augment(image.double(), mask.double(), params=augment._params)
    # a swap makes no colors
    eps = 0 if isinstance(transform, (RandomCutSwap, RandomCutSwapScar)) else 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(out.double(), reference, atol=eps, rtol=0)
    assert (changed.double() == footprint).all()


@every
def test_autocast_changes_nothing(make: Callable[..., Any]) -> None:
    image, mask = torch.rand(3, 3, 40, 30), torch.zeros(3, 1, 40, 30)
    augment = _in_container(make())
    plain = augment(image, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = augment(image, mask, params=augment._params)
    for one, other in zip(plain, inside, strict=True):
        assert one.dtype == other.dtype
        assert (one == other).all()


@every
@pytest.mark.parametrize("used", [False, True])
def test_copies_draw_the_same(make: Callable[..., Any], used: bool) -> None:
    image, transform = torch.rand(2, 3, 20, 24), make(p=0.5)
    if used:
        _in_container(transform)(image, torch.zeros(2, 1, 20, 24))
    fresh = make(p=0.5)
    fresh.load_state_dict(transform.state_dict())
    outs = []
    for each in (transform, fresh, copy.deepcopy(transform), pickle.loads(pickle.dumps(transform))):
        torch.manual_seed(3)
        outs.append(each(image))
    assert all((out == outs[0]).all() for out in outs)


@every
def test_to_moves_the_samplers(make: Callable[..., Any]) -> None:
    transform = _in_container(make()).to(torch.float64)
    parts = [part for part in transform.modules() if isinstance(part, RandomGeneratorBase)]
    assert parts
    assert all(part.dtype == torch.float64 for part in parts)
    drawn = transform[0].forward_parameters((2, 3, 20, 24)).values()
    assert {value.dtype for value in drawn if value.is_floating_point()} == {torch.float64}


@every
def test_repr_shows_the_settings(make: Callable[..., Any]) -> None:
    text = repr(make(p=0.25, same_on_batch=True))
    for name, value in {**make.keywords, "p": 0.25, "same_on_batch": True}.items():  # type: ignore[attr-defined]
        assert f"{name}={value}" in text


@every
def test_gradients(make: Callable[..., Any]) -> None:
    # away from the ends, where clamps would bind
    image = (0.35 + 0.3 * torch.rand(2, 3, 8, 7, dtype=torch.float64)).requires_grad_()
    transform = make()
    transform(image)
    params = transform._params
    # of different sizes: pixels are written repeatedly inside
    assert torch.autograd.gradcheck(lambda x: transform(x, params=params), (image,))


@every
def test_compiles_as_one_graph(make: Callable[..., Any]) -> None:
    image, mask = torch.rand(2, 3, 24, 32), torch.zeros(2, 1, 24, 32)
    torch._dynamo.reset()
    augment = _in_container(make())
    expected = augment(image, mask)
    drawn = augment._params
    # Kornia imports some of its own at their first use, which cannot be compiled
    augment(image, mask, params=drawn)
    out = torch.compile(augment, fullgraph=True, backend="eager")(image, mask, params=drawn)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)
    # what is drawn, too
    transform = make()
    compiled = torch.compile(transform, fullgraph=True, backend="eager")
    torch.manual_seed(1)
    first = compiled(image)
    # torch 2.10 loses most of what a compiled call writes into the dictionary that Kornia keeps; 2.14 does not
    if Version(torch.__version__) >= Version("2.14"):
        torch.testing.assert_close(first, transform(image, params=transform._params), rtol=0, atol=1e-6)
    torch.manual_seed(1)
    torch.testing.assert_close(first, transform(image), rtol=0, atol=1e-6)


def _collate(images: list[Tensor]) -> list[Tensor]:
    return [make()(torch.stack(images)) for make in MAKERS.values()]


@pytest.mark.parametrize("workers", [1, 2])
def test_one_seed_one_result_from_workers(workers: int) -> None:
    image = torch.rand(3, 16, 16)
    runs = []
    for _ in range(2):
        torch.manual_seed(5)
        loader = DataLoader([image] * 8, batch_size=2, num_workers=workers, collate_fn=_collate)
        runs.append(list(loader))
    torch.testing.assert_close(runs[0], runs[1], rtol=0, atol=0)
    # nor does one worker draw what another does
    for name, batches in zip(MAKERS, zip(*runs[0], strict=True), strict=True):
        assert len(torch.cat(batches).flatten(1).unique(dim=0)) > 6, name


@every
def test_a_container_composes(make: Callable[..., Any]) -> None:
    image, first, second = torch.rand(2, 3, 16, 20), make(), MAKERS["cut_paste"]()
    torch.manual_seed(0)
    expected = second(first(image))
    torch.manual_seed(0)
    sequence = AugmentationSequential(first, second)
    assert (sequence(image) == expected).all()
    assert (sequence.transform_matrix == torch.eye(3)).all()


def test_a_container_chooses_one_of_them() -> None:
    image, mask = torch.rand(2, 3, 24, 20, dtype=torch.float64), torch.zeros(2, 1, 24, 20)
    transforms = [make() for make in MAKERS.values()]
    augment = AugmentationSequential(*transforms, data_keys=["input", "mask"], random_apply=1)
    chosen = set()
    for _ in range(30):
        out, changed = augment(image, mask)
        assert (_changed(image, out) == (changed == 1)).all()
        chosen.add(augment._params[0].name)
    assert len(chosen) == len(transforms)


@every
def test_a_container_goes_before_and_behind(make: Callable[..., Any]) -> None:
    image, mask = torch.rand(2, 3, 16, 20, dtype=torch.float64), torch.zeros(2, 1, 16, 20)
    flips = RandomHorizontalFlip(p=1.0), RandomHorizontalFlip(p=1.0)
    out, changed = AugmentationSequential(flips[0], make(), flips[1], data_keys=["input", "mask"])(image, mask)
    assert (_changed(image, out) == (changed == 1)).all()


@every
def test_refusals_are_those_of_kornia(make: Callable[..., Any]) -> None:
    for wrong in (torch.rand(1, 2, 3, 8, 8), torch.rand(8), torch.zeros(2, 3, 8, 8, dtype=torch.uint8)):
        with pytest.raises((TypeError, ValueError, RuntimeError)) as kornias:
            RandomErasing(p=1.0)(wrong)
        with pytest.raises(kornias.type):
            make()(wrong)
    for p in (-0.1, 1.1):
        with pytest.raises(ValueError, match="`p` is a probability"):
            make(p=p)
