"""The figures that the papers print, and tables of them beside ours.

The figures are data, in ``published/*.csv``, one a row: CutSwap's tables I to IV and its ablations (V to VIII), and the few
figures of the SPD paper that were available, through a reading note. VisA's ``candles`` is anomalib's ``candle``.

Columns: ``paper`` (``CutSwap`` or ``SPD``), ``table`` (empty where unknown), ``dataset`` (``mvtec`` or ``visa``),
``protocol`` (``1cls``, or one of VisA's 2-class protocols), ``detector``, ``coreset_sampling_ratio`` (of PatchCore, where
known), ``method`` (the backbone, or what it was trained with), ``variant`` (what an ablation varies; empty for the method
as proposed), ``category`` (anomalib's name, or ``average`` over the data set), ``metric``, ``value`` in [0, 1], ``note``
(what a reader must know, such as a misprint).
"""

from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from anomalib_spd.report.comparison import GridResults
from anomalib_spd.report.tables import LABELS, Table, format_mean, to_table

FOLDER = Path(__file__).parent / "published"
#: the category of a figure that is the mean over all categories of a data set
AVERAGE = "average"
DATASETS = {"mvtec": "MVTec AD", "visa": "VisA"}
# anomalib's classes that the papers call by another name, in lower case
PAPERS_NAMES = {"fastpatchcore": "patchcore", "stfpm": "stpm", "segmenter": "unet"}


class Comparison(NamedTuple):
    """Our values of one metric and data set beside published ones."""

    title: str
    table: Table
    footnotes: Sequence[str]


@cache
def published() -> pd.DataFrame:
    """Return every published figure; see the module for its columns."""
    text = dict.fromkeys(("table", "variant", "note"), str)
    tables = [pd.read_csv(path, dtype=text).fillna(dict.fromkeys(text, "")) for path in sorted(FOLDER.glob("*.csv"))]
    return pd.concat(tables, ignore_index=True)


def lookup(
    dataset: str,
    category: str,
    detector: str,
    coreset_sampling_ratio: float | None,
    metric: str,
    *,
    protocol: str = "1cls",
    named: Collection[str] = (),
) -> pd.DataFrame:
    """Return what was published of a cell: of every method as proposed, and of the arms of ablations that are named.

    Args:
        dataset: ``mvtec`` or ``visa``.
        category: anomalib's name, or ``AVERAGE``.
        detector: ``patchcore``, ``padim``, ...
        coreset_sampling_ratio: of PatchCore; figures whose ratio is not known belong to any.
        metric: its name.
        protocol: ``1cls``, or one of VisA's 2-class protocols.
        named: arms of ablations: ``CutSwap, k = 1``.

    Returns:
        Rows of ``published()`` in the papers' order, with ``source``: paper and table. ``method`` has the name of the arm.
    """
    rows = _groups().get((dataset, category, detector, metric, protocol), published().assign(source="").iloc[:0])
    rows = rows[(rows["variant"] == "") | rows["method"].isin(named)]
    ratio = np.nan if coreset_sampling_ratio is None else coreset_sampling_ratio
    ratios = rows["coreset_sampling_ratio"]
    rows = rows[np.isclose(ratios, ratio, rtol=1e-6, atol=0) | ratios.isna()]
    return rows


@cache
def _groups() -> dict[Any, pd.DataFrame]:
    """Return data set, category, detector, metric and protocol -> figures, arms of ablations named, with ``source``."""
    known = published()
    known = known.assign(
        method=known["method"] + known["variant"].map(lambda variant: f", {variant}" * bool(variant)),
        source=known["paper"] + " paper" + known["table"].map(lambda table: f", table {table}" * bool(table)),
    )
    return dict(list(known.groupby(["dataset", "category", "detector", "metric", "protocol"])))


