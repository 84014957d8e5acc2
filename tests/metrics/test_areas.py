"""Areas from counts against scikit-learn on the scores they stand for, bounds against every order within the bins."""

from collections.abc import Callable, Iterator
from itertools import chain, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score
from torch import Tensor

from anomalib_spd.metrics import areas

Counts = list[tuple[int, int]]


def sklearn_trapezoid(target: np.ndarray, score: np.ndarray, sample_weight: np.ndarray | None = None) -> float:
    precision, recall, _ = precision_recall_curve(target, score, sample_weight=sample_weight)
    return auc(recall, precision)


AREAS = {
    "auroc": (areas.auroc, areas.auroc_bounds, roc_auc_score),
    "aupr_step": (areas.aupr_step, areas.aupr_step_bounds, average_precision_score),
    "aupr_trapezoid": (areas.aupr_trapezoid, areas.aupr_trapezoid_bounds, sklearn_trapezoid),
}
each_area = pytest.mark.parametrize(("area", "bounds", "oracle"), AREAS.values(), ids=AREAS)
each_bounds = pytest.mark.parametrize(("area", "bounds"), [entry[:2] for entry in AREAS.values()], ids=AREAS)

Area = Callable[[Tensor, Tensor], Tensor]
Bounds = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def tensors(counts: Counts) -> tuple[Tensor, Tensor]:
    positive, negative = torch.tensor(counts).unbind(1)
    return positive, negative


def both(counts: Counts) -> bool:
    return all(sum(column) for column in zip(*counts, strict=True))


one_score = st.tuples(st.integers(0, 6), st.integers(0, 6))
scores = st.lists(one_score, min_size=1, max_size=12).filter(both)
bins = st.lists(st.lists(one_score, min_size=1, max_size=5), min_size=1, max_size=6).filter(
    lambda b: both([*chain(*b)])
)


@each_area
@given(counts=scores)
def test_area_equals_scikit_learn(area: Area, bounds: Bounds, oracle: Callable[..., float], counts: Counts) -> None:
    score = np.repeat(np.arange(len(counts), 0, -1), [p + n for p, n in counts])
    target = np.concatenate([[1] * p + [0] * n for p, n in counts])
    assert area(*tensors(counts)).item() == pytest.approx(oracle(target, score), abs=1e-12)


@each_area
def test_area_of_large_counts_equals_scikit_learn_with_weights(
    area: Area, bounds: Bounds, oracle: Callable[..., float]
) -> None:
    counts = torch.randint(0, 10**6, (2, 500), generator=torch.Generator().manual_seed(0))
    score, target = np.tile(np.arange(500, 0, -1), 2), np.repeat([1, 0], 500)
    expected = oracle(target, score, sample_weight=counts.flatten().numpy())
    assert area(*counts).item() == pytest.approx(expected, abs=1e-9)


@each_area
@settings(max_examples=30)
@given(counts=scores, data=st.data())
def test_scores_that_nobody_has_change_nothing(
    area: Area, bounds: Bounds, oracle: object, counts: Counts, data: st.DataObject
) -> None:
    sparse = [pair for kept in counts for pair in [(0, 0)] * data.draw(st.integers(0, 2)) + [kept]] + [(0, 0)]
    assert area(*tensors(sparse)).item() == pytest.approx(area(*tensors(counts)).item(), abs=1e-12)
    torch.testing.assert_close(bounds(*tensors(sparse)), bounds(*tensors(counts)), rtol=0, atol=1e-12)


@each_area
@pytest.mark.parametrize("dtype", [torch.int32, torch.float32])
def test_leading_dimensions_are_areas_of_their_own(
    area: Area, bounds: Bounds, oracle: object, dtype: torch.dtype
) -> None:
    positive, negative = torch.randint(0, 9, (2, 4, 3, 20), generator=torch.Generator().manual_seed(0)).to(dtype)
    together = torch.stack([area(positive, negative), *bounds(positive, negative)])
    assert together.dtype == torch.float64
    for place in np.ndindex(4, 3):
        row = positive[place], negative[place]
        torch.testing.assert_close(together[(slice(None), *place)], torch.stack([area(*row), *bounds(*row)]))


@each_area
def test_arguments_stay_as_they_are(area: Area, bounds: Bounds, oracle: object) -> None:
    counts = torch.rand(2, 10, dtype=torch.float64)
    before = counts.clone()
    area(*counts)
    bounds(*counts)
    assert torch.equal(counts, before)


def test_undefined_areas_are_nan() -> None:
    some, none = torch.ones(3), torch.zeros(3)
    for area, bounds, _ in AREAS.values():
        assert torch.stack([area(none, some), *bounds(none, some)]).isnan().all()
    assert torch.stack([areas.auroc(some, none), *areas.auroc_bounds(some, none)]).isnan().all()
    assert areas.aupr_step(some, none) == areas.aupr_trapezoid(some, none) == 1


@each_bounds
@given(bins=bins)
def test_bounds_hold_the_area_of_the_scores_and_of_the_bins(area: Area, bounds: Bounds, bins: list[Counts]) -> None:
    binned = tensors([tuple(map(sum, zip(*scores, strict=True))) for scores in bins])
    low, high = bounds(*binned)
    for value in (area(*tensors([*chain(*bins)])), area(*binned)):
        assert low - 1e-12 <= value <= high + 1e-12


def orders(p: int, n: int) -> Iterator[Counts]:
    """Every way to spread p positives and n negatives over distinct scores."""
    if not p and not n:
        yield []
    for first in np.ndindex(p + 1, n + 1):
        if any(first):
            yield from ([first, *rest] for rest in orders(p - first[0], n - first[1]))


@each_bounds
@pytest.mark.parametrize("binned", [[(2, 2)], [(0, 1), (3, 2)], [(2, 0), (2, 1)], [(1, 2), (2, 2)]], ids=str)
def test_bounds_are_near_the_extremes_over_every_order_in_the_bins(area: Area, bounds: Bounds, binned: Counts) -> None:
    every = [[*chain(*chosen)] for chosen in product(*(orders(*pair) for pair in binned))]
    values = [area(*tensors(order)).item() for order in every]
    low, high = (bound.item() for bound in bounds(*tensors(binned)))
    # two of the bounds replace a sum by an integral
    assert low == pytest.approx(min(values), abs=0.01 if area is areas.aupr_step else 1e-12)
    assert high == pytest.approx(max(values), abs=0.05 if area is areas.aupr_trapezoid else 1e-12)
