"""Ranking metrics for anomalib's ``Evaluator``: exact up to ``exact_limit`` scores, within ``bounds()`` beyond.

All take the arguments of ``AnomalibMetric`` (``fields``, ``prefix``, ``strict``) and ``exact_limit``. The class names are
the logged names, after ``prefix``. The two definitions of AU-PR have two names (see ``areas``), and VisA's approximation
of the second has a third; anomalib's ``AUPR`` is the step-wise one.

AU-PRO (up to a false positive rate of 0.3) and F1-max are anomalib's own: ``anomalib.metrics.AUPRO`` and ``F1Max``.

Examples:
    >>> from anomalib.metrics import Evaluator
    >>> image = AUROC(fields=["pred_score", "gt_label"], prefix="image_")
    >>> pixel = AUPR_step(fields=["anomaly_map", "gt_mask"], prefix="pixel_", strict=False)
    >>> evaluator = Evaluator(test_metrics=[image, pixel])
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from anomalib.metrics import AnomalibMetric
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors
from torchmetrics.utilities.prints import rank_zero_warn

from anomalib_spd.metrics import areas

# sign, exponent and 11 bits of the mantissa stay: a bin is no wider than 1/2048 of its scores' size
_DROPPED_BITS = 12
_BINS = 2 ** (32 - _DROPPED_BITS)


class _Ranking(Metric):
    """What the metrics of this module share: the scores of positives and negatives.

    The scores themselves are kept, as float32, up to ``exact_limit``. Beyond, they are counted in bins of the leading 20
    bits of float32, which depend on no data (ours), so the result does not depend on how the scores came in batches
    or were spread over processes: all together decide whether they are binned.

    Args:
        exact_limit: how many scores may be kept, of all processes together; the same in every process.
        kwargs: arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: ``exact_limit`` is negative.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    positives: list[Tensor]
    negatives: list[Tensor]
    counts: Tensor

    def __init__(self, exact_limit: int = 2**25, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if exact_limit < 0:
            raise ValueError(f"`exact_limit` is a number of scores, 0 to bin them all. Got {exact_limit}.")
        self.exact_limit = exact_limit
        self.add_state("positives", [], dist_reduce_fx="cat")
        self.add_state("negatives", [], dist_reduce_fx="cat")
        # row 0 negatives, row 1 positives; one column of zeros stands for all bins until they are needed
        self.add_state("counts", torch.zeros(2, 1, dtype=torch.int64), dist_reduce_fx="sum")

    @property
    def is_binned(self) -> bool:
        """Whether this process counts in bins; the result of several may be binned though none is."""
        return self.counts.shape[1] > 1

    def update(self, scores: Tensor, target: Tensor) -> None:
        """Add scores.

        Args:
            scores: any shape and dtype, finite in float32; the higher, the more anomalous.
            target: bool, or 0 and 1 of any dtype, of the shape of ``scores``; only one may have a channel dimension 1.

        Raises:
            ValueError: the shapes differ, a target is neither 0 nor 1, or a score is not finite.
        """
        scores, target = _flat(scores, target)
        self._settle(incoming=scores.numel())
        if self.is_binned:
            # not in place: trainers update in inference mode, where others may not go on in place
            self.counts = self.counts + _histogram(scores, target)
        else:
            self.positives.append(scores[target])
            self.negatives.append(scores[~target])

    def compute(self) -> Tensor:
        """Return the area, a float32 scalar in ``[0, 1]``; NaN and a warning without positives or without negatives."""
        self._settle()
        return self._as_result(self._area() if self._is_defined() else torch.tensor(torch.nan))

    @abstractmethod
    def _area(self) -> Tensor:
        """Return the area of what is kept or counted, a scalar on the CPU; there are positives and negatives."""

    def _as_result(self, value: Tensor) -> Tensor:
        # not every device knows float64
        return value.float().to(self.device)

    def _is_defined(self) -> bool:
        binned = self.counts.sum(1).tolist()
        negative, positive = (int(n) + _numel(scores) for n, scores in zip(binned, self._kept(), strict=True))
        if positive and negative:
            return True
        rank_zero_warn(
            f"{type(self).__name__} is NaN: it ranks positives against negatives. Got {positive} positives and "
            f"{negative} negatives; a data set without masks has neither at pixel level."
        )
        return False

    def _kept(self) -> tuple[list[Tensor], list[Tensor]]:
        return self.negatives, self.positives

    def _settle(self, incoming: int = 0) -> None:
        """Pour the kept scores into the bins if there are bins, or if with ``incoming`` more there are too many."""
        if not self.is_binned:
            if _numel(*self._kept()) + incoming <= self.exact_limit:
                return
            self.counts = self.counts.repeat(1, _BINS)
        for label, scores in enumerate(self._kept()):
            if scores:
                self.counts = self.counts + _histogram(torch.cat(scores), label).to(self.counts.device)
                scores.clear()

    def _sync_dist(
        self, dist_sync_fn: Callable[..., list[Tensor]] = gather_all_tensors, process_group: Any | None = None
    ) -> None:
        # torchmetrics has no public place where processes meet before they join their states
        kept = _numel(*self._kept())
        own = torch.tensor([kept + int(self.counts.sum())], device=self.device)
        of_all = torch.cat(dist_sync_fn(own, group=process_group or self.process_group)).sum()
        self._settle(incoming=int(of_all) - kept)
        super()._sync_dist(dist_sync_fn, process_group)
        self.positives, self.negatives = [dim_zero_cat(self.positives)], [dim_zero_cat(self.negatives)]


class _OfBatches(AnomalibMetric, _Ranking):  # type: ignore[misc] # anomalib's update takes a batch instead
    """A metric of anomalib that is NaN where it has seen nothing.

    anomalib's own are None there unless ``strict``, even in one process of several when the others have a value.
    """

    def compute(self) -> Tensor:
        """Return the area; NaN and a warning without positives or without negatives."""
        return _Ranking.compute(self)


class _OfCounts(_OfBatches):
    """A metric that needs no more than counts per distinct score."""

    @staticmethod
    @abstractmethod
    def _from_counts(positive: Tensor, negative: Tensor) -> Tensor: ...

    @staticmethod
    @abstractmethod
    def _bounds_from_counts(positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]: ...

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Return the interval ``(low, high)`` that holds the exact area, float32 scalars.

        Both are the area itself while the scores are kept, and NaN where ``compute`` is. In a distributed run every
        process has to call this.
        """
        with self.sync_context(self.dist_sync_fn, should_sync=self._to_sync, should_unsync=self._should_unsync):
            self._settle()
            if not self._is_defined():
                low = high = torch.tensor(torch.nan)
            elif self.is_binned:
                low, high = self._bounds_from_counts(*_highest_first(self.counts))
            else:
                low = high = self._area()
            return self._as_result(low), self._as_result(high)

    def _area(self) -> Tensor:
        if self.is_binned:
            return self._from_counts(*_highest_first(self.counts))
        return self._from_counts(*_counts_at_positives(_ascending(self.positives), _ascending(self.negatives)))


class AUROC(_OfCounts):
    """Area under the ROC curve, ties counting half: scikit-learn's ``roc_auc_score``."""

    _from_counts = staticmethod(areas.auroc)
    _bounds_from_counts = staticmethod(areas.auroc_bounds)


class AUPR_step(_OfCounts):
    """Step-wise area under the precision-recall curve: scikit-learn's ``average_precision_score``."""

    _from_counts = staticmethod(areas.aupr_step)
    _bounds_from_counts = staticmethod(areas.aupr_step_bounds)


class AUPR_trapezoid(_OfCounts):
    """Trapezoidal area under the precision-recall curve: ``auc`` of scikit-learn's ``precision_recall_curve``."""

    _from_counts = staticmethod(areas.aupr_trapezoid)
    _bounds_from_counts = staticmethod(areas.aupr_trapezoid_bounds)


class AUPR_visa(_OfBatches):
    """VisA's approximation of ``AUPR_trapezoid`` by 202 thresholds.

    They are 100 percentiles of the positives' scores, 100 equal steps between their extremes, and one beyond either end
    of all scores. What exceeds a threshold is predicted; precision is 1 where nothing is. The thresholds are float64;
    those of VisA have the maps' dtype, where the lowest may round to the lowest score, which it then does not predict.
    The result is not rounded; VisA gives 4 decimals.

    Once binned, the rule is applied to the scores cut to their leading 20 bits.

    Source: the evaluation code of VisA, Zou et al., SPot-the-Difference Self-Supervised Pre-training (ECCV 2022).
    """

    def _area(self) -> Tensor:
        if self.is_binned:
            negative, positive = (_Ranked.from_bins(counts) for counts in self.counts)
        else:
            negative, positive = (_Ranked(_ascending(scores)) for scores in self._kept())
        return torch.tensor(_visa_area(positive, negative))


@dataclass(frozen=True)
class _Ranked:
    """The scores of one class, ascending; with ``upto``, they are distinct and so many lie at or below each."""

    values: NDArray[np.float32]
    upto: NDArray[np.int64] | None = None

    @classmethod
    def from_bins(cls, counts: Tensor) -> "_Ranked":
        """Take every score for the one of its bin that is nearest to zero."""
        ascending = _lowest_first(counts)
        occupied = ascending.nonzero().squeeze(1)
        leading = occupied - _BINS // 2
        pattern = torch.where(leading < 0, -1 - _BINS // 2 - leading, leading).int() << _DROPPED_BITS
        return cls(pattern.view(torch.float32).cpu().numpy(), ascending[occupied].cumsum(0).cpu().numpy())

    @property
    def total(self) -> int:
        return len(self.values) if self.upto is None else int(self.upto[-1])

    def at(self, rank: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scores of whole ranks, 0 the lowest."""
        index = rank.astype(np.int64) if self.upto is None else np.searchsorted(self.upto, rank, side="right")
        return self.values[index].astype(np.float64)

    def above(self, threshold: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return how many scores exceed each threshold."""
        # rounded down, a float64 threshold parts float32 scores as before, and no long array needs converting
        rounded = threshold.astype(np.float32)
        rounded = np.where(rounded > threshold, np.nextafter(rounded, np.float32(-np.inf)), rounded)
        index = np.searchsorted(self.values, rounded, side="right")
        return self.total - (index if self.upto is None else np.append(0, self.upto)[index])


def _visa_area(positive: _Ranked, negative: _Ranked) -> float:
    # numpy's order of operations, so that a threshold meets a tied score as it does in the original
    rank = (positive.total - 1) * (np.linspace(100, 0, 100) / 100)
    share = rank - np.floor(rank)
    low, high = positive.at(np.floor(rank)), positive.at(np.ceil(rank))
    percentiles = np.where(share < 0.5, low + (high - low) * share, high - (high - low) * (1 - share))
    steps = np.linspace(percentiles[0], percentiles[-1], 100)
    thresholds = np.sort(np.concatenate([percentiles, steps]))[::-1]
    # the two thresholds beyond the scores: nothing is predicted, or everything
    tp = np.concatenate([[0], positive.above(thresholds), [positive.total]])
    fp = np.concatenate([[0], negative.above(thresholds), [negative.total]])
    precision = np.divide(tp, tp + fp, out=np.ones(len(tp)), where=tp + fp > 0)
    return float(np.diff(tp) @ (precision[1:] + precision[:-1]) / (2 * positive.total))


def _counts_at_positives(positive: NDArray[np.float32], negative: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
    """Return counts as ``areas`` takes them, of ascending scores; negatives between two positives are one score.

    No curve's area depends on the order of negatives that no positive parts.
    """
    distinct, repeats = torch.unique_consecutive(torch.from_numpy(positive), return_counts=True)
    below = np.searchsorted(negative, distinct.numpy(), side="left")
    upto = np.searchsorted(negative, distinct.numpy(), side="right")
    negatives = np.diff(np.stack([below, upto], axis=1).ravel(), prepend=0, append=len(negative))
    positives = torch.zeros(len(negatives), dtype=torch.int64)
    positives[1::2] = repeats
    return positives.flip(0), torch.from_numpy(negatives).flip(0)


def _ascending(scores: list[Tensor]) -> NDArray[np.float32]:
    # numpy sorts floats several times faster than torch, which cannot but sort indices with them
    joined: NDArray[np.float32] = torch.cat(scores).cpu().numpy()
    joined.sort()
    return joined


def _histogram(scores: Tensor, target: Tensor | int) -> Tensor:
    """Count float32 scores by their leading 20 bits, int64 ``(2, _BINS)``: row by target, column by bits as signed."""
    # adding zero makes -0.0 the 0.0 it equals
    pattern = (scores + 0.0).view(torch.int32).bitwise_right_shift_(_DROPPED_BITS).add_(_BINS // 2)
    pattern.add_(target, alpha=_BINS)
    return torch.bincount(pattern, minlength=2 * _BINS).view(2, _BINS)


def _lowest_first(counts: Tensor) -> Tensor:
    # floats are sign and magnitude: as signed integers, the negative ones are in reverse
    below_zero, above_zero = counts.tensor_split(2, dim=-1)
    return torch.cat([below_zero.flip(-1), above_zero], dim=-1)


def _highest_first(counts: Tensor) -> tuple[Tensor, Tensor]:
    negative, positive = _lowest_first(counts).flip(-1).cpu()
    return positive, negative


def _numel(*states: list[Tensor]) -> int:
    return sum(scores.numel() for state in states for scores in state)


def _flat(scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Check and return scores as float32 ``(N,)`` and targets as bool ``(N,)``."""

    def without_channel(shape: torch.Size) -> torch.Size:
        return shape[:1] + shape[2:] if shape[1:2] == (1,) else shape

    alike = scores.shape in (target.shape, without_channel(target.shape))
    if not alike and without_channel(scores.shape) != target.shape:
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
