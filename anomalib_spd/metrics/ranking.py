"""Ranking metrics for anomalib's ``Evaluator``, exact or binned; AU-PRO and F1-max are computed by anomalib's own.

The classes take raw scores, where anomalib's and torchmetrics' own apply a sigmoid. They compute from counts per score,
as the bootstrap does, and not by torchmetrics' curves: on 10 million scores those take 7 s and differ by 1e-7.

Examples:
    >>> from anomalib.metrics import Evaluator
    >>> image = AUROC(fields=["pred_score", "gt_label"], prefix="image_")
    >>> pixel = AUPR_step(fields=["anomaly_map", "gt_mask"], prefix="pixel_", strict=False)
    >>> evaluator = Evaluator(test_metrics=[image, pixel])
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import anomalib.metrics
import numpy as np
import torch
from anomalib.metrics import AnomalibMetric
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat
from torchmetrics.utilities.prints import rank_zero_warn

from anomalib_spd.metrics import areas

# sign, exponent and 11 bits of the mantissa stay: a bin is no wider than 1/2048 of its scores' size
_DROPPED_BITS = 12
_BINS = 2 ** (32 - _DROPPED_BITS)


class _Sorted(NamedTuple):
    """The scores of one class: K ascending values, and how many scores lie before each, (K + 1,) int64."""

    values: NDArray[np.float32]
    cumulative: NDArray[np.int64]

    @property
    def total(self) -> int:
        return int(self.cumulative[-1])

    def below(self, thresholds: NDArray[Any]) -> NDArray[np.int64]:
        """Return how many scores lie below each threshold."""
        return self.cumulative[np.searchsorted(self.values, thresholds)]

    def up_to(self, thresholds: NDArray[Any]) -> NDArray[np.int64]:
        """Return how many scores lie at or below each threshold."""
        return self.cumulative[np.searchsorted(self.values, thresholds, side="right")]

    def at(self, rank: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scores of whole ranks, 0 the lowest."""
        return self.values[np.searchsorted(self.cumulative, rank, side="right") - 1].astype(np.float64)


class _Scores(Metric):
    """Collects the scores of positives and of negatives, or counts them in bins."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0
    # tensors when binned
    negatives: Any
    positives: Any

    def __init__(self, binned: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.binned = binned
        for name in ("negatives", "positives"):
            default: Tensor | list[Tensor] = torch.zeros(_BINS, dtype=torch.int64) if binned else []
            self.add_state(name, default, dist_reduce_fx="sum" if binned else "cat")

    def update(self, scores: Tensor, target: Tensor) -> None:
        """Add scores.

        Args:
            scores: any shape and dtype, finite in float32; the higher, the more anomalous.
            target: bool, or 0 and 1 of any dtype, of the shape of ``scores``; only one may have a channel dimension 1.

        Raises:
            ValueError: the shapes differ, a target is neither 0 nor 1, or a score is not finite.
        """
        scores, target = _flat(scores, target)
        for name, part in (("negatives", scores[~target]), ("positives", scores[target])):
            if self.binned:
                bins = (_to_order(part) >> _DROPPED_BITS) + _BINS // 2
                # not in place: a tensor made in inference mode cannot be changed outside of it
                setattr(self, name, getattr(self, name) + torch.bincount(bins, minlength=_BINS))
            else:
                getattr(self, name).append(part)

    def _sorted(self) -> list[_Sorted]:
        """Return the negatives and the positives, in order."""
        parts = [self.negatives, self.positives]
        if not self.binned:
            # numpy sorts floats several times faster than torch, which sorts indices with them
            joined = (dim_zero_cat(part) if len(part) else torch.empty(0) for part in parts)
            return [_Sorted(np.sort(scores.cpu().numpy()), np.arange(scores.numel() + 1)) for scores in joined]
        # a bin stands for its score that is nearest to zero
        order = torch.arange(-_BINS // 2, _BINS // 2, dtype=torch.int32)
        values = _from_order((order << _DROPPED_BITS) | (order < 0).int() * (2**_DROPPED_BITS - 1)).numpy()
        counts = [part.cpu().numpy() for part in parts]
        return [_Sorted(values[count > 0], np.append(0, count[count > 0].cumsum())) for count in counts]


class RankingMetric(AnomalibMetric, _Scores):  # type: ignore[misc] # anomalib's update takes a batch instead
    """A metric that ranks positives against negatives.

    Args:
        fields: names of the scores and of the targets in anomalib's batches.
        prefix: stands before the class name in the logged name.
        strict: refuse a batch that lacks a field, instead of skipping it.
        binned: count scores in bins of the leading 20 bits of float32 (ours) instead of keeping them: 16 MB for any
            number of scores. Bins depend on no data, so batches and processes do not matter.
        kwargs: arguments of ``torchmetrics.Metric``.
    """

    def compute(self) -> Tensor:
        """Return the area, a float32 scalar in ``[0, 1]``; NaN and a warning without positives or without negatives.

        anomalib's own metrics are None in a process without batches, even where other processes have some.
        """
        negative, positive = self._sorted()
        if positive.total and negative.total:
            return torch.tensor(self._area(positive, negative), dtype=torch.float32, device=self.device)
        rank_zero_warn(
            f"{type(self).__name__} is NaN: it ranks positives against negatives. Got {positive.total} positives and "
            f"{negative.total} negatives; a data set without masks has neither at pixel level."
        )
        return torch.tensor(torch.nan, device=self.device)

    @abstractmethod
    def _area(self, positive: _Sorted, negative: _Sorted) -> float: ...


class _OfCounts(RankingMetric):
    #: the same area from counts per score, see ``areas``
    area: Callable[[Tensor, Tensor], Tensor]

    def _area(self, positive: _Sorted, negative: _Sorted) -> float:
        # no area depends on the order of negatives between two positives: they count as one score
        distinct = np.unique(positive.values)
        counts = []
        for each in (positive, negative):
            edges = np.stack([each.below(distinct), each.up_to(distinct)], axis=1)
            counts.append(np.diff(edges.ravel(), prepend=0, append=each.total)[::-1].copy())
        return self.area(*map(torch.from_numpy, counts)).item()


class AUROC(_OfCounts):
    """Area under the ROC curve, where ties count half: scikit-learn's ``roc_auc_score``."""

    area = staticmethod(areas.auroc)


