"""Heatmap grids rank images as scikit-learn does, show them as the detector saw them, in colors that mean a rate."""

import base64
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import average_precision_score
from torchvision.transforms import InterpolationMode, v2

from anomalib_spd.benchmark.results import FALSE_POSITIVE_RATES, Result, Scores
from anomalib_spd.report.comparison import GridResults, Pair, load
from anomalib_spd.report.heatmaps import false_positive_rate, heatmap_grids, ranking
from tests.report.synthetic import ANOMALOUS, CROP, NORMAL, RESIZED, SMALL, write_results

PAIR = Pair("SPD", "base")


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> GridResults:
    config = SMALL | {"categories": {"bottle": None, "screw": None}}
    return load(write_results(tmp_path_factory.mktemp("heatmaps") / "results", config), resamples=20)


@pytest.fixture
def result(grid: GridResults) -> Result:
    return grid.select("SPD", "patchcore_0.01", "bottle")[0]


@pytest.fixture
def scores(result: Result) -> Scores:
    return result.scores()


def decoded(address: str | None) -> Image.Image:
    assert address is not None
    kind, content = address.split(";base64,")
    assert kind in {"data:image/png", "data:image/jpeg"}
    return Image.open(BytesIO(base64.b64decode(content)))


def pre_processed(path: str, interpolation: InterpolationMode) -> NDArray[Any]:
    """Resize and crop a file as anomalib's pre-processing does."""
    seen = v2.Compose([v2.Resize((RESIZED, RESIZED), interpolation), v2.CenterCrop(CROP)])
    return np.asarray(seen(Image.open(path)))


def test_a_score_stands_for_the_share_of_normal_pixels_above_it(scores: Scores) -> None:
    np.testing.assert_allclose(
        false_positive_rate(scores, scores.false_positive_score), FALSE_POSITIVE_RATES, rtol=1e-6
    )
    normal = scores.anomaly_map[~scores.image_label].astype(float).ravel()
    for score in np.quantile(normal, [0.1, 0.5, 0.9, 0.99]):
        assert false_positive_rate(scores, np.array(score)) == pytest.approx((normal > score).mean(), rel=0.05)
    beyond = np.array([normal.min() - 1, normal.max() + 1])
    assert false_positive_rate(scores, beyond).tolist() == pytest.approx([1, 1e-4])


def test_images_are_ranked_by_the_average_precision_of_their_pixels(scores: Scores) -> None:
    expected = {}
    for index in range(NORMAL, len(scores.image_label)):
        positive, negative = scores.pixel_positive[index], scores.pixel_negative[index]
        truth = np.concatenate([np.ones(positive.sum()), np.zeros(negative.sum())])
        bins = -np.arange(len(positive))
        expected[index] = average_precision_score(
            truth, np.concatenate([np.repeat(bins, positive), np.repeat(bins, negative)])
        )
    order, values, by_pixels = ranking(scores)
    assert by_pixels
    assert order.tolist() == sorted(expected, key=lambda index: -expected[index])
    np.testing.assert_allclose(values, [expected[index] for index in order])


def test_without_masks_images_are_ranked_by_the_normal_images_they_surpass_then_by_score(scores: Scores) -> None:
    nothing = np.zeros((5, 0), dtype=np.int32)
    bare = replace(
        scores,
        image_label=np.array([False, False, True, True, True]),
        image_score=np.array([1, 3, 2, 5, 4], dtype=np.float32),
        pixel_positive=nothing,
        pixel_negative=nothing,
        region_overlap=nothing.astype(np.float32),
    )
    order, values, by_pixels = ranking(bare)
    assert not by_pixels
    assert order.tolist() == [3, 4, 2]
    assert values.tolist() == [1, 1, 0.5]


def test_a_heatmap_grid_has_the_best_the_median_and_the_worst_image(grid: GridResults, scores: Scores) -> None:
    with_masks, without = heatmap_grids(grid, PAIR, "patchcore_0.01")
    order, values, _ = ranking(scores)
    assert (with_masks.category, with_masks.seed, with_masks.by_pixels) == ("bottle", 0, True)
    assert [picture.rank for picture in with_masks.pictures] == ["best", "median", "worst"]
    chosen = [0, (len(order) - 1) // 2, len(order) - 1]
    assert [picture.name for picture in with_masks.pictures] == [f"bottle/{order[at]:03}.png" for at in chosen]
    assert [picture.value for picture in with_masks.pictures] == [values[at] for at in chosen]
    assert not without.by_pixels
    assert all(picture.photograph and picture.truth is None for picture in without.pictures)


@pytest.mark.parametrize(("images", "ranks"), [(1, ["best"]), (2, ["best", "worst"])])
def test_few_images_are_shown_once_each(
    grid: GridResults, images: int, ranks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Result.scores

    def first(result: Result) -> Scores:
        scores = vars(whole(result))
        of_images = {
            name: array[: NORMAL + images] for name, array in scores.items() if len(array) == len(scores["image_label"])
        }
        return Scores(**scores | of_images)

    monkeypatch.setattr(Result, "scores", first)
    bottle = heatmap_grids(grid, PAIR, "patchcore_0.01")[0]
    assert [picture.rank for picture in bottle.pictures] == ranks
    assert len({picture.name for picture in bottle.pictures}) == images


def test_photograph_and_mask_are_cropped_as_the_detector_saw_them(grid: GridResults, scores: Scores) -> None:
    for picture in heatmap_grids(grid, PAIR, "patchcore_0.01")[0].pictures:
        index = [Path(path).name for path in scores.image_path].index(Path(picture.name).name)
        truth = np.asarray(decoded(picture.truth).convert("L"))
        np.testing.assert_array_equal(truth, pre_processed(scores.mask_path[index], InterpolationMode.NEAREST))
        photograph = np.asarray(decoded(picture.photograph)).astype(float)
        expected = pre_processed(scores.image_path[index], InterpolationMode.BILINEAR)
        assert photograph.shape == expected.shape
        # JPEG is lossy
        assert np.abs(photograph - expected).mean() < 6


def test_a_heatmap_has_the_colors_of_the_scale(grid: GridResults, scores: Scores) -> None:
    picture = heatmap_grids(grid, PAIR, "patchcore_0.01")[0].pictures[0]
    index = [Path(path).name for path in scores.image_path].index(Path(picture.name).name)
    rate = false_positive_rate(scores, scores.anomaly_map[index])
    expected = mpl.colormaps["inferno"](-np.log10(rate) / 4)[..., :3]
    # 81 colors of 8 bits
    np.testing.assert_allclose(np.asarray(decoded(picture.heatmaps[0]).convert("RGB")) / 255, expected, atol=0.03)
    assert picture.heatmaps[0] != picture.heatmaps[1]


def test_neither_photograph_nor_mask_is_shown_on_request_or_where_the_files_are_gone(
    grid: GridResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = heatmap_grids(grid, PAIR, "patchcore_0.01", images=False)
    whole = Result.scores
    gone = np.array(["gone/000.png"] * (NORMAL + ANOMALOUS))
    monkeypatch.setattr(Result, "scores", lambda self: replace(whole(self), image_path=gone, mask_path=gone))
    for heatmaps in (asked, heatmap_grids(grid, PAIR, "patchcore_0.01")):
        pictures = [picture for each in heatmaps for picture in each.pictures]
        assert len(pictures) == 6
        assert {(picture.photograph, picture.truth) for picture in pictures} == {(None, None)}
        assert all(decoded(heatmap).size == (CROP, CROP) for picture in pictures for heatmap in picture.heatmaps)
