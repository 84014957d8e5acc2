"""The results of a grid as tables: runs, means over seeds, and differences of backbones with their intervals."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from anomalib_spd.benchmark.grid import Grid, pairs
from anomalib_spd.benchmark.results import Cell, Result, read, read_table, runs_table
from anomalib_spd.benchmark.run import GRID
from anomalib_spd.config_files import read_yaml
from anomalib_spd.metrics.table import METRICS
from anomalib_spd.report.bootstrap import BOOTSTRAPPED, paired_bootstrap_ci

#: the ``category`` of a mean over categories
MEAN = "mean"
MEANS = ("backbone", "detector", "category", "categories", "seeds", "metric", "mean", "sd")
INTERVALS = (
    *("a", "b", "detector", "category", "categories", "seeds", "metric"),
    *("difference", "low", "high", "excludes_zero"),
)


class Pair(NamedTuple):
    """Two backbones whose difference A minus B is of interest."""

    a: str
    b: str

    def __str__(self) -> str:
        return f"{self.a} minus {self.b}"


@dataclass(frozen=True)
class GridResults:
    """What is known of a grid. Tables from CSV files may be empty.

    Attributes:
        title: of the grid.
        backbones: labels, in the order of the tables.
        detectors: likewise.
        categories: likewise.
        pairs: backbones to compare.
        runs: one row a cell on record, as ``benchmark.results.runs_table`` gives it.
        means: one row per detector, category, backbone and metric, with the columns ``MEANS``.
        intervals: one row per pair, detector, category and metric, with the columns ``INTERVALS``.
        cells: the results with their scores; empty where only CSV is left.
        missing: cells of the grid that are not on record.
    """

    title: str
    backbones: Sequence[str]
    detectors: Sequence[str]
    categories: Sequence[str]
    pairs: Sequence[Pair]
    runs: pd.DataFrame
    means: pd.DataFrame
    intervals: pd.DataFrame
    cells: Mapping[Cell, Result] = field(default_factory=dict)
    missing: Sequence[Cell] = ()

    @property
    def measured(self) -> list[Result]:
        """The cells that did not fail."""
        return [result for result in self.cells.values() if result.done]

    def backbones_of(self, detector: str) -> list[str]:
        """Return the labels of the backbones that a detector is measured with: a grid may leave some out."""
        table = self.runs if len(self.runs) else self.means
        found = {cell.backbone for cell in self.missing if cell.detector == detector}
        found |= set(table[table["detector"] == detector]["backbone"])
        return [backbone for backbone in self.backbones if backbone in found]

    def pairs_of(self, detector: str) -> list[Pair]:
        """Return the pairs of backbones that a detector compares."""
        found = self.backbones_of(detector)
        return [pair for pair in self.pairs if {*pair} <= {*found}]

    def select(self, backbone: str, detector: str, category: str) -> list[Result]:
        """Return the measured cells of all seeds."""
        labels = backbone, detector, category
        return [r for r in self.measured if (r.cell.backbone, r.cell.detector, r.cell.category) == labels]


def load(path: Path, resamples: int = 2000) -> GridResults:
    """Read the results of a grid.

    Args:
        path: a folder of ``anomalib-spd benchmark``, or a CSV file: ``NAME.csv`` of runs or ``NAME.means.csv`` of means;
            ``NAME.intervals.csv`` beside it is read too, if there is one.
        resamples: number of resamples of the bootstrap.

    Raises:
        ValueError: the path is none of these, or nothing was measured.
    """
    return _load_csv(path) if path.suffix == ".csv" else _load_cells(path, resamples)


def _load_cells(folder: Path, resamples: int) -> GridResults:
    path = folder / GRID
    if not path.is_file():
        raise ValueError(
            f"{folder} is not a folder of results, it has no {GRID}: give that of 'anomalib-spd benchmark'"
        )
    try:
        grid = Grid(**read_yaml(path))
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is not the configuration of a grid ({error}): run the benchmark again") from None
    on_record = {result.cell: result for result in read(folder)}
    cells = {cell: on_record[cell] for cell in grid.cells() if cell in on_record}
    measured = [result for result in cells.values() if result.done]
    if not measured:
        raise ValueError(f"No cell of {path} was measured, {len(cells)} failed: run the benchmark first")
    compared = [Pair(a, b) for a, b in pairs(grid)]
    return GridResults(
        grid.title,
        list(grid.backbones),
        list(grid.detectors),
        list(grid.categories),
        compared,
        runs := runs_table(cells.values()),
        mean_table(runs),
        interval_table(measured, compared, resamples),
        cells,
        [cell for cell in grid.cells() if cell not in cells],
    )


def _load_csv(path: Path) -> GridResults:
    name = path.stem.removesuffix(".means")
    if path.stem.endswith(".means"):
        runs, means = pd.DataFrame(), read_table(path, MEANS)
    else:
        runs = read_table(path)
        means = mean_table(runs)
    table = runs if len(runs) else means
    if means.empty:
        raise ValueError(f"{path} has no measured cell: run the benchmark first")
    beside = path.with_name(f"{name}.intervals.csv")
    intervals = read_table(beside, INTERVALS) if beside.is_file() else pd.DataFrame(columns=list(INTERVALS))
    compared = intervals[["a", "b"]].drop_duplicates()
    labels = (list(table[axis].unique()) for axis in ("backbone", "detector", "category"))
    backbones, detectors, categories = ([label for label in each if label != MEAN] for each in labels)
    return GridResults(
        name, backbones, detectors, categories, [Pair(*each) for each in compared.values], runs, means, intervals
    )


def mean_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Return mean and sample standard deviation over seeds, by category and over the categories that all backbones have.

    Means over categories leave out backbones without any measured cell of the detector; their deviation is over the
    seeds that have every category. A grid of one category has none.

    Args:
        runs: one row a cell.
    """
    metrics = [metric.name for metric in METRICS if metric.in_report and metric.name in runs]
    runs = runs.astype(dict.fromkeys(metrics, float))
    rows: list[tuple[Any, ...]] = []
    for detector, measured in runs[runs["status"] == "done"].groupby("detector", sort=False):
        labels = measured[["backbone", "category"]].drop_duplicates()
        for metric in metrics:
            # (backbone, seed) x category
            values = measured.pivot(index=["backbone", "seed"], columns="category", values=metric)
            values = values[[category for category in runs["category"].unique() if category in values]]
            for backbone, category in labels.values:
                seeds = values.loc[backbone][category].dropna()
                if len(seeds):
                    figures = len(seeds), metric, seeds.mean(), seeds.std()
                    rows.append((backbone, detector, category, category, *figures))
            has_all = values.notna().groupby(level="backbone").any().all()
            common = list(has_all.index[has_all])
            if not common or runs["category"].nunique() == 1:
                continue
            for backbone in labels["backbone"].unique():
                seeds = values.loc[backbone][common]
                mean, deviation = seeds.mean().mean(), seeds.dropna().mean(axis=1).std()
                counts = format_range(seeds.notna().sum())
                rows.append((backbone, detector, MEAN, ", ".join(common), counts, metric, mean, deviation))
    return pd.DataFrame(rows, columns=list(MEANS)).astype({"seeds": str})


