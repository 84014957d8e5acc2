"""Folding foreign statistics: the network sees what it saw, wherever no zero padding is in reach."""

from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomalib_spd.backbones import fold_input_statistics
from anomalib_spd.backbones.normalization import IMAGENET_MEAN, IMAGENET_STD

MEAN, STD = (0.5, 0.4, 0.3), (0.5, 0.25, 1.0)


def normalized(images: Tensor, mean: Any, std: Any) -> Tensor:
    return (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def smooth_images(size: int, count: int = 2) -> Tensor:
    """Images that are random but smooth, like photographs, in [0, 1]."""
    coarse = torch.rand(count, 3, size // 16, size // 16, generator=torch.Generator().manual_seed(0))
    return F.interpolate(coarse, size, mode="bicubic").clamp(0, 1)


def check(original: nn.Module, folded: nn.Module, mean: Any, std: Any, margins: dict[int, int], size: int) -> None:
    """Compare feature maps but for a margin, in cells, of what the zero padding of the first convolution reaches."""
    images = smooth_images(size)
    with torch.no_grad():
        expected = original.eval().forward_intermediates(normalized(images, mean, std), intermediates_only=True)
        found = folded.eval().forward_intermediates(
            normalized(images, IMAGENET_MEAN, IMAGENET_STD), intermediates_only=True
        )
    compared = 0
    for e, f in zip(expected, found, strict=True):
        margin = margins.get(size // e.shape[-1])
        if margin is None:
            continue
        inner = (..., slice(margin, e.shape[-2] - margin), slice(margin, e.shape[-1] - margin))
        assert e[inner].shape[-1] >= 4
        assert e[inner].std() > 1e-3
        torch.testing.assert_close(f[inner], e[inner], atol=1e-4 * float(e.abs().max()), rtol=0)
        compared += 1
    assert compared == len(margins)


# margins by stride: half the receptive field of the maps, in cells of the maps
CASES: dict[str, dict[int, int]] = {
    "resnet18": {2: 2, 4: 6, 8: 7, 16: 8},
    "resnet10t": {2: 3, 4: 4, 8: 4, 16: 5},  # deep stem
    "test_resnet": {2: 3, 4: 4, 8: 6},
    "test_efficientnet": {2: 3, 4: 5, 8: 6, 16: 7},
    "tf_efficientnet_lite0": {2: 3, 4: 5, 8: 6, 16: 12},  # "same" padding
    "test_convnext": {},  # its first convolution pads nothing
    "test_vit": {},
}


@pytest.mark.parametrize("architecture", [name for name, margins in CASES.items() if margins])
def test_outputs_agree(architecture: str, make_model: Any) -> None:
    original, folded = make_model(architecture), make_model(architecture)
    fold_input_statistics(folded, MEAN, STD)
    check(original, folded, MEAN, STD, CASES[architecture], size=512)


@pytest.mark.parametrize("architecture", [name for name, margins in CASES.items() if not margins])
def test_bias_takes_the_constant(architecture: str, make_model: Any) -> None:
    """Without padding the two agree to the last layer."""
    original, folded = make_model(architecture), make_model(architecture)
    fold_input_statistics(folded, MEAN, STD)
    images = smooth_images(original.pretrained_cfg["input_size"][-1])
    with torch.no_grad():
        expected = original(normalized(images, MEAN, STD))
        found = folded(normalized(images, IMAGENET_MEAN, IMAGENET_STD))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_only_the_first_layer_is_touched(make_model: Any) -> None:
    for training in (True, False):
        model = make_model("resnet10t").train(training)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        fold_input_statistics(model, MEAN, STD)
        changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
        assert changed == {"conv1.0.weight", "conv1.1.running_mean"}
        assert model.training is training
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_own_statistics_change_nothing(make_model: Any) -> None:
    model = make_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fold_input_statistics(model, IMAGENET_MEAN, IMAGENET_STD)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype, make_model: Any) -> None:
    model, exact = make_model().to(dtype), make_model()
    fold_input_statistics(model, MEAN, STD)
    fold_input_statistics(exact, MEAN, STD)
    assert model.conv_stem.weight.dtype == model.bn1.running_mean.dtype == dtype
    torch.testing.assert_close(model.conv_stem.weight.float(), exact.conv_stem.weight, atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(model.bn1.running_mean.float(), exact.bn1.running_mean, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("test_efficientnet_gn", "no bias and no batch norm behind it"),
        ("test_nfnet", "'stem.conv1' is ScaledStdConv2d, expected one plain Conv2d"),
        ("mobileone_s0", "expected one plain Conv2d"),  # several branches read the image
    ],
)
def test_networks_that_cannot_take_them(architecture: str, message: str) -> None:
    model = timm.create_model(architecture)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=f"Cannot fold input statistics into .*{message}"):
        fold_input_statistics(model, MEAN, STD)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((0.5, 0.5), STD, "Expected 3 means and 3 positive"),
        (MEAN, (0.5, 0.5, 0.0), "positive"),
        (MEAN, (0.5, 0.5, -1.0), "positive"),
        ((0.5, 0.5, float("nan")), STD, "Expected 3 means"),
        (MEAN, (0.5, 0.5, float("inf")), "positive"),
        ((123.7, 116.3, 103.5), (58.4, 57.1, 57.4), r"images in \[0, 1\], got .*Divide by 255"),
    ],
)
def test_statistics_that_are_none(mean: Any, std: Any, message: str, make_model: Any) -> None:
    with pytest.raises(ValueError, match=message):
        fold_input_statistics(make_model(), mean, std)
