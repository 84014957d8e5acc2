"""Paired bootstrap over test images and seeds: the interval of a difference of two backbones (ours)."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from anomalib_spd.benchmark.results import Result, Scores, read_scores
from anomalib_spd.metrics.ranking import AUPRO
from anomalib_spd.metrics.table import METRICS

#: names of the metrics whose differences have an interval
BOOTSTRAPPED = tuple(metric.name for metric in METRICS if metric.bootstrapped)


class Interval(NamedTuple):
    """A difference with its 95 % interval; ``excludes_zero``: the whole interval lies on one side of 0."""

    value: float
    low: float
    high: float
    excludes_zero: bool


def paired_bootstrap_ci(a: Sequence[Result], b: Sequence[Result], metric: str, resamples: int = 2000) -> Interval:
    """Return A minus B, averaged over seeds and categories, with a 95 % interval over test images and seeds.

    Each resample draws the normal and the anomalous images of a category with replacement, as many of each as there
    are; A, B and all seeds share this draw. It also draws the seeds, shared by A, B and all categories, because a seed
    may be that of a backbone's training, which all categories share. Few seeds show too little of their variance: three
    show two thirds. Where one backbone serves all seeds, the interval does not cover its training.

    The value comes from the exact metrics on record; the resamples count pixels in the bins of ``Scores``.

    Args:
        a: results of one backbone, of some categories and seeds.
        b: results of another backbone, of the same categories and seeds.
        metric: one of ``BOOTSTRAPPED``.
        resamples: number of resamples.

    Returns:
        The difference, with the 2.5 % and 97.5 % percentiles over the resamples.

    Raises:
        ValueError: the metric has no bootstrap, or A and B differ in their cells or images.
    """
    if metric not in BOOTSTRAPPED:
        raise ValueError(f"No interval can be given for {metric!r}; expected one of {', '.join(BOOTSTRAPPED)}")
    runs_a, runs_b = ({(run.cell.category, run.cell.seed): run for run in runs} for runs in (a, b))
    if set(runs_a) != set(runs_b) or not runs_a:
        cells = ("; ".join(str(run.cell) for run in runs) or "nothing" for runs in (a, b))
        raise ValueError(
            f"A pair needs the same categories and seeds, got {' and '.join(cells)}: leave out what one lacks"
        )
    values, resampled = [], []
    for category in dict.fromkeys(category for category, _ in runs_a):
        keys = sorted(key for key in runs_a if key[0] == category)
        values.append(np.mean([runs_a[key].metrics[metric] - runs_b[key].metrics[metric] for key in keys]))
        of_seeds = np.stack([_resampled(runs_a[key], runs_b[key], metric, resamples) for key in keys])
        # the same generator for every category: seeds are drawn alike in all of them
        times = np.random.default_rng(1).multinomial(len(keys), np.full(len(keys), 1 / len(keys)), resamples)
        resampled.append((times.T * of_seeds).sum(axis=0) / len(keys))
    return interval(float(np.mean(values)), np.mean(resampled, axis=0))


def interval(value: float, resampled: NDArray[np.float64]) -> Interval:
    """Return a difference with its 95 % interval.

    Args:
        value: the difference; the resamples count pixels in the bins of ``Scores``.
        resampled: (R,) the difference over the resamples, of which one without a defective pixel has none.
    """
    # adding 0 turns -0.0 into 0.0, so that a printed "-0.000" is always a negative number
    low, high = np.nanpercentile(resampled, (2.5, 97.5)) + 0.0
    return Interval(value + 0.0, float(low), float(high), bool(low > 0 or high < 0))


def image_weights(image_label: NDArray[np.bool_], resamples: int) -> NDArray[np.float64]:
    """Return how often each resample of a stratified bootstrap holds each image, as (R, N) counts.

    The same labels always give the same counts: this pairs the metrics of two backbones.

    Args:
        image_label: (N,) true for anomalous images.
        resamples: R.
    """
    generator = np.random.default_rng(0)
    weights = np.empty((resamples, len(image_label)))
    for label in (False, True):
        members = np.flatnonzero(image_label == label)
        if len(members):
            share = np.full(len(members), 1 / len(members))
            weights[:, members] = generator.multinomial(len(members), share, resamples)
    return weights


def bootstrap(scores: Scores, level: str, resamples: int = 2000) -> dict[str, NDArray[np.float64]]:
    """Return the bootstrapped metrics of a level (``image`` or ``pixel``), by name: (R,) values in [0, 1]."""
    if level == "image":
        _, at = np.unique(-scores.image_score, return_inverse=True)
        # one column per distinct score, highest first: image counts are exact
        counts = np.eye(at.max() + 1)[at]
        positive, negative = counts * scores.image_label[:, None], counts * ~scores.image_label[:, None]
    else:
        positive, negative = scores.pixel_positive.astype(float), scores.pixel_negative.astype(float)
    weights = image_weights(scores.image_label, resamples)
    drawn, beside = torch.from_numpy(weights @ positive), torch.from_numpy(weights @ negative)
    # AU-PRO's positives are regions, in the bins of the pixels
    regions = torch.from_numpy(weights @ scores.region_overlap) if level == "pixel" else drawn
    return {
        metric.name: metric.area(regions if metric.function is AUPRO else drawn, beside).numpy()
        for metric in METRICS
        if metric.bootstrapped and metric.area and metric.level == level
    }


def _resampled(a: Result, b: Result, metric: str, resamples: int) -> NDArray[np.float64]:
    level = metric.partition("_")[0]
    images_a, values_a = _of_file(a.scores_file, a.scores_file.stat().st_mtime_ns, level, resamples)
    images_b, values_b = _of_file(b.scores_file, b.scores_file.stat().st_mtime_ns, level, resamples)
    if images_a != images_b:
        raise ValueError(f"{a.cell} and {b.cell} were measured on other images: measure both in one grid")
    return values_a[metric] - values_b[metric]


@cache
def _of_file(
    path: Path, modified: int, level: str, resamples: int
) -> tuple[tuple[str, ...], dict[str, NDArray[np.float64]]]:
    """Images and resampled metrics of a run; cached, because every comparison of a report needs them again."""
    del modified  # part of the key: a file that changes is read again
    scores = read_scores(path)
    return tuple(scores.image_path.tolist()), bootstrap(scores, level, resamples)
