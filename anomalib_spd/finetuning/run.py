"""Fine-tunes a backbone on normal images and registers it: what the command, a benchmark grid and a notebook call."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from anomalib.data import AnomalibDataModule
from lightning.pytorch import Trainer, seed_everything

from anomalib_spd import backbones
from anomalib_spd.backbones.install import check_addable
from anomalib_spd.backbones.names import check_free
from anomalib_spd.backbones.record import Backbone
from anomalib_spd.backbones.transformers import check_image_size
from anomalib_spd.data.normal_images import NormalImages
from anomalib_spd.data.ready import check_root
from anomalib_spd.files import atomic_write, sha256_of
from anomalib_spd.training.checkpoint import LastCheckpoint
from anomalib_spd.training.fit import LAST, fit, trainer_options
from anomalib_spd.training.held_out import MEMORY_IMAGES, Adaptation, compare_on_held_out
from anomalib_spd.training.module import TrainingModule

#: checkpoint of a backbone that is kept as it was
KEPT = "kept.ckpt"
OWN, TRAINED = "the backbone's own", "trained"


def finetune(
    model: TrainingModule | Callable[[], TrainingModule],
    data: AnomalibDataModule | Sequence[AnomalibDataModule],
    name: str,
    *,
    folder: Path | str = Path("runs/finetune"),
    batch_size: int = 32,
    image_size: int | tuple[int, int] = 256,
    num_workers: int = 2,
    holdout: float = 0.0,
    white: float | None = None,
    seed: int | None = 0,
    checkpoint: Mapping[str, Any] | None = None,
    ckpt_path: str | None = "last",
    settings: Mapping[str, Any] | None = None,
    command: str = "",
    **trainer: Any,
) -> Backbone | None:
    """Train an encoder on the normal training images of data modules, and register it under a name.

    Whether the result can be registered under the name is checked before anything is built or trained. A run that was interrupted
    resumes by the same call, and ends with the same weights bit for bit; one that is done changes nothing.

    Args:
        model: the training, such as :class:`~anomalib_spd.local.CategoryAdaptation`; or what makes it, called once the name
            is checked (:func:`check_new_name` also takes the backbone) and the seed is set.
        data: anomalib's data module; or several, of all of which one backbone is made. Trainings of the layers that detectors
            read, such as ``CategoryAdaptation``, have images of one data module in each batch, all equally often.
        name: of the new backbone.
        folder: of runs; a run has a folder ``name`` there, for its checkpoint, logs and ``views.png``.
        batch_size: images a step.
        image_size: height and width that images are resized to, pixels; one number stands for both.
        num_workers: processes that decode images.
        holdout: share of the normal images that are not trained on. Faint defects are drawn on them, and where these are not found
            better than before the training, the backbone is kept as it was; see
            :func:`~anomalib_spd.training.held_out.compare_on_held_out`. Of several data modules each is judged by its own
            images, and the sum decides. 0 takes the trained weights.
        white: value of white of images with one channel of more than 8 bits; see
            :func:`~anomalib_spd.data.image_files.read_image`.
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
        FileNotFoundError: where the folder of a data set does not exist.
        OSError: where the disk is full, or the registry cannot be written.
    """
    run_folder = Path(folder) / name
    checkpoints = run_folder / "checkpoints"
    is_registered = check_new_name(
        name, folder, model.hparams.get("backbone") if isinstance(model, TrainingModule) else None
    )
    if is_registered and ckpt_path != "last":
        check_free(name)  # what is trained anew would not get the name
    if seed is not None:
        seed_everything(seed, workers=True, verbose=False)
    training = model if isinstance(model, TrainingModule) else model()
    batches = NormalImages(
        data,
        batch_size,
        image_size,
        num_workers,
        keep_aspect=False,
        shrink_batches=True,
        white=white,
        holdout=holdout,
        by_category=isinstance(training, Adaptation),  # it may compare the images of a batch
    )
    for each in batches.datamodules:
        check_root(each)
    check_image_size(training.encoder, *batches.image_size)
    if holdout and not isinstance(training, Adaptation):
        raise ValueError(
            f"holdout is for trainings of the layers that detectors read, such as CategoryAdaptation. Got {type(training).__name__}: "
            "leave it out"
        )
    options = {**trainer, "default_root_dir": str(run_folder)}
    options |= trainer_options(options)
    last = LastCheckpoint(checkpoints, filename=Path(LAST).stem, enable_version_counter=False, **(checkpoint or {}))
    options["callbacks"].append(last)
    lightning: Any = Trainer(**options)
    fit(lightning, training, batches, checkpoints, ckpt_path)  # or find that all is done
    if lightning.fast_dev_run or not lightning.is_global_zero:
        return None
    if is_registered:
        return backbones.find(name)
    assert batches.images is not None, "the training had some"
    described = f"{len(batches.images)} normal training images of {batches.title}"
    weights, recipe = (
        _chosen(training, batches, checkpoints)
        if isinstance(training, Adaptation) and holdout
        else (checkpoints / LAST, "")
    )
    return backbones.add(name, weights, data=described, recipe=recipe, settings=settings, command=command)


def _chosen(training: Adaptation, batches: NormalImages, checkpoints: Path) -> tuple[Path, str]:
    """Return the checkpoint of the weights that do best on the images held out, and what was chosen, in words."""
    print("Faint defects drawn on held-out images, image AU-ROC / pixel AU-PR of PatchCore:")
    gain, number = 0.0, 0
    for each in batches.held_out(MEMORY_IMAGES):
        before, after = compare_on_held_out(training, each.training, each.held_out)
        print(f"  {each.title} ({len(each.held_out)} images): {before} before the training, {after} after it")
        gain, number = gain + after.total - before.total, number + len(each.held_out)
    recipe = f"{TRAINED if gain > 0 else OWN} weights, chosen by faint defects drawn on {number} held-out images"
    if gain > 0:
        print("The trained weights are taken.")
        return checkpoints / LAST, recipe
    print("The backbone is kept as it was: no gain on your parts.")
    content = torch.load(checkpoints / LAST, weights_only=True)
    content["state_dict"] |= {f"encoder.{key}": each for key, each in training.teacher.state_dict().items()}
    with atomic_write(checkpoints / KEPT) as file:
        torch.save(content, file)
    return checkpoints / KEPT, recipe


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
    if name in backbones.available() and _is_made_of(name, Path(folder) / name / "checkpoints"):
        return True
    check_addable(name, backbone)
    return False


def _is_made_of(name: str, checkpoints: Path) -> bool:
    """Return whether a registered backbone was made of a run's checkpoint."""
    files = [file for file in (checkpoints / LAST, checkpoints / KEPT) if file.is_file()]
    return backbones.find(name).provenance.checkpoint_sha256 in map(sha256_of, files)
