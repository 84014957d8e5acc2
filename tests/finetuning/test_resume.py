"""A fine-tuning that is stopped at any step, and started again by the same command, ends with the very same weights."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.finetuning.small import MEMORY, RECIPE, equal, finetune, of_visa, small, stopping, weights

# a warm-up that a checkpoint lies in
WARM_UP = ("--model.init_args.frozen_steps", "3")


@pytest.mark.parametrize(
    ("recipe", "more", "steps"),
    [
        (RECIPE, (*WARM_UP, "--seed_everything", "4"), (3, 7)),
        pytest.param(MEMORY, ("--image_size", "[96, 64]"), (5,), marks=pytest.mark.slow),
        pytest.param(
            RECIPE,
            (*WARM_UP, "--model.init_args.all_levels", "true", "--model.init_args.ways", "2"),
            (5,),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_weights_are_those_of_an_undisturbed_run(
    root: Path, home: Path, tmp_path: Path, recipe: Path, more: tuple[str, ...], steps: tuple[int, ...]
) -> None:
    """The first time with maps that are kept from start to start, then with none."""
    assert finetune(root, tmp_path / "whole", "whole", *more, recipe=recipe) == 0
    whole = weights(tmp_path / "whole", "whole")
    for number, name in enumerate(["warm", "cold"]):
        for step in steps:
            with pytest.raises(RuntimeError, match="power cut"):
                finetune(root, tmp_path, name, *more, stopping(step), recipe=recipe)
            assert not (home / name).exists()
            if name == "cold":
                shutil.rmtree(home / ".saliency")
        assert finetune(root, tmp_path, name, *more, recipe=recipe) == 0
        assert equal(weights(tmp_path, name), whole)
        assert (home / name / "model.safetensors").is_file()
        if number == 0:
            shutil.rmtree(home / ".saliency")


def test_a_training_that_ended_before_it_had_its_name_gets_it(
    root: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("anomalib_spd.finetuning.run.backbones.add", full)
        assert finetune(root, tmp_path, "late", "--trainer.max_steps", "3") == 1
    assert "error: [Errno 28] No space left on device" in capsys.readouterr().err
    before = (tmp_path / "late" / "checkpoints" / "last.ckpt").read_bytes()
    assert finetune(root, tmp_path, "late", "--trainer.max_steps", "3") == 0
    assert (tmp_path / "late" / "checkpoints" / "last.ckpt").read_bytes() == before
    assert (home / "late").is_dir()


@pytest.mark.slow
def test_also_when_the_process_is_killed(root: Path, home: Path, tmp_path: Path) -> None:
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}

    def run(name: str, *more: str) -> int:
        arguments = [*small(tmp_path, *WARM_UP), *of_visa(root), "--name", name, "--num_workers", "1", *more]
        command = [sys.executable, "-m", "anomalib_spd", "finetune", "--config", str(RECIPE), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, timeout=600, check=False).returncode

    killer = f'{{"class_path": "tests.stopping.Killing", "init_args": {{"step": 5, "signal": {int(signal.SIGKILL)}}}}}'
    assert run("parts", f"--trainer.callbacks=[{killer}]") == -signal.SIGKILL
    assert not (home / "parts").exists()
    assert run("parts") == 0
    assert run("whole") == 0
    assert equal(weights(tmp_path, "whole"), weights(tmp_path, "parts"))
