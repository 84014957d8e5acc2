"""Areas under curves from counts per score.

Every function takes two tensors ``(..., K)`` of one shape: the number of positives and of negatives that have each of K
scores, the highest score first. Columns of zeros change nothing. The result ``(...)`` is float64 in ``[0, 1]``. Leading
dimensions hold resamples of one set of scores.

For :func:`aupro` the positives are defective regions: each counts 1 in all, shared out among the scores of its pixels.

Two areas lie under a precision-recall curve, and papers seldom say which one they mean: the step-wise one
(scikit-learn's ``average_precision_score``) and the trapezoidal one (``auc`` of its ``precision_recall_curve``).
"""

from torch import Tensor


def auroc(positive: Tensor, negative: Tensor) -> Tensor:
    """Return the area under the ROC curve; NaN without positives or without negatives.

    Source: Hanley and McNeil, The meaning and use of the area under a ROC curve (Radiology, 1982): the share of pairs
    of a positive and a negative that are in order, where ties count half.
    """
    positive, negative = positive.double(), negative.double()
    total = negative.sum(-1, keepdim=True)
    beaten = total - negative.cumsum(-1) + negative / 2
    return beaten.mul_(positive).sum(-1) / (positive.sum(-1) * total.squeeze(-1))


def aupro(overlap: Tensor, negative: Tensor) -> Tensor:
    """Return the area under the curve of per-region overlap, up to a false positive rate of 0.3; NaN without either.

    Args:
        overlap: share of each region's pixels that has a score, summed over the regions.
        negative: pixels outside of the regions that have it.

    Source: Bergmann et al., Uninformed Students (CVPR 2020), section 4: overlaps are averaged over regions, so that small
    ones count as much as large ones, and the area is divided by 0.3, as ``anomalib.metrics.AUPRO`` does.
    """
    limit = 0.3
    gain, step = (each.double() / each.double().sum(-1, keepdim=True) for each in (overlap, negative))
    # each score has a trapezoid, of which what lies below the limit counts
    inside = (limit - (step.cumsum(-1) - step)).clamp(min=0).minimum(step)
    share = (inside / step).nan_to_num(nan=0.0)
    return (inside * (gain.cumsum(-1) - gain + share * gain / 2)).sum(-1) / limit


def aupr_step(positive: Tensor, negative: Tensor) -> Tensor:
    """Return the step-wise area under the precision-recall curve (average precision); NaN without positives."""
    positive = positive.double()
    precision = _precision(positive.cumsum(-1), negative.double().cumsum(-1))
    return precision.mul_(positive).sum(-1) / positive.sum(-1)


def aupr_trapezoid(positive: Tensor, negative: Tensor) -> Tensor:
    """Return the trapezoidal area under the precision-recall curve; NaN without positives.

    The curve starts at recall 0 and precision 1, as scikit-learn's does.
    """
    positive = positive.double()
    precision = _precision(positive.cumsum(-1), negative.double().cumsum(-1))
    starts = (positive[..., 1:] * precision[..., :-1]).sum(-1) + positive[..., 0]
    ends = precision.mul_(positive).sum(-1)
    return (starts + ends) / (2 * positive.sum(-1))


def _precision(tp: Tensor, fp: Tensor) -> Tensor:
    # the precision of no predictions counts as 1
    return (tp / (tp + fp)).nan_to_num_(nan=1.0)
