"""The report of a grid: Markdown with its plots and tables beside it, and the same as one HTML page.

One template, ``report.md.j2``, writes both: the page is its Markdown, with plots, heatmaps and folds as HTML elements.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from jinja2 import Environment, FileSystemLoader
from markdown_it import MarkdownIt
from markupsafe import escape

from anomalib_spd.detectors.operating_point import PROMISES
from anomalib_spd.files import write_text
from anomalib_spd.metrics.binomial import trials_needed
from anomalib_spd.report import plots, run_metadata, tables
from anomalib_spd.report.bootstrap import Interval
from anomalib_spd.report.comparison import MEAN, GridResults, Pair, load
from anomalib_spd.report.heatmaps import HeatmapGrid, gradient, heatmap_grids
from anomalib_spd.report.published import Comparison, comparisons
from anomalib_spd.report.tables import LABELS, Table, escape_markdown

PAGE, TEXT, TEMPLATE = "report.html", "report.md", "report.md.j2"
GENERATOR = "anomalib-spd report"

#: metrics of verdicts and forest plots: the trapezoidal areas say what the step-wise ones say, AU-PRO mostly what pixel AU-ROC says
HEADLINE = ("image_AUROC", "image_AUPR_step", "pixel_AUROC", "pixel_AUPR_step")
#: pairs start at this color, so that they differ from the first backbones
FIRST_PAIR_COLOR = 3
OVER_CATEGORIES = "mean over categories"


@dataclass(frozen=True)
class Plot:
    """A plot: a file beside the Markdown, an element in the page."""

    path: str
    svg: str
    description: str

    @property
    def inline(self) -> str:
        """The element."""
        return plots.inline(self.svg, str(escape(self.description)))


class Verdict(NamedTuple):
    """The mean differences of a pair: above 0 and below 0 with their whole interval, and undecided."""

    pair: Pair
    above: list[str]
    below: list[str]
    undecided: list[str]
    categories: dict[str, list[str]]
    plot: Plot


class DetectorSection(NamedTuple):
    """The part of the report about one detector."""

    detector: str
    settings: Sequence[str]
    results: Table
    differences: Table
    forest: Plot | None
    operating_points: Table | None
    published: Sequence[Comparison]
    curves: Sequence[tuple[str, Plot]]
    heatmaps: Sequence[HeatmapGrid]


def write_report(results: Path, output: Path, *, images: bool = True, resamples: int = 2000) -> None:
    """Write ``report.html``, ``report.md``, ``plots`` and the tables ``runs.csv``, ``means.csv`` and ``intervals.csv``.

    Args:
        results: folder of results, or a CSV file; see ``comparison.load``.
        output: new, empty, or an earlier report.
        images: whether photographs and masks are shown.
        resamples: number of resamples of the bootstrap.

    Raises:
        ValueError: ``results`` holds none, or ``output`` holds something else.
    """
    _check_output(output)
    grid = load(results, resamples)
    verdicts = [verdict for pair in grid.pairs if (verdict := _verdict(grid, pair))]
    measured = [detector for detector in grid.detectors if detector in set(grid.means["detector"])]
    sections = [_detector_section(grid, detector, images) for detector in measured]
    content = {
        "generator": GENERATOR,
        "grid": grid,
        "trained_anew": run_metadata.trained_anew(grid),
        "verdicts": verdicts,
        "sections": sections,
        "metadata": run_metadata.metadata_tables(grid),
        "with_images": images,
        "gradient": gradient(),
        "needed": {rate: trials_needed(rate / 1000) for rate in PROMISES},
    }
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), trim_blocks=True, lstrip_blocks=True)
    environment.filters["markdown"] = escape_markdown
    template = environment.get_template(TEMPLATE)
    texts = {
        PAGE: _to_html(template.render(content, html=True)),
        TEXT: re.sub(r"\n{3,}", "\n\n", template.render(content, html=False)),
    }
    drawn = [verdict.plot for verdict in verdicts] + [section.forest for section in sections if section.forest]
    drawn += [plot for section in sections for _, plot in section.curves]
    output.mkdir(parents=True, exist_ok=True)
    # the page first: an interrupted report is then recognized, and can be written again
    for name, text in texts.items():
        write_text(output / name, text)
    for stale in (output / "plots").rglob("*.svg"):
        stale.unlink()
    for plot in drawn:
        write_text(output / plot.path, plot.svg)
    for name, table in (("runs", grid.runs), ("means", grid.means), ("intervals", grid.intervals)):
        if len(table):
            write_text(output / f"{name}.csv", table.to_csv(index=False, lineterminator="\n"))


def _check_output(output: Path) -> None:
    """Refuse a folder that holds anything but a report of ours."""
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file, expected a folder for the report: give another as --output")
    page = output / PAGE
    ours = page.is_file() and GENERATOR in page.read_text(encoding="utf-8", errors="replace")[:1000]
    # a process that was killed may have left an unfinished page
    others = output.is_dir() and any(not path.name.startswith(f".{PAGE}.") for path in output.iterdir())
    if others and not ours:
        raise ValueError(f"{output} is neither empty nor an earlier report: give another folder as --output")


def _to_html(markdown: str) -> str:
    """Return the page of a report's Markdown; its tables scroll, and CSS classes mark the rows that begin groups and means."""
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    parser.add_render_rule("table_open", lambda *_: '<div class="scroll"><table>\n')
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    # lines may break before an interval, not within it, nor at a standard deviation
    unbroken = re.sub(r"(\[[+-][\d.]+,) (?=[+-][\d.]+\])", r"\1&nbsp;", markdown).replace(" ± ", "&nbsp;±&nbsp;")
    tokens = parser.parse(unbroken)
    group = ""
    for token, *following in (tokens[at : at + 3] for at in range(len(tokens))):
        if token.type == "th_open":
            for part in following[0].children or ():
                part.content = part.content.replace("-", "\N{NON-BREAKING HYPHEN}")
        elif token.type == "tr_open":
            label = following[1].content
            mean = label.startswith("mean of") or label.endswith("as printed")
            token.attrSet("class", "first " * (label != group) + "mean" * mean)
            group = label
    return str(parser.renderer.render(tokens, parser.options, {}))


