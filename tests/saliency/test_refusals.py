"""What LayerCAM cannot use is refused, with what was given and what is expected; the model stays as it was."""

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from anomalib_spd.saliency import LayerCAM, TopK
from tests.saliency.classifiers import CLASSES, count_hooks, small_classifier, some_images


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["layer9"], r"ResNet has no layer 'layer9'. Near it: layer"),
        (["layer1", "features.4"], "has no layer 'features.4'"),
        ([], "`layers` is one name at least"),
        (["layer1", "layer1"], "none twice"),
    ],
)
def test_impossible_layers_are_refused(layers: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LayerCAM(torchvision.models.resnet18(weights=None), layers)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), r"Got torch.uint8 \(2, 3, 8, 8\); scale"),
        (torch.zeros(3, 8, 8), r"images \(B, C, H, W\).* Got torch.float32 \(3, 8, 8\)"),
    ],
)
def test_other_images_are_refused(images: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LayerCAM(small_classifier(), ["0"])(images)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (CLASSES, r"class from 0 to 9. Got 10"),
        (-1, r"class from 0 to 9. Got -1"),
        (torch.tensor([0, 1, 10]), r"class from 0 to 9. Got \[0, 1, 10\]"),
        (torch.tensor([0, 1]), r"int64 \(3,\).* Got torch.int64 \(2,\)"),
        (torch.zeros(3, 1, dtype=torch.int64), r"Got torch.int64 \(3, 1\)"),
        (torch.zeros(3), r"Got torch.float32 \(3,\)"),
        (True, "Got torch.bool"),
        ("top5", r"TopK\(k\). Got 'top5'"),
        (TopK(0), "1 to 10 logits, .* Got 0"),
        (TopK(11), "1 to 10 logits, .* Got 11"),
    ],
)
def test_impossible_targets_are_refused(target: Any, message: str) -> None:
    model = small_classifier()
    with pytest.raises(ValueError, match=message):
        LayerCAM(model, ["0"])(some_images(), target)
    assert count_hooks(model) == 0


class _Odd(nn.Module):
    """One layer for each way in which a layer can be of no use."""

    def __init__(self, returns: str = "logits") -> None:
        super().__init__()
        self.body = small_classifier()
        self.twice = nn.Identity()
        self.never = nn.Identity()
        self.beside = nn.Conv2d(3, 2, 1)
        self.pair = _Pair()
        self.returns = returns

    def forward(self, images: Tensor) -> Any:
        self.beside(images)
        self.pair(images)
        logits = self.body(self.twice(self.twice(images)))
        return {"logits": logits, "detached": logits.detach(), "pair": (logits, logits), "maps": logits[..., None]}[
            self.returns
        ]


class _Pair(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images, images


@pytest.mark.parametrize(
    ("layer", "returns", "message"),
    [
        ("body.6", "logits", r"Layer 'body.6' returned torch.float32 \(3, 32\), expected floating \(B, K, u, v\)"),
        ("pair", "logits", "Layer 'pair' returned tuple"),
        ("twice", "logits", "runs layer 'twice' twice"),
        ("never", "logits", r"did not reach \['never'\]"),
        ("beside", "logits", "do not depend on layer 'beside'"),
        ("body.0", "detached", "do not depend on layer 'body.0'"),
        ("body.0", "pair", r"returned tuple, expected logits \(3, classes\)"),
        ("body.0", "maps", r"returned \(3, 10, 1\), expected logits \(3, classes\)"),
    ],
)
def test_layers_and_models_of_no_use_are_refused(layer: str, returns: str, message: str) -> None:
    model = _Odd(returns)
    with pytest.raises(ValueError, match=message):
        LayerCAM(model, [layer, "body.3"])(some_images())
    assert count_hooks(model) == 0
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
