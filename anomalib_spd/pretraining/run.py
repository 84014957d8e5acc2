"""Pre-training in one line, from Python: images in, a registered backbone out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, Trainer, seed_everything

from anomalib_spd import backbones
from anomalib_spd.backbones.install import check_addable
from anomalib_spd.backbones.record import Backbone
from anomalib_spd.data.images import ImageFolder
from anomalib_spd.training.checkpoint import LastCheckpoint
from anomalib_spd.training.fit import LAST, fit, trainer_options
from anomalib_spd.training.module import TrainingModule


def pretrain(
    method: Callable[[], TrainingModule],
    images: LightningDataModule | Path | str,
    name: str,
    *,
    folder: Path | str = Path("runs/pretrain"),
    batch_size: int = 32,
    num_workers: int = 1,
    seed: int | None = 0,
    ckpt_path: str | None = "last",
    **trainer: Any,
) -> Backbone | None:
    """Pre-train a backbone on images, and register it under a name.

    ``anomalib-spd pretrain`` and ``anomalib-spd backbones add`` in one call. A run that was interrupted resumes by the same call.

    Args:
        method: what makes the training once the seed is set: a class such as :class:`~anomalib_spd.pretraining.SimSiamSPD`, or
            ``lambda: SimSiamSPD(backbone="resnet18.tv_in1k", eta=0.1)``.
        images: a data module of batches, such as :class:`~anomalib_spd.data.LabelledImages`; or a folder of images, or a text
            file that lists them, see :class:`~anomalib_spd.data.ImageFolder`.
        name: of the new backbone; it may not be taken.
        folder: of runs; a run has a folder ``name`` there, for its checkpoint, logs and ``views.png``.
        batch_size: images a step, of a folder.
        num_workers: processes that decode the images of a folder.
        seed: of the run; None leaves the generators as they are.
        ckpt_path: checkpoint to resume from; ``"last"`` is the run's own, if there is one; ``"none"`` begins anew.
        **trainer: arguments of Lightning's ``Trainer``, such as ``max_epochs`` or ``max_steps``.

    Returns:
        The registered backbone; None from a trial (``fast_dev_run``), and in all but the first of several processes.

    Raises:
        ValueError: where the name cannot be used, or the images or settings are those of another run.
        OSError: where images or weights are missing, the disk is full, or the registry cannot be written.
        FloatingPointError: where the loss is not finite.
    """
    check_addable(name)
    if seed is not None:
        seed_everything(seed, workers=True, verbose=False)
    batches = (
        images if isinstance(images, LightningDataModule) else ImageFolder(images, batch_size, num_workers=num_workers)
    )
    training = method()
    check_addable(name, training.hparams.get("backbone"))
    checkpoints = Path(folder) / name / "checkpoints"
    options: dict[str, Any] = {
        "log_every_n_steps": 1,
        "devices": 1,
        **trainer,
        "default_root_dir": str(checkpoints.parent),
    }
    options |= trainer_options(options)
    options["callbacks"].append(LastCheckpoint(checkpoints, filename=Path(LAST).stem, enable_version_counter=False))
    lightning: Any = Trainer(**options)
    fit(lightning, training, batches, checkpoints, ckpt_path)
    if lightning.fast_dev_run or not lightning.is_global_zero:
        return None
    made = backbones.add(name, checkpoints / LAST)
    print(f"Use it: {made.usage}")
    return made
