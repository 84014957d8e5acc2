"""What goes wrong in a pre-training is told, and the last good checkpoint stands."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from anomalib_spd.cli.main import main
from tests.conftest import REPOSITORY
from tests.pretraining.test_resume import arguments, weights


def run(images: Path, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, whose temporary files have a folder of their own."""
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    temporary = folder.parent / "temporary"
    temporary.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)}
    command = [sys.executable, "-m", "anomalib_spd", *arguments(images, folder, "supervised", 0, *more)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def callback(name: str, step: int) -> str:
    return f'--trainer.callbacks=[{{"class_path": "{name}", "init_args": {{"step": {step}}}}}]'


@pytest.mark.slow
def test_a_full_disk_leaves_the_checkpoint_before_and_the_same_command_goes_on(
    labelled_images: Path, tmp_path: Path
) -> None:
    pytest.importorskip("resource", reason="limits the size of files as POSIX does")
    folder = tmp_path / "run"
    # a checkpoint every 2 steps: the second cannot be written
    full = run(labelled_images, folder, callback("tests.stopping.Filling", 3))
    assert full.returncode == 1
    last = folder / "checkpoints" / "last.ckpt"
    message = f"The disk is full (File too large). Make room and give the same command again: it goes on from {last}"
    assert message in full.stderr
    assert torch.load(last, weights_only=True)["global_step"] == 2
    assert [path.name for path in last.parent.iterdir()] == ["last.ckpt"]
    assert not list((tmp_path / "temporary").rglob("*.ckpt*"))

    assert run(labelled_images, folder).returncode == 0
    assert main(arguments(labelled_images, tmp_path / "whole", "supervised", 0)) == 0
    whole, parts = weights(tmp_path / "whole"), weights(folder)
    assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())


class Poisoning(Callback):
    """Makes the loss of one step infinite."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            pl_module.method_loss = lambda z, images, labels: z[0].sum() * torch.inf


def test_a_loss_that_is_not_finite_leaves_the_checkpoint_before(labelled_images: Path, tmp_path: Path) -> None:
    poisoned = arguments(labelled_images, tmp_path, "supervised", 0, callback(f"{__name__}.Poisoning", 4))
    with pytest.raises(FloatingPointError, match=r"The last checkpoint, if there is one, is of before\. Train anew"):
        main([*poisoned, "--debug"])
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 4
    assert all(tensor.isfinite().all() for tensor in checkpoint["state_dict"].values())


class Diverging(Callback):
    """Spoils a weight after a step whose loss was finite."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            with torch.no_grad():
                next(pl_module.encoder.parameters()).fill_(torch.inf)


def test_weights_that_have_diverged_are_not_saved(
    labelled_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The loss of the last step is of the weights before it: only the weights tell."""
    diverging = callback(f"{__name__}.Diverging", 1)
    length = ("--trainer.max_steps", "1")
    assert main([*arguments(labelled_images, tmp_path, "supervised", 0, diverging), *length]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: The training has diverged: ")
    assert "Train anew with a smaller learning rate" in error
    assert not list((tmp_path / "checkpoints").glob("*"))


@pytest.mark.parametrize("method", ["supervised", "dense"])
def test_a_network_that_detectors_cannot_read_is_refused_before_any_training(
    method: str, labelled_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    swap = ("--model.init_args.backbone", "mambaout_femto", "--model.init_args.pretrained", "false")
    assert main([*arguments(labelled_images, tmp_path / "run", method, 0), *swap]) == 1
    assert (
        capsys.readouterr().err.splitlines()[-1].startswith("error: mambaout_femto gives maps of the form (B, H, W, C)")
    )
    assert not (tmp_path / "run").exists()
