"""The plots of a report, as SVG.

A plot is a file of its own on white, or an element of a page in the page's colors (``inline``). The colors of backbones are
those of Okabe and Ito, which color-blind readers can distinguish.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from io import StringIO
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from anomalib_spd.benchmark.results import Scores
from anomalib_spd.report.bootstrap import Interval
from anomalib_spd.report.tables import LABELS, format_difference

SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
# placeholders that a page replaces by its own colors: text and paper
INK, PAPER = "#1a1b1c", "#fefffe"
# readable on white and on black
FAINT = "#8a8a8b"
STYLE: Any = {
    "text.parse_math": False,
    "svg.fonttype": "none",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.facecolor": "none",
    "axes.edgecolor": FAINT,
    **dict.fromkeys(("axes.labelcolor", "axes.titlecolor", "text.color", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), FAINT),
    **dict.fromkeys(("figure.facecolor", "savefig.facecolor"), PAPER),
    "legend.frameon": False,
    "lines.solid_joinstyle": "round",
    # half a point is precise enough, and makes curves of thousands of points short
    "path.simplify_threshold": 0.5,
}
#: inches
WIDTH = 10.0


class ForestRow(NamedTuple):
    """A row of a forest plot: its label, and the intervals by metric and series."""

    label: str
    intervals: Mapping[tuple[str, str], Interval]
    strong: bool = False


def forest(name: str, rows: Sequence[ForestRow], limits: Mapping[str, float], series: Mapping[str, str]) -> str:
    """Plot differences with their intervals, one panel per metric; markers are filled where the interval excludes 0.

    Args:
        name: unique in the page.
        rows: from top to bottom.
        limits: metric -> how far its axis reaches on both sides of 0; from left to right.
        series: what is compared -> its color.

    Returns:
        An SVG document.
    """
    columns, lines = _legend_shape(series)
    top, bottom = 0.34, 0.26 + (0.06 + 0.2 * lines) * (len(series) > 1)
    height = top + bottom + (0.14 + 0.14 * len(series)) * len(rows)
    with mpl.rc_context(STYLE):
        figure = Figure((WIDTH, height))
        axes = figure.subplots(1, len(limits), sharey=True, squeeze=False)[0]
        left = min(0.3, 0.02 + 0.0068 * max(len(row.label) for row in rows))
        figure.subplots_adjust(left, bottom / height, 0.95, 1 - top / height, wspace=0.36)
        for axis, (metric, limit) in zip(axes, limits.items(), strict=True):
            _forest_axis(axis, LABELS[metric], limit)
            for y, row in enumerate(rows):
                for at, (label, color) in enumerate(series.items()):
                    if interval := row.intervals.get((metric, label)):
                        shift = 0.7 * ((at + 0.5) / len(series) - 0.5)
                        _mark(axis, y + shift, interval, color, row.strong)
        axes[0].set_yticks(range(len(rows)), [row.label for row in rows])
        axes[0].set_ylim(len(rows) - 0.5, -0.5)
        for label, row in zip(axes[0].get_yticklabels(), rows, strict=True):
            label.set_fontweight("bold" if row.strong else "normal")
        if len(series) > 1:
            handles = [axes[0].plot([], [], "o-", ms=3.5, color=color)[0] for color in series.values()]
            figure.legend(handles, list(series), loc="lower center", ncols=columns)
        return _svg(figure, name)


def _legend_shape(labels: Collection[str]) -> tuple[int, int]:
    """Return columns and lines of a legend that is no wider than a figure."""
    columns = min(len(labels), max(1, int(0.95 * WIDTH / (0.5 + 0.07 * max(map(len, labels))))))
    return columns, -(-len(labels) // columns)


def _forest_axis(axis: Axes, title: str, limit: float) -> None:
    axis.set_title(title)
    axis.set_xlim(-limit, limit)
    axis.axvline(0, color=FAINT, lw=0.8)
    axis.xaxis.set_major_locator(MaxNLocator(3, symmetric=True))  # more would touch each other
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:+.3g}" if abs(x) > 1e-9 else "0"))
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    axis.grid(axis="x", color=FAINT, lw=0.3, alpha=0.5)


def _mark(axis: Axes, y: float, interval: Interval, color: str, strong: bool) -> None:
    axis.plot([interval.low, interval.high], [y, y], color=color, lw=1.8 if strong else 1.2, solid_capstyle="butt")
    face = color if interval.excludes_zero else PAPER
    axis.plot(interval.value, y, "o", ms=5 if strong else 4, mfc=face, mec=color, mew=1.2)
    weight = "bold" if interval.excludes_zero else "normal"
    text = format_difference(interval.value)
    axis.text(1.02, y, text, transform=axis.get_yaxis_transform(), va="center", fontsize=7, fontweight=weight)


def curves(name: str, scores: Mapping[str, Sequence[Scores]]) -> str:
    """Plot ROC and precision-recall curves of images, of pixels where there are masks, and histograms of image scores.

    Args:
        name: unique in the page.
        scores: backbone -> scores of every seed, the first of which is in the histogram. Colors follow the order.

    Returns:
        An SVG document.
    """
    masks = any(run.pixel_positive.any() for runs in scores.values() for run in runs)
    levels = ("image", "pixel") if masks else ("image",)
    colors = [SERIES[at % len(SERIES)] for at in range(len(scores))]
    width = 1.4 if max(map(len, scores.values())) == 1 else 0.9
    panels = 2 * len(levels) + sum(map(bool, scores.values()))
    rows = -(-panels // 4)
    columns, lines = _legend_shape(scores)
    head = 0.4 + 0.2 * lines
    height = head - 0.2 + 2 * rows
    with mpl.rc_context(STYLE):
        figure = Figure((WIDTH, height))
        axes = list(figure.subplots(rows, 4, squeeze=False).flat)
        for axis in axes[panels:]:
            axis.remove()
        figure.subplots_adjust(0.05, 0.45 / height, 0.985, 1 - head / height, 0.3, 0.6)
        for level in levels:
            roc, pr, *axes = axes
            _frame(roc, f"{level}s: ROC", "false positive rate", "true positive rate")
            _frame(pr, f"{level}s: precision and recall", "recall", "precision")
            for color, runs in zip(colors, scores.values(), strict=True):
                for run in runs:
                    if level in run.undefined:
                        continue
                    false_positive_rate, recall, precision = rates(*_counts(run, level))
                    roc.plot(false_positive_rate, recall, color=color, lw=width)
                    pr.plot(recall, precision, color=color, lw=width)
        for color, (backbone, runs) in zip(colors, scores.items(), strict=True):
            if runs:
                axis, *axes = axes
                axis.set_title(backbone, loc="left")
                _histogram(axis, runs[0], color)
        handles = [roc.plot([], [], color=color, lw=2)[0] for color in colors]
        figure.legend(handles, list(scores), loc="upper left", ncols=columns, bbox_to_anchor=(0.04, 1))
        return _svg(figure, name)


def _frame(axis: Axes, title: str, x: str, y: str) -> None:
    axis.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=x, ylabel=y, xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    axis.set_title(title, loc="left")
    axis.grid(color=FAINT, lw=0.3, alpha=0.5)


def _histogram(axis: Axes, scores: Scores, color: str) -> None:
    edges = np.histogram_bin_edges(scores.image_score, min(24, max(8, len(scores.image_score) // 4)))
    normal, anomalous = (
        np.histogram(scores.image_score[scores.image_label == label], edges)[0] for label in (False, True)
    )
    axis.stairs(normal / max(1, normal.sum()), edges, fill=True, color=FAINT, alpha=0.55, lw=0, label="normal")
    axis.stairs(anomalous / max(1, anomalous.sum()), edges, color=color, lw=1.3, label="anomalous")
    # room for the legend above the bars
    axis.set_ylim(0, 1.3 * axis.dataLim.y1)
    axis.legend(fontsize=7, handlelength=1.2, ncols=2, loc="upper right", borderaxespad=0, columnspacing=1)
    axis.set(xlabel="image score", ylabel="share")
    axis.yaxis.set_major_locator(MaxNLocator(3))
    axis.xaxis.set_major_locator(MaxNLocator(4))


def _counts(scores: Scores, level: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return positives and negatives of every distinct score, highest first."""
    if level == "pixel":
        return scores.pixel_positive.sum(0, dtype=np.int64), scores.pixel_negative.sum(0, dtype=np.int64)
    _, at = np.unique(-scores.image_score, return_inverse=True)
    positive = np.bincount(at, scores.image_label).astype(np.int64)
    return positive, np.bincount(at).astype(np.int64) - positive


