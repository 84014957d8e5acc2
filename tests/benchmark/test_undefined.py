"""What a test set cannot tell has no figure, no part in a mean, and a reason in the report."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from anomalib_spd.benchmark import run as benchmark
from anomalib_spd.benchmark.grid import Grid
from anomalib_spd.benchmark.results import Result, read, read_table
from anomalib_spd.cli.main import main
from tests.benchmark.grids import Inline, draw_images, small_grid, small_registry

SETS = {
    "whole": {},
    "blank": {"pixel": "no defective test pixel"},
    "full": {"pixel": "no normal test pixel", "image": "no normal test image"},
    "no normal": {"image": "no normal test image"},
    "no anomalous": {"image": "no anomalous test image"},  # and no masks
}


def folder(place: Path, name: str) -> dict[str, Any]:
    """Draw a set that lacks something, and return its data module."""
    draw_images(place / name, "one")
    one = place / name / "visa_pytorch/one"
    if name in ("blank", "full"):
        for path in (one / "ground_truth/bad").iterdir():
            Image.new("L", (64, 64), 255 * (name == "full")).save(path)
    init_args = {
        "name": name,
        "root": str(one),
        "normal_dir": "train/good",
        "normal_test_dir": "test/good",
        "abnormal_dir": "test/bad",
        "mask_dir": "ground_truth/bad",
        "val_split_mode": "none",
        "num_workers": 0,
    }
    if name in ("no normal", "full"):
        init_args["test_split_mode"] = "none"  # which leaves out the normal images
    if name == "no anomalous":
        shutil.rmtree(one / "test/bad")
        (one / "test/bad").mkdir()
        del init_args["abnormal_dir"], init_args["mask_dir"]
    return {"class_path": "anomalib.data.Folder", "init_args": init_args}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Result]]]:
    """Every set, measured by one detector."""
    place = tmp_path_factory.mktemp("undefined")
    with small_registry(place):
        detectors = {"PaDiM": small_grid(place)["detectors"]["PaDiM"]}
        grid = small_grid(
            place, detectors=detectors, categories={name: folder(place, name) for name in SETS}, seeds=[0]
        )
        outcome = benchmark.run(Grid(**grid), place / "results", Inline(), accelerator="cpu")
        assert outcome.failed == []
        results = {each.cell.category: each for each in read(place / "results") if each.cell.backbone == "a"}
        assert main(["report", str(place / "results")]) == 0
        yield place / "results", results


@pytest.mark.parametrize("name", SETS)
def test_undefined_metrics_have_a_reason_and_no_value(measured: tuple[Path, dict[str, Result]], name: str) -> None:
    result = measured[1][name]
    assert result.record.get("undefined", {}) == SETS[name]
    levels = {metric.partition("_")[0] for metric in result.metrics}
    assert levels == {"image", "pixel"} - set(SETS[name]) - ({"pixel"} if name == "no anomalous" else set())


def test_tables_have_empty_cells_with_the_reason(measured: tuple[Path, dict[str, Result]]) -> None:
    runs = read_table(measured[0] / "runs.csv").set_index(["backbone", "category"]).loc["a"]
    for name, reasons in SETS.items():
        for level in ("image", "pixel") if name != "no anomalous" else ("image",):
            for metric in ("AUROC", "AUPR_step", "AUPR_trapezoid", "F1Max"):
                assert runs.loc[[name], f"{level}_{metric}"].isna().all() == (level in reasons)
        assert runs.loc[[name], "pixel_AUPRO"].isna().all() == (name not in ("whole", "no normal"))
        assert [reason for reason in reasons.values() if reason not in str(runs["undefined"][name])] == []


def test_they_are_left_out_of_means_and_said_in_the_report(measured: tuple[Path, dict[str, Result]]) -> None:
    means = read_table(measured[0] / "report/means.csv", ()).set_index(["backbone", "metric", "category"])
    assert means["categories"]["a", "pixel_AUPRO", "mean"] == "whole, no normal"
    assert means["categories"]["a", "image_AUROC", "mean"] == "whole, blank"
    text = (measured[0] / "report/report.md").read_text()
    assert "Undefined metrics" in text
    assert "| blank | pixel | no defective test pixel | 2 |" in text
    assert "nan" not in text.replace("nano", "")
