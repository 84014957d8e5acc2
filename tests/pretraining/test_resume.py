"""A pre-training that is stopped at any step, and started again by the same command, ends with the very same weights."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from anomalib_spd.cli.main import main
from tests.cli.test_main import HEADS, _small, recipe
from tests.conftest import REPOSITORY

EVERY = 2  # steps a checkpoint; an epoch has 3


def arguments(images: Path, folder: Path, method: str, workers: int, *more: str) -> list[str]:
    small = _small(images, folder, "--trainer.max_epochs", "3", method=method)
    return [
        *("pretrain", *recipe(f"{method}_spd"), *small, "--data.init_args.num_workers", str(workers)),
        *("--checkpoint.every_n_train_steps", str(EVERY), *more),
    ]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 9
    state: dict[str, torch.Tensor] = checkpoint["state_dict"]
    return state


def stopping(step: int) -> tuple[str, ...]:
    callback = "tests.stopping.Stopping"
    return (f'--trainer.callbacks=[{{"class_path": "{callback}", "init_args": {{"step": {step}}}}}]',)


@pytest.mark.parametrize(
    ("method", "steps", "workers"),
    [
        ("simsiam", (3,), 0),
        ("moco", (4, 7), 0),
        ("simclr", (1, 5), 0),
        ("supervised", (6,), 0),
        ("dense", (2, 5), 0),
        ("cross_image", (2, 7), 1),
        ("simsiam", (5,), 2),
    ],
)
def test_the_weights_are_those_of_an_undisturbed_run(
    labelled_images: Path, tmp_path: Path, method: str, steps: tuple[int, ...], workers: int
) -> None:
    assert main(arguments(labelled_images, tmp_path / "whole", method, workers)) == 0
    for step in steps:
        with pytest.raises(RuntimeError, match="power cut"):
            main(arguments(labelled_images, tmp_path / "parts", method, workers, *stopping(step)))
    assert main(arguments(labelled_images, tmp_path / "parts", method, workers)) == 0
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, parts[name]), name


@pytest.mark.parametrize("length", [("--trainer.max_epochs", "3"), ("--trainer.max_steps", "9")])
def test_also_when_it_was_stopped_at_the_end_of_every_epoch(
    labelled_images: Path, tmp_path: Path, length: tuple[str, ...]
) -> None:
    """A checkpoint of an epoch's last step is one of its end: Lightning would pass an epoch twice."""
    at_ends = ("--checkpoint.every_n_train_steps", "3", "--trainer.max_epochs", "-1", *length)
    assert main([*arguments(labelled_images, tmp_path / "whole", "supervised", 0), *at_ends]) == 0
    for step in (4, 7):
        with pytest.raises(RuntimeError, match="power cut"):
            main([*arguments(labelled_images, tmp_path / "parts", "supervised", 0), *at_ends, *stopping(step)])
    assert main([*arguments(labelled_images, tmp_path / "parts", "supervised", 0), *at_ends]) == 0
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())
    loop = torch.load(tmp_path / "parts" / "checkpoints" / "last.ckpt", weights_only=True)["loops"]["fit_loop"]
    assert loop["epoch_progress"]["current"] == {"ready": 3, "started": 3, "processed": 3, "completed": 3}


@pytest.mark.slow
def test_also_when_the_process_is_killed(labelled_images: Path, tmp_path: Path) -> None:
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}

    def run(folder: str, *more: str) -> int:
        command = [
            sys.executable,
            "-m",
            "anomalib_spd",
            *arguments(labelled_images, tmp_path / folder, "moco", 1, *more),
        ]
        return subprocess.run(command, env=environment, capture_output=True, timeout=300, check=False).returncode

    assert run("whole") == 0
    whole = weights(tmp_path / "whole")
    for kill, status in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 143)):
        killer = f'{{"class_path": "tests.stopping.Killing", "init_args": {{"step": 5, "signal": {int(kill)}}}}}'
        assert run(kill.name, f"--trainer.callbacks=[{killer}]") == status
        assert run(kill.name) == 0
        parts = weights(tmp_path / kill.name)
        assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())


