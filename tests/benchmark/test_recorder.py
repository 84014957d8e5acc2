"""What is kept of a test set, against the maps themselves."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.metrics import AUPRO
from sklearn.metrics import average_precision_score, roc_auc_score

from anomalib_spd.benchmark.recorder import ScoreRecorder
from anomalib_spd.benchmark.results import FALSE_POSITIVE_RATES, Scores
from anomalib_spd.metrics.areas import aupr_step, aupro, auroc

SIZE = 96


def batches(masks: bool = True, scale: float = 1.0, shift: float = 0.0) -> list[Any]:
    """Twenty maps; every second image has a square that scores higher."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for batch in range(5):
        label = torch.tensor([False, True, False, True])
        mask = torch.zeros(4, SIZE, SIZE, dtype=torch.bool)
        mask[label, 10 + batch : 25, 30:60] = True
        mask[3, 40:42, 5 : 8 + batch] = True  # a second region, small
        maps = (torch.randn(4, 1, SIZE, SIZE, generator=generator) + 1.5 * mask[:, None]) * scale + shift
        found.append(
            SimpleNamespace(
                image_path=[f"images/{batch}_{i}.png" for i in range(4)],
                mask_path=[f"masks/{batch}_{i}.png" for i in range(4)] if masks else None,
                gt_label=label,
                gt_mask=mask if masks else None,
                anomaly_map=maps,
                pred_score=maps.amax((1, 2, 3)),
            )
        )
    return found


def recorded(found: list[Any]) -> Scores:
    recorder = ScoreRecorder()
    nothing: Any = None
    for index, batch in enumerate(found):
        recorder.on_test_batch_start(nothing, nothing, batch, index)
        recorder.on_test_batch_end(nothing, nothing, None, batch, index)
    assert recorder.map_size == (SIZE, SIZE)
    assert recorder.seconds > 0
    return recorder.scores()


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.01, 20.0), (300.0, -5000.0)])
def test_areas_of_the_counted_pixels_are_those_of_the_pixels(scale: float, shift: float) -> None:
    # 20 with a spread of 0.01 is as badly placed as scores can be: most of the mantissa is the same
    found = batches(scale=scale, shift=shift)
    scores = recorded(found)
    maps = torch.cat([batch.anomaly_map for batch in found]).flatten().numpy()
    target = torch.cat([batch.gt_mask for batch in found]).flatten().numpy()
    positive, negative = (torch.from_numpy(counts.sum(0)) for counts in (scores.pixel_positive, scores.pixel_negative))
    assert positive.sum() == target.sum()
    assert negative.sum() == (~target).sum()
    tolerance = 1e-2 if shift == 20.0 else 1e-3
    assert auroc(positive, negative).item() == pytest.approx(roc_auc_score(target, maps), abs=tolerance)
    assert aupr_step(positive, negative).item() == pytest.approx(average_precision_score(target, maps), abs=tolerance)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (300.0, -5000.0)])
def test_overlap_with_regions_is_that_of_anomalib(scale: float, shift: float) -> None:
    found = batches(scale=scale, shift=shift)
    scores = recorded(found)
    regions = [0, 1, 0, 2] * 5
    np.testing.assert_allclose(scores.region_overlap.sum(1), regions, rtol=1e-5)
    overlap, negative = (torch.from_numpy(each.sum(0)) for each in (scores.region_overlap, scores.pixel_negative))
    oracle = AUPRO(["anomaly_map", "gt_mask"])
    for batch in found:
        oracle.update(batch)
    assert aupro(overlap, negative).item() == pytest.approx(oracle.compute().item(), abs=1e-3)


def test_every_image_keeps_its_own_pixels() -> None:
    scores = recorded(batches())
    assert scores.region_overlap.shape == scores.pixel_negative.shape
    assert scores.pixel_positive.shape == scores.pixel_negative.shape
    assert scores.pixel_positive.shape[1] <= 2000
    total = scores.pixel_positive.sum(1) + scores.pixel_negative.sum(1)
    assert (total == SIZE * SIZE).all()
    assert (scores.pixel_positive.sum(1) > 0).tolist() == scores.image_label.tolist()


def test_false_positive_scores_are_quantiles_of_normal_images() -> None:
    found = batches()
    scores = recorded(found)
    normal = torch.cat([batch.anomaly_map[~batch.gt_label] for batch in found]).flatten().numpy()
    above = [(normal > score).mean() for score in scores.false_positive_score]
    np.testing.assert_allclose(above, FALSE_POSITIVE_RATES, rtol=0.01, atol=1e-4)
    assert (np.diff(scores.false_positive_score) >= 0).all()


def test_images_keep_score_label_and_path() -> None:
    found = batches()
    scores = recorded(found)
    np.testing.assert_array_equal(scores.image_score, torch.cat([batch.pred_score for batch in found]).numpy())
    assert scores.image_path.tolist() == [path for batch in found for path in batch.image_path]
    assert scores.mask_path.tolist() == [path for batch in found for path in batch.mask_path]
    assert scores.anomaly_map.shape == (20, 56, 56)
    np.testing.assert_allclose(
        scores.anomaly_map.mean((1, 2)),
        torch.cat([batch.anomaly_map for batch in found]).mean((1, 2, 3)).numpy(),
        atol=0.05,
    )


def test_without_masks_no_pixel_is_counted() -> None:
    scores = recorded(batches(masks=False))
    assert scores.pixel_positive.shape == scores.region_overlap.shape == (20, 0)
    assert set(scores.mask_path) == {""}
    assert np.isfinite(scores.false_positive_score).all()
