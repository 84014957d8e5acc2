"""One line for each thing, in Python: what a line makes is what the command of the same name makes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import timm
import torch
from anomalib.data import Visa

import anomalib_spd
from anomalib_spd import backbones
from anomalib_spd.benchmark import measure
from anomalib_spd.cli.main import main
from anomalib_spd.pretraining import SimSiamSPD
from tests.benchmark.grids import draw_images, small_grid, small_registry

STEPS = 2


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("one_line")
    draw_images(folder, "one")
    with small_registry(folder):
        yield folder


def weights(name: str) -> dict[str, torch.Tensor]:
    return dict(timm.create_model(name, pretrained=True).state_dict())


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_adapt_is_the_command(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = anomalib_spd.adapt(
        Visa(root, "one", num_workers=0), "of_python", backbone="small_a", folder=root / "runs", image_size=64,
        num_workers=0, holdout=0, max_steps=STEPS, accelerator="cpu",
    )  # fmt: skip
    assert made is not None
    assert 'Use it: Patchcore(backbone="of_python", layers=["blocks.2", "blocks.3"])' in capsys.readouterr().out
    args = [
        *(
            "adapt",
            "--data",
            "anomalib.data.Visa",
            "--data.root",
            str(root),
            "--data.category",
            "one",
            "--name",
            "of_command",
        ),
        *("--model.backbone", "small_a", "--folder", str(root / "runs"), "--image_size", "64", "--num_workers", "0"),
        *("--holdout", "0", "--trainer.max_steps", str(STEPS), "--trainer.accelerator", "cpu"),
    ]
    assert main(args) == 0
    assert_same(weights("of_python"), weights("of_command"))
    assert made.provenance.method == "CategoryAdaptation"
    settings = backbones.find("of_command").provenance.settings
    assert made.provenance.settings == settings
    # what was read and frozen by default is on record
    assert settings["layers"] == backbones.layers("small_a") == ["blocks.2", "blocks.3"]
    assert settings["frozen"] == ["conv_stem", "bn1", "blocks.0", "blocks.1"]
    trained = {key for key, value in weights("of_python").items() if not torch.equal(value, weights("small_a")[key])}
    assert trained
    assert all(key.startswith(("blocks.2", "blocks.3")) for key in trained)


@pytest.mark.parametrize(
    ("architecture", "layers", "frozen"),
    [
        ("efficientnet_lite0_in1k", ["blocks.2", "blocks.4"], ["conv_stem", "bn1", "blocks.0", "blocks.1"]),
        ("resnet18.tv_in1k", ["layer2", "layer3"], ["conv1", "bn1", "layer1"]),
        ("convnext_atto", ["stages.1", "stages.2"], ["stem", "stages.0"]),
        ("mobilenetv4_conv_small", ["blocks.1", "blocks.2"], ["conv_stem", "bn1", "blocks.0"]),
    ],
)
def test_layers_and_frozen_parts_by_default(architecture: str, layers: list[str], frozen: list[str]) -> None:
    training: Any = anomalib_spd.local.CategoryAdaptation(backbone=architecture, pretrained=False)
    assert backbones.layers(architecture) == training.hparams["layers"] == layers
    assert training.hparams["frozen"] == frozen


def test_pretrain_makes_a_backbone(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = root / "visa_pytorch/one/train/good"
    options = {"batch_size": 2, "num_workers": 0, "max_steps": STEPS, "accelerator": "cpu"}
    method = lambda: SimSiamSPD(backbone="small_a", image_size=32)  # noqa: E731
    made = anomalib_spd.pretrain(method, images, "of_line", folder=root / "pretrain", **options)
    assert made is not None
    assert made.provenance.method == "SimSiamSPD"
    assert made.usage in capsys.readouterr().out
    with pytest.raises(ValueError, match="'of_line'"):
        anomalib_spd.pretrain(method, images, "of_line", folder=root / "pretrain", **options)


def test_measure_returns_the_table(root: Path) -> None:
    grid = small_grid(root, categories={"one": None}, seeds=[0])
    del grid["detectors"]["PatchCore 0.1"]
    table = measure(grid, root / "grid", accelerator="cpu")
    assert isinstance(table, pd.DataFrame)
    assert list(table["backbone"]) == ["a", "b"]
    assert set(table["status"]) == {"done"}
    with pytest.raises(ValueError, match="no such file or recipe: benchmark/quik, did you mean"):
        measure("benchmark/quik", root / "grid")


def test_add_takes_what_is_in_memory(root: Path) -> None:
    network = timm.create_model("mobilenetv3_small_050")
    of_network = backbones.add("of_network", network)
    assert of_network.architecture == "mobilenetv3_small_050"
    backbones.add("of_tensors", network.state_dict(), "mobilenetv3_small_050")
    assert_same(weights("of_network"), weights("of_tensors"))
    with pytest.raises(ValueError, match="the tensors given does not say which network"):
        backbones.add("of_nothing", network.state_dict())
    with pytest.raises(ValueError, match="sha256 and key are of a checkpoint file"):
        backbones.add("of_sha", network, sha256="0" * 64)
