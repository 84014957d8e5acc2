"""Fine-tunes a backbone on normal images and registers it: what the command, a benchmark grid and a notebook call."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from anomalib.data import AnomalibDataModule
from lightning.pytorch import Trainer, seed_everything

from anomalib_spd import backbones
from anomalib_spd.backbones.install import check_addable
from anomalib_spd.backbones.record import Backbone
from anomalib_spd.data.normal_images import NormalImages
from anomalib_spd.files import sha256_of
from anomalib_spd.training.checkpoint import LastCheckpoint
from anomalib_spd.training.fit import LAST, fit, trainer_options
from anomalib_spd.training.module import TrainingModule


def finetune(
    model: TrainingModule | Callable[[], TrainingModule],
    data: AnomalibDataModule | Sequence[AnomalibDataModule],
    name: str,
    *,
    folder: Path | str = Path("runs/finetune"),
    batch_size: int = 32,
    image_size: int = 256,
    num_workers: int = 2,
    seed: int | None = 0,
    checkpoint: Mapping[str, Any] | None = None,
    ckpt_path: str | None = "last",
    settings: Mapping[str, Any] | None = None,
    command: str = "",
    **trainer: Any,
) -> Backbone | None:
    """Train an encoder on the normal training images of data modules, and register it under a name.

    Whether the result can be registered under the name is checked before anything is built or trained. A run that was interrupted resumes by the same call, and ends
    with the same weights bit for bit; one that is done changes nothing.

    Args:
        model: the training, such as :class:`~anomalib_spd.local.CategoryAdaptation`; or what makes it, called once the name
            is checked (:func:`check_new_name` also takes the backbone) and the seed is set.
        data: anomalib's data module; or several, of all of which one backbone is made.
        name: of the new backbone.
        folder: of runs; a run has a folder ``name`` there, for its checkpoint, logs and ``views.png``.
        batch_size: images a step.
        image_size: height and width that images are resized to, pixels.
        num_workers: processes that decode images.
        seed: of the run; None leaves the generators as they are.
        checkpoint: arguments of :class:`~anomalib_spd.training.checkpoint.LastCheckpoint`, such as
            ``{"every_n_train_steps": 50}``.
        ckpt_path: checkpoint to resume from; ``"last"`` is the run's own, if there is one.
        settings: what is recorded as the settings of the training; by default the arguments of ``model``.
        command: what is recorded as the command that made the backbone.
        **trainer: arguments of Lightning's ``Trainer``, such as ``max_steps``.

    Returns:
        The registered backbone; None from a trial (``fast_dev_run``), and in all but the first of several processes.

    Raises:
        ValueError: where the name cannot be used, the images or the settings are not those of the checkpoint, or an
            argument is out of range.
        FloatingPointError: where the loss is not finite.
        OSError: where the disk is full, or the registry cannot be written.
    """
    run_folder = Path(folder) / name
    checkpoints = run_folder / "checkpoints"
    is_registered = check_new_name(
        name, folder, model.hparams.get("backbone") if isinstance(model, TrainingModule) else None
    )
    if seed is not None:
        seed_everything(seed, workers=True)
    batches = NormalImages(data, batch_size, image_size, num_workers, keep_aspect=False, shrink_batches=True)
    training = model if isinstance(model, TrainingModule) else model()
    options = {**trainer, "default_root_dir": str(run_folder)}
    options |= trainer_options(options)
    last = LastCheckpoint(checkpoints, filename=Path(LAST).stem, enable_version_counter=False, **(checkpoint or {}))
    options["callbacks"].append(last)
    lightning: Any = Trainer(**options)
    fit(lightning, training, batches, checkpoints, ckpt_path)  # or find that all is done
    if lightning.fast_dev_run or not lightning.is_global_zero:
        return None
    if not is_registered:
        assert batches.images is not None, "the training had some"
        number = len(batches.images)
        described = f"{number} normal training images of {batches.title}"
        return backbones.add(name, checkpoints / LAST, data=described, settings=settings, command=command)
    if not _is_made_of(name, checkpoints / LAST):
        raise ValueError(
            f"The training went on, but the name {name!r} is taken by its earlier result: anomalib-spd backbones remove "
            f"{name}, and give the same command again"
        )
    return backbones.find(name)


def check_new_name(name: str, folder: Path | str, backbone: str | None = None) -> bool:
    """Return whether a name is that of what its run in a folder has trained; else check that it may be given.

    Args:
        name: of the new backbone.
        folder: of runs.
        backbone: that is fine-tuned, by its name; None leaves that part of the check out.

    Raises:
        ValueError: where the name is taken by another backbone, cannot be one, or detectors could not read the backbone under it.
        OSError: where the registry cannot be written.
    """
    if name in backbones.available() and _is_made_of(name, Path(folder) / name / "checkpoints" / LAST):
        return True
    check_addable(name, backbone)
    return False


def _is_made_of(name: str, checkpoint: Path) -> bool:
    """Return whether a registered backbone was made of a checkpoint."""
    return checkpoint.is_file() and sha256_of(checkpoint) == backbones.find(name).provenance.checkpoint_sha256