def rates(
    positive: NDArray[np.int64], negative: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return false positive rate, recall and precision at every threshold.

    Args:
        positive: (K,) number of anomalous items with each score, highest first.
        negative: (K,) number of normal items.

    Returns:
        (K + 1,) each. The first point flags nothing; its precision is 1 by convention.
    """
    tp, fp = (np.concatenate([[0], np.cumsum(counts)]) for counts in (positive, negative))
    precision = np.divide(tp, tp + fp, out=np.ones(len(tp)), where=tp + fp > 0)
    return fp / max(1, fp[-1]), tp / max(1, tp[-1]), precision


def inline(svg: str, description: str) -> str:
    """Return a plot as an element of an HTML page, in the page's colors and width.

    The page defines ``--paper`` and ``--series-0`` to ``--series-5``; text takes the color of the text around it.

    Args:
        svg: an SVG document of this module.
        description: for readers who cannot see it; without quotes or angle brackets.
    """
    body = svg[svg.index("<svg") :]
    view_box = re.findall(r'viewBox="[^"]*"', body)[0]
    body = f'<svg role="img" aria-label="{description}" {view_box}' + body[body.index(">") :]
    body = body.replace(INK, "currentColor").replace(PAPER, "var(--paper)").replace("xlink:href", "href")
    for at, hexadecimal in enumerate(SERIES):
        body = body.replace(hexadecimal, f"var(--series-{at})")
    # a blank line would end the HTML block inside Markdown
    return re.sub(r"\n\s*\n", "\n", body)


def _svg(figure: Figure, name: str) -> str:
    text = StringIO()
    # ids of two plots in a page must differ, those of two reports need not
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = re.sub(r"<metadata>.*?</metadata>", "", text.getvalue(), flags=re.DOTALL)
    svg = re.sub(r' id="(?:figure|axes|patch|line2d|text|matplotlib\.axis|xtick|ytick|legend)_\d+"', "", svg)
    # a hundredth of a point is precise enough
    svg = re.sub(r'( d| x| y)="[^"]*"', lambda match: re.sub(r"(\.\d\d)\d+", r"\1", match[0]), svg)
    return re.sub(r"(font: [^;\"]*?[\d.]+px) [^;\"]+", r"\1 system-ui, sans-serif", svg)
