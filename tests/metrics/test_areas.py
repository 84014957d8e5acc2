"""Areas from counts against scikit-learn on the scores that the counts stand for."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score, roc_curve
from torch import Tensor

from anomalib_spd.metrics import areas

Counts = list[tuple[int, int]]


def sklearn_trapezoid(target: np.ndarray, score: np.ndarray, sample_weight: np.ndarray | None = None) -> float:
    precision, recall, _ = precision_recall_curve(target, score, sample_weight=sample_weight)
    return auc(recall, precision)


def sklearn_overlap(target: np.ndarray, score: np.ndarray, sample_weight: np.ndarray | None = None) -> float:
    """Of one region: the ROC curve up to a false positive rate of 0.3."""
    rates, found, _ = roc_curve(target, score, sample_weight=sample_weight, drop_intermediate=False)
    inside = np.append(rates[rates < 0.3], 0.3)
    # where the curve rises at the limit itself, what it rises by lies beyond
    at_limit = np.interp(0.3, rates, found) if 0.3 not in rates else found[rates == 0.3].min()
    return auc(inside, np.append(found[rates < 0.3], at_limit)) / 0.3


AREAS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[..., float]]] = {
    "auroc": (areas.auroc, roc_auc_score),
    "aupro": (areas.aupro, sklearn_overlap),
    "aupr_step": (areas.aupr_step, average_precision_score),
    "aupr_trapezoid": (areas.aupr_trapezoid, sklearn_trapezoid),
}
each_area = pytest.mark.parametrize(("area", "oracle"), AREAS.values(), ids=AREAS)

Area = Callable[[Tensor, Tensor], Tensor]


def tensors(counts: Counts) -> tuple[Tensor, Tensor]:
    positive, negative = torch.tensor(counts).unbind(1)
    return positive, negative


def both(counts: Counts) -> bool:
    return all(sum(column) for column in zip(*counts, strict=True))


one_score = st.tuples(st.integers(0, 6), st.integers(0, 6))
scores = st.lists(one_score, min_size=1, max_size=12).filter(both)


@each_area
@given(counts=scores)
@example(counts=[(0, 3), (1, 0), (0, 7)])  # rises at a false positive rate of 0.3
def test_area_equals_scikit_learn(area: Area, oracle: Callable[..., float], counts: Counts) -> None:
    score = np.repeat(np.arange(len(counts), 0, -1), [p + n for p, n in counts])
    target = np.concatenate([[1] * p + [0] * n for p, n in counts])
    assert area(*tensors(counts)).item() == pytest.approx(oracle(target, score), abs=1e-12)


@each_area
def test_area_of_large_counts_equals_scikit_learn_with_weights(area: Area, oracle: Callable[..., float]) -> None:
    counts = torch.randint(0, 10**6, (2, 500), generator=torch.Generator().manual_seed(0))
    score, target = np.tile(np.arange(500, 0, -1), 2), np.repeat([1, 0], 500)
    expected = oracle(target, score, sample_weight=counts.flatten().numpy())
    assert area(*counts).item() == pytest.approx(expected, abs=1e-9)


@each_area
@settings(max_examples=30)
@given(counts=scores, data=st.data())
def test_scores_that_nobody_has_change_nothing(area: Area, oracle: object, counts: Counts, data: st.DataObject) -> None:
    sparse = [pair for each in counts for pair in [(0, 0)] * data.draw(st.integers(0, 2)) + [each]] + [(0, 0)]
    assert area(*tensors(sparse)).item() == pytest.approx(area(*tensors(counts)).item(), abs=1e-12)


@each_area
@pytest.mark.parametrize("dtype", [torch.int32, torch.float32])
def test_leading_dimensions_are_areas_of_their_own(area: Area, oracle: object, dtype: torch.dtype) -> None:
    positive, negative = torch.randint(0, 9, (2, 4, 3, 20), generator=torch.Generator().manual_seed(0)).to(dtype)
    together = area(positive, negative)
    assert together.dtype == torch.float64
    for index in np.ndindex(4, 3):
        row = positive[index], negative[index]
        torch.testing.assert_close(together[index], area(*row))


@each_area
def test_arguments_stay_as_they_are(area: Area, oracle: object) -> None:
    counts = torch.rand(2, 10, dtype=torch.float64)
    before = counts.clone()
    area(*counts)
    assert torch.equal(counts, before)


def test_undefined_areas_are_nan() -> None:
    some, none = torch.ones(3), torch.zeros(3)
    assert all(area(none, some).isnan() for area, _ in AREAS.values())
    assert areas.auroc(some, none).isnan()
    assert areas.aupro(some, none).isnan()
    assert areas.aupr_step(some, none) == areas.aupr_trapezoid(some, none) == 1
