"""The papers' figures are complete and as printed; their averages are those of their rows, except for known misprints."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from anomalib.data.datasets.image.mvtecad import CATEGORIES as MVTEC
from anomalib.data.datasets.image.visa import CATEGORIES as VISA

from anomalib_spd.benchmark.results import Result, runs_table
from anomalib_spd.cli.benchmark import grid_of, parse
from anomalib_spd.config_files import recipe_names
from anomalib_spd.report.comparison import GridResults, mean_table
from anomalib_spd.report.published import AVERAGE, DATASETS, comparisons, lookup, published
from anomalib_spd.report.tables import LABELS, NOTHING

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
        name = f"{row.method}, {row.variant}" if row.variant else row.method
        found = lookup(*asked, protocol=row.protocol, named=[name])
        assert row.value in found.set_index("method")["value"][[name]].tolist()
        assert (name in lookup(*asked, protocol=row.protocol)["method"].tolist()) == (not row.variant)
    # a ratio that is not known belongs to any
    assert 0.393 in lookup("visa", AVERAGE, "patchcore", 0.1, "pixel_AUPR_visa")["value"].tolist()


def shown(recipe: str) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield every published figure in the report of a recipe whose cells are all measured.

    Title of the table, row, column, the column before it, and text.
    """
    grid = grid_of(parse(["--config", recipe]))
    # of ablations the averages alone are printed
    categories = list(grid.categories)[: 2 if "ablations" in recipe else None]
    results = []
    for cell in (each for each in grid.cells() if each.seed == 0 and each.category in categories):
        model = grid.model_config(cell)
        record = {
            "status": "done",
            "metrics": dict.fromkeys(published()["metric"], 0.5),
            "config": {"model": model},
            "sizes": {"coreset_sampling_ratio": model["init_args"].get("coreset_sampling_ratio")},
            "published": grid.published(cell.backbone, cell.category),
        }
        results.append(Result(cell, record, Path()))
    runs = runs_table(results)
    labels = list(grid.backbones), list(grid.detectors), categories
    measured = GridResults(grid.title, *labels, [], runs, mean_table(runs), pd.DataFrame())
    for detector in grid.detectors:
        for title, table, _ in comparisons(measured, detector):
            assert [row[0] for row in table.rows][-2].startswith("mean of ")  # ours, above the papers' average
            for row in table.rows:
                for before, column, text in zip(table.head, table.head[1:], row[1:], strict=False):
                    if text != NOTHING and not column.endswith("(here)"):
                        yield title, row[0], column, before, text


#: detectors of the tables that no recipe runs, and why
NOT_RUN = {"intra": "anomalib does not have it"}
#: methods that stand for no backbone of a recipe, and why
BESIDE_NONE = {
    **dict.fromkeys(("STPM", "DRAEM"), "are detectors: the table is of this detector alone"),
    "SPD ResNet-50": "CutSwap's paper quotes one row of SPD's, and does not say which pre-training it is of",
    "row unclear": "an issue quotes it without the row",
}


def test_every_stored_figure_stands_in_the_report_of_a_shipped_recipe() -> None:
    recipes = [name for name in recipe_names() if name.startswith(("benchmark/cutswap", "benchmark/spd"))]
    there: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    for recipe in recipes:
        for title, row, column, before, text in shown(recipe):
            there.setdefault((title, row, column), []).append((before, text.partition(" ")[0]))
    for row in published().itertuples():
        if row.detector in NOT_RUN:
            continue
        name = f"{row.method}, {row.variant}" if row.variant else row.method
        source = f"{row.paper} paper" + (f", table {row.table}" if row.table else "")
        label = f"all of {DATASETS[row.dataset]}, as printed" if row.category == AVERAGE else row.category
        key = f"{LABELS[row.metric]}, {DATASETS[row.dataset]}", label, f"{name} ({source})"
        assert f"{row.value:.3f}" in [text for _, text in there[key]], key
        if row.method not in BESIDE_NONE:
            assert any(before.endswith("(here)") for before, _ in there[key]), key
    assert {*NOT_RUN} < set(published()["detector"])
    assert {*BESIDE_NONE} < set(published()["method"])
