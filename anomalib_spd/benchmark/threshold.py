"""The threshold that drawn defects choose for a cell of a grid, and what it does to the test images."""

from types import SimpleNamespace
from typing import Any

import torch
from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.metrics import F1AdaptiveThreshold
from anomalib.models.components import AnomalibModule
from torch import Tensor

from anomalib_spd.benchmark.results import Scores
from anomalib_spd.data.synthetic_validation import DrawnDefects
from anomalib_spd.detectors.operating_point import describe


def operating_point(model: AnomalibModule, data: AnomalibDataModule, scores: Scores) -> dict[str, Any] | None:
    """Return the operating point of a detector, or None where no defects are drawn on its validation images.

    The threshold of the raw image score is anomalib's, of the largest F1 on the validation images. False alarms are counted among
    those that are drawn on, as they were before; see :class:`~anomalib_spd.detectors.operating_point.OperatingPoint`.

    Args:
        model: trained.
        data: set up.
        scores: of the test images.

    Returns:
        ``image_threshold``, what :func:`~anomalib_spd.detectors.operating_point.describe` returns, and of the test images
        ``test_false_alarms`` and ``test_missed``.
    """
    validation = getattr(data, "val_data", None)
    if not isinstance(validation, DrawnDefects):
        return None
    metric: Any = F1AdaptiveThreshold(fields=["pred_score", "gt_label"])
    labels = torch.tensor(validation.samples.label_index.tolist())
    metric.update(SimpleNamespace(pred_score=_scores(model, validation), gt_label=labels))
    threshold = float(metric.compute())
    good = _scores(model, validation.without_defects())
    defective = scores.image_score > threshold
    return {
        "image_threshold": threshold,
        **describe(int((good > threshold).sum()), len(good)),
        "test_false_alarms": int((defective & ~scores.image_label).sum()),
        "test_missed": int((~defective & scores.image_label).sum()),
    }


@torch.inference_mode()
def _scores(model: AnomalibModule, data: AnomalibDataset) -> Tensor:
    """Return the raw score of each image ``(N,)``, one at a time: they may be of several sizes."""
    model.eval()
    images: Any = (data[index].image for index in range(len(data)))
    return torch.stack([model(image[None].to(model.device)).pred_score.float().cpu().squeeze() for image in images])
