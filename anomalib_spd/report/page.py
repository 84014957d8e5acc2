"""The report of a benchmark: one HTML page, and the same in Markdown with its plots beside it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from anomalib_spd.report import plots, tables
from anomalib_spd.report import run_metadata as circumstances
from anomalib_spd.report.comparison import Differences, Findings, Pair, compare, load
from anomalib_spd.report.heatmaps import Sheet, gradient, sheets
from anomalib_spd.report.published_tables import Comparison, comparisons
from anomalib_spd.report.tables import METRICS, Table

PAGE, TEXT = "report.html", "report.md"
GENERATOR = "anomalib-spd report"

#: what verdicts and forest plots are of: the trapezoidal areas say what the step-wise ones say
HEADLINE = ("image_AUROC", "image_AUPR_step", "pixel_AUROC", "pixel_AUPR_step")

# pairs do not wear the colours of backbones
PAIRS = 3

CAUTION = (
    "The intervals hold 95 % of a paired bootstrap over test images and seeds: how much others might move a difference."
)
ONE_TRAINING = "They do not cover another training of these backbones, each of which is one set of weights: {}."
TRAINED_ANEW = "With each seed, these were trained anew: {}."
PAPERS = (
    "What the papers print of the same data set, category, detector and coreset. It was measured by others, with their "
    "backbones and settings."
)

#: the rows of a forest plot: label -> detector, and category or None for the mean over categories
Rows = Mapping[str, tuple[str, str | None]]


@dataclass(frozen=True)
class Plot:
    """A plot: a file beside the Markdown, an element in the page."""

    path: str
    svg: str
    description: str

    @property
    def inline(self) -> Markup:
        """The element."""
        return Markup(plots.inline(self.svg, str(Markup.escape(self.description))))


class Verdict(NamedTuple):
    """What the means of a pair say: where A is ahead, where behind, and where the interval holds 0."""

    pair: Pair
    ahead: list[str]
    behind: list[str]
    undecided: list[str]
    image_categories: list[str]
    pixel_categories: list[str]
    plot: Plot

    @property
    def total(self) -> int:
        """All of them."""
        return len(self.ahead) + len(self.behind) + len(self.undecided)


class Chapter(NamedTuple):
    """All that is said of one detector."""

    detector: str
    settings: Sequence[str]
    results: Table
    differences: Table
    forest: Plot | None
    published: Sequence[Comparison]
    curves: Sequence[tuple[str, Plot]]
    sheets: Sequence[Sheet]


def write_report(results: Path, output: Path, *, images: bool = True, resamples: int = 2000) -> None:
    """Write ``report.html``, ``report.md`` and ``plots``.

    Args:
        results: folder of results.
        output: new, empty, or an earlier report.
        images: whether photographs and masks are shown.
        resamples: of the bootstrap.

    Raises:
        ValueError: ``results`` holds none, or ``output`` holds something else.
    """
    _check(output)
    findings = load(results)
    differences = compare(findings, resamples)
    verdicts = [verdict for pair in findings.pairs if (verdict := _verdict(findings, differences, pair))]
    chapters = [
        _chapter(findings, differences, detector, images)
        for detector in findings.grid.detectors
        if findings.of(detector=detector)
    ]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=lambda name: name is not None and name.startswith(PAGE),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["markdown"] = _escaped
    content = {
        "generator": GENERATOR,
        "findings": findings,
        "grid": findings.grid,
        "summary": _summary(findings),
        "caution": [CAUTION, *_trainings(findings), _chance(differences)],
        "papers": PAPERS,
        "verdicts": verdicts,
        "chapters": chapters,
        "images": circumstances.images_table(findings),
        "costs": circumstances.costs_table(findings),
        "weights": circumstances.weights_table(findings),
        "failures": circumstances.failures_table(findings),
        "with_images": images,
        "gradient": gradient(),
    }
    texts = {name: environment.get_template(f"{name}.j2").render(content) for name in (PAGE, TEXT)}
    texts[TEXT] = re.sub(r"\n{3,}", "\n\n", texts[TEXT])
    drawn = [verdict.plot for verdict in verdicts]
    for chapter in chapters:
        drawn += [chapter.forest] if chapter.forest else []
        drawn += [plot for _, plot in chapter.curves]
    _write(output, texts, drawn)


def _summary(findings: Findings) -> str:
    grid = findings.grid
    axes = {"backbone": grid.backbones, "detector": grid.detectors, "category": grid.categories, "seed": grid.seeds}
    sizes = [_plural(len(labels), name) for name, labels in axes.items()]
    measured = f"{len(findings.measured)} of {_plural(len(grid.cells()), 'cell')} measured"
    return (
        f"{', '.join(sizes)}: {measured}, {len(findings.failed)} failed, {len(findings.missing)} missing. Means are over "
        "the categories named with them, and no figures of a whole data set."
    )


def _trainings(findings: Findings) -> list[str]:
    """What the seeds say of the trainings of the backbones."""
    grid = findings.grid
    texts = []
    for text, anew in ((ONE_TRAINING, False), (TRAINED_ANEW, True)):
        if labels := [label for label in grid.backbones if grid.trained_anew(label) == anew]:
            texts.append(text.format(", ".join(labels)))
    return texts


def _chance(differences: Differences) -> str:
    return (
        f"This report has {len(differences)} such intervals: were there no difference at all, about 1 in 20 would exclude "
        "0 by chance."
    )


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun.removesuffix('y')}{'ies' if noun[-1] == 'y' else 's'}"


def _check(output: Path) -> None:
    """Refuse a folder that holds what is no report of ours."""
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file, expected a folder for the report: give another as --output")
    page = output / PAGE
    ours = page.is_file() and GENERATOR in page.read_text(encoding="utf-8", errors="replace")[:1000]
    if output.is_dir() and any(output.iterdir()) and not ours:
        raise ValueError(f"{output} is neither empty nor an earlier report: give another folder as --output")


def _write(output: Path, texts: Mapping[str, str], drawn: Sequence[Plot]) -> None:
    output.mkdir(parents=True, exist_ok=True)
    # the page first: what was begun is then known as a report, and can be written again
    for name, text in texts.items():
        (output / name).write_text(text, encoding="utf-8")
    for stale in (output / "plots").rglob("*.svg"):
        stale.unlink()
    for plot in drawn:
        path = output / plot.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(plot.svg, encoding="utf-8")


def _verdict(findings: Findings, differences: Differences, pair: Pair) -> Verdict | None:
    means = {key: each for key, each in differences.items() if key[2] is None}
    rows = {detector: (detector, None) for detector in findings.grid.detectors}
    path = f"plots/verdict/{findings.pairs.index(pair) + 1}.svg"
    plot = _forest(path, f"{pair}: means over categories", means, rows, findings, [pair])
    if plot is None:
        return None
    verdict = Verdict(pair, [], [], [], [], [], plot)
    for (of, detector, _, metric), each in means.items():
        if of == pair and metric in HEADLINE:
            low, high = each.interval.low, each.interval.high
            side = verdict.ahead if low > 0 else verdict.behind if high < 0 else verdict.undecided
            side.append(f"{METRICS[metric]} with {detector}")
            level = verdict.image_categories if metric.startswith("image") else verdict.pixel_categories
            level += [", ".join(each.categories)] * (", ".join(each.categories) not in level)
    return verdict


def _chapter(findings: Findings, differences: Differences, detector: str, images: bool) -> Chapter:
    rows: dict[str, tuple[str, str | None]] = {category: (detector, category) for category in findings.grid.categories}
    if len(rows) > 1:
        rows["mean over categories"] = detector, None
    path = f"plots/differences/{detector}.svg"
    measured = findings.of(detector=detector)
    return Chapter(
        detector,
        circumstances.settings(measured),
        tables.results_table(findings, detector),
        tables.differences_table(findings, differences, detector),
        _forest(path, f"{detector}: differences by category", differences, rows, findings, findings.pairs),
        comparisons(findings, detector),
        [
            (category, _curves(findings, detector, category))
            for category in findings.grid.categories
            if findings.of(detector=detector, category=category)
        ],
        sheets(findings, findings.pairs[0], detector, images=images) if findings.pairs else [],
    )


def _curves(findings: Findings, detector: str, category: str) -> Plot:
    path = f"plots/curves/{detector}/{category}.svg"
    scores = {
        backbone: [result.scores() for result in findings.of(backbone, detector, category)]
        for backbone in findings.grid.backbones
    }
    return Plot(path, plots.curves(path, scores), f"{detector}, {category}: curves and histograms")


def _forest(
    path: str, description: str, differences: Differences, rows: Rows, findings: Findings, pairs: Sequence[Pair]
) -> Plot | None:
    """Plot some of the differences, if there are any, on the scale of all that are given."""
    reach: dict[str, float] = {}
    for (_, _, _, metric), each in differences.items():
        furthest = max(abs(each.interval.low), abs(each.interval.high), abs(each.interval.value))
        reach[metric] = max(reach.get(metric, 0.005), 1.08 * furthest)
    stripes = [
        plots.Stripe(
            label,
            {
                (metric, str(pair)): differences[pair, *row, metric].interval
                for pair in pairs
                for metric in HEADLINE
                if (pair, *row, metric) in differences
            },
            strong=row[1] is None and len(rows) > len(findings.grid.detectors),
        )
        for label, row in rows.items()
    ]
    shown = {metric for stripe in stripes for metric, _ in stripe.intervals}
    if not shown:
        return None
    panels = [plots.Panel(metric, METRICS[metric], reach[metric]) for metric in HEADLINE if metric in shown]
    colours = {str(pair): plots.SERIES[(PAIRS + findings.pairs.index(pair)) % len(plots.SERIES)] for pair in pairs}
    return Plot(path, plots.forest(path, stripes, panels, colours), description)


def _escaped(text: str) -> str:
    """Text that Markdown prints as it stands, also in a cell of a table."""
    return re.sub(r"([\\`*|<>#~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))", r"\\\1", text)
