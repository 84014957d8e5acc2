"""A visualizer for stock anomalib detectors that draws on the whole photograph, and makes a contact sheet."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from anomalib.data import ImageBatch, ImageItem
from anomalib.data.utils import ValSplitMode, read_mask
from anomalib.utils.path import generate_output_filename
from anomalib.visualization import ImageVisualizer, Visualizer
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torchvision.transforms.v2 import Transform
from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat

from anomalib_spd.detectors.pictures import Inspection, contact_grid, draw

#: name of the contact sheet in the folder of the pictures
CONTACT_GRID = "contact_sheet.png"

Region = tuple[float, float, float, float]


class _Row(NamedTuple):
    """What the contact sheet needs of an image: nothing of the size of an image is held until the end."""

    picture: Path
    score: float | None
    defective: bool | None
    truly_defective: bool | None
    cropped: bool


class PhotographVisualizer(Visualizer):
    """Draws test images and predictions on the whole photograph, also where the detector saw a crop of it.

    Stock ``ImageVisualizer`` stretches the map and the mask of a center crop over the whole photograph. Here they lie where
    they belong: the pre-processor's transform says which part the detector saw, and the rest is hatched. The true outline is
    read from the mask's own file, so that a defect in the uninspected border is drawn too. All maps have one scale, from 0
    to 1. At the end, the pictures are arranged by falling score in ``contact_sheet.png``, and its path is printed.
    Of several processes each writes its own pictures, and there is no contact sheet.

    It stands wherever anomalib takes a visualizer: ``Patchcore(visualizer=PhotographVisualizer())``, or by its class path in
    YAML. A crop by the data module's own augmentations is not known to it.

    Args:
        output_dir: folder of the pictures; by default ``images`` in the folder of the run, as stock.
        max_images: of the contact sheet; of more, so many are taken, evenly spread from the highest to the lowest score.

    Raises:
        ValueError: for fewer than 1 image.

    Examples:
        >>> visualizer = PhotographVisualizer(max_images=30)
    """

    def __init__(self, output_dir: Path | str | None = None, max_images: int = 60) -> None:
        super().__init__()
        if max_images < 1:
            raise ValueError(f"max_images is {max_images}, expected 1 or more")
        self.output_dir = output_dir
        self.max_images = max_images
        self._rows: list[_Row] = []

    def __reduce__(self) -> tuple[type[ImageVisualizer], tuple[()]]:
        """Pickle as stock anomalib's class: a model that anomalib exports by ``torch.save`` must not need this package."""
        return ImageVisualizer, ()

    def visualize(self, item: ImageItem, transform: Transform | None = None, threshold: float = 0.5) -> Image.Image:
        """Draw one image with its predictions.

        Args:
            item: an image with its normalized predictions; the photograph is read from its ``image_path``.
            transform: the detector's, such as ``model.pre_processor.transform``; None where it sees photographs as they are.
            threshold: of the anomaly map.

        Returns:
            An RGB picture.

        Raises:
            ValueError: where the item does not say where its photograph is.
        """
        return draw(_inspection(item, transform), threshold)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that scores are normalized (a Lightning hook).

        Raises:
            ValueError: where the post-processor leaves them as they are: there is no common scale then.
        """
        del trainer, stage
        post_processor: Any = getattr(pl_module, "post_processor", None)
        if not getattr(post_processor, "enable_normalization", True):
            raise ValueError(
                "PhotographVisualizer draws scores from 0 to 1, and the post-processor has enable_normalization false: "
                "set it, or take anomalib.visualization.ImageVisualizer"
            )

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a contact sheet (a Lightning hook)."""
        del trainer, pl_module
        self._rows = []

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw and write the images of a batch (a Lightning hook)."""
        del outputs, batch_idx, dataloader_idx
        transform = getattr(getattr(pl_module, "pre_processor", None), "transform", None)
        threshold = _threshold(pl_module, "pixel")
        data: Any = getattr(trainer, "datamodule", None)
        for item in batch:
            inspection = _inspection(item, transform)
            path = generate_output_filename(
                str(item.image_path),
                self._folder(trainer),
                getattr(data, "name", None),
                getattr(data, "category", None),
            )
            # JPEG would blur lines and letters
            path = path if path.suffix.lower() == ".png" else path.with_name(f"{path.name}.png")
            draw(inspection, threshold).save(path)
            cropped = inspection.region != (0, 0, *inspection.photograph.size)
            self._rows.append(_Row(path, inspection.score, inspection.defective, inspection.truly_defective, cropped))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the contact sheet and print where it is (a Lightning hook)."""
        # each of several processes has pictures of its own part
        if not self._rows or trainer.world_size > 1:
            return
        rows = sorted(self._rows, key=lambda row: -math.inf if row.score is None else row.score, reverse=True)
        chosen = rows
        if len(rows) > self.max_images:
            chosen = [rows[at] for at in np.linspace(0, len(rows) - 1, self.max_images).round().astype(int)]
        path = self._folder(trainer) / CONTACT_GRID
        contact_grid(
            [row.picture for row in chosen],
            _title(trainer, pl_module),
            [_summary(rows, len(chosen)), _origin_of_threshold(trainer, pl_module)],
            _threshold(pl_module, "pixel"),
            border=any(row.cropped for row in rows),
        ).save(path)
        self._rows = []
        pl_module.print(f"Contact sheet of the images: {path}")

    # a prediction is drawn like a test image; nothing is known of the truth
    on_predict_start = on_test_start
    on_predict_batch_end = on_test_batch_end
    on_predict_end = on_test_end

    def _folder(self, trainer: Trainer) -> Path:
        return Path(self.output_dir or Path(trainer.default_root_dir) / "images")


