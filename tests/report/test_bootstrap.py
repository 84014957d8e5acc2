"""Intervals agree with scikit-learn on resampled images."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.metrics import AUPRO
from anomalib.utils.cv import connected_components_cpu
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score

from anomalib_spd.benchmark.results import Cell, Result, Scores, read, write
from anomalib_spd.report.bootstrap import BOOTSTRAPPED, bootstrap, image_weights, paired_bootstrap_ci

Pixels = list[tuple[np.ndarray, np.ndarray]]


def trapezoid(labels: np.ndarray, scores: np.ndarray) -> float:
    precision, recall, _ = precision_recall_curve(labels, scores)
    return float(auc(recall, precision))


def overlap(labels: np.ndarray, scores: np.ndarray) -> float:
    """anomalib's AU-PRO of images of one row of 200 pixels."""
    metric = AUPRO(["anomaly_map", "gt_mask"])
    rows = (torch.from_numpy(each).view(-1, 1, 200) for each in (scores, labels))
    metric.update(SimpleNamespace(**dict(zip(metric.fields, rows, strict=True))))
    return float(metric.compute())


ORACLES = {"AUPRO": overlap, "AUROC": roc_auc_score, "AUPR_step": average_precision_score, "AUPR_trapezoid": trapezoid}


def draw(rng: np.random.Generator, shift: float) -> tuple[Scores, Pixels]:
    """Draw scores of 30 images; pixel scores take eleven values, so that counting them in bins is exact."""
    label = np.arange(30) % 3 == 0
    pixels = []
    for anomalous in label:
        target = rng.random(200) < 0.1 * anomalous
        pixels.append((np.clip(rng.normal(5 + 2 * target, 2), 0, 10).round(), target))
    bins = np.arange(10, -1, -1)
    count = lambda which: np.array([[(s[t == which] == b).sum() for b in bins] for s, t in pixels], dtype=np.int32)  # noqa: E731
    regions = [
        connected_components_cpu(torch.from_numpy(t).view(1, 1, 1, -1).float()).flatten().numpy() for _, t in pixels
    ]
    shares = [
        [sum(((s == b) & (r == one)).sum() / (r == one).sum() for one in range(1, r.max() + 1)) for b in bins]
        for (s, _), r in zip(pixels, regions, strict=True)
    ]
    scores = Scores(
        image_path=np.array([f"{i}.png" for i in range(30)]),
        mask_path=np.array([""] * 30),
        image_label=label,
        image_score=(rng.normal(label * shift, 1).round(1)).astype(np.float32),
        anomaly_map=np.zeros((30, 1, 1), dtype=np.float16),
        false_positive_score=np.zeros(81, dtype=np.float32),
        pixel_positive=count(True),
        pixel_negative=count(False),
        region_overlap=np.array(shares, dtype=np.float32),
    )
    return scores, pixels


@pytest.mark.parametrize("metric", BOOTSTRAPPED)
def test_resamples_equal_scikit_learn_on_the_resampled_images(metric: str) -> None:
    scores, pixels = draw(np.random.default_rng(1), 1.0)
    weights = image_weights(scores.image_label, 20)
    level, area = metric.split("_", 1)
    expected = []
    for counts in weights.astype(int):
        drawn = np.repeat(np.arange(30), counts)
        if level == "image":
            expected.append(ORACLES[area](scores.image_label[drawn], scores.image_score[drawn]))
        else:
            target = np.concatenate([pixels[i][1] for i in drawn])
            expected.append(ORACLES[area](target, np.concatenate([pixels[i][0] for i in drawn])))
    # shares of regions and anomalib's sums are float32
    np.testing.assert_allclose(bootstrap(scores, level, 20)[metric], expected, atol=1e-6 if area == "AUPRO" else 1e-9)


def test_resamples_have_as_many_normal_and_anomalous_images() -> None:
    label = np.array([True, False, False, True, False])
    weights = image_weights(label, 100)
    assert (weights[:, label].sum(1) == 2).all()
    assert (weights[:, ~label].sum(1) == 3).all()
    assert len(np.unique(weights, axis=0)) > 10


def record(folder: Path, cell: Cell, scores: Scores, **metrics: float) -> None:
    content: dict[str, Any] = {"status": "done", "error": None, "metrics": metrics}
    write(cell.folder(folder), cell, content, scores)


def results(folder: Path, backbone: str) -> list[Result]:
    return [result for result in read(folder) if result.cell.backbone == backbone]


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """Backbone ``good`` separates better than ``poor``, in two categories and with two seeds."""
    for category, first in (("one", 10), ("two", 20)):
        for backbone, shift in (("good", 2.5), ("poor", 0.7)):
            for seed in (0, 1):
                scores, _ = draw(np.random.default_rng(first + seed), shift)
                value = float(roc_auc_score(scores.image_label, scores.image_score))
                record(tmp_path, Cell(backbone, "PaDiM", category, seed), scores, image_AUROC=value)
    return tmp_path