def interval_table(measured: Sequence[Result], compared: Sequence[Pair], resamples: int) -> pd.DataFrame:
    """Return every pair's difference for every detector and metric, by category and on the mean over categories.

    A difference is over the categories and seeds for which A and B both have the metric.

    Args:
        measured: results of the grid, in its order.
        compared: the pairs.
        resamples: number of resamples of the bootstrap.
    """
    categories = list(dict.fromkeys(result.cell.category for result in measured))
    rows = []
    for pair in compared:
        for detector in dict.fromkeys(result.cell.detector for result in measured):
            for metric in BOOTSTRAPPED:
                for category in (*categories, MEAN) if len(categories) > 1 else categories:
                    a, b = matched(measured, pair, detector, metric, category)
                    if a:
                        seeds = Counter(result.cell.category for result in a)
                        interval = paired_bootstrap_ci(a, b, metric, resamples)
                        labels = detector, category, ", ".join(seeds), format_range(seeds.values()), metric
                        rows.append((*pair, *labels, *interval))
    return pd.DataFrame(rows, columns=list(INTERVALS))


def matched(
    measured: Iterable[Result], pair: Pair, detector: str, metric: str, category: str
) -> tuple[list[Result], list[Result]]:
    """Return results of A and of B for the categories and seeds for which both have the metric; ``MEAN``: all categories."""
    a, b = (
        {
            (result.cell.category, result.cell.seed): result
            for result in measured
            if (result.cell.backbone, result.cell.detector) == (backbone, detector)
            and category in (MEAN, result.cell.category)
            and pd.notna(result.metrics.get(metric))
        }
        for backbone in pair
    )
    common = [key for key in a if key in b]
    return [a[key] for key in common], [b[key] for key in common]


def format_range(counts: Iterable[int]) -> str:
    """Return ``"2"``, or ``"1-3"`` where counts differ."""
    ordered = sorted(set(counts))
    return "-".join(str(count) for count in dict.fromkeys([ordered[0], ordered[-1]]))