def inspected_region(transform: Transform | None, height: int, width: int) -> Region:
    """Return the part of a photograph that is left of it after a detector's transform.

    Args:
        transform: resizes and center crops, in any order.
        height: of the photograph, pixels.
        width: of the photograph, pixels.

    Returns:
        Left, top, right and bottom, in pixels of the photograph.
    """
    if transform is None:
        return (0.0, 0.0, float(width), float(height))
    # torchvision moves a box as it moves the image. One in the middle, small enough to be in any center crop, shows the scale
    # and the shift
    x, y, half = width / 2, height / 2, 0.5
    box = BoundingBoxes(
        torch.tensor([[x - half, y - half, x + half, y + half]]),
        format=BoundingBoxFormat.XYXY,
        canvas_size=(height, width),
    )
    moved = transform(box)
    left, top, right, bottom = moved[0].double().tolist()
    bounds_height, bounds_width = moved.canvas_size
    across, down = 2 * half / (right - left), 2 * half / (bottom - top)
    start_x, start_y = x - half - left * across, y - half - top * down
    return (start_x, start_y, start_x + bounds_width * across, start_y + bounds_height * down)


def _inspection(item: ImageItem, transform: Transform | None) -> Inspection:
    if not item.image_path:
        raise ValueError("PhotographVisualizer needs the photograph's file, and this image has no image_path")
    path = Path(item.image_path)
    with Image.open(path) as file:
        photograph = file.convert("RGB")
    region = inspected_region(transform, photograph.height, photograph.width)
    label = item.gt_label
    truth: np.ndarray[Any, np.dtype[np.bool_]] | None = None
    # of good images it is "", or "None": anomalib reads the empty cell of a table as text
    if item.mask_path and Path(item.mask_path).is_file():
        truth = np.asarray(read_mask(item.mask_path)) > 0
    elif item.gt_mask is not None:
        # back to where it was
        mask = Image.fromarray(np.asarray(item.gt_mask.squeeze().cpu(), dtype=np.uint8))
        left, top, right, bottom = (round(edge) for edge in region)
        whole = Image.new("L", photograph.size)
        whole.paste(mask.resize((right - left, bottom - top), Image.Resampling.NEAREST), (left, top))
        truth = np.asarray(whole) > 0
    return Inspection(
        "/".join(path.parts[-2:]),
        photograph,
        region,
        None if item.anomaly_map is None else np.asarray(item.anomaly_map.squeeze().float().cpu()),
        truth,
        None if item.pred_score is None else float(item.pred_score),
        None if item.pred_label is None else bool(item.pred_label),
        None if label is None else bool(label),
    )


def _threshold(pl_module: LightningModule, level: str) -> float:
    """Return the threshold of normalized scores: anomalib moves it by the sensitivity."""
    post_processor: Any = getattr(pl_module, "post_processor", None)
    return float(getattr(post_processor, f"normalized_{level}_threshold", 0.5))


def _title(trainer: Trainer, pl_module: LightningModule) -> str:
    data: Any = getattr(trainer, "datamodule", None)
    detector = [type(pl_module).__name__, pl_module.hparams.get("backbone")]
    images = [getattr(data, "name", None), getattr(data, "category", None)]
    parts = [", ".join(str(name) for name in names if name) for names in (detector, images)]
    return " on ".join(part for part in parts if part)


def _summary(rows: list[_Row], number_drawn: int) -> str:
    judged = [row for row in rows if row.truly_defective is not None and row.defective is not None]
    counted = f"{len(rows)} images"
    if judged:
        defective = sum(bool(row.truly_defective) for row in judged)
        missed = sum(bool(row.truly_defective) and not row.defective for row in judged)
        alarms = sum(bool(row.defective) and not row.truly_defective for row in judged)
        right = len(judged) - missed - alarms
        counted += f", {defective} defective and {len(judged) - defective} good: "
        counted += f"{right} judged right, {missed} missed, {alarms} false alarms"
    counted += ". Highest score first"
    return f"{counted}; {number_drawn} of them shown, evenly spread." if number_drawn < len(rows) else f"{counted}."


def _origin_of_threshold(trainer: Trainer, pl_module: LightningModule) -> str:
    limit = f"Defective is a score above {_threshold(pl_module, 'image'):g}."
    data: Any = getattr(trainer, "datamodule", None)
    same = trainer.testing and getattr(data, "val_split_mode", None) == ValSplitMode.SAME_AS_TEST
    return f"{limit} The threshold was chosen on these same images: on others it errs more often." if same else limit
