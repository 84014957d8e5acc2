"""The tables of results and differences in a report, as Markdown text."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from anomalib_spd.benchmark.results import OPERATING_POINT
from anomalib_spd.files import one_line
from anomalib_spd.metrics.table import METRICS
from anomalib_spd.report.bootstrap import BOOTSTRAPPED
from anomalib_spd.report.comparison import MEAN, GridResults

#: labels of the metrics in a report, by name
LABELS = {metric.name: metric.label for metric in METRICS if metric.in_report}
NOTHING = "-"


class Table(NamedTuple):
    """A table of Markdown text, whose first ``labels`` columns are words and the others numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    labels: int


def to_table(frame: pd.DataFrame, labels: int) -> Table:
    """Return a data frame of text as a table, its first ``labels`` columns escaped; missing values are printed as ``-``."""
    rows = [[NOTHING if pd.isna(value) else str(value) for value in row] for row in frame.values]
    escaped = [[*map(escape_markdown, row[:labels]), *row[labels:]] for row in rows]
    return Table([*map(escape_markdown, map(str, frame.columns))], escaped, labels)


def results_table(grid: GridResults, detector: str) -> Table:
    """Return a detector's metrics by category and on the mean over categories, as mean and deviation over seeds."""
    of = grid.means[grid.means["detector"] == detector]
    of = of.assign(text=[format_mean(row.mean, row.sd) for row in of[["mean", "sd"]].itertuples(index=False, name="F")])
    return _by_category(grid, of, "backbone", grid.backbones_of(detector), LABELS)


def differences_table(grid: GridResults, detector: str) -> Table:
    """Return every pair's A minus B with its interval, by category and on the mean; those that exclude 0 are bold."""
    of = grid.intervals[grid.intervals["detector"] == detector]
    texts = [
        f"{format_difference(difference)} [{format_difference(low)}, {format_difference(high)}]"
        for difference, low, high in of[["difference", "low", "high"]].values
    ]
    bold = [f"**{text}**" if strong else text for text, strong in zip(texts, of["excludes_zero"], strict=True)]
    of = of.assign(**{"text": bold, "A minus B": [str(pair) for pair in map(" minus ".join, of[["a", "b"]].values)]})
    labels = {metric: LABELS[metric] for metric in BOOTSTRAPPED}
    return _by_category(grid, of, "A minus B", [str(pair) for pair in grid.pairs_of(detector)], labels)


def operating_points_table(grid: GridResults, detector: str) -> Table | None:
    """Return the threshold of each cell whose validation set has drawn defects, and its false alarms and missed defects."""
    if not set(OPERATING_POINT) <= set(grid.runs.columns):
        return None
    of = grid.runs[(grid.runs["detector"] == detector) & grid.runs["image_threshold"].notna()]
    if of.empty:
        return None
    per_1000 = (1000 * of["false_alarms"] / of["good_images"]).map("{:.0f}".format)
    low, high = (of[f"false_alarms_{end}"].map("{:.0f}".format) for end in ("low", "high"))
    counts = of[["false_alarms", "good_images", "test_false_alarms", "test_normal", "test_missed", "test_anomalous"]]
    alarms, good, test_alarms, normal, missed, anomalous = (counts[name].astype(int).astype(str) for name in counts)
    table = {
        **{name: of[name] for name in ("category", "backbone", "seed")},
        "threshold": of["image_threshold"].map("{:.4g}".format),
        "false alarms": alarms + " of " + good,
        "per 1,000 good parts": per_1000 + " [" + low + ", " + high + "]",
        "test: false alarms": test_alarms + " of " + normal,
        "test: missed": missed + " of " + anomalous,
    }
    return to_table(pd.DataFrame(table), 2)


def _by_category(
    grid: GridResults, long: pd.DataFrame, name: str, subjects: list[str], metrics: dict[str, str]
) -> Table:
    """Pivot ``text`` to one row per category and subject, and one column per metric."""
    categories = [*grid.categories, *([MEAN] if MEAN in set(long["category"]) else [])]
    index = pd.MultiIndex.from_product([categories, subjects], names=["category", name])
    texts = long.pivot(index=["category", name], columns="metric", values="text").reindex(index, columns=list(metrics))
    seeds = long.groupby(["category", name])["seeds"].first().reindex(index).fillna("0")
    table = texts.rename(columns=metrics)
    table.insert(0, "seeds", seeds)
    return to_table(table.rename(index={MEAN: _mean_label(long)}, level="category").reset_index(), 2)


def _mean_label(long: pd.DataFrame) -> str:
    """Return for example ``mean of 3 (pixel: 2)``, from the categories that the means are over."""
    means = long[long["category"] == MEAN].drop_duplicates("metric").set_index("metric")["categories"]
    counts = {metric.partition("_")[0]: len(categories.split(", ")) for metric, categories in means.items()}
    image, pixel = counts.get("image", 0), counts.get("pixel", 0)
    return f"mean of {image}" + (f" (pixel: {pixel})" if pixel != image else "")


def format_mean(mean: float, sd: float) -> str:
    """Return a mean with its standard deviation, if there is one."""
    return f"{mean:.3f}" + ("" if pd.isna(sd) else f" ± {sd:.3f}")


def format_difference(value: float) -> str:
    """Return a difference with its sign. A negative number keeps it, as -0.000, so that bounds show their side of 0."""
    return f"{value:+.3f}"


def escape_markdown(text: str) -> str:
    """Return text that Markdown prints as it stands, also inside a table: on one line, without links and images."""
    return re.sub(r"([\\`*|<>#~&\[\]]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))", r"\\\1", one_line(text))
