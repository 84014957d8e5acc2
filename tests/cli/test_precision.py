"""Every precision of Lightning's works in every training, or is refused before the first step."""

from pathlib import Path
from typing import Any

import pytest

from anomalib_spd.cli.main import main
from tests.cli import test_twoclass
from tests.finetuning.small import MEMORY, RECIPE, finetune
from tests.pretraining.test_resume import arguments

PRECISIONS = ["16-mixed", "bf16-true", "64-true", "16-true"]

two_class_root = test_twoclass.root


def refused(error: str, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {error}")
    assert not list(folder.rglob("*.ckpt"))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("method", ["supervised", "dense"])
def test_pre_training(
    precision: str, method: str, labelled_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ("--trainer.max_epochs", "1", "--trainer.precision", precision)
    status = main([*arguments(labelled_images, tmp_path, method, 0), *short])
    assert status == (precision == "16-true")
    if status:
        refused("In --trainer.precision 16-true losses overflow: give 16-mixed", capsys, tmp_path)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("recipe", [RECIPE, MEMORY])
def test_fine_tuning(
    precision: str, recipe: Path, root: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, short = tmp_path / "runs", ("--trainer.max_steps", "3", "--trainer.precision", precision)
    status = finetune(root, runs, "x", *short, recipe=recipe)
    assert status == (precision == "16-true")
    if status:
        refused("In --trainer.precision 16-true losses overflow: give 16-mixed", capsys, runs)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("model", ["Segmenter", "Classifier"])
def test_two_class_track(
    precision: str, model: str, two_class_root: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = test_twoclass.config(two_class_root, tmp_path / "run", model)
    status = test_twoclass.run(content, tmp_path / "config.yaml", "--trainer.precision", precision)
    assert status == (precision != "16-mixed")
    if status:
        refused(
            f"A 2-class run takes --trainer.precision 32-true, 16-mixed or bf16-mixed. Got {precision}",
            capsys,
            tmp_path,
        )
