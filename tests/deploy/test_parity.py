"""Every detector and every format: what is exported scores like what was trained, on images of any form, or it is said why not."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import anomalib.models
import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray

from anomalib_spd import detectors
from anomalib_spd.backbones import add
from anomalib_spd.deploy import runtimes
from anomalib_spd.deploy.detector import load
from anomalib_spd.deploy.export import SUFFIXES, Exporter
from tests.benchmark.grids import LAYERS
from tests.conftest import reloads_checkpoints
from tests.deploy.conftest import Train

pytestmark = reloads_checkpoints

SIZE = 48
#: has what detectors look for in a name, "vit", "dino" and the size
TRANSFORMER = "vit_small_dino_spd"
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


#: arguments of the detectors that take a network by name, on ``small_a``
TABLE: dict[str, dict[str, Any]] = {
    "FastPatchcore": {"layers": LAYERS, "coreset_sampling_ratio": 0.1},
    "Cfa": {"layers": LAYERS, "gamma_d": 2},
    "Cflow": {"layers": LAYERS, "coupling_blocks": 1},
    "Dfkde": {"layers": ["blocks.4"], "n_pca_components": 2},
    "Dfm": {"layer": "blocks.2"},
    "Fastflow": {"layers": LAYERS, "flow_steps": 1},
    "Fre": {"layer": "blocks.2", "input_dim": 32 * 3**2},
    "Glass": {"layers": LAYERS, "input_shape": (SIZE, SIZE)},
    "MHPatchcore": {"layers": LAYERS},
    "Padim": {"layers": LAYERS, "n_features": 10},
    # on random maps, its normalization makes much of rounding
    "Patchflow": {"backbone": "efficientnet_lite0_in1k"},
    "Stfpm": {"layers": LAYERS},
    "Supersimplenet": {"layers": LAYERS},
    "Uflow": {"layers": LAYERS, "flow_steps": 1},
}
#: those that take a transformer
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "AnomalyDINO": {"encoder_name": TRANSFORMER},
    "Dinomaly": {"encoder_name": TRANSFORMER},
    "GeneralAD": {"backbone": TRANSFORMER, "layers": [12], "hidden_dim": 64, "epochs": 1},
    "InpFormer": {"encoder_name": TRANSFORMER},
    "Rad": {"backbone": TRANSFORMER, "layers": [3, 6]},
    "SuperADD": {"backbone": TRANSFORMER, "layers": [3, 6], "patch_size": 224},
}
#: detector and format -> how what is exported fails; docs/results/deploy.md has the reasons
FAULTS = {
    ("MHPatchcore", "openvino"): "scores differ",
    ("GeneralAD", "torch"): "_forward",
}


@pytest.mark.slow
@pytest.mark.parametrize("detector", TABLE)
def test_detectors(detector: str, train: Train, tmp_path: Path) -> None:
    made: Any = getattr(detectors, detector, None) or getattr(anomalib.models, detector)
    # this one crops 224 x 224 pixels in any case
    own = {"pre_processor": made.configure_pre_processor((256, 256))} if detector == "MHPatchcore" else {}
    hold(detector, train(detector, **{"backbone": "small_a", **TABLE[detector], **own}), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("detector", TRANSFORMERS)
def test_detectors_of_transformers(detector: str, transformer: None, train: Train, tmp_path: Path) -> None:
    size = 224 if detector == "SuperADD" else 112
    hold(detector, train(detector, size=size, batch=1, **TRANSFORMERS[detector]), tmp_path)


@pytest.mark.slow
def test_a_detector_without_maps(train: Train, tmp_path: Path) -> None:
    """Of which OpenVINO names the score after the operation that makes it, too."""
    hold("Ganomaly", train("Ganomaly", n_features=8, latent_vec_size=10), tmp_path)


def hold(detector: str, checkpoint: Path, folder: Path) -> None:
    """Hold every format to what was trained."""
    name = f"anomalib_spd.detectors.{detector}" if hasattr(detectors, detector) else detector
    (folder / "scratch").mkdir()
    exporter = Exporter(load(checkpoint, name), folder / "made", folder / "scratch")
    expected = trained(load(checkpoint, name))
    for each in FORMATS:
        fault = FAULTS.get((detector, each))
        with pytest.raises(Exception, match=fault) if fault else nullcontext():
            score = runtimes.scorer(each, exporter.export(each), 1)
            for shape in [*SHAPES] if each == "torch" else [*SHAPES][:3]:
                if max(differences(score, expected, shape)) > TOLERANCE:
                    raise ValueError(f"scores differ: {each}, {shape} {differences(score, expected, shape)}")


@pytest.fixture(scope="module")
def transformer(images: Path) -> None:
    """A random vision transformer, in the registry of the small networks."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        half = (0.5, 0.5, 0.5)
        add(TRANSFORMER, timm.create_model("vit_small_patch16_224"), "vit_small_patch16_224", mean=half, std=half)
