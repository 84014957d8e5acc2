"""What a folder of results holds of its grid, and how backbones differ in it."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import yaml

from anomalib_spd.benchmark.grid import Grid, pairs
from anomalib_spd.benchmark.results import Cell, Result, read
from anomalib_spd.benchmark.run import GRID
from anomalib_spd.report.bootstrap import BOOTSTRAPPED, Interval, difference


class Pair(NamedTuple):
    """Two backbones, of which A minus B is of interest."""

    a: str
    b: str

    def __str__(self) -> str:
        return f"{self.a} minus {self.b}"


@dataclass(frozen=True)
class Findings:
    """The cells of a grid that are on record.

    Attributes:
        grid: what was to be measured.
        results: what is on record of it, failed cells too.
    """

    grid: Grid
    results: Mapping[Cell, Result]

    @property
    def pairs(self) -> list[Pair]:
        """The pairs of backbones to compare."""
        return [Pair(a, b) for a, b in pairs(self.grid)]

    @property
    def measured(self) -> list[Result]:
        """Results of the cells that ran to their end."""
        return [result for result in self.results.values() if result.done]

    @property
    def failed(self) -> list[Result]:
        """Results of the cells that are on record with an error."""
        return [result for result in self.results.values() if not result.done]

    @property
    def missing(self) -> list[Cell]:
        """Cells that nothing is on record of."""
        return [cell for cell in self.grid.cells() if cell not in self.results]

    def of(self, backbone: str | None = None, detector: str | None = None, category: str | None = None) -> list[Result]:
        """Measured cells by their labels, in the order of the grid.

        Args:
            backbone: all, where none is given.
            detector: likewise.
            category: likewise.
        """
        return [
            result
            for result in self.measured
            if backbone in (None, result.cell.backbone)
            and detector in (None, result.cell.detector)
            and category in (None, result.cell.category)
        ]

    def matched(
        self, pair: Pair, detector: str, metric: str, category: str | None = None
    ) -> tuple[list[Result], list[Result]]:
        """Results of A and of B that differ in nothing else: the categories and seeds that both have a figure of.

        Args:
            pair: A and B.
            detector: label.
            metric: which both have.
            category: all, where none is given.
        """
        a, b = (
            {
                (result.cell.category, result.cell.seed): result
                for result in having(metric, self.of(backbone, detector, category))
            }
            for backbone in pair
        )
        common = [key for key in a if key in b]
        return [a[key] for key in common], [b[key] for key in common]


@dataclass(frozen=True)
class Difference:
    """How far A lies above B.

    Attributes:
        interval: A minus B.
        categories: those that it is the mean over.
        seeds: how many, of each category.
    """

    interval: Interval
    categories: tuple[str, ...]
    seeds: tuple[int, ...]


#: by pair, detector, category (None: the mean over categories) and metric
Differences = Mapping[tuple[Pair, str, str | None, str], Difference]


def load(results: Path) -> Findings:
    """Read a folder of results.

    Args:
        results: the folder.

    Raises:
        ValueError: it is none, or nothing was measured.
    """
    path = results / GRID
    if not path.is_file():
        raise ValueError(
            f"{results} is no folder of results, it has no {GRID}: give the one of 'anomalib-spd benchmark'"
        )
    try:
        grid = Grid(**yaml.safe_load(path.read_text(encoding="utf-8")))
    except (TypeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is not the configuration of a grid ({error}): run the benchmark again") from None
    on_record = {result.cell: result for result in read(results)}
    findings = Findings(grid, {cell: on_record[cell] for cell in grid.cells() if cell in on_record})
    if not findings.measured:
        raise ValueError(f"No cell of {path} was measured, {len(findings.failed)} failed: run the benchmark first")
    return findings


def having(metric: str, results: Iterable[Result]) -> list[Result]:
    """Those that have a figure.

    Args:
        metric: its name.
        results: of any cells.
    """
    return [result for result in results if not math.isnan(result.metrics.get(metric, math.nan))]


def compare(findings: Findings, resamples: int = 2000) -> Differences:
    """Every pair's difference for every detector and metric, by category and on the mean over categories.

    Args:
        findings: of a folder of results.
        resamples: of the bootstrap.
    """
    differences: dict[tuple[Pair, str, str | None, str], Difference] = {}
    for pair in findings.pairs:
        for detector in findings.grid.detectors:
            for metric in BOOTSTRAPPED:
                for category in (*findings.grid.categories, None):
                    a, b = findings.matched(pair, detector, metric, category)
                    if a:
                        seeds = Counter(result.cell.category for result in a)
                        interval = difference(a, b, metric, resamples)
                        differences[pair, detector, category, metric] = Difference(
                            interval, tuple(seeds), tuple(seeds.values())
                        )
    return differences
