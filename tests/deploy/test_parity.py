"""Every detector and every format: what is exported scores like what was trained, on images of any form, or it is said why not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from anomalib_spd import detectors
from anomalib_spd.deploy import runtimes
from anomalib_spd.deploy.detector import load
from anomalib_spd.deploy.export import SUFFIXES, Exporter
from tests.benchmark.grids import LAYERS
from tests.conftest import reloads_checkpoints
from tests.deploy.conftest import Train

pytestmark = reloads_checkpoints

SIZE = 48
#: batch, height and width: the network's size, of another form, larger, several at a time
SHAPES = {"as trained": (1, SIZE, SIZE), "not square": (1, 30, 70), "larger": (1, 200, 130), "three": (3, 64, 64)}
FORMATS = ("torch", "onnx", "openvino")
#: of scores and maps in [0, 1]
TOLERANCE = 1e-4

Expected = Callable[[NDArray[np.float32]], Any]


def images_of(name: str) -> NDArray[np.float32]:
    made = torch.rand(SHAPES[name], generator=torch.Generator().manual_seed(0))
    gray = torch.nn.functional.avg_pool2d(made, 3, 1, 1)[:, None]
    return gray.expand(-1, 3, -1, -1).contiguous().numpy()  # a gray photograph, as it is read


def trained(detector: Any) -> Expected:
    """Return what Lightning does with images, without its loop."""

    @torch.inference_mode()
    def expected(images: NDArray[np.float32]) -> Any:
        transformed = detector.pre_processor.transform(torch.from_numpy(images))
        return detector.post_processor(detector.model(transformed))

    return expected


def differences(score: runtimes.Scorer, expected: Expected, shape: str) -> list[float]:
    images = images_of(shape)
    found, wanted = score(images), expected(images)._asdict()
    names = [name for name in ("pred_score", "anomaly_map") if wanted[name] is not None]
    assert names
    return [float(np.abs(found[name].reshape(-1) - wanted[name].numpy().reshape(-1)).max()) for name in names]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", FORMATS)
def test_patchcore(name: str, shape: str, deployed: Path, checkpoint: Path) -> None:
    score = runtimes.scorer(name, deployed / "weights" / name / f"model{SUFFIXES[name]}", 1)
    if shape == "three" and name != "torch":
        # see docs/upstream.md: anomalib's own would take exactly two
        with pytest.raises(Exception, match=r"[Ii]nvalid dimensions|incompatible"):
            score(images_of(shape))
    else:
        assert max(differences(score, trained(load(checkpoint, "Patchcore")), shape)) < TOLERANCE


#: arguments of detectors on ``small_a``
TABLE: dict[str, dict[str, Any]] = {
    "FastPatchcore": {"layers": LAYERS, "coreset_sampling_ratio": 0.1},
    "Padim": {"layers": LAYERS, "n_features": 10},
    "Stfpm": {"layers": LAYERS},
    "Cfa": {"layers": LAYERS, "gamma_d": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("detector", TABLE)
def test_detectors(detector: str, train: Train, tmp_path: Path) -> None:
    checkpoint = train(detector, backbone="small_a", **TABLE[detector])
    name = f"anomalib_spd.detectors.{detector}" if hasattr(detectors, detector) else detector
    (tmp_path / "scratch").mkdir()
    exporter = Exporter(load(checkpoint, name), tmp_path / "made", tmp_path / "scratch")
    expected = trained(load(checkpoint, name))
    for each in FORMATS:
        score = runtimes.scorer(each, exporter.export(each), 1)
        for shape in [*SHAPES] if each == "torch" else [*SHAPES][:3]:
            assert max(differences(score, expected, shape)) < TOLERANCE, (each, shape)
