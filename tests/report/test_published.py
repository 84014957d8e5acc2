"""The papers' figures are complete and as printed; their averages are those of their rows, except for known misprints."""

from fractions import Fraction
from typing import Any

import pandas as pd
import pytest
from anomalib.data.datasets.image.mvtecad import CATEGORIES as MVTEC
from anomalib.data.datasets.image.visa import CATEGORIES as VISA

from anomalib_spd.benchmark.grid import Grid
from anomalib_spd.config_files import load_config_files
from anomalib_spd.report.published import AVERAGE, lookup, published

# (table, method, metric) whose printed average is not the mean of its rows, rounded to 3 decimals
MISPRINTS = {
    ("II", "CutPaste", "pixel_AUROC"),
    ("II", "STPM", "pixel_AUROC"),
    ("II", "InTra", "pixel_AUROC"),
    ("II", "CutSwap", "pixel_AUROC"),
    ("IV", "DRAEM", "image_AUROC"),
    ("IV", "DRAEM", "pixel_AUROC"),
}


def columns() -> dict[tuple[str, str, str], pd.DataFrame]:
    rows = published()[(published()["paper"] == "CutSwap") & (published()["variant"] == "")]
    found = {key: column.set_index("category") for key, column in rows.groupby(["table", "method", "metric"])}
    assert all(column.index.is_unique for column in found.values())
    return found


def test_every_column_has_all_categories_of_its_data_set_under_anomalibs_names() -> None:
    found = columns()
    assert len(found) == 6 + 10 + 6 + 10
    # of STPM's image AU-ROC the paper prints the average alone
    assert set(found.pop(("II", "STPM", "image_AUROC")).index) == {AVERAGE}
    for (table, _, _), column in found.items():
        categories = {"mvtec": MVTEC, "visa": VISA}["mvtec" if table in {"I", "II"} else "visa"]
        assert set(column.index) == {*categories, AVERAGE}


def test_averages_are_those_of_the_rows_but_for_the_misprints_which_are_noted() -> None:
    wrong = set()
    for key, column in columns().items():
        average = Fraction(round(column["value"][AVERAGE] * 1000))
        values = [Fraction(round(value * 1000)) for value in column["value"].drop(AVERAGE)]
        if values and abs(sum(values) / len(values) - average) > Fraction(1, 2):
            wrong.add(key)
            assert f"{float(sum(values) / len(values) / 1000):.4f}" in column["note"][AVERAGE]
            assert f"printed {column['value'][AVERAGE]:.3f}" in column["note"][AVERAGE]
        elif values:
            assert "printed" not in column["note"][AVERAGE]
    assert wrong == MISPRINTS


def test_ablations_agree_with_the_main_tables_where_they_repeat_them() -> None:
    repeated = {"k = 4", "max cluster", "layers 4, 9, 16, 23, 30", "k-means"}
    ablations = published()[published()["variant"] != ""]
    assert len(ablations) == 2 * (6 + 3 + 7 + 4)
    assert repeated < set(ablations["variant"])
    for row in ablations[ablations["variant"].isin(repeated)].itertuples():
        printed = lookup("mvtec", AVERAGE, "patchcore", row.coreset_sampling_ratio, row.metric)
        assert printed.set_index("method")["value"]["CutSwap"] == row.value


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
    assert [tuple(row) for row in lookup(*asked)[["method", "value"]].values] == found


def test_lookup_says_where_a_figure_stands_and_keeps_to_the_one_class_protocol() -> None:
    first = lookup("visa", AVERAGE, "patchcore", 0.01, "image_AUROC").iloc[0]
    assert first["source"] == "CutSwap paper, table IV"
    rows = lookup("visa", AVERAGE, "padim", None, "pixel_AUPR_visa")
    assert [tuple(row) for row in rows[["method", "value", "source"]].values] == [
        ("supervised ResNet-50", 0.114, "SPD paper"),
        ("supervised ResNet-50 + SPD", 0.12, "SPD paper"),
    ]
    assert rows["note"].str.contains("reading note").all()
    assert lookup("visa", AVERAGE, "unet", None, "pixel_AUPR_visa").empty


def test_every_stored_figure_can_be_looked_up() -> None:
    for row in published().itertuples():
        ratio = None if pd.isna(row.coreset_sampling_ratio) else row.coreset_sampling_ratio
        asked = (row.dataset, row.category, row.detector, ratio, row.metric)
        found = lookup(*asked, protocol=row.protocol, variants=True)
        name = f"{row.method}, {row.variant}" if row.variant else row.method
        assert row.value in found.set_index("method")["value"][[name]].tolist()
        assert (name in lookup(*asked, protocol=row.protocol)["method"].tolist()) == (not row.variant)
    # a ratio that is not known belongs to any
    assert 0.393 in lookup("visa", AVERAGE, "patchcore", 0.1, "pixel_AUPR_visa")["value"].tolist()


@pytest.mark.parametrize("recipe", ["visa_2cls_highshot", "visa_2cls_fewshot", "visa_1cls", "mvtec"])
def test_shipped_grids_ask_for_figures_that_are_there(recipe: str) -> None:
    content = load_config_files([f"benchmark/{recipe}.yaml"])
    grid = Grid(**{key: each for key, each in content.items() if key != "results"})
    for label in grid.categories:
        asked = grid.published(label)
        assert asked is not None
        protocol = asked.get("protocol", "1cls")
        known = published()[published()["protocol"] == protocol]
        assert asked["dataset"] in set(known["dataset"])
        assert asked["category"] in {*VISA, *MVTEC}
    assert protocol == {"visa_2cls_highshot": "2cls_highshot", "visa_2cls_fewshot": "2cls_10shot"}.get(recipe, "1cls")
