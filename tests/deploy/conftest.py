"""A small detector, trained in seconds on a dozen small images."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anomalib.models
import numpy as np
import pytest
from anomalib.data import Visa
from anomalib.engine import Engine
from lightning.pytorch import seed_everything
from PIL import Image

from anomalib_spd import detectors
from anomalib_spd.cli.main import main
from anomalib_spd.deploy import measure
from anomalib_spd.detectors.pre_processing import BackbonePreProcessor
from tests.benchmark.grids import LAYERS, draw_images, small_registry


@pytest.fixture(scope="package", autouse=True)
def _few_runs() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "_TIMED", 2)
        patch.setattr(measure, "_ROUNDS", 2)
        yield


#: name of a detector, its arguments -> the checkpoint of a run
Train = Callable[..., Path]


@pytest.fixture(scope="package")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Images in VisA's layout: most are RGB of 64 x 64 px, two test images are gray, and of another form."""
    root = tmp_path_factory.mktemp("deploy")
    draw_images(root, "one")
    test = root / "visa_pytorch/one/test"
    with (
        Image.open(test / "bad/001.JPG") as file,
        Image.open(root / "visa_pytorch/one/ground_truth/bad/001.png") as mask,
    ):
        file.resize((100, 90)).save(test / "bad/001.JPG")
        mask.resize((100, 90), Image.Resampling.NEAREST).save(root / "visa_pytorch/one/ground_truth/bad/001.png")
    gray = np.random.default_rng(0).integers(90, 160, (70, 120), dtype=np.uint8)
    Image.fromarray(gray).save(test / "good/001.JPG")
    with small_registry(root):
        yield root


def data_of(root: Path, batch: int = 6) -> Visa:
    return Visa(root, "one", train_batch_size=batch, eval_batch_size=1, num_workers=0)


@pytest.fixture(scope="package")
def train(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Train:
    def trained(name: str = "Patchcore", size: int = 48, batch: int = 6, **arguments: Any) -> Path:
        seed_everything(0, verbose=False)
        made: Any = getattr(detectors, name, None) or getattr(anomalib.models, name)
        detector = made(**{"pre_processor": BackbonePreProcessor(size), "visualizer": False, **arguments})
        engine = Engine(
            default_root_dir=tmp_path_factory.mktemp(name),
            accelerator="cpu",
            devices=1,
            max_epochs=1,
            logger=False,
            enable_progress_bar=False,
        )
        engine.fit(detector, datamodule=data_of(images, batch))
        return Path(engine.trainer.checkpoint_callback.best_model_path)

    return trained


@pytest.fixture(scope="package")
def checkpoint(train: Train) -> Path:
    return train(backbone="small_a", layers=LAYERS, coreset_sampling_ratio=0.1)


def command(checkpoint: Path, images: Path, output: Path, *more: str) -> list[str]:
    data = [
        "--data",
        "anomalib.data.Visa",
        "--data.root",
        str(images),
        "--data.category",
        "one",
        "--data.num_workers",
        "0",
    ]
    return ["deploy", "--ckpt_path", str(checkpoint), *data, "--output", str(output), *more]


@pytest.fixture(scope="package")
def deployed(checkpoint: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("deployed") / "folder"
    assert main([*command(checkpoint, images, output, "--model", "Patchcore"), "--debug"]) == 0
    return output
