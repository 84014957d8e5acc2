"""A grid is checked before its first cell: all that is wrong is said at once, a line each."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from anomalib.data import MVTecAD
from PIL import Image

from anomalib_spd.benchmark import run as benchmark
from anomalib_spd.benchmark.grid import Grid
from anomalib_spd.benchmark.results import Cell, read
from anomalib_spd.cli.benchmark import default_threads
from anomalib_spd.cli.main import main
from tests.benchmark.grids import Inline, draw_images, small_grid, small_registry, write_config


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Images, and a registry with two backbones."""
    folder = tmp_path_factory.mktemp("checks")
    draw_images(folder, "one")
    draw_images(folder, "two", masks=False, seed=1)
    with small_registry(folder):
        yield folder


def test_everything_wrong_is_said_at_once(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MVTecAD, "prepare_data", lambda self: pytest.fail("there is nothing to download"))
    grid = json.loads(json.dumps(small_grid(root)))
    grid["backbones"] = {"a": "smal_a", "b": {"backbone": "small_b", "finetun": {}}, "c": "resnet18.tv_in2k"}
    grid["detectors"]["PaDiM"]["init_args"]["layers"] = ["blocks.1", "block.2"]
    grid["detectors"]["PatchCore 0.1"]["init_arg"] = {}
    grid["detectors"]["PatchCore 0.1"]["init_args"]["neighbours"] = 3
    grid["categories"] = {
        "one": {"init_arg": {}},
        "two": {
            **grid["categories"]["two"],
            "init_args": {**grid["categories"]["two"]["init_args"], "root": "nowhere"},
        },
        "bottel": {"class_path": "anomalib.data.MVTecAD", "init_args": {"root": str(tmp_path), "category": "bottel"}},
        "three": None,
    }
    path = write_config(tmp_path / "grid.yaml", grid)
    assert main(["benchmark", "--config", str(path), "--results", str(tmp_path / "results")]) == 1
    lines = capsys.readouterr().err.splitlines()
    expected = [
        "error: backbones: b: unknown key 'finetun', did you mean 'finetune'?",
        "error: detectors: PatchCore 0.1: unknown key 'init_arg', did you mean 'init_args'?",
        "error: categories: one: unknown key 'init_arg', did you mean 'init_args'?",
        "error: detectors: PatchCore 0.1: anomalib_spd.detectors.FastPatchcore: ",
        "error: backbones: a: neither the registry nor timm has 'smal_a', did you mean 'small_a'?",
        "error: backbones: c: timm has no 'resnet18.tv_in2k', did you mean 'resnet18.tv_in1k'?",
        "error: detectors: PaDiM: Backbone 'small_b' has no layer 'block.2', did you mean 'blocks.2'?",
        "error: categories: two: ",
        "error: categories: bottel: MVTecAD has no category 'bottel', did you mean 'bottle'?",
        "error: categories: three: Visa has no category 'three'",
    ]
    assert all(line.startswith("error: ") for line in lines)
    for start in expected:
        assert any(line.startswith(start) for line in lines), (start, lines)
    assert not (tmp_path / "results").exists()


def test_recipes_are_checked_too(root: Path, tmp_path: Path) -> None:
    entry = {"backbone": "made_{category}", "finetune": {"config": "finetune/cutswap.yaml", "model.cluster_number": 1}}
    other = {"backbone": "made_all", "finetune": {"config": "nowhere.yaml", "per": "dataset"}}
    grid = Grid(**small_grid(root, backbones={"a": entry, "b": other}, seeds=[0]))
    with pytest.raises(
        ValueError, match=r"made_one: .*cluster_number.*\n(.*\n)*.*made_all: nowhere.yaml: no such file"
    ):
        benchmark.run(grid, tmp_path, Inline(), accelerator="cpu")


def test_one_backbone_of_all_categories(root: Path) -> None:
    entry = {"backbone": "made_all_{seed}", "finetune": {"config": "finetune/cutswap.yaml", "per": "dataset"}}
    grid = Grid(**small_grid(root, backbones={"a": entry}))
    trainings = grid.trainings()
    assert list(trainings) == ["made_all_0", "made_all_1"]
    assert [each["class_path"] for each in trainings["made_all_1"]["data"]] == [
        "anomalib.data.Visa",
        "anomalib.data.Folder",
    ]
    del entry["finetune"]["per"]
    with pytest.raises(ValueError, match=r"would be made in several ways.*or one made per: dataset"):
        Grid(**small_grid(root, backbones={"a": entry})).trainings()


