"""How the cells of a grid were measured: settings, images, costs, weights, failures."""

import pandas as pd

from anomalib_spd.report.comparison import GridResults
from anomalib_spd.report.tables import Table, to_table

#: column of the runs -> phrase in the line of settings, and the phrase where a cell has none
SETTINGS = {
    "class_path": ("{}", ""),
    "image_size": ("images {} px", "images not resized"),
    "crop": ("center crop {} px", "no crop"),
    "map": ("anomaly map {} px", ""),
    "coreset_sampling_ratio": ("coreset {}", ""),
    "device": ("on {}", ""),
    "threads": ("threads: {}", ""),
}
COLUMNS = [
    *("detector", "status", *SETTINGS, "train_images", "train_anomalous", "test_normal", "test_anomalous"),
    *("fit_seconds", "inference_seconds", "peak_memory_bytes", "pixel_AUROC", "undefined", "sha256", "error"),
]


def metadata_tables(grid: GridResults) -> dict[str, Table]:
    """Return title -> table of everything that is known; nothing where only means are left."""
    if not len(grid.runs):
        return {}
    made = {
        "Failed cells": failures_table(grid),
        "Undefined metrics, left out of all means": undefined_table(grid),
        "Images": images_table(grid),
        "Time and memory, means over cells": costs_table(grid),
        "Weights": weights_table(grid),
    }
    return {title: table for title, table in made.items() if table.rows}


def settings(grid: GridResults, detector: str) -> list[str]:
    """Return the settings of a detector's measured cells as phrases; cells that differ are separated by slashes."""
    runs = _measured(grid)
    runs = runs[runs["detector"] == detector]
    phrases = []
    for column, (phrase, otherwise) in SETTINGS.items():
        distinct = dict.fromkeys(otherwise if pd.isna(value) else phrase.format(value) for value in runs[column])
        phrases.append(" / ".join(text for text in distinct if text))
    versions = [column for column in runs if column.startswith("version_")]
    of_cells = [", ".join(f"{name[8:]} {row[name]}" for name in versions) for _, row in runs[versions].iterrows()]
    return [phrase for phrase in (*phrases, " / ".join(dict.fromkeys(of_cells))) if phrase]


def images_table(grid: GridResults) -> Table:
    """Return how many images every category has."""
    columns = {
        "train_images": "training",
        "train_anomalous": "of them anomalous",
        "test_normal": "test, normal",
        "test_anomalous": "test, anomalous",
    }
    rows = {}
    for category, of in _measured(grid).groupby("category", sort=False):
        masks = "yes" if of["pixel_AUROC"].notna().any() else "no"
        counts = [" / ".join(dict.fromkeys(_count(n) for n in of[column])) for column in columns]
        rows[category] = [masks, *counts]
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=["masks", *columns.values()])
    return to_table(frame.reindex(grid.categories).reset_index(names="category"), 2)


def costs_table(grid: GridResults) -> Table:
    """Return time and memory of every detector and backbone, as means over cells."""
    runs = _measured(grid)
    images = runs["test_normal"] + runs["test_anomalous"]
    runs = runs.assign(each=1000 * runs["inference_seconds"] / images, memory=runs["peak_memory_bytes"] / 2**30)
    formats = {"fit_seconds": "{:.1f}", "inference_seconds": "{:.1f}", "each": "{:.0f}", "memory": "{:.2f}"}
    of = runs.groupby(["detector", "backbone"])
    table = of[list(formats)].mean()
    for column, form in formats.items():
        table[column] = [None if pd.isna(value) else form.format(value) for value in table[column]]
    table.insert(0, "cells", of.size())
    index = [(detector, backbone) for detector in grid.detectors for backbone in grid.backbones_of(detector)]
    table = table.reindex(pd.MultiIndex.from_tuples(index, names=["detector", "backbone"]))
    table["cells"] = table["cells"].fillna(0).astype(int)
    table.columns = ["cells", "fit, s", "inference, s", "inference per image, ms", "peak memory, GiB"]
    return to_table(table.reset_index(), 2)


def weights_table(grid: GridResults) -> Table:
    """Return the weights of every backbone."""
    columns = {
        "backbone": "backbone",
        "name": "name",
        "architecture": "architecture",
        "sha256": "sha256 of the weights",
    }
    of = grid.runs.reindex(columns=list(columns)).drop_duplicates()
    order = of["backbone"].map(list(grid.backbones).index)
    return to_table(of.iloc[order.argsort(kind="stable")].rename(columns=columns), 4)


def failures_table(grid: GridResults) -> Table:
    """Return every failed cell with its error."""
    failed = _runs(grid)[lambda runs: runs["status"] != "done"]
    cells = [f"{r.backbone} / {r.detector} / {r.category} / seed {r.seed}" for r in failed.itertuples()]
    errors = [str(error).partition(": ") for error in failed["error"].astype(object).fillna("unknown")]
    rows = [(cell, error, message[:500]) for cell, (error, _, message) in zip(cells, errors, strict=True)]
    return to_table(pd.DataFrame(rows, columns=["cell", "error", "message"]), 3)


def undefined_table(grid: GridResults) -> Table:
    """Return the categories in which metrics are undefined, with the reason and the number of cells."""
    counts = _measured(grid).groupby(["category", "undefined"], sort=False).size()
    rows = [
        (category, *reason.split(": ", 1), n) for (category, all_), n in counts.items() for reason in all_.split("; ")
    ]
    return to_table(pd.DataFrame(rows, columns=["category", "metrics of", "reason", "cells"]), 3)


def trained_anew(grid: GridResults) -> list[str]:
    """Return the backbones of which every seed has weights of its own."""
    if "sha256" not in grid.runs:
        return []
    weights = grid.runs.groupby(["backbone", "category"])["sha256"].nunique().groupby("backbone").max()
    return [backbone for backbone in grid.backbones if weights.get(backbone, 1) > 1]


def _measured(grid: GridResults) -> pd.DataFrame:
    return _runs(grid)[lambda runs: runs["status"] == "done"]


def _runs(grid: GridResults) -> pd.DataFrame:
    """Return the runs with all columns that these tables read: a CSV file may lack some."""
    return grid.runs.reindex(columns=grid.runs.columns.union(COLUMNS, sort=False))


def _count(value: float) -> str:
    return "0" if pd.isna(value) else f"{value:.0f}"
