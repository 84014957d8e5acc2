"""A grid as its user meets it: cells are recorded as they end, errors too, and the other cells go on."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from anomalib_spd.backbones import remove
from anomalib_spd.benchmark import run as benchmark
from anomalib_spd.benchmark.grid import Grid
from anomalib_spd.benchmark.results import Cell, Result, read, read_table
from tests.benchmark.grids import Inline, add_to_registry, draw_images, small_grid, small_registry


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Images, and a registry with two backbones."""
    folder = tmp_path_factory.mktemp("grid")
    draw_images(folder, "one")
    draw_images(folder, "two", masks=False, seed=1)
    with small_registry(folder):
        yield folder


def measure(root: Path, results: Path, **changes: Any) -> tuple[benchmark.Outcome, dict[Cell, Result]]:
    outcome = benchmark.run(Grid(**small_grid(root, **changes)), results, Inline(), accelerator="cpu")
    return outcome, {result.cell: result for result in read(results)}


@pytest.fixture(scope="module")
def measured(root: Path) -> tuple[Path, dict[Cell, Result]]:
    """The whole of the small grid, once."""
    outcome, cells = measure(root, root / "measured")
    assert (outcome.measured, outcome.known, outcome.failed) == (16, 0, [])
    return root / "measured", cells


def test_every_cell_is_recorded_with_its_metadata(measured: tuple[Path, dict[Cell, Result]]) -> None:
    _, cells = measured
    assert len(cells) == 16
    record = cells[Cell("b", "PatchCore 0.1", "one", 1)].record
    assert set(record["metrics"]) == {
        *("image_AUROC", "image_AUPR_step", "image_AUPR_trapezoid", "image_F1Max"),
        *("pixel_AUROC", "pixel_AUPR_step", "pixel_AUPR_trapezoid", "pixel_F1Max", "pixel_AUPR_visa", "pixel_AUPRO"),
    }
    assert record["sizes"] == {
        **{"train_images": 6, "train_anomalous": 0, "test_normal": 4, "test_anomalous": 5},
        **{"image_size": [80, 80], "crop": [64, 64], "map": [64, 64], "coreset_sampling_ratio": 0.1},
    }
    assert record["backbone"]["name"] == "small_b"
    assert record["backbone"]["architecture"] == "test_efficientnet"
    assert record["published"] == {"dataset": "mvtec", "category": "one"}
    assert record["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert 0 < record["seconds"]["fit"] < record["seconds"]["total"]
    assert record["peak_memory_bytes"] > 100e6


def test_checksums_tell_backbones_and_images_apart(measured: tuple[Path, dict[Cell, Result]]) -> None:
    _, cells = measured
    weights = {(cell.backbone, result.record["backbone"]["weights_sha256"]) for cell, result in cells.items()}
    files = {(cell.category, result.record["files_sha256"]) for cell, result in cells.items()}
    for labelled in (weights, files):
        assert len(labelled) == 2
        assert len({checksum for _, checksum in labelled}) == 2
        assert all(len(str(checksum)) == 64 for _, checksum in labelled)


def test_the_table_of_runs_has_a_row_for_every_cell(measured: tuple[Path, dict[Cell, Result]]) -> None:
    folder, cells = measured
    table = read_table(folder / "runs.csv")
    assert len(table) == 16
    assert set(table["status"]) == {"done"}
    for row in table.to_dict("records"):
        result = cells[Cell(row["backbone"], row["detector"], row["category"], row["seed"])]
        assert {name: row[name] for name in result.metrics} == result.metrics
        assert row["sha256"] == result.record["backbone"]["weights_sha256"]
        assert row["image_size"] == "80x80"
        assert (row["test_normal"], row["test_anomalous"]) == (4, 5)


def test_image_level_only_where_there_are_no_masks(measured: tuple[Path, dict[Cell, Result]]) -> None:
    _, cells = measured
    result = cells[Cell("a", "PaDiM", "two", 0)]
    assert {name.partition("_")[0] for name in result.metrics} == {"image"}
    assert result.scores().pixel_positive.shape == (9, 0)


def test_the_same_cell_twice_gives_the_same_figures(
    root: Path, measured: tuple[Path, dict[Cell, Result]], tmp_path: Path
) -> None:
    # alone, so without the features of others, and other seeds before it
    _, cells = measured
    _, alone = measure(root, tmp_path, backbones={"b": "small_b"}, seeds=[1])
    for cell, result in alone.items():
        assert result.metrics == cells[cell].metrics
        assert (result.scores().image_score == cells[cell].scores().image_score).all()


def test_recorded_cells_are_not_measured_again(root: Path, measured: tuple[Path, dict[Cell, Result]]) -> None:
    results, cells = measured
    lost = Cell("a", "PaDiM", "one", 1)
    path = lost.folder(results) / "cell.json"
    metrics = cells[lost].metrics
    path.unlink()
    times = {str(file): file.stat().st_mtime_ns for file in results.rglob("cell.json")}
    outcome, again = measure(root, results)
    assert (outcome.measured, outcome.known) == (1, 15)
    assert again[lost].metrics == metrics
    assert times.items() <= {str(file): file.stat().st_mtime_ns for file in results.rglob("cell.json")}.items()


def test_a_detector_that_cannot_be_built_does_not_stop_the_others(
    root: Path, measured: tuple[Path, dict[Cell, Result]], tmp_path: Path
) -> None:
    good = small_grid(root)["detectors"]["PaDiM"]
    too_many = {**good, "init_args": {**good["init_args"], "n_features": 10_000}}
    outcome, cells = measure(
        root,
        tmp_path,
        backbones={"a": "small_a"},
        detectors={"too many": too_many, "PaDiM": good},
        seeds=[0],
        categories={"one": None},
    )
    assert outcome.measured == 1
    error = cells[Cell("a", "too many", "one", 0)].record["error"]
    assert "found 10000" in error["message"]
    assert "Traceback" in error["traceback"]
    assert {result.cell.detector for result in outcome.failed} == {"too many"}
    cell = Cell("a", "PaDiM", "one", 0)
    assert cells[cell].record["features_shared"]
    assert cells[cell].metrics == measured[1][cell].metrics


@pytest.mark.parametrize("file", ["train/good/001.JPG", "test/bad/002.JPG", "ground_truth/bad/003.png"])
def test_a_corrupt_image_is_named_and_failed_cells_are_tried_again(
    root: Path, own: Path, tmp_path: Path, file: str
) -> None:
    grid = {**drawn_splits(own), "backbones": {"a": "small_a"}, "seeds": [0]}
    grid["categories"]["one"]["init_args"].update(normal_test_dir="test/good", val_split_mode="same_as_test")
    content = (own / file).read_bytes()
    (own / file).write_bytes(content[: len(content) // 2])
    outcome, _ = measure(root, tmp_path / "results", **grid)
    (failed,) = outcome.failed
    message = failed.record["error"]["message"]
    assert re.fullmatch(r"1 of \d+ files cannot be read as images: .*; replace or remove them", message)
    assert str(own / file) in message
    (own / file).write_bytes(content)
    outcome, _ = measure(root, tmp_path / "results", **grid)
    assert (outcome.measured, outcome.failed) == (1, [])


def test_a_cell_without_scores_is_not_on_record(
    root: Path, measured: tuple[Path, dict[Cell, Result]], tmp_path: Path
) -> None:
    shutil.copytree(measured[0], tmp_path / "results")
    lost, cut = (Cell("a", "PaDiM", "one", seed).folder(tmp_path / "results") / "scores.npz" for seed in (0, 1))
    lost.unlink()
    cut.write_bytes(cut.read_bytes()[:500])
    assert len(list(read(tmp_path / "results"))) == 14
    outcome, cells = measure(root, tmp_path / "results")
    assert (outcome.measured, outcome.known) == (2, 14)
    assert {cell: result.metrics for cell, result in cells.items()} == {
        cell: result.metrics for cell, result in measured[1].items()
    }


def test_the_parts_take_no_longer_than_the_whole(measured: tuple[Path, dict[Cell, Result]]) -> None:
    shared = [result.record for result in measured[1].values() if result.record["features_shared"]]
    assert len(shared) == 16
    for record in shared:
        assert record["seconds"]["fit"] + record["seconds"]["inference"] <= record["seconds"]["total"]


def test_another_measurement_under_the_same_name_is_refused(root: Path, tmp_path: Path) -> None:
    grid = {"backbones": {"mine": "small_mine"}, "seeds": [0], "categories": {"one": None}}
    add_to_registry("small_mine", 8, tmp_path)
    measure(root, tmp_path / "results", **grid)

    detectors = json.loads(json.dumps(small_grid(root)["detectors"]))
    detectors["PaDiM"]["init_args"]["n_features"] = 11
    with pytest.raises(ValueError, match=r"mine / PaDiM / one / seed 0 .* with another config: give another folder"):
        measure(root, tmp_path / "results", **grid, detectors=detectors)

    remove("small_mine")
    add_to_registry("small_mine", 9, tmp_path)
    with pytest.raises(ValueError, match="with another backbone"):
        measure(root, tmp_path / "results", **grid)


def test_two_at_once_in_one_folder_are_refused(root: Path, tmp_path: Path) -> None:
    class Second(Inline):
        def submit(self, work: Any, /, *args: Any, **kwargs: Any) -> Any:
            with pytest.raises(ValueError, match="Another process runs a grid"):
                measure(root, tmp_path)
            return super().submit(work, *args, **kwargs)

    grid = Grid(**small_grid(root, seeds=[0], categories={"one": None}, backbones={"a": "small_a"}))
    assert benchmark.run(grid, tmp_path, Second(), accelerator="cpu").measured == 2


def drawn_splits(one: Path) -> dict[str, Any]:
    """A grid on the stock Folder as it comes: it draws its normal test images, and half of them for validation."""
    init_args = {
        "name": "one",
        "root": str(one),
        "normal_dir": "train/good",
        "abnormal_dir": "test/bad",
        "mask_dir": "ground_truth/bad",
        "test_split_ratio": 0.5,
        "num_workers": 0,
    }
    detectors = {"PaDiM": small_grid(one)["detectors"]["PaDiM"]}
    return {
        "categories": {"one": {"class_path": "anomalib.data.Folder", "init_args": init_args}},
        "detectors": detectors,
    }


def test_splits_are_drawn_once_for_all_cells_and_every_run(root: Path, own: Path, tmp_path: Path) -> None:
    outcome, cells = measure(root, tmp_path / "results", **drawn_splits(own))
    assert (outcome.measured, outcome.failed) == (4, [])
    lists = {tuple(result.scores().image_path) for result in cells.values()}
    assert len(lists) == 1
    torch.manual_seed(5)
    outcome, _ = measure(root, tmp_path / "results", **drawn_splits(own))
    assert (outcome.measured, outcome.known) == (0, 4)
    outcome, again = measure(root, tmp_path / "anew", **drawn_splits(own))
    assert {tuple(result.scores().image_path) for result in again.values()} == lists
    assert [each.metrics for each in again.values()] == [each.metrics for each in cells.values()]


def test_a_mask_that_was_redrawn_is_not_the_old_result(root: Path, own: Path, tmp_path: Path) -> None:
    grid = {**drawn_splits(own), "backbones": {"a": "small_a"}, "seeds": [0]}
    measure(root, tmp_path / "results", **grid)
    mask = own / "ground_truth/bad/000.png"
    before = mask.stat()
    mask.write_bytes((own / "ground_truth/bad/001.png").read_bytes())
    os.utime(mask, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ValueError, match="measured with another content of images or masks"):
        measure(root, tmp_path / "results", **grid)
