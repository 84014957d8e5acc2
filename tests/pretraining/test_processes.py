"""Two processes learn what one does from a batch as large as theirs together, by the command that users give."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from anomalib_spd.config_files import find_config
from tests.cli.test_main import HEADS, RECIPES, data_of
from tests.conftest import REPOSITORY

# these draw locations to compare, each process of its own
DENSE = {"dense", "cross_image"}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("thirty-two")
    rng = np.random.default_rng(0)
    for index in range(32):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / f"{index % 3}_{index}.png")
    return folder


def first_step(method: str, images: Path, folder: Path, processes: int) -> tuple[dict[str, torch.Tensor], ...]:
    """Gradients and state of every process after the first step of the shipped recipe on 32 images."""
    config = yaml.safe_load(find_config(RECIPES[f"{method}_spd"][0]).read_text())
    config["model"]["init_args"].update(backbone="test_efficientnet", pretrained=False, eta=0.5, image_size=96)
    config["model"]["init_args"].update(HEADS[method])
    if method == "moco":
        config["model"]["init_args"]["queue_size"] = 64  # all keys find a place
    config["data"]["init_args"].update(data_of(method, images, 32 // processes, categories=processes))
    config["trainer"]["callbacks"] = [{"class_path": "tests.pretraining.first_step.FirstStep"}]
    config["trainer"].update(max_steps=1, accelerator="cpu", default_root_dir=str(folder), precision="64-true")
    folder.mkdir()
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "anomalib_spd", "pretrain", "--config", str(file)]
    command += ["--trainer.devices", str(processes), *(["--trainer.strategy", "ddp"] if processes > 1 else [])]
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment, capture_output=True, text=True, timeout=300)
    names = [f"{kind}_{rank}.pt" for kind in ("gradients", "state") for rank in range(processes)]
    return tuple(torch.load(folder / name, weights_only=True) for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted(HEADS.keys() - DENSE))
def test_two_processes_learn_what_one_does(method: str, images: Path, tmp_path: Path) -> None:
    alone, state = first_step(method, images, tmp_path / "one", 1)
    rank_0, rank_1, state_0, state_1 = first_step(method, images, tmp_path / "two", 2)
    assert alone.keys() == rank_0.keys()
    assert any(each.abs().max() > 1e-3 for each in alone.values())
    for name, gradient in alone.items():
        torch.testing.assert_close(rank_0[name], gradient, rtol=0, atol=1e-6)
        assert torch.equal(rank_0[name], rank_1[name])
    # a process's loss is of its own images, but for SimCLR's
    torch.testing.assert_close((state_0["loss"] + state_1["loss"]) / 2, state["loss"], rtol=0, atol=1e-6)
    assert torch.equal(state_0["queue"], state_1["queue"])
    # the keys of both stand in the queue, in whichever order
    theirs, own = (torch.sort(each["queue"].flatten())[0] for each in (state_0, state))
    torch.testing.assert_close(theirs, own, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted(DENSE))
def test_the_dense_ones_stay_the_same_in_both_processes(method: str, images: Path, tmp_path: Path) -> None:
    """Their energies are those of both, and their gradients the mean."""
    rank_0, rank_1, *_ = first_step(method, images, tmp_path / "two", 2)
    assert rank_0.keys() == rank_1.keys()
    assert any(each.abs().max() > 1e-3 for each in rank_0.values())
    for name, gradient in rank_0.items():
        assert torch.equal(gradient, rank_1[name]), name