def test_detectors_without_a_backbone_stand_in_a_grid(root: Path, tmp_path: Path) -> None:
    detectors = {
        "DRAEM": {"class_path": "anomalib.models.Draem", "trainer": {"max_steps": 1}},
        "Dinomaly": {"class_path": "anomalib.models.Dinomaly"},
        "own": {"class_path": "anomalib.models.Dinomaly", "init_args": {"encoder_name": "vit_small_patch14_dinov2"}},
        "UniNet": {"class_path": "anomalib.models.UniNet"},
    }
    grid = Grid(
        **small_grid(root, detectors=detectors, backbones={"a": "small_a"}, seeds=[0], categories={"one": None})
    )
    given = {name: grid.model_config(Cell("a", name, "one", 0))["init_args"] for name in detectors}
    assert given == {
        "DRAEM": {},
        "Dinomaly": {"encoder_name": "small_a"},
        "own": {"encoder_name": "vit_small_patch14_dinov2"},
        "UniNet": {"teacher_backbone": "small_a"},
    }


@pytest.mark.slow
def test_a_detector_without_a_backbone_is_measured_beside_others(root: Path, tmp_path: Path) -> None:
    draem = {"class_path": "anomalib.models.Draem", "trainer": {"max_steps": 1}}
    resize = {"class_path": "torchvision.transforms.v2.Resize", "init_args": {"size": [32, 32]}}
    pre_processor = {"class_path": "anomalib.pre_processing.PreProcessor", "init_args": {"transform": resize}}
    # of textures, which anomalib downloads where there are none
    (tmp_path / "dtd").mkdir()
    Image.new("RGB", (32, 32), (90, 60, 30)).save(tmp_path / "dtd" / "brown.jpg")
    arguments = {"pre_processor": pre_processor, "dtd_dir": str(tmp_path / "dtd")}
    one = {**small_grid(root)["detectors"], "DRAEM": {**draem, "init_args": arguments}}
    grid = Grid(**small_grid(root, detectors=one, backbones={"a": "small_a"}, seeds=[0], categories={"one": None}))
    outcome = benchmark.run(grid, tmp_path / "results", Inline(), accelerator="cpu")
    assert [each.record["error"] for each in outcome.failed] == []
    assert outcome.measured == 3
    record = next(each.record for each in read(tmp_path / "results") if each.cell.detector == "DRAEM")
    assert record["backbone"] == {"name": None, "architecture": None, "weights_sha256": None}
    assert record["config"]["trainer"] == {"max_steps": 1}
    assert next(each.record for each in read(tmp_path / "results") if each.cell.detector == "PaDiM")["features_shared"]


@pytest.mark.parametrize("label", [".", "..", "...", "x" * 300, "a/b", ""])
@pytest.mark.parametrize("axis", ["backbones", "detectors", "categories"])
def test_labels_that_are_no_folders_are_refused(root: Path, axis: str, label: str) -> None:
    grid: dict[str, Any] = small_grid(root)
    grid[axis] = {label: next(iter(grid[axis].values()))}
    with pytest.raises(ValueError, match="cannot be the name of a folder"):
        Grid(**grid)


def test_threads_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(6)), raising=False)
    assert [default_threads(workers) for workers in (1, 2, 4, 9)] == [6, 3, 1, 1]
    for given, threads in (("3", 3), ("2,1", 2), ("", 6), ("0", 6), ("x", 6)):
        monkeypatch.setenv("OMP_NUM_THREADS", given)
        assert default_threads(1) == threads


@pytest.mark.parametrize(
    ("given", "meant"), [("benchmrk", "benchmark"), ("reports", "report"), ("finetuen", "finetune"), ("trian", "train")]
)
def test_a_misspelt_command_is_said(given: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([given, "--help"])
    error = capsys.readouterr().err
    assert f"there is no command {given!r}, did you mean {meant!r}?" in error
    assert "Traceback" not in error