def comparisons(grid: GridResults, detector: str) -> list[Comparison]:
    """Return our values beside the papers', where there are any; each method's beside those of the backbone that stands for it.

    The papers' averages over a whole data set have a row of their own.

    Args:
        grid: the results.
        detector: label.
    """
    if "published_dataset" not in grid.runs:
        return []
    runs = grid.runs[(grid.runs["detector"] == detector) & (grid.runs["status"] == "done")]
    runs = runs[runs["published_dataset"].notna()].drop_duplicates(["category", "backbone"])
    for column, usual in (("published_protocol", "1cls"), ("published_method", "")):
        runs[column] = runs[column].fillna(usual) if column in runs else usual
    found = [
        _comparison(grid, detector, metric, str(dataset), str(protocol), of)
        for (dataset, protocol), of in runs.groupby(["published_dataset", "published_protocol"], sort=False)
        for metric in LABELS
    ]
    return [comparison for comparison in found if comparison]


def _comparison(
    grid: GridResults, detector: str, metric: str, dataset: str, protocol: str, runs: pd.DataFrame
) -> Comparison | None:
    # rows: categories, then the papers' average; columns: our backbones, each before the method that it stands for, then others
    whole = f"all of {DATASETS.get(dataset, dataset)}, as printed"
    name = papers_name(runs["class_path"].iloc[0])
    ratio = runs["coreset_sampling_ratio"].iloc[0] if "coreset_sampling_ratio" in runs else None
    means = grid.means[(grid.means["detector"] == detector) & (grid.means["metric"] == metric)]
    figures = [
        (row.category, f"{row.backbone} (here)", row.value, format_mean(row.value, row.sd))
        for row in means.rename(columns={"mean": "value"}).itertuples()
        if row.category in set(runs["category"])
    ]
    stands_for = dict(runs[["backbone", "published_method"]].drop_duplicates().values)
    notes: dict[str, int] = {}
    theirs: dict[str, str] = {}
    for label, category in [*runs[["category", "published_category"]].drop_duplicates().values, (whole, AVERAGE)]:
        for row in lookup(
            dataset,
            category,
            name,
            None if pd.isna(ratio) else ratio,
            metric,
            protocol=protocol,
            named=set(stands_for.values()),
        ).itertuples():
            mark = f" [{notes.setdefault(row.note, len(notes) + 1)}]" if row.note else ""
            column = f"{row.method} ({row.source})"
            theirs[column] = row.method
            figures.append((label, column, row.value, f"{row.value:.3f}{mark}"))
    if not theirs:
        return None
    long = pd.DataFrame(figures, columns=["category", "column", "value", "text"])
    columns = []
    for backbone in (each for each in grid.backbones if each in stands_for):
        columns += [f"{backbone} (here)", *(each for each, method in theirs.items() if method == stands_for[backbone])]
    columns = list(dict.fromkeys([*columns, *theirs]))
    rows = [category for category in grid.categories if category in set(runs["category"])]
    texts = long.pivot(index="category", columns="column", values="text").reindex([*rows, whole], columns=columns)
    values = long.pivot(index="category", columns="column", values="value").reindex(rows, columns=columns)
    values = values.dropna(axis="columns", how="all").dropna()  # of some methods the averages alone are known
    if len(values) > 1:
        label = f"mean of {len(values)}" if len(values) == len(rows) else f"mean of {', '.join(values.index)}"
        mean = pd.DataFrame({label: values.mean().map("{:.3f}".format)}).T
        texts = pd.concat([texts.loc[rows], mean, texts.loc[[whole]]])
    table = to_table(texts.reset_index(names="category"), 1)
    footnotes = [f"[{number}] {note}" for note, number in notes.items()]
    return Comparison(f"{LABELS[metric]}, {DATASETS.get(dataset, dataset)}", table, footnotes)


def papers_name(class_path: str) -> str:
    """Return a detector's name in the papers' tables.

    Args:
        class_path: of anomalib's class.
    """
    name = class_path.rpartition(".")[2].lower()
    return PAPERS_NAMES.get(name, name)
