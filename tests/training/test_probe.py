"""The probe sees what the judge sees, and the training does not notice it."""

import csv
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from anomalib.data import Folder, Visa
from lightning.pytorch import LightningModule, Trainer

from anomalib_spd.benchmark import cell as judge
from anomalib_spd.benchmark.results import Cell
from anomalib_spd.cli.main import main
from anomalib_spd.config_files import find_config
from anomalib_spd.pretraining import SupervisedSPD
from anomalib_spd.training.probe import DetectionProbe
from tests.benchmark.grids import LAYERS, draw_images, small_grid, small_registry
from tests.cli.test_main import _small
from tests.conftest import REPOSITORY

SETTINGS: dict[str, Any] = {"layers": LAYERS, "image_size": [80, 80], "center_crop_size": [64, 64]}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("probe")
    draw_images(folder, "one")
    draw_images(folder, "two", masks=False)
    with small_registry(folder):
        yield folder


def probe_of(root: Path, **settings: Any) -> DetectionProbe:
    return DetectionProbe(Visa(root, "one", num_workers=0), **{**SETTINGS, **settings})


def ready(probe: DetectionProbe) -> DetectionProbe:
    probe.data.prepare_data()
    probe.data.setup()
    return probe


def model_of(**settings: Any) -> SupervisedSPD:
    torch.manual_seed(0)
    return SupervisedSPD(num_classes=3, **{"backbone": "small_a", "image_size": 32, **settings})


def recipe(images: Path, folder: Path, callbacks: list[Any], **trainer: Any) -> list[str]:
    """The shipped recipe, small, two epochs of three steps, with these callbacks."""
    config = yaml.safe_load(find_config("pretrain/supervised_spd.yaml").read_text())
    config["trainer"].update(callbacks=callbacks, max_epochs=2, **trainer)
    folder.mkdir(exist_ok=True)
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(config))
    return ["pretrain", "--config", str(file), *_small(images, folder)]


def in_yaml(root: Path, **settings: Any) -> dict[str, Any]:
    data = {
        "class_path": "anomalib.data.Visa",
        "init_args": {"root": str(root), "category": "one", "num_workers": 0},
    }
    init_args = {"data": data, **SETTINGS, **settings}
    return {"class_path": "anomalib_spd.training.probe.DetectionProbe", "init_args": init_args}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return state


def probed(folder: Path) -> list[dict[str, str]]:
    with (folder / "log" / "version_0" / "metrics.csv").open() as file:
        return [row for row in csv.DictReader(file) if row.get("probe/image_AUROC")]


def test_a_run_with_the_probe_ends_with_the_weights_of_one_without(
    root: Path, labelled_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(recipe(labelled_images, tmp_path / "without", [])) == 0
    capsys.readouterr()
    assert main(recipe(labelled_images, tmp_path / "with", [in_yaml(root)])) == 0
    without, with_probe = weights(tmp_path / "without"), weights(tmp_path / "with")
    assert without.keys() == with_probe.keys()
    for name, tensor in without.items():
        assert torch.equal(tensor, with_probe[name]), name

    rows = probed(tmp_path / "with")
    assert [(row["epoch"], row["step"]) for row in rows] == [("0", "0"), ("0", "2"), ("1", "5")]
    for name in ("probe/image_AUROC", "probe/image_AUPR_step", "probe/pixel_AUPR_step"):
        assert all(0 <= float(row[name]) <= 1 for row in rows)
    # the weights have moved, and with them the figures
    assert len({row["probe/pixel_AUPR_step"] for row in rows}) > 1
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("probe")]
    assert [line.partition(" (")[0] for line in said] == [
        "probe at the start",
        "probe after epoch 1",
        "probe after epoch 2",
    ]
    assert f"pixel AU-PR (step) {float(rows[-1]['probe/pixel_AUPR_step']):.3f}" in said[-1]
    assert "choose nothing by it" in said[-1]


def _seed_all() -> None:
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(7)


def test_nothing_of_the_training_is_touched(root: Path) -> None:
    model, probe = model_of(), ready(probe_of(root))
    model.encoder.blocks[1].eval()  # whatever the mode is
    model.encoder(torch.rand(2, 3, 32, 32)).sum().backward()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gradients = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    modes = [each.training for each in model.modules()]
    draws: list[Any] = [lambda: torch.rand(1).item(), np.random.rand, random.random]
    _seed_all()
    expected = [draw() for draw in draws]
    _seed_all()
    figures = probe.evaluate(model)

    assert figures.keys() == {"probe/image_AUROC", "probe/image_AUPR_step", "probe/pixel_AUPR_step"}
    assert [draw() for draw in draws] == expected
    assert torch.is_grad_enabled()
    assert [each.training for each in model.modules()] == modes
    assert gradients
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    for name, each in model.named_parameters():
        assert (each.grad is None) == (name not in gradients)
        assert each.grad is None or torch.equal(each.grad, gradients[name])
    assert not any(each._forward_hooks for each in model.encoder.modules())


