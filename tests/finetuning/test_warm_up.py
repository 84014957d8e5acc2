"""The encoder rests while the head is trained alone, and wakes in time, wherever a run is stopped."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from torch import Tensor

from anomalib_spd.data import NormalImages
from tests.data.sets import visa
from tests.finetuning.small import equal
from tests.finetuning.test_patch_classification import small

STEPS = 6
State = dict[str, Tensor]


class Watching(Callback):
    """Notes the weights after every step, and ends the work after one of them."""

    def __init__(self, states: dict[int, State], stop: int | None, file: Path) -> None:
        self.states, self.stop, self.file = states, stop, file

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        self.states[trainer.global_step] = {key: each.clone() for key, each in pl_module.state_dict().items()}
        if trainer.global_step == self.stop:
            trainer.save_checkpoint(self.file)
            raise RuntimeError("power cut")


def train(root: Path, file: Path, stops: tuple[int, ...] = (), **settings: Any) -> dict[int, State]:
    """Return the weights before, and after every step of, a run that is stopped so many times."""
    states: dict[int, State] = {}
    for stop in (*stops, None):
        seed_everything(0, verbose=False)
        model = small(scale=(0.02, 0.15), **settings)
        states.setdefault(0, {key: each.clone() for key, each in model.state_dict().items()})
        watching = Watching(states, stop, file)
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = Trainer(
            accelerator="cpu",
            devices=1,
            max_steps=STEPS,
            max_epochs=-1,
            callbacks=[watching],
            enable_checkpointing=False,
            default_root_dir=file.parent,
            **quiet,
        )
        data = NormalImages(visa(root), 2, 32, 0, keep_aspect=False, shrink_batches=True)
        ckpt_path = str(file) if file.is_file() else None
        with pytest.raises(RuntimeError, match="power cut") if stop else nullcontext():
            trainer.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    assert sorted(states) == list(range(STEPS + 1))
    return states


def split(state: State) -> tuple[State, State, State]:
    """Weights of the encoder, statistics of its batch norm, and the head."""
    statistics = {key: each for key, each in state.items() if key.startswith("encoder.") and _is_statistic(key)}
    encoder = {key: each for key, each in state.items() if key.startswith("encoder.") and key not in statistics}
    return encoder, statistics, {key: each for key, each in state.items() if key.startswith("head.")}


def _is_statistic(key: str) -> bool:
    return key.endswith(("running_mean", "running_var", "num_batches_tracked"))


def moved(states: dict[int, State], part: int) -> list[bool]:
    """Whether that part was changed by each step."""
    return [not equal(split(states[step])[part], split(states[step + 1])[part]) for step in range(STEPS)]


@pytest.mark.parametrize(("frozen_steps", "batch_norm"), [(0, "train"), (3, "train"), (20, "train"), (2, "eval")])
def test_the_encoder_is_trained_from_the_step_on_that_is_asked_for(
    root: Path, tmp_path: Path, frozen_steps: int, batch_norm: str
) -> None:
    states = train(root, tmp_path / "a.ckpt", frozen_steps=frozen_steps, batch_norm=batch_norm)
    trained = [step >= frozen_steps for step in range(STEPS)]
    assert moved(states, 0) == trained
    assert moved(states, 1) == (trained if batch_norm == "train" else [False] * STEPS)
    assert moved(states, 2) == [True] * STEPS


@pytest.mark.parametrize("batch_norm", ["train", "eval"])
def test_also_in_a_run_that_was_stopped_in_it_at_its_end_and_after_it(
    root: Path, tmp_path: Path, batch_norm: str
) -> None:
    settings = {"frozen_steps": 3, "batch_norm": batch_norm}
    whole = train(root, tmp_path / "whole.ckpt", **settings)
    parts = train(root, tmp_path / "parts.ckpt", (1, 3, 4), **settings)
    for step in range(STEPS + 1):
        assert equal(whole[step], parts[step]), step


def test_the_rate_falls_as_a_cosine_to_nothing(root: Path, tmp_path: Path) -> None:
    rates: list[float] = []

    class Noting(Callback):
        def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
            (group,) = optimizer.param_groups
            assert (group["momentum"], group["weight_decay"]) == (0.8, 0.01)
            rates.append(group["lr"])

    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    more = {"accelerator": "cpu", "max_steps": 4, "max_epochs": -1, "enable_checkpointing": False}
    trainer = Trainer(callbacks=[Noting()], default_root_dir=tmp_path, devices=1, **more, **quiet)
    model = small(learning_rate=0.2, momentum=0.8, weight_decay=0.01)
    trainer.fit(model, datamodule=NormalImages(visa(root), 2, 32, 0))
    expected = 0.1 * (1 + torch.cos(torch.arange(4).double() * torch.pi / 4))
    assert rates == pytest.approx(expected.tolist())
