"""A grid that makes its backbones: missing ones are trained, registered ones are not, errors are logged."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anomalib_spd import backbones
from anomalib_spd.benchmark import run as benchmark
from anomalib_spd.benchmark.grid import Grid
from anomalib_spd.benchmark.results import read
from anomalib_spd.benchmark.runners import Processes, Runner
from anomalib_spd.benchmark.trainings import full_recipe
from tests.benchmark.grids import Inline, draw_images, small_grid, small_registry, write_config


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """Images, a registry, and a recipe of fine-tuning."""
    draw_images(tmp_path, "one")
    draw_images(tmp_path, "two", masks=False, seed=1)
    recipe = {
        "model": {
            "class_path": "anomalib_spd.finetuning.PatchClassification",
            "init_args": {"backbone": "small_a", "operation": "paste", "frozen_steps": 1},
        },
        "trainer": {"max_steps": 3, "max_epochs": -1, "enable_progress_bar": False},
        **{"batch_size": 4, "image_size": 32, "num_workers": 0},
    }
    write_config(tmp_path / "recipe.yaml", recipe)
    with small_registry(tmp_path):
        yield tmp_path


def measure(root: Path, runner: Runner, name: str = "tuned_{category}_{seed}", **options: Any) -> tuple[Any, list[str]]:
    entry = {"backbone": name, "finetune": {"config": str(root / "recipe.yaml"), **options}}
    content = small_grid(root, backbones={"base": "small_a", "tuned": entry})
    del content["detectors"]["PaDiM"]
    lines: list[str] = []
    outcome = benchmark.run(Grid(**content), root / "results", runner, accelerator="cpu", log=lines.append)
    return outcome, lines


def test_missing_backbones_are_made_and_measured_and_registered_ones_stay(root: Path) -> None:
    outcome, lines = measure(root, Processes(2))
    assert (outcome.measured, outcome.known, outcome.failed) == (8, 0, [])
    names = [f"tuned_{category}_{seed}" for category in ("one", "two") for seed in (0, 1)]
    assert sorted(line.rpartition(" ")[2] for line in lines) == names
    weights = {name: backbones.find(name).provenance.sha256 for name in names}
    assert len({*weights.values(), backbones.find("small_a").provenance.sha256}) == 5
    for result in read(root / "results"):
        name = result.record["backbone"]["name"]
        assert name == (
            f"tuned_{result.cell.category}_{result.cell.seed}" if result.cell.backbone == "tuned" else "small_a"
        )
        assert result.record["backbone"]["weights_sha256"] == backbones.find(name).provenance.sha256

    # a lost one alone is made again, with the same bits, so that its cells stay too
    backbones.remove("tuned_two_1")
    (root / "results" / "finetune" / "tuned_two_1" / "checkpoints" / "last.ckpt").unlink()
    outcome, lines = measure(root, Inline())
    assert (outcome.measured, outcome.known, lines) == (0, 8, ["1 of 1 trainings: tuned_two_1"])
    assert {name: backbones.find(name).provenance.sha256 for name in names} == weights


def test_a_training_that_fails_is_logged_and_the_others_go_on(root: Path) -> None:
    outcome, lines = measure(root, Processes(1), **{"model.learning_rate": 1e30})
    assert outcome.measured == 4
    assert {result.cell.backbone for result in outcome.failed} == {"tuned"}
    assert {result.record["error"]["message"].partition(" (")[0] for result in outcome.failed} == {"Unknown model"}
    log = root / "results" / "finetune" / "tuned_one_0.txt"
    assert lines[0] == f"1 of 4 trainings: tuned_one_0 failed, see {log}"
    assert "The loss is" in log.read_text()


def test_a_backbone_that_was_made_otherwise_is_refused(root: Path) -> None:
    backbones.export("small_b", root / "exported")
    backbones.add("tuned_one_0", root / "exported")
    with pytest.raises(ValueError, match="'tuned_one_0' is registered, but was not made as the grid says"):
        measure(root, Inline())


def test_one_name_is_made_in_one_way(root: Path) -> None:
    with pytest.raises(ValueError, match="'tuned_one' would be made in several ways"):
        measure(root, Inline(), name="tuned_{category}")


def test_a_recipe_is_a_file_with_values_replaced(root: Path) -> None:
    options = {"config": str(root / "recipe.yaml"), "model.operation": "swap", "trainer.max_steps": 5, "batch_size": 8}
    recipe = full_recipe({**options, "seed_everything": 3}, "tuned")
    assert recipe["model"]["init_args"] == {"backbone": "small_a", "operation": "swap", "frozen_steps": 1}
    assert recipe["trainer"]["max_steps"] == 5
    assert (recipe["batch_size"], recipe["image_size"], recipe["seed_everything"]) == (8, 32, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model.operations": "paste"}, "tuned: .*PatchClassification: .*'operations'"),
        ({"bach_size": 3}, "tuned: a training has no bach_size; expected some of batch_size, "),
    ],
)
def test_a_recipe_is_checked_before_anything_runs(root: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        full_recipe({"config": str(root / "recipe.yaml"), **options}, "tuned")
