"""Category adaptation in one line: the recipe ``finetune/adapt``, from Python."""

from collections.abc import Sequence
from pathlib import Path
from pydoc import locate
from typing import Any

from anomalib.data import AnomalibDataModule

from anomalib_spd.backbones.record import Backbone
from anomalib_spd.config_files import load_config_files
from anomalib_spd.finetuning.run import check_new_name, finetune

RECIPE = "finetune/adapt"


def adapt(
    datamodule: AnomalibDataModule | Sequence[AnomalibDataModule],
    name: str,
    *,
    backbone: str = "efficientnet_lite0_spd",
    layers: Sequence[str] | None = None,
    frozen: Sequence[str] | None = None,
    folder: Path | str = Path("runs/finetune"),
    batch_size: int = 8,
    image_size: int | tuple[int, int] = 256,
    num_workers: int = 1,
    holdout: float = 0.25,
    seed: int | None = 0,
    max_steps: int = 100,
    settings: dict[str, Any] | None = None,
    **trainer: Any,
) -> Backbone | None:
    """Adapt a backbone to the normal training images of a data module, and register it under a name.

    The same as ``anomalib-spd adapt``, with the settings of the recipe ``finetune/adapt``: the same call, given again, resumes an
    interrupted run, and changes nothing where it is done. Where the training does not help by faint defects drawn on images
    held out, the new name has the weights of the backbone as it was. The new name has the backbone's licence too.

    Args:
        datamodule: anomalib's; or several, of all of which one backbone is made.
        name: of the new backbone.
        backbone: name in the registry or in timm.
        layers: that detectors read, first to last; by default :func:`anomalib_spd.backbones.layers`.
        frozen: parts that are not trained; by default all before the first of the layers.
        folder: of runs.
        batch_size: images a step; half of them are the memory.
        image_size: height and width that images are resized to, pixels, as the detector will see them; one number stands for both.
        num_workers: processes that decode images.
        holdout: share of the normal images that tell whether the training helps; 0 takes the trained weights.
        seed: of the run; None leaves the generators as they are.
        max_steps: of the training.
        settings: other arguments of :class:`~anomalib_spd.local.CategoryAdaptation`, such as ``{"eta": 0}``.
        **trainer: other arguments of Lightning's ``Trainer``, such as ``accelerator``.

    Returns:
        The registered backbone, see :func:`~anomalib_spd.finetuning.run.finetune`.

    Raises:
        ValueError: where the name cannot be used, a layer does not exist, or the images or settings are those of another run.
        OSError: where images or weights are missing, the disk is full, or the registry cannot be written.
    """
    check_new_name(name, folder, backbone)
    recipe = load_config_files([RECIPE])["model"]
    method: Any = locate(recipe["class_path"])
    chosen = {"backbone": backbone, "layers": layers, "frozen": frozen}
    made = finetune(
        lambda: method(**recipe["init_args"] | chosen | (settings or {})),
        datamodule,
        name,
        folder=folder,
        batch_size=batch_size,
        image_size=image_size,
        num_workers=num_workers,
        holdout=holdout,
        seed=seed,
        checkpoint={"every_n_train_steps": 50},
        max_steps=max_steps,
        **{"max_epochs": -1, "log_every_n_steps": 1, "devices": 1, **trainer},
    )
    if made is not None:
        print(f"Use it: {made.usage}")
    return made