@pytest.mark.parametrize("steps", [5, 9])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--data.init_args.batch_size", "6"), "batch_size: 4 then, 6 now"),
        (("--data.init_args.image_size", "48"), "image_size: 40 then, 48 now"),
        (("--data.init_args.root", "OTHER"), "other images"),
        (("--trainer.max_epochs", "4"), "steps: 9 then, 12 now"),
        (("--model.init_args.eta", "0.5"), "eta: 0.1 then, 0.5 now"),
    ],
)
def test_a_folder_holds_one_run(
    steps: int,
    change: tuple[str, str],
    message: str,
    labelled_images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A checkpoint of a run that was stopped, or is done, is of no other run."""
    assert set(HEADS) == {"supervised", "simsiam", "simclr", "moco", "dense", "cross_image"}
    other = shutil.copytree(labelled_images, tmp_path / "other")
    (other / "n00000_0.jpg").rename(other / "n00000_99.jpg")
    if steps == 9:
        assert main(arguments(labelled_images, tmp_path, "supervised", 0)) == 0
    else:
        with pytest.raises(RuntimeError, match="power cut"):
            main(arguments(labelled_images, tmp_path, "supervised", 0, *stopping(steps)))
    last = tmp_path / "checkpoints" / "last.ckpt"
    before = last.read_bytes()
    capsys.readouterr()
    name, value = change
    assert main([*arguments(labelled_images, tmp_path, "supervised", 0), name, value.replace("OTHER", str(other))]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(
        f"error: The checkpoint belongs to a run with other settings ({message}). Give this run a folder of its"
    )
    assert line.endswith("or begin anew in it with --ckpt_path none.")
    assert last.read_bytes() == before
    assert [path.name for path in (tmp_path / "log").iterdir()] == ["version_0"]


def test_a_run_that_fails_before_its_first_step_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tmp_path / "nowhere", tmp_path / "run", "supervised", 0)) == 1
    assert "does not exist. Give another with --data.root." in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_done_says_so_and_begins_anew_where_it_is_told_to(
    labelled_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(labelled_images, tmp_path, "supervised", 0)) == 0
    trained = weights(tmp_path)
    capsys.readouterr()
    assert main(arguments(labelled_images, tmp_path, "supervised", 0)) == 0
    assert "has all steps of this run: nothing was left to do." in capsys.readouterr().out
    assert (
        main(
            [
                *arguments(labelled_images, tmp_path, "supervised", 0, "--model.init_args.eta", "0"),
                "--ckpt_path",
                "none",
            ]
        )
        == 0
    )
    assert not all(torch.equal(tensor, trained[name]) for name, tensor in weights(tmp_path).items())


def test_two_runs_do_not_share_a_folder(
    labelled_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.mkdir(exist_ok=True)
    with FileLock(tmp_path / ".lock"):
        assert main(arguments(labelled_images, tmp_path, "supervised", 0)) == 1
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .startswith(f"error: Another process trains in {tmp_path}: wait for its end")
    )
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert main(arguments(labelled_images, tmp_path, "supervised", 0)) == 0


@pytest.mark.parametrize(("by", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_says_how_to_go_on(
    by: signal.Signals, status: int, labelled_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killer = f'{{"class_path": "tests.stopping.Killing", "init_args": {{"step": 5, "signal": {int(by)}}}}}'
    with pytest.raises(SystemExit) as exit_:
        main(arguments(labelled_images, tmp_path, "supervised", 0, f"--trainer.callbacks=[{killer}]"))
    assert exit_.value.code == status
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert capsys.readouterr().err.splitlines()[-1] == f"Interrupted ({by.name}). The same command goes on from {last}."
    assert torch.load(last, weights_only=True)["global_step"] == 4
