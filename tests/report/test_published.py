"""The papers' figures: complete, as printed, and their averages those of their rows but for known misprints."""

from collections import defaultdict
from fractions import Fraction
from typing import Any

import pytest
from anomalib.data.datasets.image.mvtecad import CATEGORIES as MVTEC
from anomalib.data.datasets.image.visa import CATEGORIES as VISA

from anomalib_spd.report import published
from anomalib_spd.report.published import AVERAGE

# (table, method, metric) whose printed average is not the mean of its rows, rounded to 3 decimals
MISPRINTS = {
    ("II", "CutPaste", "pixel_AUROC"),
    ("II", "STPM", "pixel_AUROC"),
    ("II", "InTra", "pixel_AUROC"),
    ("II", "CutSwap", "pixel_AUROC"),
    ("IV", "DRAEM", "image_AUROC"),
    ("IV", "DRAEM", "pixel_AUROC"),
}


def columns() -> dict[tuple[str, str, str], dict[str, published.Row]]:
    found: dict[tuple[str, str, str], dict[str, published.Row]] = defaultdict(dict)
    for row in published.rows():
        if row.paper == "CutSwap" and not row.variant:
            assert row.category not in found[row.table, row.method, row.metric]
            found[row.table, row.method, row.metric][row.category] = row
    return found


def test_every_column_has_all_categories_of_its_data_set_under_the_names_of_anomalib() -> None:
    found = columns()
    assert len(found) == 6 + 10 + 6 + 10
    # of STPM's image AU-ROC the paper prints the average alone
    assert set(found.pop(("II", "STPM", "image_AUROC"))) == {AVERAGE}
    for (table, _, _), column in found.items():
        categories = {"mvtec": MVTEC, "visa": VISA}["mvtec" if table in {"I", "II"} else "visa"]
        assert set(column) == {*categories, AVERAGE}


def test_averages_are_those_of_the_rows_but_for_the_misprints_which_are_noted() -> None:
    wrong = set()
    for key, column in columns().items():
        average, *values = (
            Fraction(round(row.value * 1000)) for row in sorted(column.values(), key=lambda r: r.category != AVERAGE)
        )
        if values and abs(sum(values) / len(values) - average) > Fraction(1, 2):
            wrong.add(key)
            assert f"{float(sum(values) / len(values) / 1000):.4f}" in column[AVERAGE].note
            assert f"printed {column[AVERAGE].value:.3f}" in column[AVERAGE].note
        elif values:
            assert "printed" not in column[AVERAGE].note
    assert wrong == MISPRINTS


def test_ablations_agree_with_the_main_tables_where_they_repeat_them() -> None:
    repeated = {"k = 4", "max cluster", "layers 4, 9, 16, 23, 30", "k-means"}
    ablations = [row for row in published.rows() if row.variant]
    assert len(ablations) == 2 * (6 + 3 + 7 + 4)
    assert repeated < {row.variant for row in ablations}
    for row in ablations:
        if row.variant in repeated:
            printed = published.lookup("mvtec", AVERAGE, "patchcore", row.coreset_sampling_ratio, row.metric)
            assert {p.method: p.value for p in printed}["CutSwap"] == row.value


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (
            ("mvtec", "screw", "patchcore", 0.01, "image_AUROC"),
            [("CutPaste", 0.848), ("ResNet-18", 0.949), ("CutSwap", 0.871)],
        ),
        (
            ("visa", "candle", "patchcore", 0.001, "pixel_AUROC"),
            [("CutPaste", 0.875), ("ResNet-18", 0.977), ("CutSwap", 0.957)],
        ),
        (("visa", "pcb3", "padim", None, "image_AUROC"), [("SPD ResNet-50", 0.854)]),
        (("mvtec", "bottle", "stpm", None, "pixel_AUROC"), [("STPM", 0.988)]),
        (("mvtec", "screw", "patchcore", 0.1, "image_AUROC"), []),
        (("mvtec", "screw", "patchcore", None, "image_AUROC"), []),
        (("mvtec", "pcb1", "patchcore", 0.01, "image_AUROC"), []),
        (("visa", "candle", "patchcore", 0.01, "pixel_AUPR_step"), []),
    ],
)
def test_lookup_finds_what_the_papers_print(asked: tuple[Any, ...], found: list[tuple[str, float]]) -> None:
    assert [(method, value) for method, value, *_ in published.lookup(*asked)] == found


def test_lookup_says_where_a_figure_stands_and_keeps_to_the_one_class_protocol() -> None:
    (first, *_) = published.lookup("visa", AVERAGE, "patchcore", 0.01, "image_AUROC")
    assert first.source == "CutSwap paper, table IV"
    found = published.lookup("visa", AVERAGE, "padim", None, "pixel_AUPR_visa")
    assert [(p.method, p.value, p.source) for p in found] == [
        ("supervised ResNet-50", 0.114, "SPD paper"),
        ("supervised ResNet-50 + SPD", 0.12, "SPD paper"),
    ]
    assert all("reading note" in p.note for p in found)
    assert published.lookup("visa", AVERAGE, "unet", None, "pixel_AUPR_visa") == []
