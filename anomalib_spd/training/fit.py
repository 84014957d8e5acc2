"""Runs a training: logs, pace and checkpoints that every one has, and what an interruption leaves."""

import shutil
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.utilities.exceptions import SIGTERMException

from anomalib_spd.data.run_settings import OTHER_RUN
from anomalib_spd.files import is_disk_full
from anomalib_spd.training.checkpoint import AtomicCheckpointIO
from anomalib_spd.training.progress import Pace, ProgressLines, ProgressSteps

LAST = "last.ckpt"

EXPECTED_WARNINGS = (
    "LightningCLI's args parameter is intended",  # to be called from Python, as we do
    r'.*ckpt_path="last"\) is set, but there is no last checkpoint',  # the first start
    "Checkpoint directory .* exists and is not empty",  # every later start
    "Total length of `list` across ranks is zero",  # there is no validation set
    "You're resuming from a checkpoint that ended before the epoch ended",  # our sampler resumes there
    "Your `IterableDataset` has `__len__` defined",  # of ImageShards, and it is right
    r"Found \d+ module\(s\) in eval mode at the start of training",  # batch norm of local SPD
    "You have overridden `on_after_batch_transfer` in `LightningModule`",  # scaling belongs to the method
)


def ignore_expected_warnings() -> None:
    """Silence the warnings of Lightning that say nothing new about our trainings."""
    for message in EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)


def trainer_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``Trainer``'s callbacks, plugins and logger: those given and those that every training has.

    These are: the pace in the logs; a bar of all steps, or lines of progress where there is no terminal for it; atomic checkpoints; where no
    logger is given, a table, and TensorBoard's log where that is installed, in a folder ``log`` of the run.

    Args:
        options: of ``Trainer``; callbacks and plugins may be one or several.
    """
    callbacks = [*listed(options.get("callbacks")), pace := Pace()]
    wants_bar = options.get("enable_progress_bar") is not False and not options.get("barebones")
    if wants_bar and not any(isinstance(each, ProgressBar) for each in callbacks):
        callbacks.append(ProgressSteps() if sys.stdout.isatty() else ProgressLines(pace))
    plugins = listed(options.get("plugins"))
    if not any(isinstance(each, CheckpointIO) for each in plugins):
        plugins.append(AtomicCheckpointIO())
    logger = options.get("logger")
    if logger is None:
        # beside the checkpoints, one folder for each start
        folder = options.get("default_root_dir") or "."
        table = CSVLogger(folder, name="log")
        logger = [table]
        if find_spec("tensorboard"):
            logger.append(TensorBoardLogger(folder, name="log", version=table.version, default_hp_metric=False))
    return {"callbacks": callbacks, "plugins": plugins, "logger": logger}


def fit(
    trainer: Trainer, model: LightningModule, data: LightningDataModule, folder: Path, ckpt_path: str | None = "last"
) -> None:
    """Train to the end, from the checkpoint if there is one, and save the last step's weights.

    An interruption (Ctrl-C, SIGTERM) is told in a line, with what the same call does next.

    Args:
        trainer: with a ``LastCheckpoint``.
        model: the training.
        data: its images.
        folder: of the run's checkpoint, ``last.ckpt``.
        ckpt_path: checkpoint to resume from; ``"last"`` is the run's own, if there is one; ``"none"``, as None, begins anew.

    Raises:
        SystemExit: with 130 after Ctrl-C, and with 143 after SIGTERM.
        ValueError: where another process trains in this folder.
        OSError: where the disk is full; the last checkpoint is whole.
    """
    last = folder / LAST

    def go_on() -> str:
        return f"goes on from {last}" if last.is_file() else "begins anew, as there is no checkpoint yet"

    try:
        with _only_one(trainer, folder):
            _fit(trainer, model, data, last, None if ckpt_path == "none" else ckpt_path)
    except SIGTERMException:  # Lightning's own handling ends the process with status 0
        raise _interrupted(signal.SIGTERM, go_on()) from None
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        # which Lightning turned into status 1; it ignores the signal from then on
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise _interrupted(signal.SIGINT, go_on()) from None
    except OSError as error:
        if not is_disk_full(error):
            raise
        msg = f"The disk is full ({error.strerror}). Make room and give the same command again: it {go_on()}."
        raise OSError(error.errno, msg) from error


def _interrupted(by: signal.Signals, then: str) -> SystemExit:
    print(f"Interrupted ({by.name}). The same command {then}.", file=sys.stderr)
    return SystemExit(128 + by)


@contextmanager
def _only_one(trainer: Trainer, folder: Path) -> Iterator[None]:
    """Keep a folder for one run at a time: two would overwrite each other's checkpoint.

    Raises:
        ValueError: where another process trains there.
    """
    is_trial: Any = trainer.fast_dev_run  # type: ignore[attr-defined] # of which Lightning hides the type
    if is_trial or not trainer.is_global_zero:
        yield
        return
    root = folder.parent
    made = [each for each in (root, *root.parents) if not each.exists()]
    root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        msg = f"Another process trains in {root}: wait for its end, or give this run a folder of its own"
        raise ValueError(msg) from None
    try:
        yield
    except BaseException:
        # where it failed before its first step, its log says nothing
        for log in {Path(each.log_dir) for each in trainer.loggers if each.log_dir}:
            if log.parent == root / "log" and not (log / "metrics.csv").is_file():
                shutil.rmtree(log, ignore_errors=True)
        raise
    finally:
        lock.release()
        # nothing is left of a run that failed before it wrote anything
        for part in (folder, *(root / "log").glob("*"), root / "log"):
            with suppress(OSError):
                part.rmdir()
        if [path.name for path in root.iterdir()] == [".lock"]:
            with suppress(OSError):
                (root / ".lock").unlink()
                root.rmdir()
                for each in made[1:]:
                    each.rmdir()


def _fit(trainer: Any, model: LightningModule, data: LightningDataModule, last: Path, ckpt_path: str | None) -> None:
    before = last.stat().st_mtime_ns if last.is_file() else None
    trainer.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    if trainer.fast_dev_run:
        return
    # the end may lie between two checkpoints; rank 0 decides, as all ranks have to save
    is_old = not last.is_file() or torch.load(last, weights_only=True)["global_step"] < trainer.global_step
    if trainer.strategy.broadcast(is_old):
        trainer.save_checkpoint(last, weights_only=False)
    elif trainer.is_global_zero and last.stat().st_mtime_ns == before:
        print(f"{last} has all steps of this run: nothing was left to do. {OTHER_RUN}")


def leave_process_group() -> None:
    """Leave the process group of a finished distributed training; without one, nothing happens.

    Lightning does not leave it. Where gloo's threads outlive Python the process is aborted, and a training that went well
    ends as if it had failed.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def listed(one_or_more: Any) -> list[Any]:
    """Return as a list what a trainer takes as a list, as a single object, or as None."""
    if one_or_more is None:
        return []
    return list(one_or_more) if isinstance(one_or_more, list | tuple) else [one_or_more]
