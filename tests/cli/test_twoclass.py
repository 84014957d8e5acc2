"""``anomalib-spd twoclass`` from outside: it learns, it resumes where it was stopped, and it records what it did."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from anomalib_spd.benchmark.results import Cell, read_record
from anomalib_spd.cli.main import main
from anomalib_spd.config_files import SHIPPED
from tests.benchmark.grids import draw_images, small_registry

pytest.importorskip("segmentation_models_pytorch", reason="needs the extra [twoclass]")
RECIPES = sorted(f"twoclass/{path.name}" for path in (SHIPPED / "twoclass").iterdir())
MODELS = {
    "Segmenter": {"architecture_args": {"decoder_channels": [16, 16, 8, 8, 8]}, "focal_alpha": 0.75},
    "Classifier": {},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("command")
    draw_images(folder, "one")
    with small_registry(folder):
        yield folder


def config(root: Path, folder: Path, model: str = "Segmenter", data: Any = None, **changes: Any) -> dict[str, Any]:
    """The content of a file in ``anomalib_spd/configs/twoclass``, for images of 64 px."""
    pre_processor = {
        "class_path": "anomalib_spd.detectors.pre_processing.BackbonePreProcessor",
        "init_args": {"image_size": [64, 64]},
    }
    stock = {"class_path": "anomalib.data.Visa", "init_args": {"root": str(root), "category": "one"}}
    init_args = {"backbone": "small_a", "steps": 6, "learning_rate": 0.003, "pre_processor": pre_processor}
    return {
        "seed_everything": 0,
        "model": {
            "class_path": f"anomalib_spd.twoclass.{model}",
            "init_args": {**init_args, **MODELS[model], **changes},
        },
        "data": {
            "class_path": "anomalib_spd.twoclass.TwoClass",
            "init_args": {"datamodule": stock, "train_batch_size": 4, "num_workers": 0, **(data or {})},
        },
        "trainer": {"accelerator": "cpu", "default_root_dir": str(folder), "log_every_n_steps": 1},
        "checkpoint": {"every_n_train_steps": 3},
    }


def run(content: dict[str, Any], file: Path, *more: str) -> int:
    file.write_text(yaml.safe_dump(content))
    return main(["twoclass", "--config", str(file), *more])


def weights(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    state = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]
    return {key: value for key, value in state.items() if key.startswith("model.")}


@pytest.mark.parametrize("model", MODELS)
def test_one_command_trains_tests_and_leaves_all_results(
    root: Path, tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert run(config(root, folder, model), tmp_path / "a.yaml") == 0

    result = read_record(folder / "cell.json")
    assert result.cell == Cell("small_a", model, "one", 0)
    assert result.done
    assert {"image_AUROC", "image_AUPR_step", "pixel_AUPR_visa", "pixel_AUPR_step"} <= result.metrics.keys()
    # 10 normal and 5 defective images: 60 % are trained on
    assert result.record["sizes"]["train_images"] == 9
    assert result.record["sizes"]["train_anomalous"] == 3
    assert len(result.scores().image_score) == 6
    with (folder / "log" / "version_0" / "metrics.csv").open() as file:
        losses = [row["train_loss"] for row in csv.DictReader(file) if row["train_loss"]]
    assert len(losses) == 6
    assert list((folder / "log" / "version_0").glob("events.out.tfevents.*"))
    assert (folder / "checkpoints" / "last.ckpt").is_file()
    heatmaps = [path for path in (folder / "images").rglob("*") if path.is_file()]
    assert len(heatmaps) == 6
    assert Image.open(heatmaps[0]).size[0] > 256
    out = capsys.readouterr().out
    assert f"image AU-ROC: {result.metrics['image_AUROC']:.3f}" in out
    assert str(folder / "cell.json") in out


def test_training_finds_the_defects(root: Path, tmp_path: Path) -> None:
    # bright squares on noise; the control is a network after one step
    figures = []
    for steps in (1, 120):
        folder = tmp_path / str(steps)
        assert run(config(root, folder, steps=steps), tmp_path / "a.yaml") == 0
        figures.append(read_record(folder / "cell.json").metrics["pixel_AUPR_step"])
    assert figures[1] > max(0.5, 2 * figures[0])


def test_a_seed_repeats_a_run_and_another_does_not(root: Path, tmp_path: Path) -> None:
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert run(config(root, tmp_path / name), tmp_path / "a.yaml", "--seed_everything", seed) == 0
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not all(torch.equal(a[key], c[key]) for key in a)


def test_an_interrupted_run_resumes_from_its_checkpoint(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    content = config(root, folder)

    content["trainer"]["callbacks"] = [{"class_path": "tests.stopping.Stopping", "init_args": {"step": 4}}]
    with pytest.raises(RuntimeError, match="power cut"):
        run(content, tmp_path / "a.yaml")
    assert not (folder / "cell.json").exists()
    del content["trainer"]["callbacks"]
    assert run(content, tmp_path / "a.yaml") == 0
    with (folder / "log" / "version_1" / "metrics.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["train_loss"]]
    assert steps == [3, 4, 5]


def test_held_out_training_images_choose_the_checkpoint(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    content = config(root, folder, data={"val_split_mode": "from_train", "val_split_ratio": 0.34, "seed": 0})
    content["trainer"].update(check_val_every_n_epoch=None, val_check_interval=2)
    assert run(content, tmp_path / "a.yaml") == 0
    assert json.loads((folder / "cell.json").read_text())["checkpoint"] == "best.ckpt"
    assert weights(folder, "best").keys() == weights(folder).keys()
    with (folder / "log" / "version_0" / "metrics.csv").open() as file:
        assert sum(bool(row["val_loss"]) for row in csv.DictReader(file)) == 3


def test_a_draw_is_printed_and_on_record(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert run(config(root, folder, data={"shots": 2, "draw": 3}), tmp_path / "a.yaml") == 0
    drawn = json.loads((folder / "cell.json").read_text())["drawn"]
    assert len(drawn) == 4
    out = capsys.readouterr().out
    assert all(name in out for name in drawn)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--seed_everything", "1"], "holds a run with another seed"),
        (["--data.init_args.draw", "1", "--data.init_args.shots", "2"], "another files_sha256, config"),
        (["--model.init_args.backbone", "small_b"], "another backbone, config"),
    ],
)
def test_a_folder_is_one_runs(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    content = config(root, tmp_path / "run", steps=1)
    assert run(content, tmp_path / "a.yaml") == 0
    before = weights(tmp_path / "run")
    assert run(content, tmp_path / "a.yaml", *more) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "give another --trainer.default_root_dir" in error
    after = weights(tmp_path / "run")
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"shots": 9}}, "shots is 9, but the training pool has 6 normal images"),
        ({"data": {"normal_only": True}, "model": "Classifier"}, "Got 6 normal and 0 defective"),
        ({"architecture": "unett"}, "no architecture 'unett'"),
        ({"devices": 2}, "takes one device"),
        ({"backbone": "nonsense"}, "error: Unknown model (nonsense)"),
    ],
)
def test_errors_are_one_line(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], message: str
) -> None:
    devices = changes.pop("devices", 1)
    content = config(root, tmp_path / "run", **changes)
    content["trainer"]["devices"] = devices
    assert run(content, tmp_path / "a.yaml") == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error:")
    assert message in error
    assert "Given value" not in error


@pytest.mark.parametrize("recipe", RECIPES)
def test_shipped_recipes_run(recipe: str, root: Path, tmp_path: Path) -> None:
    small = ["--model.init_args.backbone", "small_a", "--model.init_args.steps", "2"]
    size = ["--model.init_args.pre_processor.init_args.image_size", "[64,64]"]
    stock = ["--data", "anomalib_spd.twoclass.TwoClass", "--data.init_args.datamodule", "anomalib.data.Visa"]
    stock += [
        f"--data.init_args.datamodule.init_args.{key}={value}" for key, value in (("root", root), ("category", "one"))
    ]
    few = ["--data.init_args.num_workers", "0", "--trainer.default_root_dir", str(tmp_path / "run")]
    assert main(["twoclass", "--config", recipe, *small, *size, *stock, *few, "--trainer.accelerator", "cpu"]) == 0
    assert (tmp_path / "run" / "cell.json").is_file()


def test_stock_commands_take_them(root: Path, tmp_path: Path) -> None:
    content = config(root, tmp_path)
    file = tmp_path / "a.yaml"
    stock = {"model": content["model"], "trainer": {"accelerator": "cpu", "devices": 1}}
    file.write_text(yaml.safe_dump({**stock, "data": content["data"]}))
    assert main(["train", "--config", str(file), "--default_root_dir", str(tmp_path / "stock")]) == 0
    (checkpoint,) = (tmp_path / "stock").rglob("*.ckpt")
    images = root / "visa_pytorch" / "one" / "test" / "bad"
    file.write_text(yaml.safe_dump(stock))
    more = ["--data", str(images), "--ckpt_path", str(checkpoint), "--default_root_dir", str(tmp_path / "predicted")]
    assert main(["predict", "--config", str(file), *more]) == 0
    assert len(list((tmp_path / "predicted").rglob("*.JPG"))) == 5


@pytest.mark.parametrize("number", [1, 5])
def test_blank_masks_are_refused_before_the_training(
    root: Path, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    masks = sorted((own / "ground_truth/bad").iterdir())
    for path in masks[:number]:
        Image.new("L", (64, 64)).save(path)
    stock = {"class_path": "anomalib.data.Visa", "init_args": {"root": str(own.parents[1]), "category": "one"}}
    data = {"datamodule": stock, "train_fraction": 0.8}
    assert run(config(root, tmp_path / "run", data=data), tmp_path / "a.yaml") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "masks of anomalous images without a defective pixel: " in error
    assert "ground_truth/bad/" in error
    assert not (tmp_path / "run").exists()


def test_a_segmenter_does_not_learn_from_normal_images_alone(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = config(root, tmp_path / "run")
    content["data"] = content["data"]["init_args"]["datamodule"]
    assert run(content, tmp_path / "a.yaml") == 1
    assert "Got 6 normal and 0 defective ones: use a 2-class data module" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
