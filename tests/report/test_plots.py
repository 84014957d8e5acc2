"""Curves agree with scikit-learn's, and several plots fit into one page."""

import re
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from anomalib_spd.benchmark.results import FALSE_POSITIVE_RATES, Scores
from anomalib_spd.report import plots
from anomalib_spd.report.bootstrap import Interval
from anomalib_spd.report.page import HEADLINE
from anomalib_spd.report.plots import SERIES, ForestRow, forest, inline, rates


@pytest.fixture
def truth_and_score() -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return labels and scores with ties."""
    rng = np.random.default_rng(0)
    truth = rng.random(3000) < 0.2
    return truth, np.round(rng.normal(truth * 1.0), 2)


def counts(truth: NDArray[np.bool_], score: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    highest_first = np.unique(score)[::-1]
    positive = np.array([(truth & (score == value)).sum() for value in highest_first])
    return positive, np.array([(score == value).sum() for value in highest_first]) - positive


def test_rates_are_those_of_scikit_learn(
    truth_and_score: tuple[NDArray[np.bool_], NDArray[np.float64]],
) -> None:
    false_positive_rate, recall, precision = rates(*counts(*truth_and_score))
    expected_fpr, expected_tpr, _ = roc_curve(*truth_and_score, drop_intermediate=False)
    np.testing.assert_allclose(false_positive_rate, expected_fpr)
    np.testing.assert_allclose(recall, expected_tpr)
    expected_precision, expected_recall, _ = precision_recall_curve(*truth_and_score)
    np.testing.assert_allclose(precision, expected_precision[::-1])
    np.testing.assert_allclose(recall, expected_recall[::-1])


def test_curves_of_many_points_take_little_room() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(3000) < 0.2
    few, many = (
        replace(scores(False), image_label=truth[:number], image_score=rng.normal(truth[:number]).astype(np.float32))
        for number in (100, 3000)
    )
    assert len(plots.curves("it", {"A": [many]})) < len(plots.curves("it", {"A": [few]})) + 10_000


def scores(masks: bool) -> Scores:
    pixels = np.array([[0, 0, 1], [3, 1, 0]], dtype=np.int32)[:, : 3 * masks]
    return Scores(
        np.array(["a", "b"]),
        np.array(["", "m"]),
        np.array([False, True]),
        np.array([1, 2], dtype=np.float32),
        np.zeros((2, 4, 4), dtype=np.float16),
        np.zeros(len(FALSE_POSITIVE_RATES), dtype=np.float32),
        pixels,
        pixels[::-1],
        pixels / np.array([[1], [4]], dtype=np.float32),
    )


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_pixels_have_curves_only_where_there_are_masks() -> None:
    with_masks, without = (
        texts(plots.curves("it", {"A": [scores(masks)], "B": [scores(masks)], "C": []})) for masks in (True, False)
    )
    assert {"images: ROC", "pixels: ROC", "pixels: precision and recall"} <= {*with_masks}
    assert "images: ROC" in without
    assert not [each for each in without if "pixel" in each]
    for text in (with_masks, without):
        assert text.count("image score") == 2  # a histogram each of A and B, none of C


def test_forest_prints_every_value_and_label_and_fills_what_excludes_0() -> None:
    intervals = {
        ("image_AUROC", "A"): Interval(0.0123, 0.002, 0.03, True),
        ("image_AUROC", "B"): Interval(-0.04, -0.09, 0.01, False),
    }
    svg = forest("it", [ForestRow("some category", intervals)], {"image_AUROC": 0.1}, dict.fromkeys("AB", SERIES[0]))
    assert {"some category", "image AU-ROC", "+0.012", "-0.040", "A", "B"} <= {*texts(svg)}
    marks = [
        style for style in re.findall(r'style="([^"]*)"', svg) if f"stroke: {SERIES[0]}; stroke-width: 1.2" in style
    ]
    assert any(f"fill: {SERIES[0]}" in style for style in marks)
    assert any(f"fill: {plots.PAPER}" in style for style in marks)


def test_an_inline_plot_takes_its_colors_from_the_page_and_shares_no_id_with_another() -> None:
    first, second = (inline(plots.curves(name, {"A": [scores(True)]}), "a plot") for name in ("first", "second"))
    for svg in (first, second):
        assert svg.startswith('<svg role="img" aria-label="a plot" viewBox=')
        assert "http" not in svg
        assert "currentColor" in svg
        assert "var(--series-0)" in svg
        assert not [color for color in (*SERIES, plots.INK, plots.PAPER) if color in svg]
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert {*re.findall(r'(?:url\(|href=")#([^)"]+)', first)} <= ids[0]


def test_the_same_plot_is_the_same_text() -> None:
    assert plots.curves("it", {"A": [scores(True)]}) == plots.curves("it", {"A": [scores(True)]})


@pytest.mark.parametrize("count", [2, 6, 16])
@pytest.mark.parametrize("label", ["A{}", "SPD at equal RMS minus control at equal RMS {}"])
def test_a_legend_stays_within_its_plot_and_off_the_curves(
    count: int, label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []

    class Kept(Figure):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            drawn.append(self)

    monkeypatch.setattr(plots, "Figure", Kept)
    names = [label.format(number) for number in range(count)]
    intervals = {("image_AUROC", name): Interval(0.01, 0.002, 0.03, True) for name in names}
    rows, limits = [ForestRow("some category", intervals)] * 2, dict.fromkeys(HEADLINE, 0.1)
    forest("it", rows, limits, dict.fromkeys(names, SERIES[0]))
    plots.curves("it", {name: [scores(True)] for name in names})
    assert len(drawn) == 2
    for figure in drawn:
        FigureCanvasAgg(figure).draw()
        (legend,) = figure.legends
        box = legend.get_window_extent()
        assert box.x0 >= 0
        assert box.y0 >= -1
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1 + 1
        assert not any(box.overlaps(axis.get_window_extent()) for axis in figure.axes)