class AUPR_step(_OfCounts):
    """Step-wise area under the precision-recall curve: scikit-learn's ``average_precision_score``."""

    area = staticmethod(areas.aupr_step)


class AUPR_trapezoid(_OfCounts):
    """Trapezoidal area under the precision-recall curve: ``auc`` of scikit-learn's ``precision_recall_curve``."""

    area = staticmethod(areas.aupr_trapezoid)


class AUPRO(anomalib.metrics.AUPRO):
    """anomalib's area under the curve of per-region overlap, up to a false positive rate of 0.3."""

    area = staticmethod(areas.aupro)


class AUPR_visa(RankingMetric):
    """VisA's approximation of ``AUPR_trapezoid`` by 202 thresholds.

    They are 100 percentiles of the positives' scores, 100 equal steps between their extremes, and one beyond either end
    of all scores. Scores above a threshold are predicted; the precision of no predictions is 1. The thresholds are
    float64; those of VisA have the maps' dtype, where the lowest may round to the lowest score, which it then does not
    predict. The result is not rounded; VisA gives 4 decimals.

    Source: the evaluation code of VisA, Zou et al., SPot-the-Difference Self-Supervised Pre-training (ECCV 2022).
    """

    def _area(self, positive: _Sorted, negative: _Sorted) -> float:
        # numpy's order of operations, so that a threshold meets a tied score as it does in the original
        rank = (positive.total - 1) * (np.linspace(100, 0, 100) / 100)
        share = rank - np.floor(rank)
        low, high = positive.at(np.floor(rank)), positive.at(np.ceil(rank))
        percentiles = np.where(share < 0.5, low + (high - low) * share, high - (high - low) * (1 - share))
        steps = np.linspace(percentiles[0], percentiles[-1], 100)
        thresholds = np.sort(np.concatenate([percentiles, steps]))[::-1]
        # the two thresholds beyond the scores predict nothing and everything
        tp, fp = (
            np.concatenate([[0], each.total - each.up_to(thresholds), [each.total]]) for each in (positive, negative)
        )
        precision = np.divide(tp, tp + fp, out=np.ones(len(tp)), where=tp + fp > 0)
        return float(np.diff(tp) @ (precision[1:] + precision[:-1]) / (2 * positive.total))


def _to_order(scores: Tensor) -> Tensor:
    """Map float32 to int32 in the same order; floats are sign and magnitude, and -0.0 becomes the 0.0 that it equals."""
    bits = (scores + 0.0).view(torch.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _from_order(order: Tensor) -> Tensor:
    return (order ^ ((order >> 31) & 0x7FFFFFFF)).view(torch.float32)


def _flat(scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Check and return scores as float32 ``(N,)`` and targets as bool ``(N,)``."""
    shapes = [shape[:1] + shape[2:] if shape[1:2] == (1,) else shape for shape in (scores.shape, target.shape)]
    if shapes[0] != shapes[1] and scores.shape != target.shape:
        raise ValueError(
            f"Scores and targets have one shape, but for a channel dimension of 1. Got {tuple(scores.shape)} and "
            f"{tuple(target.shape)}: resize one to the other."
        )
    scores, target = scores.detach().flatten().float(), target.flatten()
    if scores.numel() and not torch.stack(torch.aminmax(scores)).isfinite().all():
        raise ValueError(
            f"Scores are finite numbers of float32. Got {int(scores.isnan().sum())} NaN and "
            f"{int(scores.isinf().sum())} infinite of {scores.numel()}: look for an overflow in the model's precision."
        )
    positive = target.bool()
    if target.dtype != torch.bool and bool((positive != target).any()):
        raise ValueError(
            f"Targets are bool or 0 and 1. Got values from {target.min():g} to {target.max():g}: "
            "divide a mask of 0 and 255 by 255."
        )
    return scores, positive
