"""Tables of our figures beside the papers'."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from anomalib_spd.benchmark.results import Result
from anomalib_spd.report import published
from anomalib_spd.report.comparison import Findings
from anomalib_spd.report.tables import METRICS, NOTHING, Row, Table, figures, spread, words

DATASETS = {"mvtec": "MVTec AD", "visa": "VisA"}

# anomalib's classes whose name is not the papers', in lower case
PAPERS_NAMES = {"fastpatchcore": "patchcore", "stfpm": "stpm"}


class Comparison(NamedTuple):
    """Our figures of one metric and data set beside published ones."""

    title: str
    table: Table
    footnotes: Sequence[str]


class Question(NamedTuple):
    """What is looked up of a category, but for the metric."""

    dataset: str
    category: str
    detector: str
    coreset_sampling_ratio: float | None


def comparisons(findings: Findings, detector: str) -> list[Comparison]:
    """Our figures beside the papers', where there are any.

    The papers' averages over a whole data set stand in a row of their own: ours are none.

    Args:
        findings: of a folder of results.
        detector: label.
    """
    datasets: dict[str, dict[str, Question]] = {}
    for category in findings.grid.categories:
        for result in findings.of(detector=detector, category=category)[:1]:
            if origin := result.record["published"]:
                ratio = result.record["sizes"]["coreset_sampling_ratio"]
                question = Question(origin["dataset"], origin["category"], papers_name(result), ratio)
                datasets.setdefault(origin["dataset"], {})[category] = question
    found = (_comparison(findings, detector, metric, asked) for asked in datasets.values() for metric in METRICS)
    return [comparison for comparison in found if comparison]


def _comparison(findings: Findings, detector: str, metric: str, asked: dict[str, Question]) -> Comparison | None:
    any_question = next(iter(asked.values()))
    dataset = DATASETS.get(any_question.dataset, any_question.dataset)
    whole = f"all of {dataset}, as printed"
    texts: dict[str, dict[str, str]] = {f"{backbone} (here)": {} for backbone in findings.grid.backbones}
    values: dict[str, dict[str, float]] = {column: {} for column in texts}
    for category in asked:
        for backbone, column in zip(findings.grid.backbones, list(texts), strict=True):
            if of_seeds := figures(findings.of(backbone, detector, category), metric):
                texts[column][category], values[column][category] = spread(of_seeds), float(np.mean(of_seeds))
    notes: dict[str, int] = {}
    for row, question in {**asked, whole: any_question._replace(category=published.AVERAGE)}.items():
        for figure in published.lookup(*question, metric):
            mark = f" [{notes.setdefault(figure.note, len(notes) + 1)}]" if figure.note else ""
            column = f"{figure.method} ({figure.source})"
            texts.setdefault(column, {})[row] = f"{figure.value:.3f}{mark}"
            values.setdefault(column, {})[row] = figure.value
    if len(texts) == len(findings.grid.backbones):
        return None
    rows = [Row(words(row, *(column.get(row, NOTHING) for column in texts.values())), "first") for row in asked]
    common = [category for category in asked if all(category in column for column in values.values())]
    if len(common) > 1:
        means = (spread([float(np.mean([column[category] for category in common]))]) for column in values.values())
        label = f"mean of {len(common)}" if len(common) == len(asked) else f"mean of {', '.join(common)}"
        rows.append(Row(words(label, *means), "first mean"))
    rows.append(Row(words(whole, *(column.get(whole, NOTHING) for column in texts.values())), "first mean"))
    footnotes = [f"[{number}] {note}" for note, number in notes.items()]
    return Comparison(f"{METRICS[metric]}, {dataset}", Table(["category", *texts], rows, 1), footnotes)


def papers_name(result: Result) -> str:
    """The detector of a cell by its name in the papers' tables.

    Args:
        result: of the cell.
    """
    name: str = result.record["config"]["model"]["class_path"].rpartition(".")[2].lower()
    return PAPERS_NAMES.get(name, name)
