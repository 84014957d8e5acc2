"""Records the predictions for every test image, in little memory at any resolution."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.utils.cv import connected_components_cpu
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from anomalib_spd.benchmark.results import FALSE_POSITIVE_RATES, Scores

PICTURE_SIZE = 56
BINS = 1000

#: distinct scores, and how many pixels or which share of a region each has
Counts = tuple[NDArray[np.float32], NDArray[np.int64] | NDArray[np.float64]]


class ScoreRecorder(Callback):
    """Collects the test stage of one run into ``Scores``.

    Pixels are counted: per image, first in bins of 2**-14 of their score (14 bits of mantissa), at the end in about 2,000
    bins that hold equal shares of the anomalous and of all pixels.
    """

    def __init__(self) -> None:
        self._paths: list[tuple[str, str]] = []
        self._labels: list[bool] = []
        self._scores: list[float] = []
        self._pictures: list[NDArray[np.float16]] = []
        self._normal: list[Counts] = []
        self._anomalous: list[Counts] = []
        self._regions: list[Counts] = []
        self._has_masks = True
        #: seconds that the detector took for all images, without loading them
        self.seconds = 0.0
        self._start = 0.0
        #: height and width of the anomaly maps, pixels
        self.map_size: tuple[int, int] | None = None

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Start the clock (a Lightning hook)."""
        del trainer, pl_module, batch, batch_idx, dataloader_idx
        self._start = time.perf_counter()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Record a batch with its predictions (a Lightning hook)."""
        del trainer, pl_module, outputs, batch_idx, dataloader_idx
        batch.pred_score.float().flatten().tolist()  # waits for a GPU
        self.seconds += time.perf_counter() - self._start
        self.record(batch)

    def record(self, batch: Any) -> None:
        """Record a batch with its predictions, whoever made them.

        Args:
            batch: of anomalib, with ``pred_score``, and ``anomaly_map`` and ``gt_mask`` of one size if there are any.
        """
        scores = batch.pred_score.float().flatten().tolist()
        size = len(batch.image_path)
        self._paths += list(zip(batch.image_path, batch.mask_path or [""] * size, strict=True))
        self._labels += batch.gt_label.bool().tolist()
        self._scores += scores
        maps, masks = batch.anomaly_map, batch.gt_mask
        if maps is None:  # then masks have no use
            maps, masks = torch.zeros(size, 1, 1), None
        maps = maps.float().reshape(size, *maps.shape[-2:])
        self.map_size = (int(maps.shape[-2]), int(maps.shape[-1]))
        picture = (min(self.map_size[0], PICTURE_SIZE), min(self.map_size[1], PICTURE_SIZE))
        self._pictures += list(F.adaptive_avg_pool2d(maps[:, None], picture)[:, 0].cpu().numpy().astype(np.float16))
        self._has_masks &= masks is not None
        if masks is None:
            masks = torch.zeros_like(maps)
        for each, mask in zip(maps, masks.bool().reshape(maps.shape), strict=True):
            self._normal.append(_count(each[~mask]))
            self._anomalous.append(_count(each[mask]))
            self._regions.append(_overlap(each, mask))

    def scores(self) -> Scores:
        """Return all that was recorded."""
        labels = np.array(self._labels, dtype=bool)
        normal_images = [counts for counts, label in zip(self._normal, labels, strict=True) if not label]
        if self._has_masks:
            edges = _edges(self._normal, self._anomalous)
            negative, positive, overlap = (
                _binned(each, edges) for each in (self._normal, self._anomalous, self._regions)
            )
        else:
            negative = positive = overlap = np.zeros((len(labels), 0))
        return Scores(
            image_path=np.array([Path(image).as_posix() for image, _ in self._paths]),
            mask_path=np.array([Path(mask).as_posix() if mask else "" for _, mask in self._paths]),
            image_label=labels,
            image_score=np.array(self._scores, dtype=np.float32),
            anomaly_map=np.stack(self._pictures),
            false_positive_score=_quantiles(normal_images, 1 - FALSE_POSITIVE_RATES),
            pixel_positive=positive.astype(np.int32),
            pixel_negative=negative.astype(np.int32),
            region_overlap=overlap.astype(np.float32),
        )


def _count(scores: Tensor) -> Counts:
    """Return the distinct scores, cut to 14 bits of mantissa, and the number of pixels of each."""
    cut = scores.contiguous().view(torch.int32) & ~0x1FF
    values, counts = torch.unique(cut, return_counts=True)
    return values.view(torch.float32).cpu().numpy(), counts.cpu().numpy()


def _overlap(scores: Tensor, mask: Tensor) -> Counts:
    """Return the scores of a map's defective regions, and the share of its region that each has."""
    regions = connected_components_cpu(mask[None, None].float().cpu())[0, 0].to(scores.device)
    found = [
        (values, counts / counts.sum())
        for values, counts in (_count(scores[regions == each]) for each in regions[mask].unique())
    ]
    if not found:
        return _count(scores[:0])
    values, shares = zip(*found, strict=True)
    return np.concatenate(values), np.concatenate(shares)


def _quantiles(images: list[Counts], shares: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the scores below which these shares of the pixels of some images lie."""
    if not images or not sum(len(values) for values, _ in images):
        return np.full(len(shares), np.nan, dtype=np.float32)
    values, counts = (np.concatenate(column) for column in zip(*images, strict=True))
    order = np.argsort(values, kind="stable")
    at = np.searchsorted(np.cumsum(counts[order]), shares * counts.sum())
    return np.asarray(values[order][np.minimum(at, len(values) - 1)], dtype=np.float32)


def _edges(normal: list[Counts], anomalous: list[Counts]) -> NDArray[np.float32]:
    """Return ascending edges of bins that resolve the anomalous pixels as well as all pixels."""
    shares = np.linspace(0, 1, BINS)
    edges = np.unique(np.concatenate([_quantiles(anomalous, shares), _quantiles(normal + anomalous, shares)]))
    return np.asarray(edges[~np.isnan(edges)], dtype=np.float32)


def _binned(images: list[Counts], edges: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return (N, K) sums of counts, the bin of the highest scores first."""
    table = np.zeros((len(images), len(edges)))
    for row, (values, counts) in zip(table, images, strict=True):
        np.add.at(row, np.searchsorted(edges, values, side="right") - 1, counts)
    return table[:, ::-1]
