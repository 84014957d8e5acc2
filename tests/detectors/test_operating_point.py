"""The card of a threshold: through stock anomalib, from good images alone, and what it says is what the detector does."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.cli.cli import AnomalibCLI
from anomalib.engine import Engine
from anomalib.metrics import F1AdaptiveThreshold
from anomalib.models import Padim
from anomalib.post_processing import PostProcessor
from PIL import Image

from anomalib_spd.cli.main import main
from anomalib_spd.config_files import find_config
from anomalib_spd.data import SyntheticValidation
from anomalib_spd.detectors.operating_point import JSON, PAGE, OperatingPoint, describe, page
from anomalib_spd.detectors.pre_processing import BackbonePreProcessor
from tests.data.sets import visa


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """Sixteen good images, and nothing else."""
    (tmp_path / "parts/good").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(16):
        Image.fromarray(rng.integers(90, 110, (64, 64, 3), np.uint8)).save(tmp_path / f"parts/good/{number:03d}.png")
    return tmp_path / "parts"


def padim(**arguments: Any) -> Padim:
    size = BackbonePreProcessor(image_size=(64, 64))
    settings: dict[str, Any] = {"backbone": "small_a", "layers": ["blocks.1"], "n_features": 8, "pre_processor": size}
    return Padim(**settings, visualizer=False, evaluator=False, **arguments)


def engine(folder: Path, callback: OperatingPoint) -> Engine:
    return Engine(default_root_dir=folder, callbacks=[callback], accelerator="cpu", logger=False)


def test_the_recipe_chooses_a_threshold_from_good_images_alone(
    good: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = ["--model.backbone", "small_a", "--model.layers", "[blocks.1, blocks.2]"]
    data = ["--data.datamodule.init_args.root", str(good), "--data.datamodule.init_args.num_workers", "0"]
    cli = AnomalibCLI(["train", "--config", str(find_config("patchcore_threshold")), *model, *data])
    card = json.loads(next((tmp_path / "results").rglob(JSON)).read_text())
    model, data = cli.model.eval(), cli.datamodule
    assert (len(data.train_data), len(data.val_data), card["good_images"]) == (11, 5, 2)
    assert card["image_threshold"] == pytest.approx(float(model.post_processor.image_threshold))
    images = torch.stack([item.image for item in map(data.val_data.without_defects().__getitem__, range(2))])
    with torch.inference_mode():
        alarms = int(model(images).pred_label.sum())
    assert card["false_alarms"] == alarms
    assert not card["chosen_on_these_images"]
    # the threshold is stock anomalib's choice on the drawn defects
    items = [data.val_data[index] for index in range(5)]
    with torch.inference_mode():
        scores = [model.model(model.pre_processor(item.image[None])).pred_score for item in items]
    metric = F1AdaptiveThreshold(fields=["pred_score", "gt_label"])
    metric.update(
        SimpleNamespace(pred_score=torch.cat(scores), gt_label=torch.stack([item.gt_label for item in items]))
    )
    assert card["image_threshold"] == pytest.approx(float(metric.compute()), rel=1e-3)


def test_the_sensitivity_counts_and_the_folder_may_be_chosen(root: Path, home: Path, tmp_path: Path) -> None:
    found = []
    for sensitivity in (0.5, 1.0):
        processor = PostProcessor(image_sensitivity=sensitivity)
        data = SyntheticValidation(visa(root, val_split_mode="none"), holdout=0.6)
        folder = tmp_path / str(sensitivity)
        engine(tmp_path, OperatingPoint(folder, [2])).fit(padim(post_processor=processor), datamodule=data)
        assert sorted(path.name for path in folder.iterdir()) == [JSON, PAGE]
        found.append(json.loads((folder / JSON).read_text()))
    assert found[0]["false_alarms"] < found[1]["false_alarms"] == found[1]["good_images"]
    assert found[1]["good_images_needed"] == {"2": 1497}


def test_other_data_say_that_the_threshold_was_chosen_on_these_images(root: Path, home: Path, tmp_path: Path) -> None:
    engine(tmp_path, OperatingPoint(tmp_path / "card")).fit(padim(), datamodule=visa(root))
    card = json.loads((tmp_path / "card" / JSON).read_text())
    assert card["chosen_on_these_images"]
    assert card["good_images"] == 4
    assert "chosen on these same images" in (tmp_path / "card" / PAGE).read_text()


def test_without_a_threshold_nothing_is_trained(root: Path, home: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^OperatingPoint needs a threshold, and Padim has none: [^\n]*$"):
        engine(tmp_path, OperatingPoint()).fit(padim(post_processor=False), datamodule=visa(root))


@pytest.mark.parametrize("promise", [0, 1000, -1])
def test_promises_out_of_range(promise: float) -> None:
    with pytest.raises(ValueError, match="above 0 and below 1000"):
        OperatingPoint(promises=[promise])


def test_the_page_says_what_the_count_is_worth() -> None:
    base = {"image_threshold": 3.0, "pixel_threshold": None, "image_sensitivity": 0.5, "pixel_sensitivity": 0.5}
    text = page({**base, "chosen_on_these_images": False, **describe(1, 100, [5])})
    assert "| false alarms | 1 of 100 good images |" in text
    assert "10.0 [0.3, 54.5], 95% confidence" in text
    assert "| 5 | 598 |" in text
    assert "| pixel threshold (raw score) | none |" in text


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--data.fraction=1", "`fraction` is a share above 0 and below 1: "),
        (
            '--data.defects=[{"class_path": "kornia.augmentation.RandomErasing"}]',
            "RandomErasing returns no mask of what it changed ",
        ),
        ("--data.holdout=0.9", "parts has 3 normal training images, too few to hold some out for validation: "),
    ],
)
def test_bad_input_is_one_line_before_the_work(
    option: str,
    message: str,
    good: Path,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for path in sorted((good / "good").iterdir())[3:]:
        path.unlink()
    monkeypatch.chdir(tmp_path)
    root = ["--data.datamodule.init_args.root", str(good), "--data.datamodule.init_args.num_workers", "0"]
    model = ["--model.backbone", "small_a", "--model.layers", "[blocks.1, blocks.2]"]
    assert main(["fit", "--config", "patchcore_threshold", *model, *root, option]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {message}")
