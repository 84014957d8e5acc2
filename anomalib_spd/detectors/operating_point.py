"""The operating point of a detector: its threshold, and the false alarms that are to be expected at it."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from anomalib.data.utils import LabelName
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from anomalib_spd.data.synthetic_validation import DrawnDefects
from anomalib_spd.files import write_text
from anomalib_spd.metrics.binomial import clopper_pearson, trials_needed

logger = logging.getLogger(__name__)

JSON, PAGE = "operating_point.json", "operating_point.md"
CONFIDENCE = 0.95
#: false alarms per 1,000 good parts
PROMISES = (1, 5, 10, 50)


class OperatingPoint(Callback):
    """Writes a card of the threshold that a validation has chosen: ``operating_point.json`` and ``operating_point.md``.

    It counts the false alarms among good images that the detector was not trained on, as the detector itself decides, sensitivity
    included: in :class:`~anomalib_spd.data.SyntheticValidation` those below the drawn defects, which have not chosen the threshold
    as good images; otherwise the good images of the validation set, which have, so that the count is optimistic. The interval
    (Clopper and Pearson, 95 %) holds for good parts like these: of other days, lights and machines it says nothing.

    It works in every training and ``anomalib validate`` of stock anomalib, by ``trainer.callbacks``.

    Source: ours.

    Args:
        output_dir: folder of the card; by default the run's.
        promises: false alarms per 1,000 good parts, for each of which the card says how many good images without a false alarm
            are needed to promise no more.

    Raises:
        ValueError: where a promise is not within (0, 1000); in training, where the detector has no threshold.
    """

    def __init__(self, output_dir: Path | str | None = None, promises: Sequence[float] = PROMISES) -> None:
        if not all(0 < each < 1000 for each in promises):
            raise ValueError(
                f"`promises` are false alarms per 1,000 good parts, above 0 and below 1000. Got {list(promises)}."
            )
        self.output_dir = output_dir
        self.promises = list(promises)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that there is a threshold (a Lightning hook).

        Raises:
            ValueError: where there is none.
        """
        del trainer, stage
        if not getattr(getattr(pl_module, "post_processor", None), "enable_thresholding", False):
            raise ValueError(
                f"OperatingPoint needs a threshold, and {type(pl_module).__name__} has none: give it a post_processor with "
                "enable_thresholding true"
            )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count false alarms, and write the card (a Lightning hook: the threshold is chosen just before)."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        data: Any = getattr(trainer, "datamodule", None)
        validation = getattr(data, "val_data", None)
        if validation is None:
            return
        drawn = isinstance(validation, DrawnDefects)
        good = validation.without_defects() if drawn else _good(validation)
        if not len(good):
            logger.warning("There is no operating point: the validation set has no good image")
            return
        loader: Any = DataLoader(
            good, batch_size=data.eval_batch_size, num_workers=data.num_workers, collate_fn=good.collate_fn
        )
        with torch.inference_mode():
            alarms = sum(int(pl_module(batch.image.to(pl_module.device)).pred_label.sum()) for batch in loader)
        card = describe(alarms, len(good), self.promises)
        processor: Any = pl_module.post_processor
        threshold = {
            "image_threshold": float(processor.image_threshold),
            "image_sensitivity": processor.image_sensitivity,
            "pixel_threshold": float(processor.pixel_threshold),
            "pixel_sensitivity": processor.pixel_sensitivity,
            "chosen_on_these_images": not drawn,
        }
        folder = Path(self.output_dir or trainer.default_root_dir)
        content = {name: None if value != value else value for name, value in {**threshold, **card}.items()}
        write_text(folder / JSON, json.dumps(content, indent=2) + "\n")
        write_text(folder / PAGE, page(content))
        logger.info("Operating point: %s", folder / PAGE)


def describe(alarms: int, good: int, promises: Sequence[float] = PROMISES) -> dict[str, Any]:
    """Return what a count of false alarms says.

    Args:
        alarms: good images that were called defective.
        good: good images.
        promises: false alarms per 1,000 good parts.

    Returns:
        For the card; rates are per 1,000 good parts.
    """
    low, high = clopper_pearson(alarms, good, CONFIDENCE)
    return {
        "good_images": good,
        "false_alarms": alarms,
        "false_alarms_per_1000": 1000 * alarms / good,
        "interval_per_1000": [1000 * low, 1000 * high],
        "confidence": CONFIDENCE,
        "good_images_needed": {f"{each:g}": trials_needed(each / 1000, CONFIDENCE) for each in promises},
    }


def page(card: dict[str, Any]) -> str:
    """Return the card as Markdown.

    Args:
        card: content of the JSON file.
    """
    low, high = card["interval_per_1000"]
    chosen = (
        "The threshold was chosen on these same images: on others it errs more often."
        if card["chosen_on_these_images"]
        else "None of them was trained on, or chose the threshold as a good image."
    )
    pixel = "none" if card["pixel_threshold"] is None else f"{card['pixel_threshold']:.4g}"
    needed = "\n".join(f"| {rate} | {number} |" for rate, number in card["good_images_needed"].items())
    return f"""# Operating point

| | |
|---|---|
| image threshold (raw score) | {card["image_threshold"]:.4g} |
| pixel threshold (raw score) | {pixel} |
| sensitivity, image and pixel | {card["image_sensitivity"]:g}, {card["pixel_sensitivity"]:g} |
| false alarms | {card["false_alarms"]} of {card["good_images"]} good images |
| per 1,000 good parts | {card["false_alarms_per_1000"]:.1f} [{low:.1f}, {high:.1f}], {card["confidence"]:.0%} confidence |

{chosen} The interval holds for good parts like these.

| to promise at most, per 1,000 good parts | good images needed, without a false alarm |
|---:|---:|
{needed}
"""


def _good(validation: Any) -> Any:
    return validation.subsample((validation.samples.label_index == LabelName.NORMAL).to_numpy().nonzero()[0].tolist())
