"""Parts in forms that runtimes compute sooner: torchvision and stock anomalib are the oracles."""

import pytest
import torch
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode

from anomalib_spd.deploy.exportable import ExportablePatchcore, ResizeByProducts


@pytest.mark.parametrize("kind", [InterpolationMode.BILINEAR, InterpolationMode.BICUBIC])
@pytest.mark.parametrize("shape", [(48, 48), (30, 70), (200, 131), (49, 3), (1, 1)])
def test_resizes_as_torchvision(kind: InterpolationMode, shape: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *shape)
    expected = v2.functional.resize(images, [48, 40], interpolation=kind, antialias=True)
    torch.testing.assert_close(ResizeByProducts((48, 40), kind)(images), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("neighbors", [1, 5])
@pytest.mark.parametrize("points", [3, 400])
def test_patchcore_is_stocks(neighbors: int, points: int) -> None:
    stock = PatchcoreModel(["layer1", "layer2"], "test_resnet", pre_trained=False, num_neighbors=neighbors).eval()
    images = torch.randn(3, 3, 64, 96)
    stock.train()
    bank = stock(images)
    stock.eval()
    stock.memory_bank = bank[torch.randperm(len(bank))[:points]] + 0.1 * torch.randn(points, bank.shape[1])
    found, expected = ExportablePatchcore.of(stock)(images), stock(images)
    torch.testing.assert_close(found.pred_score, expected.pred_score, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.anomaly_map, expected.anomaly_map, rtol=1e-4, atol=1e-5)
