r"""Areas under curves from counts per distinct score, and certified bounds from counts per bin.

Every function takes two tensors ``(..., K)`` of one shape: how many positives and how many negatives have each score,
the highest score first. Scores that nobody has may be among them; they change nothing. The result ``(...)`` is float64.
Leading dimensions are for resamples of one set of scores.

There are two areas under the precision-recall curve, and papers seldom say which they mean: the step-wise one
(scikit-learn's ``average_precision_score``) and the trapezoidal one (``auc`` of its ``precision_recall_curve``).

Bounds are for counts per bin, where a bin holds several scores of unknown order: ``(low, high)``, an interval that holds
the area of the scores themselves (ours; to float64's rounding). For them the counts are whole numbers.
"""

import torch
from torch import Tensor


def auroc(positive: Tensor, negative: Tensor) -> Tensor:
    """Return the area under the ROC curve; NaN without positives or without negatives.

    Source: Hanley and McNeil, The meaning and use of the area under a ROC curve (Radiology, 1982): the share of pairs
    of a positive and a negative that are in order, ties counting half.
    """
    positive, negative = positive.double(), negative.double()
    total = negative.sum(-1, keepdim=True)
    beaten = total - negative.cumsum(-1) + negative / 2
    return beaten.mul_(positive).sum(-1) / (positive.sum(-1) * total.squeeze(-1))


def auroc_bounds(positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    """Return the bounds of ``auroc``: the pairs within a bin are all in order, or none is. Both can be reached."""
    positive, negative = positive.double(), negative.double()
    value = auroc(positive, negative)
    slack = (positive * negative).sum(-1) / (2 * positive.sum(-1) * negative.sum(-1))
    return value - slack, value + slack


def aupr_step(positive: Tensor, negative: Tensor) -> Tensor:
    """Return the step-wise area under the precision-recall curve (average precision); NaN without positives."""
    positive = positive.double()
    precision = _precision(positive.cumsum(-1), negative.double().cumsum(-1))
    return precision.mul_(positive).sum(-1) / positive.sum(-1)


def aupr_step_bounds(positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return the bounds of ``aupr_step``.

    High: in every bin the positives share one score, above the negatives. Low: the negatives come first, then the
    positives one by one. With TP and FP the counts at the bin's end and above, ``p`` the positives in it, and
    :math:`S = TP - p + FP`, they add :math:`p - FP \sum_{i=1}^p 1 / (S + i)`; as 1/x is convex, the sum is at most
    :math:`\ln(1 + p / (S + 1/2))`.
    """
    positive, negative = positive.double(), negative.double()
    tp, fp = positive.cumsum(-1), negative.cumsum(-1)
    total = positive.sum(-1)
    low = positive - fp * torch.log1p(positive / (tp - positive + fp + 0.5))
    high = _precision(tp, fp - negative)
    return low.sum(-1) / total, high.mul_(positive).sum(-1) / total


def aupr_trapezoid(positive: Tensor, negative: Tensor) -> Tensor:
    """Return the trapezoidal area under the precision-recall curve; NaN without positives.

    The curve starts at recall 0 and precision 1, as scikit-learn's does.
    """
    positive = positive.double()
    precision = _precision(positive.cumsum(-1), negative.double().cumsum(-1))
    starts = (positive[..., 1:] * precision[..., :-1]).sum(-1) + positive[..., 0]
    ends = precision.mul_(positive).sum(-1)
    return (starts + ends) / (2 * positive.sum(-1))


def aupr_trapezoid_bounds(positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return the bounds of ``aupr_trapezoid``.

    A bin's end is a point of the curve whatever the order within, so every bin can be bounded alone. At a given number
    of false positives, precision is concave in the true positives. Low: the negatives come first, then the positives
    at once, one chord. High: the positives come first, one by one; chords lie below the curve, so with A and B the
    counts above the bin, its integral :math:`\int_A^{A+p} a / (a + B) da = p - B \ln(1 + p / (A + B))` is no less.
    """
    positive, negative = positive.double(), negative.double()
    tp, fp = positive.cumsum(-1), negative.cumsum(-1)
    total = positive.sum(-1)
    low = (_precision(tp - positive, fp) + _precision(tp, fp)) / 2
    above = fp - negative
    # nothing above the bin: B is 0, and so is its term whatever the logarithm
    high = positive - above * torch.log1p(positive / (tp - positive + above).clamp(min=1))
    return low.mul_(positive).sum(-1) / total, high.sum(-1) / total


def _precision(tp: Tensor, fp: Tensor) -> Tensor:
    # where nothing is predicted, nothing is wrong
    return (tp / (tp + fp)).nan_to_num_(nan=1.0)
