"""The recipes of the papers' tables: each is complete once its images and backbones are there, and one is run."""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from anomalib.data.datasets.image.mvtecad import CATEGORIES as MVTEC
from anomalib.data.datasets.image.visa import CATEGORIES as VISA
from PIL import Image

from anomalib_spd.backbones import add, register
from anomalib_spd.cli.benchmark import grid_of, parse
from anomalib_spd.cli.main import main
from anomalib_spd.config_files import recipe_names
from tests.benchmark.grids import write_config

RECIPES = [name for name in recipe_names() if name.startswith(("benchmark/cutswap", "benchmark/spd"))]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Small images in the layouts of both data sets, and small networks under the names of those that SPD pre-trains."""
    folder = tmp_path_factory.mktemp("papers")
    draw_mvtec(folder / "mvtec")
    draw_visa(folder / "visa")
    names = {name for recipe in RECIPES if "spd" in recipe for name in backbones_of(recipe)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANOMALIB_SPD_HOME", str(folder / "registry"))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            torch.save(timm.create_model("test_resnet").state_dict(), folder / "small.pth")
        for name in (*names, "small_resnet"):
            add(name, folder / "small.pth", "test_resnet")
        yield folder
    register()


def backbones_of(recipe: str) -> set[str]:
    grid = grid_of(parse(["--config", recipe]))
    return {grid.name(label) for label in grid.backbones}


def draw(path: Path, seed: int, spot: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(90, 160, (32, 32, 3), dtype=np.uint8)
    if spot:
        pixels[8:16, 8:16] = 255
    Image.fromarray(pixels).save(path)


def draw_mask(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((32, 32), np.uint8)
    mask[8:16, 8:16] = 255
    Image.fromarray(mask).save(path)


def draw_mvtec(root: Path) -> None:
    for category in MVTEC:
        for number in range(2):
            draw(root / category / f"train/good/{number:03}.png", number)
        draw(root / category / "test/good/000.png", 2)
        draw(root / category / "test/broken/000.png", 3, spot=True)
        draw_mask(root / category / "ground_truth/broken/000_mask.png")


def draw_visa(root: Path) -> None:
    """Draw VisA as it is downloaded: 12 training and 2 test images of either label a category, split alike in all protocols."""
    rows = [["object", "split", "label", "image", "mask"]]
    for category in VISA:
        for label in ("Normal", "Anomaly"):
            for number in range(14):
                image = f"{category}/Data/Images/{label}/{number:03}.JPG"
                draw(root / image, number, spot=label == "Anomaly")
                mask = f"{category}/Data/Masks/Anomaly/{number:03}.png" if label == "Anomaly" else ""
                if mask:
                    draw_mask(root / mask)
                rows.append([category, "train" if number < 12 else "test", label.lower(), image, mask])
    (root / "split_csv").mkdir()
    for protocol in ("1cls", "2cls_highshot", "2cls_fewshot"):
        with (root / f"split_csv/{protocol}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)


def root_of(recipe: str) -> str:
    return "visa" if "visa" in recipe else "mvtec"


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_complete_with_its_images_and_backbones(
    recipe: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    root = home / root_of(recipe)
    assert main(["benchmark", "--config", recipe, "--data.root", str(root), "--dry-run"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    grid = grid_of(parse(["--config", recipe]))
    assert f"{len(grid.cells())} cells: 0 on record" in printed.out
    trained = {name.format(seed=seed) for name in backbones_of(recipe) if "{seed}" in name for seed in grid.seeds}
    assert ("cutswap" in recipe) == bool(trained)
    assert all(name in printed.out.rpartition("fine-tuned first: ")[2] for name in trained)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("recipe", "dry"),
    [
        *((recipe, ["--dry-run"]) for recipe in RECIPES),
        ("benchmark/cutswap_mvtec", []),
        ("benchmark/spd_visa_2cls_fewshot", []),
    ],
)
def test_a_missing_folder_is_said_once_and_nothing_is_downloaded(
    recipe: str,
    dry: list[str],
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for module in ("anomalib.data.datamodules.image.mvtecad", "anomalib.data.datamodules.image.visa"):
        monkeypatch.setattr(f"{module}.download_and_extract", pytest.fail)
    monkeypatch.setattr("anomalib_spd.twoclass.visa.download_and_extract", pytest.fail)
    assert main(["benchmark", "--config", recipe, *dry]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    folder = {"mvtec": "datasets/MVTecAD", "visa": "datasets/visa"}[root_of(recipe)]
    assert line.startswith(
        f"error: The folder of images {folder} does not exist. Give another with --data.root, or make it"
    )
    assert not list(tmp_path.iterdir())


def test_tables_of_cutswap_from_their_recipe_to_the_report(home: Path, tmp_path: Path) -> None:
    """One category, one seed, a small network and two steps; all else is the recipe's."""
    tiny = {
        "model.backbone": "small_resnet",
        "model.classifier": "efficientnet_lite0_in1k",
        "model.layers": None,
        "model.frozen_steps": 1,
        "model.saliency_cache": str(tmp_path / "maps"),
        "trainer.max_steps": 2,
        "trainer.precision": "32-true",
        **{"batch_size": 2, "image_size": 32, "num_workers": 0},
    }
    config = {
        "backbones": {
            "base": {"backbone": "small_resnet"},
            "CutPaste": {"backbone": "small_cutpaste_{seed}", "finetune": tiny},
            "CutSwap": {"backbone": "small_cutswap_{seed}", "finetune": tiny},
        },
        "detectors": {"STPM": {"trainer": {"max_epochs": 1}}},
        "data": {"init_args": {"num_workers": 0}},
    }
    overlay, results = str(write_config(tmp_path / "tiny.yaml", config)), str(tmp_path / "results")
    files = ["--config", "benchmark/cutswap_mvtec", "--config", overlay, "--results", results]
    less = ["--categories", "{bottle: }", "--seeds", "[0]", "--accelerator", "cpu"]
    assert main(["benchmark", *files, *less, "--data.root", str(home / "mvtec")]) == 0
    assert main(["report", results]) == 0
    report = (tmp_path / "results/report/report.md").read_text()
    assert "7 of 7 cells measured" in report
    tables = ("I", "II")
    for table in tables:
        columns = [f"{ours} (here) | {theirs} (CutSwap paper, table {table})" for ours, theirs in PAIRS.items()]
        assert f"| {' | '.join(columns)} |" in report
    assert "| base (here) | STPM (CutSwap paper, table II) |" in report
    # of a detector that is measured with one backbone, there are no rows of others
    stpm = report.partition("## STPM\n")[2].partition("## How")[0]
    assert "| bottle | base | 1 | " in stpm
    assert "CutPaste" not in stpm.partition("beside the papers")[0]


PAIRS = {"base": "ResNet-18", "CutPaste": "CutPaste", "CutSwap": "CutSwap"}