def _verdict(grid: GridResults, pair: Pair) -> Verdict | None:
    # a grid of one category has no means over categories
    means = grid.intervals[grid.intervals["category"] == MEAN]
    means = means if len(means) else grid.intervals
    rows = {detector: means[means["detector"] == detector] for detector in grid.detectors}
    path = f"plots/verdict/{grid.pairs.index(pair) + 1}.svg"
    plot = _forest(grid, path, f"{pair}: means over categories", rows, [pair], means)
    if plot is None:
        return None
    verdict = Verdict(pair, [], [], [], {}, plot)
    of = means[(means["a"] == pair.a) & (means["b"] == pair.b) & means["metric"].isin(HEADLINE)]
    for row in of.itertuples():
        # printed bounds may be +0.000 or -0.000: the sign tells the side of 0
        decided = verdict.above if math.copysign(1, row.low) > 0 else verdict.below
        group = decided if row.excludes_zero else verdict.undecided
        group.append(f"{LABELS[row.metric]} with {row.detector}")
        over = verdict.categories.setdefault(row.metric.partition("_")[0], [])
        over += [row.categories] if row.categories not in over else []
    return verdict


def _detector_section(grid: GridResults, detector: str, images: bool) -> DetectorSection:
    intervals = grid.intervals[grid.intervals["detector"] == detector]
    rows = {category: intervals[intervals["category"] == category] for category in grid.categories}
    if MEAN in set(intervals["category"]):
        rows[OVER_CATEGORIES] = intervals[intervals["category"] == MEAN]
    path = f"plots/differences/{detector}.svg"
    curves = [(category, plot) for category in grid.categories if (plot := _curves(grid, detector, category))]
    return DetectorSection(
        detector,
        run_metadata.settings(grid, detector),
        tables.results_table(grid, detector),
        tables.differences_table(grid, detector),
        _forest(grid, path, f"{detector}: differences by category", rows, grid.pairs_of(detector), grid.intervals),
        tables.operating_points_table(grid, detector),
        comparisons(grid, detector),
        curves,
        heatmap_grids(grid, grid.pairs[0], detector, images=images) if grid.pairs else [],
    )


def _curves(grid: GridResults, detector: str, category: str) -> Plot | None:
    path = f"plots/curves/{detector}/{category}.svg"
    runs = {label: [r.scores() for r in grid.select(label, detector, category)] for label in grid.backbones}
    if not any(runs.values()):
        return None
    return Plot(path, plots.curves(path, runs), f"{detector}, {category}: curves and histograms")


def _forest(
    grid: GridResults,
    path: str,
    description: str,
    rows: Mapping[str, pd.DataFrame],
    pairs: Sequence[Pair],
    scale: pd.DataFrame,
) -> Plot | None:
    """Plot the headline metrics of some pairs, if there are any, on axes that reach as far as the intervals of ``scale``."""
    series = {
        str(pair): plots.SERIES[(FIRST_PAIR_COLOR + grid.pairs.index(pair)) % len(plots.SERIES)] for pair in pairs
    }
    forest_rows = []
    for label, intervals in rows.items():
        found = {
            (row.metric, f"{row.a} minus {row.b}"): Interval(row.difference, row.low, row.high, row.excludes_zero)
            for row in intervals.itertuples()
            if row.metric in HEADLINE
        }
        forest_rows.append(plots.ForestRow(label, found, strong=label == OVER_CATEGORIES))
    metrics = {metric for row in forest_rows for metric, name in row.intervals if name in series}
    reach = scale[["difference", "low", "high"]].abs().max(axis=1).groupby(scale["metric"]).max()
    limits = {metric: max(0.005, 1.08 * reach[metric]) for metric in HEADLINE if metric in metrics}
    return Plot(path, plots.forest(path, forest_rows, limits, series), description) if limits else None
