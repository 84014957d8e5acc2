"""Weights that are not on this machine and cannot be downloaded: every command names them."""

from pathlib import Path

import pytest

from anomalib_spd.cli.main import main
from tests.benchmark.grids import draw_images

ABSENT = "resnet18.a1_in1k"


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No download is tried, which would take a minute to fail; the variable of the environment is read at import."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.parametrize(
    "command",
    [
        "pretrain --config pretrain/simsiam_spd --data.root {images} --model.backbone {backbone}",
        "finetune --config finetune/cutswap --data anomalib.data.Visa --data.root {root} --data.category one --model.backbone {backbone} --name mine",
        "finetune --config finetune/cutswap --data anomalib.data.Visa --data.root {root} --data.category one --model.classifier {backbone} --name mine",
        "finetune --config finetune/adapt --data anomalib.data.Visa --data.root {root} --data.category one "
        "--model.backbone {backbone} --model.layers [layer2,layer3] --model.frozen [conv1] --name mine",
        "twoclass --config twoclass/classifier_small --model.backbone {backbone}",
        "twoclass --config twoclass/segmenter_small --model.backbone {backbone}",
    ],
)
def test_they_are_named(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_images(tmp_path, "one")
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    images = tmp_path / "visa_pytorch/one/train/good"
    assert main(command.format(root=tmp_path, images=images, backbone=ABSENT).split()) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert f"The weights of '{ABSENT}' are not on this machine" in line
    assert "anomalib-spd backbones add" in line
    assert not list(empty.iterdir())


def test_layers_are_checked_before_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    draw_images(tmp_path, "one")
    wrong = ["--model.backbone", ABSENT, "--model.layers", "[layer2,layer9]", "--name", "mine"]
    data = ["--data", "anomalib.data.Visa", "--data.root", str(tmp_path), "--data.category", "one"]
    assert main(["finetune", "--config", "finetune/adapt", *data, *wrong]) == 1
    assert f"Backbone '{ABSENT}' has no layer 'layer9'" in capsys.readouterr().err
