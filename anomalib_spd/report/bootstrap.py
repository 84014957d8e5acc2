"""How sure a difference between two backbones is: paired bootstrap over test images and seeds (ours)."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from anomalib_spd.benchmark.results import Result, Scores, read_scores
from anomalib_spd.metrics import METRICS

AREAS = {metric.function.__name__: metric.area for metric in METRICS if metric.area and metric.bootstrapped}

#: the figures of which differences have an interval
BOOTSTRAPPED = tuple(metric.name for metric in METRICS if metric.bootstrapped)


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether all of the interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


def mean_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; the latter is NaN of a single value.

    Args:
        values: at least one.
    """
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def difference(a: Sequence[Result], b: Sequence[Result], metric: str, resamples: int = 2000) -> Interval:
    """A minus B, the mean over seeds and categories, with a 95 % interval over the choice of test images and of seeds.

    In every resample the normal and the anomalous images of a category are drawn anew with replacement, each as many as
    there are, and the same for A, B and all seeds; and so are the seeds, the same for A, B and all categories, as a seed may be
    that of a backbone's training, which all categories share. Of few seeds this tells too little: of 3, two thirds of their
    variance. Where one backbone serves all seeds, the interval says nothing of its training.

    The value is that of the exact figures on record; in the resamples, pixels are counted in the bins of ``Scores``.

    Args:
        a: results of one backbone, of some categories and seeds.
        b: results of another, of the same categories and seeds.
        metric: one of ``BOOTSTRAPPED``.
        resamples: how many.

    Returns:
        The difference, with the 2.5 % and 97.5 % percentiles of those of the resamples.

    Raises:
        ValueError: the metric is none of those, or A and B are not of the same cells and images.
    """
    if metric not in BOOTSTRAPPED:
        raise ValueError(f"No interval can be given for {metric!r}; expected one of {', '.join(BOOTSTRAPPED)}")
    runs_a, runs_b = _by_category(a), _by_category(b)
    if {name: sorted(runs) for name, runs in runs_a.items()} != {name: sorted(runs) for name, runs in runs_b.items()}:
        raise ValueError(
            f"A pair needs the same categories and seeds, got {_cells(a)} and {_cells(b)}: leave out what one lacks"
        )
    differences = []
    for category, runs in runs_a.items():
        each = np.stack([_resampled(runs[seed], runs_b[category][seed], metric, resamples) for seed in sorted(runs)])
        # drawn alike in every category
        times = np.random.default_rng(1).multinomial(len(each), np.full(len(each), 1 / len(each)), resamples)
        differences.append((times.T * each).sum(axis=0) / len(each))
    low, high = np.percentile(np.mean(differences, axis=0), (2.5, 97.5))
    return Interval(_mean(runs_a, metric) - _mean(runs_b, metric), float(low), float(high))


def image_weights(image_label: NDArray[np.bool_], resamples: int) -> NDArray[np.float64]:
    """How often every image stands in every resample of a stratified bootstrap.

    Args:
        image_label: (N,) true for anomalous images.
        resamples: R.

    Returns:
        (R, N) counts. The same labels give the same counts: this is what pairs the figures.
    """
    generator = np.random.default_rng(0)
    weights = np.empty((resamples, len(image_label)))
    for label in (False, True):
        members = np.flatnonzero(image_label == label)
        if len(members):
            weights[:, members] = generator.multinomial(
                len(members), np.full(len(members), 1 / len(members)), resamples
            )
    return weights


def bootstrap(scores: Scores, level: str, resamples: int = 2000) -> dict[str, NDArray[np.float64]]:
    """The figures of every resample.

    Args:
        scores: of one run.
        level: ``image`` or ``pixel``.
        resamples: R.

    Returns:
        Name of each area -> (R,) values in [0, 1].
    """
    if level == "image":
        _, at = np.unique(-scores.image_score, return_inverse=True)
        # one column a score, highest first: for images the counts are exact
        counts = np.eye(at.max() + 1)[at]
        positive, negative = counts * scores.image_label[:, None], counts * ~scores.image_label[:, None]
    else:
        positive, negative = scores.pixel_positive.astype(float), scores.pixel_negative.astype(float)
    weights = image_weights(scores.image_label, resamples)
    drawn = torch.from_numpy(weights @ positive), torch.from_numpy(weights @ negative)
    return {name: area(*drawn).numpy() for name, area in AREAS.items()}


def _resampled(a: Result, b: Result, metric: str, resamples: int) -> NDArray[np.float64]:
    level, area = metric.split("_", 1)
    images_a, areas_a = _of_file(a.scores_file, a.scores_file.stat().st_mtime_ns, level, resamples)
    images_b, areas_b = _of_file(b.scores_file, b.scores_file.stat().st_mtime_ns, level, resamples)
    if images_a != images_b:
        raise ValueError(f"{a.cell} and {b.cell} were measured on other images: measure both in one grid")
    return areas_a[area] - areas_b[area]


@cache
def _of_file(
    path: Path, changed: int, level: str, resamples: int
) -> tuple[tuple[str, ...], dict[str, NDArray[np.float64]]]:
    """Images and figures of a run; kept, as every comparison of a report asks for them again."""
    del changed  # part of what is kept apart
    scores = read_scores(path)
    return tuple(scores.image_path.tolist()), bootstrap(scores, level, resamples)


def _by_category(results: Sequence[Result]) -> dict[str, dict[int, Result]]:
    categories: dict[str, dict[int, Result]] = defaultdict(dict)
    for result in results:
        categories[result.cell.category][result.cell.seed] = result
    return categories


def _mean(runs: dict[str, dict[int, Result]], metric: str) -> float:
    return float(np.mean([np.mean([run.metrics[metric] for run in seeds.values()]) for seeds in runs.values()]))


def _cells(results: Sequence[Result]) -> str:
    return "; ".join(str(result.cell) for result in results) or "nothing"
