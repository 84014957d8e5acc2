"""The tables of a report, as text: what Markdown and HTML both print."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from anomalib_spd.benchmark.results import Result
from anomalib_spd.metrics import table
from anomalib_spd.report.bootstrap import BOOTSTRAPPED, Interval, mean_sd
from anomalib_spd.report.comparison import Differences, Findings, having

#: name of each metric -> heading of its column
METRICS = {metric.name: metric.label for metric in table.METRICS if metric.in_report}
NOTHING = "-"


class Field(NamedTuple):
    """One cell of a table; the detail may stand on a line of its own."""

    text: str
    detail: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Row:
    """One row; ``first`` opens a group, ``mean`` is of the last group."""

    fields: Sequence[Field]
    kind: Literal["", "first", "mean", "first mean"] = ""


@dataclass(frozen=True)
class Table:
    """A table, whose first ``labels`` columns are words and the others figures."""

    head: Sequence[str]
    rows: Sequence[Row]
    labels: int


def results_table(findings: Findings, detector: str) -> Table:
    """Every figure of a detector: mean and standard deviation over seeds, by category, and the mean over categories.

    Args:
        findings: of a folder of results.
        detector: label.
    """
    rows = []
    for category in findings.grid.categories:
        for place, backbone in enumerate(findings.grid.backbones):
            results = findings.of(backbone, detector, category)
            fields = [Field(spread(figures(results, metric))) for metric in METRICS]
            rows.append(Row(words(category, backbone, _count(results)) + fields, "" if place else "first"))
    for place, backbone in enumerate(findings.grid.backbones if len(findings.grid.categories) > 1 else ()):
        fields, results = [], findings.of(backbone, detector)
        for metric in METRICS:
            categories = common_categories(findings, detector, metric)
            fields.append(Field(_over_categories([r for r in results if r.cell.category in categories], metric)))
        label = words(_mean_label(findings, detector), backbone, _count(results))
        rows.append(Row(label + fields, "mean" if place else "first mean"))
    return Table(["category", "backbone", "seeds", *METRICS.values()], rows, 2)


def common_categories(findings: Findings, detector: str, metric: str) -> list[str]:
    """The categories that every backbone has a figure of, so that the means over them can be compared.

    A backbone of which nothing was measured with this detector is left out of account.

    Args:
        findings: of a folder of results.
        detector: label.
        metric: name of the figure.
    """
    having_any = [backbone for backbone in findings.grid.backbones if findings.of(backbone, detector)]
    return [
        category
        for category in findings.grid.categories
        if having_any and all(having(metric, findings.of(backbone, detector, category)) for backbone in having_any)
    ]


def differences_table(findings: Findings, differences: Differences, detector: str) -> Table:
    """A minus B with its interval, by category and on the mean, for every pair.

    Args:
        findings: of a folder of results.
        differences: of it.
        detector: label.
    """
    rows = []
    several = len(findings.grid.categories) > 1
    for category in (*findings.grid.categories, None) if several else findings.grid.categories:
        for place, pair in enumerate(findings.pairs):
            found = [differences.get((pair, detector, category, metric)) for metric in BOOTSTRAPPED]
            present = [each for each in found if each]
            label = category or _counted([len(each.categories) if each else 0 for each in (found[0], found[3])])
            seeds = _range(count for each in present for count in each.seeds)
            fields = [
                Field(signed(it.value), interval(it), it.excludes_zero) if it else Field(NOTHING)
                for it in (each and each.interval for each in found)
            ]
            kinds: tuple[Literal["first", "first mean"], Literal["", "mean"]]
            kinds = ("first", "") if category else ("first mean", "mean")
            rows.append(Row(words(label, str(pair), seeds) + fields, kinds[bool(place)]))
    return Table(["category", "A minus B", "seeds", *(METRICS[metric] for metric in BOOTSTRAPPED)], rows, 2)


def spread(values: Sequence[float]) -> str:
    """Mean, and of several values their standard deviation.

    Args:
        values: none gives ``NOTHING``.
    """
    if not len(values) or math.isnan(values[0]):
        return NOTHING
    mean, deviation = mean_sd(values)
    return f"{mean:.3f}" if len(values) == 1 else f"{mean:.3f} ± {deviation:.3f}"


def signed(value: float) -> str:
    """A difference.

    Args:
        value: of it.
    """
    # -0.0003 stays -0.000, so that the bounds of an interval show their side of 0; adding 0 turns -0.0 into 0.0
    return f"{value + 0.0:+.3f}"


def interval(of: Interval) -> str:
    """The bounds of an interval.

    Args:
        of: the interval.
    """
    return f"[{signed(of.low)}, {signed(of.high)}]"


def figures(results: Iterable[Result], metric: str) -> list[float]:
    """One figure of every result that has it.

    Args:
        results: of any cells.
        metric: name of the figure.
    """
    return [result.metrics[metric] for result in having(metric, results)]


def words(*texts: str) -> list[Field]:
    """Plain fields.

    Args:
        texts: of them.
    """
    return [Field(text) for text in texts]


def _over_categories(results: Sequence[Result], metric: str) -> str:
    """The mean of the categories' means; its deviation over the seeds that have every category."""
    results = having(metric, results)
    categories = dict.fromkeys(result.cell.category for result in results)
    if not categories:
        return NOTHING
    seeds: dict[int, list[float]] = {}
    for result in results:
        seeds.setdefault(result.cell.seed, []).append(result.metrics[metric])
    complete = [float(np.mean(values)) for values in seeds.values() if len(values) == len(categories)]
    each = [figures([r for r in results if r.cell.category == category], metric) for category in categories]
    deviation = f" ± {mean_sd(complete)[1]:.3f}" if len(complete) > 1 else ""
    return f"{np.mean([np.mean(values) for values in each]):.3f}{deviation}"


def _count(results: Sequence[Result]) -> str:
    return _range(Counter(result.cell.category for result in results).values())


def _range(counts: Iterable[int]) -> str:
    in_order = sorted(set(counts))
    return "-".join(map(str, [in_order[0], in_order[-1]][: len(in_order)])) if in_order else "0"


def _mean_label(findings: Findings, detector: str) -> str:
    return _counted([len(common_categories(findings, detector, metric)) for metric in ("image_AUROC", "pixel_AUROC")])


def _counted(categories: Sequence[int]) -> str:
    image, pixel = categories
    return f"mean of {image}" + (f" (pixel: {pixel})" if pixel != image else "")