def test_the_difference_is_that_of_the_means_and_lies_in_its_interval(measured: Path) -> None:
    good, poor = results(measured, "good"), results(measured, "poor")
    interval = paired_bootstrap_ci(good, poor, "image_AUROC")
    expected = np.mean([r.metrics["image_AUROC"] for r in good]) - np.mean([r.metrics["image_AUROC"] for r in poor])
    assert interval.value == pytest.approx(expected)
    assert interval.low < interval.value < interval.high
    assert interval.excludes_zero
    back = paired_bootstrap_ci(poor, good, "image_AUROC")
    assert back[:3] == pytest.approx((-interval.value, -interval.high, -interval.low))


def test_more_categories_narrow_the_interval(measured: Path) -> None:
    good, poor = results(measured, "good"), results(measured, "poor")

    def width(category: str) -> float:
        only = [[r for r in side if category in (r.cell.category, "both")] for side in (good, poor)]
        interval = paired_bootstrap_ci(*only, "image_AUROC")
        return interval.high - interval.low

    assert width("both") < (width("one") + width("two")) / 2


def test_seeds_that_disagree_widen_the_interval(tmp_path: Path) -> None:
    """A quarter of the resamples draws the first of two seeds twice, and a quarter the second."""
    values = {}
    for backbone, shifts in (("unstable", (0.2, 3.0)), ("stable", (1.0, 1.0))):
        for seed, shift in enumerate(shifts):
            scores, _ = draw(np.random.default_rng(seed), shift)
            values[backbone, seed] = float(roc_auc_score(scores.image_label, scores.image_score))
            record(tmp_path, Cell(backbone, "PaDiM", "one", seed), scores, image_AUROC=values[backbone, seed])
    unstable, stable = results(tmp_path, "unstable"), results(tmp_path, "stable")
    interval = paired_bootstrap_ci(unstable, stable, "image_AUROC")
    apart = [values["unstable", seed] - values["stable", seed] for seed in (0, 1)]
    assert apart[0] < 0 < apart[1]
    assert interval.low < apart[0]
    assert interval.high > apart[1]
    # a single seed does not vary: these intervals come from the images only
    of_images = [paired_bootstrap_ci([unstable[seed]], [stable[seed]], "image_AUROC") for seed in (0, 1)]
    assert interval.high - interval.low > max(each.high - each.low for each in of_images)


def test_a_training_that_fails_fails_in_all_categories(tmp_path: Path) -> None:
    """Seeds are drawn alike in all categories: where each is a training, more categories do not make up for a poor one."""
    for backbone, shifts in (("unstable", (0.2, 3.0)), ("stable", (1.0, 1.0))):
        for seed, shift in enumerate(shifts):
            for number in range(8):
                scores, _ = draw(np.random.default_rng(seed + 2 * number), shift)
                value = float(roc_auc_score(scores.image_label, scores.image_score))
                record(tmp_path, Cell(backbone, "PaDiM", str(number), seed), scores, image_AUROC=value)
    interval = paired_bootstrap_ci(results(tmp_path, "unstable"), results(tmp_path, "stable"), "image_AUROC")
    means = [
        np.mean([r.metrics["image_AUROC"] for r in results(tmp_path, "unstable") if r.cell.seed == seed])
        - np.mean([r.metrics["image_AUROC"] for r in results(tmp_path, "stable") if r.cell.seed == seed])
        for seed in (0, 1)
    ]
    # a quarter of the resamples takes the one training twice, and a quarter the other
    assert interval.low < means[0] < 0 < means[1] < interval.high


def test_a_backbone_does_not_differ_from_itself(measured: Path) -> None:
    good = results(measured, "good")
    interval = paired_bootstrap_ci(good, good, "image_AUROC")
    assert interval == (0, 0, 0, False)


def test_intervals_of_equal_detectors_cover_0() -> None:
    """About 5 % of the intervals may miss 0 (the bootstrap is slightly narrow)."""
    rng = np.random.default_rng(0)
    label = np.arange(120) % 2 == 0
    weights = image_weights(label, 500)
    missed = 0
    for _ in range(100):
        common = rng.normal(label * 1.0, 1)
        values = []
        for _ in range(2):
            scores = common + rng.normal(0, 0.7, 120)
            order = np.argsort(-scores)
            positive = (weights * label)[:, order].cumsum(1)
            values.append((positive * (weights * ~label)[:, order]).sum(1) / 60**2)
        low, high = np.percentile(values[0] - values[1], (2.5, 97.5))
        missed += not low <= 0 <= high
    assert missed <= 12


def test_results_of_other_cells_or_images_are_refused(measured: Path) -> None:
    good, poor = results(measured, "good"), results(measured, "poor")
    with pytest.raises(ValueError, match="the same categories and seeds"):
        paired_bootstrap_ci(good, poor[1:], "image_AUROC")
    with pytest.raises(ValueError, match="expected one of image_AUROC"):
        paired_bootstrap_ci(good, poor, "pixel_F1Max")
    scores, _ = draw(np.random.default_rng(3), 1.0)
    other = Scores(**{**vars(scores), "image_path": np.array([f"other {i}.png" for i in range(30)])})
    for seed in (0, 1):
        for category in ("one", "two"):
            record(measured, Cell("poor", "PaDiM", category, seed), other, image_AUROC=0.5)
    with pytest.raises(ValueError, match="measured on other images"):
        paired_bootstrap_ci(good, results(measured, "poor"), "image_AUROC")
