"""Parts in forms that runtimes compute sooner: torchvision and stock anomalib are the oracles."""

from pathlib import Path

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode

from anomalib_spd.deploy.detector import load
from anomalib_spd.deploy.export import Exporter
from anomalib_spd.deploy.exportable import ResizeByProducts
from tests.conftest import reloads_checkpoints

pytestmark = reloads_checkpoints


@pytest.mark.parametrize("kind", [InterpolationMode.BILINEAR, InterpolationMode.BICUBIC])
@pytest.mark.parametrize("shape", [(48, 48), (30, 70), (200, 131), (49, 3), (1, 1)])
def test_resizes_as_torchvision(kind: InterpolationMode, shape: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *shape)
    expected = v2.functional.resize(images, [48, 40], interpolation=kind, antialias=True)
    torch.testing.assert_close(ResizeByProducts((48, 40), kind)(images), expected, rtol=0, atol=1e-5)


def test_a_torch_file_is_stocks_whatever_was_exported_before(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    exporter = Exporter(load(checkpoint, "Patchcore"), tmp_path, tmp_path / "scratch")
    exporter.export("onnx")
    assert b"anomalib_spd" not in exporter.export("torch").read_bytes()
