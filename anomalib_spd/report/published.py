"""The figures that the papers print, to stand beside ours.

The tables are data, in ``published/*.csv``, one figure a row: CutSwap's tables I to IV and its ablations (V to VIII), and
the few figures of the SPD paper that could be had, by way of a reading note. VisA's ``candles`` is anomalib's ``candle``.
"""

import csv
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent / "published"

#: the category of a figure that is the mean over all categories of a data set
AVERAGE = "average"


@dataclass(frozen=True)
class Row:
    """One printed figure.

    Attributes:
        paper: ``CutSwap`` or ``SPD``.
        table: number of the paper's table, empty where it is not known.
        dataset: ``mvtec`` or ``visa``.
        protocol: ``1cls``, or one of VisA's protocols of two classes.
        detector: ``patchcore``, ``padim``, ...
        coreset_sampling_ratio: of PatchCore, where it is known.
        method: the backbone, or what it was trained with.
        variant: what an ablation varies; empty for the method as proposed.
        category: anomalib's name of it, or ``AVERAGE``.
        metric: as in ``cell.json``.
        value: in [0, 1].
        note: what a reader of this figure must know, such as a misprint.
    """

    paper: str
    table: str
    dataset: str
    protocol: str
    detector: str
    coreset_sampling_ratio: float | None
    method: str
    variant: str
    category: str
    metric: str
    value: float
    note: str


class Published(NamedTuple):
    """A published figure: of which method, how high, what to know of it, and where it stands."""

    method: str
    value: float
    note: str
    source: str


@cache
def rows() -> tuple[Row, ...]:
    """Every published figure."""
    found = []
    for path in sorted(FOLDER.glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                ratio = row.pop("coreset_sampling_ratio")
                found.append(
                    Row(coreset_sampling_ratio=float(ratio) if ratio else None, value=float(row.pop("value")), **row)
                )
    return tuple(found)


def lookup(
    dataset: str, category: str, detector: str, coreset_sampling_ratio: float | None, metric: str
) -> list[Published]:
    """What was published of a cell of the one-class protocol, ablations aside.

    Args:
        dataset: ``mvtec`` or ``visa``.
        category: anomalib's name, or ``AVERAGE``.
        detector: ``patchcore``, ``padim``, ...
        coreset_sampling_ratio: of PatchCore.
        metric: as in ``cell.json``.

    Returns:
        Figures in the papers' order; none where nothing was published.
    """
    return [
        Published(row.method, row.value, row.note, f"{row.paper} paper" + (f", table {row.table}" if row.table else ""))
        for row in rows()
        if (row.dataset, row.category, row.detector, row.metric) == (dataset, category, detector, metric)
        and (row.protocol, row.variant) == ("1cls", "")
        and _same_ratio(row.coreset_sampling_ratio, coreset_sampling_ratio)
    ]


def _same_ratio(a: float | None, b: float | None) -> bool:
    return a == b if a is None or b is None else math.isclose(a, b, rel_tol=1e-6)