def test_the_figures_are_the_judges(root: Path) -> None:
    detectors, data = small_grid(root)["detectors"], small_grid(root)["data"]
    # all points, so that chance has no say in which
    config = detectors["PatchCore 0.1"]
    config = {**config, "init_args": {**config["init_args"], "backbone": "small_a", "coreset_sampling_ratio": 1.0}}
    data = {**data, "init_args": {**data["init_args"], "category": "one"}}
    record, _ = judge.run(judge.Plan(Cell("a", "p", "one", 0), config, data, accelerator="cpu"))

    probe, model = ready(probe_of(root, coreset_sampling_ratio=1.0)), model_of()
    figures = probe.evaluate(model)
    assert figures == pytest.approx(
        {
            "probe/image_AUROC": record["metrics"]["image_AUROC"],
            "probe/image_AUPR_step": record["metrics"]["image_AUPR_step"],
            "probe/pixel_AUPR_step": record["metrics"]["pixel_AUPR_step"],
        },
        abs=1e-4,
    )
    # of the weights as they are, not of those that the backbone's name stands for
    with torch.no_grad():
        for each in model.encoder.parameters():
            each.mul_(torch.rand_like(each) * 4 - 2)
    assert probe.evaluate(model) != pytest.approx(figures, abs=1e-3)


def test_the_same_weights_give_the_same_figures(root: Path) -> None:
    probe, model = ready(probe_of(root, coreset_sampling_ratio=0.05)), model_of()
    torch.manual_seed(1)
    first = probe.evaluate(model)
    torch.manual_seed(2)
    assert probe.evaluate(model) == first


def test_images_without_masks_have_no_pixel_figure(root: Path) -> None:
    places = {"normal_dir": "train/good", "normal_test_dir": "test/good", "abnormal_dir": "test/bad"}
    data = Folder("two", root=root / "visa_pytorch" / "two", num_workers=0, **places)
    figures = ready(DetectionProbe(data, **SETTINGS)).evaluate(model_of())
    assert figures.keys() == {"probe/image_AUROC", "probe/image_AUPR_step"}


def test_only_some_epochs_are_probed(root: Path, labelled_images: Path, tmp_path: Path) -> None:
    assert main(recipe(labelled_images, tmp_path, [in_yaml(root, every_n_epochs=2)])) == 0
    assert [row["epoch"] for row in probed(tmp_path)] == ["0", "1"]


def test_no_checkpoint_can_be_chosen_by_it(root: Path, labelled_images: Path, tmp_path: Path) -> None:
    best = {
        "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
        "init_args": {"monitor": "probe/pixel_AUPR_step", "mode": "max", "dirpath": str(tmp_path / "best")},
    }
    with pytest.warns(UserWarning, match="could not find the monitored key"):
        main(recipe(labelled_images, tmp_path, [in_yaml(root), best]))
    assert probed(tmp_path)


def test_what_cannot_be_probed_is_refused_before_anything_is_trained(root: Path) -> None:
    with pytest.raises(ValueError, match=r"`every_n_epochs` is 1 or more. Got 0"):
        probe_of(root, every_n_epochs=0)
    trainer = Trainer(logger=False, barebones=True)
    with pytest.raises(ValueError, match=r"has no layer 'blocks.9'.*; it has: blocks.0"):
        probe_of(root, layers=["blocks.9"]).setup(trainer, model_of(), "fit")
    with pytest.raises(TypeError, match="Got LightningModule, which has none"):
        probe_of(root).setup(trainer, LightningModule(), "fit")


@pytest.mark.slow
def test_the_first_of_two_processes_probes(root: Path, labelled_images: Path, tmp_path: Path) -> None:
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    said = {}
    for name, callbacks in (("with", [in_yaml(root)]), ("without", [])):
        more = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--data.init_args.batch_size", "2"]
        command = [sys.executable, "-m", "anomalib_spd", *recipe(labelled_images, tmp_path / name, callbacks), *more]
        done = subprocess.run(command, check=True, env=environment, capture_output=True, text=True, timeout=300)
        said[name] = [line for line in done.stdout.splitlines() if line.startswith("probe")]
    assert (len(said["with"]), len(said["without"])) == (3, 0)
    assert len(probed(tmp_path / "with")) == 3
    without, with_probe = weights(tmp_path / "without"), weights(tmp_path / "with")
    assert all(torch.equal(tensor, with_probe[name]) for name, tensor in without.items())
