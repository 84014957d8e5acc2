"""Batch norm folded into convolutions: the same maps, with fewer layers."""

import pytest
import timm
import torch
from anomalib.models.components.feature_extractors import TimmFeatureExtractor
from torch import Tensor, nn

from anomalib_spd.detectors import FastPatchcore
from anomalib_spd.detectors.folding import fold_batch_norm
from tests.conftest import MakeModel


def _norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


class _Maps(nn.Module):
    """The maps of a network by layer."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {str(number): each for number, each in enumerate(self.network(images))}


@pytest.mark.parametrize(
    ("architecture", "left"),
    [
        ("test_efficientnet", 0),
        ("test_resnet", 0),
        ("mobilenetv3_small_050", 0),
        ("regnetx_002", 0),
        # batch norm before the convolution: only those inside a layer and behind the stem follow one
        ("densenet121", 62),
    ],
)
def test_maps_are_the_same(architecture: str, left: int, make_model: MakeModel) -> None:
    network = _Maps(make_model(architecture, features_only=True))
    images = torch.randn(2, 3, 64, 96)
    folded = fold_batch_norm(network, images)
    assert _norms(network) > _norms(folded) == left
    for other in (images, torch.randn(1, 3, 128, 64)):
        for layer, expected in network(other).items():
            torch.testing.assert_close(
                folded(other)[layer], expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max())
            )


class _Forks(nn.Module):
    """A network in which batch norm is not all that takes the output of a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.norm.running_mean = torch.ones(4)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.convolution(images)
        return {"0": self.norm(maps) + maps}


class _Repeats(nn.Module):
    """A network that uses one convolution twice."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"0": self.convolution(self.norm(self.convolution(images)))}


@pytest.mark.parametrize("make", [_Forks, _Repeats, lambda: _Maps(timm.create_model("test_vit", features_only=True))])
def test_what_cannot_be_folded_stays(make: type[nn.Module]) -> None:
    network = make().eval()
    images = torch.randn(1, 3, 160, 160)
    folded = fold_batch_norm(network, images)
    assert _norms(folded) == _norms(network)
    for layer, expected in network(images).items():
        torch.testing.assert_close(folded(images)[layer], expected)


def test_the_detector_folds_anew_where_its_backbone_has_changed() -> None:
    model = FastPatchcore(backbone="efficientnet_lite0_spd", layers=["blocks.2"], num_neighbors=1).eval().model
    stock = TimmFeatureExtractor("efficientnet_lite0_in1k", layers=["blocks.2"])
    model.memory_bank = torch.randn(20, 40)
    images = torch.randn(1, 3, 64, 64)
    before, keys = model(images).anomaly_map, [*model.state_dict()]
    assert torch.equal(model(images).anomaly_map, before)
    model.feature_extractor.load_state_dict(stock.state_dict())
    after = model(images).anomaly_map
    assert not torch.allclose(after, before, rtol=1e-2)
    assert [*model.state_dict()] == keys
    expected = FastPatchcore(backbone="efficientnet_lite0_in1k", layers=["blocks.2"], num_neighbors=1).eval().model
    expected.memory_bank = model.memory_bank
    torch.testing.assert_close(after, expected(images).anomaly_map)
