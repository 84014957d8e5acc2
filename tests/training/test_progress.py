"""Pace and progress of a training, by a clock that the tests wind."""

import math
import re
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from anomalib.data import ImageBatch
from lightning.pytorch.callbacks import TQDMProgressBar

from anomalib_spd.cli.main import main
from anomalib_spd.cli.training import TrainingCLI
from anomalib_spd.training.progress import WINDOW, Pace, ProgressLines
from tests.cli.test_main import _small, recipe


def trainer_of(**changes: Any) -> Any:
    state = {
        "world_size": 1,
        "max_epochs": 3,
        "max_steps": -1,
        "current_epoch": 0,
        "global_step": 0,
        "num_training_batches": 10,
        "accumulate_grad_batches": 1,
        "is_global_zero": True,
    }
    return SimpleNamespace(**{**state, **changes})


class Module:
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.logged: dict[str, float] = {}

    def log(self, name: str, value: float, **_: Any) -> None:
        self.logged[name] = value


def pace_after(steps: int, seconds: float = 2.0, batch: Any = None, **changes: Any) -> tuple[Pace, dict[str, float]]:
    """The pace after the first steps of an epoch, each of which took so long."""
    clock = count(100.0, seconds)
    pace, module, trainer = Pace(lambda: next(clock)), Module(), trainer_of(**changes)
    pace.on_train_start(trainer, module)
    for index in range(steps):
        pace.on_train_batch_end(
            trainer, module, None, [torch.zeros(8, 3, 4, 4), None] if batch is None else batch, index
        )
    return pace, module.logged


def test_images_per_second_are_those_of_all_processes() -> None:
    assert pace_after(4)[1]["images_per_second"] == pytest.approx(8 / 2)
    _, logged = pace_after(4, world_size=3)
    assert logged["images_per_second"] == pytest.approx(3 * 8 / 2)
    assert logged["images"] == 3 * 4 * 8


def test_a_batch_of_anomalib_is_counted() -> None:
    batch = ImageBatch(image=torch.zeros(5, 3, 4, 4))
    assert pace_after(2, batch=batch)[0].images == 10


def test_the_pace_is_that_of_the_last_steps() -> None:
    times = iter([0.0, *(100.0 * step for step in range(1, 5)), *(400.0 + step for step in range(1, WINDOW + 2))])
    pace, module, trainer = Pace(lambda: next(times)), Module(), trainer_of()
    pace.on_train_start(trainer, module)
    for index in range(4 + WINDOW + 1):
        pace.on_train_batch_end(trainer, module, None, [torch.zeros(8, 1), None], index)
    assert pace.images_per_second == pytest.approx(8)


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, 26),
        ({"current_epoch": 2}, 6),
        ({"max_epochs": -1, "max_steps": 20, "global_step": 7}, 13),
        ({"max_steps": 5, "global_step": 4, "accumulate_grad_batches": 4}, 4),
        ({"max_epochs": -1}, math.inf),
    ],
)
def test_the_time_left_is_that_of_all_batches_to_come(changes: dict[str, int], steps: float) -> None:
    pace, logged = pace_after(4, **changes)
    assert pace.seconds_left == pytest.approx(2 * steps)
    assert logged.get("minutes_left", math.inf) == pytest.approx(2 * steps / 60)


def test_images_are_counted_on_from_a_checkpoint_but_time_is_not() -> None:
    before, _ = pace_after(4)
    clock = count(0.0, 1.0)
    pace, module = Pace(lambda: next(clock)), Module()
    pace.load_state_dict(before.state_dict())
    pace.on_train_start(trainer_of(), module)
    pace.on_train_batch_end(trainer_of(), module, None, [torch.zeros(8, 1), None], 4)
    assert pace.images == 5 * 8
    assert pace.images_per_second == pytest.approx(8)
    assert pace.seconds_left == pytest.approx(25)


def lines(capsys: pytest.CaptureFixture[str], every: int, **changes: Any) -> list[str]:
    """What is printed in an epoch whose steps take 100 seconds."""
    clock = count(0.0, 100.0)
    pace, module, trainer = Pace(lambda: next(clock)), Module(), trainer_of(**changes)
    printer = ProgressLines(pace, every)
    printer.setup(trainer, module, "fit")
    pace.on_train_start(trainer, module)
    for index in range(10):
        trainer.global_step += 1
        for each in (pace, printer):
            each.on_train_batch_end(trainer, module, {"loss": torch.tensor(3.21)}, [torch.zeros(4100, 1), None], index)
    return capsys.readouterr().out.splitlines()


