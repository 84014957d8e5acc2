"""Every detector and every format: what is exported scores like what was trained, on images of any form, or it is said why not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from anomalib_spd.deploy import runtimes
from anomalib_spd.deploy.detector import load
from anomalib_spd.deploy.export import Exporter
from tests.benchmark.grids import LAYERS
from tests.conftest import reloads_checkpoints
from tests.deploy.conftest import Train

pytestmark = reloads_checkpoints

SIZE = 48
#: batch, height and width: the network's size, of another form, larger, several at a time
SHAPES = {"as trained": (1, SIZE, SIZE), "not square": (1, 30, 70), "larger": (1, 200, 130), "three": (3, 64, 64)}
FORMATS = ("torch", "onnx", "openvino")


def images_of(name: str) -> NDArray[np.float32]:
    made = torch.rand(SHAPES[name], generator=torch.Generator().manual_seed(0))
    gray = torch.nn.functional.avg_pool2d(made, 3, 1, 1)[:, None]
    return gray.expand(-1, 3, -1, -1).contiguous().numpy()  # a gray photograph, as it is read


def exported(checkpoint: Path, name: str, folder: Path) -> Any:
    (folder / "scratch").mkdir()
    exporter = Exporter(load(checkpoint, name), folder / "made", folder / "scratch")
    detector: Any = load(checkpoint, name)

    @torch.inference_mode()
    def expected(images: NDArray[np.float32]) -> Any:
        """As Lightning does it, without its loop."""
        transformed = detector.pre_processor.transform(torch.from_numpy(images))
        return detector.post_processor(detector.model(transformed))

    return exporter, expected


def differences(score: runtimes.Scorer, expected: Any, shape: str) -> list[float]:
    images = images_of(shape)
    found, wanted = score(images), expected(images)._asdict()
    names = [name for name in ("pred_score", "anomaly_map") if wanted[name] is not None]
    assert names
    return [float(np.abs(found[name].reshape(-1) - wanted[name].numpy().reshape(-1)).max()) for name in names]
