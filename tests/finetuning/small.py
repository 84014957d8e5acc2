"""Fine-tunings that are measured in seconds: two small registered networks, a dozen small pictures."""

from pathlib import Path
from typing import Any

import pytest
import torch

from anomalib_spd.cli.main import main
from tests.conftest import REPOSITORY

RECIPE = REPOSITORY / "anomalib_spd" / "configs" / "finetune" / "cutswap.yaml"
MEMORY = RECIPE.with_name("adapt.yaml")
STEPS = 9  # of a run; an epoch of 6 images has 3
EVERY = 2  # steps a checkpoint


def small(folder: Path, *more: str, recipe: Path = RECIPE) -> list[str]:
    """What shrinks a shipped recipe: small registered networks, small images, few steps."""
    layers = "--model.init_args.layers=[blocks.1,blocks.2]"
    parts = "--model.init_args.frozen=[conv_stem,bn1,blocks.0]"
    # in smaller images there is no place away from a change
    of_memory = (layers, parts, "--image_size", "64", "--holdout", "0")
    return [
        *("--model.init_args.backbone", "small_a", "--model.init_args.classifier", "small_b"),
        *("--folder", str(folder), "--batch_size", "2", "--image_size", "32", "--num_workers", "0"),
        *(of_memory if recipe == MEMORY else ("--model.init_args.frozen_steps", "2")),
        *("--trainer.max_steps", str(STEPS), "--trainer.accelerator", "cpu", "--trainer.devices", "1"),
        *("--checkpoint.every_n_train_steps", str(EVERY), *more),
    ]


def of_visa(root: Path, category: str | None = "one") -> list[str]:
    """The images, as VisA has them."""
    return [
        *("--data", "anomalib.data.Visa", "--data.init_args.root", str(root), "--data.init_args.num_workers", "0"),
        *(("--data.init_args.category", category) if category else ()),
    ]


def finetune(root: Path, folder: Path, name: str, *more: str, recipe: Path = RECIPE) -> int:
    """Run the command on the images of ``one``."""
    shrunk = small(folder, recipe=recipe)
    return main(["finetune", "--config", str(recipe), *shrunk, *of_visa(root), "--name", name, *more])


def failing(capsys: pytest.CaptureFixture[str], *args: Any, **kwargs: Any) -> str:
    """Run the command, which is to fail, and return what it said, which is to be one line."""
    capsys.readouterr()
    assert finetune(*args, **kwargs) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    return line


def checkpoint(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(folder / name / "checkpoints" / "last.ckpt", weights_only=True)
    return content


def weights(folder: Path, name: str, steps: int = STEPS) -> dict[str, torch.Tensor]:
    content = checkpoint(folder, name)
    assert content["global_step"] == steps
    state: dict[str, torch.Tensor] = content["state_dict"]
    return state


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether all weights are the same bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(tensor, other[key]) for key, tensor in one.items())


def stopping(step: int) -> str:
    return f'--trainer.callbacks=[{{"class_path": "tests.stopping.Stopping", "init_args": {{"step": {step}}}}}]'