def test_a_line_every_so_many_steps_and_at_the_end_of_the_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    assert lines(capsys, 4) == [
        "epoch 1/3, step 4/30: loss 3.21, 41 images/s, 0:43:20 left",
        "epoch 1/3, step 8/30: loss 3.21, 41 images/s, 0:36:40 left",
        "epoch 1/3, step 10/30: loss 3.21, 41 images/s, 0:33:20 left",
    ]
    assert lines(capsys, 99, max_epochs=-1) == ["epoch 1, step 10: loss 3.21, 41 images/s"]


def test_a_training_that_ends_within_an_epoch_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    ended = lines(capsys, 99, max_epochs=-1, max_steps=7)
    assert ended[0] == "epoch 1, step 7/7: loss 3.21, 41 images/s, 0:00:00 left"


def test_only_the_first_process_speaks(capsys: pytest.CaptureFixture[str]) -> None:
    assert lines(capsys, 1, is_global_zero=False) == []


def test_the_command_says_how_far_it_is_and_where_it_goes_on(
    labelled_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = _small(labelled_images, tmp_path, "--trainer.max_epochs", "2", "--checkpoint.every_n_train_steps", "2")
    stop = '--trainer.callbacks=[{"class_path": "tests.stopping.Stopping", "init_args": {"step": 5}}]'
    with pytest.raises(RuntimeError, match="power cut"):
        main(["pretrain", *recipe("supervised_spd"), *small, stop])
    assert "epoch 1/2, step 3/6: loss" in capsys.readouterr().out
    assert main(["pretrain", *recipe("supervised_spd"), *small]) == 0
    out = capsys.readouterr().out
    # from step 4 of 6, the first of the second epoch: one line at its end
    (line,) = (line for line in out.splitlines() if line.startswith("epoch"))
    assert line.startswith("epoch 2/2, step 6/6: loss")
    assert line.endswith("images/s, 0:00:00 left")
    rows = (tmp_path / "log" / "version_1" / "metrics.csv").read_text().splitlines()
    table = [dict(zip(rows[0].split(","), row.split(","), strict=True)) for row in rows[1:]]
    assert [float(row["images"]) for row in table] == [20, 24]
    assert all(float(row["images_per_second"]) > 0 for row in table)


@pytest.mark.parametrize(
    ("more", "is_terminal", "lines_expected"),
    [
        ((), False, True),
        ((), True, False),
        (("--trainer.enable_progress_bar", "false"), False, False),
        (("--trainer.callbacks", "TQDMProgressBar"), False, False),
    ],
)
def test_lines_stand_in_for_a_bar_where_none_was_asked_for(
    labelled_images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    more: tuple[str, ...],
    is_terminal: bool,
    lines_expected: bool,
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(TrainingCLI, "fit", lambda cli: seen.extend(cli.trainer.callbacks))
    monkeypatch.setattr("sys.stdout.isatty", lambda: is_terminal)
    assert main(["pretrain", *recipe("supervised_spd"), *_small(labelled_images, tmp_path, *more)]) == 0
    assert any(isinstance(each, ProgressLines) for each in seen) == lines_expected
    assert sum(isinstance(each, Pace) for each in seen) == 1
    assert any(isinstance(each, TQDMProgressBar) for each in seen) == ("TQDMProgressBar" in more or is_terminal)


@pytest.mark.parametrize("more", [("--trainer.max_epochs", "2"), ("--trainer.max_epochs=-1", "--trainer.max_steps=6")])
def test_the_bar_counts_all_steps(
    labelled_images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert main(["pretrain", *recipe("supervised_spd"), *_small(labelled_images, tmp_path, *more)]) == 0
    printed = "".join(capsys.readouterr())
    shown = re.findall(r"epoch (\d\S*): .*?(\d+)/(\S+) \[", printed)
    steps = [int(step) for _, step, _ in shown]
    assert steps == sorted(steps)
    assert steps[-1] == 6
    assert {total for *_, total in shown} == {"6"}
    assert shown[-1][0] == ("2/2" if "2" in more else "2")
    assert "/-2" not in printed
