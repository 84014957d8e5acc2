"""A fine-tuning by two processes, by the command that users give: both learn the same, each from images of its own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from safetensors.torch import load_file

from tests.conftest import REPOSITORY
from tests.finetuning.small import MEMORY, RECIPE, of_visa, small


class Keeping(Callback):
    """Keeps what a process saw in its last step, and what it had learnt at the end."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.seen = {"images": batch[0], "loss": outputs["loss"]}

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        parameters = {name: each.detach() for name, each in pl_module.named_parameters()}
        torch.save((self.seen, parameters), Path(trainer.default_root_dir) / f"process_{trainer.global_rank}.pt")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "more"),
    [
        (MEMORY, ("--trainer.strategy", "ddp")),
        # one step in which the encoder has no gradient, then two in which it has
        (RECIPE, ("--trainer.strategy", "ddp_find_unused_parameters_true", "--model.init_args.frozen_steps", "1")),
    ],
    ids=["memory", "cutswap"],
)
def test_two_processes_learn_the_same_and_one_of_them_names_it(
    root: Path, home: Path, tmp_path: Path, recipe: Path, more: tuple[str, ...]
) -> None:
    keeping = f'--trainer.callbacks=[{{"class_path": "{__name__}.Keeping"}}]'
    arguments = [*small(tmp_path, *more, keeping, recipe=recipe), *of_visa(root), "--name", "both"]
    command = [sys.executable, "-m", "anomalib_spd", "finetune", "--config", str(recipe), *arguments]
    command += ["--trainer.devices", "2", "--trainer.max_steps", "3"]
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "error:" not in ran.stderr
    assert ran.stdout.count("both is in the registry") == 1

    kept = [torch.load(tmp_path / "both" / f"process_{rank}.pt", weights_only=True) for rank in range(2)]
    (seen, learnt), (others, same) = kept
    assert not torch.equal(seen["images"], others["images"])
    assert seen["loss"] != others["loss"]
    assert all(torch.equal(each, same[name]) for name, each in learnt.items())
    registered, before = (load_file(home / name / "model.safetensors") for name in ("both", "small_a"))
    common = {name for name in registered if f"encoder.{name}" in learnt}
    assert all(torch.equal(registered[name], learnt[f"encoder.{name}"]) for name in common)
    moved = {name for name in common if not torch.equal(registered[name], before[name])}
    assert {name for name in common if name.startswith(("blocks.1.", "blocks.2."))} <= moved
